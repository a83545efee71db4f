"""The Zynq-7000 without a vendor tool: registers behind the processor, the netlist, and the road to a bitstream."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from lowered import integers
from quantized import graph as qonnx
from quantized import project
from rtl_cases import VERILOG, needs_verilator

from flow import boards, doctor
from flow.errors import MismatchError, ToolError, UnsupportedError
from flow.fixed.from_qonnx import lower
from flow.fixed.graph import FixedGraph, Rescale, Tensor
from flow.rtl import RtlDesign, write_rtl
from flow.rtl.verilator import TimedSimulation
from flow.synthesize import open_road, synthesize
from flow.toolchains.open import xc7, zynq
from flow.toolchains.open.zynq import line, reads, writes
from flow.types import Bitstream, FixedPoint, Resources

pytestmark = needs_verilator
BOARD = boards.load("pynq-z2")
DESIGN_ID = "0123456789abcdef"
OKAY, SLVERR = 0, 2
HALFWORD, WRAPPING = 0x5, 0xA
"""Modes of a burst that the top refuses."""


def built(graph: FixedGraph, folder: Path, **options: int) -> tuple[RtlDesign, TimedSimulation]:
    """Return a network and the simulation of its board's top, before synthesis."""
    design = write_rtl(graph, folder / "rtl", module="net", **options)
    top, buffer, work = folder / "top.sv", folder / "bufg.v", folder / "work"
    top.write_text(zynq.zynq_top(design, BOARD, DESIGN_ID))
    buffer.write_text("module BUFG (input I, output O); assign O = I; endmodule\n")
    work.mkdir()
    for memory in design.folder.glob("*.hex"):
        (work / memory.name).write_text(memory.read_text())
    library = {VERILOG / f"{name}.sv" for name in zynq.LIBRARY} | {VERILOG / "models" / "ps7.v"}
    sources = [top, buffer, *sorted(library), *(s for s in design.sources if s.name != "flow_fifo.sv")]
    simulation = TimedSimulation(sources, "flow_board", work, options=("-CFLAGS", "-O0"), timeout_s=300)
    simulation.build()
    return design, simulation


class TestRegisters:
    @pytest.fixture(scope="class")
    def board(
        self, tmp_path_factory: pytest.TempPathFactory
    ) -> tuple[FixedGraph, RtlDesign, TimedSimulation]:
        graph = lower(qonnx("mlp"))
        return graph, *built(graph, tmp_path_factory.mktemp("board"), multipliers=8, adders=False)

    def test_what_the_processor_reads_is_what_the_network_computes(
        self, board: tuple[FixedGraph, RtlDesign, TimedSimulation]
    ) -> None:
        graph, design, simulation = board
        clocks = zynq.check_board(simulation, design, graph, integers(graph, 40)[0])
        assert design.interval_cycles <= clocks < 10 * design.interval_cycles + 100

    def test_a_wrong_result_is_told(
        self, board: tuple[FixedGraph, RtlDesign, TimedSimulation], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        graph, design, simulation = board
        samples = integers(graph, 3)[0]
        right = zynq.execute(graph, [samples])[graph.outputs[0]]
        wrong = right.copy()
        wrong[1, 0] += 1
        monkeypatch.setattr(zynq, "execute", lambda *_: {graph.outputs[0]: wrong})
        with pytest.raises(MismatchError, match="1 of 3 differ, and 0 answers are errors"):
            zynq.check_board(simulation, design, graph, samples)

    def test_registers_tell_what_the_header_says(
        self, board: tuple[FixedGraph, RtlDesign, TimedSimulation]
    ) -> None:
        _, design, simulation = board
        given, made = design.circuit.inputs[0], design.circuit.outputs[0]
        words = [
            len(zynq.to_words(given, np.zeros((1, *given.shape), np.int64))),
            zynq._words(made) * made.beats,
        ]
        got = zynq.answers(simulation, reads(0, 7))
        values = [0x464C4F57, 1, 0x89ABCDEF, 0x01234567, 100_000_000, *words]
        assert got == [(OKAY, value) for value in values]

    def test_what_breaks_the_rules_is_answered_with_an_error_and_changes_nothing(
        self, board: tuple[FixedGraph, RtlDesign, TimedSimulation]
    ) -> None:
        lines = [line(2, 0x30), line(2, 0, mode=HALFWORD), line(2, 0, length=4, mode=WRAPPING)]
        lines += [line(1, 0x0, 7), line(1, 0x1C, 1, mode=HALFWORD), line(2, 0), line(2, zynq.STATUS)]
        got = zynq.answers(board[2], lines)
        assert [response for response, _ in got] == [SLVERR] * 8 + [OKAY] * 2
        assert [value for _, value in got[-2:]] == [0x464C4F57, zynq.ROOM]

    def test_lost_words_and_empty_reads_are_flagged_until_a_reset(
        self, board: tuple[FixedGraph, RtlDesign, TimedSimulation]
    ) -> None:
        graph, design, simulation = board
        sample = integers(graph, 1)[0][:1]
        words = zynq.to_words(design.circuit.inputs[0], sample)
        status = line(2, zynq.STATUS)
        lines = [line(2, zynq.RESULT), status]  # nothing there yet
        lines += [*writes(zynq.SAMPLE, words * 40), status]  # more than the network and all its FIFOs hold
        lines += [line(1, 0x1C, 1), status, *zynq.script(design, sample)]
        got = zynq.answers(simulation, lines)
        assert got[0] == (OKAY, 0) and got[1][1] == 8 | zynq.ROOM
        flags = [value for _, value in got[2:] if value]
        assert flags[0] & 12 == 12 and flags[1] == zynq.ROOM
        made = design.circuit.outputs[0]
        result = [value for _, value in got[-1 - zynq._words(made) * made.beats : -1]]
        want = zynq.execute(graph, [sample])[graph.outputs[0]]
        assert np.array_equal(zynq.from_words(made, result).reshape(want.shape), want)


def test_beats_of_odd_widths_take_whole_words(tmp_path: Path) -> None:
    """45 bits in two words, 40 out in two."""
    x, y = Tensor("x", (4, 5), FixedPoint(True, 9, 0)), Tensor("y", (4, 5), FixedPoint(True, 8, 0))
    node = Rescale("y", ("x",), y, np.array([1]), np.array([0]), 1, "FLOOR", -128, 127)
    graph = FixedGraph((x,), (node,), ("y",))
    design, simulation = built(graph, tmp_path, interval_cycles=4)
    assert design.circuit.inputs[0].width == 45
    zynq.check_board(simulation, design, graph, integers(graph, 16)[0])


class TestNetlist:
    @pytest.fixture(scope="class")
    def out(self, tmp_path_factory: pytest.TempPathFactory) -> Path:
        """Synthesize a small network for the PYNQ-Z2; its netlist is simulated behind the processor."""
        out = tmp_path_factory.mktemp("zynq")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(xc7, "missing", lambda board: ("nextpnr-xilinx", "CHIPDB"))
            options = {"multipliers": 8, "luts": 2_000}
            made = synthesize(
                project("mlp", "io_stream"), board=BOARD, out=out, toolchain="open", rtl_options=options
            )
        assert (made.path, made.report, made.missing_tools) == (None, None, ("nextpnr-xilinx", "CHIPDB"))
        return out

    def test_it_has_the_processor_and_counts_in(self, out: Path) -> None:
        cells = json.loads((out / "netlist.json").read_text())["modules"]["flow_board"]["cells"].values()
        kinds = [cell["type"] for cell in cells]
        assert kinds.count("PS7") == 1 and kinds.count("BUFG") == 1
        total = json.loads((out / "layers.json").read_text())["total"]
        assert 0 < total["luts"] < BOARD.resources.luts and 0 < total["dsps"] < BOARD.resources.dsps


# ---------------------------------------------------------------- placing, with programs that only record


def fake(folder: Path, name: str, body: str = "") -> None:
    path = folder / name
    path.write_text(f'#!/bin/sh\necho "{name} $*" >> calls.txt\n{body}\n')
    path.chmod(0o755)


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Programs that record their command lines, and databases by name."""
    folder, chips, parts = tmp_path / "bin", tmp_path / "chipdb", tmp_path / "prjxray" / "zynq7" / BOARD.part
    for made in (folder, chips, parts):
        made.mkdir(parents=True)
    (chips / "xc7z020.bin").write_bytes(b"")
    (parts / "part.yaml").write_text("")
    fake(
        folder,
        "nextpnr-xilinx",
        "echo \"Info: Max frequency for clock 'clk': 91.25 MHz (FAIL at 100.00 MHz)\"",
    )
    fake(folder, "fasm2frames")
    fake(folder, "xc7frames2bit", "echo bits > flow.bit")
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(xc7.CHIPDB, str(chips))
    monkeypatch.setenv(xc7.PRJXRAY, str(tmp_path / "prjxray"))
    return folder


def test_the_command_lines_of_place_and_route(tools: Path, tmp_path: Path) -> None:
    assert xc7.missing(BOARD) == ()
    plan = xc7.place_plan(BOARD, 3)
    assert plan.files["pins.xdc"] == (
        "set_property LOC R14 [get_ports led0]\nset_property IOSTANDARD LVCMOS33 [get_ports led0]\n"
    )
    root = tools.parent
    assert [" ".join(command.argv) for command in plan.commands] == [
        f"nextpnr-xilinx --chipdb {root}/chipdb/xc7z020.bin --xdc pins.xdc --json netlist.json --fasm flow.fasm "
        "--freq 100.000 --seed 3 --timing-allow-fail",
        f"fasm2frames --part xc7z020clg400-1 --db-root {root}/prjxray/zynq7 flow.fasm flow.frames",
        f"xc7frames2bit --part_file {root}/prjxray/zynq7/xc7z020clg400-1/part.yaml --part_name xc7z020clg400-1 "
        "--frm_file flow.frames --output_file flow.bit",
    ]


@pytest.mark.parametrize("gone", ["nextpnr-xilinx", "fasm2frames", "xc7frames2bit", xc7.CHIPDB, xc7.PRJXRAY])
def test_what_is_missing_is_named_also_by_the_doctor(
    tools: Path, monkeypatch: pytest.MonkeyPatch, gone: str, tmp_path: Path
) -> None:
    if (tools / gone).is_file():
        (tools / gone).unlink()
    else:
        monkeypatch.setenv(gone, str(tmp_path / "elsewhere"))
    assert xc7.missing(BOARD) == (gone,)
    rows = {row["name"]: row for row in doctor.tools()}
    assert rows[gone]["path"] is None and rows[gone]["use"].count("optional")
    if gone in (xc7.CHIPDB, xc7.PRJXRAY):
        assert str(tmp_path / "elsewhere") in rows[gone]["use"]


def test_a_clock_that_nextpnr_misses_leaves_no_bitstream(tools: Path, tmp_path: Path) -> None:
    with pytest.raises(ToolError, match="must reach the clock of 100 MHz, not 91.25 MHz"):
        build(tmp_path)
    assert not (tmp_path / "out" / "flow.bit").exists()


def test_a_clock_that_is_reached_gives_the_bitstream(tools: Path, tmp_path: Path) -> None:
    fake(
        tools,
        "nextpnr-xilinx",
        "echo \"Info: Max frequency for clock 'clk': 112.5 MHz (PASS at 100.00 MHz)\"",
    )
    made = build(tmp_path)
    assert made.path is not None and made.path.read_text() == "bits\n"
    assert made.report is not None and made.report.fmax_mhz == 112.5
    assert made.report.slack_ns == pytest.approx(10 - 1e3 / 112.5) and made.report.resources.luts
    calls = (tmp_path / "out" / "calls.txt").read_text().split("\n")
    assert [call.split(" ")[0] for call in calls[:3]] == list(xc7.PROGRAMS)


def test_a_log_without_a_clock_is_an_error(tmp_path: Path) -> None:
    (tmp_path / xc7.LOG).write_text("Info: nothing\n")
    with pytest.raises(ToolError, match="must tell of a clock"):
        xc7.read_log(tmp_path / xc7.LOG, BOARD, Resources())


def test_a_zynq_ultrascale_has_no_open_road() -> None:
    board = dataclasses.replace(boards.load("kv260"), toolchains=("open",))
    with pytest.raises(UnsupportedError, match="must have a Zynq-7000 or a table"):
        open_road.check(board)


def build(tmp_path: Path) -> Bitstream:
    return synthesize(
        project("mlp", "io_stream"),
        board=BOARD,
        out=tmp_path / "out",
        toolchain="open",
        netlist_frames=0,
        rtl_options={"multipliers": 8, "luts": 2_000},
    )
