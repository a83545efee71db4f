"""The bundle's golden vectors on the board: every result compared in LSBs, latency and throughput measured.

Exit status: 0 all equal, 1 a result differs, 2 something was refused, 3 a transfer failed.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from . import golden
from .backend import Backend
from .driver import Accelerator
from .errors import BoardError, DmaError

EQUAL, DIFFERS, REFUSED, DMA_FAILED = 0, 1, 2, 3
SINGLE_CALLS = 20
"""Calls with one sample a repeat: the median is not moved by what else the processor does."""


class MismatchError(Exception):
    """A result differs; ``diagnosis``: where and by how much."""

    def __init__(self, message: str, diagnosis: dict[str, Any]) -> None:
        super().__init__(message)
        self.diagnosis = diagnosis


def main(
    argv: Sequence[str] | None = None, folder: Path | str | None = None, backend: Backend | None = None
) -> int:
    """Run the self-test of a bundle and return the exit status.

    Args:
        argv: options; ``None``: the command line's.
        folder: the bundle; ``None``: the one that holds this package.
        backend: see `flow_board.driver.Accelerator`.
    """
    options = _options(argv)
    bundle = Path(__file__).resolve().parents[1] if folder is None else Path(folder)
    try:
        with redirect_stdout(sys.stderr):  # what others print must not stand beside the one line of JSON
            found, best_us = _measure(bundle, backend, options)
    except MismatchError as error:
        return _failed(options.json, DIFFERS, error, error.diagnosis)
    except DmaError as error:
        return _failed(options.json, DMA_FAILED, error, error.diagnosis)
    except (BoardError, ValueError) as error:
        return _failed(options.json, REFUSED, error, None)
    except (
        Exception
    ) as error:  # of PYNQ, XRT or the kernel: Python's own exit status would be that of a difference
        traceback.print_exc()
        return _failed(options.json, REFUSED, f"selftest: stopped by {type(error).__name__}: {error}", None)
    print(json.dumps(found, allow_nan=False) if options.json else _text(found, best_us))
    return EQUAL


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="selftest.py", description="Run the golden vectors on this board.")
    parser.add_argument("--json", action="store_true", help="one line of JSON in place of text")
    parser.add_argument(
        "--samples", type=_from(int, 1), metavar="N", help="how many golden samples; default: all"
    )
    parser.add_argument(
        "--timeout", type=_from(float, 1e-3), default=2.0, metavar="S", help="of a transfer, in s; default: 2"
    )
    parser.add_argument(
        "--repeat", type=_from(int, 1), default=5, metavar="N", help="of measurements; default: 5"
    )
    return parser.parse_args(argv)


def _from(kind: Callable[[str], Any], lowest: float) -> Callable[[str], Any]:
    def parsed(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not lowest <= value < 1e9:
            raise argparse.ArgumentTypeError(f"must be a number of {lowest:g} or more, not {text!r}")
        return value

    return parsed


def _measure(
    bundle: Path, backend: Backend | None, options: argparse.Namespace
) -> tuple[dict[str, Any], float]:
    """Return the figures of the JSON line, and the latency of the quickest call in us."""
    with Accelerator(bundle, backend, options.timeout) as board:
        vectors = golden.read(bundle, board.manifest, options.samples)
        outputs = _compared(board, vectors)
        latency_us, best_us, latency_cycles = _latency(board, vectors, options.repeat)
        rate, cycles_per_sample = _throughput(board, vectors, options.repeat)
        found = {
            "ok": True,
            "samples": len(vectors.inputs[0]),
            "max_error_lsb": 0,
            "accuracy": golden.accuracy(outputs, vectors.labels),
            "latency_us": latency_us,
            "latency_cycles": latency_cycles,
            "throughput_samples_per_s": rate,
            "cycles_per_sample": cycles_per_sample,
            "clock_mhz": board.clock_mhz,
            "backend": board.backend.name,
            "python": platform.python_version(),
            "design_id": None if board.manifest.monitor is None else board.manifest.monitor.design_id,
        }
    return found, best_us


def _compared(board: Accelerator, vectors: golden.Golden) -> tuple[np.ndarray, ...]:
    outputs = _run(board, vectors.inputs)
    first = golden.difference(board.manifest.outputs, outputs, vectors.outputs)
    if first is None:
        return outputs
    index = ", ".join(str(at) for at in first.index)
    raise MismatchError(
        f"selftest: the board must equal the golden vectors, but sample {first.sample}, output {first.output!r}, index "
        f"({index}) is {first.got} LSB in place of {first.expected} LSB (worst: {first.max_error_lsb} LSB); check "
        "power and clock, and that overlay and bundle are of one build",
        {**asdict(first), "index": list(first.index), "samples": len(vectors.inputs[0])},
    )


def _latency(board: Accelerator, vectors: golden.Golden, repeats: int) -> tuple[float, float, int | None]:
    """Return median and best of calls with one sample, in us, and the clocks that the monitor counts, if there is one.

    The time is a whole call's: integers to words, caches, registers, the network, and back.
    """
    one = tuple(array[:1] for array in vectors.inputs)
    times_us, cycles = [], []
    for _ in range(SINGLE_CALLS * repeats):
        start = time.perf_counter()
        _run(board, one)
        times_us.append((time.perf_counter() - start) * 1e6)
        if board.monitor is not None:
            cycles.append(board.monitor.latency_cycles())
    return statistics.median(times_us), min(times_us), min(cycles) if cycles else None


def _throughput(board: Accelerator, vectors: golden.Golden, repeats: int) -> tuple[float, float | None]:
    """Return samples a second of whole calls, the best, and clocks a sample of a full transfer, if counted."""
    count = len(vectors.inputs[0])
    times_s = []
    for _ in range(repeats):
        start = time.perf_counter()
        _run(board, vectors.inputs)
        times_s.append(time.perf_counter() - start)
    if board.monitor is None:
        return count / min(times_s), None
    full = min(count, board.samples_per_transfer)
    _run(board, tuple(array[:full] for array in vectors.inputs))
    return count / min(times_s), board.monitor.span_cycles() / full


def _run(board: Accelerator, inputs: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
    made = board.run_lsb(inputs)
    return made if isinstance(made, tuple) else (made,)


def _failed(as_json: bool, status: int, error: Exception | str, diagnosis: dict[str, Any] | None) -> int:
    if as_json:
        print(json.dumps({"ok": False, "error": str(error), "diagnosis": diagnosis}))
    else:
        print(f"failed: {error}")
    return status


def _text(found: dict[str, Any], best_us: float) -> str:
    said = "" if found["accuracy"] is None else f", accuracy {100 * found['accuracy']:.2f} %"
    lines = [
        f"{found['samples']} samples, {found['max_error_lsb']} LSB{said} "
        f"({found['backend']}, Python {found['python']}, {found['clock_mhz']:g} MHz)",
        f"latency of a call with one sample: {found['latency_us']:,.1f} us (median), {best_us:,.1f} us (best)",
        f"throughput of calls with all samples: {found['throughput_samples_per_s']:,.0f} samples/s (best)",
    ]
    if found["latency_cycles"] is not None:
        per_sample = found["cycles_per_sample"]
        lines.append(
            f"on the fabric: {found['latency_cycles']:,} clocks to the first result "
            f"({found['latency_cycles'] / found['clock_mhz']:,.2f} us), {per_sample:,.1f} clocks a sample "
            f"({found['clock_mhz'] * 1e6 / max(per_sample, 1e-9):,.0f} samples/s); design {found['design_id']}"
        )
    return "\n".join(lines)
