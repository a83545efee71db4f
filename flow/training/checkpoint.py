"""A checkpoint: the state of a training that a later run goes on from; one file, whole or not there at all."""

from __future__ import annotations

import errno
import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from flow.errors import ConfigError
from flow.files import write_atomically

MAGIC = b"flow-checkpoint-1\n"
DIGEST_BYTES = 32


class Checkpoint:
    """One file with the newest state of one training; the file is the magic, a SHA-256, and what torch saves.

    The hash is checked before torch reads anything (torch's own reader checks no CRC), and torch reads tensors,
    numbers, texts and containers only, so that nothing in the file is executed.
    """

    def __init__(self, path: Path | None, identity: Mapping[str, Any]) -> None:
        """Name the file and the run.

        Args:
            path: the file; ``None``: nothing is saved and nothing found.
            identity: facts of the run that JSON can hold: options, hashes of the data and of the weights it starts
                from. A file of another identity, or of another version of torch, is no checkpoint of this run.
        """
        self.path = None if path is None else Path(path)
        self.identity = json.dumps(identity, sort_keys=True, default=str)

    def load(self) -> dict[str, Any] | None:
        """Return the saved state, or None where there is none of this run that can be read whole."""
        import torch

        payload = self._payload()
        if payload is None:
            return None
        try:
            found = torch.load(io.BytesIO(payload), weights_only=True, map_location="cpu")
        except Exception:  # a foreign pickle fails in whatever way it likes
            return None
        if not isinstance(found, dict) or not isinstance(found.get("run"), str):
            return None
        state = found.get("state")
        return state if found["run"] == self._run() and isinstance(state, dict) else None

    def _run(self) -> str:
        import torch

        return f"torch {torch.__version__}, {self.identity}"

    def _payload(self) -> bytes | None:
        if self.path is None or not self.path.is_file():
            return None
        try:
            with self.path.open("rb") as file:
                if file.read(len(MAGIC)) != MAGIC:
                    return None
                digest, payload = file.read(DIGEST_BYTES), file.read()
        except OSError:
            return None
        return payload if hashlib.sha256(payload).digest() == digest else None

    def save(self, state: Mapping[str, Any]) -> None:
        """Put ``state`` in the place of what was saved before.

        Args:
            state: nested dicts, lists and tuples of tensors, numbers, texts and None.

        Raises:
            ConfigError: the disk is full or refuses; what was saved before stays.
        """
        import torch

        if self.path is None:
            return
        buffer = io.BytesIO()
        torch.save({"run": self._run(), "state": _plain(state)}, buffer)
        payload = buffer.getvalue()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self.path, MAGIC + hashlib.sha256(payload).digest() + payload)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise ConfigError(
                    f"checkpoint: {str(self.path)!r} must have room, not a full disk; free some and run again: "
                    "the training goes on after the last epoch that was saved"
                ) from error
            raise ConfigError(
                f"checkpoint: {str(self.path)!r} must be writable, not refuse ({error.strerror}); choose another file"
            ) from error

    def clear(self) -> None:
        """Remove the file."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)


def _plain(value: Any) -> Any:
    """Return ``value`` in the types that `Checkpoint.load` takes back."""
    import torch

    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value] if isinstance(value, list) else tuple(map(_plain, value))
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, torch.Tensor):
        return value.detach()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"a checkpoint holds tensors, numbers, texts and None, not {type(value).__name__}")
