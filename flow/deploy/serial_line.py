"""A programmed board at a serial line: samples to it and its results back, compared in LSBs."""

from __future__ import annotations

import json
import math
import termios
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from flow.deploy.link import Line, Link
from flow.errors import ConfigError, MismatchError, ToolError
from flow.rtl.streams import Stream
from flow.rtl.verilog import tdata_bits
from flow.rtl.words import from_beats, to_beats
from flow.training import npz
from flow.training.metric import accuracy
from flow.types import Deployment, FixedPoint, Progress

LINK, GOLDEN = "link.json", "golden.npz"


@dataclass(frozen=True)
class _Target:
    """``link.json``."""

    design_id: str
    board: str
    baud: int
    given: Stream
    made: Stream


def run_on_serial(
    folder: Path,
    *,
    serial: str,
    baud: int | None,
    samples: int | None,
    timeout_s: float,
    retries: int,
    progress: Progress,
) -> Deployment:
    """Send golden samples to a programmed board and compare every result; see `flow.deploy.deploy`.

    Raises:
        ConfigError: the folder holds no such build, or there is no such port.
        ToolError: pyserial is missing, the board does not answer, or the line breaks.
        MismatchError: the board holds another design, or a result differs.
    """
    target = _read_link(folder / LINK)
    inputs, outputs, labels = _read_golden(folder / GOLDEN, target)
    count = min(samples or len(inputs), len(inputs))
    start = time.perf_counter()
    got, clocks = [], []
    with _opened(serial, baud or target.baud, timeout_s) as line:
        link = Link(line, retries)
        with _plugged_in(serial):
            hertz = _check_board(link, target)
        for number in range(count):
            taken, data = _run(link, target, inputs[number], serial)
            got.append(_unpack(target.made, data))
            clocks.append(taken)
            _compare(number, got[-1], outputs[number])
            progress(number + 1, count, f"{number + 1} of {count} samples equal")
    seconds = time.perf_counter() - start
    return Deployment(
        board=target.board,
        design_id=target.design_id,
        link="serial line",
        samples=count,
        max_error_lsb=0,
        accuracy=accuracy(
            [np.stack(got)],
            None if labels is None else labels[:count],
            classes=math.prod(target.made.shape) == 1,
        ),
        clocks=(min(clocks), max(clocks)),
        latency_us=seconds / count * 1e6,  # one at a time
        clock_mhz=hertz / 1e6,
        retries=link.retried,
        samples_per_second=count / seconds,
    )


def _check_board(link: Link, target: _Target) -> int:
    """Refuse a board with another design; return its clock in Hz."""
    info = link.info()
    if info.design_id != target.design_id:
        raise MismatchError(
            f"deploy: the board must hold design {target.design_id}, not {info.design_id}; program it with this build"
        )
    sizes = (_size(target.given), _size(target.made))
    if (info.sample_bytes, info.result_bytes) != sizes:
        raise MismatchError(
            f"deploy: samples and results must have {sizes} bytes, not {(info.sample_bytes, info.result_bytes)}; build "
            "anew"
        )
    if not info.clock_hz:
        raise ToolError("deploy: the board must tell its clock, not 0 Hz; program it with this build")
    return info.clock_hz


@contextmanager
def _plugged_in(port: str) -> Iterator[None]:
    """Turn what a line that breaks raises into an error that names its port."""
    try:
        yield
    except (OSError, termios.error) as error:  # pyserial's errors are OSErrors
        raise ToolError(
            f"deploy: port {port!r} must stay open, not fail ({error}); plug the board in again"
        ) from error


def _run(link: Link, target: _Target, sample: np.ndarray, port: str) -> tuple[int, bytes]:
    with _plugged_in(port):
        return link.run(_pack(target.given, sample), _size(target.made))


def _size(stream: Stream) -> int:
    """Return the bytes of a frame: every beat is padded to whole ones."""
    return stream.beats * (tdata_bits(stream) // 8)


def _pack(stream: Stream, frame: np.ndarray) -> bytes:
    words = np.ascontiguousarray(to_beats(stream, frame), "<u8").view(np.uint8)
    return words.reshape(stream.beats, -1)[:, : tdata_bits(stream) // 8].tobytes()


def _unpack(stream: Stream, data: bytes) -> np.ndarray:
    rows = np.frombuffer(data, np.uint8).reshape(stream.beats, -1)
    wide = np.pad(rows, ((0, 0), (0, -rows.shape[1] % 8)))
    return from_beats(stream, wide.view("<u8")).reshape(stream.shape)


def _compare(sample: int, got: np.ndarray, expected: np.ndarray) -> None:
    if not np.array_equal(got, expected):
        place = tuple(np.argwhere(got != expected)[0])
        index = ", ".join(str(int(i)) for i in place)
        raise MismatchError(
            f"deploy: the board must equal the golden vectors, but sample {sample}, index ({index}) is {got[place]} "
            f"LSB in place of {expected[place]} LSB; check power and clock, and program it again"
        )


def _opened(port: str, baud: int, timeout_s: float) -> AbstractContextManager[Line]:
    try:
        import serial
        from serial.tools import list_ports
    except ImportError as error:
        raise ToolError(
            "deploy: pyserial must be installed, not missing; pip install '.[open]' in the checkout"
        ) from error
    try:
        opened: AbstractContextManager[Line] = serial.Serial(
            port, baud, timeout=timeout_s, write_timeout=timeout_s
        )
    except (OSError, ValueError) as error:
        if isinstance(error, PermissionError) or "ermission denied" in str(error):
            hint = "join the group that owns it (often dialout), and log in again"
        else:
            found = ", ".join(sorted(entry.device for entry in list_ports.comports())) or "none"
            hint = f"ports that are there: {found}"
        raise ConfigError(
            f"deploy: port {port!r} must open at {baud} baud, not fail ({error}); {hint}"
        ) from error
    return opened


# ---------------------------------------------------------------- files of a build, read without trust


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn what a file that is missing or damaged raises into an error that names it."""
    try:
        yield
    except OSError as error:
        raise ConfigError(
            f"deploy: {str(path)!r} must be there, not missing; build with flow run --toolchain open first"
        ) from error
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise ConfigError(
            f"deploy: {str(path)!r} must be a build's, not damaged ({error!r:.200}); build again"
        ) from error


def _read_link(path: Path) -> _Target:
    with _reading(path):
        values = json.loads(path.read_text(encoding="utf-8"))
        given, made = (_stream(values[side]) for side in ("input", "output"))
        int(values["design_id"], 16)
        return _Target(values["design_id"], str(values["board"]), int(values["baud"]), given, made)


def _stream(values: Mapping[str, Any]) -> Stream:
    width, lanes, beats, *shape = sizes = [
        values["width"],
        values["lanes"],
        values["beats"],
        *values["shape"],
    ]
    if not shape or not all(type(size) is int and 0 < size < 1 << 20 for size in sizes):
        raise ValueError(f"sizes {sizes}")
    stream = Stream("", FixedPoint(bool(values["signed"]), width, 0), tuple(shape), lanes)
    if stream.channels % lanes or stream.beats != beats:
        raise ValueError(f"{beats} beats of {lanes} for shape {shape}")
    return stream


def _read_golden(path: Path, target: _Target) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    with _reading(path):
        file = npz.read(path, ("inputs", "outputs", "labels"))
        inputs = file["inputs"].reshape(-1, *target.given.shape)
        outputs = file["outputs"].reshape(len(inputs), *target.made.shape)
        labels = file.get("labels")
        kinds = "".join(array.dtype.kind for array in file.values())
        if len(inputs) == 0 or set(kinds) - set("iu") or (labels is not None and len(labels) != len(inputs)):
            raise ValueError(f"{len(inputs)} samples, of the kinds {kinds}")
        return inputs, outputs, labels
