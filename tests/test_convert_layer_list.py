"""The layer list: what hls4ml is given, what it makes of it, and that the C++ computes the graph's integers."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from conftest import needs
from fixed_graphs import Builder, execute, write

from flow.convert import check_weights
from flow.convert.layer_list import layer_list, unique_names
from flow.emulate.csim import Csim
from flow.errors import MismatchError, UnsupportedError
from flow.estimate.io_types import IO_TYPES
from flow.fixed.graph import Conv, FixedGraph, Reshape, Tensor
from flow.types import FixedPoint

X = Tensor("x", (6, 5, 2), FixedPoint(True, 1, 7))
L = Tensor("l", (9, 3), FixedPoint(False, 3, 2))
V = Tensor("v", (5,), FixedPoint(True, 2, 4))


def everything() -> FixedGraph:
    """Three inputs, convs of all shapes with strides and padding, forks, flattens; each result an output."""
    made = Builder(X, L, V)
    made.conv("weight", "x", 3, (3, 2), pads=((1, 1), (0, 1)))
    made.conv("Weight", "weight", 2, (1, 1), strides=(2, 2))
    made.conv("flat kernel", "weight", 2, (1, 3), pads=((0, 0), (1, 0)))
    made.conv("tall", "weight", 1, (3, 1), strides=(2, 1))
    made.conv("few", "x", 1, (2, 2), strides=(3, 2), weights=FixedPoint(False, 1, 0))
    made.conv("padded point", "x", 2, (1, 1), pads=((1, 0), (0, 2)))
    made.dense("trace", made.reshape("flat", "Weight"), 4)
    made.dense("twice", made.reshape("flat2", "tall"), 3)
    made.dense("again", "flat2", 2)
    made.conv("one", "l", 4, (4,), strides=(2,), pads=((2, 3),))
    made.conv("one point", "one", 2, (1,), strides=(3,))
    made.reshape("image", "l", (3, 3, 3))
    made.conv("of the image", "image", 2, (2, 2), weights=FixedPoint(True, 2, 0))
    made.dense("index", "v", 3, weights=FixedPoint(True, 1, 11))
    return made.graph(*(node.name for node in made.nodes if not isinstance(node, Reshape)))


@needs("g++")
@pytest.mark.parametrize("io_type", IO_TYPES)
def test_the_cpp_computes_the_integers_of_the_graph(io_type: str, tmp_path: Path) -> None:
    graph = everything()
    strategy = {"Strategy": "Latency"} if io_type == "io_parallel" else {}
    design, written = write(graph, tmp_path / "project", io_type, strategy)
    check_weights(design.path / "firmware" / "weights", written.weights)
    rng = np.random.default_rng(1)
    frames = 200
    inputs = [
        rng.integers(t.dtype.minimum_lsb, t.dtype.maximum_lsb, (frames, *t.shape), endpoint=True)
        for t in graph.inputs
    ]
    for rows, tensor in zip(inputs, graph.inputs, strict=True):
        rows[0], rows[1] = tensor.dtype.minimum_lsb, tensor.dtype.maximum_lsb
        rows[2:20] = rng.choice([tensor.dtype.minimum_lsb, tensor.dtype.maximum_lsb], rows[2:20].shape)
    wanted = execute(graph, inputs)
    csim = Csim(design, tmp_path / "build", header="vendor", cache=tmp_path / "cache")
    csim.build()
    rows = np.concatenate([rows.reshape(frames, -1) for rows in inputs], axis=1)
    found = csim.trace(rows)
    for layer in written.layers:
        steps = np.ldexp(found[layer.hls_name], layer.dtype.fraction_bits)
        assert np.array_equal(steps, wanted[layer.tensor].reshape(frames, -1)), layer
    expected = [wanted[name].reshape(frames, -1) for name in graph.outputs]
    assert np.array_equal(csim.run(rows), np.concatenate(expected, axis=1))


@pytest.mark.parametrize("io_type", IO_TYPES)
def test_each_layer_has_its_type_and_its_place(io_type: str, tmp_path: Path) -> None:
    graph = everything()
    _, written = write(graph, tmp_path, io_type)
    nodes = [node for node in graph.nodes if not isinstance(node, Reshape)]
    assert [layer.name for layer in written.layers] == [node.name for node in nodes]
    assert [layer.dtype for layer in written.layers] == [node.output.dtype for node in nodes]
    assert [layer.tensor for layer in written.layers] == [node.output.name for node in nodes]
    assert len({layer.hls_name.lower() for layer in written.layers}) == len(nodes)
    assert [kind for kind, _ in written.inputs] == ["input_t", "input2_t", "input3_t"]


def test_names_that_differ_in_case_or_punctuation_stay_apart() -> None:
    made = Builder(V)
    for name in ("a.b", "A-b", "a_b", "input"):
        made.dense(name, "v", 2)
    names = unique_names(made.graph(*(node.name for node in made.nodes)))
    assert names == {
        "v": "Input_v",
        "a.b": "Dense_a_b",
        "A-b": "Dense_A_b_2",
        "a_b": "Dense_a_b_3",
        "input": "Dense_input",
    }


def test_types_are_exact_and_no_wider_than_they_must_be() -> None:
    """4 weights of -8 to 7 eighths, inputs of -32 to 31 sixteenths, biases of 2^-13."""
    made = Builder(Tensor("x", (4,), FixedPoint(True, 2, 4)))
    made.dense("fc", "x", 1)
    graph = made.graph("fc")
    node = dataclasses.replace(
        made.nodes[0],
        weight=np.array([[-3, 2, 0, 1]]),
        bias=np.array([5]),
        bias_dtype=FixedPoint(True, 8, 8),
    )
    (_, dense) = layer_list(dataclasses.replace(graph, nodes=(node,)), "io_parallel")
    # sums from -32*6 to 32*6 in steps of 2^-7, and 5 in steps of 2^-8
    assert dense.types["accum"] == FixedPoint(True, 2, 8)
    assert dense.types["weight"] == FixedPoint(True, 0, 3)
    assert dense.types["bias"] == FixedPoint(False, -5, 8)
    assert np.array_equal(dense.attributes["weight_data"], [[-0.375], [0.25], [0.0], [0.125]])
    assert np.array_equal(dense.attributes["bias_data"], [5 / 256])


def test_padding_is_a_layer_of_its_own_where_values_are_streamed() -> None:
    made = Builder(X)
    made.conv("c", "x", 3, (3, 3), pads=((1, 2), (0, 1)))
    graph = made.graph("c")
    assert [layer.class_name for layer in layer_list(graph, "io_parallel")] == ["Input", "Conv2D"]
    _, pad, conv = layer_list(graph, "io_stream")
    assert (pad.class_name, pad.tensor.shape, pad.types["result"]) == ("ZeroPadding2D", (9, 6, 2), X.dtype)
    given = {key: pad.attributes[f"pad_{key}"] for key in ("top", "bottom", "left", "right")}
    assert given == {"top": 1, "bottom": 2, "left": 0, "right": 1}
    assert (conv.inputs, conv.attributes["in_height"], conv.attributes["pad_top"]) == ((pad.name,), 9, 0)


def test_a_flatten_costs_nothing_on_its_way_into_one_dense_layer() -> None:
    made = Builder(X)
    made.conv("c", "x", 3, (3, 3))
    made.dense("fc", made.reshape("flat", "c"), 2)
    kinds = {layer.class_name for layer in layer_list(made.graph("fc"), "io_stream")}
    assert "Reshape" in kinds
    for outputs in (("fc", "c"), ("fc", "flat")):
        kinds = {layer.class_name for layer in layer_list(made.graph(*outputs), "io_stream")}
        assert "Repack" in kinds
    assert "Repack" not in {layer.class_name for layer in layer_list(made.graph("fc", "flat"), "io_parallel")}


@pytest.mark.parametrize("io_type", IO_TYPES)
def test_a_graph_that_has_no_cpp_is_refused(io_type: str) -> None:
    made = Builder(X, V)
    made.dense("fc", made.reshape("flat", "x"), 2)
    alone = "must be computed by a layer of its own, not be an input or another output; leave it out of the network"
    for outputs, message in (
        (("fc",), "convert: tensor 'v' must be read by a layer, not by none; leave it out of the network"),
        (("v",), f"convert: output 0 ('v') {alone}"),
        (("fc", "fc"), f"convert: output 1 ('fc') {alone}"),
    ):
        with pytest.raises(UnsupportedError) as error:
            layer_list(made.graph(*outputs), io_type)
        assert str(error.value) == message


def test_an_output_in_two_shapes_is_refused_where_both_are_one_array() -> None:
    made = Builder(X)
    made.conv("c", "x", 3, (3, 3))
    graph = made.graph("c", made.reshape("flat", "c"))
    assert len(layer_list(made.graph("flat"), "io_parallel")) == len(layer_list(graph, "io_stream")) == 3
    with pytest.raises(UnsupportedError) as error:
        layer_list(made.graph("c", "flat"), "io_parallel")
    assert str(error.value) == (
        "convert: output 'flat' must not be 'c' under another shape in io_parallel; leave it out, "
        'or choose io_type = "io_stream"'
    )


def test_more_copies_than_hls4ml_makes_are_refused_where_values_are_streamed() -> None:
    made = Builder(V)
    outputs = [made.dense(f"fc{number}", "v", 1) for number in range(8)]
    assert len(layer_list(made.graph(*outputs), "io_parallel")) == 9
    with pytest.raises(UnsupportedError) as error:
        layer_list(made.graph(*outputs), "io_stream")
    assert str(error.value) == (
        "convert: tensor 'v' must be read by at most 7 layers in io_stream, not 8; choose io_type = \"io_parallel\""
    )


def test_a_reshape_that_streams_cannot_repack_is_refused() -> None:
    made = Builder(L)
    made.conv("c", made.reshape("image", "l", (3, 9)), 2, (2,))
    assert layer_list(made.graph("c"), "io_stream")[1].class_name == "Repack"
    odd = Builder(Tensor("x", (4, 3), V.dtype))
    odd.conv("c", odd.reshape("image", "x", (6, 2)), 2, (2,))
    with pytest.raises(UnsupportedError) as error:
        layer_list(odd.graph("c"), "io_stream")
    assert str(error.value) == (
        "convert: layer 'image' (Reshape, 3 to 2 channels) must divide one by the other in io_stream; "
        'choose io_type = "io_parallel"'
    )
    assert len(layer_list(odd.graph("c"), "io_parallel")) == 3


def test_what_hls4ml_changes_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hls4ml.model import ModelGraph

    from_layer_list = ModelGraph.from_layer_list
    made = Builder(V)
    made.dense("a", "v", 3)
    made.dense("b", "a", 2)
    graph = made.graph("b")

    def altered(change):  # type: ignore[no-untyped-def]
        def build(*args, **kwargs):  # type: ignore[no-untyped-def]
            model = from_layer_list(*args, **kwargs)
            change(model.graph)
            return model

        return build

    def widen(layers) -> None:  # type: ignore[no-untyped-def]
        layers["Dense_a"].get_output_variable().type.precision.width += 1

    def narrow(layers) -> None:  # type: ignore[no-untyped-def]
        layers["Dense_b"].get_attr("accum_t").precision.width -= 1

    def drop(layers) -> None:  # type: ignore[no-untyped-def]
        del layers["Dense_a"]

    def add(layers) -> None:  # type: ignore[no-untyped-def]
        layers["more"] = layers["Dense_a"]

    def cut(layers) -> None:  # type: ignore[no-untyped-def]
        layers["Dense_b"].get_output_variable().shape = [1]

    for change, text in (
        (
            widen,
            r"^convert: hls4ml must keep the type of layer 'Dense_a', .*, not make it .*; report the network$",
        ),
        (narrow, r"^convert: hls4ml must keep the accum of layer 'Dense_b', "),
        (drop, r"^convert: hls4ml must keep the kind of layer 'Dense_a', Dense, not make it None; report"),
        (cut, r"^convert: hls4ml must keep the shape of layer 'Dense_b', \(2,\), not make it \(1,\); "),
        (add, r"^convert: hls4ml must add nothing but copies of streams, not 'more' \(Dense\); report"),
    ):
        monkeypatch.setattr(ModelGraph, "from_layer_list", altered(change))
        with pytest.raises(MismatchError, match=text):
            write(graph, tmp_path, "io_parallel")


def test_convs_that_hls4ml_computes_wrongly_are_not_given_to_it() -> None:
    from flow.convert.layer_list import hls4ml_has

    made = Builder(X, L)
    made.conv("flat", "x", 2, (1, 3), strides=(2, 1))
    made.conv("point", "l", 2, (1,), strides=(9,))
    made.conv("plain", "x", 2, (3, 3))
    flat, point, plain = (node for node in made.nodes if isinstance(node, Conv))
    assert [hls4ml_has(node, "io_stream") for node in (flat, point, plain)] == [False, True, True]
    assert [hls4ml_has(node, "io_parallel") for node in (flat, point, plain)] == [True, False, True]
    for change in ({"groups": 2}, {"dilations": (2, 1)}):
        assert not hls4ml_has(dataclasses.replace(plain, **change), "io_stream")
