"""The board through PYNQ, 2.7 to 3.1. PYNQ is imported inside functions alone."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from .clocks import near
from .dma_registers import Registers
from .errors import BoardError

ASSUMED_CRYSTAL_MHZ = {"zynq7000": 50.0, "zynq_ultrascale": 33.333}
"""The crystal that PYNQ's Clocks computes with, on whatever board (pynq/ps.py, DEFAULT_SRC_CLK_MHZ)."""


class PynqBackend:
    """PYNQ's Overlay, MMIO and allocate.

    Args:
        ps: ``zynq7000`` or ``zynq_ultrascale``.
        crystal_mhz: the board's, which need not be the one that PYNQ takes for granted.
    """

    name = "pynq"

    def __init__(self, ps: str, crystal_mhz: float) -> None:
        self._crystal_ratio = crystal_mhz / ASSUMED_CRYSTAL_MHZ[ps]
        self._overlay: Any = None

    def program(self, bitstream: Path, clock_mhz: float) -> float:
        """Load the overlay; its hand-off beside it sets the clocks' dividers.

        Raises:
            BoardError: PYNQ does not load it, or the clock is another.
        """
        try:
            self._overlay = import_module("pynq").Overlay(str(bitstream))
        except Exception as error:  # PYNQ raises whatever its parsers, XRT and the kernel raise
            raise BoardError(
                f"pynq: overlay {bitstream.name} must load, not fail ({type(error).__name__}: {error}); run as root in "
                "PYNQ's environment, with the .hwh file beside it"
            ) from error
        clocks = import_module("pynq.ps").Clocks
        rate_mhz = float(clocks.fclk0_mhz) * self._crystal_ratio
        if not near(
            rate_mhz, clock_mhz
        ):  # the boot's PLL is not the one that the hand-off's dividers are for
            clocks.fclk0_mhz = clock_mhz / self._crystal_ratio
            rate_mhz = float(clocks.fclk0_mhz) * self._crystal_ratio
        if not near(rate_mhz, clock_mhz):
            raise BoardError(
                f"pynq: fabric clock must be the {clock_mhz:g} MHz that the design is built for, not the "
                f"{rate_mhz:.6g} MHz that FCLK0 is set to; build for a rate that the PLL divides to"
            )
        return rate_mhz

    def registers(self, address: int, span_bytes: int) -> Registers:
        """Return an MMIO region."""
        return _Registers(import_module("pynq").MMIO(address, span_bytes))

    def buffer(self, size_bytes: int) -> PynqBuffer:
        """Allocate contiguous memory.

        Raises:
            BoardError: there is not enough.
        """
        try:
            return PynqBuffer(import_module("pynq").allocate(shape=(size_bytes // 4,), dtype=np.uint32))
        except (RuntimeError, MemoryError, OSError) as error:
            raise BoardError(
                f"pynq: {size_bytes} bytes of contiguous memory must be free, not fail ({error}); end programs that "
                "hold buffers, or boot with a larger cma="
            ) from error

    def close(self) -> None:
        """Forget the overlay; the fabric stays programmed."""
        self._overlay = None


class PynqBuffer:
    """PYNQ's buffer; see `flow_board.backend.Buffer`."""

    def __init__(self, memory: Any) -> None:
        self._memory = memory
        self.array: np.ndarray = memory
        address = getattr(memory, "device_address", None)
        self.address = int(memory.physical_address if address is None else address)

    def flush(self, size_bytes: int) -> None:
        """See `flow_board.backend.Buffer`; a slice, since whole buffers take longer than a sample."""
        self._memory[: size_bytes // 4].flush()

    def invalidate(self, size_bytes: int) -> None:
        """See `flow_board.backend.Buffer`."""
        self._memory[: size_bytes // 4].invalidate()

    def close(self) -> None:
        """Free the memory; older releases of PYNQ call that ``close``."""
        free = getattr(self._memory, "freebuffer", None)
        (self._memory.close if free is None else free)()
        self.array = np.zeros(0, np.uint32)


class _Registers:
    """An MMIO's array: its ``read`` and ``write`` changed their arguments between releases, the array did not."""

    def __init__(self, mmio: Any) -> None:
        self._array = mmio.array

    def read(self, offset: int) -> int:
        return int(self._array[offset // 4])

    def write(self, offset: int, value: int) -> None:
        self._array[offset // 4] = np.uint32(value)
