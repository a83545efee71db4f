"""Sums, products and concatenations of tensors."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np

from flow.fixed.from_qonnx.lowering import Lowering, refuse
from flow.fixed.from_qonnx.values import (
    Factors,
    Interval,
    Value,
    channels_first,
    channels_last,
    combined,
    power_of_two,
    same_order,
)
from flow.fixed.graph import Add, Concat, Mul, Upsample
from flow.qonnx import FileNode


def add_tensors(lowering: Lowering, node: FileNode, a: Value, b: Value) -> Value:
    """Lower a sum of two tensors, whose scales are equal up to powers of two."""
    a, b = _same_shape(lowering, node, a, b)
    a, b = _same_scale(lowering, node, [a, b])
    step, shifts = _aligned([a, b])
    sides = [_shifted(lowering.interval(value), shift) for value, shift in zip((a, b), shifts, strict=True)]
    interval = Interval(sides[0].low + sides[1].low, sides[0].high + sides[1].high)
    fraction_bits = max(value.tensor.dtype.fraction_bits for value in (a, b))
    return lowering.emit(
        Add, node, [a, b], a.tensor.shape, interval, step, a.order, source=node.outputs[0],
        fraction_bits=fraction_bits,
    )  # fmt: skip


def multiply_tensors(lowering: Lowering, node: FileNode, a: Value, b: Value) -> Value:
    """Lower a product of two tensors."""
    a, b = _same_shape(lowering, node, a, b)
    ends = [lowering.interval(value) for value in (a, b)]
    corners = [
        x.astype(object) * y.astype(object)
        for x in (ends[0].low, ends[0].high)
        for y in (ends[1].low, ends[1].high)
    ]
    low, high = np.minimum.reduce(corners), np.maximum.reduce(corners)
    return lowering.emit(
        Mul, node, [a, b], a.tensor.shape, Interval(low, high), combined(a.scale, b.scale, True), a.order,
        source=node.outputs[0], fraction_bits=sum(value.tensor.dtype.fraction_bits for value in (a, b)),
    )  # fmt: skip


def concat(lowering: Lowering, node: FileNode) -> Value:
    """Lower a Concat of channels, or of the features of vectors."""
    values = [lowering.bare(node, lowering.value(node, place)) for place in range(len(node.inputs))]
    rank = len(values[0].shape)
    axis = int(node.attributes.get("axis", 1))
    axis = axis % (rank + 1) - 1
    if axis < 0 or any(len(value.shape) != rank for value in values):
        refuse(node, "must join tensors of one rank along another axis than the batch; change the network")
    if len({value.tensor.shape[:-1] for value in values}) > 1 or rank == 1:
        values = [lowering.vector(node, value) if rank == 1 else value for value in values]
    if len({value.tensor.shape[:-1] for value in values}) > 1:
        refuse(node, "must join channels of images of one size; change the network")
    values = list(_same_scale(lowering, node, values))
    step, shifts = _aligned(values)
    sides = [_shifted(lowering.interval(value), shift) for value, shift in zip(values, shifts, strict=True)]
    interval = Interval(np.concatenate([s.low for s in sides]), np.concatenate([s.high for s in sides]))
    counts = [value.tensor.shape[-1] for value in values]
    starts = np.cumsum([0, *counts[:-1]])
    total = sum(counts)
    orders = [
        value.order // count * total + start + value.order % count
        for value, count, start in zip(values, counts, starts, strict=True)
    ]
    try:
        order = np.concatenate(orders, axis)
    except ValueError:
        refuse(node, f"must join tensors that differ along axis {axis + 1} alone; export it anew")
    shape = (*values[0].tensor.shape[:-1], total)
    if rank > 1 and not any(same_order(order, made(shape)) for made in (channels_first, channels_last)):
        refuse(node, "must join tensors along their channels, not along positions; change the network")
    if rank > 1:
        order = channels_first(shape) if same_order(order, channels_first(shape)) else channels_last(shape)
    return lowering.emit(
        Concat, node, values, shape, interval, step, order.astype(np.int32), source=node.outputs[0],
        fraction_bits=max(value.tensor.dtype.fraction_bits for value in values),
    )  # fmt: skip


def upsampled(
    lowering: Lowering, node: FileNode, value: Value, factors: tuple[int, ...], order: np.ndarray
) -> Value:
    """Repeat every position of a bare image; ``order``: of the result."""
    shape = (*(n * f for n, f in zip(value.tensor.shape, factors, strict=False)), value.tensor.shape[-1])
    return lowering.emit(
        Upsample, node, [value], shape, lowering.interval(value), value.scale, order,
        fraction_bits=value.tensor.dtype.fraction_bits, factors=factors,
        source=node.outputs[0] if node.op_type in ("Resize", "Upsample") else None,
        name=node.name if node.op_type in ("Resize", "Upsample") else f"{node.name}_repeated",
    )  # fmt: skip


def _same_shape(lowering: Lowering, node: FileNode, a: Value, b: Value) -> tuple[Value, Value]:
    """Return both bare, of one shape and order; one that has a single position is repeated over the other's."""
    a, b = lowering.bare(node, a), lowering.bare(node, b)
    if math.prod(a.shape) < math.prod(b.shape):
        b, a = _same_shape(lowering, node, b, a)
        return a, b
    if a.shape != b.shape:
        b = _spread(lowering, node, a, b)
    if not same_order(a.order, b.order):
        refuse(
            node,
            "must read two tensors of one layout, not one that a Transpose or Reshape changed; change the network",
        )
    return a, lowering.reshaped(node, b, a.tensor.shape)


def _spread(lowering: Lowering, node: FileNode, a: Value, b: Value) -> Value:
    """Return one number a channel, repeated over every position of the image ``a``."""
    shape = a.tensor.shape
    channels = shape[-1]
    for made in (channels_first, channels_last):
        single = made((*[1] * (len(shape) - 1), channels))
        if same_order(a.order, made(shape)) and b.order.squeeze().shape == single.squeeze().shape:
            matching = np.broadcast_shapes(b.shape, a.shape) == a.shape and math.prod(b.shape) == channels
            if matching and b.shape[-len(single.shape) :] == single.shape and same_order(b.order, single):
                b = lowering.reshaped(node, b, (*[1] * (len(shape) - 1), channels))
                return upsampled(lowering, node, b, shape[:-1], a.order)
    refuse(
        node,
        f"must read tensors of one shape, or one of a single position, not {list(a.shape)} and {list(b.shape)}; "
        "change the network",
    )


def _same_scale(lowering: Lowering, node: FileNode, values: list[Value]) -> list[Value]:
    """Return the values with scales that are equal up to one power of two each."""
    if all(value.scale == values[0].scale for value in values):
        return values
    made = [lowering.one_scale(node, value) for value in values]
    for value in made[1:]:
        if not power_of_two(value.scale[0] / made[0].scale[0]):
            refuse(
                node,
                f"must read scales that are equal up to powers of two, not {float(made[0].scale[0]):g} and "
                f"{float(value.scale[0]):g}; share one quantizer",
            )
    return made


def _aligned(values: list[Value]) -> tuple[Factors, list[int]]:
    """Return the finest scale, and how far the integers of each value are shifted to it."""
    finest = min(values, key=lambda value: value.scale[0])
    ratios = [value.scale[0] / finest.scale[0] for value in values]
    return finest.scale, [Fraction(ratio).numerator.bit_length() - 1 for ratio in ratios]


def _shifted(interval: Interval, shift: int) -> Interval:
    return Interval(interval.low.astype(object) << shift, interval.high.astype(object) << shift)
