"""Pools: the largest number of a window, or the sum with a smaller scale."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np

from flow.fixed.from_qonnx.lowering import Lowering, refuse
from flow.fixed.from_qonnx.values import Interval, Value, channels_first, channels_last, combined, same_order
from flow.fixed.from_qonnx.weighted import windows
from flow.fixed.graph import Pool
from flow.qonnx import CHANNELS_LAST, FileNode

Pads = tuple[tuple[int, int], ...]


def pool(lowering: Lowering, node: FileNode) -> Value:
    """Lower a MaxPool or AveragePool."""
    value = lowering.value(node)
    dimensions = len(value.shape) - 1
    last = node.domain == CHANNELS_LAST
    kernel = tuple(int(k) for k in node.attributes.get("kernel_shape", ()))
    if dimensions not in (1, 2) or len(kernel) != dimensions:
        refuse(
            node,
            f"must have a kernel of one or two spatial dimensions, not {list(kernel)}; change the network",
        )
    if len([name for name in node.outputs if name]) > 1:
        refuse(node, "must give values alone, not indices; change the network")
    shape = value.shape if last else (*value.shape[1:], value.shape[0])
    strides, dilations, pads = windows(node, shape[:-1], kernel)
    if set(dilations) != {1}:
        refuse(node, f"must have dilations of 1, not {list(dilations)}; change the network")
    pads = _ceiling(node, shape, kernel, strides, pads)
    padded = any(pad for both in pads for pad in both)
    if any(pad >= k for both, k in zip(pads, kernel, strict=True) for pad in both):
        refuse(node, f"must have pads smaller than its kernel {list(kernel)}; change the network")
    if node.op_type == "AveragePool" and padded and not node.attributes.get("count_include_pad", 0):
        refuse(node, "must count its padding (count_include_pad 1), or have none; change the network")
    kind = "max" if node.op_type == "MaxPool" else "sum"
    return _pooled(lowering, node, value, last, shape, kind, kernel, strides, pads)


def _ceiling(
    node: FileNode, shape: tuple[int, ...], kernel: tuple[int, ...], strides: tuple[int, ...], pads: Pads
) -> Pads:
    """Return pads that give the windows that ceil_mode adds."""
    if not node.attributes.get("ceil_mode", 0):
        return pads
    made = []
    for size, k, stride, (before, after) in zip(shape, kernel, strides, pads, strict=False):
        count = -(-(size + before + after - k) // stride) + 1
        if (count - 1) * stride >= size + before:
            count -= 1
        made.append((before, max(after, (count - 1) * stride + k - size - before)))
    if node.op_type == "AveragePool" and tuple(made) != pads:
        refuse(
            node,
            "must round its size down (ceil_mode 0): windows at the end would count fewer; change the network",
        )
    return tuple(made)


def global_pool(lowering: Lowering, node: FileNode) -> Value:
    """Lower a GlobalAveragePool, a GlobalMaxPool, or a ReduceMean or ReduceMax over all positions."""
    value = lowering.value(node)
    rank = len(value.shape)
    if rank not in (2, 3):
        refuse(node, f"must read images, not {rank} dimensions without the batch; change the network")
    keep, axes = True, list(range(1, rank))
    if node.op_type.startswith("Reduce"):
        keep, axes = bool(node.attributes.get("keepdims", 1)), _axes(lowering, node, rank)
    last = axes == list(range(rank - 1)) and same_order(value.order, channels_last(value.shape))
    if not last and axes != list(range(1, rank)):
        refuse(
            node,
            f"must reduce all positions and no channels, not the axes {[a + 1 for a in axes]}; change the network",
        )
    shape = value.shape if last else (*value.shape[1:], value.shape[0])
    kind = "max" if "Max" in node.op_type else "sum"
    space = shape[:-1]
    pads: Pads = ((0, 0),) * len(space)
    made = _pooled(lowering, node, value, last, shape, kind, space, space, pads)
    return made if keep else made.laid(made.order.reshape(-1), node.name)


def _axes(lowering: Lowering, node: FileNode, rank: int) -> list[int]:
    """Return the axes that a Reduce operator names, without the batch."""
    if len(node.inputs) > 1 and node.inputs[1]:
        given = [int(number) for number in lowering.numbers(node, 1).reshape(-1)]
    else:
        given = [int(axis) for axis in node.attributes.get("axes", range(rank + 1))]
    return sorted(axis % (rank + 1) - 1 for axis in given)


def _pooled(
    lowering: Lowering,
    node: FileNode,
    value: Value,
    last: bool,
    shape: tuple[int, ...],
    kind: str,
    kernel: tuple[int, ...],
    strides: tuple[int, ...],
    pads: Pads,
) -> Value:
    order = channels_last(shape) if last else channels_first(shape)
    value = lowering.laid_out(node, value, order, shape, "images of channels and positions")
    extent = tuple(
        (size + sum(pad) - k) // stride + 1
        for size, k, stride, pad in zip(shape, kernel, strides, pads, strict=False)
    )
    if min(extent) < 1:
        refuse(
            node,
            f"must have a kernel within its input of {list(shape[:-1])}, not {list(kernel)}; export it anew",
        )
    out = (*extent, shape[-1])
    given = lowering.interval(value)
    scale, bits = value.scale, value.tensor.dtype.fraction_bits
    fraction_bits: int | None = bits
    if kind == "sum":
        count = math.prod(kernel)
        if any(pad for both in pads for pad in both):
            given = given.with_zero()
        given = Interval(given.low.astype(object) * count, given.high.astype(object) * count)
        scale, fraction_bits = combined(scale, (Fraction(1, count),), True), None
    made_order = channels_last(out) if last else channels_first(out)
    return lowering.emit(
        Pool, node, [value], out, given, scale, made_order, source=node.outputs[0], fraction_bits=fraction_bits,
        kind=kind, kernel=kernel, strides=strides, pads=pads,
    )  # fmt: skip


__all__ = ["global_pool", "np", "pool"]
