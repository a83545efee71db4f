"""The options of pruning: one object that is the signature."""

from __future__ import annotations

import dataclasses
import inspect

import pytest

from flow.errors import ConfigError
from flow.prune import prune
from flow.prune.options import OF_TRAINING, Options, of_pruner

NO_OPTIONS = ("model", "example", "data", "cost", "checkpoint", "progress")
"""What is worked with, and where; the rest is how."""


def test_the_options_are_the_keyword_arguments() -> None:
    given = inspect.signature(prune).parameters.values()
    wanted = [(p.name, p.default, p.annotation) for p in given if p.name not in NO_OPTIONS]
    assert [(field.name, field.default, field.type) for field in dataclasses.fields(Options)] == wanted


def test_the_options_of_the_training_are_not_a_pruners() -> None:
    for name in OF_TRAINING:
        with pytest.raises(ConfigError, match=f"^prune: option '{name}' is not known; "):
            of_pruner({name: getattr(Options(), name)})


def test_one_name_is_a_tuple_of_one() -> None:
    assert Options(ignored_layers="conv1").ignored_layers == ("conv1",)  # type: ignore[arg-type]
