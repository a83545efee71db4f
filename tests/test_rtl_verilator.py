"""What a simulation leaves behind: results that are short, missing or no numbers are refused by their file."""

from pathlib import Path

import numpy as np
import pytest

from flow.emulate import rtl
from flow.errors import ToolError
from flow.rtl.streams import Stream
from flow.rtl.verilator import Simulation, TimedSimulation
from flow.toolchains.open import zynq
from flow.types import FixedPoint


def bench(folder: Path, does: str) -> Simulation:
    """Return a simulation whose program is a shell script."""
    made = Simulation((), "top", folder)
    made._program = folder / "bench"
    made._program.write_text(f"#!/bin/sh\n{does}\n")
    made._program.chmod(0o755)
    return made


def ran(folder: Path, does: str) -> str:
    with pytest.raises(ToolError) as error:
        bench(folder, does).run([np.zeros((2, 1), np.uint64)], [2])
    return str(error.value)


def test_whole_outputs_are_read(tmp_path: Path) -> None:
    result = bench(tmp_path, "head -c 48 /dev/zero > output0.bin; echo 17 clocks").run(
        [np.zeros((2, 1), np.uint64)], [2]
    )
    assert result.cycles == 17
    assert result.outputs[0].shape == (2, 1)


@pytest.mark.parametrize("size", [0, 8, 16, 24, 32, 47, 49, 56])
def test_outputs_that_are_short_or_long_are_refused(tmp_path: Path, size: int) -> None:
    message = ran(tmp_path, f"head -c {size} /dev/zero > output0.bin; echo 17 clocks")
    assert message == (
        f"simulate: the RTL's bench must write 2 beats to {str(tmp_path / 'output0.bin')!r}, not {size} bytes; "
        "run again"
    )


def test_outputs_that_are_missing_are_refused(tmp_path: Path) -> None:
    (tmp_path / "output0.bin").write_bytes(bytes(48))  # of an earlier run
    assert ran(tmp_path, "echo 17 clocks") == (
        f"simulate: '{tmp_path / 'bench'}' must leave output0.bin, not end without it; see {tmp_path / 'bench.log'}"
    )


@pytest.mark.parametrize("says", ["", "echo done", "printf '\\377\\376'"])
def test_a_bench_that_does_not_tell_its_clocks_is_refused(tmp_path: Path, says: str) -> None:
    assert ran(tmp_path, f"head -c 48 /dev/zero > output0.bin; {says}") == (
        f"simulate: the RTL's bench must tell its clocks in {str(tmp_path / 'bench.log')!r}, not be silent; run again"
    )


def test_a_bench_that_fails_with_bytes_that_are_no_text_is_told(tmp_path: Path) -> None:
    assert ran(tmp_path, "printf 'output 0 \\377'; exit 3").endswith(
        " clocks, not stop (output 0 \N{REPLACEMENT CHARACTER}); report the network"
    )


@pytest.mark.parametrize("text", [None, "1x\n" * 3, "-1\n" * 3, f"{1 << 64:x}\n" * 3, "\udcff"])
def test_layers_that_a_tap_did_not_write_are_refused(tmp_path: Path, text: str | None) -> None:
    stream, file = Stream("", FixedPoint(False, 8, 0), (3,), 1), tmp_path / "tap.hex"
    if text is not None:
        file.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ToolError) as error:
        rtl._traced(file, stream)
    told = str(error.value)
    assert told.startswith(f"emulate: the RTL must write its layers' beats to {str(file)!r}, not fail with ")
    assert told.endswith("); run again")


class Processor(TimedSimulation):
    """A processor's model that leaves a prepared log."""

    def __init__(self, folder: Path, log: bytes) -> None:
        super().__init__((), "top", folder)
        self.log = log

    def run(self, product: str) -> None:
        (self.folder / product).write_bytes(self.log)


@pytest.mark.parametrize("log", [b"0\n", b"0 1 2\n", b"0 xx\n", b"\xff\xff \xff\n", b"0 1\n\n"])
def test_a_processors_log_that_is_no_pairs_of_numbers_is_refused(tmp_path: Path, log: bytes) -> None:
    with pytest.raises(ToolError) as error:
        zynq.answers(Processor(tmp_path, log), [])
    told = str(error.value)
    assert told.startswith(
        "synthesize: the processor's model must write pairs of numbers, not fail with "
    ) and told.endswith("; report the network")


def test_a_processor_without_answers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ToolError) as error:
        zynq.answers(Processor(tmp_path, b""), [])
    assert str(error.value) == (
        "synthesize: the processor's model must get answers, not none; report the network"
    )
