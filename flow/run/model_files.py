"""Which files the user's network is made of: the modules that building it imports, and the files that it opens."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from flow.build.plan import pipe
from flow.config import Config
from flow.files import file_digest, read_sealed, write_sealed

_WATCHER = Path(__file__).with_name("watch_build.py")
_MEMO = "network.json"
_CHECKPOINT = "checkpoint"


def network_files(config: Config, store: Path) -> dict[str, str]:
    """Return the SHA-256 of every file that the network is made of, by path, relative to the config where possible.

    The files are found by building the network in a process of its own. That is done again only when one of them has
    changed: the list is kept in ``store``.

    Args:
        config: of the run.
        store: the folder that keeps the list.
    """
    if "onnx" in config.model:
        from flow.onnx_model import digest

        return {str(config.model["onnx"]): digest(config.base / str(config.model["onnx"]))}
    source = str(config.model["source"])
    found: dict[str, str] = {}
    if source.partition(".")[0] != "flow":  # the flow's own code is in every key
        known = _recorded(store / _MEMO, source, config.base)
        found = _hashed(known, config.base)
        if known is None or found != known:
            names, whole = _watched(source, config.base)
            found = _hashed(names, config.base)
            if whole:
                record = {"source": source, "base": str(config.base.resolve()), "files": found}
                write_sealed(store / _MEMO, record)
    checkpoint = config.base / config.model.get(_CHECKPOINT, "")
    return found | ({_CHECKPOINT: file_digest(checkpoint)} if checkpoint.is_file() else {})


def _recorded(memo: Path, source: str, base: Path) -> Mapping[str, str] | None:
    try:
        values = read_sealed(memo)
        same = values["source"] == source and values["base"] == str(base.resolve())
        return dict(values["files"]) if same else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _hashed(names: Iterable[str] | None, base: Path) -> dict[str, str]:
    files = {name: base / name for name in names or ()}
    return {name: file_digest(path) for name, path in sorted(files.items()) if path.is_file()}


def _watched(source: str, base: Path) -> tuple[list[str], bool]:
    """Return what building the network reads, and whether it came to its end; why not is told when it is needed."""
    top = base.resolve()
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "files.json"
        given = json.dumps({"source": source, "path": [str(top), *sys.path], "answer": str(answer)})
        pipe((sys.executable, str(_WATCHER)), subject="[model]", stdin=given.encode())
        told: dict[str, Any] = {"files": [], "built": False}
        if answer.is_file():
            told = json.loads(answer.read_text("utf-8"))
    files = (Path(name) for name in told["files"])
    names = [file.relative_to(top).as_posix() if file.is_relative_to(top) else str(file) for file in files]
    return names, bool(told["built"])
