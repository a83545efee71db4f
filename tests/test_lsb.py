"""Samples and results as integers."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flow.errors import UnsupportedError
from flow.lsb import exact_lsb, input_lsb
from flow.types import FixedPoint, Port

SCORES = Port("scores", (2,), FixedPoint(True, 3, 5))


def test_images_become_channels_last_and_flat():
    port = Port("image", (2, 3, 4), FixedPoint(True, 12, 0))
    samples = np.arange(2 * 4 * 2 * 3, dtype=np.float32).reshape(2, 4, 2, 3)
    got = input_lsb(port, samples)
    for sample in range(2):
        values = iter(got[sample].tolist())
        for row in range(2):
            for column in range(3):
                for channel in range(4):
                    assert next(values) == samples[sample, channel, row, column]


def test_vectors_keep_their_order():
    port = Port("x", (3,), FixedPoint(True, 4, 2))
    assert input_lsb(port, np.array([[0.25, -1.0, 9.0]], dtype=np.float32)).tolist() == [[1, -4, 31]]


@given(st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=8))
def test_an_input_is_rounded_half_to_even_and_saturated(values):
    port = Port("x", (len(values),), FixedPoint(True, 1, 7))
    got = input_lsb(port, np.array([values], dtype=np.float32))
    finite = [max(min(value, 2.0), -2.0) for value in values]
    assert got.tolist() == [[min(max(round(Fraction(value) * 128), -128), 127) for value in finite]]


@given(st.lists(st.integers(-(2**23), 2**23), min_size=2, max_size=8))
def test_values_on_the_grid_become_their_lsbs(lsb):
    port = Port("y", (len(lsb),), FixedPoint(True, 20, 9))
    values = np.array([lsb], dtype=np.float32) / 512
    assert exact_lsb(port, values).tolist() == [lsb]


def test_values_beyond_the_type_are_not_saturated():
    assert exact_lsb(SCORES, np.array([[100.0, -100.0]])).tolist() == [[3200, -3200]]


@pytest.mark.parametrize("value", [1 / 64, 0.1, np.inf, -np.inf, np.nan, 1e300])
def test_values_beside_the_grid_are_refused(value):
    with pytest.raises(UnsupportedError) as error:
        exact_lsb(SCORES, np.array([[0.5, 0.5], [0.5, value]]))
    assert str(error.value) == (
        "output 'scores' must hold values on the grid of fixed<8,3>, not beside it; "
        "use power-of-two scales, or give the output a finer Precision in [hls]"
    )


def test_the_samples_stay_as_they_are():
    samples = np.array([[0.3, 0.7]], dtype=np.float32)
    before = samples.copy()
    input_lsb(SCORES, samples)
    assert np.array_equal(samples, before)
