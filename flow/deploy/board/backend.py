"""What the driver needs of a board's software."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np

from .dma_registers import Registers


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
