"""Labels through products, slices, shuffles, shared layers and several inputs: what must leave together."""

from __future__ import annotations

import itertools

import networks
import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from networks import Forward, Pair, analysed
from torch import nn

from flow import network
from flow.errors import UnsupportedError
from flow.network.channels import analyse, is_depthwise


def refusal(model: nn.Module, *shape: int) -> str:
    with pytest.raises(UnsupportedError) as caught:
        analysed(model, *shape)
    return str(caught.value)


def lists(channels, *names: str) -> list[list[int]]:
    return [channels.labels[name].tolist() for name in names]


# ---------------------------------------------------------------- products and gates


def test_a_product_ties_its_two_sides():
    model = Forward(
        lambda net, x: net.out(net.a(x) * torch.sigmoid(net.b(x))),
        a=nn.Conv2d(2, 3, 1),
        b=nn.Conv2d(2, 3, 1),
        out=nn.Conv2d(3, 2, 1),
    )
    _, channels = analysed(model, 2, 2, 4, 4)
    a, b, product = lists(channels, "a", "b", "mul")
    assert a == b == product
    assert [channels.writers[label] for label in a] == [(("a", row), ("b", row)) for row in range(3)]


def test_the_product_of_a_tensor_with_its_own_activation_ties_nothing_else():
    model = Forward(
        lambda net, x: net.out((lambda y: y * torch.sigmoid(y))(net.a(x))),
        a=nn.Conv2d(2, 3, 1),
        out=nn.Conv2d(3, 2, 1),
    )
    _, channels = analysed(model, 2, 2, 4, 4)
    assert len(set(channels.labels["mul"])) == 3
    assert set(channels.prunable()) == set(channels.labels["a"])


def gate(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Scale the channels of conv ``a`` by what ``down`` and ``up`` make of their means."""
    y = net.a(x)
    means = F.adaptive_avg_pool2d(y, 1).view(y.size(0), -1)
    factors = torch.sigmoid(net.up(F.relu(net.down(means)))).view(y.size(0), y.size(1), 1, 1)
    return net.out(y * factors)


def test_the_last_layer_of_a_squeeze_and_excitation_gate_goes_with_what_it_scales():
    model = Forward(
        gate, a=nn.Conv2d(2, 6, 1), down=nn.Linear(6, 3), up=nn.Linear(3, 6), out=nn.Conv2d(6, 2, 1)
    )
    _, channels = analysed(model, 2, 2, 4, 4)
    a, up, product = lists(channels, "a", "up", "mul")
    assert a == up == product
    assert not set(a) & set(channels.labels["down"])
    assert set(channels.prunable()) == {*a, *channels.labels["down"]}


@pytest.mark.parametrize("swap", [False, True])
def test_either_side_of_a_product_may_be_the_gate(swap):
    def forward(net, x):
        y = net.a(x)
        sides = [y, F.adaptive_avg_pool2d(net.b(x), 1)]
        return net.out(sides[swap] * sides[not swap])

    model = Forward(forward, a=nn.Conv2d(2, 3, 1), b=nn.Conv2d(2, 3, 1), out=nn.Conv2d(3, 2, 1))
    _, channels = analysed(model, 2, 2, 4, 4)
    assert channels.labels["a"].tolist() == channels.labels["b"].tolist()


# ---------------------------------------------------------------- slices and concatenations


def test_a_slice_takes_the_labels_of_its_channels():
    model = Forward(
        lambda net, x: (lambda y: net.out(y[:, 1:3] + y[:, 3:5]))(net.a(x)),
        a=nn.Conv2d(2, 5, 1),
        out=nn.Conv2d(2, 2, 1),
    )
    _, channels = analysed(model, 2, 2, 4, 4)
    first, second, third, fourth, fifth = channels.labels["a"]
    assert (second, third) == (fourth, fifth)
    assert len({first, second, third}) == 3
    assert channels.writers[second] == (("a", 1), ("a", 3))


def test_a_concatenation_of_slices_in_another_order_ties_nothing():
    def forward(net, x):
        first, second = net.a(x).chunk(2, 1)
        return net.out(torch.cat([second, first], 1))

    model = Forward(forward, a=nn.Conv2d(2, 4, 1), out=nn.Conv2d(4, 2, 1))
    _, channels = analysed(model, 2, 2, 4, 4)
    assert channels.labels["cat"].tolist() == np.roll(channels.labels["a"], 2).tolist()
    assert len(set(channels.labels["a"])) == 4


# ---------------------------------------------------------------- channel shuffles


def leave_together(channels: int, groups: int) -> set[frozenset[int]]:
    """Find the least sets of channels without which a shuffle still is one, by trying every set."""

    def order(count: int) -> list[int]:
        shuffle = nn.ChannelShuffle(groups)
        return shuffle(torch.arange(count).reshape(1, count, 1, 1)).flatten().tolist()

    good = []
    for size in range(1, channels):
        for gone in map(frozenset, itertools.combinations(range(channels), size)):
            kept = [channel for channel in range(channels) if channel not in gone]
            if len(kept) % groups == 0:
                small = [kept[index] for index in order(len(kept))]
                if small == [channel for channel in order(channels) if channel not in gone]:
                    good.append(gone)
    return {gone for gone in good if not any(other < gone for other in good)}


@pytest.mark.parametrize(("count", "groups"), [(4, 2), (6, 2), (6, 3), (8, 2), (8, 4)])
def test_a_shuffle_ties_those_that_must_leave_for_the_rest_to_shuffle_alike(count, groups):
    model = nn.Sequential(nn.Conv2d(2, count, 1), nn.ChannelShuffle(groups), nn.Conv2d(count, 2, 1))
    _, channels = analysed(model, 2, 2, 4, 4)
    before, after = lists(channels, "_0", "_1")
    tied = {frozenset(np.flatnonzero(np.array(before) == label).tolist()) for label in set(before)}
    least = leave_together(count, groups)
    assert all(any(small <= gone for small in least) for gone in tied)
    assert tied == {frozenset(range(first, count, count // groups)) for first in range(count // groups)}
    shuffled = model[1](torch.tensor(before).reshape(1, count, 1, 1))
    assert after == shuffled.flatten().tolist()


@pytest.mark.parametrize(("count", "groups"), [(6, 2), (8, 4)])
def test_a_shuffle_without_the_channels_of_one_label_is_a_shuffle(count, groups):
    _, channels = analysed(
        nn.Sequential(nn.Conv2d(2, count, 1), nn.ChannelShuffle(groups), nn.Conv2d(count, 2, 1)), 2, 2, 4, 4
    )
    before, after = channels.labels["_0"], channels.labels["_1"]
    x = torch.randn(2, count, 3, 3)
    shuffle = nn.ChannelShuffle(groups)
    for label in set(before.tolist()):
        left = shuffle(x[:, torch.from_numpy(before != label)])
        assert torch.equal(left, shuffle(x)[:, torch.from_numpy(after != label)])


# ---------------------------------------------------------------- layers that are used twice


def test_a_shared_layer_ties_what_it_reads_and_what_it_writes():
    def forward(net, x):
        first, second = net.conv(net.a(x)), net.conv(net.b(x))
        return net.out(torch.cat([first, second], 1))

    model = Forward(
        forward,
        a=nn.Conv2d(2, 3, 1),
        b=nn.Conv2d(2, 3, 1),
        conv=nn.Conv2d(3, 4, 1),
        out=nn.Conv2d(8, 2, 1),
    )
    _, channels = analysed(model, 2, 2, 4, 4)
    a, b, first, second = lists(channels, "a", "b", "conv", "conv_1")
    assert a == b
    assert first == second
    assert channels.labels["cat"].tolist() == first + second
    assert [channels.writers[label] for label in first] == [(("conv", row),) for row in range(4)]


def test_a_layer_on_its_own_output_ties_its_two_ends():
    model = nn.Sequential(nn.Conv2d(2, 3, 1), *[nn.Conv2d(3, 3, 1)] * 2, nn.Conv2d(3, 2, 1))
    _, channels = analysed(model, 2, 2, 4, 4)
    first, *rest = lists(channels, "_0", "_1", "_1_1")
    assert [first, first] == rest


@pytest.mark.parametrize("layer", [nn.BatchNorm2d(3), nn.PReLU(3), nn.Conv2d(3, 3, 1, groups=3)])
def test_a_shared_layer_with_a_value_a_channel_ties_what_it_reads(layer):
    model = Forward(
        lambda net, x: net.out(torch.cat([net.shared(net.a(x)), net.shared(net.b(x))], 1)),
        a=nn.Conv2d(2, 3, 1),
        b=nn.Conv2d(2, 3, 1),
        shared=layer,
        out=nn.Conv2d(6, 2, 1),
    )
    _, channels = analysed(model, 2, 2, 4, 4)
    assert channels.labels["a"].tolist() == channels.labels["b"].tolist()


@pytest.mark.parametrize("layer", [nn.ReLU(), nn.PReLU(), nn.AdaptiveAvgPool2d(1)])
def test_a_shared_layer_with_one_value_for_all_channels_ties_nothing(layer):
    model = Forward(
        lambda net, x: net.out(torch.cat([net.shared(net.a(x)), net.shared(net.b(x))], 1)),
        a=nn.Conv2d(2, 3, 1),
        b=nn.Conv2d(2, 4, 1),
        shared=layer,
        out=nn.Conv2d(7, 2, 1),
    )
    _, channels = analysed(model, 2, 2, 4, 4)
    assert len({*channels.labels["a"], *channels.labels["b"]}) == 7


# ---------------------------------------------------------------- other layers


def test_a_softmax_pins_what_it_reads():
    model = nn.Sequential(nn.Linear(4, 3), nn.Softmax(1), nn.Linear(3, 5), nn.Linear(5, 2))
    _, channels = analysed(model, 2, 4)
    assert set(channels.labels["_0"]) <= channels.pinned
    assert set(channels.prunable()) == set(channels.labels["_2"])


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.PReLU(3), (2, 2, 6, 6)),
        (nn.Upsample(scale_factor=2), (2, 2, 6, 6)),
        (nn.ZeroPad2d(1), (2, 2, 6, 6)),
        (nn.AdaptiveMaxPool2d(2), (2, 2, 6, 6)),
        (nn.Hardswish(), (2, 2, 6, 6)),
        (nn.ZeroPad1d(1), (2, 2, 6)),
        (nn.AvgPool1d(2), (2, 2, 6)),
        (nn.BatchNorm1d(3), (2, 2, 6)),
        (nn.BatchNorm1d(3), (2, 2)),
        (nn.Unflatten(1, (3, 1, 1)), (2, 2)),
    ],
)
def test_layers_that_keep_channels_apart_hand_labels_on(layer, shape):
    first = {4: nn.Conv2d, 3: nn.Conv1d}[len(shape)](2, 3, 1) if len(shape) > 2 else nn.Linear(2, 3)
    _, channels = analysed(nn.Sequential(first, layer, nn.Flatten()), *shape)
    assert channels.labels["_1"].tolist() == channels.labels["_0"].tolist()


def test_a_transposed_conv_labels_its_outputs_anew():
    model = nn.Sequential(nn.Conv2d(2, 3, 1), nn.ConvTranspose2d(3, 4, 2, 2), nn.Conv2d(4, 2, 1))
    _, channels = analysed(model, 2, 2, 4, 4)
    assert len({*channels.labels["_0"], *channels.labels["_1"]}) == 7
    assert [channels.writers[label] for label in channels.labels["_1"]] == [(("1", row),) for row in range(4)]


def test_a_transposed_depthwise_conv_hands_labels_on_and_is_a_writer():
    layer = nn.ConvTranspose2d(3, 3, 2, 2, groups=3)
    _, channels = analysed(nn.Sequential(nn.Conv2d(2, 3, 1), layer, nn.Conv2d(3, 2, 1)), 2, 2, 4, 4)
    assert is_depthwise(layer)
    assert [channels.writers[label] for label in channels.labels["_0"]] == [
        (("0", row), ("1", row)) for row in range(3)
    ]


def test_every_input_and_every_output_is_pinned():
    model = Pair(
        lambda net, x, y: (net.out(net.a(x) + net.b(y)), net.a(x), y),
        a=nn.Conv2d(2, 3, 1),
        b=nn.Conv2d(1, 3, 1),
        out=nn.Conv2d(3, 2, 1),
    )
    example = (torch.zeros(2, 2, 4, 4), torch.zeros(2, 1, 4, 4))
    graph = network.trace(model, example)
    channels = analyse(graph, network.shapes(graph, example))
    assert channels.pinned == {label for array in channels.labels.values() for label in array.tolist()}
    assert channels.prunable() == ()


def test_a_bare_input_as_an_output_pins_only_itself():
    model = Forward(lambda net, x: (net.b(net.a(x)), x), a=nn.Linear(3, 4), b=nn.Linear(4, 2))
    _, channels = analysed(model, 2, 3)
    assert set(channels.prunable()) == set(channels.labels["a"])


# ---------------------------------------------------------------- messages


def test_a_product_that_broadcasts_channels_is_refused():
    model = Forward(lambda net, x: net.a(x) * net.b(x), a=nn.Conv2d(2, 3, 1), b=nn.Conv2d(2, 1, 1))
    assert refusal(model, 2, 2, 4, 4) == (
        "channels: product 'mul' must be of one shape, or with one value a channel, "
        "not (2, 3, 4, 4) and (2, 1, 4, 4); make the branches alike"
    )


def test_a_product_over_one_side_of_an_image_is_refused():
    model = Forward(lambda net, x: x * net.p(x), p=nn.AdaptiveAvgPool2d((1, None)))
    assert refusal(model, 2, 3, 4, 4) == (
        "channels: product 'mul' must be of one shape, or with one value a channel, "
        "not (2, 3, 4, 4) and (2, 3, 1, 4); make the branches alike"
    )


def test_a_sum_with_one_value_a_channel_is_refused():
    model = Forward(lambda net, x: x + net.p(x), p=nn.AdaptiveAvgPool2d(1))
    assert refusal(model, 2, 3, 4, 4) == (
        "channels: sum 'add' must add tensors of one shape, not (2, 3, 4, 4) and (2, 3, 1, 1); "
        "make the branches alike"
    )


@pytest.mark.parametrize(
    ("layer", "shape", "dimension", "size"),
    [
        (nn.Unflatten(1, (2, 3)), (2, 6), 1, (2, 3)),
        (nn.Unflatten(1, (1, 6)), (2, 6), 1, (1, 6)),
        (nn.Unflatten(2, (4, 1)), (2, 6, 4), 2, (4, 1)),
    ],
)
def test_an_unflatten_into_positions_is_refused(layer, shape, dimension, size):
    assert refusal(nn.Sequential(layer), *shape) == (
        "channels: layer '0' (Unflatten) must append positions of extent 1 to the channels, "
        f"not shape dimension {dimension} to {size}; change the network"
    )


def test_a_softmax_over_positions_is_refused():
    assert refusal(nn.Sequential(nn.Conv2d(1, 2, 1), nn.Softmax(2)), 2, 1, 3, 3) == (
        "channels: layer '1' (Softmax) must be over dimension 1, not 2; change the network"
    )


@pytest.mark.parametrize(
    ("layer", "shape", "dimensions"),
    [
        (nn.Conv2d(4, 2, 1), (4, 3, 3), 4),
        (nn.ConvTranspose1d(3, 2, 1), (3, 4), 3),
        (nn.AdaptiveAvgPool2d(1), (2, 3, 4), 4),
        (nn.ZeroPad1d(1), (2, 3), 3),
        (nn.ZeroPad1d(1), (2, 3, 4, 4), 3),
    ],
)
def test_a_layer_without_a_batch_or_channel_dimension_is_refused(layer, shape, dimensions):
    model = nn.Sequential(layer)
    graph = torch.fx.symbolic_trace(model)
    with pytest.raises(UnsupportedError) as caught:
        analyse(graph, network.shapes(graph, torch.zeros(shape)))
    assert str(caught.value) == (
        f"channels: layer '0' ({type(layer).__name__}) must read {dimensions} dimensions, batch and channels first, "
        f"not {len(shape)}; reshape its input"
    )


def test_the_labels_of_a_saved_network_are_the_same(tmp_path):
    graph, channels = analysed(networks.branches(), 2, 2, 5, 5)
    network.save(graph, tmp_path)
    loaded = network.load(tmp_path)
    again = analyse(loaded, network.shapes(loaded, torch.zeros(2, 2, 5, 5)))
    assert again.writers == channels.writers
    assert again.pinned == channels.pinned
