"""How the network was pruned: the options that are not the usual ones, figures before and after, the way there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flow.report import drawing, text
from flow.report.text import number, section, tables, words

USUAL = {"granularity": "structured", "schedule": "pwe", "regularizer": None, "criterion": None}
"""Defaults of `flow.prune` that need no word."""
TITLES = {
    "channels": "channels",
    "weights": "weights",
    "parameters": "parameters",
    "macs": "MACs",
    "luts": "LUTs",
    "flip_flops": "flip-flops",
    "dsps": "DSPs",
    "bram18": "BRAM18",
    "interval_cycles": "cycles a sample",
    "latency_cycles": "cycles of latency",
    "board_share": "share of the board",
}
MET, NOT_MET = "met", "NOT met"


@dataclass(frozen=True)
class Course:
    """One quantity over the steps of pruning."""

    title: str
    high: str
    low: str
    last: str
    picture: drawing.Drawing


@dataclass(frozen=True)
class Figure:
    """One figure of what is not pruned; ``limit`` and ``state`` are empty where no budget names it."""

    title: str
    before: str
    after: str
    limit: str
    state: str


@dataclass(frozen=True)
class Pruning:
    """The section; ``first_step`` and ``last_step`` are the ends of all courses."""

    facts: tuple[tuple[str, str], ...]
    figures: tuple[Figure, ...]
    courses: tuple[Course, ...]
    first_step: str
    last_step: str

    @property
    def budgeted(self) -> bool:
        return any(figure.limit for figure in self.figures)


def pruning(manifest: Mapping[str, Any]) -> Pruning | None:
    """Read the stage prune; ``None`` where nothing is known of it."""
    given = section(manifest, "pruning")
    options = section(section(manifest, "config"), "prune")
    limits = {
        str(key): limit
        for key, value in section(options, "budget").items()
        if (limit := number(value)) is not None
    }
    courses, first, last = _courses(manifest, given, limits)
    found = Pruning(_facts(given, options), _figures(given, limits), courses, first, last)
    return found if given and (found.facts or found.figures or found.courses) else None


def remaining(manifest: Mapping[str, Any]) -> tuple[float, float] | None:
    """Return the weights (before, after) of a network that lost weights but no channels, else ``None``."""
    channels = section(manifest, "channels")
    figures = section(section(manifest, "pruning"), "figures")
    before, after = (number(section(figures, side).get("parameters")) for side in ("before", "after"))
    if before is None or after is None or channels.get("before") != channels.get("after"):
        return None
    return (before, after) if after < before else None


def figure(key: str, value: float | None) -> str:
    """Write one figure: a share in percent, estimates as whole numbers."""
    if key == "board_share":
        return text.percent(value, 1)
    return text.count(round(value) if value is not None and abs(value) >= 10 else value)


def _facts(given: Mapping[str, Any], options: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    facts = []
    for key, usual in USUAL.items():
        chosen = words(options.get(key))
        if chosen and chosen != usual:
            facts.append((key, f"{chosen}{_strength(options) if key == 'regularizer' else ''}"))
    stopped = words(given.get("stopped"))
    return (*facts, ("ended because", stopped)) if stopped else tuple(facts)


def _strength(options: Mapping[str, Any]) -> str:
    strength = number(options.get("regularizer_lambda"))
    return "" if strength is None else f", λ = {strength:g}"


def _figures(given: Mapping[str, Any], limits: Mapping[str, float]) -> tuple[Figure, ...]:
    figures = section(given, "figures")
    before, after = section(figures, "before"), section(figures, "after")
    keys = [str(key) for key in dict.fromkeys((*before, *after, *limits))]
    made = []
    for key in keys:
        start, end, limit = number(before.get(key)), number(after.get(key)), limits.get(key)
        if start is None and end is None and limit is None:
            continue
        state = "" if limit is None or end is None else MET if end <= limit else NOT_MET
        made.append(
            Figure(
                TITLES.get(key, key),
                figure(key, start),
                figure(key, end),
                "" if limit is None else figure(key, limit),
                state,
            )
        )
    return tuple(made)


def _courses(
    manifest: Mapping[str, Any], given: Mapping[str, Any], limits: Mapping[str, float]
) -> tuple[tuple[Course, ...], str, str]:
    history = tables(given, "history")
    if not history:
        return (), "", ""
    steps = [number(row.get("step")) for row in history]
    counted = None not in steps
    xs = [float(x or 0) for x in steps] if counted else [float(index) for index in range(len(steps))]
    span = (min(xs), max(xs))

    def series(key: str) -> list[tuple[float, float]]:
        pairs = ((x, number(row.get(key))) for x, row in zip(xs, history, strict=True))
        return [(x, float(y)) for x, y in pairs if y is not None]

    starts = {"channels": number(section(manifest, "channels").get("before"))}
    rows = []
    for key in ("channels", "weights", *limits):
        if points := series(key):
            rows.append(_falling(key, points, span, starts.get(key), limits.get(key)))
    if accuracy := series("validation_accuracy"):
        low, high = drawing.axis([y for _, y in accuracy], 0.01, 0.0, 1.0)
        picture = drawing.course(accuracy, span, (low, high))
        ends = (f"{high * 100:.0f}%", f"{low * 100:.0f}%", text.percent(accuracy[-1][1]))
        rows.append(Course("Validation accuracy", *ends, picture))
    ends_of = (text.count(span[0]), text.count(span[1])) if counted else ("first", "last")
    return tuple(rows), *ends_of


def _falling(
    key: str,
    points: list[tuple[float, float]],
    span: tuple[float, float],
    start: float | None,
    limit: float | None,
) -> Course:
    """Return the course of a figure down from its start, with the budget's limit as a dashed line."""
    top = max([y for _, y in points] + [float(y) for y in (start, limit) if y is not None])
    top = top if top > 0 else 1.0
    title = TITLES.get(key, key)
    title = f"{title[0].upper()}{title[1:]}{' left' if key in ('channels', 'weights') else ''}"
    if limit is not None:
        title += f", limit {figure(key, limit)}"
    return Course(
        title,
        figure(key, top),
        "0",
        figure(key, points[-1][1]),
        drawing.course(points, span, (0.0, top), limit=limit),
    )
