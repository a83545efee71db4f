"""The search under TWT against a literal transcription of the published bisection."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from flow.prune.threshold import search

LAYERS = st.lists(st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=6), min_size=1, max_size=4)


def published(layers: list[list[float]], loss: Callable[[float], float], loss_0: float, twt: float) -> float:
    """Follow the published text line by line, but return `a`."""
    weights = [w for layer in layers for w in layer]
    bound = loss_0 * (1 + twt)
    t_mean = sum(sum(layer) / len(layer) for layer in layers) / len(layers)
    loss_mean = loss(t_mean)
    if loss_mean < bound:
        a, loss_a = t_mean, loss_mean
        b, loss_b = max(weights), math.inf
    else:
        a, loss_a = min(weights), loss_0
        b, loss_b = t_mean, loss_mean
    moved_from = None
    while abs(loss_a - loss_b) >= 0.05 * bound:
        c = (a + b) / 2
        if moved_from is not None and abs(c - moved_from) <= 1e-10:
            return a
        moved_from = c
        loss_c = loss(c)
        if loss_c <= bound:
            a, loss_a = c, loss_c
        else:
            b, loss_b = c, loss_c
    return a


class Steps:
    """A loss that depends on how many scores are below the threshold; it remembers what was measured."""

    def __init__(self, layers: list[list[float]], losses: list[float]) -> None:
        self.scores = [score for layer in layers for score in layer]
        self.losses = losses
        self.measured: dict[float, float] = {}

    def __call__(self, threshold: float) -> float:
        below = sum(score < threshold for score in self.scores)
        self.measured[threshold] = self.losses[below % len(self.losses)]
        return self.measured[threshold]


@pytest.mark.parametrize("monotone", [True, False])
@settings(max_examples=400, deadline=None, derandomize=True, database=None)
@given(
    layers=LAYERS,
    losses=st.lists(st.floats(0.01, 10), min_size=25, max_size=25),
    twt=st.sampled_from((0.0, 0.05, 0.5, 3.0)),
)
def test_the_search_is_the_published_bisection_and_its_result_holds_the_bound(monotone, layers, losses, twt):
    losses = sorted(losses) if monotone else losses
    ordered = sorted({score for layer in layers for score in layer})
    # the published search does not tell scores apart that differ by less than 1e-10; this one does
    assume(all(high - low > 1e-9 for low, high in itertools.pairwise(ordered)))
    loss = Steps(layers, losses)
    found = search(layers, loss, loss_before=losses[0], twt=twt)
    theirs = Steps(layers, losses)
    literal = published(layers, theirs, losses[0], twt)
    assert [s < found for s in loss.scores] == [s < literal for s in loss.scores]  # the same units go
    assert len(loss.measured) <= len(theirs.measured) + 1
    least = min(loss.scores)
    assert found == least or loss.measured[found] <= losses[0] * (1 + twt)
    assert least <= found <= max(loss.scores)


@pytest.mark.parametrize("largest", [1.0, 5.0, 9.0])
def test_on_a_steady_loss_the_result_is_close_to_the_largest_that_holds(largest):
    scores = [[index / 10 for index in range(1, 101)]]
    found = search(scores, lambda t: 1 + max(0.0, t - 0.1), loss_before=1.0, twt=largest - 0.1)
    assert largest - 0.05 * largest <= found <= largest


def test_where_nothing_holds_the_least_score_comes_back():
    assert search([[0.5, 2.0], [1.0]], lambda t: 100.0, loss_before=1.0, twt=0.05) == 0.5


def test_where_everything_holds_all_below_the_largest_score_goes():
    assert 1.0 < search([[0.5, 2.0], [1.0]], lambda t: 1.0, loss_before=1.0, twt=0.05) <= 2.0


def test_the_middle_weighs_layers_not_scores():
    measured = []

    def loss(threshold):
        measured.append(threshold)
        return 1.0

    search([[1.0, 1.0, 1.0, 1.0], [3.0]], loss, loss_before=1.0, twt=0.05)
    assert measured[0] == 2.0


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_a_loss_that_is_not_a_number_never_holds(broken):
    found = search([[1.0, 2.0, 3.0]], lambda t: 1.0 if t < 1.5 else broken, loss_before=1.0, twt=0.5)
    assert 1.0 <= found < 1.5


def test_no_loss_is_measured_twice_between_two_scores():
    """A jump of the loss between two scores would be bisected down to 1e-10."""
    measured = []

    def loss(threshold):
        measured.append(threshold)
        return 1.0 if threshold <= 40.5 else 100.0

    assert 40 < search([[float(s) for s in range(1, 101)]], loss, loss_before=1.0, twt=0.05) <= 41
    assert len(measured) <= 8


def test_a_loss_of_zero_ends():
    assert search([[1.0, 2.0]], lambda t: 0.0, loss_before=0.0, twt=0.05) <= 2.0
