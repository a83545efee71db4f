"""Arrays of an .npz file that is not trusted: sizes and checksums are checked before anything counts."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import numpy as np

_ENCRYPTED = 1
"""The bit of a zip member's flags."""
_MOST_SHOWN = 160


def read(path: Path, names: Iterable[str] | None = None) -> dict[str, np.ndarray]:
    """Return those of the arrays that the file holds, in C order; others are not read.

    Args:
        path: an .npz file, as `numpy.savez` and `numpy.savez_compressed` write it.
        names: arrays that are wanted; ``None``: all.

    Raises:
        OSError: the file cannot be opened.
        ValueError: the file, or one of the arrays, is damaged or no plain array; the text says what it is instead,
            as in "not a text".
    """
    with path.open("rb") as file:
        try:
            return _read(file, names)
        except _HoldsElseError as error:
            raise ValueError(str(error)) from None
        except Exception as error:  # zip, its compressions and numpy's header fail in a dozen ways
            told = (
                str(error)[:_MOST_SHOWN].partition("\n")[0] or "no reason given"
            )  # some hold all of a header
            raise ValueError(f"{type(error).__name__}: {told}") from error


class _HoldsElseError(Exception):
    """What the file holds in place of the array."""


def _read(file: BinaryIO, names: Iterable[str] | None) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(file) as archive:
        if names is None:
            names = [name.removesuffix(".npy") for name in archive.namelist()]
        found = {name: _member(archive, name) for name in dict.fromkeys(names)}
        members = {name: member for name, member in found.items() if member}
        _check_room(members.values())
        return {name: _array(archive, member, name) for name, member in members.items()}


def _member(archive: zipfile.ZipFile, name: str) -> zipfile.ZipInfo | None:
    found = [member for member in archive.infolist() if member.filename.removesuffix(".npy") == name]
    if len(found) > 1:
        raise _HoldsElseError(f"two arrays of the name {name!r}")
    if found and found[0].flag_bits & _ENCRYPTED:
        raise _HoldsElseError(f"an encrypted {name!r}")
    return found[0] if found else None


def _check_room(members: Iterable[zipfile.ZipInfo]) -> None:
    """Refuse what a compressed file could fill the memory with."""
    needed = sum(member.file_size for member in members)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > memory:
        raise _HoldsElseError(f"{needed:,} bytes of arrays for a memory of {memory:,}")


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str) -> np.ndarray:
    with archive.open(member) as file:
        if file.read(len(np.lib.format.MAGIC_PREFIX)) != np.lib.format.MAGIC_PREFIX:
            raise _HoldsElseError(f"{name!r} as something else than an array")
        file.seek(0)
        version = np.lib.format.read_magic(file)
        first = version == (1, 0)
        header = np.lib.format.read_array_header_1_0 if first else np.lib.format.read_array_header_2_0
        shape, _, kind = header(file)
        size = int(kind.itemsize)
        for length in shape:  # Python's integers: numpy's would overflow
            size *= int(length)
        if min(shape, default=0) < 0 or (not kind.hasobject and size != member.file_size - file.tell()):
            raise _HoldsElseError(
                f"{name!r} of shape {shape} and type {kind} in {member.file_size - file.tell():,} bytes"
            )
        file.seek(0)
        array = np.lib.format.read_array(file, allow_pickle=False)
        file.read()  # at the end of the member its checksum is compared
    return np.ascontiguousarray(array).reshape(array.shape)
