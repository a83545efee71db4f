"""Integer multipliers that round exactly as the file's fractions do.

For every integer x of a range, clip(round((x * multiplier + plus) / 2**shift)) must equal
clip(round(ratio * x + offset)) in exact arithmetic. Both are monotone in x, so they are equal everywhere when they are
equal on both sides of every step of the second: a multiplier and a shift leave a range for ``plus`` that does it, and
one number of the range is taken.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from flow.fixed.from_qonnx.values import Factors, exponent, two_to

_FREE = 61
"""Bits that products and sums may take in int64."""
_MANY = 1 << 18
"""Integers, and steps times four, that are checked one by one."""
_FEW = 64

Points = tuple[np.ndarray, np.ndarray]
"""Integers, and what they must give."""


@dataclass(frozen=True)
class Multiplier:
    """What `Rescale` multiplies with, adds and shifts by; one, or one a channel."""

    multiplier: np.ndarray
    offset: np.ndarray
    shift: int


def divide(numerator: np.ndarray, denominator: int, rounding: str) -> np.ndarray:
    """Return numerator / denominator as integers, rounded by one of `ROUNDINGS`; int64 or objects."""
    floor = numerator // denominator
    rest = numerator - floor * denominator
    negative = numerator < 0
    up = {
        "ROUND": (2 * rest > denominator) | ((2 * rest == denominator) & (floor % 2 == 1)),
        "FLOOR": np.zeros_like(negative),
        "CEIL": rest > 0,
        "ROUND_TO_ZERO": (rest > 0) & negative,
        "HALF_UP": (2 * rest > denominator) | ((2 * rest == denominator) & ~negative),
        "HALF_DOWN": (2 * rest > denominator) | ((2 * rest == denominator) & negative),
    }[rounding]
    return np.asarray(floor + up)


def rounded(number: Fraction, rounding: str) -> int:
    """Return one number as an integer."""
    return int(divide(np.array(number.numerator, dtype=object), number.denominator, rounding))


def find(
    ratio: Factors, offset: Factors, span: tuple[int, int], limits: tuple[int, int], rounding: str
) -> Multiplier | None:
    """Return the multiplier of the fewest bits that equals clip(round(ratio * x + offset), *limits).

    Args:
        ratio, offset: one, or one a channel, as many as each other.
        span: the least and the largest x.
        limits: what the result is clipped to.
        rounding: one of `ROUNDINGS`.

    Returns:
        None where no multiplier is found whose products int64 holds.
    """
    plain = not any(offset) and len(ratio) == 1 and ratio[0] > 0
    if plain and two_to(exponent(ratio[0])) == ratio[0]:
        return Multiplier(np.array([1]), np.array([0]), -exponent(ratio[0]))
    rows = []
    for r, t in zip(ratio, offset, strict=True):
        row = _points(r, t, span, limits, rounding)
        if row is None:
            return _exact(ratio, offset, span)
        rows.append(row)
    return _search(ratio, offset, rows, limits, rounding)


def _points(
    ratio: Fraction, offset: Fraction, span: tuple[int, int], limits: tuple[int, int], rounding: str
) -> Points | None:
    """Return the integers x beside every step, and what they must give; all x where these are fewer."""
    low, high = span
    if ratio == 0:
        x = np.array([low], dtype=np.int64)
    elif high - low <= 4 * (limits[1] - limits[0]) + 4:
        if high - low > _MANY:
            return None
        x = np.arange(low, high + 1, dtype=np.int64)
    else:
        if 4 * (limits[1] - limits[0]) > _MANY or max(abs(low), abs(high)) >= 1 << 50:
            return None
        steps = _cell(np.arange(limits[0] + 1, limits[1] + 1, dtype=np.int64), rounding)[0] / 2
        near = np.floor(np.clip((steps - float(offset)) / float(ratio), low - 2, high + 2)).astype(np.int64)
        around = (near[:, None] + np.arange(-1, 3)).reshape(-1)
        x = np.unique(np.clip(np.concatenate([around, [low, high]]), low, high))
    return x, exact(ratio, offset, x, limits, rounding)


def exact(
    ratio: Fraction, offset: Fraction, x: np.ndarray, limits: tuple[int, int], rounding: str
) -> np.ndarray:
    """Return clip(round(ratio * x + offset), *limits) in exact arithmetic, for int64 x."""
    common = ratio.denominator * offset.denominator
    times, plus = int(ratio * common), int(offset * common)
    largest = int(np.abs(x).max(initial=0))
    if max(abs(times) * largest + abs(plus), 2 * common).bit_length() <= _FREE:
        return np.asarray(np.clip(divide(times * x + plus, common, rounding), *limits))
    real = float(ratio) * x + float(offset)
    error = (np.abs(float(ratio) * x) + abs(float(offset)) + 1) * 2.0**-48
    unsure = np.abs(2 * real - np.rint(2 * real)) <= error
    real = np.clip(real, limits[0] - 1, limits[1] + 1)
    function = {"FLOOR": np.floor, "CEIL": np.ceil, "ROUND_TO_ZERO": np.trunc}.get(rounding, np.rint)
    found: np.ndarray = function(real).astype(np.int64)
    products = times * x[unsure].astype(object) + plus
    found[unsure] = np.clip(divide(products, common, rounding), limits[0], limits[1]).astype(np.int64)
    return np.asarray(np.clip(found, *limits))


def _cell(y: np.ndarray, rounding: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the numbers that round to y: both ends in halves, and whether each end belongs to them."""
    even, ones = y % 2 == 0, np.ones(y.shape, dtype=bool)
    if rounding in ("ROUND", "HALF_UP", "HALF_DOWN"):
        below, above = {
            "ROUND": (even, even),
            "HALF_UP": (y > 0, y < 0),
            "HALF_DOWN": (y <= 0, y >= 0),
        }[rounding]
        return 2 * y - 1, below, 2 * y + 1, above
    if rounding == "FLOOR":
        return 2 * y, ones, 2 * y + 2, ~ones
    if rounding == "CEIL":
        return 2 * y - 2, ~ones, 2 * y, ones
    return np.where(y > 0, 2 * y, 2 * y - 2), y > 0, np.where(y < 0, 2 * y, 2 * y + 2), y < 0


def _search(
    ratio: Factors, offset: Factors, rows: list[Points], limits: tuple[int, int], rounding: str
) -> Multiplier | None:
    """Return the first shift that does it for all channels; the points nearest to a step are tried first."""
    largest = max(abs(r) for r in ratio)
    first = max(0, -exponent(largest) - 1) if largest else 0
    span = max(int(np.abs(x).max()).bit_length() for x, _ in rows)
    last = _FREE - max(abs(limits[0]), abs(limits[1]) + 2).bit_length() - 1
    hard = [_hardest(r, t, row) for r, t, row in zip(ratio, offset, rows, strict=True)]
    for shift in range(first, last):
        if span + int(largest * two_to(shift) + 1).bit_length() > _FREE:
            return None
        for points in (hard, rows):
            found = _at(shift, ratio, offset, points, limits, rounding)
            if found is None:
                break
        else:
            return found
    return None


def _hardest(ratio: Fraction, offset: Fraction, row: Points) -> Points:
    x, y = row
    twice = 2 * (float(ratio) * x + float(offset))
    picked = np.argsort(np.abs(twice - np.rint(twice)))[:_FEW]
    return x[picked], y[picked]


def _at(
    shift: int, ratio: Factors, offset: Factors, rows: list[Points], limits: tuple[int, int], rounding: str
) -> Multiplier | None:
    """Return multipliers and offsets with this shift that give y at every x, or None."""
    multiplier, plus = np.zeros(len(rows), np.int64), np.zeros(len(rows), np.int64)
    for channel, (r, t, (x, y)) in enumerate(zip(ratio, offset, rows, strict=True)):
        low2, low_in, high2, high_in = _cell(y, rounding)
        below, above = low2 << shift, high2 << shift
        least = np.where(low_in, -(-below // 2), below // 2 + 1)[y > limits[0]]
        most = np.where(high_in, above // 2, -(-above // 2) - 1)[y < limits[1]]
        wanted = rounded(t * two_to(shift), "ROUND")
        for candidate in _candidates(r, shift):
            product = x * candidate
            start = int((least - product[y > limits[0]]).max(initial=-(1 << _FREE)))
            end = int((most - product[y < limits[1]]).min(initial=1 << _FREE))
            if start <= end and abs(min(max(wanted, start), end)) < 1 << _FREE:
                multiplier[channel], plus[channel] = candidate, min(max(wanted, start), end)
                break
        else:
            return None
    if len(set(multiplier)) == len(set(plus)) == 1:
        multiplier, plus = multiplier[:1], plus[:1]
    return Multiplier(multiplier, plus, shift)


def _candidates(ratio: Fraction, shift: int) -> list[int]:
    """Return the multipliers below and above a ratio, the nearer one first; never 0 but for a ratio of 0."""
    size = abs(ratio) * two_to(shift)
    down = size.numerator // size.denominator
    sign = (ratio > 0) - (ratio < 0)
    return [sign * max(1, near) for near in sorted((down, down + 1), key=lambda m: abs(m - size))]


def _exact(ratio: Factors, offset: Factors, span: tuple[int, int]) -> Multiplier | None:
    """Return the fractions themselves, where their denominators are powers of two and the products fit."""
    numbers = [*ratio, *offset]
    shift = max(number.denominator for number in numbers).bit_length() - 1
    whole = [number * two_to(shift) for number in numbers]
    if any(number.denominator != 1 for number in whole):
        return None
    times, plus = whole[: len(ratio)], whole[len(ratio) :]
    largest = max(abs(int(t)) for t in times) * max(map(abs, span)) + max(abs(int(p)) for p in plus)
    if largest.bit_length() > _FREE:
        return None
    return Multiplier(np.array([int(t) for t in times]), np.array([int(p) for p in plus]), shift)
