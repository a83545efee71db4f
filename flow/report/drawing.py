"""Geometry of the small pictures: pure functions from figures to shapes, no markup.

Every ``x`` and ``width`` is in percent of the drawing's width, every ``y`` and ``height`` in pixels from
its top, so that a picture stretches with the page while its strokes and texts keep their size.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class Rect:
    """An upright box; ``role`` is its class in the style sheet."""

    kind: ClassVar[str] = "rect"
    x: float
    y: float
    width: float
    height: float
    role: str


@dataclass(frozen=True)
class Line:
    """A straight stroke."""

    kind: ClassVar[str] = "line"
    x1: float
    y1: float
    x2: float
    y2: float
    role: str


@dataclass(frozen=True)
class Dot:
    """A circle; ``radius`` in pixels."""

    kind: ClassVar[str] = "dot"
    x: float
    y: float
    radius: float
    role: str


@dataclass(frozen=True)
class Polygon:
    """A filled outline."""

    kind: ClassVar[str] = "polygon"
    points: tuple[tuple[float, float], ...]
    role: str


Shape = Rect | Line | Dot | Polygon
Width = float | None


@dataclass(frozen=True)
class Drawing:
    """Shapes in the order in which they are painted; ``height`` in pixels."""

    height: float
    shapes: tuple[Shape, ...]


def _round(value: float) -> float:
    return round(value, 3)


def chunks(count: int, at_most: int) -> tuple[tuple[int, int], ...]:
    """Split ``count`` items into the fewest rows of nearly equal length; returns (start, stop) pairs."""
    if count < 1:
        return ()
    rows = math.ceil(count / at_most)
    edges = [round(index * count / rows) for index in range(rows + 1)]
    return tuple(itertools.pairwise(edges))


def axis(values: Sequence[float], step: float, low: float, high: float) -> tuple[float, float]:
    """Return the range that holds ``values``, widened to multiples of ``step`` inside [low, high].

    The range is never empty: it spans at least one step.
    """
    if not values:
        return low, high
    # 1e-9 keeps a value that sits on a multiple from opening one step more through rounding.
    first = max(low, math.floor(min(values) / step + 1e-9) * step)
    last = min(high, math.ceil(max(values) / step - 1e-9) * step)
    if last - first < step:
        first, last = (first, first + step) if first + step <= high else (high - step, high)
    return first, last


def place(value: float, start: float, stop: float) -> float:
    """Return where ``value`` lies between ``start`` and ``stop``, in percent, kept inside [0, 100]."""
    if stop <= start:
        return 50.0
    return _round(min(1.0, max(0.0, (value - start) / (stop - start))) * 100)


def silhouette(widths: Sequence[tuple[Width, Width]], peak: float, height: float = 132) -> Drawing:
    """Draw a row of layers as bars about a middle axis, with bands from each layer to the next.

    Args:
        widths: channels (before, after) of each layer; ``None`` is not drawn.
        peak: the number of channels that fills the whole height, shared by all rows of one network.
        height: pixels.

    Returns:
        Roles ``band-before``, ``band-after`` (polygons), ``before``, ``after`` (boxes), ``axis``, ``unknown``.
    """
    slot = 100 / max(1, len(widths))
    bar = min(slot, 15.0) * 0.4
    lefts = [(index + 0.5) * slot - bar / 2 for index in range(len(widths))]

    def half(width: Width) -> float | None:
        if width is None or width < 0 or peak <= 0:
            return None
        return max(0.75, width / peak * (height - 2) / 2)

    bands: list[Shape] = []
    boxes: list[Shape] = []
    for column, role in ((0, "before"), (1, "after")):
        halves = [half(pair[column]) for pair in widths]
        for index, size in enumerate(halves):
            if size is None:
                continue
            boxes.append(
                Rect(_round(lefts[index]), _round(height / 2 - size), _round(bar), _round(2 * size), role)
            )
            after = halves[index + 1] if index + 1 < len(halves) else None
            if after is not None:
                x1, x2 = _round(lefts[index] + bar), _round(lefts[index + 1])
                y1, y2 = _round(height / 2 - size), _round(height / 2 - after)
                points = ((x1, y1), (x2, y2), (x2, _round(height - y2)), (x1, _round(height - y1)))
                bands.append(Polygon(points, f"band-{role}"))
    unknown = [
        Line(_round(left), height / 2, _round(left + bar), height / 2, "unknown")
        for left, pair in zip(lefts, widths, strict=True)
        if half(pair[0]) is None and half(pair[1]) is None
    ]
    return Drawing(height, (*bands, Line(0, height / 2, 100, height / 2, "axis"), *boxes, *unknown))


def estimate(
    value: float, interval: tuple[float, float] | None, span: tuple[float, float], height: float = 18
) -> Drawing:
    """Draw one measured value as a dot on the axis ``span``, with its interval as a whisker."""
    middle = height / 2
    shapes: list[Shape] = [Line(0, middle, 100, middle, "axis")]
    if interval is not None:
        low, high = (place(end, *span) for end in interval)
        shapes.append(Line(low, middle, high, middle, "whisker"))
        shapes += [Line(end, middle - 4, end, middle + 4, "whisker") for end in (low, high)]
    shapes.append(Dot(place(value, *span), middle, 4, "after"))
    return Drawing(height, tuple(shapes))


def bar(share: float, role: str = "after", height: float = 10) -> Drawing:
    """Draw ``share`` of a full scale as a bar in its frame; above 1 the bar is full and its role ends in ``over``."""
    shown = min(1.0, max(0.0, share))
    shapes: list[Shape] = [Rect(0, 0, 100, height, "frame")]
    if shown > 0:
        shapes.append(Rect(0, 0, _round(shown * 100), height, f"{role} over" if share > 1 else role))
    return Drawing(height, tuple(shapes))


def course(
    points: Sequence[tuple[float, float]],
    x_span: tuple[float, float],
    y_span: tuple[float, float],
    height: float = 84,
    limit: float | None = None,
) -> Drawing:
    """Draw a line through ``points`` (x, y) in the order given, with a dot on the last one, and a ``limit`` dashed."""
    spots = [
        (place(x, *x_span), _round(height - place(y, *y_span) / 100 * height))
        for x, y in points
        if math.isfinite(x) and math.isfinite(y)
    ]
    shapes: list[Shape] = [Line(0, 0, 100, 0, "axis"), Line(0, height, 100, height, "axis")]
    if limit is not None:
        y = _round(height - place(limit, *y_span) / 100 * height)
        shapes.append(Line(0, y, 100, y, "limit"))
    shapes += [Line(*first, *second, "trace") for first, second in itertools.pairwise(spots)]
    if spots:
        shapes.append(Dot(*spots[-1], 3.5, "after"))
    return Drawing(height, tuple(shapes))


def tradeoff(
    points: Sequence[tuple[float, float, str]],
    x_span: tuple[float, float],
    y_span: tuple[float, float],
    height: float = 190,
    limit: float | None = None,
) -> Drawing:
    """Draw points (cost, accuracy, role) with stairs through the Pareto front, the chosen one on top.

    Args:
        points: role ``chosen``, ``front`` (no other is as cheap and as accurate) or ``beaten``.
        x_span, y_span: the axes.
        height: pixels.
        limit: the least accuracy that was asked for, dashed.
    """
    spots = [
        (place(x, *x_span), _round(height - place(y, *y_span) / 100 * height), role) for x, y, role in points
    ]
    stairs: list[tuple[float, float]] = []
    for x, y, _ in sorted(spots):
        if not stairs or y < stairs[-1][1]:
            stairs.append((x, y))
    shapes: list[Shape] = [Line(0, 0, 100, 0, "axis"), Line(0, height, 100, height, "axis")]
    if limit is not None:
        y = _round(height - place(limit, *y_span) / 100 * height)
        shapes.append(Line(0, y, 100, y, "limit"))
    for (x1, y1), (x2, y2) in itertools.pairwise(stairs):
        shapes += [Line(x1, y1, x2, y1, "trace"), Line(x2, y1, x2, y2, "trace")]
    shapes += [Dot(x, y, 2.5, "beaten") for x, y, role in spots if role == "beaten"]
    shapes += [Dot(x, y, 3.5, "on-front") for x, y, role in spots if role == "front"]
    for x, y, role in spots:
        if role == "chosen":
            shapes += [Dot(x, y, 7, "chosen-ring"), Dot(x, y, 4, "after")]
    return Drawing(height, tuple(shapes))
