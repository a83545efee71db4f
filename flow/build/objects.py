"""What compilers made, kept between runs: a folder of files whose names are digests of all that went into them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from pathlib import Path

from flow.build.room import FULL, MAKING, cache, refusal, room
from flow.errors import ConfigError
from flow.files import hashes, write_json

KEEP_DAYS = 14
"""An entry that nobody used for so long goes."""
_FILES = "files.json"
_log = logging.getLogger(__name__)
_fallback: ContextVar[Path | None] = ContextVar("fallback", default=None)


@contextlib.contextmanager
def caching(folder: Path) -> Iterator[None]:
    """Take ``folder``, in this block, where the user's cache folder cannot be written, and say so now.

    It is known to the run alone, and wanted far below it, where compilers are called.
    """
    refused = refusal(cache())
    if refused:
        _log.warning(
            "cache: %r must be writable, not refuse (%s); what compilers make is kept in %s instead",
            str(cache()),
            refused.strerror,
            folder,
        )
    token = _fallback.set(folder if refused else None)
    try:
        yield
    finally:
        _fallback.reset(token)


class Objects:
    """A cache in ``folder``; several processes may share it.

    Args:
        folder: ``None``: the one called ``name`` in the user's cache folder, or in that of `caching`.
        name: of that folder; a kind of entry has one of its own.
    """

    def __init__(self, folder: Path | None = None, name: str = "csim") -> None:
        self.folder = (folder or (_fallback.get() or cache()) / name).absolute()

    def path(self, key: str, name: str) -> Path:
        """Return where the file ``name`` of the entry ``key`` lies or will lie."""
        return self.folder / key / name

    def has(self, key: str, name: str) -> bool:
        """Return whether the entry ``key`` holds ``name``, all its files as they were made."""
        entry = self.folder / key
        try:
            files = json.loads((entry / _FILES).read_text(encoding="utf-8"))
            return name in files and hashes(entry, map(str, files)) == files
        except (OSError, ValueError, TypeError, RecursionError):
            return False

    def get(self, key: str, name: str, make: Callable[[Path], None]) -> Path:
        """Return the file ``name`` of the entry ``key``; ``make(path)`` writes it where it is missing or altered.

        It appears at once and whole, so that no other process sees half of it.

        Raises:
            ConfigError: the folder cannot be written.
            ToolError: its disk is full.
        """
        found = self.path(key, name)
        if self.has(key, name):
            with contextlib.suppress(OSError):  # a cache that can only be read is of use, too
                os.utime(found.parent)
            return found
        if found.parent.exists():
            _log.warning("cache: %s was altered, or is not whole; it is made anew", found)
        self._sweep()
        with room("cache", self.folder):
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                partial = Path(tempfile.mkdtemp(prefix=MAKING, dir=self.folder))
            except OSError as error:
                if error.errno in FULL:
                    raise
                raise _refused(self.folder, error) from error
            try:
                self._make(partial / key, name, make)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
        return found

    def _make(self, fresh: Path, name: str, make: Callable[[Path], None]) -> None:
        """Make an entry in the folder ``fresh`` and rename it into place."""
        fresh.mkdir()
        make(fresh / name)
        write_json(fresh / _FILES, hashes(fresh))
        place = self.folder / fresh.name
        for _ in range(2):
            try:
                os.rename(fresh, place)
                return
            except OSError:  # there is one: another process was faster, or it is broken
                if self.has(fresh.name, name):
                    return
                shutil.rmtree(place, ignore_errors=True)
        raise _refused(place, OSError(0, "it cannot be replaced"))

    def _sweep(self) -> None:
        if not self.folder.is_dir():
            return
        now = time.time()
        for entry in self.folder.iterdir():
            with contextlib.suppress(OSError):
                used = entry.stat().st_mtime
                if used > now:  # the clock was set back: its age counts from here
                    os.utime(entry)
                elif used < now - KEEP_DAYS * 86400:
                    shutil.rmtree(entry, ignore_errors=True)


def _refused(folder: Path, error: OSError) -> ConfigError:
    return ConfigError(
        f"cache: {str(folder)!r} must be writable, not refuse ({error.strerror}); "
        "set XDG_CACHE_HOME to a folder that is"
    )


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
