"""Folding: the reuse factor of every layer, so that the multipliers fit and the layers keep pace."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from flow.boards import DSP_SHARE

MAX_UNROLL = 4096
"""Vivado HLS unrolls and partitions no more than this."""


@dataclass(frozen=True)
class Fold:
    """A layer as the folding sees it: ``inputs`` x ``outputs`` products at each of ``positions`` positions.

    ``limited``: the reuse factor must not exceed ``inputs``.
    """

    name: str
    inputs: int
    outputs: int
    positions: int
    limited: bool = False

    @property
    def legal(self) -> tuple[int, ...]:
        factors = legal_reuse_factors(self.inputs, self.outputs)
        return tuple(factor for factor in factors if factor <= self.inputs) if self.limited else factors

    def nearest(self, reuse: int) -> int:
        """Return the legal reuse factor next to ``reuse``, the smaller of two."""
        return min(self.legal, key=lambda factor: (abs(factor - reuse), factor))

    def multipliers(self, reuse: int) -> int:
        return math.ceil(self.inputs * self.outputs / reuse)


def legal_reuse_factors(inputs: int, outputs: int) -> tuple[int, ...]:
    """Return the reuse factors that hls4ml's resource strategy computes correctly with.

    A factor divides ``inputs``, or is ``inputs`` times a divisor of ``outputs``.
    """
    small = [factor for factor in range(1, inputs + 1) if inputs % factor == 0]
    large = [inputs * factor for factor in range(2, outputs + 1) if outputs % factor == 0]
    return tuple(small + large)


def hls4ml_streams(
    kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int], groups: int, weights: int
) -> bool:
    """Tell whether hls4ml's own kernel computes a conv in io_stream.

    Its streams pass over the rows' stride of a flat kernel, and keep all weights of a 1 x 1 conv in registers.
    """
    if groups != 1 or set(dilations) != {1}:
        return False
    if set(kernel) == {1}:
        return weights <= MAX_UNROLL
    return not (len(kernel) == 2 and kernel[0] == 1 and strides[0] > 1)


def choose(folds: Iterable[Fold], dsps: int) -> dict[str, int]:
    """Return the reuse factors with the shortest interval whose multipliers fit ``DSP_SHARE`` of ``dsps``.

    interval = max over layers of positions * reuse; each layer takes the largest legal factor within it.
    Where even full folding does not fit, full folding is returned.
    """
    folds = tuple(folds)
    legal = {fold.name: fold.legal for fold in folds}
    shortest = max((fold.positions * min(legal[fold.name]) for fold in folds), default=0)
    intervals = sorted({fold.positions * factor for fold in folds for factor in legal[fold.name]})
    chosen: dict[str, int] = {}
    for interval in intervals:
        if interval < shortest:
            continue
        chosen = {
            fold.name: max(f for f in legal[fold.name] if fold.positions * f <= interval) for fold in folds
        }
        if total_multipliers(folds, chosen) <= DSP_SHARE * dsps:
            break
    return chosen


def total_multipliers(folds: Iterable[Fold], reuse: Mapping[str, int]) -> int:
    """Return the multipliers that work at the same time."""
    return sum(fold.multipliers(reuse[fold.name]) for fold in folds)
