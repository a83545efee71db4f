"""The readers of the vendor's reports, of 2019.2 to 2025.1: one cut short is an error, not a smaller figure."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

from flow.errors import ToolError
from flow.types import Report, Resources

_BLOCK_BITS = 18 * 1024
_LEAST, _MOST = 1e-9, 1e15
"""No figure of a chip lies beyond, whatever its unit; zero is one."""


@dataclass(frozen=True)
class Timing:
    """The design timing summary of a routed design; a slack is ``None`` where nothing is timed.

    ``setup_failing`` and its like count endpoints. ``worst_clock``: the clock of the worst setup slack, or
    ``from -> to`` between two.
    """

    setup_slack_ns: float | None
    setup_total_ns: float | None
    setup_failing: int | None
    hold_slack_ns: float | None
    hold_total_ns: float | None
    hold_failing: int | None
    pulse_slack_ns: float | None
    pulse_total_ns: float | None
    pulse_failing: int | None
    worst_clock: str | None = None


@dataclass(frozen=True)
class Power:
    """Vivado's estimate of the power of a routed design; ``confidence`` is its own word for how good that is."""

    total_w: float
    dynamic_w: float | None = None
    static_w: float | None = None
    confidence: str | None = None


def parse_csynth_xml(path: Path) -> Report:
    """Return Vitis HLS's (or Vivado HLS's) estimates for the top function.

    Args:
        path: ``csynth.xml`` or ``<top>_csynth.xml``.

    Returns:
        Latency and interval are the worst case in cycles, ``None`` where the tool could not tell;
        ``fmax_mhz`` is from the estimated clock period; URAM is not counted.

    Raises:
        ToolError: the file is missing, damaged, or no such report.
    """
    try:
        root = ElementTree.fromstring(read_text(path))  # noqa: S314 - a report of the user's own build
    except ElementTree.ParseError as error:
        raise damaged(path, "be whole XML", f"text that fails with {str(error)!r}") from error
    timing = "PerformanceEstimates/SummaryOfTimingAnalysis/EstimatedClockPeriod"
    latency = "PerformanceEstimates/SummaryOfOverallLatency"
    area = "AreaEstimates/Resources"
    period_ns = _xml_number(path, root, timing)
    dsp = "DSP" if root.find(f"{area}/DSP") is not None else "DSP48E"
    blocks = _xml_number(path, root, f"{area}/BRAM_18K")
    return Report(
        resources=Resources(
            luts=_whole(_xml_number(path, root, f"{area}/LUT")),
            flip_flops=_whole(_xml_number(path, root, f"{area}/FF")),
            dsps=_whole(_xml_number(path, root, f"{area}/{dsp}")),
            bram_bits=None if blocks is None else int(blocks * _BLOCK_BITS),
        ),
        fmax_mhz=1000 / period_ns if period_ns else None,
        latency_cycles=_whole(_xml_number(path, root, f"{latency}/Worst-caseLatency")),
        interval_cycles=_whole(_xml_number(path, root, f"{latency}/Interval-max")),
        best_latency_cycles=_whole(_xml_optional(path, root, f"{latency}/Best-caseLatency")),
        interval_min_cycles=_whole(_xml_optional(path, root, f"{latency}/Interval-min")),
        clock_period_ns=_xml_optional(path, root, "UserAssignments/TargetClockPeriod"),
        estimated_clock_period_ns=period_ns,
    )


def parse_csynth_text(path: Path) -> Report:
    """Return the same as `parse_csynth_xml` from the text of one function, ``<function>_csynth.rpt``.

    For a top that is not pipelined Vivado HLS's text gives the latency as the interval; its XML adds the one cycle
    until the next start.

    Raises:
        ToolError: the file is missing, cut short, or no such report.
    """
    text = read_text(path)
    if not re.search(r"^== (Vivado|Vitis) HLS Report for '", text, re.MULTILINE):
        raise damaged(path, "be Vivado or Vitis HLS's report on a function", "come without that title")
    clocks = table(path, text, "timing summary", r"^\+ Timing: *\n *\* Summary: *\n")
    cycles = table(path, text, "latency summary", r"^\+ Latency: *\n *\* Summary: *\n")[-1]
    used = table(path, text, "utilization summary", r"^== Utilization Estimates\n=+\n\* Summary: *\n")
    total = next((row for row in used if row[0] == "Total"), None)
    if total is None or len(total) != len(used[0]):
        raise damaged(path, "hold a whole utilization summary", "end without it")
    if len(clocks) < 2 or len(clocks[1]) < 3 or len(cycles) < 6:
        raise damaged(path, "hold whole summaries of timing and latency", "ones with fewer cells")
    cells = dict(zip(used[0], total, strict=True))
    period_ns = _cell(path, "the estimated clock period", clocks[1][2].removesuffix("ns"))
    names = ("LUT", "FF", "DSP" if "DSP" in cells else "DSP48E", "BRAM_18K")
    luts, flip_flops, dsps, blocks = (_whole(_cell(path, name, cells.get(name, ""))) for name in names)
    return Report(
        resources=Resources(luts, flip_flops, dsps, None if blocks is None else blocks * _BLOCK_BITS),
        fmax_mhz=1000 / period_ns if period_ns else None,
        latency_cycles=_whole(_cell(path, "the latency", cycles[1])),
        interval_cycles=_whole(_cell(path, "the interval", cycles[5])),
        best_latency_cycles=_whole(_cell(path, "the latency", cycles[0])),
        interval_min_cycles=_whole(_cell(path, "the interval", cycles[4])),
        clock_period_ns=_cell(path, "the clock period", clocks[1][1].removesuffix("ns")),
        estimated_clock_period_ns=period_ns,
    )


def hls4ml_keys(report: Report) -> dict[str, int | float]:
    """Return a report under the keys of hls4ml's own reports, with WNS, WHS and Power beside them.

    Periods and slacks are in ns, latency and interval in cycles, power in W; what is not reported is left out.
    """
    used = report.resources
    values = {
        "TargetClockPeriod": report.clock_period_ns,
        "EstimatedClockPeriod": report.estimated_clock_period_ns,
        "BestLatency": report.best_latency_cycles,
        "WorstLatency": report.latency_cycles,
        "IntervalMin": report.interval_min_cycles,
        "IntervalMax": report.interval_cycles,
        "LUT": used.luts,
        "FF": used.flip_flops,
        "DSP": used.dsps,
        "BRAM_18K": report.bram18,
        "WNS": report.slack_ns,
        "WHS": report.hold_slack_ns,
        "Power": report.power_w,
    }
    return {key: value for key, value in values.items() if value is not None}


def parse_utilization(path: Path) -> Resources:
    """Return the resources in a Vivado utilization report, synthesized or placed.

    A block RAM tile has 36 Kibit; URAM is not counted.

    Raises:
        ToolError: the file is missing, or a row of the four is missing or damaged.
    """
    text = read_text(path)
    luts = _table_cell(path, text, "Slice LUTs", "CLB LUTs")
    flip_flops = _table_cell(path, text, "Slice Registers", "CLB Registers")
    tiles = _table_cell(path, text, "Block RAM Tile")
    dsps = _table_cell(path, text, "DSPs")
    return Resources(int(luts), int(flip_flops), int(dsps), int(tiles * 36 * 1024))


def parse_timing_summary(path: Path) -> Timing:
    """Return the design timing summary of Vivado: setup, hold and pulse width.

    ``worst_clock`` is ``None`` where the file has no tables of clocks.

    Raises:
        ToolError: the file is missing, or its design timing summary is, or a table of clocks that it should hold.
    """
    text = read_text(path)
    cells = _section_row(path, text, "Design Timing Summary", r"\s*WNS\(ns\)")
    if len(cells) != 12:
        raise damaged(path, "hold 12 figures in its design timing summary", str(len(cells)))
    found = [None if cell == "NA" else _number(path, "the timing", cell) for cell in cells]
    return Timing(
        *(found[0], found[1], _whole(found[2])),
        *(found[4], found[5], _whole(found[6])),
        *(found[8], found[9], _whole(found[10])),
        worst_clock=_worst_clock(path, text),
    )


def parse_power(path: Path) -> Power:
    """Return what Vivado estimates that a routed design takes.

    Raises:
        ToolError: the file is missing, or its summary is missing or cut.
    """
    text = read_text(path)
    summary = text.split("\n1.1 On-Chip Components\n---")[0]
    rows = dict(re.findall(r"^\| (\S.*?) +\| ([^ |]+)[^|\n]*\|$", summary, re.MULTILINE))
    names = ("Total On-Chip Power (W)", "Dynamic (W)", "Device Static (W)", "Confidence Level")
    for name in names if _is_whole(text) else names[:1]:
        if name not in rows:
            raise damaged(path, f"hold a whole row {name!r}", "end without it")
    dynamic, static = (_number(path, name, rows[name]) if name in rows else None for name in names[1:3])
    return Power(_number(path, names[0], rows[names[0]]), dynamic, static, rows.get("Confidence Level"))


def parse_clock_period(path: Path) -> float | None:
    """Return the shortest clock period in ns of a Vivado timing summary; ``None`` without a clock.

    Raises:
        ToolError: the file is missing, or its clock summary is.
    """
    text = read_text(path)
    found = re.search(
        r"^\| Clock Summary\n(?:.*\n){3}(Clock +Waveform.*\n[- ]+\n(?:[^\S\n]*\S.*\n)*)\n", text, re.MULTILINE
    )
    if found is None:
        if re.search(r"^There are no user specified timing constraints", text, re.MULTILINE):
            return None
        raise damaged(path, "hold a clock summary", "end without it")
    periods = re.findall(r"\{[^}]*\} +([0-9.]+) ", found.group(1))
    return min(_number(path, "a clock's period", period) for period in periods) if periods else None


def _worst_clock(path: Path, text: str) -> str | None:
    """Return the clock, or ``from -> to``, of the worst setup slack in the three tables of clocks."""
    slacks: list[tuple[float, str]] = []
    for title, names in (("Intra Clock Table", 1), ("Inter Clock Table", 2), ("Other Path Groups Table", 3)):
        found = re.search(
            rf"^\| {title}\n(?:.*\n){{3}}(.*WNS.*)\n([- ]+)\n((?:[^\S\n]*\S.*\n)*)\n", text, re.MULTILINE
        )
        if found is None:
            if _is_whole(text):
                raise damaged(path, f"hold its {title.lower()}", "end without it")
            continue
        end = found[1].index("WNS(ns)") + len("WNS(ns)")  # figures end where their headers do
        for line in found[3].splitlines():
            cells = line[:end].split()
            if len(cells) == names + 1:  # else that clock has no setup paths
                clocks = dict.fromkeys(cells[max(0, names - 2) : names])
                slacks.append((_number(path, "WNS(ns)", cells[-1]), " -> ".join(clocks)))
    return min(slacks)[1] if slacks else None


def _is_whole(text: str) -> bool:
    """Return whether a Vivado report has its head, which comes with all of its sections."""
    return re.search(r"^\| Tool Version", text, re.MULTILINE) is not None


def _section_row(path: Path, text: str, section: str, header: str) -> list[str]:
    """Return the cells of the row under a table's header and rule, in one section of a report."""
    found = re.search(rf"^\| {section}\n(?:.*\n)*?{header}.*\n[- ]+\n(.*)\n", text, re.MULTILINE)
    if found is None:
        raise damaged(path, f"hold a {section.lower()}", "end without it")
    return found.group(1).split()


def table(path: Path, text: str, name: str, title: str) -> list[list[str]]:
    """Return the rows of a table in a report of HLS, cell by cell; without its last rule it is an error.

    Args:
        path: of the report, for messages.
        text: of the report.
        name: of the table, for messages.
        title: what is right before the table, as a pattern.

    Raises:
        ToolError: there is no such table, or it is cut.
    """
    found = re.search(title + r"((?: *[+|].*\n)*?) *\+[-+]+\+\n(?! *[+|])", text, re.MULTILINE)
    lines = [line.strip() for line in found[1].splitlines()] if found else []
    if (
        sum(line.startswith("+") for line in lines) < 2
    ):  # rules above and below the header, beside the last one
        raise damaged(path, f"hold a whole {name}", "end without it")
    return [[cell.strip() for cell in line[1:-1].split("|")] for line in lines if line.startswith("|")]


def _table_cell(path: Path, text: str, *names: str) -> float:
    """Return the 'Used' cell of the first row with one of the names; it must be as long as its header."""
    found = re.search(rf"^\|\s*(?:{'|'.join(names)})\*?\s*\|(.*)\|$", text, re.MULTILINE)
    headers = re.findall(r"^\|\s*Site Type\s*\|(.*)\|$", text[: found.start()] if found else "", re.MULTILINE)
    if found is None or not headers or found.group(1).count("|") != headers[-1].count("|"):
        raise damaged(path, f"hold a whole row {names[0]!r}", "end without it")
    return _number(path, names[0], found.group(1).split("|")[0].strip())


def _xml_optional(path: Path, root: ElementTree.Element, tag: str) -> float | None:
    return None if root.find(tag) is None else _xml_number(path, root, tag)


def _xml_number(path: Path, root: ElementTree.Element, tag: str) -> float | None:
    text = root.findtext(tag)
    if text is None:
        raise damaged(path, f"hold {tag}", "come without it")
    return _cell(path, tag, text)


def _cell(path: Path, name: str, text: str) -> float | None:
    # the tools write one of these where they cannot tell
    return None if text.strip() in ("undef", "?", "-") else _number(path, name, text.strip())


def _number(path: Path, name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if value and not _LEAST < abs(value) < _MOST:  # nan as well
        raise damaged(path, f"hold a number for {name}", repr(text[:80]))
    return value


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)


def read_text(path: Path) -> str:
    """Return a report's text (`ToolError` where it cannot be read)."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise damaged(path, "be a readable file", f"fail with {error.strerror!r}") from error


def damaged(path: Path, rule: str, value: str) -> ToolError:
    """Return the error of a report that breaks a rule."""
    return ToolError(f"synthesize: report {path} must {rule}, not {value}; run the build again")
