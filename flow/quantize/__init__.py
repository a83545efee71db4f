"""Quantize: float -> QONNX, through Brevitas with power-of-two scales, calibrated and fine-tuned."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flow import network, qonnx_graph, training
from flow.lsb import Golden, write_golden
from flow.quantize.prepare import prepared
from flow.quantize.proof import check_exact, export, prove_equal
from flow.quantize.ranges import calibrate, needed_bias_bits
from flow.quantize.rules import check_bits, check_layers
from flow.quantize.samples import arrays, check_samples, predict
from flow.quantize.tables import settle, tabulated
from flow.quantize.twin import Widths, quantized_copy, without_softmax
from flow.types import Data, FixedPoint, Port, Progress, Quantized, silent

if TYPE_CHECKING:
    import torch
    from torch import fx, nn

    from flow.network import Example

CALIBRATION_SAMPLES = 512


def quantize(
    model: nn.Module,
    example: Example,
    *,
    out: Path,
    data: Data,
    weight_bits: int = 6,
    activation_bits: int = 6,
    input_bits: int = 8,
    bias_bits: int = 16,
    per_channel: bool = False,
    epochs: int = 20,
    learning_rate: float = 1e-3,
    batch_size: int = 64,
    seed: int = 0,
    progress: Progress = silent,
) -> Quantized:
    """Quantize a simplified network, fine-tune it, and export it as QONNX that equals torch exactly.

    All scales are powers of two, one a tensor: weights and inputs signed, activations unsigned where they cannot be
    negative, rounding half to even, saturating. All sides of a sum or concatenation share one quantizer. The README
    beside this file says where quantizers stand, and what becomes of every layer.

    Args:
        model: a network without BatchNorm (see `flow.simplify`); it is not changed.
        example: an input with a batch dimension, or a tuple of them.
        out: a folder, made if it is missing; ``model.onnx`` and ``golden.npz`` are written there.
        data: training samples for calibration and fine-tuning; the whole test set is the proof. A network with several
            inputs has a tuple of arrays in each split; with several inputs or outputs it is only calibrated.
        weight_bits: 1 (-1 or 1, in steps of the scale) to 16; 2 is ternary (-1, 0, 1).
        activation_bits, input_bits: 2 to 16.
        bias_bits: 8 to 32; a layer whose biases do not fit takes more.
        per_channel: one power-of-two scale an output channel of the weights, in place of one a layer.
        epochs: of fine-tuning (QAT); the epoch of the least validation loss is kept. 0: calibrate only.
        learning_rate, batch_size: of the fine-tuning (Adam, half a cosine).
        seed: seed of the order of the samples.
        progress: called after every epoch and during the proof.

    Raises:
        ConfigError: an option is out of range, samples or labels do not fit.
        UnsupportedError: a layer that cannot be quantized exactly yet, or sums that float32 rounds.
        MismatchError: torch and QONNX differ on a test sample.
    """
    import torch

    check_bits(bias_bits, weight_bits=weight_bits, activation_bits=activation_bits, input_bits=input_bits)
    training.check_options("quantize", epochs=epochs, batch_size=batch_size, learning_rate=learning_rate)
    out.mkdir(parents=True, exist_ok=True)
    training.seed_everything(seed)
    graph = _traced(model, example, weight_bits)
    check_samples(graph, data, epochs)
    layers = [str(node.target) for node, _ in network.weighted(graph)]
    widths = Widths(weight_bits, activation_bits, input_bits, dict.fromkeys(layers, bias_bits), per_channel)
    samples = tuple(array[:CALIBRATION_SAMPLES] for array in arrays(data.train[0]))
    quant, widths = _calibrated(graph, widths, tuple(map(torch.from_numpy, samples)))
    sample = tuple(torch.from_numpy(array[:1]) for array in samples)
    check_exact(without_softmax(tabulated(quant, sample)), samples)
    if epochs:
        trunk = without_softmax(quant)
        training.fit(
            trunk,
            data,
            torch.optim.Adam(trunk.parameters(), lr=learning_rate),
            epochs=epochs,
            batch_size=batch_size,
            seed=seed,
            best=training.evaluate(trunk, data.validation)[0],  # fine-tuning must beat the calibrated network
            subject="quantize",
            progress=progress,
        )
    onnx_path = out / "model.onnx"
    export(quant, tuple(tensor[:1] for tensor in network.as_inputs(example)), onnx_path)
    fixed = tabulated(quant, sample)
    settle(fixed, onnx_path)
    prove_equal(without_softmax(fixed), onnx_path, data.test[0], progress)
    expected = predict(fixed, data.test[0])
    write_golden(out / "golden.npz", Golden(arrays(data.test[0]), expected, data.test[1]))
    return Quantized(
        onnx_path=onnx_path,
        golden_path=out / "golden.npz",
        inputs=_input_ports(quant, example),
        accuracy=_accuracy(expected, data.test[1]),
        samples=len(expected[0]),
        bias_bits=widths.bias,
        weight_bits=dict.fromkeys(layers, weight_bits),
        activation_bits=dict.fromkeys(layers, activation_bits),
    )


def _traced(model: nn.Module, example: Example, weight_bits: int) -> fx.GraphModule:
    """Return the network as a graph that `quantized_copy` takes."""
    from torch import nn

    if network.kind(model) in network.MODULES:
        model = nn.Sequential(model)  # one layer is a network, too
    graph = network.trace(model, example)
    shapes = network.shapes(graph, example)
    check_layers(graph, shapes, weight_bits)
    return prepared(graph, shapes)


def _calibrated(
    graph: fx.GraphModule, widths: Widths, samples: tuple[torch.Tensor, ...]
) -> tuple[fx.GraphModule, Widths]:
    """Return the quantized network with its ranges set, and the widths with the biases' that it needs."""
    with qonnx_graph.quiet():
        while True:  # widths only grow, up to MAX_BIAS_BITS
            quant = quantized_copy(graph, widths)
            calibrate(quant, samples)
            needed = needed_bias_bits(quant, list(widths.bias), tuple(tensor[:1] for tensor in samples))
            wider = {name: max(width, needed[name]) for name, width in widths.bias.items()}
            if wider == widths.bias:
                return quant, widths
            widths = replace(widths, bias=wider)


def _input_ports(quant: fx.GraphModule, example: Example) -> tuple[Port, ...]:
    """Return the network's inputs: channels last, with the types of their quantizers."""
    nodes = [node for node in quant.graph.nodes if node.op == "placeholder"]
    ports = []
    for node, tensor in zip(nodes, network.as_inputs(example), strict=True):
        quantizer: Any = quant.get_submodule(next(iter(node.users)).target)
        width = int(quantizer.act_quant.bit_width())
        fraction = -round(math.log2(float(quantizer.act_quant.scale())))
        channels, *extents = tensor.shape[1:]
        name = "input" if len(nodes) == 1 else str(node.target)
        ports.append(Port(name, (*extents, channels), FixedPoint(True, width - fraction, fraction)))
    return tuple(ports)


def _accuracy(outputs: tuple[np.ndarray, ...], labels: np.ndarray) -> float:
    """Return the share of samples whose largest output is the label; NaN where there are several outputs."""
    if len(outputs) > 1 or outputs[0].ndim != 2:
        return math.nan
    return float((outputs[0].argmax(1) == labels).mean())
