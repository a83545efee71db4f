"""A functional spelling becomes a module or a join, and computes the same on other batches and image sizes."""

from __future__ import annotations

import networks
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from networks import Forward, refusal
from torch import nn

from flow import network

IMAGE = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
OTHER = torch.randn(5, 4, 10, 6, generator=torch.Generator().manual_seed(1))
SIGNAL = torch.randn(2, 4, 12, generator=torch.Generator().manual_seed(2))
POINTS = torch.randn(2, 4, generator=torch.Generator().manual_seed(3))
ADVICE = "use standard torch.nn layers, x + y, x * y, torch.cat over channels, or flatten"
POOL = "AdaptiveAvgPool2d"


def layers() -> dict[str, nn.Module]:
    torch.manual_seed(0)
    return {
        "c": nn.Conv2d(4, 4, 3, padding=1),
        "d": nn.Conv2d(2, 4, 1),
        "down": nn.Linear(4, 2),
        "up": nn.Linear(2, 4),
        "six": nn.ReLU6(inplace=True),
    }


def in_place_sum(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
    y = net.c(x)
    y += x
    return y


def in_place_product(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
    y = net.c(x)
    y *= x
    return y


def two_parts(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
    first, second = torch.chunk(net.c(x), 2, 1)
    return torch.cat([second, first], 1)


def gated(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Scale the channels of a conv as a squeeze-and-excitation block does."""
    batch, channels, _, _ = x.size()
    gate = F.adaptive_avg_pool2d(x, 1).view(batch, channels)
    gate = torch.sigmoid(net.up(F.relu(net.down(gate)))).view(batch, channels, 1, 1)
    return net.c(x) * gate.expand_as(x)


def shuffled(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Shuffle channels as ShuffleNet's own code does."""
    batch, channels, height, width = x.data.size()
    x = net.c(x).view(batch, 2, channels // 2, height, width)
    return torch.transpose(x, 1, 2).contiguous().view(batch, -1, height, width)


def permuted(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
    batch, _, height, width = x.shape
    return net.c(x).reshape(batch, 2, 2, height, width).permute(0, 2, 1, 3, 4).reshape(x.shape)


SPELLINGS = {
    "F.relu": (lambda net, x: F.relu(net.c(x)), ["ReLU"]),
    "F.relu in place": (lambda net, x: F.relu(net.c(x), inplace=True), ["ReLU"]),
    "torch.relu": (lambda net, x: torch.relu(net.c(x)), ["ReLU"]),
    "x.relu()": (lambda net, x: net.c(x).relu(), ["ReLU"]),
    "x.relu_()": (lambda net, x: net.c(x).relu_(), ["ReLU"]),
    "relu by keyword": (lambda net, x: torch.relu(input=net.c(x)), ["ReLU"]),
    "F.relu6": (lambda net, x: F.relu6(net.c(x), True), ["ReLU6"]),
    "F.leaky_relu": (lambda net, x: F.leaky_relu(net.c(x), 0.3, True), ["LeakyReLU"]),
    "F.elu": (lambda net, x: F.elu(net.c(x), alpha=0.4), ["ELU"]),
    "F.selu": (lambda net, x: F.selu(net.c(x)), ["SELU"]),
    "F.gelu": (lambda net, x: F.gelu(net.c(x), approximate="tanh"), ["GELU"]),
    "F.silu": (lambda net, x: F.silu(net.c(x)), ["SiLU"]),
    "F.mish": (lambda net, x: F.mish(net.c(x)), ["Mish"]),
    "F.softplus": (lambda net, x: F.softplus(net.c(x), 2, 0.5), ["Softplus"]),
    "F.hardswish": (lambda net, x: F.hardswish(net.c(x)), ["Hardswish"]),
    "F.hardsigmoid": (lambda net, x: F.hardsigmoid(net.c(x)), ["Hardsigmoid"]),
    "F.hardtanh": (lambda net, x: F.hardtanh(net.c(x), -0.1, 0.3), ["Hardtanh"]),
    "x.clamp": (lambda net, x: net.c(x).clamp(-0.1, 0.3), ["Hardtanh"]),
    "x.clamp_": (lambda net, x: net.c(x).clamp_(min=-0.1, max=0.3), ["Hardtanh"]),
    "torch.clip": (lambda net, x: torch.clip(net.c(x), -0.1, 0.3), ["Hardtanh"]),
    "torch.sigmoid": (lambda net, x: torch.sigmoid(net.c(x)), ["Sigmoid"]),
    "F.tanh": (lambda net, x: net.c(x).tanh(), ["Tanh"]),
    "relu6(x + 3) / 6": (lambda net, x: F.relu6(net.c(x) + 3.0, inplace=True) / 6.0, ["Hardsigmoid"]),
    "h_sigmoid layer": (lambda net, x: net.six(3 + net.c(x)).div(6), ["Hardsigmoid"]),
    "x * relu6(x + 3) / 6": (
        lambda net, x: (lambda y: y * F.relu6(y + 3) / 6)(net.c(x)),
        ["Hardswish"],
    ),
    "x * h_sigmoid": (lambda net, x: net.c(x) * (F.relu6(x + 3) / 6), ["Hardsigmoid", "mul"]),
    "x * sigmoid(x)": (lambda net, x: (lambda y: y * torch.sigmoid(y))(net.c(x)), ["Sigmoid", "mul"]),
    "F.log_softmax": (lambda net, x: F.log_softmax(net.c(x), dim=1), ["LogSoftmax"]),
    "F.softmax": (lambda net, x: F.softmax(net.c(x), dim=1), ["Softmax"]),
    "x.softmax(-3)": (lambda net, x: net.c(x).softmax(-3), ["Softmax"]),
    "F.dropout": (lambda net, x: F.dropout(net.c(x), 0.3, net.training), ["Dropout"]),
    "F.dropout2d": (lambda net, x: F.dropout2d(net.c(x), p=0.3, training=net.training), ["Dropout"]),
    "F.max_pool2d": (lambda net, x: F.max_pool2d(net.c(x), 2), ["MaxPool2d"]),
    "max pool by position": (lambda net, x: F.max_pool2d(net.c(x), 3, 2, 1, 1, True), ["MaxPool2d"]),
    "max pool by keyword": (
        lambda net, x: F.max_pool2d(net.c(x), kernel_size=3, stride=1, padding=1, dilation=2, ceil_mode=True),
        ["MaxPool2d"],
    ),
    "torch.max_pool2d": (lambda net, x: torch.max_pool2d(net.c(x), [3, 2]), ["MaxPool2d"]),
    "avg pool by position": (
        lambda net, x: F.avg_pool2d(net.c(x), 3, 2, 1, True, False, 5),
        ["AvgPool2d"],
    ),
    "avg pool by keyword": (
        lambda net, x: F.avg_pool2d(net.c(x), (3, 2), padding=1, count_include_pad=False),
        ["AvgPool2d"],
    ),
    "avg pool of all": (lambda net, x: F.avg_pool2d(net.c(x), x.size()[2:]), [POOL]),
    "avg pool of all, by keyword": (
        lambda net, x: F.avg_pool2d(net.c(x), kernel_size=(x.shape[2], x.shape[3]), stride=x.size()[2:]),
        [POOL],
    ),
    "max pool of all": (lambda net, x: F.max_pool2d(net.c(x), x.size()[2:]), ["AdaptiveMaxPool2d"]),
    "F.adaptive_avg_pool2d": (lambda net, x: F.adaptive_avg_pool2d(net.c(x), (2, None)), [POOL]),
    "F.adaptive_max_pool2d": (lambda net, x: F.adaptive_max_pool2d(net.c(x), 2), ["AdaptiveMaxPool2d"]),
    "mean": (lambda net, x: net.c(x).mean((2, 3)), [POOL, "Flatten"]),
    "mean by keyword": (lambda net, x: torch.mean(net.c(x), dim=[-1, -2]), [POOL, "Flatten"]),
    "mean that keeps": (lambda net, x: net.c(x).mean([3, 2], True), [POOL]),
    "mean of a flatten": (lambda net, x: net.c(x).flatten(2).mean(-1), [POOL, "Flatten"]),
    "mean of a view": (lambda net, x: net.c(x).view(x.size(0), 4, -1).mean(dim=2), [POOL, "Flatten"]),
    "mean of a mean": (lambda net, x: net.c(x).mean(3).mean(2), [POOL, "Flatten"]),
    "interpolate": (
        lambda net, x: F.interpolate(net.c(x), scale_factor=2, mode="bilinear", align_corners=True),
        ["Upsample"],
    ),
    "interpolate to numbers": (lambda net, x: F.interpolate(net.c(x), (9, 12)), ["Upsample"]),
    "interpolate by two": (
        lambda net, x: F.interpolate(net.c(x), scale_factor=(2, 0.5), recompute_scale_factor=True),
        ["Upsample"],
    ),
    "F.pad": (lambda net, x: F.pad(net.c(x), (1, 2, 0, 3)), ["ZeroPad2d"]),
    "F.pad of columns": (lambda net, x: F.pad(net.c(x), [1, 2], "constant", 0), ["ZeroPad2d"]),
    "F.pad that crops": (lambda net, x: F.pad(net.c(x), (-1, 0, 0, -2), value=0.0), ["ZeroPad2d"]),
    "F.channel_shuffle": (lambda net, x: F.channel_shuffle(net.c(x), 2), ["ChannelShuffle"]),
    "shuffle by transpose": (shuffled, ["ChannelShuffle"]),
    "shuffle by permute": (permuted, ["ChannelShuffle"]),
    "torch.flatten": (lambda net, x: torch.flatten(net.c(x), 1), ["Flatten"]),
    "flatten by keyword": (lambda net, x: torch.flatten(input=net.c(x), start_dim=1), ["Flatten"]),
    "flatten to -1": (lambda net, x: net.c(x).flatten(1, -1), ["Flatten"]),
    "view(size, -1)": (lambda net, x: net.c(x).view(x.size(0), -1), ["Flatten"]),
    "view(shape, -1)": (lambda net, x: net.c(x).view(x.shape[0], -1), ["Flatten"]),
    "view((size, -1))": (lambda net, x: net.c(x).view((x.size()[0], -1)), ["Flatten"]),
    "view(-1, number)": (lambda net, x: net.c(x).view(-1, 4 * 8 * 8), ["Flatten"]),
    "reshape": (lambda net, x: net.c(x).reshape(x.size(0), -1), ["Flatten"]),
    "torch.reshape": (lambda net, x: torch.reshape(net.c(x), (x.size(0), -1)), ["Flatten"]),
    "a chain of views": (lambda net, x: net.c(x).view(x.size(0), 4, -1).view(x.shape), []),
    "squeeze": (lambda net, x: net.c(x).mean((2, 3), True).squeeze(-1).squeeze(-1), [POOL, "Flatten"]),
    "squeeze all": (lambda net, x: F.adaptive_avg_pool2d(net.c(x), 1).squeeze(), [POOL, "Flatten"]),
    "unsqueeze": (
        lambda net, x: net.c(x).mean((2, 3)).unsqueeze(2).unsqueeze(3) * x,
        [POOL, "Flatten", "Unflatten", "mul"],
    ),
    "None": (
        lambda net, x: net.c(x).mean((2, 3))[:, :, None, None] * x,
        [POOL, "Flatten", "Unflatten", "mul"],
    ),
    "expand": (lambda net, x: net.c(x).mean((2, 3), True).expand(x.shape) * x, [POOL, "mul"]),
    "clone": (lambda net, x: net.c(x).clone().detach().contiguous(), []),
    "x + y": (lambda net, x: net.c(x) + x, ["add"]),
    "x + x": (lambda net, x: (lambda y: y + y)(net.c(x)), ["add"]),
    "x += y": (in_place_sum, ["add"]),
    "torch.add": (lambda net, x: torch.add(net.c(x), x), ["add"]),
    "x.add_(y)": (lambda net, x: net.c(x).add_(x), ["add"]),
    "sum": (lambda net, x: sum([net.c(x), x, x]), ["add", "add"]),
    "x * y": (lambda net, x: net.c(x) * x, ["mul"]),
    "x *= y": (in_place_product, ["mul"]),
    "torch.mul": (lambda net, x: torch.mul(net.c(x), x), ["mul"]),
    "x.mul_(y)": (lambda net, x: net.c(x).mul_(x), ["mul"]),
    "torch.cat": (lambda net, x: torch.cat([net.c(x), x], 1), ["cat"]),
    "cat by keyword": (lambda net, x: torch.cat(tensors=(x, net.c(x), x), dim=1), ["cat"]),
    "cat over -3": (lambda net, x: torch.concatenate([net.c(x), x], dim=-3), ["cat"]),
    "chunk": (two_parts, ["narrow", "narrow", "cat"]),
    "chunk by keyword": (lambda net, x: torch.chunk(input=net.c(x), chunks=3, dim=1)[1], ["narrow"]),
    "split": (lambda net, x: torch.split(net.c(x), [1, 3], dim=1)[-1], ["narrow"]),
    "x.split": (lambda net, x: net.c(x).split(x.size(1) // 2, 1)[1], ["narrow"]),
    "tensor_split": (lambda net, x: torch.tensor_split(net.c(x), 3, dim=1)[0], ["narrow"]),
    "x[:, a:b]": (lambda net, x: net.c(x)[:, 1:3], ["narrow"]),
    "x[:, a:b, ...]": (lambda net, x: net.c(x)[:, 1:3, ...], ["narrow"]),
    "x[:, :size]": (lambda net, x: net.c(x)[:, : x.size(1) // 2, :, :], ["narrow"]),
    "x[:, -a:]": (lambda net, x: net.c(x)[:, -3:], ["narrow"]),
    "a sliced input": (lambda net, x: net.d(x[:, :2]) + net.c(x), ["narrow", "Conv2d", "Conv2d", "add"]),
    "squeeze and excitation": (
        gated,
        [POOL, "Flatten", "Linear", "ReLU", "Linear", "Sigmoid", "Unflatten", "Conv2d", "mul"],
    ),
    "dead code": (lambda net, x: (torch.std(net.c(x), 1), net.c(x).sum(), net.c(x))[2], []),
}
FIXED = ("view(-1, number)",)
"""Spellings that fit one image size."""
ROUNDED = (
    "avg pool of all",
    "avg pool of all, by keyword",
    "mean of a flatten",
    "mean of a view",
    "mean of a mean",
)
"""Spellings that add positions up in another order than the pool that they become."""
SIGNALS = {
    "F.max_pool1d": (lambda net, x: F.max_pool1d(x, 3, 2, 1), ["MaxPool1d"]),
    "F.avg_pool1d": (lambda net, x: F.avg_pool1d(x, 3, stride=2, padding=1), ["AvgPool1d"]),
    "F.adaptive_avg_pool1d": (lambda net, x: F.adaptive_avg_pool1d(x, 2), ["AdaptiveAvgPool1d"]),
    "F.adaptive_max_pool1d": (lambda net, x: F.adaptive_max_pool1d(x, 2), ["AdaptiveMaxPool1d"]),
    "mean": (lambda net, x: x.mean(-1), ["AdaptiveAvgPool1d", "Flatten"]),
    "F.pad": (lambda net, x: F.pad(x, (2, 1)), ["ZeroPad1d"]),
    "interpolate": (lambda net, x: F.interpolate(x, scale_factor=2.0, mode="linear"), ["Upsample"]),
    "F.dropout1d": (lambda net, x: F.dropout1d(x, training=net.training), ["Dropout"]),
    "squeeze": (lambda net, x: F.adaptive_max_pool1d(x, 1).squeeze(2), ["AdaptiveMaxPool1d", "Flatten"]),
    "shuffle": (
        lambda net, x: x.view(x.size(0), 2, 2, -1).swapaxes(1, 2).reshape(x.shape),
        ["ChannelShuffle"],
    ),
}
FEATURES = {
    "softmax": (lambda net, x: F.softmax(net.up(x[:, :2]), -1), ["narrow", "Linear", "Softmax"]),
    "cat": (lambda net, x: torch.cat([x, net.down(x)], -1), ["Linear", "cat"]),
    "x[..., a:b]": (lambda net, x: net.up(x[..., 1:3]), ["narrow", "Linear"]),
    "chunk": (lambda net, x: net.up(x.chunk(2, dim=-1)[1]), ["narrow", "Linear"]),
    "x.unsqueeze(-1)": (lambda net, x: net.down(x).unsqueeze(-1), ["Linear", "Unflatten"]),
}
CASES = [
    *[
        (IMAGE, name, forward, kinds if "Conv2d" in kinds else ["Conv2d", *kinds])
        for name, (forward, kinds) in SPELLINGS.items()
    ],
    *[(SIGNAL, name, forward, kinds) for name, (forward, kinds) in SIGNALS.items()],
    *[(POINTS, name, forward, kinds) for name, (forward, kinds) in FEATURES.items()],
]


@pytest.mark.parametrize(
    ("example", "name", "forward", "expected"), CASES, ids=[f"{case[0].dim()}d {case[1]}" for case in CASES]
)
def test_a_spelling_becomes_a_module_and_computes_the_same(example, name, forward, expected, tmp_path):
    model = Forward(forward, **layers()).eval()
    graph = network.trace(model, example)
    assert networks.kinds(graph) == expected
    network.save(graph, tmp_path)
    others = [example, torch.randn(5, *example.shape[1:])]
    others += [OTHER] if example is IMAGE and name not in FIXED else []
    others += [torch.randn(3, 4, 20)] if example is SIGNAL else []
    for x in others:
        want, got = model(x.clone()), graph(x.clone())
        assert want.shape == got.shape
        assert torch.allclose(want, got, rtol=0, atol=1e-6) if name in ROUNDED else torch.equal(want, got)
        assert torch.equal(network.load(tmp_path)(x), got)


REFUSED = {
    "x * 2": (lambda net, x: net.c(x) * 2, "mul", "mul"),
    "x + 1": (lambda net, x: net.c(x) + 1, "add", "add"),
    "x - y": (lambda net, x: net.c(x) - x, "sub", "sub"),
    "x / 6": (lambda net, x: net.c(x) / 6, "truediv", "truediv"),
    "relu6(x + 3) / 5": (lambda net, x: F.relu6(net.c(x) + 3) / 5, "add", "add"),
    "relu6(x + 2) / 6": (lambda net, x: F.relu6(net.c(x) + 2) / 6, "add", "add"),
    "y * relu6(x + 3) / 6": (lambda net, x: net.c(x) * F.relu6(x + 3) / 6, "add", "add"),
    "a weighted sum": (lambda net, x: torch.add(net.c(x), x, alpha=2), "add", "add"),
    "a parameter in a sum": (lambda net, x: net.c(x) + net.c.bias.view(1, 4, 1, 1), "c.bias", "c_bias"),
    "a parameter in a product": (
        lambda net, x: net.c(x) * net.c.bias[None, :, None, None],
        "c.bias",
        "c_bias",
    ),
    "F.prelu": (lambda net, x: F.prelu(net.c(x), net.c.bias), "c.bias", "c_bias"),
    "cat of rows": (lambda net, x: torch.cat([net.c(x), x], 2), "cat", "cat"),
    "cat of samples": (lambda net, x: torch.cat([net.c(x), x]), "cat", "cat"),
    "flatten of all": (lambda net, x: torch.flatten(net.c(x)), "flatten", "flatten"),
    "flatten of positions": (lambda net, x: torch.flatten(net.c(x), 2), "flatten", "flatten"),
    "flatten of rows": (lambda net, x: torch.flatten(net.c(x), 1, end_dim=2), "flatten", "flatten"),
    "a view of three dimensions": (lambda net, x: net.c(x).view(2, 4, -1), "view", "view"),
    "a view to an image": (lambda net, x: net.c(x).flatten(1).view(-1, 8, 4, 8), "view", "view"),
    "a transposed image": (lambda net, x: net.c(x).transpose(2, 3), "transpose", "transpose"),
    "channels last": (lambda net, x: net.c(x).permute(0, 2, 3, 1), "permute", "permute"),
    "a shuffle of features": (
        lambda net, x: net.c(x).mean((2, 3)).view(-1, 2, 2).transpose(1, 2).reshape(x.size(0), -1),
        "view",
        "view",
    ),
    "pool over one side": (lambda net, x: F.avg_pool2d(net.c(x), x.size(2)), "avg_pool2d", "avg_pool2d"),
    "mean of all": (lambda net, x: net.c(x).mean(), "mean", "mean"),
    "mean of channels": (lambda net, x: net.c(x).mean(1, keepdim=True), "mean", "mean"),
    "mean of rows": (lambda net, x: net.c(x).mean(2), "mean", "mean"),
    "x[:, 0]": (lambda net, x: net.c(x)[:, 0], "getitem", "getitem"),
    "x[:, ::2]": (lambda net, x: net.c(x)[:, ::2], "getitem", "getitem"),
    "x[..., a:b]": (lambda net, x: net.c(x)[..., 2:6], "getitem", "getitem"),
    "x[:, :, a:b]": (lambda net, x: net.c(x)[:, :, 2:6], "getitem", "getitem"),
    "x[a:b]": (lambda net, x: net.c(x)[0:1], "getitem", "getitem"),
    "chunks of rows": (lambda net, x: net.c(x).chunk(2, 2)[0], "chunk", "chunk"),
    "indices of a pool": (
        lambda net, x: F.max_pool2d(net.c(x), 2, return_indices=True)[0],
        "max_pool2d_with_indices",
        "max_pool2d_with_indices",
    ),
    "softmax of positions": (lambda net, x: F.softmax(net.c(x), -1), "softmax", "softmax"),
    "clamp with one bound": (lambda net, x: net.c(x).clamp(min=0.1), "clamp", "clamp"),
    "pad with a value": (lambda net, x: F.pad(net.c(x), (1, 1, 1, 1), value=0.5), "pad", "pad"),
    "pad by reflection": (lambda net, x: F.pad(net.c(x), (1, 1, 1, 1), "reflect"), "pad", "pad"),
    "pad of channels": (lambda net, x: F.pad(net.c(x), (0, 0, 0, 0, 1, 1)), "pad", "pad"),
    "interpolate to a size that is read": (
        lambda net, x: F.interpolate(net.c(x), size=x.shape[2:]),
        "interpolate",
        "interpolate",
    ),
    "a size in a sum": (lambda net, x: net.c(x) + x.size(0), "size", "size"),
}


@pytest.mark.parametrize("spelling", REFUSED)
def test_an_unknown_operation_is_refused(spelling):
    forward, operation, node = REFUSED[spelling]
    assert refusal(Forward(forward, **layers()), IMAGE) == (
        f"model: operation {operation!r} (node {node!r}) is not supported; {ADVICE}"
    )


def test_a_batch_norm_without_statistics_of_its_own_is_refused():
    def forward(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
        return F.batch_norm(net.c(x), None, None, training=True)

    assert refusal(Forward(forward, **layers()), IMAGE) == (
        f"model: operation 'batch_norm' (node 'batch_norm') is not supported; {ADVICE}"
    )
