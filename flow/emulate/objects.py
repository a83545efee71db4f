"""Compiled objects kept between runs: a folder of files whose names are digests of all that went into them."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import platformdirs

KEEP_DAYS = 14
"""An entry that nobody used for so long goes."""


class Objects:
    """A cache in ``folder``; several processes may share it.

    Args:
        folder: ``None``: the user's cache folder.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or platformdirs.user_cache_path("prune2bit") / "csim"

    def path(self, key: str, name: str) -> Path:
        """Return where the file ``name`` of the entry ``key`` lies or will lie."""
        return self.folder / key / name

    def get(self, key: str, name: str, make: Callable[[Path], None]) -> Path:
        """Return the file ``name`` of the entry ``key``; ``make(path)`` writes it where it is missing.

        The entry appears at once and whole, so that no other process sees half of it.
        """
        found = self.path(key, name)
        if not _touch(found):
            self._sweep()
            partial = self.folder / f"{key}.{os.getpid()}"
            partial.mkdir(parents=True, exist_ok=True)
            try:
                make(partial / name)
                found.parent.mkdir(parents=True, exist_ok=True)
                for file in sorted(partial.iterdir(), key=lambda file: file.name == name):
                    file.replace(found.parent / file.name)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
        return found

    def drop(self, key: str) -> None:
        """Remove the entry ``key``."""
        shutil.rmtree(self.folder / key, ignore_errors=True)

    def _sweep(self) -> None:
        if not self.folder.is_dir():
            return
        oldest = time.time() - KEEP_DAYS * 86400
        for entry in self.folder.iterdir():
            with contextlib.suppress(OSError):
                if entry.stat().st_mtime < oldest:
                    shutil.rmtree(entry, ignore_errors=True)


def digest(facts: Iterable[str], files: Iterable[Path]) -> str:
    """Return a digest of texts and of the names and contents of files."""
    seen = hashlib.sha256()
    for fact in facts:
        seen.update(f"{len(fact)} {fact}\n".encode())
    for file in files:
        content = file.read_bytes()
        seen.update(f"{file.name} {len(content)}\n".encode())
        seen.update(content)
    return seen.hexdigest()[:32]


def _touch(path: Path) -> bool:
    """Mark the entry of an existing file as used now."""
    try:
        os.utime(path)
        os.utime(path.parent)
    except OSError:
        return False
    return True
