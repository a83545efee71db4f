"""The pipeline: caching, resuming after a kill, and every kind of bad input before any harm is done."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import SMALL, needs

from flow.errors import ConfigError, ToolError, UnsupportedError
from flow.run import pipeline
from flow.run.manifest import equality

pytestmark = needs("g++")


def manifest_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "manifest.json").read_text())  # type: ignore[no-any-return]


def test_the_manifest_holds_what_was_measured(finished: Path) -> None:
    manifest = pipeline.Manifest(finished / "manifest.json", manifest_of(finished))
    assert 0.5 < manifest["accuracy.float"] <= 1
    assert manifest["channels.before"] == 144
    assert manifest["channels.after"] == 18
    assert manifest["macs.after"] < manifest["macs.before"] == 1_355_776
    assert manifest["parameters.before"] == 52_298
    assert manifest["equality.samples"] == 360
    assert manifest["equality.max_error_lsb"] == 0
    for key in (
        "accuracy.pruned",
        "accuracy.quantized",
        "parameters.after",
        "seconds.total",
        "seed",
        "versions.torch",
    ):
        assert manifest[key] is not None
    assert manifest["quantization.float_bound"] is None
    assert manifest["quantization.weight_bits"]["fc"] == 6
    for stage in ("train", "quantize"):
        assert manifest[f"training.{stage}.stopped"] == "all epochs are done"
        assert len(manifest[f"training.{stage}.history"]) == SMALL[stage]["epochs"]
    assert manifest["pruning.stopped"] == "pruning_ratio is reached"
    for figure in ("parameters", "macs"):
        assert manifest[f"pruning.figures.after.{figure}"] <= manifest[f"pruning.figures.before.{figure}"]
    for stage in pipeline.NAMES:
        assert manifest[f"seconds.{stage}"] >= 0
        assert manifest[f"cached.{stage}"] is False
        assert len(manifest[f"hashes.{stage}"]) == 64


def test_the_accuracy_of_the_csim_is_that_of_the_quantized_network(finished: Path) -> None:
    manifest = manifest_of(finished)
    assert manifest["emulation"]["accuracy"] == manifest["accuracy"]["quantized"]


@pytest.mark.parametrize(
    ("bound", "unit", "state"),
    [
        (None, "LSB", "exact"),
        ({"bound_steps": 0.01, "ties": 0, "samples": 0, "output_lsb": 0}, "LSB", "exact"),
        (
            {"bound_steps": 0.01, "ties": 9, "samples": 2, "output_lsb": 1},
            "LSB (ties in float32)",
            "equal to rounding",
        ),
    ],
)
def test_a_file_with_free_scales_is_not_said_to_be_exact_where_it_is_not(
    bound: dict[str, float] | None, unit: str, state: str
) -> None:
    from flow.report.equality import state_of

    figures = {
        "simplify": {"samples": 256, "max_error": 0.0},
        "quantize": {"samples": 360, "float_bound": bound},
    }
    hop = equality(figures)["hops"][1]
    assert (hop["name"], hop["unit"], state_of(hop)) == ("torch = QONNX", unit, state)
    assert hop["max_error"] == (bound or {"output_lsb": 0})["output_lsb"]


def test_a_second_run_takes_everything_from_the_store(copy: Path) -> None:
    before = manifest_of(copy)
    again = pipeline.run(SMALL, out=copy).values
    assert all(again["cached"].values())
    assert again["hashes"] == before["hashes"]
    assert again["seconds"]["total"] < 3


def test_only_what_depends_on_a_change_runs_again(copy: Path) -> None:
    before = manifest_of(copy)["hashes"]
    changed = pipeline.run({**SMALL, "synth_clk_period_ns": 8.0}, out=copy, last="convert").values
    assert [stage for stage, hit in changed["cached"].items() if not hit] == ["convert"]
    back = pipeline.run(SMALL, out=copy).values
    assert all(back["cached"].values())
    assert back["hashes"] == before


def test_to_stops_after_a_stage(tmp_path: Path) -> None:
    manifest = pipeline.run({**SMALL, "train": {"epochs": 1}}, out=tmp_path, last="train").values
    assert list(manifest["hashes"]) == ["train"]
    assert (tmp_path / "report.html").is_file()
    assert not (tmp_path / "prune").exists()


def test_from_builds_a_stage_and_all_after_it_anew(copy: Path) -> None:
    before = manifest_of(copy)["hashes"]
    again = pipeline.run(SMALL, out=copy, first="convert", last="convert").values
    assert again["cached"] == {
        "train": True,
        "prune": True,
        "simplify": True,
        "quantize": True,
        "compress": True,
        "convert": False,
    }
    assert again["hashes"]["convert"] == before["convert"]


def test_an_altered_result_is_refused_and_from_heals_it(copy: Path) -> None:
    before = manifest_of(copy)["hashes"]
    (copy / "simplify" / "weights.pt").write_bytes(b"broken")
    with pytest.raises(
        ConfigError, match="simplify: cached result must be as it was written, but weights.pt"
    ):
        pipeline.run(SMALL, out=copy)
    healed = pipeline.run(SMALL, out=copy, first="simplify", last="simplify").values
    assert healed["hashes"]["simplify"] == before["simplify"]


KILLED = """
import json, os, signal, sys
from flow.run import pipeline
stage, out, config = sys.argv[1:]
def listen(name, event, done, total, text):
    print(name, text, flush=True)
    if name == stage and event == "progress":
        os.kill(os.getpid(), signal.SIGKILL)
pipeline.run(json.loads(config), out=out, listener=listen)
"""


def test_a_run_killed_in_every_stage_resumes_and_gives_the_same_hashes(
    finished: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    told = ""
    for stage in pipeline.NAMES:
        killed = subprocess.run(
            [sys.executable, "-c", KILLED, stage, str(out), json.dumps(SMALL)], capture_output=True
        )
        assert killed.returncode == -9, killed.stderr.decode()
        done = [name for name in pipeline.NAMES if (out / name).exists()]
        assert done == list(pipeline.NAMES[: pipeline.NAMES.index(stage)])
        told += killed.stdout.decode()
        left = [path.name.split("-")[1] for path in (out / ".store").glob(".resume-*")]
        assert left == [name for name in ("train", "prune", "quantize") if name == stage]
    for stage in ("train", "prune", "quantize"):
        assert f"{stage} goes on after epoch 1\n" in told
    resumed = pipeline.run(SMALL, out=out).values
    assert [stage for stage, hit in resumed["cached"].items() if not hit] == ["synthesize"]
    assert resumed["hashes"] == manifest_of(finished)["hashes"]


def test_a_budget_of_the_board_is_met_and_shown(copy: Path) -> None:
    prune = {"schedule": "one-shot", "epochs": 1, "budget": {"luts": 45_000, "macs": 1e6}}
    manifest = pipeline.run({**SMALL, "prune": prune}, out=copy, last="prune").values
    assert manifest["cached"] == {"train": True, "prune": False}
    before, after = (manifest["pruning"]["figures"][side] for side in ("before", "after"))
    assert manifest["pruning"]["stopped"] == "the budget is met"
    assert after["luts"] <= 45_000 < before["luts"]
    assert after["macs"] <= 1e6 < before["macs"]
    assert manifest["channels"]["after"] < manifest["channels"]["before"]


def test_the_hash_of_a_run_depends_on_its_seed(finished: Path, tmp_path: Path) -> None:
    other = pipeline.run(SMALL, out=tmp_path, seed=1, last="train").values
    assert other["hashes"]["train"] != manifest_of(finished)["hashes"]["train"]


def test_a_missing_compiler_is_said_before_the_long_work(tmp_path: Path) -> None:
    with pytest.raises(ToolError) as error:
        pipeline.run({**SMALL, "emulate": {"compiler": "no-such-g++"}}, out=tmp_path)
    assert str(error.value) == (
        "emulate: 'no-such-g++' must be on PATH, not missing; install it (flow doctor shows what was found)"
    )
    assert not (tmp_path / "train").exists()


def test_an_unknown_board_is_refused_with_the_nearest_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not 'pynq-z3'; did you mean 'pynq-z"):
        pipeline.run({**SMALL, "board": "pynq-z3"}, out=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_toolchain_that_the_board_has_not_is_said_before_the_long_work(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        pipeline.run({**SMALL, "board": "ulx3s-85f", "synthesize": {"toolchain": "vitis"}}, out=tmp_path)
    assert str(error.value) == (
        "synthesize: toolchain for board 'ulx3s-85f' must be one of open, not 'vitis'; "
        "choose another board or toolchain"
    )
    assert list(tmp_path.iterdir()) == []


def test_a_host_that_cannot_be_reached_is_said_before_the_long_work(tmp_path: Path) -> None:
    config = tmp_path / "ssh_config"
    config.write_text("Host nowhere\n HostName 127.0.0.1\n Port 1\n")
    options = {"host": "nowhere", "ssh_config": str(config)}
    with pytest.raises(ToolError, match="'nowhere'"):
        pipeline.run({**SMALL, "synthesize": options}, out=tmp_path / "out")
    assert not (tmp_path / "out" / "train").exists()


def test_an_unknown_stage_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        pipeline.run(SMALL, out=tmp_path, last="deploy")
    assert str(error.value) == (
        "run: stage must be one of train, prune, simplify, quantize, compress, convert, emulate, synthesize, "
        "not 'deploy'; correct --from or --to"
    )


NETWORKS = """
import torch
from torch import nn

def good():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))

def poisoned():
    net = good()
    net[1].weight.data[3, 5] = float("nan")
    return net

class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(64, 10)
    def forward(self, x):
        x = x.flatten(1)
        return self.fc(x) if x.sum() > 0 else -self.fc(x)

def unsupported():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.GroupNorm(2, 10))

def recurrent():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 10))

def number():
    return 7
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a folder with a config's neighbours: a module of networks and a data set."""
    (tmp_path / "nets_of_user.py").write_text(NETWORKS)
    rng = np.random.default_rng(0)
    y = np.arange(200) % 10
    np.savez(
        tmp_path / "data.npz", x=rng.normal(0, 1, (200, 8, 8)).astype(np.float32) + y[:, None, None], y=y
    )
    return tmp_path


def run_user(project: Path, source: str, last: str = "train", **model: str) -> dict[str, Any]:
    lines = [f'source = "nets_of_user:{source}"', *(f'{key} = "{value}"' for key, value in model.items())]
    text = "\n".join(["[model]", *lines, "[data]", 'train = "data.npz"', "[train]", "epochs = 2"])
    (project / "flow.toml").write_text(text)
    return dict(pipeline.run(project / "flow.toml", out=project / "out", last=last).values)


def test_a_network_of_the_users_own_runs_from_a_file(project: Path) -> None:
    manifest = run_user(project, "good", last="simplify")
    assert manifest["data"] == {"name": "data.npz", "train": 128, "validation": 32, "test": 40}
    assert [row["kind"] for row in manifest["layers"]] == ["Linear", "Linear"]


def test_a_change_of_the_users_module_is_noticed(project: Path) -> None:
    run_user(project, "good")
    (project / "nets_of_user.py").write_text(NETWORKS.replace("16", "128"))
    assert run_user(project, "good")["cached"] == {"train": False}


def test_a_checkpoint_is_loaded_and_measured(project: Path) -> None:
    import torch
    from torch import nn

    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))
    torch.save(net.state_dict(), project / "weights.pt")
    lines = '[model]\nsource = "nets_of_user:good"\ncheckpoint = "weights.pt"\n[data]\ntrain = "data.npz"\n'
    (project / "flow.toml").write_text(lines)
    pipeline.run(project / "flow.toml", out=project / "out", last="train")
    saved = torch.load(project / "out" / "train" / "weights.pt", weights_only=True)
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in saved.items())


def test_a_checkpoint_that_holds_more_than_tensors_is_refused(project: Path) -> None:
    import torch
    from torch import nn

    torch.save(nn.Linear(2, 2), project / "whole.pt")
    with pytest.raises(ConfigError) as error:
        run_user(project, "good", checkpoint="whole.pt")
    assert str(error.value) == (
        "[model]: checkpoint 'whole.pt' must be a plain state dict, not hold anything else (UnpicklingError); "
        "save it with torch.save(model.state_dict(), file)"
    )


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 torn", b"hello"])
def test_a_checkpoint_that_is_torn_is_refused(project: Path, content: bytes) -> None:
    (project / "torn.pt").write_bytes(content)
    with pytest.raises(ConfigError, match=r"\[model\]: checkpoint 'torn.pt' must be a plain state dict"):
        run_user(project, "good", checkpoint="torn.pt")


def test_a_checkpoint_of_another_network_is_refused(project: Path) -> None:
    import torch
    from torch import nn

    torch.save(nn.Linear(2, 2).state_dict(), project / "other.pt")
    with pytest.raises(
        ConfigError, match=r"\[model\]: checkpoint 'other.pt' must fit the network, not differ"
    ):
        run_user(project, "good", checkpoint="other.pt")


def test_a_missing_checkpoint_is_refused(project: Path) -> None:
    with pytest.raises(ConfigError) as error:
        run_user(project, "good", checkpoint="none.pt")
    assert str(error.value) == (
        f"[model]: checkpoint must be an existing file, not '{project / 'none.pt'}'; correct the config"
    )


@pytest.mark.parametrize(
    ("source", "kind", "message"),
    [
        (
            "poisoned",
            ConfigError,
            "model: weights must be finite, but '1.weight' holds 1 NaN or infinite values; "
            "load another checkpoint, or train with a smaller learning rate",
        ),
        (
            "Branching",
            UnsupportedError,
            "model: forward must be traceable by torch.fx, not TraceError: symbolically traced variables cannot be "
            "used as inputs to control flow; replace branches and loops that depend on data",
        ),
        ("number", ConfigError, "[model]: source 'nets_of_user:number' must return a torch module, not int"),
    ],
)
def test_a_network_that_breaks_a_rule_is_refused(
    project: Path, source: str, kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind) as error:
        run_user(project, source)
    assert str(error.value) == message


def test_an_unsupported_layer_is_named_with_the_supported_ones(project: Path) -> None:
    with pytest.raises(
        UnsupportedError, match=r"model: layer '2' \(GroupNorm\) is not supported; supported layers: Conv1d, "
    ):
        run_user(project, "unsupported")


def test_samples_of_the_wrong_shape_are_refused(project: Path) -> None:
    with pytest.raises(ConfigError, match=r"data: samples must fit the network, not have shape \(1, 8, 8\)"):
        run_user(project, "recurrent")


@pytest.mark.parametrize("source", ["nowhere:f", "nets_of_user:nothing"])
def test_a_source_that_cannot_be_imported_is_refused(project: Path, source: str) -> None:
    (project / "flow.toml").write_text(f'[model]\nsource = "{source}"\n')
    with pytest.raises(ConfigError, match=rf"\[model\]: source '{source}' must be importable, not fail with"):
        pipeline.run(project / "flow.toml", out=project / "out", last="train")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Give a function that sets the size of a small disk and returns its folder."""
    mount = tmp_path / "disk"
    mount.mkdir()

    def resize(size: str) -> Path:
        options = ["-o", f"remount,size={size}"] if mount.is_mount() else ["-o", f"size={size}"]
        done = subprocess.run(["mount", "-t", "tmpfs", *options, "tmpfs", str(mount)], capture_output=True)
        if done.returncode:
            pytest.skip("a small tmpfs cannot be mounted here (no privilege)")
        return mount

    yield resize
    if mount.is_mount():
        subprocess.run(["umount", str(mount)], check=True)


def test_a_full_disk_is_said_and_what_is_done_stays(finished: Path, disk: Callable[[str], Path]) -> None:
    """A disk that takes one checkpoint but no second beside it; a larger one; one that takes no C++."""
    out = disk("1500k") / "out"
    with pytest.raises(ConfigError) as error:
        pipeline.run(SMALL, out=out)
    (saved,) = (out / ".store").glob(".resume-*")
    assert str(error.value) == (
        f"checkpoint: '{saved}' must have room, not a full disk; free some and run again: "
        "the training goes on after the last epoch that was saved"
    )
    disk("4m")
    texts = []
    pipeline.run(SMALL, out=out, last="prune", listener=lambda *call: texts.append(call[-1]))
    assert "goes on after epoch 1" in texts
    disk("1500k")
    with pytest.raises(ConfigError) as error:
        pipeline.run(SMALL, out=out)
    assert str(error.value) == (
        f"out: '{out}' must have room, not a full disk; free some and run again: finished stages are kept"
    )
    again = pipeline.run(SMALL, out=out, last="quantize").values
    assert set(again["cached"].values()) == {True}
    assert again["hashes"]["quantize"] == manifest_of(finished)["hashes"]["quantize"]


def test_a_shorter_run_of_the_same_results_leaves_the_report_of_the_whole(copy: Path) -> None:
    before = {name: (copy / name).read_bytes() for name in ("manifest.json", "report.html")}
    short = pipeline.run(SMALL, out=copy, last="train", keep_report=True)
    assert set(short.values["hashes"]) == {"train"}
    assert {name: (copy / name).read_bytes() for name in before} == before
    pipeline.run({**SMALL, "train": {"epochs": 1}}, out=copy, last="train", keep_report=True)
    assert (copy / "manifest.json").read_bytes() != before["manifest.json"]
