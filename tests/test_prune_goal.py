"""How much goes: ratios by layer, budgets, widths that fold well, and what a channel is worth."""

from __future__ import annotations

import itertools

import networks
import numpy as np
import pytest
import torch
from test_prune import IMAGE, VECTOR, adversarial, depthwise_net, widths
from torch import nn

from flow import network
from flow.errors import ConfigError, UnsupportedError
from flow.prune import Pruner, prune
from flow.simplify import simplify

CONVS = torch.zeros(2, 2, 6, 6)


def convs(*sizes: int) -> nn.Module:
    """Return 3x3 convs of these widths behind two channels, and a dense layer of 3 classes."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise((2, *sizes)):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(sizes[-1], 3))


def left(result) -> dict[str, int]:
    """Return the channels of each layer that are not pruned."""
    return {name: count - len(result.pruned.get(name, ())) for name, count in widths(result.model).items()}


def refusal(model: nn.Module, example: torch.Tensor = VECTOR, error=ConfigError, **options) -> str:
    with pytest.raises(error) as caught:
        prune(model, example, **options)
    return str(caught.value)


# ---------------------------------------------------------------- ratios


def test_a_ratio_of_every_layer_by_itself():
    model = networks.mlp()
    with torch.no_grad():
        model.fc1.weight.mul_(torch.linspace(1e-6, 1, 8)[:, None])  # globally, these would all go first
    result = prune(model, VECTOR, pruning_ratio=0.5, global_pruning=False)
    assert left(result) == {"fc1": 4, "fc2": 4, "fc3": 3}


def test_a_layer_with_a_ratio_of_its_own_keeps_to_it_and_others_to_the_common_one():
    model = convs(8, 8, 8)
    options = {"pruning_ratio": 0.5, "pruning_ratio_dict": {"2": 0.25}, "global_pruning": False}
    assert left(prune(model, CONVS, **options)) == {"0": 4, "2": 6, "4": 4, "8": 3}


def test_ratios_of_single_layers_alone_prune_these_alone():
    assert left(prune(convs(8, 8, 8), CONVS, pruning_ratio_dict={"2": 0.75})) == {
        "0": 8,
        "2": 2,
        "4": 8,
        "8": 3,
    }


def test_coupled_layers_keep_to_the_smaller_of_their_ratios():
    result = prune(networks.residual(width=8), IMAGE, pruning_ratio_dict={"stem": 0.5, "b": 0.25})
    assert len(result.pruned["stem"]) == len(result.pruned["b"]) == 2


# ---------------------------------------------------------------- widths


@pytest.mark.parametrize("ratio", [0.1, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("round_to", [2, 4, 8])
def test_widths_that_change_are_multiples_and_the_ratio_is_not_exceeded(ratio, round_to):
    result = prune(convs(16, 21, 9), CONVS, pruning_ratio=ratio, round_to=round_to)
    for name, count in left(result).items():
        assert count % round_to == 0 or count == widths(result.model)[name]
    gone = result.channels_before - result.channels_after
    assert gone <= ratio * result.channels_before
    # what rounding costs is less than one step of each layer
    assert gone >= min(ratio * result.channels_before, 46 - 3 * round_to) - 3 * round_to


def test_fixed_steps_reach_a_rounded_width_although_single_steps_are_smaller():
    data = networks.clusters(60, (2, 6, 6))
    options = {"pruning_ratio": 0.5, "round_to": 4, "schedule": "linear", "pwe": 1, "epochs": 12, "steps": 8}
    result = prune(convs(8, 8), CONVS, data=data, **options)
    assert sum(left(result).values()) == 8 + 3
    assert all(count % 4 == 0 for name, count in left(result).items() if name != "6")


# ---------------------------------------------------------------- budgets


def costs(model: nn.Module, example: torch.Tensor) -> tuple[int, int]:
    """Return parameters and MACs of the simplified network."""
    small = simplify(model, example, samples=8).model
    return network.total_parameters(small), sum(cost.macs for cost in network.costs(small, example))


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("name", ["parameters", "macs"])
@pytest.mark.parametrize(
    ("make", "example"), [(networks.mlp, VECTOR), (depthwise_net, IMAGE), (networks.residual, IMAGE)]
)
def test_a_budget_is_met_by_the_fewest_channels(make, example, name, share):
    model = make()
    start = prune(model, example, pruning_ratio=0.0).figures_before[name]
    result = prune(model, example, budget={name: share * start})
    assert result.stopped == "the budget is met"
    assert result.figures_after[name] <= share * start
    last = max(result.channels_before - result.channels_after - 1, 0)
    fewer = prune(model, example, pruning_ratio=last / result.channels_before)
    if fewer.pruned.items() <= result.pruned.items():
        assert fewer.figures_after[name] > share * start


def test_figures_are_those_of_the_simplified_network():
    for make, example in ((networks.mlp, VECTOR), (networks.residual, IMAGE), (networks.mobile, IMAGE)):
        model = make().float()
        for layer in model.modules():  # a bias behind a pruned channel would be a constant to propagate
            if getattr(layer, "bias", None) is not None and not isinstance(layer, nn.BatchNorm2d):
                nn.init.zeros_(layer.bias)
        result = prune(model, example, pruning_ratio=0.4)
        norms = sum(
            p.numel() for m in result.model.modules() if isinstance(m, nn.BatchNorm2d) for p in m.parameters()
        )
        parameters, macs = costs(result.model, example)
        assert result.figures_after["macs"] == macs
        if not norms:
            assert result.figures_after["parameters"] == parameters


def test_channels_go_where_they_cost_the_most():
    """All rows weigh the same; a channel of the wide layer at the input's resolution saves the most."""
    model = convs(8, 8)
    with torch.no_grad():
        for layer in (model[0], model[2]):
            layer.weight.fill_(1.0)
            layer.weight.mul_(1 + 1e-4 * torch.arange(8.0)[:, None, None, None])
    whole = prune(model, CONVS, pruning_ratio=0.0).figures_before["macs"]
    found = left(prune(model, CONVS, budget={"macs": 0.7 * whole}))
    # a channel of the first conv saves 36*9*(2+8) MACs, one of the second 36*9*8 + 3
    assert found["0"] < found["2"]


def test_a_cost_of_the_users_own_is_called_with_networks_of_the_surviving_size():
    seen = []

    def cost(model: nn.Module) -> dict[str, float]:
        sizes = [module.out_features for module in model.modules() if isinstance(module, nn.Linear)]
        seen.append(sizes)
        model(torch.zeros(1, 6))  # it can be executed
        return {"rows": float(sum(sizes))}

    result = prune(networks.mlp(), VECTOR, budget={"rows": 9.0}, cost=cost)
    assert result.figures_after["rows"] == 9
    assert sum(left(result).values()) == 9
    assert [8, 8, 3] in seen


def test_data_and_steps_reach_a_budget():
    for schedule in ("pwe", "linear", "cubic"):
        data = adversarial() if schedule == "pwe" else networks.clusters(60)
        options = {"schedule": schedule, "twt": 9.0, "pwe": 1, "epochs": 20, "learning_rate": 1e-2}
        result = prune(networks.mlp(), VECTOR, data=data, budget={"parameters": 60}, **options)
        assert result.figures_after["parameters"] <= 60, schedule
        assert result.stopped == "the budget is met"
        figures = [entry["parameters"] for entry in result.history]
        assert figures == sorted(figures, reverse=True)


def test_a_budget_that_is_met_already_prunes_nothing():
    assert prune(networks.mlp(), VECTOR, budget={"parameters": 1e6}).pruned == {}


def test_a_budget_out_of_reach_is_refused_at_once():
    assert refusal(networks.mlp(), budget={"parameters": 5}) == (
        "prune: budget must be within reach, but with all that may go gone it is parameters 15 of at most 5; "
        "raise it, or free layers"
    )


def test_a_budget_that_training_does_not_reach_says_how_far_it_got():
    data = networks.clusters(60)
    message = refusal(networks.mlp(), data=data, budget={"parameters": 60}, epochs=1, pwe=9)
    assert message == (
        "prune: budget must be met, but pruning ended at parameters 155 of at most 60 (the epochs are used up); "
        "raise the budget, twt or epochs"
    )


def test_a_budget_of_what_nobody_measures_is_refused():
    assert refusal(networks.mlp(), budget={"lut": 5}) == (
        "prune: budget must be of parameters, macs, and those of cost, not of 'lut'; correct the name"
    )
    assert refusal(networks.mlp(), budget={"lut": 5}, cost=lambda _: {"luts": 1.0}) == (
        "prune: budget must be of parameters, macs, luts, not of 'lut'; correct the name"
    )


def test_a_budget_for_a_network_without_channels_to_prune_is_refused():
    model = nn.Sequential(nn.Linear(6, 2))
    assert refusal(model, error=UnsupportedError, budget={"macs": 5}) == (
        "prune: network must have channels that may go, not none; free layers, or leave out the budget"
    )


# ---------------------------------------------------------------- messages


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"pruning_ratio_dict": {"fc1": 1.0}},
            "prune: pruning_ratio_dict['fc1'] must be in [0, 1), not 1.0; 0.5 removes half of the channels",
        ),
        (
            {"pruning_ratio_dict": {"fc9": 0.5}},
            "prune: pruning_ratio_dict must name layers of the network (fc1, fc2, fc3), not 'fc9'",
        ),
        ({"round_to": 0}, "prune: round_to must be at least 1, not 0; 4 or 8 folds well"),
        ({"steps": 0}, "prune: steps must be at least 1, not 0; 8 is usual"),
        (
            {"round_to": 4, "granularity": "unstructured"},
            "prune: round_to must be 1 for single weights, not 4; layers keep their widths",
        ),
        ({"budget": {"macs": 0}}, "prune: budget macs must be above 0, not 0; leave it out for no limit"),
        (
            {"schedule": "exponential"},
            "prune: schedule must be one of pwe, linear, cubic, one-shot, not 'exponential'",
        ),
        (
            {"granularity": "rows"},
            "prune: granularity must be one of structured, unstructured, not 'rows'",
        ),
        (
            {"regularizer": "lobster"},
            "prune: regularizer 'lobster' must have data to train on; give data, or leave it out",
        ),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    assert refusal(networks.mlp(), **{"pruning_ratio": 0.5, **options}) == message


@pytest.mark.parametrize(
    ("model", "example", "layer"),
    [
        (networks.mlp(), VECTOR, "fc3"),
        (nn.Sequential(nn.Linear(6, 4), nn.Softmax(1), nn.Linear(4, 3), nn.Linear(3, 2)), VECTOR, "0"),
    ],
)
def test_a_layer_whose_channels_cannot_go_is_refused(model, example, layer):
    assert refusal(model, example, UnsupportedError, pruning_ratio_dict={layer: 0.5}) == (
        f"prune: layer {layer!r} must have channels that may go, not only outputs of the network, or what a softmax "
        "reads; leave it out of pruning_ratio_dict"
    )


def test_an_unknown_regularizer_is_refused():
    message = refusal(networks.mlp(), data=networks.clusters(), regularizer="lobsters")
    assert message.startswith("prune: regularizer must be one of sensitivity, ")
    assert message.endswith(", not 'lobsters'")


def test_an_unknown_option_of_the_pruner_is_refused_with_the_nearest():
    with pytest.raises(ConfigError) as caught:
        Pruner(networks.mlp(), VECTOR, prunning_ratio=0.5)
    assert str(caught.value) == "prune: option 'prunning_ratio' is not known; did you mean 'pruning_ratio'?"


# ---------------------------------------------------------------- single weights


def zeros(model: nn.Module) -> int:
    return sum(int((module.weight == 0).sum()) for _, module in network.weighted(model))


@pytest.mark.parametrize("criterion", ["magnitude", "magnitude-l1", "random"])
def test_the_ratio_of_single_weights_is_met(criterion):
    result = prune(networks.mlp(), VECTOR, granularity="unstructured", pruning_ratio=0.5, criterion=criterion)
    assert zeros(result.model) == 68  # half of 6*8 + 8*8 + 8*3
    assert result.figures_after["parameters"] == result.figures_before["parameters"] - 68


def test_the_smallest_weights_go():
    model = networks.mlp()
    result = prune(model, VECTOR, granularity="unstructured", pruning_ratio=0.75)
    weights = np.sort(
        np.abs(np.concatenate([p.detach().numpy().ravel() for n, p in model.named_parameters() if "w" in n]))
    )
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            kept = result.model.get_submodule(name).weight
            assert torch.equal(kept, torch.where(module.weight.abs() < weights[102], 0, module.weight))


def test_macs_of_single_weights_count_their_positions():
    model = convs(4)
    before = prune(model, CONVS, granularity="unstructured", pruning_ratio=0.0).figures_before["macs"]
    with torch.no_grad():
        model[0].weight.mul_(1e-6)  # 72 weights at 36 positions; 12 more in the dense layer
    result = prune(model, CONVS, granularity="unstructured", pruning_ratio=0.5)
    assert before - result.figures_after["macs"] == 42 * 36


def test_one_weight_of_a_layer_always_stays():
    model = convs(4)
    with torch.no_grad():
        model[0].weight.mul_(1e-6)
    result = prune(model, CONVS, granularity="unstructured", pruning_ratio=0.95)
    assert int((result.model.get_submodule("0").weight != 0).sum()) == 1


def test_rows_without_weights_are_named():
    model = networks.mlp()
    with torch.no_grad():
        model.fc1.weight[[1, 4]] *= 1e-6
    result = prune(model, VECTOR, granularity="unstructured", pruning_ratio=12 / 136)
    assert result.pruned == {"fc1": (1, 4)}
    assert (result.channels_before, result.channels_after) == (19, 17)


def test_single_weights_go_step_by_step_and_stay_zero():
    for schedule in ("pwe", "cubic"):
        data = adversarial() if schedule == "pwe" else networks.clusters(60)
        options = {"schedule": schedule, "twt": 1.0, "pwe": 1, "epochs": 12, "learning_rate": 1e-2}
        result = prune(
            networks.mlp(), VECTOR, data=data, granularity="unstructured", pruning_ratio=0.8, **options
        )
        left = [entry["weights"] for entry in result.history]
        assert left == sorted(left, reverse=True)
        assert zeros(result.model) == 136 - left[-1] > 0
        if schedule == "cubic":
            assert left[-1] == 136 - 108


def test_ignored_layers_keep_their_weights():
    result = prune(
        networks.mlp(), VECTOR, granularity="unstructured", pruning_ratio=0.3, ignored_layers=("fc2",)
    )
    assert int((result.model.get_submodule("fc2").weight == 0).sum()) == 0
    assert zeros(result.model) == 40
