"""Quantize: float -> QONNX, through Brevitas with power-of-two scales, calibrated and fine-tuned."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flow import network, qonnx_graph, training
from flow.channels import is_depthwise
from flow.errors import ConfigError, MismatchError, UnsupportedError
from flow.types import Data, FixedPoint, Port, Progress, Quantized, silent

if TYPE_CHECKING:
    import torch
    from torch import fx, nn

SUPPORTED = ("Conv2d", "Linear", "ReLU", "MaxPool2d", "Flatten")
CALIBRATION_SAMPLES = 512


def quantize(
    model: nn.Module,
    example: torch.Tensor,
    *,
    out: Path,
    data: Data,
    weight_bits: int = 6,
    activation_bits: int = 6,
    input_bits: int = 8,
    bias_bits: int = 16,
    epochs: int = 20,
    learning_rate: float = 1e-3,
    batch_size: int = 64,
    seed: int = 0,
    progress: Progress = silent,
) -> Quantized:
    """Quantize a simplified network, fine-tune it, and export it as QONNX that equals torch exactly.

    All scales are powers of two, one a tensor: weights and inputs signed, activations after ReLU unsigned,
    rounding half to even, saturating. Both sides of a sum share one quantizer.

    Args:
        model: a network without BatchNorm (see `flow.simplify`); it is not changed.
        example: an input with a batch dimension.
        out: an existing folder; ``model.onnx`` and ``golden.npz`` are written there.
        data: training samples for calibration and fine-tuning; the whole test set is the proof.
        weight_bits, activation_bits, input_bits: 2 to 16.
        bias_bits: 8 to 32.
        epochs: of fine-tuning (QAT); the epoch of the least validation loss is kept. 0: calibrate only.
        learning_rate, batch_size: of the fine-tuning (Adam, half a cosine).
        seed: seed of the order of the samples.
        progress: called after every epoch and during the proof.

    Raises:
        ConfigError: an option is out of range, samples or labels do not fit.
        UnsupportedError: a layer that cannot be quantized exactly yet.
        MismatchError: torch and QONNX differ on a test sample.
    """
    bits = {"weight_bits": weight_bits, "activation_bits": activation_bits, "input_bits": input_bits}
    for name, value in bits.items():
        if not 2 <= value <= 16:
            raise ConfigError(f"quantize: {name} must be in 2 to 16, not {value}; 4 to 8 is usual")
    if not 8 <= bias_bits <= 32:
        raise ConfigError(f"quantize: bias_bits must be in 8 to 32, not {bias_bits}; 16 is usual")
    training.seed_everything(seed)
    graph = network.trace(model, example)
    training.check_labels(graph, data.train)
    with qonnx_graph.quiet():
        quant = quantized_copy(graph, weight_bits, activation_bits, input_bits, bias_bits)
    _calibrate(quant, data)
    _fine_tune(quant, data, epochs, learning_rate, batch_size, seed, progress)
    onnx_path = out / "model.onnx"
    export(quant, example[:1], onnx_path)
    expected = _prove_equal(quant, onnx_path, data, progress)
    np.savez(out / "golden.npz", inputs=data.test[0], outputs=expected, labels=data.test[1])
    return Quantized(
        onnx_path=onnx_path,
        golden_path=out / "golden.npz",
        inputs=(_input_port(quant, example),),
        accuracy=float((expected.argmax(1) == data.test[1]).mean()),
        samples=len(expected),
        weight_bits={str(node.target): weight_bits for node, _ in network.weighted(graph)},
        activation_bits={str(node.target): activation_bits for node, _ in network.weighted(graph)},
    )


def quantized_copy(
    graph: fx.GraphModule, weight_bits: int, activation_bits: int, input_bits: int, bias_bits: int
) -> fx.GraphModule:
    """Return a Brevitas network with the weights of ``graph``; module names survive."""
    import copy

    import brevitas.nn as qnn
    from brevitas.quant import Int8ActPerTensorFixedPoint, Uint8ActPerTensorFixedPoint

    quant = copy.deepcopy(graph)
    _check_layers(quant)

    def identity(width: int) -> nn.Module:
        return qnn.QuantIdentity(
            act_quant=Int8ActPerTensorFixedPoint, bit_width=width, return_quant_tensor=True
        )

    for node in list(quant.graph.nodes):
        if node.op == "placeholder":
            _insert_after(quant, node, "quant_input", identity(input_bits))
        elif node.op == "call_function":
            shared = identity(activation_bits)
            quant.add_submodule(f"quant_{node.name}", shared)
            for source in list(node.all_input_nodes):
                with quant.graph.inserting_before(node):
                    branch = quant.graph.call_module(f"quant_{node.name}", (source,))
                node.replace_input_with(source, branch)
            if _needs_quantizer(quant, node):
                _insert_after(quant, node, f"quant_{node.name}_out", identity(activation_bits + 1))
        elif node.op == "call_module":
            module: Any = quant.get_submodule(node.target)
            what = network.kind(module)
            if what in network.WEIGHTED:
                quant.set_submodule(node.target, _weighted(module, weight_bits, bias_bits))
                if _needs_quantizer(quant, node):
                    _insert_after(quant, node, f"quant_{node.name}_out", identity(activation_bits))
            elif what == "ReLU":
                relu = qnn.QuantReLU(
                    act_quant=Uint8ActPerTensorFixedPoint, bit_width=activation_bits, return_quant_tensor=True
                )
                quant.set_submodule(node.target, relu)
    quant.recompile()
    return quant


def _check_layers(graph: fx.GraphModule) -> None:
    for node in graph.graph.nodes:
        if node.op == "call_function" and node.target.__name__ == "cat":
            raise UnsupportedError(
                f"quantize: concatenation {node.name!r} is not supported yet; supported joins: x + y"
            )
        if node.op != "call_module":
            continue
        module: Any = graph.get_submodule(node.target)
        what = network.kind(module)
        if what not in SUPPORTED:
            raise UnsupportedError(
                f"quantize: layer {node.target!r} ({what}) is not supported; supported layers: {', '.join(SUPPORTED)}"
            )
        if what == "Conv2d" and (module.padding_mode != "zeros" or isinstance(module.padding, str)):
            raise UnsupportedError(
                f"quantize: layer {node.target!r} (Conv2d, padding {module.padding!r}, {module.padding_mode}) is not "
                "supported; supported paddings: numbers, with zeros"
            )
        if what == "Conv2d" and module.groups > 1 and not is_depthwise(module):
            raise UnsupportedError(
                f"quantize: layer {node.target!r} (Conv2d, groups {module.groups}) is not supported; "
                "supported groups: 1, or one a channel"
            )


def _needs_quantizer(graph: fx.GraphModule, node: fx.Node) -> bool:
    """Tell whether a node's wide result must be narrowed before the next layer reads it."""
    for user in node.users:
        if user.op == "output":
            continue
        if user.op == "call_function":
            continue  # the shared quantizer of the sum follows
        if network.kind(graph.get_submodule(str(user.target))) not in ("ReLU", "QuantReLU"):
            return True
    return False


def _insert_after(graph: fx.GraphModule, node: fx.Node, name: str, module: nn.Module) -> None:
    graph.add_submodule(name, module)
    users = list(node.users)
    with graph.graph.inserting_after(node):
        new = graph.graph.call_module(name, (node,))
    for user in users:
        user.replace_input_with(node, new)


def _weighted(module: Any, weight_bits: int, bias_bits: int) -> nn.Module:
    import brevitas.nn as qnn
    import torch
    from brevitas.quant import Int8WeightPerTensorFixedPoint, Int16Bias

    options = {
        "bias": True,
        "weight_quant": Int8WeightPerTensorFixedPoint,
        "weight_bit_width": weight_bits,
        "bias_quant": Int16Bias,
        "bias_bit_width": bias_bits,
    }
    made: Any
    if network.kind(module) == "Linear":
        made = qnn.QuantLinear(module.in_features, module.out_features, **options)
    else:
        keys = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups")
        made = qnn.QuantConv2d(**{key: getattr(module, key) for key in keys}, **options)
    with torch.no_grad():
        made.weight.copy_(module.weight)
        made.bias.copy_(torch.zeros_like(made.bias) if module.bias is None else module.bias)
    return made  # type: ignore[no-any-return]


def _calibrate(quant: fx.GraphModule, data: Data) -> None:
    import torch
    from brevitas.graph.calibrate import calibration_mode

    with torch.no_grad(), calibration_mode(quant):
        quant(torch.from_numpy(data.train[0][:CALIBRATION_SAMPLES]))


def _fine_tune(
    quant: fx.GraphModule,
    data: Data,
    epochs: int,
    learning_rate: float,
    batch_size: int,
    seed: int,
    progress: Progress,
) -> None:
    import torch

    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(quant.parameters(), lr=learning_rate)
    best, _ = training.evaluate(quant, data.validation)
    state = training.snapshot(quant)
    for epoch in range(epochs):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * (0.01 + 0.99 * (1 + math.cos(math.pi * epoch / epochs)) / 2)
        training.train_epoch(
            quant, data.train, optimizer, batch_size=batch_size, generator=generator, subject="quantize"
        )
        loss, accuracy = training.evaluate(quant, data.validation)
        if loss < best:
            best, state = loss, training.snapshot(quant)
        progress(epoch + 1, epochs, f"validation accuracy {accuracy:.2%}")
    quant.load_state_dict(state)
    quant.eval()


def export(quant: fx.GraphModule, example: torch.Tensor, path: Path) -> None:
    """Write the network as cleaned QONNX; nodes carry the names of the torch modules."""
    from brevitas.export import export_qonnx

    quant.eval()
    raw = path.with_suffix(".raw.onnx")
    with qonnx_graph.quiet():
        export_qonnx(quant, args=example, export_path=str(raw), dynamo=False)
    names = [
        (network.kind(quant.get_submodule(node.target)), str(node.target))
        if node.op == "call_module"
        else ("add", node.name)
        for node in quant.graph.nodes
        if node.op in ("call_module", "call_function")
    ]
    qonnx_graph.clean(raw, path, names)
    raw.unlink()


def _input_port(quant: fx.GraphModule, example: torch.Tensor) -> Port:
    """Return the network's input: channels last, with the type of its quantizer."""
    quantizer: Any = quant.get_submodule("quant_input")
    width = int(quantizer.act_quant.bit_width())
    fraction = -round(math.log2(float(quantizer.act_quant.scale())))
    shape = tuple(example.shape[1:])
    return Port("input", (*shape[1:], shape[0]), FixedPoint(True, width - fraction, fraction))


def _prove_equal(quant: fx.GraphModule, onnx_path: Path, data: Data, progress: Progress) -> np.ndarray:
    """Compare torch and QONNX exactly on the whole test set; returns the outputs."""
    import torch

    expected = training.predict(quant, torch.from_numpy(data.test[0])).numpy()
    got = qonnx_graph.execute(qonnx_graph.load(onnx_path), data.test[0], progress=progress)
    if got.shape != expected.shape:
        raise MismatchError(f"quantize: QONNX must give shape {expected.shape}, not {got.shape}; report it")
    different = np.argwhere(got != expected)
    if len(different):
        sample, output = different[0]
        raise MismatchError(
            f"quantize: QONNX must equal torch, but {len(different)} of {expected.size} outputs differ; the first: "
            f"sample {sample}, output {output}: torch {expected[sample, output]!r}, QONNX {got[sample, output]!r}"
        )
    return np.asarray(expected)
