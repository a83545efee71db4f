"""Layers of other names become standard layers that compute the same, each with its training flag."""

from __future__ import annotations

import networks
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from networks import Forward
from torch import nn

from flow import network

IMAGE = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
OTHER = torch.randn(5, 4, 10, 6, generator=torch.Generator().manual_seed(1))
SIGNAL = torch.randn(2, 4, 12, generator=torch.Generator().manual_seed(2))
POINTS = torch.randn(2, 4, generator=torch.Generator().manual_seed(3))
TWINS = {
    "Dropout1d": (nn.Dropout1d(0.3), SIGNAL, "Dropout"),
    "Dropout2d": (nn.Dropout2d(0.3), IMAGE, "Dropout"),
    "Softmax2d": (nn.Softmax2d(), IMAGE, "Softmax"),
    "Softmax(-1)": (nn.Softmax(-1), POINTS, "Softmax"),
    "UpsamplingNearest2d": (nn.UpsamplingNearest2d(scale_factor=2), IMAGE, "Upsample"),
    "UpsamplingBilinear2d": (nn.UpsamplingBilinear2d((9, 5)), IMAGE, "Upsample"),
    "ConstantPad1d": (nn.ConstantPad1d((1, 2), 0.0), SIGNAL, "ZeroPad1d"),
    "ConstantPad2d": (nn.ConstantPad2d((1, 2, 3, 4), 0), IMAGE, "ZeroPad2d"),
}


@pytest.mark.parametrize("name", TWINS)
def test_a_layer_with_another_name_becomes_the_one_that_computes_the_same(name):
    layer, example, kind = TWINS[name]
    model = nn.Sequential(layer).eval()
    graph = network.trace(model, example)
    assert networks.kinds(graph) == [kind]
    assert torch.equal(graph(example), model(example))


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    ("forward", "layer"),
    [
        (lambda net, x: F.dropout(x, 0.3, net.training), nn.Identity()),
        (lambda net, x: net.d(x), nn.Dropout2d(0.3)),
    ],
    ids=["function", "layer"],
)
def test_dropout_is_on_where_the_model_trains(forward, layer, training):
    model = Forward(forward, d=layer).train(training)
    (made,) = [m for m in network.trace(model, IMAGE).modules() if isinstance(m, nn.Dropout)]
    assert (made.p, made.training) == (0.3, training)


def test_a_dropout_that_alone_is_in_evaluation_mode_stays_so():
    model = nn.Sequential(nn.Conv2d(4, 4, 1), nn.Dropout2d()).train()
    model[1].eval()
    graph = network.trace(model, IMAGE)
    assert [graph.get_submodule(name).training for name in ("0", "1")] == [True, False]


class NormAct(nn.BatchNorm2d):
    """BatchNorm and an activation in one layer, as timm has them."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        training = self.training or (self.running_mean is None and self.running_var is None)
        scaled = F.batch_norm(
            x,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            training,
            self.momentum,
            self.eps,
        )
        return F.relu(scaled)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("affine", [False, True])
def test_a_subclass_of_batch_norm_becomes_a_batch_norm(affine, training):
    norm = NormAct(4, eps=0.2, momentum=0.3, affine=affine)
    model = networks.lively(nn.Sequential(nn.Conv2d(4, 4, 1), norm)).train(training)
    graph = network.trace(model, IMAGE)
    assert networks.kinds(graph) == ["Conv2d", "BatchNorm2d", "ReLU"]
    made = next(module for module in graph.modules() if isinstance(module, nn.BatchNorm2d))
    assert (made.eps, made.momentum, made.affine, made.training) == (0.2, 0.3, affine, training)
    assert torch.equal(graph.eval()(OTHER.double()), model.eval()(OTHER.double()))
