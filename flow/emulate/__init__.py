"""Emulate: run the C++ over whole data sets and compare it with its references, in LSBs."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np

from flow import qonnx_graph
from flow.emulate.csim import Csim
from flow.errors import ConfigError, MismatchError
from flow.lsb import exact_lsb, input_lsb
from flow.types import Emulation, HlsLayer, HlsProject, Progress, silent

LAYER_SAMPLES = 32
"""Samples whose every layer is compared, beside the outputs of all samples."""


def emulate(
    design: HlsProject,
    inputs: np.ndarray | None = None,
    expected: np.ndarray | None = None,
    *,
    labels: np.ndarray | None = None,
    compiler: str = "g++",
    optimization: str = "-O1",
    build_folder: Path | None = None,
    timeout_s: float = 1800,
    progress: Progress = silent,
) -> Emulation:
    """Compile the HLS C++ (csim) and compare every output with what torch and QONNX gave.

    The samples go through the AXI4-Stream top, word for word as the hardware gets them. Every layer is compared too,
    on the first `LAYER_SAMPLES` samples, or on the first one whose output differs.

    Args:
        design: the HLS project.
        inputs: float32 samples, channels first. ``None``: the whole test set, with its outputs and labels, that
            the stage quantize proved equal to torch.
        expected: the reference outputs, (samples, outputs); they must lie on the output's grid.
        labels: class numbers, for the accuracy.
        compiler: a C++14 compiler on PATH.
        optimization: its optimization option.
        build_folder: where the compiler works; ``None``: a temporary folder.
        timeout_s: limit for each program.
        progress: see `flow.types.Progress`.

    Raises:
        ConfigError: shapes do not fit the design.
        ToolError: the compiler is missing or fails (its messages are shown), or the program dies.
        MismatchError: the C++ differs; it names the first layer, sample, index, expected, got, LSBs.
    """
    source, result = design.inputs[0], design.outputs[0]
    if inputs is None and expected is None:
        with np.load(design.golden_path) as golden:
            inputs, expected, labels = golden["inputs"], golden["outputs"], golden["labels"]
    if inputs is None or expected is None:
        raise ConfigError(
            "emulate: inputs and expected must come together, not one alone; leave both out for the test set"
        )
    _check_shapes(design, inputs, expected, labels)
    want = exact_lsb(result, expected)
    with tempfile.TemporaryDirectory() as temporary:
        csim = Csim(design, build_folder or Path(temporary), compiler, optimization, timeout_s)
        progress(0, 2, f"compiling the C++ ({compiler} {optimization})")
        build_seconds = csim.build()
        progress(1, 2, f"running {len(inputs)} samples")
        start = time.perf_counter()
        got = csim.run(input_lsb(source, inputs))
        run_seconds = time.perf_counter() - start
        error = np.abs(got - want)
        wrong = np.flatnonzero(error.any(axis=1))
        picked = wrong[:1] if len(wrong) else np.arange(min(LAYER_SAMPLES, len(inputs)))
        _check_layers(layer_errors(design, csim, inputs[picked]), picked, len(wrong), len(inputs))
        if len(wrong):
            sample, output = np.argwhere(error)[0]
            raise MismatchError(
                f"emulate: C++ must equal QONNX, but {len(wrong)} of {len(inputs)} samples differ; all layers agree, "
                f"but output {output} of sample {sample} is {got[sample, output]} LSB in place of "
                f"{want[sample, output]} LSB; the AXI4-Stream top must be at fault: report it"
            )
    accuracy = float((got.argmax(1) == labels).mean()) if labels is not None else None
    return Emulation(
        samples=len(inputs),
        max_error_lsb=int(error.max()),
        accuracy=accuracy,
        outputs=got,
        layers=tuple(layer.name for layer in design.layers),
        layer_samples=len(picked),
        build_seconds=build_seconds,
        samples_per_second=len(inputs) / run_seconds,
    )


def _check_shapes(
    design: HlsProject, inputs: np.ndarray, expected: np.ndarray, labels: np.ndarray | None
) -> None:
    *spatial, channels = design.inputs[0].shape
    first = (len(inputs), channels, *spatial)
    if len(inputs) == 0 or inputs.shape != first or expected.shape != (len(inputs), design.outputs[0].size):
        shown = ", ".join(map(str, first[1:]))
        raise ConfigError(
            f"emulate: inputs and expected must have shapes (samples, {shown}) and (samples, "
            f"{design.outputs[0].size}), not {inputs.shape} and {expected.shape}; take them from golden.npz"
        )
    if labels is not None and labels.shape != (len(inputs),):
        raise ConfigError(
            f"emulate: labels must be one a sample, {len(inputs)}, not have shape {labels.shape}; "
            "take them from golden.npz"
        )


def layer_errors(
    design: HlsProject, csim: Csim, inputs: np.ndarray
) -> list[tuple[HlsLayer, np.ndarray, np.ndarray]]:
    """Return (layer, expected, got) in LSBs for every layer, in order; float64 (samples, values)."""
    graph = qonnx_graph.load(design.onnx_path)
    last = np.moveaxis(inputs, 1, -1) if inputs.ndim > 2 else inputs
    context = qonnx_graph.execute(graph, last, context=True)
    traces = csim.trace(input_lsb(design.inputs[0], inputs))
    rows = []
    for layer in design.layers:
        scale = layer.dtype.fraction_bits
        want = np.ldexp(context[layer.tensor].reshape(len(inputs), -1).astype(np.float64), scale)
        rows.append((layer, want, np.ldexp(traces[layer.hls_name], scale)))
    return rows


def _check_layers(
    rows: list[tuple[HlsLayer, np.ndarray, np.ndarray]], samples: np.ndarray, wrong: int, total: int
) -> None:
    """Raise for the first layer that differs."""
    head = (
        f"{wrong} of {total} samples differ" if wrong else "an inner layer differs, although no output does"
    )
    for layer, expected, got in rows:
        different = np.argwhere(expected != got)
        if len(different):
            row, flat = different[0]
            index = ", ".join(str(int(i)) for i in np.unravel_index(flat, layer.shape))
            want, found = expected[row, flat], got[row, flat]
            raise MismatchError(
                f"emulate: C++ must equal QONNX, but {head}; first at layer {layer.name!r} ({layer.kind}), sample "
                f"{samples[row]}, index ({index}): expected {want:.16g} LSB, got {found:.16g} LSB, "
                f"{abs(want - found):.16g} LSB apart (1 LSB = 2^{-layer.dtype.fraction_bits}); "
                "compare its Precision in [hls] with the graph's"
            )
