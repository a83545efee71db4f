"""The AXI DMA in direct register mode: one transfer in, one transfer out, and what it says when it fails.

Source of registers and bits: AMD PG021, AXI DMA v7.1, "Direct Register Mode Register Address Map".
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from . import diagnosis
from .dma_registers import Channel, Job, Registers
from .errors import BoardError, DmaError

MM2S = Channel("MM2S", 0x00, 0x04, 0x18, 0x1C, 0x28)
S2MM = Channel("S2MM", 0x30, 0x34, 0x48, 0x4C, 0x58)
CHANNELS = (MM2S, S2MM)

RUN, RESET = 1 << 0, 1 << 2  # of DMACR
HALTED, IDLE, SCATTER_GATHER = 1 << 0, 1 << 1, 1 << 3  # of DMASR
INTERNAL, SLAVE, DECODE = 1 << 4, 1 << 5, 1 << 6
ERRORS = INTERNAL | SLAVE | DECODE
INTERRUPTS = 0x7000  # completion, delay and error; written as ones they are cleared

SPINS = 200
"""Polls without a pause: a short transfer is over in this time, and a pause would be most of its latency."""
SHORTEST_PAUSE_S, LONGEST_PAUSE_S = 20e-6, 1e-3


class AxiDma:
    """An AXI DMA with both channels, 32-bit streams and no scatter-gather.

    Args:
        registers: its registers.
        length_bits: width of its length registers; a transfer has at most 2**length_bits - 1 bytes.
        address_bits: width of its addresses; above 32 the upper halves are written too.
        counters: what the monitor counts; part of every diagnosis.
        limit_s: how long a reset and a start may take. PG021 gives no figure; both take some clocks.
    """

    def __init__(
        self,
        registers: Registers,
        length_bits: int,
        address_bits: int = 32,
        counters: Callable[[], Mapping[str, int]] | None = None,
        limit_s: float = 0.1,
    ) -> None:
        self.registers, self.length_bits, self.address_bits = registers, length_bits, address_bits
        self.counters, self.limit_s = counters, limit_s

    @property
    def largest_bytes(self) -> int:
        """Return the most whole words that a transfer may have, in bytes."""
        return ((1 << self.length_bits) - 1) // 4 * 4

    def reset(self) -> None:
        """Reset both channels; both are halted afterwards.

        Raises:
            BoardError: it was built with scatter-gather.
            DmaError: the reset does not end.
        """
        self.registers.write(MM2S.control, RESET)  # resets both
        if not self._within_limit(lambda: not self._any(RESET, control=True)):
            raise diagnosis.reset_hangs(self)
        status = self.registers.read(MM2S.status)
        if status & SCATTER_GATHER:
            raise BoardError(
                f"dma: it must be in direct register mode, not have scatter-gather (MM2S_DMASR (0x04) is "
                f"{status:#010x}); build the design with c_include_sg 0"
            )

    def transfer(
        self, source: int, source_bytes: int, destination: int, destination_bytes: int, timeout_s: float
    ) -> None:
        """Send a buffer through the network and receive its result in another, with one TLAST at the end of each.

        Args:
            source: physical address of what goes in; a multiple of 4, as are both lengths.
            source_bytes: how much of it.
            destination: physical address of what comes out.
            destination_bytes: how much must come.
            timeout_s: how long it may take.

        Raises:
            ValueError: a length or an address is not the DMA's.
            DmaError: it failed, with the diagnosis; the DMA was reset, so that it can be called again.
        """
        job = Job(source, source_bytes, destination, destination_bytes, timeout_s)
        self._check(job)
        try:
            self._start(job)
            self._arm(S2MM, destination, destination_bytes)  # first: what comes early must find a buffer
            self._arm(MM2S, source, source_bytes)
            self._wait(job)
        except DmaError as error:
            self._reset_after(error)
            raise

    def _check(self, job: Job) -> None:
        for side, address, size in (
            ("source", job.source, job.source_bytes),
            ("destination", job.destination, job.destination_bytes),
        ):
            if not 4 <= size <= self.largest_bytes or size % 4:
                raise ValueError(
                    f"dma: {side} must have 4 to {self.largest_bytes} bytes in whole words ({self.length_bits} bits of "
                    f"length), not {size}; cut the batch"
                )
            if address % 4 or not 0 <= address <= (1 << self.address_bits) - size:
                raise ValueError(
                    f"dma: {side} must lie at a multiple of 4 below 2**{self.address_bits}, not at {address:#x}; "
                    "allocate it elsewhere"
                )

    def _start(self, job: Job) -> None:
        """Set both channels running and clear what earlier transfers left."""
        for channel in CHANNELS:
            if self.registers.read(channel.status) & HALTED:
                self.registers.write(channel.control, self.registers.read(channel.control) | RUN)
        if not self._within_limit(lambda: not self._any(HALTED)):
            halted = next((c for c in CHANNELS if self.registers.read(c.status) & HALTED), MM2S)
            raise diagnosis.halted(self, halted, job)
        for channel in CHANNELS:
            self.registers.write(channel.status, INTERRUPTS)

    def _arm(self, channel: Channel, address: int, size_bytes: int) -> None:
        self.registers.write(channel.address, address & 0xFFFFFFFF)
        if self.address_bits > 32:
            self.registers.write(channel.address_high, address >> 32)
        self.registers.write(channel.length, size_bytes)  # starts it, so it comes last

    def _wait(self, job: Job) -> None:
        end = time.monotonic() + job.timeout_s
        polls, pause_s = 0, SHORTEST_PAUSE_S
        while True:
            late = (
                time.monotonic() > end
            )  # asked before the status, so that a descheduled process does not fail
            if self._done(job):
                return
            if late:
                raise diagnosis.timed_out(self, job)
            polls += 1
            if polls > SPINS:
                time.sleep(pause_s)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def _done(self, job: Job) -> bool:
        states = {channel: self.registers.read(channel.status) for channel in CHANNELS}
        for channel, status in states.items():
            if status & ERRORS:
                raise diagnosis.failed(self, channel, status, job)
            if status & HALTED:
                raise diagnosis.halted(self, channel, job)
        if not states[S2MM] & IDLE:
            return False
        received_bytes = self.registers.read(S2MM.length)
        if received_bytes != job.destination_bytes:
            raise diagnosis.short(self, received_bytes, job)
        return bool(states[MM2S] & IDLE)

    def _reset_after(self, error: DmaError) -> None:
        try:
            self.reset()
        except BoardError as second:
            error.diagnosis["reset"] = str(second)
            error.args = (f"{error}; then {second}",)

    def _any(self, bit: int, *, control: bool = False) -> bool:
        return any(self.registers.read(c.control if control else c.status) & bit for c in CHANNELS)

    def _within_limit(self, holds: Callable[[], bool]) -> bool:
        end = time.monotonic() + self.limit_s
        while True:
            late = time.monotonic() > end
            if holds():
                return True
            if late:
                return False
            time.sleep(SHORTEST_PAUSE_S)
