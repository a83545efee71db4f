"""Vitis HLS and Vivado: the build plan for a board with a Zynq, and what a finished build measured.

The scripts are real files in ``hls_templates/tcl``; only ``settings.tcl`` is generated.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from flow.errors import ConfigError, ToolError, UnsupportedError
from flow.resources import data_folder
from flow.toolchains.vitis.reports import (
    parse_clock_period,
    parse_csynth_xml,
    parse_power,
    parse_timing_summary,
    parse_utilization,
)
from flow.types import Board, Command, HlsProject, Plan, Report

STEPS = (
    "open HLS project",
    "C simulation",
    "C synthesis",
    "cosimulation",
    "export IP",
    "block design",
    "synthesis",
    "implementation",
    "reports",
    "bitstream",
)
"""What the scripts announce, each on a line ``flow: step <name>``."""
PROGRAMS = ("vitis_hls", "vitis-run", "vivado")
OLDEST, NEWEST = (2022, 2), (2025, 2)
"""The versions that the scripts are written for."""
_UNIFIED = (2024, 2)
"""The first version in which vitis-run takes the place of vitis_hls."""

MONITOR = "flow_monitor.v"
CSYNTH = "reports/csynth.xml"
_UTILIZATION = "reports/utilization.rpt"
_TIMING = "reports/timing.rpt"
_POWER = "reports/power.rpt"
_COMMON = ("build.sh", "common.tcl", "vitis_hls.tcl")
_HLS_COMMANDS = {
    "vitis_hls": ("vitis_hls", "-f", "vitis_hls.tcl"),
    "vitis-run": ("vitis-run", "--mode", "hls", "--tcl", "vitis_hls.tcl"),
}
_JOBS = 4  # parallel runs in Vivado; each takes some 2 GB

# keys of the board's [ps] table that the processor's IP has parameters for; the vendor's hand-offs (.hwh) name those
_PS_PARAMETERS = {
    "zynq7000": {
        "crystal_mhz": "PCW_CRYSTAL_PERIPHERAL_FREQMHZ",
        "cpu_mhz": "PCW_APU_PERIPHERAL_FREQMHZ",
        "ddr_type": "PCW_UIPARAM_DDR_MEMORY_TYPE",
        "ddr_part": "PCW_UIPARAM_DDR_PARTNO",
        "ddr_width_bits": "PCW_UIPARAM_DDR_BUS_WIDTH",
        "ddr_mhz": "PCW_UIPARAM_DDR_FREQ_MHZ",
    },
    "zynq_ultrascale": {"crystal_mhz": "PSU__PSS_REF_CLK__FREQMHZ"},
}
_PS7_MEMORIES = {"DDR3": "DDR 3", "DDR3L": "DDR 3 (Low Voltage)", "DDR2": "DDR 2", "LPDDR2": "LPDDR 2"}


def hls_program(versions: Mapping[str, str | None]) -> str:
    """Return the program that runs HLS: ``vitis-run`` from 2024.2 on, ``vitis_hls`` before.

    Args:
        versions: what `PROGRAMS` said of themselves, ``None`` for one that is not there.
    """
    if versions.get("vitis_hls") is None and versions.get("vitis-run") is not None:
        return "vitis-run"
    found = version_of(versions.get("vitis_hls"))
    new = found is not None and found >= _UNIFIED and versions.get("vitis-run") is not None
    return "vitis-run" if new else "vitis_hls"


def missing(versions: Mapping[str, str | None]) -> tuple[str, ...]:
    """Return the programs that a build lacks."""
    return tuple(name for name in (hls_program(versions), "vivado") if versions.get(name) is None)


def check_versions(versions: Mapping[str, str | None]) -> None:
    """Refuse tools of versions that the scripts are not written for, and two versions side by side.

    A version that cannot be read is let through.

    Raises:
        ToolError: too old, too new, or an HLS tool newer than Vivado, which cannot read its IP.
    """
    hls = hls_program(versions)
    found = {name: version_of(versions[name]) for name in (hls, "vivado")}
    for name, version in found.items():
        if version is not None and not OLDEST <= version <= NEWEST:
            raise ToolError(
                f"synthesize: {name!r} must be of version {_text(OLDEST)} to {_text(NEWEST)}, not {_text(version)}; "
                "source the settings64.sh of such a version"
            )
    mine, theirs = found[hls], found["vivado"]
    if mine is not None and theirs is not None and mine > theirs:
        raise ToolError(
            f"synthesize: 'vivado' must be at least as new as {hls!r}, {_text(mine)}, not {_text(theirs)}; source the "
            "settings64.sh of one version for both"
        )


def version_of(text: str | None) -> tuple[int, int] | None:
    """Return year and release out of what a program says of itself, such as ``vivado v2023.2 (64-bit)``."""
    found = re.search(r"\bv?(20\d\d)\.(\d)\b", text or "")
    return (int(found[1]), int(found[2])) if found else None


def _text(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"


def plan(
    project: HlsProject,
    board: Board,
    *,
    hls: str = "vitis_hls",
    cosim: bool = False,
    out_of_context: bool = False,
    monitor: bool = True,
) -> Plan:
    """Return the build of ``project`` for ``board``.

    The plan's folder must hold a copy of the HLS project in ``hls/``. ``build.sh`` is the same build by hand; it
    chooses the HLS program where it runs.

    Args:
        project: the converted network, for the board's part.
        board: a board with a Zynq.
        hls: the HLS program, see `hls_program`.
        cosim: also run the generated Verilog against the test bench (slow).
        out_of_context: place and route the network alone; there is no bitstream then.
        monitor: put registers around the network: the design's id, its clocks, a reset (`monitor`).

    Raises:
        UnsupportedError: the board has no Zynq.
        ConfigError: project and board are for different parts, or a value cannot be written into Tcl.
    """
    check_board(board)
    kind = board.ps["type"]
    if out_of_context:
        names: tuple[str, ...] = ("vivado_ooc.tcl",)
        vivado = Command(
            ("vivado", "-mode", "batch", "-nojournal", "-source", "vivado_ooc.tcl"), "logs/vivado.log"
        )
    else:
        names = ("vivado.sh", "vivado.tcl", f"vivado_{kind}.tcl")
        vivado = Command(("sh", "vivado.sh"), "logs/vivado.log", name="vivado")
    scripts = data_folder("hls_templates") / "tcl"
    files = {name: (scripts / name).read_text(encoding="utf-8") for name in (*_COMMON, *names)}
    identity = design_id(project, board)
    files["settings.tcl"] = _settings(project, board, identity, cosim, monitor)
    if monitor and not out_of_context:
        files[MONITOR] = _monitor(identity, round(1e9 / project.clock_period_ns))
    return Plan(
        files=files,
        commands=(Command(_HLS_COMMANDS[hls], "logs/vitis_hls.log"), vivado),
        products=products(project.top, out_of_context),
    )


def products(top: str, out_of_context: bool) -> tuple[str, ...]:
    """Return what a whole build leaves; the first is the last that the scripts write."""
    made = (f"{top}_ooc.dcp",) if out_of_context else (f"{top}.bit", f"{top}.hwh")
    return (*made, CSYNTH, _UTILIZATION, _TIMING, _POWER)


def check_board(board: Board) -> None:
    """Refuse a board that the block design does not exist for.

    Raises:
        UnsupportedError: the board has no Zynq.
    """
    kind = board.ps.get("type")
    if kind not in _PS_PARAMETERS:
        raise UnsupportedError(
            f"synthesize: board {board.name!r} must have one of {', '.join(_PS_PARAMETERS)} as its PS for Vivado, not "
            f"{kind or 'none'}; choose such a board, or --toolchain open where the board has it"
        )


def design_id(project: HlsProject, board: Board) -> str:
    """Return 16 hexadecimal digits that tell designs apart: of the C++, its weights and test vectors, and the board."""
    hashed = hashlib.sha256(f"{board.name} {project.clock_period_ns!r}".encode())
    for path in sorted(_sources(project.path)):
        hashed.update(f"{path.relative_to(project.path).as_posix()}\0".encode())
        hashed.update(path.read_bytes())
    return hashed.hexdigest()[:16]


def _sources(folder: Path) -> Iterable[Path]:
    for part in ("firmware", "tb_data"):
        yield from (path for path in (folder / part).rglob("*") if path.is_file() and path.suffix != ".so")


def _monitor(design: str, clock_hz: int) -> str:
    """Return the monitor's Verilog for a design: block designs spell wide parameters in ways of their own."""
    text = (data_folder("hls_templates") / "verilog" / MONITOR).read_text(encoding="utf-8")
    for default, value in (
        ("DESIGN_ID = 64'h0000000000000000", f"DESIGN_ID = 64'h{design}"),
        ("CLOCK_HZ = 100000000", f"CLOCK_HZ = {clock_hz}"),
    ):
        if text.count(default) != 1:
            raise ValueError(f"{MONITOR} must hold {default!r} once")
        text = text.replace(default, value)
    return text


def _settings(project: HlsProject, board: Board, identity: str, cosim: bool, monitor: bool) -> str:
    """Return the text of settings.tcl; every value is checked and brace-quoted."""
    if project.part != board.part:
        raise ConfigError(
            f"synthesize: the HLS project must be for {board.part} ({board.name}), not {project.part}; "
            f"convert for board {board.name!r}"
        )
    period = project.clock_period_ns
    if not (math.isfinite(period) and period > 0):
        raise ConfigError(f"synthesize: clock_period_ns must be positive, not {period}; convert again")
    values = {
        "board": board.name,
        "top": project.top,
        "part": board.part,
        "ps_type": board.ps["type"],
        "clock_period_ns": f"{period:.10g}",
        "clock_mhz": f"{1000 / period:.10g}",
        "cosim": str(int(cosim)),
        "monitor": str(int(monitor)),
        "design_id": identity,
        "jobs": str(_JOBS),
    }
    lines = ["# Read by the scripts of this folder."]
    lines += [f"set settings({name}) {_quoted(name, value)}" for name, value in values.items()]
    parameters = [f"    {name} {_quoted(name, value)}" for name, value in _ps(board).items()]
    lines += ["set settings(ps) {", *parameters, "}"]
    return "\n".join(lines) + "\n"


def _ps(board: Board) -> Mapping[str, str]:
    """Return the processor's parameters for what the board's [ps] table holds."""
    values: dict[str, str] = {}
    for key, parameter in _PS_PARAMETERS[board.ps["type"]].items():
        value = board.ps.get(key)
        if value is None:
            continue
        if key == "ddr_type":
            if value not in _PS7_MEMORIES:
                raise ConfigError(
                    f"synthesize: ps.ddr_type must be one of {', '.join(_PS7_MEMORIES)}, not {value!r}; "
                    f"correct board {board.name!r}"
                )
            values[parameter] = _PS7_MEMORIES[value]
        elif key == "ddr_width_bits":
            values[parameter] = f"{value} Bit"
        else:
            values[parameter] = f"{value:.10g}" if isinstance(value, float) else str(value)
    return values


def _quoted(name: str, value: str) -> str:
    """Brace-quote a Tcl word; only characters that mean nothing to Tcl inside braces are let through."""
    if not re.fullmatch(r"[A-Za-z0-9_.,:()/+ -]+", value):
        raise ConfigError(
            f"synthesize: {name} must consist of letters, digits and '_.,:()/+ -', not {value!r}; correct it"
        )
    return "{" + value + "}"


def report(folder: Path) -> Report:
    """Return what a finished build in ``folder`` measured.

    Resources and slack are those of the routed design, with the PS's interconnect and DMA (of the network alone out
    of context); latency and interval are Vitis HLS's, for the AXI4-Stream top.

    Raises:
        ToolError: a report is missing or damaged.
    """
    estimate = parse_csynth_xml(folder / CSYNTH)
    timing = parse_timing_summary(folder / _TIMING)
    slack_ns = timing.setup_slack_ns
    period_ns = parse_clock_period(folder / _TIMING)
    return replace(
        estimate,
        resources=parse_utilization(folder / _UTILIZATION),
        fmax_mhz=None if slack_ns is None or period_ns is None else 1000 / (period_ns - slack_ns),
        slack_ns=slack_ns,
        hold_slack_ns=timing.hold_slack_ns,
        power_w=parse_power(folder / _POWER).total_w,
    )
