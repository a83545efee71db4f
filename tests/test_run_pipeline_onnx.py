"""Runs that start from an ONNX file: a float one is measured, a quantized one enters at quantize."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import needs
from onnx_files import EXAMPLES, execute, model, needs_examples, node, save, weights
from qonnx_files import Net
from rtl_cases import needs_verilator
from torch import nn

import flow
from flow import network
from flow.errors import ConfigError, UnsupportedError
from flow.fixed import from_qonnx
from flow.run import pipeline

pytestmark = needs("g++")
FAST = {
    "prune": {"pruning_ratio": 0.25, "schedule": "linear", "steps": 2, "pwe": 1, "epochs": 9},
    "quantize": {"epochs": 0},
}


@pytest.fixture(scope="module")
def float_file(finished: Path) -> Path:
    return finished / "simplify" / "network.onnx"


@pytest.fixture(scope="module")
def from_float(float_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a run from a float file, up to convert."""
    out = tmp_path_factory.mktemp("float")
    pipeline.run({"model": {"onnx": str(float_file)}, **FAST, "onnx": {"opset": 17}}, out=out, last="convert")
    return out


@pytest.fixture(scope="module")
def from_quantized(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a run from a quantized file, up to convert."""
    out = tmp_path_factory.mktemp("quantized")
    pipeline.run({"model": {"onnx": str(finished / "quantize" / "model.onnx")}}, out=out, last="convert")
    return out


def manifest_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "manifest.json").read_text())  # type: ignore[no-any-return]


def test_simplify_writes_the_network_as_onnx(finished: Path) -> None:
    manifest = manifest_of(finished)
    assert manifest["onnx"]["file"] == "network.onnx" and manifest["onnx"]["max_error"] <= 1e-6
    small = network.load(finished / "simplify")
    x = torch.randn(9, 1, 8, 8)
    (got,) = execute(finished / "simplify" / "network.onnx", x.numpy())
    want = small(x).detach().numpy()
    assert np.abs(got - want).max() <= 1e-6 * np.abs(want).max()


def test_a_float_file_is_measured_and_not_trained(finished: Path, from_float: Path) -> None:
    before, after = manifest_of(finished), manifest_of(from_float)
    small = network.load(finished / "simplify")
    data = flow.load_data()
    with torch.no_grad():
        right = small(torch.from_numpy(data.test[0])).argmax(1).numpy() == data.test[1]
    assert after["accuracy"]["float"] == pytest.approx(right.mean())
    assert after["channels"]["before"] == before["channels"]["after"]
    assert after["channels"]["after"] < after["channels"]["before"]
    assert list(after["hashes"]) == ["train", "prune", "simplify", "quantize", "compress", "convert"]


def test_the_opset_is_the_users(from_float: Path) -> None:
    import onnx

    written = onnx.load(str(from_float / "simplify" / "network.onnx"))
    assert [entry.version for entry in written.opset_import] == [17]


def test_only_simplify_and_what_follows_depends_on_the_opset(from_float: Path, float_file: Path) -> None:
    config = {"model": {"onnx": str(float_file)}, **FAST, "onnx": {"opset": 13}}
    again = pipeline.run(config, out=from_float, last="simplify").values
    assert again["cached"] == {"train": True, "prune": True, "simplify": False}


def test_a_quantized_file_enters_at_quantize(finished: Path, from_quantized: Path) -> None:
    before, after = manifest_of(finished), manifest_of(from_quantized)
    assert list(after["hashes"]) == ["quantize", "compress", "convert"]
    assert after["accuracy"] == {"quantized": before["accuracy"]["quantized"]}
    assert after["data"] == before["data"]
    assert after["equality"]["hops"] == []
    with (
        np.load(finished / "quantize" / "golden.npz") as want,
        np.load(from_quantized / "quantize" / "golden.npz") as got,
    ):
        assert all(np.array_equal(want[key], got[key]) for key in ("inputs", "outputs", "labels"))


def test_the_cpp_of_a_quantized_file_is_that_of_the_network(finished: Path, from_quantized: Path) -> None:
    for name in ("firmware/net.cpp", "firmware/parameters.h", "firmware/defines.h", "tb_data/golden.dat"):
        want, got = ((folder / "convert" / "hls" / name).read_text() for folder in (finished, from_quantized))
        assert got == want, name
    for path in sorted((finished / "convert" / "hls" / "firmware" / "weights").glob("*.txt")):
        twin = from_quantized / "convert" / "hls" / "firmware" / "weights" / path.name
        assert twin.read_text() == path.read_text()


def test_a_run_from_a_quantized_file_resumes_and_sees_changes(from_quantized: Path, finished: Path) -> None:
    config = {"model": {"onnx": str(finished / "quantize" / "model.onnx")}}
    again = pipeline.run(config, out=from_quantized, last="convert").values
    assert all(again["cached"].values())
    changed = pipeline.run({**config, "seed": 1}, out=from_quantized, last="quantize").values
    assert changed["cached"] == {"quantize": False}


def test_stages_that_a_quantized_file_does_not_need_are_no_choice(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        pipeline.run(
            {"model": {"onnx": str(finished / "quantize" / "model.onnx")}}, out=tmp_path, last="prune"
        )
    assert str(error.value) == (
        "run: stage must be one of quantize, compress, convert, emulate, synthesize, not 'prune'; "
        "correct --from or --to"
    )


def test_the_report_of_a_run_without_training_shows_what_there_is(from_quantized: Path) -> None:
    from rich.console import Console

    from flow.report import table

    console = Console(width=100)
    with console.capture() as shown:
        console.print(table(manifest_of(from_quantized)))
    assert "quantized" in shown.get() and "not measured" in shown.get()
    assert "Accuracy is" in (from_quantized / "report.html").read_text()


@pytest.fixture
def two_heads(tmp_path: Path) -> dict[str, Any]:
    """Return the config of a quantized file with two outputs, of 3 classes and of 2 numbers."""
    net = Net()
    body = net.quant(net.relu(net.dense(net.input((6,)), 5)), signed=False)
    heads = [net.quant(net.dense(body, outputs)) for outputs in (3, 2)]
    x = np.random.default_rng(0).standard_normal((60, 6)).astype(np.float32)
    np.savez(tmp_path / "data.npz", x=x, y=np.arange(60) % 3)
    path = save(net.proto(*heads), tmp_path)
    return {"model": {"onnx": str(path)}, "data": {"train": str(tmp_path / "data.npz")}}


def test_several_outputs_have_no_accuracy_and_everything_else(
    two_heads: dict[str, Any], tmp_path: Path
) -> None:
    from rich.console import Console

    from flow.report import table
    from flow.testing import ratchet

    pipeline.run(two_heads, out=tmp_path / "out", last="emulate")
    text = (tmp_path / "out" / "manifest.json").read_text()
    values = json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert values["accuracy"] == {"quantized": None} and values["emulation"]["accuracy"] is None
    assert [hop["max_error"] for hop in values["equality"]["hops"]] == [0, 0]
    console = Console(width=100)
    with console.capture() as shown:
        console.print(table(values))
    assert re.search(r"quantized +not measured", shown.get())
    page = (tmp_path / "out" / "report.html").read_text()
    assert "not measured" in page and not re.search(r"\bnan\b", page)
    assert "accuracy" not in ratchet.measured(values)
    old = ratchet.Ratchet({"accuracy": 0.9})
    assert old.complaint("accuracy", ratchet.measured(values).get("accuracy")) == (
        "accuracy must be measured as before (0.9), not be missing"
    )


@pytest.mark.parametrize("rtl", [False, pytest.param(True, marks=needs_verilator)])
def test_a_run_lowers_a_file_once(
    two_heads: dict[str, Any], tmp_path: Path, rtl: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(from_qonnx, "_read", {})
    lowered = []
    lower = from_qonnx.lower_with_shapes
    monkeypatch.setattr(
        from_qonnx, "lower_with_shapes", lambda model, **given: lowered.append(model) or lower(model, **given)
    )
    pipeline.run({**two_heads, "emulate": {"rtl": rtl}}, out=tmp_path / "out", last="emulate")
    assert len(lowered) == 2  # the user's file, and what cleaning made of it


def test_data_of_another_shape_is_refused(tmp_path: Path) -> None:
    path = save(model([node("MatMul", "x", "w")], (None, 6), {"w": weights(6, 10)}), tmp_path)
    with pytest.raises(ConfigError) as error:
        pipeline.run({"model": {"onnx": str(path)}}, out=tmp_path / "out", last="train")
    assert str(error.value) == (
        "onnx: samples must have the shape of the input 'x' of 'model.onnx', (6,) channels first, not (1, 8, 8); "
        "check [data] and [model]"
    )


def test_a_missing_file_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match="none.onnx' must be an existing file, not missing; correct the path"
    ):
        pipeline.run({"model": {"onnx": str(tmp_path / "none.onnx")}}, out=tmp_path / "out")


def test_a_network_that_no_opset_takes_goes_on_without_the_file(tmp_path: Path) -> None:
    (tmp_path / "odd.py").write_text(
        "from torch import nn\n\n\ndef build():\n"
        "    pool = nn.AdaptiveAvgPool2d(4)\n"
        "    return nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), pool, nn.Flatten(), nn.Linear(128, 10))\n"
    )
    (tmp_path / "flow.toml").write_text(
        '[model]\nsource = "odd:build"\n[train]\nepochs = 1\n[prune]\npruning_ratio = 0.25\npwe = 1\nepochs = 2\n'
    )
    manifest = pipeline.run(tmp_path / "flow.toml", out=tmp_path / "out", last="simplify").values
    assert manifest["onnx"]["file"] is None
    assert (
        "must, in opset 13, have windows of one size, not (4, 4) windows over (6, 6)"
        in manifest["onnx"]["reason"]
    )


@needs_examples
def test_a_keras_file_with_batch_norms_and_a_softmax_goes_as_far_as_qonnx(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((5, 16))
    y = np.arange(300) % 5
    x = (centres[y] + 0.3 * rng.standard_normal((300, 16))).astype(np.float32)
    np.savez(tmp_path / "jets.npz", x=x, y=y)
    config = {
        "model": {"onnx": str(EXAMPLES / "three_layer_bn_keras.onnx")},
        "data": {"train": str(tmp_path / "jets.npz")},
        "prune": {"pruning_ratio": 0.2, "pwe": 1, "epochs": 3},
        "quantize": {"epochs": 0, "activation_bits": 8},
    }
    manifest = pipeline.run(config, out=tmp_path / "out", last="convert").values
    assert [row["kind"] for row in manifest["layers"]] == ["Linear"] * 4
    assert manifest["equality"]["hops"][1] == {
        **{"name": "torch = QONNX", "samples": 60, "max_error": 0, "unit": "LSB", "exact": True}
    }


def test_a_float_file_that_quantize_does_not_take_is_refused_by_its_layer(tmp_path: Path) -> None:
    path = tmp_path / "softmax.onnx"
    flow.write_onnx(
        nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.Softmax(1), nn.Linear(10, 10)),
        path,
        torch.zeros(1, 1, 8, 8),
    )
    with pytest.raises(UnsupportedError, match=r"quantize: layer '\w+' \(Softmax, before"):
        pipeline.run({"model": {"onnx": str(path)}, **FAST}, out=tmp_path / "out", last="quantize")
