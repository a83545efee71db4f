"""Which channels belong together: every channel of every tensor carries a label.

A Conv or Linear layer gives each output channel a new label; layers that keep channels apart (BatchNorm,
ReLU, pools, depthwise convs) hand labels on; a sum merges the labels of its two sides; a concatenation
lines them up; a flatten repeats each one. What shares a label must be pruned, and removed, together:
that is the *group* of Torch-Pruning, found per channel.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from flow.errors import UnsupportedError
from flow.network import CONVS, NORMS, kind, weighted

if TYPE_CHECKING:
    from torch import fx


@dataclass(frozen=True)
class Channels:
    """Labels of a network's channels.

    Attributes:
        labels: node name -> int array, one label for each channel (dimension 1) of its tensor.
        pinned: labels that must stay: inputs, outputs, and both ends of grouped convs.
        writers: label -> the (layer, row) pairs that compute it.
    """

    labels: Mapping[str, np.ndarray]
    pinned: frozenset[int]
    writers: Mapping[int, tuple[tuple[str, int], ...]]

    def prunable(self, ignored_layers: tuple[str, ...] = ()) -> tuple[int, ...]:
        """Return the labels that may be pruned: not pinned and not written by an ignored layer."""
        return tuple(
            label
            for label, rows in self.writers.items()
            if label not in self.pinned and not any(layer in ignored_layers for layer, _ in rows)
        )


def is_depthwise(module: object) -> bool:
    """Tell whether a conv has one filter a channel."""
    groups = getattr(module, "groups", 1)
    return groups > 1 and groups == module.in_channels == module.out_channels  # type: ignore[attr-defined]


def analyse(graph: fx.GraphModule, shapes: Mapping[str, tuple[int, ...]]) -> Channels:
    """Label every channel of ``graph`` (see the module's text).

    Args:
        graph: a network from `flow.network.trace`.
        shapes: the shape of every node's tensor (`flow.network.shapes`).

    Raises:
        UnsupportedError: a Linear layer on more than two dimensions, a flatten that is not over all but
            the batch dimension, a sum that broadcasts channels, a conv or pool without a channel dimension.
    """
    made = _Labels()
    for node in graph.graph.nodes:
        sources = [made.raw[n.name] for n in node.all_input_nodes]
        if node.op == "placeholder":
            made.raw[node.name] = made.fresh(shapes[node.name][1])
            made.pinned.extend(made.raw[node.name])
        elif node.op == "output":
            made.pinned.extend(sources[0])
        elif node.op == "call_module":
            module = graph.get_submodule(node.target)
            shape = shapes[node.all_input_nodes[0].name]
            made.raw[node.name] = _through_module(str(node.target), module, shape, sources[0], made)
        elif node.target.__name__ == "add":
            _check_sum(node, shapes)
            left, right = (made.raw[n.name] for n in node.args)
            made.merge(left, right)
            made.raw[node.name] = left
        else:
            made.raw[node.name] = np.concatenate([made.raw[n.name] for n in node.args[0]])
    labels = {name: made.final(array) for name, array in made.raw.items()}
    pinned = frozenset(made.final(np.array(made.pinned, dtype=int)).tolist())
    return Channels(labels, pinned, _writers(graph, labels))


class _Labels:
    """Labels while they are handed out; merged ones share a root (union-find)."""

    def __init__(self) -> None:
        self.raw: dict[str, np.ndarray] = {}
        self.pinned: list[int] = []
        self._parent: list[int] = []

    def fresh(self, count: int) -> np.ndarray:
        first = len(self._parent)
        self._parent.extend(range(first, first + count))
        return np.arange(first, first + count)

    def merge(self, left: np.ndarray, right: np.ndarray) -> None:
        for one, other in zip(left.tolist(), right.tolist(), strict=True):
            self._parent[self._root(other)] = self._root(one)

    def final(self, array: np.ndarray) -> np.ndarray:
        return np.array([self._root(label) for label in array.tolist()], dtype=int)

    def _root(self, label: int) -> int:
        while self._parent[label] != label:
            self._parent[label] = self._parent[self._parent[label]]
            label = self._parent[label]
        return label


def _through_module(
    name: str, module: Any, shape: tuple[int, ...], source: np.ndarray, made: _Labels
) -> np.ndarray:
    what = kind(module)
    dimensions = {"1d": 3, "2d": 4}.get(what[-2:], len(shape))
    if what not in NORMS and len(shape) != dimensions:
        raise UnsupportedError(
            f"channels: layer {name!r} ({what}) must read {dimensions} dimensions, batch and channels first, "
            f"not {len(shape)}; reshape its input"
        )
    if what == "Linear":
        if len(shape) != 2:
            raise UnsupportedError(
                f"channels: layer {name!r} (Linear) must read (batch, features), not {len(shape)} dimensions; "
                "put a Flatten in front of it"
            )
        return made.fresh(module.out_features)
    if what in CONVS and not is_depthwise(module):
        result = made.fresh(module.out_channels)
        if module.groups > 1:
            made.pinned.extend([*source, *result])
        return result
    if what == "Flatten":
        if module.start_dim != 1 or module.end_dim != -1:
            raise UnsupportedError(
                f"channels: layer {name!r} (Flatten) must flatten dimensions 1 to -1, "
                f"not {module.start_dim} to {module.end_dim}; change the network"
            )
        return np.repeat(source, int(np.prod(shape[2:], dtype=int)))
    return source


def _check_sum(node: fx.Node, shapes: Mapping[str, tuple[int, ...]]) -> None:
    left, right = (
        (shapes[n.name] for n in node.all_input_nodes) if len(node.all_input_nodes) == 2 else ((), ())
    )
    if left != right:
        raise UnsupportedError(
            f"channels: sum {node.name!r} must add tensors of one shape, not {left} and {right}; "
            "make the branches alike"
        )


def _writers(
    graph: fx.GraphModule, labels: Mapping[str, np.ndarray]
) -> dict[int, tuple[tuple[str, int], ...]]:
    found: dict[int, list[tuple[str, int]]] = {}
    for node, _ in weighted(graph):
        for row, label in enumerate(labels[node.name]):
            found.setdefault(int(label), []).append((str(node.target), row))
    return {label: tuple(rows) for label, rows in found.items()}


def input_labels(channels: Channels, node: fx.Node) -> np.ndarray:
    """Return the labels of the tensor that ``node`` reads."""
    return channels.labels[node.all_input_nodes[0].name]
