"""What this package raises; every message reads *subject must be rule, not value; next step*."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class BoardError(Exception):
    """A file, a setting or a piece of the board breaks a rule; nothing was computed."""


class DmaError(BoardError):
    """A transfer failed; ``diagnosis`` holds the cause and the registers as they were, ready for JSON."""

    def __init__(self, message: str, diagnosis: Mapping[str, Any]) -> None:
        super().__init__(message)
        self.diagnosis = dict(diagnosis)
