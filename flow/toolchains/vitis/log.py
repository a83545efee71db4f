"""What the logs of a vendor build say: how far it is, and what went wrong."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

_SHOWN = 8
_ERROR = re.compile(r"^\s*(?:ERROR\b|FATAL\b|\[?error\]?:|MISMATCH |FRAMING |.*: (?:fatal )?error: )")
_STEP = re.compile(r"^flow: step (.+)$")
_DETAIL = re.compile(
    r"^(?:Phase (?P<phase>[\d.]+ [^|]+)|Starting (?P<task>.+?) Task"
    r"|INFO: \[HLS 200-10\] -- (?P<hls>.+?)\s*|Command: (?P<command>[a-z_]+_design)\b.*)$"
)
_PLAIN_SLACK = re.compile(r"^flow: (worst \w+ slack .+|fabric clock .+)$")

ADVICE = (
    (
        r"valid license was not found|license for feature .* (?:denied|failed)|\[Common 17-345\]|checkout.*license",
        "a licence for this part must be there: start Vivado's licence manager, set XILINXD_LICENSE_FILE, or choose a "
        "part of the free Standard edition such as xc7z020",
    ),
    (r"No space left on device|disk (?:is )?full|ENOSPC|write error", "the disk must have room; free some"),
    (
        r"part .*(?:not found|not installed|could not be found)|\[Coretcl 2-106\]|\[Common 17-70\].*part",
        "the board's part must be installed with Vivado: add its device family in the installer",
    ),
    (
        r"std::bad_alloc|out of memory|Cannot allocate memory|\bKilled\b",
        "the machine must have enough memory; close other programs, or take one with more (--host)",
    ),
    (
        r"IP catalog must hold",
        "Vivado's IP catalog must hold it: the installation is incomplete, or of a version that lacks it",
    ),
    (r"GLIBC|libtinfo|libncurses|cannot open shared object", "a library of the system must be there; install it"),
    (
        r"^MISMATCH |^FRAMING |@E Simulation failed|\[SIM 212-100\]|\[SIM 211-100\]",
        "the C++ must compute the same under the vendor's headers; run flow emulate with [emulate] header = "
        '"vendor" and report the layer',
    ),
    (r"slack must be 0 ns", "the clock must be reached; raise synth_clk_period_ns, or prune or fold more"),
    (
        r"over-?utili[sz]ed|\[Place 30-640\]|\[DRC UTLZ-\d\]|exceeds the available",
        "the network must fit the board; prune more, use fewer bits, or higher reuse factors (flow fit)",
    ),
)  # fmt: skip
"""Patterns of error lines, and the rule that is broken with its next step."""


def detail(line: str) -> tuple[str | None, str | None]:
    """Return the step that a line of a log announces, or what is done within a step; both ``None``: neither."""
    step = _STEP.match(line)
    if step:
        return step[1], None
    found = _DETAIL.match(line)
    if found:
        return None, next(text for text in found.groups() if text).strip()
    slack = _PLAIN_SLACK.match(line)
    return None, slack[1] if slack else None


def errors(folder: Path) -> tuple[str, ...]:
    """Return the error lines of every log of a build, each once, the first ones first."""
    return tuple(dict.fromkeys(_error_lines(_logs(folder))))[:_SHOWN]


def advice(lines: Iterable[str]) -> str | None:
    """Return what the first known error among ``lines`` calls for."""
    text = "\n".join(lines)
    return next((rule for pattern, rule in ADVICE if re.search(pattern, text, re.MULTILINE)), None)


def _logs(folder: Path) -> Iterator[Path]:
    """Name the logs: of the programs, and of what they start, the earlier ones first."""
    yield from sorted(folder.glob("logs/*.log"), key=lambda path: path.name != "vitis_hls.log")
    yield from sorted(folder.glob("vivado/vivado.runs/*/runme.log"))
    yield from sorted(folder.glob("vitis/solution/csim/report/*.log"))


def _error_lines(paths: Iterable[Path]) -> Iterator[str]:
    for path in paths:
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        yield from (line.strip() for line in text.splitlines() if _ERROR.match(line))
