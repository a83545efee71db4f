"""Writes measured figures, one file each."""

from __future__ import annotations

import datetime
import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def record(name: str, value: Any, unit: str, *, goal: str | None = None, peer: Any = None) -> None:
    """Write ``results/<name>.json``."""
    figure = {
        "name": name,
        "value": value,
        "unit": unit,
        "goal": goal,
        "peer": peer,
        "machine": machine(),
        "command": f"python {Path(sys.argv[0]).name} {' '.join(sys.argv[1:])}".strip(),
        "date": datetime.date.today().isoformat(),
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(figure, indent=1) + "\n", encoding="utf-8")
    print(f"{name}: {value} {unit}")


def machine() -> str:
    """Return what a figure depends on and its reader cannot see."""
    return f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"


def rows(name: str) -> list[dict[str, Any]]:
    """Return the cases that `add_row` wrote, so that a killed run goes on after the last of them."""
    path = RESULTS / f"{name}.jsonl"
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def add_row(name: str, row: dict[str, Any]) -> None:
    """Append a finished case to ``results/<name>.jsonl``."""
    RESULTS.mkdir(exist_ok=True)
    with (RESULTS / f"{name}.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def table(name: str, text: str, columns: list[str], cells: list[list[str]]) -> None:
    """Write ``results/<name>.md``: a text and a table whose first column is words and the others numbers."""
    widths = [max(len(row[index]) for row in [columns, *cells]) for index in range(len(columns))]

    def line(row: list[str]) -> str:
        first, *others = (cell.replace("|", "/") for cell in row)
        padded = [first.ljust(widths[0])] + [c.rjust(w) for c, w in zip(others, widths[1:], strict=True)]
        return f"| {' | '.join(padded)} |"

    rule = [":" + "-" * (widths[0] - 1)] + ["-" * (width - 1) + ":" for width in widths[1:]]
    lines = [text, "", line(columns), line(rule), *map(line, cells)]
    (RESULTS / f"{name}.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
