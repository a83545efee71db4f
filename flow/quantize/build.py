"""From a float network to a calibrated one in Brevitas' layers."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from flow import network
from flow.onnx_model.runtime import quiet
from flow.quantize.calibration import Calibration
from flow.quantize.correction import correct_biases
from flow.quantize.prepare import prepared
from flow.quantize.ranges import calibrate, needed_bias_bits
from flow.quantize.rules import check_layers
from flow.quantize.twin import quantized_copy
from flow.quantize.widths import Widths

if TYPE_CHECKING:
    import torch
    from torch import fx, nn

    from flow.network import Example

CALIBRATION_SAMPLES = 512


def traced(model: nn.Module, example: Example) -> fx.GraphModule:
    """Return the network as a graph that `quantized_copy` takes."""
    from torch import nn

    if network.kind(model) in network.MODULES:
        model = nn.Sequential(model)  # one layer is a network, too
    graph = network.trace(model, example)
    shapes = network.shapes(graph, example)
    check_layers(graph, shapes)
    return prepared(graph, shapes)


def calibrated(
    graph: fx.GraphModule, widths: Widths, samples: tuple[torch.Tensor, ...], how: Calibration
) -> tuple[fx.GraphModule, Widths, dict[str, int]]:
    """Return the quantized network with its ranges set, the widths with the biases' that it needs, and activations'."""
    with quiet():
        while True:  # widths only grow, up to MAX_BIAS_BITS
            quant, stands = quantized_copy(graph, widths)
            calibrate(quant, samples, how)
            wider = _wider(quant, widths, samples)
            if wider == widths.bias and how.bias_correction:  # measured with biases that fit
                correct_biases(quant, graph, samples)
                wider = _wider(quant, widths, samples)
            if wider == widths.bias:
                return quant, widths, stands
            widths = replace(widths, bias=wider)


def _wider(quant: fx.GraphModule, widths: Widths, samples: tuple[torch.Tensor, ...]) -> dict[str, int]:
    needed = needed_bias_bits(quant, list(widths.bias), tuple(tensor[:1] for tensor in samples))
    return {name: max(width, needed[name]) for name, width in widths.bias.items()}
