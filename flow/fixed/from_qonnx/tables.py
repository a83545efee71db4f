"""Functions of one tensor that no integers compute: looked up for every integer that it can hold."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from flow.fixed.from_qonnx.lowering import Lowering, refuse
from flow.fixed.from_qonnx.values import Interval, Value, same_order, two_to
from flow.fixed.graph import Table
from flow.qonnx import FileNode, apply
from flow.types import FixedPoint

MAX_BITS = 12
OUTPUT_BITS = 16


def function(lowering: Lowering, node: FileNode) -> Value:
    """Lower an operator of one tensor, such as Sigmoid."""
    return unary_table(lowering, node, lowering.value(node), 0)


def unary_table(lowering: Lowering, node: FileNode, value: Value, place: int) -> Value:
    """Apply an operator, whose other inputs are constant numbers, to every integer of a tensor, in float32."""
    table = _codes(lowering, node, value)
    others = [lowering.raw.get(name) for name in node.inputs]
    inputs = []
    for index, (name, other) in enumerate(zip(node.inputs, others, strict=True)):
        if index == place:
            inputs.append(table)
            continue
        if not name:
            refuse(node, "must have no input left out; export it anew")
        if name in lowering.quantized:
            held = lowering.quantized[name]
            other = held.integers * held.scale
        if other is None or other.size != 1:
            refuse(node, f"must have one constant number as input {index}, not {name!r}; change the network")
        inputs.append(other.astype(np.float32).reshape(()))
    return _looked_up(lowering, node, value, inputs)


def binary_table(lowering: Lowering, node: FileNode, a: Value, b: Value) -> Value | None:
    """Return an operator of two functions of one tensor, such as x * sigmoid(x); None where they are not."""
    same = a.tensor.name == b.tensor.name and same_order(a.order, b.order)
    if not same or (a.table is None and b.table is None):
        return None
    return _looked_up(lowering, node, a, [_codes(lowering, node, value) for value in (a, b)])


def head(lowering: Lowering, node: FileNode, value: Value) -> Value:
    """Return a function's result at the end of a network: 16 bits that hold it, half to even, saturating by one LSB."""
    assert value.table is not None
    largest = float(np.abs(value.table).max())
    signed = bool((value.table < 0).any())
    integer_bits = max(-16, int(np.ceil(np.log2(largest))) if largest else 0) + signed
    dtype = FixedPoint(signed, integer_bits, OUTPUT_BITS - integer_bits)
    values = dtype.to_lsb(value.table)
    channels = value.tensor.shape[-1]
    reached = Interval(np.full(channels, values.min()), np.full(channels, values.max()))
    return lowering.emit(
        Table, node, [value], value.tensor.shape, reached, (two_to(-dtype.fraction_bits),), value.order,
        source=node.outputs[0], width=(signed, OUTPUT_BITS), values=values,
    )  # fmt: skip


def _looked_up(lowering: Lowering, node: FileNode, value: Value, inputs: list[np.ndarray]) -> Value:
    with np.errstate(all="ignore"):
        found = apply(node, lowering.opset, *inputs)
    if not np.isfinite(found).all():
        refuse(
            node,
            "must give finite numbers for every input, not infinite ones; quantize its input to another range",
        )
    return replace(
        value,
        table=found.astype(np.float32),
        low=None,
        high=None,
        relu="" if value.table is None else value.relu,
    )


def _codes(lowering: Lowering, node: FileNode, value: Value) -> np.ndarray:
    """Return what a value is for every integer of its tensor's type, in float32."""
    if value.table is not None:
        return value.table
    dtype = value.tensor.dtype
    if dtype.width > MAX_BITS:
        refuse(
            node,
            f"must read integers of at most {MAX_BITS} bits, not {dtype.width}; put a quantizer before it",
        )
    if len(value.scale) > 1 or len(value.offset) > 1:
        refuse(node, "must read one scale a tensor, not one a channel; quantize its input with one scale")
    codes = np.arange(dtype.minimum_lsb, dtype.maximum_lsb + 1)
    real = codes * float(value.scale[0]) + float(value.offset[0])
    low = -np.inf if value.low is None else float(value.low)
    high = np.inf if value.high is None else float(value.high)
    return np.asarray(np.clip(real, low, high), dtype=np.float32)
