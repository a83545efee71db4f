"""What a stage's result depends on, and the key that is made of it alone."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from operator import attrgetter
from pathlib import Path
from typing import Any

from flow.build.plan import find, program_version
from flow.config import Config
from flow.files import file_digest, text_digest
from flow.resources import data_folder
from flow.training.data import fingerprint
from flow.types import Board

Depends = dict[str, Any]
"""What `declared` gives: by kind, then by name, with values; of packages and programs the names."""


def declared(
    config: Config,
    board: Board,
    *,
    options: Iterable[str] = (),
    settings: Iterable[str] = (),
    fields: Iterable[str] = (),
    packages: Iterable[str] = (),
    programs: Iterable[str] = (),
    contents: Mapping[str, Any] | None = None,
) -> Depends:
    """Return what a stage's result depends on, beside the stages before it and the flow's own code.

    Args:
        config: of the run.
        board: the config's.
        options: tables of the config, or keys of one, dotted.
        settings: other fields of the config.
        fields: of the board; dotted, such as ``resources.luts``.
        packages: distributions that the flow imports there; numpy is always one.
        programs: that are started, or looked for.
        contents: what else is read, by a digest or as values that say it all.
    """
    return {
        "options": {name: _option(config, name) for name in options},
        "settings": {name: getattr(config, name) for name in settings},
        "board": {name: attrgetter(name)(board) for name in fields},
        "packages": sorted({"numpy", *packages}),
        "programs": sorted(set(programs)),
        "contents": dict(contents or {}),
    }


def _option(config: Config, name: str) -> Any:
    table, _, option = name.partition(".")
    return config.options(table).get(option) if option else config.options(table)


def samples(config: Config) -> dict[str, Any]:
    """Return the ``contents`` of a stage that reads the data."""
    data = config.options("data")
    return {"data": fingerprint(data.get("train", "digits"), data.get("test"), config.base)}


def key(stage: str, inputs: Mapping[str, str], depends: Depends) -> str:
    """Return the key of a stage's result.

    Args:
        stage: its name.
        inputs: hashes of the stages' results that it reads, by name.
        depends: see `declared`.
    """
    facts = {
        **depends,
        "stage": stage,
        "inputs": inputs,
        "flow": code_digest(),
        "packages": {name: package_version(name) for name in depends["packages"]},
        "programs": {name: [str(find(name)), program_version(name)] for name in depends["programs"]},
    }
    return text_digest(json.dumps(facts, sort_keys=True, default=str))


def package_version(name: str) -> str | None:
    """Return the installed version of a package, or None."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def code_files() -> tuple[Path, ...]:
    """Return the flow's own sources, constants and templates."""
    package = Path(__file__).parents[1]
    found = (*package.rglob("*"), *data_folder("hls_templates").rglob("*"))
    return tuple(
        path
        for path in sorted(found)
        if path.is_file() and path.suffix not in (".pyc", ".md") and data_folder("boards") not in path.parents
    )


@cache
def code_digest() -> str:
    """Return a hash of `code_files`: other ones may give other results."""
    return text_digest(json.dumps([(path.name, file_digest(path)) for path in code_files()]))
