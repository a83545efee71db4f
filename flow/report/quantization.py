"""How the network was quantized, and what a search of its bit widths measured."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flow.report import drawing, text
from flow.report.pruning import TITLES, figure
from flow.report.text import number, section, tables, words

SHOWN = 12  # rows in the open; more of them, and those that are beaten fold away
DEPTH = 0.1  # points more than this below the best accuracy would press all others together
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
    found = Quantization(
        _facts(manifest, given),
        _search(section(given, "precision"), section(section(manifest, "config"), "quantize")),
    )
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
    chosen: bool


def _search(given: Mapping[str, Any], options: Mapping[str, Any]) -> Search | None:
    """Read a `flow.types.Precision` of plain values."""
    objective = words(given.get("objective")) or "cost"
    chosen = section(given, "layers")
    known = [
        point
        for row in tables(given, "points")
        if (point := _measured(row, objective, section(row, "layers") == chosen)) is not None
    ]
    if not known:
        return None
    known.sort(key=lambda point: (point.cost, -point.accuracy))
    states = [CHOSEN if point.chosen else _state(point, known) for point in known]
    keys = _telling(known, objective)
    rows = [
        Point(point.bits, (text.percent(point.accuracy), *_cells(point, keys)), state)
        for point, state in zip(known, states, strict=True)
    ]
    long = len(rows) > SHOWN
    picture, ends, hidden = _picture(known, states, _least(given, options))
    return Search(
        note=" ".join((*_asked(given, options, objective), *hidden)),
        columns=("accuracy", *(TITLES.get(key, key) for key in keys)),
        points=tuple(row for row in rows if not long or row.state != BEATEN),
        beaten=tuple(row for row in rows if long and row.state == BEATEN),
        cost=TITLES.get(objective, objective),
        x_ends=(figure(objective, ends[0]), figure(objective, ends[1])),
        y_ends=(f"{ends[2] * 100:.0f}%", f"{ends[3] * 100:.0f}%"),
        picture=picture,
    )


def _measured(row: Mapping[str, Any], objective: str, chosen: bool) -> _Measured | None:
    accuracy = number(row.get("accuracy"))
    given = section(row, "cost")
    figures = {str(key): found for key, value in given.items() if (found := number(value)) is not None}
    if accuracy is None or objective not in figures:
        return None
    return _Measured(
        bits_of(section(row, "layers")), float(accuracy), figures, float(figures[objective]), chosen
    )


def bits_of(layers: Mapping[str, Any]) -> str:
    """Write the widths of all layers: ``6/6`` where they are equal, else the most common and the others by name."""
    pairs = {}
    for name, value in layers.items():
        if isinstance(value, Mapping):
            both = (number(value.get("weight_bits")), number(value.get("activation_bits")))
            pairs[str(name)] = "/".join("-" if width is None else text.count(width) for width in both)
    if not pairs:
        return text.MISSING
    (usual, times), *_ = Counter(pairs.values()).most_common(1)
    others = {name: pair for name, pair in pairs.items() if pair != usual or times == 1}
    named = ", ".join(f"{name} {pair}" for name, pair in others.items())
    if len(pairs) == 1 or not others:
        return usual
    return named if len(others) == len(pairs) else f"{usual}; {named}"


def _state(point: _Measured, others: Sequence[_Measured]) -> str:
    """Tell whether another point is cheaper and as accurate, or as cheap and more accurate."""
    beaten = any(
        other.cost <= point.cost
        and other.accuracy >= point.accuracy
        and (other.cost, other.accuracy) != (point.cost, point.accuracy)
        for other in others
    )
    return BEATEN if beaten else FRONT


def _telling(known: Sequence[_Measured], objective: str) -> list[str]:
    """Return the figures that differ from point to point, the objective first."""
    keys = dict.fromkeys(key for point in known for key in point.figures)
    differing = [key for key in keys if len({point.figures.get(key) for point in known}) > 1]
    return [objective, *(key for key in differing if key != objective)]


def _cells(point: _Measured, keys: Sequence[str]) -> tuple[str, ...]:
    return tuple(figure(key, point.figures.get(key)) for key in keys)


def _least(given: Mapping[str, Any], options: Mapping[str, Any]) -> float | None:
    """Return the least accuracy that was asked for."""
    start, drop = number(given.get("float_accuracy")), number(options.get("max_accuracy_drop"))
    return None if start is None or drop is None else start - drop


def _asked(given: Mapping[str, Any], options: Mapping[str, Any], objective: str) -> list[str]:
    """Return what was searched, and how it was measured, in sentences."""
    drop, limits = number(options.get("max_accuracy_drop")), section(options, "bit_budget")
    asked = ""
    if drop is not None:
        allowed = f"{drop * 100:g} point{'' if drop == 0.01 else 's'}"
        asked = f"Searched: the least {TITLES.get(objective, objective)} at most {allowed} below float."
    elif limits:
        held = [
            f"{TITLES.get(str(key), str(key))} ≤ {figure(str(key), number(limit))}"
            for key, limit in limits.items()
        ]
        asked = f"Searched: the best accuracy within {', '.join(held)}."
    samples, start = number(given.get("samples")), number(given.get("float_accuracy"))
    on = f" on {text.plural(samples, 'validation sample')}" if samples is not None else ""
    float_ = f"; float: {text.percent(start)}" if start is not None else ""
    return [*([asked] if asked else []), f"Measured{on}, calibrated and not fine-tuned{float_}."]


def _picture(
    known: Sequence[_Measured], states: Sequence[str], least: float | None
) -> tuple[drawing.Drawing | None, tuple[float, float, float, float], list[str]]:
    """Return accuracy over cost, the ends of its axes, and a sentence where points lie too low to be drawn."""
    top = max(point.accuracy for point in known)
    kept = [max(point.accuracy for point in known if point.chosen)] if CHOSEN in states else []
    floor = min([top - DEPTH, *kept, *([least] if least is not None else [])])
    seen = [(p, state) for p, state in zip(known, states, strict=True) if p.accuracy >= floor]
    heights = [point.accuracy for point, _ in seen] + ([least] if least is not None else [])
    low, high = drawing.axis(heights, 0.01, 0.0, 1.0)
    left, right = _nice([point.cost for point, _ in seen])
    hidden = len(known) - len(seen)
    note = [f"Not drawn: {hidden} below {text.percent(floor, 1)}."] if hidden else []
    spots = [(point.cost, point.accuracy, state) for point, state in seen]
    picture = drawing.tradeoff(spots, (left, right), (low, high), limit=least) if len(seen) > 1 else None
    return picture, (left, right, low, high), note


def _nice(values: Sequence[float]) -> tuple[float, float]:
    """Return a range of round numbers about the values."""
    low, high = min(values), max(values)
    step = 10.0 ** math.floor(math.log10(high - low)) if high > low else max(abs(high) * 0.1, 1e-9)
    return math.floor(low / step) * step, math.ceil(high / step) * step
