"""The wheel brings everything that the package reads, and its types: built, installed and run outside the checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

CHECKOUT = Path(__file__).resolve().parent.parent
DATA_FOLDERS = ("boards", "hls_templates")

DESCRIBE = """
import json
import flow.boards
from flow.resources import data_folder

def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())

folders = {name: data_folder(name) for name in ("boards", "hls_templates")}
print(json.dumps({
    "module": flow.boards.__file__,
    "boards": flow.boards.names(),
    "folders": {name: str(folder) for name, folder in folders.items()},
    "files": {name: files(folder) for name, folder in folders.items()},
}))
"""


USE = """
import flow
import flow.simplify as simplified_by
from flow.types import Pruned, Simplified

def shrink(model: object, example: object) -> tuple[Pruned, Simplified, str]:
    pruned = flow.prune(model, example, pruning_ratio=0.5)
    return pruned, simplified_by.simplify(pruned.model, example), flow.__version__
"""
MISUSE = """
import flow

pruned = flow.prune(None, None, pruning_ratio="x")
pruned.acuracy
flow.simplify(None, None, sample=3)
flow.shrink()
"""
# torch stays unread: its own types take a quarter of a minute and say nothing of ours
USERS_MYPY = """
[mypy]
strict = True
[mypy-torch.*]
follow_imports = skip
"""


def run(*argv: object, cwd: Path, status: int = 0) -> str:
    """Run a program without the checkout's search paths; return what it printed."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    result = subprocess.run(
        [str(word) for word in argv],
        cwd=cwd,
        env=environment | {"COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == status, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an empty folder outside the checkout."""
    return tmp_path_factory.mktemp("elsewhere")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory, elsewhere: Path) -> Path:
    """Return the folder of a new virtual environment that holds the wheel and nothing of the checkout."""
    root = tmp_path_factory.mktemp("wheel")
    # With hatchling at hand nothing is downloaded; without it, build fetches it into a place of its own.
    isolation = ["--no-isolation"] if find_spec("hatchling") else []
    run(sys.executable, "-m", "build", "--wheel", *isolation, "--outdir", root, CHECKOUT, cwd=elsewhere)
    (wheel,) = root.glob("*.whl")
    venv = root / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", venv, cwd=elsewhere)
    pip = [sys.executable, "-m", "pip", "--python", venv / "bin" / "python"]
    run(*pip, "install", "--no-deps", "--no-index", wheel, cwd=elsewhere)
    # The dependencies come from wherever the tests have them. Python does not follow the .pth files in a folder that a
    # .pth file added, so an editable install there stays out of sight, and folders that it would add are named here.
    (site_packages,) = venv.glob("lib/python*/site-packages")
    places = [place for place in sys.path if Path(place).name in ("site-packages", "dist-packages")]
    (site_packages / "dependencies.pth").write_text("\n".join([*places, ""]), encoding="utf-8")
    return venv


@pytest.fixture(scope="module")
def described(installed: Path, elsewhere: Path) -> dict[str, object]:
    """Return what the installed package says about itself."""
    text = run(installed / "bin" / "python", "-c", DESCRIBE, cwd=elsewhere)
    described: dict[str, object] = json.loads(text)
    return described


def shipped(name: str) -> list[str]:
    """Return the files of a data folder of the checkout."""
    folder = CHECKOUT / name
    return sorted(
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    )


def test_the_installed_package_is_not_the_checkout(described, installed):
    assert Path(described["module"]).is_relative_to(installed)


@pytest.mark.parametrize("name", DATA_FOLDERS)
def test_the_installed_package_holds_every_file_of_its_data_folders(described, installed, name):
    assert Path(described["folders"][name]).is_relative_to(installed)
    assert described["files"][name] == shipped(name) != []


def test_flow_boards_of_the_installed_package_lists_every_board(described, installed, elsewhere):
    boards = sorted(path.stem for path in (CHECKOUT / "boards").glob("*.toml"))
    assert described["boards"] == boards
    assert len(boards) >= 7
    table = run(installed / "bin" / "flow", "boards", cwd=elsewhere)
    assert [name for name in boards if name not in table] == []


def test_the_installed_package_says_its_version(installed, elsewhere):
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    said = run(installed / "bin" / "python", "-c", "import flow; print(flow.__version__)", cwd=elsewhere)
    assert said == f"{project['version']}\n"


def test_python_m_flow_is_the_command(installed, elsewhere):
    boards = run(installed / "bin" / "flow", "boards", "--json", cwd=elsewhere)
    assert run(installed / "bin" / "python", "-m", "flow", "boards", "--json", cwd=elsewhere) == boards
    assert len(json.loads(boards)) >= 7


def test_a_users_mypy_sees_the_types(installed, tmp_path):
    for name, text in (("use.py", USE), ("misuse.py", MISUSE), ("mypy.ini", USERS_MYPY)):
        (tmp_path / name).write_text(text.lstrip(), encoding="utf-8")
    python = ("--python-executable", installed / "bin" / "python")
    said = run(sys.executable, "-m", "mypy", *python, "use.py", "misuse.py", cwd=tmp_path, status=1)
    assert said.splitlines() == [
        'misuse.py:3: error: Argument "pruning_ratio" to "prune" has incompatible type "str"; '
        'expected "float | None"  [arg-type]',
        'misuse.py:4: error: "Pruned" has no attribute "acuracy"; maybe "accuracy"?  [attr-defined]',
        'misuse.py:5: error: Unexpected keyword argument "sample" for "simplify"; '
        'did you mean "samples" or "example"?  [call-arg]',
        'misuse.py:5: note: "simplify" defined in "flow.simplify"',
        'misuse.py:6: error: Module has no attribute "shrink"  [attr-defined]',
        "Found 4 errors in 1 file (checked 2 source files)",
    ]


def test_running_the_installed_package_leaves_no_file_behind(described, elsewhere):
    assert list(elsewhere.iterdir()) == []
