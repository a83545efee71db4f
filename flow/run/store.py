"""The store: results of stages by content, under ``<out>/.store``; they appear by rename, whole or not at all."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flow.errors import ConfigError, ToolError
from flow.files import disk_is_full, hashes, put_in_place, read_sealed, text_digest, write_sealed

ENTRY = "entry.json"
FAILED = "failed"


@dataclass(frozen=True)
class Entry:
    """One finished stage: its folder, the hash of its files, its figures and the seconds it took."""

    folder: Path
    hash: str
    figures: Mapping[str, Any]
    seconds: float


class Store:
    """Finished stages of one output folder."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.root = out / ".store"
        if out.exists() and not out.is_dir():
            raise ConfigError(f"out: {str(out)!r} must be a folder, not a file; choose another with --out")
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            (self.root / ".writable").touch()
            (self.root / ".writable").unlink()
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise self.no_room() from error
            raise ConfigError(
                f"out: {str(out)!r} must be writable, not refuse ({error.strerror}); choose another with --out"
            ) from error

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep a second run out of this folder; drop what a killed run left half done, but not its checkpoints."""
        with (self.root / ".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise ConfigError(
                    f"out: {str(self.out)!r} must be used by one run at a time, not two; wait for the other, or choose "
                    "another with --out"
                ) from error
            for left in self.root.glob(".building-*"):
                shutil.rmtree(left)
            for part in self.root.glob(".*.part"):
                part.unlink()
            yield

    def find(self, stage: str, key: str) -> Entry | None:
        """Return the finished stage with this key, its files checked, or None.

        Files that were added since, such as a vendor build's, do no harm.

        Raises:
            ConfigError: a file of the entry is missing or was altered.
        """
        folder = self._folder(stage, key)
        return self._read(stage, folder) if folder.is_dir() else None

    def _read(self, stage: str, folder: Path) -> Entry:
        try:
            record = read_sealed(folder / ENTRY)
            files, seconds, figures = record["files"], record["seconds"], record["figures"]
            named = self._folder(record["stage"], record["key"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise self._damaged(stage, folder, f"{ENTRY} is missing or altered") from error
        if named.name != folder.name or record["stage"] != stage:
            raise self._damaged(stage, folder, f"{ENTRY} is another result's")
        found = hashes(folder, files)
        for name in sorted(files):
            if files[name] != found.get(name):
                raise self._damaged(stage, folder, f"{name} is missing or altered")
        return Entry(folder, _digest(files), figures, seconds)

    def shown(self, stage: str) -> Entry:
        """Return the finished stage that ``<out>/<stage>`` points at.

        Raises:
            ConfigError: there is none, or a file of it is missing or was altered.
        """
        folder = (self.out / stage).resolve()
        if folder.parent != self.root.resolve() or not folder.is_dir():
            raise ConfigError(
                f"{stage}: {str(self.out / stage)!r} must be a finished stage, not missing; flow run makes it"
            )
        return self._read(stage, folder)

    def earlier_facts(self, stage: str) -> Mapping[str, Any] | None:
        """Return what the key of the result was made of that ``<out>/<stage>`` points at; None: there is none."""
        try:
            facts = read_sealed(self.out / stage / ENTRY)["facts"]
            return facts if isinstance(facts, Mapping) else None
        except (OSError, ValueError, KeyError):
            return None

    def _damaged(self, stage: str, folder: Path, what: str) -> ConfigError:
        return ConfigError(
            f"{stage}: cached result must be as it was written, but {what} in {folder}; "
            f"keep what you need of it, then run again with --from {stage}"
        )

    def _folder(self, stage: str, key: str) -> Path:
        return self.root / f"{stage}-{key[:16]}"

    def checkpoint(self, stage: str, key: str) -> Path:
        """Return where a stage may keep what a killed run goes on from; `add` removes it."""
        return self.root / f".resume-{stage}-{key[:16]}.pt"

    @contextmanager
    def building(self, stage: str) -> Iterator[Path]:
        """Give a folder to build in; when a tool fails in the block, what it left is kept in ``<out>/failed``."""
        # a name of its own: what a program writes late, after its run has died, is nobody's result
        folder = Path(tempfile.mkdtemp(prefix=f".building-{stage}-", dir=self.root))
        folder.chmod(0o755)
        try:
            yield folder
        except (OSError, RuntimeError, ToolError) as error:  # torch reports a failed write as a RuntimeError
            if disk_is_full(folder):
                raise self.no_room() from error
            if isinstance(error, ToolError):
                self._keep(stage, folder, error)
            raise
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _keep(self, stage: str, folder: Path, error: ToolError) -> None:
        """Move what a tool left, its logs among it, to where the user finds it, and say so in the error."""
        if not any(folder.iterdir()):
            return
        failed = self.out / FAILED / stage
        shutil.rmtree(failed, ignore_errors=True)
        failed.parent.mkdir(exist_ok=True)
        os.rename(folder, failed)
        error.args = (str(error).replace(str(folder), str(failed)),)

    def no_room(self) -> ConfigError:
        """Return the error of a full disk."""
        return ConfigError(
            f"out: {str(self.out)!r} must have room, not a full disk; free some and run again: finished stages are kept"
        )

    def add(
        self,
        stage: str,
        key: str,
        built: Path,
        figures: Mapping[str, Any],
        seconds: float,
        facts: Mapping[str, Any] | None = None,
    ) -> Entry:
        """Take a built folder into the store by rename; a result under the same key is replaced.

        Checkpoints of the stage, of this key and of others, are of no more use. ``facts``: what the key was made of.
        """
        files = hashes(built)
        record = {"stage": stage, "key": key, "files": files, "figures": figures, "seconds": seconds}
        record["facts"] = facts or {}
        write_sealed(built / ENTRY, record)
        folder = self._folder(stage, key)
        put_in_place(built, folder, self.root / f".building-{stage}-old")
        shutil.rmtree(self.out / FAILED / stage, ignore_errors=True)
        for checkpoint in self.root.glob(f".resume-{stage}-*"):
            checkpoint.unlink()
        return Entry(folder, _digest(files), figures, seconds)

    def show(self, stage: str, entry: Entry) -> None:
        """Point ``<out>/<stage>`` at the entry."""
        link, fresh = self.out / stage, self.root / f".link-{stage}"
        if link.exists() and not link.is_symlink():
            raise ConfigError(
                f"out: {str(link)!r} must be free for the stage's result, not taken; move it away, "
                "or choose another --out"
            )
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(entry.folder.relative_to(self.out))
        os.replace(fresh, link)


def _digest(files: Mapping[str, str]) -> str:
    return text_digest(json.dumps(files, sort_keys=True))
