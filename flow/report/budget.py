"""The board's budget beside what is known of the design, and what the vendor tools said."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flow.report import drawing, text
from flow.report.layers import total_of
from flow.report.text import items, number, section, words

NOT_SYNTHESIZED = "not synthesized yet"
RESOURCES = (("luts", "LUTs"), ("flip_flops", "flip-flops"), ("dsps", "DSPs"), ("bram_bits", "BRAM bits"))
# What stands for a resource before synthesis, and the layers' key that holds it.
STAND_INS = {"dsps": ("multipliers", "multipliers"), "bram_bits": ("weight bits", "weight_memory_bits")}


@dataclass(frozen=True)
class Use:
    """One resource; ``estimated`` marks a figure from before synthesis."""

    title: str
    design: str
    board: str
    share: str
    estimated: bool
    known: bool
    over: bool
    picture: drawing.Drawing | None


@dataclass(frozen=True)
class Budget:
    """All resources, the timing lines, and how to synthesize; ``summary`` is its part of the headline."""

    done: bool
    uses: tuple[Use, ...]
    timing: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    command: str | None
    missing_tools: tuple[str, ...]
    summary: str


def budget(manifest: Mapping[str, Any]) -> Budget:
    """Read the board's resources and the synthesis report."""
    synthesis = section(manifest, "synthesis")
    report = section(synthesis, "report")
    done = bool(report)
    board = section(section(manifest, "board"), "resources")
    used = section(report, "resources")
    rows = tuple(_use(manifest, key, title, board, used, done) for key, title in RESOURCES)
    uses = tuple(use for use in rows if use.known or use.board != text.MISSING)
    notes = []
    if any(use.estimated for use in uses):
        notes.append(
            "Figures from before synthesis: the tools may build narrow multipliers from LUTs, "
            "and keep small weights in LUTs or flip-flops."
        )
    missing = () if done else tuple(str(tool) for tool in items(synthesis, "missing_tools"))
    if missing and synthesis.get("toolchain") == "open":
        notes.append(
            f"The netlist is whole, but not placed: {', '.join(missing)} not found; flow doctor shows where they are "
            "looked for."
        )
    return Budget(
        done=done,
        uses=uses,
        timing=(*_timing(manifest, report), *_board(section(manifest, "deployment"))),
        notes=tuple(notes),
        command=None if done else words(synthesis.get("command")),
        missing_tools=missing,
        summary=_summary(synthesis, report, done) + _proven(section(manifest, "deployment")),
    )


def _use(
    manifest: Mapping[str, Any],
    key: str,
    title: str,
    board: Mapping[str, Any],
    used: Mapping[str, Any],
    done: bool,
) -> Use:
    has, takes = number(board.get(key)), number(used.get(key))
    noun, estimated = "", False
    if not done and key in STAND_INS:
        noun, source = STAND_INS[key]
        takes = total_of(manifest, source)
        estimated = takes is not None
    unknown = "not reported" if done else NOT_SYNTHESIZED
    design = unknown if takes is None else f"{text.count(takes)} {noun}".strip()
    share = takes / has if takes is not None and has else None
    return Use(
        title,
        design,
        text.count(has),
        text.percent(share, 1) if share is not None else "",
        estimated,
        takes is not None,
        (share or 0) > 1,
        drawing.bar(share, "estimated" if estimated else "after") if share is not None else None,
    )


def _timing(manifest: Mapping[str, Any], report: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    period = number(section(manifest, "board").get("clock_period_ns"))
    slack, fmax = number(report.get("slack_ns")), number(report.get("fmax_mhz"))
    latency, interval = number(report.get("latency_cycles")), number(report.get("interval_cycles"))
    rows = []
    if slack is not None:
        at = f" at {period:g} ns" if period is not None else ""
        rows.append(("slack", f"{slack:g} ns{at}, timing {'met' if slack >= 0 else 'NOT met'}"))
    if fmax is not None:
        rows.append(("fmax", f"{fmax:g} MHz"))
    if latency is not None:
        time = f", {latency * period / 1000:.3g} µs at {period:g} ns" if period is not None else ""
        rows.append(("latency", f"{text.count(latency)} cycles{time}"))
    power = number(report.get("power_w"))
    if power is not None:
        rows.append(("power", f"{power:g} W by Vivado's estimate"))
    if interval is not None:
        rate = (
            f", {text.count(round(1e9 / (interval * period)))} samples a second"
            if interval and period
            else ""
        )
        rows.append(("interval", f"{text.count(interval)} cycles{rate}"))
    return tuple(rows)


def _board(done: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Return what a board did with the bitstream."""
    if not done:
        return ()
    latency, rate = number(done.get("latency_us")), number(done.get("samples_per_second"))
    link = words(done.get("link")) or "link"
    facts = [text.plural(number(done.get("samples")) or 0, "sample") + " equal"]
    if latency is not None:
        facts.append(f"{latency:,.1f} µs for one")
    if rate is not None:
        facts.append(f"{rate:,.0f} samples a second over the {link}")
    cycles = number(done.get("cycles_per_sample"))
    if cycles is not None:
        facts.append(f"{cycles:,.1f} clocks a sample in a batch")
    return (("on the board", ", ".join(facts)),)


def _proven(done: Mapping[str, Any]) -> str:
    samples = number(done.get("samples"))
    return "" if samples is None else f"; the board equals the integers on {text.plural(samples, 'sample')}"


def _summary(synthesis: Mapping[str, Any], report: Mapping[str, Any], done: bool) -> str:
    if not done:
        status = words(synthesis.get("status"))
        return NOT_SYNTHESIZED if status in (None, "not run") else f"synthesis {status}, without a report"
    slack = number(report.get("slack_ns"))
    if slack is None:
        return "synthesized, slack not reported"
    return f"synthesized, timing {'met' if slack >= 0 else 'NOT met'} with {slack:g} ns of slack"
