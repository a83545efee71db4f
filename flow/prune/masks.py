"""Masks: pruned channels are zero and stay zero."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from flow.channels import Channels
from flow.network import NORMS, WEIGHTED, kind, weight_rows

if TYPE_CHECKING:
    import torch
    from torch import fx


class Masks:
    """Keeps pruned channels of one network at zero: weights, biases, BatchNorm's scale and shift.

    Pruned labels never come back; `apply` is called after every optimizer step.
    """

    def __init__(self, graph: fx.GraphModule, channels: Channels) -> None:
        self.pruned: frozenset[int] = frozenset()
        self._places = _places(graph, channels)
        self._rows: list[tuple[torch.Tensor, torch.Tensor]] = []

    def add(self, labels: Iterable[int]) -> None:
        """Prune these labels from now on."""
        import torch

        self.pruned = self.pruned.union(labels)
        self._rows = []
        for tensor, owners in self._places:
            rows = [row for row, label in enumerate(owners) if label in self.pruned]
            if rows:
                self._rows.append((tensor, torch.tensor(rows)))
        self.apply()

    def apply(self) -> None:
        """Zero everything that writes a pruned label."""
        import torch

        with torch.no_grad():
            for tensor, rows in self._rows:
                tensor.index_fill_(0, rows, 0)


def _places(graph: fx.GraphModule, channels: Channels) -> list[tuple[torch.Tensor, tuple[int, ...]]]:
    """Return every tensor with one row a channel, with the labels of its rows."""
    places = []
    for node in graph.graph.nodes:
        if node.op != "call_module":
            continue
        module = graph.get_submodule(node.target)
        labels = tuple(channels.labels[node.name].tolist())
        found = []
        if kind(module) in WEIGHTED:
            found = [weight_rows(module), module.bias]
        elif kind(module) in NORMS:
            found = [module.weight, module.bias, module.running_mean]
        places += [(tensor.detach(), labels) for tensor in found if tensor is not None]
    return places
