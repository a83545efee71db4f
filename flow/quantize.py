"""Quantize: float -> QONNX, through Brevitas with power-of-two scales, calibrated and fine-tuned."""

from __future__ import annotations

import math
from collections.abc import Mapping
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
MAX_BIAS_BITS = 32
_DEAD = 1e-9
"""Activations below are zero: they get the range 1, where Brevitas takes 1e-10, which is not a power of two."""


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
        out: a folder, made if it is missing; ``model.onnx`` and ``golden.npz`` are written there.
        data: training samples for calibration and fine-tuning; the whole test set is the proof.
        weight_bits, activation_bits, input_bits: 2 to 16.
        bias_bits: 8 to 32; a layer whose biases do not fit takes more.
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

    bits = {"weight_bits": weight_bits, "activation_bits": activation_bits, "input_bits": input_bits}
    for name, value in bits.items():
        if not 2 <= value <= 16:
            raise ConfigError(f"quantize: {name} must be in 2 to 16, not {value}; 4 to 8 is usual")
    if not 8 <= bias_bits <= 32:
        raise ConfigError(f"quantize: bias_bits must be in 8 to 32, not {bias_bits}; 16 is usual")
    training.check_options("quantize", epochs=epochs, batch_size=batch_size, learning_rate=learning_rate)
    out.mkdir(parents=True, exist_ok=True)
    training.seed_everything(seed)
    graph = network.trace(model, example)
    network.check_single(graph, "quantize")
    _check_layers(graph, network.shapes(graph, example))
    training.check_labels(graph, data.train, data.validation, data.test)
    layers = [str(node.target) for node, _ in network.weighted(graph)]
    bias_widths = dict.fromkeys(layers, bias_bits)
    with qonnx_graph.quiet():
        while True:  # widths only grow, up to MAX_BIAS_BITS
            quant = quantized_copy(graph, weight_bits, activation_bits, input_bits, bias_widths)
            _calibrate(quant, data)
            needed = _needed_bias_bits(quant, layers, data)
            wider = {name: max(width, needed[name]) for name, width in bias_widths.items()}
            if wider == bias_widths:
                break
            bias_widths = wider
    _check_exact(quant, data.train[0][:CALIBRATION_SAMPLES])
    training.fit(
        quant,
        data,
        torch.optim.Adam(quant.parameters(), lr=learning_rate),
        epochs=epochs,
        batch_size=batch_size,
        seed=seed,
        best=training.evaluate(quant, data.validation)[0],  # fine-tuning must beat the calibrated network
        subject="quantize",
        progress=progress,
    )
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
        bias_bits=bias_widths,
        weight_bits=dict.fromkeys(layers, weight_bits),
        activation_bits=dict.fromkeys(layers, activation_bits),
    )


def quantized_copy(
    graph: fx.GraphModule,
    weight_bits: int,
    activation_bits: int,
    input_bits: int,
    bias_bits: Mapping[str, int],
) -> fx.GraphModule:
    """Return a Brevitas network with the weights of ``graph``; module names survive."""
    import copy

    import brevitas.nn as qnn
    from brevitas.quant import Int8ActPerTensorFixedPoint, Uint8ActPerTensorFixedPoint

    quant = copy.deepcopy(graph)
    _unshare(quant)

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
                quant.set_submodule(node.target, _weighted(module, weight_bits, bias_bits[str(node.target)]))
                if _needs_quantizer(quant, node):
                    _insert_after(quant, node, f"quant_{node.name}_out", identity(activation_bits))
            elif what == "ReLU":
                relu = qnn.QuantReLU(
                    act_quant=Uint8ActPerTensorFixedPoint, bit_width=activation_bits, return_quant_tensor=True
                )
                quant.set_submodule(node.target, relu)
    quant.recompile()
    return quant


def _check_layers(graph: fx.GraphModule, shapes: Mapping[str, tuple[int, ...]]) -> None:
    for node in graph.graph.nodes:
        if node.op == "call_function":
            _check_join(node, shapes)
        elif node.op == "call_module":
            module = graph.get_submodule(node.target)
            _check_module(str(node.target), module)
            if network.kind(module) == "Linear" and len(shapes[node.name]) != 2:
                raise UnsupportedError(
                    f"quantize: layer {node.target!r} (Linear) must read vectors, not {len(shapes[node.name]) - 1} "
                    "dimensions; put a flatten before it"
                )


def _check_join(node: fx.Node, shapes: Mapping[str, tuple[int, ...]]) -> None:
    if not network.calls(node, "add"):
        what = {"cat": "concatenation", "mul": "product", "narrow": "slice"}[node.target.__name__]  # type: ignore[union-attr]
        raise UnsupportedError(f"quantize: {what} {node.name!r} is not supported yet; supported joins: x + y")
    if len(node.all_input_nodes) < 2:
        raise UnsupportedError(
            f"quantize: sum {node.name!r} must be of two tensors, not of one with itself; "
            "double the weights of the layer before it"
        )
    sides = [shapes[source.name][1:] for source in node.all_input_nodes]
    if sides[0] != sides[1]:
        raise UnsupportedError(
            f"quantize: sum {node.name!r} must be of equal shapes, not {sides[0]} and {sides[1]}; "
            "give both sides one shape"
        )


def _check_module(name: str, module: Any) -> None:
    what = network.kind(module)
    if name.lower().startswith("quant_"):
        raise UnsupportedError(
            f"quantize: layer {name!r} ({what}) must not begin with 'quant_' as quantizers do; rename it"
        )
    if what not in SUPPORTED:
        raise UnsupportedError(
            f"quantize: layer {name!r} ({what}) is not supported; supported layers: {', '.join(SUPPORTED)}"
        )
    for broken, option, supported in _options(what, module):
        if broken:
            raise UnsupportedError(
                f"quantize: layer {name!r} ({what}, {option}) is not supported; supported {supported}"
            )


def _options(what: str, module: Any) -> list[tuple[bool, str, str]]:
    """Return (broken, option, what is supported) for the options that the C++ does not have, or gets wrong."""
    if what == "Conv2d":
        plain = module.padding_mode == "zeros" and not isinstance(module.padding, str)
        padding = f"padding {module.padding!r}, {module.padding_mode}"
        grouped = module.groups > 1 and not is_depthwise(module)
        return [
            (not plain, padding, "paddings: numbers, with zeros"),
            (grouped, f"groups {module.groups}", "groups: 1, or one a channel"),
            (module.dilation != (1, 1), f"dilation {module.dilation}", "dilations: 1"),
        ]
    if what == "MaxPool2d":
        return [
            (module.padding not in (0, (0, 0)), f"padding {module.padding}", "paddings: 0"),
            (module.dilation not in (1, (1, 1)), f"dilation {module.dilation}", "dilations: 1"),
            (module.ceil_mode, "ceil_mode True", "ceil_mode: False"),
        ]
    if what == "Flatten":
        span = (module.start_dim, module.end_dim)
        return [(span != (1, -1), f"dimensions {span[0]} to {span[1]}", "dimensions: 1 to -1")]
    return []


def _unshare(graph: fx.GraphModule) -> None:
    """Give every use of a module a module, and so a quantizer and a name, of its own."""
    import copy

    used = set()
    for node in graph.graph.nodes:
        if node.op != "call_module":
            continue
        if node.target in used:
            twin = copy.deepcopy(graph.get_submodule(str(node.target)))
            node.target = network.add_module(graph, node.name, twin)
        used.add(node.target)


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
    dead = not bool(module.weight.any())
    if dead:
        options["weight_scaling_min_val"] = 1.0  # the range of zeros, which the bias' steps depend on
    made: Any
    if network.kind(module) == "Linear":
        made = qnn.QuantLinear(module.in_features, module.out_features, **options)
    else:
        keys = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups")
        made = qnn.QuantConv2d(**{key: getattr(module, key) for key in keys}, **options)
    with torch.no_grad():
        made.weight.copy_(module.weight)
        made.bias.copy_(torch.zeros_like(made.bias) if module.bias is None else module.bias)
    made.weight.requires_grad_(not dead)  # the logarithm of a largest weight of 0 has no gradient
    return made  # type: ignore[no-any-return]


def _calibrate(quant: fx.GraphModule, data: Data) -> None:
    import torch
    from brevitas.graph.calibrate import calibration_mode

    with torch.no_grad():
        with calibration_mode(quant):
            quant(torch.from_numpy(data.train[0][:CALIBRATION_SAMPLES]))
        for name, parameter in quant.named_parameters():
            if name.endswith("scaling_impl.value") and not 2**parameter > _DEAD:
                parameter.zero_()  # the logarithm of the range


def _needed_bias_bits(quant: fx.GraphModule, layers: list[str], data: Data) -> dict[str, int]:
    """Return the bits that each layer's biases need in steps of input scale x weight scale, one to spare for training.

    Without them a bias saturates: a layer with a small scale would lose it.
    """
    import torch

    needed = {}

    def measure(name: str, module: Any, source: Any) -> None:
        step = float(source.scale) * float(module.quant_weight().scale)
        largest = float(module.bias.detach().abs().max())
        needed[name] = min(MAX_BIAS_BITS, math.ceil(math.log2(largest / step + 1)) + 2)

    hooks = []
    for name in layers:
        module: Any = quant.get_submodule(name)
        hooks.append(module.register_forward_pre_hook(lambda m, args, name=name: measure(name, m, args[0])))
    quant.eval()
    with torch.no_grad():
        quant(torch.from_numpy(data.train[0][:1]))
    for hook in hooks:
        hook.remove()
    return needed


def _check_exact(quant: fx.GraphModule, inputs: np.ndarray) -> None:
    """Refuse sums that need more than the 24 bits of float32: torch and QONNX would round, the C++ would not."""
    import copy

    import torch

    x = torch.from_numpy(inputs)
    exact = training.predict(copy.deepcopy(quant).double(), x.double())
    rounded = int((training.predict(quant, x).double() != exact).sum())
    if rounded:
        raise UnsupportedError(
            f"quantize: sums must fit the 24 bits of float32, but {rounded} of {exact.numel()} outputs are rounded; "
            "lower weight_bits, activation_bits or bias_bits"
        )


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

    _check_exact(quant, data.test[0])
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
