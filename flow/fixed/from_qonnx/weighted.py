"""Conv, Gemm and MatMul: sums of products with constant weights."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np

from flow.fixed.from_qonnx.constants import Constant
from flow.fixed.from_qonnx.lowering import Lowering, refuse
from flow.fixed.from_qonnx.values import (
    Factors,
    Interval,
    Value,
    channels_first,
    channels_last,
    combined,
    flat_order,
    label_of,
    type_of,
    width_of,
)
from flow.fixed.graph import Conv, Dense, Node
from flow.qonnx import CHANNELS_LAST, FileNode
from flow.types import FixedPoint


def conv(lowering: Lowering, node: FileNode) -> Value:
    """Lower a Conv, channels first or last."""
    value = lowering.value(node)
    dimensions = len(value.shape) - 1
    if dimensions not in (1, 2):
        refuse(node, f"must have one or two spatial dimensions, not {dimensions}; change the network")
    last = node.domain == CHANNELS_LAST
    weight = lowering.constant(node, 1)
    if weight.integers.ndim != dimensions + 2:
        refuse(
            node,
            f"must have weights of {dimensions + 2} dimensions, not {weight.integers.ndim}; export it anew",
        )
    if not last:
        weight = weight.changed(lambda w: np.moveaxis(w, 1, -1))
    shape = value.shape if last else (*value.shape[1:], value.shape[0])
    order = channels_last(shape) if last else channels_first(shape)
    value = lowering.laid_out(node, value, order, shape, "images of channels and positions")
    outputs, *kernel, each = weight.integers.shape
    groups = int(node.attributes.get("group", 1))
    if each * groups != shape[-1] or outputs % groups:
        refuse(
            node,
            f"must have weights for {shape[-1]} channels in {groups} groups, not for {each} in each; export it anew",
        )
    said = list(node.attributes.get("kernel_shape", kernel))
    if said != kernel:
        refuse(node, f"must have a kernel of the shape of its weights, {kernel}, not {said}; export it anew")
    strides, dilations, pads = windows(node, shape[:-1], tuple(kernel))
    extent = tuple(
        (size + sum(pad) - (k - 1) * dilation - 1) // stride + 1
        for size, k, stride, dilation, pad in zip(shape, kernel, strides, dilations, pads, strict=False)
    )
    if min(extent) < 1:
        refuse(
            node, f"must have a kernel within its input of {list(shape[:-1])}, not {kernel}; export it anew"
        )
    out = (*extent, outputs)
    options: dict[str, Any] = {"strides": strides, "pads": pads, "dilations": dilations, "groups": groups}
    made_order = channels_last(out) if last else channels_first(out)
    return _weighted(lowering, node, Conv, value, weight, out, made_order, options)


def windows(
    node: FileNode, space: tuple[int, ...], kernel: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[tuple[int, int], ...]]:
    """Return strides, dilations and (before, after) pads, one a dimension; automatic padding becomes numbers."""
    count = len(kernel)
    options = node.attributes
    strides = tuple(int(s) for s in options.get("strides", [1] * count))
    dilations = tuple(int(d) for d in options.get("dilations", [1] * count))
    flat = [int(p) for p in options.get("pads", [0] * (2 * count))]
    mode = options.get("auto_pad", "NOTSET")
    if len(strides) != count or len(dilations) != count or len(flat) != 2 * count:
        refuse(node, f"must have strides, dilations and pads of {count} dimensions; export it anew")
    if min(*strides, *dilations) < 1 or min(flat) < 0:
        refuse(
            node,
            f"must have positive strides and dilations and no negative pads, not {strides}, {dilations} and {flat}; "
            "export it anew",
        )
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        pads = []
        for size, k, stride, dilation in zip(space, kernel, strides, dilations, strict=True):
            total = max(0, (-(-size // stride) - 1) * stride + (k - 1) * dilation + 1 - size)
            small, large = total // 2, total - total // 2
            pads.append((small, large) if mode == "SAME_UPPER" else (large, small))
        return strides, dilations, tuple(pads)
    if mode == "VALID":
        flat = [0] * (2 * count)
    elif mode != "NOTSET":
        refuse(
            node, f"must have auto_pad NOTSET, SAME_UPPER, SAME_LOWER or VALID, not {mode!r}; export it anew"
        )
    return strides, dilations, tuple(zip(flat[:count], flat[count:], strict=True))


def gemm(lowering: Lowering, node: FileNode) -> Value:
    """Lower a Gemm: alpha * x W + beta * b."""
    options = node.attributes
    if options.get("transA", 0):
        refuse(node, "must not transpose its input (transA 0); export it anew")
    weight = lowering.constant(node, 1)
    if weight.integers.ndim != 2:
        refuse(node, f"must have weights of 2 dimensions, not {weight.integers.ndim}; export it anew")
    if not options.get("transB", 0):
        weight = weight.changed(np.transpose)
    value = lowering.value(node)
    if len(value.shape) != 1:
        refuse(node, f"must read vectors, not {len(value.shape)} dimensions; put a Flatten before it")
    return _dense(lowering, node, value, weight, Fraction(float(options.get("alpha", 1.0))))


def matmul(lowering: Lowering, node: FileNode) -> Value:
    """Lower a MatMul with constant weights on the right: a dense layer, or one at each position."""
    if lowering.is_constant(node.inputs[0]):
        refuse(node, "must have its weights on the right, x * W, not W * x; change the network")
    if not lowering.is_constant(node.inputs[1]):
        refuse(node, "must have constant weights, not the product of two activations; change the network")
    weight = lowering.constant(node, 1)
    if weight.integers.ndim != 2:
        refuse(node, f"must have weights of 2 dimensions, not {weight.integers.ndim}; export it anew")
    weight = weight.changed(np.transpose)
    value = lowering.value(node)
    if len(value.shape) == 1:
        return _dense(lowering, node, value, weight, Fraction(1))
    if len(value.shape) > 3:
        refuse(node, f"must read vectors or up to two spatial dimensions, not {len(value.shape)} dimensions; "
                     "change the network")  # fmt: skip
    shape = value.shape
    value = lowering.laid_out(node, value, channels_last(shape), shape, "channels in its last dimension")
    if weight.integers.shape[1] != shape[-1]:
        refuse(
            node,
            f"must have weights for {shape[-1]} channels, not {weight.integers.shape[1]}; export it anew",
        )
    space = len(shape) - 1
    weight = weight.changed(lambda w: w.reshape(len(w), *[1] * space, -1))
    out = (*shape[:-1], len(weight.integers))
    ones = (1,) * space
    options: dict[str, Any] = {"strides": ones, "pads": ((0, 0),) * space, "dilations": ones, "groups": 1}
    return _weighted(lowering, node, Conv, value, weight, out, channels_last(out), options)


def _dense(lowering: Lowering, node: FileNode, value: Value, weight: Constant, alpha: Fraction) -> Value:
    size = math.prod(value.shape)
    if weight.integers.shape[1] != size:
        refuse(node, f"must have weights for {size} inputs, not {weight.integers.shape[1]}; export it anew")
    value = lowering.vector(node, lowering.bare(node, value))
    place = np.argsort(value.order.reshape(-1))
    weight = weight.changed(lambda w: w[:, place])
    out = (len(weight.integers),)
    return _weighted(lowering, node, Dense, value, weight, out, channels_last(out), {}, alpha)


def _weighted(
    lowering: Lowering,
    node: FileNode,
    kind: type[Node],
    value: Value,
    weight: Constant,
    shape: tuple[int, ...],
    order: np.ndarray,
    options: dict[str, Any],
    alpha: Fraction = Fraction(1),
) -> Value:
    """Add the node, with the bias that the file's node has."""
    try:
        integers, factors = weight.rows()
    except ValueError:
        refuse(node, "must have weights of one scale, or of one an output, not other ones; quantize it so")
    if alpha <= 0:
        refuse(node, f"must have a positive alpha, not {float(alpha)}; export it anew")
    value = lowering.one_scale(node, value)
    scale = combined(value.scale, combined(factors, (alpha,), True), True)
    interval = _interval(lowering.interval(value), integers, options)
    fraction_bits = label_of(scale)[0]
    weight_dtype = _weight_type(weight, integers, fraction_bits - value.tensor.dtype.fraction_bits)
    biased = node.op_type != "MatMul" and len(node.inputs) > 2 and node.inputs[2] != ""
    made = lowering.emit(
        kind, node, [value], shape, interval, scale, order, source=None if biased else node.outputs[0],
        fraction_bits=fraction_bits, weight=np.ascontiguousarray(integers), weight_dtype=weight_dtype, **options,
    )  # fmt: skip
    if not biased:
        return made
    beta = Fraction(float(node.attributes.get("beta", 1.0))) if node.op_type == "Gemm" else Fraction(1)
    numbers = lowering.numbers(node, 2) * beta
    if numbers.size not in (1, shape[-1]):
        refuse(node, f"must have one bias an output, {shape[-1]}, not {numbers.size}; export it anew")
    return with_bias(lowering, made, tuple(numbers.reshape(-1)), node.outputs[0])


def _weight_type(weight: Constant, integers: np.ndarray, fraction_bits: int) -> FixedPoint:
    """Return the type that the quantizer gave the weights, or the smallest that holds them."""
    low, high = int(integers.min(initial=0)), int(integers.max(initial=0))
    signed = weight.signed or low < 0
    width = max(weight.width, width_of(min(low, -1) if signed else low, high))
    return FixedPoint(signed, width - fraction_bits, fraction_bits)


def _interval(given: Interval, weight: np.ndarray, options: dict[str, Any]) -> Interval:
    """Return the least and the largest sum of every output."""
    if any(pad for pads in options.get("pads", ()) for pad in pads):
        given = given.with_zero()
    groups = options.get("groups", 1)
    outputs, each = len(weight), weight.shape[-1]
    rows = weight.reshape(outputs, -1, each)
    positive, negative = np.maximum(rows, 0).sum(1), np.minimum(rows, 0).sum(1)
    reach = max(abs(given.least), abs(given.largest))
    if int((positive - negative).sum(1).max()) * reach >= 1 << 62:
        positive, negative = positive.astype(object), negative.astype(object)
    group = np.repeat(np.arange(groups), outputs // groups)
    low, high = given.low.reshape(groups, each)[group], given.high.reshape(groups, each)[group]
    return Interval((positive * low + negative * high).sum(1), (positive * high + negative * low).sum(1))


def with_bias(lowering: Lowering, value: Value, bias: Factors, source: str) -> Value:
    """Add numbers to the result of a Conv or Dense node: as its bias where they lie on its grid, else as an offset.

    Args:
        lowering: the graph that is being made; its node gets the bias in place.
        value: the node's output, as the node made it.
        bias: real numbers, one or one a channel.
        source: the tensor of the file that holds the sum.
    """
    node = lowering.nodes[value.tensor.name]
    assert isinstance(node, Dense | Conv)
    channels = value.tensor.shape[-1]
    every = bias * (channels // len(bias))
    steps = [
        number / factor
        for number, factor in zip(every, value.scale * (channels // len(value.scale)), strict=True)
    ]
    if any(step.denominator != 1 for step in steps) or node.bias is not None:
        return replace(value, offset=combined(value.offset, bias, False))
    named = replace(value.tensor, source=source, order=flat_order(value.order))
    if not any(steps):
        made = replace(node, output=named)
        lowering.nodes[made.name] = made
        return replace(value, tensor=made.output)
    whole = np.array([int(step) for step in steps], dtype=object)
    given = lowering.interval(value)
    low, high = given.low.astype(object) + whole, given.high.astype(object) + whole
    fraction_bits = value.tensor.dtype.fraction_bits
    dtype = type_of(int(low.min()), int(high.max()), fraction_bits)
    spare = min(_trailing(int(step)) for step in steps if step)
    lsb = np.array([int(step) >> spare for step in steps])
    tensor = replace(named, dtype=dtype)
    made = replace(
        node,
        output=tensor,
        bias=lsb,
        bias_dtype=type_of(int(lsb.min()), int(lsb.max()), fraction_bits - spare),
    )
    lowering.nodes[made.name] = made
    lowering.intervals[made.name] = Interval(low.astype(np.int64), high.astype(np.int64))
    return replace(value, tensor=tensor)


def _trailing(number: int) -> int:
    return (number & -number).bit_length() - 1
