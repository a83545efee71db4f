"""Quant, BipolarQuant and Trunc: of constants integers with a scale, of tensors a Rescale or a Sign."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np

from flow.fixed.from_qonnx.constants import Constant, fractions_of
from flow.fixed.from_qonnx.lowering import Lowering, refuse
from flow.fixed.from_qonnx.rescale import Multiplier, find, rounded
from flow.fixed.from_qonnx.values import Factors, Interval, Value, combined, merged
from flow.fixed.graph import Add, Sign, Table
from flow.qonnx import FileNode

MAX_BITS = 32
ROUNDINGS = {
    "ROUND": "ROUND",
    "HALF_EVEN": "ROUND",
    "FLOOR": "FLOOR",
    "CEIL": "CEIL",
    "DOWN": "ROUND_TO_ZERO",
    "ROUND_TO_ZERO": "ROUND_TO_ZERO",
    "HALF_UP": "HALF_UP",
    "HALF_DOWN": "HALF_DOWN",
}
"""QONNX's names and the graph's; UP, away from zero, is none of the graph's."""


@dataclass(frozen=True)
class Quantizer:
    """What a Quant node says: integers of ``width`` bits from ``minimum`` to ``maximum``, in steps of ``scale``.

    ``scale``: float32, as the file shapes it. ``sign``: it gives +1 and -1.
    """

    scale: np.ndarray
    width: int
    signed: bool
    minimum: int
    maximum: int
    rounding: str
    sign: bool = False

    def integers(self, values: np.ndarray) -> np.ndarray:
        """Return what floats become, in float32 as QONNX does."""
        quotient = values.astype(np.float32) / self.scale
        if self.sign:
            return np.where(quotient >= 0, 1, -1)
        function: Any = {
            "ROUND": np.rint,
            "FLOOR": np.floor,
            "CEIL": np.ceil,
            "ROUND_TO_ZERO": np.trunc,
            "HALF_UP": lambda x: np.sign(x) * np.floor(np.abs(x) + 0.5),
            "HALF_DOWN": lambda x: np.sign(x) * np.ceil(np.abs(x) - 0.5),
        }[self.rounding]
        return function(np.clip(quotient, self.minimum, self.maximum)).astype(np.int64)  # type: ignore[no-any-return]


def read(lowering: Lowering, node: FileNode) -> Quantizer:
    """Return what a Quant, IntQuant or BipolarQuant node says.

    Raises:
        UnsupportedError: scale, zero point or bits are not constant or break a rule.
    """
    scale = _parameter(lowering, node, 1, "scale")
    if not (np.isfinite(scale) & (scale > 0)).all():
        refuse(node, f"must have positive scales, not {scale.reshape(-1)[:4].tolist()}; quantize it anew")
    if node.op_type == "BipolarQuant":
        return Quantizer(scale, 2, True, -1, 1, "ROUND", sign=True)
    zero = _parameter(lowering, node, 2, "zero point")
    if zero.any():
        refuse(
            node, f"must have a zero point of 0, not {zero.reshape(-1)[:4].tolist()}; quantize symmetrically"
        )
    width = whole_bits(node, _parameter(lowering, node, 3, "number of bits"))
    signed, narrow = (_flag(node, key) for key in ("signed", "narrow"))
    rounding = rounding_of(node, "ROUND")
    if width == 1 and signed:
        return Quantizer(scale, 2, True, -1, 1, rounding, sign=True)
    return _ranged(scale, width, bool(signed), bool(narrow), rounding)


def _ranged(scale: np.ndarray, width: int, signed: bool, narrow: bool, rounding: str) -> Quantizer:
    """Return a quantizer with the limits that its width gives it; narrow takes the least or the largest away."""
    high = (1 << (width - signed)) - 1
    low = -high - 1 if signed else 0
    if narrow:
        low, high = (low + 1, high) if signed else (low, high - 1)
    return Quantizer(scale, width, signed, low, high, rounding)


def _parameter(lowering: Lowering, node: FileNode, place: int, what: str) -> np.ndarray:
    name = node.inputs[place] if place < len(node.inputs) else ""
    if name not in lowering.raw:
        refuse(node, f"must have a constant as its {what}, not {name!r}; export it anew")
    return lowering.raw[name].astype(np.float32)


def whole_bits(node: FileNode, bits: np.ndarray) -> int:
    """Return a width, checked."""
    if bits.size != 1 or bits.item() != int(bits.item()) or not 1 <= bits.item() <= MAX_BITS:
        refuse(
            node,
            f"must have one whole number of bits from 1 to {MAX_BITS}, not {bits.reshape(-1)[:4].tolist()}; "
            "quantize it anew",
        )
    return int(bits.item())


def _flag(node: FileNode, key: str, usual: int | None = None) -> int:
    found = node.attributes.get(key, usual)
    if found not in (0, 1):
        refuse(node, f"must say {key} as 0 or 1, not {found!r}; export it anew")
    return int(found)


def rounding_of(node: FileNode, usual: str) -> str:
    """Return a node's rounding as the graph calls it."""
    said = str(node.attributes.get("rounding_mode", usual)).upper()
    if said not in ROUNDINGS:
        refuse(node, f"must round by one of {', '.join(ROUNDINGS)}, not by {said!r}; quantize it so")
    return ROUNDINGS[said]


def quant(lowering: Lowering, node: FileNode) -> Value | Constant:
    """Lower a Quant, IntQuant or BipolarQuant."""
    quantizer = read(lowering, node)
    if node.inputs[0] in lowering.raw:
        return _quantized(node, quantizer, lowering.raw[node.inputs[0]])
    if node.inputs[0] in lowering.quantized:
        values = lowering.quantized[node.inputs[0]]
        return _quantized(node, quantizer, values.integers * values.scale)
    value = lowering.value(node)
    value, scale = lowering.by_channel(node, value, fractions_of(quantizer.scale))
    return quantize(lowering, node, value, quantizer, scale)


def _quantized(node: FileNode, quantizer: Quantizer, values: np.ndarray) -> Constant:
    try:
        scale = np.broadcast_to(quantizer.scale, values.shape)
    except ValueError:
        refuse(
            node,
            f"must have a scale that fits {list(values.shape)}, not {list(quantizer.scale.shape)}; export it anew",
        )
    integers = quantizer.integers(values).astype(np.int64)
    return Constant(integers, scale.astype(np.float64), quantizer.width, quantizer.signed)


def quantize(lowering: Lowering, node: FileNode, value: Value, quantizer: Quantizer, scale: Factors) -> Value:
    """Round a value onto a quantizer's grid."""
    if value.table is not None:
        if len(scale) > 1:
            refuse(
                node, "must have one scale behind a function, not one a channel; quantize it with one scale"
            )
        return _table(lowering, node, value, quantizer, scale)
    inverse = tuple(1 / factor for factor in scale)
    if quantizer.sign:
        return _sign(lowering, node, value, scale)
    ratio, offset = combined(value.scale, inverse, True), combined(value.offset, inverse, True)
    count = max(len(ratio), len(offset))
    ratio, offset = ratio * (count // len(ratio)), offset * (count // len(offset))
    bounds = [_bound(node, bound, inverse, quantizer) for bound in (value.low, value.high)]
    limits = (
        quantizer.minimum if bounds[0] is None else bounds[0],
        quantizer.maximum if bounds[1] is None else bounds[1],
    )
    interval = lowering.interval(value)
    least, largest = interval.least, interval.largest
    inside = limits[0] <= least and largest <= limits[1]
    if inside and not value.clipped and ratio == (Fraction(1),) and not any(offset):
        return lowering.bare(node, value)
    found = find(ratio, offset, (least, largest), limits, quantizer.rounding)
    if found is None:
        return _in_two(lowering, node, value, (ratio, offset), limits, quantizer, scale)
    return lowering.rescale(
        node, value, found, scale, limits=limits, rounding=quantizer.rounding, name=value.relu or node.name,
        source=node.outputs[0], width=(quantizer.signed, quantizer.width),
    )  # fmt: skip


def _in_two(
    lowering: Lowering,
    node: FileNode,
    value: Value,
    line: tuple[Factors, Factors],
    limits: tuple[int, int],
    quantizer: Quantizer,
    scale: Factors,
) -> Value:
    """Round half to even where a multiplier cannot meet ties, as behind an average of 9.

    Half up and half down differ at ties alone, by one: their mean, rounded half to even, is right everywhere.
    """
    ratio, offset = line
    interval = lowering.interval(value)
    half = Fraction(1, 2)
    found = [
        find(
            ratio,
            tuple(number + side for number in offset),
            (interval.least, interval.largest),
            limits,
            rounding,
        )
        for side, rounding in ((half, "FLOOR"), (-half, "CEIL"))
    ]
    if quantizer.rounding != "ROUND" or found[0] is None or found[1] is None:
        refuse(
            node,
            f"must read integers that a multiplier of 64 bits rescales exactly, not {interval.largest.bit_length()} "
            "bits at this scale; quantize with powers of two, or put a quantizer before it",
        )
    name, width = value.relu or node.name, (quantizer.signed, quantizer.width)
    sides = [
        lowering.rescale(
            node, value, each, scale, limits=limits, rounding=rounding, name=f"{name}_{side}", width=width
        )
        for each, rounding, side in zip(found, ("FLOOR", "CEIL"), ("up", "down"), strict=True)
        if each is not None
    ]
    ends = [lowering.interval(side) for side in sides]
    both = Interval(ends[0].low + ends[1].low, ends[0].high + ends[1].high)
    total = lowering.emit(Add, node, sides, value.tensor.shape, both, scale, value.order, name=f"{name}_sum")
    mean = Multiplier(np.array([1]), np.array([0]), 1)
    return lowering.rescale(
        node, total, mean, scale, limits=limits, name=name, source=node.outputs[0], width=width
    )


def trunc(lowering: Lowering, node: FileNode) -> Value:
    """Lower a Trunc: the integers in steps of its scale, divided by a power of two and rounded.

    Version 1 keeps the scale and does not clip; version 2 has an output scale and clips.
    """
    value = lowering.value(node)
    scale, zero, before = (_parameter(lowering, node, place, what) for place, what in
                           ((1, "scale"), (2, "zero point"), (3, "number of bits")))  # fmt: skip
    if zero.any():
        refuse(
            node, f"must have a zero point of 0, not {zero.reshape(-1)[:4].tolist()}; quantize symmetrically"
        )
    value, factors = lowering.by_channel(node, value, fractions_of(scale))
    second = len(node.inputs) == 6
    bits = whole_bits(node, _parameter(lowering, node, 5 if second else 4, "number of output bits"))
    rounding = rounding_of(node, "FLOOR")
    steps = combined(value.scale, tuple(1 / factor for factor in factors), True)
    whole = [*steps, *combined(value.offset, tuple(1 / factor for factor in factors), True)]
    if any(step.denominator != 1 for step in whole) or value.table is not None:
        refuse(
            node,
            "must read whole multiples of its scale, not numbers between; quantize its input with that scale",
        )
    if second:
        out = fractions_of(_parameter(lowering, node, 4, "output scale").reshape(-1))
        signed, narrow = _flag(node, "signed", 1), _flag(node, "narrow", 0)
        power = {round(math.log2(float(o / f))) for o, f in zip(out, factors * len(out), strict=False)}
        quantizer = _ranged(scale, bits, bool(signed), bool(narrow), rounding)
        result: Factors = merged(tuple(out))
    else:
        power = {whole_bits(node, before) - bits}
        quantizer, result = _ranged(scale, MAX_BITS, True, False, rounding), factors
    if len(power) > 1 or len(result) > 1 or min(power) < 0:
        refuse(node, "must drop one number of bits, not more or fewer a channel; quantize with one scale")
    if len(factors) > 1:
        refuse(node, "must have one scale, not one a channel; quantize its input with one scale")
    share = (result[0] / factors[0] / (1 << min(power)),)
    divided = replace(
        value, scale=combined(value.scale, share, True), offset=combined(value.offset, share, True)
    )
    return quantize(lowering, node, divided, quantizer, result)


def _bound(node: FileNode, bound: Fraction | None, inverse: Factors, quantizer: Quantizer) -> int | None:
    """Return what a bound before the quantizer becomes behind it."""
    if bound is None:
        return None
    found = {rounded(bound * factor, quantizer.rounding) for factor in inverse}
    clipped = {min(max(number, quantizer.minimum), quantizer.maximum) for number in found}
    if len(clipped) > 1:
        refuse(node, "must have one scale behind a Clip, not one a channel; quantize it with one scale")
    return clipped.pop()


def _table(lowering: Lowering, node: FileNode, value: Value, quantizer: Quantizer, scale: Factors) -> Value:
    """Look the quantized result of a function up."""
    assert value.table is not None
    values = quantizer.integers(value.table)
    interval = lowering.interval(value)
    first = value.tensor.dtype.minimum_lsb
    seen = values[interval.least - first : interval.largest - first + 1]
    channels = value.tensor.shape[-1]
    reached = Interval(np.full(channels, seen.min()), np.full(channels, seen.max()))
    return lowering.emit(
        Table, node, [value], value.tensor.shape, reached, scale, value.order, name=value.relu or node.name,
        source=node.outputs[0], width=(quantizer.signed, quantizer.width), values=values.astype(np.int64),
    )  # fmt: skip


def _sign(lowering: Lowering, node: FileNode, value: Value, scale: Factors) -> Value:
    """+1 where scale * x + offset >= 0: x integer, so -1 or 1 times x and a whole offset are enough."""
    count = max(len(value.scale), len(value.offset))
    pairs = zip(
        value.scale * (count // len(value.scale)), value.offset * (count // len(value.offset)), strict=True
    )
    multiplier, offset = [], []
    for factor, plus in pairs:
        never = value.high is not None and value.high < 0
        always = value.low is not None and value.low >= 0 and not never
        if always or never or factor == 0:
            multiplier.append(0)
            offset.append(0 if always or (not never and plus >= 0) else -1)
        else:
            multiplier.append(1 if factor > 0 else -1)
            offset.append(rounded(plus / abs(factor), "FLOOR"))
    channels = value.tensor.shape[-1]
    reached = Interval(np.full(channels, -1), np.full(channels, 1))
    return lowering.emit(
        Sign, node, [value], value.tensor.shape, reached, scale, value.order, name=value.relu or node.name,
        source=node.outputs[0], width=(True, 2), multiplier=_short(multiplier), offset=_short(offset),
    )  # fmt: skip


def _short(numbers: list[int]) -> np.ndarray:
    return np.array(numbers[:1] if len(set(numbers)) == 1 else numbers, dtype=np.int64)
