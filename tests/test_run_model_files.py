"""Which files the user's network is made of: found wherever they lie, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flow.config import check
from flow.run import model_files, pipeline
from flow.run.model_files import network_files

pytestmark = pytest.mark.slow

SOURCE = """
import sys
from blocks import block
sys.path.append("{elsewhere}")
from far.layers import width
import numpy as np
import torch
from torch import nn

def build():
    from late import BIAS
    print("building")
    start = torch.load("{weights}", weights_only=True)
    open("{written}", "w").close()
    return nn.Sequential(block(width), nn.Flatten(), nn.Linear(8, 3))
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a folder with a network whose parts lie in several places."""
    import torch

    folder, elsewhere = tmp_path / "project", tmp_path / "elsewhere"
    (elsewhere / "far").mkdir(parents=True)
    folder.mkdir()
    (elsewhere / "far" / "__init__.py").write_text("")
    (elsewhere / "far" / "layers.py").write_text("width = 8\n")
    (folder / "blocks.py").write_text("from torch import nn\nblock = lambda n: nn.Linear(4, n)\n")
    (folder / "late.py").write_text("BIAS = True\n")
    torch.save({"w": torch.zeros(3)}, tmp_path / "start.pt")
    places = {"elsewhere": elsewhere, "weights": tmp_path / "start.pt", "written": tmp_path / "log.txt"}
    (folder / "my_network.py").write_text(SOURCE.format(**places))
    labels = np.arange(60) % 3
    np.savez(
        folder / "data.npz", x=np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32), y=labels
    )
    return folder


def values() -> dict[str, Any]:
    return {
        "name": "net",
        "model": {"source": "my_network:build"},
        "data": {"train": "data.npz"},
        "train": {"epochs": 1},
    }


def found(project: Path) -> dict[str, str]:
    return network_files(check(values(), project), project)


def test_modules_and_files_count_wherever_they_lie(project: Path) -> None:
    top = project.parent
    assert set(found(project)) == {
        "blocks.py",
        "late.py",
        "my_network.py",
        str(top / "elsewhere/far/__init__.py"),
        str(top / "elsewhere/far/layers.py"),
        str(top / "start.pt"),
    }


@pytest.mark.parametrize("name", ["blocks.py", "late.py", "../elsewhere/far/layers.py", "../start.pt"])
def test_a_change_of_any_is_noticed_and_the_list_is_made_anew(project: Path, name: str) -> None:
    before = found(project)
    (project / "more.py").write_text("")
    (project / name).write_bytes((project / name).read_bytes() + b"\nimport more\n")
    after = found(project)
    assert after != before
    assert ("more.py" in after) == name.endswith(".py")
    assert found(project) == after


def test_nothing_is_built_again_while_nothing_changed(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = found(project)
    (project / "unrelated.py").write_text("x = 1\n")
    monkeypatch.setattr(model_files, "_watched", lambda *_: pytest.fail("it was built again"))
    assert found(project) == before


@pytest.mark.parametrize("damage", ["", "{}", "cut", "edited"])
def test_a_list_that_was_altered_is_made_anew(project: Path, damage: str) -> None:
    before, memo = found(project), project / "network.json"
    text = memo.read_text()
    memo.write_text({"cut": text[:-9], "edited": text.replace("late.py", "lite.py")}.get(damage, damage))
    assert found(project) == before
    assert memo.read_text() == text


@pytest.mark.parametrize(
    "end", ["raise OSError('no')", "raise SystemExit(0)", "import os; os._exit(3)", "1 +"]
)
def test_a_network_that_cannot_be_built_is_looked_at_again(project: Path, end: str) -> None:
    source = project / "my_network.py"
    text = source.read_text()
    source.write_text(text + f"\n{end}\n")
    found(project)
    assert not (project / "network.json").exists()
    source.write_text(text)
    assert "late.py" in found(project)


def test_an_installed_network_counts_and_what_it_imports_does_not(project: Path) -> None:
    given = values() | {"model": {"source": "sklearn.base:clone"}}
    names = set(network_files(check(given, project), project))
    assert any(name.endswith("sklearn/base.py") for name in names)
    assert not any("/numpy/__init__.py" in name and "sklearn" not in name for name in names)


def test_the_flows_own_network_needs_no_list(tmp_path: Path) -> None:
    given = values() | {"model": {"source": "flow.demo:digits_cnn"}}
    assert network_files(check(given, tmp_path), tmp_path) == {}
    assert list(tmp_path.iterdir()) == []


def test_a_run_says_which_file_made_it_train_anew(project: Path, tmp_path: Path) -> None:
    told: list[tuple[str, str]] = []

    def run() -> bool:
        (project / "flow.toml").write_text(
            'name = "net"\n[model]\nsource = "my_network:build"\n[data]\ntrain = "data.npz"\n[train]\nepochs = 1\n'
        )
        made = pipeline.run(
            project / "flow.toml",
            out=tmp_path / "out",
            last="train",
            listener=lambda stage, event, done, total, text: told.append((event, text)),
        )
        return bool(made["cached.train"])

    assert not run()
    (project / "unrelated.py").write_text("")
    assert run()
    (project / "blocks.py").write_text(
        "from torch import nn\nblock = lambda n: nn.Linear(4, n, bias=False)\n"
    )
    told.clear()
    assert not run()
    assert ("start", "blocks.py changed") in told
    assert run()
