"""Training is repeatable, keeps the best epoch, measures on the test set, and leaves its inputs alone."""

from __future__ import annotations

import networks
import numpy as np
import pytest
import torch
from torch import nn

from flow import training
from flow.errors import ConfigError, UnsupportedError
from flow.train import train
from flow.types import Data

QUICK = {"epochs": 4, "batch_size": 16, "learning_rate": 0.02}


def refusal(model: nn.Module, data: Data, error=ConfigError, **options) -> str:
    with pytest.raises(error) as caught:
        train(model, data, **{**QUICK, **options})
    return str(caught.value)


def test_a_small_network_learns():
    result = train(networks.mlp(), networks.clusters(), **{**QUICK, "epochs": 20})
    assert result.accuracy > 0.95
    assert [entry["epoch"] for entry in result.history] == list(range(20))
    assert result.history[-1]["train_loss"] < result.history[0]["train_loss"]
    assert not result.model.training


def test_the_same_seed_gives_the_same_weights():
    def weights(seed):
        torch.manual_seed(seed + 7)  # the state outside must not matter
        model = nn.Sequential(*networks.mlp(), nn.Dropout(0.5))
        return train(model, networks.clusters(), **QUICK, seed=seed).model.state_dict()

    first, second, other = weights(1), weights(1), weights(2)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_the_best_epoch_is_kept():
    """Wrong training labels: each epoch is worse than the one before it, so that the first is the best."""
    data = networks.clusters()
    wrong = Data("wrong", (data.train[0], (data.train[1] + 1) % 3), data.validation, data.test)
    first = train(networks.mlp(), wrong, **QUICK)
    losses = [entry["validation_loss"] for entry in first.history]
    assert losses.index(min(losses)) == 0
    assert training.evaluate(first.model, data.validation)[0] == losses[0]


def test_no_epochs_only_measure():
    model, data = networks.mlp(), networks.clusters()
    result = train(model, data, epochs=0)
    assert (result.history, result.stopped) == ((), "no epochs were asked for")
    assert result.accuracy == training.evaluate(model, data.test)[1]
    for name, value in model.state_dict().items():
        assert torch.equal(value, result.model.state_dict()[name])


def test_a_network_without_weights_can_be_measured():
    result = train(nn.Sequential(nn.Linear(6, 3)).requires_grad_(False), networks.clusters(), epochs=0)
    assert result.accuracy is not None
    assert train(nn.Sequential(nn.ReLU()), networks.clusters(classes=3), epochs=0).accuracy is not None


def test_a_frozen_network_can_be_measured_but_not_trained():
    model = networks.mlp().requires_grad_(False)
    assert train(model, networks.clusters(), epochs=0).accuracy is not None
    assert refusal(model, networks.clusters()) == (
        "model: weights must be trainable, not all frozen; call model.requires_grad_(True) on what may change"
    )


def test_the_callers_model_and_data_are_untouched():
    model, data = networks.cnn(), networks.clusters(40, (1, 6, 6))
    model.train()
    model.bn2.eval()
    model.conv1.weight.requires_grad_(False)
    before = networks.state(model)
    copies = [array.copy() for split in (data.train, data.validation, data.test) for array in split]
    result = train(model, data, **QUICK)
    networks.assert_untouched(model, before)
    arrays = [array for split in (data.train, data.validation, data.test) for array in split]
    assert all(np.array_equal(one, other) for one, other in zip(copies, arrays, strict=True))
    assert torch.equal(result.model.get_submodule("conv1").weight, model.conv1.weight)


def test_progress_is_called_after_every_epoch():
    calls = []
    train(networks.mlp(), networks.clusters(), **QUICK, progress=lambda *call: calls.append(call))
    assert [call[:2] for call in calls] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert all(call[2].startswith("validation accuracy ") for call in calls)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": -1}, "train: epochs must be at least 0, not -1; 20 to 100 is usual"),
        ({"batch_size": 1}, "train: batch_size must be at least 2, not 1; 64 is usual"),
        ({"learning_rate": -1.0}, "train: learning_rate must be above 0, not -1.0; 0.001 is usual"),
        ({"weight_decay": -1.0}, "train: weight_decay must be at least 0, not -1.0; 0.0001 is usual"),
        ({"patience": 0}, "train: patience must be at least 1, not 0; leave it out to train all epochs"),
        (
            {"optimizer": "adam"},
            "optimizer: name must be one of adamw, sgd, not 'adam'; did you mean 'adamw'?",
        ),
        ({"momentum": 2.0, "epochs": 0}, "optimizer: momentum must be in [0, 1), not 2.0; 0.9 is usual"),
    ],
)
def test_options_out_of_range_are_rejected(options, message):
    assert refusal(networks.mlp(), networks.clusters(), **options) == message


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_labels_beyond_the_outputs_are_rejected_before_the_first_epoch(split):
    data = networks.clusters()
    splits = {name: getattr(data, name) for name in ("train", "validation", "test")}
    splits[split] = (splits[split][0], splits[split][1] + 1)
    calls = []
    message = refusal(networks.mlp(), Data("shifted", **splits), progress=lambda *call: calls.append(call))
    assert message == (
        "data: labels must be below the network's outputs (3,), not reach 3; give the network one output a class"
    )
    assert calls == []


def test_samples_of_the_wrong_shape_are_rejected():
    assert refusal(networks.cnn(), networks.clusters(20, (3, 6, 6))) == (
        "data: samples must fit the network, not have shape (3, 6, 6): Given groups=1, weight of size [6, 1, 3, 3], "
        "expected input[1, 3, 6, 6] to have 1 channels, but got 3 channels instead; check [data] and [model]"
    )


def test_training_that_diverges_is_rejected():
    assert refusal(networks.mlp(), networks.clusters(), learning_rate=1e30) in {
        f"train: loss must stay finite, not become {loss}; lower learning_rate" for loss in ("nan", "inf")
    }


def test_training_that_diverges_late_keeps_the_last_good_state():
    """A decay of 60 at a rate of 0.1 turns each weight into -5 times itself in every step, until they overflow."""
    model, data = networks.mlp(), networks.clusters()
    options = {"optimizer": "sgd", "epochs": 50, "batch_size": 16, "learning_rate": 0.1, "weight_decay": 60.0}
    result = train(model, data, **options)
    losses = [entry["validation_loss"] for entry in result.history]
    best = losses.index(min(losses)) + 1
    assert 1 <= len(losses) < 50
    assert result.stopped in {
        f"the loss became {loss} in epoch {len(losses) + 1}: the state of epoch {best} is kept; lower learning_rate"
        for loss in ("nan", "inf")
    }
    assert training.evaluate(result.model, data.validation)[0] == min(losses)
    assert result.accuracy == training.evaluate(result.model, data.test)[1]


def test_patience_stops_early_and_says_so():
    data = networks.clusters()
    wrong = Data("wrong", (data.train[0], (data.train[1] + 1) % 3), data.validation, data.test)
    result = train(networks.mlp(), wrong, **{**QUICK, "epochs": 20}, patience=2)
    assert len(result.history) == 3
    assert result.stopped == "no better validation loss for 2 epochs"
    assert train(networks.mlp(), wrong, **QUICK).stopped == "all epochs are done"


def test_momentum_is_that_of_sgd():
    def weights(**options):
        return train(
            networks.mlp(), networks.clusters(), **QUICK, optimizer="sgd", **options
        ).model.fc1.weight

    assert torch.equal(weights(momentum=0.9), weights(momentum=0.9))
    assert not torch.equal(weights(momentum=0.9), weights())


def test_a_killed_training_goes_on_to_the_same_network(tmp_path):
    def stop(done, total, text):
        if done == 3:
            raise KeyboardInterrupt

    model, data = nn.Sequential(*networks.mlp(), nn.Dropout(0.5)), networks.clusters()
    whole = train(model, data, **QUICK)
    with pytest.raises(KeyboardInterrupt):
        train(model, data, **QUICK, checkpoint=tmp_path / "train.pt", progress=stop)
    texts = []
    resumed = train(
        model, data, **QUICK, checkpoint=tmp_path / "train.pt", progress=lambda *call: texts.append(call[2])
    )
    assert texts[0] == "goes on after epoch 3" and len(texts) == 2
    assert (resumed.history, resumed.accuracy, resumed.stopped) == (
        whole.history,
        whole.accuracy,
        whole.stopped,
    )
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name])


def test_weights_that_are_not_finite_are_rejected():
    model = networks.mlp()
    nn.init.constant_(model.fc2.bias, float("nan"))
    assert refusal(model, networks.clusters()) == (
        "model: weights must be finite, but 'fc2.bias' holds 8 NaN or infinite values; "
        "load another checkpoint, or train with a smaller learning rate"
    )


def test_a_network_that_cannot_be_traced_is_rejected():
    model = networks.Forward(lambda net, x: net.fc(x) * 2, fc=nn.Linear(6, 3))
    assert refusal(model, networks.clusters(), UnsupportedError) == (
        "model: operation 'mul' (node 'mul') is not supported; "
        "use standard torch.nn layers, x + y, x * y, torch.cat over channels, or flatten"
    )
