"""Files that appear whole or not at all, and hashes of what is in them."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a text or bytes beside ``path`` and rename them into place."""
    fresh = path.with_name(f".{path.name}.part")
    try:
        fresh.write_bytes(content.encode() if isinstance(content, str) else content)
        os.replace(fresh, path)
    finally:
        fresh.unlink(missing_ok=True)


def json_text(values: Any) -> str:
    """Return values as indented JSON; NaN and infinity, which JSON does not have, are a ValueError."""
    return json.dumps(values, indent=1, allow_nan=False)


def write_json(path: Path, values: Any) -> None:
    """Write values as `json_text` gives them, whole or not at all."""
    write_atomically(path, json_text(values) + "\n")


def write_sealed(path: Path, values: Mapping[str, Any]) -> None:
    """Write values as JSON with a digest of themselves, whole or not at all."""
    write_atomically(path, _sealed(json.loads(json.dumps(values, allow_nan=False))))


def read_sealed(path: Path) -> dict[str, Any]:
    """Return what `write_sealed` has written.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not, to the byte, what was written.
    """
    text = path.read_text(encoding="utf-8")
    values = json.loads(text)
    if not isinstance(values, dict) or values.pop(_SEAL, None) is None or _sealed(values) != text:
        raise ValueError("it is not what was written")
    return values


_SEAL = "sha256"


def _sealed(values: Mapping[str, Any]) -> str:
    return json_text({**values, _SEAL: text_digest(json_text(values))}) + "\n"


def finite(values: Any) -> Any:
    """Return nested values with ``None`` for every number that is NaN or infinite."""
    if isinstance(values, Mapping):
        return {key: finite(value) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [finite(value) for value in values]
    return None if isinstance(values, float) and not math.isfinite(values) else values


def put_in_place(built: Path, folder: Path, old: Path) -> None:
    """Rename a whole folder to its place; one that is there goes to ``old``, and away as soon as it is replaced."""
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        os.rename(folder, old)
    os.rename(built, folder)
    shutil.rmtree(old, ignore_errors=True)


def disk_is_full(folder: Path) -> bool:
    """Tell whether a megabyte finds no room in ``folder``."""
    probe = folder / ".room"
    try:
        probe.write_bytes(bytes(1 << 20))
    except OSError as error:
        return error.errno == errno.ENOSPC
    finally:
        probe.unlink(missing_ok=True)
    return False


def hashes(folder: Path, names: Iterable[str] | None = None) -> dict[str, str]:
    """Return the SHA-256 of files under ``folder`` by relative path: of ``names``, or all."""
    found = {}
    for path in sorted(folder.rglob("*") if names is None else (folder / name for name in names)):
        name = path.relative_to(folder).as_posix()
        if path.is_file():
            found[name] = file_digest(path)
    return found


def is_file(path: Path) -> bool:
    """Tell whether there is a file; a name that no file can have (too long, say) is none."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def text_digest(text: str) -> str:
    """Return the SHA-256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()
