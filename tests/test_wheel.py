"""The wheel brings everything that the package reads: built, installed and run outside the checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from importlib.util import find_spec
from pathlib import Path

import pytest

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


def run(*argv: object, cwd: Path) -> str:
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
    assert result.returncode == 0, result.stdout + result.stderr
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
    # The dependencies come from the environment of the tests. Python does not follow the .pth files in a
    # folder that a .pth file added, so an editable install there stays out of sight.
    (site_packages,) = venv.glob("lib/python*/site-packages")
    (site_packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
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


def test_running_the_installed_package_leaves_no_file_behind(described, elsewhere):
    assert list(elsewhere.iterdir()) == []
