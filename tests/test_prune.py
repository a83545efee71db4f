"""Pruning: groups go together, ratios and bounds hold, what is pruned stays zero, messages are whole."""

from __future__ import annotations

import itertools
import math

import networks
import numpy as np
import pytest
import torch
from networks import Forward, fill
from torch import nn

from flow import network
from flow.errors import ConfigError, UnsupportedError
from flow.network.channels import analyse
from flow.prune import prune
from flow.simplify import simplify
from flow.types import Data

CRITERIA = ("magnitude", "magnitude-l1", "taylor", "random")
VECTOR = torch.zeros(2, 6)
IMAGE = torch.zeros(2, 2, 6, 6)
QUICK = {"pwe": 1, "epochs": 18, "batch_size": 32, "learning_rate": 1e-2}
ONE_STEP = {"pwe": 1, "epochs": 1, "batch_size": 8, "learning_rate": 0.1}


def refusal(
    model: nn.Module | None = None, example: torch.Tensor = VECTOR, error=ConfigError, **options
) -> str:
    with pytest.raises(error) as caught:
        prune(model or networks.mlp(), example, **options)
    return str(caught.value)


def depthwise_net() -> nn.Module:
    """Return float32 convs, a depthwise conv, a sum and a concatenation, with BatchNorm, in 3 classes."""

    def forward(net, x):
        stem = torch.relu(net.norm(net.stem(x)))
        branch = net.point(torch.relu(net.depth(torch.relu(net.up(stem)))))
        both = torch.cat([torch.relu(stem + branch), torch.relu(net.side(x))], 1)
        return net.fc(torch.flatten(net.pool(both), 1))

    torch.manual_seed(0)
    return Forward(
        forward,
        stem=nn.Conv2d(2, 5, 3, padding=1, bias=False),
        norm=nn.BatchNorm2d(5),
        up=nn.Conv2d(5, 6, 1),
        depth=nn.Conv2d(6, 6, 3, padding=1, groups=6),
        point=nn.Conv2d(6, 5, 1),
        side=nn.Conv2d(2, 3, 1),
        pool=nn.AdaptiveAvgPool2d(1),
        fc=nn.Linear(8, 3),
    )


def zero_rows(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Return the rows whose weights and biases are all zero, by layer."""
    found = {}
    for node, module in network.weighted(model):
        parts = [module.weight.flatten(1)] + ([module.bias[:, None]] if module.bias is not None else [])
        rows = tuple(torch.nonzero(~torch.cat(parts, 1).any(1)).flatten().tolist())
        if rows:
            found[str(node.target)] = rows
    return found


def widths(model: nn.Module) -> dict[str, int]:
    return {str(node.target): len(module.weight) for node, module in network.weighted(model)}


def adversarial(shape: tuple[int, ...] = (6,), seed: int = 0) -> Data:
    """Return data whose training labels are wrong: every epoch makes the validation loss worse."""
    data = networks.clusters(60, shape, noise=0.1, seed=seed)
    return Data(data.name, (data.train[0], (data.train[1] + 1) % 3), data.validation, data.test)


def fitted(model: nn.Module, data: Data) -> nn.Module:
    """Return ``model`` after some full-batch steps on the validation samples."""
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    x, y = (torch.from_numpy(part) for part in data.validation)
    for _ in range(30):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    return model


# ---------------------------------------------------------------- at once, without data


@pytest.mark.parametrize("ratio", [0, 0.01, 0.1, 0.25, 1 / 3, 0.5, 0.7, 0.8])
@pytest.mark.parametrize(
    "make", [networks.mlp, depthwise_net, networks.residual], ids=lambda make: make.__name__
)
def test_the_ratio_is_met_within_one_channel_and_never_exceeded(make, ratio):
    model = make()
    example = VECTOR if make is networks.mlp else IMAGE
    result = prune(model, example, pruning_ratio=ratio)
    gone = result.channels_before - result.channels_after
    assert gone <= ratio * result.channels_before + 1e-9
    reachable = result.channels_before - {"mlp": 2, "depthwise_net": 3, "residual": 2}[make.__name__]
    assert gone > min(ratio * result.channels_before, reachable + 1) - 1
    assert zero_rows(result.model) == result.pruned
    assert result.stopped == "pruning_ratio is reached"
    assert (result.accuracy, result.history) == (None, ())


def test_a_ratio_of_decimals_is_not_rounded_down():
    """0.29 * 100 is 28.999999999999996 in binary."""
    result = prune(networks.mlp(hidden=50), VECTOR, pruning_ratio=0.29)
    assert (result.channels_before, result.channels_after) == (100, 71)


def test_channels_that_may_not_go_are_replaced_by_the_next():
    torch.manual_seed(0)
    layers = [nn.Linear(6, 1), nn.ReLU(), nn.Linear(1, 9), nn.ReLU(), nn.Linear(9, 2)]
    result = prune(nn.Sequential(*layers), VECTOR, pruning_ratio=0.8)
    assert {name: len(rows) for name, rows in result.pruned.items()} == {"2": 8}


@pytest.mark.parametrize("ratio", [0.5, 0.99])
def test_the_last_channel_of_each_layer_stays(ratio):
    model = depthwise_net()
    for layer in (model.up, model.depth, model.side):
        with torch.no_grad():
            layer.weight.mul_(1e-6)
    result = prune(model, IMAGE, pruning_ratio=ratio)
    left = {name: count - len(result.pruned.get(name, ())) for name, count in widths(result.model).items()}
    assert min(left.values()) >= 1
    if ratio == 0.99:
        assert left == {"stem": 1, "up": 1, "depth": 1, "point": 1, "side": 1, "fc": 3}
        assert result.stopped == "no layer may lose its last channel"


def test_the_least_channels_go():
    model = networks.mlp()
    with torch.no_grad():
        model.fc1.weight[[2, 5]] *= 1e-3
        model.fc2.weight[[7]] *= 1e-3
    assert prune(model, VECTOR, pruning_ratio=3 / 16).pruned == {"fc1": (2, 5), "fc2": (7,)}


def test_coupled_channels_go_together():
    result = prune(networks.residual(width=6), IMAGE, pruning_ratio=0.6)
    assert result.pruned["stem"] == result.pruned["b"]
    assert "fc" not in result.pruned


def test_a_depthwise_conv_goes_with_the_layer_before_it():
    result = prune(depthwise_net(), IMAGE, pruning_ratio=0.6)
    assert result.pruned["up"] == result.pruned["depth"]
    assert result.pruned["stem"] == result.pruned["point"]


def test_the_groups_of_a_grouped_conv_lose_the_same_channels():
    layers = [nn.Conv2d(2, 4, 1), nn.Conv2d(4, 4, 1, groups=2), nn.Conv2d(4, 6, 1), nn.Conv2d(6, 2, 1)]
    result = prune(nn.Sequential(*layers), IMAGE, pruning_ratio=0.5)
    assert (result.channels_before, result.channels_after) == (10, 5)  # pairs count once
    small = simplify(result.model, IMAGE, samples=8)
    left = {name: count - len(result.pruned.get(name, ())) for name, count in widths(result.model).items()}
    assert widths(small.model) == left
    assert all(
        set(rows) == {(row + 2) % 4 for row in rows} for name, rows in result.pruned.items() if name in "01"
    )


def test_ignored_layers_stay_and_the_others_make_up_for_them():
    result = prune(networks.mlp(), VECTOR, pruning_ratio=0.4, ignored_layers=("fc1",))
    assert {name: len(rows) for name, rows in result.pruned.items()} == {"fc2": 6}
    assert (result.channels_before, result.channels_after) == (16, 10)


def test_a_layer_that_is_tied_to_an_ignored_one_stays():
    result = prune(networks.residual(), IMAGE, pruning_ratio=0.3, ignored_layers=("stem",))
    assert set(result.pruned) == {"a"}


def test_pruned_channels_leave_in_simplify():
    result = prune(depthwise_net(), IMAGE, pruning_ratio=0.5)
    small = simplify(result.model, IMAGE, samples=8)
    left = {name: count - len(result.pruned.get(name, ())) for name, count in widths(result.model).items()}
    assert widths(small.model) == left


@pytest.mark.parametrize("model", [nn.Sequential(nn.Linear(6, 2)), nn.Sequential(nn.Flatten(), nn.ReLU())])
def test_a_network_without_prunable_channels_stays(model):
    result = prune(model, VECTOR, pruning_ratio=0.9)
    assert (result.channels_before, result.channels_after, result.pruned) == (0, 0, {})


# ---------------------------------------------------------------- step by step, with data


def test_the_callers_model_and_data_are_untouched():
    model, data = depthwise_net(), networks.clusters(60, (2, 6, 6))
    model.train()
    model.norm.eval()
    model.side.weight.requires_grad_(False)
    before = networks.state(model)
    copies = [(x.copy(), y.copy()) for x, y in (data.train, data.validation, data.test)]
    prune(model, IMAGE, data=data, pruning_ratio=0.5, schedule="linear", **QUICK)
    networks.assert_untouched(model, before)
    for split, copy in zip((data.train, data.validation, data.test), copies, strict=True):
        assert all(np.array_equal(one, other) for one, other in zip(split, copy, strict=True))


@pytest.mark.parametrize("schedule", ["linear", "pwe"])
def test_the_same_seed_gives_the_same_weights(schedule):
    data = adversarial() if schedule == "pwe" else networks.clusters(60)

    def run(seed):
        torch.manual_seed(seed + 100)  # the state outside must not matter
        options = {**QUICK, "epochs": 6}
        options |= {"pruning_ratio": 0.5, "schedule": schedule, "twt": 0.5, "seed": seed}
        return prune(networks.mlp(), VECTOR, data=data, **options)

    first, second, other = run(3), run(3), run(4)
    assert (first.pruned, first.history) == (second.pruned, second.history)
    for name, value in first.model.state_dict().items():
        assert torch.equal(value, second.model.state_dict()[name])
    assert any(
        not torch.equal(value, other.model.state_dict()[name])
        for name, value in first.model.state_dict().items()
    ) or not any(first.pruned)


@pytest.mark.parametrize("schedule", ["linear", "cubic", "one-shot"])
@pytest.mark.parametrize("criterion", CRITERIA)
def test_fixed_steps_reach_the_ratio_and_pruned_channels_never_come_back(criterion, schedule):
    data = networks.clusters(60, (2, 6, 6))
    result = prune(
        depthwise_net(), IMAGE, data=data, pruning_ratio=0.6, schedule=schedule, criterion=criterion, **QUICK
    )
    assert result.channels_before == 14
    assert result.channels_after == 14 - math.floor(0.6 * 14)
    left = [entry["channels"] for entry in result.history]
    assert left == sorted(left, reverse=True)
    assert (left[0], left[-1]) == (14, result.channels_after)
    assert [entry["step"] for entry in result.history] == list(range(len(left)))
    gone = [before - after for before, after in itertools.pairwise(left)]
    assert gone == {"linear": [1] * 8, "cubic": [2, 2, 2, 1, 1], "one-shot": [8]}[schedule]
    assert zero_rows(result.model) == result.pruned
    assert result.pruned["stem"] == result.pruned["point"]
    assert not result.model.training


@pytest.mark.parametrize("twt", [0.0, 0.05, 0.5, 5.0])
@pytest.mark.parametrize("criterion", ["magnitude", "magnitude-l1", "taylor"])
def test_a_step_holds_the_bound_of_twt(criterion, twt):
    """Wrong training labels make the epoch worse, so that the step starts from the given weights."""
    data = adversarial()
    model = fitted(networks.mlp(), data)
    result = prune(model, VECTOR, data=data, twt=twt, criterion=criterion, **ONE_STEP)
    before, *after = (entry["validation_loss"] for entry in result.history)
    if result.channels_after == result.channels_before:
        assert (twt, after, result.stopped) == (0, [], "nothing more could go within twt")
    else:
        assert after[0] <= before * (1 + twt)
        assert len(after) == 1


def test_channels_whose_gradient_never_dies_stay_pruned():
    """Tanh passes a gradient at zero, where ReLU would hide a missing mask."""
    model = networks.mlp()
    model.relu1, model.relu2 = nn.Tanh(), nn.Tanh()
    result = prune(model, VECTOR, data=networks.clusters(), pruning_ratio=0.5, schedule="linear", **QUICK)
    assert result.channels_after == 8
    assert zero_rows(result.model) == result.pruned


def test_the_best_weights_since_the_last_step_are_kept():
    model, data = networks.mlp(), adversarial()
    fitted(model, data)
    result = prune(model, VECTOR, data=data, twt=0.5, **{**ONE_STEP, "pwe": 99, "epochs": 3})
    assert (result.pruned, result.stopped) == ({}, "the epochs are used up")
    assert networks.difference(model, result.model, 9, 6) == 0


def test_the_ratio_bounds_what_twt_allows():
    data = adversarial()
    result = prune(networks.mlp(), VECTOR, data=data, twt=1e9, pruning_ratio=0.3, **{**QUICK, "epochs": 4})
    assert result.channels_after == 16 - math.floor(0.3 * 16)
    assert result.stopped == "pruning_ratio is reached"


def test_without_a_ratio_one_channel_of_each_layer_is_left_at_most():
    result = prune(networks.mlp(), VECTOR, data=adversarial(), twt=1e9, **{**QUICK, "epochs": 8})
    assert 2 <= result.channels_after <= 4


@pytest.mark.parametrize("criterion", CRITERIA)
def test_a_row_without_weights_but_with_a_bias_that_matters_stays(criterion):
    """Its magnitude is zero, so that every threshold would zero it; its bias carries an output."""
    data = adversarial()
    model = networks.mlp()
    fill(model.fc2, [0], 0, 10)
    with torch.no_grad():
        model.fc3.weight[:, 0] = torch.tensor([3.0, 0, 0])
        model.fc3.bias[:] = torch.tensor([-30.0, 0, 0])
    optimizer = torch.optim.Adam([model.fc1.weight, model.fc3.weight], lr=0.01)
    x, y = (torch.from_numpy(part) for part in data.validation)
    for _ in range(30):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        model.fc3.weight.grad[:, 0] = 0
        optimizer.step()
    result = prune(model, VECTOR, data=data, twt=0.01, criterion=criterion, **ONE_STEP)
    assert len(result.history) == 2 or result.stopped == "nothing more could go within twt"
    assert 0 not in result.pruned.get("fc2", ())
    assert result.history[-1]["validation_loss"] <= result.history[0]["validation_loss"] * 1.01


def test_no_epochs_prune_nothing():
    model = networks.mlp()
    result = prune(model, VECTOR, data=networks.clusters(), pruning_ratio=0.5, epochs=0)
    assert (result.pruned, result.stopped) == ({}, "the epochs are used up")
    assert networks.difference(model, result.model, 9, 6) == 0


def test_accuracy_is_measured_on_the_test_set():
    data = networks.clusters(60)
    flipped = Data("flipped", data.train, data.validation, (data.test[0], (data.test[1] + 1) % 3))
    model = fitted(networks.mlp(), data)
    options = {"pruning_ratio": 0.0, "epochs": 0}
    assert prune(model, VECTOR, data=data, **options).accuracy == 1
    assert prune(model, VECTOR, data=flipped, **options).accuracy == 0


def test_progress_is_called_after_every_epoch():
    calls = []
    prune(
        networks.mlp(),
        VECTOR,
        data=networks.clusters(),
        pruning_ratio=0.25,
        **{**QUICK, "epochs": 3, "pwe": 9},
        progress=lambda *call: calls.append(call),
    )
    assert calls == [(epoch, 3, "16 channels left") for epoch in (1, 2, 3)]


def test_a_frozen_layer_can_be_pruned():
    model = networks.mlp()
    model.fc1.requires_grad_(False)
    result = prune(model, VECTOR, data=networks.clusters(), pruning_ratio=0.5, schedule="linear", **QUICK)
    assert result.channels_after == 8
    kept = [row for row in range(8) if row not in result.pruned.get("fc1", ())]
    assert torch.equal(result.model.get_submodule("fc1").weight[kept], model.fc1.weight[kept])


# ---------------------------------------------------------------- messages


@pytest.mark.parametrize("ratio", [1.5, 1, -0.1, float("nan")])
def test_a_ratio_outside_of_zero_to_one_is_rejected(ratio):
    assert refusal(pruning_ratio=ratio) == (
        f"prune: pruning_ratio must be in [0, 1), not {ratio}; 0.5 removes half of the channels"
    )


def test_an_unknown_criterion_is_rejected():
    assert refusal(pruning_ratio=0.5, criterion="chance") == (
        "prune: criterion must be one of magnitude, magnitude-l1, bn-scale, taylor, random, not 'chance'"
    )


def test_no_waiting_epochs_are_rejected():
    assert refusal(pruning_ratio=0.5, pwe=0) == "prune: pwe must be at least 1 epoch, not 0; 5 to 20 is usual"


@pytest.mark.parametrize("twt", [-1, float("nan")])
def test_a_negative_tolerance_is_rejected(twt):
    assert refusal(pruning_ratio=0.5, twt=twt) == (
        f"prune: twt must be at least 0, not {twt}; 0.05 allows 5 % more loss a step"
    )


@pytest.mark.parametrize(
    "options", [{}, {"schedule": "linear"}, {"schedule": "cubic", "data": networks.clusters()}]
)
def test_no_ratio_is_rejected_without_data_or_without_twt(options):
    assert refusal(**options) == (
        "prune: pruning_ratio must be given where there is no data, or a schedule of fixed steps, not left "
        "out; try 0.5"
    )


def test_an_unknown_ignored_layer_is_rejected():
    assert refusal(pruning_ratio=0.5, ignored_layers=("fc2", "relu1")) == (
        "prune: ignored_layers must name layers of the network (fc1, fc2, fc3), not 'relu1'"
    )


def test_taylor_without_data_is_rejected():
    assert refusal(pruning_ratio=0.5, criterion="taylor") == (
        "prune: criterion 'taylor' must have data to take gradients on; give data, or 'magnitude'"
    )


def test_a_ratio_that_ignored_layers_make_impossible_is_rejected():
    assert refusal(pruning_ratio=0.8, ignored_layers=("fc1",)) == (
        "prune: pruning_ratio must leave ignored_layers whole, not ask for 12 of 8 prunable channels; "
        "lower it, or ignore fewer layers"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": -1}, "prune: epochs must be at least 0, not -1; 20 to 100 is usual"),
        ({"batch_size": 1}, "prune: batch_size must be at least 2, not 1; 64 is usual"),
        ({"learning_rate": 0.0}, "prune: learning_rate must be above 0, not 0.0; 0.001 is usual"),
        ({"weight_decay": -0.1}, "prune: weight_decay must be at least 0, not -0.1; 0.0001 is usual"),
    ],
)
def test_training_options_that_no_training_can_use_are_rejected(options, message):
    assert refusal(pruning_ratio=0.5, data=networks.clusters(), **options) == message


def test_labels_beyond_the_outputs_are_rejected():
    assert refusal(pruning_ratio=0.5, data=networks.clusters(classes=4)) == (
        "data: labels must be below the network's outputs (3,), not reach 3; give the network one output a class"
    )


def test_samples_of_another_shape_are_rejected():
    assert refusal(pruning_ratio=0.5, data=networks.clusters(shape=(5,))) == (
        "data: samples must fit the network, not have shape (5,): mat1 and mat2 shapes cannot be multiplied "
        "(1x5 and 6x8); check [data] and [model]"
    )


def test_a_network_that_is_frozen_is_rejected():
    model = networks.mlp().requires_grad_(False)
    assert refusal(model, pruning_ratio=0.5, data=networks.clusters()) == (
        "model: weights must be trainable, not all frozen; call model.requires_grad_(True) on what may change"
    )


def test_training_that_diverges_stops_with_the_last_good_state():
    options = {"data": networks.clusters(), **QUICK, "learning_rate": 1e30}
    model = networks.mlp()
    result = prune(model, VECTOR, pruning_ratio=0.5, schedule="linear", **options)
    assert result.stopped in {
        f"the loss became {loss} in epoch 1: the state of epoch 0 is kept; lower learning_rate"
        for loss in ("nan", "inf")
    }
    assert networks.difference(model, result.model, 9, 6) == 0


def test_a_network_whose_loss_is_never_finite_is_rejected():
    model = networks.mlp()
    with torch.no_grad():
        model.fc3.weight[0] = 3e38
    assert refusal(model, pruning_ratio=0.5, data=networks.clusters()) == (
        "prune: loss must stay finite, not become nan; lower learning_rate"
    )


def test_a_network_that_cannot_be_traced_is_rejected():
    model = nn.Sequential(nn.Linear(6, 3), nn.LayerNorm(3))
    assert refusal(model, error=UnsupportedError, pruning_ratio=0.5).startswith(
        "model: layer '1' (LayerNorm) is not supported; supported layers: Conv1d, "
    )


def test_what_pruned_names_is_what_the_labels_name():
    model = depthwise_net()
    result = prune(model, IMAGE, pruning_ratio=0.5)
    graph = network.trace(model, IMAGE)
    channels = analyse(graph, network.shapes(graph, IMAGE))
    gone = {
        int(label) for layer, rows in result.pruned.items() for label in channels.labels[layer][list(rows)]
    }
    assert len(gone) == result.channels_before - result.channels_after
    for label in gone:
        assert all(row in result.pruned[layer] for layer, row in channels.writers[label])
