"""The documented loop of the user's own runs as it stands, and does what its page says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

PAGE = Path(__file__).parents[1] / "docs" / "algorithms" / "own-training-loop.md"


def test_the_documented_loop_prunes_to_its_budget_and_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    first, second = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
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
