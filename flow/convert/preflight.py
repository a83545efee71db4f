"""Preflight: what a synthesis would stumble over hours later, found from the graph in milliseconds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from flow.convert.accumulators import Range, partial_sums, range_of
from flow.convert.layer_list import LIMIT, Layer
from flow.errors import ConfigError, UnsupportedError
from flow.estimate.reuse import Fold
from flow.fixed.graph import Conv, Dense, FixedGraph, Node, Reshape, Tensor
from flow.types import FixedPoint, HlsLayer

_ANY_REUSE = ("Dense", "Conv1D", "Conv2D", "PointwiseConv1D", "PointwiseConv2D")
"""hls4ml's own layers, which with the latency strategy take any reuse factor as an interval."""


def check_precisions(
    node: Node, wanted: Mapping[str, FixedPoint], types: Mapping[str, FixedPoint], source: FixedPoint
) -> None:
    """Refuse types of the user's that lose bits of a layer.

    Args:
        node: the layer.
        wanted: the user's types, by result, accum, weight and bias.
        types: the exact types.
        source: the type of the layer's input.

    Raises:
        ConfigError: with what the type must hold.
        UnsupportedError: the layer's sums need more bits than the flow handles.
    """
    for key, dtype in wanted.items():
        if key not in types:
            raise ConfigError(
                f"[hls]: Precision.{key} of layer {node.name!r} must be left out, not {dtype}: the layer has none"
            )
        if key == "result":
            if dtype != types[key]:
                raise ConfigError(
                    f"[hls]: Precision.result of layer {node.name!r} must be {types[key]}, not {dtype}: the network's "
                    "types are exact; set widths where they are chosen, in [quantize]"
                )
            continue
        assert isinstance(node, Dense | Conv)
        held = _held(node, key, source)
        if not held.fits(dtype):
            raise ConfigError(
                f"[hls]: Precision.{key} of layer {node.name!r} must hold {held.low} to {held.high} in steps of "
                f"2^{-held.fraction_bits}, as {types[key]} does, not {dtype}; widen it, or leave it out"
            )


def _held(node: Dense | Conv, key: str, source: FixedPoint) -> Range:
    """Return what a type of a layer must hold."""
    if key == "accum":
        return partial_sums(node, source)
    values, dtype = (node.weight, node.weight_dtype) if key == "weight" else (node.bias, node.bias_dtype)
    assert values is not None
    assert dtype is not None
    return range_of(values, dtype.fraction_bits)


def check_reuse(
    layers: Sequence[HlsLayer], folds: Sequence[Fold], keys: Mapping[str, Mapping[str, Any]]
) -> None:
    """Refuse reuse factors that hls4ml would replace or compute wrongly with.

    Args:
        layers: as hls4ml made them.
        folds: the layers that multiply.
        keys: hls4ml's keys of each layer, by its C++ name.

    Raises:
        ConfigError: with the legal ones.
    """
    by_name = {fold.name: fold for fold in folds}
    for layer in layers:
        if layer.reuse_factor is None:
            continue
        fold = by_name[layer.name]
        wanted = keys[layer.hls_name]["ReuseFactor"]
        latency = str(keys[layer.hls_name]["Strategy"]).lower() == "latency"
        free = latency and layer.kind in _ANY_REUSE
        if wanted != layer.reuse_factor or not (free or wanted in fold.legal):
            raise ConfigError(
                f"[hls]: ReuseFactor of layer {layer.name!r} must be one of "
                f"{', '.join(map(str, fold.legal))}, not {wanted}; give one of them, or leave it out"
            )


def check_arrays(
    graph: FixedGraph, layers: Sequence[Layer], keys: Mapping[str, Mapping[str, Any]], io_type: str
) -> None:
    """Refuse arrays that are partitioned, and loops that are unrolled, into more than `LIMIT` elements.

    Args:
        graph: the network.
        layers: hls4ml's layer list.
        keys: hls4ml's keys of each layer, by its C++ name.
        io_type: ``io_stream`` or ``io_parallel``.

    Raises:
        UnsupportedError: with the first layer that has one, and what would help.
    """
    ports = (*(tensor.name for tensor in graph.inputs), *graph.outputs)
    for layer in layers:
        name = layer.node.name if layer.node else layer.tensor.name
        found = list(_arrays(graph, layer, keys[layer.name], io_type))
        if layer.tensor.name in ports:
            found.append(_gearbox(layer.tensor, io_type))
        for what, size, cure in found:
            if size > LIMIT:
                raise UnsupportedError(
                    f"convert: layer {name!r} must not have more than {LIMIT} {what}, not {size}: Vivado and Vitis "
                    f"HLS stop there, after hours; {cure}"
                )


_STREAM = 'choose io_type = "io_stream"'
_NARROW = "prune the layer to fewer channels"
_FOLD = 'give it a larger ReuseFactor with Strategy = "Resource", or prune it'


def _arrays(
    graph: FixedGraph, layer: Layer, keys: Mapping[str, Any], io_type: str
) -> Iterator[tuple[str, int, str]]:
    tensor = layer.tensor
    if io_type == "io_parallel":
        yield "values in registers at once (io_parallel)", tensor.size, _STREAM
    else:
        yield "channels side by side in a stream", tensor.shape[-1], _NARROW
    node = layer.node
    if isinstance(node, Dense | Conv) and layer.multiplies:
        yield from _mac_arrays(node, keys, io_type)
    elif node is not None and not isinstance(node, Reshape):
        from flow.convert import operators

        for what, size in operators.arrays(node, graph, io_type, keys.get("ReuseFactor", 1)).items():
            yield what, size, _NARROW


def _gearbox(tensor: Tensor, io_type: str) -> tuple[str, int, str]:
    """Return the shift register of axis_top.h: the lanes of an array, and of a word less one."""
    values = tensor.shape[-1] if io_type == "io_stream" else tensor.size
    width = tensor.dtype.width
    slots = values * (2 if width > 32 else 1)
    return "lanes in the AXI4-Stream's shift register", slots + (3 if width <= 8 else width <= 16), _STREAM


def _mac_arrays(node: Dense | Conv, keys: Mapping[str, Any], io_type: str) -> Iterator[tuple[str, int, str]]:
    outputs, inputs = node.weight.shape[0], int(np.prod(node.weight.shape[1:]))
    parallel = isinstance(node, Conv) and io_type == "io_parallel"
    pixels = int(keys.get("ParallelizationFactor", 1)) if parallel else 1
    yield "inputs of a sum in registers at once", inputs * pixels, _NARROW
    yield "sums in registers at once", outputs * pixels, _NARROW
    if str(keys["Strategy"]).lower() == "resource":
        yield "multipliers at once", -(-inputs * outputs // int(keys["ReuseFactor"])) * pixels, _FOLD
    else:
        yield "products at once (Strategy Latency)", inputs * outputs * pixels, _FOLD
