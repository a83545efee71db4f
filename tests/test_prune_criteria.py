"""Scores against transcriptions of their formulas, channel by channel."""

from __future__ import annotations

import math

import networks
import numpy as np
import pytest
import torch
from networks import Forward, analysed
from torch import nn
from torch.nn.functional import cross_entropy

from flow.errors import ConfigError, UnsupportedError
from flow.prune.criteria import (
    CRITERIA,
    TAYLOR_BATCH,
    WEIGHT_CRITERIA,
    bn_scale,
    criterion,
    magnitude,
    taylor,
    weight_scores,
)

CLOSE = {"rel": 1e-6, "abs": 1e-12}


def nets() -> dict:
    torch.manual_seed(1)
    cnn = networks.cnn()
    with torch.no_grad():
        for norm in (cnn.bn1, cnn.bn2):
            norm.weight.uniform_(-1, 2)
            norm.bias.uniform_(-1, 1)
            norm.running_mean.uniform_(-1, 1)
            norm.running_var.uniform_(0.1, 2)
    return {
        "mlp": (networks.mlp(), (6,)),
        "cnn": (cnn, (1, 6, 6)),
        "residual": (networks.residual().float(), (2, 5, 5)),
        "mobile": (
            nn.Sequential(*networks.mobile().float(), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
            (2, 5, 5),
        ),
        "transposed": (transposed(), (2, 3, 3)),
        "shared": (shared(), (2, 5, 5)),
    }


NORMS = {"cnn": {"conv1": "bn1", "conv2": "bn2"}, "transposed": {"up": "norm"}}


def transposed() -> nn.Module:
    """Return a transposed conv with BatchNorm, a depthwise one, and a plain one, in 3 classes."""
    layers = networks.named(
        up=nn.ConvTranspose2d(2, 5, 2, stride=2),
        norm=nn.BatchNorm2d(5),
        act=nn.PReLU(5),
        depth=nn.ConvTranspose2d(5, 5, 3, groups=5),
        out=nn.ConvTranspose2d(5, 3, 1, bias=False),
        pool=nn.AdaptiveAvgPool2d(1),
        flatten=nn.Flatten(),
    )
    return networks.lively(nn.Sequential(layers)).float()


def shared() -> nn.Module:
    """Return a conv that is used twice, with a sum around its second use, in 3 classes."""

    def forward(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
        first = torch.relu(net.conv(net.stem(x)))
        return net.fc(torch.flatten(net.pool(first + torch.relu(net.conv(first))), 1))

    layers = {"stem": nn.Conv2d(2, 4, 1), "conv": nn.Conv2d(4, 4, 3, padding=1)}
    layers |= {"pool": nn.AdaptiveAvgPool2d(1), "fc": nn.Linear(4, 3)}
    return networks.lively(Forward(forward, **layers)).float()


def by_output(module: nn.Module, values: torch.Tensor) -> torch.Tensor:
    """Return weights with the outputs first; those of transposed convs are behind the inputs."""
    dense = isinstance(module, nn.ConvTranspose2d) and module.groups == 1
    return values.transpose(0, 1) if dense and values.dim() > 1 else values


def row_norms(graph, name: str, norm: str | None, order: int = 2) -> list[float]:
    """Return ||w_i * gamma_i / sqrt(var_i + eps)|| of every row, in plain Python."""
    rows = []
    layer = graph.get_submodule(name)
    for index, row in enumerate(by_output(layer, layer.weight).double().tolist()):
        values = np.asarray(row).ravel()
        scale = 1.0
        if norm:
            module = graph.get_submodule(norm)
            scale = float(module.weight[index]) / math.sqrt(float(module.running_var[index]) + module.eps)
        rows.append(sum(abs(value * scale) ** order for value in values) ** (1 / order))
    return rows


@pytest.mark.parametrize(("chosen", "order"), [("magnitude", 2), ("magnitude-l1", 1)])
@pytest.mark.parametrize("name", nets())
def test_magnitude_is_the_fused_norm_relative_to_its_layer(name, chosen, order):
    model, shape = nets()[name]
    graph, channels = analysed(model, 2, *shape)
    norms = NORMS.get(name, {})
    scores = criterion(chosen)(graph, channels, None)
    assert set(scores) == set(channels.writers)
    for label, rows in channels.writers.items():
        relative = []
        for layer, row in rows:
            all_rows = row_norms(graph, layer, norms.get(layer), order)
            relative.append(all_rows[row] / (sum(all_rows) / len(all_rows)))
        assert scores[label] == pytest.approx(sum(relative) / len(relative), **CLOSE)


def test_magnitude_measures_rows_by_those_that_are_left():
    graph, channels = analysed(networks.mlp(hidden=4), 2, 6)
    networks.fill(graph.get_submodule("fc1"), [0, 1])
    left = row_norms(graph, "fc1", None)[2:]
    scores = [magnitude(graph, channels)[label] for label in channels.labels["fc1"]]
    assert scores == pytest.approx([0, 0, left[0] / (sum(left) / 2), left[1] / (sum(left) / 2)], **CLOSE)


def test_magnitude_of_a_layer_of_zeros_is_zero():
    graph, channels = analysed(networks.mlp(hidden=4), 2, 6)
    networks.fill(graph.get_submodule("fc1"), [0, 1, 2, 3])
    assert [magnitude(graph, channels)[label] for label in channels.labels["fc1"]] == [0, 0, 0, 0]


@pytest.mark.parametrize("name", NORMS)
def test_bn_scale_is_the_relative_size_of_gamma_and_magnitude_where_there_is_none(name):
    model, shape = nets()[name]
    graph, channels = analysed(model, 2, *shape)
    scores = bn_scale(graph, channels)
    assert set(scores) == set(channels.writers)
    for label, rows in channels.writers.items():
        relative = []
        for layer, row in rows:
            norm = NORMS[name].get(layer)
            sizes = graph.get_submodule(norm).weight.abs().tolist() if norm else row_norms(graph, layer, None)
            relative.append(sizes[row] / (sum(sizes) / len(sizes)))
        assert scores[label] == pytest.approx(sum(relative) / len(relative), **CLOSE)


def test_bn_scale_measures_by_the_scales_that_are_left():
    graph, channels = analysed(nets()["cnn"][0], 2, 1, 6, 6)
    with torch.no_grad():
        graph.get_submodule("bn1").weight.copy_(torch.tensor([0.0, -1, 2, 0, 3, 0]))
    scores = bn_scale(graph, channels)
    assert [scores[label] for label in channels.labels["conv1"]] == pytest.approx([0, 0.5, 1, 0, 1.5, 0])


@pytest.mark.parametrize("layers", [(), (nn.ReLU(), nn.BatchNorm1d(8)), (nn.BatchNorm1d(8, affine=False),)])
def test_bn_scale_without_a_scale_behind_a_layer_is_refused(layers):
    graph, channels = analysed(nn.Sequential(nn.Linear(6, 8), *layers, nn.Linear(8, 3)), 2, 6)
    with pytest.raises(UnsupportedError) as caught:
        bn_scale(graph, channels)
    assert str(caught.value) == (
        "prune: criterion 'bn-scale' must have a BatchNorm with scales directly behind a layer, not a network "
        "without one; choose 'magnitude'"
    )


def test_random_scores_depend_on_the_seed_alone():
    graph, channels = analysed(networks.mlp(), 2, 6)
    first = criterion("random", 3)(graph, channels, None)
    networks.fill(graph.get_submodule("fc1"), [0, 1])
    again = criterion("random", 3)(graph, channels, networks.clusters().train)
    assert first == again and set(first) == set(channels.writers)
    assert all(0 < score <= 1 for score in first.values()) and len(set(first.values())) == len(first)
    other = criterion("random", 4)(graph, channels, None)
    assert list(other.values()) != list(first.values())


def in_float64(split):
    return split[0].astype(np.float64), split[1]


def transcribed(graph, channels, split, norms: dict[str, str]) -> dict[int, float]:
    """Return sum over rows of sqrt(mean over batches of (sum of theta * dL/dtheta)^2), one row at a time."""
    x, y = torch.from_numpy(split[0]), torch.from_numpy(split[1])
    batches = [(x[i : i + TAYLOR_BATCH], y[i : i + TAYLOR_BATCH]) for i in range(0, len(y), TAYLOR_BATCH)]
    scores = {}
    for label, rows in channels.writers.items():
        scores[label] = 0.0
        for layer, row in rows:
            module = graph.get_submodule(norms.get(layer, layer))
            squares = []
            for inputs, labels in batches:
                thetas = [p for p in (module.weight, module.bias) if p is not None]
                gradients = torch.autograd.grad(cross_entropy(graph(inputs), labels), thetas)
                products = [by_output(module, t * g) for t, g in zip(thetas, gradients, strict=True)]
                moment = sum(float(product[row].sum()) for product in products)
                squares.append(moment**2)
            scores[label] += math.sqrt(sum(squares) / len(squares))
    return scores


@pytest.mark.parametrize("name", nets())
@pytest.mark.parametrize("samples", [10, 70])
def test_taylor_is_its_formula(name, samples):
    model, shape = nets()[name]
    graph, channels = analysed(model.double().eval(), 2, *shape)
    split = in_float64(networks.clusters(samples, shape).train)
    norms = NORMS.get(name, {})
    scores = taylor(graph, channels, split)
    expected = transcribed(graph, channels, split, norms)
    assert scores == pytest.approx(expected, **CLOSE)


def test_taylor_on_a_norm_is_the_change_that_zeroing_its_channel_makes_to_first_order():
    model, shape = nets()["cnn"]
    graph, channels = analysed(model.double().eval(), 2, *shape)
    split = in_float64(networks.clusters(20, shape).train)
    x, y = torch.from_numpy(split[0]), torch.from_numpy(split[1])
    kept = []
    hook = graph.get_submodule("bn1").register_forward_hook(lambda *args: kept.append(args[2]))
    loss = cross_entropy(graph(x), y)
    hook.remove()
    (gradient,) = torch.autograd.grad(loss, kept[0])
    expected = (kept[0] * gradient).sum((0, 2, 3)).abs().tolist()
    scores = taylor(graph, channels, split)
    assert [scores[label] for label in channels.labels["conv1"]] == pytest.approx(
        expected, rel=1e-4, abs=1e-7
    )


def test_taylor_of_a_channel_that_nothing_reads_is_zero():
    graph, channels = analysed(networks.mlp(), 2, 6)
    with torch.no_grad():
        graph.get_submodule("fc2").weight[:, 3] = 0
    scores = taylor(graph, channels, networks.clusters(30).train)
    assert [scores[label] == 0 for label in channels.labels["fc1"]].count(True) >= 1
    assert scores[int(channels.labels["fc1"][3])] == 0


def test_frozen_layers_have_the_same_scores():
    graph, channels = analysed(networks.cnn(), 2, 1, 6, 6)
    split = networks.clusters(40, (1, 6, 6)).train
    expected = taylor(graph, channels, split)
    graph.requires_grad_(False)
    assert taylor(graph, channels, split) == expected


@pytest.mark.parametrize("name", CRITERIA)
def test_criteria_leave_the_network_alone(name):
    graph, channels = analysed(networks.cnn(), 2, 1, 6, 6)
    graph.train()
    before = networks.state(graph)
    split = networks.clusters(40, (1, 6, 6)).train
    criterion(name)(graph, channels, split)
    if name in WEIGHT_CRITERIA:
        weight_scores(name, graph, split)
    networks.assert_untouched(graph, before)


def test_taylor_without_data_is_refused():
    graph, channels = analysed(networks.mlp(), 2, 6)
    with pytest.raises(ConfigError) as caught:
        taylor(graph, channels, None)
    assert str(caught.value) == (
        "prune: criterion 'taylor' must have data to take gradients on; give data, or 'magnitude'"
    )


# ---------------------------------------------------------------- single weights


@pytest.mark.parametrize("name", ["magnitude", "magnitude-l1"])
def test_a_weight_has_its_size_as_score(name):
    graph, _ = analysed(nets()["cnn"][0], 2, 1, 6, 6)
    scores = weight_scores(name, graph)
    assert list(scores) == ["conv1", "conv2", "hidden", "fc"]
    for layer, found in scores.items():
        assert torch.equal(found, graph.get_submodule(layer).weight.detach().double().abs())


@pytest.mark.parametrize("samples", [10, 70])
@pytest.mark.parametrize("name", nets())
def test_taylor_of_a_weight_is_its_formula(name, samples):
    model, shape = nets()[name]
    graph, _ = analysed(model.double().eval(), 2, *shape)
    x, y = map(torch.from_numpy, in_float64(networks.clusters(samples, shape).train))
    scores = weight_scores("taylor", graph, (x.numpy(), y.numpy()))
    for layer, found in scores.items():
        weight = graph.get_submodule(layer).weight
        squares = []
        for i in range(0, samples, TAYLOR_BATCH):
            loss = cross_entropy(graph(x[i : i + TAYLOR_BATCH]), y[i : i + TAYLOR_BATCH])
            squares.append((weight * torch.autograd.grad(loss, weight)[0]) ** 2)
        assert torch.allclose(found, (sum(squares) / len(squares)).sqrt(), rtol=1e-6, atol=1e-14)


def test_random_scores_of_weights_depend_on_the_seed_alone():
    graph, _ = analysed(nets()["transposed"][0], 2, 2, 3, 3)
    first, again, other = (weight_scores("random", graph, seed=seed) for seed in (1, 1, 2))
    for layer, found in first.items():
        assert found.shape == graph.get_submodule(layer).weight.shape
        assert torch.equal(found, again[layer]) and not torch.equal(found, other[layer])
        assert bool((found > 0).all() and (found <= 1).all())


def test_bn_scale_scores_no_single_weights():
    graph, _ = analysed(nets()["cnn"][0], 2, 1, 6, 6)
    with pytest.raises(ConfigError) as caught:
        weight_scores("bn-scale", graph)
    assert str(caught.value) == (
        "prune: criterion of granularity 'unstructured' must be one of magnitude, magnitude-l1, taylor, random, "
        "not 'bn-scale', which scores whole channels; choose one of them"
    )


def test_taylor_of_weights_without_data_is_refused():
    graph, _ = analysed(networks.mlp(), 2, 6)
    with pytest.raises(ConfigError, match="'taylor' must have data to take gradients on; give data"):
        weight_scores("taylor", graph)


def test_an_unknown_criterion_is_refused():
    graph, _ = analysed(networks.mlp(), 2, 6)
    message = (
        "prune: criterion must be one of magnitude, magnitude-l1, bn-scale, taylor, random, not 'l2'; "
        "'magnitude' needs no data"
    )
    for ask in (lambda: criterion("l2"), lambda: weight_scores("l2", graph)):
        with pytest.raises(ConfigError) as caught:
            ask()
        assert str(caught.value) == message
