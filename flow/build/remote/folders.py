"""Folders to a host and back: tar streams over ssh, in place only when they are whole."""

from __future__ import annotations

import errno
import io
import os
import secrets
import shutil
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from shlex import quote

from flow.build.remote.ssh import Host, script, talk
from flow.errors import ToolError, first_line

_MOST_FILES = 100_000
_SHOWN = 80


def push(host: Host, folder: Path, destination: str, *, subject: str, timeout_s: float | None = None) -> None:
    """Copy a folder to a host; what was at its destination is replaced when all has arrived.

    Args:
        host: where.
        folder: what is copied; links are followed.
        destination: its name there, absolute or relative to the login's home.
        subject: the stage, for error messages.
        timeout_s: limit in seconds, or None.

    Raises:
        ConfigError, ToolError: as `call`.
    """
    token = secrets.token_hex(16)
    text = script("push", destination=destination, token=token)
    with tempfile.TemporaryDirectory() as here:
        packed = Path(here) / "folder.tar"
        # what busybox, GNU and BSD read alike, long names included
        with tarfile.open(packed, "w", format=tarfile.GNU_FORMAT, dereference=True) as archive:
            archive.add(folder, ".")
            archive.addfile(tarfile.TarInfo(token), io.BytesIO())
        talk(host, text, subject=subject, timeout_s=timeout_s, stdin=packed, setup=False)


def fetch(
    host: Host,
    source: str,
    names: Sequence[str],
    folder: Path,
    *,
    subject: str,
    timeout_s: float | None = None,
) -> tuple[str, ...]:
    """Copy files and folders from a host; each file is put into place by rename, after all have arrived.

    A file that stands here already is replaced; files that are here alone stay.

    Args:
        host: from where; links there come as what they point to.
        source: the folder there, absolute or relative to the login's home.
        names: files and folders in it, relative; those that do not exist are left out.
        folder: where they go to, under the same names.
        subject: the stage, for error messages.
        timeout_s: limit in seconds, or None.

    Returns:
        Those of the names that exist there.

    Raises:
        ConfigError, ToolError: as `call`; and what came is no archive, would write outside the folder, or was not
            asked for.
    """
    wanted = tuple(dict.fromkeys(names))
    text = f"set -- {' '.join(map(quote, wanted))}\n" + script("fetch", source=source)
    beside = folder.resolve()  # a killed run leaves nothing in the folder itself
    with tempfile.TemporaryDirectory(dir=beside.parent, prefix=f".{beside.name}-fetched-") as here:
        packed, fresh = Path(here) / "folder.tar", Path(here) / "files"
        fresh.mkdir()
        talk(host, text, subject=subject, timeout_s=timeout_s, output=packed, setup=False)
        if packed.stat().st_size:
            _unpack(packed, fresh, wanted, host, subject)
        found = tuple(name for name in wanted if (fresh / name).exists())
        for path in sorted(fresh.rglob("*")):
            place = folder / path.relative_to(fresh)
            try:
                (place if path.is_dir() else place.parent).mkdir(parents=True, exist_ok=True)
                if not path.is_dir():
                    os.replace(path, place)
            except (FileExistsError, IsADirectoryError, NotADirectoryError) as error:
                raise ToolError(
                    f"{subject}: {str(place)!r} must be here what it is on {host.name!r}, not a file here and a folder "
                    "there or the reverse; remove it"
                ) from error
    return found


def _unpack(packed: Path, folder: Path, wanted: Sequence[str], host: Host, subject: str) -> None:
    """Unpack plain files and folders that were asked for, and nothing else.

    That is stricter than tarfile's data filter, and works in Python 3.11.2 (Debian 12), which has no filters.
    """
    try:
        with tarfile.open(packed, "r:") as archive:  # what is compressed may unpack to anything
            _unpack_members(archive, folder, [PurePosixPath(name) for name in wanted], packed.stat().st_size)
    except _SentElseError as error:
        raise ToolError(f"{subject}: {host.name!r} must send {error}; check its tar") from None
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise ToolError(
            f"{subject}: {host.name!r} must send names that can stand here, not fail with {error.strerror}; "
            "check its tar"
        ) from error
    except Exception as error:  # broken headers make tarfile fail in a dozen ways
        raise ToolError(
            f"{subject}: {host.name!r} must send an archive, not something else ({first_line(error)}); "
            "a login there must print nothing by itself (see .bashrc)"
        ) from error


class _SentElseError(Exception):
    """What the host should have sent, and what it did."""


def _unpack_members(
    archive: tarfile.TarFile, folder: Path, wanted: Sequence[PurePosixPath], packed_bytes: int
) -> None:
    unpacked = 0
    for count, member in enumerate(archive):
        name = PurePosixPath(member.name)
        if name.is_absolute() or ".." in name.parts:
            raise _SentElseError(f"names inside the folder, not {member.name!r}")
        if not any(name.is_relative_to(asked) for asked in wanted):
            raise _SentElseError(f"what was asked for, not {member.name[:_SHOWN]!r}")
        unpacked += member.size
        if count >= _MOST_FILES or unpacked > packed_bytes:  # a sparse file says any size
            raise _SentElseError(f"at most {_MOST_FILES:,} files of the archive's size, not more")
        place = folder / name
        source = None
        if member.islnk():  # two names of one file
            source = folder / PurePosixPath(member.linkname)
            if ".." in source.parts or not source.is_relative_to(folder) or not source.is_file():
                raise _SentElseError(f"links to files before them, not {member.linkname[:_SHOWN]!r}")
        elif member.issym():
            raise _SentElseError(f"files in the place of links, not the link {member.name[:_SHOWN]!r}")
        elif not member.isreg() and not member.isdir():  # a socket, a device
            continue
        try:
            _place(archive, member, place, source)
        except (FileExistsError, IsADirectoryError, NotADirectoryError):
            raise _SentElseError(
                f"a file or a folder of one name, not both: {member.name[:_SHOWN]!r}"
            ) from None


def _place(archive: tarfile.TarFile, member: tarfile.TarInfo, place: Path, source: Path | None) -> None:
    if member.isdir():
        place.mkdir(parents=True, exist_ok=True)
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    if source is not None and source == place:
        return
    place.unlink(missing_ok=True)  # what is written through a second name would change the first one's file
    if source is not None:
        os.link(source, place)  # copies of one file, as many as a header each, could fill the disk
        return
    content = archive.extractfile(member)
    assert content is not None  # of a regular file
    with content, place.open("wb") as file:
        shutil.copyfileobj(content, file)
    place.chmod(0o644 | member.mode & 0o111)
