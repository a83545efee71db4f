"""Why a transfer failed: the register, its value, what it says and what to check."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .dma_registers import Channel, Dma, Job
from .errors import DmaError

REGISTERS = {
    "MM2S_DMACR": 0x00,
    "MM2S_DMASR": 0x04,
    "MM2S_SA": 0x18,
    "MM2S_LENGTH": 0x28,
    "S2MM_DMACR": 0x30,
    "S2MM_DMASR": 0x34,
    "S2MM_DA": 0x48,
    "S2MM_LENGTH": 0x58,
}
_HALTED, _IDLE = 1 << 0, 1 << 1
_ERRORS = {6: ("decode", "decode error"), 5: ("slave", "slave error"), 4: ("internal", "internal error")}


def failed(dma: Dma, channel: Channel, status: int, job: Job) -> DmaError:
    """Return what an error bit of a channel's status stands for."""
    cause = next(name for bit, (name, _) in _ERRORS.items() if status >> bit & 1)
    reads = channel.name == "MM2S"
    address, size = (job.source, job.source_bytes) if reads else (job.destination, job.destination_bytes)
    verb = "read from" if reads else "write to"
    rule, check = {
        "decode": (
            f"{channel.name} must {verb} addresses that are mapped, not {address:#010x} ({size} bytes)",
            "check that the buffer lies in memory that the DMA's port is mapped to, and the manifest's address_bits",
        ),
        "slave": (
            f"{channel.name} must {verb} memory that answers, not {address:#010x} ({size} bytes)",
            "check that the memory behind that address is there and that the port may use it",
        ),
        "internal": (
            f"{channel.name} must move {size} bytes, not stop inside",
            f"a length of 0, one of more than {dma.length_bits} bits, or a result that is longer than the buffer: "
            "check that manifest and overlay are of one build",
        ),
    }[cause]
    return _error(dma, cause, rule, f"{channel.name}_DMASR", check)


def halted(dma: Dma, channel: Channel, job: Job) -> DmaError:
    """Return what a channel says that stands still without an error."""
    return _error(
        dma,
        "halted",
        f"{channel.name} must run, not be halted",
        f"{channel.name}_DMASR",
        "something else stops it: end other programs that use this DMA",
    )


def timed_out(dma: Dma, job: Job) -> DmaError:
    """Return who waits for whom when the time is over."""
    sent, received = (dma.registers.read(REGISTERS[f"{name}_DMASR"]) & _IDLE for name in ("MM2S", "S2MM"))
    if sent:
        return _error(
            dma,
            "no_tlast",
            f"the network must end the batch with TLAST, not leave S2MM open for {job.timeout_s:g} s",
            "S2MM_DMASR",
            f"all {job.source_bytes} bytes went in (MM2S is idle): check that the network gives "
            f"{job.destination_bytes} bytes for them and passes TLAST on to the last word",
        )
    if received:
        return _error(
            dma,
            "input_left",
            f"the network must take all {job.source_bytes} bytes before it ends the batch, not leave some for "
            f"{job.timeout_s:g} s",
            "MM2S_DMASR",
            "the result is complete: check that manifest and overlay are of one build",
        )
    return _error(
        dma,
        "input_not_taken",
        f"the network must take {job.source_bytes} bytes, not stop for {job.timeout_s:g} s",
        "MM2S_DMASR",
        "it is stalled or in reset: check its clock and its reset, or raise the time limit",
    )


def short(dma: Dma, received_bytes: int, job: Job) -> DmaError:
    """Return what an early TLAST says."""
    return _error(
        dma,
        "short",
        f"the network must end the batch after {job.destination_bytes} bytes, not after {received_bytes}",
        "S2MM_LENGTH",
        "TLAST must come once, at the end of the batch: check that manifest and overlay are of one build",
    )


def reset_hangs(dma: Dma) -> DmaError:
    """Return what a reset bit says that stays."""
    return _error(
        dma,
        "reset",
        f"the reset must end within {dma.limit_s:g} s, not go on",
        "MM2S_DMACR",
        "check that the overlay is programmed and that its clock runs; power the board off and on if it stays",
    )


def counted(counters: Mapping[str, int]) -> str:
    """Return a monitor's counters as text."""
    text = (
        f"monitor: {counters['input_words']} words in ({counters['input_lasts']} TLAST), "
        f"{counters['output_words']} words out ({counters['output_lasts']} TLAST), input waited "
        f"{counters['input_wait_cycles']} cycles, output waited {counters['output_wait_cycles']} cycles"
    )
    states = {
        "input_waits": "an input word waits",
        "output_waits": "an output word waits",
        "in_reset": "in reset",
    }
    return ", ".join([text, *(said for key, said in states.items() if counters[key])])


def _error(dma: Dma, cause: str, rule: str, register: str, check: str) -> DmaError:
    values = {name: dma.registers.read(offset) for name, offset in REGISTERS.items()}
    monitor = _read(dma.counters)
    value = values[register]
    place = f"{register} ({REGISTERS[register]:#04x})"
    message = f"dma: {rule}; {place} is {value:#010x}: {_says(register, value)}; {check}"
    if monitor is not None:
        message += f"; {counted(monitor)}"
    found: dict[str, Any] = {
        "cause": cause,
        "register": register,
        "registers": {name: f"{number:#010x}" for name, number in values.items()},
        "monitor": monitor,
    }
    return DmaError(message, found)


def _read(counters: Callable[[], Mapping[str, int]] | None) -> dict[str, int] | None:
    return None if counters is None else dict(counters())


def _says(register: str, value: int) -> str:
    if register.endswith("LENGTH"):
        return f"{value} bytes"
    if register.endswith("DMACR"):
        return "reset goes on"
    said = [text for bit, (_, text) in _ERRORS.items() if value >> bit & 1]
    said.append("halted" if value & _HALTED else "running")
    if not value & _HALTED:
        said.append("idle" if value & _IDLE else "not idle")
    return ", ".join(said)
