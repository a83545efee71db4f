"""Ways to look at a graph and to copy it: what is copied, what is shared, what is dropped."""

from __future__ import annotations

import networks
import pytest
import torch
from networks import Forward, Pair
from torch import nn

from flow import network
from flow.errors import UnsupportedError
from flow.network.forms import is_join

IMAGE = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))


def branched() -> nn.Module:
    """Return the graph of two convs, a sum, and a slice."""
    model = Forward(lambda net, x: (net.a(x) + net.b(x))[:, 1:], a=nn.Conv2d(3, 4, 1), b=nn.Conv2d(3, 4, 1))
    return network.trace(model, IMAGE)


@pytest.mark.parametrize("training", [False, True])
def test_a_shared_graph_has_nodes_of_its_own_and_the_same_modules(training):
    graph = branched().train(training)
    graph.get_submodule("a").train(not training)
    copied = network.share(graph)
    assert all(copied.get_submodule(name) is graph.get_submodule(name) for name in ("a", "b"))
    assert [module.training for module in copied.modules()] == [training, not training, training]
    code = graph.code
    network.output_node(copied).args = (next(node for node in copied.graph.nodes if node.name == "a"),)
    network.tidy(copied)
    assert [name for name, _ in copied.named_children()] == ["a"]
    assert [name for name, _ in graph.named_children()] == ["a", "b"]
    assert graph.code == code


def test_a_module_that_is_replaced_in_a_shared_graph_stays_in_the_other():
    graph = branched()
    copied = network.share(graph)
    copied.set_submodule("a", nn.Identity())
    assert network.kind(graph.get_submodule("a")) == "Conv2d"


def test_tidying_drops_what_nothing_reads_but_no_input():
    graph = network.trace(
        Pair(lambda net, x, y: net.a(x) + net.b(y), a=nn.ReLU(), b=nn.Tanh()), (IMAGE, IMAGE)
    )
    graph.add_module("spare", nn.ReLU())
    network.output_node(graph).args = (next(node for node in graph.graph.nodes if node.name == "b"),)
    network.tidy(graph)
    assert [node.name for node in graph.graph.nodes] == ["x", "y", "b", "output"]
    assert [name for name, _ in graph.named_children()] == ["b"]
    assert torch.equal(graph(IMAGE, -IMAGE), torch.tanh(-IMAGE))


def test_an_added_module_takes_a_name_that_is_free():
    graph = branched()
    names = [network.add_module(graph, name, nn.ReLU()) for name in ("new", "a", "a", "graph")]
    assert names == ["new", "a_", "a__", "graph_"]
    assert all(network.kind(graph.get_submodule(name)) == "ReLU" for name in names)


def test_uses_are_the_calls_of_each_module_in_order():
    model = Forward(lambda net, x: net.c(net.r(net.c(net.r(x)))), c=nn.Conv2d(3, 3, 1), r=nn.ReLU())
    found = network.uses(network.trace(model, IMAGE))
    assert {name: [node.name for node in nodes] for name, nodes in found.items()} == {
        "r": ["r", "r_1"],
        "c": ["c", "c_1"],
    }


def test_joins_are_told_by_their_name():
    def forward(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([(x + x)[:, 1:], torch.relu(x) * x], 1)

    graph = network.trace(Forward(forward), IMAGE)
    names = ("add", "mul", "cat", "narrow")
    found = [next((name for name in names if network.calls(node, name)), None) for node in graph.graph.nodes]
    assert sorted(filter(None, found)) == sorted(names)
    assert [is_join(node) for node in graph.graph.nodes] == [name is not None for name in found]


def test_evaluation_mode_ends_with_the_block_whatever_happens_in_it():
    model = nn.Sequential(nn.Dropout(), nn.ReLU()).train()
    model[1].eval()
    seen = []

    def fail() -> None:
        with network.evaluating(model):
            seen.extend(module.training for module in model.modules())
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert seen == [False, False, False]
    assert [module.training for module in model.modules()] == [True, True, False]


def test_an_example_is_one_tensor_or_several():
    assert network.as_inputs(IMAGE) == (IMAGE,)
    assert network.as_inputs([IMAGE, IMAGE]) == network.as_inputs((IMAGE, IMAGE)) == (IMAGE, IMAGE)


@pytest.mark.parametrize(
    ("model", "expected"), [(nn.Linear(1, 1).half(), torch.half), (nn.ReLU(), torch.double)]
)
def test_the_type_of_a_network_is_that_of_its_weights(model, expected):
    assert network.dtype(model, torch.double) == expected


@pytest.mark.parametrize("forward", [lambda net, x: torch.relu(x), lambda net, x: x, lambda net, x: [x]])
def test_one_input_and_one_output_pass(forward):
    assert network.check_single(network.trace(Forward(forward), IMAGE), "quantize") is None


@pytest.mark.parametrize(
    ("model", "inputs", "outputs"),
    [
        (Pair(lambda net, x, y: x + y), 2, 1),
        (Pair(lambda net, x, y: y), 2, 1),
        (Forward(lambda net, x: (x, x)), 1, 2),
        (Pair(lambda net, x, y: (x, y, x)), 2, 3),
    ],
)
def test_several_inputs_or_outputs_are_refused_where_data_is_fed_through(model, inputs, outputs):
    graph = network.trace(model, (IMAGE,) * inputs)
    with pytest.raises(UnsupportedError) as caught:
        network.check_single(graph, "quantize")
    assert str(caught.value) == (
        f"quantize: network must have one input and one output tensor, not {inputs} and {outputs}; "
        "wrap it in a module with one of each"
    )


def test_every_weighted_kind_is_a_kind():
    assert {*network.CONVS, *network.TRANSPOSED, *network.NORMS, *network.WEIGHTED} <= set(network.MODULES)
    assert set(networks.kinds(branched())) == {"Conv2d", "add", "narrow"}
