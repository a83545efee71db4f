"""Calibration: ranges against slow transcriptions, the laws of the least error, biases that are corrected."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import quantized
import torch
from brevitas.graph.calibrate import calibration_mode
from operator_networks import chain
from quantized import Forward, data
from torch import fx, nn

from flow import network
from flow.errors import ConfigError
from flow.quantize import calibration, observed, quantize
from flow.quantize.build import calibrated
from flow.quantize.calibration import Calibration, percentile_of, range_parameter, set_weight_ranges
from flow.quantize.correction import correct_biases, means
from flow.quantize.layers import inputs_of, quantizer
from flow.quantize.observed import Observed, is_quantizer, observe
from flow.quantize.prepare import prepared
from flow.quantize.ranges import calibrate
from flow.quantize.twin import quantized_copy
from flow.quantize.widths import Widths

VECTOR = data((5,), 3, samples=120)


def step_of(module: Any) -> float:
    return float(module.act_quant.scale())


def slow(values: np.ndarray, bits: int, signed: bool) -> float:
    """The least squared error over powers of two, number by number."""
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    top = math.ceil(math.log2(max(abs(v) for v in values)))
    found = []
    for exponent in range(top + 2, top - 32, -1):
        step = 2.0 ** (exponent - (bits - 1 if signed else bits))
        found.append(sum((min(max(round(v / step), low), high) * step - v) ** 2 for v in values.tolist()))
    return min(found)


def made(net: nn.Module, samples: torch.Tensor, bits: int = 3, free: bool = False) -> tuple[Any, Any, Widths]:
    graph = network.trace(net, samples[:2])
    graph = prepared(graph, network.shapes(graph, samples[:2]))
    names = [str(node.target) for node, _ in network.weighted(graph)]
    widths = Widths(bits, bits, 8, dict.fromkeys(names, 24), free=free)
    return graph, quantized_copy(graph, widths)[0], widths


def errors(quant: fx.GraphModule, samples: torch.Tensor) -> dict[str, float]:
    """Return the squared error of every quantizer on what it reads in the network that is not quantized."""
    kept = {path: parameter.detach().clone() for path, parameter in quant.named_parameters()}
    found = observe(quant, (samples,))
    with torch.no_grad(), network.evaluating(quant):
        for path, parameter in quant.named_parameters():
            parameter.copy_(kept[path])  # observing sets ranges
        return {
            name: float(
                (quant.get_submodule(name)(x.values).value.double() - x.values.double()).square().sum()
            )
            for name, x in found.items()
        }


def slow_means(quant: Any, names: list[str], samples: torch.Tensor) -> dict[str, torch.Tensor]:
    """The mean outputs of layers, all samples at once."""
    seen: dict[str, torch.Tensor] = {}
    hooks = [
        quant.get_submodule(name).register_forward_hook(
            lambda _m, _a, made, name=name: seen.update({name: getattr(made, "value", made).double()})
        )
        for name in names
    ]
    with torch.no_grad(), network.evaluating(quant):
        quant(samples)
    for hook in hooks:
        hook.remove()
    return {name: made.transpose(0, 1).flatten(1).mean(1) for name, made in seen.items()}


def residual() -> nn.Module:
    torch.manual_seed(0)
    return Forward(
        lambda net, x: net.c(net.relu(net.a(x)) + net.b(x)),
        **{"a": nn.Linear(5, 9), "b": nn.Linear(5, 9, bias=False), "c": nn.Linear(9, 3), "relu": nn.ReLU()},
    )


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("bits", [2, 4])
def test_mse_is_the_least_error_of_a_slow_transcription(bits: int, signed: bool) -> None:
    values = torch.randn(300, generator=torch.Generator().manual_seed(bits))
    values = values if signed else values.relu()
    module = quantizer(bits, signed)
    with calibration_mode(module):
        module(values)
    module.eval()
    best = calibration.least_error(module, Observed(values, float(values.abs().max())))
    got = calibration.squared_error(module, values, best)
    assert got == pytest.approx(slow(values.double().numpy(), bits, signed), rel=1e-6)
    assert math.log2(step_of(module)).is_integer()


@pytest.mark.parametrize("percent", [50.1, 90, 99.9, 100])
def test_a_percentile_is_counted(percent: float) -> None:
    values = torch.randn(777, generator=torch.Generator().manual_seed(1))
    got = percentile_of(values, percent)
    size = sorted(values.abs().tolist())
    assert got in size
    assert sum(v <= got for v in size) >= percent / 100 * 777 > sum(v < got for v in size)


@pytest.mark.parametrize("free", [False, True])
def test_mse_is_never_worse_than_max_or_a_percentile(free: bool) -> None:
    samples = torch.from_numpy(VECTOR.train[0])
    found = {}
    for method in calibration.METHODS:
        _, quant, _ = made(residual(), samples, free=free)
        calibrate(quant, (samples,), Calibration(method, 90))
        found[method] = errors(quant, samples)
    assert len(found["mse"]) == 3
    for name, error in found["mse"].items():
        assert 0 < error <= min(found["max"][name], found["percentile"][name]) * (1 + 1e-6)


@pytest.mark.parametrize("method", ["percentile", "mse"])
def test_a_shared_quantizer_has_one_power_of_two_for_all_sides_and_the_order_of_calls_does_not_matter(
    method: str,
) -> None:
    samples = torch.from_numpy(VECTOR.train[0])
    steps = []
    for _ in range(2):
        _, quant, _ = made(residual(), samples)
        calibrate(quant, (samples,), Calibration(method))
        steps.append({n: step_of(m) for n, m in quant.named_modules() if is_quantizer(m)})
    assert steps[0] == steps[1]
    assert all(math.log2(step).is_integer() for step in steps[0].values())
    assert len(observe(quant, (samples,))["quant_add"].values) == 2 * 9 * len(samples)


@pytest.mark.parametrize("method", ["percentile", "mse"])
def test_outliers_on_one_side_are_clipped_and_dead_activations_have_the_range_1(method: str) -> None:
    net = chain(a=nn.Linear(2, 2), relu=nn.ReLU(), b=nn.Linear(2, 2))
    with torch.no_grad():
        net.a.weight.copy_(torch.eye(2))
        net.a.bias.zero_()
    samples = torch.rand(4000, 2, generator=torch.Generator().manual_seed(0))
    samples[7, 0] = 4.0
    _, quant, _ = made(net, samples, bits=4)
    calibrate(quant, (samples,), Calibration(method))
    assert step_of(quant.relu) == 2.0**-4
    with torch.no_grad():
        net.a.bias.fill_(-100.0)
    _, quant, _ = made(net, samples, bits=4)
    calibrate(quant, (samples,), Calibration(method))
    assert float(range_parameter(quant.relu)) == 0


def test_huge_tensors_are_sampled_and_their_largest_number_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observed, "KEPT", 200)
    samples = torch.from_numpy(VECTOR.train[0])
    _, quant, _ = made(residual(), samples)
    first, second = observe(quant, (samples,)), observe(quant, (samples,))
    assert all(torch.equal(first[name].values, second[name].values) for name in first)
    assert {name: len(seen.values) for name, seen in first.items()} == dict.fromkeys(first, 198) | {
        "quant_add": 2 * 198  # of two tensors; 66 numbers of each of three batches
    }
    assert first["quant_input"].largest == float(samples.abs().max())
    assert set(first["quant_input"].values.tolist()) <= set(samples.flatten().tolist())


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("scales", ["power-of-two", "free"])
def test_weights_have_no_larger_error_and_the_file_stays_exact(scales: str, per_channel: bool) -> None:
    net = residual()
    with torch.no_grad():
        net.a.weight[0, 0] = 30.0 if scales == "power-of-two" else 1.0
        net.b.weight.zero_()
    samples = torch.from_numpy(VECTOR.train[0])
    graph, _, widths = made(net, samples, free=scales == "free")
    widths = Widths(3, 3, 8, widths.bias, per_channel, scales == "free")
    found = {}
    for mse in (False, True):
        quant = quantized_copy(graph, widths)[0]
        if mse:
            set_weight_ranges(quant)
        with torch.no_grad():
            found[mse] = [
                float(
                    (quant.get_submodule(n).quant_weight().value - graph.get_submodule(n).weight)
                    .square()
                    .sum()
                )
                for n in widths.bias
            ]
    assert all(after <= before for before, after in zip(found[False], found[True], strict=True))
    assert found[True][0] < found[False][0]
    options = {"calibration": "mse", "bias_correction": True, "scales": scales, "per_channel": per_channel}
    quantize(net, samples[:2], out=quantized.folder(), data=VECTOR, epochs=0, weight_bits=3, **options)


@pytest.mark.parametrize("shape", [(5,), (2, 5, 4)])
def test_bias_correction_takes_the_mean_error_of_3_bits_to_nearly_zero(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    samples = torch.from_numpy(data(shape, 3).train[0])
    net = (
        residual()
        if len(shape) == 1
        else chain(a=nn.Conv2d(2, 5, 3, bias=False), relu=nn.ReLU(), flatten=nn.Flatten(), b=nn.Linear(30, 3))
    )
    graph, quant, widths = made(net, samples)
    calibrate(quant, (samples,))
    names = list(widths.bias)

    def error() -> list[float]:
        quant.eval()
        with torch.no_grad():
            want, got = means(graph, (samples,)), slow_means(quant, names, samples)
        assert torch.allclose(want[names[-1]], graph(samples).mean(0).double(), atol=1e-6)
        return [float((want[name] - got[name]).abs().max()) for name in names]

    before = error()
    correct_biases(quant, graph, (samples,))
    steps = [
        float((source.scale * quant.get_submodule(name).quant_weight().scale).max())
        for name, source in zip(names, inputs_of(quant, names, (samples[:1],)), strict=True)
    ]
    assert all(after <= step / 2 + 1e-6 for after, step in zip(error(), steps, strict=True))
    assert max(error()) < 0.3 * max(before)


def test_bias_correction_never_leaves_more_than_it_found_in_the_first_layer_nor_half_a_step_elsewhere() -> (
    None
):
    samples = torch.from_numpy(VECTOR.train[0])
    for seed in range(3):
        torch.manual_seed(seed)
        net = chain(a=nn.Linear(5, 8), relu=nn.ReLU(), b=nn.Linear(8, 4))
        graph, quant, _ = made(net, samples)
        calibrate(quant, (samples,), Calibration("mse"))
        want, before = means(graph, (samples,)), slow_means(quant, ["a", "b"], samples)
        correct_biases(quant, graph, (samples,))
        after = slow_means(quant, ["a", "b"], samples)
        assert bool(((after["a"] - want["a"]).abs() <= (before["a"] - want["a"]).abs() + 1e-6).all())
        for name, source in zip("ab", inputs_of(quant, ["a", "b"], (samples[:1],)), strict=True):
            half = float(source.scale * quant.get_submodule(name).quant_weight().scale) / 2
            assert float((after[name] - want[name]).abs().max()) <= half + 1e-6


@pytest.mark.parametrize("method", calibration.METHODS)
def test_biases_that_do_not_fit_at_first_are_corrected_as_wide_ones_are(method: str) -> None:
    samples = torch.from_numpy(VECTOR.train[0])
    net = residual()
    with torch.no_grad():
        net.a.bias.mul_(20)
    graph, _, widths = made(net, samples)
    found = []
    for bits in (1, 24):
        narrow = replace(widths, bias=dict.fromkeys(widths.bias, bits))
        quant, grown, _ = calibrated(graph, narrow, (samples,), Calibration(method, bias_correction=True))
        assert all(width > 1 for width in grown.bias.values())
        found.append((grown.bias, quant.state_dict()))
    assert max(found[0][0].values()) < 24
    assert all(torch.equal(value, found[1][1][path]) for path, value in found[0][1].items())


def test_a_concatenation_has_one_range_for_both_sides_and_layers_of_zeros_stay_zeros() -> None:
    samples = torch.from_numpy(VECTOR.train[0])
    for scale, zero in ((1.0, False), (30.0, False), (1.0, True)):
        torch.manual_seed(0)
        net = Forward(
            lambda net, x: net.c(torch.cat([net.a(x), net.b(x)], 1)),
            **{"a": nn.Linear(5, 4), "b": nn.Linear(5, 4), "c": nn.Linear(8, 3)},
        )
        with torch.no_grad():
            net.b.weight.mul_(0 if zero else scale)
            net.b.bias.mul_(0 if zero else scale)
        graph, quant, _ = made(net, samples, bits=4)
        calibrate(quant, (samples,), Calibration("percentile", 99))
        seen = observe(quant, (samples,))["quant_cat"].values
        assert len(seen) == 8 * len(samples)
        rank = math.ceil(0.99 * len(seen))
        calibrate(quant, (samples,), Calibration("percentile", 99))
        assert step_of(quant.quant_cat) == 2.0 ** (
            math.ceil(math.log2(sorted(seen.abs().tolist())[rank - 1])) - 3
        )
        if zero:
            calibrate(quant, (samples,), Calibration("mse"))
            correct_biases(quant, graph, (samples,))
            assert not quant.b.bias.any()


@pytest.mark.parametrize("bits", [1, 2])
def test_weights_of_1_and_2_bits_keep_their_rule(bits: int) -> None:
    samples = torch.from_numpy(VECTOR.train[0])
    steps = []
    for method in ("max", "mse"):
        _, quant, _ = made(residual(), samples, bits=bits)
        calibrate(quant, (samples,), Calibration(method))
        steps.append([float(layer.quant_weight().scale) for layer in (quant.a, quant.b, quant.c)])
    assert steps[0] == steps[1]


def test_all_three_are_options_of_quantize_and_the_file_equals_torch() -> None:
    net = chain(
        a=nn.Conv2d(2, 4, 3),
        relu=nn.ReLU(),
        b=nn.Conv2d(4, 4, 3),
        r=nn.ReLU(),
        f=nn.Flatten(),
        c=nn.Linear(16, 3),
    )
    samples = data((2, 6, 6), 3, samples=60)
    example = torch.from_numpy(samples.train[0][:2])
    widths = {"weight_bits": 3, "activation_bits": 3}
    for options in (
        {"calibration": "percentile", "percentile": 95.0},
        {"calibration": "mse", "bias_correction": True, "epochs": 1},
    ):
        made = quantize(
            net, example, out=quantized.folder(), data=samples, **{"epochs": 0, **widths, **options}
        )
        assert made.samples == 60 and made.float_bound is None
    with pytest.raises(ConfigError, match="calibration must be one of max, percentile, mse, not 'kl'"):
        quantize(net, example, out=quantized.folder(), data=samples, calibration="kl")


def test_options_out_of_range_are_refused() -> None:
    with pytest.raises(ConfigError) as error:
        Calibration("entropy")
    assert str(error.value) == (
        "quantize: calibration must be one of max, percentile, mse, not 'entropy'; mse suits 2 to 5 bits"
    )
    for value in (50, 100.1, math.nan):
        with pytest.raises(ConfigError) as error:
            Calibration("percentile", value)
        assert str(error.value) == f"quantize: percentile must be in (50, 100], not {value}; 99.9 is usual"
