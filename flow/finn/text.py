"""FINN's verdict in words: rows for tables."""

from __future__ import annotations

from flow.finn import FinnReport

STEP_HEADS = ("step", "verdict", "largest difference", "FINN's reason")
LAYER_HEADS = ("layer", "FINN's layer", "cycles", "LUT", "DSP", "BRAM18")


def step_rows(report: FinnReport) -> list[list[str]]:
    """Return a row a step."""
    return [
        [
            step.name,
            step.status,
            "not executed" if step.max_error is None else f"{step.max_error:g}",
            step.reason,
        ]
        for step in report.steps
    ]


def layer_rows(report: FinnReport) -> list[list[str]]:
    """Return a row a hardware layer, and their sum; of the cycles, the slowest's."""
    rows = [
        [layer.layer, layer.name, *(f"{n:,}" for n in (layer.cycles, layer.luts, layer.dsps, layer.bram18))]
        for layer in report.layers
    ]
    if rows:
        sums = (sum(getattr(layer, key) for layer in report.layers) for key in ("luts", "dsps", "bram18"))
        rows.append(["all", "", *(f"{n:,}" for n in (report.max_cycles, *sums))])
    return rows


def foot(report: FinnReport, clock_period_ns: float) -> str:
    """Return what stands below the tables."""
    lines = [f"{report.samples} samples executed before and after each step"]
    if report.host:
        lines.append(f"left to the processor: {', '.join(report.host)}")
    if report.max_cycles:
        lines.append(
            f"{1e9 / clock_period_ns / report.max_cycles:,.0f} samples a second at {clock_period_ns:g} ns"
        )
    return "\n".join(lines)
