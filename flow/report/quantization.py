"""How the network was quantized, and what a search of its bit widths measured."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flow.report import drawing, text
from flow.report.pruning import TITLES, figure
from flow.report.text import number, section, tables, words

SHOWN = 12  # rows in the open; more of them, and those that are beaten fold away
CHOSEN, FRONT, BEATEN = "chosen", "front", "beaten"


@dataclass(frozen=True)
class Point:
    """One assignment of widths that was measured; ``cells`` follow the search's columns."""

    bits: str
    cells: tuple[str, ...]
    state: str


@dataclass(frozen=True)
class Search:
    """Accuracy over cost of all that was measured; ``beaten`` has the points of a long list that others beat."""

    note: str
    columns: tuple[str, ...]
    points: tuple[Point, ...]
    beaten: tuple[Point, ...]
    cost: str
    x_ends: tuple[str, str]
    y_ends: tuple[str, str]
    picture: drawing.Drawing | None


@dataclass(frozen=True)
class Quantization:
    """The options of the quantizers, and the search where one ran."""

    facts: tuple[tuple[str, str], ...]
    search: Search | None


def quantization(manifest: Mapping[str, Any]) -> Quantization | None:
    """Read the stage quantize; ``None`` where nothing is known of it."""
    given = section(manifest, "quantization")
    found = Quantization(_facts(manifest, given), _search(section(given, "precision")))
    return found if given and (found.facts or found.search) else None


def _facts(manifest: Mapping[str, Any], given: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    options = section(section(manifest, "config"), "quantize")
    facts = []
    for title, key in (
        ("weights", "weight_bits"),
        ("activations", "activation_bits"),
        ("biases", "bias_bits"),
    ):
        if widths := _widths(section(given, key)):
            facts.append((title, widths))
    scales = words(given.get("scales")) or words(options.get("scales"))
    per_channel = options.get("per_channel") is True
    if scales or per_channel:
        facts.append(("scales", f"{scales or 'power-of-two'}{', one a channel' if per_channel else ''}"))
    calibration = words(given.get("calibration")) or words(options.get("calibration"))
    if calibration:
        share = number(options.get("percentile")) if calibration == "percentile" else None
        facts.append(("calibration", f"{calibration}{'' if share is None else f' {share:g}'}"))
    if options.get("bias_correction") is True:
        facts.append(("bias correction", "yes"))
    stopped = words(section(section(manifest, "training"), "quantize").get("stopped"))
    return (*facts, ("fine-tuning ended because", stopped)) if stopped else tuple(facts)


def _widths(bits: Mapping[str, Any]) -> str:
    known = [value for width in bits.values() if (value := number(width)) is not None]
    if not known:
        return ""
    low, high = min(known), max(known)
    return f"{text.count(low)} bits" if low == high else f"{text.count(low)} to {text.count(high)} bits"


@dataclass(frozen=True)
class _Measured:
    """One point as numbers."""

    bits: str
    accuracy: float
    figures: Mapping[str, float]
    cost: float


def _search(given: Mapping[str, Any]) -> Search | None:
    measured = [_measured(point, words(given.get("cost"))) for point in tables(given, "points")]
    known = [point for point in measured if point is not None]
    if not known:
        return None
    index = number(given.get("chosen"))
    at = int(index) if index is not None and 0 <= index < len(measured) else -1
    chosen = measured[at] if at >= 0 else None
    states = [CHOSEN if point is chosen else _state(point, known) for point in known]
    order = sorted(range(len(known)), key=lambda place: (known[place].cost, -known[place].accuracy))
    keys = list(dict.fromkeys(key for point in known for key in point.figures))
    rows = [
        Point(known[i].bits, (text.percent(known[i].accuracy), *_cells(known[i], keys)), states[i])
        for i in order
    ]
    long = len(rows) > SHOWN
    name = TITLES.get(words(given.get("cost")) or "", words(given.get("cost")) or "cost")
    costs, shares = [point.cost for point in known], [point.accuracy for point in known]
    x_span, y_span = _nice(costs), drawing.axis(shares, 0.01, 0.0, 1.0)
    spots = [(p.cost, p.accuracy, state) for p, state in zip(known, states, strict=True)]
    return Search(
        note=words(given.get("note")) or "",
        columns=("accuracy", *(TITLES.get(key, key) for key in keys)),
        points=tuple(row for row in rows if not long or row.state != BEATEN),
        beaten=tuple(row for row in rows if long and row.state == BEATEN),
        cost=name,
        x_ends=(text.count(x_span[0]), text.count(x_span[1])),
        y_ends=(f"{y_span[0] * 100:.0f}%", f"{y_span[1] * 100:.0f}%"),
        picture=drawing.tradeoff(spots, x_span, y_span) if len(known) > 1 else None,
    )


def _measured(point: Mapping[str, Any], cost: str | None) -> _Measured | None:
    accuracy = number(point.get("accuracy"))
    given = section(point, "figures")
    figures = {str(key): found for key, value in given.items() if (found := number(value)) is not None}
    price = figures.get(cost or "", number(point.get("cost")))
    if accuracy is None or price is None:
        return None
    return _Measured(bits_of(section(point, "layers")), float(accuracy), figures, float(price))


def bits_of(layers: Mapping[str, Any]) -> str:
    """Write the widths of all layers: ``6/6`` where they are equal, else those of each layer."""
    pairs = {}
    for name, value in layers.items():
        if isinstance(value, Mapping):
            both = (number(value.get("weight_bits")), number(value.get("activation_bits")))
            pairs[str(name)] = "/".join("-" if width is None else text.count(width) for width in both)
    if not pairs:
        return text.MISSING
    if len(set(pairs.values())) == 1:
        return next(iter(pairs.values()))
    return ", ".join(f"{name} {pair}" for name, pair in pairs.items())


def _state(point: _Measured, others: Sequence[_Measured]) -> str:
    """Tell whether another point is cheaper and as accurate, or as cheap and more accurate."""
    beaten = any(
        other.cost <= point.cost
        and other.accuracy >= point.accuracy
        and (other.cost, other.accuracy) != (point.cost, point.accuracy)
        for other in others
    )
    return BEATEN if beaten else FRONT


def _cells(point: _Measured, keys: Sequence[str]) -> tuple[str, ...]:
    return tuple(figure(key, point.figures.get(key)) for key in keys)


def _nice(values: Sequence[float]) -> tuple[float, float]:
    """Return a range of round numbers about the values."""
    low, high = min(values), max(values)
    step = 10.0 ** math.floor(math.log10(high - low)) if high > low else max(abs(high) * 0.1, 1e-9)
    return math.floor(low / step) * step, math.ceil(high / step) * step
