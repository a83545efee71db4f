"""Fewer channels: layers that keep channels apart, slices, concatenations, and whole networks, by size alone."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np

from flow.network import NORMS, WEIGHTED, blocks, calls, kind, share, tidy, uses, with_blocks
from flow.network.channels import Channels, is_depthwise

if TYPE_CHECKING:
    from torch import fx


def narrowed(module: Any, order: np.ndarray, before: int) -> Any:
    """Return a layer that keeps channels apart with some of its ``before`` channels, in an order."""
    import torch

    count = len(order)
    chosen = torch.from_numpy(order)
    what = kind(module)
    if what == "Unflatten":
        return torch.nn.Unflatten(1, (count, *module.unflattened_size[1:]))
    norm, depthwise = what in NORMS, what in WEIGHTED and is_depthwise(module)
    slopes = what == "PReLU" and module.num_parameters == before > 1
    if not (norm or depthwise or slopes):
        return module
    made = copy.deepcopy(module)
    for name in ("weight", "bias", "running_mean", "running_var"):
        value = getattr(made, name, None)
        if value is not None:
            part = value.detach().index_select(0, chosen)
            setattr(made, name, torch.nn.Parameter(part) if isinstance(value, torch.nn.Parameter) else part)
    widths = ("num_features",) if norm else ("num_parameters",) if slopes else ()
    for name in widths or ("in_channels", "out_channels", "groups"):
        setattr(made, name, count)
    return made


def relink(graph: fx.GraphModule, channels: Channels, alive: np.ndarray) -> None:
    """Correct slices, and leave tensors without channels out of concatenations."""
    nodes = list(graph.graph.nodes)
    for node in nodes:  # all slices first: they count the channels of whole concatenations
        if calls(node, "narrow"):
            source, _, start, length = node.args
            keep = alive[channels.labels[source.name]]
            node.args = (source, 1, int(keep[:start].sum()), int(keep[start : start + length].sum()))
    for node in nodes:
        if calls(node, "cat"):
            parts = [part for part in node.args[0] if alive[channels.labels[part.name]].any()]
            node.args = (parts, 1)
            if len(parts) == 1:
                node.replace_all_uses_with(parts[0])


def narrow(graph: fx.GraphModule, channels: Channels, alive: np.ndarray) -> fx.GraphModule:
    """Return a network of the size that is left when channels go; what they contributed is lost.

    For costs, which depend on sizes: `flow.simplify` gives the network that computes the same.

    Args:
        graph: a graph of `flow.network.trace`; it is not changed.
        channels: its labels; those of a grouped conv leave the same number in each group.
        alive: bool, by label; every tensor keeps a channel.
    """
    import torch

    made = share(graph)
    for name, nodes in uses(graph).items():
        outputs = alive[channels.labels[nodes[0].name]]
        inputs = alive[channels.labels[nodes[0].all_input_nodes[0].name]]
        if outputs.all() and inputs.all():
            continue
        module: Any = graph.get_submodule(name)
        if kind(module) not in WEIGHTED or is_depthwise(module):
            made.set_submodule(name, narrowed(module, np.flatnonzero(outputs), len(outputs)))
            continue
        weights = blocks(module)
        living = outputs.reshape(len(weights), -1)
        stays = living.any(axis=1)  # a group may go as a whole
        rows = torch.from_numpy(living[stays][0])
        columns = torch.from_numpy(inputs.reshape(len(weights), -1)[stays][0])
        weights = weights[torch.from_numpy(stays)]
        bias = module.bias if module.bias is None else module.bias[torch.from_numpy(outputs)]
        made.set_submodule(name, with_blocks(module, weights[:, rows][:, :, columns], bias))
    relink(made, channels, alive)
    tidy(made)
    return made
