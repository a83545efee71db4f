"""Masks: pruned channels and weights are zero and stay zero."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from flow.network import NORMS, WEIGHTED, blocks, kind
from flow.network.channels import Channels

if TYPE_CHECKING:
    import torch
    from torch import fx

Place = tuple[Any, str, "torch.Tensor"]
"""A module, the name of one of its tensors, and which of its elements are zero."""


def zero(places: Iterable[Place]) -> None:
    """Zero these elements."""
    import torch

    with torch.no_grad():
        for module, name, mask in places:
            getattr(module, name).masked_fill_(mask, 0)


class Masks:
    """Keeps pruned channels of one network at zero: weights, biases, BatchNorm's scale, shift and running mean.

    `apply` is called after every optimizer step.
    """

    def __init__(self, graph: fx.GraphModule, channels: Channels) -> None:
        self._owners: list[tuple[Any, np.ndarray]] = []
        for node in graph.graph.nodes:
            if node.op == "call_module":
                module = graph.get_submodule(node.target)
                if kind(module) in (*WEIGHTED, *NORMS):
                    self._owners.append((module, channels.labels[node.name]))
        self.pruned: frozenset[int] = frozenset()
        self._places: list[Place] = []

    def set(self, labels: Iterable[int]) -> None:
        """Prune these labels from now on, and no others."""
        self.pruned = frozenset(int(label) for label in labels)
        gone = np.array(sorted(self.pruned), dtype=int)
        self._places = [
            place for module, owners in self._owners for place in _places(module, np.isin(owners, gone))
        ]
        self.apply()

    def apply(self) -> None:
        """Zero everything that writes a pruned label."""
        zero(self._places)


def _places(module: Any, rows: np.ndarray) -> list[Place]:
    """Return the tensors of a layer with one row a channel, and what of them these rows are."""
    import torch

    if not rows.any():
        return []
    chosen = torch.from_numpy(rows)
    names = ["bias"] if kind(module) in WEIGHTED else ["weight", "bias", "running_mean"]
    found: list[Place] = [(module, name, chosen) for name in names if getattr(module, name) is not None]
    if kind(module) in WEIGHTED:
        mask = torch.zeros(module.weight.shape, dtype=torch.bool)
        view = blocks(module, mask)
        view[chosen.reshape(view.shape[:2])] = True
        found.append((module, "weight", mask))
    return found
