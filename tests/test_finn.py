"""FINN: what it is given is the same network; its answers arrive whole; missing pieces are one message."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from flow import finn, network, qonnx
from flow.demo import digits_cnn
from flow.errors import ConfigError, MismatchError, ToolError, UnsupportedError
from flow.finn import text
from flow.finn.prepare import prepare
from flow.network.fuse import fuse_batchnorm
from flow.quantize import quantize
from flow.types import Data

PART = "xc7z020clg400-1"
NETWORKS = ("digits", "jets")
with_finn = pytest.mark.skipif(
    finn.installed() is None and os.environ.get("FLOW_REQUIRE_FINN") != "1",
    reason=f"{finn.VARIABLE} names no environment with finn-plus; benchmarks/results/finn_acceptance.md has its run",
)


def jets() -> nn.Module:
    layers: list[nn.Module] = []
    for inputs, outputs in ((16, 64), (64, 32), (32, 32)):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(32, 5))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return the QONNX files of the demo's CNN and of the jets MLP, random weights, calibrated only."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    made = {}
    for name, model, shape, classes in (("digits", digits_cnn(), (1, 8, 8), 10), ("jets", jets(), (16,), 5)):
        splits = [
            (rng.normal(0, 1, (count, *shape)).astype(np.float32), rng.integers(0, classes, count))
            for count in (64, 16, 16)
        ]
        example = torch.from_numpy(splits[0][0][:2])
        graph = fuse_batchnorm(network.trace(model.eval(), example))
        out = tmp_path_factory.mktemp(name)
        made[name] = quantize(graph, example, out=out, data=Data(name, *splits), epochs=0).onnx_path
    return made


@pytest.mark.parametrize("name", NETWORKS)
def test_what_finn_is_given_computes_the_same(name: str, files: dict[str, Path], tmp_path: Path) -> None:
    prepared = prepare(files[name], tmp_path / "prepared.onnx")
    before, after = qonnx.load(files[name]), qonnx.load(tmp_path / "prepared.onnx")
    assert [node for node in after.graph.node if node.op_type == "Relu"] == []
    shape = before.get_tensor_shape(before.graph.input[0].name)[1:]
    codes = np.random.default_rng(1).integers(-128, 127, (256, *shape), endpoint=True).astype(np.float32)
    codes[0], codes[1] = -128, 127
    expected = qonnx.execute(before, codes * np.float32(prepared.input_lsb))
    entered = np.moveaxis(codes, 1, -1) if prepared.channels_last else codes
    found = qonnx.execute(after, entered)
    assert np.array_equal(found, np.rint(found))  # integers at the output too
    assert np.array_equal(found * prepared.output_lsb, expected)
    assert prepared.input_type == "INT8"


def test_the_layers_and_their_weights_are_told(files: dict[str, Path], tmp_path: Path) -> None:
    prepared = prepare(files["digits"], tmp_path / "prepared.onnx")
    assert prepared.macs == (("conv1", 288), ("conv2", 13824), ("conv3", 27648), ("fc", 10240))
    assert prepared.pools == ("pool",)


@pytest.mark.parametrize(("gap", "signed"), [(1, False), (4, False), (0.5, False), (0.25, True), (1, True)])
def test_thresholds_round_ties_to_even_on_every_grid(gap: float, signed: bool, tmp_path: Path) -> None:
    """Every value of the accumulator's grid, coarser and finer than the activation's step of 1/8."""
    path = tmp_path / "net.onnx"
    one_weight(path, weight_lsb=gap / 8, signed=signed)
    prepare(path, tmp_path / "prepared.onnx")
    before, after = qonnx.load(path), qonnx.load(tmp_path / "prepared.onnx")
    assert "Quant" not in [n.op_type for n in after.graph.node if not n.output[0].startswith("w")]
    codes = np.arange(-128, 128, dtype=np.float32)[:, None]
    assert np.array_equal(qonnx.execute(after, codes) / 8, qonnx.execute(before, codes))


def one_weight(path: Path, *, weight_lsb: float, signed: bool) -> None:
    """Write x -> Quant -> MatMul by one weight -> (Relu) -> Quant to 4 bits in steps of 1/8."""
    from onnx import TensorProto, helper, numpy_helper

    constants = {
        "in_scale": 1.0, "zero": 0.0, "bits8": 8.0, "bits4": 4.0, "out_scale": 0.125,
        "w_scale": weight_lsb, "w_real": [[weight_lsb]],
    }  # fmt: skip

    def quant(source: str, scale: str, bits: str, target: str, is_signed: bool) -> object:
        return helper.make_node(
            "Quant", [source, scale, "zero", bits], [target], name=target,
            domain="qonnx.custom_op.general", signed=int(is_signed), narrow=0, rounding_mode="ROUND",
        )  # fmt: skip

    nodes = [
        quant("x", "in_scale", "bits8", "xq", True),
        quant("w_real", "w_scale", "bits8", "w", True),
        helper.make_node("MatMul", ["xq", "w"], ["m"], name="m"),
        *([] if signed else [helper.make_node("Relu", ["m"], ["r"], name="r")]),
        quant("m" if signed else "r", "out_scale", "bits4", "y", signed),
    ]
    shapes = {"x": (1, 1), "y": (1, 1), "xq": (1, 1), "w": (1, 1), "m": (1, 1), "r": (1, 1)}
    infos = {k: helper.make_tensor_value_info(k, TensorProto.FLOAT, v) for k, v in shapes.items()}
    graph = helper.make_graph(
        nodes, "net", [infos.pop("x")], [infos.pop("y")],
        [numpy_helper.from_array(np.array(v, np.float32), k) for k, v in constants.items()],
        value_info=[info for key, info in infos.items() if key != "r" or not signed],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 13), helper.make_opsetid("qonnx.custom_op.general", 1)]
    path.write_bytes(helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())


def test_an_input_that_is_not_quantized_is_refused(tmp_path: Path) -> None:
    one_weight(tmp_path / "net.onnx", weight_lsb=1.0, signed=True)
    model = qonnx.load(tmp_path / "net.onnx")
    model.set_initializer("in_scale", np.float32(0.3))
    model.save(str(tmp_path / "net.onnx"))
    with pytest.raises(
        UnsupportedError, match="input 'x' must be read by one Quant node with one power of two"
    ):
        prepare(tmp_path / "net.onnx", tmp_path / "prepared.onnx")


def environment(folder: Path, script: str) -> Path:
    """Make what looks like FINN's environment: its Python runs ``script`` in place of the worker."""
    (folder / "lib" / "python3" / "site-packages" / "finn_plus-9.9.dist-info").mkdir(parents=True)
    python = folder / "bin" / "python"
    python.parent.mkdir()
    (folder / "script.py").write_text(script)
    python.write_text(f'#!/bin/sh\nexec {sys.executable} {folder / "script.py"} "$@"\n')
    python.chmod(0o755)
    return python


ANSWER = {
    "steps": [{"name": "step_qonnx_to_finn", "status": "accepted", "reason": "", "max_error": 0.0}],
    "layers": [
        {"layer": "fc", "name": "MVAU_0", "cycles": 40, "luts": 1000, "dsps": 1, "bram18": 2},
        {"layer": "", "name": "X", "cycles": 50, "luts": 1, "dsps": 0, "bram18": 0},
    ],
    "host": ["Transpose t"],
    "samples": 5,
    "max_error": 0.0,
}


def answering(folder: Path, answer: object) -> Path:
    return environment(folder, f"open('result.json', 'w').write({json.dumps(json.dumps(answer))})\n")


def test_the_answer_arrives_with_its_sums(
    files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(finn.VARIABLE, str(answering(tmp_path / "env", ANSWER)))
    assert finn.installed() == ("9.9", tmp_path / "env" / "bin" / "python")
    made = finn.finn(files["jets"], out=tmp_path / "out", part=PART, target_fps=7, samples=3)
    assert made.accepted and made.max_cycles == 50
    assert text.layer_rows(made)[-1] == ["all", "", "50", "1,001", "1", "2"]
    assert "left to the processor: Transpose t\n2,000,000 samples a second at 10 ns" in text.foot(made, 10)
    request = json.loads((tmp_path / "out" / "request.json").read_text())
    assert (request["part"], request["target_fps"], request["clock_period_ns"]) == (PART, 7, 10.0)
    codes, expected = (np.load(tmp_path / "out" / f"{name}.npy") for name in ("inputs", "expected"))
    assert codes.shape == (3, 16) and expected.shape == (3, 5)
    assert np.array_equal(codes[:2], np.repeat([[-128.0], [127.0]], 16, axis=1))


def test_a_refusal_is_a_verdict_and_no_error(
    files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = {
        "name": "step_streamline",
        "status": "refused",
        "reason": "node 'fc' (Gemm): no",
        "max_error": None,
    }
    answer = {**ANSWER, "steps": [*ANSWER["steps"], step], "layers": []}  # type: ignore[misc]
    monkeypatch.setenv(finn.VARIABLE, str(answering(tmp_path / "env", answer)))
    made = finn.finn(files["jets"], out=tmp_path / "out", part=PART)
    assert not made.accepted and made.max_cycles is None
    assert text.step_rows(made)[-1] == ["step_streamline", "refused", "not executed", "node 'fc' (Gemm): no"]
    assert text.layer_rows(made) == []


def test_a_step_that_changes_the_outputs_is_a_mismatch(
    files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = {**ANSWER, "steps": [{**ANSWER["steps"][0], "max_error": 0.25}]}  # type: ignore[index]
    monkeypatch.setenv(finn.VARIABLE, str(answering(tmp_path / "env", answer)))
    with pytest.raises(
        MismatchError, match="step_qonnx_to_finn must leave the outputs as they were, not change them"
    ):
        finn.finn(files["jets"], out=tmp_path / "out", part=PART)


def test_a_worker_that_dies_is_a_tool_error(
    files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(finn.VARIABLE, str(environment(tmp_path / "env", "import sys; sys.exit('no memory')")))
    with pytest.raises(ToolError, match=r"must exit with 0, not 1; its output ends with\n +no memory"):
        finn.finn(files["jets"], out=tmp_path / "out", part=PART)


@pytest.mark.parametrize("value", [None, "/nowhere/python", sys.executable])
def test_a_missing_environment_is_one_message(
    value: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(finn.VARIABLE, raising=False)
    if value:
        monkeypatch.setenv(finn.VARIABLE, value)
    with pytest.raises(
        ToolError, match="FLOW_FINN_PYTHON must name the Python of an environment with finn-plus, not"
    ):
        finn.finn(tmp_path / "x.onnx", out=tmp_path, part=PART)


def test_too_few_samples_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="samples must be at least 2, not 1"):
        finn.finn(tmp_path / "x.onnx", out=tmp_path, part=PART, samples=1)


def test_the_requirements_name_finns_version_and_lie_in_the_package() -> None:
    assert f"finn-plus=={finn.VERSION}" in finn.REQUIREMENTS.read_text()


@with_finn
@pytest.mark.parametrize("name", NETWORKS)
def test_finn_accepts_the_network_and_leaves_its_outputs(
    name: str, files: dict[str, Path], tmp_path: Path
) -> None:
    made = finn.finn(files[name], out=tmp_path, part=PART, target_fps=20_000)
    assert made.accepted, made.steps
    assert made.max_error == 0 and made.host == ()
    assert all(layer.layer for layer in made.layers)
    assert made.max_cycles and 1e8 / made.max_cycles >= 20_000
    products = [layer for layer in made.layers if layer.name.startswith("MVAU")]
    assert len(products) == 4 and all(layer.dsps or layer.luts for layer in products)


@with_finn
def test_finn_names_the_node_that_it_refuses(tmp_path: Path) -> None:
    one_weight(tmp_path / "net.onnx", weight_lsb=1.0, signed=False)
    model = qonnx.load(tmp_path / "net.onnx")
    next(node for node in model.graph.node if node.op_type == "Relu").op_type = "Softplus"
    model.save(str(tmp_path / "net.onnx"))
    made = finn.finn(tmp_path / "net.onnx", out=tmp_path / "out", part=PART)
    assert not made.accepted
    assert (made.steps[-1].name, made.steps[-1].status) == ("step_create_dataflow_partition", "refused")
    assert "starting with node Softplus_0 ('r')" in made.steps[-1].reason
