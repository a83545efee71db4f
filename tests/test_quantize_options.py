"""The options of quantizing: one object that is the signature."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

from flow.quantize import quantize, search_bits
from flow.quantize.options import Options

NO_OPTIONS = ("model", "example", "out", "data", "cost", "checkpoint", "progress")
"""What is worked with, and where; the rest is how."""


def default(field: dataclasses.Field[Any]) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def test_the_options_are_the_keyword_arguments() -> None:
    given = inspect.signature(quantize).parameters.values()
    wanted = [(p.name, p.default, p.annotation) for p in given if p.name not in NO_OPTIONS]
    assert [(field.name, default(field), field.type) for field in dataclasses.fields(Options)] == wanted


def test_a_search_has_the_same_options_with_the_same_defaults() -> None:
    known = {field.name: (default(field), field.type) for field in dataclasses.fields(Options)}
    given = inspect.signature(search_bits).parameters
    shared = {name: (given[name].default, given[name].annotation) for name in given if name in known}
    assert shared == {name: known[name] for name in shared}
    assert set(given) - set(known) - set(NO_OPTIONS) == {"objective", "samples"}
