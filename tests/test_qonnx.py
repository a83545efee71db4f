"""QONNX graphs: executing, cleaning, as plain Python."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_files
import pytest
import quantized
from qonnx_files import Net
from quantized import golden, graph

from flow import qonnx
from flow.errors import ConfigError, UnsupportedError
from flow.fixed.from_qonnx import lower_with_shapes
from flow.qonnx import FileNode, activations, apply, compute_nodes, execute, execution, load, plain

# ---------------------------------------------------------------- as plain Python


def test_a_file_becomes_plain_python() -> None:
    model = graph("cnn")
    file = plain(model)
    assert [(n.name, n.op_type, n.inputs, n.outputs) for n in file.nodes] == [
        (n.name, n.op_type, tuple(n.input), tuple(n.output)) for n in model.graph.node
    ]
    conv = next(n for n in file.nodes if n.name == "conv_2")
    assert (conv.domain, conv.attributes["kernel_shape"], conv.attributes["pads"]) == (
        "",
        [3, 2],
        [0, 0, 0, 0],
    )
    assert (file.inputs, file.outputs) == (("global_in",), ("global_out",))
    assert file.shapes["global_in"] == tuple(model.get_tensor_shape("global_in"))
    for entry in model.graph.initializer:
        assert np.array_equal(file.constants[entry.name], model.get_initializer(entry.name))


def test_open_extents_are_none(tmp_path: Path) -> None:
    made = onnx_files.model([onnx_files.node("Relu", "x")], ("batch", 3, None))
    file = plain(load(onnx_files.save(made, tmp_path)))
    assert file.shapes["x"] == (None, 3, None)


def test_one_operator_is_executed_by_onnxruntime() -> None:
    node = FileNode("s", "Sigmoid", "", ("x",), ("y",), {})
    x = np.linspace(-4, 4, 33, dtype=np.float32)
    assert np.allclose(apply(node, 13, x), 1 / (1 + np.exp(-x.astype(np.float64))), atol=1e-6)


def test_an_operator_that_onnxruntime_does_not_know_is_refused() -> None:
    node = FileNode("s", "HardSwish", "", ("x",), ("y",), {})
    with pytest.raises(UnsupportedError) as error:
        apply(node, 13, np.zeros(3, np.float32))
    text = str(error.value)
    assert text.startswith(
        "qonnx: node 's' (HardSwish) must be executed by onnxruntime with opset 13, not fail with "
    )
    assert text.endswith("; export it anew")


# ---------------------------------------------------------------- files of others


def test_files_of_others_keep_their_tensors_names_and_get_shapes(tmp_path: Path) -> None:
    net = Net(domain="onnx.brevitas")
    y = net.relu(net.dense(net.input((4,), name="x"), 3, name="a/fc"), name="A_FC")
    net.unary(y, "Sin")
    proto = net.proto(net.quant(y))
    del proto.graph.value_info[:]
    raw = onnx_files.save(proto, tmp_path, "raw.onnx")
    qonnx.clean_named(raw, tmp_path / "model.onnx")
    model = load(tmp_path / "model.onnx")
    kinds = {node.name: node.op_type for node in model.graph.node}
    assert {"a_fc": "Gemm", "A_FC_1": "Relu"}.items() <= kinds.items()
    assert "Sin" not in kinds.values()
    assert model.get_tensor_shape(y) == [1, 3]
    assert execute(model, np.ones((2, 4), np.float32)).shape == (2, 3)


def test_given_shapes_are_taken_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from qonnx.transformation.infer_shapes import InferShapes

    def never(self: Any, model: Any) -> None:
        raise AssertionError("qonnx's own inference takes minutes for large images")

    monkeypatch.setattr(InferShapes, "apply", never)
    net = Net()
    proto = net.proto(net.quant(net.conv(net.input((4, 6, 5)), 3)))
    del proto.graph.value_info[:]
    raw = onnx_files.save(proto, tmp_path, "raw.onnx")
    _, shapes = lower_with_shapes(load(raw))
    qonnx.clean_named(raw, tmp_path / "model.onnx", shapes)
    assert load(tmp_path / "model.onnx").get_tensor_shape("conv_0_out") == [1, 3, 4, 3]


# ---------------------------------------------------------------- executing


@pytest.mark.parametrize("samples", [1, execution.BATCH, execution.BATCH + 1])
def test_the_number_of_samples_does_not_matter(samples: int) -> None:
    inputs, expected = golden("cnn")
    said: list[tuple[int, int, str]] = []
    got = execute(graph("cnn"), inputs[-samples:], progress=lambda *event: said.append(event))
    assert np.array_equal(got, expected[-samples:])
    assert said[-1] == (samples, samples, "executing QONNX")
    assert len(said) == -(-samples // execution.BATCH)


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
    execute(graph("cnn"), golden("cnn")[0][:2])
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
        qonnx.clean(
            *(quantized.quantized("mlp").onnx_path, tmp_path / "model.onnx"),
            [("QuantLinear", "a"), ("QuantReLU", "b"), ("QuantIdentity", "c"), ("QuantConv2d", "d")],
        )
    assert str(error.value) == (
        "qonnx: graph must hold the nodes Gemm, Relu, Conv, not Gemm, Relu, Gemm, Gemm; report the network"
    )
