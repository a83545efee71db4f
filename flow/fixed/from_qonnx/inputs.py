"""The network's inputs: their types, from the quantizers that read them, and their layout."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from flow.errors import UnsupportedError
from flow.fixed.from_qonnx import quantizers
from flow.fixed.from_qonnx.constants import fractions_of
from flow.fixed.from_qonnx.lowering import Lowering, refuse
from flow.fixed.from_qonnx.rescale import Multiplier
from flow.fixed.from_qonnx.values import (
    Factors,
    Interval,
    Value,
    channels_first,
    channels_last,
    flat_order,
    label_of,
    merged,
    two_to,
)
from flow.fixed.graph import Tensor
from flow.qonnx import CHANNELS_LAST, FileGraph, FileNode
from flow.types import FixedPoint

DEFAULT = FixedPoint(True, 6, 10)
"""The type of an input that no quantizer reads."""
_KEEP = ("Quant", "IntQuant", "BipolarQuant", "Relu", "Clip", "Identity", "Dropout", "Mul", "Add", "Sub", "Div",
         "LeakyRelu", "Sigmoid", "Tanh", "Concat", "Resize", "Upsample")  # fmt: skip


def add_inputs(lowering: Lowering, types: Mapping[str, FixedPoint]) -> None:
    """Make the graph's inputs: each has the type of the quantizer that alone reads it, if there is one."""
    for name in lowering.file.inputs:
        _add_input(lowering, name, types.get(name, DEFAULT))


def _add_input(lowering: Lowering, name: str, default: FixedPoint) -> None:
    said = lowering.file.shapes.get(name)
    if said is None or len(said) not in (2, 3, 4) or any(extent is None for extent in said[1:]):
        what = "no shape" if said is None else str([extent or "?" for extent in said])
        raise UnsupportedError(
            f"qonnx: input {name!r} must be vectors, sequences or images of known size with a batch, not of {what}; "
            "export it with fixed shapes"
        )
    lowering.batch = said[0] or 1
    extents = tuple(int(extent or 0) for extent in said[1:])
    channel = _channel_axis(lowering.file, name, len(extents))
    shape = (*(n for axis, n in enumerate(extents) if axis != channel), extents[channel])
    order = channels_last(shape) if channel else channels_first(shape)
    readers = [node for node in lowering.file.nodes if name in node.inputs]
    quants = [node for node in readers if node.op_type in ("Quant", "IntQuant")]
    quants = [node for node in quants if not quantizers.read(lowering, node).sign]
    if not quants:
        tensor = Tensor(lowering.name(name), shape, default, (1.0,), name, flat_order(order))
        _set(lowering, name, Value(tensor, order, (two_to(-default.fraction_bits),)))
    elif len(readers) > 1:
        refuse(
            readers[0], f"must not read the input {name!r} unless it is the one Quant node that does: the hardware's "
            "input has its type; quantize the input"
        )  # fmt: skip
    else:
        _add_quantized(lowering, name, quants[0], order, shape)


def _add_quantized(
    lowering: Lowering, name: str, node: FileNode, order: np.ndarray, shape: tuple[int, ...]
) -> None:
    """Make an input of a quantizer's type; a narrow one is clipped behind it."""
    quantizer = quantizers.read(lowering, node)
    if quantizer.rounding != "ROUND":
        refuse(
            node, "must round half to even (ROUND), as the input of the hardware does; quantize the input so"
        )
    scale = _scale(node, quantizer.scale, order, shape)
    bits, beside = label_of(scale)
    dtype = FixedPoint(quantizer.signed, quantizer.width - bits, bits)
    limits = (quantizer.minimum, quantizer.maximum)
    narrow = (dtype.minimum_lsb, dtype.maximum_lsb) != limits
    source = None if narrow else node.outputs[0]
    tensor = Tensor(lowering.name(name), shape, dtype, beside, source, flat_order(order))
    value = Value(tensor, order, scale)
    _set(lowering, name, value)
    if narrow:
        value = lowering.rescale(
            node, value, Multiplier(np.array([1]), np.array([0]), 0), scale, limits=limits, source=node.outputs[0],
            width=(quantizer.signed, quantizer.width),
        )  # fmt: skip
    lowering.values[node.outputs[0]] = value


def _scale(node: FileNode, given: np.ndarray, order: np.ndarray, shape: tuple[int, ...]) -> Factors:
    """Return a quantizer's scale: one number, or one a channel."""
    try:
        numbers = np.broadcast_to(given, (1, *order.shape))[0]
    except ValueError:
        refuse(
            node, f"must have a scale that fits {list(order.shape)}, not {list(given.shape)}; export it anew"
        )
    flat = np.empty(order.size, dtype=np.float32)
    flat[order.reshape(-1)] = numbers.reshape(-1)
    rows = flat.reshape(-1, shape[-1])
    if not (rows == rows[0]).all():
        refuse(node, "must have one scale, or one a channel, not one an element; quantize the input so")
    return merged(tuple(fractions_of(rows[0])))


def _set(lowering: Lowering, name: str, value: Value) -> None:
    tensor = value.tensor
    ones = np.ones(tensor.shape[-1], dtype=np.int64)
    lowering.inputs.append(tensor)
    lowering.intervals[tensor.name] = Interval(
        ones * tensor.dtype.minimum_lsb, ones * tensor.dtype.maximum_lsb
    )
    lowering.values[name] = value


def _channel_axis(file: FileGraph, name: str, rank: int) -> int:
    """Return which dimension of an input (without the batch) its first reader with a layout takes as the channels."""
    return rank - 1 if rank > 1 and _last(file, name) else 0


def _last(file: FileGraph, name: str) -> bool:
    for node in file.nodes:
        if name not in node.inputs:
            continue
        if node.domain == CHANNELS_LAST or node.op_type == "MatMul":
            return True
        if node.op_type == "Transpose":
            perm = node.attributes.get("perm", ())
            return bool(perm) and perm[1] == len(perm) - 1
        if node.op_type in _KEEP:
            return any(_last(file, output) for output in node.outputs)
        return False
    return False
