"""Tracing gives a plain graph that computes the same, or a message; files hold no code; costs are exact."""

from __future__ import annotations

import json

import networks
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from networks import Forward
from torch import nn
from torch.nn.utils.prune import l1_unstructured, remove

from flow import network
from flow.errors import ConfigError, UnsupportedError

IMAGE = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
SUPPORTED = (
    "Conv1d, Conv2d, Linear, BatchNorm1d, BatchNorm2d, ReLU, LeakyReLU, Sigmoid, Tanh, MaxPool1d, MaxPool2d, "
    "AvgPool1d, AvgPool2d, AdaptiveAvgPool1d, AdaptiveAvgPool2d, Flatten, Dropout, Identity"
)
ADVICE = "use standard torch.nn layers, x + y, torch.cat over channels, or flatten"


def conv() -> nn.Module:
    torch.manual_seed(0)
    return nn.Conv2d(3, 3, 3, padding=1)


def refusal(model: nn.Module, example: torch.Tensor = IMAGE, error: type = UnsupportedError) -> str:
    with pytest.raises(error) as caught:
        network.trace(model, example)
    return str(caught.value)


def in_place_sum(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
    y = net.c(x)
    y += x
    return y


# ---------------------------------------------------------------- tracing

SPELLINGS = {
    "F.relu": (lambda net, x: F.relu(net.c(x)), ["Conv2d", "ReLU"]),
    "F.relu in place": (lambda net, x: F.relu(net.c(x), inplace=True), ["Conv2d", "ReLU"]),
    "torch.relu": (lambda net, x: torch.relu(net.c(x)), ["Conv2d", "ReLU"]),
    "x.relu()": (lambda net, x: net.c(x).relu(), ["Conv2d", "ReLU"]),
    "x.relu_()": (lambda net, x: net.c(x).relu_(), ["Conv2d", "ReLU"]),
    "relu by keyword": (lambda net, x: F.relu(input=net.c(x)), ["Conv2d", "ReLU"]),
    "torch.flatten": (lambda net, x: torch.flatten(net.c(x), 1), ["Conv2d", "Flatten"]),
    "flatten by keyword": (lambda net, x: torch.flatten(net.c(x), start_dim=1), ["Conv2d", "Flatten"]),
    "flatten to -1": (lambda net, x: net.c(x).flatten(1, -1), ["Conv2d", "Flatten"]),
    "view(size, -1)": (lambda net, x: net.c(x).view(x.size(0), -1), ["Conv2d", "Flatten"]),
    "view(shape, -1)": (lambda net, x: net.c(x).view(x.shape[0], -1), ["Conv2d", "Flatten"]),
    "view((size, -1))": (lambda net, x: net.c(x).view((x.size()[0], -1)), ["Conv2d", "Flatten"]),
    "view(-1, number)": (lambda net, x: net.c(x).view(-1, 3 * 8 * 8), ["Conv2d", "Flatten"]),
    "reshape": (lambda net, x: net.c(x).reshape(x.size(0), -1), ["Conv2d", "Flatten"]),
    "torch.reshape": (lambda net, x: torch.reshape(net.c(x), (x.size(0), -1)), ["Conv2d", "Flatten"]),
    "x + y": (lambda net, x: net.c(x) + x, ["Conv2d", "add"]),
    "x + x": (lambda net, x: (lambda y: y + y)(net.c(x)), ["Conv2d", "add"]),
    "x += y": (in_place_sum, ["Conv2d", "add"]),
    "torch.add": (lambda net, x: torch.add(net.c(x), x), ["Conv2d", "add"]),
    "x.add(y)": (lambda net, x: net.c(x).add(x), ["Conv2d", "add"]),
    "x.add_(y)": (lambda net, x: net.c(x).add_(x), ["Conv2d", "add"]),
    "torch.cat": (lambda net, x: torch.cat([net.c(x), x], 1), ["Conv2d", "cat"]),
    "cat by keyword": (lambda net, x: torch.cat((x, net.c(x), x), dim=1), ["Conv2d", "cat"]),
    "torch.concat": (lambda net, x: torch.concat([net.c(x), x], dim=1), ["Conv2d", "cat"]),
    "F.max_pool2d": (lambda net, x: F.max_pool2d(net.c(x), 2), ["Conv2d", "MaxPool2d"]),
    "max pool options": (
        lambda net, x: F.max_pool2d(net.c(x), kernel_size=3, stride=2, padding=1, ceil_mode=True),
        ["Conv2d", "MaxPool2d"],
    ),
    "torch.max_pool2d": (lambda net, x: torch.max_pool2d(net.c(x), 2), ["Conv2d", "MaxPool2d"]),
    "F.avg_pool2d": (
        lambda net, x: F.avg_pool2d(net.c(x), 3, padding=1, count_include_pad=False, divisor_override=5),
        ["Conv2d", "AvgPool2d"],
    ),
    "F.adaptive_avg_pool2d": (
        lambda net, x: F.adaptive_avg_pool2d(net.c(x), (2, 1)),
        ["Conv2d", "AdaptiveAvgPool2d"],
    ),
    "dead code": (lambda net, x: (torch.softmax(net.c(x), 1), net.c(x).sum(), x)[2], []),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_functional_spelling_becomes_a_module_and_computes_the_same(spelling, tmp_path):
    forward, expected = SPELLINGS[spelling]
    model = Forward(forward, c=conv()).eval()
    graph = network.trace(model, IMAGE)
    network.save(graph, tmp_path)
    assert networks.kinds(graph) == expected
    assert torch.equal(graph(IMAGE), model(IMAGE))
    assert torch.equal(network.load(tmp_path)(IMAGE), model(IMAGE))


def test_a_layer_in_place_is_no_longer_in_place():
    model = nn.Sequential(conv(), nn.ReLU(inplace=True))
    graph = network.trace(model, IMAGE)
    assert (graph.get_submodule("1").inplace, model[1].inplace) == (False, True)
    assert torch.equal(graph(IMAGE), model(IMAGE))


def test_a_network_in_place_on_its_input_leaves_the_example_alone():
    example = IMAGE.clone()
    network.trace(nn.Sequential(nn.ReLU(inplace=True), conv()), example)
    assert torch.equal(example, IMAGE)


@pytest.mark.parametrize(
    "forward",
    [
        lambda net, x: (lambda y: F.relu(y, inplace=True) + y)(net.c(x)),
        lambda net, x: (lambda y: net.r(y) + y)(net.c(x)),
        lambda net, x: (lambda y: y.add_(x) + y)(net.c(x)),
    ],
    ids=["relu", "layer", "add"],
)
def test_a_tensor_that_is_read_after_it_changed_in_place_is_refused(forward):
    assert refusal(Forward(forward, c=conv(), r=nn.ReLU(inplace=True))) == (
        "model: forward must give the same without in-place operations and fixed batch sizes, not differ; "
        "write x = x + y for x += y, relu(x) for relu_(x), torch.flatten(x, 1) for view"
    )


def test_a_view_of_a_fixed_batch_size_is_refused():
    assert refusal(Forward(lambda net, x: net.c(x).view(2, 192), c=conv())) == (
        "model: forward must take any batch size, but 3 samples fail: "
        "shape '[2, 192]' is invalid for input of size 576; write torch.flatten(x, 1) for a view of a fixed size"
    )


def test_a_view_that_mixes_samples_is_refused():
    assert refusal(Forward(lambda net, x: net.c(x).view(-1, 96), c=conv())) == (
        "model: forward must give the same without in-place operations and fixed batch sizes, not differ; "
        "write x = x + y for x += y, relu(x) for relu_(x), torch.flatten(x, 1) for view"
    )


def test_dropout_over_channels_becomes_dropout():
    graph = network.trace(nn.Sequential(conv(), nn.Dropout2d(0.3)), IMAGE)
    assert networks.kinds(graph) == ["Conv2d", "Dropout"]
    assert graph.get_submodule("1").p == 0.3


def test_layers_that_forward_does_not_use_leave():
    model = Forward(lambda net, x: net.c(x), c=conv(), spare=nn.Linear(4, 4))
    assert [name for name, _ in network.trace(model, IMAGE).named_children()] == ["c"]


def test_an_example_in_another_type_takes_the_type_of_the_weights():
    graph = network.trace(nn.Sequential(conv()), IMAGE.double())
    assert next(graph.parameters()).dtype == torch.float32


def test_the_callers_model_is_untouched():
    model = nn.Sequential(conv(), nn.BatchNorm2d(3), nn.ReLU(inplace=True), nn.Dropout2d())
    model.train()
    model[1].eval()
    model[0].weight.requires_grad_(False)
    before = networks.state(model)
    graph = network.trace(model, IMAGE)
    with torch.no_grad():
        for parameter in graph.parameters():
            parameter.fill_(7)
    network.shapes(graph, IMAGE)
    network.costs(graph, IMAGE)
    networks.assert_untouched(model, before)


def test_a_graph_is_traced_to_a_copy_of_itself():
    graph = network.trace(networks.cnn(), torch.zeros(2, 1, 6, 6))
    again = network.trace(graph, torch.zeros(2, 1, 6, 6))
    assert again is not graph
    assert again.code == graph.code
    assert networks.difference(graph, again, 4, 1, 6, 6) == 0


# ---------------------------------------------------------------- messages


class Branch(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if x.sum() > 0 else -x


class Two(nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x + y


class Conv2d(nn.Conv2d):
    """Not torch's own, although the name is the same."""


def test_a_branch_that_depends_on_data_is_refused():
    assert refusal(Branch()) == (
        "model: forward must be traceable by torch.fx, not TraceError: symbolically traced variables cannot be "
        "used as inputs to control flow; replace branches and loops that depend on data"
    )


@pytest.mark.parametrize(
    ("layer", "name"), [(nn.ReLU6(), "ReLU6"), (nn.ConvTranspose2d(3, 3, 3), "ConvTranspose2d")]
)
def test_an_unknown_layer_is_refused(layer, name):
    assert refusal(nn.Sequential(conv(), layer)) == (
        f"model: layer '1' ({name}) is not supported; supported layers: {SUPPORTED}"
    )


@pytest.mark.parametrize(
    ("forward", "operation", "node"),
    [
        (lambda net, x: net.c(x) * 2, "mul", "mul"),
        (lambda net, x: net.c(x) + 1, "add", "add"),
        (lambda net, x: torch.add(net.c(x), x, alpha=2), "add", "add"),
        (lambda net, x: net.c(x) + net.c.bias, "c.bias", "c_bias"),
        (lambda net, x: torch.cat([net.c(x), x], 2), "cat", "cat"),
        (lambda net, x: torch.cat([net.c(x), x]), "cat", "cat"),
        (lambda net, x: torch.flatten(net.c(x)), "flatten", "flatten"),
        (lambda net, x: torch.flatten(net.c(x), 2), "flatten", "flatten"),
        (lambda net, x: torch.flatten(net.c(x), 1, end_dim=2), "flatten", "flatten"),
        (lambda net, x: net.c(x).view(2, 3, -1), "view", "view"),
        (lambda net, x: F.avg_pool2d(net.c(x), x.size(2)), "size", "size"),
        (lambda net, x: net.c(x).mean((2, 3)), "mean", "mean"),
        (lambda net, x: net.c(x)[:, 0], "getitem", "getitem"),
        (lambda net, x: F.dropout(net.c(x)), "dropout", "dropout"),
    ],
)
def test_an_unknown_operation_is_refused(forward, operation, node):
    assert refusal(Forward(forward, c=conv())) == (
        f"model: operation {operation!r} (node {node!r}) is not supported; {ADVICE}"
    )


@pytest.mark.parametrize("layer", [conv(), nn.BatchNorm2d(3), nn.BatchNorm2d(3, affine=False)])
def test_a_layer_that_is_used_twice_is_refused(layer):
    assert refusal(Forward(lambda net, x: net.c(net.c(x)), c=layer)) == (
        f"model: layer 'c' ({type(layer).__name__}) must be used once, not twice; give each use a layer of its own"
    )


def test_a_layer_without_weights_may_be_used_twice():
    model = Forward(lambda net, x: net.r(net.c(net.r(x))), c=conv(), r=nn.ReLU())
    assert networks.kinds(network.trace(model, IMAGE)) == ["ReLU", "Conv2d", "ReLU"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_not_finite_are_refused(value):
    model = nn.Sequential(conv(), nn.BatchNorm2d(3))
    with torch.no_grad():
        model[1].running_mean[:2] = value
    assert refusal(model, error=ConfigError) == (
        "model: weights must be finite, but '1.running_mean' holds 2 NaN or infinite values; "
        "load another checkpoint, or train with a smaller learning rate"
    )


@pytest.mark.parametrize(
    ("model", "shape", "why"),
    [
        (
            nn.Linear(4, 2),
            (2, 3),
            "mat1 and mat2 shapes cannot be multiplied (2x3 and 4x2)",
        ),
        (nn.BatchNorm2d(3), (2, 3), "expected 4D input (got 2D input)"),
        (
            nn.Flatten(),
            (2,),
            "Dimension out of range (expected to be in range of [-1, 0], but got 1)",
        ),
    ],
    ids=["linear", "batch norm", "flatten"],
)
def test_an_input_of_the_wrong_shape_is_refused(model, shape, why):
    assert refusal(nn.Sequential(model), torch.zeros(shape), ConfigError) == (
        f"model: input must fit the network, not have shape {shape}: {why}; check [data] and [model]"
    )


def test_two_inputs_are_refused():
    assert refusal(Two()) == (
        "model: network must have one input and one output tensor, not 2 and 1; "
        "wrap it in a module with one of each"
    )


def test_two_outputs_are_refused():
    assert refusal(Forward(lambda net, x: (net.c(x), x), c=conv())) == (
        "model: network must have one input and one output tensor, not 1 and 2; "
        "wrap it in a module with one of each"
    )


def test_masks_of_torch_that_are_not_permanent_are_refused():
    model = nn.Sequential(conv())
    l1_unstructured(model[0], "weight", amount=0.5)
    message = refusal(model)
    assert message == (
        "model: weights must be plain parameters, not computed ones (Only Tensors created explicitly by the user "
        "(graph leaves) support the deepcopy protocol at the moment); make masks and weight norms permanent first, "
        "e.g. with torch.nn.utils.prune.remove"
    )
    remove(model[0], "weight")
    assert networks.kinds(network.trace(model, IMAGE)) == ["Conv2d"]


def test_a_class_that_borrows_the_name_of_a_layer_is_refused():
    class Leaves(torch.fx.Tracer):
        def is_leaf_module(self, module, name):
            return True

    model = nn.Sequential(Conv2d(3, 3, 1))
    graph = torch.fx.GraphModule(model, Leaves().trace(model))
    assert refusal(graph) == (
        f"model: layer '0' must be torch.nn's own Conv2d, not {__name__}'s; convert it first"
    )


# ---------------------------------------------------------------- files


def everything() -> nn.Module:
    """Return a network with an option of every kind away from its default."""

    def forward(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
        left = net.norm(net.conv(x))
        right = net.tanh(net.pool(net.same(x)))
        return net.fc(torch.flatten(net.adapt(net.mean(torch.cat([left, right, left + right], 1))), 1))

    return networks.lively(
        Forward(
            forward,
            conv=nn.Conv2d(3, 4, (3, 1), stride=2, padding=(1, 0), dilation=1, padding_mode="reflect"),
            norm=nn.BatchNorm2d(4, eps=0.1, affine=False),
            same=nn.Conv2d(3, 4, 3, padding="same", groups=1, bias=False, dilation=2),
            tanh=nn.Tanh(),
            pool=nn.MaxPool2d(3, stride=2, padding=1),
            mean=nn.AvgPool2d(2, stride=1, padding=1, count_include_pad=False, divisor_override=3),
            adapt=nn.AdaptiveAvgPool2d((2, None)),
            fc=nn.Linear(12 * 2 * 5, 2, bias=False),
        )
    )


def test_a_saved_network_computes_the_same_in_its_own_type(tmp_path):
    model = everything()
    network.save(network.trace(model, IMAGE), tmp_path)
    loaded = network.load(tmp_path)
    assert torch.equal(loaded(IMAGE.double()), model(IMAGE.double()))
    assert not loaded.training


def test_saving_twice_writes_the_same_bytes(tmp_path):
    graph = network.trace(everything(), IMAGE)
    network.save(graph, tmp_path / "one")
    network.save(network.load(tmp_path / "one"), tmp_path / "two")
    names = ["network.json", "weights.pt"]
    assert sorted(path.name for path in (tmp_path / "two").iterdir()) == names
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_nested_names_and_odd_names_survive(tmp_path):
    model = nn.Sequential(networks.named(features=nn.Sequential(conv(), nn.ReLU())))
    model.features.add_module("conv-1 (last)", conv())
    graph = network.trace(model, IMAGE)
    network.save(graph, tmp_path)
    assert torch.equal(network.load(tmp_path)(IMAGE), model(IMAGE))
    assert [node.target for node, _ in network.weighted(network.load(tmp_path))] == [
        "features.0",
        "features.conv-1 (last)",
    ]


def test_the_weights_are_read_without_pickle(tmp_path):
    network.save(network.trace(nn.Sequential(conv()), IMAGE), tmp_path)
    state = torch.load(tmp_path / "weights.pt", weights_only=True)
    assert {name: tuple(value.shape) for name, value in state.items()} == {
        "0.weight": (3, 3, 3, 3),
        "0.bias": (3,),
    }


def tampered(folder, change) -> str:
    network.save(network.trace(nn.Sequential(conv()), IMAGE), folder)
    path = folder / "network.json"
    description = json.loads(path.read_text())
    change(description)
    path.write_text(json.dumps(description))
    with pytest.raises((UnsupportedError, ConfigError)) as caught:
        network.load(folder)
    return str(caught.value)


def test_an_unknown_kind_in_a_file_is_refused(tmp_path):
    def change(description):
        description["modules"]["0"]["kind"] = "Bilinear"

    assert tampered(tmp_path, change) == (
        f"model: layer '0' (Bilinear) is not supported; supported layers: {SUPPORTED}"
    )


@pytest.mark.parametrize(
    ("node", "key", "value", "op"),
    [
        (0, "target", "x, y=print('run')", "placeholder"),
        (1, "target", '0")(print("run"), "', "call_module"),
        (1, "op", "call_method", "call_method"),
        (1, "op", "get_attr", "get_attr"),
        (1, "op", "call_function", "call_function"),
        (1, "name", "a = print('run')", "call_module"),
    ],
)
def test_a_name_in_a_file_that_would_run_as_code_is_refused(tmp_path, capsys, node, key, value, op):
    def change(description):
        description["nodes"][node][key] = value
        if key == "target":
            description["modules"][value] = description["modules"]["0"]

    shown = "0" if key == "op" else value
    assert tampered(tmp_path, change) == (
        f"model: network.json must hold what flow.network.save writes, not {shown!r} ({op}); "
        "run the stage that wrote it again"
    )
    assert capsys.readouterr().out == ""


# ---------------------------------------------------------------- shapes and costs


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
    graph = network.trace(model, IMAGE)
    costs = {cost.name: cost for cost in network.costs(graph, IMAGE)}
    assert {name: (c.kind, c.inputs, c.outputs, c.parameters, c.macs) for name, c in costs.items()} == {
        "conv": ("Conv2d", 3, 8, 3 * 8 * 9, 3 * 8 * 9 * 64),
        "depth": ("Conv2d", 8, 8, 8 * 3 + 8, 8 * 3 * 3 * 4),
        "group": ("Conv2d", 8, 4, 4 * 4 + 4, 4 * 4 * 3 * 4),
        "fc": ("Linear", 48, 5, 48 * 5 + 5, 48 * 5),
    }
    assert network.total_parameters(graph) == 216 + 16 + 32 + 20 + 245


def test_costs_are_for_one_sample():
    graph = network.trace(networks.cnn(), torch.zeros(2, 1, 6, 6))
    assert network.costs(graph, torch.zeros(2, 1, 6, 6)) == network.costs(graph, torch.zeros(50, 1, 6, 6))


def test_shapes_hold_every_node_and_put_back_each_training_flag():
    graph = network.trace(networks.branches(), torch.zeros(2, 2, 5, 5))
    graph.train()
    graph.get_submodule("left").eval()
    shapes = network.shapes(graph, torch.zeros(7, 2, 5, 5))
    assert shapes["cat"] == (7, 5, 5, 5)
    assert shapes["out"] == (7, 2, 3, 3)
    assert set(shapes) == {node.name for node in graph.graph.nodes}
    assert (graph.training, graph.get_submodule("left").training) == (True, False)
