"""The board through the kernel alone: fpga_manager, /dev/mem and u-dma-buf."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import numpy as np

from . import bitfile
from .clocks import FabricClock
from .dma_registers import Registers
from .errors import BoardError
from .udmabuf import DmaBuffer, DmaMemory

MANAGER = "sys/class/fpga_manager/fpga0"
CHIPS = {"zynq7000": "Zynq", "zynq_ultrascale": "ZynqMP"}
"""The second word of the managers' names: "Xilinx Zynq FPGA Manager", "Xilinx ZynqMP FPGA Manager"."""


class KernelBackend:
    """fpga_manager, /dev/mem and u-dma-buf.

    Args:
        ps: ``zynq7000`` or ``zynq_ultrascale``.
        crystal_mhz: the board's.
        root: of the file system.
    """

    name = "kernel"

    def __init__(self, ps: str, crystal_mhz: float, root: Path = Path("/")) -> None:
        self._ps, self._crystal_mhz, self._root = ps, crystal_mhz, root
        self._maps: list[MappedRegisters] = []
        self._memory: DmaMemory | None = None

    def program(self, bitstream: Path, clock_mhz: float) -> float:
        """Set the fabric's clock, then program the fabric, so that the design never runs at another rate.

        Raises:
            BoardError: there is no such manager, the clock does not get there, or the kernel refuses the file.
        """
        self._check_manager()
        data = bitfile.swapped(bitfile.read(bitstream), bitstream.name)
        rate_mhz = FabricClock(self._ps, self._crystal_mhz, self.registers).set(clock_mhz)
        name = f"flow_{bitstream.stem}.bin"
        target = self._root / "lib/firmware" / name
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
        except OSError as error:
            raise BoardError(
                f"kernel: {target} must be written for the kernel to load it, not fail ({error}); run as root"
            ) from error
        try:
            (self._root / MANAGER / "flags").write_text("0")  # the whole fabric
            (self._root / MANAGER / "firmware").write_text(name)
        except OSError as error:
            raise BoardError(
                f"kernel: fpga0 must take {name}, not fail ({error}); state {self._state()!r}: see dmesg"
            ) from error
        if self._state() != "operating":
            raise BoardError(
                f"kernel: fpga0's state must be 'operating' after programming, not {self._state()!r}; see dmesg"
            )
        return rate_mhz

    def registers(self, address: int, span_bytes: int) -> Registers:
        """Map the registers at a physical address.

        Raises:
            BoardError: /dev/mem does not open or map.
        """
        self._maps.append(MappedRegisters(self._root / "dev/mem", address, span_bytes))
        return self._maps[-1]

    def buffer(self, size_bytes: int) -> DmaBuffer:
        """Take memory of /dev/udmabuf0.

        Raises:
            BoardError: the module is not loaded, or its memory is too small.
        """
        if self._memory is None:
            self._memory = DmaMemory(self._root)
        return self._memory.take(size_bytes)

    def close(self) -> None:
        """Unmap everything; the fabric stays programmed."""
        for mapped in self._maps:
            mapped.close()
        self._maps = []
        if self._memory is not None:
            self._memory.close()
        self._memory = None

    def _check_manager(self) -> None:
        path = self._root / MANAGER / "name"
        try:
            name = path.read_text().strip()
        except OSError as error:
            raise BoardError(
                f"kernel: {path} must be there, not missing ({error}); boot a kernel with CONFIG_FPGA and the chip's "
                "manager, or install PYNQ"
            ) from error
        if CHIPS[self._ps] not in name.split():
            raise BoardError(
                f"kernel: fpga0 must be a {CHIPS[self._ps]}'s, as the bundle is, not {name!r}; take the bundle that is "
                "built for this board"
            )

    def _state(self) -> str:
        try:
            return (self._root / MANAGER / "state").read_text().strip()
        except OSError as error:
            return f"unknown ({error})"


class MappedRegisters:
    """Registers through /dev/mem; numpy reads and writes each as one 32-bit word, as the bus asks for."""

    def __init__(self, path: Path, address: int, span_bytes: int) -> None:
        first = address // mmap.PAGESIZE * mmap.PAGESIZE
        span = address - first + span_bytes
        try:
            opened = os.open(str(path), os.O_RDWR | os.O_SYNC)  # O_SYNC: not through the caches
        except OSError as error:
            raise BoardError(f"kernel: {path} must open, not fail ({error}); run as root") from error
        try:
            self._map = mmap.mmap(opened, span, offset=first)
        except (OSError, ValueError) as error:
            raise BoardError(
                f"kernel: {path} must map {span_bytes} bytes at {address:#x}, not fail ({error}); boot a kernel "
                "without CONFIG_IO_STRICT_DEVMEM"
            ) from error
        finally:
            os.close(opened)
        self._words = np.frombuffer(self._map, np.uint32, span_bytes // 4, address - first)

    def read(self, offset: int) -> int:
        """Return a register."""
        return int(self._words[offset // 4])

    def write(self, offset: int, value: int) -> None:
        """Set a register."""
        self._words[offset // 4] = value

    def close(self) -> None:
        """Unmap them."""
        self._words = np.zeros(0, np.uint32)
        self._map.close()
