"""BatchNorm into the Conv or Linear layer that alone feeds it."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from flow.network import NORMS, WEIGHTED, kind

if TYPE_CHECKING:
    import torch
    from torch import fx, nn


def fuse_batchnorm(graph: fx.GraphModule) -> fx.GraphModule:
    """Return a copy of ``graph`` without the BatchNorm layers that a Conv or Linear layer alone feeds.

    w' = w * gamma / sqrt(var + eps);  b' = (b - mean) * gamma / sqrt(var + eps) + beta

    A BatchNorm whose producer feeds others too, or that keeps no running statistics, stays.
    """
    graph = copy.deepcopy(graph)
    while pairs := fusable(graph):  # one at a time: the next BatchNorm may then follow the layer
        norm, producer = pairs[0]
        layer = graph.get_submodule(str(producer.target))
        graph.set_submodule(str(producer.target), fused(layer, graph.get_submodule(str(norm.target))))
        norm.replace_all_uses_with(producer)
        graph.graph.erase_node(norm)
    graph.delete_all_unused_submodules()
    graph.recompile()
    return graph


def fusable(graph: fx.GraphModule) -> list[tuple[fx.Node, fx.Node]]:
    """Return the (BatchNorm, producer) pairs of nodes that may be fused."""
    pairs = []
    for node in graph.graph.nodes:
        if node.op != "call_module" or kind(graph.get_submodule(node.target)) not in NORMS:
            continue
        producer = node.args[0]
        if producer.op != "call_module" or len(producer.users) != 1:
            continue
        if (
            kind(graph.get_submodule(producer.target)) in WEIGHTED
            and graph.get_submodule(node.target).running_var is not None
        ):
            pairs.append((node, producer))
    return pairs


def fused(layer: nn.Module, norm: nn.Module) -> nn.Module:
    """Return a copy of ``layer`` that computes ``norm(layer(x))``."""
    import torch

    layer = copy.deepcopy(layer)
    scale, shift = scale_and_shift(norm)
    bias = layer.bias if layer.bias is not None else torch.zeros_like(scale)
    with torch.no_grad():
        layer.weight.mul_(scale.reshape(-1, *[1] * (layer.weight.dim() - 1)))  # type: ignore[operator, union-attr]
        layer.bias = torch.nn.Parameter(bias * scale + shift)
    return layer


def scale_and_shift(norm: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (a, c) with norm(x) = a * x + c, from the running statistics."""
    import torch

    inverse = 1 / torch.sqrt(norm.running_var + norm.eps)  # type: ignore[operator]
    scale = inverse if norm.weight is None else norm.weight.detach() * inverse
    shift = (
        -norm.running_mean * scale if norm.bias is None else norm.bias.detach() - norm.running_mean * scale
    )
    return scale, shift
