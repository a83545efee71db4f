"""Analysis: which labels must live, and which constants one channel can stand for.

Life spreads from the outputs backwards. A living row needs the columns that it reads, except those whose
constant its bias takes over. Constants that only a border keeps out of the bias are all multiples of one
another there, so one of them, the stand-in, carries the weights of all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from flow.network import calls
from flow.network.channels import Channels
from flow.simplify.constants import State
from flow.simplify.packing import fits, live_groups, living, movable, order, pack, ranks
from flow.simplify.readers import Reader

if TYPE_CHECKING:
    from torch import fx

_SMALLEST_STAND_IN = 1e-3
"""Least size of a stand-in, relative to the largest constant: dividing by less would cost digits."""


@dataclass(frozen=True)
class Survivors:
    """Arrays by label: which live, and in which order; and the old groups of each new one, by layer."""

    alive: np.ndarray
    rank: np.ndarray
    packs: Mapping[str, list[np.ndarray]]

    def order(self, labels: np.ndarray) -> np.ndarray:
        """Return the living channels of a tensor in their new order."""
        return order(labels, self.alive, self.rank)

    def keeps(self, labels: np.ndarray) -> bool:
        """Tell whether a tensor stays as it is."""
        return bool(self.alive[labels].all()) and not self.rank[labels].any()


def survivors(
    graph: fx.GraphModule, channels: Channels, states: Mapping[str, State], mixers: tuple[Reader, ...]
) -> Survivors:
    """Return what lives; a tensor that no one reads loses all channels, others keep one at least."""
    alive = np.zeros(1 + max(int(array.max()) for array in channels.labels.values()), dtype=bool)
    alive[list(channels.pinned)] = True
    packs: dict[str, list[np.ndarray]] = {}

    def grows(step: Callable[[], None]) -> bool:
        before = int(alive.sum())
        step()
        return int(alive.sum()) > before

    steps: tuple[Callable[[], None], ...] = (  # the later ones pick, so they wait for all that must live
        lambda: _spread(mixers, alive),
        lambda: _stand_in(mixers, alive),
        lambda: _keep_tensors(graph, channels, states, alive),
        lambda: _balance(mixers, channels, alive, packs),
    )
    while any(grows(step) for step in steps):
        pass
    return Survivors(alive, ranks(packs, mixers, len(alive)), packs)


def _spread(mixers: tuple[Reader, ...], alive: np.ndarray) -> None:
    """Bring to life what living rows read, where it varies."""
    for reader in reversed(mixers):
        alive[reader.inputs[reader.needed(alive) & np.isnan(reader.state.value)]] = True


def _stand_in(mixers: tuple[Reader, ...], alive: np.ndarray) -> None:
    for reader in mixers:
        for members in reader.classes(reader.needed(alive)):
            alive[reader.inputs[stand_in(reader, members, alive)]] = True


def stand_in(reader: Reader, members: np.ndarray, alive: np.ndarray) -> int:
    """Return the channel that stands for ``members``: the largest that lives anyway, else the largest."""
    sizes = np.abs(reader.state.value[members])
    peers = np.flatnonzero(reader.families == reader.families[members[0]])
    living = peers[alive[reader.inputs[peers]]]
    if len(living):
        largest = living[np.argmax(np.abs(reader.state.value[living]))]
        if abs(reader.state.value[largest]) >= _SMALLEST_STAND_IN * sizes.max():
            return int(largest)
    return int(members[np.argmax(sizes)])


def _balance(
    mixers: tuple[Reader, ...], channels: Channels, alive: np.ndarray, packs: dict[str, list[np.ndarray]]
) -> None:
    """Give every group of a grouped conv as many channels as the largest; once chosen, the groups stay."""
    for reader in mixers:
        if reader.groups == 1:
            continue
        ends = (reader.inputs, reader.outputs)
        packed = packs.get(reader.name, [])
        if sum(map(len, packed)) != len(live_groups(reader, alive)):
            others = [
                end for r in mixers if r.name in packs and r is not reader for end in (r.inputs, r.outputs)
            ]
            free = all(
                movable(end, channels) and not any(np.isin(end, other).any() for other in others)
                for end in ends
            )
            packed = packs[reader.name] = pack(reader, mixers, alive, free)
        if not fits(reader, living(reader, alive, np.arange(reader.groups)), packed):
            packed = packs[reader.name] = [np.array([group]) for group in live_groups(reader, alive)]
        for end in ends:
            labels = [end.reshape(reader.groups, -1)[members].reshape(-1) for members in packed]
            width = max([1, *(int(alive[row].sum()) for row in labels)])
            for row in labels:
                missing = width - int(alive[row].sum())
                alive[row[~alive[row]][: max(missing, 0)]] = True


def _keep_tensors(
    graph: fx.GraphModule, channels: Channels, states: Mapping[str, State], alive: np.ndarray
) -> None:
    """Keep a channel of tensors that cannot leave the graph, a constant one rather than another."""
    for node in graph.graph.nodes:
        if node.op == "output" or alive[channels.labels[node.name]].any():
            continue
        if not vanishes(node, channels, alive):
            labels = channels.labels[node.name]
            steady = np.flatnonzero(states[node.name].uniform)
            alive[labels[steady[0] if len(steady) else 0]] = True


def vanishes(node: fx.Node, channels: Channels, alive: np.ndarray) -> bool:
    """Tell whether a tensor without living channels can leave: all that read it leave, or concatenate it."""
    if node.op in ("placeholder", "output") or alive[channels.labels[node.name]].any():
        return False
    return all(
        vanishes(user, channels, alive)
        or (calls(user, "cat") and bool(alive[channels.labels[user.name]].any()))
        for user in node.users
    )
