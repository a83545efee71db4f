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
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
        "command": f"python {Path(sys.argv[0]).name} {' '.join(sys.argv[1:])}".strip(),
        "date": datetime.date.today().isoformat(),
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(figure, indent=1) + "\n", encoding="utf-8")
    print(f"{name}: {value} {unit}")
