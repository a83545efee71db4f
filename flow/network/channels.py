"""Which channels belong together: every channel of every tensor carries a label.

A Conv or Linear layer gives each output channel a new label; layers that keep channels apart (BatchNorm,
ReLU, pools, depthwise convs) hand labels on; a sum or a product merges the labels of its two sides; a
concatenation lines them up, a slice takes some, a channel shuffle merges those that must leave together for
the rest to shuffle alike; a flatten repeats each one; a layer that is used twice merges what it reads and
writes. What shares a label must be pruned, and removed, together: that is the *group* of Torch-Pruning, found
per channel. `docs/algorithms/groups.md` shows each case.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from flow.errors import UnsupportedError
from flow.network import CONVS, ELEMENTWISE, NORMS, TRANSPOSED, calls, kind, output_nodes, weighted

if TYPE_CHECKING:
    from torch import fx


@dataclass(frozen=True)
class Channels:
    """Labels of a network's channels.

    Attributes:
        labels: node name -> int array, one label for each channel (dimension 1) of its tensor.
        pinned: labels that must stay: inputs, outputs, and what a softmax reads.
        grouped: labels at either end of grouped convs, which need groups of equal size; none where `analyse`
            has tied them.
        writers: label -> the (layer, row) pairs that compute it.
    """

    labels: Mapping[str, np.ndarray]
    pinned: frozenset[int]
    grouped: frozenset[int]
    writers: Mapping[int, tuple[tuple[str, int], ...]]

    def prunable(self, ignored_layers: tuple[str, ...] = ()) -> tuple[int, ...]:
        """Return the labels that may be pruned: not pinned, not at a grouped conv, not of an ignored layer."""
        return tuple(
            label
            for label, rows in self.writers.items()
            if label not in self.pinned | self.grouped
            and not any(layer in ignored_layers for layer, _ in rows)
        )


def is_depthwise(module: object) -> bool:
    """Tell whether a conv has one filter a channel."""
    groups = getattr(module, "groups", 1)
    return groups > 1 and groups == module.in_channels == module.out_channels  # type: ignore[attr-defined]


def analyse(
    graph: fx.GraphModule, shapes: Mapping[str, tuple[int, ...]], *, couple_groups: bool = False
) -> Channels:
    """Label every channel of ``graph`` (see the module's text).

    Args:
        graph: a network from `flow.network.trace`.
        shapes: the shape of every node's tensor (`flow.network.shapes`).
        couple_groups: tie the channels of grouped convs so that pruning leaves groups of one size: the channels
            at one place of every group go together, at the input and at the output; where a group has one
            channel at either end, whole groups go, unless they read the network's input. False: they are
            `Channels.grouped`, free for `flow.simplify`.

    Raises:
        UnsupportedError: a Linear layer on more than two dimensions, a flatten that is not over all but
            the batch dimension, a sum or product that broadcasts channels, a conv or pool without a channel
            dimension.
    """
    made = _Labels(couple_groups)
    first: dict[str, fx.Node] = {}
    for node in graph.graph.nodes:
        sources = [made.raw[n.name] for n in node.all_input_nodes]
        if node.op == "placeholder":
            made.raw[node.name] = made.fresh(shapes[node.name][1])
            made.pinned.extend(made.raw[node.name])
        elif node.op == "call_module":
            module = graph.get_submodule(node.target)
            shape = shapes[node.all_input_nodes[0].name]
            made.raw[node.name] = _through_module(str(node.target), module, shape, sources[0], made)
            twin = first.setdefault(str(node.target), node)
            if twin is not node and any(value.numel() > 1 for value in module.state_dict().values()):
                made.merge(made.raw[twin.name], made.raw[node.name])
                made.merge(made.raw[twin.all_input_nodes[0].name], sources[0])
        elif node.op == "call_function":
            made.raw[node.name] = _through_join(node, shapes, made)
    for node in output_nodes(graph):
        made.pinned.extend(made.raw[node.name])
    labels = {name: made.final(array) for name, array in made.raw.items()}
    pinned, grouped = (
        frozenset(made.final(np.array(found, dtype=int)).tolist()) for found in (made.pinned, made.grouped)
    )
    return Channels(labels, pinned, grouped, _writers(graph, labels))


class _Labels:
    """Labels while they are handed out; merged ones share a root (union-find)."""

    def __init__(self, couple_groups: bool) -> None:
        self.couple_groups = couple_groups
        self.raw: dict[str, np.ndarray] = {}
        self.pinned: list[int] = []
        self.grouped: list[int] = []
        self._parent: list[int] = []

    def fresh(self, count: int) -> np.ndarray:
        first = len(self._parent)
        self._parent.extend(range(first, first + count))
        return np.arange(first, first + count)

    def merge(self, left: np.ndarray, right: np.ndarray) -> None:
        for one, other in zip(left.tolist(), right.tolist(), strict=True):
            self._parent[self._root(other)] = self._root(one)

    def pins(self, array: np.ndarray) -> bool:
        """Tell whether a channel must stay, as far as is known."""
        return not set(self.final(array)).isdisjoint(self.final(np.array(self.pinned, dtype=int)))

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
    if what in (*CONVS, *TRANSPOSED) and not is_depthwise(module):
        result = made.fresh(module.out_channels)
        if module.groups > 1:
            _at_groups(source.reshape(module.groups, -1), result.reshape(module.groups, -1), made)
        return result
    if what in ELEMENTWISE or what in NORMS or "Pool" in what or "Pad" in what:
        return source
    return _rearranged(name, module, shape, source, made)


def _at_groups(inputs: np.ndarray, outputs: np.ndarray, made: _Labels) -> None:
    """Note the labels at the ends of a grouped conv, a row a group, or tie those that must go together."""
    if not made.couple_groups:
        made.grouped.extend([*inputs.reshape(-1), *outputs.reshape(-1)])
    elif 1 in (inputs.shape[1], outputs.shape[1]) and not made.pins(inputs.reshape(-1)):
        # one channel cannot go and leave its group
        _tie(np.concatenate([inputs, outputs], axis=1).T, made)
    else:
        _tie(inputs, made)
        _tie(outputs, made)


def _tie(rows: np.ndarray, made: _Labels) -> None:
    """Merge the labels of each column."""
    for row in rows[1:]:
        made.merge(rows[0], row)


def _rearranged(
    name: str, module: Any, shape: tuple[int, ...], source: np.ndarray, made: _Labels
) -> np.ndarray:
    what = kind(module)
    if what == "Flatten":
        _require(
            module.start_dim == 1 and module.end_dim in (-1, len(shape) - 1),
            f"channels: layer {name!r} (Flatten) must flatten dimensions 1 to -1, "
            f"not {module.start_dim} to {module.end_dim}; change the network",
        )
        return np.repeat(source, int(np.prod(shape[2:], dtype=int)))
    if what == "Unflatten":
        size = tuple(module.unflattened_size)
        _require(
            module.dim == 1 and len(shape) == 2 and size == (len(source), *[1] * (len(size) - 1)),
            f"channels: layer {name!r} (Unflatten) must append positions of extent 1 to the channels, "
            f"not shape dimension {module.dim} to {size}; change the network",
        )
    if what == "ChannelShuffle":
        parts = source.reshape(module.groups, -1)
        _tie(parts, made)
        return parts.T.reshape(-1)
    if what in ("Softmax", "LogSoftmax"):
        _require(
            module.dim == 1,
            f"channels: layer {name!r} ({what}) must be over dimension 1, not {module.dim}; change the network",
        )
        made.pinned.extend(source)
    return source


def _through_join(node: fx.Node, shapes: Mapping[str, tuple[int, ...]], made: _Labels) -> np.ndarray:
    if calls(node, "cat"):
        return np.concatenate([made.raw[n.name] for n in node.args[0]])  # type: ignore[union-attr]
    if calls(node, "narrow"):
        source, _, start, length = node.args
        return made.raw[source.name][start : start + length]  # type: ignore[union-attr, operator]
    left, right = (n.name for n in node.args)  # type: ignore[union-attr]
    a, b = shapes[left], shapes[right]
    if calls(node, "add"):
        _require(
            a == b,
            f"channels: sum {node.name!r} must add tensors of one shape, not {a} and {b}; make the branches alike",
        )
    else:
        gate = len(a) == len(b) and (set(a[2:]) <= {1} or set(b[2:]) <= {1})
        _require(
            a == b or (a[:2] == b[:2] and gate),
            f"channels: product {node.name!r} must be of one shape, or with one value a channel, not {a} and {b}; "
            "make the branches alike",
        )
    made.merge(made.raw[left], made.raw[right])
    return made.raw[left]


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise UnsupportedError(message)


def _writers(
    graph: fx.GraphModule, labels: Mapping[str, np.ndarray]
) -> dict[int, tuple[tuple[str, int], ...]]:
    found: dict[int, dict[tuple[str, int], None]] = {}
    for node, _ in weighted(graph):
        for row, label in enumerate(labels[node.name].tolist()):
            found.setdefault(label, {})[str(node.target), row] = None  # once, for a layer that is used twice
    return {label: tuple(rows) for label, rows in found.items()}


def input_labels(channels: Channels, node: fx.Node) -> np.ndarray:
    """Return the labels of the tensor that ``node`` reads."""
    return channels.labels[node.all_input_nodes[0].name]
