"""Samples and results as integers: what the hardware reads and writes."""

from __future__ import annotations

import numpy as np

from flow.errors import UnsupportedError
from flow.types import Port


def input_lsb(port: Port, samples: np.ndarray) -> np.ndarray:
    """Return float samples (channels first) as the LSBs that the hardware reads (channels last, flat)."""
    last = np.moveaxis(samples, 1, -1) if samples.ndim > 2 else samples
    return port.dtype.to_lsb(last.reshape(len(samples), -1))


def exact_lsb(port: Port, values: np.ndarray) -> np.ndarray:
    """Return values that lie on the port's grid as LSBs; int64 (samples, size).

    Raises:
        UnsupportedError: a value lies between two steps of the grid, or is not finite.
    """
    scaled = np.ldexp(values.astype(np.float64).reshape(len(values), -1), port.dtype.fraction_bits)
    if not np.all((scaled == np.rint(scaled)) & (np.abs(scaled) < 2.0**63)):
        raise UnsupportedError(
            f"output {port.name!r} must hold values on the grid of {port.dtype}, not beside it; "
            "use power-of-two scales, or give the output a finer Precision in [hls]"
        )
    return scaled.astype(np.int64)
