"""What a graph costs: shapes, parameters, multiply-accumulates."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from flow.network.forms import TRANSPOSED, WEIGHTED, Example, as_inputs, evaluating, kind, like_weights
from flow.network.weights import widths
from flow.types import LayerCost

if TYPE_CHECKING:
    from torch import fx


def shapes(graph: fx.GraphModule, example: Example) -> dict[str, tuple[int, ...]]:
    """Return the shape of every node's tensor, batch dimension first; nothing is computed."""
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.fx.passes.shape_prop import ShapeProp

    inputs = [like_weights(graph, tensor) for tensor in as_inputs(example)]
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    with torch.no_grad(), evaluating(graph):
        ShapeProp(graph, fake_mode=mode).propagate(*(mode.from_tensor(tensor) for tensor in inputs))
    return {
        node.name: tuple(node.meta["tensor_meta"].shape)
        for node in graph.graph.nodes
        if node.op != "output" and "tensor_meta" in node.meta
    }


def weighted(graph: fx.GraphModule) -> list[tuple[fx.Node, Any]]:
    """Return the Conv, transposed Conv and Linear nodes with their modules, in order."""
    found = []
    for node in graph.graph.nodes:
        if node.op == "call_module" and kind(graph.get_submodule(node.target)) in WEIGHTED:
            found.append((node, graph.get_submodule(node.target)))
    return found


def costs(graph: fx.GraphModule, example: Example) -> tuple[LayerCost, ...]:
    """Return parameters and multiply-accumulates (one sample) of every layer with weights.

    A layer that is used twice has one entry: its parameters once, the MACs of both uses.
    """
    return costs_of(graph, shapes(graph, example))


def costs_of(graph: fx.GraphModule, sizes: Mapping[str, tuple[int, ...]]) -> tuple[LayerCost, ...]:
    """Return `costs` where the shapes are known already."""
    total: dict[str, int] = {}
    layers: dict[str, Any] = {}
    for node, module in weighted(graph):
        name = str(node.target)
        layers[name] = module
        total[name] = total.get(name, 0) + macs(node, module, sizes)
    return tuple(
        LayerCost(
            name=name,
            kind=kind(module),
            inputs=widths(module)[0],
            outputs=widths(module)[1],
            parameters=sum(p.numel() for p in module.parameters()),
            macs=total[name],
        )
        for name, module in layers.items()
    )


def macs(node: fx.Node, module: Any, sizes: Mapping[str, tuple[int, ...]]) -> int:
    """Return the multiply-accumulates of one use of a layer with weights, for one sample."""
    moved = node.all_input_nodes[0] if kind(module) in TRANSPOSED else node
    return int(module.weight.numel() * math.prod(sizes[moved.name][2:]))


def total_parameters(graph: fx.GraphModule) -> int:
    """Return the number of parameters, BatchNorm's included."""
    return sum(p.numel() for p in graph.parameters())
