"""The callback object in a loop of the user's own, and runs that go on where they were killed."""

from __future__ import annotations

import networks
import pytest
import torch
from test_prune import IMAGE, VECTOR, adversarial, depthwise_net, fitted, zero_rows
from torch import nn

import flow
from flow import network, training
from flow.errors import ConfigError, UnsupportedError
from flow.prune import Pruner, prune

OPTIONS = {"pruning_ratio": 0.5, "schedule": "linear", "pwe": 1, "epochs": 8, "criterion": "magnitude"}


def loop(pruner: Pruner, data, optimizer: torch.optim.Optimizer, *, seed: int = 0, epochs: int = 8) -> None:
    """Train as a user would, with a plain torch loop."""
    generator = torch.Generator().manual_seed(seed)
    x, y = (torch.from_numpy(part) for part in data.train)

    def validate() -> float:
        return training.evaluate(pruner.model, data.validation)[0]

    pruner.start(validate)
    for _ in range(epochs):
        pruner.model.train()
        for chosen in torch.randperm(len(y), generator=generator).split(32):
            optimizer.zero_grad()
            nn.functional.cross_entropy(pruner.model(x[chosen]), y[chosen]).backward()
            optimizer.step()
        if pruner.epoch_end(validate):
            break
    pruner.finish()


@pytest.mark.parametrize("regularizer", [None, "lobster", "neuron-lobster"])
def test_a_loop_of_the_users_own_gives_what_the_built_in_one_gives(regularizer):
    data, model = networks.clusters(64), networks.mlp()
    options = {**OPTIONS, "regularizer": regularizer, "regularizer_lambda": 1e-2}
    training.seed_everything(0)
    pruner = flow.Pruner(model, VECTOR, **options)
    optimizer = torch.optim.SGD(pruner.model.parameters(), lr=0.1)
    pruner.attach(optimizer)
    loop(pruner, data, optimizer)
    mine = pruner.result()
    built_in = {"optimizer": "sgd", "learning_rate": 0.1, "weight_decay": 0.0, "batch_size": 32}
    theirs = prune(model, VECTOR, data=data, **options, **built_in)
    assert (mine.pruned, mine.stopped) == (theirs.pruned, theirs.stopped)
    for name, value in theirs.model.state_dict().items():
        assert torch.equal(value, mine.model.state_dict()[name])
    assert zero_rows(mine.model) == mine.pruned


@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True),
        lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1),
        lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.5),
        lambda p: torch.optim.Adagrad(p, lr=0.05),
    ],
)
def test_pruned_channels_stay_zero_under_every_optimizer(make):
    pruner = Pruner(networks.mlp(), VECTOR, **OPTIONS, regularizer="lobster")
    optimizer = make(pruner.model.parameters())
    pruner.attach(optimizer)
    loop(pruner, networks.clusters(64), optimizer)
    pruned = pruner.result()
    assert sum(map(len, pruned.pruned.values())) == 8
    assert zero_rows(pruned.model) == pruned.pruned


def test_after_the_end_the_masks_stay_and_the_regularizer_is_gone():
    data = networks.clusters(64)
    pruner = Pruner(networks.mlp(), VECTOR, **OPTIONS, regularizer="lobster", regularizer_lambda=0.5)
    optimizer = torch.optim.SGD(pruner.model.parameters(), lr=0.1)
    pruner.attach(optimizer)
    loop(pruner, data, optimizer)
    assert pruner.done
    before = training.snapshot(pruner.model)
    for parameter in pruner.model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, value in pruner.model.state_dict().items():
        assert torch.equal(value, before[name])


def test_a_step_can_be_asked_for():
    data = networks.clusters(64)
    pruner = Pruner(networks.mlp(), VECTOR, **OPTIONS)

    def validate() -> tuple[float, float]:
        return training.evaluate(pruner.model, data.validation)

    pruner.start(validate)
    assert pruner.step(validate)
    assert pruner.units_left == 15
    assert [entry["channels"] for entry in pruner.result().history] == [16, 15]


def test_a_second_step_without_an_epoch_keeps_to_the_bound_of_twt():
    data = networks.clusters(64)
    pruner = Pruner(fitted(networks.mlp(), data), VECTOR, twt=0.3)

    def validate() -> tuple[float, float]:
        return training.evaluate(pruner.model, data.validation)

    losses = [validate()[0]]
    while pruner.step(validate):
        losses.append(validate()[0])
        assert losses[-1] <= 1.3 * losses[-2]
    assert len(losses) > 1
    assert pruner.units_left >= 2


def test_one_shot_prunes_before_the_first_epoch():
    data = networks.clusters(64)
    pruner = Pruner(networks.mlp(), VECTOR, **{**OPTIONS, "schedule": "one-shot"})
    pruner.start(lambda: training.evaluate(pruner.model, data.validation))
    assert pruner.units_left == 8


def test_a_validation_without_accuracy_is_enough():
    pruner = Pruner(networks.mlp(), VECTOR, **OPTIONS)
    pruner.start(lambda: 1.0)
    assert pruner.result().history[0]["validation_accuracy"] is None


@pytest.mark.parametrize(
    "parameters", [[torch.zeros(2, requires_grad=True)], list(networks.mlp().parameters())]
)
def test_an_optimizer_of_something_else_is_refused(parameters):
    pruner = Pruner(networks.mlp(), VECTOR, **OPTIONS)
    with pytest.raises(ConfigError) as caught:
        pruner.attach(torch.optim.SGD(parameters, lr=0.1))
    assert str(caught.value) == (
        "prune: optimizer must hold parameters of the network, not none of them; "
        "build it from pruner.model.parameters()"
    )


# ---------------------------------------------------------------- resume


class KilledError(Exception):
    """Stands for the end of the process."""


@pytest.mark.parametrize("granularity", ["structured", "unstructured"])
@pytest.mark.parametrize("schedule", ["pwe", "linear"])
@pytest.mark.parametrize("killed_after", [1, 4, 7])
def test_a_killed_run_goes_on_as_if_nothing_had_happened(tmp_path, granularity, schedule, killed_after):
    data = adversarial() if schedule == "pwe" else networks.clusters(64)
    options = {**OPTIONS, "granularity": granularity, "schedule": schedule, "twt": 0.5, "data": data}
    options |= {"regularizer": "neuron-lobster", "regularizer_lambda": 1e-3, "batch_size": 16}
    undisturbed = prune(networks.mlp(), VECTOR, **options)

    def kill(done: int, total: int, text: str) -> None:
        if done == killed_after:
            raise KilledError

    file = tmp_path / "prune.pt"
    with pytest.raises(KilledError):
        prune(networks.mlp(), VECTOR, **options, checkpoint=file, progress=kill)
    calls = []
    resumed = prune(networks.mlp(), VECTOR, **options, checkpoint=file, progress=lambda *c: calls.append(c))
    assert calls[0] == (killed_after, 8, f"goes on after epoch {killed_after}")
    assert (resumed.pruned, resumed.history, resumed.stopped) == (
        undisturbed.pruned,
        undisturbed.history,
        undisturbed.stopped,
    )
    for name, value in undisturbed.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name])


def test_a_checkpoint_of_other_options_or_weights_is_not_taken(tmp_path):
    data, file = networks.clusters(64), tmp_path / "prune.pt"
    prune(networks.mlp(), VECTOR, data=data, **OPTIONS, checkpoint=file)
    calls: list[tuple[int, int, str]] = []
    note = {"progress": lambda *call: calls.append(call), "checkpoint": file, "data": data}
    prune(networks.mlp(), VECTOR, **{**OPTIONS, "pruning_ratio": 0.25}, **note)
    other = networks.mlp()
    with torch.no_grad():
        other.fc1.bias += 1
    prune(other, VECTOR, **OPTIONS, **note)
    assert not any("goes on" in text for _, _, text in calls)


def test_the_state_is_plain_data(tmp_path):
    pruner = Pruner(networks.mlp(), VECTOR, **OPTIONS, regularizer="neuron-lobster")
    pruner.start(lambda: 1.0)
    torch.save(pruner.state_dict(), tmp_path / "state.pt")
    other = Pruner(networks.mlp(), VECTOR, **OPTIONS, regularizer="neuron-lobster")
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert other.result().history == pruner.result().history
    assert network.total_parameters(other.model) == network.total_parameters(pruner.model)


# ---------------------------------------------------------------- smaller networks


@pytest.mark.parametrize("make", [networks.mlp, depthwise_net, networks.residual])
def test_the_smaller_network_computes_the_same_and_keeps_its_norms(make):
    model, example = make().float(), VECTOR if make is networks.mlp else IMAGE
    pruner = Pruner(model, example, pruning_ratio=0.5)
    pruner.cut()
    small = pruner.smaller()
    x = torch.randn(9, *example.shape[1:])
    assert torch.allclose(small.eval()(x), pruner.model.eval()(x), atol=1e-5)
    assert sum(p.numel() for p in small.parameters()) == pruner.result().figures_after["parameters"]
    norms = [sum(isinstance(m, nn.BatchNorm2d) for m in net.modules()) for net in (small, model)]
    assert norms[0] == norms[1]
    with torch.no_grad():  # a copy, even of what nothing was cut from
        for parameter in small.parameters():
            parameter.zero_()
    assert all(bool(p.any()) for n, p in pruner.model.named_parameters() if n == "fc.weight")


def test_channels_that_compute_a_constant_are_not_left_out():
    model = networks.mlp()
    model.relu1 = nn.Sigmoid()
    pruner = Pruner(model, VECTOR, pruning_ratio=0.5)
    pruner.cut()
    with pytest.raises(UnsupportedError) as caught:
        pruner.smaller()
    assert str(caught.value) == (
        "prune: pruned channels must compute zero to be left out, not the constant of an activation or of a BatchNorm; "
        "take flow.simplify"
    )
