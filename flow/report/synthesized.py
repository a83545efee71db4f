"""What yosys made of each layer, before and after pruning, beside what was placed and what the board has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flow.report import text
from flow.report.hardware import Hardware
from flow.report.layers import Cell, LayerRow
from flow.report.text import number, section, words

COLUMNS = (("LUT", "luts"), ("FF", "flip_flops"), ("DSP", "dsps"), ("BRAM Kibit", "bram_bits"))
_KIBI = 1024


def synthesized(manifest: Mapping[str, Any]) -> Hardware | None:
    """Read the stages' sums of the open tool chain; ``None`` where it did not run."""
    synthesis = section(manifest, "synthesis")
    found = section(synthesis, "yosys")
    layers, dense = section(found, "layers"), section(found, "dense")
    if not layers:
        return None
    before = section(dense, "layers")
    rows = [_row(name, section(layers, name), section(before, name)) for name in layers]
    gone = [_row(name, {}, section(before, name)) for name in before if name not in layers]
    totals = [
        _row(name, section(found, key), section(dense, key))
        for name, key in (("top", "link"), ("total", "total"))
    ]
    report = section(synthesis, "report")
    placed, board = section(report, "resources"), section(manifest, "board")
    totals += [_row("placed", placed, {})] if placed else []
    totals.append(_row("board", section(board, "resources"), {}))
    notes = ["By yosys, each stage by itself; placing packs carry chains and memories into more LUTs."]
    if before:
        notes.append("Before: the unpruned network, as many clocks a frame, the same widths.")
    fmax = number(report.get("fmax_mhz"))
    if fmax is not None:
        notes.append(f"The routed design reaches {fmax:.1f} MHz by nextpnr's model of the chip.")
    return Hardware(tuple(title for title, _ in COLUMNS), (*rows, *gone), tuple(totals), tuple(notes))


def _row(name: str, used: Mapping[str, Any], before: Mapping[str, Any]) -> LayerRow:
    cells = []
    for _, key in COLUMNS:
        scale = _KIBI if key == "bram_bits" else 1
        after, dense = (number(side.get(key)) for side in (used, before))
        if before and not used:  # pruned away
            after = 0
        shown = [None if figure is None else text.count(round(figure / scale)) for figure in (after, dense)]
        cells.append(Cell(shown[0] or "", shown[1]))
    return LayerRow(words(name) or "unnamed", "", tuple(cells))
