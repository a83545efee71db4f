"""Factors, sums with constants, BatchNorm and piecewise linear activations: they gather in the value."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np

from flow.fixed.from_qonnx.constants import Constant, fractions_of, on_grid
from flow.fixed.from_qonnx.joins import add_tensors, multiply_tensors
from flow.fixed.from_qonnx.lowering import Lowering, refuse
from flow.fixed.from_qonnx.tables import binary_table, unary_table
from flow.fixed.from_qonnx.values import (
    MAX_WIDTH,
    Factors,
    Interval,
    Value,
    combined,
    exponent,
    label_of,
    two_to,
    type_of,
)
from flow.fixed.from_qonnx.weighted import with_bias
from flow.fixed.graph import Conv, Dense, PRelu
from flow.qonnx import CHANNELS_LAST, FileNode


def add(lowering: Lowering, node: FileNode) -> Value:
    """Lower an Add or Sub: of two tensors, or of a tensor and a constant."""
    sign = -1 if node.op_type == "Sub" else 1
    fixed = [lowering.is_constant(name) for name in node.inputs]
    if not any(fixed):
        other = lowering.value(node, 1)
        found = binary_table(lowering, node, lowering.value(node), other)
        if found is not None:
            return found
        if sign < 0:
            other = scaled(lowering, node, other, (Fraction(-1),))
        return add_tensors(lowering, node, lowering.value(node), other)
    if all(fixed):
        refuse(node, "must read a tensor that depends on the input, not constants alone; quantize their sum")
    place = fixed.index(False)
    value, numbers = lowering.value(node, place), lowering.numbers(node, 1 - place)
    if value.table is not None:
        return unary_table(lowering, node, value, place)
    if sign < 0 and place == 1:
        value = scaled(lowering, node, value, (Fraction(-1),))
    elif sign < 0:
        numbers = -numbers
    value, bias = lowering.by_channel(node, value, numbers)
    return shifted(lowering, node, value, bias)


def shifted(lowering: Lowering, node: FileNode, value: Value, bias: Factors) -> Value:
    """Add one number, or one a channel."""
    made, held = lowering.nodes.get(value.tensor.name), value.tensor
    stated = label_of(value.scale, held.dtype.fraction_bits)[1] == held.scale if value.bare else False
    alone = held.source in node.inputs and lowering.readers[held.source or ""] == 1
    if isinstance(made, Dense | Conv) and stated and alone:
        return with_bias(lowering, value, bias, node.outputs[0])
    if value.clipped and len(bias) > 1:
        value = lowering.bare(node, value)
    ends = [None if end is None else end + bias[0] for end in (value.low, value.high)]
    return replace(value, offset=combined(value.offset, bias, False), low=ends[0], high=ends[1])


def multiply(lowering: Lowering, node: FileNode) -> Value | Constant:
    """Lower a Mul or Div: by a constant, or a Mul of two tensors."""
    fixed = [lowering.is_constant(name) for name in node.inputs]
    divides = node.op_type == "Div"
    if not any(fixed):
        found = binary_table(lowering, node, lowering.value(node), lowering.value(node, 1))
        if found is not None:
            return found
        if divides:
            refuse(node, "must divide by a constant, not by an activation; change the network")
        return multiply_tensors(lowering, node, lowering.value(node), lowering.value(node, 1))
    if all(fixed):
        return _scaled_constant(lowering, node)
    place = fixed.index(False)
    value = lowering.value(node, place)
    if value.table is not None or (divides and place == 1):
        return unary_table(lowering, node, value, place)
    numbers = lowering.numbers(node, 1 - place)
    if divides:
        if not all(numbers.reshape(-1)):
            refuse(node, "must not divide by 0; change the network")
        numbers = 1 / numbers
    value, factors = lowering.by_channel(node, value, numbers)
    return scaled(lowering, node, value, factors)


def _scaled_constant(lowering: Lowering, node: FileNode) -> Constant:
    """Return quantized numbers with another scale."""
    place = 0 if node.inputs[0] in lowering.quantized else 1
    other = lowering.raw.get(node.inputs[1 - place])
    if other is None or not (other > 0).all() or (node.op_type == "Div" and place == 1):
        refuse(node, "must scale quantized constants with positive numbers alone; quantize their product")
    constant = lowering.quantized[node.inputs[place]]
    factor = np.broadcast_to(other.astype(np.float64), constant.integers.shape)
    return replace(
        constant, scale=constant.scale / factor if node.op_type == "Div" else constant.scale * factor
    )


def scaled(lowering: Lowering, node: FileNode, value: Value, factors: Factors) -> Value:
    """Multiply with one number, or one a channel."""
    if value.clipped and (len(factors) > 1 or factors[0] == 0):
        if all(factor > 0 for factor in factors) and value.low in (0, None) and value.high is None:
            factors_of_bound = Fraction(1)
        else:
            value, factors_of_bound = lowering.bare(node, value), Fraction(1)
    else:
        factors_of_bound = factors[0]
    low, high = (None if end is None else end * factors_of_bound for end in (value.low, value.high))
    if factors_of_bound < 0:
        low, high = high, low
    return replace(
        value,
        scale=combined(value.scale, factors, True),
        offset=combined(value.offset, factors, True),
        low=low,
        high=high,
    )


def negate(lowering: Lowering, node: FileNode) -> Value:
    return scaled(lowering, node, lowering.value(node), (Fraction(-1),))


def batchnorm(lowering: Lowering, node: FileNode) -> Value:
    """Lower a BatchNormalization; its factors are taken in float64."""
    value = lowering.value(node)
    gain, bias, mean, variance = (
        lowering.numbers(node, place).astype(np.float64).reshape(-1) for place in (1, 2, 3, 4)
    )
    root = np.sqrt(variance + float(node.attributes.get("epsilon", 1e-5)))
    if not (root > 0).all():
        refuse(node, "must have a positive variance; export it anew")
    channels = len(value.shape) - 1 if node.domain == CHANNELS_LAST else 0
    shape = [-1 if axis == channels else 1 for axis in range(len(value.shape))]
    factors = fractions_of(gain / root).reshape(shape)
    plus = fractions_of(bias).reshape(shape) - fractions_of(mean).reshape(shape) * factors
    if value.table is not None:
        refuse(node, "must not read a function's result that no quantizer rounds; put a quantizer before it")
    value, times = lowering.by_channel(node, value, factors)
    value = scaled(lowering, node, value, times)
    value, sums = lowering.by_channel(node, value, plus)
    return shifted(lowering, node, value, sums)


def clip(lowering: Lowering, node: FileNode) -> Value:
    """Lower a Relu or Clip to the value's bounds."""
    value = lowering.value(node)
    if value.table is not None:
        return unary_table(lowering, node, value, 0)
    low: Fraction | None = Fraction(0)
    high: Fraction | None = None
    if node.op_type == "Clip":
        low, high = _limits(lowering, node)
    value = replace(value, relu=value.relu or node.name)
    if low is not None:
        value = replace(
            value,
            low=low if value.low is None else max(value.low, low),
            high=None if value.high is None else max(value.high, low),
        )
    if high is not None:
        value = replace(
            value,
            low=None if value.low is None else min(value.low, high),
            high=high if value.high is None else min(value.high, high),
        )
    return value


def _limits(lowering: Lowering, node: FileNode) -> tuple[Fraction | None, Fraction | None]:
    found: list[Fraction | None] = []
    for place, key in ((1, "min"), (2, "max")):
        if key in node.attributes:
            number = np.asarray(node.attributes[key], dtype=np.float64)
        elif place < len(node.inputs) and node.inputs[place]:
            constant = lowering.raw.get(node.inputs[place])
            if constant is None or constant.size != 1:
                refuse(
                    node,
                    f"must have one constant as its {key}, not {node.inputs[place]!r}; change the network",
                )
            number = constant.astype(np.float64).reshape(())
        else:
            found.append(None)
            continue
        beyond = abs(number) >= float(np.finfo(np.float32).max)  # what torch writes for no limit
        found.append(None if beyond else Fraction(float(number)))
    return found[0], found[1]


def leaky(lowering: Lowering, node: FileNode) -> Value:
    """Lower a LeakyRelu or PRelu."""
    value = lowering.value(node)
    if value.table is not None:
        return unary_table(lowering, node, value, 0)
    value = lowering.bare(node, value)
    if node.op_type == "LeakyRelu":
        slopes = np.array([node.attributes.get("alpha", 0.01)], dtype=np.float32)
        factors = tuple(fractions_of(slopes))
    else:
        value, factors = lowering.by_channel(node, value, lowering.numbers(node, 1))
    grid = on_grid(np.array([float(factor) for factor in factors]))
    if grid is None:
        refuse(node, "must have slopes on a power-of-two grid of at most 24 bits; quantize them")
    step = Fraction(float(grid.scale.reshape(-1)[0]))
    fraction = max(0, -exponent(step))
    slope = grid.integers.reshape(-1) << (fraction + exponent(step))
    interval = _sloped(lowering.interval(value), slope, fraction)
    if interval is None:
        refuse(node, f"must give integers of at most {MAX_WIDTH} bits; put a quantizer before it")
    low, high = int(slope.min()), int(slope.max())
    return lowering.emit(
        PRelu, node, [value], value.tensor.shape, interval, combined(value.scale, (two_to(-fraction),), True),
        value.order, source=node.outputs[0], fraction_bits=value.tensor.dtype.fraction_bits + fraction,
        slope=slope, slope_dtype=type_of(low, high, fraction),
    )  # fmt: skip


def _sloped(given: Interval, slope: np.ndarray, fraction: int) -> Interval | None:
    """Return the integers behind a PRelu; None where int64 does not hold them."""
    ends = []
    for side in (given.low, given.high, np.clip(0, given.low, given.high)):
        number = side.astype(object)
        ends.append(np.where(number >= 0, number << fraction, number * slope.astype(object)))
    low, high = np.minimum.reduce(ends), np.maximum.reduce(ends)
    if max(int(high.max()), -int(low.min())).bit_length() >= MAX_WIDTH:
        return None
    return Interval(low.astype(np.int64), high.astype(np.int64))
