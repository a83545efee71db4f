"""PWE fires exactly as it is defined, and remembers the best weights."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from flow.prune.plateau import Plateau

NETWORK = nn.Linear(1, 1)


def fires(losses: list[float], pwe: int) -> list[bool]:
    plateau = Plateau(pwe)
    return [plateau.fires(loss, NETWORK) for loss in losses]


def defined(losses: list[float], pwe: int) -> list[bool]:
    """if L < 1.01 * best: bad = 0; if L < best: best = L; else: bad += 1; fire when bad >= PWE."""
    best, bad, fired = math.inf, 0, []
    for loss in losses:
        if loss < 1.01 * best:
            bad = 0
        else:
            bad += 1
        if loss < best:
            best = loss
        fired.append(bad >= pwe)
    return fired


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(
    st.lists(st.floats(0, 4) | st.sampled_from((1.0, 1.009, 1.01, 1.011, math.nan, math.inf)), max_size=20),
    st.integers(1, 4),
)
def test_it_fires_as_defined(losses, pwe):
    assert fires(losses, pwe) == defined(losses, pwe)


@pytest.mark.parametrize(
    ("losses", "fired"),
    [
        ([1.0, 1.009, 1.009, 1.009], [False, False, False, False]),
        ([1.0, 1.02, 1.02, 1.02], [False, False, True, True]),
        ([1.0, 1.02, 1.0, 1.02, 1.02], [False, False, False, False, True]),
        ([1.0, 0.9, 0.8, 0.7], [False, False, False, False]),
        ([1.0, 2.0, 1.005, 2.0, 2.0], [False, False, False, False, True]),
    ],
)
def test_two_waiting_epochs_by_hand(losses, fired):
    assert fires(losses, 2) == fired


def test_the_snapshot_is_of_the_best_epoch_and_a_copy():
    network, plateau = nn.Linear(1, 1), Plateau(3)
    for weight, loss in ((1.0, 3.0), (2.0, 1.0), (3.0, 1.005), (4.0, 2.0)):
        nn.init.constant_(network.weight, weight)
        plateau.fires(loss, network)
    assert plateau.best == 1.0
    assert plateau.state["weight"].item() == 2.0


def test_a_reset_forgets():
    plateau = Plateau(2)
    for loss in (1.0, 5.0):
        plateau.fires(loss, NETWORK)
    plateau.reset()
    assert (plateau.best, plateau.bad, plateau.state) == (math.inf, 0, {})
    assert not plateau.fires(7.0, NETWORK)
    assert torch.equal(plateau.state["weight"], NETWORK.weight)
