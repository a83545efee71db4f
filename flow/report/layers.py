"""The network, layer by layer: the drawing's rows and the table with its totals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flow.report import drawing, text
from flow.report.text import number, section, tables, words

PER_ROW = 12


@dataclass(frozen=True)
class Cell:
    """A figure, after an older one where there is one."""

    after: str
    before: str | None = None


@dataclass(frozen=True)
class LayerRow:
    """One line of the table; ``cells`` follow the table's columns."""

    name: str
    kind: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Label:
    """What stands under one bar of the drawing."""

    name: str
    kind: str
    widths: Cell


@dataclass(frozen=True)
class DrawingRow:
    """One row of the network's drawing."""

    picture: drawing.Drawing
    labels: tuple[Label, ...]


@dataclass(frozen=True)
class Layers:
    """The network before and after."""

    drawings: tuple[DrawingRow, ...]
    columns: tuple[str, ...]
    rows: tuple[LayerRow, ...]
    total: LayerRow
    notes: tuple[str, ...]


# title, key after pruning, key before pruning, whether a total means something
COLUMNS: tuple[tuple[str, str, str | None, bool], ...] = (
    ("channels", "channels_after", "channels_before", True),
    ("parameters", "parameters_after", "parameters_before", True),
    ("MACs", "macs_after", "macs_before", True),
    ("bits a weight", "weight_bits", None, False),
    ("weight bits", "weight_memory_bits", None, True),
    ("bits an activation", "activation_bits", None, False),
    ("reuse factor", "reuse_factor", None, False),
    ("multipliers", "multipliers", None, True),
)


def _figure(layer: Mapping[str, Any], key: str) -> float | None:
    if key == "weight_memory_bits":
        return _memory_bits(layer)
    return number(layer.get(key))


def _memory_bits(layer: Mapping[str, Any]) -> float | None:
    """Return the bits of a layer's weights and of its biases, one an output channel."""
    keys = ("parameters_after", "channels_after", "weight_bits", "bias_bits")
    parameters, biases, weight_bits, bias_bits = (number(layer.get(key)) for key in keys)
    if parameters is None or biases is None or weight_bits is None or bias_bits is None:
        return None
    return (parameters - biases) * weight_bits + biases * bias_bits


def total_of(manifest: Mapping[str, Any], key: str) -> float | None:
    """Return the sum of ``key`` over all layers, ``None`` unless every layer has it."""
    values = [_figure(layer, key) for layer in tables(manifest, "layers")]
    known = [value for value in values if value is not None]
    return sum(known) if known and len(known) == len(values) else None


def _pair(before: float | None, after: float | None) -> Cell:
    return Cell(text.count(after), text.count(before) if before is not None else None)


def layers(manifest: Mapping[str, Any]) -> Layers | None:
    """Read the layers; a column that no layer knows is left out."""
    given = tables(manifest, "layers")
    if not given:
        return None
    columns = [
        column
        for column in COLUMNS
        if any(_figure(layer, key) is not None for layer in given for key in column[1:3] if key)
    ]
    rows = tuple(
        LayerRow(
            words(layer.get("name")) or "unnamed",
            words(layer.get("kind")) or "",
            tuple(
                _pair(_figure(layer, before) if before else None, _figure(layer, after))
                for _, after, before, _ in columns
            ),
        )
        for layer in given
    )
    total = LayerRow("total", "", tuple(_total(manifest, column) for column in columns))
    titles = tuple(title for title, *_ in columns)
    return Layers(_drawings(given), titles, rows, total, _notes(manifest, titles))


def _total(manifest: Mapping[str, Any], column: tuple[str, str, str | None, bool]) -> Cell:
    _, after, before, summed = column
    if not summed:
        return Cell("")
    return _pair(total_of(manifest, before) if before else None, total_of(manifest, after))


def _notes(manifest: Mapping[str, Any], titles: tuple[str, ...]) -> tuple[str, ...]:
    notes = []
    if "weight bits" in titles:
        notes.append("Weight bits: weights and biases after pruning, each at its width.")
    own = []
    for key, noun in (("channels", "channels"), ("parameters", "parameters"), ("macs", "MACs")):
        kept = section(manifest, key)
        before, after = number(kept.get("before")), number(kept.get("after"))
        sums = (total_of(manifest, f"{key}_before"), total_of(manifest, f"{key}_after"))
        if before is not None and after is not None and (before, after) != sums:
            own.append(f"{text.count(before)} → {text.count(after)} {noun}")
    if own:
        notes.append(f"The run itself counts {', '.join(own)}.")
    return tuple(notes)


def _drawings(given: tuple[Mapping[str, Any], ...]) -> tuple[DrawingRow, ...]:
    widths = [(number(layer.get("channels_before")), number(layer.get("channels_after"))) for layer in given]
    known = [width for pair in widths for width in pair if width is not None]
    if not known:
        return ()
    labels = [
        Label(words(layer.get("name")) or "unnamed", words(layer.get("kind")) or "", _pair(*pair))
        for layer, pair in zip(given, widths, strict=True)
    ]
    return tuple(
        DrawingRow(drawing.silhouette(widths[start:stop], max(known)), tuple(labels[start:stop]))
        for start, stop in drawing.chunks(len(given), PER_ROW)
    )
