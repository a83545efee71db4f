"""Every operator that quantize takes: torch, QONNX and integers agree in every value; names and types survive."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import quantized
import torch
from operator_networks import OPERATORS, activated, chain, functions_around_joins, rows
from quantized import data, executed, golden, graph
from torch import nn

from flow import qonnx
from flow.errors import ConfigError, UnsupportedError
from flow.fixed.from_qonnx import lower
from flow.fixed.graph import Conv, Table
from flow.names import identifier
from flow.quantize import quantize
from flow.types import Data, Quantized

pytestmark = pytest.mark.slow

DROPPED = ("Dropout", "Identity")


def run(net: nn.Module, out: Path, samples: Data, **options: Any) -> Quantized:
    given = samples.train[0]
    given = given if isinstance(given, tuple) else (given,)
    example = tuple(torch.from_numpy(array[:2]) for array in given)
    return quantize(net, example, out=out, data=samples, **{"epochs": 0, **options})


def scale_and_codes(model: Any, layer: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the scale of a layer's weights and the weights in steps of it."""
    node = next(node for node in model.graph.node if node.name == f"{layer}_weight")
    scale = model.get_initializer(node.input[1])
    values = model.get_initializer(node.input[0])
    if node.op_type == "BipolarQuant":
        return scale, np.where(values >= 0, 1, -1)
    limit = 2 ** (model.get_initializer(node.input[3]).item() - 1) - 1
    return scale, np.clip(np.rint(values / scale), -limit, limit)


@pytest.mark.parametrize("name", OPERATORS)
def test_torch_qonnx_and_integers_agree_in_every_value(name: str) -> None:
    inputs, expected = golden(name)
    trunk = qonnx.without_softmax(graph(name))
    found = qonnx.execute(trunk, inputs)
    if name != "softmax":
        assert np.array_equal(found, expected)
    assert len(np.unique(found)) > 20, "outputs that are all the same would prove nothing"
    assert np.array_equal(executed(trunk, inputs)[0], found)


@pytest.mark.parametrize("name", OPERATORS)
def test_every_layer_keeps_its_name(name: str) -> None:
    nodes = {node.name for node in graph(name).graph.node}
    assert len(nodes) == len(graph(name).graph.node)
    for path, module in quantized.build(name).named_modules():
        if not list(module.children()) and type(module).__name__ not in DROPPED:
            assert identifier(path or "0") in nodes


def test_a_softmax_stays_as_it_is() -> None:
    inputs, expected = golden("softmax")
    logits = qonnx.execute(qonnx.without_softmax(graph("softmax")), inputs)
    assert np.array_equal(torch.softmax(torch.from_numpy(logits), 1).numpy(), expected)
    assert graph("softmax").graph.node[-1].op_type == "Softmax"


def test_quantizers_are_named_after_what_they_stand_at() -> None:
    names = [node.name for node in graph("concatenated").graph.node if node.op_type == "Quant"]
    activations = {name for name in names if not name.endswith(("_weight", "_bias"))}
    assert activations == {
        *("quant_input", "quant_cat", "quant_cat_1", "quant_cat_2", "quant_cat_1_1", "quant_cat_1_2"),
    }


# ---------------------------------------------------------------- weights


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("bits", [1, 2, 3, 6])
def test_weights_lie_on_the_grid_that_was_asked_for(bits: int, per_channel: bool) -> None:
    name = f"rows_{bits}_bits{'_per_channel' if per_channel else ''}"
    scale, codes = scale_and_codes(graph(name), "a")
    assert np.array_equal(np.frexp(scale)[0], np.full(scale.shape, 0.5)), "powers of two"
    assert scale.size == (6 if per_channel else 1)
    assert scale.max() <= scale.min() * 2**8
    assert set(np.unique(codes)) <= (
        {-1, 1} if bits == 1 else set(range(-(2 ** (bits - 1)) + 1, 2 ** (bits - 1)))
    )
    first = next(node for node in lower(graph(name)).nodes if isinstance(node, Conv))
    assert np.array_equal(np.unique(np.sign(first.weight)), np.unique(np.sign(codes)))


def test_one_and_two_bits_have_the_nearest_good_step() -> None:
    weight = quantized.build("rows_1_bits").a.weight.detach().numpy()
    mean = np.log2(np.abs(weight).mean())
    assert np.log2(scale_and_codes(graph("rows_1_bits"), "a")[0].item()) == np.rint(mean)
    assert np.log2(scale_and_codes(graph("rows_2_bits"), "a")[0].item()) == np.rint(mean + np.log2(1.5))


def test_channels_of_their_own_scale_are_closer_to_the_float_network(tmp_path: Path) -> None:
    samples = data((2, 5, 4), 3)
    net = rows(nn.Conv2d(2, 6, 3, padding=1))
    x = samples.test[0][:100]
    with torch.no_grad():
        float_outputs = net(torch.from_numpy(x)).numpy()
    errors = []
    for per_channel in (False, True):
        options = {"weight_bits": 4, "activation_bits": 8, "per_channel": per_channel}
        made = run(net, tmp_path / str(per_channel), samples, **options)
        errors.append(np.abs(np.load(made.golden_path)["outputs"][:100] - float_outputs).mean())
    assert errors[1] < errors[0]


def test_a_layer_of_zeros_has_no_single_bit(tmp_path: Path) -> None:
    net = chain(a=nn.Linear(5, 3))
    nn.init.zeros_(net.a.weight)
    with pytest.raises(UnsupportedError) as error:
        run(net, tmp_path, data((5,), 3), weight_bits=1)
    assert str(error.value) == (
        "quantize: layer 'a' (Linear) must not be all zeros, which 1 bit does not have; "
        "take the layer out, or set weight_bits = 2"
    )


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_new_layers_can_be_trained(bits: int, tmp_path: Path) -> None:
    random = data((5,), 3)
    splits = (random.train, random.validation, random.test)
    samples = Data("largest", *((x, x[:, :3].argmax(1)) for x, _ in splits))
    torch.manual_seed(0)
    net = functions_around_joins()
    net.leaky = nn.PReLU(7, init=0.3)
    options = {"weight_bits": bits, "per_channel": True, "learning_rate": 1e-2}
    files = [run(net, tmp_path / str(n), samples, epochs=n, **options) for n in (0, 3)]
    outputs = [np.load(made.golden_path)["outputs"] for made in files]
    assert not np.array_equal(*outputs)
    model = qonnx.load(files[1].onnx_path)
    assert np.array_equal(executed(model, samples.test[0])[0], outputs[1])
    slopes = model.get_initializer(next(n.input[1] for n in model.graph.node if n.op_type == "PRelu"))
    assert set(slopes.reshape(-1)) == {10 / 32}, "0.3 on a grid of 4 bits, before and after"


# ---------------------------------------------------------------- quantizers and tables


def test_a_shared_quantizer_spans_the_largest_branch(tmp_path: Path) -> None:
    net = quantized.Forward(
        lambda net, x: torch.cat([net.small(x), net.large(x)], 1),
        small=nn.Linear(5, 2),
        large=nn.Linear(5, 2),
    )
    with torch.no_grad():
        net.large.weight *= 100
    samples = data((5,), 3)
    made = run(net, tmp_path, samples, activation_bits=8, weight_bits=8)
    x = samples.test[0][:100]
    with torch.no_grad():
        want = net(torch.from_numpy(x)).numpy()
    assert np.abs(np.load(made.golden_path)["outputs"][:100] - want).max() < 0.02 * np.abs(want).max()


@pytest.mark.parametrize(("name", "limit", "bits"), [("GELU", 8, 8), ("SiLU", 32, 8), ("Mish", 16, 6)])
def test_ties_that_float32_decides_are_the_files(name: str, limit: int, bits: int, tmp_path: Path) -> None:
    x = np.linspace(-limit, limit - limit / 512, 1024, dtype=np.float32)[:, None]
    split = (x, np.arange(1024) % 3)
    net = chain(act=getattr(nn, name)(), fc=nn.Linear(1, 3))
    made = run(net, tmp_path, Data("x", split, split, split), input_bits=10, activation_bits=bits)
    model = qonnx.load(made.onnx_path)
    assert np.array_equal(executed(model, x)[0], np.load(made.golden_path)["outputs"])
    table = next(node for node in lower(model).nodes if isinstance(node, Table))
    assert len(table.values) == 1024


def test_what_a_table_reads_has_ten_bits_at_most(tmp_path: Path) -> None:
    samples = data((2, 5, 4), 3)
    for activation, read in ((4, 6), (8, 10), (12, 10)):
        options = {"activation_bits": activation, "weight_bits": 3, "input_bits": 4}
        made = run(activated(nn.Tanh()), tmp_path / str(activation), samples, **options)
        table = next(n for n in lower(qonnx.load(made.onnx_path)).nodes if isinstance(n, Table))
        assert (len(table.values), table.output.dtype.width) == (2**read, activation)


# ---------------------------------------------------------------- several inputs and outputs


class Two(nn.Module):
    """An image and a vector in, a vector and a softmax out."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(2, 3, 3), nn.Linear(4, 5)
        self.out, self.aux = nn.Linear(3 * 3 * 2 + 5, 3), nn.Linear(5, 2)

    def forward(self, image: torch.Tensor, meta: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        meta = torch.relu(self.fc(meta))
        image = torch.flatten(torch.relu(self.conv(image)), 1)
        return self.out(torch.cat([image, meta], 1)), torch.softmax(self.aux(meta), 1)


def two_inputs() -> Data:
    images, vectors = data((2, 5, 4), 3), data((4,), 3)
    splits = ("train", "validation", "test")
    both = [(getattr(images, name), getattr(vectors, name)) for name in splits]
    return Data("two", *(((one[0], other[0]), one[1]) for one, other in both))


def test_several_inputs_and_outputs_agree(tmp_path: Path) -> None:
    torch.manual_seed(0)
    samples = two_inputs()
    made = run(Two(), tmp_path, samples)
    assert [(port.name, port.shape) for port in made.inputs] == [("image", (5, 4, 2)), ("meta", (4,))]
    assert made.accuracy is None
    file = np.load(made.golden_path)
    assert set(file) == {"inputs_0", "inputs_1", "outputs_0", "outputs_1", "labels"}
    trunk = qonnx.without_softmax(qonnx.load(made.onnx_path))
    found = executed(trunk, file["inputs_0"], file["inputs_1"])
    assert np.array_equal(found[0], file["outputs_0"])
    soft = torch.softmax(torch.from_numpy(found[1].astype(np.float32)), 1).numpy()
    assert np.array_equal(soft, file["outputs_1"])


def test_several_inputs_are_calibrated_only(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        run(Two(), tmp_path, two_inputs(), epochs=2)
    assert str(error.value) == (
        "quantize: epochs must be 0 for a network with 2 inputs and 2 outputs, not 2; "
        "such a network is calibrated only"
    )


def test_samples_that_lack_an_input_are_refused(tmp_path: Path) -> None:
    samples = two_inputs()
    broken = Data("broken", samples.train, samples.validation, ((samples.test[0][0],), samples.test[1]))
    with pytest.raises(ConfigError) as error:
        run(Two(), tmp_path, broken)
    assert str(error.value) == (
        "data: samples must be 2 arrays of one length, one an input, not (300, 2, 5, 4); check the splits"
    )


def test_an_input_that_nothing_reads_is_refused(tmp_path: Path) -> None:
    class Idle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 3)

        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return self.fc(y)  # type: ignore[no-any-return]

    with pytest.raises(UnsupportedError) as error:
        run(Idle(), tmp_path, two_inputs())
    assert (
        str(error.value)
        == "quantize: input 'x' must be read by a layer, not by none; leave it out of forward"
    )
