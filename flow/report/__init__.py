"""The report of a run: one self-contained HTML page, and the same facts for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from flow.report.terminal import table
from flow.report.view import view

__all__ = ["render", "table"]


def render(manifest: Mapping[str, Any]) -> str:
    """Return the run's report as one HTML page that loads nothing.

    Args:
        manifest: what ``manifest.json`` holds; every key but ``name`` may be missing, and a missing figure
            reads "not measured".

    Returns:
        The page, with its style and drawings inside.
    """
    return str(_template().render(view=view(manifest)))


@cache
def _template() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.jinja")
