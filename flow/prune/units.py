"""What is pruned: whole channel groups (structured) or single weights (unstructured), as arrays with one entry a unit.

Units belong to classes: channel groups that are written by the same layers, or the weights of one layer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from flow.network import blocks, costs_of, macs, share, total_parameters, weighted, with_blocks
from flow.network.channels import Channels
from flow.network.narrow import narrow
from flow.prune.criteria import criterion, weight_scores
from flow.prune.masks import Masks, Place, zero
from flow.training import Split

if TYPE_CHECKING:
    import torch
    from torch import fx


class Units(Protocol):
    """One network's units; ``pruned`` are zero and stay zero.

    ``classes``: int (units,), the class of each unit. ``layers``: the layers of each class. ``free``: bool (units,),
    not of an ignored layer. ``pruned``: bool (units,).
    """

    word: str
    classes: np.ndarray
    layers: tuple[tuple[str, ...], ...]
    free: np.ndarray
    pruned: np.ndarray

    def scores(self, split: Split | None) -> np.ndarray:
        """Return a score a unit, float64; the least go first."""

    def allowed(self, order: np.ndarray, caps: np.ndarray) -> np.ndarray:
        """Return the units of ``order`` that may go: at most ``caps`` of a class, and never a whole layer."""

    def set(self, pruned: np.ndarray) -> None:
        """Zero these units from now on, and no others."""

    def apply(self) -> None:
        """Zero what is pruned, again."""

    def surviving(self, pruned: np.ndarray) -> fx.GraphModule:
        """Return a network of the size that is left when these units go."""

    def figures(self, pruned: np.ndarray) -> dict[str, float]:
        """Return ``parameters`` and ``macs`` (one sample) of what is left."""

    def rows(self) -> dict[str, tuple[int, ...]]:
        """Return the rows of each layer that are gone whole."""


class ChannelUnits:
    """Channel groups: what shares a label goes together."""

    word = "channels"

    def __init__(
        self,
        graph: fx.GraphModule,
        channels: Channels,
        sizes: Mapping[str, tuple[int, ...]],
        name: str,
        ignored_layers: tuple[str, ...],
        seed: int,
    ) -> None:
        self.graph, self.channels, self.sizes = graph, channels, sizes
        self._score = criterion(name, seed)
        self.labels = np.array(sorted(channels.prunable()), dtype=int)
        writers = [tuple(dict.fromkeys(layer for layer, _ in channels.writers[x])) for x in self.labels]
        self.layers: tuple[tuple[str, ...], ...] = tuple(dict.fromkeys(writers))
        numbers = {layers: index for index, layers in enumerate(self.layers)}
        self.classes = np.array([numbers[layers] for layers in writers], dtype=int)
        free = set(channels.prunable(ignored_layers))
        self.free = np.array([label in free for label in self.labels.tolist()], dtype=bool)
        self.pruned = np.zeros(len(self.labels), dtype=bool)
        self._masks = Masks(graph, channels)
        self._size = 1 + max(int(labels.max()) for labels in channels.labels.values())
        self._widths: dict[str, int] = {}
        for found in channels.writers.values():
            for layer in {layer for layer, _ in found}:
                self._widths[layer] = self._widths.get(layer, 0) + 1

    def scores(self, split: Split | None) -> np.ndarray:
        found = self._score(self.graph, self.channels, split)
        return np.array([found[label] for label in self.labels.tolist()], dtype=np.float64)

    def allowed(self, order: np.ndarray, caps: np.ndarray) -> np.ndarray:
        left = dict(self._widths)
        for layers in (self.layers[index] for index in self.classes[self.pruned]):
            for layer in layers:
                left[layer] -= 1
        room = caps - np.bincount(self.classes[self.pruned], minlength=len(self.layers))
        chosen = []
        for unit, index in zip(order.tolist(), self.classes[order].tolist(), strict=True):
            layers = self.layers[index]
            if room[index] > 0 and all(left[layer] > 1 for layer in layers):
                chosen.append(unit)
                room[index] -= 1
                for layer in layers:
                    left[layer] -= 1
        return np.array(chosen, dtype=int)

    def set(self, pruned: np.ndarray) -> None:
        self.pruned = pruned.copy()
        self._masks.set(self.labels[pruned].tolist())

    def apply(self) -> None:
        self._masks.apply()

    def surviving(self, pruned: np.ndarray) -> fx.GraphModule:
        alive = np.ones(self._size, dtype=bool)
        alive[self.labels[pruned]] = False
        return narrow(self.graph, self.channels, alive)

    def figures(self, pruned: np.ndarray) -> dict[str, float]:
        made = self.surviving(pruned)
        total = sum(cost.macs for cost in costs_of(made, self.sizes))  # extents stay as they are
        return {"parameters": float(total_parameters(made)), "macs": float(total)}

    def rows(self) -> dict[str, tuple[int, ...]]:
        """Return the pruned rows of each layer."""
        found: dict[str, list[int]] = {}
        for label in self.labels[self.pruned].tolist():
            for layer, row in self.channels.writers[label]:
                found.setdefault(layer, []).append(row)
        return {layer: tuple(sorted(rows)) for layer, rows in found.items()}


class WeightUnits:
    """Single weights of Conv and Linear layers; biases are no units, and one weight of a layer always stays."""

    word = "weights"

    def __init__(
        self,
        graph: fx.GraphModule,
        sizes: Mapping[str, tuple[int, ...]],
        name: str,
        ignored_layers: tuple[str, ...],
        seed: int,
    ) -> None:
        self.graph, self.sizes = graph, sizes
        self._name, self._seed = name, seed
        self._modules: dict[str, Any] = {str(node.target): module for node, module in weighted(graph)}
        self.layers: tuple[tuple[str, ...], ...] = tuple((layer,) for layer in self._modules)
        counts = [module.weight.numel() for module in self._modules.values()]
        self._ends = np.cumsum(counts)
        self.classes = np.repeat(np.arange(len(counts)), counts)
        ignored = np.array([layer in ignored_layers for layer in self._modules], dtype=bool)
        self.free = ~ignored[self.classes]
        self.pruned = np.zeros(len(self.classes), dtype=bool)
        self._places: list[Place] = []

    def scores(self, split: Split | None) -> np.ndarray:
        found = weight_scores(self._name, self.graph, split, self._seed)
        return np.concatenate([found[layer].double().reshape(-1).numpy() for layer in self._modules])

    def allowed(self, order: np.ndarray, caps: np.ndarray) -> np.ndarray:
        chosen = np.ones(len(order), dtype=bool)
        sizes = np.bincount(self.classes)
        gone = np.bincount(self.classes[self.pruned], minlength=len(sizes))
        room = np.minimum(caps, sizes - 1) - gone
        for index, most in enumerate(room.tolist()):
            places = np.flatnonzero(self.classes[order] == index)
            chosen[places[max(0, most) :]] = False
        return order[chosen]

    def set(self, pruned: np.ndarray) -> None:
        self.pruned = pruned.copy()
        self._places = [(module, "weight", mask) for module, mask in self._parts(pruned) if bool(mask.any())]
        self.apply()

    def apply(self) -> None:
        zero(self._places)

    def surviving(self, pruned: np.ndarray) -> fx.GraphModule:
        made = share(self.graph)
        for layer, (module, mask) in zip(self._modules, self._parts(pruned), strict=True):
            kept = blocks(module, module.weight.detach().masked_fill(mask, 0))
            made.set_submodule(layer, with_blocks(module, kept, module.bias))
        return made

    def _parts(self, pruned: np.ndarray) -> Iterator[tuple[Any, torch.Tensor]]:
        """Yield each layer and its share of an array of units, in the form of its weights."""
        import torch

        for module, part in zip(self._modules.values(), np.split(pruned, self._ends[:-1]), strict=True):
            yield module, torch.from_numpy(part).reshape(module.weight.shape)

    def figures(self, pruned: np.ndarray) -> dict[str, float]:
        gone = np.bincount(self.classes[pruned], minlength=len(self.layers))
        saved = sum(
            macs(node, module, self.sizes)
            / module.weight.numel()
            * gone[self.layers.index((str(node.target),))]
            for node, module in weighted(self.graph)
        )
        whole = sum(cost.macs for cost in costs_of(self.graph, self.sizes))
        return {
            "parameters": float(total_parameters(self.graph) - gone.sum()),
            "macs": float(whole - saved),
        }

    def rows(self) -> dict[str, tuple[int, ...]]:
        """Return the rows of each layer whose weights are all pruned."""
        found = {}
        for layer, (module, mask) in zip(self._modules, self._parts(self.pruned), strict=True):
            rows = np.flatnonzero(blocks(module, mask).flatten(0, 1).flatten(1).all(1).numpy())
            if len(rows):
                found[layer] = tuple(rows.tolist())
        return found
