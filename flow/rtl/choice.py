"""The circuit that a chip has room for: the least one for a pace, or the fastest one."""

from __future__ import annotations

from flow.fixed.graph import FixedGraph
from flow.rtl.build import Builder
from flow.rtl.chip import Chip
from flow.rtl.folds import TooFastError
from flow.rtl.nodes import lowered
from flow.rtl.streams import Circuit

SLOWEST = 1 << 40
"""Clocks a frame that no network needs, however narrow."""
_PRICES = (1.0, 0.5, 2.0, 0.25, 4.0, 0.1, 10.0, 0.0)
"""Of a multiplier, beside the chip's LUTs for each of its multipliers."""


def within(graph: FixedGraph, chip: Chip, interval: int, prefix: str) -> Circuit:
    """Return a circuit of at most ``interval`` clocks a frame; of those that the chip has room for, a cheap one.

    Raises:
        TooFastError: a layer cannot be that fast.
    """
    each = chip.luts / chip.multipliers
    made = []
    for price in _PRICES:
        made.append(Builder(graph, interval, prefix, chip, price * each).build(lowered))
        if chip.holds(made[-1]):
            return made[-1]
    return made[0]


def fastest(graph: FixedGraph, chip: Chip, prefix: str) -> Circuit:
    """Return the circuit of the shortest interval that the chip has room for; where none is, the slowest one."""
    best = within(graph, chip, SLOWEST, prefix)
    least, most = 0, best.interval_cycles
    while most - least > 1:
        middle = (least + most) // 2
        try:
            made = within(graph, chip, middle, prefix)
        except TooFastError:
            least = middle
            continue
        if chip.holds(made):
            best, most = made, min(middle, made.interval_cycles)
        else:
            least = middle
    return best
