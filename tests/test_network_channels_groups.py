"""Channels of grouped convs that are tied: what is zeroed by label leaves groups of one size, in smaller tensors."""

from __future__ import annotations

import networks
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import Forward, lively
from simplified import small
from torch import nn

from flow import network
from flow.network.channels import Channels, analyse
from flow.network.narrow import narrow

IMAGE = torch.zeros(2, 2, 6, 6)


def tied(model: nn.Module) -> tuple[torch.fx.GraphModule, Channels]:
    graph = network.trace(model, IMAGE)
    return graph, analyse(graph, network.shapes(graph, IMAGE), couple_groups=True)


def columns(labels: np.ndarray, groups: int) -> list[list[int]]:
    return labels.reshape(groups, -1).tolist()


def plain(groups: int = 2, width: int = 4, outputs: int = 6) -> nn.Module:
    layers = {"first": nn.Conv2d(2, width, 1), "relu": nn.ReLU()}
    layers |= {"group": nn.Conv2d(width, outputs, 3, groups=groups, padding=1), "act": nn.ReLU()}
    return lively(nn.Sequential(networks.named(**layers, last=nn.Conv2d(outputs, 2, 1))))


def resnext() -> nn.Module:
    """Return two blocks 1x1 - grouped 3x3 - 1x1 with BatchNorm and a sum around each, then a dense layer."""

    def forward(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(net.stem(x))
        for name in ("one", "two"):
            y = torch.relu(net.get_submodule(f"{name}_norm")(net.get_submodule(f"{name}_in")(x)))
            y = torch.relu(net.get_submodule(f"{name}_group")(y))
            x = torch.relu(x + net.get_submodule(f"{name}_out")(y))
        return net.fc(torch.flatten(net.pool(x), 1))

    layers: dict[str, nn.Module] = {"stem": nn.Conv2d(2, 6, 3, padding=1)}
    for name in ("one", "two"):
        layers |= {f"{name}_in": nn.Conv2d(6, 8, 1, bias=False), f"{name}_norm": nn.BatchNorm2d(8)}
        layers |= {
            f"{name}_group": nn.Conv2d(8, 8, 3, padding=1, groups=4),
            f"{name}_out": nn.Conv2d(8, 6, 1),
        }
    return lively(Forward(forward, **layers, pool=nn.AdaptiveAvgPool2d(1), fc=nn.Linear(6, 3)))


def shufflenet() -> nn.Module:
    """Return grouped 1x1 - shuffle - depthwise - grouped 1x1 with a sum around it."""

    def forward(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(net.stem(x))
        y = net.depth(net.shuffle(torch.relu(net.down(x))))
        return net.out(torch.relu(x + net.up(y)))

    return lively(
        Forward(
            forward,
            stem=nn.Conv2d(2, 8, 1),
            down=nn.Conv2d(8, 8, 1, groups=2),
            shuffle=nn.ChannelShuffle(2),
            depth=nn.Conv2d(8, 8, 3, padding=1, groups=8),
            up=nn.Conv2d(8, 8, 1, groups=2),
            out=nn.Conv2d(8, 3, 1),
        )
    )


def residual() -> nn.Module:
    def forward(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(net.stem(x))
        return net.out(torch.relu(x + net.group(x)))

    layers = {"stem": nn.Conv2d(2, 6, 1), "group": nn.Conv2d(6, 6, 3, padding=1, groups=2)}
    return lively(Forward(forward, **layers, out=nn.Conv2d(6, 2, 1)))


def multiplied(inputs: int = 1, outputs: int = 2) -> nn.Module:
    """Return a conv whose four groups have so many inputs and outputs."""
    return plain(4, 4 * inputs, 4 * outputs)


def joined() -> nn.Module:
    """Return a concatenation of 3 and 5 channels in front of a grouped conv, whose halves do not end there."""

    def forward(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
        both = torch.cat([torch.relu(net.left(x)), torch.relu(net.right(x))], 1)
        return net.out(torch.relu(net.group(both)))

    layers = {"left": nn.Conv2d(2, 3, 1), "right": nn.Conv2d(2, 5, 1)}
    return lively(Forward(forward, **layers, group=nn.Conv2d(8, 4, 3, groups=2), out=nn.Conv2d(4, 2, 1)))


def flattened() -> nn.Module:
    layers = {"first": nn.Conv2d(2, 4, 1), "relu": nn.ReLU(), "group": nn.Conv2d(4, 6, 3, groups=2)}
    layers |= {"act": nn.ReLU(), "flatten": nn.Flatten(), "fc": nn.Linear(6 * 16, 3)}
    return lively(nn.Sequential(networks.named(**layers)))


NETS = {
    "plain": plain, "three groups": lambda: plain(3, 9, 6), "resnext": resnext, "shufflenet": shufflenet,
    "residual": residual, "depthwise with a multiplier": multiplied,
    "one output a group": lambda: multiplied(2, 1), "concatenation": joined, "flatten": flattened,
}  # fmt: skip

WHOLE = ("depthwise with a multiplier", "one output a group")


def test_without_the_option_the_ends_of_a_grouped_conv_stay_free_for_simplify():
    graph = network.trace(plain(), IMAGE)
    channels = analyse(graph, network.shapes(graph, IMAGE))
    assert channels.grouped == {*channels.labels["first"], *channels.labels["group"]}
    assert len(set(channels.labels["group"])) == 6


def test_the_channels_at_one_place_of_every_group_share_a_label():
    _, channels = tied(plain(2, 4, 6))
    inputs, outputs = columns(channels.labels["first"], 2), columns(channels.labels["group"], 2)
    assert inputs[0] == inputs[1] and len(set(inputs[0])) == 2
    assert outputs[0] == outputs[1] and len(set(outputs[0])) == 3
    assert not set(inputs[0]) & set(outputs[0])
    assert channels.grouped == frozenset()
    assert set(channels.prunable()) == {*inputs[0], *outputs[0]}
    assert channels.writers[outputs[0][1]] == (("group", 1), ("group", 4))


@pytest.mark.parametrize(("inputs", "outputs"), [(1, 2), (2, 1)])
def test_groups_with_one_channel_at_an_end_go_as_a_whole(inputs, outputs):
    _, channels = tied(multiplied(inputs, outputs))
    before, after = columns(channels.labels["first"], 4), columns(channels.labels["group"], 4)
    assert [{*row} for row in before] == [{*row} for row in after]
    assert len({row[0] for row in before}) == 4


def test_a_grouped_conv_inside_a_sum_ties_its_input_to_its_output():
    _, channels = tied(residual())
    assert channels.labels["stem"].tolist() == channels.labels["group"].tolist()
    assert len(set(channels.labels["stem"])) == 3


def test_a_concatenation_ties_what_meets_at_one_place():
    _, channels = tied(joined())
    a, b = channels.labels["left"].tolist(), channels.labels["right"].tolist()
    assert (a[0], a[1], a[2], b[0]) == (b[1], b[2], b[3], b[4])
    assert len({*a, *b}) == 4


def test_a_grouped_conv_on_the_networks_input_is_still_has_outputs_to_prune():
    model = nn.Sequential(nn.Conv2d(2, 8, 3, groups=2), nn.ReLU(), nn.Conv2d(8, 3, 1))
    _, channels = tied(lively(model))
    assert set(channels.prunable()) == set(channels.labels["_0"])
    assert len(set(channels.labels["_0"])) == 4


def zero(graph: torch.fx.GraphModule, channels: Channels, gone: list[int]) -> None:
    """Zero the rows and biases that write these labels, and their BatchNorm."""
    for node in graph.graph.nodes:
        if node.op == "call_module":
            module = graph.get_submodule(str(node.target))
            rows = np.flatnonzero(np.isin(channels.labels[node.name], gone)).tolist()
            if network.kind(module) in (*network.WEIGHTED, *network.NORMS):
                networks.fill(module, rows)
            if network.kind(module) in network.NORMS:
                module.running_mean[rows] = 0


def prune_and_compare(model: nn.Module, gone: list[int]) -> dict[str, int]:
    """Zero labels and simplify: nothing is left of them, by counting. Return the groups of each layer."""
    graph, channels = tied(model)
    before = {
        name: network.widths(graph.get_submodule(name))
        for name in (str(node.target) for node, _ in network.weighted(graph))
    }
    zero(graph, channels, gone)
    result = small(graph, IMAGE)
    found = {cost.name: (cost.inputs, cost.outputs) for cost in result.after}
    for node, _ in network.weighted(graph):
        ends = (channels.labels[node.all_input_nodes[0].name], channels.labels[node.name])
        left = tuple(int((~np.isin(end, gone)).sum()) for end in ends)
        assert found[str(node.target)] == left, node.target
        assert all(now <= then for now, then in zip(left, before[str(node.target)], strict=True))
    alive = np.ones(1 + max(int(labels.max()) for labels in channels.labels.values()), dtype=bool)
    alive[gone] = False
    narrowed = narrow(graph, channels, alive)
    assert {c.name: (c.inputs, c.outputs) for c in network.costs(narrowed, IMAGE)} == found
    groups = {name: getattr(result.model.get_submodule(name), "groups", 1) for name in found}
    assert groups == {name: getattr(narrowed.get_submodule(name), "groups", 1) for name in found}
    return groups


@pytest.mark.parametrize("name", NETS)
def test_each_label_that_is_zeroed_leaves_every_tensor(name):
    graph, channels = tied(NETS[name]())
    kinds = {tuple(layer for layer, _ in channels.writers[label]): label for label in channels.prunable()}
    assert kinds
    for label in kinds.values():  # one of each
        others = [set(channels.labels[node.name].tolist()) - {label} for node, _ in network.weighted(graph)]
        if not all(others):
            continue  # the last one of a layer is not pruned
        groups = prune_and_compare(NETS[name](), [label])
        for layer in {layer for layer, _ in channels.writers[label]}:
            old = getattr(graph.get_submodule(layer), "groups", 1)
            places = int((channels.labels[layer] == label).sum())
            whole = name in WHOLE and layer == "group"
            assert groups[layer] == (old - places if layer == "depth" else old - 1 if whole else old), layer


@settings(max_examples=10, deadline=None)
@given(st.data())
def test_any_labels_that_leave_one_to_each_layer_leave_every_tensor(data):
    name = data.draw(st.sampled_from(sorted(NETS)))
    graph, channels = tied(NETS[name]())
    gone = set(data.draw(st.lists(st.sampled_from(sorted(channels.prunable())), unique=True)))
    for node, _ in network.weighted(graph):
        labels = channels.labels[node.name].tolist()
        if gone.issuperset(labels):
            gone.discard(labels[0])
    prune_and_compare(NETS[name](), sorted(gone))
