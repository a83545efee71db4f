"""What C synthesis said about each function of a design, layer by layer."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping
from pathlib import Path

from flow.errors import ToolError
from flow.toolchains.vitis.reports import damaged, read_text, table
from flow.types import Report, Resources

_BLOCK_BITS = 18 * 1024
_SUMMED = ("BRAM_18K", "DSP", "FF", "LUT")


def parse_modules(path: Path) -> Mapping[str, Report]:
    """Return the estimates of the functions right below the top, by the names of their modules.

    Args:
        path: Vitis HLS's ``csynth.xml``, or ``<top>_csynth.rpt`` of Vivado HLS or Vitis HLS.

    Returns:
        Latency and interval are the worst case in cycles; ``None`` where the tool could not tell.

    Raises:
        ToolError: the file cannot be read, or is no such report.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
        found = dict(_of_xml(text) if path.suffix == ".xml" else _of_text(text))
    except (OSError, ElementTree.ParseError, ValueError) as error:
        raise ToolError(
            f"synthesize: report {path} must be a C synthesis report, not fail with {str(error)!r}; run the build again"
        ) from error
    if not found:
        raise ToolError(
            f"synthesize: report {path} must name functions, not none; take csynth.xml of Vitis HLS, "
            "or <top>_csynth.rpt of Vivado HLS"
        )
    return found


def parse_summary(path: Path) -> Mapping[str, Report]:
    """Return the estimates of all functions by their names, the top first, from the summary of Vitis HLS.

    Args:
        path: ``csynth.rpt``. Its loops are left out: their resources are their function's.

    Returns:
        Latency is the worst case in cycles, ``None`` where the tool could not tell.

    Raises:
        ToolError: the file cannot be read, is cut short, or is no such report.
    """
    text = read_text(path)
    rows = table(
        path,
        text,
        "table of modules",
        r"^\+ Performance & Resource Estimates: *\n(?: *| *PS:.*)\n(?: *PS:.*\n)?",
    )
    head = rows[1] if len(rows) > 1 else []
    body = [row for row in rows[2:] if row[0].startswith("+ ")]
    wanted = {"(cycles)": "latency", "Interval": "interval", "BRAM": "BRAM_18K"}
    names = [wanted.get(name, name) for name in head]
    if not body or not {"latency", "interval", "BRAM_18K", "DSP", "FF", "LUT"} <= set(names):
        raise damaged(path, "hold a table of modules with their latency and resources", "another one")
    found: dict[str, Report] = {}
    for row in body:
        if len(row) != len(names):
            raise damaged(path, f"hold {len(names)} cells for {row[0][2:]!r}", str(len(row)))
        cells = dict(zip(names, row, strict=True))
        # 3 (1%), or a dash for none
        counts = {name: "0" if cells[name] == "-" else cells[name].split(" ")[0] for name in _SUMMED}
        found.setdefault(row[0][2:].strip(), _report(counts, cells["latency"], cells["interval"]))
    return found


def _of_xml(text: str) -> Iterator[tuple[str, Report]]:
    for module in ElementTree.fromstring(text).iter("Module"):  # noqa: S314 - a report of the user's own build
        area = module.find("AreaEstimates/Resources")
        name = module.findtext("Name")
        if area is None or name is None:
            continue
        cells = {entry.tag: entry.text or "" for entry in area}
        latency = module.find("PerformanceEstimates/SummaryOfOverallLatency")
        cycles = {} if latency is None else {entry.tag: entry.text or "" for entry in latency}
        interval = cycles.get("PipelineInitiationInterval") or cycles.get("Interval-max")
        yield name, _report(cells, cycles.get("Worst-caseLatency"), interval)


def _of_text(text: str) -> Iterator[tuple[str, Report]]:
    cycles = {row[1]: row for row in _instances(text, "Performance Estimates") if len(row) == 9}
    used = re.search(r"== Utilization Estimates.*?\n== ", text, re.DOTALL)
    heads = re.search(r"\| *Instance *\| *Module *\|(.*)\|", used.group(0)) if used else None
    names = [name.strip() for name in heads.group(1).split("|")] if heads else []
    for row in _instances(text, "Utilization Estimates"):
        if len(row) == len(names) + 2:
            timing = cycles.get(row[1])
            latency, interval = (timing[3], timing[7]) if timing else (None, None)
            yield row[1], _report(dict(zip(names, row[2:], strict=True)), latency, interval)


def _instances(text: str, section: str) -> list[list[str]]:
    """Return the rows of a section's table of instances, cell by cell."""
    found = re.search(rf"== {section}.*?\* Instance: *\n(.*?)\n *\* ", text, re.DOTALL)
    rows = [
        [cell.strip() for cell in line.strip().strip("|").split("|")]
        for line in (found.group(1) if found else "").splitlines()
        if "|" in line
    ]
    return [row for row in rows if row[0] and row[0] not in ("Instance", "Total")]


def _report(cells: Mapping[str, str], latency: str | None, interval: str | None) -> Report:
    blocks = _count(cells.get("BRAM_18K"))
    return Report(
        resources=Resources(
            luts=_count(cells.get("LUT")),
            flip_flops=_count(cells.get("FF")),
            dsps=_count(cells.get("DSP", cells.get("DSP48E"))),
            bram_bits=None if blocks is None else blocks * _BLOCK_BITS,
        ),
        latency_cycles=_count(latency),
        interval_cycles=_count(interval),
    )


def _count(text: str | None) -> int | None:
    """Return a whole number; ``None`` for the tools' several words for unknown."""
    return int(text) if text is not None and re.fullmatch("[0-9]{1,15}", text.strip()) else None


def layer_reports(report: Path, source: Path) -> Mapping[str, Report]:
    """Return the estimates by the names of hls4ml's layers.

    Args:
        report: see `parse_modules`.
        source: the C++ of the network, ``firmware/<top>.cpp``: each call names its config and, as a comment, its layer.

    Raises:
        ToolError: a file cannot be read, or is not what it should be.
    """
    modules = parse_modules(report)
    calls = re.findall(r"\b(\w*config\w+)>\([^;]*\); *// *(\S+)", _read_source(source))
    found = {}
    for config, layer in calls:
        ends = [made for name, made in modules.items() if re.search(rf"(^|_){config}(_s)?$", name)]
        if ends:  # a function lies inside another of the same config: the outer one holds both
            found[layer] = max(ends, key=lambda made: made.resources.luts or 0)
    return found


def _read_source(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ToolError(
            f"synthesize: {path} must be a readable file, not fail with {error.strerror!r}; convert again"
        ) from error
