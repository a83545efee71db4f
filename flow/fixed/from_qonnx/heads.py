"""What stands at the end of a network: Softmax, and the index of the largest number."""

from __future__ import annotations

import numpy as np

from flow.fixed.from_qonnx.lowering import Lowering, refuse
from flow.fixed.from_qonnx.values import Interval, Value, channels_last, same_order, two_to
from flow.fixed.graph import ArgMax, Softmax
from flow.qonnx import FileNode
from flow.types import FixedPoint

OUTPUT_BITS = 16
EXPONENTIAL_BITS = 24
MAX_BITS = 20
"""Of what a Softmax reads: its table has a number for each difference."""


def softmax(lowering: Lowering, node: FileNode) -> Value:
    """Lower a Softmax over a vector; its output has 16 fraction bits and no integer bits."""
    value = _vector(lowering, node)
    interval = lowering.interval(value)
    largest = interval.largest - interval.least
    if largest.bit_length() > MAX_BITS:
        refuse(
            node,
            f"must read integers of at most {MAX_BITS} bits, not {largest.bit_length()}; put a quantizer before it",
        )
    differences = np.arange(largest + 1) * float(value.scale[0])
    exponential = np.rint(np.ldexp(np.exp(-differences), EXPONENTIAL_BITS)).astype(np.int64)
    dtype = FixedPoint(False, 0, OUTPUT_BITS)
    channels = value.tensor.shape[0]
    reached = Interval(np.zeros(channels, np.int64), np.full(channels, dtype.maximum_lsb))
    return lowering.emit(
        Softmax, node, [value], value.tensor.shape, reached, (two_to(-OUTPUT_BITS),), value.order,
        source=node.outputs[0], width=(False, OUTPUT_BITS), exponential=exponential,
    )  # fmt: skip


def argmax(lowering: Lowering, node: FileNode) -> Value:
    """Lower an ArgMax, or the indices of a TopK of one."""
    options = node.attributes
    if node.op_type == "TopK":
        count = lowering.numbers(node, 1) if len(node.inputs) > 1 else np.array([options.get("k", 0)])
        if count.size != 1 or int(count.reshape(-1)[0]) != 1 or not options.get("largest", 1):
            refuse(node, "must take the one largest number; change the network")
        if lowering.readers[node.outputs[0]]:
            refuse(node, "must give its index alone, not the number too; change the network")
    elif options.get("select_last_index", 0):
        refuse(node, "must take the first of equal numbers (select_last_index 0); change the network")
    value = _vector(lowering, node)
    if not same_order(value.order, channels_last(value.shape)):
        refuse(
            node, "must read a vector in the order of its layer, not a flattened image; change the network"
        )
    last = value.tensor.shape[0] - 1
    reached = Interval(np.zeros(1, np.int64), np.full(1, last))
    return lowering.emit(
        ArgMax, node, [value], (1,), reached, (two_to(0),), channels_last((1,)), source=node.outputs[-1]
    )


def _vector(lowering: Lowering, node: FileNode) -> Value:
    value = lowering.value(node)
    default = -1 if lowering.opset >= 13 or node.op_type == "TopK" else 1
    axis = int(node.attributes.get("axis", 0 if node.op_type == "ArgMax" else default))
    rank = len(value.shape) + 1
    if rank != 2 or axis % rank != 1:
        refuse(
            node,
            f"must read vectors along axis 1, not {rank - 1} dimensions along axis {axis}; put a Flatten before it",
        )
    return lowering.vector(node, lowering.one_scale(node, value))
