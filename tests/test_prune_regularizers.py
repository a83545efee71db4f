"""Each regularizer against a slow, literal transcription of its formula; then laws and adversarial training loops."""

from __future__ import annotations

import copy
import io
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from networks import Forward
from regularizer_formulas import LAMBDA, NETS, Literal, conv, in_place, loss_of, mlp, residual, traced
from torch import fx, nn
from torch.nn import functional

from flow import network
from flow.errors import ConfigError
from flow.prune.regularizers import REGULARIZERS


def optimizer_of(kind: str, model: nn.Module) -> torch.optim.Optimizer:
    if kind == "sgd":
        return torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=0.01)
    return torch.optim.AdamW(model.parameters(), lr=0.01)


def train_step(model: nn.Module, optimizer: torch.optim.Optimizer, x: torch.Tensor) -> None:
    optimizer.zero_grad()
    loss_of(model(x)).backward()
    optimizer.step()


def attached(name: str, model: Any, **options: Any) -> tuple[Any, torch.optim.Optimizer]:
    regularizer = REGULARIZERS[name](model, strength=options.pop("strength", LAMBDA), **options)
    optimizer = optimizer_of("sgd", model)
    regularizer.attach(optimizer)
    return regularizer, optimizer


def assert_same(ours: nn.Module, theirs: nn.Module) -> None:
    want = theirs.state_dict()
    for name, value in ours.state_dict().items():
        torch.testing.assert_close(
            value, want[name], rtol=1e-6, atol=1e-12, msg=lambda text, n=name: f"{n}: {text}"
        )


@pytest.mark.parametrize("name", REGULARIZERS)
@pytest.mark.parametrize("make", NETS, ids=lambda make: make.__name__)
def test_several_steps_equal_the_formula_written_out(make: Callable, name: str) -> None:
    ours, x = traced(make)
    theirs, literal = copy.deepcopy(ours), Literal(name)
    optimizer, other = optimizer_of("sgd", ours), optimizer_of("sgd", theirs)
    REGULARIZERS[name](ours, strength=LAMBDA).attach(optimizer)
    start = copy.deepcopy(theirs)
    for turn in range(3):
        batch = x.roll(turn, 1) * (1 + turn)
        sensitivities = literal.measure(theirs, batch)
        train_step(ours, optimizer, batch)
        train_step(theirs, other, batch)
        literal.decay(theirs, sensitivities)
        assert_same(ours, theirs)
    moved = zip(start.parameters(), ours.parameters(), strict=True)
    assert all(not torch.equal(a, b) for a, b in moved)


@pytest.mark.parametrize("name", REGULARIZERS)
def test_decay_biases_acts_on_biases_and_batch_norm_by_the_same_formula(name: str) -> None:
    ours, x = traced(residual)
    theirs, literal = copy.deepcopy(ours), Literal(name, biases=True)
    optimizer, other = optimizer_of("adamw", ours), optimizer_of("adamw", theirs)
    REGULARIZERS[name](ours, strength=LAMBDA, decay_biases=True).attach(optimizer)
    for _ in range(2):
        sensitivities = literal.measure(theirs, x)
        assert set(sensitivities) == {name for name, _ in theirs.named_parameters()}
        train_step(ours, optimizer, x)
        train_step(theirs, other, x)
        literal.decay(theirs, sensitivities)
        assert_same(ours, theirs)


@pytest.mark.parametrize("name", REGULARIZERS)
def test_strength_zero_changes_nothing(name: str) -> None:
    ours, x = traced(residual)
    plain = copy.deepcopy(ours)
    _, optimizer = attached(name, ours, strength=0.0, decay_biases=True)
    train_step(ours, optimizer, x)
    train_step(plain, optimizer_of("sgd", plain), x)
    for a, b in zip(ours.parameters(), plain.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", REGULARIZERS)
def test_what_is_sensitive_enough_is_not_decayed(name: str) -> None:
    """Scale the inputs and the outputs up so that every S is at least 1."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.rand(parameter.shape) + 100)
    x = torch.rand(4, 3).double() + 100
    ours = network.trace(model, x).train()
    x = x[:1] if name in ("neuron-lobster", "serene") else x  # means over the batch shrink what they measure
    plain = copy.deepcopy(ours)
    # the output layer has dy/dp = 1, whatever the scale: of serene only the hidden layer can be sensitive
    layers = ["0"] if name.startswith("serene") and name != "serene-local" else ["0", "1"]
    _, optimizer = attached(name, ours)

    def step(net: nn.Module, through: torch.optim.Optimizer) -> None:
        through.zero_grad()
        (net(x) * torch.tensor([3.0, 5.0])).sum().backward()
        through.step()

    step(ours, optimizer)
    step(plain, optimizer_of("sgd", plain))
    for layer in layers:
        assert torch.equal(ours.get_submodule(layer).weight, plain.get_submodule(layer).weight)


@pytest.mark.parametrize("name", REGULARIZERS)
def test_a_decay_of_at_most_one_flips_no_sign_and_keeps_zeros(name: str) -> None:
    ours, x = traced(conv)
    with torch.no_grad():
        ours.get_submodule("0").weight[:, 0] = 0
    _, optimizer = attached(name, ours, strength=1.0)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    before = [parameter.clone() for parameter in ours.parameters()]
    train_step(ours, optimizer, x)
    for old, new in zip(before, ours.parameters(), strict=True):
        assert (old * new >= 0).all()
        assert (new.abs() <= old.abs()).all()
        assert not new[old == 0].any()


@pytest.mark.parametrize("name", REGULARIZERS)
def test_other_passes_between_steps_do_not_count(name: str) -> None:
    ours, x = traced(mlp)
    plain = copy.deepcopy(ours)
    _, optimizer = attached(name, ours)
    _, other = attached(name, plain)
    for _ in range(2):
        ours.eval()
        ours(x + 1)
        ours.train()
        with torch.no_grad():
            ours(x - 1)
        loss_of(copy.deepcopy(ours)(x + 2)).backward()
        train_step(ours, optimizer, x)
        train_step(plain, other, x)
    assert_same(ours, plain)


@pytest.mark.parametrize("name", ["lobster", "neuron-lobster", "serene-local"])
def test_accumulated_halves_of_a_batch_are_the_whole_batch(name: str) -> None:
    ours, x = traced(conv)
    x = torch.cat([x, -x[:1]])
    whole = copy.deepcopy(ours)
    target = torch.arange(4) % 3
    for model, parts in ((ours, 2), (whole, 1)):
        _, optimizer = attached(name, model)
        optimizer.zero_grad()
        for chosen in torch.arange(4).chunk(parts):
            functional.cross_entropy(model(x[chosen]), target[chosen], reduction="sum").div(4).backward()
        optimizer.step()
    assert_same(ours, whole)


@pytest.mark.parametrize("name", ["sensitivity", "sensitivity-lower-bound", "serene", "serene-lower-bound"])
def test_accumulated_passes_give_the_mean_of_their_sensitivities(name: str) -> None:
    ours, x = traced(conv)
    theirs, literal = copy.deepcopy(ours), Literal(name)
    _, optimizer = attached(name, ours)
    other = optimizer_of("sgd", theirs)
    parts = [x, 3 * x.flip(0)]
    found = [literal.measure(theirs, part) for part in parts]
    for part in parts:
        loss_of(ours(part)).backward()
        loss_of(theirs(part)).backward()
    optimizer.step()
    other.step()
    literal.decay(theirs, {key: (found[0][key] + found[1][key]) / 2 for key in found[0]})
    assert_same(ours, theirs)


@pytest.mark.parametrize("name", REGULARIZERS)
def test_frozen_parameters_and_those_of_another_optimizer_are_not_decayed(name: str) -> None:
    ours, x = traced(mlp)
    first, last = ours.get_submodule("0"), ours.get_submodule("2")
    first.weight.requires_grad_(False)
    before = first.weight.clone(), last.weight.clone()
    regularizer = REGULARIZERS[name](ours, strength=0.5)
    optimizer = torch.optim.SGD([first.weight, first.bias], lr=0.0)
    regularizer.attach(optimizer)
    loss_of(ours(x)).backward()
    first.weight.grad = torch.zeros_like(first.weight)  # left over from before it was frozen
    optimizer.step()
    assert torch.equal(first.weight, before[0])
    assert torch.equal(last.weight, before[1])


@pytest.mark.parametrize("name", REGULARIZERS)
def test_a_layer_without_gradient_is_not_decayed(name: str) -> None:
    layers = {"used": nn.Linear(3, 2), "unused": nn.Linear(3, 2)}
    model = Forward(lambda net, x: (net.used(x), net.unused(x)), **layers).double()
    ours = fx.symbolic_trace(model).train()
    before = ours.get_submodule("unused").weight.clone()
    _, optimizer = attached(name, ours, strength=0.5)
    loss_of(ours(torch.rand(4, 3).double())[0]).backward()
    optimizer.step()
    assert torch.equal(ours.get_submodule("unused").weight, before)


@pytest.mark.parametrize("name", REGULARIZERS)
def test_bfloat16_and_channels_last_change_little(name: str) -> None:
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 8, 3), nn.ReLU(inplace=True), nn.Conv2d(8, 4, 3), nn.Flatten(), nn.Linear(64, 3))
    x = torch.randn(16, 3, 8, 8)
    plain = network.trace(nn.Sequential(*layers), x).train()
    ours = copy.deepcopy(plain).to(memory_format=torch.channels_last)
    _, optimizer = attached(name, ours, strength=0.5)
    _, other = attached(name, plain, strength=0.5)
    with torch.autocast("cpu", torch.bfloat16):
        loss = loss_of(ours(x.contiguous(memory_format=torch.channels_last)))
    loss.backward()
    optimizer.step()
    train_step(plain, other, x)
    for a, b in zip(ours.parameters(), plain.parameters(), strict=True):
        assert a.dtype == torch.float32
        assert (a - b).norm() < 0.02 * b.norm()
    assert ours.get_submodule("0").weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("name", REGULARIZERS)
def test_detach_leaves_no_trace(name: str) -> None:
    ours, x = traced(in_place)
    plain = copy.deepcopy(ours)
    regularizer, optimizer = attached(name, ours)
    other = optimizer_of("sgd", plain)
    loss = loss_of(ours(x))
    regularizer.detach()
    loss.backward()
    optimizer.step()
    train_step(plain, other, x)
    assert_same(ours, plain)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in ours.modules())
    assert not optimizer._optimizer_step_post_hooks


@pytest.mark.parametrize("name", REGULARIZERS)
def test_attached_networks_can_be_copied_and_pickled_without_their_hooks(name: str) -> None:
    ours, x = traced(mlp)
    _, optimizer = attached(name, ours)
    file = io.BytesIO()
    torch.save(ours, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    assert torch.equal(loaded.train()(x), ours(x))
    optimizer.step()


@pytest.mark.parametrize("name", REGULARIZERS)
def test_a_saved_state_goes_on_exactly(name: str) -> None:
    ours, x = traced(conv)
    regularizer, optimizer = attached(name, ours)
    train_step(ours, optimizer, x)
    file = io.BytesIO()
    torch.save(regularizer.state_dict(), file)
    file.seek(0)
    again = copy.deepcopy(ours)
    resumed, other = attached(name, again)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    resumed.load_state_dict(torch.load(file, weights_only=True))
    for _ in range(2):
        train_step(ours, optimizer, x)
        train_step(again, other, x)
    for a, b in zip(ours.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)


def test_without_its_state_neuron_lobster_goes_on_differently() -> None:
    ours, x = traced(conv)
    regularizer, optimizer = attached("neuron-lobster", ours)
    train_step(ours, optimizer, x)
    assert set(regularizer.state_dict()["buffers"]) == {"0", "3", "5"}
    again = copy.deepcopy(ours)
    _, other = attached("neuron-lobster", again)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    train_step(ours, optimizer, x)
    train_step(again, other, x)
    assert not torch.equal(ours.get_submodule("0").weight, again.get_submodule("0").weight)


def test_the_lower_bound_is_at_most_the_sensitivity() -> None:
    model, x = traced(conv)
    weights = []
    for name in ("sensitivity-lower-bound", "sensitivity"):
        ours = copy.deepcopy(model)
        _, optimizer = attached(name, ours, strength=1.0)
        optimizer.param_groups[0].update(lr=0.0)
        train_step(ours, optimizer, x / 10)
        weights.append(ours.get_submodule("0").weight.abs())
    assert (weights[0] <= weights[1] + 1e-12).all()
    assert (weights[0] < weights[1]).any()


def test_attaching_again_lets_go_of_the_first_optimizer() -> None:
    ours, x = traced(mlp)
    regularizer, first = attached("lobster", ours)
    second = optimizer_of("adamw", ours)
    regularizer.attach(second)
    plain = copy.deepcopy(ours)
    train_step(ours, first, x)
    train_step(plain, optimizer_of("sgd", plain), x)
    assert_same(ours, plain)
    assert not first._optimizer_step_post_hooks


@pytest.mark.parametrize("name", REGULARIZERS)
def test_an_optimizer_of_another_network_is_rejected(name: str) -> None:
    ours, _ = traced(mlp)
    optimizer = torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.1)
    emptied = torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.1)
    emptied.param_groups.clear()
    for wrong in (optimizer, emptied):
        with pytest.raises(
            ConfigError, match="prune: optimizer must hold parameters of the network, not none of them; "
        ):
            REGULARIZERS[name](ours, strength=1e-4).attach(wrong)


@pytest.mark.parametrize("strength", [-1e-4, math.nan, math.inf])
def test_a_strength_that_is_negative_or_not_finite_is_rejected(strength: float) -> None:
    ours, _ = traced(mlp)
    with pytest.raises(
        ConfigError, match=f"prune: regularizer_lambda must be finite and at least 0, not {strength}; "
    ):
        REGULARIZERS["lobster"](ours, strength=strength)
