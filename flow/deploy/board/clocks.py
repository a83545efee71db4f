"""The fabric's first clock: a PLL of the processor and two dividers.

Sources: Zynq-7000 TRM (UG585), SLCR; Zynq UltraScale+ registers (UG1087), CRL_APB. The gate of a Zynq-7000's clock is
bit 0 of FPGA0_THR_CNT, by which Linux (drivers/clk/zynq/clkc.c) stops clocks that no driver uses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from .dma_registers import Registers
from .errors import BoardError

CLOCK_TOLERANCE = 0.01
"""Dividers of a PLL do not reach every rate; a design meets its timing with more to spare than this."""


class Pll(NamedTuple):
    """A PLL's control register: its offset, where the feedback divider lies, and the bit that halves its output."""

    offset: int
    feedback_shift: int
    halved_bit: int | None


class Layout(NamedTuple):
    """The clock's registers of a chip."""

    base: int
    control: int
    name: str
    source_shift: int
    source_mask: int
    shifts: tuple[int, int]
    plls: Mapping[int, Pll]


_IO_PLL = Pll(0x108, 12, None)
LAYOUTS = {
    "zynq7000": Layout(
        0xF8000000,
        0x170,
        "FPGA0_CLK_CTRL",
        4,
        3,
        (8, 20),
        {0: _IO_PLL, 1: _IO_PLL, 2: Pll(0x100, 12, None), 3: Pll(0x104, 12, None)},
    ),
    # the third source, the DDR's PLL, passes a divider of another block first: it is not read, but replaced
    "zynq_ultrascale": Layout(
        0xFF5E0000, 0xC0, "PL0_REF_CTRL", 0, 7, (8, 16), {0: Pll(0x20, 8, 16), 2: Pll(0x30, 8, 16)}
    ),
}
SPAN_BYTES = 0x1000
LOCK, UNLOCK, LOCK_STATE, GATE = 0x04, 0x08, 0x0C, 0x178  # of the SLCR
LOCK_KEY, UNLOCK_KEY = 0x767B, 0xDF0D
ACTIVE = 1 << 24  # of PL0_REF_CTRL


class FabricClock:
    """The first clock of the fabric.

    Args:
        ps: ``zynq7000`` or ``zynq_ultrascale``.
        crystal_mhz: what its PLLs multiply.
        registers: from address and span in bytes to registers.
    """

    def __init__(self, ps: str, crystal_mhz: float, registers: Callable[[int, int], Registers]) -> None:
        self._layout, self._crystal_mhz = LAYOUTS[ps], crystal_mhz
        self._registers = registers(self._layout.base, SPAN_BYTES)

    def rate_mhz(self) -> float:
        """Return the rate that the registers say; 0: it stands, or its source is not known."""
        layout, control = self._layout, self._registers.read(self._layout.control)
        source_mhz = self._source_mhz(control >> layout.source_shift & layout.source_mask)
        divider = (control >> layout.shifts[0] & 63) * (control >> layout.shifts[1] & 63)
        return 0.0 if not divider or not self._runs(control) else source_mhz / divider

    def set(self, clock_mhz: float) -> float:
        """Set the clock where it is another, and return its rate as it is read back.

        Raises:
            BoardError: the dividers do not reach it, or the register does not take them.
        """
        if not near(self.rate_mhz(), clock_mhz):
            self._write(self._control_for(clock_mhz))
        found_mhz = self.rate_mhz()
        if not near(found_mhz, clock_mhz):
            address = self._layout.base + self._layout.control
            raise BoardError(
                f"clock: {self._layout.name} ({address:#x}) must give the {clock_mhz:g} MHz that the design is built "
                f"for, not {found_mhz:.6g} MHz ({self._registers.read(self._layout.control):#010x}); check "
                "crystal_mhz, and whether the firmware lets Linux set it"
            )
        return found_mhz

    def _source_mhz(self, source: int) -> float:
        pll = self._layout.plls.get(source)
        if pll is None:
            return 0.0
        value = self._registers.read(pll.offset)
        halved = pll.halved_bit is not None and value >> pll.halved_bit & 1
        return self._crystal_mhz * (value >> pll.feedback_shift & 127) / (2 if halved else 1)

    def _control_for(self, clock_mhz: float) -> int:
        layout, control = self._layout, self._registers.read(self._layout.control)
        source = control >> layout.source_shift & layout.source_mask
        if source not in layout.plls:
            source = 0
        source_mhz = self._source_mhz(source)
        # of rates equally far the slower, of equal products the one with the smaller second divider
        _, _, second, first = min(
            (abs(source_mhz / (first * second) - clock_mhz), -first * second, second, first)
            for second in range(1, 64)
            for first in range(1, 64)
        )
        for shift, mask, value in (
            (layout.source_shift, layout.source_mask, source),
            (layout.shifts[0], 63, first),
            (layout.shifts[1], 63, second),
        ):
            control = control & ~(mask << shift) | value << shift
        return control

    def _runs(self, control: int) -> bool:
        if self._layout.base == LAYOUTS["zynq7000"].base:
            return not self._registers.read(GATE) & 1
        return bool(control & ACTIVE)

    def _write(self, control: int) -> None:
        if self._layout.base != LAYOUTS["zynq7000"].base:
            self._registers.write(self._layout.control, control | ACTIVE)
            return
        # Linux leaves the SLCR unlocked, and its drivers write to it without asking: it stays as it was found
        locked = self._registers.read(LOCK_STATE) & 1
        if locked:
            self._registers.write(UNLOCK, UNLOCK_KEY)
        self._registers.write(self._layout.control, control)
        self._registers.write(GATE, self._registers.read(GATE) & ~1)
        if locked:
            self._registers.write(LOCK, LOCK_KEY)


def near(rate_mhz: float, wanted_mhz: float) -> bool:
    """Return whether a clock is the wanted one."""
    return abs(rate_mhz - wanted_mhz) <= CLOCK_TOLERANCE * wanted_mhz
