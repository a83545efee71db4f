"""The docstrings of the public functions: an Args section names the parameters, all of them and in order."""

import inspect
import re

import pytest

import flow


def documented(function):
    """Return the names that stand before the colons of an Args section; None where there is no such section."""
    found = re.search(r"^Args:\n((?: .*\n|\n)*)", f"{inspect.getdoc(function)}\n", re.MULTILINE)
    if found is None:
        return None
    return re.findall(r"\w+", " ".join(re.findall(r"^    (\w[\w, ]*):", found[1], re.MULTILINE)))


PUBLIC = {name: inspect.unwrap(getattr(flow, name)) for name in flow.__all__ if callable(getattr(flow, name))}
WITH_ARGS = sorted(name for name, function in PUBLIC.items() if documented(function) is not None)


def test_stages_have_an_args_section():
    assert {"compress", "convert", "emulate", "prune", "quantize", "run", "train"} <= set(WITH_ARGS)


@pytest.mark.parametrize("name", WITH_ARGS)
def test_args_are_the_parameters_in_order(name):
    assert documented(PUBLIC[name]) == list(inspect.signature(PUBLIC[name]).parameters)
