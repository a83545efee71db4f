"""Where the pruning went: predicted before and after, what C synthesis said, what was placed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flow.report import text
from flow.report.layers import Cell, LayerRow
from flow.report.text import number, section, tables, words

RESOURCES = (("LUT", "luts"), ("FF", "flip_flops"), ("DSP", "dsps"), ("BRAM18", "blocks"))
_BLOCK_BITS = 18 * 1024


@dataclass(frozen=True)
class Hardware:
    """A row a layer and the totals; ``cells`` follow ``columns``."""

    columns: tuple[str, ...]
    rows: tuple[LayerRow, ...]
    totals: tuple[LayerRow, ...]
    notes: tuple[str, ...]


def hardware(manifest: Mapping[str, Any]) -> Hardware | None:
    """Read the comparison; ``None`` without one. Without a synthesis its columns are left out."""
    given = section(manifest, "hardware")
    layers, total = tables(given, "layers"), section(given, "total")
    if not layers:
        return None
    synthesized = any(section(row, "csynth") for row in (*layers, total))
    placed = section(total, "placed")
    columns = []
    for title, _ in RESOURCES:
        columns += [title, *([f"{title} in C synthesis"] if synthesized else [])]
    totals = [_row("total", total, synthesized)]
    if placed:
        totals.append(_placed(placed, synthesized))
    notes = ["Predicted: LUTs, flip-flops and so on that C synthesis is expected to report (flow fit)."]
    if any(section(row, "dense") for row in layers):
        notes.append("Before: the unpruned network at the same pace and the same widths.")
    if placed:
        notes.append("Placed: the routed design, with DMA and interconnect.")
    return Hardware(
        tuple(columns),
        tuple(_row(words(row.get("name")) or "unnamed", row, synthesized) for row in layers),
        tuple(totals),
        tuple(notes),
    )


def _row(name: str, row: Mapping[str, Any], synthesized: bool) -> LayerRow:
    cells = []
    for _, key in RESOURCES:
        before, after = (_amount(section(row, side), key) for side in ("dense", "pruned"))
        cells.append(Cell(text.count(after), text.count(before) if before is not None else None))
        if synthesized:
            true = _amount(section(row, "csynth"), key)
            cells.append(Cell("" if true is None else text.count(true)))
    return LayerRow(name, "", tuple(cells))


def _placed(placed: Mapping[str, Any], synthesized: bool) -> LayerRow:
    cells = []
    for _, key in RESOURCES:
        value = _amount(placed, key)
        cells.append(Cell("" if value is None else text.count(value)))
        cells += [Cell("")] if synthesized else []
    return LayerRow("placed", "", tuple(cells))


def _amount(table: Mapping[str, Any], key: str) -> float | None:
    """Return a figure; the tools' reports give BRAM in bits, the prediction in blocks of 18 Kibit."""
    bits = number(table.get("bram_bits"))
    return bits / _BLOCK_BITS if key == "blocks" and bits is not None else number(table.get(key))
