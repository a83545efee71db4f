"""Bias correction: what quantizing adds to the mean of a layer's output is taken from its bias."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from flow import network
from flow.quantize.observed import BATCH

if TYPE_CHECKING:
    import torch
    from torch import fx


def correct_biases(quant: fx.GraphModule, graph: fx.GraphModule, samples: tuple[torch.Tensor, ...]) -> None:
    """Shift biases by the mean error of each layer's outputs, channel by channel, layer after layer.

        b_c <- Q(b_c) - (E[y~_c] - E[y_c]),   means over samples and positions

    y: the float network's output of the layer; y~: the quantized network's, with all layers before it corrected. What
    is left is at most half a step of the bias, whose grid is input scale x weight scale, and never more than there was.

    Args:
        quant: a calibrated network whose biases fit their bits; its biases change.
        graph: the float network that it was made of.
        samples: calibration samples, one tensor an input (samples, ...).

    Source: Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV 2019, section
        4.2, the empirical form (appendix D).
    """
    import torch

    with torch.no_grad(), network.evaluating(quant), network.evaluating(graph):
        wanted = means(graph, samples)
        for node, read, made in _node_by_node(quant, samples):
            name = str(node.target)
            if name not in wanted:
                continue
            layer: Any = quant.get_submodule(name)
            step = (read[0].scale * layer.quant_weight().scale).reshape(-1)
            shift = wanted[name] - _mean(made)
            layer.bias.data.copy_((layer.bias / step).round() * step + shift)
            made[:] = [layer(given) for given in read]


def means(graph: fx.GraphModule, samples: tuple[torch.Tensor, ...]) -> dict[str, torch.Tensor]:
    """Return the mean output of each channel of the layers with weights, float64 (channels,)."""
    import torch

    names = [str(node.target) for node, _ in network.weighted(graph)]
    with torch.no_grad(), network.evaluating(graph):
        return {
            str(node.target): _mean(made)
            for node, _, made in _node_by_node(graph, samples)
            if str(node.target) in names
        }


def _mean(batches: list[Any]) -> torch.Tensor:
    """Return the mean of each channel over all batches."""
    import torch

    sums = []
    for batch in batches:
        value = getattr(batch, "value", batch).double()
        sums.append(value.mean([axis for axis in range(value.ndim) if axis != 1]) * len(value))
    return torch.stack(sums).sum(0) / sum(len(getattr(batch, "value", batch)) for batch in batches)


def _node_by_node(
    graph: fx.GraphModule, samples: tuple[torch.Tensor, ...]
) -> Iterator[tuple[fx.Node, list[Any], list[Any]]]:
    """Run a network node by node, all batches of a node before the next node.

    Yields the node of each module, what it read, and what it made, which the caller may change in place. So every
    layer runs once, on what the corrected layers before it make, and no more is held than what later nodes read.
    """
    from torch import fx

    runner = fx.Interpreter(graph)
    inputs = iter(samples)
    values: dict[fx.Node, list[Any]] = {}
    last = {read: node for node in graph.graph.nodes for read in node.all_input_nodes}
    for node in graph.graph.nodes:
        if node.op == "placeholder":
            values[node] = list(next(inputs).split(BATCH))
        elif node.op != "output":
            values[node] = [
                getattr(runner, node.op)(node.target, *_arguments(node, values, batch))
                for batch in range(-(-len(samples[0]) // BATCH))
            ]
        if node.op == "call_module":
            yield node, values[node.all_input_nodes[0]], values[node]
        for read in node.all_input_nodes:
            if last[read] is node:
                del values[read]


def _arguments(node: fx.Node, values: dict[fx.Node, list[Any]], batch: int) -> tuple[Any, Any]:
    from torch.fx.node import map_arg

    return (
        map_arg(node.args, lambda read: values[read][batch]),
        map_arg(node.kwargs, lambda read: values[read][batch]),
    )
