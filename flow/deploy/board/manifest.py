"""``manifest.json``: what a bundle holds and where its hardware lies. It is read without trust."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import BoardError

NAME, FORMAT = "manifest.json", 1
LARGEST_FILE_BYTES = 1 << 20
"""A manifest is a page of text; what is larger is none, and is not read."""

PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
LARGEST_VALUES = 1 << 24
"""Of a port: no stream of a Zynq's fabric carries more a sample."""


@dataclass(frozen=True)
class File:
    """A file beside the manifest; ``sha256`` in lower-case hexadecimal digits."""

    name: str
    sha256: str


@dataclass(frozen=True)
class Dma:
    """The AXI DMA; ``address`` as the processor sees it, ``length_bits``: width of its length registers."""

    instance: str
    address: int
    span_bytes: int
    length_bits: int
    address_bits: int


@dataclass(frozen=True)
class MonitorPlace:
    """Where the monitor lies; ``design_id``: 16 hexadecimal digits that it must answer with."""

    instance: str
    address: int
    span_bytes: int
    design_id: str


@dataclass(frozen=True)
class Port:
    """An input or output: a sample is ``shape`` values of ``width`` bits; value = LSBs * 2**-fraction_bits * scale."""

    name: str
    shape: tuple[int, ...]
    width: int
    signed: bool
    fraction_bits: int
    scale: float

    @property
    def size(self) -> int:
        """Return the values of a sample."""
        size = 1
        for length in self.shape:
            size *= length
        return size


@dataclass(frozen=True)
class Manifest:
    """A bundle: the design's clock and part, its files, where its DMA and monitor lie, and its ports."""

    name: str
    board: str
    part: str
    ps: str
    crystal_mhz: float
    clock_mhz: float
    bitstream: File
    handoff: File
    golden: File
    dma: Dma
    monitor: MonitorPlace | None
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]


def read(folder: Path) -> Manifest:
    """Return a bundle's manifest.

    Raises:
        BoardError: it is missing, is no JSON, has another format, a value breaks a rule, or it was altered.
    """
    path = folder / NAME
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST_FILE_BYTES + 1)
    except OSError as error:
        raise BoardError(
            f"manifest: {str(path)!r} must be readable, not fail ({error}); copy the whole bundle to the board"
        ) from error
    if len(data) > LARGEST_FILE_BYTES:
        raise BoardError(
            f"manifest: {str(path)!r} must have at most {LARGEST_FILE_BYTES} bytes; copy the bundle again"
        )
    try:
        values = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise BoardError(
            f"manifest: {str(path)!r} must be JSON, not damaged ({error}); copy the bundle again"
        ) from error
    made = parse(values)
    digest = values.pop("sha256", None)
    if digest != hashlib.sha256(json.dumps(values, indent=1).encode()).hexdigest():
        raise BoardError(
            f"manifest: {str(path)!r} must be as it was written, not altered; copy the bundle again"
        )
    return made


def parse(values: Any) -> Manifest:
    """Return the manifest that a JSON object stands for; see `read`."""
    top = _table({"manifest": values}, "manifest", "")
    if top.get("format") != FORMAT or isinstance(top.get("format"), bool):
        raise BoardError(
            f"manifest: format must be {FORMAT}, not {_shown(top.get('format'))}; "
            "take flow_board and the manifest from one bundle"
        )
    made = Manifest(
        name=_text(top, "name", ""),
        board=_text(top, "board", ""),
        part=_text(top, "part", ""),
        ps=_choice(top, "ps", ("zynq7000", "zynq_ultrascale")),
        crystal_mhz=_number(top, "crystal_mhz", "", 1, 1000),
        clock_mhz=_number(top, "clock_mhz", "", 1, 1000),
        bitstream=_file(top, "bitstream"),
        handoff=_file(top, "handoff"),
        golden=_file(top, "golden"),
        dma=_dma(_table(top, "dma", "")),
        monitor=None if top.get("monitor") is None else _monitor(_table(top, "monitor", "")),
        inputs=_ports(top, "inputs"),
        outputs=_ports(top, "outputs"),
    )
    stem = Path(made.bitstream.name).stem
    if made.handoff.name != f"{stem}.hwh":
        raise BoardError(
            f"manifest: handoff.file must be {stem + '.hwh'!r}, where PYNQ looks for it, not "
            f"{made.handoff.name!r}; build the bundle again"
        )
    return made


def check_files(folder: Path, manifest: Manifest) -> None:
    """Compare the bundle's files with the manifest.

    Raises:
        BoardError: one is missing, or is not the one that the manifest was written for.
    """
    for file in (manifest.bitstream, manifest.handoff, manifest.golden):
        digest = hashlib.sha256()
        try:
            with (folder / file.name).open("rb") as opened:
                for block in iter(lambda: opened.read(1 << 20), b""):
                    digest.update(block)
        except OSError as error:
            raise BoardError(
                f"bundle: {file.name} must be readable, not fail ({error}); copy the whole bundle to the board"
            ) from error
        if digest.hexdigest() != file.sha256:
            raise BoardError(
                f"bundle: {file.name} must have the manifest's SHA-256 {file.sha256[:16]}..., not "
                f"{digest.hexdigest()[:16]}...; it is damaged or another build's: copy the bundle again"
            )


def _dma(table: Mapping[str, Any]) -> Dma:
    word_bits = _whole(table, "word_bits", "dma.", 8, 1024)
    if word_bits != 32:
        raise BoardError(
            f"manifest: dma.word_bits must be 32, not {word_bits}; build the design with 32-bit streams"
        )
    return Dma(
        instance=_text(table, "instance", "dma."),
        address=_address(table, "dma."),
        span_bytes=_whole(table, "span", "dma.", 0x5C, 1 << 24),
        length_bits=_whole(table, "length_bits", "dma.", 8, 26),  # what PG021 lets choose
        address_bits=_whole(table, "address_bits", "dma.", 32, 64),
    )


def _monitor(table: Mapping[str, Any]) -> MonitorPlace:
    return MonitorPlace(
        instance=_text(table, "instance", "monitor."),
        address=_address(table, "monitor."),
        span_bytes=_whole(table, "span", "monitor.", 0x48, 1 << 24),
        design_id=_digits(table, "design_id", "monitor.", 16),
    )


def _ports(top: Mapping[str, Any], key: str) -> tuple[Port, ...]:
    values = top.get(key)
    if not isinstance(values, list) or not 1 <= len(values) <= 64:
        raise _broken(key, "a list of 1 to 64 ports", values)
    ports = []
    for number, value in enumerate(values):
        place = f"{key}[{number}]"
        table = _table({place: value}, place, "")
        shape: Any = table.get("shape")
        if (
            not isinstance(shape, list)
            or not 1 <= len(shape) <= 8
            or not all(type(size) is int and 1 <= size <= LARGEST_VALUES for size in shape)
        ):
            raise _broken(f"{place}.shape", "a list of 1 to 8 whole numbers of 1 or more", shape)
        signed = table.get("signed")
        if not isinstance(signed, bool):
            raise _broken(f"{place}.signed", "true or false", signed)
        port = Port(
            name=_text(table, "name", f"{place}."),
            shape=tuple(shape),
            width=_whole(table, "width", f"{place}.", 1, 64),
            signed=signed,
            fraction_bits=_whole(table, "fraction_bits", f"{place}.", -256, 256),
            scale=_number(table, "scale", f"{place}.", 1e-30, 1e30),
        )
        if port.size > LARGEST_VALUES:
            raise _broken(f"{place}.shape", f"at most {LARGEST_VALUES} values", shape)
        ports.append(port)
    return tuple(ports)


def _file(top: Mapping[str, Any], key: str) -> File:
    table = _table(top, key, "")
    name = table.get("file")
    if not isinstance(name, str) or not PLAIN_NAME.fullmatch(name):
        # a path would reach out of the bundle
        raise _broken(f"{key}.file", "the plain name of a file in the bundle", name)
    return File(name, _digits(table, "sha256", f"{key}.", 64))


def _table(top: Mapping[str, Any], key: str, where: str) -> Mapping[str, Any]:
    value = top.get(key)
    if not isinstance(value, dict):
        raise _broken(where + key, "a table", value)
    return value


def _text(table: Mapping[str, Any], key: str, where: str) -> str:
    value = table.get(key)
    if not isinstance(value, str) or not 1 <= len(value) <= 200 or not value.isprintable():
        raise _broken(where + key, "a name of 1 to 200 printable characters", value)
    return value


def _choice(table: Mapping[str, Any], key: str, known: tuple[str, ...]) -> str:
    value = table.get(key)
    if not isinstance(value, str) or value not in known:
        raise _broken(key, " or ".join(known), value)
    return value


def _digits(table: Mapping[str, Any], key: str, where: str, count: int) -> str:
    value = table.get(key)
    if not isinstance(value, str) or not re.fullmatch(rf"[0-9a-f]{{{count}}}", value):
        raise _broken(where + key, f"{count} hexadecimal digits in lower case", value)
    return value


def _whole(table: Mapping[str, Any], key: str, where: str, lowest: int, highest: int) -> int:
    value = table.get(key)
    if type(value) is not int or not lowest <= value <= highest:
        raise _broken(where + key, f"a whole number from {lowest} to {highest}", value)
    return int(value)


def _address(table: Mapping[str, Any], where: str) -> int:
    address = _whole(table, "address", where, 0, (1 << 40) - 1)
    if address % 4096:
        raise _broken(where + "address", "a multiple of 4096", address)
    return address


def _number(table: Mapping[str, Any], key: str, where: str, lowest: float, highest: float) -> float:
    value: Any = table.get(key)
    if type(value) not in (int, float) or not lowest <= value <= highest:
        raise _broken(where + key, f"a number from {lowest:g} to {highest:g}", value)
    return float(value)


def _broken(key: str, rule: str, value: object) -> BoardError:
    return BoardError(f"manifest: {key} must be {rule}, not {_shown(value)}; build the bundle again")


def _shown(value: object) -> str:
    """Return a value as text, cut where it is long: it comes from a file that is not trusted."""
    text = "missing" if value is None else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
