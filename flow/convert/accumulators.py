"""Exact accumulators: the range of every partial sum of a dense layer or a conv, whatever the order of adding."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flow.errors import UnsupportedError
from flow.fixed.graph import Conv, Dense
from flow.types import FixedPoint

MAX_BITS = 62
"""Sums are computed here as int64, and csim's files hold int64."""


@dataclass(frozen=True)
class Range:
    """Integers from ``low`` to ``high``, in steps of 2**-fraction_bits."""

    low: int
    high: int
    fraction_bits: int

    def dtype(self) -> FixedPoint:
        """Return the smallest type that holds them."""
        signed = self.low < 0
        bits = max(self.high.bit_length(), (-self.low - 1).bit_length() if signed else 0)
        width = max(1, bits + int(signed))
        return FixedPoint(signed, width - self.fraction_bits, self.fraction_bits)

    def fits(self, dtype: FixedPoint) -> bool:
        """Tell whether a type holds every step from the lowest to the highest."""
        more = dtype.fraction_bits - self.fraction_bits
        if more < 0:
            return False
        return dtype.minimum_lsb <= self.low << more and self.high << more <= dtype.maximum_lsb


def range_of(integers: np.ndarray, fraction_bits: int) -> Range:
    """Return the range of integers and zero, in steps of 2**-fraction_bits."""
    return Range(min(int(integers.min()), 0), max(int(integers.max()), 0), fraction_bits)


def partial_sums(node: Dense | Conv, source: FixedPoint) -> Range:
    """Return the range of all partial sums, with and without the bias, of inputs of a type.

    Products, and a bias whose steps are finer, are added in the finer steps.

    Raises:
        UnsupportedError: a sum could need more than `MAX_BITS` bits.
    """
    fraction = source.fraction_bits + node.weight_dtype.fraction_bits
    weight = node.weight.reshape(len(node.weight), -1)
    largest = max(1, int(np.abs(weight).max())) * max(abs(source.minimum_lsb), source.maximum_lsb)
    bias = np.zeros(len(weight), dtype=np.int64) if node.bias is None else node.bias
    finest = fraction if node.bias_dtype is None else max(fraction, node.bias_dtype.fraction_bits)
    up = finest - fraction
    up_bias = 0 if node.bias_dtype is None else finest - node.bias_dtype.fraction_bits
    bound = (largest * weight.shape[1] << up) + (int(np.abs(bias).max()) << up_bias)
    if bound.bit_length() > MAX_BITS:
        raise UnsupportedError(
            f"convert: layer {node.name!r} must have sums of at most {MAX_BITS} bits, not {bound.bit_length()}; "
            "quantize its input or its weights to fewer bits"
        )
    ends = weight * source.minimum_lsb, weight * source.maximum_lsb
    high = (np.maximum(np.maximum(*ends), 0).sum(1) << up) + (np.maximum(bias, 0) << up_bias)
    low = (np.minimum(np.minimum(*ends), 0).sum(1) << up) + (np.minimum(bias, 0) << up_bias)
    return Range(int(low.min()), int(high.max()), finest)


def accumulator(node: Dense | Conv, source: FixedPoint) -> FixedPoint:
    """Return the smallest type that holds every partial sum of a layer that reads ``source``."""
    return partial_sums(node, source).dtype()
