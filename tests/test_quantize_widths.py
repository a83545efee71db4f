"""Widths layer by layer, from 1 bit on: what was asked for stands in the file; torch, QONNX and C++ agree."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import quantized
import torch
from conftest import needs
from operator_networks import chain
from quantized import Forward, data, executed
from torch import nn

from flow import qonnx
from flow.convert import convert
from flow.emulate import emulate
from flow.errors import ConfigError
from flow.fixed.from_qonnx import lower
from flow.fixed.graph import Rescale, Sign
from flow.quantize import quantize
from flow.types import Data, FixedPoint, Quantized

VECTOR = data((5,), 3, samples=120)
IMAGE = data((2, 5, 4), 3, samples=120)


def run(net: nn.Module, samples: Data, **options: Any) -> Quantized:
    example = torch.from_numpy(samples.train[0][:2])
    return quantize(net, example, out=quantized.folder(), data=samples, **{"epochs": 0, **options})


def types(made: Quantized) -> dict[str, tuple[int, bool]]:
    """Return width and sign of every quantizer of the file by its name."""
    model = qonnx.load(made.onnx_path)
    found = {}
    for node in model.graph.node:
        if node.op_type == "BipolarQuant":
            found[node.name] = (1, True)
        elif node.op_type == "Quant":
            signed = next(entry.i for entry in node.attribute if entry.name == "signed")
            found[node.name] = (int(model.get_initializer(node.input[3])), bool(signed))
    return found


def assert_exact(made: Quantized, samples: Data) -> None:
    """Torch's results are the integers', and not all the same."""
    found = executed(qonnx.load(made.onnx_path), samples.test[0])[0]
    expected = np.load(made.golden_path)["outputs"]
    assert np.array_equal(found, expected)
    assert len(np.unique(expected)) > 1


def branches() -> nn.Module:
    """A residual sum and a concatenation whose sides differ, odd widths, a single channel, a row that sums to zero."""

    def forward(net: Any, x: Any) -> Any:
        stem = net.stem_relu(net.stem(x))
        x = net.sum_relu(net.b(net.a_relu(net.a(stem))) + stem)
        x = torch.cat([net.left(x), net.right_relu(net.right(x))], 1)
        return net.fc(torch.flatten(net.pool(x), 1))

    torch.manual_seed(0)
    net = Forward(
        forward,
        stem=nn.Conv2d(2, 5, 3, padding=1),
        stem_relu=nn.ReLU(),
        a=nn.Conv2d(5, 1, 1),
        a_relu=nn.ReLU(),
        b=nn.Conv2d(1, 5, 3, padding=1),
        sum_relu=nn.ReLU(),
        left=nn.Conv2d(5, 3, 1),
        right=nn.Conv2d(5, 2, 1),
        right_relu=nn.ReLU(),
        pool=nn.AvgPool2d(2),
        fc=nn.Linear(20, 3),
    )
    with torch.no_grad():
        net.stem.weight[0, :, 0] = torch.tensor([0.25, -0.5, 0.25])
        net.left.weight[1] = 0
    return net


LAYERS = {
    "stem": {"weight_bits": 7, "activation_bits": 5},
    "a": {"weight_bits": 1, "activation_bits": 3, "bias_bits": 9},
    "b": {"weight_bits": 2, "activation_bits": 4},
    "sum_relu": {"activation_bits": 7},
    "left": {"weight_bits": 5, "activation_bits": 3},
    "right": {"activation_bits": 9},
    "pool": {"activation_bits": 2},
    "fc": {"weight_bits": 3},
}


@cache
def mixed() -> Quantized:
    return run(branches(), IMAGE, weight_bits=6, activation_bits=6, layers=LAYERS)


def test_every_layer_has_the_width_that_was_asked_for() -> None:
    found = types(mixed())
    assert {name: found[f"{name}_weight"][0] for name in ("stem", "a", "b", "left", "right", "fc")} == {
        **{"stem": 7, "a": 1, "b": 2, "left": 5, "right": 6, "fc": 3},
    }
    assert found["stem_relu_quant"] == (5, False)
    assert found["a_relu_quant"] == (3, False)
    assert found["sum_relu_quant"] == (7, False)
    assert found["quant_pool_out"] == (2, True)


def test_the_sides_of_a_sum_and_of_a_concatenation_share_the_largest_width() -> None:
    found = types(mixed())
    assert found["quant_add"] == found["quant_add_1"] == (5, True), "b asks for 4, stem for 5"
    assert found["quant_cat"] == found["quant_cat_1"] == (9, True), "left asks for 3, right for 9"


def test_a_sums_own_name_counts_more_than_its_sides() -> None:
    made = run(branches(), IMAGE, layers={**LAYERS, "add": {"activation_bits": 2}})
    assert types(made)["quant_add"] == (2, True)
    assert made.activation_bits["b"] == made.activation_bits["add"] == 2
    assert made.activation_bits["stem"] == 5, "its own quantizer"


def test_what_is_reported_is_what_stands() -> None:
    made, found = mixed(), types(mixed())
    assert made.weight_bits == {"stem": 7, "a": 1, "b": 2, "left": 5, "right": 6, "fc": 3}
    assert made.bias_bits == {name: found[f"{name}_bias"][0] for name in made.weight_bits}
    assert made.activation_bits == {
        **{"stem": 5, "stem_relu": 5, "a": 3, "a_relu": 3, "b": 5, "add": 5, "sum_relu": 7},
        **{"left": 9, "right": 9, "right_relu": 9, "cat": 9, "pool": 2},
    }
    assert_exact(made, IMAGE)


@needs("g++")
@pytest.mark.parametrize("io_type", ["io_stream", "io_parallel"])
def test_mixed_widths_go_through_the_cpp(io_type: str) -> None:
    design = convert(mixed(), out=quantized.folder(), board=quantized.small_board(60), io_type=io_type)
    assert emulate(design, build_folder=quantized.folder()).max_error_lsb == 0


@pytest.mark.slow
def test_every_width_from_1_to_16_is_exact() -> None:
    """One branch a width, each with an output of its own, so that no narrow layer hides a wrong one."""
    torch.manual_seed(0)
    parts: dict[str, nn.Module] = {}
    for bits in range(1, 17):
        signed = nn.Hardtanh(-1.5, 1.5) if bits % 2 else nn.ReLU()
        parts |= {f"fc{bits}": nn.Linear(5, 3), f"act{bits}": signed}

    def forward(net: Any, x: Any) -> Any:
        return tuple(getattr(net, f"act{bits}")(getattr(net, f"fc{bits}")(x)) for bits in range(1, 17))

    asked = {
        f"fc{bits}": {"weight_bits": bits, "activation_bits": 1 + 5 * bits % 16} for bits in range(1, 17)
    }
    assert {bits["activation_bits"] for bits in asked.values()} == set(range(1, 17))
    made = run(Forward(forward, **parts), VECTOR, input_bits=4, layers=asked)
    found = types(made)
    for name, bits in asked.items():
        assert found[f"{name}_weight"] == (bits["weight_bits"], True)
        assert made.activation_bits[name] == bits["activation_bits"]
    with np.load(made.golden_path) as file:
        expected = [file[f"outputs_{index}"] for index in range(16)]
    results = executed(qonnx.load(made.onnx_path), VECTOR.test[0])
    for values, result, bits in zip(expected, results, asked.values(), strict=True):
        assert np.array_equal(values, result)
        assert 1 < len(np.unique(values)) <= 2 ** bits["activation_bits"]


@pytest.mark.parametrize("bits", [1, 16])
def test_inputs_of_1_and_16_bits_are_exact(bits: int) -> None:
    samples = Data("parts", *((np.abs(x), y) for x, y in (VECTOR.train, VECTOR.validation, VECTOR.test)))
    made = run(chain(fc=nn.Linear(5, 3)), samples, input_bits=bits, weight_bits=5)
    assert made.inputs[0].dtype == (FixedPoint(False, 1, 0) if bits == 1 else FixedPoint(True, 1, 15))
    assert_exact(made, samples)


# ---------------------------------------------------------------- 1 bit


@cache
def one_bit() -> Quantized:
    torch.manual_seed(0)
    net = nn.Sequential(
        *(nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(), nn.Conv2d(3, 4, 3, padding=1), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(16, 3)),
    )
    return run(net, IMAGE, activation_bits=1, weight_bits=1)


def test_one_bit_is_0_or_1_behind_a_relu_and_a_sign_elsewhere() -> None:
    nodes = lower(qonnx.load(one_bit().onnx_path)).nodes
    relu = next(node for node in nodes if isinstance(node, Rescale))
    assert (relu.minimum, relu.maximum) == (0, 1)
    assert sum(isinstance(node, Sign) for node in nodes) == 1
    assert_exact(one_bit(), IMAGE)


@needs("g++")
def test_one_bit_goes_through_the_cpp() -> None:
    design = convert(one_bit(), out=quantized.folder(), board=quantized.small_board(60))
    assert emulate(design, build_folder=quantized.folder()).max_error_lsb == 0


def test_a_sum_of_signs_is_exact() -> None:
    net = Forward(
        lambda net, x: net.fc(net.a(x) + net.b(x)), a=nn.Linear(5, 4), b=nn.Linear(5, 4), fc=nn.Linear(4, 3)
    )
    made = run(net, VECTOR, layers={"add": {"activation_bits": 1}})
    assert types(made)["quant_add"] == (1, True)
    assert types(made)["quant_add_out"] == (2, True), "-2, 0 or 2 times the step"
    assert_exact(made, VECTOR)


def test_a_function_of_a_sign_is_exact() -> None:
    net = chain(
        fc=nn.Linear(5, 4), pool=nn.Flatten(), mid=nn.Linear(4, 4), act=nn.Tanh(), last=nn.Linear(4, 3)
    )
    made = run(net, VECTOR, activation_bits=1)
    assert made.activation_bits["act"] == 1
    assert_exact(made, VECTOR)


def test_negative_samples_have_no_single_bit(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        run(chain(fc=nn.Linear(5, 3)), VECTOR, input_bits=1)
    assert str(error.value) == (
        "quantize: input_bits must be 2 or more for samples below 0, not 1; 8 is usual"
    )


# ---------------------------------------------------------------- biases


def test_biases_take_the_bits_that_they_need_and_no_fewer_than_asked_for() -> None:
    net = chain(a=nn.Linear(5, 4), relu=nn.ReLU(), b=nn.Linear(4, 3))
    with torch.no_grad():
        net.a.bias.fill_(100.0)
        net.b.bias.zero_()
    made = run(net, VECTOR, bias_bits=1, layers={"b": {"bias_bits": 7}})
    step = types(made)
    assert made.bias_bits == {"a": step["a_bias"][0], "b": 7}
    assert made.bias_bits["a"] > 12
    assert_exact(made, VECTOR)


# ---------------------------------------------------------------- refusals


def refused(layers: Any) -> str:
    net = chain(a=nn.Linear(5, 4), relu=nn.ReLU(), b=nn.Linear(4, 3))
    with pytest.raises(ConfigError) as error:
        run(net, VECTOR, layers=layers)
    return str(error.value)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (
            {"c": {"weight_bits": 4}},
            "layers must name layers of the network, not 'c'; its layers: a, relu, b",
        ),
        (
            {"a": {"weights": 4}},
            "layer 'a' must have widths among weight_bits, activation_bits, bias_bits, not 'weights'; correct its key",
        ),
        (
            {"relu": {"weight_bits": 4}},
            "layer 'relu' must have weights to take weight_bits, not be without; layers with weights: a, b",
        ),
        (
            {"relu": {"bias_bits": 4}},
            "layer 'relu' must have weights to take bias_bits, not be without; layers with weights: a, b",
        ),
        (
            {"b": {"activation_bits": 4}},
            "layer 'b' must have a quantizer behind it to take activation_bits, not be without; "
            "layers with one: a, relu",
        ),
        (
            {"a": {"weight_bits": 17}},
            "weight_bits of layer 'a' must be in 1 to 16, not 17; 4 to 8 is usual",
        ),
        ({"a": {"bias_bits": 0}}, "bias_bits of layer 'a' must be in 1 to 32, not 0; 16 is usual"),
        (
            {"relu": {"activation_bits": 2.5}},
            "activation_bits of layer 'relu' must be in 1 to 16, not 2.5; 4 to 8 is usual",
        ),
    ],
)
def test_widths_that_no_layer_takes_are_refused(layers: Any, message: str) -> None:
    assert refused(layers) == f"quantize: {message}"
