"""The loop that the stages share: figures, determinism, messages, and nothing of the caller's is changed."""

from __future__ import annotations

import copy

import networks
import numpy as np
import pytest
import torch
from torch import nn

from flow import training
from flow.errors import ConfigError


def refusal(function, *arguments, **options) -> str:
    with pytest.raises(ConfigError) as caught:
        function(*arguments, **options)
    return str(caught.value)


def epoch(
    model: nn.Module, split, *, seed: int = 0, batch_size: int = 16, rate: float = 0.05, **options
) -> float:
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9)
    generator = torch.Generator().manual_seed(seed)
    return training.train_epoch(
        model, split, optimizer, batch_size=batch_size, generator=generator, **options
    )


def test_batches_hold_every_sample_once_in_a_seeded_order():
    split = (np.arange(23, dtype=np.float32)[:, None], np.arange(23))

    def order(seed):
        parts = list(training.batches(split, 5, torch.Generator().manual_seed(seed)))
        assert [len(y) for _, y in parts] == [5, 5, 5, 5, 3]
        assert all(torch.equal(x[:, 0].long(), y) for x, y in parts)
        return torch.cat([y for _, y in parts]).tolist()

    assert sorted(order(0)) == list(range(23))
    assert order(0) == order(0) != order(1)


def test_an_epoch_is_the_loop_that_one_would_write():
    data, model = networks.clusters(40), networks.mlp()
    twin = copy.deepcopy(model)
    mean = epoch(model, data.train)
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.05, momentum=0.9)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    losses = []
    for chosen in order.split(16):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(
            twin(torch.from_numpy(data.train[0])[chosen]), torch.from_numpy(data.train[1])[chosen]
        )
        loss.backward()
        optimizer.step()
        losses.append(float(loss) * len(chosen))
    assert mean == pytest.approx(sum(losses) / 40, rel=1e-6)
    for name, value in twin.state_dict().items():
        assert torch.equal(value, model.state_dict()[name])


def test_a_last_batch_of_one_sample_is_left_out():
    model = networks.cnn()
    calls = []
    epoch(model, networks.clusters(33, (1, 6, 6)).train, after_step=lambda: calls.append(1))
    assert len(calls) == 2


def test_something_can_be_done_after_every_step():
    model = networks.mlp()

    def clear():
        nn.init.zeros_(model.fc1.weight)

    epoch(model, networks.clusters().train, after_step=clear)
    assert not model.fc1.weight.any()


@pytest.mark.parametrize("subject", ["train", "prune"])
def test_a_loss_that_is_not_finite_is_rejected(subject):
    assert refusal(epoch, networks.mlp(), networks.clusters().train, rate=1e30, subject=subject) == (
        f"{subject}: loss must stay finite, not become nan; lower learning_rate"
    )


def test_evaluation_is_over_the_whole_split_whatever_the_batches():
    model, split = networks.cnn(), networks.clusters(50, (1, 6, 6)).train
    outputs = copy.deepcopy(model).eval()(torch.from_numpy(split[0])).detach()
    labels = torch.from_numpy(split[1])
    expected = (
        float(nn.functional.cross_entropy(outputs, labels)),
        float((outputs.argmax(1) == labels).double().mean()),
    )
    for batch_size in (1, 7, 512):
        assert training.evaluate(model, split, batch_size) == pytest.approx(expected, rel=1e-5)


def test_evaluation_leaves_the_network_alone():
    model = networks.cnn().train()
    model.bn1.eval()
    before = networks.state(model)
    training.evaluate(model, networks.clusters(20, (1, 6, 6)).train)
    training.check_labels(model, networks.clusters(20, (1, 6, 6)).train)
    networks.assert_untouched(model, before)


def test_a_network_in_place_on_its_input_leaves_the_samples_alone():
    split = networks.clusters(20).train
    samples = split[0].copy()
    training.check_labels(nn.Sequential(nn.ReLU(inplace=True), networks.mlp()), split)
    assert np.array_equal(split[0], samples)


def test_a_snapshot_is_a_copy():
    model = networks.mlp()
    state = training.snapshot(model)
    nn.init.zeros_(model.fc1.weight)
    assert state["fc1.weight"].any()
    assert not any(value.requires_grad for value in state.values())


def test_the_seed_decides_on_every_random_number():
    training.seed_everything(5)
    first = torch.rand(3)
    training.seed_everything(5)
    assert torch.equal(first, torch.rand(3))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": -1}, "quantize: epochs must be at least 0, not -1; 20 to 100 is usual"),
        ({"batch_size": 1}, "quantize: batch_size must be at least 2, not 1; 64 is usual"),
        ({"learning_rate": 0.0}, "quantize: learning_rate must be above 0, not 0.0; 0.001 is usual"),
        ({"learning_rate": float("nan")}, "quantize: learning_rate must be above 0, not nan; 0.001 is usual"),
        ({"weight_decay": -1}, "quantize: weight_decay must be at least 0, not -1; 0.0001 is usual"),
    ],
)
def test_options_that_no_training_can_use_are_rejected(options, message):
    usual = {"epochs": 1, "batch_size": 2, "learning_rate": 0.1, "weight_decay": 0}
    assert refusal(training.check_options, "quantize", **{**usual, **options}) == message


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (
            [0, 1, 3],
            "data: labels must be below the network's outputs (3,), not reach 3; give the network one output a class",
        ),
        ([0, -1, 2], "data: labels must be from 0 on, not -1; save class numbers"),
        ([], "data: train, validation and test must hold at least one sample each, not 0; add samples"),
    ],
)
def test_labels_that_do_not_fit_any_split_are_rejected(labels, message):
    good = networks.clusters().train
    bad = (np.zeros((len(labels), 6), np.float32), np.array(labels, np.int64))
    training.check_labels(networks.mlp(), good, good)
    assert refusal(training.check_labels, networks.mlp(), good, bad) == message


def test_outputs_that_are_images_are_rejected():
    model = nn.Sequential(nn.Conv2d(1, 3, 1))
    assert refusal(training.check_labels, model, networks.clusters(9, (1, 2, 2)).train) == (
        "data: labels must be below the network's outputs (3, 2, 2), not reach 2; give the network one output a class"
    )


@pytest.mark.parametrize(
    ("model", "shape", "why"),
    [
        (nn.Linear(4, 3), (6,), "mat1 and mat2 shapes cannot be multiplied (1x6 and 4x3)"),
        (nn.BatchNorm2d(3), (6,), "expected 4D input (got 2D input)"),
    ],
)
def test_samples_that_do_not_fit_are_rejected(model, shape, why):
    assert refusal(training.check_labels, model, networks.clusters(9, shape).train) == (
        f"data: samples must fit the network, not have shape {shape}: {why}; check [data] and [model]"
    )


def test_a_network_with_one_trainable_layer_may_train():
    model = networks.mlp().requires_grad_(False)
    assert refusal(training.check_trainable, model) == (
        "model: weights must be trainable, not all frozen; call model.requires_grad_(True) on what may change"
    )
    model.fc3.bias.requires_grad_(True)
    training.check_trainable(model)
