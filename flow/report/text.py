"""Reads a manifest without trusting it, and writes figures: a missing value has one form, never a zero."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

MISSING = "not measured"
LARGEST = 1e30  # no figure of a run is beyond it, and no sum or product of such figures overflows


def section(parent: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """Return the table ``key``, empty where there is none."""
    value = parent.get(key)
    return value if isinstance(value, Mapping) else {}


def items(parent: Mapping[str, Any], key: str) -> tuple[Any, ...]:
    """Return the list ``key``, empty where there is none."""
    value = parent.get(key)
    return tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else ()


def tables(parent: Mapping[str, Any], key: str) -> tuple[Mapping[str, Any], ...]:
    """Return the list of tables ``key``, empty where there is none."""
    return tuple(item for item in items(parent, key) if isinstance(item, Mapping))


def number(value: Any) -> float | None:
    """Return a number up to ``LARGEST``, else ``None``; integers stay integers."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if abs(value) <= LARGEST else None


def words(value: Any) -> str | None:
    """Return a text or a number as text, ``None`` for anything else and for blanks."""
    if isinstance(value, str):
        return value.strip() or None
    return None if number(value) is None else str(value)


def count(value: float | None) -> str:
    """Write a count with its thousands apart: ``53,200``."""
    if value is None:
        return MISSING
    whole = isinstance(value, int) or value.is_integer()
    return f"{int(value):,}" if whole else f"{value:,.1f}"


def percent(share: float | None, digits: int = 2) -> str:
    """Write a share of 1 in percent: ``98.61%``."""
    return MISSING if share is None else f"{share * 100:,.{digits}f}%"


def points(difference: float | None) -> str:
    """Write a difference of two shares in percentage points, with its sign: ``−0.28``."""
    if difference is None:
        return MISSING
    text = f"{abs(difference) * 100:.2f}"
    return text if float(text) == 0 else ("−" if difference < 0 else "+") + text


def seconds(value: float | None) -> str:
    """Write a duration: ``40.2 s``; a short one is not rounded to zero."""
    if value is None:
        return MISSING
    return "< 0.1 s" if 0 < value < 0.05 else f"{value:,.1f} s"


def error(value: float) -> str:
    """Write an error: whole ones in full, others with two significant digits."""
    return count(value) if isinstance(value, int) or value.is_integer() else f"{value:.2g}"


def plural(amount: float, noun: str) -> str:
    """Write an amount with its noun: ``1 sample``, ``360 samples``."""
    return f"{count(amount)} {noun}{'' if amount == 1 else 's'}"
