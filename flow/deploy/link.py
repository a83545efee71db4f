"""The frames that a host and a board exchange over a serial line; `flow_link.sv` has the other end."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import Protocol

from flow.errors import ToolError

SYNC, ANSWER, FAILED = 0xF5, 0x80, 0xFF
INFO, RUN = 0x01, 0x02
VERSION = 1
_HEAD = struct.Struct("<BBBH")
_INFO = struct.Struct("<B8sIII")
_MOST_SKIPPED = 1 << 16
"""Bytes and stale answers before the one that is due; a line that never falls silent would hold us forever."""
_ERRORS = {1: "a damaged CRC", 2: "a wrong length", 3: "an unknown kind", 4: "a network that gives no result"}


class Line(Protocol):
    """A serial line; ``read`` returns fewer bytes when its time limit is over."""

    def read(self, size: int, /) -> bytes: ...
    def write(self, data: bytes, /) -> int | None: ...
    def reset_input_buffer(self) -> None: ...


@dataclass(frozen=True)
class Info:
    """What a board says of itself."""

    design_id: str
    clock_hz: int
    sample_bytes: int
    result_bytes: int


class Link:
    """Requests, one after the other; damaged and missing answers are asked for again.

    Args:
        line: an open serial line with a time limit.
        retries: how often a request is repeated.
    """

    def __init__(self, line: Line, retries: int = 2) -> None:
        self.line, self.retries, self.retried = line, retries, 0
        self._sequence = 0

    def info(self) -> Info:
        """Ask a board what it is.

        Raises:
            ToolError: it does not answer, or speaks another version.
        """
        payload = self._ask(INFO, b"", _INFO.size)
        version, design, clock_hz, sample, result = _INFO.unpack(payload)
        if version != VERSION:
            raise ToolError(
                f"deploy: the board must speak version {VERSION} of the protocol, not {version}; program it anew"
            )
        return Info(design[::-1].hex(), clock_hz, sample, result)

    def run(self, sample: bytes, result_bytes: int) -> tuple[int, bytes]:
        """Return the clocks that a sample took, and its result.

        Raises:
            ToolError: no whole answer comes.
        """
        payload = self._ask(RUN, sample, 4 + result_bytes)
        return int.from_bytes(payload[:4], "little"), payload[4:]

    def _ask(self, kind: int, payload: bytes, expected: int) -> bytes:
        self._sequence = (self._sequence + 1) % 256
        body = _HEAD.pack(SYNC, kind, self._sequence, len(payload))[1:] + payload
        frame = bytes([SYNC]) + body + zlib.crc32(body).to_bytes(4, "little")
        told = ""
        for attempt in range(self.retries + 1):
            self.retried += attempt > 0
            self.line.reset_input_buffer()
            self.line.write(frame)
            answer, told = self._answer(kind, expected)
            if answer is not None:
                return answer
        raise ToolError(
            f"deploy: the board must answer, not give {told} {self.retries + 1} times; program it, check port and baud"
        )

    def _answer(self, kind: int, expected: int) -> tuple[bytes | None, str]:
        """Return the payload of the answer to the last request, or what came in its place."""
        for _ in range(_MOST_SKIPPED):
            first = self.line.read(1)
            if not first:
                return None, "no answer"
            if first[0] != SYNC:
                continue
            head = self.line.read(4)
            if len(head) < 4:
                return None, "half an answer"
            got, sequence, length = head[0], head[1], int.from_bytes(head[2:], "little")
            rest = self.line.read(length + 4) if length <= max(expected, 1) else b""
            if len(rest) < length + 4 or zlib.crc32(head + rest[:-4]) != int.from_bytes(rest[-4:], "little"):
                return None, "a damaged answer"
            if sequence != self._sequence:
                continue  # to a request that was given up
            if got == FAILED and length == 1:
                return None, _ERRORS.get(rest[0], f"error {rest[0]}")
            if got != kind | ANSWER or length != expected:
                return None, "another answer"
            return rest[:-4], ""
        return None, "noise"
