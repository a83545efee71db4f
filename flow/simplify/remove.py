"""Passes: dead channels leave every tensor; layers that do nothing leave the graph."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from flow.channels import Channels, analyse, input_labels, is_depthwise
from flow.network import CONVS, NORMS, WEIGHTED, kind, shapes, weighted
from flow.simplify.constants import absorbable, constants, flat_weight
from flow.types import Progress

if TYPE_CHECKING:
    import torch
    from torch import fx


def drop_identities(graph: fx.GraphModule) -> fx.GraphModule:
    """Return a copy without Identity and Dropout: both do nothing in evaluation mode."""
    graph = copy.deepcopy(graph)
    for node in list(graph.graph.nodes):
        if node.op == "call_module" and kind(graph.get_submodule(node.target)) in ("Identity", "Dropout"):
            node.replace_all_uses_with(node.args[0])
            graph.graph.erase_node(node)
    graph.delete_all_unused_submodules()
    graph.recompile()
    return graph


def remove_dead(
    graph: fx.GraphModule, example: torch.Tensor, progress: Progress
) -> tuple[fx.GraphModule, dict[str, str]]:
    """Return a copy without dead channels, and why constant channels stayed, by layer.

    A label leaves when every Conv and Linear layer that reads it has zero weights for it, or reads a
    constant that its bias can take over. Removing columns can empty rows further up, so the pass runs
    until nothing changes.
    """
    graph = copy.deepcopy(graph)
    for turn in range(1, 1 + len(graph.graph.nodes)):
        progress(turn, turn + 1, "removing dead channels")
        sizes = shapes(graph, example)
        channels = analyse(graph, sizes)
        values = constants(graph, sizes)
        dead = _dead_labels(graph, channels, values)
        if not dead:
            return graph, _kept(graph, channels, values)
        _shrink(graph, channels, values, dead)
    raise AssertionError("each turn removes a channel, so the loop ends before this")


def _readers(graph: fx.GraphModule) -> list[tuple[fx.Node, Any]]:
    """Return the layers that mix channels; depthwise convs hand theirs on."""
    return [(node, module) for node, module in weighted(graph) if not is_depthwise(module)]


def _dead_labels(
    graph: fx.GraphModule, channels: Channels, values: Mapping[str, np.ndarray]
) -> frozenset[int]:
    alive = set(channels.pinned)
    for node, module in _readers(graph):
        if getattr(module, "groups", 1) > 1:
            continue  # both ends of a grouped conv are pinned
        read = np.abs(flat_weight(module)).sum(axis=(0, 2)) != 0
        needed = read & ~absorbable(module, values[node.args[0].name])
        alive.update(input_labels(channels, node)[needed].tolist())
    dead = set(channels.writers) - alive
    for array in channels.labels.values():  # a tensor keeps one channel at least
        if dead.issuperset(array.tolist()):
            dead.discard(int(array[0]))
    return frozenset(dead)


def _shrink(
    graph: fx.GraphModule, channels: Channels, values: Mapping[str, np.ndarray], dead: frozenset[int]
) -> None:
    import torch

    for node in list(graph.graph.nodes):
        if node.op != "call_module":
            continue
        module: Any = graph.get_submodule(node.target)
        what = kind(module)
        if what not in WEIGHTED and what not in NORMS:
            continue
        columns = np.array([label not in dead for label in input_labels(channels, node)])
        rows = np.array([label not in dead for label in channels.labels[node.name]])
        if columns.all() and rows.all():
            continue
        module = copy.deepcopy(module)
        with torch.no_grad():
            if what in NORMS:
                _shrink_norm(module, rows)
            elif is_depthwise(module):
                _select(module, "weight", rows, 0)
                module.in_channels = module.out_channels = module.groups = int(rows.sum())
            else:
                _absorb(module, values[node.args[0].name], ~columns)
                _select(module, "weight", rows, 0)
                _select(module, "weight", columns, 1)
                _set_widths(module, int(columns.sum()), int(rows.sum()))
            if what in WEIGHTED and module.bias is not None:
                _select(module, "bias", rows, 0)
        graph.set_submodule(node.target, module)
    graph.recompile()


def _absorb(module: Any, value: np.ndarray, removed: np.ndarray) -> None:
    """Add what the removed input channels contribute, b_t += sum_i c_i W_ti, to the bias."""
    import torch

    moved = removed & ~np.isnan(value) & (value != 0) & absorbable(module, value)
    if not moved.any():
        return
    extra = flat_weight(module).sum(axis=2)[:, moved] @ value[moved]
    if not extra.any():
        return
    bias = torch.zeros(len(extra), dtype=module.weight.dtype) if module.bias is None else module.bias.detach()
    module.bias = torch.nn.Parameter(bias + torch.from_numpy(extra).to(bias.dtype))


def _select(module: Any, name: str, keep: np.ndarray, axis: int) -> None:
    import torch

    value = getattr(module, name)
    chosen = value.detach().index_select(axis, torch.from_numpy(np.flatnonzero(keep)))
    setattr(module, name, torch.nn.Parameter(chosen) if isinstance(value, torch.nn.Parameter) else chosen)


def _shrink_norm(module: Any, keep: np.ndarray) -> None:
    for name in ("weight", "bias", "running_mean", "running_var"):
        if getattr(module, name) is not None:
            _select(module, name, keep, 0)
    module.num_features = int(keep.sum())


def _set_widths(module: Any, inputs: int, outputs: int) -> None:
    if kind(module) in CONVS:
        module.in_channels, module.out_channels = inputs, outputs
    else:
        module.in_features, module.out_features = inputs, outputs


def _kept(graph: fx.GraphModule, channels: Channels, values: Mapping[str, np.ndarray]) -> dict[str, str]:
    """Say by layer which constant channels stay, and why."""
    live = {
        int(label) for name, labels in channels.labels.items() for label in labels[np.isnan(values[name])]
    }
    reasons = {}
    for node, module in weighted(graph):
        value = values[node.args[0].name]
        stuck = int((~np.isnan(value) & ~absorbable(module, value)).sum())
        written = set(channels.labels[node.name][~np.isnan(values[node.name])].tolist())
        counts = {
            "constant input channels stay: its zero padding alters them at the border": stuck,
            "dead output channels stay: the network's output or a grouped conv holds them": len(
                written & channels.pinned
            ),
            "dead output channels stay: they are coupled with live ones": len(
                written & live - channels.pinned
            ),
        }
        if any(counts.values()):
            reasons[str(node.target)] = "; ".join(f"{n} {text}" for text, n in counts.items() if n)
    return reasons
