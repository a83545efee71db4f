"""FIFO depths in the C++ itself: every layer in a thread of its own, between FIFOs that are as deep as computed."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from conftest import needs
from fixed_graphs import Builder, write

from flow.convert import hls4ml_project, kernel_files
from flow.convert.streams import Process, occupancy
from flow.fixed.execute import execute
from flow.fixed.graph import Add, Concat, Conv, FixedGraph, Mul, Pool, Tensor, Upsample
from flow.types import FixedPoint, HlsProject

STREAMS = Path(__file__).parent / "golden" / "streams"
X = Tensor("x", (6, 8, 2), FixedPoint(True, 4, 0))
Y = Tensor("y", (6, 8, 2), FixedPoint(True, 4, 0))
FRAMES = 3


def network() -> FixedGraph:
    """Two inputs, three outputs; forks and joins around layers that read and write in orders of their own."""
    made = Builder(X, Y)

    def wide(name: str, shape: tuple[int, ...] = (6, 8, 2)) -> Tensor:
        return Tensor(name, shape, FixedPoint(True, 16, 13))

    none, one, two = (((size, size),) * 2 for size in (0, 1, 2))
    made.conv("conv", "x", 2, (3, 3), pads=one)
    signs = FixedPoint(True, 2, 0)
    weight = made.numbers(signs, (2, 3, 3, 1))
    made.add(Conv("dilated", ("x",), wide("dilated"), weight, signs, (1, 1), two, (2, 2), 2))
    made.add(Add("sum", ("conv", "dilated"), wide("sum")))
    made.add(Pool("half", ("sum",), wide("half", (3, 4, 2)), "max", (2, 2), (2, 2), none))
    made.add(Upsample("back", ("half",), wide("back"), (2, 2)))
    made.add(Pool("near", ("y",), wide("near"), "sum", (3, 3), (1, 1), one))
    made.add(Concat("both", ("back", "near"), wide("both", (6, 8, 4))))
    made.add(Mul("square", ("x", "x"), wide("square")))
    made.dense("fc", made.reshape("flat", "both"), 3)
    return made.graph("fc", "square", "sum")


def threaded(text: str) -> str:
    """Return generated C++ with a thread for each call of a layer, and streams as deep as their pragmas say."""
    text = re.sub(r"    nnet::save_layer_output<.*\n", "", text)
    text = re.sub(
        r'\("(\w+)"\);\n\s*#pragma HLS STREAM variable=\w+ depth=(\d+)', r'("\1", \2); // depth \2', text
    )
    call = r"\n    ((?:(?:nnet|flow_kernels)::\w+<.*>|net_unpack|net_pack|net)\(.*\);)(?= *(?://.*)?\n)"
    text, count = re.subn(call, r"\n    layers.add([&] { \1 });", text)
    assert count >= 3
    return text


def run(design: HlsProject, build: Path, rows: np.ndarray) -> subprocess.CompletedProcess[str]:
    """Compile a project with threads and run frames through it."""
    build.mkdir()
    names = (f"{design.top}.cpp", f"{design.top}_axis.cpp")
    for name in names:
        text = threaded((design.path / "firmware" / name).read_text(encoding="utf-8"))
        # declared behind the streams, so that it waits for the layers before they go
        first = text.index("layers.add(")
        place = text.rindex("\n", 0, first) + 1
        (build / name).write_text(
            text[:place] + "    flow_threads layers;\n" + text[place:], encoding="utf-8"
        )
    (build / "weights").symlink_to(design.path / "firmware" / "weights")
    rows.astype("<i8").tofile(build / "inputs.bin")
    root = design.path
    folders = [
        STREAMS,
        root / "firmware",
        root / "firmware" / "ap_types",
        root / "tb",
        root / "tb" / "emulation",
    ]
    sources = [*names, str(root / "tb" / "testbench.cpp")]
    flags = ["-std=c++14", "-O0", "-w", "-pthread", *(f"-I{folder}" for folder in folders)]
    subprocess.run(["g++", *flags, *sources, "-o", "run"], cwd=build, check=True)
    return subprocess.run(
        ["./run", "inputs.bin", "outputs.bin"], cwd=build, capture_output=True, text=True, check=False
    )


def frames(graph: FixedGraph) -> tuple[np.ndarray, np.ndarray]:
    """Return random frames, and what the graph makes of them."""
    rng = np.random.default_rng(2)
    inputs = [
        rng.integers(t.dtype.minimum_lsb, t.dtype.maximum_lsb + 1, (FRAMES, *t.shape)) for t in graph.inputs
    ]
    made = execute(graph, inputs)
    wanted = [made[name].reshape(FRAMES, -1) for name in graph.outputs]
    return np.concatenate([x.reshape(FRAMES, -1) for x in inputs], axis=1), np.concatenate(wanted, axis=1)


def written(
    graph: FixedGraph,
    out: Path,
    monkeypatch: pytest.MonkeyPatch,
    depths: Callable[[Sequence[Process]], dict[str, int]],
) -> HlsProject:
    monkeypatch.setattr(hls4ml_project, "depths", depths)
    design, _ = write(graph, out, "io_stream")
    for name, text in kernel_files().items():
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_text(text, encoding="utf-8")
    return design


@needs("g++")
def test_frames_pass_through_fifos_that_hold_no_more_than_was_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = network()
    found: dict[str, int] = {}

    def bare(processes: Sequence[Process]) -> dict[str, int]:
        found.update(occupancy(processes))
        return found

    design = written(graph, tmp_path / "project", monkeypatch, bare)
    assert max(found.values()) == 48, "the first input waits for the second"
    rows, wanted = frames(graph)
    done = run(design, tmp_path / "build", rows)
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)
    assert np.array_equal(
        np.fromfile(tmp_path / "build" / "outputs.bin", "<i8").reshape(wanted.shape), wanted
    )


@needs("g++")
def test_a_frame_stops_at_a_fifo_that_is_too_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Builder(X)
    made.conv("conv", "x", 2, (3, 3), pads=((1, 1), (1, 1)))
    made.add(Add("sum", ("conv", "x"), Tensor("sum", (6, 8, 2), FixedPoint(True, 16, 13))))
    graph = made.graph("sum")

    def short(processes: Sequence[Process]) -> dict[str, int]:
        found = occupancy(processes)
        beside = max(found, key=lambda name: found[name])
        assert found[beside] == 8 + 2
        return {**found, beside: 2}

    design = written(graph, tmp_path / "project", monkeypatch, short)
    done = run(design, tmp_path / "build", frames(graph)[0])
    assert (done.stdout[:9], done.returncode) == ("DEADLOCK ", 9)
