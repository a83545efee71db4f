"""The Python of the first page and of the page on loops runs as it stands; the files that pages name exist."""

from __future__ import annotations

import ast
import inspect
import re
import typing
from pathlib import Path

import pytest
import torch
from torch import nn

import flow
from flow.config import resolve_annotation

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "algorithms" / "own-training-loop.md"


def blocks(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)


def test_the_documented_loop_prunes_to_its_budget_and_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    first, second = blocks(PAGE)
    exec(first, names)
    pruned, small, measure = names["pruned"], names["small"], names["measure"]
    assert pruned.stopped == "the budget is met"
    assert pruned.figures_after["macs"] <= 30_000 < pruned.figures_before["macs"]
    assert sum(layer.macs for layer in small.after) == pruned.figures_after["macs"]
    dense, after = (measure(model, names["test"])[1] for model in (names["model"], small.model))
    assert after >= dense - 0.05
    before = {name: value.clone() for name, value in names["pruner"].model.state_dict().items()}
    exec(second, names)
    after = names["pruner"].model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_the_loop_of_the_first_page_prunes_to_its_budget(one_thread: None) -> None:
    (loop,) = (block for block in blocks(ROOT / "README.md") if "flow.Pruner" in block)
    torch.manual_seed(0)
    x, y = torch.randn(64, 1, 12, 12), torch.randint(2, (64,))
    seen, unseen = (
        slice(32),
        slice(32, 64),
    )  # of random labels: what is learned of the first makes the others worse
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 50, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(4),
        nn.Flatten(),
        nn.Linear(450, 2),
    )

    def train_one_epoch(network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        network.train()
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(x[seen]), y[seen]).backward()
        optimizer.step()

    @torch.no_grad()
    def validate() -> float:
        return float(nn.functional.cross_entropy(names["pruner"].model(x[unseen]), y[unseen]))

    adam = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(20):
        train_one_epoch(model, adam)
    names: dict[str, typing.Any] = {
        "flow": flow,
        "torch": torch,
        "model": model,
        "example": x[:2],
        "train_one_epoch": train_one_epoch,
        "validate": validate,
    }
    exec(loop, names)
    assert names["pruner"].stopped == "the budget is met"
    assert sum(layer.macs for layer in names["small"].before) > 1e6
    assert sum(layer.macs for layer in names["small"].after) <= 1e6


def test_the_stages_of_the_first_page_have_these_names_and_arguments() -> None:
    (stages,) = (block for block in blocks(ROOT / "README.md") if "flow.convert" in block)
    given: dict[str, type] = {}
    called = []
    for statement in ast.parse(stages).body:
        for call in (node for node in ast.walk(statement) if isinstance(node, ast.Call)):
            name = ast.unparse(call.func).removeprefix("flow.")
            function = inspect.unwrap(getattr(flow, name))
            inspect.signature(function).bind(*call.args, **{word.arg: None for word in call.keywords})
            called.append(name)
            if isinstance(statement, ast.Assign):
                given[ast.unparse(statement.targets[0])] = resolve_annotation(
                    function.__annotations__["return"], vars(inspect.getmodule(function))
                )
        for read in (node for node in ast.walk(statement) if isinstance(node, ast.Attribute)):
            if (kind := given.get(ast.unparse(read.value))) is not None:
                assert read.attr in kind.__dataclass_fields__ or hasattr(kind, read.attr), ast.unparse(read)
    assert called == ["prune", "simplify", "quantize", "compress", "fit", "convert", "emulate", "synthesize"]


FOLDERS = ("flow", "tests", "docs", "boards", "benchmarks", "hls_templates", "notebooks")
PAGES = (
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *(p for f in FOLDERS for p in (ROOT / f).rglob("*.md")),
)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_the_files_that_a_page_names_exist(page: Path) -> None:
    named = re.findall(rf"`((?:{'|'.join(FOLDERS)})/[\w./*-]+)`", page.read_text(encoding="utf-8"))
    assert [path for path in named if not any(ROOT.glob(path))] == []
