"""What the driver needs of a board's software, and who gives it: PYNQ where it is installed, else the kernel."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Protocol

import numpy as np

from .dma import Registers
from .manifest import Manifest

CLOCK_TOLERANCE = 0.01
"""Dividers of a PLL do not reach every rate; a design meets its timing with more to spare than this."""


class Buffer(Protocol):
    """Memory that the processor and the DMA share.

    ``array``: uint32, the processor's view; ``address``: the DMA's. The processor's caches are written to memory by
    `flush` before the DMA starts, and dropped by `invalidate` before its result is read.
    """

    array: np.ndarray
    address: int

    def flush(self, size_bytes: int) -> None:
        """Hand the first bytes to the DMA."""

    def invalidate(self, size_bytes: int) -> None:
        """Take the first bytes back from the DMA."""

    def close(self) -> None:
        """Free it."""


class Backend(Protocol):
    """Programs the fabric and gives access to registers and memory."""

    name: str

    def program(self, bitstream: Path, clock_mhz: float) -> float:
        """Program the fabric, set its clock and return the clock's rate, in MHz, as the registers say it."""

    def registers(self, address: int, span_bytes: int) -> Registers:
        """Return the registers at a physical address."""

    def buffer(self, size_bytes: int) -> Buffer:
        """Return memory for the DMA."""

    def close(self) -> None:
        """Give everything back; the fabric stays programmed."""


def choose(manifest: Manifest) -> Backend:
    """Return PYNQ's backend where PYNQ is importable, and the kernel's otherwise."""
    try:
        import_module("pynq")
    except ImportError:
        from .kernel_backend import KernelBackend

        return KernelBackend(manifest.ps, manifest.crystal_mhz)
    from .pynq_backend import PynqBackend

    return PynqBackend(manifest.ps, manifest.crystal_mhz)


def near(rate_mhz: float, wanted_mhz: float) -> bool:
    """Return whether a clock is the wanted one."""
    return abs(rate_mhz - wanted_mhz) <= CLOCK_TOLERANCE * wanted_mhz
