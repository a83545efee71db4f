"""A board in registers and memory: the AXI DMA (PG021, direct register mode), a network between its streams, a monitor.

Registers behave as PG021 says: the reset bit clears itself, a halted channel ignores its length register, completion
bits are cleared by ones, lengths are cut to their width, `Idle` is 0 before the first transfer and while halted. Words
move when a status is read for the ``polls``-th time, so that a driver has to wait for them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

RUN, RESET = 1, 4
HALTED, IDLE, GATHER, INTERNAL, SLAVE, DECODE, DONE = 0x1, 0x2, 0x8, 0x10, 0x20, 0x40, 0x1000
DMA_ADDRESS, MONITOR_ADDRESS, MEMORY_ADDRESS = 0x4040_0000, 0x43C0_0000, 0x1000_0000

Word = tuple[int, bool]  # data, TLAST


class UnmappedError(Exception):
    """An address that nothing answers."""


@dataclass
class Memory:
    """Physical memory, in regions."""

    regions: dict[int, np.ndarray] = field(default_factory=dict)

    def add(self, address: int, size_bytes: int) -> np.ndarray:
        self.regions[address] = np.zeros(size_bytes // 4, np.uint32)
        return self.regions[address]

    def words(self, address: int, count: int) -> np.ndarray:
        for start, region in self.regions.items():
            if start <= address and address + 4 * count <= start + region.nbytes:
                return region[(address - start) // 4 :][:count]
        raise UnmappedError(hex(address))


@dataclass
class Network:
    """A network that maps frames of words; the TLAST of a frame's last word goes to the last word of its result."""

    words_in: int
    words_out: int
    function: Callable[[list[int]], list[int]]
    held: list[Word] = field(default_factory=list)

    def take(self, words: Sequence[Word]) -> list[Word]:
        self.held += words
        made: list[Word] = []
        while len(self.held) >= self.words_in:
            frame, self.held = self.held[: self.words_in], self.held[self.words_in :]
            result = self.function([word for word, _ in frame])
            assert len(result) == self.words_out
            made += [(word, frame[-1][1] and at == len(result) - 1) for at, word in enumerate(result)]
        return made


@dataclass
class MonitorModel:
    """The monitor's registers; ``slow``: how many times too slow the clock runs."""

    design_id: int = 0x0123456789ABCDEF
    clock_hz: int = 100_000_000
    magic: int = 0x574F4C46
    version: int = 1
    slow: float = 1.0
    stays_in_reset: bool = False
    network: Network | None = None
    control: int = 0
    counts: dict[int, int] = field(default_factory=dict)
    waits: int = 0
    resets: int = 0
    _high: int = 0

    def read(self, offset: int) -> int:
        if offset == 0x20:
            cycles = int(time.perf_counter() * self.clock_hz / self.slow)
            self._high = cycles >> 32
            return cycles & 0xFFFFFFFF
        in_reset = 4 if self.control & 2 or self.stays_in_reset else 0
        known = {
            0x00: self.magic,
            0x04: self.version,
            0x08: self.design_id & 0xFFFFFFFF,
            0x0C: self.design_id >> 32,
        }
        known |= {0x10: self.clock_hz, 0x14: self.control & 2, 0x18: self.waits | in_reset, 0x24: self._high}
        return known.get(offset, self.counts.get(offset, 0))

    def write(self, offset: int, value: int) -> None:
        assert offset == 0x14, f"{offset:#x} is read-only"
        if value & 1:
            self.counts, self.waits = {}, 0
        if value & 2 and self.network is not None:
            self.network.held = []
            self.resets += 1
        self.control = value

    def passed(self, given: Sequence[Word], made: Sequence[Word]) -> None:
        """Count what passed: a clock a word, and 10 clocks in the network."""
        counts = {
            0x28: len(given),
            0x2C: len(made),
            0x30: sum(last for _, last in given),
            0x34: sum(last for _, last in made),
            0x3C: len(given) + len(made) + 10,
        }
        for offset, count in counts.items():
            self.counts[offset] = self.counts.get(offset, 0) + count
        if not self.counts.get(0x38) and any(last for _, last in made):  # stays until it is cleared
            self.counts[0x38] = self.counts[0x28] + 10


class Channel:
    """A channel's registers."""

    def __init__(self) -> None:
        self.control, self.status, self.address, self.length = 0x10002, HALTED, 0, 0
        self.armed = False

    def fail(self, bits: int) -> None:
        self.control &= ~RUN
        self.status = self.status & ~IDLE | bits | HALTED
        self.armed = False

    def done(self) -> None:
        self.status |= IDLE | DONE
        self.armed = False


class DmaModel:
    """An AXI DMA with a network between its channels.

    ``fault`` is what goes wrong in the next transfer; a reset clears it: ``no_tlast``, ``short``, ``stuck``, ``left``,
    ``halt MM2S``, ``slave S2MM``, ``decode MM2S``, ... ``reset`` never ends and ``halted`` never starts until taken
    away by hand.
    """

    def __init__(
        self,
        memory: Memory,
        network: Network,
        *,
        length_bits: int = 23,
        address_bits: int = 32,
        polls: int = 3,
    ) -> None:
        self.memory, self.network, self.polls = memory, network, polls
        self.length_bits, self.address_bits = length_bits, address_bits
        self.monitor: MonitorModel | None = None
        self.fault, self.resets, self.lengths, self.gather = "", 0, [], False
        self.channels = {"MM2S": Channel(), "S2MM": Channel()}
        self._reads = 0

    def read(self, offset: int) -> int:
        channel, place = self._place(offset)
        if place == 0x04:
            self._reads += 1
            if self._reads >= self.polls:
                self._move()
        low, high = channel.address & 0xFFFFFFFF, channel.address >> 32
        status = channel.status | (GATHER if self.gather else 0)
        return {0x00: channel.control, 0x04: status, 0x18: low, 0x1C: high, 0x28: channel.length}[place]

    def write(self, offset: int, value: int) -> None:
        assert 0 <= value < 1 << 32, f"{value} does not fit a register"
        channel, place = self._place(offset)
        if place == 0x00:
            self._control(channel, value)
        elif place == 0x04:
            channel.status &= ~(value & 0x7000)
        elif place == 0x18:
            channel.address = channel.address >> 32 << 32 | value
        elif place == 0x1C:
            assert self.address_bits > 32, "there is no upper half"
            channel.address = channel.address & 0xFFFFFFFF | value << 32
        elif not channel.status & HALTED:
            channel.length = value & (1 << self.length_bits) - 1
            channel.status &= ~IDLE
            channel.armed = channel.length > 0
            self._reads = 0
            self.lengths.append(channel.length)

    def _place(self, offset: int) -> tuple[Channel, int]:
        # the destination lies at the channel's 0x18, the length at its 0x28, as for the other channel
        return (self.channels["S2MM"], offset - 0x30) if offset >= 0x30 else (self.channels["MM2S"], offset)

    def _control(self, channel: Channel, value: int) -> None:
        if value & RESET:
            self.resets += 1
            if self.fault == "reset":
                channel.control |= RESET
                return
            self.channels = {"MM2S": Channel(), "S2MM": Channel()}
            self.fault = self.fault if self.fault == "halted" else ""
            return
        channel.control = value
        if value & RUN and self.fault != "halted":
            channel.status &= ~HALTED

    def _move(self) -> None:
        mm2s, s2mm = self.channels["MM2S"], self.channels["S2MM"]
        kind, _, side = self.fault.partition(" ")
        if kind in ("halt", "slave", "decode", "internal"):
            if self.channels[side].armed:
                bits = {"halt": 0, "slave": SLAVE, "decode": DECODE, "internal": INTERNAL}[kind]
                self.channels[side].fail(bits)
        elif mm2s.armed and self.fault == "stuck":
            if self.monitor is not None:
                self.monitor.passed([], [])
                self.monitor.waits, self.monitor.counts[0x40] = 1, 12345
        elif mm2s.armed:
            self._pass(mm2s, s2mm)

    def _pass(self, mm2s: Channel, s2mm: Channel) -> None:
        try:
            words = self.memory.words(mm2s.address, mm2s.length // 4).tolist()
        except UnmappedError:
            mm2s.fail(DECODE)
            return
        given = [(word, at == len(words) - 1) for at, word in enumerate(words)]
        made = self.network.take(given)
        if self.fault == "no_tlast":
            made = [(word, False) for word, _ in made]
        elif self.fault == "short":
            made = [(word, at == 2) for at, (word, _) in enumerate(made)]
        if self.monitor is not None:
            self.monitor.passed(given, made)
        if self.fault != "left":
            mm2s.done()
        mm2s.armed = False
        if s2mm.armed:
            self._store(s2mm, made)

    def _store(self, s2mm: Channel, made: Sequence[Word]) -> None:
        count = next((at + 1 for at, (_, last) in enumerate(made) if last), None)
        if count is None:
            return
        if 4 * count > s2mm.length:
            s2mm.fail(INTERNAL)
            return
        try:
            self.memory.words(s2mm.address, count)[:] = [word for word, _ in made[:count]]
        except UnmappedError:
            s2mm.fail(DECODE)
            return
        s2mm.length = 4 * count
        s2mm.done()


class CachedBuffer:
    """Memory behind a cache: without a flush the DMA sees nothing, without an invalidation the processor."""

    def __init__(self, memory: np.ndarray, address: int) -> None:
        self.memory, self.address = memory, address
        self.array = np.full_like(memory, 0xDEADBEEF)
        self.closed = False

    def flush(self, size_bytes: int) -> None:
        self.memory[: size_bytes // 4] = self.array[: size_bytes // 4]

    def invalidate(self, size_bytes: int) -> None:
        self.array[: size_bytes // 4] = self.memory[: size_bytes // 4]

    def close(self) -> None:
        self.closed = True


class BoardModel:
    """A backend whose board is the model; ``monitor=False``: a design without one."""

    name = "kernel"

    def __init__(
        self, network: Network, *, monitor: bool = True, length_bits: int = 23, start: int = MEMORY_ADDRESS
    ) -> None:
        self.memory, self.network = Memory(), network
        self.dma = DmaModel(self.memory, network, length_bits=length_bits, address_bits=64)
        self.monitor = MonitorModel(network=network) if monitor else None
        self.dma.monitor = self.monitor
        self.buffers: list[CachedBuffer] = []
        self.programmed: list[Path] = []
        self.closed = False
        self._next = start

    def program(self, bitstream: Path, clock_mhz: float) -> float:
        self.programmed.append(bitstream)
        return clock_mhz

    def registers(self, address: int, span_bytes: int) -> DmaModel | MonitorModel:
        found = {DMA_ADDRESS: self.dma, MONITOR_ADDRESS: self.monitor}[address]
        assert found is not None
        return found

    def buffer(self, size_bytes: int) -> CachedBuffer:
        self.buffers.append(CachedBuffer(self.memory.add(self._next, size_bytes), self._next))
        self._next += -(-size_bytes // 4096) * 4096
        return self.buffers[-1]

    def close(self) -> None:
        self.closed = True
