"""A small network for every operator that quantize takes: odd widths, H != W, options of all kinds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn


class Forward(nn.Module):
    """A network given by its layers and a function: ``forward(layers, x)``."""

    def __init__(self, run: Callable[[Any, Any], Any], **layers: nn.Module) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)
        self.run = run

    def forward(self, x: Any) -> Any:
        return self.run(self, x)


def chain(**layers: nn.Module) -> nn.Module:
    """Return layers, one behind the other."""
    net = nn.Sequential()
    for name, layer in layers.items():
        net.add_module(name, layer)
    return net


def conv1d() -> nn.Module:
    """Without a bias, depthwise, overlapping padded pool, global average."""
    return chain(
        a=nn.Conv1d(2, 5, 3, padding=1, bias=False),
        relu=nn.ReLU(),
        pool=nn.MaxPool1d(3, 2, 1),
        b=nn.Conv1d(5, 5, 3, groups=5, stride=2),
        c=nn.Conv1d(5, 3, 1),
        mean=nn.AdaptiveAvgPool1d(1),
        flat=nn.Flatten(),
        fc=nn.Linear(3, 3),
    )


def grouped() -> nn.Module:
    """Groups, dilation, paddings in words."""
    return chain(
        a=nn.Conv2d(4, 6, 3, groups=2, padding="same"),
        relu=nn.ReLU(),
        b=nn.Conv2d(6, 9, (3, 2), groups=3, dilation=(1, 2), padding="valid"),
        relu2=nn.ReLU(),
        pool=nn.AvgPool2d(2),
        flat=nn.Flatten(),
        fc=nn.Linear(9 * 3 * 2, 3),
    )


def pools() -> nn.Module:
    """Windows that overlap and reach over the border; averages over 9 and 6 values, whose rounding meets ties."""
    return chain(
        a=nn.Conv2d(2, 3, 1),
        largest=nn.MaxPool2d((3, 2), (2, 1), 1),
        average=nn.AvgPool2d(3, 1, 1),
        largest2=nn.MaxPool2d(2, 1),
        average2=nn.AvgPool2d((2, 3), (1, 2)),
        flat=nn.Flatten(),
        fc=nn.Linear(12, 3),
    )


def pools1d() -> nn.Module:
    return chain(
        a=nn.Conv1d(2, 3, 2),
        average=nn.AvgPool1d(3, 2, 1),
        larger=nn.Upsample(scale_factor=3),
        largest=nn.MaxPool1d(3, 2),
        flat=nn.Flatten(),
        fc=nn.Linear(24, 3),
    )


def adaptive() -> nn.Module:
    """Pools of a size, and layers that do nothing."""
    return chain(
        a=nn.Conv2d(2, 3, 1),
        average=nn.AdaptiveAvgPool2d((3, 2)),
        largest=nn.AdaptiveMaxPool2d((1, 2)),
        dropout=nn.Dropout(),
        flat=nn.Flatten(),
        fc=nn.Linear(6, 3),
    )


def global_average() -> nn.Module:
    """A mean of 15 values as the output."""
    return chain(a=nn.Conv2d(2, 3, 3), relu=nn.ReLU(), mean=nn.AdaptiveAvgPool2d(1), flat=nn.Flatten())


def upsampled() -> nn.Module:
    return chain(
        a=nn.Conv2d(2, 3, 1),
        larger=nn.Upsample(scale_factor=(2, 3)),
        b=nn.Conv2d(3, 3, 3, 2),
        flat=nn.Flatten(),
        fc=nn.Linear(48, 3),
    )


def concatenated() -> nn.Module:
    """A ReLU, a conv and the input; later flattened features."""

    def forward(net: Any, x: Any) -> Any:
        x = torch.cat([torch.relu(net.a(x)), net.b(x), x], 1)
        features = [torch.flatten(net.c(x), 1), torch.flatten(torch.relu(net.d(x)), 1)]
        return net.fc(torch.cat(features, 1))

    layers = {"a": nn.Conv2d(2, 3, 3, padding=1), "b": nn.Conv2d(2, 4, 1), "c": nn.Conv2d(9, 1, 2)}
    return Forward(forward, **layers, d=nn.Conv2d(9, 2, 1), fc=nn.Linear(12 + 40, 3))


def products() -> nn.Module:
    """A product, a square, and a gate of one number a channel."""

    def forward(net: Any, x: Any) -> Any:
        x = net.a(x) * torch.relu(net.b(x))
        x = x * torch.sigmoid(net.gate(net.mean(x)))
        x = net.fc(torch.flatten(x, 1))
        return net.out(x * x)

    layers = {"a": nn.Conv2d(2, 3, 3, padding=1), "b": nn.Conv2d(2, 3, 1), "gate": nn.Conv2d(3, 3, 1)}
    return Forward(forward, **layers, mean=nn.AdaptiveAvgPool2d(1), fc=nn.Linear(60, 5), out=nn.Linear(5, 3))


def product_at_the_end() -> nn.Module:
    return Forward(lambda net, x: net.a(x) * net.b(x), a=nn.Linear(5, 3), b=nn.Linear(5, 3))


def activated(layer: nn.Module) -> nn.Module:
    return chain(conv=nn.Conv2d(2, 5, 3, padding=1), act=layer, flat=nn.Flatten(), fc=nn.Linear(100, 3))


def functions_around_joins() -> nn.Module:
    """The quantizer of a sum or concatenation is the one behind what it reads."""

    def forward(net: Any, x: Any) -> Any:
        x = net.leaky(net.a(x)) + net.tanh(net.b(x))
        x = torch.cat([net.clipped(x), net.silu(x), net.mean(x)], 1)
        return net.out(torch.relu(net.fc(x)) + net.gelu(net.fc(x)))

    layers = {"a": nn.Linear(5, 7), "b": nn.Linear(5, 7), "fc": nn.Linear(21, 5), "out": nn.Linear(5, 3)}
    functions = {"leaky": nn.LeakyReLU(0.2), "tanh": nn.Tanh(), "clipped": nn.ReLU6(), "silu": nn.SiLU()}
    return Forward(forward, **layers, **functions, gelu=nn.GELU(), mean=nn.Identity())


def rows(layer: Any) -> nn.Module:
    """A net whose first layer has rows of zeros, tiny ones, huge ones, and some that sum to zero; all with biases."""
    net = chain(
        a=layer, act=nn.LeakyReLU(0.1), b=nn.Conv2d(6, 6, 3, groups=2), flat=nn.Flatten(), fc=nn.Linear(36, 3)
    )
    with torch.no_grad():
        net.a.weight[0] = 0
        net.a.weight[1] *= 1e-6
        net.a.weight[2] *= 8
        net.a.weight[3] -= net.a.weight[3].mean()
        net.a.bias.copy_(torch.tensor([0.5, 0.25, -3.0, 0.0, 1e-4, -0.3]))
    return net


Case = tuple[Callable[[], nn.Module], tuple[int, ...], dict[str, Any]]
_IMAGE = (2, 5, 4)
ACTIVATIONS = {
    **{name: getattr(nn, name) for name in ("ReLU6", "LeakyReLU", "PReLU", "Sigmoid", "Tanh", "Hardsigmoid")},
    **{name: getattr(nn, name) for name in ("Hardswish", "ELU", "SELU", "SiLU", "GELU", "Mish", "Softplus")},
    "Hardtanh": lambda: nn.Hardtanh(-0.3, 0.7),
    "Hardtanh_positive": lambda: nn.Hardtanh(0.1, 0.7),
    "PReLU_channels": lambda: nn.PReLU(5),
    "GELU_tanh": lambda: nn.GELU("tanh"),
}
OPERATORS: Mapping[str, Case] = {
    "conv1d": (conv1d, (2, 13), {}),
    "grouped": (grouped, (4, 8, 7), {}),
    "pools": (pools, (2, 7, 5), {}),
    "pools1d": (pools1d, (2, 12), {}),
    "adaptive": (adaptive, (2, 6, 4), {}),
    "global_average": (global_average, (2, 7, 5), {}),
    "upsampled": (upsampled, (2, 5, 3), {}),
    "concatenated": (concatenated, _IMAGE, {}),
    "products": (products, _IMAGE, {}),
    "product_at_the_end": (product_at_the_end, (5,), {}),
    "functions_around_joins": (functions_around_joins, (5,), {}),
    "softmax": (
        lambda: chain(a=nn.Linear(5, 7), relu=nn.ReLU(), b=nn.Linear(7, 3), soft=nn.Softmax(1)),
        (5,),
        {},
    ),
    "sigmoid_at_the_end": (
        lambda: chain(a=nn.Linear(5, 3), squash=nn.Sigmoid()),
        (5,),
        {"activation_bits": 12},
    ),
    "one_layer": (lambda: nn.Linear(5, 3), (5,), {}),
    **{name: (lambda make=make: activated(make()), _IMAGE, {}) for name, make in ACTIVATIONS.items()},
    **{
        f"rows_{bits}_bits{'_per_channel' if per_channel else ''}": (
            lambda: rows(nn.Conv2d(2, 6, 3, padding=1)),
            _IMAGE,
            {"weight_bits": bits, "per_channel": per_channel},
        )
        for bits in (1, 2, 3, 6)
        for per_channel in (False, True)
    },
}
"""Name -> (network, shape of a sample, options of quantize); three classes each."""
