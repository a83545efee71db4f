"""The monitor's Verilog in Verilator, driven clock by clock, with a record of what was seen at its ports."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from rtl_cases import VERILOG

from flow.deploy.board import monitor_registers as monitor
from flow.rtl.verilator import require

SOURCE = VERILOG / "flow_monitor.v"
OKAY, SLVERR = 0, 2

_WRITE = ("awaddr", "awvalid", "wdata", "wstrb", "wvalid", "bready")
_READ = ("araddr", "arvalid", "rready")
_WORD = ("tdata", "tkeep", "tlast", "tvalid")
INPUTS = (
    "aresetn",
    *(f"s_axi_{wire}" for wire in (*_WRITE, *_READ)),
    *(f"{stream}_{wire}" for stream in ("s_in", "s_out") for wire in _WORD),
    *("m_in_tready", "m_out_tready"),
)
OUTPUTS = (
    "network_aresetn",
    *(
        f"s_axi_{wire}"
        for wire in ("awready", "wready", "bresp", "bvalid", "arready", "rdata", "rresp", "rvalid")
    ),
    *(f"{stream}_{wire}" for stream in ("m_in", "m_out") for wire in _WORD),
    *("s_in_tready", "s_out_tready"),
)
SEEN = ("s_in_tvalid", "s_in_tready", "s_in_tlast", "m_out_tvalid", "m_out_tready", "m_out_tlast")
"""What the counters depend on."""


def built(folder: Path, design_id: int, clock_hz: int) -> Path:
    """Compile the monitor as Verilog-2001, with all of Verilator's warnings as errors."""
    lists = {"INPUTS": INPUTS, "OUTPUTS": OUTPUTS}
    (folder / "ports.h").write_text(
        "".join(
            f"#define {name}(X) {' '.join(f'X({port})' for port in ports)}\n" for name, ports in lists.items()
        ),
        encoding="utf-8",
    )
    root = require()
    subprocess.run(
        [
            *(root / "bin" / "verilator_bin", "--cc", "--exe", "--build", "--language", "1364-2001", "-Wall"),
            *("-Wno-UNUSEDSIGNAL", "--public-flat-rw", "--top-module", "flow_monitor", "--prefix", "Vtop"),
            *(f"-GDESIGN_ID=64'h{design_id:016x}", f"-GCLOCK_HZ={clock_hz}"),
            *("-CFLAGS", f"-I{folder}", "-MAKEFLAGS", "CFG_CXXFLAGS_PCH_I=-include", "--build-jobs", "2"),
            *(SOURCE, Path(__file__).with_suffix(".cpp")),
        ],
        cwd=folder,
        env={**os.environ, "VERILATOR_ROOT": str(root)},
        check=True,
        capture_output=True,
    )
    return folder / "obj_dir" / "Vtop"


class Traffic:
    """Two streams that keep AXI4-Stream's rules; rates: how often a clock brings a word, or a side takes one."""

    def __init__(self, seed: int, *, offered: float, taken: float, made: float, left: float) -> None:
        self.random = np.random.default_rng(seed)
        self.offers = {"s_in": offered, "s_out": made}
        self.takes = {"m_in_tready": taken, "m_out_tready": left}
        self.words: dict[str, dict[str, int]] = {}

    def ports(self, before: Mapping[str, int]) -> dict[str, int]:
        """Return the next clock's ports; ``before``: those of the last one."""
        ports: dict[str, int] = {}
        for stream, rate in self.offers.items():
            if before[f"{stream}_tready"]:
                self.words.pop(stream, None)
            if stream not in self.words and self.random.random() < rate:
                self.words[stream] = self._word()
            word = self.words.get(stream, dict.fromkeys(_WORD, 0))
            ports |= {f"{stream}_{wire}": value for wire, value in word.items()}
        return ports | {name: int(self.random.random() < rate) for name, rate in self.takes.items()}

    def _word(self) -> dict[str, int]:
        data, keep, last = (int(self.random.integers(0, 1 << bits)) for bits in (32, 4, 1))
        return {"tdata": data, "tkeep": keep, "tlast": last, "tvalid": 1}


class Bench:
    """The monitor in Verilator, its AXI4-Lite master, and a record of every clock."""

    def __init__(self, program: Path) -> None:
        self.process = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.inputs = dict.fromkeys(INPUTS, 0)
        self.ports = dict.fromkeys((*INPUTS, *OUTPUTS), 0)
        self.traffic: Traffic | None = None
        self.record: list[tuple[int, ...]] = []
        self.resets: list[int] = []
        for _ in range(3):
            self.clock()
        self.inputs["aresetn"] = 1
        self.since = len(self.record)
        """The first clock that the counters count."""

    @property
    def now(self) -> int:
        """Clocks so far; the next one's place in the record."""
        return len(self.record)

    def clock(self, *, set_counters: bool = False, **ports: int) -> dict[str, int]:
        """Run one clock with these input ports, which keep their values; return all ports before its edge."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.inputs |= ports
        if self.traffic is not None:
            self.inputs |= self.traffic.ports(self.ports)
        self.process.stdin.write(np.array([*self.inputs.values(), int(set_counters)], "<u4").tobytes())
        self.process.stdin.flush()
        made = np.frombuffer(self.process.stdout.read(4 * len(OUTPUTS)), "<u4").tolist()
        self.ports = self.inputs | dict(zip(OUTPUTS, made, strict=True))
        self._check_streams()
        self.record.append(tuple(self.ports[name] for name in SEEN))
        self.resets.append(self.ports["network_aresetn"])
        return self.ports

    def _check_streams(self) -> None:
        """Words pass in the same clock as they are; in reset none passes either side."""
        ports, open_ = self.ports, self.ports["network_aresetn"]
        for slave, master in (("s_in", "m_in"), ("s_out", "m_out")):
            for wire in ("tdata", "tkeep", "tlast"):
                assert ports[f"{master}_{wire}"] == ports[f"{slave}_{wire}"]
            assert ports[f"{master}_tvalid"] == (ports[f"{slave}_tvalid"] and open_)
            assert ports[f"{slave}_tready"] == (ports[f"{master}_tready"] and open_)

    def clocks(self, count: int) -> None:
        for _ in range(count):
            self.clock()

    def read(self, address: int, waits: int = 0) -> tuple[int, int, int]:
        """Return a register's value, the response, and the clock that it stands for.

        Args:
            address: in bytes.
            waits: clocks until the answer is taken; it must not change in the meantime.
        """
        ports = self.clock(s_axi_araddr=address, s_axi_arvalid=1, s_axi_rready=0)
        while not ports["s_axi_arready"]:
            ports = self.clock()
        taken = self.now - 1
        first = self.clock(s_axi_arvalid=0, s_axi_rready=int(waits == 0))
        for left in range(waits, 0, -1):
            ports = self.clock(s_axi_rready=int(left == 1))
            assert all(
                ports[f"s_axi_{wire}"] == first[f"s_axi_{wire}"] for wire in ("rvalid", "rdata", "rresp")
            )
        assert first["s_axi_rvalid"] and not first["s_axi_arready"]
        return first["s_axi_rdata"], first["s_axi_rresp"], taken

    def write(
        self, address: int, value: int, strobe: int = 0xF, after: tuple[int, int, int] = (0, 0, 0)
    ) -> int:
        """Write a register and return the response.

        Args:
            address: in bytes.
            value: 32 bits.
            strobe: which bytes.
            after: clocks until the address, the data and the readiness for the response come.
        """
        ports = {"s_axi_awaddr": address, "s_axi_wdata": value, "s_axi_wstrb": strobe}
        place, answered = 0, None
        self.inputs["s_axi_awvalid"] = self.inputs["s_axi_wvalid"] = 0
        sent = {"aw": False, "w": False}
        while True:
            for channel, clocks in zip(("aw", "w"), after, strict=False):
                ports[f"s_axi_{channel}valid"] = int(place >= clocks and not sent[channel])
            seen = self.clock(**ports, s_axi_bready=int(place >= after[2]))
            for channel in sent:
                sent[channel] |= bool(seen[f"s_axi_{channel}valid"] and seen[f"s_axi_{channel}ready"])
            place += 1
            if not seen["s_axi_bvalid"]:
                continue
            assert all(sent.values()) and not seen["s_axi_awready"] and not seen["s_axi_wready"]
            if answered is None:
                answered = seen["s_axi_bresp"]
                if address == monitor.CONTROL and value & monitor.CLEAR and strobe & 1:
                    self.since = self.now - 1
            assert seen["s_axi_bresp"] == answered
            if seen["s_axi_bready"]:
                self.inputs["s_axi_bready"] = 0
                return answered

    def expected(self, clock: int) -> dict[int, int]:
        """Return what the counters must hold in a clock, by address, from the record."""
        rows = np.array(self.record[self.since : clock], bool).reshape(-1, len(SEEN))
        in_valid, in_ready, in_last, out_valid, out_ready, out_last = rows.T
        enters, leaves = in_valid & in_ready, out_valid & out_ready
        first = int(np.argmax(enters)) if enters.any() else len(rows)
        after = np.arange(len(rows)) >= first
        ends, words = np.flatnonzero(leaves & out_last & after), np.flatnonzero(leaves & after)
        return {
            monitor.CYCLES_LOW: len(rows),
            monitor.CYCLES_HIGH: 0,
            monitor.INPUT_WORDS: int(enters.sum()),
            monitor.OUTPUT_WORDS: int(leaves.sum()),
            monitor.INPUT_LASTS: int((enters & in_last).sum()),
            monitor.OUTPUT_LASTS: int((leaves & out_last).sum()),
            monitor.LATENCY_CYCLES: int(ends[0]) - first + 1 if len(ends) else 0,
            monitor.SPAN_CYCLES: int(words[-1]) - first + 1 if len(words) else 0,
            monitor.INPUT_WAIT_CYCLES: int((in_valid & ~in_ready).sum()),
            monitor.OUTPUT_WAIT_CYCLES: int((out_valid & ~out_ready).sum()),
        }

    def counters(self) -> tuple[dict[int, int], dict[int, int]]:
        """Return all counters as they are read, one after the other, and what each must be in the clock it is read."""
        got, wanted = {}, {}
        for address in self.expected(self.now):
            got[address], answer, clock = self.read(address)
            assert answer == OKAY
            wanted[address] = self.expected(clock)[address]
        return got, wanted
