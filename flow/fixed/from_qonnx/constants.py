"""Numbers of the file: as integers with a scale where a quantizer or a grid gives one, else as they are."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from flow.fixed.from_qonnx.values import Factors, merged, two_to, width_of

MAX_BITS = 24
"""What float32 holds: floats that were never quantized need more together."""


@dataclass(frozen=True)
class Constant:
    """real = integers * scale, int64 and float64 of one shape; of ``width`` bits, ``signed`` or not."""

    integers: np.ndarray
    scale: np.ndarray
    width: int
    signed: bool

    def changed(self, function: object) -> Constant:
        """Return the same numbers moved to other places."""
        return Constant(function(self.integers), function(self.scale), self.width, self.signed)  # type: ignore[operator]

    def fractions(self) -> np.ndarray:
        """Return the exact numbers."""
        shape = self.integers.shape or (1,)
        flat = zip(self.integers.reshape(-1).tolist(), self.scale.reshape(-1).tolist(), strict=True)
        made = np.empty(self.integers.size, dtype=object)
        made[:] = [Fraction(integer) * Fraction(factor) for integer, factor in flat]
        return made.reshape(shape)

    def rows(self) -> tuple[np.ndarray, Factors]:
        """Return integers with one scale a row (first dimension); ``None`` rows cannot be.

        Raises:
            ValueError: the scales within a row are not whole multiples of the smallest.
        """
        scale = self.scale.reshape(len(self.scale), -1)
        least = scale.min(1, keepdims=True)
        factor = scale / least
        if not np.array_equal(factor, np.rint(factor)) or not np.array_equal(least * factor, scale):
            raise ValueError("scales")
        integers = self.integers * factor.astype(np.int64).reshape(self.integers.shape)
        return integers, merged(tuple(Fraction(float(number)) for number in least[:, 0]))


def fractions_of(values: np.ndarray) -> np.ndarray:
    """Return floats as the exact fractions that they are, in an array of at least one dimension."""
    values = np.atleast_1d(values)
    made = np.empty(values.size, dtype=object)
    made[:] = [Fraction(float(value)) for value in values.reshape(-1)]
    return made.reshape(values.shape)


def on_grid(values: np.ndarray) -> Constant | None:
    """Return raw numbers in steps of a power of two, where at most 24 bits hold them."""
    real = values.astype(np.float64)
    if not np.isfinite(real).all():
        return None
    used = real[real != 0]
    if not used.size:
        return Constant(np.zeros(real.shape, np.int64), np.ones(real.shape), 1, False)
    mantissa, power = np.frexp(used)
    whole = np.ldexp(mantissa, 53).astype(np.int64)
    trailing = np.log2((whole & -whole).astype(np.float64)).astype(int)
    step = int((power - 53 + trailing).min())
    if int(power.max()) - step > MAX_BITS:
        return None
    integers = np.ldexp(real, -step).astype(np.int64)
    low, high = int(integers.min()), int(integers.max())
    width = width_of(low, high)
    if width > MAX_BITS:
        return None
    return Constant(integers, np.full(real.shape, float(two_to(step))), width, low < 0)
