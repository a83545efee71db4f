"""The monitor beside the network: which design is on the fabric, what passed its streams, how long it took."""

from __future__ import annotations

import time

from . import monitor_registers as at
from .dma_registers import Registers
from .errors import BoardError

CLOCK_TOLERANCE = 0.01
MEASURED_TOLERANCE = 0.05
"""Wider than the clock's own: an interval that Python times is off by what the scheduler takes."""
INTERVAL_S, ATTEMPTS = 0.02, 5


class Monitor:
    """The monitor's registers by name; counters stand for what passed since `clear`.

    Args:
        registers: its registers.
    """

    def __init__(self, registers: Registers) -> None:
        self.registers = registers

    def check(self, design_id: str, clock_mhz: float) -> None:
        """Compare the design on the fabric, and its clock as measured, with the manifest.

        Raises:
            BoardError: another design answers, or the clock is another.
        """
        magic, version = self.registers.read(at.MAGIC), self.registers.read(at.VERSION)
        if magic != at.MAGIC_VALUE:
            raise BoardError(
                f"monitor: magic must be {at.MAGIC_VALUE:#010x}, not {magic:#010x}; the overlay on the fabric is "
                "another design: program the bundle's"
            )
        if version != at.VERSION_VALUE:
            raise BoardError(
                f"monitor: version must be {at.VERSION_VALUE}, not {version}; take flow_board and the overlay from one "
                "bundle"
            )
        if self.design_id() != design_id:
            raise BoardError(
                f"monitor: design must be {design_id}, not {self.design_id()}; the overlay on the fabric is another "
                "design: program the bundle's"
            )
        self._check_clock(clock_mhz)

    def design_id(self) -> str:
        """Return the design's 16 hexadecimal digits."""
        return f"{self.registers.read(at.DESIGN_ID_HIGH):08x}{self.registers.read(at.DESIGN_ID_LOW):08x}"

    def cycles(self) -> int:
        """Return the clocks counted; the counter runs freely."""
        low = self.registers.read(at.CYCLES_LOW)  # latches the upper half
        return self.registers.read(at.CYCLES_HIGH) << 32 | low

    def clear(self) -> None:
        """Set the counters to 0."""
        self.registers.write(at.CONTROL, at.CLEAR)

    def reset_network(self) -> None:
        """Reset the network, so that nothing of an earlier batch is left in it, and clear the counters.

        Raises:
            BoardError: it stays in reset.
        """
        self.registers.write(at.CONTROL, at.HOLD | at.CLEAR)
        self.registers.write(at.CONTROL, 0)
        for _ in range(1000):  # the release passes a synchronizer of some clocks
            if not self.registers.read(at.STATUS) & at.IN_RESET:
                return
        raise BoardError(
            f"monitor: network must leave its reset, not stay in it (status (0x18) is "
            f"{self.registers.read(at.STATUS):#010x}); check that its clock runs"
        )

    def latency_cycles(self) -> int:
        """Return the clocks from the first word in to the first word out with TLAST; 0: none yet."""
        return self.registers.read(at.LATENCY_CYCLES)

    def span_cycles(self) -> int:
        """Return the clocks from the first word in to the last word out."""
        return self.registers.read(at.SPAN_CYCLES)

    def counters(self) -> dict[str, int]:
        """Return every counter and state by name."""
        status = self.registers.read(at.STATUS)
        return {
            "input_words": self.registers.read(at.INPUT_WORDS),
            "output_words": self.registers.read(at.OUTPUT_WORDS),
            "input_lasts": self.registers.read(at.INPUT_LASTS),
            "output_lasts": self.registers.read(at.OUTPUT_LASTS),
            "latency_cycles": self.latency_cycles(),
            "span_cycles": self.span_cycles(),
            "input_wait_cycles": self.registers.read(at.INPUT_WAIT_CYCLES),
            "output_wait_cycles": self.registers.read(at.OUTPUT_WAIT_CYCLES),
            "input_waits": status & at.INPUT_WAITS,
            "output_waits": (status & at.OUTPUT_WAITS) >> 1,
            "in_reset": (status & at.IN_RESET) >> 2,
        }

    def _check_clock(self, clock_mhz: float) -> None:
        built_mhz = self.registers.read(at.CLOCK_HZ) / 1e6
        if clock_mhz > (1 + CLOCK_TOLERANCE) * built_mhz:  # a slower clock only costs time
            raise BoardError(
                f"monitor: design must be built for the manifest's {clock_mhz:g} MHz or more, not {built_mhz:g} MHz; "
                "take manifest and overlay from one build"
            )
        for _ in range(ATTEMPTS):  # a busy processor may spoil one interval
            measured_mhz = self._measured_mhz()
            if abs(measured_mhz - clock_mhz) <= MEASURED_TOLERANCE * clock_mhz:
                return
        raise BoardError(
            f"monitor: clock on the fabric must be the manifest's {clock_mhz:g} MHz, not {measured_mhz:.3g} MHz as "
            "measured; check the processor's PLLs and crystal_mhz"
        )

    def _measured_mhz(self) -> float:
        first, start = self.cycles(), time.perf_counter()
        time.sleep(INTERVAL_S)
        last, end = self.cycles(), time.perf_counter()
        return (last - first) / (end - start) / 1e6
