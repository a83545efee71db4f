"""What compilers made, kept between runs: a folder of files whose names are digests of all that went into them."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import platformdirs

KEEP_DAYS = 14
"""An entry that nobody used for so long goes."""
_SIZE = "size"


class Objects:
    """A cache in ``folder``; several processes may share it.

    Args:
        folder: ``None``: the one called ``name`` in the user's cache folder.
        name: of that folder; a kind of entry has one of its own.
    """

    def __init__(self, folder: Path | None = None, name: str = "csim") -> None:
        self.folder = folder or platformdirs.user_cache_path("prune2bit") / name

    def path(self, key: str, name: str) -> Path:
        """Return where the file ``name`` of the entry ``key`` lies or will lie."""
        return self.folder / key / name

    def has(self, key: str, name: str) -> bool:
        """Return whether the entry ``key`` holds ``name``, as long as it was made."""
        path = self.path(key, name)
        try:
            return path.stat().st_size == int((path.parent / _SIZE).read_text())
        except (OSError, ValueError):
            return False

    def get(self, key: str, name: str, make: Callable[[Path], None]) -> Path:
        """Return the file ``name`` of the entry ``key``; ``make(path)`` writes it where it is missing or cut off.

        It appears at once and whole, so that no other process sees half of it.
        """
        found = self.path(key, name)
        if self.has(key, name):
            os.utime(found.parent)
            return found
        self._sweep()
        self.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.folder) as partial:
            made = Path(partial) / name
            make(made)
            (made.parent / _SIZE).write_text(str(made.stat().st_size))
            found.parent.mkdir(exist_ok=True)
            for file in sorted(made.parent.iterdir(), key=lambda file: file.name == _SIZE):
                file.replace(found.parent / file.name)
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
