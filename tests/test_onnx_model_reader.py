"""Reading ONNX: every operator against onnxruntime, layouts, names, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
import torch
from networks import kinds
from onnx import TensorProto, helper
from onnx_files import EXAMPLES, FLOAT_FILES, JETS, execute, model, needs_examples, node, save, weights
from onnx_operators import CASES, IMAGE, VECTOR, case, f32, i64, one
from torch import fx

import flow
from flow import network
from flow.errors import ConfigError, MismatchError, UnsupportedError
from flow.onnx_model import digest, is_quantized, read


def compared(path: Path, *shape: int, last: bool = False, samples: int = 3) -> fx.GraphModule:
    """Read a file and compare it with onnxruntime; ``last``: the file's input is channels last."""
    graph = read(path)
    x = np.random.default_rng(7).standard_normal((samples, *shape)).astype(np.float32)
    (want,) = execute(path, np.ascontiguousarray(np.moveaxis(x, 1, -1)) if last else x)
    with torch.no_grad():
        got = graph(torch.from_numpy(x.copy())).numpy()
    if last and want.ndim > 2:
        want = np.moveaxis(want, -1, 1)
    assert got.shape == want.shape
    assert np.abs(got - want).max() <= 2e-6 * np.abs(want).max()
    return graph


@pytest.mark.parametrize("name", CASES)
def test_an_operator_gives_onnxruntimes_numbers(name: str, tmp_path: Path) -> None:
    chosen = CASES[name]
    path = save(model(chosen.nodes, chosen.shape, chosen.constants, opset=chosen.opset), tmp_path)
    assert kinds(compared(path, *[extent or 0 for extent in chosen.shape[1:]])) == chosen.kinds


LAST = (None, 5, 7, 3)


def test_channels_last_becomes_channels_first_and_dense_columns_are_permuted(tmp_path: Path) -> None:
    nodes = [
        node("Mul", "x", "scale", to="scaled"),
        node("Transpose", "scaled", to="first", perm=[0, 3, 1, 2]),
        node("Conv", "first", "w", to="conv", pads=[1, 1, 1, 1]),
        node("Transpose", "conv", to="last", perm=[0, 2, 3, 1]),
        node("Add", "last", "shift", to="shifted"),
        node("Relu", "shifted", to="relu"),
        node("Flatten", "relu", to="flat"),
        node("BatchNormalization", "flat", "s", "h", "m", "v", to="norm"),
        node("Add", "norm", "b", to="biased"),
        node("Gemm", "biased", "d"),
    ]
    features = 5 * 7 * 4
    constants = {"scale": weights(3), "w": weights(4, 3, 3, 3), "shift": weights(4), "b": weights(features)}
    constants |= {name: weights(features) for name in "shm"} | {"v": np.abs(weights(features))}
    path = save(model(nodes, LAST, {**constants, "d": weights(features, 3)}), tmp_path)
    graph = compared(path, 3, 5, 7, last=True)
    assert kinds(graph) == [
        *("BatchNorm2d", "Conv2d", "ReLU", "Flatten", "BatchNorm1d", "BatchNorm1d", "Linear")
    ]


def test_a_network_that_stays_channels_last_gives_channels_first(tmp_path: Path) -> None:
    nodes = [
        node("Transpose", "x", to="first", perm=[0, 3, 1, 2]),
        node("Conv", "first", "w", to="conv"),
        node("Transpose", "conv", to="last", perm=[0, 2, 3, 1]),
        node("MatMul", "last", "m", to="one"),
        node("ReduceMean", "one", to="gate", axes=[1, 2]),
        node("Mul", "gate", "one", to="gated"),
        node("Concat", "gated", "last", axis=3),
    ]
    path = save(model(nodes, LAST, {"w": weights(4, 3, 3, 3), "m": weights(4, 4)}), tmp_path)
    assert kinds(compared(path, 3, 5, 7, last=True)) == [
        "Conv2d",
        "Conv2d",
        "AdaptiveAvgPool2d",
        "mul",
        "cat",
    ]


def test_a_concatenation_of_flattened_images_keeps_the_order_of_its_features(tmp_path: Path) -> None:
    nodes = [
        node("Transpose", "x", to="first", perm=[0, 3, 1, 2]),
        node("Relu", "first", to="r"),
        node("Transpose", "r", to="last", perm=[0, 2, 3, 1]),
        node("Reshape", "last", "s", to="a"),
        node("Flatten", "first", to="b"),
        node("Concat", "a", "b", to="c", axis=-1),
        node("MatMul", "c", "w"),
    ]
    path = save(model(nodes, LAST, {"s": i64(-1, 105), "w": weights(210, 4)}), tmp_path)
    assert kinds(compared(path, 3, 5, 7, last=True)) == ["ReLU", "Flatten", "Flatten", "cat", "Linear"]


def test_one_channel_that_a_reshape_moves_is_channels_last(tmp_path: Path) -> None:
    nodes = [node("Reshape", "x", "s", to="first"), node("Conv", "first", "w")]
    path = save(model(nodes, (None, 5, 7, 1), {"s": i64(-1, 1, 5, 7), "w": weights(2, 1, 3, 3)}), tmp_path)
    graph = read(path)
    x = np.random.default_rng(0).standard_normal((2, 1, 5, 7)).astype(np.float32)
    (want,) = execute(path, np.moveaxis(x, 1, -1).copy())
    assert np.allclose(graph(torch.from_numpy(x)).detach().numpy(), want, atol=1e-5)


def test_a_fixed_batch_becomes_free(tmp_path: Path) -> None:
    nodes = [node("Reshape", "x", "s", to="r"), node("MatMul", "r", "w")]
    path = save(model(nodes, (1, 4, 3, 2), {"s": i64(1, -1), "w": weights(24, 5)}), tmp_path)
    assert read(path)(torch.zeros(7, 4, 3, 2)).shape == (7, 5)


def test_several_inputs_and_outputs(tmp_path: Path) -> None:
    nodes = [node("Add", "a", "b", to="s"), node("Relu", "s", to="r"), node("Flatten", "r", to="f")]
    inputs = {"a": IMAGE, "b": IMAGE}
    path = save(model(nodes, (), inputs=inputs, outputs=("f", "s")), tmp_path)
    graph = read(path)
    a, b = (np.random.default_rng(i).standard_normal((2, 4, 7, 6)).astype(np.float32) for i in (1, 2))
    want = execute(path, a, b)
    got = graph(torch.from_numpy(a), torch.from_numpy(b))
    assert [np.array_equal(w, g.numpy()) for w, g in zip(want, got, strict=True)] == [True, True]


def test_open_extents_take_a_given_shape(tmp_path: Path) -> None:
    path = save(model([node("GlobalAveragePool", "x")], (None, 4, "height", "width")), tmp_path)
    assert read(path, shape=(4, 5, 6))(torch.ones(2, 4, 9, 9)).shape == (2, 4, 1, 1)
    with pytest.raises(ConfigError) as error:
        read(path)
    assert str(error.value) == (
        "onnx: input 'x' must have known extents, not (4, 0, 0) for one sample; "
        "give shape=(channels, ..), or export it with fixed extents"
    )


def test_samples_of_another_shape_are_refused(tmp_path: Path) -> None:
    path = save(model([node("Relu", "x")], IMAGE), tmp_path)
    with pytest.raises(ConfigError) as error:
        read(path, shape=(4, 7, 5))
    assert str(error.value) == (
        "onnx: samples must have the shape of the input 'x' of 'model.onnx', (4, 7, 6) channels first, not (4, 7, 5); "
        "check [data] and [model]"
    )


def test_modules_are_named_after_the_nodes(tmp_path: Path) -> None:
    names = [
        "/layer1/layer1.0/act/Relu",
        "/layer1/layer1.0/act/Relu_1",
        "",
        "train",
        "it's {x}\n",
        "RELU",
        "7",
    ]
    nodes = [node("Relu", f"t{i}" if i else "x", to=f"t{i + 1}", name=name) for i, name in enumerate(names)]
    path = save(model(nodes, VECTOR, outputs=(f"t{len(names)}",)), tmp_path)
    graph = read(path)
    found = [str(n.target) for n in graph.graph.nodes if n.op == "call_module"]
    assert found == [
        *("layer1_layer1_0_act", "layer1_layer1_0_act_1", "relu", "train_layer", "it_s_x", "RELU_1", "relu_2")
    ]


def test_a_softmax_at_the_end_is_left_out_for_training(tmp_path: Path) -> None:
    nodes = [node("MatMul", "x", "w", to="m"), node("Softmax", "m")]
    path = save(model(nodes, VECTOR, {"w": weights(6, 3)}), tmp_path)
    assert kinds(read(path)) == ["Linear", "Softmax"]
    assert kinds(read(path, logits=True)) == ["Linear"]
    x = torch.randn(4, 6)
    assert torch.equal(read(path)(x), read(path, logits=True)(x).softmax(1))


def test_the_network_survives_the_files_of_the_flow(tmp_path: Path) -> None:
    chosen = CASES["squeeze and excite"]
    graph = read(save(model(chosen.nodes, chosen.shape, chosen.constants), tmp_path))
    network.save(graph, tmp_path / "saved")
    x = torch.randn(2, 4, 7, 6)
    assert torch.equal(network.load(tmp_path / "saved")(x), graph(x))


def test_what_differs_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from flow.onnx_model import pointwise

    monkeypatch.setattr(pointwise, "_module", lambda step: torch.nn.Softplus())
    path = save(model([node("Neg", "x", to="n"), node("Relu", "n")], VECTOR), tmp_path)
    with pytest.raises(MismatchError, match="must compute what 'model.onnx' does, but tensor 'y' differs by"):
        read(path)


REFUSED = {
    "norm": (
        one("", "LRN", size=3, name="norm"),
        "node 'norm' (LRN) is not supported; supported operators: Conv",
    ),
    "weights of the input": (
        case("", IMAGE, node("Conv", "x", "x")),
        "node 0 (Conv) must read constants as input 1, not a tensor that depends on the input; change",
    ),
    "activation": (
        one("", "HardSigmoid"),
        "node 0 (HardSigmoid) must have alpha 0.166667, not 0.2; change the network",
    ),
    "softmax": (
        one("", "Softmax", axis=2),
        "node 0 (Softmax) must be over the channels, not over other axes; change the network",
    ),
    "pool": (
        one("", "MaxPool", kernel_shape=[2, 2], pads=[1, 1, 0, 0]),
        "node 0 (MaxPool) must pad both sides alike, not by (1, 1) and (0, 0); pad both sides alike",
    ),
    "mean": (
        one("", "ReduceMean", axes=[1]),
        "node 0 (ReduceMean) must be over all positions and nothing else, not over axes [1]; change the network",
    ),
    "reshape of the batch": (
        case("", IMAGE, node("Reshape", "x", "s"), s=i64(-1)),
        "node 0 (Reshape) must keep the batch as the first axis and all numbers, not ask for [-1]; change",
    ),
    "reshape": (
        case("", IMAGE, node("Reshape", "x", "s"), s=i64(-1, 4, 42)),
        "node 0 (Reshape) must flatten, or add or drop extents of 1, not make (batch, 4, 42) of (4, 7, 6) a sample",
    ),
    "conv of channels last": (
        case(
            "",
            IMAGE,
            node("Relu", "x", to="r"),
            node("Conv", "r", "w", to="c"),
            node("Transpose", "c", to="t", perm=[0, 2, 3, 1]),
            node("Conv", "t", "w"),
            w=weights(4, 4, 1, 1),
        ),
        "node 3 (Conv) must read (batch, channels, positions) with one or two positions, not axes [0, 2, 3, 1]",
    ),
    "sum": (
        case("", IMAGE, node("GlobalAveragePool", "x", to="g"), node("Add", "g", "x")),
        "node 1 (Add) must add tensors of one shape, not (4, 1, 1) and (4, 7, 6); change the network",
    ),
    "constant": (
        case("", IMAGE, node("Add", "x", "c"), c=weights(7, 6)),
        "node 0 (Add) must have one number, or one a channel, not a constant of shape (7, 6); change",
    ),
    "concat of positions": (
        case("", IMAGE, node("Concat", "x", "x", axis=2)),
        "node 0 (Concat) must join channels, not another axis; change the network",
    ),
    "slice in steps": (
        case("", IMAGE, node("Slice", "x", "a", "b", "c", "d"), a=i64(0), b=i64(4), c=i64(1), d=i64(2)),
        "node 0 (Slice) must take consecutive channels, not axis 1 in steps of 2; change the network",
    ),
    "resize": (
        case("", IMAGE, node("Resize", "x", "", "s"), s=f32(1, 1, 1.5, 1)),
        "node 0 (Resize) must resize the positions by whole factors, not by [1.0, 1.0, 1.5, 1.0]; change",
    ),
    "pad of ones": (
        case("", IMAGE, node("Pad", "x", "p", "v"), p=i64(0, 0, 1, 1, 0, 0, 1, 1), v=np.float32(1)),
        "node 0 (Pad) must pad with zeros, not constant 1.0; change the network",
    ),
    "cropped transposed conv": (
        case("", IMAGE, node("ConvTranspose", "x", "w", pads=[0, 0, 1, 1]), w=weights(4, 5, 3, 3)),
        "node 0 (ConvTranspose) must crop at most as much at the end as at the beginning",
    ),
    "cast": (
        case("", IMAGE, helper.make_node("Cast", ["x"], ["y"], to=TensorProto.DOUBLE)),
        "node 0 (Cast) must leave values float32, not convert them; change the network",
    ),
    "output flattened channels last": (
        case(
            "",
            IMAGE,
            node("Relu", "x", to="r"),
            node("GlobalMaxPool", "r", to="g"),
            node("Mul", "r", "g", to="m"),
            node("Transpose", "m", to="t", perm=[0, 2, 3, 1]),
            node("Flatten", "t"),
        ),
        "output 'y' must have the batch and the channels first, not be flattened channels last; export another",
    ),
    "constant output": (
        case("", IMAGE, node("Neg", "c"), c=weights(3)),
        "output 'y' must depend on the input, not be a constant; export another output",
    ),
    "shuffle that stops half way": (
        case("", IMAGE, node("Reshape", "x", "a", to="r"), node("Relu", "r"), a=i64(-1, 2, 2, 7, 6)),
        "node 1 (Relu) must read a tensor that depends on the input (input 0), not a shuffle; change",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_the_network_cannot_hold_is_refused_with_node_operator_and_rule(
    name: str, tmp_path: Path
) -> None:
    chosen, message = REFUSED[name]
    path = save(model(chosen.nodes, chosen.shape, chosen.constants), tmp_path)
    with pytest.raises(UnsupportedError) as error:
        read(path)
    assert str(error.value).startswith(f"onnx: {message}")


@needs_examples
@pytest.mark.parametrize("name", FLOAT_FILES)
def test_every_float_example_enters(name: str) -> None:
    path = EXAMPLES / f"{name}.onnx"
    graph = flow.read_onnx(path)
    network.trace(graph, torch.randn(2, *_shape(graph)))
    assert not is_quantized(path)
    assert "Identity" not in kinds(graph) and kinds(graph)[-1] in ("Softmax", "Sigmoid")


def _shape(graph: fx.GraphModule) -> tuple[int, ...]:
    first = network.weighted(graph)[0][1]
    known = {1: (10,), 16: (16,), 4: (4, 10)}
    if network.kind(first) == "Conv2d":
        return (1, 8, 8) if first.out_channels == 2 else (1, 25, 25)
    return known.get(network.widths(first)[0], (10,))


@needs_examples
@pytest.mark.parametrize("path", [*sorted(EXAMPLES.glob("*.onnx")), JETS], ids=lambda path: path.stem)
def test_every_example_is_float_and_enters_or_is_quantized_and_is_refused_as_float(path: Path) -> None:
    if path.stem not in FLOAT_FILES:
        assert is_quantized(path)
        with pytest.raises(UnsupportedError, match="must not be a quantizer, since a float network is read"):
            read(path)


def test_a_digest_covers_the_weights(tmp_path: Path) -> None:
    nodes = [node("MatMul", "x", "w")]
    first, same, other = (
        save(model(nodes, VECTOR, {"w": np.full((6, 3), value, dtype=np.float32)}), tmp_path, f"{place}.onnx")
        for place, value in enumerate((1, 1, 2))
    )
    assert digest(first) == digest(same) != digest(other)
