"""Multipliers of quantizers: equal to exact fractions for every integer, in every rounding."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from flow.fixed.from_qonnx.rescale import divide, exact, find, rounded
from flow.fixed.graph import ROUNDINGS

RNG = np.random.default_rng(0)


def by_hand(number: Fraction, rounding: str) -> int:
    """Round as QONNX's documentation says, with nothing but comparisons of fractions."""
    below = number.numerator // number.denominator
    candidates = {
        "FLOOR": below,
        "CEIL": -((-number.numerator) // number.denominator),
        "ROUND_TO_ZERO": int(number),
    }
    if rounding in candidates:
        return candidates[rounding]
    rest = number - below
    if rest != Fraction(1, 2):
        return below + (rest > Fraction(1, 2))
    if rounding == "ROUND":
        return below + below % 2
    away = rounding == "HALF_UP"
    return below + (away if number > 0 else not away)


@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_dividing_rounds_as_the_rounding_says(rounding: str) -> None:
    numerators = np.arange(-40, 41)
    for denominator in (1, 2, 3, 4, 6, 8):
        wanted = [by_hand(Fraction(int(n), denominator), rounding) for n in numerators]
        assert divide(numerators, denominator, rounding).tolist() == wanted
        assert divide(numerators.astype(object), denominator, rounding).tolist() == wanted
        assert [rounded(Fraction(int(n), denominator), rounding) for n in numerators] == wanted


def scales(kind: str) -> tuple[Fraction, Fraction]:
    """Return a ratio and an offset."""
    if kind == "dyadic":
        return Fraction(int(RNG.integers(1, 200)), 1 << int(RNG.integers(3, 10))), Fraction(
            int(RNG.integers(-99, 99)), 16
        )
    factor, plus = np.float32(RNG.uniform(0.001, 3)), np.float32(RNG.normal() * 20)
    return Fraction(float(factor)) / Fraction(float(np.float32(RNG.uniform(0.5, 2)))), Fraction(float(plus))


@pytest.mark.parametrize("kind", ["dyadic", "float32"])
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_the_multiplier_equals_the_fraction_for_every_integer(kind: str, sign: int, rounding: str) -> None:
    for _ in range(12):
        ratio, offset = scales(kind)
        low, high = sorted(int(n) for n in RNG.integers(-3000, 3000, 2))
        limits = sorted(int(n) for n in RNG.integers(-200, 200, 2))
        found = find((sign * ratio,), (offset,), (low, high), (limits[0], limits[1]), rounding)
        assert found is not None
        x = np.arange(low, high + 1)
        wanted = [
            min(max(by_hand(sign * ratio * int(n) + offset, rounding), limits[0]), limits[1]) for n in x
        ]
        made = (x * found.multiplier + found.offset) * (1 << max(0, -found.shift))
        assert np.clip(divide(made, 1 << max(0, found.shift), rounding), *limits).tolist() == wanted
        assert exact(sign * ratio, offset, x, (limits[0], limits[1]), rounding).tolist() == wanted


def test_each_channel_has_its_own_multiplier_at_one_shift() -> None:
    ratio = (Fraction(1, 3), Fraction(-2, 7), Fraction(0), Fraction(1, 8))
    offset = (Fraction(1, 5), Fraction(0), Fraction(9, 4), Fraction(-1, 3))
    found = find(ratio, offset, (-500, 500), (-100, 100), "FLOOR")
    assert found is not None
    x = np.arange(-500, 501)
    for channel, (r, t) in enumerate(zip(ratio, offset, strict=True)):
        wanted = np.clip([(r * int(n) + t).__floor__() for n in x], -100, 100)
        made = (x * found.multiplier[channel] + found.offset[channel]) >> found.shift
        assert np.array_equal(np.clip(made, -100, 100), wanted)
    assert found.multiplier[2] == 0


def test_a_power_of_two_is_a_plain_shift() -> None:
    for power in (-3, 0, 5):
        found = find((Fraction(2) ** -power,), (Fraction(0),), (-(1 << 40), 1 << 40), (-8, 7), "ROUND")
        assert found is not None
        assert (found.multiplier.tolist(), found.offset.tolist(), found.shift) == ([1], [0], power)


def test_no_multiplier_of_fewer_bits_does_it() -> None:
    ratio, offset, span, limits = Fraction(5, 23), Fraction(1, 7), (-60, 60), (-9, 9)
    found = find((ratio,), (offset,), span, limits, "ROUND")
    assert found is not None
    x = np.arange(span[0], span[1] + 1)
    wanted = exact(ratio, offset, x, limits, "ROUND")
    bits = int(found.multiplier[0]).bit_length()
    for shift in range(found.shift):
        multipliers = np.arange(1, 1 << (bits - 1))
        offsets = np.arange(-(1 << shift), (1 << shift) + 1)
        made = x * multipliers[:, None, None] + offsets[:, None]
        same = np.clip(divide(made, 1 << shift, "ROUND"), *limits) == wanted
        assert not same.all(-1).any()


def test_ties_that_no_multiplier_meets_give_none() -> None:
    assert find((Fraction(1, 36),), (Fraction(0),), (-1152, 1143), (-64, 63), "ROUND") is None
    assert find((Fraction(1, 36),), (Fraction(0),), (-1152, 1143), (-64, 63), "HALF_UP") is not None


def test_wide_integers_are_exact_where_the_fraction_is_near_a_tie() -> None:
    ratio = Fraction(float(np.float32(0.3))) / Fraction(float(np.float32(0.7)))
    ties = [
        int((Fraction(2 * k + 1, 2) / ratio).__floor__()) + d
        for k in range(10**6, 10**6 + 300)
        for d in (0, 1)
    ]
    x = np.array(ties)
    limits = (0, 1 << 30)
    wanted = [by_hand(ratio * int(n), "ROUND") for n in x]
    assert exact(ratio, Fraction(0), x, limits, "ROUND").tolist() == wanted


def test_ranges_too_wide_to_check_need_exact_fractions() -> None:
    span, limits = (-(1 << 28), 1 << 28), (-(1 << 20), 1 << 20)
    assert find((Fraction(1, 3),), (Fraction(0),), span, limits, "ROUND") is None
    found = find((Fraction(5, 8),), (Fraction(1, 4),), span, limits, "ROUND")
    assert found is not None
    assert (found.multiplier.tolist(), found.offset.tolist(), found.shift) == ([5], [2], 3)
    assert find((Fraction(5, 1 << 60),), (Fraction(0),), (-(1 << 61), 1 << 61), limits, "ROUND") is None
