"""QONNX graphs: executing, channels last, names; a pass that goes wrong is caught."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import quantized
import torch
from quantized import NETS, Forward, data, golden, graph
from torch import nn

from flow import qonnx_graph
from flow.errors import ConfigError, MismatchError, UnsupportedError
from flow.qonnx_graph import CHANNELS_LAST, activations, compute_nodes, execute, load, to_channels_last
from flow.quantize import quantize

IMAGES = [name for name, (_, shape, _) in NETS.items() if len(shape) == 3]


def channels_last(x: np.ndarray) -> np.ndarray:
    return np.moveaxis(x, 1, -1) if x.ndim == 4 else x


# ---------------------------------------------------------------- channels last


@pytest.mark.parametrize("name", NETS)
def test_the_channels_last_graph_gives_the_same_for_every_sample(name: str) -> None:
    inputs, expected = golden(name)
    changed = to_channels_last(graph(name))
    assert np.array_equal(execute(changed, channels_last(inputs)), expected)


@pytest.mark.parametrize("name", IMAGES)
def test_every_image_is_channels_last_without_a_transpose(name: str) -> None:
    before = graph(name)
    shapes = {n.name: before.get_tensor_shape(n.output[0]) for n in compute_nodes(before)}
    changed = to_channels_last(before)
    assert changed.get_tensor_shape("global_in") == [1, *(NETS[name][1][i] for i in (1, 2, 0))]
    for node in changed.graph.node:
        assert node.op_type not in ("Transpose", "Gemm")
        assert (node.domain == CHANNELS_LAST) == (node.op_type in ("Conv", "MaxPool"))
        shape = changed.get_tensor_shape(node.output[0])
        if node.name in shapes and len(shape) == 4:
            n, c, h, w = shapes[node.name]
            assert shape == [n, h, w, c]


@pytest.mark.parametrize("name", NETS)
def test_the_layers_keep_their_names(name: str) -> None:
    before, after = graph(name), to_channels_last(graph(name))
    kinds = {"Gemm": "MatMul"}
    wanted = {node.name: kinds.get(node.op_type, node.op_type) for node in compute_nodes(before)}
    biases = {f"{node.name}_bias": "Add" for node in compute_nodes(before) if node.op_type == "Gemm"}
    assert {node.name: node.op_type for node in compute_nodes(after)} == {**wanted, **biases}


def test_the_weights_stay_with_their_layers_where_branches_change_the_order() -> None:
    model = quantized.build("residual")
    changed = to_channels_last(graph("residual"))
    for node in compute_nodes(changed):
        if node.op_type == "Conv":
            weight = changed.get_initializer(changed.find_producer(node.input[1]).input[0])
            mine = model.get_submodule(node.name).weight.detach().numpy()
            assert np.array_equal(weight, mine.transpose(0, 2, 3, 1))


def test_the_graph_stays_as_it_is() -> None:
    before = graph("cnn")
    text = before.model.SerializeToString()
    to_channels_last(before)
    assert before.model.SerializeToString() == text


WRONG = "convert: the channels-last graph must equal the exported one on random inputs, not differ; report the network"


@pytest.mark.parametrize(
    "permute",
    [lambda w: w, lambda w: w.transpose(0, 3, 2, 1), lambda w: w.transpose(0, 2, 1, 3), lambda w: -w],
    ids=["not at all", "H and W swapped", "W and C swapped", "negated"],
)
def test_a_wrong_permutation_of_equal_extents_is_caught(
    permute: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = qonnx_graph._permute_weights

    def wrong(model: Any, node: Any, given: Any) -> None:
        right(model, node, permute if node.op_type == "Conv" else given)

    monkeypatch.setattr(qonnx_graph, "_permute_weights", wrong)
    with pytest.raises(MismatchError) as error:
        to_channels_last(graph("equal_layers"))
    assert str(error.value) == WRONG


@pytest.mark.parametrize("name", ["equal_layers", "cnn", "flat_image"])
def test_a_dense_layer_that_is_left_in_the_old_order_is_caught(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(qonnx_graph, "_permute_dense", lambda model, node: None)
    with pytest.raises(MismatchError) as error:
        to_channels_last(graph(name))
    assert str(error.value) == WRONG


def test_a_wrong_pass_is_caught_where_samples_are_far_from_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    pixels = data((2, 4, 4), 3, scale=2.0**20)
    model = nn.Sequential(nn.Flatten(), nn.Linear(32, 3))
    made = quantize(model, torch.from_numpy(pixels.train[0][:2]), out=tmp_path, data=pixels, epochs=0)
    assert np.array_equal(
        execute(to_channels_last(load(made.onnx_path)), channels_last(pixels.test[0])),
        execute(load(made.onnx_path), pixels.test[0]),
    )
    monkeypatch.setattr(qonnx_graph, "_permute_dense", lambda model, node: None)
    with pytest.raises(MismatchError):
        to_channels_last(load(made.onnx_path))


def exported(model: nn.Module, shape: tuple[int, ...], out: Path) -> Any:
    samples = data(shape, 3, samples=9)
    example = torch.from_numpy(samples.train[0][:2])
    return load(quantize(model, example, out=out, data=samples, epochs=0).onnx_path)


@pytest.mark.parametrize(
    ("forward", "readers"),
    [
        (lambda net, x: net.c(net.two(net.flatten(x))), "Gemm, Gemm"),
        (lambda net, x: net.a(torch.relu(net.flatten(x))), "Relu"),
        (lambda net, x: net.flatten(net.conv(x)), "nothing"),
    ],
    ids=["two readers", "relu", "the end"],
)
def test_a_flatten_that_is_not_followed_by_one_dense_layer_is_refused(
    forward: Any, readers: str, tmp_path: Path
) -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(18, 3), nn.Linear(18, 3)

        def forward(self, x: Any) -> Any:
            return self.a(x) + self.b(x)

    layers = {"a": nn.Linear(18, 3), "b": nn.Linear(18, 3), "c": nn.Linear(3, 3), "two": Two()}
    model = Forward(forward, **layers, flatten=nn.Flatten(), conv=nn.Conv2d(2, 3, 3))
    before = exported(model, (2, 3, 3), tmp_path)
    with pytest.raises(UnsupportedError) as error:
        to_channels_last(before)
    assert str(error.value) == (
        f"convert: flatten 'flatten' must be followed by one dense layer, not {readers}; change the network"
    )


def test_a_layer_with_the_name_of_a_bias_is_refused(tmp_path: Path) -> None:
    net = nn.Sequential()
    net.add_module("fc", nn.Linear(4, 4))
    net.add_module("fc_bias", nn.Linear(4, 3))
    with pytest.raises(UnsupportedError) as error:
        to_channels_last(exported(net, (4,), tmp_path))
    assert str(error.value) == (
        "qonnx: layers 'fc.bias' and 'fc_bias' must have different names in C++, not both 'fc_bias'; rename one"
    )


# ---------------------------------------------------------------- executing


@pytest.mark.parametrize("samples", [1, qonnx_graph.BATCH, qonnx_graph.BATCH + 1])
def test_the_number_of_samples_does_not_matter(samples: int) -> None:
    inputs, expected = golden("cnn")
    said: list[tuple[int, int, str]] = []
    got = execute(graph("cnn"), inputs[-samples:], progress=lambda *event: said.append(event))
    assert np.array_equal(got, expected[-samples:])
    assert said[-1] == (samples, samples, "executing QONNX")
    assert len(said) == -(-samples // qonnx_graph.BATCH)


def test_the_context_holds_every_tensor_that_depends_on_the_input() -> None:
    model = graph("residual")
    inputs, expected = golden("residual")
    context = execute(model, inputs[:70], context=True)
    assert list(context) == activations(model)
    assert all(len(values) == 70 for values in context.values())
    assert np.array_equal(context["global_in"], inputs[:70])
    assert np.array_equal(context["global_out"], expected[:70])
    adds = [node for node in compute_nodes(model) if node.op_type == "Add"]
    for node in adds:
        assert np.array_equal(context[node.output[0]], context[node.input[0]] + context[node.input[1]])


def test_executing_leaves_the_graph_as_it_is() -> None:
    model = graph("mlp")
    text = model.model.SerializeToString()
    execute(model, golden("mlp")[0][:3])
    assert model.model.SerializeToString() == text


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    execute(to_channels_last(graph("cnn")), channels_last(golden("cnn")[0][:2]))
    assert capfd.readouterr() == ("", "")


# ---------------------------------------------------------------- files


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    with pytest.raises(ConfigError) as error:
        load(path)
    assert str(error.value) == (
        f"qonnx: {str(path)!r} must be an existing file, not missing; run the stage quantize"
    )


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"")
    with pytest.raises(ConfigError) as error:
        load(path)
    assert str(error.value) == f"qonnx: {str(path)!r} must hold a network, not be empty; export it anew"


def test_half_a_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    whole = quantized.quantized("mlp").onnx_path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ConfigError) as error:
        load(path)
    text = str(error.value)
    assert text.startswith(f"qonnx: {str(path)!r} must be an ONNX file, not broken: ")
    assert text.endswith("; export it anew")


def test_a_file_whose_nodes_are_not_the_layers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError) as error:
        qonnx_graph.clean(
            *(quantized.quantized("mlp").onnx_path, tmp_path / "model.onnx"),
            [("QuantLinear", "a"), ("QuantReLU", "b"), ("QuantIdentity", "c"), ("QuantConv2d", "d")],
        )
    assert str(error.value) == (
        "qonnx: graph must hold the nodes Gemm, Relu, Conv, not Gemm, Relu, Gemm, Gemm; report the network"
    )
