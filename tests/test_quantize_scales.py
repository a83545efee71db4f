"""Free scales: torch in float64 equals the integers; the file, executed in float32, leaves them beside ties alone."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import quantized
import torch
from conftest import needs
from operator_networks import OPERATORS, chain
from quantized import Forward, data
from torch import nn

from flow import qonnx
from flow.convert import convert
from flow.emulate import emulate
from flow.errors import ConfigError, MismatchError, UnsupportedError
from flow.fixed.execute import execute
from flow.fixed.from_qonnx import lower
from flow.fixed.graph import Dense, Rescale
from flow.fixed.lsb import inputs_lsb
from flow.fixed.rounding import float_bounds
from flow.quantize import bounded, quantize
from flow.quantize.layers import SIGNIFICANT_BITS, Step
from flow.training.data import load
from flow.types import Data, Quantized

VECTOR = data((5,), 3, samples=120)


def run(net: nn.Module, samples: Data, **options: Any) -> Quantized:
    example = torch.from_numpy(samples.train[0][:2])
    options = {"epochs": 0, "scales": "free", **options}
    return quantize(net, example, out=quantized.folder(), data=samples, **options)


def scales_of(made: Quantized, layer: str) -> np.ndarray:
    model = qonnx.load(made.onnx_path)
    node = next(node for node in model.graph.node if node.name == layer)
    return np.asarray(model.get_initializer(node.input[1])).reshape(-1)


def assert_integers(made: Quantized, samples: Data) -> np.ndarray:
    """The golden results are the integers' of the file, to the last bit of float32; returns them."""
    with np.load(made.golden_path) as file:
        expected: np.ndarray = file["outputs"]
    found = integers(made, samples)
    assert np.array_equal(found.astype(np.float32), expected)
    assert len(np.unique(expected)) > 20
    return expected


def integers(made: Quantized, samples: Data) -> np.ndarray:
    """Return the real numbers of the integers that the network gives, float64."""
    graph = lower(qonnx.load(made.onnx_path))
    tensor = graph.tensors[graph.outputs[0]]
    codes = execute(graph, inputs_lsb(graph, [samples.test[0]]))[tensor.name]
    return np.asarray(codes * np.ldexp(tensor.scale[0], -tensor.dtype.fraction_bits))


def short(numbers: np.ndarray) -> bool:
    """Whether numbers have 12 significant bits."""
    mantissa = np.frexp(numbers.astype(np.float64))[0] * 2**SIGNIFICANT_BITS
    return bool((mantissa == np.rint(mantissa)).all())


# ---------------------------------------------------------------- whole test sets


@cache
def digits(per_channel: bool, epochs: int = 0) -> Quantized:
    torch.manual_seed(0)
    net = chain(
        **{"conv1": nn.Conv2d(1, 5, 3), "relu1": nn.ReLU(), "pool": nn.MaxPool2d(2)},
        **{"conv2": nn.Conv2d(5, 7, 2), "relu2": nn.ReLU(), "flatten": nn.Flatten(), "fc": nn.Linear(28, 10)},
    )
    options = {"learning_rate": 1e-2, "epochs": epochs, "weight_bits": 4, "activation_bits": 5}
    return run(net, load("digits"), per_channel=per_channel, **options)


@pytest.mark.parametrize("per_channel", [False, True])
def test_the_digits_are_exact_in_integers_and_the_files_float_results_lie_within_the_bound(
    per_channel: bool,
) -> None:
    made, samples = digits(per_channel), load("digits")
    expected = assert_integers(made, samples)
    assert made.samples == len(samples.test[1])
    assert made.float_bound is not None
    assert 0 < made.float_bound.largest_steps < made.float_bound.bound_steps < 0.1
    from_file = qonnx.execute(qonnx.load(made.onnx_path), samples.test[0])
    step = np.ldexp(1.0, -lower(qonnx.load(made.onnx_path)).nodes[-1].output.dtype.fraction_bits)
    off = np.abs(from_file - expected).max(1) >= step
    assert off.sum() == made.float_bound.samples


def test_training_goes_on_with_free_scales() -> None:
    made = digits(False, 3)
    assert made.accuracy > digits(False).accuracy + 0.2
    assert_integers(made, load("digits"))


@needs("g++")
@pytest.mark.parametrize("per_channel", [False, True])
def test_the_cpp_equals_the_integers(per_channel: bool) -> None:
    design = convert(digits(per_channel), out=quantized.folder(), board=quantized.small_board(60))
    result = emulate(design, build_folder=quantized.folder())
    assert (result.max_error_lsb, result.tied_samples) == (0, 0)
    assert result.accuracy == digits(per_channel).accuracy


# ---------------------------------------------------------------- scales


def test_scales_have_12_bits_one_a_channel_where_asked_for_but_at_the_end() -> None:
    per_tensor, per_channel = digits(False), digits(True)
    assert [scales_of(per_tensor, f"{layer}_weight").size for layer in ("conv1", "conv2", "fc")] == [1, 1, 1]
    assert [scales_of(per_channel, f"{layer}_weight").size for layer in ("conv1", "conv2", "fc")] == [5, 7, 1]
    for made in (per_tensor, per_channel):
        names = ["quant_input", "relu1_quant", "relu2_quant", "conv2_weight", "fc_weight"]
        scales = np.concatenate([scales_of(made, name) for name in names])
        assert short(scales)
        assert (np.frexp(scales)[0] != 0.5).any(), "not all powers of two"


def test_the_steps_of_biases_are_exact_products() -> None:
    made = digits(True)
    product = scales_of(made, "relu1_quant").astype(np.float64) * scales_of(made, "conv2_weight")
    assert np.array_equal(scales_of(made, "conv2_bias"), product)
    assert all(node.bias is not None for node in lower(qonnx.load(made.onnx_path)).nodes[:1])


def test_a_step_is_the_nearest_number_of_12_bits_and_lets_gradients_pass() -> None:
    step = Step(1.0, True)
    x = torch.rand(1000, dtype=torch.float64).mul(100).add(1e-3).requires_grad_()
    made = step(x)
    made.sum().backward()
    assert short(made.detach().numpy())
    assert float(((made - x).abs() / x).max()) <= 2.0**-SIGNIFICANT_BITS
    assert torch.equal(x.grad, torch.ones(1000, dtype=torch.float64))


@pytest.mark.parametrize(("bits", "share"), [(1, 1.0), (2, 1.5)])
def test_one_and_two_bits_have_the_best_step_of_every_channel(bits: int, share: float) -> None:
    torch.manual_seed(0)
    net = chain(a=nn.Linear(5, 4), relu=nn.ReLU(), b=nn.Linear(4, 3))
    made = run(net, VECTOR, per_channel=True, layers={"a": {"weight_bits": bits}})
    mean = net.a.weight.detach().abs().mean(1).numpy()
    assert np.allclose(scales_of(made, "a_weight"), share * mean, rtol=2.0**-SIGNIFICANT_BITS)
    assert_integers(made, VECTOR)


def test_free_scales_are_closer_to_the_float_network() -> None:
    torch.manual_seed(0)
    net = chain(a=nn.Linear(5, 6), relu=nn.ReLU(), b=nn.Linear(6, 3))
    with torch.no_grad():
        for layer in (net.a, net.b):  # just above a power of two, which doubles the steps
            layer.weight *= 1.01 / layer.weight.abs().max()
        x = VECTOR.test[0][:40]
        want = net(torch.from_numpy(x)).numpy()
    errors = []
    for scales in ("power-of-two", "free"):
        made = run(net, VECTOR, scales=scales, weight_bits=4, activation_bits=5)
        errors.append(np.abs(np.load(made.golden_path)["outputs"][:40] - want).mean())
    assert errors[1] < 0.8 * errors[0]


# ---------------------------------------------------------------- adversarial


@pytest.mark.parametrize("per_channel", [False, True])
def test_balanced_and_dead_rows_and_huge_ratios_are_exact(per_channel: bool) -> None:
    torch.manual_seed(0)
    net = Forward(
        lambda net, x: net.last(net.relu(net.rows(x)) + net.relu(net.zero(x))),
        rows=nn.Linear(5, 7),
        zero=nn.Linear(5, 7),
        last=nn.Linear(7, 3),
        relu=nn.ReLU(),
    )
    with torch.no_grad():
        net.rows.weight[0] = torch.tensor([1.0, -1.0, 0.5, -0.5, 0.0])
        net.rows.weight[1] = 0
        net.rows.bias[1] = 0.7
        for row, factor in enumerate((1e-6, 1e-3, 1.0, 40.0, 300.0), start=2):
            net.rows.weight[row] *= factor
        net.zero.weight.zero_()
    made = run(net, VECTOR, per_channel=per_channel, weight_bits=5, activation_bits=7)
    assert_integers(made, VECTOR)
    scales = scales_of(made, "rows_weight")
    assert scales.max() <= scales.min() * 2**8 * (1 + 2.0**-SIGNIFICANT_BITS) ** 2


@pytest.mark.parametrize("name", ["GELU", "Hardswish", "Tanh"])
def test_tables_hold_what_the_file_gives(name: str) -> None:
    net = chain(a=nn.Linear(5, 6), act=getattr(nn, name)(), b=nn.Linear(6, 3))
    assert_integers(run(net, VECTOR, activation_bits=7), VECTOR)


@needs("g++")
@pytest.mark.parametrize("name", ["functions_around_joins", "products"])
def test_joins_of_mixed_widths_are_exact_in_the_cpp_too(name: str) -> None:
    shape, classes = OPERATORS[name][1], 3
    names = {"functions_around_joins": "b", "products": "a"}
    layers = {names[name]: {"weight_bits": 3, "activation_bits": 9}}
    samples = data(shape, classes, samples=120)
    made = run(quantized.build(name), samples, per_channel=True, layers=layers)
    assert made.activation_bits[names[name]] == 9
    assert_integers(made, samples)
    design = convert(made, out=quantized.folder(), board=quantized.small_board(60))
    assert emulate(design, build_folder=quantized.folder()).max_error_lsb == 0


@cache
def fine() -> tuple[Quantized, Data]:
    """Sums whose steps are so fine that float32 takes some to the other side of a tie."""
    torch.manual_seed(1)
    net = chain(a=nn.Linear(64, 48), relu=nn.ReLU(), b=nn.Linear(48, 3))
    samples = data((64,), 3, samples=600, seed=1)
    layers = {"a": {"weight_bits": 8, "activation_bits": 15}, "b": {"weight_bits": 2}}
    return run(net, samples, per_channel=False, layers=layers), samples


def test_the_file_leaves_the_integers_at_ties_alone_by_one_step() -> None:
    made, samples = fine()
    assert made.float_bound is not None
    assert made.float_bound.ties > 0
    assert made.float_bound.largest_steps < 0.1 * made.float_bound.bound_steps
    assert 0 < made.float_bound.samples <= made.float_bound.ties
    assert 1 <= made.float_bound.output_lsb <= 48
    expected = assert_integers(made, samples)
    from_file = qonnx.execute(qonnx.load(made.onnx_path), samples.test[0])
    assert not np.array_equal(np.round(from_file, 9), np.round(expected, 9))


@needs("g++")
def test_ties_are_no_difference_between_integers_and_cpp() -> None:
    design = convert(fine()[0], out=quantized.folder(), board=quantized.small_board(60))
    assert emulate(design, build_folder=quantized.folder()).max_error_lsb == 0


# ---------------------------------------------------------------- the proof has teeth


def proof(made: Quantized, samples: Data, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
    """Prove the file against itself, with parts of the proof replaced."""
    real = integers(made, samples)
    for name, change in changes.items():
        monkeypatch.setattr(bounded, name, change)
    if "predict" not in changes:
        monkeypatch.setattr(bounded, "predict", lambda *args, **options: (real,))
    bounded.prove_bounded(None, made.onnx_path, samples.test[0], lambda *event: None)


def test_a_file_that_is_off_by_more_than_float32_explains_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    made, samples = fine()
    proof(made, samples, monkeypatch)  # as it is, it passes
    with pytest.raises(
        MismatchError, match=r"^quantize: the file in float32 must be within 0 steps of the integers"
    ):
        proof(made, samples, monkeypatch, float_bounds=lambda graph: dict.fromkeys(graph.tensors, 0.0))


def test_a_step_of_difference_far_from_a_tie_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    made, samples = fine()

    def beside(model: Any, x: Any, **options: Any) -> Any:
        context = qonnx.execute(model, x, **options)
        name = next(node.output[0] for node in model.graph.node if node.name == "relu_quant")
        context[name][3, 5] += scales_of(made, "relu_quant")[0]
        return context

    changed = type("changed", (), {**vars(qonnx), "execute": staticmethod(beside)})
    for name in ("load", "without_softmax"):
        setattr(changed, name, staticmethod(getattr(qonnx, name)))
    with pytest.raises(
        MismatchError, match=r"numbers of layer 'relu' are not; the first: sample 3, index \(5,\)"
    ):
        proof(made, samples, monkeypatch, qonnx=changed)


def test_torch_that_differs_from_the_integers_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    made, samples = fine()
    outputs = integers(made, samples)
    outputs[7, 1] += 1e-4
    with pytest.raises(
        MismatchError, match=r"^quantize: torch in float64 must equal the integers, but .* sample 7"
    ):
        proof(made, samples, monkeypatch, predict=lambda *args, **options: (outputs,))


def test_float32_keeps_to_the_bound_in_any_order_of_summing() -> None:
    made, samples = fine()
    graph = lower(qonnx.load(made.onnx_path))
    dense = next(node for node in graph.nodes if isinstance(node, Dense))
    tensor, rng = graph.inputs[0], np.random.default_rng(0)
    codes = inputs_lsb(graph, [samples.test[0]])[0]
    scale_x = np.float32(np.ldexp(tensor.scale[0], -tensor.dtype.fraction_bits))
    step = np.ldexp(dense.output.scale[0], -dense.output.dtype.fraction_bits)
    scale_w = np.float32(step / scale_x)
    x, w = codes.astype(np.float32) * scale_x, dense.weight.astype(np.float32) * scale_w
    exact = codes @ dense.weight.T
    worst = 0.0
    for _ in range(4):
        total = np.zeros(exact.shape, np.float32)
        for place in rng.permutation(w.shape[1]):
            total += x[:, place, None] * w[None, :, place]
        worst = max(worst, float(np.abs(total / step - exact).max()))
    quantizer = next(node for node in graph.nodes if isinstance(node, Rescale))
    assert 0 < worst <= float_bounds(graph)[dense.name]
    assert quantizer.output.name in float_bounds(graph)


# ---------------------------------------------------------------- refusals


def test_other_scales_are_refused() -> None:
    with pytest.raises(ConfigError) as error:
        run(chain(a=nn.Linear(5, 3)), VECTOR, scales="log")
    assert str(error.value) == (
        "quantize: scales must be one of power-of-two, free, not 'log'; power-of-two needs no multipliers"
    )


def test_a_sign_needs_a_power_of_two() -> None:
    net = chain(a=nn.Linear(5, 4), flat=nn.Flatten(), b=nn.Linear(4, 3))
    with pytest.raises(UnsupportedError) as error:
        run(net, VECTOR, activation_bits=1)
    assert str(error.value) == (
        "quantize: quantizer at 'a' must have 2 bits or more, not 1, where numbers can be negative and scales are free"
        '; set its activation_bits to 2, or scales = "power-of-two"'
    )


def test_results_that_float32_does_not_hold_are_refused() -> None:
    samples = data((64,), 3, samples=60)
    with pytest.raises(UnsupportedError) as error:
        run(chain(a=nn.Linear(64, 3)), samples, weight_bits=16, input_bits=16)
    reached = str(error.value).split("reach ")[1].split(";")[0]
    assert str(error.value) == (
        f"quantize: results must be below 2**22 steps for float32 to hold them, not reach {reached}; "
        "lower weight_bits or activation_bits"
    )


def test_the_weights_file_takes_powers_of_two_alone() -> None:
    with pytest.raises(UnsupportedError, match=r"^qonnx: scales of 'conv1.weight' must be powers of two"):
        qonnx.weights(qonnx.load(digits(False).onnx_path))
