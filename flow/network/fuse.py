"""BatchNorm into the Conv or Linear layer that alone feeds it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flow.network import NORMS, WEIGHTED, blocks, kind, share, tidy, uses, with_blocks

if TYPE_CHECKING:
    import torch
    from torch import fx, nn


def fuse_batchnorm(graph: fx.GraphModule) -> fx.GraphModule:
    """Return a copy of ``graph`` without the BatchNorm layers that a Conv or Linear layer alone feeds.

    w' = w * gamma / sqrt(var + eps);  b' = (b - mean) * gamma / sqrt(var + eps) + beta

    A BatchNorm whose producer feeds others too, that keeps no running statistics, or either of which is used
    twice, stays.
    """
    graph = share(graph)
    while pairs := fusable(graph):  # one at a time: the next BatchNorm may then follow the layer
        norm, producer = pairs[0]
        layer = graph.get_submodule(str(producer.target))
        graph.set_submodule(str(producer.target), fused(layer, graph.get_submodule(str(norm.target))))
        norm.replace_all_uses_with(producer)
        graph.graph.erase_node(norm)
    tidy(graph)
    return graph


def fusable(graph: fx.GraphModule) -> list[tuple[fx.Node, fx.Node]]:
    """Return the (BatchNorm, producer) pairs of nodes that may be fused."""
    pairs = []
    calls = uses(graph)
    for name, nodes in calls.items():
        norm = graph.get_submodule(name)
        producer = nodes[0].args[0]
        if kind(norm) not in NORMS or norm.running_var is None or producer.op != "call_module":
            continue
        alone = len(nodes) == len(producer.users) == len(calls[str(producer.target)]) == 1
        if alone and kind(graph.get_submodule(str(producer.target))) in WEIGHTED:
            pairs.append((nodes[0], producer))
    return pairs


def fused(layer: nn.Module, norm: nn.Module) -> nn.Module:
    """Return a layer that computes ``norm(layer(x))``."""
    import torch

    scale, shift = scale_and_shift(norm)
    bias: torch.Tensor = torch.zeros_like(scale) if layer.bias is None else layer.bias.detach()  # type: ignore[assignment, operator]
    weights = blocks(layer)
    scaled = weights * scale.reshape(weights.shape[0], weights.shape[1], 1, 1)
    return with_blocks(layer, scaled, bias * scale + shift)  # type: ignore[no-any-return]


def scale_and_shift(norm: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (a, c) with norm(x) = a * x + c, from the running statistics."""
    import torch

    inverse = 1 / torch.sqrt(norm.running_var + norm.eps)  # type: ignore[operator]
    scale = inverse if norm.weight is None else norm.weight.detach() * inverse
    shift = (
        -norm.running_mean * scale if norm.bias is None else norm.bias.detach() - norm.running_mean * scale
    )
    return scale, shift
