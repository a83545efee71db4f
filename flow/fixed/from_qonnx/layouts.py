"""Operators that move numbers: index arithmetic on a value's order, and nearest-neighbour upsampling."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np

from flow.fixed.from_qonnx.constants import Constant
from flow.fixed.from_qonnx.joins import upsampled
from flow.fixed.from_qonnx.lowering import Lowering, refuse
from flow.fixed.from_qonnx.values import Value, channels_first, channels_last, same_order
from flow.onnx_model.constants import FOLDABLE
from flow.qonnx import FileNode

_FLOATS = (1, 11)
"""float32 and float64 (onnx.proto, TensorProto.DataType)."""


def identity(lowering: Lowering, node: FileNode) -> Value | Constant:
    """Lower an Identity, a Dropout, or a Cast between floats: nothing happens."""
    if node.op_type == "Cast" and node.attributes.get("to") not in _FLOATS:
        refuse(
            node, f"must cast to float32 or float64, not to type {node.attributes.get('to')}; leave it out"
        )
    if node.inputs[0] in lowering.quantized:
        return lowering.quantized[node.inputs[0]]
    return lowering.value(node)


def _moved(
    lowering: Lowering, node: FileNode, function: Callable[[np.ndarray], np.ndarray]
) -> Value | Constant:
    """Apply a function of arrays to a quantized constant, or to a value's order with a batch of one."""
    if node.inputs[0] in lowering.quantized:
        return lowering.quantized[node.inputs[0]].changed(function)
    value = lowering.value(node)
    batch = np.broadcast_to(value.order, (1, *value.shape)) if value.order.ndim else value.order[None]
    try:
        order = function(batch)
    except ValueError as error:
        refuse(node, f"must fit its input of {list(value.shape)} without the batch ({error}); export it anew")
    if order.ndim < 2 or order.shape[0] != 1:
        refuse(node, f"must leave the batch in front, not give {list(order.shape)}; change the network")
    return value.laid(order[0], node.name)


def transpose(lowering: Lowering, node: FileNode) -> Value | Constant:
    if node.inputs[0] in lowering.values:
        perm = node.attributes.get("perm") or range(lowering.value(node).order.ndim + 1)[::-1]
        if perm[0] != 0:
            refuse(node, f"must leave the batch in front, not permute by {list(perm)}; change the network")
    return _moved(lowering, node, lambda x: np.transpose(x, node.attributes.get("perm")))


def folded(lowering: Lowering, node: FileNode) -> Value | Constant:
    """Lower a Reshape, Squeeze or Unsqueeze, whose shape or axes are constant."""
    given = []
    for name in node.inputs[1:]:
        if name not in lowering.raw:
            refuse(
                node, f"must have a constant as its shape or axes, not {name!r}; export it with fixed shapes"
            )
        given.append(lowering.raw[name])
    if node.op_type == "Reshape" and node.inputs[0] in lowering.values and given:
        batch = lowering.batch
        if batch != 1 and len(given[0]) and int(given[0][0]) == batch:
            given[0] = np.concatenate([[1], given[0][1:]])
    operator = FOLDABLE[node.op_type]
    return _moved(lowering, node, lambda x: operator(node.attributes, lowering.opset, x, *given))


def flatten(lowering: Lowering, node: FileNode) -> Value | Constant:
    value = lowering.value(node)
    axis = int(node.attributes.get("axis", 1)) % (len(value.shape) + 1)
    if axis != 1:
        refuse(node, f"must flatten all but the batch (axis 1), not from axis {axis}; change the network")
    return value.laid(value.order.reshape(-1), node.name)


def upsample(lowering: Lowering, node: FileNode) -> Value:
    """Lower a Resize or Upsample that repeats every position."""
    value = lowering.bare(node, lowering.value(node))
    factors = _factors(lowering, node, value.shape)
    mode = node.attributes.get("mode", "nearest")
    if mode != "nearest":
        refuse(node, f"must take the nearest neighbour, not {mode!r}; change the network")
    shape = value.tensor.shape
    for made in (channels_first, channels_last):
        wanted = factors[1:] if made is channels_first else factors[:-1]
        still = factors[0] if made is channels_first else factors[-1]
        if same_order(value.order, made(shape)) and still == 1:
            for size, factor in zip(shape, wanted, strict=False):
                _check_nearest(lowering, node, size, factor)
            out = (*(n * f for n, f in zip(shape, wanted, strict=False)), shape[-1])
            return upsampled(lowering, node, value, tuple(wanted), made(out))
    refuse(node, f"must repeat positions and no channels, not by the factors {factors}; change the network")


def _factors(lowering: Lowering, node: FileNode, shape: tuple[int, ...]) -> list[int]:
    """Return whole factors, one a dimension, without the batch."""
    given = [lowering.raw.get(name) for name in node.inputs]
    scales = given[-1] if len(given) in (2, 3) else None if len(given) < 3 else given[2]
    if "scales" in node.attributes:
        scales = np.asarray(node.attributes["scales"])
    if len(given) > 3 and given[3] is not None:
        factors = [Fraction(int(n), old) for n, old in zip(given[3][1:], shape, strict=False)]
    elif scales is not None and scales.size == len(shape) + 1:
        factors = [Fraction(float(number)) for number in scales[1:]]
    else:
        refuse(node, "must have constant scales or sizes, one a dimension; export it with fixed shapes")
    if any(factor.denominator != 1 or factor < 1 for factor in factors):
        refuse(
            node, f"must have whole factors, not {[float(factor) for factor in factors]}; change the network"
        )
    return [int(factor) for factor in factors]


def _check_nearest(lowering: Lowering, node: FileNode, size: int, factor: int) -> None:
    """Refuse coordinates that do more than repeat every position."""
    options = node.attributes
    if node.op_type == "Upsample" or lowering.opset < 11:  # these repeat, and say nothing
        return
    how = options.get("coordinate_transformation_mode", "half_pixel")
    rounds = options.get("nearest_mode", "round_prefer_floor")
    half = Fraction(1, 2)
    for place in range(size * factor):
        if how == "asymmetric":
            at = Fraction(place, factor)
        elif how in ("half_pixel", "pytorch_half_pixel", "half_pixel_symmetric"):
            at = Fraction(2 * place + 1, 2 * factor) - half
        elif how == "align_corners" and size * factor > 1:
            at = Fraction(place * (size - 1), size * factor - 1)
        else:
            at = Fraction(0)
        found = {
            "floor": math.floor(at),
            "ceil": math.ceil(at),
            "round_prefer_floor": math.ceil(at - half),
            "round_prefer_ceil": math.floor(at + half),
        }[rounds]
        if min(max(found, 0), size - 1) != place // factor:
            refuse(
                node,
                f"must repeat every position, not take others ({how}, {rounds}); export it as asymmetric and floor",
            )
