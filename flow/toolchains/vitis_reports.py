"""The readers of the vendor's reports, of 2019.2 to 2025.1: a report that was cut short is an error, not a smaller figure."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from flow.errors import ToolError
from flow.types import Report, Resources


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
        root = ElementTree.fromstring(_read(path))  # noqa: S314 - a report of the user's own build
    except ElementTree.ParseError as error:
        raise _damaged(path, "be whole XML", f"text that fails with {str(error)!r}") from error
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
            bram_bits=None if blocks is None else int(blocks * 18 * 1024),
        ),
        fmax_mhz=1000 / period_ns if period_ns else None,
        latency_cycles=_whole(_xml_number(path, root, f"{latency}/Worst-caseLatency")),
        interval_cycles=_whole(_xml_number(path, root, f"{latency}/Interval-max")),
    )


def parse_utilization(path: Path) -> Resources:
    """Return the resources in a Vivado utilization report, synthesized or placed.

    A block RAM tile has 36 Kibit; URAM is not counted.

    Raises:
        ToolError: the file is missing, or a row of the four is missing or damaged.
    """
    text = _read(path)
    luts = _table_cell(path, text, "Slice LUTs", "CLB LUTs")
    flip_flops = _table_cell(path, text, "Slice Registers", "CLB Registers")
    tiles = _table_cell(path, text, "Block RAM Tile")
    dsps = _table_cell(path, text, "DSPs")
    return Resources(int(luts), int(flip_flops), int(dsps), int(tiles * 36 * 1024))


def parse_timing(path: Path) -> float | None:
    """Return the worst setup slack (WNS) in ns of a Vivado timing summary; ``None`` where nothing is timed.

    Raises:
        ToolError: the file is missing, or its design timing summary is.
    """
    cells = _section_row(path, "Design Timing Summary", r"\s*WNS\(ns\)")
    if len(cells) != 12:
        raise _damaged(path, "hold 12 figures in its design timing summary", str(len(cells)))
    return None if cells[0] == "NA" else _number(path, "WNS(ns)", cells[0])


def parse_clock_period(path: Path) -> float | None:
    """Return the shortest clock period in ns of a Vivado timing summary; ``None`` without a clock.

    Raises:
        ToolError: the file is missing, or its clock summary is.
    """
    text = _read(path)
    found = re.search(
        r"^\| Clock Summary\n(?:.*\n){3}(Clock +Waveform.*\n[- ]+\n(?:.*\S.*\n)*)\n", text, re.MULTILINE
    )
    if found is None:
        if re.search(r"^There are no user specified timing constraints", text, re.MULTILINE):
            return None
        raise _damaged(path, "hold a clock summary", "end without it")
    periods = re.findall(r"\{[^}]*\} +([0-9.]+) ", found.group(1))
    return min(map(float, periods)) if periods else None


def _section_row(path: Path, section: str, header: str) -> list[str]:
    """Return the cells of the row under a table's header and rule, in one section of a report."""
    found = re.search(
        rf"^\| {section}\n(?:.*\n)*?{header}.*\n[- ]+\n(.*)\n",
        _read(path),
        re.MULTILINE,
    )
    if found is None:
        raise _damaged(path, f"hold a {section.lower()}", "end without it")
    return found.group(1).split()


def _table_cell(path: Path, text: str, *names: str) -> float:
    """Return the 'Used' cell of the first row with one of the names; it must be as long as its header."""
    found = re.search(rf"^\|\s*(?:{'|'.join(names)})\*?\s*\|(.*)\|$", text, re.MULTILINE)
    headers = re.findall(r"^\|\s*Site Type\s*\|(.*)\|$", text[: found.start()] if found else "", re.MULTILINE)
    if found is None or not headers or found.group(1).count("|") != headers[-1].count("|"):
        raise _damaged(path, f"hold a whole row {names[0]!r}", "end without it")
    return _number(path, names[0], found.group(1).split("|")[0].strip())


def _xml_number(path: Path, root: ElementTree.Element, tag: str) -> float | None:
    text = root.findtext(tag)
    if text is None:
        raise _damaged(path, f"hold {tag}", "come without it")
    # the tools write one of these where they cannot tell
    return None if text.strip() in ("undef", "?", "-") else _number(path, tag, text.strip())


def _number(path: Path, name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise _damaged(path, f"hold a number for {name}", repr(text)) from None


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise _damaged(path, "be a readable file", f"fail with {error.strerror!r}") from error


def _damaged(path: Path, rule: str, value: str) -> ToolError:
    return ToolError(f"synthesize: report {path} must {rule}, not {value}; run the build again")
