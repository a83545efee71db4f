"""How much goes, and which: ratios, budgets, widths that fold well."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from flow.errors import ConfigError, UnsupportedError
from flow.prune.options import Options
from flow.prune.units import Units

if TYPE_CHECKING:
    from torch import fx

Cost = Callable[["fx.GraphModule"], Mapping[str, float]]
"""The figures of a network of the surviving size, such as LUTs and cycles; fewer channels must not cost more."""
BUILT_IN = ("parameters", "macs")
_LEAST_SAVING = 1e-3
"""What saves nothing counts as if it saved this share of the most that a unit saves."""


class Goal:
    """Decides how many of the units, in the order of their scores, a step may take."""

    def __init__(self, units: Units, options: Options, cost: Cost | None, trains: bool) -> None:
        self.units, self.cost = units, cost
        self.budget = dict(options.budget or {})
        self.round_to = options.round_to
        self.caps, self.count = _limits(units, options, trains)
        self._hardware = any(name not in BUILT_IN for name in self.budget)
        self.start = self.figures(units.pruned)
        for name in self.budget:
            if name not in self.start:
                known = ", ".join(self.start) if cost else f"{', '.join(BUILT_IN)}, and those of cost"
                raise ConfigError(f"prune: budget must be of {known}, not of {name!r}; correct the name")
        if self.budget:
            self._check_reachable()

    def figures(self, pruned: np.ndarray) -> dict[str, float]:
        """Return parameters, MACs and, for a budget that asks for them, the cost of what is left."""
        found = self.units.figures(pruned)
        if self.cost and self._hardware:
            found |= self.cost(self.units.surviving(pruned))
        return found

    @property
    def left(self) -> int:
        """Return how many more units may go."""
        return self.count - int(self.units.pruned.sum())

    def met(self) -> bool:
        """Tell whether there is a budget and it is met."""
        return bool(self.budget) and self._holds(self.units.pruned, 1.0)

    def take(self, order: np.ndarray, fraction: float = 1.0) -> np.ndarray:
        """Return the units to prune now: the first of ``order``, up to a fraction of the way from the dense network.

        The fewest that meet the budget, if there is one; widths stay multiples of ``round_to`` where they change.
        """
        order = self.units.allowed(order, self.caps)
        share = 1.0 if self.budget else fraction  # a budget has its own way to go
        room = math.floor(self.count * share + 1e-9) - int(self.units.pruned.sum())
        last = _last(len(order), lambda k: len(self._rounded(order[:k])) <= room)
        if self.budget:
            last = _last(last, lambda k: not self._holds(self._with(self._rounded(order[:k])), fraction), 1)
        return self._rounded(order[:last])

    def worth(self, scores: np.ndarray) -> np.ndarray:
        """Return scores divided by what the removal of a unit saves of the budget: the first to go cost the most.

        saving = sum over the figures above their limit of (figure now - figure without the unit) / limit
        """
        if not self.budget or self.units.word != "channels":
            return scores
        now = self.figures(self.units.pruned)
        over = [name for name, limit in self.budget.items() if now[name] > limit]
        savings = np.zeros(len(self.units.layers))
        for index in range(len(savings)):
            mine = np.flatnonzero((self.units.classes == index) & ~self.units.pruned & self.units.free)
            mine = self.units.allowed(mine, self.caps)[: self.round_to]
            if len(mine):
                less = self.figures(self._with(mine))
                gain = sum(max(0.0, now[name] - less[name]) / self.budget[name] for name in over)
                savings[index] = gain / len(mine)
        if not savings.any():
            return scores
        return np.asarray(scores / np.maximum(savings / savings.max(), _LEAST_SAVING)[self.units.classes])

    def shortfall(self) -> str:
        """Return how far from the budget the network is, in words."""
        now = self.figures(self.units.pruned)
        return ", ".join(
            f"{name} {now[name]:g} of at most {limit:g}"
            for name, limit in self.budget.items()
            if now[name] > limit
        )

    def _holds(self, pruned: np.ndarray, fraction: float) -> bool:
        now = self.figures(pruned)
        return all(
            now[name] <= max(limit, self.start[name] - fraction * (self.start[name] - limit))
            for name, limit in self.budget.items()
        )

    def _with(self, more: np.ndarray) -> np.ndarray:
        pruned = self.units.pruned.copy()
        pruned[more] = True
        return pruned

    def _rounded(self, chosen: np.ndarray) -> np.ndarray:
        """Drop the last of each class until what is left of it is a multiple of ``round_to``."""
        if self.round_to == 1 or not len(chosen):
            return chosen
        classes = self.units.classes
        alive = np.bincount(classes[~self.units.pruned], minlength=len(self.units.layers))
        going = np.bincount(classes[chosen], minlength=len(alive))
        kept = -(-(alive - going) // self.round_to) * self.round_to
        most = np.maximum(alive - kept, 0)
        places = [np.flatnonzero(classes[chosen] == index)[:count] for index, count in enumerate(most)]
        return np.asarray(chosen[np.sort(np.concatenate(places))])

    def _check_reachable(self) -> None:
        order = self.units.allowed(np.flatnonzero(self.units.free & ~self.units.pruned), self.caps)
        order = self._rounded(order)
        if len(order) > self.left or self._holds(self._with(order), 1.0):
            return  # with a ratio, which units go decides
        least = self.figures(self._with(order))
        over = ", ".join(f"{n} {least[n]:g} of at most {k:g}" for n, k in self.budget.items() if least[n] > k)
        raise ConfigError(
            f"prune: budget must be within reach, but with all that may go gone it is {over}; "
            "raise it, or free layers"
        )


def _limits(units: Units, options: Options, trains: bool) -> tuple[np.ndarray, int]:
    """Return the most units of each class that may go, and of all together."""
    named = options.pruning_ratio_dict or {}
    for layer in named:
        if not any(layer in layers for layers in units.layers):
            raise UnsupportedError(
                f"prune: layer {layer!r} must have channels that may go, not only outputs of the network, or what a "
                "softmax reads; leave it out of pruning_ratio_dict"
            )
    sizes = np.bincount(units.classes, minlength=len(units.layers))
    searched = bool(options.budget) or (trains and options.schedule == "pwe")
    others = 1.0 if searched else 0.0  # what layers without a ratio of their own may lose
    if options.pruning_ratio is not None:
        others = 1.0 if options.global_pruning else options.pruning_ratio
    shares = [
        min((named[layer] for layer in layers if layer in named), default=others) for layers in units.layers
    ]
    caps = np.floor(np.array(shares) * sizes + 1e-9).astype(int)
    free = int(units.free.sum())
    if options.pruning_ratio is None:
        return caps, min(free, int(caps.sum()))
    count = math.floor(options.pruning_ratio * len(units.classes) + 1e-9)
    if count > free:
        raise ConfigError(
            f"prune: pruning_ratio must leave ignored_layers whole, not ask for {count} of {free} prunable "
            f"{units.word}; lower it, or ignore fewer layers"
        )
    return caps, min(count, int(caps.sum())) if named or not options.global_pruning else count


def _last(most: int, holds: Callable[[int], bool], beyond: int = 0) -> int:
    """Return the largest k up to ``most`` for which a falling condition holds, and ``beyond`` more, up to ``most``."""
    low, high = 0, most
    if not holds(0):
        return 0
    while low < high:
        middle = (low + high + 1) // 2
        if holds(middle):
            low = middle
        else:
            high = middle - 1
    return min(most, low + beyond)
