"""Quantize: float -> QONNX, through Brevitas, calibrated, fine-tuned and proven."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flow import network, training
from flow.errors import ConfigError
from flow.fixed import from_qonnx
from flow.fixed.golden import Golden, write_golden
from flow.fixed.lsb import inputs_lsb
from flow.quantize.bounded import dequantized, frozen, prove_bounded
from flow.quantize.build import CALIBRATION_SAMPLES, calibrated, traced
from flow.quantize.options import Options
from flow.quantize.proof import check_exact, export, prove_equal
from flow.quantize.rules import check_weights
from flow.quantize.samples import arrays, check_samples, predict
from flow.quantize.search import BitsCost, search, search_bits
from flow.quantize.tables import FUNCTIONS, settle, tabulated
from flow.quantize.twin import TABLES, without_softmax
from flow.quantize.widths import Widths, check_layer_bits, check_positive
from flow.types import Data, FixedPoint, FloatBound, Port, Progress, Quantized, silent

if TYPE_CHECKING:
    from torch import fx, nn

    from flow.network import Example

__all__ = ["quantize", "search_bits"]


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
    layers: Mapping[str, Mapping[str, int]] = {},
    max_accuracy_drop: float | None = None,
    bit_budget: Mapping[str, float] | None = None,
    candidate_bits: tuple[int, ...] = (2, 3, 4, 6, 8),
    cost: BitsCost | None = None,
    scales: str = "power-of-two",
    per_channel: bool = False,
    calibration: str = "max",
    percentile: float = 99.9,
    bias_correction: bool = False,
    epochs: int = 20,
    learning_rate: float = 1e-3,
    batch_size: int = 64,
    patience: int | None = None,
    seed: int = 0,
    checkpoint: Path | None = None,
    progress: Progress = silent,
) -> Quantized:
    """Quantize a simplified network, fine-tune it, and export it as QONNX that equals torch exactly.

    Weights and inputs are signed, activations unsigned where they cannot be negative; rounding is half to even,
    saturating. All sides of a sum or concatenation share one quantizer. The README
    beside this file says where quantizers stand, and what becomes of every layer.

    Args:
        model: a network without BatchNorm (see `flow.simplify`); it is not changed.
        example: an input with a batch dimension, or a tuple of them.
        out: a folder, made if it is missing; ``model.onnx`` and ``golden.npz`` are written there.
        data: training samples for calibration and fine-tuning; the whole test set is the proof. A network with several
            inputs has a tuple of arrays in each split; with several inputs or outputs it is only calibrated.
        weight_bits: 1 (-1 or 1, in steps of the scale) to 16; 2 is ternary (-1, 0, 1).
        activation_bits: 1 to 16; 1 bit is 0 or 1 in steps of the scale, or -1 or 1 where numbers can be negative.
        input_bits: 1 (0 or 1 in steps of the scale) to 16.
        bias_bits: 1 to 32; a layer whose biases do not fit takes more.
        layers: the widths of single layers, by name: any of ``weight_bits``, ``bias_bits`` and ``activation_bits``
            (of the quantizer behind the layer: its own, its activation's, or that of the sum that reads it). Sums,
            concatenations and products go by the name of their node (``add``, ``cat_1``). All sides of a sum share one
            quantizer: it has the largest width that they ask for, unless the sum's own name is given.
        max_accuracy_drop: search the widths of all layers that cost the fewest LUTs while the calibrated network's
            validation accuracy is at most this below the float one's; fine-tuning follows. See `search_bits`.
        bit_budget: or those that do best within these limits of figures of ``cost``.
        candidate_bits: the widths that a search may choose; ``weight_bits`` and ``activation_bits`` do not count then.
        cost: gives figures of a network at some widths, for a search; a config takes the board's estimate.
        scales: ``power-of-two``, or ``free``: numbers of 12 significant bits. Then torch in float64 equals the integers
            of the hardware; the file, executed in float32, may round a tie to its other side
            (docs/algorithms/scales.md has the bound).
        per_channel: one scale an output channel of the weights, in place of one a layer.
        calibration: ``max``, ``percentile`` (of the magnitudes of activations), or ``mse``: the ranges of activations
            and weights with the least squared error (docs/algorithms/calibration.md).
        percentile: in (50, 100].
        bias_correction: take what quantizing adds to the mean of each layer's outputs from its biases; before training.
        epochs: of fine-tuning (QAT); the epoch of the least validation loss is kept. 0: calibrate only.
        learning_rate, batch_size: of the fine-tuning (Adam, half a cosine).
        patience: stop the fine-tuning after so many epochs without a better validation loss; ``None``: never.
        seed: seed of the order of the samples.
        checkpoint: a file that takes the state of the fine-tuning after every epoch; a run that finds its own there
            goes on from it.
        progress: called after every epoch and during the proof.

    Raises:
        ConfigError: an option is out of range, samples or labels do not fit.
        UnsupportedError: a layer that cannot be quantized exactly yet, or sums that float32 rounds.
        MismatchError: torch and QONNX differ on a test sample, by more than the bound where scales are free.
    """
    import torch

    given = locals()
    options = Options(**{field.name: given[field.name] for field in fields(Options)})
    options.check()
    out.mkdir(parents=True, exist_ok=True)
    precision = None
    if options.searches:
        if cost is None:
            raise ConfigError(
                "quantize: cost must be given for a search of widths, not left out; see flow.estimate.budget"
            )
        file = None if checkpoint is None else checkpoint.with_suffix(".search")
        precision = search(model, example, data, options, cost, checkpoint=file, progress=progress)
        widest = max(candidate_bits)
        options = replace(options, layers=precision.layers, weight_bits=widest, activation_bits=widest)
    training.seed_everything(seed)
    graph = traced(model, example)
    check_samples(graph, data, epochs)
    check_layer_bits(graph, options.layers)
    samples = tuple(array[:CALIBRATION_SAMPLES] for array in arrays(data.train[0]))
    quant, widths, stands = _calibrated(graph, options, samples)
    fitted = _fine_tuned(quant, data, options, checkpoint, progress)
    sample = tuple(torch.from_numpy(array[:1]) for array in samples)
    onnx_path = out / "model.onnx"
    export(quant, tuple(tensor[:1] for tensor in network.as_inputs(example)), onnx_path)
    expected, bound = _proven(quant, widths, onnx_path, data.test[0], sample, progress)
    write_golden(out / "golden.npz", Golden(arrays(data.test[0]), expected, data.test[1]))
    return Quantized(
        onnx_path=onnx_path,
        golden_path=out / "golden.npz",
        inputs=_input_ports(quant, example),
        accuracy=training.accuracy(expected, data.test[1]),
        samples=len(expected[0]),
        bias_bits=widths.bias,
        weight_bits={name: widths.weight_of(name) for name in widths.bias},
        activation_bits=stands,
        stopped=fitted.stopped,
        history=fitted.history,
        float_bound=bound,
        precision=precision,
    )


def _calibrated(
    graph: fx.GraphModule, options: Options, samples: tuple[np.ndarray, ...]
) -> tuple[fx.GraphModule, Widths, dict[str, int]]:
    """Return what `calibrated` does; refuse widths and sums that cannot be exact."""
    import torch

    widths = options.widths(graph)
    check_weights(graph, widths)
    check_positive(options.input_bits, samples)
    quant, widths, stands = calibrated(graph, widths, tuple(map(torch.from_numpy, samples)), options.ranges)
    if not widths.free:
        sample = tuple(torch.from_numpy(array[:1]) for array in samples)
        check_exact(without_softmax(tabulated(quant, sample)), samples)
    return quant, widths, stands


def _fine_tuned(
    quant: fx.GraphModule, data: Data, options: Options, checkpoint: Path | None, progress: Progress
) -> training.Fitted:
    """Train a calibrated network in place."""
    import torch

    if not options.epochs:
        return training.Fitted((), "no epochs were asked for")
    trunk = without_softmax(quant)
    return training.fit(
        trunk,
        data,
        torch.optim.Adam(trunk.parameters(), lr=options.learning_rate),
        epochs=options.epochs,
        batch_size=options.batch_size,
        seed=options.seed,
        best=training.evaluate(trunk, data.validation)[0],  # fine-tuning must beat the calibrated network
        subject="quantize",
        progress=progress,
        patience=options.patience,
        checkpoint=checkpoint,
    )


def _proven(
    quant: fx.GraphModule, widths: Widths, path: Path, samples: Any, sample: Any, progress: Progress
) -> tuple[tuple[np.ndarray, ...], FloatBound | None]:
    """Return what the network must give for the samples, and how far the file may be off."""
    fixed = tabulated(quant, sample, FUNCTIONS if not widths.free else TABLES)
    settle(fixed, path, free=widths.free)
    if not widths.free:
        prove_equal(without_softmax(fixed), path, samples, progress)
        return predict(fixed, samples), None
    exact = frozen(fixed, sample)
    bound = prove_bounded(without_softmax(exact), path, samples, progress)
    graph = from_qonnx.read(path)
    given = dequantized(graph, inputs_lsb(graph, arrays(samples)), samples)
    return tuple(array.astype(np.float32) for array in predict(exact, given, double=True)), bound


def _input_ports(quant: fx.GraphModule, example: Example) -> tuple[Port, ...]:
    """Return the network's inputs: channels last, with the types of their quantizers."""
    nodes = [node for node in quant.graph.nodes if node.op == "placeholder"]
    ports = []
    for node, tensor in zip(nodes, network.as_inputs(example), strict=True):
        quantizer: Any = quant.get_submodule(next(iter(node.users)).target)
        mantissa, exponent = math.frexp(float(quantizer.act_quant.scale()))
        width, fraction = int(quantizer.act_quant.bit_width()), 1 - exponent
        channels, *extents = tensor.shape[1:]
        name = "input" if len(nodes) == 1 else str(node.target)
        dtype = FixedPoint(bool(quantizer.act_quant.is_signed), width - fraction, fraction)
        ports.append(Port(name, (*extents, channels), dtype, 2 * mantissa))
    return tuple(ports)
