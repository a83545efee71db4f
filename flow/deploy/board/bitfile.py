"""Vivado's ``.bit`` files: a header of fields, then the configuration's words.

Sources: the fields as in PYNQ's ``parse_bit_header`` (pynq/pl_server/embedded_device.py). The byte order: Linux,
drivers/fpga/zynq-fpga.c, refuses what does not hold the sync word as 66 55 99 AA ("a byte swapped .bin file"). Linux,
drivers/fpga/zynqmp-fpga.c, hands the file to the platform's firmware, whose xilfpga took that order alone before
release 4.2 and takes both since; PYNQ swaps for both chips. So one order, the swapped one, is right for both.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from .errors import BoardError

SYNC_SWAPPED = b"\x66\x55\x99\xaa"
_DATA = 0x65  # the field "e"
_FIELDS = {0x61: "design", 0x62: "part", 0x63: "date", 0x64: "time"}


class Bitfile(NamedTuple):
    """``part`` as Vivado shortens it, such as 7z020clg400; ``words``: the configuration, as the file has it."""

    part: str
    words: bytes


def read(path: Path) -> Bitfile:
    """Return a ``.bit`` file.

    Raises:
        BoardError: it cannot be read or is none.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BoardError(
            f"bitstream: {path.name} must be readable, not fail ({error}); copy it again"
        ) from error
    fields, at = {}, 4 + int.from_bytes(data[:2], "big")
    while at + 3 <= len(data) and data[at] in _FIELDS:
        size = int.from_bytes(data[at + 1 : at + 3], "big")
        text = data[at + 3 : at + 3 + size]
        fields[_FIELDS[data[at]]] = text.rstrip(b"\0").decode("ascii", "replace")
        at += 3 + size
    size = int.from_bytes(data[at + 1 : at + 5], "big")
    words = data[at + 5 :]
    if (
        data[at : at + 1] != bytes([_DATA])
        or not size
        or size != len(words)
        or size % 4
        or "part" not in fields
    ):
        raise BoardError(
            f"bitstream: {path.name} must be a whole .bit file of Vivado, not another or a cut one; copy it again"
        )
    return Bitfile(fields["part"], words)


def check_part(path: Path, part: str) -> None:
    """Compare the part in a file's header with the manifest's.

    Raises:
        BoardError: it is built for another one.
    """
    found = read(path).part
    short, whole = _plain(found), _plain(part)
    if len(short) < 4 or not (whole.startswith(short) or short.startswith(whole)):
        raise BoardError(
            f"bitstream: {path.name} must be built for the manifest's {part}, not {found}; take both from one build"
        )


def swapped(bitfile: Bitfile, name: str) -> bytes:
    """Return the configuration as the kernel's drivers take it: every 32-bit word's bytes reversed.

    Raises:
        BoardError: it holds no sync word.
    """
    data = np.frombuffer(bitfile.words, ">u4").astype("<u4").tobytes()
    if data.find(SYNC_SWAPPED) % 4:  # -1 % 4 is 3: not found, or beside a word
        raise BoardError(f"bitstream: {name} must hold a sync word, not none; build or copy it again")
    return data


def _plain(part: str) -> str:
    text = "".join(letter for letter in part.lower() if letter.isalnum())
    return text[2:] if text.startswith("xc") else text
