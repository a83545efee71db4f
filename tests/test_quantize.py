"""Quantize: torch, QONNX and exact arithmetic agree in every value; names, options and messages."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import quantized
import torch
from quantized import NETS, Forward, data, golden, graph, reference
from torch import nn

from flow import qonnx
from flow.errors import ConfigError, UnsupportedError
from flow.names import identifier
from flow.network import trace
from flow.quantize import quantize
from flow.quantize.rules import SUPPORTED
from flow.types import Data, FixedPoint, Port, Quantized

VECTOR = data((4,), 3)
IMAGE = data((2, 4, 4), 3)


def dense(inputs: int = 4) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, 3))


def run(model: nn.Module, out: Path, samples: Data = VECTOR, **options: Any) -> Quantized:
    options = {"epochs": 0, **options}
    return quantize(model, torch.from_numpy(samples.train[0][:2]), out=out, data=samples, **options)


def outputs(made: Quantized) -> np.ndarray:
    with np.load(made.golden_path) as file:
        return file["outputs"]


# ---------------------------------------------------------------- equality


@pytest.mark.parametrize("name", NETS)
def test_torch_and_qonnx_equal_exact_arithmetic_in_every_value(name: str) -> None:
    inputs, expected = golden(name)
    assert expected.dtype == np.float32
    assert len(np.unique(expected)) > 20, "outputs that are all the same would prove nothing"
    assert np.array_equal(reference(graph(name), inputs), expected)
    assert np.array_equal(qonnx.execute(graph(name), inputs), expected)


def random_network(seed: int) -> tuple[nn.Module, tuple[int, ...]]:
    """Return a random CNN (convs, depthwise convs, sums, pools) and the shape of its input."""
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    channels, height, width = (int(extent) for extent in rng.integers((1, 4, 4), (4, 9, 9)))
    shape = (channels, height, width)
    layers: dict[str, nn.Module] = {}
    steps: list[tuple[str, ...]] = []
    for index in range(int(rng.integers(1, 5))):
        what = rng.choice(["conv", "depthwise", "sum", "pool"])
        if what == "pool" and min(height, width) >= 2:
            layers[f"pool{index}"] = nn.MaxPool2d(2)
            height, width = height // 2, width // 2
        elif what == "sum" or (what == "depthwise" and channels > 1):
            groups = channels if what == "depthwise" else 1
            layers[f"{what}{index}"] = nn.Conv2d(channels, channels, 3, padding=1, groups=groups)
        else:
            after = int(rng.integers(1, 8))
            layers[f"conv{index}"] = nn.Conv2d(channels, after, 3, padding=1, bias=bool(rng.integers(2)))
            channels = after
        steps.append((list(layers)[-1], "relu" if rng.integers(2) else ""))
    layers["fc"] = nn.Linear(channels * height * width, 3)

    def forward(net: Any, x: Any) -> Any:
        for name, relu in steps:
            y = getattr(net, name)(x)
            x = x + y if name.startswith("sum") else y
            x = torch.relu(x) if relu else x
        return net.fc(torch.flatten(x, 1))

    return Forward(forward, **layers), shape


@pytest.mark.parametrize("seed", range(6))
def test_random_networks_and_widths_are_exact(seed: int, tmp_path: Path) -> None:
    model, shape = random_network(seed)
    rng = np.random.default_rng(seed)
    bits = {f"{name}_bits": int(rng.integers(2, 9)) for name in ("weight", "activation", "input")}
    samples = data(shape, 3, samples=96, seed=seed)
    made = run(model, tmp_path, samples, bias_bits=int(rng.integers(8, 20)), **bits)
    exported = qonnx.load(made.onnx_path)
    inputs = samples.test[0]
    assert np.array_equal(reference(exported, inputs), outputs(made))


def test_the_type_of_the_input_follows_the_samples(tmp_path: Path) -> None:
    pixels = data((2, 4, 4), 3, scale=255.0)
    made = run(nn.Sequential(nn.Flatten(), nn.Linear(32, 3)), tmp_path, pixels)
    assert made.inputs == (Port("input", (4, 4, 2), FixedPoint(True, 9, -1)),)
    assert np.array_equal(reference(qonnx.load(made.onnx_path), pixels.test[0]), outputs(made))


def test_samples_that_are_all_zero_get_a_step_too(tmp_path: Path) -> None:
    x, y = (np.zeros((8, 4), dtype=np.float32), np.arange(8) % 3)
    made = run(dense(), tmp_path, Data("zeros", (x, y), (x, y), VECTOR.test))
    assert made.inputs[0].dtype == FixedPoint(True, 1, 7)
    assert np.array_equal(reference(qonnx.load(made.onnx_path), VECTOR.test[0]), outputs(made))


@pytest.mark.parametrize("epochs", [0, 2])
def test_a_layer_of_zeros_keeps_its_bias(epochs: int, tmp_path: Path) -> None:
    model = dense()
    with torch.no_grad():
        model[0].weight.zero_()
        model[0].bias.copy_(torch.tensor([0.5, -1.0, 2.0]))
    made = run(model, tmp_path, epochs=epochs, learning_rate=1e-3)
    assert np.abs(outputs(made) - [0.5, -1.0, 2.0]).max() <= epochs * 0.05
    assert len(np.unique(outputs(made))) == 3


def test_zeros_can_be_trained_on(tmp_path: Path) -> None:
    made = run(quantized.build("zeros"), tmp_path, epochs=2)
    assert np.isfinite(outputs(made)).all()
    assert np.array_equal(reference(qonnx.load(made.onnx_path), VECTOR.test[0]), outputs(made))


def test_sums_that_float32_rounds_are_refused(tmp_path: Path) -> None:
    torch.manual_seed(0)
    wide = data((64,), 3)
    with pytest.raises(UnsupportedError) as error:
        run(dense(64), tmp_path, wide, weight_bits=16, activation_bits=16, input_bits=16)
    rounded = str(error.value).split("but ")[1].split(" of ")[0]
    assert str(error.value) == (
        f"quantize: sums must fit the 24 bits of float32, but {rounded} of 576 outputs are rounded; "
        "lower weight_bits, activation_bits or bias_bits"
    )
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------- what is written


@pytest.mark.parametrize("name", NETS)
def test_every_node_carries_the_name_of_the_layer_whose_weights_it_has(name: str) -> None:
    model = quantized.build(name)
    exported = graph(name)
    nodes = {node.name: node for node in qonnx.compute_nodes(exported)}
    assert len(nodes) == len(qonnx.compute_nodes(exported))
    layers = {path: m for path, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}
    for path, module in layers.items():
        quantizer = exported.find_producer(nodes[identifier(path)].input[1])
        assert np.array_equal(exported.get_initializer(quantizer.input[0]), module.weight.detach().numpy())


def test_names_that_cpp_does_not_have_are_made_plain() -> None:
    names = [node.name for node in qonnx.compute_nodes(graph("cnn"))]
    assert names == ["block_0", "block_1", "block_2", "conv_2", "relu", "flatten", "fc"]
    assert set(quantized.quantized("cnn").weight_bits) == {"block.0", "conv-2", "fc"}


def test_a_module_that_is_used_again_gets_a_name_for_each_use() -> None:
    relus = [node.name for node in qonnx.compute_nodes(graph("residual")) if node.op_type == "Relu"]
    assert sorted(relus) == ["relu", "relu_1", "relu_2", "relu_3"]


def test_the_quantizers_have_the_widths_asked_for(tmp_path: Path) -> None:
    made = run(
        quantized.mlp(), tmp_path, data((5,), 3), weight_bits=3, activation_bits=5, input_bits=4, bias_bits=10
    )
    exported = qonnx.load(made.onnx_path)
    found = {}
    for node in exported.graph.node:
        if node.op_type == "Quant":
            signed = next(entry.i for entry in node.attribute if entry.name == "signed")
            shape = exported.get_tensor_shape(node.input[0])
            found[tuple(shape)] = (int(exported.get_initializer(node.input[3])), signed)
    assert found == {
        **{(1, 5): (4, 1), (1, 13): (5, 0), (1, 7): (5, 1)},
        **{(13, 5): (3, 1), (7, 13): (3, 1), (3, 7): (3, 1), (13,): (10, 1), (7,): (10, 1), (3,): (10, 1)},
    }
    assert made.inputs[0].dtype == FixedPoint(True, 1, 3)
    assert (made.weight_bits, made.activation_bits) == (dict.fromkeys("023", 3), dict.fromkeys("012", 5))


def test_the_golden_file_holds_the_whole_test_set() -> None:
    made = quantized.quantized("mlp")
    samples = data((5,), 3)
    with np.load(made.golden_path) as file:
        assert np.array_equal(file["inputs"], samples.test[0])
        assert np.array_equal(file["labels"], samples.test[1])
        assert file["outputs"].shape == (len(samples.test[1]), 3)
        assert made.accuracy == np.mean(file["outputs"].argmax(1) == samples.test[1])
    assert made.samples == len(samples.test[1])


def test_only_the_two_files_are_written(tmp_path: Path) -> None:
    run(dense(), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["golden.npz", "model.onnx"]


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    files = {}
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        torch.rand(3)  # the state of torch's own generator must not matter
        (tmp_path / name).mkdir()
        made = run(model, tmp_path / name, epochs=2, seed=seed)
        files[name] = made.onnx_path.read_bytes()
        assert made.golden_path.is_file()
    assert files["a"] == files["b"]
    assert files["a"] != files["c"]


# ---------------------------------------------------------------- fine-tuning


def cross_entropy(made: Quantized, split: tuple[np.ndarray, np.ndarray]) -> float:
    scores = reference(qonnx.load(made.onnx_path), split[0])
    logarithm = np.log(np.exp(scores - scores.max(1, keepdims=True)).sum(1)) + scores.max(1)
    return float((logarithm - scores[np.arange(len(scores)), split[1]]).mean())


def largest_of_three(seed: int = 0) -> Data:
    rng = np.random.default_rng(seed)

    def split(samples: int) -> tuple[np.ndarray, np.ndarray]:
        x = rng.uniform(-1, 1, (samples, 4)).astype(np.float32)
        return x, x[:, :3].argmax(1)

    return Data("largest", split(256), split(128), split(64))


def test_fine_tuning_lowers_the_validation_loss(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    samples = largest_of_three()
    said: list[tuple[int, int, str]] = []
    losses = []
    for epochs in (0, 3):
        (tmp_path / str(epochs)).mkdir()
        options = {"learning_rate": 1e-2, "weight_bits": 3, "progress": lambda *event: said.append(event)}
        made = run(model, tmp_path / str(epochs), samples, epochs=epochs, **options)
        losses.append(cross_entropy(made, samples.validation))
    assert losses[1] < losses[0] - 0.05
    training = [event for event in said if event[2].startswith("validation accuracy")]
    assert [event[:2] for event in training] == [(1, 3), (2, 3), (3, 3)]


def test_training_that_only_makes_it_worse_changes_nothing(tmp_path: Path) -> None:
    model = dense()
    with torch.no_grad():
        model[0].weight.copy_(4 * torch.eye(3, 4))
        model[0].bias.zero_()
    files = []
    for epochs in (0, 3):
        (tmp_path / str(epochs)).mkdir()
        made = run(model, tmp_path / str(epochs), largest_of_three(), epochs=epochs, learning_rate=10.0)
        files.append(made.onnx_path.read_bytes())
    assert files[0] == files[1]


def test_the_network_and_the_samples_stay_as_they_are(tmp_path: Path) -> None:
    samples = copy.deepcopy(VECTOR)
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)).train()
    before, shown = copy.deepcopy(model.state_dict()), repr(model)
    traced = trace(model, torch.zeros(2, 4))
    code = traced.code
    for one in (model, traced):
        run(one, tmp_path, samples, epochs=1)
    assert repr(model) == shown
    assert traced.code == code
    assert all(module.training for module in model.modules())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    for mine, theirs in zip((*samples.train, *samples.test), (*VECTOR.train, *VECTOR.test), strict=True):
        assert np.array_equal(mine, theirs)


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize("name", ["weight_bits", "activation_bits", "input_bits"])
@pytest.mark.parametrize("value", [-3, 0, 17])
def test_widths_out_of_range_are_refused(name: str, value: int, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        run(dense(), tmp_path, **{name: value})
    assert str(error.value) == f"quantize: {name} must be in 1 to 16, not {value}; 4 to 8 is usual"


@pytest.mark.parametrize("value", [0, 33])
def test_biases_out_of_range_are_refused(value: int, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        run(dense(), tmp_path, bias_bits=value)
    assert str(error.value) == f"quantize: bias_bits must be in 1 to 32, not {value}; 16 is usual"


@pytest.mark.parametrize("width", [2, 16])
def test_the_widths_at_the_limits_are_accepted(width: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    bits = {"weight_bits": 18 - width, "activation_bits": width, "input_bits": 4}
    made = run(dense(), tmp_path, **bits)
    assert np.array_equal(reference(qonnx.load(made.onnx_path), VECTOR.test[0]), outputs(made))


def one(layer: nn.Module, flat: int = 32) -> nn.Module:
    """Return a network of the layer, a flatten and a dense layer."""
    net = nn.Sequential()
    net.add_module("it", layer)
    net.add_module("flatten", nn.Flatten())
    net.add_module("fc", nn.Linear(flat, 3))
    return net


LAYERS = f"supported layers: {', '.join(SUPPORTED)}"


@pytest.mark.parametrize(
    ("layer", "flat", "rest"),
    [
        (nn.BatchNorm2d(2), 32, f"(BatchNorm2d) is not supported; {LAYERS}"),
        (nn.ConvTranspose2d(2, 2, 1), 32, f"(ConvTranspose2d) is not supported; {LAYERS}"),
        (
            nn.Conv2d(2, 2, 2, padding="same"),
            32,
            "(Conv2d, padding 'same' with kernel (2, 2)) is not supported; "
            "supported paddings: numbers, 'valid', and 'same' around odd kernels",
        ),
        (
            nn.Conv2d(2, 2, 3, padding=1, padding_mode="reflect"),
            32,
            "(Conv2d, padding_mode 'reflect') is not supported; supported padding modes: 'zeros'",
        ),
        (
            nn.MaxPool2d(2, dilation=2),
            2,
            "(MaxPool2d, dilation 2) is not supported; supported dilations: 1",
        ),
        (
            nn.MaxPool2d(2, ceil_mode=True),
            8,
            "(MaxPool2d, ceil_mode True) is not supported; supported ceil_mode: False",
        ),
        (
            nn.AvgPool2d(2, ceil_mode=True),
            8,
            "(AvgPool2d, ceil_mode True) is not supported; supported ceil_mode: False",
        ),
        (
            nn.AvgPool2d(2, padding=1, count_include_pad=False),
            18,
            "(AvgPool2d, padding 1 that does not count) is not supported; "
            "supported paddings: 0, or with count_include_pad",
        ),
        (
            nn.AvgPool2d(2, divisor_override=3),
            8,
            "(AvgPool2d, divisor_override 3) is not supported; supported divisors: the window's size",
        ),
        (
            nn.AdaptiveAvgPool2d(3),
            18,
            "(AdaptiveAvgPool2d, from (4, 4) to (3, 3)) is not supported; "
            "supported sizes: those that divide the input's",
        ),
        (
            nn.Upsample(size=(4, 6)),
            48,
            "(Upsample, from (4, 4) to (4, 6)) is not supported; supported sizes: multiples of the input's",
        ),
        (
            nn.Upsample(scale_factor=2, mode="bilinear"),
            128,
            "(Upsample, mode 'bilinear') is not supported; supported modes: 'nearest'",
        ),
        (
            nn.Softplus(beta=2),
            32,
            "(Softplus, beta 2, threshold 20.0) is not supported; supported options: beta 1, threshold 20",
        ),
        (
            nn.Softmax(1),
            32,
            "(Softmax, before another layer) is not supported; supported places: the network's end",
        ),
        (
            nn.Flatten(2),
            32,
            "(Flatten, dimensions 2 to -1) is not supported; supported dimensions: 1 to -1",
        ),
        (
            nn.Linear(4, 4),
            32,
            "(Linear, on 3 dimensions) is not supported; supported inputs: vectors; put a flatten before it",
        ),
    ],
    ids=lambda value: str(value).partition("(")[0] if isinstance(value, nn.Module) else "",
)
def test_layers_that_the_hardware_would_get_wrong_are_refused(
    layer: nn.Module, flat: int, rest: str, tmp_path: Path
) -> None:
    with pytest.raises(UnsupportedError) as error:
        run(one(layer, flat), tmp_path, IMAGE)
    assert str(error.value) == f"quantize: layer 'it' {rest}"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("forward", "message"),
    [
        (
            lambda net, x: net.d(torch.narrow(net.c(x), 1, 1, 3)),
            "quantize: slice 'narrow' is not supported; supported joins: x + y, x * y, torch.cat",
        ),
        (
            lambda net, x: net.d(net.a(x) * net.s(x)),
            "quantize: product 'mul' must be of equal shapes, not (3,) and (1,); give both sides one shape",
        ),
        (
            lambda net, x: net.d(net.a(x) + net.s(x)),
            "quantize: sum 'add' must be of equal shapes, not (3,) and (1,); give both sides one shape",
        ),
    ],
)
def test_joins_of_other_kinds_and_shapes_are_refused(forward: Any, message: str, tmp_path: Path) -> None:
    layers = {"a": nn.Linear(4, 3), "b": nn.Linear(4, 3), "c": nn.Linear(4, 6), "d": nn.Linear(3, 3)}
    with pytest.raises(UnsupportedError) as error:
        run(Forward(forward, **layers, s=nn.Linear(4, 1)), tmp_path)
    assert str(error.value) == message


def test_a_sum_of_a_tensor_with_itself_is_refused(tmp_path: Path) -> None:
    def forward(net: Any, x: Any) -> Any:
        x = net.a(x)
        return net.b(x + x)

    with pytest.raises(UnsupportedError) as error:
        run(Forward(forward, a=nn.Linear(4, 3), b=nn.Linear(3, 3)), tmp_path)
    assert str(error.value) == (
        "quantize: sum 'add' must be of two tensors, not of one with itself; "
        "double the weights of the layer before it"
    )


def chain(*names: str) -> nn.Module:
    net = nn.Sequential()
    for name in names:
        net.add_module(name, nn.Linear(4, 4))
    return net


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ("quant_input",),
            "quantize: layer 'quant_input' (Linear) must not begin with 'quant_' as quantizers do; rename it",
        ),
        (
            ("Quant_0",),
            "quantize: layer 'Quant_0' (Linear) must not begin with 'quant_' as quantizers do; rename it",
        ),
        (
            ("a-b", "a_b"),
            "qonnx: layers 'a-b' and 'a_b' must have different names in C++, not both 'a_b'; rename one",
        ),
        (
            ("FC", "fc"),
            "qonnx: layers 'FC' and 'fc' must have different names in C++, not both 'fc'; rename one",
        ),
        (
            ("global_in",),
            "qonnx: layers 'global_in' and 'global_in' must have different names in C++, not both 'global_in'; "
            "rename one",
        ),
    ],
)
def test_names_that_would_be_one_in_cpp_are_refused(
    names: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UnsupportedError) as error:
        run(chain(*names), tmp_path)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": -1}, "quantize: epochs must be at least 0, not -1; 20 to 100 is usual"),
        ({"batch_size": 1}, "quantize: batch_size must be at least 2, not 1; 64 is usual"),
        ({"learning_rate": 0.0}, "quantize: learning_rate must be above 0, not 0.0; 0.001 is usual"),
    ],
)
def test_options_that_train_nothing_are_refused(
    options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as error:
        run(dense(), tmp_path, **options)
    assert str(error.value) == message


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_labels_beyond_the_outputs_are_refused_in_every_split(split: str, tmp_path: Path) -> None:
    splits = {name: getattr(VECTOR, name) for name in ("train", "validation", "test")}
    splits[split] = (splits[split][0], splits[split][1] + 7)
    with pytest.raises(ConfigError) as error:
        run(dense(), tmp_path, Data("far", **splits))
    assert str(error.value) == (
        "data: labels must be below the network's outputs (3,), not reach 9; give the network one output a class"
    )


def test_a_bias_that_does_not_fit_takes_more_bits_in_place_of_saturating(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 2))
    with torch.no_grad():
        net[0].weight.fill_(0.0075)
        net[0].bias.fill_(0.5)
        net[1].weight.fill_(1)
        net[1].bias.fill_(0)
    x = np.linspace(-1, 1, 64, dtype=np.float32)[:, None]
    split = (x, np.zeros(64, dtype=np.int64))
    made = quantize(net, torch.from_numpy(x[:2]), out=tmp_path, data=Data("x", split, split, split), epochs=0)
    assert made.bias_bits["0"] > 16 == made.bias_bits["1"]
    got = np.load(made.golden_path)["outputs"]
    assert np.abs(got - net(torch.from_numpy(x)).detach().numpy()).max() < 2 / 64
