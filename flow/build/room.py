"""Full disks, named: of the output, the temporary and the cache folder, it is the one without room that is told."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import platformdirs

from flow.errors import ToolError

FULL = (errno.ENOSPC, errno.EDQUOT)
"""What the system says where there is no room."""
_WORDS = ("No space left on device", "Disk quota exceeded")
MAKING = ".making-"
_SCRATCH = "prune2bit-scratch-"
"""How the names of folders begin that go when their work is done: of a cache, and temporary ones."""
_NOWHERE = Path(os.devnull, "prune2bit")
"""A folder that nobody can make."""
_LITTLE = 1 << 20
"""Bytes: less free room than that is none."""


def temporary() -> Path:
    """Return the folder where programs put what they need for a moment."""
    return Path(os.environ.get("TMPDIR") or tempfile.gettempdir())


def cache() -> Path:
    """Return the flow's folder among the user's caches."""
    try:
        found = platformdirs.user_cache_path("prune2bit")
    except RuntimeError:  # there is no home, which other versions tell by a relative path
        return _NOWHERE
    return found if found.is_absolute() else _NOWHERE


def refusal(folder: Path) -> OSError | None:
    """Return why nothing can be written into a folder; ``None``: it can, and is there now."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, buffering=0) as probe:
            probe.write(bytes(4096))
    except OSError as error:
        return error
    return None


def told(lines: Iterable[str]) -> bool:
    """Tell whether lines of a program speak of a full disk, in English."""
    return any(words in line for line in lines for words in _WORDS)


def no_room(subject: str, places: Sequence[Path]) -> ToolError:
    """Return the error of a full disk: of ``places``, the temporary folder and the cache the one with least room."""
    place = _lasting(min((*places, temporary(), cache()), key=_free))
    name, hint = str(place), ""
    if place == temporary():
        hint = ", or set TMPDIR to a folder on another disk"
    elif place.is_relative_to(cache()):
        name, hint = str(cache()), ", or set XDG_CACHE_HOME to a folder on another disk"
    return ToolError(f"{subject}: {name!r} must have room, not a full disk; free some{hint}")


def _lasting(place: Path) -> Path:
    """Return the folder that is still there when the error is read."""
    parts = place.parts
    passing = (index for index, part in enumerate(parts) if part.startswith((MAKING, _SCRATCH)))
    return Path(*parts[: next(passing, len(parts))])


def is_full(places: Sequence[Path]) -> bool:
    """Tell whether the temporary folder, or one of ``places``, has no room."""
    return any(_free(place) < _LITTLE for place in (*places, temporary()))


def _free(place: Path) -> int:
    """Return the free bytes of the disk that a file or folder lies on, or will; 0: it takes no more files."""
    there = next((path for path in (place, *place.parents) if path.exists()), Path("/"))
    facts = os.statvfs(there)
    return 0 if facts.f_files and not facts.f_favail else facts.f_bavail * facts.f_frsize


@contextlib.contextmanager
def room(subject: str, *places: Path) -> Iterator[None]:
    """Say of a disk that gets full in the block which one it is, and what to do.

    Raises:
        ToolError: the disk of the temporary folder, or of one of ``places``, is full.
    """
    try:
        yield
    except OSError as error:
        unknown = error.errno is None and is_full(places)  # what numpy says of a file that it could not end
        if error.errno not in FULL and not unknown:
            raise
        raise no_room(subject, places) from error


@contextlib.contextmanager
def scratch(subject: str) -> Iterator[Path]:
    """Give a temporary folder; when a tool fails in the block the logs in it stay, since the error names them.

    Raises:
        ToolError: there is no temporary folder, or its disk is full.
    """
    try:
        folder = Path(tempfile.mkdtemp(prefix=_SCRATCH))
    except OSError as error:
        if error.errno in FULL:
            raise no_room(subject, ()) from error
        raise ToolError(
            f"{subject}: {str(temporary())!r} must be writable, not refuse ({error.strerror}); "
            "set TMPDIR to a folder that is"
        ) from error
    try:
        with room(subject, folder):
            yield folder
    except ToolError:
        _keep_logs(folder)
        raise
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)


def _keep_logs(folder: Path) -> None:
    for parent, folders, files in os.walk(folder, topdown=False):
        for name in (*files, *folders):
            path = Path(parent, name)
            with contextlib.suppress(OSError):  # a folder with logs in it stays
                if path.is_symlink() or path.is_file():
                    if path.suffix != ".log" or path.is_symlink():
                        path.unlink()
                else:
                    path.rmdir()
    with contextlib.suppress(OSError):
        folder.rmdir()
