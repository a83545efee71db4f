"""Folding: the reuse factors are hls4ml's, fit the DSP slices, and give the shortest interval that does."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flow.boards import DSP_SHARE
from flow.estimate.reuse import Fold, choose, legal_reuse_factors, total_multipliers


def hls4ml_accepts(n_in: int, n_out: int, rf: int) -> bool:
    """``FPGABackend._validate_reuse_factor`` of hls4ml 1.3, written out."""
    multfactor = min(n_in, rf)
    multiplier_limit = math.ceil((n_in * n_out) / float(multfactor))
    valid = ((multiplier_limit % n_out) == 0) or (rf >= n_in)
    valid = valid and (((rf % n_in) == 0) or (rf < n_in))
    return valid and (((n_in * n_out) % rf) == 0)


def test_the_legal_factors_are_those_that_hls4ml_accepts() -> None:
    for n_in, n_out in itertools.product(range(1, 25), repeat=2):
        accepted = tuple(rf for rf in range(1, n_in * n_out + 1) if hls4ml_accepts(n_in, n_out, rf))
        assert legal_reuse_factors(n_in, n_out) == accepted, (n_in, n_out)


def test_the_rule_is_the_one_of_the_hls4ml_that_is_installed() -> None:
    from hls4ml.backends import get_backend

    backend = get_backend("Vitis")
    for n_in, n_out in itertools.product(range(1, 13), repeat=2):
        found = tuple(
            rf for rf in range(1, n_in * n_out + 1) if backend._validate_reuse_factor(n_in, n_out, rf)
        )
        assert legal_reuse_factors(n_in, n_out) == found


def test_a_limited_layer_is_folded_over_its_inputs_at_most() -> None:
    assert Fold("conv", 6, 4, 9).legal == (1, 2, 3, 6, 12, 24)
    assert Fold("conv", 6, 4, 9, limited=True).legal == (1, 2, 3, 6)


def interval(folds: tuple[Fold, ...], reuse: dict[str, int]) -> int:
    return max(fold.positions * reuse[fold.name] for fold in folds)


def brute_force(folds: tuple[Fold, ...], dsps: int) -> tuple[int, int] | None:
    """Return the shortest interval that fits, and the fewest multipliers with it; None where nothing fits."""
    names = [fold.name for fold in folds]
    fitting = []
    for factors in itertools.product(*(fold.legal for fold in folds)):
        reuse = dict(zip(names, factors, strict=True))
        multipliers = sum(
            -(-fold.inputs * fold.outputs // factor) for fold, factor in zip(folds, factors, strict=True)
        )
        if multipliers <= DSP_SHARE * dsps:
            fitting.append((interval(folds, reuse), multipliers))
    return min(fitting) if fitting else None


FOLDS = st.lists(
    st.tuples(st.integers(1, 12), st.integers(1, 8), st.integers(1, 20), st.booleans()),
    min_size=1,
    max_size=3,
).map(lambda rows: tuple(Fold(f"layer{i}", *row) for i, row in enumerate(rows)))


@settings(max_examples=300, deadline=None)
@given(FOLDS, st.integers(0, 200))
def test_no_other_choice_has_a_shorter_interval_or_fewer_multipliers(
    folds: tuple[Fold, ...], dsps: int
) -> None:
    chosen = choose(folds, dsps)
    assert all(chosen[fold.name] in fold.legal for fold in folds)
    best = brute_force(folds, dsps)
    if best is None:
        assert chosen == {fold.name: max(fold.legal) for fold in folds}
    else:
        assert (interval(folds, chosen), total_multipliers(folds, chosen)) == best


@pytest.mark.parametrize(
    ("dsps", "chosen"),
    [
        (1000, {"conv": 1, "fc": 64}),
        (100, {"conv": 1, "fc": 128}),
        (80, {"conv": 3, "fc": 128}),
        (20, {"conv": 9, "fc": 320}),
        (0, {"conv": 72, "fc": 640}),
    ],
)
def test_the_slow_layer_sets_the_pace_and_the_others_save_multipliers(
    dsps: int, chosen: dict[str, int]
) -> None:
    folds = [Fold("conv", 9, 8, 64), Fold("fc", 64, 10, 1)]
    assert choose(folds, dsps) == chosen


def test_layers_that_share_nothing_with_the_slowest_are_folded_as_far_as_it_allows() -> None:
    assert choose([Fold("slow", 1, 1, 100), Fold("fc", 10, 10, 1)], 1000) == {"slow": 1, "fc": 100}


def test_a_network_without_products_needs_no_factors() -> None:
    assert choose([], 220) == {}
