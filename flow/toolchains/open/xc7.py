"""Placing, routing and packing for the 7 series: nextpnr-xilinx and prjxray, where they and their databases are."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from flow.build import plan
from flow.errors import ToolError
from flow.toolchains.open.board_top import clock_hz
from flow.toolchains.open.place import NETLIST
from flow.types import Board, Command, Plan, Report, Resources

PROGRAMS = ("nextpnr-xilinx", "fasm2frames", "xc7frames2bit")
CHIPDB, PRJXRAY = "CHIPDB", "PRJXRAY_DB_DIR"
"""Variables of the environment that name folders: of nextpnr's chip databases, of prjxray's."""
_USUAL = {
    CHIPDB: ("/usr/share/nextpnr/xilinx-chipdb", "/opt/nextpnr-xilinx/chipdb"),
    PRJXRAY: ("/usr/share/nextpnr/prjxray-db", "/opt/prjxray-db"),
}
LOG = "nextpnr.log"
_PORTS = ("led0",)
"""Of the board's pins, those that the top has."""


def folders(variable: str) -> tuple[Path, ...]:
    """Return where a database is looked for."""
    named = os.environ.get(variable)
    return tuple(Path(folder) for folder in ((named,) if named else _USUAL[variable]))


def databases(part: str) -> Mapping[str, Path | None]:
    """Return nextpnr's database of the chip, ``<device>.bin``, and prjxray's folder of the part; None: not there."""
    package = part.rsplit("-", 1)[0]
    device = re.sub(r"[a-z]+\d+$", "", package)
    chips = [folder / f"{name}.bin" for folder in folders(CHIPDB) for name in (package, device)]
    parts = [folder / "zynq7" / part for folder in folders(PRJXRAY)]
    return {
        CHIPDB: next((path for path in chips if path.is_file()), None),
        PRJXRAY: next((path for path in parts if (path / "part.yaml").is_file()), None),
    }


def missing(board: Board) -> tuple[str, ...]:
    """Return the programs that are not on PATH, and the databases that were not found."""
    absent = [program for program in PROGRAMS if not plan.find(program)]
    return (*absent, *(name for name, path in databases(board.part).items() if path is None))


def place_plan(board: Board, seed: int = 1) -> Plan:
    """Return the plan that makes ``flow.bit``; nothing must be missing."""
    found = databases(board.part)
    chip, part = found[CHIPDB], found[PRJXRAY]
    if chip is None or part is None:
        raise ToolError(
            f"synthesize: {', '.join(missing(board))} must be there, not missing; flow doctor shows them"
        )
    pins = "".join(
        f"set_property LOC {board.pins[port]} [get_ports {port}]\nset_property IOSTANDARD LVCMOS33 [get_ports {port}]\n"
        for port in _PORTS
    )
    freq = f"{clock_hz(board) / 1e6:.3f}"
    placer = (
        "nextpnr-xilinx",
        "--chipdb",
        str(chip),
        "--xdc",
        "pins.xdc",
        "--json",
        NETLIST,
        "--fasm",
        "flow.fasm",
    )
    return Plan(
        {"pins.xdc": pins},
        (
            Command((*placer, "--freq", freq, "--seed", str(seed), "--timing-allow-fail"), LOG),
            Command(
                (
                    "fasm2frames",
                    "--part",
                    board.part,
                    "--db-root",
                    str(part.parent),
                    "flow.fasm",
                    "flow.frames",
                ),
                "frames.log",
            ),
            Command(
                (
                    *("xc7frames2bit", "--part_file", str(part / "part.yaml"), "--part_name", board.part),
                    *("--frm_file", "flow.frames", "--output_file", "flow.bit"),
                ),
                "pack.log",
            ),
        ),
        ("flow.bit",),
    )


def read_log(path: Path, board: Board, resources: Resources) -> Report:
    """Return what nextpnr said of the clock after routing, beside what yosys counted.

    Raises:
        ToolError: the log does not tell.
    """
    text = path.read_text(encoding="utf-8", errors="replace")
    clocks = dict(re.findall(r"Max frequency for clock\s+'?([^:'\s]+)'?:\s+([\d.]+) MHz", text))
    if not clocks:
        raise ToolError(f"synthesize: {path} must tell of a clock, not of none; build again")
    fmax = min(map(float, clocks.values()))
    return Report(resources, fmax_mhz=fmax, slack_ns=board.clock_period_ns - 1e3 / fmax)
