"""Integers as the bits of beats and memories."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from flow.fixed.from_qonnx.values import width_of
from flow.rtl.streams import Stream


def memory(words: Iterable[Iterable[int]], width: int) -> str:
    """Return the text of a ``$readmemh`` file: a line a word, its first element of ``width`` bits lowest."""
    mask = (1 << width) - 1
    lines = []
    for elements in words:
        whole, digits = 0, 0
        for place, value in enumerate(elements):
            whole |= (int(value) & mask) << place * width
            digits = ((place + 1) * width + 3) // 4
        lines.append(f"{whole:0{digits}x}\n")
    return "".join(lines)


def signed_width(values: np.ndarray) -> int:
    """Return the bits of the smallest two's complement that holds all values."""
    return width_of(min(int(values.min()), -1), max(int(values.max()), 0))


def pack(values: np.ndarray, lanes: int, width: int) -> np.ndarray:
    """Return LSBs as beats: uint64 (beats, words), the low word first; ``values`` are taken in their order."""
    bits = values.reshape(-1, lanes).astype(np.int64)[..., None] >> np.arange(width) & 1
    flat = bits.reshape(len(bits), lanes * width).astype(np.uint8)
    padded = np.zeros((len(flat), -(-lanes * width // 64) * 64), np.uint8)
    padded[:, : lanes * width] = flat
    return np.packbits(padded, axis=1, bitorder="little").view("<u8")


def unpack(beats: np.ndarray, lanes: int, width: int, *, signed: bool) -> np.ndarray:
    """Return the LSBs of beats, int64 (beats, lanes)."""
    raw = np.unpackbits(np.ascontiguousarray(beats, "<u8").view(np.uint8), axis=1, bitorder="little")
    bits = raw[:, : lanes * width].reshape(len(beats), lanes, width).astype(np.int64)
    weights = np.int64(1) << np.arange(width, dtype=np.int64)
    if signed:
        weights[-1] = -weights[-1]
    return bits @ weights


def to_beats(stream: Stream, frames: np.ndarray) -> np.ndarray:
    """Return frames of LSBs as the beats of a stream, see `pack`."""
    return pack(frames, stream.lanes, stream.dtype.width)


def from_beats(stream: Stream, beats: np.ndarray) -> np.ndarray:
    """Return the LSBs of whole frames, (frames, *shape)."""
    flat = unpack(beats, stream.lanes, stream.dtype.width, signed=stream.dtype.signed)
    return flat.reshape(-1, *stream.shape)
