"""The registers of ``hls_templates/verilog/flow_monitor.v``: byte addresses, and what their bits mean."""

from __future__ import annotations

MAGIC_VALUE = 0x574F4C46
"""What MAGIC reads as: "FLOW", the first letter in the low byte."""
VERSION_VALUE = 1
"""What VERSION reads as; another meaning of a register gets another number."""

MAGIC = 0x00
"""Read: MAGIC_VALUE."""
VERSION = 0x04
"""Read: VERSION_VALUE."""
DESIGN_ID_LOW = 0x08
"""Read: low half of the design's id."""
DESIGN_ID_HIGH = 0x0C
"""Read: high half of the design's id."""
CLOCK_HZ = 0x10
"""Read: the clock that the design was built for, in Hz."""
CONTROL = 0x14
"""Read and write: CLEAR, HOLD."""
STATUS = 0x18
"""Read: INPUT_WAITS, OUTPUT_WAITS, IN_RESET."""
CYCLES_LOW = 0x20
"""Read: clocks since the clear, low half; keeps the high half for CYCLES_HIGH."""
CYCLES_HIGH = 0x24
"""Read: clocks since the clear, high half, as it was when CYCLES_LOW was read."""
INPUT_WORDS = 0x28
"""Read: words from the DMA to the network."""
OUTPUT_WORDS = 0x2C
"""Read: words from the network to the DMA."""
INPUT_LASTS = 0x30
"""Read: words from the DMA with TLAST."""
OUTPUT_LASTS = 0x34
"""Read: words from the network with TLAST."""
LATENCY_CYCLES = 0x38
"""Read: clocks from the first word in to the first word out with TLAST, both counted; 0: none yet."""
SPAN_CYCLES = 0x3C
"""Read: clocks from the first word in to the latest word out, both counted; 0: none yet."""
INPUT_WAIT_CYCLES = 0x40
"""Read: clocks in which a word waited for the network."""
OUTPUT_WAIT_CYCLES = 0x44
"""Read: clocks in which a word waited for the DMA."""

CLEAR = 1 << 0
"""Of CONTROL: writing 1 sets every counter to 0; reads 0."""
HOLD = 1 << 1
"""Of CONTROL: holds the network in reset; no word passes then."""

INPUT_WAITS = 1 << 0
"""Of STATUS: a word waits for the network."""
OUTPUT_WAITS = 1 << 1
"""Of STATUS: a word waits for the DMA."""
IN_RESET = 1 << 2
"""Of STATUS: the network is in reset."""
