"""Passes: nodes that do nothing leave, and so do branches that give the same whatever the input."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from flow.network import WEIGHTED, blocks, calls, kind, macs, share, tidy, uses, with_blocks
from flow.network.forms import add_module
from flow.simplify.constants import State

if TYPE_CHECKING:
    from torch import fx

Shapes = Mapping[str, tuple[int, ...]]


def drop_identities(graph: fx.GraphModule) -> fx.GraphModule:
    """Return a graph without Identity, Dropout, and a ReLU of a ReLU."""
    graph = share(graph)
    for node in list(graph.graph.nodes):
        if node.op != "call_module":
            continue
        what, source = kind(graph.get_submodule(node.target)), node.args[0]
        twice = what == "ReLU" and source.op == "call_module"
        if what in ("Identity", "Dropout") or (
            twice and kind(graph.get_submodule(source.target)) in ("ReLU", "ReLU6")
        ):
            node.replace_all_uses_with(source)
    tidy(graph)
    return graph


def drop_constant_branches(
    graph: fx.GraphModule, shapes: Shapes, states: Mapping[str, State]
) -> tuple[fx.GraphModule, bool]:
    """Return a graph without sums and products with a constant, where that makes it smaller; and whether it is.

    x + 0 and x * 1 are x. Another constant moves into the layer that alone computes x, or a factor into the
    layers that read the product; where neither will do, a depthwise 1x1 conv takes the branch's place if it is
    no larger.
    """
    graph, shapes, states = share(graph), dict(shapes), dict(states)
    changed = False
    for node in list(graph.graph.nodes):
        for steady, other in _candidates(node, shapes, states):
            value = states[steady.name].value
            replacement = _without(graph, node, steady, other, value, shapes)
            if replacement is not None:
                node.replace_all_uses_with(replacement)
                shapes[replacement.name], states[replacement.name] = shapes[node.name], states[node.name]
                changed = True
                break
    if changed:
        tidy(graph)
    return graph, changed


def _candidates(node: fx.Node, shapes: Shapes, states: Mapping[str, State]) -> list[tuple[Any, Any]]:
    """Return (constant operand, the other) of a sum or product that has one."""
    if not (calls(node, "add") or calls(node, "mul")):
        return []
    left, right = node.args
    return [
        (steady, other)
        for steady, other in ((left, right), (right, left))
        if states[steady.name].uniform.all()  # type: ignore[union-attr]
        and shapes[other.name] == shapes[node.name]  # type: ignore[union-attr]
    ]


def _without(
    graph: fx.GraphModule, node: fx.Node, steady: fx.Node, other: fx.Node, value: np.ndarray, shapes: Shapes
) -> fx.Node | None:
    """Return the node that stands for ``node`` once the constant operand has gone, or None."""
    import torch

    adds = calls(node, "add")
    if np.all(value == (0 if adds else 1)):
        return other
    shape = shapes[node.name]
    parameters, products = _cost(graph, _private(steady, other, node), shapes)
    producer = graph.get_submodule(str(other.target)) if _alone(graph, [other]) else None
    if (
        producer is not None
        and len(other.users) == 1
        and (producer.bias is not None or parameters >= shape[1])
    ):
        graph.set_submodule(str(other.target), _moved(producer, value, adds))
        return other
    if not adds and _alone(graph, list(node.users)):
        for user in node.users:
            reader = graph.get_submodule(str(user.target))
            weights = blocks(reader)
            factors = torch.from_numpy(value).to(weights.dtype).reshape(len(weights), 1, -1, 1)
            graph.set_submodule(str(user.target), with_blocks(reader, weights * factors, reader.bias))
        return other
    if len(shape) < 3 or parameters < (2 if adds else 1) * shape[1] or products < math.prod(shape[1:]):
        return None
    with graph.graph.inserting_before(node):
        return graph.graph.call_module(
            add_module(graph, node.name, _affine(value, adds, len(shape) - 2)), (other,)
        )


def _alone(graph: fx.GraphModule, nodes: list[fx.Node]) -> bool:
    """Tell whether all nodes are layers with weights that are used nowhere else."""
    calls_of = uses(graph)
    return all(
        node.op == "call_module"
        and kind(graph.get_submodule(str(node.target))) in WEIGHTED
        and len(calls_of[str(node.target)]) == 1
        for node in nodes
    )


def _moved(layer: Any, value: np.ndarray, adds: bool) -> Any:
    """Return ``layer`` with the constant added to its results, or multiplied with them."""
    import torch

    weights = blocks(layer)
    constant = torch.from_numpy(value).to(weights.dtype)
    bias = layer.bias
    if adds:
        return with_blocks(layer, weights, constant if bias is None else bias + constant)
    scaled = weights * constant.reshape(weights.shape[0], -1, 1, 1)
    return with_blocks(layer, scaled, None if bias is None else bias * constant)


def _affine(value: np.ndarray, adds: bool, dimensions: int) -> Any:
    import torch
    from torch import nn

    count = len(value)
    conv: Any = (nn.Conv1d if dimensions == 1 else nn.Conv2d)(count, count, 1, groups=count, bias=adds)
    constant = torch.from_numpy(value)
    scale = torch.ones(count, dtype=constant.dtype) if adds else constant
    return with_blocks(conv, scale.reshape(count, 1, 1, 1), constant if adds else None).eval()


def _private(last: fx.Node, kept: fx.Node, reader: fx.Node) -> set[fx.Node]:
    """Return the nodes that only ``reader`` needs, through its operand ``last``, without the operand ``kept``."""
    found: set[fx.Node] = set()
    waiting = [last]
    while waiting:
        node = waiting.pop()
        if node is not kept and node.op != "placeholder" and set(node.users) <= found | {reader}:
            found.add(node)
            waiting.extend(node.all_input_nodes)
    return found


def _cost(graph: fx.GraphModule, nodes: set[fx.Node], shapes: Shapes) -> tuple[int, int]:
    """Return parameters and multiply-accumulates of layers that are used once."""
    once = {name for name, found in uses(graph).items() if len(found) == 1}
    parameters = total = 0
    for node in nodes:
        if node.op == "call_module" and node.target in once:
            module: Any = graph.get_submodule(str(node.target))
            parameters += sum(p.numel() for p in module.parameters())
            if kind(module) in WEIGHTED:
                total += macs(node, module, shapes)
    return parameters, total
