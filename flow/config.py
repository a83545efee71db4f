"""The config: ``flow.toml``, one table a stage, checked against the stage's own signature."""

from __future__ import annotations

import difflib
import inspect
import math
import os
import re
import tomllib
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from flow import boards
from flow.compress import compress
from flow.convert import convert
from flow.emulate import emulate
from flow.errors import ConfigError
from flow.files import is_file
from flow.onnx_model import check_opset, write
from flow.prune import prune
from flow.quantize import quantize
from flow.rtl import write_rtl
from flow.simplify import simplify
from flow.synthesize import synthesize
from flow.train import train
from flow.training.data import load as load_data

_FILLED = (
    *(
        "model",
        "example",
        "data",
        "out",
        "progress",
        "seed",
        "board",
        "quantized",
        "design",
        "inputs",
        "expected",
    ),
    *(
        "labels",
        "base",
        "hls",
        "clock_period_ns",
        "build_folder",
        "rtl_folder",
        "rtl_options",
        "lut_inputs",
        "multiplier_bits",
        "dense_onnx",
        "proven_rtl",
        "folder",
        "module",
        "graph",
        "path",
        "cost",
        "checkpoint",
    ),
)
"""Arguments that the pipeline fills in itself."""

TABLES: dict[str, Callable[..., Any]] = {
    "data": load_data,
    "train": train,
    "prune": prune,
    "simplify": simplify,
    "onnx": write,
    "quantize": quantize,
    "compress": compress,
    "convert": convert,
    "rtl": write_rtl,
    "emulate": emulate,
    "synthesize": synthesize,
}
_TOP: dict[str, Any] = {
    "name": str,
    "seed": int,
    "threads": int,
    "board": str,
    "synth_clk_period_ns": float | None,
}
_MODEL: dict[str, Any] = {"source": str, "checkpoint": str | None, "onnx": str}

LARGEST_SEED = 2**32 - 2
"""numpy takes 32 bits, and the second split of the data takes the seed + 1."""
_MOST_BITS = 63
_LONGEST = 4096
_NO_NUL = re.compile("[^\0\ud800-\udfff]*")
"""Half a surrogate pair, which only Python can give, is in no file's name either."""

DEMO: dict[str, Any] = {
    "name": "digits",
    "board": boards.DEFAULT,
    "model": {"source": "flow.demo:digits_cnn"},
    "data": {"train": "digits"},
    "prune": {"pruning_ratio": 0.7, "twt": 1.0, "epochs": 200},
}
"""The digits: what ``flow demo`` runs, and ``flow.run()`` from Python."""


@dataclass(frozen=True)
class Config:
    """A checked config.

    ``base`` is the folder that relative paths start from; ``network`` the SHA-256 of each file that the network is made
    of, which the pipeline fills in.
    """

    name: str
    seed: int
    threads: int
    board: str
    synth_clk_period_ns: float | None
    model: Mapping[str, Any]
    tables: Mapping[str, Mapping[str, Any]]
    hls: Mapping[str, Any] = field(default_factory=dict)
    base: Path = Path()
    network: Mapping[str, str] = field(default_factory=dict)

    def options(self, stage: str) -> dict[str, Any]:
        """Return the keyword arguments that the user chose for a stage."""
        return dict(self.tables.get(stage, {}))

    def with_options(self, stage: str, options: Mapping[str, Any]) -> Config:
        """Return this config with another table for a stage."""
        return replace(self, tables={**self.tables, stage: options})


def load(source: str | Path | Mapping[str, Any] | None) -> Config:
    """Return the checked config of a file, a dict, or the digits demo (``None``).

    Raises:
        ConfigError: the file is missing or not TOML, or a key or value breaks a rule.
    """
    if source is None:
        return check(DEMO, Path())
    if isinstance(source, Mapping):
        return check(source, Path())
    path = Path(source)
    if not is_file(path):
        raise ConfigError(
            f"config: {str(path)!r} must be an existing file, not missing; flow init writes one"
        )
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError, OSError) as error:  # no UTF-8, no TOML, numbers of 5,000 digits
        raise ConfigError(
            f"config: {str(path)!r} must be TOML, not broken: {error}; correct that line"
        ) from error
    return check(values, path.resolve().parent)


def check(values: Mapping[str, Any], base: Path) -> Config:
    """Check every key and type; returns the config with its defaults filled in."""
    named = isinstance(values.get("name"), str)  # that text has a rule of its own
    _check_plain({key: value for key, value in values.items() if key != "name" or not named}, "config")
    _known(values, (*_TOP, "model", *TABLES, "hls"), "config")
    for key, kind in _TOP.items():
        _typed(values, key, kind, "config")
    _check_name(values.get("name", "run"))
    _check_seed_and_threads(values)
    model = _table(values, "model")
    _known(model, tuple(_MODEL), "[model]")
    for key, kind in _MODEL.items():
        _typed(model, key, kind, "[model]")
    _check_model(model)
    tables = {}
    for name, function in TABLES.items():
        table = _table(values, name)
        allowed = {key: kind for key, kind in _hints(function).items() if key not in _FILLED}
        _known(table, tuple(allowed), f"[{name}]")
        for key, kind in allowed.items():
            _typed(table, key, kind, f"[{name}]")
        tables[name] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in table.items()
        }
    check_opset(int(_table(values, "onnx").get("opset", 13)))
    return Config(
        name=values.get("name", "run"),
        seed=values.get("seed", 0),
        threads=values.get("threads", 1),
        board=values.get("board", boards.DEFAULT),
        synth_clk_period_ns=values.get("synth_clk_period_ns"),
        model=model,
        tables=tables,
        hls=_table(values, "hls"),
        base=base,
    )


def _check_name(name: str) -> None:
    plain = name.isprintable() and name == name.strip() and not set(name) & set("/\\")
    if not plain or not name or name.startswith(".") or len(name.encode()) > 100:
        raise ConfigError(
            f"config: name must be a plain name for a folder, not {name!r}; take up to 100 letters, digits, - and _: "
            "results go to runs/<name>"
        )


def _check_seed_and_threads(values: Mapping[str, Any]) -> None:
    if not 0 <= values.get("seed", 0) <= LARGEST_SEED:
        raise ConfigError(f"config: seed must be in [0, {LARGEST_SEED}], not {values['seed']}; 0 is usual")
    threads, cores = values.get("threads", 1), os.cpu_count() or 1
    if not 1 <= threads <= cores:
        raise ConfigError(
            f"config: threads must be in [1, {cores}], this machine's, not {threads}; 1 suits small networks"
        )


def _check_plain(values: Mapping[str, Any], where: str) -> None:
    """Refuse values that fit their type, and nothing that they would be used for."""
    for key, value in values.items():
        if not isinstance(key, str):
            raise ConfigError(
                f"{where}: keys must be texts, not of type {type(key).__name__}; correct the config"
            )
        for item in (key, *_items(value)):
            if isinstance(item, Mapping):
                _check_plain(item, f"[{key}]" if where == "config" else where)
            elif rule := _broken_rule(item):
                raise ConfigError(f"{where}: {key[:80]!r} must be {rule}; correct the config")


def _items(value: Any) -> list[Any]:
    if isinstance(value, list | tuple):
        return [item for part in value for item in _items(part)]
    return [value]


def _broken_rule(value: Any) -> str | None:
    if isinstance(value, int) and value.bit_length() > _MOST_BITS:
        return f"an integer of at most {_MOST_BITS} bits, not of {value.bit_length()}"
    if isinstance(value, float) and math.isnan(value):
        return "a number, not nan"
    if isinstance(value, str) and (len(value) > _LONGEST or not _NO_NUL.fullmatch(value)):
        return f"a text of at most {_LONGEST} characters without NUL, not {value[:80]!r}"
    return None


def _check_model(model: Mapping[str, Any]) -> None:
    if "source" not in model and "onnx" not in model:
        raise ConfigError(
            "[model]: source must name a function as 'package.module:function', not be left out; or name "
            "a file with onnx"
        )
    for other in ("source", "checkpoint"):
        if "onnx" in model and other in model:
            raise ConfigError(
                f"[model]: onnx must stand alone, not beside {other}: the file holds network and weights; remove one"
            )


def _table(values: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    table = values.get(name, {})
    if not isinstance(table, Mapping):
        raise ConfigError(f"config: {name} must be a table, not {table!r}; write [{name}] above its keys")
    return table


def _known(values: Mapping[str, Any], allowed: tuple[str, ...], where: str) -> None:
    for key in values:
        if key not in allowed:
            near = difflib.get_close_matches(key, allowed, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(allowed) or 'none'}"
            raise ConfigError(f"{where}: key {key!r} is not known; {hint}")


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the types of a stage's options that a config can express."""
    module = inspect.getmodule(function)
    hints = {}
    for name, parameter in inspect.signature(function).parameters.items():
        if name not in _FILLED:
            hints[name] = resolve_annotation(parameter.annotation, vars(module))
    return hints


def resolve_annotation(annotation: str, names: Mapping[str, Any]) -> Any:
    """Return the type that an annotation of a stage's own source spells."""
    return typing.get_type_hints(types.SimpleNamespace(__annotations__={"x": annotation}), dict(names))["x"]


def _typed(values: Mapping[str, Any], key: str, kind: Any, where: str) -> None:
    if key in values and not _fits(values[key], kind):
        raise ConfigError(f"{where}: {key} must be {_spell(kind)}, not {values[key]!r}; correct the config")


def _fits(value: Any, kind: Any) -> bool:
    arguments = typing.get_args(kind)
    if isinstance(kind, types.UnionType):
        return any(_fits(value, part) for part in arguments)
    if typing.get_origin(kind) is tuple:
        return isinstance(value, list | tuple) and all(_fits(item, arguments[0]) for item in value)
    if typing.get_origin(kind) is Mapping:
        return isinstance(value, Mapping) and all(_fits(item, arguments[1]) for item in value.values())
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, kind)


_WORDS = {
    int: ("an integer", "integers"),
    float: ("a number", "numbers"),
    str: ("a text", "texts"),
    bool: ("true or false", "true or false"),
}


def _spell(kind: Any, many: bool = False) -> str:
    """Return a type in words, such as ``a table of integers``; ``many``: without its article."""
    arguments = typing.get_args(kind)
    if isinstance(kind, types.UnionType):
        return " or ".join(_spell(part, many) for part in arguments if part is not types.NoneType)
    if typing.get_origin(kind) is tuple:
        return f"{'lists' if many else 'a list'} of {_spell(arguments[0], many=True)}"
    if typing.get_origin(kind) is Mapping:
        return f"{'tables' if many else 'a table'} of {_spell(arguments[1], many=True)}"
    return _WORDS.get(kind, (str(kind), str(kind)))[many]
