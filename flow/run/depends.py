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
    stages: Iterable[str] = (),
    options: Iterable[str] = (),
    settings: Iterable[str] = (),
    fields: Iterable[str] = (),
    packages: Iterable[str] = (),
    programs: Iterable[str] = (),
    contents: Mapping[str, Any] | None = None,
) -> Depends:
    """Return what a stage's result depends on, beside the flow's own code.

    Args:
        config: of the run.
        board: the config's.
        stages: whose results it reads, where the run has them.
        options: tables of the config, or keys of one, dotted.
        settings: other fields of the config.
        fields: of the board; dotted, such as ``resources.luts``.
        packages: distributions that the flow imports there; numpy is always one.
        programs: that are started, or looked for.
        contents: what else is read, by a digest or as values that say it all.
    """
    return {
        "stages": list(stages),
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


def facts(stage: str, hashes: Mapping[str, str], depends: Depends) -> dict[str, Any]:
    """Return all that the key of a stage's result is made of, as JSON has it.

    Args:
        stage: its name.
        hashes: of the results of the stages before it, by name.
        depends: see `declared`.
    """
    found = {
        **depends,
        "stage": stage,
        "stages": {name: hashes[name] for name in depends["stages"] if name in hashes},
        "flow": code_digest(),
        "packages": {name: package_version(name) for name in depends["packages"]},
        "programs": {name: [str(find(name)), program_version(name)] for name in depends["programs"]},
    }
    plain: dict[str, Any] = json.loads(json.dumps(found, sort_keys=True, default=str))
    return plain


def key(facts: Mapping[str, Any]) -> str:
    """Return the key that `facts` make."""
    return text_digest(json.dumps(facts, sort_keys=True))


def changes(before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> str:
    """Return in words which facts have changed; empty where there was no result before."""
    if before is None:
        return ""
    old, new = _flat(before), _flat(after)
    names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    names.sort(key=lambda name: name[0] != _NETWORK)  # the user's own files first
    said = list(dict.fromkeys(_word(*name, old.get(name), new.get(name)) for name in names))
    return ", ".join(said[:_SAID]) + (f" and {len(said) - _SAID} more" if len(said) > _SAID else "")


_NETWORK = "settings/network"
_SAID = 3
"""Changes that the line of progress names."""


def _flat(facts: Mapping[str, Any]) -> dict[tuple[str, str], Any]:
    """Return the facts by kind and name; options and files of the network one by one."""
    found: dict[tuple[str, str], Any] = {}
    for kind, values in facts.items():
        for name, value in values.items() if isinstance(values, dict) else [("", values)]:
            if isinstance(value, dict) and kind in ("options", "settings"):
                found |= {(f"{kind}/{name}", key): each for key, each in value.items()}
            else:
                found[kind, name] = value
    return found


def _word(kind: str, name: str, old: Any, new: Any) -> str:
    if kind == "flow":
        return "the flow itself changed"
    if kind == "stages":
        return f"the result of {name} changed"
    if kind != _NETWORK and kind.startswith(("options/", "settings")):
        was, now = ("not given" if value is None else json.dumps(value) for value in (old, new))
        return f"{name} is {now}, was {was}"
    return f"{'the board' if kind == 'board' else name} changed"


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
