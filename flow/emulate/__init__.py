"""Emulate: torch = QONNX = integer executor = C++, over whole data sets, in LSBs."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from flow import qonnx
from flow.build.room import scratch
from flow.emulate.chain import CSIM, HEAD_LSB, INNER, QONNX, Samples, check_csim, check_qonnx, through
from flow.emulate.csim import Csim
from flow.emulate.rtl import emulate_rtl
from flow.errors import ConfigError, MismatchError
from flow.fixed import from_qonnx
from flow.fixed.execute import execute
from flow.fixed.golden import Golden, read_golden
from flow.fixed.graph import FixedGraph, Softmax, Table
from flow.fixed.lsb import exact_lsb, inputs_lsb, placed
from flow.rtl import write_rtl
from flow.training.metric import accuracy
from flow.types import Emulation, HlsProject, Progress, silent

LAYER_SAMPLES = 32
"""Samples whose every layer is compared, beside the outputs of all samples."""
_FOLLOWED = 256
"""Samples with another output than QONNX that are followed layer by layer at a time."""

Arrays = np.ndarray | tuple[np.ndarray, ...]


def emulate(
    design: HlsProject,
    inputs: Arrays | None = None,
    expected: Arrays | None = None,
    *,
    labels: np.ndarray | None = None,
    compiler: str = "g++",
    optimization: str = "-O1",
    header: str = "light",
    jobs: int | None = None,
    build_folder: Path | None = None,
    timeout_s: float = 1800,
    rtl: bool = False,
    rtl_frames: int = 200,
    rtl_options: Mapping[str, Any] | None = None,
    rtl_folder: Path | None = None,
    vcd: bool = False,
    progress: Progress = silent,
) -> Emulation:
    """Run the integer executor and the C++ (csim) and compare every output with what torch and QONNX gave.

    The samples go through the AXI4-Stream top, word for word as the hardware gets them. Every layer is compared too,
    QONNX with the executor and the executor with the C++, on the first `LAYER_SAMPLES` samples, or on the first one
    whose output differs.

    Args:
        design: the HLS project.
        inputs: float32 samples in the layout of the QONNX file (channels first), a tuple of them for several inputs.
            ``None``: the whole test set, with its outputs and labels, that the stage quantize proved equal to torch.
        expected: the reference outputs, (samples, ...), a tuple of them for several outputs.
        labels: class numbers, for the accuracy.
        compiler: a C++17 compiler on PATH.
        optimization: its optimization option.
        header: ``light`` or ``vendor``: whose ap_fixed, ap_int and hls::stream the C++ is compiled with.
        jobs: processes that compile and that run samples at a time; ``None``: one a core.
        build_folder: where the compiler works; ``None``: a temporary folder.
        timeout_s: limit for each program.
        rtl: write the network as Verilog too (`flow.rtl`) and compare it, clock by clock, with the integer executor.
        rtl_frames: samples that the Verilog runs, the first ones.
        rtl_options: ``interval_cycles``, ``multipliers`` and the like of `flow.rtl.write_rtl`.
        rtl_folder: where the Verilog is kept; ``None``: nowhere.
        vcd: keep the waveforms of the first two frames there too, as ``wave.vcd``.
        progress: see `flow.types.Progress`.

    Raises:
        ConfigError: shapes do not fit the design, or an option is out of range.
        UnsupportedError: with ``rtl``, a layer that the Verilog does not have, or that cannot be that fast.
        ToolError: the compiler is missing or fails (its messages are shown), or the program dies.
        MismatchError: a hop differs; it names the first layer, sample, index, expected, got, LSBs.
    """
    if rtl_frames < 1:
        raise ConfigError(f"emulate: rtl_frames must be at least 1, not {rtl_frames}; leave it out")
    model = qonnx.load(design.onnx_path)
    graph = from_qonnx.read(design.onnx_path)
    golden = _golden(design, graph, inputs, expected, labels)
    lsb = inputs_lsb(graph, golden.inputs)
    start = time.perf_counter()
    results = execute(graph, lsb, progress=progress)
    executor_seconds = time.perf_counter() - start
    count = len(lsb[0])
    tied, head_lsb = _check_outputs(graph, model, golden, lsb, results)
    picked = np.arange(min(LAYER_SAMPLES, count))
    followed, head = through(graph, model, golden.inputs, lsb, picked), INNER
    layers, _ = check_qonnx(graph, followed, head)
    want = np.concatenate([results[name].reshape(count, -1) for name in graph.outputs], axis=1)
    rows = np.concatenate([x.reshape(count, -1) for x in lsb], axis=1)
    with scratch("emulate") as temporary:
        csim = Csim(
            design,
            build_folder or temporary,
            compiler,
            optimization,
            timeout_s,
            header=header,
            jobs=jobs,
        )
        progress(0, 2, f"compiling the C++ ({compiler} {optimization})")
        build_seconds = csim.build()
        progress(1, 2, f"running {count} samples")
        start = time.perf_counter()
        got = csim.run(rows)
        run_seconds = time.perf_counter() - start
        wrong = np.flatnonzero((got != want).any(axis=1))
        if len(wrong):
            picked, head = wrong[:1], f"{len(wrong)} of {count} samples differ"
            followed = Samples(picked, execute(graph, [x[picked] for x in lsb], every=True), {})
        checked = check_csim(graph, layers, followed, design.layers, csim.trace(rows[picked]), head)
        if len(wrong):
            sample, output = np.argwhere(got != want)[0]
            raise MismatchError(
                f"emulate: {CSIM}, but {len(wrong)} of {count} samples differ; all layers agree, "
                f"but output {output} of sample {sample} is {got[sample, output]} LSB in place of "
                f"{want[sample, output]} LSB; the AXI4-Stream top must be at fault: report it"
            )
    proof = None
    if rtl:
        with scratch("emulate") as work:
            made = write_rtl(graph, rtl_folder or work, module=design.top, **(rtl_options or {}))
            frames = [x[:rtl_frames] for x in lsb]
            proof = emulate_rtl(graph, made, frames, work, vcd=vcd, timeout_s=timeout_s, progress=progress)
            if vcd and rtl_folder:
                shutil.copyfile(work / "wave.vcd", rtl_folder / "wave.vcd")
    return Emulation(
        samples=count,
        max_error_lsb=int(np.abs(got - want).max()),
        accuracy=accuracy(
            [results[name] for name in graph.outputs], golden.labels, classes=graph.gives_class
        ),
        outputs=got,
        layers=checked,
        layer_samples=len(picked),
        build_seconds=build_seconds,
        samples_per_second=count / run_seconds,
        executor_samples_per_second=count / executor_seconds,
        header=csim.header,
        head_lsb=head_lsb,
        tied_samples=tied,
        rtl=proof,
    )


def _golden(
    design: HlsProject,
    graph: FixedGraph,
    inputs: Arrays | None,
    expected: Arrays | None,
    labels: np.ndarray | None,
) -> Golden:
    """Return what to run and what must come out."""
    if inputs is None and expected is None:
        golden = read_golden(design.golden_path)
    elif inputs is None or expected is None:
        raise ConfigError(
            "emulate: inputs and expected must come together, not one alone; leave both out for the test set"
        )
    else:
        golden = Golden(_tuple(inputs), _tuple(expected), labels)
    _check_shapes(graph, golden)
    return golden


def _tuple(arrays: Arrays) -> tuple[np.ndarray, ...]:
    return arrays if isinstance(arrays, tuple) else (arrays,)


def _check_shapes(graph: FixedGraph, golden: Golden) -> None:
    count = len(golden.inputs[0])
    outputs = [graph.tensors[name] for name in graph.outputs]
    for side, tensors, arrays in (
        ("inputs", list(graph.inputs), golden.inputs),
        ("expected", outputs, golden.outputs),
    ):
        sizes = [tensor.size for tensor in tensors]
        given = [values.shape for values in arrays]
        if (
            count == 0
            or len(given) != len(sizes)
            or any(
                shape[0] != count or int(np.prod(shape[1:])) != size
                for shape, size in zip(given, sizes, strict=True)
            )
        ):
            raise ConfigError(
                f"emulate: {side} must be arrays of equally many samples, at least one, with "
                f"{', '.join(map(str, sizes))} values each, not of shape {', '.join(map(str, given))}; "
                "take them from golden.npz"
            )
    if golden.labels is not None and golden.labels.shape != (count,):
        raise ConfigError(
            f"emulate: labels must be one a sample, {count}, not have shape {golden.labels.shape}; "
            "take them from golden.npz"
        )


def _check_outputs(
    graph: FixedGraph,
    model: Any,
    golden: Golden,
    lsb: Sequence[np.ndarray],
    results: dict[str, np.ndarray],
) -> tuple[int, int]:
    """Compare the executor's outputs with the golden ones; returns the tied samples and a softmax' difference."""
    count = len(lsb[0])
    wrong = np.zeros(count, dtype=bool)
    head_lsb = 0
    made_by = {node.output.name: node for node in graph.nodes}
    for name, values in zip(graph.outputs, golden.outputs, strict=True):
        tensor, node = graph.tensors[name], made_by.get(name)
        want = placed(exact_lsb(tensor.port, values, rounded=isinstance(node, Softmax | Table)), tensor.order)
        error = np.abs(results[name].reshape(count, -1) - want)
        if isinstance(node, Softmax):
            head_lsb = max(head_lsb, int(error[error <= HEAD_LSB].max(initial=0)))
            error[error <= HEAD_LSB] = 0
        wrong |= error.any(axis=1)
    numbers = np.flatnonzero(wrong)
    if not len(numbers):
        return 0, head_lsb
    head = f"{len(numbers)} of {count} samples differ"
    for first in range(0, len(numbers), _FOLLOWED):
        followed = numbers[first : first + _FOLLOWED]
        samples = through(graph, model, golden.inputs, lsb, followed)
        _, tied = check_qonnx(graph, samples, head)
        right = tied & _as_the_file(graph, model, golden, samples)
        if not right.all():
            raise MismatchError(
                f"emulate: {QONNX}, but {head}, although every layer of sample {followed[~right][0]} agrees; "
                "the expected outputs must be those of the QONNX file: quantize anew"
            )
    return len(numbers), head_lsb


def _as_the_file(graph: FixedGraph, model: Any, golden: Golden, samples: Samples) -> np.ndarray:
    """Tell for which samples the golden outputs are what the file itself gives."""
    same = np.ones(len(samples.numbers), dtype=bool)
    for name, output, values in zip(graph.outputs, model.graph.output, golden.outputs, strict=True):
        tensor = graph.tensors[name]
        half = 2.0 ** -(tensor.dtype.fraction_bits + 1) * tensor.scale[0]
        beside = np.abs(values[samples.numbers] - samples.context[output.name]).reshape(len(same), -1)
        same &= (beside < half).all(axis=1)
    return same
