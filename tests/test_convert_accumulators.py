"""Accumulators hold every partial sum, and nothing more."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flow.convert.accumulators import Range, accumulator, partial_sums, range_of
from flow.errors import UnsupportedError
from flow.fixed.graph import Dense, Tensor
from flow.types import FixedPoint

TYPES = (FixedPoint(True, 1, 2), FixedPoint(False, 2, 1), FixedPoint(True, 4, -1), FixedPoint(False, 0, 1))


def dense(weight: list[list[int]], bias: list[int] | None, bias_fraction: int = 0) -> Dense:
    dtype = FixedPoint(True, 9, 0)
    return Dense(
        "fc",
        ("x",),
        Tensor("fc", (len(weight),), dtype),
        np.array(weight),
        FixedPoint(True, 3, 1),
        None if bias is None else np.array(bias),
        None if bias is None else FixedPoint(True, 8 - bias_fraction, bias_fraction),
    )


@given(
    st.lists(st.lists(st.integers(-4, 3), min_size=2, max_size=2), min_size=1, max_size=2),
    st.one_of(st.none(), st.integers(-9, 9)),
    st.integers(-1, 5),
    st.sampled_from(TYPES),
)
def test_every_partial_sum_in_every_order_fits_and_the_ends_are_reached(
    weight: list[list[int]], bias: int | None, bias_fraction: int, source: FixedPoint
) -> None:
    node = dense(weight, None if bias is None else [bias] * len(weight), bias_fraction)
    fraction = source.fraction_bits + 1
    finest = fraction if bias is None else max(fraction, bias_fraction)
    ends = (source.minimum_lsb, source.maximum_lsb)
    seen = [0]
    for row in weight:
        for values in itertools.product(ends, repeat=len(row)):
            terms = [w * x << finest - fraction for w, x in zip(row, values, strict=True)]
            terms += [] if bias is None else [bias << finest - bias_fraction]
            for chosen in itertools.product((0, 1), repeat=len(terms)):
                seen.append(sum(itertools.compress(terms, chosen)))
    found = partial_sums(node, source)
    assert found == Range(min(seen), max(seen), finest)
    dtype = accumulator(node, source)
    assert dtype.minimum_lsb <= min(seen)
    assert max(seen) <= dtype.maximum_lsb
    narrower = FixedPoint(dtype.signed, dtype.integer_bits - 1, dtype.fraction_bits)
    assert dtype.width == 1 or not found.fits(narrower)


@pytest.mark.parametrize(
    ("low", "high", "width", "signed"),
    [
        (0, 0, 1, False),
        (0, 1, 1, False),
        (-1, 0, 1, True),
        (-1, 1, 2, True),
        (-8, 7, 4, True),
        (-8, 8, 5, True),
    ],
)
def test_types_are_as_narrow_as_their_numbers(low: int, high: int, width: int, signed: bool) -> None:
    dtype = Range(low, high, 5).dtype()
    assert (dtype.width, dtype.signed, dtype.fraction_bits) == (width, signed, 5)


def test_a_range_fits_only_with_its_steps_its_sign_and_its_ends() -> None:
    held = Range(-3, 12, 2)
    for dtype, fits in (
        (FixedPoint(True, 3, 2), True),
        (FixedPoint(True, 3, 9), True),
        (FixedPoint(True, 9, 1), False),
        (FixedPoint(True, 2, 2), False),
        (FixedPoint(False, 9, 2), False),
    ):
        assert held.fits(dtype) is fits


def test_numbers_and_zero_make_a_range() -> None:
    assert range_of(np.array([[3, 9]]), 4) == Range(0, 9, 4)
    assert range_of(np.array([-3]), -1) == Range(-3, 0, -1)


def test_sums_too_wide_to_be_computed_here_are_refused() -> None:
    node = dense([[3, 3]], None)
    assert accumulator(node, FixedPoint(True, 58, 0)).width == 61
    with pytest.raises(UnsupportedError) as error:
        accumulator(node, FixedPoint(True, 61, 0))
    assert str(error.value) == (
        "convert: layer 'fc' must have sums of at most 62 bits, not 63; quantize its input or its weights to fewer bits"
    )
