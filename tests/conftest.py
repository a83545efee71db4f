"""Shared by the tests: how a test says that it needs a program."""

import os
import shutil

import pytest


def needs(program: str) -> pytest.MarkDecorator:
    """Skip where ``program`` is not on PATH; with FLOW_REQUIRE_TOOLS=1 the test runs, and fails, instead."""
    absent = shutil.which(program) is None and os.environ.get("FLOW_REQUIRE_TOOLS") != "1"
    return pytest.mark.skipif(absent, reason=f"{program!r} is not on PATH")
