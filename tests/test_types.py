"""The dataclasses that stages exchange."""

import dataclasses
import inspect
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from flow import types
from flow.types import FixedPoint, Manifest, Port

DTYPES = st.builds(FixedPoint, st.booleans(), st.integers(-20, 30), st.integers(-20, 30)).filter(
    lambda dtype: 1 <= dtype.width <= 48
)
VALUES = st.floats(allow_nan=False, allow_infinity=False)


def exact(dtype: FixedPoint, value: float) -> int:
    """Round half to even and saturate, with integers of any size."""
    scaled = Fraction(value) * Fraction(2) ** dtype.fraction_bits
    low, high = (-(2 ** (dtype.width - 1)), 2 ** (dtype.width - 1) - 1)
    if not dtype.signed:
        low, high = 0, 2**dtype.width - 1
    return min(max(round(scaled), low), high)  # a Fraction rounds half to even


@given(DTYPES, VALUES)
def test_a_value_becomes_the_lsbs_that_exact_arithmetic_gives(dtype, value):
    assert dtype.to_lsb(np.array([value])).tolist() == [exact(dtype, value)]


@given(DTYPES, st.integers(-(2**40), 2**40), st.sampled_from([0.5, -0.5, 0.25, 0.75]))
def test_ties_and_neighbours_of_ties_are_rounded_exactly(dtype, step, part):
    value = np.ldexp(step + part, -dtype.fraction_bits)
    for near in (value, np.nextafter(value, np.inf), np.nextafter(value, -np.inf)):
        assert dtype.to_lsb(np.array([near])).tolist() == [exact(dtype, float(near))]


@given(DTYPES, st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_single_precision_is_rounded_once(dtype, value):
    assert dtype.to_lsb(np.array([value], dtype=np.float32)).tolist() == [exact(dtype, value)]


@given(DTYPES, st.data())
def test_what_lies_on_the_grid_comes_back(dtype, data):
    lsb = data.draw(st.integers(dtype.minimum_lsb, dtype.maximum_lsb))
    assert dtype.to_lsb(dtype.to_real(np.array([lsb]))).tolist() == [lsb]


@pytest.mark.parametrize(
    ("value", "lsb"),
    [
        *((0.5, 0), (1.5, 2), (2.5, 2), (-0.5, 0), (-1.5, -2), (-2.5, -2)),
        *((7.4, 7), (7.5, 7), (100.0, 7), (-8.5, -8), (-9.0, -8), (-0.0, 0)),
        *((np.inf, 7), (-np.inf, -8), (1e300, 7)),
    ],
)
def test_halves_go_to_the_even_step_and_far_values_saturate(value, lsb):
    got = FixedPoint(True, 4, 0).to_lsb(np.array([value]))
    assert got.dtype == np.int64
    assert got.tolist() == [lsb]


@pytest.mark.parametrize(
    ("dtype", "text", "width", "low", "high"),
    [
        (FixedPoint(True, 1, 7), "fixed<8,1>", 8, -128, 127),
        (FixedPoint(False, 0, 6), "ufixed<6,0>", 6, 0, 63),
        (FixedPoint(False, -3, 9), "ufixed<6,-3>", 6, 0, 63),
        (FixedPoint(True, -2, 3), "fixed<1,-2>", 1, -1, 0),
        (FixedPoint(True, 10, -4), "fixed<6,10>", 6, -32, 31),
    ],
)
def test_widths_and_limits_follow_from_the_bits(dtype, text, width, low, high):
    assert (str(dtype), dtype.width, dtype.minimum_lsb, dtype.maximum_lsb) == (text, width, low, high)


def test_negative_fraction_bits_make_steps_above_one():
    dtype = FixedPoint(True, 10, -4)
    assert dtype.to_lsb(np.array([8.0, 24.0, 25.0, 1e6])).tolist() == [0, 2, 2, 31]
    assert dtype.to_real(np.array([2, -32])).tolist() == [32.0, -512.0]


@given(DTYPES, st.lists(VALUES, min_size=1))
def test_order_is_kept(dtype, values):
    assume(len(set(values)) > 1)
    lsb = dtype.to_lsb(np.sort(np.array(values)))
    assert (np.diff(lsb) >= 0).all()


def test_a_port_counts_its_values():
    assert Port("image", (8, 6, 3), FixedPoint(True, 1, 7)).size == 144


def test_a_manifest_is_read_by_dotted_keys():
    manifest = Manifest(Path("manifest.json"), {"accuracy": {"float": 0.9}, "seed": 3})
    assert (manifest["accuracy.float"], manifest["seed"]) == (0.9, 3)
    with pytest.raises(KeyError):
        manifest["accuracy.pruned"]


def test_every_dataclass_is_frozen():
    made = [value for _, value in inspect.getmembers(types, dataclasses.is_dataclass)]
    assert len(made) > 10
    assert all(value.__dataclass_params__.frozen for value in made)
