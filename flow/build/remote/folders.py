"""Folders to a host and back: tar streams over ssh, in place only when they are whole."""

from __future__ import annotations

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
from flow.errors import ToolError


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
        ConfigError, ToolError: as `call`; and what came is no archive, or would write outside the folder.
    """
    wanted = tuple(dict.fromkeys(names))
    text = f"set -- {' '.join(map(quote, wanted))}\n" + script("fetch", source=source)
    beside = folder.resolve()  # a killed run leaves nothing in the folder itself
    with tempfile.TemporaryDirectory(dir=beside.parent, prefix=f".{beside.name}-fetched-") as here:
        packed, fresh = Path(here) / "folder.tar", Path(here) / "files"
        fresh.mkdir()
        talk(host, text, subject=subject, timeout_s=timeout_s, output=packed, setup=False)
        if packed.stat().st_size:
            _unpack(packed, fresh, host, subject)
        found = tuple(name for name in wanted if (fresh / name).exists())
        for path in sorted(fresh.rglob("*")):
            place = folder / path.relative_to(fresh)
            if path.is_dir():
                place.mkdir(parents=True, exist_ok=True)
            else:
                place.parent.mkdir(parents=True, exist_ok=True)
                os.replace(path, place)
    return found


def _unpack(packed: Path, folder: Path, host: Host, subject: str) -> None:
    """Unpack plain files and folders, and nothing else.

    That is stricter than tarfile's data filter, and works in Python 3.11.2 (Debian 12), which has no filters.
    """
    try:
        with tarfile.open(packed) as archive:
            for member in archive:
                name = PurePosixPath(member.name)
                if name.is_absolute() or ".." in name.parts:
                    raise ToolError(
                        f"{subject}: {host.name!r} must send names inside the folder, not {member.name!r}; "
                        "check its tar"
                    )
                place = folder / name
                if member.isdir():
                    place.mkdir(parents=True, exist_ok=True)
                    continue
                content = archive.extractfile(member)
                if content is None:  # a socket, a device
                    continue
                place.parent.mkdir(parents=True, exist_ok=True)
                with content, place.open("wb") as file:
                    shutil.copyfileobj(content, file)
                place.chmod(0o644 | member.mode & 0o111)
    except tarfile.TarError as error:
        raise ToolError(
            f"{subject}: {host.name!r} must send an archive, not something else ({error}); "
            "a login there must print nothing by itself (see .bashrc)"
        ) from error
