"""The work of a float network, as if it were quantized: before any training, in a second."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from flow.errors import UnsupportedError
from flow.estimate.graph import Step, mark, window
from flow.estimate.reuse import hls4ml_streams
from flow.estimate.work import PRODUCTS, Work, constant_digits
from flow.names import identifier
from flow.network import NORMS, TRANSPOSED, WEIGHTED, Example, calls, kind, output_nodes, shapes
from flow.network.fuse import fuse_batchnorm

if TYPE_CHECKING:
    from torch import fx

_FREE = (
    "Dropout",
    "Identity",
    "Flatten",
    "Unflatten",
    "BatchNorm1d",
    "BatchNorm2d",
    "ReLU",
    "ReLU6",
    "Hardtanh",
)
"""Layers that vanish, or that the quantizer behind the layer before them does as well."""
_POOLS = ("MaxPool1d", "MaxPool2d", "AvgPool1d", "AvgPool2d")
_WIDTH_STAYS = ("MaxPool1d", "MaxPool2d", "AdaptiveMaxPool1d", "AdaptiveMaxPool2d", "Upsample")
_GLOBAL = ("AdaptiveAvgPool1d", "AdaptiveAvgPool2d", "AdaptiveMaxPool1d", "AdaptiveMaxPool2d")
_TABLES = ("Sigmoid", "Tanh", "ELU", "SELU", "GELU", "SiLU", "Mish", "Softplus", "Hardswish", "Hardsigmoid")


@dataclass(frozen=True)
class Bits:
    """The widths that a float network will get; ``layers``: (weight, activation) bits of single layers, by name.

    A layer's activation bits are those of the quantizer behind it, which hand themselves on as in `flow.quantize`: an
    activation or a max pool takes them over, a concatenation takes the widest. Joins go by their node's name.
    """

    weight: int
    activation: int
    input: int
    layers: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    def of(self, name: str) -> tuple[int, int]:
        """Return the weight and activation bits of one layer."""
        return self.layers.get(name, (self.weight, self.activation))


def network_work(
    graph: fx.GraphModule,
    example: Example,
    bits: Bits,
    *,
    sizes: Mapping[str, tuple[int, ...]] | None = None,
) -> tuple[Work, ...]:
    """Return the work of a network's layers at assumed widths.

    Each layer with weights gets a quantizer behind it, as the stage quantize puts one there. The weights are taken
    as they are, so that a zero costs nothing where a layer is not folded; a BatchNorm is fused before.

    Args:
        graph: a graph of `flow.network.trace`, channels first.
        example: one input tensor, or a tuple of them, with a batch dimension.
        bits: the widths.
        sizes: the shapes of all tensors, where they are known; they take most of the time.

    Raises:
        UnsupportedError: a layer that convert has not.
    """
    sizes = shapes(graph, example) if sizes is None else sizes
    if any(kind(module) in NORMS for module in graph.modules()):
        graph = fuse_batchnorm(graph)
    widths: dict[str, int] = {}
    asked: dict[str, int | None] = {}
    forms: dict[str, tuple[int, ...]] = {}
    steps: list[Step] = []
    inputs, last = [], {node.name for node in output_nodes(graph)}
    for node in graph.graph.nodes:
        if node.op == "placeholder":
            inputs.append(node.name)
            widths[node.name] = bits.input
        if node.op in ("placeholder", "output", "get_attr") or node.name not in sizes:
            continue
        sources = tuple(source.name for source in node.all_input_nodes if source.name in sizes)
        source = sources[0]
        input_bits = widths.get(source, bits.activation)
        asked[node.name] = _asked(graph, node, asked, bits)
        output_bits = asked[node.name] or (input_bits if _hands_on(graph, node) else bits.activation)
        widths[node.name] = output_bits
        work = _work(graph, node, sizes, source, (input_bits, output_bits), bits)
        form = forms.setdefault(source, sizes[source][1:])
        if work is None:
            forms[node.name] = form
            steps.append(Step(None, sources, node.name))
            continue
        work = replace(work, scans=max(work.scans, math.prod(form[1:])), channels=form[0])
        steps.append(Step(work, sources, node.name))
        if work.kind == PRODUCTS and node.name not in last:
            steps.append(Step(_quantizer(work, output_bits), (node.name,), node.name))
    return mark(steps, inputs, last)


def _asked(graph: fx.GraphModule, node: fx.Node, asked: Mapping[str, int | None], bits: Bits) -> int | None:
    """Return the bits that `Bits.layers` asks of what a node hands on, None for nothing: as quantize reads them."""
    name = str(node.target) if node.op == "call_module" else node.name
    if name in bits.layers:
        return bits.layers[name][1]
    sides = [asked.get(source.name) for source in node.all_input_nodes]
    if calls(node, "cat") and any(sides):
        return max(side or bits.activation for side in sides)
    return sides[0] if _hands_on(graph, node) else None


def _hands_on(graph: fx.GraphModule, node: fx.Node) -> bool:
    """Tell whether a layer's result has the width of its input."""
    return node.op == "call_module" and kind(graph.get_submodule(str(node.target))) in (*_FREE, *_WIDTH_STAYS)


def _quantizer(work: Work, output_bits: int) -> Work:
    return Work(
        f"{work.name} quantizer",
        "rescale",
        1,
        work.outputs,
        work.output_bits,
        output_bits,
        positions=work.positions,
        scans=work.positions,
        channels=work.outputs,
    )


def _work(
    graph: fx.GraphModule,
    node: fx.Node,
    sizes: Mapping[str, tuple[int, ...]],
    source: str,
    ends: tuple[int, int],
    bits: Bits,
) -> Work | None:
    input_bits, output_bits = ends
    _, channels, *extent = sizes[node.name]
    made = Work(node.name, "move", 1, channels, input_bits, output_bits, positions=math.prod(extent), scans=1)
    if node.op != "call_module":
        name = getattr(node.target, "__name__", str(node.target))
        return replace(made, kind={"add": "add", "mul": "scale"}.get(name, "move"), weight_bits=input_bits)
    module = graph.get_submodule(str(node.target))
    what, made = kind(module), replace(made, name=identifier(str(node.target)))
    if what in TRANSPOSED:
        raise UnsupportedError(
            f"estimate: layer {node.target!r} ({what}) is not supported; take an upsampling and a conv in its place"
        )
    if what in _FREE:
        return None
    if what in WEIGHTED:
        return _product(made, module, sizes[source], input_bits, bits.of(str(node.target))[0])
    if what in _POOLS or what in _GLOBAL:
        return _pool(made, module, sizes[source], what in _GLOBAL)
    if what in _TABLES:
        return replace(made, kind="table", entries=2**input_bits)
    if "Softmax" in what:
        return replace(made, kind="softmax")
    return replace(made, kind="scale" if "ReLU" in what else "move", weight_bits=bits.of(str(node.target))[0])


def _integers(weight: np.ndarray, bits: int) -> np.ndarray:
    """Return weights as integers, with one power-of-two scale: signs at 1 bit, which has no zero."""
    if bits == 1:
        return np.ones_like(weight)
    largest = float(np.abs(weight).max(initial=0.0)) or 1.0
    limit = 2.0 ** (bits - 1)
    return np.clip(np.rint(weight * (limit / 2.0 ** math.ceil(math.log2(largest)))), -limit, limit - 1)


def _product(made: Work, module: Any, shape: tuple[int, ...], input_bits: int, weight_bits: int) -> Work:
    weight = module.weight.detach().cpu().numpy()
    inputs = math.prod(weight.shape[1:])
    digits, wide = constant_digits(_integers(weight, weight_bits), input_bits)
    output_bits = input_bits + weight_bits + math.ceil(math.log2(max(2, inputs)))
    made = replace(
        made,
        kind=PRODUCTS,
        inputs=inputs,
        weight_bits=weight_bits,
        output_bits=output_bits,
        digits=digits,
        wide=wide,
        grouped=getattr(module, "groups", 1) > 1,
    )
    if not hasattr(module, "kernel_size"):
        return made
    pads = [(pad, pad) for pad in _padding(module)]
    rows = [(size - 1) * step for size, step in zip(module.kernel_size, module.dilation, strict=True)]
    scans, line_bits = window((*shape[2:], shape[1]), input_bits, pads, rows)
    own = not hls4ml_streams(
        module.kernel_size, module.stride, module.dilation, module.groups, module.weight.numel()
    )
    return replace(made, window=True, own_kernel=own, scans=scans, line_bits=line_bits)


def _padding(module: Any) -> tuple[int, ...]:
    """Return a conv's padding before and behind each spatial dimension; 'same' is not always even."""
    if not isinstance(module.padding, str):
        return tuple(module.padding)
    reach = [d * (k - 1) // 2 for d, k in zip(module.dilation, module.kernel_size, strict=True)]
    return tuple(reach) if module.padding == "same" else (0,) * len(reach)


def _pool(made: Work, module: Any, shape: tuple[int, ...], whole: bool) -> Work:
    extent = shape[2:]

    def each(value: Any) -> list[int]:
        return [int(v) for v in value] if isinstance(value, tuple | list) else [int(value)] * len(extent)

    sizes = list(extent) if whole else each(module.kernel_size)
    pads = [(0, 0)] * len(extent) if whole else [(pad, pad) for pad in each(module.padding)]
    scans, line_bits = window((*extent, shape[1]), made.input_bits, pads, [size - 1 for size in sizes])
    if whole:  # it adds up as values come: one sum a channel
        return replace(made, kind="pool", inputs=1, scans=scans)
    return replace(made, kind="pool", inputs=math.prod(sizes), scans=scans, line_bits=line_bits)
