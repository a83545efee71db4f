"""The fixed-point graph as hls4ml's layer list: names, weights and exact types, nothing left to infer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from flow.convert.accumulators import accumulator, range_of
from flow.errors import UnsupportedError
from flow.estimate.reuse import MAX_UNROLL, hls4ml_streams
from flow.fixed.graph import Conv, Dense, FixedGraph, Node, Reshape, Tensor
from flow.names import Names, identifier
from flow.types import FixedPoint

LIMIT = MAX_UNROLL
"""Elements that Vivado and Vitis HLS partition an array into, or unroll a loop to."""
MAX_COPIES = 7
"""hls4ml copies a stream at most so many times."""


@dataclass(frozen=True)
class Layer:
    """One entry of hls4ml's layer list; ``node`` is None for the network's inputs and for padding.

    ``types``: result, and accum, weight and bias where hls4ml's own kernels multiply. ``pads``: (before, after) a
    spatial dimension, of a layer that only pads.
    """

    name: str
    class_name: str
    node: Node | None
    tensor: Tensor
    inputs: tuple[str, ...]
    types: Mapping[str, FixedPoint]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    pads: tuple[tuple[int, int], ...] = ()

    @property
    def multiplies(self) -> bool:
        """Whether a kernel of hls4ml's multiplies here."""
        return "accum" in self.types

    def entry(self) -> dict[str, Any]:
        """Return the entry as hls4ml wants it."""
        return {
            **self.attributes,
            "class_name": self.class_name,
            "name": self.name,
            "inputs": list(self.inputs),
            "outputs": [self.name],
        }


def layer_list(graph: FixedGraph, io_type: str) -> tuple[Layer, ...]:
    """Return hls4ml's layers for a graph, in order; the inputs first.

    Args:
        graph: the network.
        io_type: ``io_stream`` or ``io_parallel``.

    Raises:
        UnsupportedError: what the C++ does not have.
    """
    check_graph(graph, io_type)
    names = unique_names(graph)
    layers = [
        Layer(names[tensor.name], "Input", None, tensor, (), {"result": tensor.dtype}, _input(tensor))
        for tensor in graph.inputs
    ]
    for node in graph.nodes:
        inputs = tuple(names[name] for name in node.inputs)
        if isinstance(node, Dense):
            layers.append(_dense(node, names, inputs, graph))
        elif isinstance(node, Conv) and hls4ml_has(node, io_type):
            layers.extend(_conv(node, names, inputs, graph, io_type))
        elif isinstance(node, Reshape):
            layers.append(_reshape(node, names, inputs, graph, io_type))
        else:
            layers.append(_ours(node, names, inputs, graph, io_type))
    return tuple(layers)


def unique_names(graph: FixedGraph) -> dict[str, str]:
    """Return each tensor's name in hls4ml's model, which knows a tensor by its layer.

    The class in front keeps names away from hls4ml's attributes; hls4ml looks types up without regard to case.
    """
    wanted = [(tensor.name, f"Input_{identifier(tensor.name)}") for tensor in graph.inputs]
    wanted += [(node.output.name, f"{type(node).__name__}_{identifier(node.name)}") for node in graph.nodes]
    names = Names(first=2)
    return {tensor: names.take(name) for tensor, name in wanted}


def check_graph(graph: FixedGraph, io_type: str) -> None:
    """Refuse graphs that have no C++: outputs that no layer computes, tensors that nobody reads."""
    computed = {node.output.name for node in graph.nodes}
    for place, name in enumerate(graph.outputs):
        if name not in computed or name in graph.outputs[:place]:
            raise UnsupportedError(
                f"convert: output {place} ({name!r}) must be computed by a layer of its own, not be an input or "
                "another output; leave it out of the network"
            )
    if io_type == "io_parallel":
        _check_reshaped_outputs(graph)
    for name in graph.tensors:
        uses = sum(node.inputs.count(name) for node in graph.nodes) + (name in graph.outputs)
        if uses == 0:
            raise UnsupportedError(
                f"convert: tensor {name!r} must be read by a layer, not by none; leave it out of the network"
            )
        if io_type == "io_stream" and uses > MAX_COPIES:
            raise UnsupportedError(
                f"convert: tensor {name!r} must be read by at most {MAX_COPIES} layers in io_stream, not {uses}; "
                'choose io_type = "io_parallel"'
            )


def _check_reshaped_outputs(graph: FixedGraph) -> None:
    """Refuse outputs that are an input or another output under another shape: the C++ has one array for both."""
    taken = {*graph.outputs, *(tensor.name for tensor in graph.inputs)}
    for node in graph.nodes:
        if isinstance(node, Reshape) and node.output.name in graph.outputs and node.inputs[0] in taken:
            raise UnsupportedError(
                f"convert: output {node.output.name!r} must not be {node.inputs[0]!r} under another shape in "
                'io_parallel; leave it out, or choose io_type = "io_stream"'
            )


def hls4ml_has(node: Conv, io_type: str) -> bool:
    """Tell whether hls4ml's own kernel computes a conv.

    In io_parallel it takes a 1-D conv of kernel 1 with one result for a dense layer.
    """
    kernel = node.weight.shape[1:-1]
    if io_type == "io_stream":
        return hls4ml_streams(kernel, node.strides, node.dilations, node.groups, node.weight.size)
    plain = node.groups == 1 and set(node.dilations) == {1}
    return plain and not (kernel == (1,) and node.output.shape[0] == 1)


def _input(tensor: Tensor) -> dict[str, Any]:
    return {"input_shape": list(tensor.shape)}


def _dense(node: Dense, names: Mapping[str, str], inputs: tuple[str, ...], graph: FixedGraph) -> Layer:
    outputs, features = node.weight.shape
    attributes = {"n_in": features, "n_out": outputs, **_weights(node, node.weight.T)}
    return Layer(names[node.output.name], "Dense", node, node.output, inputs, _types(node, graph), attributes)


def _conv(
    node: Conv, names: Mapping[str, str], inputs: tuple[str, ...], graph: FixedGraph, io_type: str
) -> list[Layer]:
    """Return the conv, behind a layer of its own for the padding in io_stream."""
    source = graph.tensors[node.inputs[0]]
    name = names[node.output.name]
    pads = node.pads
    before = []
    if io_type == "io_stream" and any(map(any, pads)):
        padded = tuple(size + sum(pad) for size, pad in zip(source.shape, pads, strict=False))
        tensor = Tensor(f"{node.output.name}_padding", (*padded, source.shape[-1]), source.dtype)
        attributes = _sizes(source.shape, padded, source.shape[-1], pads)
        kind = f"ZeroPadding{len(padded)}D"
        before = [
            Layer(f"Pad_{name}", kind, None, tensor, inputs, {"result": source.dtype}, attributes, pads)
        ]
        source, inputs, pads = tensor, (before[0].name,), ((0, 0),) * len(pads)
    attributes = {
        **_sizes(source.shape, node.output.shape, source.shape[-1], pads),
        **_along("filt", node.weight.shape[1:-1]),
        **_along("stride", node.strides),
        "n_filt": node.weight.shape[0],
        **_weights(node, np.moveaxis(node.weight, 0, -1)),
    }
    kind = f"Conv{len(node.strides)}D"
    return [*before, Layer(name, kind, node, node.output, inputs, _types(node, graph), attributes)]


def _along(what: str, sizes: tuple[int, ...]) -> dict[str, int]:
    """Return sizes along height and width by hls4ml's names; of one size, it is the width."""
    return {
        f"{what}_{side}": int(size) for side, size in zip(("width", "height"), reversed(sizes), strict=False)
    }


def _sizes(
    source: tuple[int, ...], result: tuple[int, ...], channels: int, pads: tuple[tuple[int, int], ...]
) -> dict[str, Any]:
    spatial = len(pads)
    sides = (("left", "right"), ("top", "bottom"))
    return {
        **_along("in", source[:spatial]),
        **_along("out", result[:spatial]),
        **{
            f"pad_{side}": int(size)
            for pair, pad in zip(sides, reversed(pads), strict=False)
            for side, size in zip(pair, pad, strict=True)
        },
        "n_chan": channels,
        "data_format": "channels_last",
    }


def _weights(node: Dense | Conv, weight: np.ndarray) -> dict[str, Any]:
    values: dict[str, Any] = {"weight_data": node.weight_dtype.to_real(weight)}
    if node.bias is not None and node.bias_dtype is not None:
        values["bias_data"] = node.bias_dtype.to_real(node.bias)
    return values


def _types(node: Dense | Conv, graph: FixedGraph) -> dict[str, FixedPoint]:
    types = {
        "result": node.output.dtype,
        "weight": range_of(node.weight, node.weight_dtype.fraction_bits).dtype(),
        "accum": accumulator(node, graph.tensors[node.inputs[0]].dtype),
    }
    if node.bias is not None and node.bias_dtype is not None:
        types["bias"] = range_of(node.bias, node.bias_dtype.fraction_bits).dtype()
    return types


def _reshape(
    node: Reshape, names: Mapping[str, str], inputs: tuple[str, ...], graph: FixedGraph, io_type: str
) -> Layer:
    """Return a reshape: nothing in io_parallel and before a dense layer, which takes any arrays; else a repack."""
    source, result = graph.tensors[node.inputs[0]], node.output
    if io_type == "io_parallel" or _flows_into_dense(node, graph):
        kind = "Reshape"
    else:
        kind = "Repack"
        channels = sorted((source.shape[-1], result.shape[-1]))
        if channels[1] % channels[0]:
            raise UnsupportedError(
                f"convert: layer {node.name!r} (Reshape, {source.shape[-1]} to {result.shape[-1]} channels) must "
                'divide one by the other in io_stream; choose io_type = "io_parallel"'
            )
    attributes = {"target_shape": list(result.shape)}
    return Layer(names[result.name], kind, node, result, inputs, {"result": result.dtype}, attributes)


def _flows_into_dense(node: Reshape, graph: FixedGraph) -> bool:
    """Tell whether a flattened tensor has one way to go, into hls4ml's dense layer."""
    readers = graph.readers(node.output.name)
    lone = len(readers) == 1 and isinstance(readers[0], Dense) and node.output.name not in graph.outputs
    source = node.inputs[0]
    return lone and len(graph.readers(source)) == 1 and source not in graph.outputs


def _ours(
    node: Node, names: Mapping[str, str], inputs: tuple[str, ...], graph: FixedGraph, io_type: str
) -> Layer:
    from flow.convert import operators

    made: Callable[..., dict[str, Any]] = operators.layer
    entry = dict(made(node, graph, io_type))
    kind = str(entry.pop("class_name"))
    for key in ("name", "inputs", "outputs"):
        entry.pop(key, None)
    return Layer(
        names[node.output.name], kind, node, node.output, inputs, {"result": node.output.dtype}, entry
    )
