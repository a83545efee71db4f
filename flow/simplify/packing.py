"""Analysis: grouped convs need groups of one size; groups that lost channels share a larger one.

Groups of 8 that keep 2 to 6 channels each would all have to keep 6. Two of them in one group, its weights between
them zero, keep 8 or 9 in all. That needs another order of the channels, which costs nothing where the layers
around can take it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from flow.network.channels import Channels

if TYPE_CHECKING:
    from flow.simplify.readers import Reader


def live_groups(reader: Reader, alive: np.ndarray) -> np.ndarray:
    """Return the groups that keep a channel at either end."""
    ends = (alive[side].reshape(reader.groups, -1).any(axis=1) for side in (reader.inputs, reader.outputs))
    return np.flatnonzero(np.logical_or(*ends))


def movable(labels: np.ndarray, channels: Channels) -> bool:
    """Tell whether these channels may change places: every tensor that has some of them has just these."""
    if len(np.unique(labels)) != len(labels) or channels.pinned.intersection(labels.tolist()):
        return False
    return all(
        np.array_equal(found, labels) or not np.isin(found, labels).any()
        for found in channels.labels.values()
    )


def pack(reader: Reader, mixers: tuple[Reader, ...], alive: np.ndarray, may_move: bool) -> list[np.ndarray]:
    """Return the old groups of each new one, the way that leaves the fewest weights here and around."""
    groups = live_groups(reader, alive)
    single = [np.array([group]) for group in groups]
    sizes = np.stack(
        [
            alive[side].reshape(reader.groups, -1)[groups].sum(axis=1)
            for side in (reader.inputs, reader.outputs)
        ]
    )
    if not may_move or (sizes == sizes[:, :1]).all():
        return single
    around = [_weights_around(reader, mixers, alive, side) for side in (reader.inputs, reader.outputs)]
    ways = [_bins(sizes, count) for count in range(len(groups), 0, -1)]
    own = reader.reads.size  # more than before is not allowed, whatever it saves around
    allowed = [bins for bins in ways if _cost(sizes, bins, [0, 0]) <= own and fits(reader, sizes, bins)]
    best = min(allowed, key=lambda bins: _cost(sizes, bins, [each / reader.positions for each in around]))
    return [groups[members] for members in best]


def living(reader: Reader, alive: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Return (2, groups): how many inputs and outputs live in each of these groups."""
    ends = (reader.inputs, reader.outputs)
    return np.stack([alive[side].reshape(reader.groups, -1)[groups].sum(axis=1) for side in ends])


def fits(reader: Reader, sizes: np.ndarray, bins: list[np.ndarray]) -> bool:
    """Tell whether the smallest bin, with its dead channels, can be as wide as the widest."""
    room = [
        len(end) // reader.groups * min(len(members) for members in bins)
        for end in (reader.inputs, reader.outputs)
    ]
    return all(width <= most for width, most in zip(_widths(sizes, bins), room, strict=True))


def _widths(sizes: np.ndarray, bins: list[np.ndarray]) -> list[int]:
    return [max(1, *(int(side[members].sum()) for members in bins)) for side in sizes]


def _weights_around(reader: Reader, mixers: tuple[Reader, ...], alive: np.ndarray, side: np.ndarray) -> int:
    """Return how many weights other layers have for one channel of ``side``."""
    total = 0
    for other in mixers:
        for mine, across in ((other.outputs, other.inputs), (other.inputs, other.outputs)):
            if other is not reader and np.isin(mine, side).any():
                total += int(alive[across].sum()) // other.groups * other.positions
    return total


def _bins(sizes: np.ndarray, count: int) -> list[np.ndarray]:
    """Put groups into ``count`` bins of about one size: the largest first, each into the emptiest."""
    bins: list[list[int]] = [[] for _ in range(count)]
    filled = np.zeros(count, dtype=int)
    for group in np.argsort(-sizes.sum(axis=0), kind="stable"):
        place = int(np.argmin(filled))
        bins[place].append(int(group))
        filled[place] += max(1, int(sizes[:, group].sum()))
    return [np.array(sorted(members)) for members in bins]


def _cost(sizes: np.ndarray, bins: list[np.ndarray], around: list[float]) -> float:
    """Return the weights for each kernel position that so many groups take, here and around."""
    widths = _widths(sizes, bins)
    channels = [len(bins) * width for width in widths]
    return float(len(bins) * widths[0] * widths[1] + channels[0] * around[0] + channels[1] * around[1])


def order(labels: np.ndarray, alive: np.ndarray, rank: np.ndarray) -> np.ndarray:
    """Return the living channels of a tensor in their new order."""
    living = np.flatnonzero(alive[labels])
    return living[np.argsort(rank[labels[living]], kind="stable")]


def ranks(packs: Mapping[str, list[np.ndarray]], mixers: tuple[Reader, ...], size: int) -> np.ndarray:
    """Return a number for each label; channels with lower ones come first. 0: it stays in its place."""
    rank = np.zeros(size, dtype=int)
    for reader in mixers:
        bins = packs.get(reader.name, [])
        if any(len(members) > 1 for members in bins):
            for side in (reader.inputs, reader.outputs):
                for place, members in enumerate(bins, start=1):
                    rank[side.reshape(reader.groups, -1)[members]] = place
    return rank
