"""Convert: QONNX -> an HLS C++ project by hls4ml, with a test bench that compares."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from flow import boards, qonnx_graph
from flow.convert.axis import axis_files
from flow.errors import ConfigError, MismatchError, UnsupportedError
from flow.lsb import exact_lsb, input_lsb
from flow.types import Board, HlsProject, Progress, Quantized, silent

SUPPORTED_OPERATORS = ("Quant", "Conv", "MatMul", "Gemm", "Add", "Relu", "MaxPool", "Flatten")
IO_TYPES = ("io_stream", "io_parallel")
_OURS = ("build_lib.sh", "build_opt.tcl", "build_prj.tcl", "project.tcl", "vivado_synth.tcl", "tb_data")


def convert(
    quantized: Quantized,
    *,
    out: Path,
    board: str | Board = "pynq-z2",
    top: str = "net",
    io_type: str | None = None,
    clock_period_ns: float | None = None,
    golden_samples: int = 16,
    hls: Mapping[str, Any] | None = None,
    progress: Progress = silent,
) -> HlsProject:
    """Write an HLS project for Vitis HLS whose layers have the widths of the network.

    Every type is inferred from the graph; the input takes the type of the input's quantizer, so that a
    sample is rounded once. The graph is put into channels-last form and executed before and after.

    Args:
        quantized: the network.
        out: the project's folder, made if it is missing; best empty.
        board: a name in ``boards/`` or a `Board`: gives the part, the clock and the DSP budget.
        top: name of the C++ top function.
        io_type: ``io_stream`` or ``io_parallel``; ``None``: streams where the network has convs.
        clock_period_ns: ``None``: the board's.
        golden_samples: test vectors that the C++ test bench carries.
        hls: hls4ml's own keys: ``ReuseFactor`` and ``Strategy`` (for all layers), ``Precision`` (of what the
            graph leaves open), ``Model``, ``LayerName`` (by the network's layer names). Without ``ReuseFactor``
            and ``Strategy``, the resource strategy is taken and every layer is folded so that the multipliers
            fit the DSP slices. Depthwise convs have the latency strategy only.
        progress: see `flow.types.Progress`.

    Raises:
        ConfigError: an unknown board, io_type or hls4ml key, an illegal reuse factor, a bad name.
        UnsupportedError: an operator outside `SUPPORTED_OPERATORS`, a pool that io_stream does not have, or
            what hls4ml refuses.
        MismatchError: the channels-last graph does not equal the exported one.
    """
    from flow.convert.hls4ml_project import write_project

    where = boards.load(board) if isinstance(board, str) else board
    period = where.clock_period_ns if clock_period_ns is None else clock_period_ns
    if not period > 0:
        raise ConfigError(
            f"convert: clock_period_ns must be positive, not {period}; the board's is {where.clock_period_ns}"
        )
    if not re.fullmatch(r"[a-z][a-z0-9_]*", top):
        raise ConfigError(f"convert: top must be a lower-case C identifier, not {top!r}; choose another name")
    if golden_samples < 1:
        raise ConfigError(f"convert: golden_samples must be at least 1, not {golden_samples}; 16 is usual")
    out.mkdir(parents=True, exist_ok=True)
    graph = qonnx_graph.load(quantized.onnx_path)
    check_operators(graph)
    if io_type is None:
        convs = any(node.op_type == "Conv" for node in graph.graph.node)
        io_type = "io_stream" if convs else "io_parallel"
    if io_type not in IO_TYPES:
        raise ConfigError(f"convert: io_type must be one of {', '.join(IO_TYPES)}, not {io_type!r}")
    if io_type == "io_stream":
        check_pools(graph)
    progress(0, 3, "channels last")
    channels_last = qonnx_graph.to_channels_last(graph)
    channels_last.save(str(out / "model.onnx"))
    progress(1, 3, "writing C++")
    layers, output = write_project(
        channels_last,
        out,
        top=top,
        io_type=io_type,
        part=where.part,
        clock_period_ns=period,
        dsps=where.resources.dsps or 0,
        input_dtype=quantized.inputs[0].dtype,
        options=dict(hls or {}),
    )
    project = HlsProject(
        path=out,
        top=top,
        io_type=io_type,
        inputs=quantized.inputs,
        outputs=(output,),
        layers=layers,
        onnx_path=out / "model.onnx",
        golden_path=quantized.golden_path,
        clock_period_ns=period,
        part=where.part,
    )
    progress(2, 3, "test bench")
    _finish(project, golden_samples)
    return project


def check_operators(graph: Any) -> None:
    """Refuse operators that the flow does not convert, naming node, operator and rule."""
    for node in graph.graph.node:
        if node.op_type not in SUPPORTED_OPERATORS:
            raise UnsupportedError(
                f"convert: node {node.name!r} ({node.op_type}) is not supported; "
                f"supported operators: {', '.join(SUPPORTED_OPERATORS)}"
            )


def check_pools(graph: Any) -> None:
    """Refuse pools that overlap or skip values: the streaming C++ stops at an assertion."""
    for node in graph.graph.node:
        if node.op_type != "MaxPool":
            continue
        sizes = {entry.name: "x".join(map(str, entry.ints)) for entry in node.attribute}
        if sizes["kernel_shape"] != sizes["strides"]:
            raise UnsupportedError(
                f"convert: layer {node.name!r} (MaxPool, kernel {sizes['kernel_shape']}, stride {sizes['strides']}) is "
                'not supported in io_stream; supported strides: the kernel\'s size; or choose io_type = "io_parallel"'
            )


def _finish(project: HlsProject, golden_samples: int) -> None:
    """Put our top and test bench in the place of hls4ml's own, which never fails."""
    for name in (*_OURS, f"{project.top}_bridge.cpp", f"{project.top}_test.cpp", "hls4ml_config.yml"):
        path = project.path / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    source, result = project.inputs[0], project.outputs[0]
    traced = [(layer.hls_name, int(np.prod(layer.shape))) for layer in project.layers]
    for name, text in axis_files(project.top, project.io_type, source, result, traced).items():
        path = project.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    with np.load(project.golden_path) as golden:
        inputs, outputs = golden["inputs"][:golden_samples], golden["outputs"][:golden_samples]
    write_dat(project.path / "tb_data" / "inputs.dat", input_lsb(source, inputs))
    write_dat(project.path / "tb_data" / "golden.dat", exact_lsb(result, outputs))
    check_weights(project.path / "firmware" / "weights")


def write_dat(path: Path, rows: np.ndarray) -> None:
    """Write integers as text, a frame a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(" ".join(map(str, row)) + "\n" for row in rows.tolist()), encoding="utf-8")


def check_weights(folder: Path) -> None:
    """Check that the weights for synthesis (.h) are those for csim (.txt): hls4ml writes each number twice."""
    for header in sorted(folder.glob("*.h")):
        body = header.read_text(encoding="utf-8").split("{", 1)[1].split("}", 1)[0]
        text = header.with_suffix(".txt").read_text(encoding="utf-8")
        for_synthesis, for_csim = (np.array(part.split(","), dtype=np.float64) for part in (body, text))
        if not np.array_equal(for_synthesis, for_csim):
            raise MismatchError(
                f"convert: {header.name} must hold the numbers of {header.stem}.txt, not others; report the network"
            )
