"""One view of all layers with weights, and a layer made from it: round trips, values, nothing changed."""

from __future__ import annotations

import copy

import networks
import pytest
import torch
from torch import nn

from flow import network

LAYERS = {
    "linear": (nn.Linear(6, 4), (2, 6), (1, 4, 6, 1)),
    "conv": (nn.Conv2d(4, 6, (3, 2), bias=False), (2, 4, 5, 5), (1, 6, 4, 6)),
    "conv1d": (nn.Conv1d(4, 6, 3), (2, 4, 5), (1, 6, 4, 3)),
    "grouped": (nn.Conv2d(4, 6, 3, groups=2), (2, 4, 5, 5), (2, 3, 2, 9)),
    "depthwise": (
        nn.Conv2d(4, 4, 3, groups=4, padding_mode="circular", padding=1),
        (2, 4, 5, 5),
        (4, 1, 1, 9),
    ),
    "multiplied": (nn.Conv2d(4, 8, 3, groups=4), (2, 4, 5, 5), (4, 2, 1, 9)),
    "transposed": (nn.ConvTranspose2d(4, 6, (3, 2), stride=2), (2, 4, 5, 5), (1, 6, 4, 6)),
    "transposed1d": (nn.ConvTranspose1d(4, 6, 3, bias=False), (2, 4, 5), (1, 6, 4, 3)),
    "transposed grouped": (nn.ConvTranspose2d(4, 6, 3, groups=2), (2, 4, 5, 5), (2, 3, 2, 9)),
    "transposed depthwise": (nn.ConvTranspose2d(4, 4, 3, groups=4), (2, 4, 5, 5), (4, 1, 1, 9)),
}


def made(name: str) -> tuple[nn.Module, torch.Tensor]:
    layer, shape, _ = LAYERS[name]
    return networks.lively(copy.deepcopy(layer)), torch.randn(shape, dtype=torch.float64)


@pytest.mark.parametrize("name", LAYERS)
def test_blocks_are_groups_outputs_inputs_positions(name):
    layer, shape, expected = LAYERS[name]
    blocks = network.blocks(layer)
    assert tuple(blocks.shape) == expected
    assert network.widths(layer) == (shape[1], expected[0] * expected[1])
    assert tuple(network.weight_rows(layer).shape) == (expected[0] * expected[1], *expected[2:])
    assert not blocks.requires_grad


@pytest.mark.parametrize("name", LAYERS)
def test_blocks_say_which_output_reads_which_input_by_which_weight(name):
    layer, x = made(name)
    groups, outputs, inputs, _ = network.blocks(layer).shape
    for group, row, column in (
        (0, 0, 0),
        (groups - 1, outputs - 1, inputs - 1),
        (groups // 2, outputs // 2, 0),
    ):
        changed = copy.deepcopy(layer)
        with torch.no_grad():
            network.blocks(changed)[group, row, column] += 1
            moved = (changed(x) != layer(x)).transpose(0, 1).flatten(1).any(1)
        assert torch.nonzero(moved).flatten().tolist() == [group * outputs + row]
        x_without = x.clone()
        x_without[:, group * inputs + column] = 0
        assert torch.equal(changed(x_without), layer(x_without))


@pytest.mark.parametrize("name", LAYERS)
def test_blocks_are_a_view(name):
    layer, _ = made(name)
    network.blocks(layer).fill_(0)
    assert not layer.weight.any()


@pytest.mark.parametrize("name", [name for name in LAYERS if name != "transposed grouped"])
def test_rows_are_a_view(name):
    layer, _ = made(name)
    network.weight_rows(layer)[1].fill_(0)
    rows = layer.weight.transpose(0, 1) if name in ("transposed", "transposed1d") else layer.weight
    assert [bool(row.any()) for row in rows] == [index != 1 for index in range(len(rows))]


def test_rows_of_weights_in_another_memory_format_are_a_view():
    layer = nn.Conv2d(4, 6, 3).to(memory_format=torch.channels_last)
    network.weight_rows(layer)[1].fill_(0)
    assert [bool(row.any()) for row in layer.weight] == [index != 1 for index in range(6)]


@pytest.mark.parametrize("name", LAYERS)
def test_gradients_are_seen_as_the_weights_are(name):
    layer, x = made(name)
    layer(x).sum().backward()
    twin = copy.deepcopy(layer)
    with torch.no_grad():
        twin.weight.copy_(layer.weight.grad)
    assert torch.equal(network.blocks(layer, layer.weight.grad), network.blocks(twin))
    assert torch.equal(network.weight_rows(layer, layer.weight.grad), network.weight_rows(twin))


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_of_the_same_blocks_computes_the_same(name):
    layer, x = made(name)
    before = networks.state(layer)
    twin = network.with_blocks(layer, network.blocks(layer), layer.bias)
    assert torch.equal(twin(x), layer(x))
    assert str(twin) == str(layer)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.add_(1)
    networks.assert_untouched(layer, before)


@pytest.mark.parametrize("name", ["linear", "conv", "conv1d", "transposed", "transposed1d"])
def test_fewer_rows_and_columns_give_the_layer_on_fewer_channels(name):
    layer, x = made(name)
    before = networks.state(layer)
    keep_out, keep_in = [0, 2, 3], [1, 3]
    bias = torch.zeros(3, dtype=torch.float64) if layer.bias is None else layer.bias[keep_out]
    small = network.with_blocks(layer, network.blocks(layer)[:, keep_out][:, :, keep_in], bias)
    assert network.widths(small) == (2, 3)
    rest = [index for index in range(x.shape[1]) if index not in keep_in]
    x[:, rest] = 0
    assert torch.allclose(small(x[:, keep_in]), layer(x)[:, keep_out], rtol=0, atol=1e-12)
    networks.assert_untouched(layer, before)


@pytest.mark.parametrize(
    "name", ["depthwise", "transposed depthwise", "multiplied", "grouped", "transposed grouped"]
)
def test_fewer_groups_give_the_layer_on_their_channels(name):
    layer, x = made(name)
    groups, outputs, inputs, _ = network.blocks(layer).shape
    x = x[:, -inputs:]
    small = network.with_blocks(layer, network.blocks(layer)[-1:], layer.bias[-outputs:])
    assert (small.groups, network.widths(small)) == (1, (inputs, outputs))
    whole = torch.cat([torch.zeros_like(x)] * (groups - 1) + [x], 1)
    assert torch.allclose(small(x), layer(whole)[:, -outputs:], rtol=0, atol=1e-12)


def test_a_layer_may_lose_its_bias():
    layer, x = made("conv1d")
    twin = network.with_blocks(layer, network.blocks(layer), None)
    assert twin.bias is None
    assert torch.allclose(twin(x) + layer.bias[:, None], layer(x), rtol=0, atol=1e-12)
