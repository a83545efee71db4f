"""Survivors: which of several constants carries the weights of all."""

import numpy as np
import pytest
from torch import nn

from flow.simplify.constants import plain
from flow.simplify.readers import Reader
from flow.simplify.survivors import stand_in


@pytest.mark.parametrize(
    ("living", "chosen"),
    [(1e-3, 0), (-1e-3, 0), (0.99e-3, 1), (0.0, 1)],
)
def test_a_living_constant_stands_in_unless_dividing_by_it_would_cost_digits(living, chosen):
    """Channel 0 lives anyway; of 1 and 2 constants are left, which the zeros at the border keep out of the bias."""
    channels = np.arange(3)
    conv = nn.Conv2d(3, 2, 3, padding=1)
    never = np.zeros(3, dtype=bool)
    reader = Reader("conv", conv, channels, np.arange(3, 5), plain(np.array([living, 1.0, 0.5])), never)
    alive = np.array([True, False, False, True, True])
    assert stand_in(reader, np.array([1, 2]), alive) == chosen


def test_the_largest_of_the_living_constants_stands_in():
    channels = np.arange(4)
    conv = nn.Conv2d(4, 1, 3, padding=1)
    state = plain(np.array([0.1, -0.3, 0.2, 1.0]))
    reader = Reader("conv", conv, channels, np.array([4]), state, np.zeros(4, dtype=bool))
    alive = np.array([True, True, True, False, True])
    assert stand_in(reader, np.array([3]), alive) == 1
