"""The weights as a file: its bytes beside what the same numbers take uncoded, or why there is none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flow.report import text
from flow.report.text import number, section, words


@dataclass(frozen=True)
class Storage:
    """Named sizes, and one sentence; without sizes the sentence says why the weights were not coded."""

    sizes: tuple[tuple[str, str], ...]
    note: str


def storage(manifest: Mapping[str, Any]) -> Storage | None:
    """Read the stage compress; ``None`` where it did not run."""
    given = section(manifest, "compress")
    if not given:
        return None
    coded, widths, floats = (number(given.get(key)) for key in ("bytes", "bytes_at_widths", "bytes_as_float"))
    if coded is None:
        return Storage((), f"Weights not coded: {words(given.get('reason')) or text.MISSING}.")
    sizes = [("NNC-coded", coded), ("at their bit widths", widths), ("as float32", floats)]
    ratio = f", {floats / coded:.1f} times smaller than float32" if floats and coded else ""
    name, digest = words(given.get("file")) or "weights file", words(given.get("sha256"))
    return Storage(
        tuple((title, f"{text.count(size)} bytes") for title, size in sizes if size is not None),
        f"{name} (ISO/IEC 15938-17){ratio}{f'; SHA-256 {digest}' if digest else ''}.",
    )
