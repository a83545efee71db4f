"""The layers that mix channels, each over all of its uses: what they read, and which constants reach them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from flow.network import kind, uses
from flow.network.channels import Channels, input_labels, is_depthwise
from flow.network.forms import WEIGHTED
from flow.simplify.constants import State, absorbable, reads

if TYPE_CHECKING:
    from torch import fx


@dataclass(frozen=True)
class Reader:
    """A layer that mixes channels, over all of its uses; arrays go by its channels."""

    name: str
    module: Any
    inputs: np.ndarray
    outputs: np.ndarray
    state: State
    free: np.ndarray

    @cached_property
    def reads(self) -> np.ndarray:
        return reads(self.module)

    @property
    def groups(self) -> int:
        return len(self.reads)

    @property
    def positions(self) -> int:
        return int(self.module.weight[0, 0].numel())

    def needed(self, alive: np.ndarray) -> np.ndarray:
        """Return the input channels that living rows read and the bias cannot take over."""
        rows = alive[self.outputs].reshape(self.groups, -1, 1)
        return np.asarray((self.reads & rows).any(axis=1).reshape(-1) & ~self.free)

    @cached_property
    def families(self) -> np.ndarray:
        """Return a number for each input channel: constants of one family are multiples of one another; -1: none."""
        width = len(self.inputs) // self.groups
        keys = np.stack([np.arange(len(self.inputs)) // width, self.state.pattern], axis=1)
        numbers = np.unique(keys, axis=0, return_inverse=True)[1].reshape(-1)
        return np.where(np.isnan(self.state.value) | self.free, -1, numbers)

    def classes(self, columns: np.ndarray) -> list[np.ndarray]:
        """Return the families among ``columns``."""
        family = np.where(columns, self.families, -1)
        return [np.flatnonzero(family == number) for number in np.unique(family[family >= 0])]


def readers(graph: fx.GraphModule, channels: Channels, states: Mapping[str, State]) -> tuple[Reader, ...]:
    """Return the layers that mix channels; depthwise convs hand theirs on."""
    found = []
    for name, nodes in uses(graph).items():
        module = graph.get_submodule(name)
        if kind(module) in WEIGHTED and not is_depthwise(module):
            sources = [states[node.args[0].name] for node in nodes]  # type: ignore[union-attr]
            state = _common(sources)
            free = absorbable(module, state)
            labels = input_labels(channels, nodes[0]), channels.labels[nodes[0].name]
            found.append(Reader(name, module, *labels, state, free))
    return tuple(found)


def _common(states: list[State]) -> State:
    """Return what all uses of a layer agree on."""
    first, *rest = states
    if not rest:
        return first
    same = np.logical_and.reduce([first.uniform, *(s.uniform & (s.value == first.value) for s in rest)])
    return State(np.where(same, first.value, np.nan), np.zeros(len(first.value), dtype=int))
