"""The open road: Verilog, yosys, nextpnr, with no vendor tool."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from flow.build import plan
from flow.build.objects import digest
from flow.build.room import scratch
from flow.errors import MismatchError, ToolError, UnsupportedError
from flow.files import hashes, write_json
from flow.fixed import from_qonnx
from flow.fixed.execute import execute
from flow.fixed.golden import read_golden
from flow.fixed.graph import FixedGraph
from flow.fixed.lsb import inputs_lsb
from flow.resources import data_folder
from flow.rtl import RtlDesign, write_rtl
from flow.rtl.streams import Stream
from flow.toolchains.open import board_top, place, tools, xc7, zynq
from flow.toolchains.open.families import Family, family_of
from flow.toolchains.open.netlist import check_netlist
from flow.toolchains.open.pieces import Piece, Yosys, total
from flow.types import Bitstream, Board, HlsProject, Progress, Resources, Tools

GOLDEN_SAMPLES = 256
"""Samples of the test set that go along with a bitstream, for `flow deploy`."""
LAYERS = "layers.json"
"""What each layer takes after synthesis, before placing."""
_STEPS = 3
_NAMES = {"luts": "LUTs", "flip_flops": "flip-flops", "dsps": "DSP slices", "bram_bits": "bits of block RAM"}


def check(board: Board) -> None:
    """Refuse a board that has no open road, and missing programs."""
    family_of(board)
    if not board.fpga and not _zynq(board):
        raise UnsupportedError(
            f"synthesize: board {board.name!r} must have a Zynq-7000 or a table [fpga] for the open toolchain, not "
            "another processor; choose another board"
        )
    tools.require(("yosys",) if _zynq(board) else place.programs(board))


def tools_of(board: Board) -> Tools:
    """Return the wheels and programs that synthesize, simulate and place for the board."""
    used = ("yosys",) if _zynq(board) else place.programs(board)
    found = xc7.databases(board.part) if _zynq(board) else {}
    return Tools(
        packages=tools.distributions(used),
        programs=("g++", "make", *(xc7.PROGRAMS if _zynq(board) else used[1:])),
        databases={name: str(path) for name, path in found.items()},
    )


def _zynq(board: Board) -> bool:
    return board.ps.get("type") == "zynq7000"


@dataclass(frozen=True)
class _Synthesized:
    """A design in pieces: the network's stages, its top around them, and the board's top around that."""

    stages: tuple[Piece, ...]
    network: Piece
    board: Piece

    @property
    def all(self) -> tuple[Piece, ...]:
        return (self.board, self.network, *self.stages)


def build(
    design: HlsProject,
    board: Board,
    out: Path,
    *,
    rtl_options: Mapping[str, Any],
    timeout_s: float | None,
    netlist_frames: int,
    place_seed: int,
    dense_onnx: Path | None,
    proven_rtl: Path | None,
    progress: Progress,
) -> Bitstream:
    """Synthesize, prove, place and pack; see `flow.synthesize.synthesize`.

    ``out`` then holds ``rtl/``, ``netlist.json``, ``layers.json``, the bitstream, ``report.json``, the logs, and what
    `flow deploy` reads: ``link.json`` and ``golden.npz``. For a Zynq-7000 it ends with the netlist where the programs
    that place it, or their databases, are missing.
    """
    out.mkdir(parents=True, exist_ok=True)
    graph, family = from_qonnx.read(design.onnx_path), family_of(board)
    rtl = write_rtl(graph, out / "rtl", module=design.top, **{**family.facts, **rtl_options})
    if proven_rtl is not None:
        _check_proven(rtl, proven_rtl)
    board_top.check_ports(rtl)
    _check_estimate(rtl, family, board)
    _write_link(rtl, graph, board, design, out)
    with scratch("synthesize") as work:
        yosys = Yosys(family, work, timeout_s)
        made = _synthesized(rtl, board, yosys, progress)
        _check_room(rtl, family, made, board)
        if netlist_frames:
            progress(1, _STEPS, f"simulating {netlist_frames} frames of the netlist (Verilator)")
            prove = _prove_board if _zynq(board) else _prove
            prove(rtl, graph, yosys, made, out / "golden.npz", netlist_frames)
        yosys.joined(board_top.TOP, made.all, out, writes=(f"write_json {place.NETLIST}",))
        dense = _dense(dense_onnx, rtl, yosys, progress) if dense_onnx else {}
    _write_layers(rtl, family, made, dense, out)
    if _zynq(board) and (absent := xc7.missing(board)):
        progress(_STEPS, _STEPS, f"netlist written; {', '.join(absent)} not found")
        return Bitstream(None, None, out, "flow synthesize", absent)
    progress(2, _STEPS, "placing and routing (nextpnr; its first call takes a minute more)")
    made_plan = (xc7 if _zynq(board) else place).place_plan(board, place_seed)
    path = plan.run(made_plan, out, subject="synthesize", timeout_s=timeout_s)[0]
    if _zynq(board):
        report = xc7.read_log(out / xc7.LOG, board, total(family, made.all))
    else:
        report = place.read_report(out / place.REPORT, board)
    if report.slack_ns is None or report.slack_ns < 0:
        path.unlink()
        raise ToolError(
            f"synthesize: the routed design must reach the clock of {1e3 / board.clock_period_ns:.4g} MHz, not "
            f"{report.fmax_mhz:.4g} MHz; choose another [synthesize] place_seed, or fewer [rtl] luts or multipliers"
        )
    progress(_STEPS, _STEPS, "done")
    return Bitstream(path, replace(report, interval_cycles=rtl.interval_cycles), out, "")


def _synthesized(rtl: RtlDesign, board: Board, yosys: Yosys, progress: Progress) -> _Synthesized:
    def told(done: int, total: int, text: str) -> None:
        progress(0, _STEPS, text)

    stages = yosys.stages(rtl, told)
    top = (rtl.folder / f"{rtl.top}.sv").read_text(encoding="utf-8")
    make, library = (
        (zynq.zynq_top, zynq.LIBRARY) if _zynq(board) else (board_top.board_top, board_top.LIBRARY)
    )
    text = make(rtl, board, design_id(rtl, board))
    return _Synthesized(
        stages,
        network_piece(rtl, yosys),
        yosys.piece(board_top.TOP, text, _library(*library), {}, boxes=top, pads=True),
    )


def network_piece(rtl: RtlDesign, yosys: Yosys) -> Piece:
    """Return the network's top, its stages boxes in it."""
    top, boxes = (
        (rtl.folder / f"{name}.sv").read_text(encoding="utf-8") for name in (rtl.top, f"{rtl.top}_stages")
    )
    return yosys.piece(rtl.top, top, _library("flow_last", "flow_tap"), {}, boxes=boxes)


def _library(*modules: str) -> dict[str, str]:
    folder = data_folder("hls_templates") / "verilog"
    return {f"{name}.sv": (folder / f"{name}.sv").read_text(encoding="utf-8") for name in modules}


def design_id(rtl: RtlDesign, board: Board) -> str:
    """Return 16 hexadecimal digits that tell designs apart."""
    data = sorted(rtl.folder / name for stage in rtl.circuit.stages for name in stage.data)
    return digest((repr(board),), (*rtl.sources, *data))[:16]


def _prove(
    rtl: RtlDesign, graph: FixedGraph, yosys: Yosys, made: _Synthesized, golden: Path, frames: int
) -> None:
    """Simulate the network's netlist on the first golden samples."""
    yosys.joined(
        rtl.top, (made.network, *made.stages), yosys.folder, writes=("write_verilog -noattr netlist.v",)
    )
    with np.load(golden) as arrays:
        samples = [arrays["inputs"][:frames]]
    netlist, work, limit = yosys.folder / "netlist.v", yosys.folder / "simulation", yosys.timeout_s or 1800
    check_netlist(rtl, yosys.family, netlist, graph, samples, work, limit)


def _prove_board(
    rtl: RtlDesign, graph: FixedGraph, yosys: Yosys, made: _Synthesized, golden: Path, frames: int
) -> None:
    """Simulate the board's whole netlist behind the processor on the first golden samples."""
    folder = yosys.folder / "board"
    folder.mkdir()
    yosys.joined(board_top.TOP, made.all, folder, writes=("write_verilog -noattr netlist.v",))
    limit = yosys.timeout_s or 1800
    simulation = zynq.simulated(yosys.family, folder / "netlist.v", folder / "simulation", limit)
    simulation.build()
    with np.load(golden) as arrays:
        zynq.check_board(simulation, rtl, graph, arrays["inputs"][:frames])


def _check_proven(rtl: RtlDesign, proven: Path) -> None:
    """Refuse Verilog that is not, file by file, what was simulated."""
    made, simulated = hashes(rtl.folder), hashes(proven)
    for name in sorted(made):
        if made[name] != simulated.get(name):
            raise MismatchError(
                f"synthesize: {name} must be the Verilog that was proven, not differ from {proven / name}; give the "
                "same board and options to both, or run again with --from emulate"
            )


def _check_estimate(rtl: RtlDesign, family: Family, board: Board) -> None:
    """Refuse in seconds, before any synthesis, what takes twice the chip or more by the rules of `flow.rtl.chip`.

    Raises:
        UnsupportedError: with the numbers, and the largest layers.
    """
    circuit = rtl.circuit
    need = Resources(luts=round(circuit.luts * family.packing), dsps=circuit.multipliers)
    groups: dict[str, int] = {}
    for stage, layer in zip(circuit.stages, _layer_names(rtl), strict=True):
        groups[layer] = groups.get(layer, 0) + stage.luts
    _refuse(board, need, groups, times=2, about="about ")


def _check_room(rtl: RtlDesign, family: Family, made: _Synthesized, board: Board) -> None:
    """Refuse what the chip has not got, before hours of placing.

    Raises:
        UnsupportedError: with the numbers, and the largest layers.
    """
    need = total(family, made.all)
    need = replace(need, luts=round((need.luts or 0) * family.packing))
    _refuse(board, need, {name: used.luts or 0 for name, used in layers(rtl, family, made.stages).items()})


def _refuse(
    board: Board, need: Resources, luts: Mapping[str, int], *, times: int = 1, about: str = ""
) -> None:
    """Refuse what needs more than ``times`` what the board has; ``luts``: of each layer."""
    short = [
        f"{about}{value:,} {name} of {have:,}"
        for field, name in _NAMES.items()
        if (have := getattr(board.resources, field)) is not None
        and (value := getattr(need, field)) is not None
        and value > times * have
    ]
    if short:
        largest = sorted(luts.items(), key=lambda row: -row[1])[:3]
        shown = ", ".join(f"{name!r} {about}{value:,} LUTs" for name, value in largest)
        raise UnsupportedError(
            f"synthesize: the network must fit {board.title}, not take {', '.join(short)}; prune more, use fewer bits, "
            f"set fewer [rtl] luts or multipliers, or choose a larger board (the largest layers are {shown})"
        )


def _layer_names(rtl: RtlDesign) -> list[str]:
    """Return every stage's layer; the input's stage counts for the first one."""
    first = next(stage.layer for stage in rtl.circuit.stages if stage.layer)
    return [stage.layer or first for stage in rtl.circuit.stages]


def layers(rtl: RtlDesign, family: Family, stages: Sequence[Piece]) -> dict[str, Resources]:
    """Return what each layer's stages take, in order."""
    groups: dict[str, list[Piece]] = {}
    for layer, piece in zip(_layer_names(rtl), stages, strict=True):
        groups.setdefault(layer, []).append(piece)
    return {layer: total(family, pieces) for layer, pieces in groups.items()}


def _dense(onnx: Path, rtl: RtlDesign, yosys: Yosys, progress: Progress) -> dict[str, Any]:
    """Return what the unpruned network would take, layer by layer, at the same clocks a frame."""
    graph = from_qonnx.read(onnx)
    folder = yosys.folder / "dense"
    try:
        pace: dict[str, Any] = {"interval_cycles": rtl.interval_cycles, **yosys.family.facts}
        whole = write_rtl(graph, folder, module=f"{rtl.top}_dense", **pace)
    except UnsupportedError:  # it cannot be as fast
        return {}
    stages = yosys.stages(whole, lambda done, count, text: progress(1, _STEPS, f"unpruned: {text}"))
    return {
        "layers": {name: asdict(used) for name, used in layers(whole, yosys.family, stages).items()},
        "total": asdict(total(yosys.family, stages)),
    }


def _write_layers(
    rtl: RtlDesign, family: Family, made: _Synthesized, dense: Mapping[str, Any], out: Path
) -> None:
    values = {
        "layers": {name: asdict(used) for name, used in layers(rtl, family, made.stages).items()},
        "link": asdict(total(family, (made.board, made.network))),
        "total": asdict(total(family, made.all)),
        "dense": dense,
    }
    write_json(out / LAYERS, values)


def _write_link(rtl: RtlDesign, graph: FixedGraph, board: Board, design: HlsProject, out: Path) -> None:
    """Write what the host needs: `link_facts`, and samples with their results."""
    golden = read_golden(design.golden_path)
    samples = [values[:GOLDEN_SAMPLES] for values in inputs_lsb(graph, golden.inputs)]
    results = execute(graph, samples)
    outputs = results[graph.outputs[0]].reshape(-1, *rtl.circuit.outputs[0].shape)
    arrays: dict[str, Any] = {"inputs": samples[0], "outputs": outputs}
    if golden.labels is not None:
        arrays["labels"] = golden.labels[:GOLDEN_SAMPLES]
    np.savez(out / "golden.npz", **arrays)
    write_json(out / "link.json", link_facts(rtl, board))


def link_facts(rtl: RtlDesign, board: Board) -> dict[str, Any]:
    """Return what the host must know: whom it talks to, and how samples and results travel."""
    return {
        "design_id": design_id(rtl, board),
        "board": board.name,
        "clock_hz": board_top.clock_hz(board),
        "baud": board.fpga.get("baud"),
        "input": _port(rtl.circuit.inputs[0]),
        "output": _port(rtl.circuit.outputs[0]),
    }


def _port(stream: Stream) -> dict[str, Any]:
    return {
        "lanes": stream.lanes,
        "width": stream.dtype.width,
        "signed": stream.dtype.signed,
        "beats": stream.beats,
        "shape": list(stream.shape),
    }
