"""The chosen design as hls4ml's keys: as a text to paste, and into a ``flow.toml`` whose comments stay."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from flow.errors import ConfigError
from flow.files import write_atomically
from flow.fit.result import Fit, LayerFit

Values = Mapping[str, int | str]


def hls_block(layers: Iterable[LayerFit]) -> dict[str, Any]:
    """Return the table ``[hls]`` with hls4ml's own keys."""
    return {
        "LayerName": {
            layer.name: {"ReuseFactor": layer.reuse_factor, "Strategy": layer.strategy}
            for layer in layers
            if layer.reuse_factor is not None
        }
    }


def block_text(made: Fit) -> str:
    """Return the tables to paste into a ``flow.toml``."""
    return "\n".join(_table(header, values) for header, values in _tables(made))


def _tables(made: Fit) -> list[tuple[tuple[str, ...], Values]]:
    by_layer = made.hls["LayerName"]
    return [
        (("convert",), {"io_type": made.io_type}),
        *((("hls", "LayerName", name), values) for name, values in by_layer.items()),
    ]


def _table(header: tuple[str, ...], values: Values) -> str:
    lines = [f"[{'.'.join(map(_key, header))}]", *(_line(key, value) for key, value in values.items())]
    return "\n".join(lines) + "\n"


def _key(name: str) -> str:
    return name if re.fullmatch("[A-Za-z0-9_-]+", name) else json.dumps(name)


def _line(key: str, value: int | str) -> str:
    return f"{key} = {json.dumps(value)}"


def check_target(path: Path) -> None:
    """Refuse what is no ``flow.toml`` to write to.

    Raises:
        ConfigError: it does not exist, or is something else.
    """
    if path.suffix != ".toml" or not path.is_file():
        raise ConfigError(
            f"fit: --write must name an existing flow.toml, not {str(path)!r}; flow init writes one"
        )


def write(made: Fit, path: Path) -> None:
    """Put the design into a ``flow.toml``: keys are replaced or added, all else stays as it is, comments too.

    Raises:
        ConfigError: the design does not fit, or the file cannot be changed in place.
    """
    if not made.fits:
        raise ConfigError(
            f"fit: only a design that fits must be written, not one that is short; {path} stays as it is"
        )
    before = path.read_text(encoding="utf-8")
    text = before
    for header, values in _tables(made):
        text = _with_table(text, header, values)
    wanted = _merged(tomllib.loads(before), made)
    try:
        same = tomllib.loads(text) == wanted
    except tomllib.TOMLDecodeError:
        same = False
    if not same:
        raise ConfigError(
            f"fit: {str(path)!r} must spell [convert] and [hls] as tables with headers of their own, not inline; "
            "paste the printed block"
        )
    try:
        write_atomically(path, text)
    except OSError as error:
        raise ConfigError(
            f"fit: {str(path)!r} must be writable, not refuse ({error.strerror}); paste the printed block"
        ) from error


def _merged(config: dict[str, Any], made: Fit) -> dict[str, Any]:
    for header, values in _tables(made):
        table = config
        for name in header:
            table = table.setdefault(name, {})
        table.update(values)
    return config


def _with_table(text: str, header: tuple[str, ...], values: Values) -> str:
    """Return the text with the keys set in one table; a new table goes to the end."""
    lines = text.splitlines()
    start = next((i for i, line in enumerate(lines) if _header(line) == header), None)
    if start is None:
        return text.rstrip("\n") + "\n\n" + _table(header, values)
    stop = next((i for i in range(start + 1, len(lines)) if _header(lines[i]) is not None), len(lines))
    for key, value in values.items():
        found = next((i for i in range(start + 1, stop) if re.match(rf"\s*{key}\s*=", lines[i])), None)
        if found is None:
            lines.insert(start + 1, _line(key, value))
            stop += 1
        else:
            rest = re.fullmatch(r"[^#\"']*(?:\"[^\"]*\"|'[^']*')?\s*?(\s*#.*)?", lines[found])
            lines[found] = _line(key, value) + ((rest.group(1) or "") if rest else "")
    return "\n".join(lines) + "\n"


def _header(line: str) -> tuple[str, ...] | None:
    """Return the dotted name of a table's header line, None for any other line."""
    if not re.match(r"\s*\[", line):
        return None
    try:
        table: Any = tomllib.loads(line)
    except tomllib.TOMLDecodeError:
        return None
    names = []
    while isinstance(table, dict) and len(table) == 1:
        name, table = next(iter(table.items()))
        names.append(name)
    return tuple(names)
