"""The monitor's Verilog, clock by clock, against counts of what was seen at its ports; its text and its netlist."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import needs
from monitor_bench import INPUTS, OKAY, OUTPUTS, SLVERR, SOURCE, Bench, Traffic, built
from rtl_cases import VERILOG, needs_verilator

from flow.deploy.board import monitor_registers as monitor
from flow.deploy.board.monitor import Monitor as BoardMonitor

DESIGN_ID, CLOCK_MHZ = 0xFEDCBA9876543210, 125


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(tmp_path_factory.mktemp("monitor"), DESIGN_ID, CLOCK_MHZ * 10**6)


@pytest.fixture
def bench(program: Path) -> Iterator[Bench]:
    made = Bench(program)
    yield made
    assert made.process.stdin is not None and made.process.stdout is not None
    made.process.stdin.close()
    made.process.stdout.close()
    assert made.process.wait(timeout=10) == 0


def busy(seed: int = 0) -> Traffic:
    return Traffic(seed, offered=0.7, taken=0.6, made=0.6, left=0.7)


@needs_verilator
class TestMonitor:
    """One build; a run of its own for every test."""

    def test_it_says_which_design_and_which_clock(self, bench: Bench) -> None:
        addresses = (
            monitor.MAGIC,
            monitor.VERSION,
            monitor.DESIGN_ID_LOW,
            monitor.DESIGN_ID_HIGH,
            monitor.CLOCK_HZ,
        )
        assert [bench.read(address)[:2] for address in addresses] == [
            (int.from_bytes(b"FLOW", "little"), OKAY),
            (1, OKAY),
            (DESIGN_ID & 0xFFFFFFFF, OKAY),
            (DESIGN_ID >> 32, OKAY),
            (CLOCK_MHZ * 10**6, OKAY),
        ]

    @pytest.mark.parametrize(
        ("offered", "taken", "made", "left"),
        [
            (1, 1, 1, 1),
            (0.5, 0.5, 0.5, 0.5),
            (1, 0.1, 0.2, 1),
            (0.2, 1, 1, 0.1),
            (0.02, 0.9, 0.03, 0.9),
            (0, 1, 0.5, 1),
        ],
    )
    def test_counters_are_exact_whatever_stalls(
        self, bench: Bench, offered: float, taken: float, made: float, left: float
    ) -> None:
        for seed in range(5):
            bench.traffic = Traffic(seed, offered=offered, taken=taken, made=made, left=left)
            bench.write(monitor.CONTROL, monitor.CLEAR, after=(seed % 3, seed % 2, 0))
            for clocks in (0, 1, 7, 60):
                bench.clocks(clocks)
                got, wanted = bench.counters()
                assert got == wanted

    def test_counters_start_when_the_reset_ends(self, bench: Bench) -> None:
        bench.traffic = busy()
        bench.clocks(40)
        got, wanted = bench.counters()
        assert got == wanted
        bench.inputs["aresetn"] = 0
        bench.clocks(3)
        assert bench.resets[-2:] == [0, 0]
        bench.inputs["aresetn"] = 1
        bench.since = bench.now
        got, wanted = bench.counters()
        assert got == wanted

    def test_words_that_leave_before_one_has_come_in_begin_no_latency(self, bench: Bench) -> None:
        word = {"s_out_tvalid": 1, "s_out_tlast": 1, "m_out_tready": 1}
        bench.clock()
        bench.clock(**word)
        bench.clock(s_out_tvalid=0)
        assert [bench.read(address)[0] for address in (monitor.LATENCY_CYCLES, monitor.SPAN_CYCLES)] == [0, 0]
        bench.clock(s_in_tvalid=1, m_in_tready=1)
        bench.clock(s_in_tvalid=0)
        bench.clock(**word | {"s_out_tlast": 0})
        bench.clock(s_out_tvalid=0)
        assert [bench.read(address)[0] for address in (monitor.LATENCY_CYCLES, monitor.SPAN_CYCLES)] == [0, 3]

    def test_the_clear_sets_all_counters_to_0_and_reads_0(self, bench: Bench) -> None:
        bench.traffic = busy()
        bench.clocks(100)
        bench.traffic = Traffic(0, offered=0, taken=0, made=0, left=0)
        bench.clocks(2)
        bench.inputs |= dict.fromkeys((f"{stream}_tvalid" for stream in ("s_in", "s_out")), 0)
        bench.traffic = None
        assert bench.write(monitor.CONTROL, monitor.CLEAR) == OKAY
        assert bench.read(monitor.CONTROL)[:2] == (0, OKAY)
        got, wanted = bench.counters()
        assert got == wanted
        del got[monitor.CYCLES_LOW]
        assert set(got.values()) == {0}

    def test_the_high_half_of_the_clocks_stays_as_it_was_when_the_low_half_was_read(
        self, bench: Bench
    ) -> None:
        bench.clock(set_counters=True)
        start = bench.now - 1
        low, _, clock = bench.read(monitor.CYCLES_LOW)
        assert 1 << 32 | low == 0x1FFFFFFC0 + clock - start
        bench.clocks(100)
        assert bench.read(monitor.CYCLES_HIGH)[0] == 1
        low, _, clock = bench.read(monitor.CYCLES_LOW)
        assert bench.read(monitor.CYCLES_HIGH)[0] << 32 | low == 0x1FFFFFFC0 + clock - start
        bench.write(monitor.CONTROL, monitor.CLEAR)
        assert bench.read(monitor.CYCLES_HIGH)[0] == 0

    def test_counters_of_32_bits_stop_at_their_end(self, bench: Bench) -> None:
        bench.clock(s_in_tvalid=1, m_in_tready=1)
        bench.clock(set_counters=True)
        bench.clocks(5)  # the first word out is as late as can be told
        bench.traffic = busy()
        bench.clocks(200)
        got, _ = bench.counters()
        del got[monitor.CYCLES_LOW], got[monitor.CYCLES_HIGH]
        assert len(got) == 8
        assert set(got.values()) == {0xFFFFFFFF}

    def test_status_says_which_side_waits(self, bench: Bench) -> None:
        offered = {"s_in_tvalid": 1, "s_out_tvalid": 1}
        bench.clocks(2)
        for in_waits, out_waits in ((0, 0), (0, 1), (1, 0), (1, 1)):
            bench.inputs |= offered | {"m_in_tready": 1 - in_waits, "m_out_tready": 1 - out_waits}
            wanted = in_waits * monitor.INPUT_WAITS | out_waits * monitor.OUTPUT_WAITS
            assert bench.read(monitor.STATUS)[0] == wanted
        bench.inputs |= dict.fromkeys(offered, 0)
        assert bench.read(monitor.STATUS)[0] == 0

    def test_a_network_held_in_reset_gets_and_gives_no_word(self, bench: Bench) -> None:
        bench.traffic = busy()
        bench.clocks(50)
        assert bench.write(monitor.CONTROL, monitor.HOLD) == OKAY
        bench.clock()
        assert bench.read(monitor.CONTROL)[0] == monitor.HOLD
        assert bench.read(monitor.STATUS)[0] & monitor.IN_RESET
        before = bench.counters()
        start = bench.now
        bench.clocks(50)
        after = bench.counters()
        assert (before[0], after[0]) == (before[1], after[1])
        assert [before[0][monitor.INPUT_WORDS], before[0][monitor.OUTPUT_WORDS]] == [
            after[0][monitor.INPUT_WORDS],
            after[0][monitor.OUTPUT_WORDS],
        ]
        assert set(bench.resets[start:]) == {0}
        assert {row[1] | row[3] for row in bench.record[start:]} == {0}
        bench.write(monitor.CONTROL, 0)
        bench.clocks(50)
        assert not bench.read(monitor.STATUS)[0] & monitor.IN_RESET
        got, wanted = bench.counters()
        assert got == wanted and got[monitor.INPUT_WORDS] > after[0][monitor.INPUT_WORDS]

    def test_the_networks_reset_follows_the_write_by_two_clocks(self, bench: Bench) -> None:
        """One for the register that the write sets, one for the network's own."""
        bench.clocks(3)
        bench.write(monitor.CONTROL, monitor.HOLD)
        answered = bench.now - 1
        bench.clocks(3)
        assert bench.resets[answered - 1 : answered + 3] == [1, 1, 0, 0]

    @pytest.mark.parametrize("strobe", range(16))
    def test_control_changes_only_where_its_byte_is_strobed(self, bench: Bench, strobe: int) -> None:
        bench.clocks(20)
        assert bench.write(monitor.CONTROL, 0xFFFFFFFF, strobe) == OKAY
        assert bench.read(monitor.CONTROL)[0] == (monitor.HOLD if strobe & 1 else 0)
        got, wanted = bench.counters()
        assert got == wanted

    @pytest.mark.parametrize("order", [(0, 0, 0), (0, 3, 0), (3, 0, 0), (0, 1, 9), (1, 0, 9), (2, 2, 5)])
    def test_address_and_data_of_a_write_come_in_any_order(
        self, bench: Bench, order: tuple[int, int, int]
    ) -> None:
        bench.traffic = busy()
        for control in (monitor.HOLD, 0, monitor.HOLD | monitor.CLEAR):
            assert bench.write(monitor.CONTROL, control, after=order) == OKAY
            assert bench.read(monitor.CONTROL, waits=order[2])[0] == control & monitor.HOLD
            got, wanted = bench.counters()
            assert got == wanted

    @pytest.mark.parametrize("address", [0x1C, 0x48, 0x4C, 0x80, 0x400, 0x414, 0x814, 0xFFC])
    def test_an_address_beside_the_table_is_an_error_and_changes_nothing(
        self, bench: Bench, address: int
    ) -> None:
        assert bench.read(address)[:2] == (0, SLVERR)
        assert bench.write(address, 0xFFFFFFFF) == SLVERR
        assert bench.read(monitor.CONTROL)[:2] == (0, OKAY)
        got, wanted = bench.counters()
        assert got == wanted

    def test_writes_to_what_can_only_be_read_change_nothing(self, bench: Bench) -> None:
        bench.traffic = busy()
        for address in (monitor.MAGIC, monitor.STATUS, *bench.expected(bench.now)):
            assert bench.write(address, 0xFFFFFFFF) == OKAY
        got, wanted = bench.counters()
        assert (got, bench.read(monitor.MAGIC)[0]) == (wanted, monitor.MAGIC_VALUE)

    @pytest.mark.parametrize("clocks", [2, 3, 5])
    def test_reads_back_to_back_wait_for_each_other(self, bench: Bench, clocks: int) -> None:
        """Two clocks each, or more where the answer is not taken: it stays, and the next address waits."""
        addresses = (monitor.MAGIC, 0x1C, monitor.CLOCK_HZ, monitor.VERSION)
        wanted = [(monitor.MAGIC_VALUE, OKAY), (0, SLVERR), (CLOCK_MHZ * 10**6, OKAY), (1, OKAY)]
        answers, place = [], 0
        bench.inputs["s_axi_arvalid"] = 1
        for clock in range(clocks * len(addresses)):
            ports = bench.clock(
                s_axi_araddr=[*addresses, 0x1C][place], s_axi_rready=int(clock % clocks == clocks - 1)
            )
            place += ports["s_axi_arready"]
            if ports["s_axi_rvalid"]:
                answers.append((ports["s_axi_rdata"], ports["s_axi_rresp"]))
        assert (answers, place) == ([answer for answer in wanted for _ in range(clocks - 1)], len(addresses))

    def test_the_boards_driver_reads_it(self, bench: Bench) -> None:
        class Registers:
            def read(self, offset: int) -> int:
                value, answer, _ = bench.read(offset)
                assert answer == OKAY
                return value

            def write(self, offset: int, value: int) -> None:
                assert bench.write(offset, value) == OKAY

        board = BoardMonitor(Registers())
        assert board.design_id() == f"{DESIGN_ID:016x}"
        board.reset_network()
        assert not board.counters()["in_reset"]
        bench.traffic = busy()
        bench.clocks(60)
        bench.inputs |= {"s_in_tvalid": 0, "s_out_tvalid": 0}
        bench.traffic = None
        bench.clock()
        wanted = bench.expected(bench.now)
        got = board.counters()
        names = (
            "input_words",
            "output_words",
            "input_lasts",
            "output_lasts",
            "latency_cycles",
            "span_cycles",
        )
        assert {name: got[name] for name in names} == {
            name: wanted[getattr(monitor, name.upper())] for name in names
        }


# ---------------------------------------------------------------- text and netlist


def addresses() -> dict[str, int]:
    """Return the constants that are addresses: those above 0x10, and the first ones."""
    bits = {"CLEAR", "HOLD", "INPUT_WAITS", "OUTPUT_WAITS", "IN_RESET"}
    return {
        name: value
        for name, value in vars(monitor).items()
        if name.isupper() and not name.endswith("_VALUE") and name not in bits
    }


def test_the_readme_the_verilog_and_the_constants_have_the_same_addresses() -> None:
    wanted = sorted(addresses().values())
    assert wanted == [*range(0x00, 0x1C, 4), *range(0x20, 0x48, 4)]
    readme = (VERILOG / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| 0x([0-9A-F]{2}) \| `(\w+)` \|", readme, re.MULTILINE)
    assert {name: int(address, 16) for address, name in rows} == addresses()
    head = SOURCE.read_text(encoding="utf-8").split("\nmodule ")[0]
    assert (
        sorted(int(address, 16) for address in re.findall(r"(?<!at )0x([0-9A-F]{2}) (?:read| {4})", head))
        == wanted
    )


def test_vivados_attributes_name_the_clock_the_resets_and_the_interfaces() -> None:
    text = SOURCE.read_text(encoding="utf-8")
    assert re.findall(r'X_INTERFACE_(\w+) = "(.*)" \*\)', text) == [
        ("INFO", "xilinx.com:signal:clock:1.0 aclk CLK"),
        (
            "PARAMETER",
            "XIL_INTERFACENAME aclk, ASSOCIATED_BUSIF s_axi:s_in:m_in:s_out:m_out, ASSOCIATED_RESET aresetn",
        ),
        ("INFO", "xilinx.com:signal:reset:1.0 aresetn RST"),
        ("PARAMETER", "XIL_INTERFACENAME aresetn, POLARITY ACTIVE_LOW"),
        ("INFO", "xilinx.com:signal:reset:1.0 network_aresetn RST"),
        ("PARAMETER", "XIL_INTERFACENAME network_aresetn, POLARITY ACTIVE_LOW"),
    ]
    ports = set(re.findall(r"(?:input|output) +(?:wire|reg) +(?:\[\d+:0\])? *(\w+)", text))
    assert ports == {*INPUTS, *OUTPUTS, "aclk"}


@needs("pyosys")
def test_yosys_maps_it_to_some_hundred_cells_and_the_networks_reset_to_a_flip_flop(tmp_path: Path) -> None:
    passes = (
        f"read_verilog {SOURCE}",
        "hierarchy -check -top flow_monitor",
        "proc",
        "check -assert",
        "select -assert-count 1 o:network_aresetn %ci1:+[Q] t:$dff %i",
        "synth_xilinx -flatten -noiopad -noclkbuf -top flow_monitor",
        "tee -o cells.txt stat",
    )
    code = (
        f"from pyosys import libyosys as ys\nd = ys.Design()\nfor c in {passes!r}:\n    ys.run_pass(c, d)\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, check=True)
    rows = re.findall(
        r"^ +(\d+) +([A-Z]\w+)$", (tmp_path / "cells.txt").read_text(encoding="utf-8"), re.MULTILINE
    )
    cells = {kind: int(count) for count, kind in rows}
    assert cells.keys() <= {
        "CARRY4",
        "FDRE",
        "FDSE",
        "INV",
        "MUXF7",
        "MUXF8",
        *(f"LUT{n}" for n in range(1, 7)),
    }
    assert sum(count for kind, count in cells.items() if kind.startswith("LUT")) < 350
    assert cells["FDRE"] + cells["FDSE"] < 450
