"""Reads the boards: one TOML file each in ``boards/``; adding a board touches no Python."""

from __future__ import annotations

import difflib
import math
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from flow.errors import ConfigError
from flow.resources import data_folder
from flow.types import Board, Resources

DEFAULT = "pynq-z2"
"""The board where neither the caller nor a config names one."""
DSP_SHARE = 0.8
"""Share of a board's DSP slices that the network may take; the rest is for the DMA and for routing."""

_Rule = tuple[str, Callable[[Any], bool]]


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value.strip() != ""


# The types are compared exactly: TOML's true is a Python int as well.
_TEXT: _Rule = ("a text that is not empty", _is_text)
_TEXTS: _Rule = ("a list of texts", lambda v: isinstance(v, list) and v != [] and all(map(_is_text, v)))
_COUNT: _Rule = ("a positive whole number", lambda v: type(v) is int and v > 0)
_NUMBER: _Rule = ("a positive number", lambda v: type(v) in (int, float) and 0 < v < math.inf)
_PIN: _Rule = (
    "a package pin such as 'H16'",
    lambda v: isinstance(v, str) and re.fullmatch("[A-Z]{0,2}[0-9]{1,3}", v) is not None,
)
_TABLE: _Rule = ("a table", lambda v: isinstance(v, dict))

_TOP = {
    "name": _TEXT,
    "title": _TEXT,
    "part": _TEXT,
    "toolchains": _TEXTS,
    "clock_period_ns": _NUMBER,
    "resources": _TABLE,
    "ps": _TABLE,
    "fpga": _TABLE,
    "pins": _TABLE,
    "source": _TABLE,
}
_RESOURCES = {"luts": _COUNT, "flip_flops": _COUNT, "dsps": _COUNT, "bram_bits": _COUNT}
_PS_TYPES = ("zynq7000", "zynq_ultrascale")
_PS = {
    "type": _TEXT,
    "crystal_mhz": _NUMBER,
    "cpu_mhz": _NUMBER,
    "ddr_type": _TEXT,
    "ddr_part": _TEXT,
    "ddr_width_bits": _COUNT,
    "ddr_mhz": _NUMBER,
    "ddr_mib": _COUNT,
}
_FPGAS = ("ecp5", "ice40", "gowin")
_FPGA = {"family": _TEXT, "device": _TEXT, "package": _TEXT, "grade": _TEXT, "baud": _COUNT}
_LINK_PINS = ("clk", "rx", "tx")
_SOURCES = ("part", "resources", "ps", "fpga", "pins")
_OPTIONAL = frozenset(
    {
        *("pins", "ps", "fpga", "ps.cpu_mhz", "fpga.package", "fpga.grade"),
        *(f"ps.{key}" for key in _PS if key.startswith("ddr_")),
    }
)


def names() -> tuple[str, ...]:
    """Return the names of all boards, sorted."""
    return tuple(sorted(path.stem for path in data_folder("boards").glob("*.toml")))


def load(name: str) -> Board:
    """Return the board ``name``.

    Raises:
        ConfigError: there is no such board, or its file breaks a rule.
    """
    known = names()
    if name not in known:
        hint = _nearest(name, known, "flow boards lists them")
        raise ConfigError(f"board must be one of {', '.join(known)}, not {name!r}; {hint}")
    return read(data_folder("boards") / f"{name}.toml")


def read(path: Path) -> Board:
    """Return the board described by one TOML file (``boards/README.md`` explains its keys).

    Args:
        path: the file; its stem is the board's name.

    Raises:
        ConfigError: the file cannot be read or is not TOML, a key is missing or unknown, a figure
            is not positive, or the name differs from the file's stem.
    """
    data = _parse(path)
    _check(path, "", data, _TOP)
    _check(path, "resources", data["resources"], _RESOURCES)
    if ("ps" in data) == ("fpga" in data):
        given = "both" if "ps" in data else "none"
        raise ConfigError(
            f"board {path.stem}: one table of [ps] (with a processor) and [fpga] (without) must be there, not "
            f"{given}; boards/README.md explains them"
        )
    _check(path, "pins", data.get("pins", {}), dict.fromkeys(data.get("pins", {}), _PIN))
    _check(path, "source", data["source"], {key: _TEXT for key in _SOURCES if key in data})
    if data["name"] != path.stem:
        raise ConfigError(
            f"board {path.stem}: name must be the file's stem, {path.stem!r}, not {data['name']!r}; "
            f"correct {path}"
        )
    if "ps" in data:
        _check(path, "ps", data["ps"], _PS)
        _one_of(path, "ps.type", data["ps"]["type"], _PS_TYPES)
    else:
        _check(path, "fpga", data["fpga"], _FPGA)
        _one_of(path, "fpga.family", data["fpga"]["family"], _FPGAS)
        pins = {key: pin for key, pin in data.get("pins", {}).items() if key in _LINK_PINS}
        _check(path, "pins", pins, dict.fromkeys(_LINK_PINS, _PIN))
        for name in data["pins"]:
            if not re.fullmatch("[a-z][a-z0-9_]*", name):
                raise ConfigError(
                    f"board {path.stem}: the name of a pin must be a lower-case identifier, since it becomes a port, "
                    f"not {name!r}; correct {path}"
                )
    return Board(
        name=data["name"],
        title=data["title"],
        part=data["part"],
        toolchains=tuple(data["toolchains"]),
        clock_period_ns=float(data["clock_period_ns"]),
        resources=Resources(**data["resources"]),
        ps=data.get("ps", {}),
        fpga=data.get("fpga", {}),
        pins=data.get("pins", {}),
        source=data["source"],
    )


def usable_dsps(board: Board) -> int:
    """Return how many DSP slices the network may take."""
    return int(DSP_SHARE * (board.resources.dsps or 0))


def _parse(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"board {path.stem}: {path} must be a readable file, not one that fails with "
            f"{error.strerror!r}; flow boards lists the boards"
        ) from error
    except (ValueError, RecursionError) as error:  # broken TOML and broken UTF-8
        raise ConfigError(
            f"board {path.stem}: {path} must be valid TOML, not text that fails with {str(error)!r}; "
            "correct it there"
        ) from error


def _check(path: Path, table: str, data: Mapping[str, Any], rules: Mapping[str, _Rule]) -> None:
    """Raise if a key is unknown, missing (and not optional), or breaks its rule."""
    prefix = f"{table}." if table else ""
    for key in data:
        if key not in rules:
            where = f"a key of [{table}]" if table else "a key of the file"
            raise ConfigError(
                f"board {path.stem}: {where} must be one of {', '.join(rules)}, not {key!r}; "
                + _nearest(key, rules, "boards/README.md explains them")
            )
    for key, (rule, holds) in rules.items():
        if key not in data:
            if prefix + key in _OPTIONAL:
                continue
            raise ConfigError(
                f"board {path.stem}: {prefix}{key} must be {rule}, not missing; add it to {path}"
            )
        if not holds(data[key]):
            raise ConfigError(
                f"board {path.stem}: {prefix}{key} must be {rule}, not {data[key]!r}; correct {path}"
            )


def _one_of(path: Path, key: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ConfigError(
            f"board {path.stem}: {key} must be one of {', '.join(known)}, not {value!r}; "
            + _nearest(value, known, "boards/README.md explains them")
        )


def _nearest(value: str, known: Iterable[str], otherwise: str) -> str:
    near = difflib.get_close_matches(value, known, n=1)
    return f"did you mean {near[0]!r}?" if near else otherwise
