"""Channels that must go together share a label; what must stay is pinned."""

from __future__ import annotations

import networks
import pytest
import torch
from networks import Forward, analysed, fill
from torch import nn

from flow import network
from flow.errors import UnsupportedError
from flow.network.channels import analyse, is_depthwise


def refusal(model: nn.Module, *shape: int) -> str:
    with pytest.raises(UnsupportedError) as caught:
        analysed(model, *shape)
    return str(caught.value)


def sequence(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(*layers)


# ---------------------------------------------------------------- what belongs together


def test_each_layer_labels_its_outputs_anew():
    _, channels = analysed(networks.mlp(), 2, 6)
    labels = [channels.labels[name] for name in ("fc1", "fc2", "fc3")]
    assert [len(array) for array in labels] == [8, 8, 3]
    assert len({label for array in labels for label in array}) == 19


def test_layers_that_keep_channels_apart_hand_labels_on():
    layers = (
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Sigmoid(),
        nn.Dropout(),
        nn.AdaptiveAvgPool2d(1),
    )
    _, channels = analysed(sequence(nn.Conv2d(2, 4, 3), *layers, nn.Conv2d(4, 2, 1)), 2, 2, 8, 8)
    for index in range(1, 7):
        assert channels.labels[f"_{index}"].tolist() == channels.labels["_0"].tolist()
    assert not set(channels.labels["_7"]) & set(channels.labels["_0"])


def test_a_sum_ties_its_two_sides():
    _, channels = analysed(networks.residual(), 2, 2, 5, 5)
    assert (
        channels.labels["stem"].tolist() == channels.labels["b"].tolist() == channels.labels["add"].tolist()
    )
    assert not set(channels.labels["a"]) & set(channels.labels["b"])
    for row, label in enumerate(channels.labels["stem"]):
        assert channels.writers[label] == (("stem", row), ("b", row))


def test_a_chain_of_sums_ties_all_of_its_members():
    def forward(net, x):
        stem = net.stem(x)
        return net.out((net.a(stem) + stem) + net.b(stem))

    model = Forward(
        forward, stem=nn.Conv2d(2, 3, 1), a=nn.Conv2d(3, 3, 1), b=nn.Conv2d(3, 3, 1), out=nn.Conv2d(3, 2, 1)
    )
    _, channels = analysed(model, 2, 2, 4, 4)
    for row, label in enumerate(channels.labels["stem"]):
        assert channels.writers[label] == (("stem", row), ("a", row), ("b", row))


def test_the_sum_of_a_tensor_with_itself_ties_nothing():
    model = Forward(lambda net, x: net.b((lambda y: y + y)(net.a(x))), a=nn.Linear(2, 3), b=nn.Linear(3, 2))
    _, channels = analysed(model, 2, 2)
    assert len(set(channels.labels["add"])) == 3


def test_a_concatenation_lines_channels_up():
    _, channels = analysed(networks.branches(), 2, 2, 5, 5)
    left, right = (channels.labels[name].tolist() for name in ("left", "right"))
    assert channels.labels["cat"].tolist() == left + right
    assert len({*left, *right}) == 5


def test_a_sum_of_two_concatenations_ties_crosswise():
    def forward(net, x):
        a, b = net.a(x), net.b(x)
        return net.out(torch.cat([a, b], 1) + torch.cat([b, a], 1))

    model = Forward(forward, a=nn.Conv2d(1, 2, 1), b=nn.Conv2d(1, 2, 1), out=nn.Conv2d(4, 2, 1))
    _, channels = analysed(model, 2, 1, 4, 4)
    assert channels.labels["a"].tolist() == channels.labels["b"].tolist()


def test_a_flatten_repeats_each_label_once_a_position():
    _, channels = analysed(sequence(nn.Conv2d(1, 3, 2), nn.Flatten(), nn.Linear(3 * 6, 2)), 2, 1, 3, 4)
    assert channels.labels["_1"].tolist() == [label for label in channels.labels["_0"] for _ in range(6)]


def test_a_depthwise_conv_hands_labels_on_and_is_a_writer():
    _, channels = analysed(networks.mobile(), 2, 2, 4, 4)
    assert channels.labels["up"].tolist() == channels.labels["depth"].tolist()
    for row, label in enumerate(channels.labels["up"]):
        assert channels.writers[label] == (("up", row), ("depth", row))


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (nn.Conv2d(4, 4, 1, groups=4), True),
        (nn.Conv2d(4, 8, 1, groups=4), False),
        (nn.Conv2d(4, 4, 1, groups=2), False),
        (nn.Conv2d(4, 4, 1), False),
        (nn.Conv2d(1, 1, 1), False),
        (nn.Conv1d(3, 3, 1, groups=3), True),
        (nn.Linear(4, 4), False),
    ],
)
def test_depthwise_means_one_filter_a_channel(layer, expected):
    assert is_depthwise(layer) is expected


# ---------------------------------------------------------------- what must stay


def test_inputs_and_outputs_are_pinned():
    _, channels = analysed(networks.mlp(), 2, 6)
    assert channels.pinned == {*channels.labels["input_1"], *channels.labels["fc3"]}
    assert set(channels.prunable()) == {*channels.labels["fc1"], *channels.labels["fc2"]}


def test_what_is_tied_to_the_input_is_pinned():
    model = Forward(lambda net, x: net.b(net.a(x) + x), a=nn.Linear(3, 3), b=nn.Linear(3, 2))
    _, channels = analysed(model, 2, 3)
    assert set(channels.labels["a"]) <= channels.pinned
    assert channels.prunable() == ()


def test_what_is_tied_to_the_output_is_pinned():
    model = Forward(
        lambda net, x: net.b(x) + net.c(net.a(x)), a=nn.Linear(3, 4), b=nn.Linear(3, 2), c=nn.Linear(4, 2)
    )
    _, channels = analysed(model, 2, 3)
    assert set(channels.prunable()) == set(channels.labels["a"])


def test_a_depthwise_conv_on_the_input_is_pinned():
    _, channels = analysed(sequence(nn.Conv2d(2, 2, 1, groups=2), nn.Conv2d(2, 3, 1)), 2, 2, 4, 4)
    assert channels.prunable() == ()


@pytest.mark.parametrize("kind", [nn.Conv2d, nn.ConvTranspose2d])
@pytest.mark.parametrize(("groups", "outputs"), [(2, 4), (4, 8)])
def test_a_grouped_conv_keeps_both_of_its_ends_without_pinning_them(groups, outputs, kind):
    model = sequence(
        nn.Conv2d(2, 4, 1),
        kind(4, outputs, 1, groups=groups),
        nn.Conv2d(outputs, 3, 1),
        nn.Conv2d(3, 2, 1),
    )
    _, channels = analysed(model, 2, 2, 4, 4)
    assert channels.grouped == {*channels.labels["_0"], *channels.labels["_1"]}
    assert channels.pinned == {*channels.labels["input_1"], *channels.labels["_3"]}
    assert set(channels.prunable()) == set(channels.labels["_2"])


def test_what_is_tied_to_a_grouped_conv_is_not_prunable_either():
    def forward(net, x):
        y = net.a(x)
        return net.out(net.group(y) + net.b(net.c(x)))

    model = Forward(
        forward,
        a=nn.Conv2d(2, 4, 1),
        group=nn.Conv2d(4, 4, 1, groups=2),
        b=nn.Conv2d(3, 4, 1),
        c=nn.Conv2d(2, 3, 1),
        out=nn.Conv2d(4, 2, 1),
    )
    _, channels = analysed(model, 2, 2, 4, 4)
    assert set(channels.labels["b"]) <= channels.grouped
    assert set(channels.prunable()) == set(channels.labels["c"])


def test_ignored_layers_keep_whatever_is_tied_to_them():
    _, channels = analysed(networks.residual(), 2, 2, 5, 5)
    assert set(channels.prunable(("b",))) == set(channels.labels["a"])
    assert set(channels.prunable(("b", "a"))) == set()


def test_the_labels_do_not_depend_on_the_weights():
    model = networks.residual()
    _, before = analysed(model, 2, 2, 5, 5)
    fill(model.stem, [0, 1], 0, 0)
    _, after = analysed(model, 2, 2, 5, 5)
    assert {k: v.tolist() for k, v in before.labels.items()} == {
        k: v.tolist() for k, v in after.labels.items()
    }


# ---------------------------------------------------------------- messages


def test_a_dense_layer_on_three_dimensions_is_refused():
    assert refusal(sequence(nn.Linear(4, 2)), 2, 3, 4) == (
        "channels: layer '0' (Linear) must read (batch, features), not 3 dimensions; put a Flatten in front of it"
    )


def test_a_flatten_of_fewer_dimensions_is_refused():
    assert refusal(sequence(nn.Conv2d(1, 2, 1), nn.Flatten(1, 2)), 2, 1, 3, 3) == (
        "channels: layer '1' (Flatten) must flatten dimensions 1 to -1, not 1 to 2; change the network"
    )


def test_a_sum_that_broadcasts_is_refused():
    model = Forward(lambda net, x: net.a(x) + net.b(x), a=nn.Conv2d(2, 3, 1), b=nn.Conv2d(2, 1, 1))
    assert refusal(model, 2, 2, 4, 4) == (
        "channels: sum 'add' must add tensors of one shape, not (2, 3, 4, 4) and (2, 1, 4, 4); "
        "make the branches alike"
    )


def test_a_pool_over_features_is_refused():
    assert refusal(sequence(nn.Linear(4, 6), nn.MaxPool1d(2)), 2, 4) == (
        "channels: layer '1' (MaxPool1d) must read 3 dimensions, batch and channels first, not 2; reshape its input"
    )


def test_channels_are_the_same_for_any_batch_and_image_size():
    graph = network.trace(networks.residual(), torch.zeros(1, 2, 5, 5))
    small = analyse(graph, network.shapes(graph, torch.zeros(1, 2, 5, 5)))
    large = analyse(graph, network.shapes(graph, torch.zeros(4, 2, 9, 7)))
    assert small.writers == large.writers
