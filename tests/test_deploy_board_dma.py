"""The DMA's driver against the register model: transfers, every failure's whole message, and the next transfer."""

from __future__ import annotations

import numpy as np
import pytest
from dma_model import MEMORY_ADDRESS, DmaModel, Memory, MonitorModel, Network

from flow.deploy.board.dma import AxiDma
from flow.deploy.board.errors import BoardError, DmaError
from flow.deploy.board.monitor import Monitor

SOURCE, DESTINATION = MEMORY_ADDRESS, MEMORY_ADDRESS + 0x1000
COUNTED = (
    "; monitor: 8 words in (1 TLAST), 6 words out (1 TLAST), input waited 0 cycles, output waited 0 cycles"
)


class Bench:
    """Frames of 4 words in and 3 out: their sums with what follows."""

    def __init__(self, start: int = MEMORY_ADDRESS, *, monitor: bool = False, **options: int) -> None:
        self.memory = Memory()
        self.given = self.memory.add(start, 0x1000)
        self.made = self.memory.add(start + 0x1000, 0x1000)
        self.start = start
        network = Network(4, 3, lambda words: [words[at] + words[at + 1] for at in range(3)])
        self.model = DmaModel(self.memory, network, **options)
        self.model.monitor = MonitorModel(network=network) if monitor else None
        counters = None if self.model.monitor is None else Monitor(self.model.monitor).counters
        self.dma = AxiDma(self.model, self.model.length_bits, self.model.address_bits, counters, limit_s=0.01)
        self.dma.reset()

    def transfer(self, frames: int = 2, *, timeout_s: float = 0.02, extra_out: int = 0) -> None:
        self.given[: 4 * frames] = np.arange(4 * frames) ** 2
        self.dma.transfer(
            self.start, 16 * frames, self.start + 0x1000, 12 * frames + 4 * extra_out, timeout_s
        )

    def check(self, frames: int = 2) -> None:
        rows = (np.arange(4 * frames) ** 2).reshape(frames, 4)
        assert self.made[: 3 * frames].tolist() == (rows[:, :3] + rows[:, 1:]).reshape(-1).tolist()


@pytest.mark.parametrize("frames", [1, 2, 7, 85])
def test_a_transfer_carries_any_number_of_frames(frames: int) -> None:
    bench = Bench()
    bench.transfer(frames)
    bench.check(frames)
    assert bench.model.lengths == [12 * frames, 16 * frames]  # the receiver is armed first


def test_completion_bits_are_cleared_before_the_next_transfer() -> None:
    bench = Bench()
    bench.transfer()
    statuses = []
    write = bench.model.write

    def watched(offset: int, value: int) -> None:
        write(offset, value)
        if offset in (0x04, 0x34):
            statuses.append(bench.model.channels["MM2S" if offset == 0x04 else "S2MM"].status & 0x7000)

    bench.model.write = watched  # type: ignore[method-assign]
    bench.transfer()
    bench.check()
    assert statuses == [0, 0]


def test_addresses_above_32_bits_go_to_both_halves() -> None:
    bench = Bench(start=0x8_7000_0000, address_bits=40)
    bench.transfer()
    bench.check()
    assert bench.model.channels["MM2S"].address == 0x8_7000_0000
    assert bench.model.channels["S2MM"].address == 0x8_7000_1000


def test_a_transfer_that_takes_long_is_waited_for_with_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("time.sleep", pauses.append)
    bench = Bench(polls=1000)
    bench.transfer(timeout_s=20)
    bench.check()
    assert 200 < len(pauses) < 500 and pauses[0] == 20e-6 and max(pauses) == 1e-3


def test_the_longest_transfer_is_what_the_length_registers_hold() -> None:
    assert Bench(length_bits=8).dma.largest_bytes == 252
    assert Bench(length_bits=23).dma.largest_bytes == (1 << 23) - 4


@pytest.mark.parametrize("size", [0, 2, 6, 256, 1 << 20])
def test_a_length_that_is_not_the_registers_is_refused_before_anything_starts(size: int) -> None:
    bench = Bench(length_bits=8)
    with pytest.raises(ValueError) as caught:
        bench.dma.transfer(SOURCE, size, DESTINATION, 12, 0.1)
    assert str(caught.value) == (
        f"dma: source must have 4 to 252 bytes in whole words (8 bits of length), not {size}; cut the batch"
    )
    assert bench.model.lengths == []


@pytest.mark.parametrize("address", [0x1000_0002, 1 << 32, (1 << 32) - 8, -4])
def test_an_address_that_the_dma_cannot_reach_is_refused(address: int) -> None:
    bench = Bench()
    with pytest.raises(ValueError) as caught:
        bench.dma.transfer(SOURCE, 16, address, 12, 0.1)
    assert str(caught.value) == (
        f"dma: destination must lie at a multiple of 4 below 2**32, not at {address:#x}; allocate it elsewhere"
    )


ONE_BUILD = "check that manifest and overlay are of one build"
FAULTS = {
    "no_tlast": (
        "no_tlast",
        "dma: the network must end the batch with TLAST, not leave S2MM open for 0.02 s; S2MM_DMASR (0x34) is "
        "0x00000000: running, not idle; all 32 bytes went in (MM2S is idle): check that the network gives 24 bytes for "
        "them and passes TLAST on to the last word",
    ),
    "stuck": (
        "input_not_taken",
        "dma: the network must take 32 bytes, not stop for 0.02 s; MM2S_DMASR (0x04) is 0x00000000: running, not "
        "idle; it is stalled or in reset: check its clock and its reset, or raise the time limit",
    ),
    "left": (
        "input_left",
        "dma: the network must take all 32 bytes before it ends the batch, not leave some for 0.02 s; MM2S_DMASR "
        f"(0x04) is 0x00000000: running, not idle; the result is complete: {ONE_BUILD}",
    ),
    "short": (
        "short",
        "dma: the network must end the batch after 24 bytes, not after 12; S2MM_LENGTH (0x58) is 0x0000000c: 12 bytes; "
        f"TLAST must come once, at the end of the batch: {ONE_BUILD}",
    ),
    "halt MM2S": (
        "halted",
        "dma: MM2S must run, not be halted; MM2S_DMASR (0x04) is 0x00000001: halted; something else stops it: end "
        "other programs that use this DMA",
    ),
    "halt S2MM": (
        "halted",
        "dma: S2MM must run, not be halted; S2MM_DMASR (0x34) is 0x00000001: halted; something else stops it: end "
        "other programs that use this DMA",
    ),
    "decode MM2S": (
        "decode",
        "dma: MM2S must read from addresses that are mapped, not 0x10000000 (32 bytes); MM2S_DMASR (0x04) is "
        "0x00000041: decode error, halted; check that the buffer lies in memory that the DMA's port is mapped to, and "
        "the manifest's address_bits",
    ),
    "decode S2MM": (
        "decode",
        "dma: S2MM must write to addresses that are mapped, not 0x10001000 (24 bytes); S2MM_DMASR (0x34) is "
        "0x00000041: decode error, halted; check that the buffer lies in memory that the DMA's port is mapped to, and "
        "the manifest's address_bits",
    ),
    "slave MM2S": (
        "slave",
        "dma: MM2S must read from memory that answers, not 0x10000000 (32 bytes); MM2S_DMASR (0x04) is 0x00000021: "
        "slave error, halted; check that the memory behind that address is there and that the port may use it",
    ),
    "slave S2MM": (
        "slave",
        "dma: S2MM must write to memory that answers, not 0x10001000 (24 bytes); S2MM_DMASR (0x34) is 0x00000021: "
        "slave error, halted; check that the memory behind that address is there and that the port may use it",
    ),
    "internal MM2S": (
        "internal",
        "dma: MM2S must move 32 bytes, not stop inside; MM2S_DMASR (0x04) is 0x00000011: internal error, halted; a "
        f"length of 0, one of more than 23 bits, or a result that is longer than the buffer: {ONE_BUILD}",
    ),
    "internal S2MM": (
        "internal",
        "dma: S2MM must move 24 bytes, not stop inside; S2MM_DMASR (0x34) is 0x00000011: internal error, halted; a "
        f"length of 0, one of more than 23 bits, or a result that is longer than the buffer: {ONE_BUILD}",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_failure_says_what_the_registers_say_and_the_next_transfer_works(fault: str) -> None:
    bench = Bench()
    bench.model.fault = fault
    with pytest.raises(DmaError) as caught:
        bench.transfer()
    cause, message = FAULTS[fault]
    assert str(caught.value) == message
    assert caught.value.diagnosis["cause"] == cause
    assert caught.value.diagnosis["monitor"] is None
    bench.transfer()
    bench.check()


@pytest.mark.parametrize("fault", FAULTS)
def test_a_failure_after_a_good_transfer_is_noticed_too(fault: str) -> None:
    bench = Bench()
    bench.transfer()
    bench.model.fault = fault
    with pytest.raises(DmaError):
        bench.transfer()
    bench.made[:] = 0
    bench.transfer()
    bench.check()


def test_a_buffer_outside_memory_is_a_decode_error() -> None:
    bench = Bench()
    for source, destination in ((0x2000_0000, DESTINATION), (SOURCE, 0x2000_0000)):
        with pytest.raises(
            DmaError, match="must (read from|write to) addresses that are mapped, not 0x20000000"
        ):
            bench.dma.transfer(source, 32, destination, 24, 0.1)
    bench.transfer()
    bench.check()


def test_a_result_longer_than_the_buffer_is_an_internal_error() -> None:
    bench = Bench()
    with pytest.raises(DmaError, match="S2MM must move 20 bytes, not stop inside"):
        bench.transfer(extra_out=-1)
    bench.transfer()
    bench.check()


def test_a_result_shorter_than_the_buffer_is_a_short_transfer() -> None:
    bench = Bench()
    with pytest.raises(DmaError, match="after 28 bytes, not after 24"):
        bench.transfer(extra_out=1)


def test_a_diagnosis_holds_every_register_and_goes_into_json() -> None:
    bench = Bench()
    bench.model.fault = "short"
    with pytest.raises(DmaError) as caught:
        bench.transfer()
    assert caught.value.diagnosis["registers"] == {
        "MM2S_DMACR": "0x00010003",
        "MM2S_DMASR": "0x00001002",
        "MM2S_SA": "0x10000000",
        "MM2S_LENGTH": "0x00000020",
        "S2MM_DMACR": "0x00010003",
        "S2MM_DMASR": "0x00001002",
        "S2MM_DA": "0x10001000",
        "S2MM_LENGTH": "0x0000000c",
    }


def test_a_monitor_adds_what_it_counted() -> None:
    bench = Bench(monitor=True)
    bench.model.fault = "short"
    with pytest.raises(DmaError) as caught:
        bench.transfer()
    assert str(caught.value) == FAULTS["short"][1] + COUNTED
    assert caught.value.diagnosis["monitor"]["input_words"] == 8
    assert bench.model.monitor is not None
    Monitor(bench.model.monitor).clear()
    bench.model.fault = "stuck"
    with pytest.raises(DmaError) as caught:
        bench.transfer()
    assert str(caught.value) == FAULTS["stuck"][1] + (
        "; monitor: 0 words in (0 TLAST), 0 words out (0 TLAST), input waited 12345 cycles, output waited 0 cycles, an "
        "input word waits"
    )


def test_a_reset_that_never_ends_is_an_error() -> None:
    bench = Bench()
    bench.model.fault = "reset"
    with pytest.raises(DmaError) as caught:
        bench.dma.reset()
    assert str(caught.value) == (
        "dma: the reset must end within 0.01 s, not go on; MM2S_DMACR (0x00) is 0x00010006: reset goes on; check that "
        "the overlay is programmed and that its clock runs; power the board off and on if it stays"
    )


def test_a_reset_that_never_ends_after_a_failure_is_told_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench()
    bench.model.fault = "stuck"
    control = bench.model._control

    def hanging(channel: object, value: int) -> None:
        bench.model.fault = "reset" if value & 4 else bench.model.fault
        control(channel, value)  # type: ignore[arg-type]

    monkeypatch.setattr(bench.model, "_control", hanging)
    with pytest.raises(DmaError) as caught:
        bench.transfer()
    first, _, second = str(caught.value).partition("; then ")
    assert first == FAULTS["stuck"][1]
    assert second.startswith("dma: the reset must end within 0.01 s, not go on; ")
    assert caught.value.diagnosis["cause"] == "input_not_taken"
    assert caught.value.diagnosis["reset"] == second


def test_a_channel_that_does_not_start_is_an_error() -> None:
    bench = Bench()
    bench.model.fault = "halted"
    with pytest.raises(
        DmaError, match=r"MM2S must run, not be halted; MM2S_DMASR \(0x04\) is 0x00000001: halted"
    ):
        bench.transfer()
    bench.model.fault = ""
    bench.transfer()
    bench.check()


def test_a_dma_with_scatter_gather_is_refused() -> None:
    bench = Bench()
    bench.model.gather = True
    with pytest.raises(BoardError) as caught:
        bench.dma.reset()
    assert str(caught.value) == (
        "dma: it must be in direct register mode, not have scatter-gather (MM2S_DMASR (0x04) is 0x00000009); build the "
        "design with c_include_sg 0"
    )


def test_the_model_ignores_a_length_while_halted_and_cuts_it_to_its_width() -> None:
    bench = Bench(length_bits=8)
    bench.model.write(0x28, 16)
    assert bench.model.lengths == [] and bench.model.read(0x28) == 0
    bench.model.write(0x00, 1)
    bench.model.write(0x28, 256 + 16)
    assert bench.model.lengths == [16]
