"""Samples and results as integers."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flow.errors import UnsupportedError
from flow.fixed.golden import Golden, read_golden, write_golden
from flow.fixed.lsb import exact_lsb, input_lsb, placed
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
        "output 'scores' must hold values on the grid of fixed<8,3>, not beside it; put a quantizer behind it"
    )


def test_the_samples_stay_as_they_are():
    samples = np.array([[0.3, 0.7]], dtype=np.float32)
    before = samples.copy()
    input_lsb(SCORES, samples)
    assert np.array_equal(samples, before)


def test_an_order_says_where_each_value_of_the_file_goes():
    port = Port("image", (2, 2, 3), FixedPoint(True, 8, 0))
    samples = np.arange(12, dtype=np.float32).reshape(1, 3, 2, 2)
    order = np.arange(12).reshape(2, 2, 3).transpose(2, 0, 1)  # channels first
    assert np.array_equal(input_lsb(port, samples, order), input_lsb(port, samples))
    last = np.moveaxis(samples, 1, -1)
    assert np.array_equal(input_lsb(port, last, np.arange(12)), input_lsb(port, samples))
    assert placed(np.array([[7, 8, 9]]), np.array([2, 0, 1])).tolist() == [[8, 9, 7]]


def test_a_scale_divides_as_float32_does():
    port = Port("x", (3,), FixedPoint(True, 8, 0), scale=0.1)
    values = np.array([[0.1, 0.25, -0.35]], dtype=np.float32)
    want = np.rint(values / np.float32(0.1))
    assert input_lsb(port, values).tolist() == want.tolist()
    y = Port("y", (3,), FixedPoint(True, 8, 0), scale=0.1)
    assert exact_lsb(y, np.array([[1, -7, 100]]) * np.float32(0.1)).tolist() == [[1, -7, 100]]
    with pytest.raises(UnsupportedError):
        exact_lsb(y, np.array([[0.1001]]))


def test_a_head_is_rounded_and_kept_within_its_type():
    port = Port("p", (4,), FixedPoint(False, 0, 4))
    got = exact_lsb(port, np.array([[0.0, 0.5 / 16, 1.5 / 16, 1.0]]), rounded=True)
    assert got.tolist() == [[0, 0, 2, 15]]
    with pytest.raises(UnsupportedError):
        exact_lsb(port, np.array([[np.nan]]), rounded=True)


@pytest.mark.parametrize("count", [1, 2, 11])
@pytest.mark.parametrize("labelled", [True, False])
def test_golden_samples_come_back_in_order(tmp_path, count, labelled):
    inputs = tuple(np.full((3, 2), number, np.float32) for number in range(count))
    labels = np.arange(3) if labelled else None
    write_golden(tmp_path / "golden.npz", Golden(inputs, (inputs[0] - 1,), labels))
    found = read_golden(tmp_path / "golden.npz")
    assert [x[0, 0] for x in found.inputs] == list(range(count))
    assert found.outputs[0].tolist() == (inputs[0] - 1).tolist()
    assert (found.labels is None) == (not labelled)
    with np.load(tmp_path / "golden.npz") as file:
        assert ("inputs" in file) == (count == 1)
