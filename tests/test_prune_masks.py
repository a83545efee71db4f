"""Pruned channels are zero, compute zero, and never come back."""

from __future__ import annotations

import networks
import pytest
import torch
from networks import Forward, analysed, lively
from torch import fx, nn

from flow import network
from flow.network.channels import analyse
from flow.prune.masks import Masks
from flow.training import train_epoch


def tensors(graph: fx.GraphModule, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return what every node computes."""
    found = {}

    class Recorder(fx.Interpreter):
        def run_node(self, node):
            found[node.name] = super().run_node(node)
            return found[node.name]

    with torch.no_grad():
        Recorder(graph).run(x)
    return found


def masked(model: nn.Module, layer: str, rows: list[int], *shape: int):
    graph, channels = analysed(model, *shape)
    masks = Masks(graph, channels)
    masks.set(int(label) for label in channels.labels[layer][rows])
    return graph.eval(), channels, masks


@pytest.mark.parametrize(
    "after",
    [
        (nn.ReLU(),),
        (nn.BatchNorm2d(4), nn.ReLU()),
        (nn.BatchNorm2d(4, affine=False), nn.ReLU()),
        (nn.BatchNorm2d(4, track_running_stats=False), nn.ReLU()),
        (nn.BatchNorm2d(4, affine=False, track_running_stats=False), nn.ReLU()),
        (nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1, groups=4), nn.ReLU()),
        (nn.MaxPool2d(2), nn.Tanh()),
        (nn.PReLU(4), nn.Hardswish(), nn.Upsample(scale_factor=2), nn.ZeroPad2d(1)),
        (nn.ConvTranspose2d(4, 4, 2, stride=2, groups=4), nn.BatchNorm2d(4)),
    ],
    ids=[
        *(
            "relu",
            "norm",
            "no affine",
            "no statistics",
            "neither",
            "depthwise",
            "pool",
            "shape",
            "transposed",
        ),
    ],
)
@pytest.mark.parametrize("train", [False, True])
def test_pruned_channels_compute_zero_whatever_follows(after, train):
    model = lively(nn.Sequential(nn.Conv2d(2, 4, 3), *after, nn.Conv2d(4, 2, 1)))
    graph, _, _ = masked(model, "_0", [1, 3], 2, 2, 8, 8)
    x = torch.randn(6, 2, 8, 8, dtype=torch.float64)
    found = tensors(graph.train(train), x)
    for index in range(len(after) + 1):
        assert not found[f"_{index}"][:, [1, 3]].any()
        assert found[f"_{index}"][:, [0, 2]].any()


def test_both_sides_of_a_sum_compute_zero():
    graph, _, _ = masked(networks.residual(), "stem", [0, 2], 2, 2, 5, 5)
    found = tensors(graph, torch.randn(3, 2, 5, 5, dtype=torch.float64))
    for name in ("stem", "b", "add"):
        assert not found[name][:, [0, 2]].any()
        assert found[name][:, [1, 3]].any()


def test_the_right_side_of_a_concatenation_computes_zero():
    graph, _, _ = masked(networks.branches(), "right", [1], 2, 2, 5, 5)
    found = tensors(graph, torch.randn(3, 2, 5, 5, dtype=torch.float64))
    assert not found["cat"][:, 4].any()
    assert all(found["cat"][:, index].any() for index in range(4))


def test_rows_of_a_transposed_conv_are_along_its_second_axis():
    model = lively(nn.Sequential(nn.ConvTranspose2d(3, 4, 2, stride=2), nn.Tanh(), nn.Conv2d(4, 2, 1)))
    graph, _, _ = masked(model, "_0", [1, 3], 2, 3, 4, 4)
    weight = graph.get_submodule("0").weight
    assert not weight[:, [1, 3]].any()
    assert torch.equal(weight[:, [0, 2]], model[0].weight[:, [0, 2]])
    found = tensors(graph, torch.randn(2, 3, 4, 4, dtype=torch.float64))
    assert [bool(channel.any()) for channel in found["_1"].transpose(0, 1)] == [True, False, True, False]


def test_a_shuffled_group_computes_zero_together():
    model = lively(nn.Sequential(nn.Conv2d(2, 6, 1), nn.ChannelShuffle(2), nn.Conv2d(6, 2, 1)))
    graph, _, masks = masked(model, "_0", [1], 2, 2, 4, 4)
    found = tensors(graph, torch.randn(2, 2, 4, 4, dtype=torch.float64))
    assert len(masks.pruned) == 1
    zero = [[i for i in range(6) if not found[name][:, i].any()] for name in ("_0", "_1")]
    assert zero == [[1, 4], [2, 3]]


def test_slopes_of_prelu_are_left_alone():
    model = lively(nn.Sequential(nn.Conv2d(2, 4, 1), nn.PReLU(4), nn.Conv2d(4, 2, 1)))
    graph, _, _ = masked(model, "_0", [1, 2], 2, 2, 4, 4)
    assert torch.equal(graph.get_submodule("1").weight, model[1].weight)


def test_a_layer_that_is_used_twice_computes_zero_both_times():
    def forward(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
        return net.out(torch.cat([net.norm(net.conv(x)), net.norm(net.conv(x * x))], 1))

    layers = {"conv": nn.Conv2d(2, 3, 1), "norm": nn.BatchNorm2d(3), "out": nn.Conv2d(6, 2, 1)}
    graph, channels, masks = masked(lively(Forward(forward, **layers)), "conv", [1], 2, 2, 4, 4)
    assert masks.pruned == {channels.labels["conv_1"][1]}
    found = tensors(graph, torch.randn(2, 2, 4, 4, dtype=torch.float64))
    assert [bool(channel.any()) for channel in found["cat"].transpose(0, 1)] == [True, False, True] * 2


def test_a_gate_goes_with_what_it_scales():
    def forward(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
        y = net.a(x)
        return net.out(y * torch.sigmoid(net.up(y.mean((2, 3)))).view(-1, 3, 1, 1))

    layers = {"a": nn.Conv2d(2, 3, 1), "up": nn.Linear(3, 3), "out": nn.Conv2d(3, 2, 1)}
    graph, _, _ = masked(lively(Forward(forward, **layers)), "a", [2], 2, 2, 4, 4)
    assert [bool(row.any()) for row in graph.get_submodule("up").weight] == [True, True, False]
    found = tensors(graph, torch.randn(2, 2, 4, 4, dtype=torch.float64))
    assert [bool(channel.any()) for channel in found["mul"].transpose(0, 1)] == [True, True, False]


def test_nothing_else_is_zeroed():
    model = lively(networks.cnn())
    graph, _, _ = masked(model, "conv1", [2], 2, 1, 6, 6)
    for name, value in model.state_dict().items():
        masked_value = graph.state_dict()[name]
        if name in ("conv1.weight", "bn1.weight", "bn1.bias", "bn1.running_mean"):
            assert not masked_value[2].any()
            value, masked_value = (torch.cat([v[:2], v[3:]]) for v in (value, masked_value))
        assert torch.equal(value, masked_value)


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01, nesterov=True),
        lambda p: torch.optim.AdamW(p, lr=0.1),
    ],
    ids=["momentum", "adam"],
)
def test_masks_outlive_training_with_momentum(optimizer):
    graph, channels = analysed(networks.cnn(), 2, 1, 6, 6)
    data = networks.clusters(60, (1, 6, 6))
    steps, generator = optimizer(graph.parameters()), torch.Generator().manual_seed(0)
    options = {"batch_size": 16, "generator": generator}
    train_epoch(graph, data.train, steps, **options)  # momentum for what is pruned next
    masks = Masks(graph, channels)
    masks.set([*channels.labels["conv1"][[0, 3]], *channels.labels["hidden"][[5]]])
    steps.register_step_post_hook(lambda *_: masks.apply())
    train_epoch(graph, data.train, steps, **options)
    found = tensors(graph.eval(), torch.from_numpy(data.test[0]))
    assert not found["relu1"][:, [0, 3]].any()
    assert not found["hidden"][:, 5].any()
    assert graph.get_submodule("conv1").weight[[1, 2, 4, 5]].flatten(1).any(1).all()


def test_other_labels_take_the_place_of_those_before():
    graph, channels, masks = masked(networks.mlp(), "fc1", [0], 2, 6)
    masks.set([int(channels.labels["fc2"][1])])
    for layer in ("fc1", "fc2"):
        nn.init.ones_(graph.get_submodule(layer).weight)
    masks.apply()
    assert graph.get_submodule("fc1").weight.all()
    assert graph.get_submodule("fc2").weight.any(1).tolist() == [True, False] + [True] * 6


def test_masks_follow_a_network_into_another_memory_format():
    graph, _, masks = masked(networks.cnn(), "conv1", [1], 2, 1, 6, 6)
    graph.to(memory_format=torch.channels_last)  # moves every tensor elsewhere
    nn.init.ones_(graph.get_submodule("conv1").weight)
    masks.apply()
    assert graph.get_submodule("conv1").weight.flatten(1).any(1).tolist() == [True, False] + [True] * 4


def test_rows_of_a_grouped_conv_and_of_a_grouped_transposed_conv_are_found():
    layers = [nn.Conv2d(2, 4, 1), nn.Conv2d(4, 6, 1, groups=2), nn.ConvTranspose2d(6, 4, 2, groups=2)]
    graph = network.trace(nn.Sequential(*layers, nn.Conv2d(4, 2, 1)), torch.zeros(1, 2, 4, 4))
    channels = analyse(graph, network.shapes(graph, torch.zeros(1, 2, 4, 4)), couple_groups=True)
    masks = Masks(graph, channels)
    masks.set([int(channels.labels["_1"][2]), int(channels.labels["_2"][1])])
    found = tensors(graph.eval(), torch.randn(1, 2, 4, 4))
    assert found["_1"].flatten(2).any(2).tolist() == [[True, True, False, True, True, False]]
    assert found["_2"].flatten(2).any(2).tolist() == [[True, False, True, False]]
