"""Vitis HLS and Vivado: the build plan for a Zynq-7000 board, and what a finished build measured.

The scripts are real files in ``hls_templates/tcl``; only ``settings.tcl`` and ``build.sh`` are generated.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path

from flow.errors import ConfigError, UnsupportedError
from flow.plan import find
from flow.resources import data_folder
from flow.toolchains.vitis_reports import (
    parse_clock_period,
    parse_csynth_xml,
    parse_timing,
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

_CSYNTH = "reports/csynth.xml"
_UTILIZATION = "reports/utilization.rpt"
_TIMING = "reports/timing.rpt"
_HLS_SCRIPT = "vitis_hls.tcl"
_VIVADO_SCRIPT = "vivado_zynq7000.tcl"
_HLS_COMMANDS = (
    ("vitis_hls", "-f", _HLS_SCRIPT),
    ("vitis-run", "--mode", "hls", "--tcl", _HLS_SCRIPT),
)
_VIVADO_COMMAND = ("vivado", "-mode", "batch", "-nojournal", "-source", _VIVADO_SCRIPT)
_JOBS = 4  # parallel runs in Vivado; each takes some 2 GB

# keys of the board's [ps] table that the PS7 has parameters for; the vendor's hand-offs (.hwh) name those
_PS7_PARAMETERS = {
    "crystal_mhz": "PCW_CRYSTAL_PERIPHERAL_FREQMHZ",
    "cpu_mhz": "PCW_APU_PERIPHERAL_FREQMHZ",
    "ddr_type": "PCW_UIPARAM_DDR_MEMORY_TYPE",
    "ddr_part": "PCW_UIPARAM_DDR_PARTNO",
    "ddr_width_bits": "PCW_UIPARAM_DDR_BUS_WIDTH",
    "ddr_mhz": "PCW_UIPARAM_DDR_FREQ_MHZ",
}
_PS7_MEMORIES = {"DDR3": "DDR 3", "DDR3L": "DDR 3 (Low Voltage)", "DDR2": "DDR 2", "LPDDR2": "LPDDR 2"}

_BUILD = """\
#!/bin/sh
# The whole build, on any machine with Vitis HLS and Vivado: sh build.sh
set -eu
cd "$(dirname "$0")"
if command -v vitis_hls >/dev/null; then
    {vitis_hls}
elif command -v vitis-run >/dev/null; then
    {vitis_run}
else
    echo "build: 'vitis_hls' or 'vitis-run' must be on PATH, not missing; source Vitis' settings64.sh" >&2
    exit 1
fi
{vivado}
"""


def plan(project: HlsProject, board: Board, *, cosim: bool = False) -> Plan:
    """Return the build of ``project`` for ``board``.

    The plan's folder must hold a copy of the HLS project in ``hls/``. The HLS program is ``vitis_hls``, or
    ``vitis-run`` when only that is on PATH; ``build.sh`` chooses again where it runs.

    Args:
        project: the converted network, for the board's part.
        board: a board with a Zynq-7000.
        cosim: also run the generated Verilog against the test bench (slow).

    Raises:
        UnsupportedError: the board's PS is not a Zynq-7000.
        ConfigError: project and board are for different parts, or a value cannot be written into Tcl.
    """
    settings = _settings(project, board, cosim)
    scripts = data_folder("hls_templates") / "tcl"
    files = {name: (scripts / name).read_text(encoding="utf-8") for name in (_HLS_SCRIPT, _VIVADO_SCRIPT)}
    files["settings.tcl"] = settings
    files["build.sh"] = _BUILD.format(
        vitis_hls=" ".join(_HLS_COMMANDS[0]),
        vitis_run=" ".join(_HLS_COMMANDS[1]),
        vivado=" ".join(_VIVADO_COMMAND),
    )
    hls = _HLS_COMMANDS[1] if find("vitis_hls") is None and find("vitis-run") else _HLS_COMMANDS[0]
    return Plan(
        files=files,
        commands=(Command(hls, "logs/vitis_hls.log"), Command(_VIVADO_COMMAND, "logs/vivado.log")),
        products=(f"{project.top}.bit", f"{project.top}.hwh", _CSYNTH, _UTILIZATION, _TIMING),
    )


def check_board(board: Board) -> None:
    """Refuse a board that the block design does not exist for.

    Raises:
        UnsupportedError: the board's PS is not a Zynq-7000.
    """
    kind = board.ps.get("type")
    if kind != "zynq7000":
        raise UnsupportedError(
            f"synthesize: board {board.name!r} must have a zynq7000 PS for a bitstream, not {kind}; choose such a "
            "board, or stop with --to emulate and put the HLS project into a block design of your own"
        )


def _settings(project: HlsProject, board: Board, cosim: bool) -> str:
    """Return the text of settings.tcl; every value is checked and brace-quoted."""
    check_board(board)
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
        "clock_period_ns": f"{period:.10g}",
        "clock_mhz": f"{1000 / period:.10g}",
        "cosim": str(int(cosim)),
        "jobs": str(_JOBS),
    }
    lines = [f"# Read by {_HLS_SCRIPT} and {_VIVADO_SCRIPT}."]
    lines += [f"set settings({name}) {_quoted(name, value)}" for name, value in values.items()]
    parameters = [f"    {name} {_quoted(name, value)}" for name, value in _ps7(board).items()]
    lines += ["set settings(ps) {", *parameters, "}"]
    return "\n".join(lines) + "\n"


def _ps7(board: Board) -> Mapping[str, str]:
    """Return the PS7's parameters for what the board's [ps] table holds."""
    values: dict[str, str] = {}
    for key, parameter in _PS7_PARAMETERS.items():
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

    Resources and slack are those of the routed design, with the PS's interconnect and DMA; latency and
    interval are Vitis HLS's, for the AXI4-Stream top.

    Raises:
        ToolError: a report is missing or damaged.
    """
    estimate = parse_csynth_xml(folder / _CSYNTH)
    slack_ns = parse_timing(folder / _TIMING)
    period_ns = parse_clock_period(folder / _TIMING)
    return Report(
        resources=parse_utilization(folder / _UTILIZATION),
        fmax_mhz=None if slack_ns is None or period_ns is None else 1000 / (period_ns - slack_ns),
        slack_ns=slack_ns,
        latency_cycles=estimate.latency_cycles,
        interval_cycles=estimate.interval_cycles,
    )
