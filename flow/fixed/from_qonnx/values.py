"""What a tensor of the file holds, in terms of an integer tensor of the graph."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache

import numpy as np

from flow.fixed.graph import Tensor
from flow.types import FixedPoint

MAX_WIDTH = 63
"""Integers are int64 everywhere."""
Factors = tuple[Fraction, ...]
"""One number, or one a channel."""
ZERO: Factors = (Fraction(0),)


@dataclass(frozen=True)
class Value:
    """clip(scale * x + offset, low, high), x: the integers of ``tensor``; the channels are its last dimension.

    ``order``: has the shape that the file gives the tensor, without the batch, and holds the place of each element in
    ``tensor`` (flat). ``relu``: the ReLU that ``low`` or ``high`` come from. ``table``: float32 numbers, one for each
    integer of ``tensor``'s type, that take the place of scale and offset. ``moved``: the last node that changed the
    order or the shape.
    """

    tensor: Tensor
    order: np.ndarray
    scale: Factors
    offset: Factors = ZERO
    low: Fraction | None = None
    high: Fraction | None = None
    relu: str = ""
    table: np.ndarray | None = None
    moved: str = ""

    @property
    def shape(self) -> tuple[int, ...]:
        return self.order.shape

    @property
    def clipped(self) -> bool:
        return self.low is not None or self.high is not None

    @property
    def bare(self) -> bool:
        """Whether it is a tensor with a scale and nothing else."""
        plain = not any(self.offset) and not self.clipped and self.table is None
        return plain and all(factor > 0 for factor in self.scale)

    def laid(self, order: np.ndarray, by: str) -> Value:
        """Return the value in the shape or order that the node ``by`` gives it."""
        return replace(self, order=order, moved=by)


@dataclass(frozen=True)
class Interval:
    """The least and the largest integer of each channel, int64 (channels,)."""

    low: np.ndarray
    high: np.ndarray

    @property
    def least(self) -> int:
        return int(self.low.min())

    @property
    def largest(self) -> int:
        return int(self.high.max())

    def with_zero(self) -> Interval:
        return Interval(np.minimum(self.low, 0), np.maximum(self.high, 0))

    def tiled(self, channels: int) -> Interval:
        """Return the interval of the same integers under another shape."""
        if channels == len(self.low):
            return self
        if channels % len(self.low) == 0:
            return Interval(*(np.tile(side, channels // len(self.low)) for side in (self.low, self.high)))
        return Interval(np.full(channels, self.least), np.full(channels, self.largest))


@lru_cache(maxsize=16)
def _counting(size: int) -> np.ndarray:
    found = np.arange(size, dtype=np.int32)
    found.flags.writeable = False
    return found


def channels_last(shape: tuple[int, ...]) -> np.ndarray:
    """Return the order of a tensor that the file has channels last, as the graph does."""
    return _counting(math.prod(shape)).reshape(shape)


def channels_first(shape: tuple[int, ...]) -> np.ndarray:
    """Return the order of a tensor of the graph's ``shape``, (..., channels), that the file has channels first."""
    return np.moveaxis(channels_last(shape), -1, 0)


def same_order(a: np.ndarray, b: np.ndarray) -> bool:
    """Tell whether two orders are equal."""
    if a.shape != b.shape:
        return False
    held = a.__array_interface__["data"] == b.__array_interface__["data"] and a.strides == b.strides
    return held or bool(np.array_equal(a, b))


def flat_order(order: np.ndarray) -> np.ndarray | None:
    """Return an order as `Tensor.order` has it."""
    if same_order(order, channels_last(order.shape)):
        return None
    shape = (*order.shape[1:], *order.shape[:1])
    if same_order(order, channels_first(shape)):
        return _flat_first(shape)
    flat = order.reshape(-1).astype(np.int64)
    return None if np.array_equal(flat, _counting(flat.size)) else flat


@lru_cache(maxsize=16)
def _flat_first(shape: tuple[int, ...]) -> np.ndarray | None:
    flat = channels_first(shape).reshape(-1).astype(np.int64)
    return None if np.array_equal(flat, _counting(flat.size)) else flat


def width_of(low: int, high: int) -> int:
    """Return the bits of the smallest type that holds the integers from ``low`` to ``high``."""
    signed = low < 0
    return max(1, high.bit_length() + signed, (-low - 1).bit_length() + 1 if signed else 0)


def type_of(low: int, high: int, fraction_bits: int) -> FixedPoint:
    """Return the smallest type that holds the integers from ``low`` to ``high``."""
    return FixedPoint(low < 0, width_of(low, high) - fraction_bits, fraction_bits)


def exponent(number: Fraction) -> int:
    """Return floor(log2(number)) of a positive number."""
    power = number.numerator.bit_length() - number.denominator.bit_length()
    return power if number >= two_to(power) else power - 1


def two_to(power: int) -> Fraction:
    return Fraction(1 << power) if power >= 0 else Fraction(1, 1 << -power)


def power_of_two(number: Fraction) -> bool:
    return number > 0 and two_to(exponent(number)) == number


def label_of(scale: Factors, fraction_bits: int | None = None) -> tuple[int, tuple[float, ...]]:
    """Return fraction bits, and the factors beside them, that stand for a positive scale."""
    bits = -exponent(min(scale)) if fraction_bits is None else fraction_bits
    beside = tuple(float(factor * two_to(bits)) for factor in scale)
    return bits, (beside[:1] if len(set(beside)) == 1 else beside)


def merged(scale: Factors) -> Factors:
    """Return one number where all channels have the same."""
    return scale[:1] if len(set(scale)) == 1 else scale


def combined(a: Factors, b: Factors, times: bool) -> Factors:
    """Return products, or sums, channel by channel."""
    count = max(len(a), len(b))
    pairs = zip(a * (count // len(a)), b * (count // len(b)), strict=True)
    return merged(tuple(x * y if times else x + y for x, y in pairs))
