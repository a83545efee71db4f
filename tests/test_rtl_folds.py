"""Folding of the Verilog: the fewest multipliers, and among equals the least work for widths."""

import pytest

from flow.errors import UnsupportedError
from flow.rtl.folds import fold


def folded(lanes, **options):
    """Return (SIMD, PE) of 4 x 4 products in 4 clocks: one, two or four inputs at a time take 4 multipliers each."""
    size = {"inputs": 4, "outputs": 4, "positions": 1, "interval": 4, "channels": 4, "arriving": 4}
    return fold(**{**size, **options}, lanes=lanes, name="fc")


@pytest.mark.parametrize(("lanes", "expected"), [(1, (1, 4)), (2, (2, 2)), (4, (4, 1))])
def test_of_equally_many_multipliers_those_that_take_the_lanes_as_they_come(lanes, expected):
    assert folded(lanes) == expected


def test_what_arrives_needs_its_lanes_too():
    assert folded(1, arriving=16) == (4, 1)


def test_the_least_clocks_are_said_where_all_at_once_is_too_slow():
    with pytest.raises(UnsupportedError) as error:
        folded(1, positions=8)
    assert str(error.value) == (
        "rtl: layer 'fc' must have at least 8 clock cycles a frame, not 4; give a longer interval"
    )
