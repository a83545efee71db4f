"""Place, route and pack: nextpnr and the packers, their constraints and reports."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from flow.errors import ToolError
from flow.toolchains.open import tools
from flow.toolchains.open.board_top import clock_hz
from flow.toolchains.open.families import DSP, FF, LUT, Cost, resources_of
from flow.types import Board, Plan, Report

NETLIST, REPORT = "netlist.json", "report.json"


@dataclass(frozen=True)
class Backend:
    """What places and packs for a family: programs, the constraints' file and text, command lines, product.

    ``used``: what a place that nextpnr's report names stands for.
    """

    programs: tuple[str, str]
    constraints: str
    line: Callable[[str, str], str]
    place: Callable[[Board], tuple[str, ...]]
    pack: Callable[[Board], tuple[str, ...]]
    product: str
    used: Mapping[str, Cost]


def _ecp5(board: Board) -> tuple[str, ...]:
    fpga = board.fpga
    return (
        *(f"--{fpga['device']}", "--package", fpga["package"], "--speed", fpga["grade"]),
        *("--lpf", "./pins.lpf", "--textcfg", "./routed.config"),
    )


def _ice40(board: Board) -> tuple[str, ...]:
    fpga = board.fpga
    return (
        f"--{fpga['device']}",
        "--package",
        fpga["package"],
        "--pcf",
        "./pins.pcf",
        "--asc",
        "./routed.asc",
    )


def _gowin(board: Board) -> tuple[str, ...]:
    options = ("--vopt", f"family={board.fpga['device']}", "--vopt", "cst=./pins.cst")
    return ("--device", board.part, *options, "--write", "./routed.json")


BACKENDS = {
    "ecp5": Backend(
        ("nextpnr-ecp5", "ecppack"),
        "pins.lpf",
        lambda port, pin: f'LOCATE COMP "{port}" SITE "{pin}";\nIOBUF PORT "{port}" IO_TYPE=LVCMOS33;\n',
        _ecp5,
        lambda board: ("--compress", "./routed.config", "./flow.bit"),
        "flow.bit",
        {"TRELLIS_COMB": LUT, "TRELLIS_FF": FF, "MULT18X18D": DSP, "DP16KD": (0, 0, 0, 18_432)},
    ),
    "ice40": Backend(
        ("nextpnr-ice40", "icepack"),
        "pins.pcf",
        lambda port, pin: f"set_io {port} {pin}\n",
        _ice40,
        lambda board: ("./routed.asc", "./flow.bin"),
        "flow.bin",
        {"ICESTORM_LC": LUT, "ICESTORM_DSP": DSP, "ICESTORM_RAM": (0, 0, 0, 4_096)},
    ),
    "gowin": Backend(
        ("nextpnr-himbaechel", "gowin_pack"),
        "pins.cst",
        lambda port, pin: f'IO_LOC "{port}" {pin};\nIO_PORT "{port}" IO_TYPE=LVCMOS33;\n',
        _gowin,
        lambda board: ("-d", board.fpga["device"], "-o", "./flow.fs", "./routed.json"),
        "flow.fs",
        {
            **{"LUT4": LUT, "ALU": LUT, "RAM16SDP4": (4, 0, 0, 0), "DFF": FF},
            **{
                "MULT9X9": (0, 0, 0.5, 0),
                "MULT18X18": DSP,
                "MULT36X36": (0, 0, 4, 0),
                "BSRAM": (0, 0, 0, 18_432),
            },
        },
    ),
}


_MOST = 1e6
"""MHz; far beyond any fabric."""


def programs(board: Board) -> tuple[str, ...]:
    """Return the programs that build a bitstream for a board."""
    return ("yosys", *BACKENDS[board.fpga["family"]].programs)


def place_plan(board: Board, seed: int = 1) -> Plan:
    """Return the plan that makes a bitstream of `NETLIST`."""
    backend = BACKENDS[board.fpga["family"]]
    placer, packer = backend.programs
    freq = f"{clock_hz(board) / 1e6:.3f}"
    shared = (
        "--json",
        f"./{NETLIST}",
        "--freq",
        freq,
        "--report",
        f"./{REPORT}",
        "--seed",
        str(seed),
        "--timing-allow-fail",
    )
    pins = "".join(backend.line(port, pin) for port, pin in board.pins.items())
    return Plan(
        {backend.constraints: pins},
        (
            tools.command(placer, (*shared, *backend.place(board)), "nextpnr.log"),
            tools.command(packer, backend.pack(board), "pack.log"),
        ),
        (backend.product, REPORT),
    )


def read_report(path: Path, board: Board) -> Report:
    """Return what nextpnr measured.

    Raises:
        ToolError: the report is cut short, or has no clock.
    """
    backend = BACKENDS[board.fpga["family"]]
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        clocks = [float(clock["achieved"]) for clock in values["fmax"].values()]
        if not all(0 < clock < _MOST for clock in clocks):
            raise ValueError(f"clocks of {clocks} MHz")
        used = {name: int(row["used"]) for name, row in values["utilization"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ToolError(
            f"synthesize: {path} must be nextpnr's whole report, not broken ({error}); build again"
        ) from error
    if not clocks:
        raise ToolError(f"synthesize: {path} must tell of a clock, not of none; build again")
    fmax = min(clocks)
    resources = resources_of(backend.used, used)
    if not resources.flip_flops:  # the iCE40's share a place with a LUT, and are not counted
        resources = replace(resources, flip_flops=None)
    return Report(
        resources,
        fmax_mhz=fmax,
        slack_ns=board.clock_period_ns - 1e3 / fmax,
    )
