"""A fit in words: rows for a table, what is taken of the board, what is short and what would help."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from flow.fit.result import Fit
from flow.fit.writing import block_text

HEADS = ("layer", "kind", "reuse", "strategy", "LUT", "FF", "DSP", "BRAM18", "cycles")
_SPOKEN = {"luts": "LUT", "flip_flops": "FF", "dsps": "DSP slices", "bram_blocks": "BRAM blocks of 18 Kibit"}


def rows(made: Fit) -> list[list[str]]:
    """Return a row a layer, as C synthesis is expected to report it, in the columns of `HEADS`."""
    return [
        [
            layer.name,
            layer.kind,
            "" if layer.reuse_factor is None else f"{layer.reuse_factor:,}",
            layer.strategy or "",
            *(
                f"{n:,}"
                for n in (layer.luts, layer.flip_flops, layer.dsps, layer.bram_blocks, layer.interval_cycles)
            ),
        ]
        for layer in made.layers
    ]


def head(made: Fit) -> str:
    """Return what was asked and whether it fits."""
    asked = f"{made.board}, {made.target_fps:,.10g} samples a second at {made.clock_period_ns:g} ns, {made.io_type}"
    return f"{asked}: {'fits' if made.fits else 'does not fit'} ({made.source})"


def foot(made: Fit) -> str:
    """Return what stands below the table: uses, rate, and the block to paste or what is short."""
    lines = ["placed, with DMA, interconnect and margin:"]
    for name, use in made.uses.items():
        if math.isfinite(use.available):
            lines.append(
                f"  {math.ceil(use.needed):>9,} of {use.available:>9,.0f} {_SPOKEN[name]} "
                f"({use.needed / use.available:.0%})"
            )
    lines.append(
        f"interval {made.interval_cycles:,} cycles, {made.samples_per_second:,.0f} samples a second; "
        f"latency {made.latency_us:,.1f} µs"
    )
    if made.fits:
        return "\n".join([*lines, "", block_text(made).rstrip()])
    lines += [
        "",
        *(f"short: {math.ceil(use.short):,} {_SPOKEN[name]}" for name, use in made.uses.items() if use.short),
    ]
    if made.samples_per_second < made.target_fps:
        lines.append(f"short: {made.target_fps - made.samples_per_second:,.0f} samples a second")
    lines += [f"would help: {cure.text}" for cure in made.cures] or ["nothing alone would help: combine them"]
    return "\n".join(lines)


def as_json(made: Fit) -> dict[str, Any]:
    """Return the fit for machines; a resource that a board does not state is null."""
    values = dataclasses.asdict(made)
    for use in values["uses"].values():
        if not math.isfinite(use["available"]):
            use["available"] = None
    values["onnx_path"] = None if made.onnx_path is None else str(made.onnx_path)
    return values | {"samples_per_second": made.samples_per_second, "latency_us": made.latency_us}
