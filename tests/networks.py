"""Small networks and data sets that the tests share; each is seeded and has every weight away from zero."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import fx, nn

from flow import network
from flow.errors import FlowError, UnsupportedError
from flow.network.tracing import tensors_of
from flow.types import Data


class Forward(nn.Module):
    """A network of named layers whose forward pass is a function of (itself, x)."""

    def __init__(self, function: Callable, **layers: nn.Module) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(self, x)


class Pair(Forward):
    """The same with two inputs: a function of (itself, x, y)."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return self.function(self, x, y)


def lively(model: nn.Module, seed: int = 0) -> nn.Module:
    """Give every parameter and every running statistic a random value, in float64 and evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    model = model.double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer.copy_(torch.randn(buffer.shape, generator=generator))
            if name.endswith("running_var"):
                buffer.copy_(torch.rand(buffer.shape, generator=generator) + 0.1)
    return model


def residual(width: int = 4, padding: int = 1) -> nn.Module:
    """Return conv ``stem``, a block ``a`` - ``b`` with a sum around it, pooling over all positions, ``fc``."""

    def forward(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
        stem = torch.relu(net.stem(x))
        branch = net.b(torch.relu(net.a(stem)))
        return net.fc(torch.flatten(net.pool(torch.relu(stem + branch)), 1))

    return lively(
        Forward(
            forward,
            stem=nn.Conv2d(2, width, 3, padding=padding),
            a=nn.Conv2d(width, width, 3, padding=1),
            b=nn.Conv2d(width, width, 3, padding=1),
            pool=nn.AdaptiveAvgPool2d(1),
            fc=nn.Linear(width, 3),
        )
    )


def branches() -> nn.Module:
    """Return two convs ``left`` (3 channels) and ``right`` (2) on one input, concatenated, then ``out``."""
    return lively(
        Forward(
            lambda net, x: net.out(torch.cat([torch.relu(net.left(x)), torch.relu(net.right(x))], 1)),
            left=nn.Conv2d(2, 3, 1),
            right=nn.Conv2d(2, 2, 1),
            out=nn.Conv2d(5, 2, 3),
        )
    )


def mobile() -> nn.Module:
    """Return pointwise ``up``, depthwise ``depth``, pointwise ``down``, each before a ReLU but the last."""
    return lively(
        nn.Sequential(
            named(
                up=nn.Conv2d(2, 4, 1),
                relu1=nn.ReLU(),
                depth=nn.Conv2d(4, 4, 3, padding=1, groups=4),
                relu2=nn.ReLU(),
                down=nn.Conv2d(4, 3, 1),
            )
        )
    )


def cnn() -> nn.Module:
    """Return a float32 CNN for 1x6x6 images in 3 classes: two convs with BatchNorm, a pool, two dense layers."""
    torch.manual_seed(0)
    return nn.Sequential(
        named(
            conv1=nn.Conv2d(1, 6, 3, padding=1, bias=False),
            bn1=nn.BatchNorm2d(6),
            relu1=nn.ReLU(),
            pool=nn.MaxPool2d(2),
            conv2=nn.Conv2d(6, 8, 3),
            bn2=nn.BatchNorm2d(8),
            relu2=nn.ReLU(),
            flatten=nn.Flatten(),
            hidden=nn.Linear(8, 7),
            relu3=nn.ReLU(),
            fc=nn.Linear(7, 3),
        )
    )


def mlp(inputs: int = 6, hidden: int = 8, classes: int = 3, seed: int = 0) -> nn.Module:
    """Return a float32 network of two hidden layers."""
    torch.manual_seed(seed)
    return nn.Sequential(
        named(
            fc1=nn.Linear(inputs, hidden),
            relu1=nn.ReLU(),
            fc2=nn.Linear(hidden, hidden),
            relu2=nn.ReLU(),
            fc3=nn.Linear(hidden, classes),
        )
    )


def named(**layers: nn.Module) -> dict:
    """Return layers in the form that names the children of nn.Sequential."""
    from collections import OrderedDict

    return OrderedDict(layers)


def fill(layer: nn.Module, rows: list[int], weight: float = 0.0, bias: float = 0.0) -> None:
    """Set whole rows of a layer's weights, and their biases."""
    with torch.no_grad():
        layer.weight[rows] = weight
        if layer.bias is not None:
            layer.bias[rows] = bias


def difference(left: nn.Module, right: nn.Module, *shape: int, seed: int = 1) -> float:
    """Return max |left - right| / max |left| over full outputs, the worst of several, in float64."""
    x = 3 * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    with torch.no_grad():
        pairs = [tensors_of(copy.deepcopy(model).double().eval()(x)) for model in (left, right)]
    assert [tensor.shape for tensor in pairs[0]] == [tensor.shape for tensor in pairs[1]]
    return max(
        float((want - got).abs().max() / want.abs().max().clamp_min(1e-300))
        for want, got in zip(*pairs, strict=True)
    )


def state(model: nn.Module) -> dict:
    """Return everything that a stage must leave alone: values, training flags, requires_grad."""
    return {
        "values": {name: value.clone() for name, value in model.state_dict().items()},
        "training": [module.training for module in model.modules()],
        "requires_grad": [parameter.requires_grad for parameter in model.parameters()],
        "gradients": [parameter.grad for parameter in model.parameters()],
        "layers": str(model),
    }


def assert_untouched(model: nn.Module, before: dict) -> None:
    after = state(model)
    for name, value in before.pop("values").items():
        assert torch.equal(after["values"][name], value), name
    del after["values"]
    assert after == before


def analysed(model: nn.Module, *shape: int):
    """Return the traced graph and the labels of its channels."""
    from flow.network.channels import analyse

    graph = network.trace(model, torch.zeros(shape))
    return graph, analyse(graph, network.shapes(graph, torch.zeros(shape)))


def refusal(model: nn.Module, example: network.Example, error: type[FlowError] = UnsupportedError) -> str:
    """Return what `flow.network.trace` says against a network."""
    with pytest.raises(error) as caught:
        network.trace(model, example)
    return str(caught.value)


def kinds(graph: fx.GraphModule) -> list[str]:
    """Return what the nodes between input and output are, in order."""
    found = []
    for node in graph.graph.nodes:
        if node.op == "call_module":
            found.append(network.kind(graph.get_submodule(node.target)))
        elif node.op == "call_function":
            found.append(node.target.__name__)
    return found


def clusters(
    samples: int = 90, shape: tuple[int, ...] = (6,), classes: int = 3, noise: float = 0.4, seed: int = 0
) -> Data:
    """Return points around one random centre a class, the same centres in all three splits."""
    generator = np.random.default_rng(seed)
    centres = generator.normal(size=(classes, *shape))

    def split(count: int) -> tuple[np.ndarray, np.ndarray]:
        y = np.arange(count) % classes
        x = centres[y] + noise * generator.normal(size=(count, *shape))
        return x.astype(np.float32), y.astype(np.int64)

    return Data("clusters", split(samples), split(samples // 2), split(samples // 2))
