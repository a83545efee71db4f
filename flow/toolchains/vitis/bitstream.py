"""Bitstreams of AMD's 7 series and UltraScale+ as data: what a ``.bit`` file says of itself, and whether it is whole.

Sources: AMD UG470, 7 Series FPGAs Configuration (packets, registers, commands); Project X-Ray (fields of the header,
the checksum's bit order).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from flow.errors import ConfigError, ToolError

IDCODES = {
    "7z010": 0x03722093,
    "7z020": 0x03727093,
    "7z030": 0x0372C093,
    "7z045": 0x03731093,
    "7z100": 0x03736093,
}
"""What a device's bitstream writes into IDCODE; the upper four bits are the silicon's revision and do not count."""

_MAGIC = bytes.fromhex("00090ff00ff00ff00ff0000001")
_TEXTS = {"a": r"[^;]+(;.*)?", "b": r"\S+", "c": r"\d{4}/\d\d/\d\d", "d": r"\d\d:\d\d:\d\d"}
_SYNC = 0xAA995566
_BEFORE_SYNC = (0xFFFFFFFF, 0x000000BB, 0x11220044)  # dummies, and the pattern that tells the bus width
_NOOP, _DUMMY = 0x20000000, 0xFFFFFFFF
_CRC, _FDRI, _CMD, _IDCODE = 0, 2, 4, 12
_RCRC, _DESYNC = 7, 13
_TYPE_1, _TYPE_2 = 0b001_10, 0b010_10  # headers that write
_RESERVED = 0x07FC1800  # in a header of type 1
_FRAME_WORDS = 101  # of the 7 series
_POLYNOMIAL = 0x82F63B78  # CRC-32C, lowest bit first
_STEP_BITS = 37  # a word of 32 and the register's address of 5
_FEW_WORDS = 32  # below it numpy takes longer than Python


@dataclass(frozen=True)
class BitFile:
    """A whole bitstream.

    ``user_id``, ``tool_version``: as the header has them, empty where it does not. ``part``: device and package, such
    as 7z020clg400; UltraScale+ adds the speed grade. ``size_bytes``: of the configuration, which begins at byte
    ``data_offset`` of the file. ``sha256``: of the file. ``idcode``, ``frame_words``: of the 7 series, whose packets
    are followed; a frame has 101 words; ``None`` for others. ``crc_checked``: whether the checksum held; False where
    none is written or no packet is followed.
    """

    path: Path
    design: str
    user_id: str
    tool_version: str
    part: str
    date: str
    time: str
    size_bytes: int
    data_offset: int
    sha256: str
    idcode: int | None
    frame_words: int | None
    crc_checked: bool


class _Header(NamedTuple):
    texts: dict[str, str]
    size_bytes: int
    data_offset: int


class _Walked(NamedTuple):
    idcode: int | None
    frame_words: int | None
    crc_checked: bool


class _DamageError(Exception):
    """A rule that the file breaks, and what it does instead."""

    def __init__(self, rule: str, value: str) -> None:
        super().__init__(rule, value)
        self.rule, self.value = rule, value


def read(path: Path, *, subject: str = "deploy") -> BitFile:
    """Return a bitstream once all that can be checked of it holds.

    Checked are the header, the size that it gives and the sync word; for the 7 series every packet to DESYNC, the
    IDCODE of the devices in `IDCODES` and the checksum over all register writes: a bit that flipped in the frame data
    is found. Packets of UltraScale+ are not followed: there was no real file to prove that on, and a good one must not
    be refused.

    Args:
        path: a ``.bit`` file; not trusted.
        subject: who asks, for messages.

    Raises:
        ConfigError: the file cannot be read.
        ToolError: it is no bitstream, or a damaged one.
    """
    data = _load(path, subject)
    try:
        header = _header(data)
        device = _chip(header.texts["b"])[0]
        words = _words(data, header)
        walked = _Walked(None, None, False)
        if device.startswith("7"):
            walked = _walk(words)
            _check_idcode(device, walked.idcode)
    except _DamageError as error:
        raise _damaged(path, subject, error) from None
    design, _, rest = header.texts["a"].partition(";")
    extra = dict(entry.split("=", 1) for entry in rest.split(";") if "=" in entry)
    return BitFile(
        path=path,
        design=design,
        user_id=extra.get("UserID", ""),
        tool_version=extra.get("Version", ""),
        part=header.texts["b"],
        date=header.texts["c"],
        time=header.texts["d"],
        size_bytes=header.size_bytes,
        data_offset=header.data_offset,
        sha256=hashlib.sha256(data).hexdigest(),
        idcode=walked.idcode,
        frame_words=walked.frame_words,
        crc_checked=walked.crc_checked,
    )


def check_part(bit: BitFile, part: str, *, subject: str = "deploy") -> None:
    """Refuse a bitstream for another part; device and package count, since the 7 series' have no speed grade.

    Raises:
        ConfigError: device or package differ.
    """
    if _chip(bit.part) != _chip(part):
        raise ConfigError(
            f"{subject}: bitstream {bit.path} must be for {part}, not {bit.part}; build it for this board"
        )


def _load(path: Path, subject: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{subject}: bitstream {path} must be a readable file, not fail with {error.strerror!r}; build it first"
        ) from error


def _damaged(path: Path, subject: str, error: _DamageError) -> ToolError:
    return ToolError(
        f"{subject}: bitstream {path} must {error.rule}, not {error.value}; copy it again, or build it again"
    )


def _chip(part: str) -> tuple[str, str]:
    """Return device and package of a part as Vivado, Vitis HLS or a .bit file spell it; speed grades are dropped."""
    text = part.lower().removeprefix("xc")
    found = re.fullmatch(r"(7[a-z]+\d+[a-z]*?)-?([a-z]{3}\d+)(-.*)?", text) or re.fullmatch(
        r"([a-z]+\d+[a-z]*)-([a-z]{4}\d+)(-.*)?", text
    )
    return (found[1], found[2]) if found else (text, "")


def _header(data: bytes) -> _Header:
    """Return the fields ``a`` to ``e``; the last one's size must be what is left of the file."""
    if not data.startswith(_MAGIC):
        begin = f"a file that begins with {data[: len(_MAGIC)].hex(' ')}" if data else "an empty file"
        raise _DamageError("be a .bit file of Vivado", begin)
    texts, at = {}, len(_MAGIC)
    for key, form in _TEXTS.items():
        _check_key(data, at, key)
        end = at + 3 + int.from_bytes(data[at + 1 : at + 3], "big")
        text = data[at + 3 : end].decode("latin-1")
        if end > len(data) or len(data) < at + 3:
            raise _DamageError(f"hold a whole field {key!r} in its header", "end in it")
        if not text.endswith("\0") or not text[:-1].isprintable() or not re.fullmatch(form, text[:-1]):
            raise _DamageError(f"hold a sound field {key!r} in its header", repr(text))
        texts[key], at = text[:-1], end
    _check_key(data, at, "e")
    if len(data) < at + 5:
        raise _DamageError("hold a whole field 'e' in its header", "end in it")
    size_bytes, left = int.from_bytes(data[at + 1 : at + 5], "big"), len(data) - at - 5
    if size_bytes != left:
        how = "it is cut short" if left < size_bytes else "there are bytes behind its end"
        raise _DamageError(
            f"hold {size_bytes:,} bytes of configuration, as its header says", f"{left:,}: {how}"
        )
    return _Header(texts, size_bytes, at + 5)


def _check_key(data: bytes, at: int, key: str) -> None:
    found = data[at : at + 1]
    if found != key.encode():
        shown = f"0x{found.hex()}" if found else "end there"
        raise _DamageError(f"hold field {key!r} of its header at byte {at}", shown)


def _words(data: bytes, header: _Header) -> np.ndarray:
    """Return the words behind the sync word."""
    if header.size_bytes % 4:
        raise _DamageError("hold whole words of 4 bytes", f"{header.size_bytes:,} bytes")
    words = np.frombuffer(data, ">u4", offset=header.data_offset).astype(np.uint32)
    found = np.flatnonzero(words == _SYNC)
    if not len(found):
        raise _DamageError("hold the sync word AA 99 55 66", "come without it")
    before = np.flatnonzero(~np.isin(words[: found[0]], _BEFORE_SYNC))
    if len(before):
        raise _DamageError(
            "hold only dummies and the bus width before its sync word", f"0x{words[before[0]]:08x}"
        )
    return words[found[0] + 1 :]


def _check_idcode(device: str, idcode: int | None) -> None:
    wanted = IDCODES.get(device)
    if wanted is None:
        return
    if idcode is None or (idcode ^ wanted) & 0x0FFFFFFF:
        found = "none" if idcode is None else f"0x{idcode:08x}"
        raise _DamageError(f"write the IDCODE 0x{wanted:08x} of the {device} in its header", found)


def _walk(words: np.ndarray) -> _Walked:
    """Follow the packets to DESYNC; the checksum is compared wherever it is written."""
    crc, idcode, frame_words, sums, rest = 0, None, 0, 0, words[:0]
    covered = True  # nothing but DESYNC is written after the last checksum
    for register, payload, at in _packets(words):
        value = int(payload[-1])
        if register == _CMD and value == _DESYNC:
            rest = words[at:]
            break
        if register == _CRC:
            if value != crc:
                raise _DamageError(f"have the checksum 0x{value:08x} that it holds", f"0x{crc:08x}")
            crc, sums, covered = 0, sums + 1, True
            continue
        crc = _checksum(crc, register, payload)
        if register == _CMD and value == _RCRC:
            crc = 0
        covered = False
        idcode = value if register == _IDCODE else idcode
        frame_words += len(payload) if register == _FDRI else 0
    _check_end(rest, covered or not sums, frame_words)
    return _Walked(idcode, frame_words, bool(sums))


def _packets(words: np.ndarray) -> Iterator[tuple[int, np.ndarray, int]]:
    """Yield register, words and end of every packet; the last one is the command DESYNC."""
    at = 0
    while at < len(words):
        begin, head = at, int(words[at])
        at += 1
        if head == _NOOP:
            continue
        if head >> 27 != _TYPE_1 or head & _RESERVED:
            raise _no_header(begin, head)
        register, count = head >> 13 & 0x1F, head & 0x7FF
        if not count:  # it is in a header of type 2, right behind
            head = int(words[at]) if at < len(words) else 0
            count = head & 0x7FFFFFF
            if head >> 27 != _TYPE_2 or not count:
                raise _no_header(at, head)
            at += 1
        payload = words[at : at + count]
        at += count
        if len(payload) < count:
            where = f"of the packet at word {begin:,} behind its sync word"
            raise _DamageError(f"hold the {count:,} words {where}", f"{len(payload):,}")
        yield register, payload, at
        if register == _CMD and payload[-1] == _DESYNC:
            return
    raise _DamageError("end with the command DESYNC", "stop without it")


def _no_header(at: int, head: int) -> _DamageError:
    return _DamageError(f"hold the header of a packet at word {at:,} behind its sync word", f"0x{head:08x}")


def _check_end(rest: np.ndarray, covered: bool, frame_words: int) -> None:
    if not covered:
        raise _DamageError("write a checksum last before the command DESYNC", "other registers")
    if frame_words % _FRAME_WORDS:
        raise _DamageError(f"hold whole frames of {_FRAME_WORDS} words", f"{frame_words:,} words")
    other = np.flatnonzero((rest != _NOOP) & (rest != _DUMMY))
    if len(other):
        raise _DamageError("hold only no-operations after the command DESYNC", f"0x{rest[other[0]]:08x}")


def _checksum(crc: int, register: int, words: np.ndarray) -> int:
    """Return the checksum after a packet.

    A word w for register r turns the sum c into A(c ^ w) ^ B(r), with A and B linear over single bits: 37 and 5 steps
    of the shift register. So pairs of neighbours are combined, then pairs of those, with A applied as often as the
    right one is long.
    """
    address = _shifted(register, 5)
    if len(words) < _FEW_WORDS:
        first, second, third, fourth = _lists()
        for word in words.tolist():
            mixed = crc ^ word
            crc = (
                first[mixed & 255] ^ second[mixed >> 8 & 255] ^ third[mixed >> 16 & 255] ^ fourth[mixed >> 24]
            )
            crc ^= address
        return crc
    sums = words.copy()
    sums[0] ^= np.uint32(crc)
    sums = _applied(_table(0), sums) ^ np.uint32(address)
    level = 0
    while len(sums) > 1:
        if len(sums) % 2:
            sums = np.concatenate([np.zeros(1, np.uint32), sums])
        sums = _applied(_table(level), sums[0::2]) ^ sums[1::2]
        level += 1
    return int(sums[0])


def _shifted(crc: int, bits: int) -> int:
    for _ in range(bits):
        crc = crc >> 1 ^ (_POLYNOMIAL if crc & 1 else 0)
    return crc


@cache
def _table(level: int) -> np.ndarray:
    """Return A applied 2**level times, as four tables of 256, one a byte."""
    if level:
        return _applied(_table(level - 1), _table(level - 1))
    table = np.zeros((4, 256), np.uint32)
    for bit in range(32):
        row, size = table[bit // 8], 1 << bit % 8
        row[size : 2 * size] = row[:size] ^ np.uint32(_shifted(1 << bit, _STEP_BITS))
    return table


@cache
def _lists() -> list[list[int]]:
    found: list[list[int]] = _table(0).tolist()
    return found


def _applied(table: np.ndarray, sums: np.ndarray) -> np.ndarray:
    found: np.ndarray = table[0][sums & 255] ^ table[1][sums >> 8 & 255]
    found = found ^ table[2][sums >> 16 & 255] ^ table[3][sums >> 24]
    return found
