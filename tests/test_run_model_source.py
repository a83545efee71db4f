"""The user's code that builds the network: what it does instead is told with its file and line."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flow.config import check
from flow.errors import ConfigError, UnsupportedError
from flow.run.model_source import build_model

SOURCE = """
import sys
from torch import nn
from flow.errors import UnsupportedError

def good():
    return nn.Linear(2, 3)

def raises():
    return nn.Linear(2, {}["width"])

def raises_within_torch():
    return nn.Linear(2, "three")

def exits():
    sys.exit(3)

def exits_with_a_text():
    sys.exit("no weights")

def recurses():
    return recurses()

def raises_lines():
    raise RuntimeError("first\\nsecond")

def asserts():
    assert False

def attribute():
    return nn.NoSuchLayer(3)

def imports():
    import no_such_module

def of_the_flow():
    raise UnsupportedError("model: told already")

def interrupted():
    raise KeyboardInterrupt

def takes(width):
    return nn.Linear(2, width)

def empties_the_path():
    sys.path.clear()
    return good()

number = 7
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "nets.py").write_text(SOURCE)
    yield tmp_path
    sys.modules.pop("nets", None)


def build(project: Path, source: str) -> Any:
    return build_model(check({"model": {"source": source}}, project))


def refused(project: Path, source: str) -> str:
    with pytest.raises(ConfigError) as error:
        build(project, source)
    return str(error.value)


def line(text: str) -> int:
    return SOURCE.splitlines().index(text) + 1


def test_the_network_is_built_and_the_path_is_left_as_it_was(project: Path) -> None:
    before = list(sys.path)
    assert build(project, "nets:good").out_features == 3
    assert sys.path == before
    assert build(project, "nets:empties_the_path").out_features == 3


@pytest.mark.parametrize(
    ("function", "did", "text"),
    [
        ("raises", "raise KeyError: 'width'", '    return nn.Linear(2, {}["width"])'),
        ("exits", "exit with 3", "    sys.exit(3)"),
        ("exits_with_a_text", "exit with 'no weights'", '    sys.exit("no weights")'),
        ("recurses", "raise RecursionError: maximum recursion depth exceeded", "    return recurses()"),
        ("raises_lines", "raise RuntimeError: first", '    raise RuntimeError("first\\nsecond")'),
        ("asserts", "raise AssertionError", "    assert False"),
        (
            "attribute",
            "raise AttributeError: module 'torch.nn' has no attribute 'NoSuchLayer'",
            "    return nn.NoSuchLayer(3)",
        ),
        (
            "imports",
            "raise ModuleNotFoundError: No module named 'no_such_module'",
            "    import no_such_module",
        ),
    ],
)
def test_code_that_fails_is_told_with_its_line(project: Path, function: str, did: str, text: str) -> None:
    assert refused(project, f"nets:{function}") == (
        f"[model]: source 'nets:{function}' must build the network, not {did} (nets.py, line {line(text)}); "
        "correct the code there"
    )


def test_the_line_is_the_users_where_torch_fails(project: Path) -> None:
    message = refused(project, "nets:raises_within_torch")
    assert message.startswith(
        "[model]: source 'nets:raises_within_torch' must build the network, not raise TypeError: "
    )
    place = line('    return nn.Linear(2, "three")')
    assert message.endswith(f" (nets.py, line {place}); correct the code there")


@pytest.mark.parametrize(
    ("text", "did"),
    [
        ("x = (\n", "raise SyntaxError: '(' was never closed (broken.py, line 1)"),
        (
            "def f():\n\treturn 1\n  return 2\n",
            "raise IndentationError: unindent does not match any outer indentation level (broken.py, line 3)",
        ),
        ("\nraise SystemExit\n", "exit with None (broken.py, line 2)"),
        ("\n1 / 0\n", "raise ZeroDivisionError: division by zero (broken.py, line 2)"),
        ("\nimport nowhere\n", "raise ModuleNotFoundError: No module named 'nowhere' (broken.py, line 2)"),
    ],
)
def test_a_module_that_cannot_be_run_is_told_with_its_line(project: Path, text: str, did: str) -> None:
    (project / "broken.py").write_text(text)
    message = refused(project, "broken:f")
    assert message == f"[model]: source 'broken:f' must build the network, not {did}; correct the code there"


def test_bytes_that_are_no_code_are_told(project: Path) -> None:
    (project / "broken.py").write_bytes(b"x = '\xff'\n\0")
    assert refused(project, "broken:f").startswith("[model]: source 'broken:f' must ")


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("nowhere:f", "ModuleNotFoundError: No module named 'nowhere'"),
        ("nets.layers:f", "ModuleNotFoundError: No module named 'nets.layers'; 'nets' is not a package"),
        ("nets:nothing", "AttributeError: module 'nets' has no attribute 'nothing'"),
    ],
)
def test_what_is_not_there_is_told(project: Path, source: str, told: str) -> None:
    assert refused(project, source) == (
        f"[model]: source {source!r} must be importable, not fail with {told}; modules are looked up beside the "
        f"config ({project}) first"
    )


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("nets:number", "TypeError: 'int' object is not callable"),
        ("nets:takes", "TypeError: takes() missing 1 required positional argument: 'width'"),
    ],
)
def test_what_is_no_function_without_arguments_is_told(project: Path, source: str, told: str) -> None:
    assert refused(project, source) == (
        f"[model]: source {source!r} must be a function without arguments that builds the network, not fail with "
        f"{told}; correct it"
    )


@pytest.mark.parametrize(
    "source", ["nets", ":good", "nets:", "", "..nets:good", "ne ts:good", "nets/x:good", "."]
)
def test_a_source_of_another_form_is_refused(project: Path, source: str) -> None:
    assert refused(project, source) == (
        f"[model]: source must be 'package.module:function', not {source!r}; add the function's name"
    )


def test_the_flows_own_errors_and_ctrl_c_pass(project: Path) -> None:
    with pytest.raises(UnsupportedError, match="^model: told already$"):
        build(project, "nets:of_the_flow")
    with pytest.raises(KeyboardInterrupt):
        build(project, "nets:interrupted")
