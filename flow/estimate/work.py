"""What a layer has to do, as the estimator sees it: counts and widths, no values."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from flow.estimate.reuse import MAX_UNROLL, Fold

PRODUCTS = "product"
_DSP_ABOVE_BIT_PRODUCTS = 80
"""A multiplier takes a DSP slice where the product of its widths is larger: 16 x 6 does, 16 x 5 and 7 x 7 do not."""
_WIDE_DIGITS = 3
_FEW_SIZES = 1 << 16


@dataclass(frozen=True)
class Work:
    """One layer, for one sample.

    ``kind``: product (dense, conv), relu, rescale, scale (a rescale with a multiplier), pool, add, table, softmax or
    move. ``inputs``: values that one output value reads. ``outputs``: channels. ``positions``: places of the output,
    ``scans``: places of the input, padding included. ``line_bits``: what a stream keeps of earlier rows.
    ``window``: a conv. ``channels``: of the tensor that a product layer reads. ``digits``: signed binary digits of all
    weights that take no DSP slice as constants; ``wide``: weights that do. ``entries``: of a table. ``grouped``: a
    conv with groups. ``own_kernel``: hls4ml has none for this conv. ``reads_input`` and ``is_output``: pruning cannot
    change these widths.
    """

    name: str
    kind: str
    inputs: int
    outputs: int
    input_bits: int
    output_bits: int
    weight_bits: int = 0
    positions: int = 1
    scans: int = 1
    line_bits: int = 0
    window: bool = False
    channels: int = 1
    digits: float = 0.0
    wide: float = 0.0
    entries: int = 0
    grouped: bool = False
    own_kernel: bool = False
    reads_input: bool = False
    is_output: bool = False

    @property
    def products(self) -> int:
        return self.inputs * self.outputs if self.kind == PRODUCTS else 0

    def multipliers(self, reuse: int) -> int:
        return math.ceil(self.products / reuse)

    def reuse_factors(self, io_type: str) -> tuple[int, ...]:
        """Return the reuse factors that are legal and stay within `MAX_UNROLL`; (1,) for a layer without products."""
        if self.kind != PRODUCTS:
            return (1,)
        limited = self.own_kernel or (self.window and io_type == "io_parallel")
        fold = Fold(self.name, self.inputs, self.outputs, self.positions, limited)
        return tuple(factor for factor in fold.legal if self.multipliers(factor) <= MAX_UNROLL)


def _counted(sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return each size above 0 once, and how often it is there."""
    if sizes.max(initial=0) < _FEW_SIZES:
        counts = np.bincount(sizes)
        counts[:1] = 0
        found = np.flatnonzero(counts)
        return found, counts[found]
    return np.unique(sizes[sizes > 0], return_counts=True)


def takes_dsp(first_bits: int, second_bits: int) -> bool:
    """Tell whether HLS puts the multiplier of two variables into a DSP slice."""
    return first_bits * second_bits > _DSP_ABOVE_BIT_PRODUCTS


def constant_digits(weight: np.ndarray, input_bits: int) -> tuple[int, int]:
    """Return (digits, wide) of `Work`: what the products of inputs by these constants cost.

    A constant with fewer than three non-zero signed digits becomes shifts and adds, as does one whose odd part
    is too narrow for a DSP slice; the others take a slice each.

    Args:
        weight: integers of any shape.
        input_bits: width of what they are multiplied with.
    """
    sizes, many = _counted(np.abs(weight.astype(np.int64)).ravel())
    digits = np.bitwise_count(sizes ^ (3 * sizes))
    odd = sizes // (sizes & -sizes)
    bits = np.floor(np.log2(odd)).astype(np.int64) + 2
    wide = (digits >= _WIDE_DIGITS) & (bits * input_bits > _DSP_ABOVE_BIT_PRODUCTS)
    return int((digits * many)[~wide].sum()), int(many[wide].sum())
