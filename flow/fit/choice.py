"""The choice: a reuse factor for every layer, so that the fullest resource of the board is as empty as possible."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from flow.estimate import MAX_UNROLL, Cost, Work, design_cost, layer_cost, limits, on_board
from flow.types import Resources

_ROUNDS = 80
_STEP = 3.0


@dataclass(frozen=True)
class Option:
    """One way to build a layer."""

    reuse: int
    cost: Cost


@dataclass(frozen=True)
class Choice:
    """A design: an option for every layer; ``taken`` is what it takes of the board, in the order of `NAMES`."""

    io_type: str
    works: tuple[Work, ...]
    options: tuple[Option, ...]
    design: Cost
    taken: tuple[float, ...]

    def shares(self, resources: Resources) -> tuple[float, ...]:
        """Return what the design takes of each resource of a board, as shares."""
        return tuple(t / limit for t, limit in zip(self.taken, limits(resources), strict=True))

    def fits(self, resources: Resources, interval_cycles: int) -> bool:
        """Tell whether the design keeps within a board and a rate."""
        return max(self.shares(resources)) <= 1 and self.design.interval_cycles <= interval_cycles


def layer_options(works: Sequence[Work], io_type: str) -> list[list[Option]] | None:
    """Return the legal ways to build each layer; None where a layer has none or an array is too large."""
    if io_type == "io_parallel" and any(work.outputs * work.positions > MAX_UNROLL for work in works):
        return None
    found = [[Option(r, layer_cost(work, r, io_type)) for r in work.reuse_factors(io_type)] for work in works]
    return found if all(found) else None


def choose(
    works: Sequence[Work],
    options: Sequence[Sequence[Option]],
    resources: Resources,
    interval_cycles: int,
    io_type: str,
) -> Choice:
    """Return the design with the smallest largest share of the board among those found within the interval.

    A layer that no option brings within the interval takes its fastest. Each resource has a price; every layer
    takes its cheapest option, and the fuller a resource the dearer it becomes; at last layers change one by one.
    The same arguments give the same design.
    """
    within = [_within(of_layer, interval_cycles) for of_layer in options]
    amounts = [
        np.array([_above(work, option) for option in of_layer])
        for work, of_layer in zip(works, within, strict=True)
    ]
    base = np.array(on_board(()))
    board = np.array(limits(resources))
    scaled = [layer / board for layer in amounts]
    start = base / board
    picks = _improved(scaled, start, _priced(scaled, start))
    chosen = tuple(of_layer[pick] for of_layer, pick in zip(within, picks, strict=True))
    taken = on_board((work, option.reuse, option.cost) for work, option in zip(works, chosen, strict=True))
    design = design_cost((option.cost for option in chosen), io_type)
    return Choice(io_type, tuple(works), chosen, design, taken)


def _within(options: Sequence[Option], interval_cycles: int) -> list[Option]:
    fast = [option for option in options if option.cost.interval_cycles <= interval_cycles]
    return fast or [min(options, key=lambda option: option.cost.interval_cycles)]


def _above(work: Work, option: Option) -> np.ndarray:
    """Return what a layer adds to an empty board."""
    alone = np.array(on_board([(work, option.reuse, option.cost)]))
    return np.asarray(alone - np.array(on_board(())))


def _priced(scaled: Sequence[np.ndarray], start: np.ndarray) -> list[int]:
    prices = np.ones(len(start))
    best: tuple[float, float] = (math.inf, math.inf)
    found: list[int] = []
    for _ in range(_ROUNDS):
        picks = [int(np.argmin(layer @ prices)) for layer in scaled]
        shares = start + sum(layer[pick] for layer, pick in zip(scaled, picks, strict=True))
        rank = (float(shares.max()), float(shares.sum()))
        if rank < best:
            best, found = rank, picks
        prices *= np.exp(_STEP * (shares / shares.max() - 1))
        prices /= prices.max()
        prices = np.maximum(prices, 1e-6)
    return found


def _improved(scaled: Sequence[np.ndarray], start: np.ndarray, picks: list[int]) -> list[int]:
    """Change one layer at a time while the fullest resource, then the sum of all, becomes smaller."""
    shares = start + sum(
        (layer[pick] for layer, pick in zip(scaled, picks, strict=True)), np.zeros(len(start))
    )
    changed = True
    while changed:
        changed = False
        for index, layer in enumerate(scaled):
            others = shares - layer[picks[index]]
            tried = others + layer
            order = np.lexsort((tried.sum(axis=1), tried.max(axis=1)))
            pick = int(order[0])
            better = (tried[pick].max(), tried[pick].sum()) < (shares.max() - 1e-12, shares.sum())
            if pick != picks[index] and better:
                picks[index], shares, changed = pick, tried[pick], True
    return picks


def fastest_interval(options: Sequence[Sequence[Option]]) -> int:
    """Return the interval in cycles below which no choice goes."""
    return max(min(option.cost.interval_cycles for option in of_layer) for of_layer in options)


def intervals(options: Sequence[Sequence[Option]]) -> list[int]:
    """Return all intervals in cycles at which a choice may change, in order."""
    slowest = fastest_interval(options)
    return sorted(
        {o.cost.interval_cycles for layer in options for o in layer if o.cost.interval_cycles >= slowest}
    )
