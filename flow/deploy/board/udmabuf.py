"""Memory for the DMA from the kernel module u-dma-buf.

The device is opened without O_SYNC: the processor's caches stay on, and are written back and dropped by hand. Uncached
memory would need neither, but numpy's copies fault on it where it is mapped as device memory (64-bit Arm).

Source: u-dma-buf's Readme, "Manual cache management"; a command is a 64-bit number: offset in the upper half, size in
multiples of 16, direction (1: to the device, 2: from it) in bits 3..2, and a one in bit 0.
"""

from __future__ import annotations

import mmap
import os
from contextlib import suppress
from pathlib import Path

import numpy as np

from .errors import BoardError

CLASSES = ("u-dma-buf", "udmabuf")  # its name before 2.0
TO_DEVICE, FROM_DEVICE = 1, 2
PAGE_BYTES = 4096


class DmaMemory:
    """A u-dma-buf device, handed out page by page.

    Args:
        root: of the file system.
        device: the module's name for it.

    Raises:
        BoardError: the module is not loaded, or its files do not open.
    """

    def __init__(self, root: Path, device: str = "udmabuf0") -> None:
        folders = [root / "sys/class" / name / device for name in CLASSES]
        self._folder = next((folder for folder in folders if folder.is_dir()), folders[0])
        self.device = device
        self._address, self.size_bytes = self._fact("phys_addr"), self._fact("size")
        path = root / "dev" / device
        try:
            opened = os.open(str(path), os.O_RDWR)
        except OSError as error:
            raise BoardError(f"u-dma-buf: {path} must open, not fail ({error}); run as root") from error
        try:
            self._map = mmap.mmap(opened, self.size_bytes)
        except (OSError, ValueError) as error:
            raise BoardError(
                f"u-dma-buf: {path} must map {self.size_bytes} bytes, not fail ({error}); load the module again"
            ) from error
        finally:
            os.close(opened)
        self._words = np.frombuffer(self._map, np.uint32, self.size_bytes // 4)
        self._used_bytes = 0

    def take(self, size_bytes: int) -> DmaBuffer:
        """Return the next free bytes.

        Raises:
            BoardError: there are too few.
        """
        first, taken = self._used_bytes, -(-size_bytes // PAGE_BYTES) * PAGE_BYTES
        if first + size_bytes > self.size_bytes:
            needed = first + taken
            raise BoardError(
                f"u-dma-buf: {self.device} must have {needed} bytes, not {self.size_bytes}; load the module with "
                f"more: rmmod u-dma-buf; insmod u-dma-buf.ko {self.device}={needed}"
            )
        self._used_bytes = first + taken
        return DmaBuffer(
            self, first, self._words[first // 4 : (first + size_bytes) // 4], self._address + first
        )

    def sync(self, command: str, offset: int, size_bytes: int, direction: int) -> None:
        """Hand bytes to the device (``sync_for_device``) or take them back (``sync_for_cpu``)."""
        whole = -(-size_bytes // 16) * 16
        value = offset << 32 | whole | direction << 2 | 1
        (self._folder / command).write_text(f"{value:#018x}")

    def close(self) -> None:
        """Unmap it; arrays of its buffers must not be used any more."""
        self._words = np.zeros(0, np.uint32)
        with suppress(BufferError):  # an array is still held somewhere: it is unmapped with the last one
            self._map.close()

    def _fact(self, name: str) -> int:
        try:
            return int((self._folder / name).read_text().strip(), 0)
        except (OSError, ValueError) as error:
            raise BoardError(
                f"u-dma-buf: {self._folder / name} must hold a number, not fail ({error}); load the module: "
                f"insmod u-dma-buf.ko {self.device}=4194304"
            ) from error


class DmaBuffer:
    """A piece of it; see `flow_board.backend.Buffer`."""

    def __init__(self, memory: DmaMemory, offset: int, array: np.ndarray, address: int) -> None:
        self._memory, self._offset = memory, offset
        self.array, self.address = array, address

    def flush(self, size_bytes: int) -> None:
        """See `flow_board.backend.Buffer`."""
        self._memory.sync("sync_for_device", self._offset, size_bytes, TO_DEVICE)

    def invalidate(self, size_bytes: int) -> None:
        """See `flow_board.backend.Buffer`."""
        self._memory.sync("sync_for_cpu", self._offset, size_bytes, FROM_DEVICE)

    def close(self) -> None:
        """Let go of the array; the memory is the device's."""
        self.array = np.zeros(0, np.uint32)
