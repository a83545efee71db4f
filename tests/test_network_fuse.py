"""BatchNorm goes into the layer that alone feeds it, exactly; every other BatchNorm stays."""

from __future__ import annotations

import networks
import pytest
import torch
from networks import Forward, difference, kinds, lively
from torch import nn

from flow import network
from flow.network.fuse import fusable, fuse_batchnorm, scale_and_shift

LAYERS = {
    "conv": (nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), (2, 2, 6, 6)),
    "conv without bias": (nn.Conv2d(2, 4, 3, bias=False), nn.BatchNorm2d(4), (2, 2, 6, 6)),
    "grouped conv": (nn.Conv2d(4, 6, 3, groups=2), nn.BatchNorm2d(6, eps=0.5), (2, 4, 6, 6)),
    "depthwise conv": (nn.Conv2d(4, 4, 3, groups=4, bias=False), nn.BatchNorm2d(4), (2, 4, 6, 6)),
    "conv1d": (nn.Conv1d(2, 4, 3), nn.BatchNorm1d(4), (2, 2, 6)),
    "linear": (nn.Linear(5, 4), nn.BatchNorm1d(4), (2, 5)),
    "without affine": (nn.Linear(5, 4, bias=False), nn.BatchNorm1d(4, affine=False), (2, 5)),
    "one channel": (nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1), (2, 1, 3, 3)),
}


@pytest.mark.parametrize("case", LAYERS)
def test_a_fused_layer_computes_what_both_did(case):
    layer, norm, shape = LAYERS[case]
    model = lively(nn.Sequential(layer, norm, nn.ReLU()))
    graph = network.trace(model, torch.zeros(shape))
    small = fuse_batchnorm(graph)
    assert kinds(small) == [network.kind(layer), "ReLU"]
    assert difference(model, small, 5, *shape[1:]) < 1e-12


@pytest.mark.parametrize("variance", [0.0, 1e-30, 1e30])
@pytest.mark.parametrize("gamma", [0.0, -1.0, 1e-20, 1e20])
def test_extreme_statistics_fuse_exactly(variance, gamma):
    model = lively(nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)))
    with torch.no_grad():
        model[1].running_var.fill_(variance)
        model[1].weight.fill_(gamma)
    graph = network.trace(model, torch.zeros(2, 3))
    assert difference(model, fuse_batchnorm(graph), 20, 3) < 1e-12


def test_scale_and_shift_are_the_two_numbers_of_the_norm():
    norm = lively(nn.BatchNorm1d(4))
    scale, shift = scale_and_shift(norm)
    x = torch.randn(3, 4, dtype=torch.float64)
    assert torch.allclose(scale * x + shift, norm(x), rtol=1e-12, atol=0)


def test_a_norm_whose_producer_feeds_others_stays():
    def forward(net, x):
        y = net.conv(x)
        return net.norm(y) + y

    model = lively(Forward(forward, conv=nn.Conv2d(2, 3, 1), norm=nn.BatchNorm2d(3)))
    graph = network.trace(model, torch.zeros(2, 2, 4, 4))
    assert fusable(graph) == []
    assert kinds(fuse_batchnorm(graph)) == ["Conv2d", "BatchNorm2d", "add"]


@pytest.mark.parametrize(
    ("layers", "shape"),
    [
        ((nn.BatchNorm2d(2), nn.Conv2d(2, 3, 1)), (2, 2, 4, 4)),
        ((nn.Conv2d(2, 3, 1), nn.ReLU(), nn.BatchNorm2d(3)), (2, 2, 4, 4)),
        ((nn.Conv2d(2, 3, 1), nn.MaxPool2d(2), nn.BatchNorm2d(3)), (2, 2, 4, 4)),
        ((nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3, track_running_stats=False)), (2, 2, 4, 4)),
        ((nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3, affine=False, track_running_stats=False)), (2, 2, 4, 4)),
    ],
    ids=["input", "relu", "pool", "no statistics", "no statistics and no affine"],
)
def test_a_norm_that_does_not_follow_a_layer_or_has_no_statistics_stays(layers, shape):
    model = lively(nn.Sequential(*layers))
    small = fuse_batchnorm(network.trace(model, torch.zeros(shape)))
    assert kinds(small) == [network.kind(layer) for layer in layers]
    assert difference(model, small, 5, *shape[1:]) == 0


def test_two_norms_in_a_row_both_fuse():
    model = lively(nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2), nn.BatchNorm1d(2)))
    small = fuse_batchnorm(network.trace(model, torch.zeros(2, 3)))
    assert kinds(small) == ["Linear"]
    assert difference(model, small, 9, 3) < 1e-12


def test_the_given_graph_is_untouched():
    graph = network.trace(networks.cnn(), torch.zeros(2, 1, 6, 6))
    before, code = networks.state(graph), graph.code
    fuse_batchnorm(graph)
    networks.assert_untouched(graph, before)
    assert graph.code == code
