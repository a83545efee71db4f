"""Shapes are those of a real pass, found without one; costs are those counted by hand."""

from __future__ import annotations

import networks
import pytest
import torch
from networks import Forward, Pair
from torch import fx, nn

from flow import network

IMAGE = torch.zeros(2, 3, 8, 8)


def counted(model: nn.Module, example: network.Example) -> dict[str, tuple]:
    found = network.costs(network.trace(model, example), example)
    return {c.name: (c.kind, c.inputs, c.outputs, c.parameters, c.macs) for c in found}


def test_costs_are_those_counted_by_hand():
    model = nn.Sequential(
        networks.named(
            conv=nn.Conv2d(3, 8, 3, padding=1, bias=False),
            norm=nn.BatchNorm2d(8),
            depth=nn.Conv2d(8, 8, (3, 1), groups=8, stride=2),
            group=nn.Conv2d(8, 4, 1, groups=2),
            flatten=nn.Flatten(),
            fc=nn.Linear(4 * 3 * 4, 5),
        )
    )
    assert counted(model, IMAGE) == {
        "conv": ("Conv2d", 3, 8, 3 * 8 * 9, 3 * 8 * 9 * 64),
        "depth": ("Conv2d", 8, 8, 8 * 3 + 8, 8 * 3 * 3 * 4),
        "group": ("Conv2d", 8, 4, 4 * 4 + 4, 4 * 4 * 3 * 4),
        "fc": ("Linear", 48, 5, 48 * 5 + 5, 48 * 5),
    }
    assert network.total_parameters(network.trace(model, IMAGE)) == 216 + 16 + 32 + 20 + 245


def test_a_transposed_conv_multiplies_once_for_each_input_position():
    model = nn.Sequential(
        networks.named(
            up=nn.ConvTranspose2d(3, 6, 2, stride=2),
            group=nn.ConvTranspose2d(6, 4, 3, groups=2, bias=False),
            depth=nn.ConvTranspose2d(4, 4, 3, groups=4),
        )
    )
    assert counted(model, IMAGE) == {
        "up": ("ConvTranspose2d", 3, 6, 3 * 6 * 4 + 6, 3 * 6 * 4 * 8 * 8),
        "group": ("ConvTranspose2d", 6, 4, 6 * 2 * 9, 6 * 2 * 9 * 16 * 16),
        "depth": ("ConvTranspose2d", 4, 4, 4 * 9 + 4, 4 * 9 * 18 * 18),
    }


def test_a_layer_that_is_used_twice_counts_its_parameters_once_and_its_work_twice():
    def forward(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
        return net.conv(net.pool(net.act(net.conv(x))))

    model = Forward(forward, conv=nn.Conv2d(3, 3, 1), act=nn.PReLU(3), pool=nn.MaxPool2d(2))
    assert counted(model, IMAGE) == {"conv": ("Conv2d", 3, 3, 12, 9 * (64 + 16))}
    assert network.total_parameters(network.trace(model, IMAGE)) == 12 + 3


def test_costs_are_of_all_inputs():
    model = Pair(lambda net, x, y: (net.a(x), net.b(y)), a=nn.Conv2d(3, 2, 1), b=nn.Conv1d(4, 2, 3))
    assert counted(model, (IMAGE, torch.zeros(2, 4, 7))) == {
        "a": ("Conv2d", 3, 2, 8, 6 * 64),
        "b": ("Conv1d", 4, 2, 26, 24 * 5),
    }


def test_costs_are_for_one_sample():
    graph = network.trace(networks.cnn(), torch.zeros(2, 1, 6, 6))
    assert network.costs(graph, torch.zeros(2, 1, 6, 6)) == network.costs(graph, torch.zeros(50, 1, 6, 6))


def joins(net: nn.Module, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, ...]:
    gate = net.pool(x) * net.up(y)
    return torch.cat([gate, x], 1), net.norm(y)[:, 1:], x


def test_shapes_are_those_of_a_real_pass():
    model = Pair(
        joins, pool=nn.AdaptiveAvgPool2d(1), up=nn.ConvTranspose2d(3, 3, 2, 2), norm=nn.BatchNorm2d(3)
    )
    graph = network.trace(model.eval(), (IMAGE, IMAGE[:, :, :4, :4]))
    inputs = (torch.zeros(5, 3, 6, 4), torch.zeros(5, 3, 3, 2))
    real = {}

    class Recorder(fx.Interpreter):
        def run_node(self, n: fx.Node) -> object:
            result = super().run_node(n)
            if n.op != "output":
                real[n.name] = tuple(result.shape)
            return result

    Recorder(graph).run(*inputs)
    assert network.shapes(graph, inputs) == real
    assert real["cat"] == (5, 6, 6, 4)


def test_shapes_put_back_each_training_flag_and_change_no_statistics():
    graph = network.trace(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout()), IMAGE)
    graph.train()
    graph.get_submodule("0").eval()
    before = networks.state(graph)
    assert network.shapes(graph, torch.zeros(7, 3, 5, 5))["_2"] == (7, 4, 5, 5)
    networks.assert_untouched(graph, before)


def test_shapes_need_no_room_for_what_they_are_of():
    graph = network.trace(
        nn.Sequential(nn.Conv2d(1, 4096, 1), nn.Conv2d(4096, 4096, 3, groups=4096)), IMAGE[:, :1]
    )
    image = torch.zeros(1, 1, 4096, 4096)
    assert network.shapes(graph, image)["_0"] == (1, 4096, 4096, 4096)  # 256 GiB
    assert [cost.macs for cost in network.costs(graph, image)] == [4096**3, 4096 * 9 * 4094**2]


@pytest.mark.parametrize(
    "example", [torch.zeros(2, 3, 8, 8).double(), torch.zeros(2, 3, 8, 8).to(torch.uint8)]
)
def test_shapes_take_examples_of_any_type(example):
    graph = network.trace(nn.Sequential(nn.Conv2d(3, 4, 3)), IMAGE)
    assert network.shapes(graph, example) == network.shapes(graph, IMAGE)
