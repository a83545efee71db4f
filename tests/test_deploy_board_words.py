"""Words of the stream against a transcription bit by bit; numbers to integers against exact fractions."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from board_bundle import literal_pack, literal_unpack
from hypothesis import given
from hypothesis import strategies as st

from flow.deploy.board import words
from flow.deploy.board.manifest import Port

WIDTHS = range(1, 65)


def port(width: int, signed: bool, *shape: int, fraction_bits: int = 0, scale: float = 1.0) -> Port:
    return Port("x", shape or (3,), width, signed, fraction_bits, scale)


@st.composite
def batches(draw: st.DrawFn) -> tuple[list[Port], list[np.ndarray]]:
    """Draw several ports of any width and odd sizes, and a batch for them."""
    ports, arrays = [], []
    count = draw(st.integers(1, 3))
    for _ in range(draw(st.integers(1, 4))):
        shape = draw(st.lists(st.integers(1, 5), min_size=1, max_size=3))
        one = port(draw(st.sampled_from(WIDTHS)), draw(st.booleans()), *shape)
        lowest, highest = words.limits_lsb(one)
        ends = st.sampled_from([lowest, highest, 0 if lowest else 1, highest - 1])
        size = count * one.size
        numbers = draw(st.lists(ends | st.integers(lowest, highest), min_size=size, max_size=size))
        ports.append(one)
        arrays.append(np.array(numbers, words.lsb_dtype(one)).reshape(count, *one.shape))
    return ports, arrays


@given(batches())
def test_words_are_those_of_the_transcription_and_come_back(
    batch: tuple[list[Port], list[np.ndarray]],
) -> None:
    ports, arrays = batch
    packed = words.pack(ports, arrays)
    assert packed.dtype == np.uint32
    for sample in range(len(arrays[0])):
        values = [array[sample].reshape(-1).tolist() for array in arrays]
        assert packed[sample].tolist() == literal_pack(ports, values)
    back = words.unpack(ports, packed)
    for array, got in zip(arrays, back, strict=True):
        assert got.dtype == array.dtype and got.shape == array.shape and np.array_equal(got, array)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("width", WIDTHS)
def test_any_words_are_read_as_the_transcription_reads_them(width: int, signed: bool) -> None:
    ports = [port(width, signed, 5), port(65 - width, not signed, 1, 3)]
    draw = np.random.default_rng(width)
    made = draw.integers(0, 1 << 32, (4, words.frame_words(ports)), np.uint32)
    got = words.unpack(ports, made)
    for sample in range(4):
        for array, expected in zip(got, literal_unpack(ports, made[sample].tolist()), strict=True):
            # what no lane of an unsigned port holds, 2**63 and more, wraps where the type is int64
            values = array[sample].reshape(-1).tolist()
            assert [value % (1 << 64) for value in values] == [value % (1 << 64) for value in expected]


def test_five_values_of_six_bits_are_two_words() -> None:
    assert words.pack([port(6, True, 5)], [np.array([[1, -1, 2, -2, -32]])]).tolist() == [[0xFE02FF01, 0xE0]]


def test_a_batch_may_be_empty_and_of_any_integer_type() -> None:
    one = port(6, True, 5)
    assert words.pack([one], [np.zeros((0, 5), np.int8)]).shape == (0, 2)
    assert words.unpack([one], np.zeros((0, 2), np.uint32))[0].shape == (0, 5)
    for kind in (np.int8, np.uint16, np.int32, ">i8"):
        assert words.pack([one], [np.array([[1, 2, 3, 4, 5]], kind)]).tolist() == [[0x04030201, 5]]


def test_arrays_that_are_views_with_strides_are_packed_by_value() -> None:
    wide = np.arange(24).reshape(2, 12)
    assert words.pack([port(8, False, 3, 2)], [wide[:, ::2].reshape(2, 3, 2)[::-1]]).tolist() == [
        [0x12100E0C, 0x1614],
        [0x06040200, 0x0A08],
    ]


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("width", [1, 7, 8, 9, 31, 32, 33, 62])
def test_a_value_outside_the_type_is_refused(width: int, signed: bool) -> None:
    one = port(width, signed, 2)
    lowest, highest = words.limits_lsb(one)
    for value in (lowest - 1, highest + 1):
        with pytest.raises(ValueError) as caught:
            words.pack([one], [np.array([[0, value]])])
        assert str(caught.value) == (
            f"port 'x' must hold integers from {lowest} to {highest}, not {value}; "
            "run() takes numbers and saturates them"
        )


def test_a_wrong_shape_a_wrong_type_or_unequal_batches_are_refused() -> None:
    one = port(8, True, 2, 3)
    for array, message in (
        (
            np.zeros((2, 3), int),
            "port 'x' must have shape (samples, 2, 3), not (2, 3); put the samples first",
        ),
        (np.zeros((1, 2, 3)), "port 'x' must hold integers, not float64; run() takes floats"),
    ):
        with pytest.raises(ValueError) as caught:
            words.pack([one], [array])
        assert str(caught.value) == message
    with pytest.raises(ValueError, match="as many samples in every array, not 1, 2; cut the longer ones"):
        words.pack([one, one], [np.zeros((1, 2, 3), int), np.zeros((2, 2, 3), int)])
    with pytest.raises(ValueError, match="must have 2 arrays, one a port, not 1"):
        words.pack([one, one], [np.zeros((1, 2, 3), int)])
    with pytest.raises(ValueError, match=r"words must have shape \(samples, 2\), not \(1, 3\)"):
        words.unpack([one], np.zeros((1, 3), np.uint32))


@given(
    st.sampled_from(WIDTHS),
    st.booleans(),
    st.integers(-8, 12),
    st.sampled_from([1.0, 0.25, 8.0]),
    st.lists(
        st.floats(allow_nan=False) | st.integers(-600, 600).map(lambda n: n / 32), min_size=1, max_size=6
    ),
)
def test_numbers_are_rounded_half_to_even_and_saturated(
    width: int, signed: bool, fraction_bits: int, scale: float, numbers: list[float]
) -> None:
    one = port(width, signed, len(numbers), fraction_bits=fraction_bits, scale=scale)
    lowest, highest = words.limits_lsb(one)
    with np.errstate(over="ignore"):
        got = words.to_lsb(one, np.array([numbers]))
    for number, lsb in zip(numbers, got[0].tolist(), strict=True):
        if abs(number) > 1e300:
            exact = highest if number > 0 else lowest
        else:
            exact = round(Fraction(number) / Fraction(scale) * Fraction(2) ** fraction_bits)
        assert lsb == min(max(exact, lowest), highest)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("width", [52, 53, 54, 63, 64])
def test_wide_types_saturate_at_their_very_ends(width: int, signed: bool) -> None:
    one = port(width, signed, 2)
    got = words.to_lsb(one, np.array([[-np.inf, np.inf]]))
    assert tuple(got[0].tolist()) == words.limits_lsb(one)


def test_integers_become_numbers_by_scale_and_fraction() -> None:
    one = port(8, True, 3, fraction_bits=7, scale=0.5)
    got = words.to_real(one, np.array([[-128, 1, 127]]))
    assert got.dtype == np.float64 and got.tolist() == [[-0.5, 1 / 256, 127 / 256]]
    assert words.to_lsb(one, got).tolist() == [[-128, 1, 127]]


def test_what_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError) as caught:
        words.to_lsb(port(8, True, 1), np.array([[np.nan]]))
    assert str(caught.value) == "input 'x' must hold numbers, not NaN; clean the batch"
