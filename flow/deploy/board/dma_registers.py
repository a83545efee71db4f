"""The registers of the AXI DMA, and a transfer as they take it.

Source: AMD PG021, AXI DMA v7.1, "Direct Register Mode Register Address Map".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol


class Registers(Protocol):
    """32-bit registers; offsets in bytes."""

    def read(self, offset: int) -> int:
        """Return a register."""

    def write(self, offset: int, value: int) -> None:
        """Set a register."""


class Channel(NamedTuple):
    """Offsets of a channel's registers."""

    name: str
    control: int
    status: int
    address: int
    address_high: int
    length: int


class Job(NamedTuple):
    """A transfer: physical addresses, lengths, and how long it may take."""

    source: int
    source_bytes: int
    destination: int
    destination_bytes: int
    timeout_s: float


class Dma(Protocol):
    """What a diagnosis looks at; `flow_board.dma.AxiDma` says what each is."""

    registers: Registers
    length_bits: int
    counters: Callable[[], Mapping[str, int]] | None
    limit_s: float
