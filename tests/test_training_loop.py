"""The loop that the stages share: figures, determinism, messages, and nothing of the caller's is changed."""

from __future__ import annotations

import copy
import dataclasses

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
@pytest.mark.parametrize("loss", [float("nan"), float("inf"), -float("inf")])
def test_a_loss_that_is_not_finite_is_rejected(subject, loss):
    assert refusal(training.finite, loss, subject) == (
        f"{subject}: loss must stay finite, not become {loss}; lower learning_rate"
    )
    assert training.finite(0.5, subject) == 0.5


def test_an_epoch_ends_at_the_first_loss_that_is_not_finite():
    model = networks.mlp()
    calls = []
    loss = epoch(
        model, networks.clusters(160).train, rate=1e30, batch_size=16, after_step=lambda: calls.append(1)
    )
    assert not np.isfinite(loss)
    assert 1 <= len(calls) < 10


def test_one_sample_is_nothing_to_learn_from():
    split = networks.clusters(3).train
    assert refusal(epoch, networks.mlp(), (split[0][:1], split[1][:1])) == (
        "data: train must hold at least 2 samples to learn from, not 1; add samples"
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
        ({"patience": 0}, "quantize: patience must be at least 1, not 0; leave it out to train all epochs"),
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


class Fit:
    """One network and its training, so that a test can say what it changes."""

    def __init__(self, seed: int = 0, **options):
        torch.manual_seed(seed)
        self.model = nn.Sequential(
            nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 3)
        )
        self.data = options.pop("data", networks.clusters())
        self.options = {
            **{"epochs": 6, "batch_size": 16, "seed": seed, "best": float("inf"), "subject": "train"},
            "progress": lambda *_: None,
            **options,
        }

    def run(self, rate: float = 0.02, name: str = "adamw", momentum: float = 0.0, **options):
        made = training.optimizer(name, self.model.parameters(), rate, momentum, 1e-4)
        return training.fit(self.model, self.data, made, **{**self.options, **options})


class KilledError(Exception):
    pass


def kill_after(epoch):
    def progress(done, total, text):
        if done == epoch and not text.startswith("goes on"):
            raise KilledError

    return progress


@pytest.mark.parametrize("optimizer", [{"name": "adamw"}, {"name": "sgd", "momentum": 0.9}])
def test_a_fit_that_was_interrupted_anywhere_goes_on_to_the_same_bits(tmp_path, optimizer):
    file = tmp_path / "fit.pt"
    whole = Fit()
    expected = whole.run(**optimizer)
    for epoch in (1, 3, 6):
        with pytest.raises(KilledError):
            Fit().run(**optimizer, checkpoint=file, progress=kill_after(epoch))
        torch.rand(5)  # another process has other random numbers
    calls = []
    resumed = Fit()
    torch.rand(3)
    got = resumed.run(**optimizer, checkpoint=file, progress=lambda *call: calls.append(call))
    assert calls == [(6, 6, "goes on after epoch 6")]
    assert got == expected and got.stopped == "all epochs are done"
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name


def test_a_fit_goes_on_after_the_epoch_that_was_saved_last(tmp_path):
    file = tmp_path / "fit.pt"
    with pytest.raises(KilledError):
        Fit().run(checkpoint=file, progress=kill_after(2))
    calls = []
    Fit().run(checkpoint=file, progress=lambda *call: calls.append(call))
    assert [call[0] for call in calls] == [2, 3, 4, 5, 6]
    assert calls[0][2] == "goes on after epoch 2"


class Renewing(nn.Linear):
    """A layer whose parameter is another object after a state was loaded, as Brevitas' scales are."""

    def _load_from_state_dict(self, state, prefix, *rest):
        super()._load_from_state_dict(state, prefix, *rest)
        self.weight = nn.Parameter(self.weight.detach().clone())


def test_a_fit_goes_on_with_the_parameters_that_the_optimizer_knows(tmp_path):
    def made():
        fit = Fit()
        torch.manual_seed(0)
        fit.model = Renewing(6, 3)
        return fit

    whole, killed, resumed = made(), made(), made()
    with pytest.raises(KilledError):
        killed.run(checkpoint=tmp_path / "fit.pt", progress=kill_after(2))
    assert resumed.run(checkpoint=tmp_path / "fit.pt") == whole.run()
    assert torch.equal(whole.model.weight, resumed.model.weight)


@pytest.mark.parametrize(
    "change",
    [
        {"epochs": 7},
        {"batch_size": 8},
        {"seed": 1},
        {"patience": 9},
        {"best": 3.0},
        {"rate": 0.03},
        {"name": "sgd"},
    ],
)
def test_a_fit_with_other_options_starts_anew(tmp_path, change):
    file = tmp_path / "fit.pt"
    with pytest.raises(KilledError):
        Fit().run(checkpoint=file, progress=kill_after(1))
    calls = []
    Fit().run(checkpoint=file, progress=lambda *call: calls.append(call), **change)
    assert calls[0][0] == 1 and calls[0][2].startswith("validation accuracy")


@pytest.mark.parametrize("part", ["train", "validation", "weights"])
def test_a_fit_of_other_samples_or_weights_starts_anew(tmp_path, part):
    file = tmp_path / "fit.pt"
    with pytest.raises(KilledError):
        Fit().run(checkpoint=file, progress=kill_after(1))
    other = Fit()
    if part == "weights":
        other.model[0].weight.data[0, 0] += 1e-6
    else:
        getattr(other.data, part)[0][0, 0] += 1e-3
    calls = []
    other.run(checkpoint=file, progress=lambda *call: calls.append(call))
    assert calls[0][2].startswith("validation accuracy")


def wrong_labels():
    """Return data whose training labels are wrong: each epoch is worse than the one before it."""
    data = networks.clusters()
    return dataclasses.replace(data, train=(data.train[0], (data.train[1] + 1) % 3))


@pytest.mark.parametrize("patience", [1, 2, 4])
def test_patience_ends_a_training_that_gets_no_better(patience):
    fit = Fit(data=wrong_labels())
    calls = []
    found = fit.run(epochs=20, patience=patience, progress=lambda *call: calls.append(call))
    losses = [entry["validation_loss"] for entry in found.history]
    best = losses.index(min(losses))
    assert len(losses) == best + 1 + patience < 20
    assert found.stopped == f"no better validation loss for {patience} epochs"
    assert calls[-1] == (20, 20, found.stopped)
    assert training.evaluate(fit.model, fit.data.validation)[0] == losses[best]


def test_patience_does_not_end_a_training_that_gets_better():
    found, patient = Fit().run(), Fit().run(patience=5)
    assert found == patient


def test_an_interrupted_fit_keeps_its_patience(tmp_path):
    expected = Fit(data=wrong_labels()).run(epochs=20, patience=3)
    for epoch in range(1, len(expected.history) + 1):
        with pytest.raises(KilledError):
            Fit(data=wrong_labels()).run(
                epochs=20, patience=3, checkpoint=tmp_path / "fit.pt", progress=kill_after(epoch)
            )
    assert Fit(data=wrong_labels()).run(epochs=20, patience=3, checkpoint=tmp_path / "fit.pt") == expected


class Breaking(nn.Module):
    """A network whose outputs become NaN in the training of one epoch, as after a step that was too long."""

    def __init__(self, epoch: int, batches: int) -> None:
        super().__init__()
        self.fc, self.left = nn.Linear(6, 3), (epoch - 1) * batches

    def forward(self, x):
        y = self.fc(x)
        if self.training:
            self.left -= 1
            y = y * float("nan") if self.left < 0 else y
        return y


@pytest.mark.parametrize("epoch", [2, 4])
def test_a_loss_that_becomes_nan_leaves_the_best_epoch_before(epoch):
    fit, twin = Fit(), Fit()
    torch.manual_seed(0)
    fit.model = Breaking(epoch, batches=len(fit.data.train[1]) // 16 + 1)
    twin.model = copy.deepcopy(fit.model.fc)
    found = fit.run()
    states = []
    twin.run(progress=lambda done, *_: states.append(training.snapshot(twin.model)))
    losses = [entry["validation_loss"] for entry in found.history]
    assert len(losses) == epoch - 1
    best = losses.index(min(losses))
    assert found.stopped == (
        f"the loss became nan in epoch {epoch}: the state of epoch {best + 1} is kept; lower learning_rate"
    )
    assert torch.equal(fit.model.fc.weight, states[best]["weight"])
    assert not fit.model.training


def test_a_start_that_was_measured_is_kept_where_the_first_epoch_is_nan():
    fit = Fit()
    fit.model = Breaking(1, batches=1)
    before = training.snapshot(fit.model)
    found = fit.run(best=training.evaluate(fit.model, fit.data.validation)[0])
    assert found == training.Fitted(
        (), "the loss became nan in epoch 1: the state before the first epoch is kept; lower learning_rate"
    )
    assert all(torch.equal(value, fit.model.state_dict()[name]) for name, value in before.items())


@pytest.mark.parametrize("best", [float("inf"), float("nan")])
def test_a_loss_that_was_never_finite_is_rejected(best):
    fit = Fit()
    fit.model = Breaking(1, batches=1)
    assert refusal(fit.run, best=best) == "train: loss must stay finite, not become nan; lower learning_rate"


def test_a_validation_loss_that_is_not_finite_counts_as_well():
    fit = Fit()
    fit.data.validation[0][0, 0] = np.inf
    assert refusal(fit.run) == "train: loss must stay finite, not become nan; lower learning_rate"


def test_the_optimizers_are_those_of_torch():
    weights = [nn.Parameter(torch.ones(2))]
    sgd = training.optimizer("sgd", weights, 0.1, 0.9, 1e-3)
    adamw = training.optimizer("adamw", iter(weights), 0.2, 0.0, 1e-2)
    assert type(sgd) is torch.optim.SGD and type(adamw) is torch.optim.AdamW
    assert [sgd.defaults[key] for key in ("lr", "momentum", "weight_decay")] == [0.1, 0.9, 1e-3]
    assert [adamw.defaults[key] for key in ("lr", "weight_decay")] == [0.2, 1e-2]


@pytest.mark.parametrize(
    ("name", "count", "momentum", "message"),
    [
        ("adam", 1, 0.0, "optimizer: name must be one of adamw, sgd, not 'adam'; did you mean 'adamw'?"),
        ("lion", 1, 0.0, "optimizer: name must be one of adamw, sgd, not 'lion'; adamw suits most networks"),
        ("sgd", 1, 1.0, "optimizer: momentum must be in [0, 1), not 1.0; 0.9 is usual"),
        ("sgd", 1, -0.1, "optimizer: momentum must be in [0, 1), not -0.1; 0.9 is usual"),
        ("sgd", 1, float("nan"), "optimizer: momentum must be in [0, 1), not nan; 0.9 is usual"),
        ("adamw", 1, 0.9, "optimizer: momentum must be 0 with adamw, not 0.9; leave it out, or choose sgd"),
        (
            "sgd",
            0,
            0.9,
            "optimizer: parameters must be at least one, not none; give it those of a network with weights",
        ),
    ],
)
def test_an_optimizer_that_cannot_work_is_rejected(name, count, momentum, message):
    weights = [nn.Parameter(torch.ones(2)) for _ in range(count)]
    assert refusal(training.optimizer, name, weights, 0.1, momentum, 0.0) == message
