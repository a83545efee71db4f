"""Convert: QONNX -> an HLS C++ project by hls4ml, with a test bench that compares."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flow import boards
from flow.convert.axis import Side, axis_files
from flow.errors import ConfigError, MismatchError, UnsupportedError
from flow.estimate.io_types import by_preference, check_io_type
from flow.fixed.execute import execute
from flow.fixed.golden import read_golden
from flow.fixed.graph import Conv, FixedGraph, Tensor
from flow.fixed.lsb import input_lsb
from flow.resources import data_folder
from flow.types import Board, HlsProject, Port, Progress, Quantized, silent

if TYPE_CHECKING:
    from flow.convert.hls4ml_project import Written

KERNELS = "firmware/nnet_utils/flow"
"""Where our kernels lie in the HLS project."""
_OURS = ("build_lib.sh", "build_opt.tcl", "build_prj.tcl", "project.tcl", "vivado_synth.tcl", "tb_data")


def convert(
    quantized: Quantized,
    *,
    out: Path,
    board: str | Board = boards.DEFAULT,
    top: str = "net",
    io_type: str | None = None,
    clock_period_ns: float | None = None,
    golden_samples: int = 16,
    hls: Mapping[str, Any] | None = None,
    progress: Progress = silent,
) -> HlsProject:
    """Write an HLS project for Vitis HLS that computes what the network's fixed-point graph does.

    Every type in the C++ is set from the graph: results as they are there, accumulators that hold every partial sum,
    weights and biases as narrow as their numbers. What would stop a synthesis is refused here.

    Args:
        quantized: the network.
        out: the project's folder, made if it is missing; best empty.
        board: a name in ``boards/`` or a `Board`: gives the part, the clock and the DSP budget.
        top: name of the C++ top function.
        io_type: ``io_stream`` or ``io_parallel``; ``None``: streams where the network has convs.
        clock_period_ns: ``None``: the board's.
        golden_samples: test vectors that the C++ test bench carries.
        hls: hls4ml's own keys: ``ReuseFactor``, ``Strategy`` and ``Precision`` (for all layers), ``Model``,
            ``LayerName`` (by the network's layer names). ``Precision`` may widen accumulators, weights and biases.
            Without ``ReuseFactor`` and ``Strategy``, the resource strategy is taken and every layer is folded so
            that the multipliers fit the DSP slices.
        progress: see `flow.types.Progress`.

    Raises:
        ConfigError: an unknown board, io_type or hls4ml key, an illegal reuse factor, a type that loses bits, a
            bad name.
        UnsupportedError: what has no exact fixed-point graph, or what no synthesis would take.
        MismatchError: hls4ml made something else of the graph.
    """
    from flow.convert.hls4ml_project import Target, write_project
    from flow.fixed import from_qonnx

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
    check_io_type("convert", io_type)
    out.mkdir(parents=True, exist_ok=True)
    progress(0, 3, "fixed-point graph")
    graph = from_qonnx.read(quantized.onnx_path)
    if io_type is None:
        io_type = by_preference(any(isinstance(node, Conv) for node in graph.nodes))[0]
    progress(1, 3, "writing C++")
    target = Target(out, top, io_type, where.part, period, where.resources.dsps or 0)
    written = write_project(graph, target, dict(hls or {}))
    project = HlsProject(
        path=out,
        top=top,
        io_type=io_type,
        inputs=tuple(map(_port, graph.inputs)),
        outputs=tuple(_port(graph.tensors[name]) for name in graph.outputs),
        layers=written.layers,
        onnx_path=quantized.onnx_path,
        golden_path=quantized.golden_path,
        clock_period_ns=period,
        part=where.part,
    )
    progress(2, 3, "test bench")
    _finish(project, graph, written, golden_samples)
    return project


def _port(tensor: Tensor) -> Port:
    if len(tensor.scale) != 1:
        raise UnsupportedError(
            f"convert: port {tensor.name!r} must have one scale, not one a channel; quantize it per tensor"
        )
    return tensor.port


def _finish(project: HlsProject, graph: FixedGraph, written: Written, golden_samples: int) -> None:
    """Put our top and test bench in the place of hls4ml's own, which never fails, and add our kernels."""
    for name in (*_OURS, f"{project.top}_bridge.cpp", f"{project.top}_test.cpp", "hls4ml_config.yml"):
        path = project.path / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    traced = [(layer.hls_name, int(np.prod(layer.shape))) for layer in project.layers]
    inputs, outputs = (
        [Side(port, *made) for port, made in zip(ports, found, strict=True)]
        for ports, found in ((project.inputs, written.inputs), (project.outputs, written.outputs))
    )
    files = {**axis_files(project.top, project.io_type, inputs, outputs, traced), **kernel_files()}
    for name, text in files.items():
        path = project.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    given = [
        input_lsb(port, samples[:golden_samples], tensor.order).reshape(-1, *tensor.shape)
        for port, tensor, samples in zip(
            project.inputs, graph.inputs, read_golden(project.golden_path).inputs, strict=True
        )
    ]
    made = execute(graph, given)
    write_dat(project.path / "tb_data" / "inputs.dat", given)
    write_dat(project.path / "tb_data" / "golden.dat", [made[name] for name in graph.outputs])
    check_weights(project.path / "firmware" / "weights", written.weights)


def kernel_files() -> dict[str, str]:
    """Return our own kernels, by their paths in the HLS project."""
    folder = data_folder("hls_templates") / "cpp" / "kernels"
    return {f"{KERNELS}/{path.name}": path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.h"))}


def write_dat(path: Path, ports: Sequence[np.ndarray]) -> None:
    """Write integers as text, a frame a line, port after port; each port is (frames, *shape)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = np.concatenate([port.reshape(len(port), -1) for port in ports], axis=1)
    path.write_text("".join(" ".join(map(str, row)) + "\n" for row in rows.tolist()), encoding="utf-8")


def check_weights(folder: Path, expected: Mapping[str, tuple[np.ndarray, int]]) -> None:
    """Check that the weights for synthesis (.h) and for csim (.txt) are the integers of the graph.

    Args:
        folder: hls4ml's weights.
        expected: for each file's stem the integers in order, and their fraction bits.

    Raises:
        MismatchError: hls4ml, which writes each number twice, wrote another one.
    """
    found = {header.stem for header in folder.glob("*.h")}
    if found != set(expected):
        raise MismatchError(
            f"convert: the weights must be {', '.join(sorted(expected))}, not {', '.join(sorted(found))}; "
            "report the network"
        )
    for stem, (integers, fraction) in expected.items():
        header = (folder / f"{stem}.h").read_text(encoding="utf-8")
        text = (folder / f"{stem}.txt").read_text(encoding="utf-8")
        for name, body in ((f"{stem}.h", header.split("{", 1)[1].split("}", 1)[0]), (f"{stem}.txt", text)):
            steps = np.ldexp(np.array(body.split(","), dtype=np.float64), fraction)
            if not np.array_equal(steps, integers):
                raise MismatchError(
                    f"convert: {name} must hold the integers of the graph, not others; report the network"
                )
