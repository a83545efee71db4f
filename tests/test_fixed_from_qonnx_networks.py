"""QONNX as integers: what folds into what, layouts, inputs and outputs of every kind."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lowered import both, check, integers
from onnx import numpy_helper
from onnx_files import save
from qonnx_files import DOMAINS, Net

from flow.fixed.execute import execute
from flow.fixed.from_qonnx import lower
from flow.fixed.graph import Conv, Dense, FixedGraph, Rescale
from flow.qonnx import load
from flow.types import FixedPoint

Build = Callable[[Net], str]


def made(build: Build, **options: Any) -> FixedGraph:
    """Return a network as integers, compared with QONNX in every number."""
    net = Net(**options)
    graph, differing = check(net.model(build(net)))
    assert differing == 0
    return graph


def kinds(graph: FixedGraph) -> list[str]:
    return [type(node).__name__ for node in graph.nodes]


def dense(net: Net, **options: object) -> str:
    return net.dense(net.input((6,)), 5, **options)


def image(net: Net, outputs: int = 3, **options: object) -> str:
    return net.conv(net.input((4, 6, 5)), outputs, **options)


FOLDED: dict[str, tuple[Build, list[str]]] = {
    "no quantizer at the end": (dense, ["Dense"]),
    "a bias finer than the sums": (
        lambda net: net.quant(dense(net, bias_power=-13)), ["Dense", "Rescale"]),
    "a bias finer than the sums, at the end": (lambda net: dense(net, bias_power=-13), ["Dense", "Rescale"]),
    "the same behind a ReLU": (lambda net: net.relu(dense(net, bias_power=-13)), ["Dense", "Rescale"]),
    "no bias": (lambda net: net.quant(dense(net, bias=False)), ["Dense", "Rescale"]),
    "raw weights on a grid": (lambda net: net.quant(dense(net, raw=True)), ["Dense", "Rescale"]),
    "a ReLU at the end": (lambda net: net.relu(dense(net)), ["Dense", "Relu"]),
    "a Clip at the end": (lambda net: net.clip(dense(net), -0.25, 0.5), ["Dense", "Rescale"]),
    "a factor at the end": (lambda net: net.by("Mul", dense(net), -0.25), ["Dense", "Rescale"]),
    "one ReLU, two quantizers": (
        lambda net: (lambda y: net.join("Add", net.quant(y, bits=5, signed=False), net.quant(y, bits=4, power=-2)))(
            net.relu(image(net))),
        ["Conv", "Rescale", "Rescale", "Add"]),
    "a ReLU between a conv and a pool": (
        lambda net: net.quant(net.pool(net.relu(image(net)))), ["Conv", "Relu", "Pool", "Rescale"]),
    "a constant added to a conv": (
        lambda net: net.quant(net.by("Add", image(net, bias=False), np.array([0.25, 0.5, -1]).reshape(3, 1, 1))),
        ["Conv", "Rescale"]),
    "a constant taken from a ReLU": (
        lambda net: net.quant(net.by("Sub", net.relu(image(net)), 0.5)), ["Conv", "Rescale"]),
    "a factor a channel behind a ReLU": (
        lambda net: net.quant(net.by("Mul", net.relu(image(net)), np.array([0.25, 0.5, 1]).reshape(3, 1, 1))),
        ["Conv", "Rescale"]),
    "BatchNorm behind a ReLU": (lambda net: net.quant(net.batchnorm(net.relu(image(net)))), ["Conv", "Relu",
        "Rescale"]),
    "BatchNorm of a flattened image": (
        lambda net: net.quant(net.relu(net.batchnorm(net.flatten(net.input((3, 2, 2)))))), ["Reshape", "Rescale"]),
    "bipolar activations": (
        lambda net: net.quant(net.dense(net.quant(dense(net), kind="BipolarQuant", power=0), 3, weight_bits=1)),
        ["Dense", "Sign", "Dense", "Rescale"]),
    "a bipolar quantizer behind a ReLU": (
        lambda net: net.quant(net.relu(dense(net)), kind="BipolarQuant", power=0), ["Dense", "Sign"]),
    "a bipolar quantizer behind a BatchNorm": (
        lambda net: net.quant(net.batchnorm(image(net)), kind="BipolarQuant", power=0), ["Conv", "Sign"]),
    "a signed quantizer of one bit": (lambda net: net.quant(dense(net, bias_power=-13), bits=1), ["Dense", "Sign"]),
    "a bipolar input": (lambda net: net.quant(net.dense(net.input((6,), bits=1), 4)), ["Sign", "Dense", "Rescale"]),
    "an input of 0 and 1": (
        lambda net: net.quant(net.dense(net.input((6,), bits=1, signed=False), 4)), ["Dense", "Rescale"]),
    "a narrow input": (
        lambda net: net.quant(net.dense(net.input((6,), bits=4, narrow=True), 4)), ["Rescale", "Dense", "Rescale"]),
    "a narrow unsigned quantizer": (
        lambda net: net.quant(net.relu(dense(net)), narrow=True, signed=False, bits=4), ["Dense", "Rescale"]),
    "an input without a quantizer": (
        lambda net: net.quant(net.dense(net.input((6,), quantized=False), 4)), ["Dense", "Rescale"]),
    "activations with a scale a channel": (
        lambda net: net.quant(net.conv(net.quant(image(net), per_channel=True, bits=6), 2, kernel=1)),
        ["Conv", "Rescale", "Rescale", "Conv", "Rescale"]),
    "a quantizer that changes nothing": (
        lambda net: net.quant(net.pool(net.quant(image(net), power=-4)), power=-4), ["Conv", "Rescale", "Pool"]),
    "an average, a factor and a Trunc": (
        lambda net: net.trunc(
            net.by("Mul", net.pool(net.input((4, 6, 6)), "AveragePool", kernel=3, strides=1), 9.0),
            power=-6, bits_in=12, bits_out=8),
        ["Pool", "Rescale"]),
    "an average whose ties no multiplier meets": (
        lambda net: net.quant(net.pool(net.input((4, 6, 6)), "AveragePool", kernel=3, strides=1)),
        ["Pool", "Rescale", "Rescale", "Add", "Rescale"]),
    "flattened at the end": (lambda net: net.flatten(net.quant(image(net))), ["Conv", "Rescale", "Reshape"]),
    "a Sigmoid at the end": (lambda net: net.unary(net.quant(dense(net)), "Sigmoid"), ["Dense", "Rescale", "Table"]),
    "channels last": (
        lambda net: net.quant(net.unary(net.conv(net.resize(net.pool(net.quant(net.relu(net.conv(
            net.input((6, 7, 4)), 5, last=True, pads=1)), bits=5, signed=False), last=True), last=True), 8, last=True),
            "LeakyRelu", alpha=0.125)),
        ["Conv", "Rescale", "Pool", "Upsample", "Conv", "Rescale", "PRelu", "Rescale"]),
    "channels last, joined": (
        lambda net: (lambda x: net.quant(net.conv(net.join(
            "Concat", x, net.quant(net.conv(x, 4, last=True, pads=1), power=-3), axis=3), 3, last=True, kernel=1)))(
            net.quant(net.conv(net.input((5, 6, 4)), 4, last=True, groups=4, raw=True), last=True, per_channel=True)),
        ["Conv", "Rescale", "Rescale", "Conv", "Rescale", "Concat", "Conv", "Rescale"]),
    "weights with a factor behind their quantizer": (
        lambda net: (lambda w: net.quant(net.node("Gemm", [net.input((6,)), w], (5,), transB=1)))(
            net.fixed("Mul", [net.weights((5, 6)), net.constant(0.25)], (5, 6))),
        ["Dense", "Rescale"]),
    "weights transposed behind their quantizer": (
        lambda net: (lambda w: net.quant(net.node("MatMul", [net.input((6,)), w], (5,))))(
            net.fixed("Transpose", [net.weights((5, 6), per_channel=True)], (6, 5), perm=[1, 0])),
        ["Dense", "Rescale"]),
    "a Gemm with factors": (
        lambda net: net.quant(net.node("Gemm", [net.input((6,)), net.weights((6, 5), axis=1), net.constant(
            np.arange(5) / 8)], (5,), alpha=0.5, beta=2.0)),
        ["Dense", "Rescale"]),
    "a constant in front": (
        lambda net: net.quant(net.node("Sub", [net.constant(1.0), net.node("Cast", [dense(net)], (5,), to=1)], (5,))),
        ["Dense", "Rescale"]),
    "a bias in front": (
        lambda net: net.quant(net.node("Add", [net.constant(np.arange(5) / 8), dense(net, bias=False)], (5,))),
        ["Dense", "Rescale"]),
    "one over x": (
        lambda net: net.quant(net.node("Div", [
            net.constant(1.0), net.by("Add", net.relu(net.input((6,))), 1.0)], (6,))),
        ["Table"]),
    "Mish in parts": (
        lambda net: (lambda x: net.quant(net.join("Mul", x, net.unary(net.unary(x, "Softplus"), "Tanh"))))(
            net.input((6,))),
        ["Table"]),
    "automatic padding": (
        lambda net: net.quant(net.node("Conv", [
            net.node("Conv", [net.input((4, 7, 5)), net.weights((3, 4, 3, 3), bits=3)], (3, 4, 3),
                     auto_pad="SAME_UPPER", strides=[2, 2]),
            net.weights((2, 3, 2, 2), bits=3)], (2, 4, 3), auto_pad="SAME_LOWER")),
        ["Conv", "Conv", "Rescale"]),
    "a sequence as an image": (
        lambda net: net.quant(net.conv(net.node("Unsqueeze", [net.input((4, 6)), net.constant([3], np.int64)], (
            4, 6, 1)), 3, kernel=1)),
        ["Reshape", "Conv", "Rescale"]),
    "a dense layer at every position, flattened": (
        lambda net: net.quant(net.dense(net.flatten(net.quant(net.dense(net.input((5, 4)), 3, kind="MatMul"))), 2)),
        ["Conv", "Rescale", "Reshape", "Dense", "Rescale"]),
    "the mean of a sequence": (
        lambda net: net.dense(net.quant(net.node("ReduceMean", [
            net.dense(net.input((4, 4)), 3, kind="MatMul")], (3,), axes=[1], keepdims=0)), 2, bias=False),
        ["Conv", "Pool", "Rescale", "Reshape", "Dense"]),
    "transposed at the end": (
        lambda net: net.transpose(net.quant(image(net)), (0, 2, 3, 1)), ["Conv", "Rescale", "Reshape"]),
    "channels last from Keras": (
        lambda net: net.quant(net.conv(net.transpose(net.input((6, 5, 4)), (0, 3, 1, 2)), 3)), ["Conv", "Rescale"]),
}  # fmt: skip


@pytest.mark.parametrize("name", FOLDED)
def test_what_belongs_to_a_quantizer_or_a_layer_becomes_one_node(name: str) -> None:
    build, wanted = FOLDED[name]
    graph = made(build) if "Sigmoid" not in name else check((net := Net()).model(build(net)))[0]
    assert kinds(graph) == wanted


@pytest.mark.parametrize("rounding", ["ROUND", "FLOOR", "CEIL", "DOWN", "HALF_UP", "HALF_DOWN"])
@pytest.mark.parametrize("free", [False, True])
def test_every_rounding(rounding: str, free: bool) -> None:
    net = Net()
    graph, differing = check(net.model(net.quant(dense(net), bits=5, power=-3, rounding=rounding, free=free)))
    assert differing == 0
    assert graph.nodes[-1].rounding == {"DOWN": "ROUND_TO_ZERO"}.get(rounding, rounding)  # type: ignore[attr-defined]


def test_old_operator_sets() -> None:
    graph = made(lambda net: net.quant(net.node("Clip", [dense(net)], (5,), min=0.0, max=1.0)), opset=9)
    assert kinds(graph) == ["Dense", "Rescale"]
    options = {"mode": "nearest"}
    scales = [1, 1, 2, 3]
    for opset, kind in ((9, "Upsample"), (10, "Resize")):
        graph = made(
            lambda net, kind=kind: net.quant(
                net.node(kind, [net.input((4, 3, 3)), net.constant(scales)], (4, 6, 9), **options)
            ),
            opset=opset,
        )
        assert kinds(graph) == ["Upsample", "Rescale"]


@pytest.mark.parametrize("rounding", ["ROUND", "FLOOR"])
def test_the_second_version_of_trunc_has_an_output_scale_and_clips(rounding: str) -> None:
    net = Net()
    inputs = [dense(net, bias=False), *map(net.constant, (2.0**-10, 0.0, 16.0, 2.0**-6, 5.0))]
    options = {"domain": net.domain, "rounding_mode": rounding, "signed": 1, "narrow": 0}
    model = net.model(net.node("Trunc", inputs, (5,), **options))
    next(entry for entry in model.model.opset_import if entry.domain == net.domain).version = 2
    graph, differing = check(model)
    assert differing == 0
    assert str(graph.tensors[graph.outputs[0]].dtype) == "fixed<5,-1>"


def test_the_index_of_a_topk_of_one_is_an_argmax(tmp_path: Path) -> None:
    net = Net()
    y = dense(net)
    index = net.node("ArgMax", [y], (1,), axis=1)
    proto = net.proto(index)
    last = proto.graph.node[-1]
    last.op_type = "TopK"
    last.input.append(net.constant([1], np.int64))
    proto.graph.initializer.append(numpy_helper.from_array(np.array([1]), last.input[1]))
    last.output[:] = ["", index]
    graph = lower(load(save(proto, tmp_path)))
    assert kinds(graph) == ["Dense", "ArgMax"]
    x = integers(graph)
    values = execute(graph, x, every=True)
    assert np.array_equal(values[graph.outputs[0]][:, 0], values["gemm_0"].argmax(1))


@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize("kind", ["Quant", "IntQuant"])
def test_every_domain(domain: str, kind: str) -> None:
    graph = made(lambda net: net.quant(dense(net), kind=kind), domain=domain)
    assert kinds(graph) == ["Dense", "Rescale"]


def test_several_inputs_and_outputs() -> None:
    net = Net()
    a, b = net.input((6,), name="left"), net.input((3, 4, 4), bits=5, signed=False, power=-3, name="right")
    features = net.quant(net.global_pool(net.conv(b, 6)), power=-5)
    x = net.quant(net.dense(a, 6), power=-3)
    both_sides = net.join("Add", x, net.flatten(features))
    graph, differing = check(net.model(net.quant(net.dense(both_sides, 3)), x))
    assert differing == 0
    assert [(t.name, t.shape, str(t.dtype)) for t in graph.inputs] == [
        ("left", (6,), "fixed<8,2>"),
        ("right", (4, 4, 3), "ufixed<5,2>"),
    ]
    assert [graph.tensors[name].shape for name in graph.outputs] == [(3,), (6,)]


def test_one_tensor_can_be_several_outputs() -> None:
    net = Net()
    y = net.quant(image(net))
    graph, differing = check(net.model(y, net.flatten(y)))
    assert differing == 0
    assert [graph.tensors[name].shape for name in graph.outputs] == [(4, 3, 3), (36,)]


def test_what_no_output_needs_is_left_out() -> None:
    net = Net()
    x = dense(net)
    net.unary(x, "Sin")
    assert kinds(lower(net.model(net.quant(x)))) == ["Dense", "Rescale"]


def test_names_are_those_of_the_file() -> None:
    net = Net()
    x = net.input((4, 6, 5), name="picture")
    x = net.quant(net.relu(net.conv(x, 3, name="stem"), name="act"), name="behind")
    x = net.quant(net.dense(net.flatten(x, name="flat"), 5, name="fc"), name="scores")
    graph = lower(net.model(x))
    assert [node.name for node in graph.nodes] == ["stem", "act", "flat", "fc", "scores"]
    assert [tensor.name for tensor in graph.inputs] == ["picture"]


def test_names_that_cpp_does_not_have_are_changed() -> None:
    net = Net()
    x = net.dense(net.input((6,), name="x"), 5, name="block.0/fc")
    x = net.quant(x, name="X")
    graph = lower(net.model(x))
    assert [node.name for node in graph.nodes] == ["block_0_fc", "X_1"]


def test_an_input_without_a_quantizer_takes_the_type_that_is_given() -> None:
    net = Net()
    model = net.model(net.quant(net.dense(net.input((6,), quantized=False, name="x"), 4)))
    assert lower(model).inputs[0].dtype == FixedPoint(True, 6, 10)
    wanted = FixedPoint(False, 1, 4)
    assert lower(model, inputs={"x": wanted}).inputs[0].dtype == wanted


def test_types_are_the_smallest_that_hold_every_result() -> None:
    net = Net()
    source = net.constant([[3.0, -2.0], [1.0, 1.0], [0.0, 0.0]])
    net.shapes[source] = (3, 2)
    x = net.input((2,), bits=3, signed=False, power=0)
    y = net.node(
        "Gemm",
        [x, net.quant(source, bits=4, power=0, narrow=True), net.constant([0.0, 4.0, 0.0])],
        (3,),
        transB=1,
    )
    layer = lower(net.model(y)).nodes[0]
    assert isinstance(layer, Dense)
    assert layer.output.dtype == FixedPoint(True, 6, 0)  # -14 to 21
    assert layer.weight_dtype == FixedPoint(True, 4, 0)
    assert (layer.bias_dtype, layer.bias.tolist()) == (FixedPoint(False, 3, -2), [0, 1, 0])  # type: ignore[union-attr]


def test_padding_counts_as_zeros_in_the_type() -> None:
    net = Net()
    source = net.constant([[[1.0, -1.0]]])
    x = net.relu(net.by("Add", net.input((1, 4), bits=3, signed=False, power=0), 5.0))  # from 5 to 12
    for pads, largest, width in ((0, 7, 4), (1, 12, 5)):
        y = net.node("Conv", [x, source], (1, 3 + 2 * pads), pads=[pads, pads], kernel_shape=[2])
        model = net.model(y)
        graph = lower(model)
        got, _ = both(model, graph, integers(graph))
        assert np.abs(got[graph.outputs[0]]).max() == largest
        assert graph.tensors[graph.outputs[0]].dtype.width == width


def rational(net: Net, model: object, graph: FixedGraph, x: np.ndarray) -> np.ndarray:
    """Compute a dense layer and its quantizer in exact fractions, from the file's own numbers."""
    quants = [node for node in net.nodes if node.op_type == "Quant"]
    constants = {node.output[0]: [net.constants.get(name) for name in node.input] for node in quants}
    gemm = next(node for node in net.nodes if node.op_type == "Gemm")
    fractions = np.vectorize(lambda number: Fraction(float(number)), otypes=[object])
    sides = []
    for name in gemm.input[1:]:
        values, scale, _, _ = constants[name]
        assert values is not None
        integers_ = np.rint(values / scale).astype(int).astype(object)
        sides.append(integers_ * fractions(np.broadcast_to(scale, values.shape)))
    step = fractions(constants[quants[0].output[0]][1])
    sums = (x.astype(object) * step) @ sides[0].T + sides[1]
    out = constants[quants[-1].output[0]]
    return np.array(
        [[max(-64, min(63, round(value / Fraction(float(out[1]))))) for value in row] for row in sums]
    )


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("bias_power", [None, -11])
def test_free_scales_round_the_exact_product(seed: int, bias_power: int | None) -> None:
    net = Net(seed)
    x = net.input((6,), free=True)
    y = net.dense(x, 5, weight_bits=6, per_channel=True, free=True, bias_power=bias_power)
    model = net.model(net.quant(y, bits=7, power=-3, free=True))
    graph = lower(model)
    given = integers(graph, 600)
    assert np.array_equal(execute(graph, given)[graph.outputs[0]], rational(net, model, graph, given[0]))
    rescale = graph.nodes[-1]
    assert isinstance(rescale, Rescale)
    assert len(rescale.multiplier) == 5


def test_a_conv_over_a_group_reads_its_channels_alone() -> None:
    net = Net()
    graph = lower(net.model(net.conv(net.input((4, 5, 5)), 6, groups=2)))
    layer = graph.nodes[0]
    assert isinstance(layer, Conv)
    assert layer.weight.shape == (6, 3, 3, 2)
    x = np.zeros((2, 5, 5, 4), dtype=np.int64)
    x[1, ..., 2:] = 100
    out = execute(graph, [x])[graph.outputs[0]]
    assert np.array_equal(out[0, ..., :3], out[1, ..., :3])
    assert not np.array_equal(out[0, ..., 3:], out[1, ..., 3:])
