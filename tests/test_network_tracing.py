"""Tracing gives a plain graph that computes the same and leaves the model alone, or a message."""

from __future__ import annotations

import architectures
import networks
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from networks import Forward, Pair, refusal
from torch import nn
from torch.nn.utils.prune import l1_unstructured, remove

from flow import network
from flow.errors import ConfigError
from flow.network.tracing import tensors_of

IMAGE = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
OTHER = torch.randn(5, 3, 10, 6, generator=torch.Generator().manual_seed(1))
SUPPORTED = (
    "Conv1d, Conv2d, ConvTranspose1d, ConvTranspose2d, Linear, BatchNorm1d, BatchNorm2d, ReLU, ReLU6, LeakyReLU, "
    "PReLU, ELU, SELU, GELU, SiLU, Mish, Softplus, Hardswish, Hardsigmoid, Hardtanh, Sigmoid, Tanh, Dropout, "
    "Identity, Softmax, LogSoftmax, MaxPool1d, MaxPool2d, AvgPool1d, AvgPool2d, AdaptiveAvgPool1d, AdaptiveAvgPool2d, "
    "AdaptiveMaxPool1d, AdaptiveMaxPool2d, Upsample, ZeroPad1d, ZeroPad2d, ChannelShuffle, Flatten, Unflatten"
)
DIFFERS = (
    "model: forward must give the same without in-place operations and fixed batch sizes, not differ; "
    "write x = x + y for x += y, relu(x) for relu_(x), torch.flatten(x, 1) for view"
)


def conv(inputs: int = 3) -> nn.Module:
    torch.manual_seed(0)
    return nn.Conv2d(inputs, 3, 3, padding=1)


def placeholders(graph: nn.Module) -> list[str]:
    return [node.name for node in graph.graph.nodes if node.op == "placeholder"]


# ---------------------------------------------------------------- the model stays as it is


def test_a_layer_in_place_is_no_longer_in_place():
    model = nn.Sequential(conv(), nn.ReLU(inplace=True))
    graph = network.trace(model, IMAGE)
    assert (graph.get_submodule("1").inplace, model[1].inplace) == (False, True)
    assert torch.equal(graph(IMAGE), model(IMAGE))


def test_a_network_in_place_on_its_input_leaves_the_example_alone():
    example = IMAGE.clone()
    network.trace(nn.Sequential(nn.ReLU(inplace=True), conv()), example)
    assert torch.equal(example, IMAGE)


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


def test_an_auxiliary_head_of_training_stays_out_and_every_layer_keeps_its_training_flag():
    def forward(net, x):
        y = net.drop(net.norm(net.c(x)))
        return (y, net.aux(y)) if net.training else y

    model = Forward(forward, c=conv(), norm=nn.BatchNorm2d(3), drop=nn.Dropout(), aux=conv()).train()
    model.norm.eval()
    graph = network.trace(model, IMAGE)
    assert networks.kinds(graph) == ["Conv2d", "BatchNorm2d", "Dropout"]
    flags = {name: module.training for name, module in graph.named_modules()}
    assert flags == {"": True, "c": True, "norm": False, "drop": True}
    assert [m.training for m in (model, model.c, model.norm, model.drop)] == [True, True, False, True]
    assert torch.equal(graph.eval()(IMAGE), model.eval()(IMAGE))


def test_an_efficientnet_is_traced():
    model = architectures.torchvision_models().efficientnet_b0(weights=None, num_classes=4).train()
    image = torch.randn(2, 3, 32, 32)
    graph = network.trace(model, image)
    assert torch.equal(graph.eval()(image), model.eval()(image))


# ---------------------------------------------------------------- inputs, outputs, shared layers


def test_several_inputs_are_traced_in_their_order():
    model = Pair(lambda net, x, y: net.a(x) + F.interpolate(net.b(y), scale_factor=2), a=conv(), b=conv(2))
    example = (torch.randn(2, 3, 8, 8), torch.randn(2, 2, 4, 4))
    graph = network.trace(model, example)
    assert placeholders(graph) == ["x", "y"]
    other = (torch.randn(5, 3, 4, 12), torch.randn(5, 2, 2, 6))
    assert torch.equal(graph(*other), model(*other))


def test_an_input_that_forward_does_not_use_stays():
    graph = network.trace(Pair(lambda net, x, y: net.a(y), a=conv()), (IMAGE, IMAGE))
    assert placeholders(graph) == ["x", "y"]
    assert torch.equal(graph(OTHER, IMAGE), graph(IMAGE, IMAGE))


class Optional(nn.Module):
    """A network whose second input may be left out."""

    def __init__(self) -> None:
        super().__init__()
        self.c = conv()

    def forward(
        self, x: torch.Tensor, mask: torch.Tensor | None = None, *, swap: bool = False
    ) -> torch.Tensor:
        y = self.c(x)
        if mask is not None:
            y = y * mask
        return torch.cat([x, y] if swap else [y, x], 1)


@pytest.mark.parametrize(("count", "joins"), [(1, ["cat"]), (2, ["mul", "cat"])])
def test_an_optional_input_is_there_if_the_example_has_it(count, joins):
    model, inputs = Optional(), (OTHER, OTHER.abs())[:count]
    graph = network.trace(model, (IMAGE, IMAGE)[:count])
    assert placeholders(graph) == ["x", "mask"][:count]
    assert networks.kinds(graph) == ["Conv2d", *joins]
    assert torch.equal(graph(*inputs), model(*inputs))
    assert placeholders(network.trace(graph, (IMAGE, IMAGE)[:count])) == ["x", "mask"][:count]


def test_an_unused_optional_input_of_a_graph_leaves():
    graph = torch.fx.symbolic_trace(Pair(lambda net, x, y: net.c(x), c=conv()))
    list(graph.graph.nodes)[1].args = (None,)
    graph.recompile()
    assert placeholders(network.trace(graph, IMAGE)) == ["x"]


class Rest(nn.Module):
    """A network with arguments that have no names."""

    def __init__(self, used: bool) -> None:
        super().__init__()
        self.c, self.used = conv(), used

    def forward(self, x: torch.Tensor, *rest: torch.Tensor, **options: object) -> torch.Tensor:
        return self.c(x) + rest[0] if self.used else self.c(x)


def test_inputs_without_a_name_leave_if_unused():
    assert placeholders(network.trace(Rest(used=False), IMAGE)) == ["x"]


def test_inputs_without_a_name_are_refused_if_used():
    assert refusal(Rest(used=True), (IMAGE, IMAGE)) == (
        "model: forward must name each of its inputs, not take *rest; give each an argument"
    )


@pytest.mark.parametrize(
    "wrap", [lambda y, x: (y, x, y), lambda y, x: [y, x, y], lambda y, x: {"main": y, "in": x, "again": y}]
)
def test_several_outputs_come_in_one_tuple(wrap):
    model = Forward(lambda net, x: wrap(net.c(x), x), c=conv())
    graph = network.trace(model, IMAGE)
    assert [node.name for node in network.output_nodes(graph)] == ["c", "x", "c"]
    got = graph(OTHER)
    assert isinstance(got, tuple)
    assert all(map(torch.equal, got, tensors_of(model(OTHER))))


@pytest.mark.parametrize("wrap", [lambda y: (y,), lambda y: [y], lambda y: {"main": y}])
def test_a_single_output_comes_without_a_tuple(wrap):
    model = Forward(lambda net, x: wrap(net.c(x)), c=conv())
    assert torch.equal(network.trace(model, IMAGE)(OTHER), model.c(OTHER))


def test_an_input_may_be_an_output():
    graph = network.trace(Forward(lambda net, x: x), IMAGE)
    assert networks.kinds(graph) == []
    assert torch.equal(graph(OTHER), OTHER)


@pytest.mark.parametrize(
    ("result", "shown"), [(lambda y: 3, "3"), (lambda y: ((y,), y), "((c,), c)"), (lambda y: (), "()")]
)
def test_outputs_that_are_no_tensors_are_refused(result, shown):
    assert refusal(Forward(lambda net, x: result(net.c(x)), c=conv()), IMAGE) == (
        f"model: network must return tensors, alone or in one tuple, list or dict, not {shown}; "
        "wrap it in a module that does"
    )


@pytest.mark.parametrize("layer", [conv(), nn.BatchNorm2d(3), nn.ReLU(), nn.PReLU()])
def test_a_layer_that_is_used_twice_is_one_module(layer):
    model = Forward(lambda net, x: net.c(net.c(x) + x), c=layer).eval()
    graph = network.trace(model, IMAGE)
    assert [name for name, _ in graph.named_children()] == ["c"]
    assert [node.name for node in network.uses(graph)["c"]] == ["c", "c_1"]
    assert torch.equal(graph(OTHER), model(OTHER))


def test_a_layer_under_two_names_has_one():
    shared = conv()
    graph = network.trace(Forward(lambda net, x: net.b(net.a(x)), a=shared, b=shared), IMAGE)
    assert [node.target for node in graph.graph.nodes if node.op == "call_module"] == ["a", "a"]
    assert torch.equal(graph(OTHER), shared(shared(OTHER)))


# ---------------------------------------------------------------- messages


def test_weights_of_two_layers_are_refused():
    model = Forward(lambda net, x: net.b(net.a(x)), a=conv(), b=conv())
    model.b.weight = model.a.weight
    assert refusal(model, IMAGE) == (
        "model: weights must belong to one layer, not to 'a' and 'b'; use one layer twice, or give each a copy"
    )


@pytest.mark.parametrize(
    "forward",
    [
        lambda net, x: (lambda y: F.relu(y, inplace=True) + y)(net.c(x)),
        lambda net, x: (lambda y: net.r(y) + y)(net.c(x)),
        lambda net, x: (lambda y: y.add_(x) + y)(net.c(x)),
        lambda net, x: (lambda y: y.mul_(x) + y)(net.c(x)),
    ],
    ids=["relu", "layer", "add", "mul"],
)
def test_a_tensor_that_is_read_after_it_changed_in_place_is_refused(forward):
    assert refusal(Forward(forward, c=conv(), r=nn.ReLU(inplace=True)), IMAGE) == DIFFERS


def test_a_view_of_a_fixed_batch_size_is_refused():
    assert refusal(Forward(lambda net, x: net.c(x).view(2, 192), c=conv()), IMAGE) == (
        "model: forward must take any batch size, but 3 samples fail: "
        "shape '[2, 192]' is invalid for input of size 576; write torch.flatten(x, 1) for a view of a fixed size"
    )


@pytest.mark.parametrize(
    "forward",
    [
        lambda net, x: net.c(x).view(-1, 96),
        lambda net, x: F.dropout(net.c(x)),
        lambda net, x: torch.max(net.c(x)[:, :2], 1, keepdim=True)[0],
        lambda net, x: F.interpolate(net.c(x), scale_factor=0.5, mode="bilinear", antialias=True),
    ],
    ids=["view over samples", "dropout in evaluation", "a maximum that looks like a chunk", "antialias"],
)
def test_what_computes_something_else_as_a_module_is_refused(forward):
    assert refusal(Forward(forward, c=conv()).eval(), IMAGE) == DIFFERS


def test_infinite_values_hide_no_difference():
    model = Forward(lambda net, x: (lambda y: y.add_(x) + y)(net.c(x)), c=conv())
    nn.init.constant_(model.c.bias[:1], 3e38)
    assert model(IMAGE)[:, 0].isinf().all()
    assert refusal(model, IMAGE) == DIFFERS


class Branch(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if x.sum() > 0 else -x


class Conv2d(nn.Conv2d):
    """Not torch's own, although the name is the same."""


def test_a_branch_that_depends_on_data_is_refused():
    assert refusal(Branch(), IMAGE) == (
        "model: forward must be traceable by torch.fx, not TraceError: symbolically traced variables cannot be "
        "used as inputs to control flow; replace branches and loops that depend on data"
    )


@pytest.mark.parametrize(
    ("layer", "name"),
    [
        (nn.LayerNorm(8), "LayerNorm"),
        (nn.GroupNorm(1, 3), "GroupNorm"),
        (nn.ConstantPad2d(1, 0.5), "ConstantPad2d"),
    ],
)
def test_an_unknown_layer_is_refused(layer, name):
    assert refusal(nn.Sequential(conv(), layer), IMAGE) == (
        f"model: layer '1' ({name}) is not supported; supported layers: {SUPPORTED}"
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_not_finite_are_refused(value):
    model = nn.Sequential(conv(), nn.BatchNorm2d(3))
    with torch.no_grad():
        model[1].running_mean[:2] = value
    assert refusal(model, IMAGE, ConfigError) == (
        "model: weights must be finite, but '1.running_mean' holds 2 NaN or infinite values; "
        "load another checkpoint, or train with a smaller learning rate"
    )


def assertive(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
    torch._assert(x.shape[1] == 4, "four features, please")
    return x


@pytest.mark.parametrize(
    ("model", "shape", "why"),
    [
        (nn.Linear(4, 2), (2, 3), "mat1 and mat2 shapes cannot be multiplied (2x3 and 4x2)"),
        (nn.BatchNorm2d(3), (2, 3), "expected 4D input (got 2D input)"),
        (nn.Flatten(), (2,), "Dimension out of range (expected to be in range of [-1, 0], but got 1)"),
        (Forward(assertive), (2, 3), "four features, please"),
    ],
    ids=["linear", "batch norm", "flatten", "assertion"],
)
def test_an_input_of_the_wrong_shape_is_refused(model, shape, why):
    assert refusal(nn.Sequential(model), torch.zeros(shape), ConfigError) == (
        f"model: input must fit the network, not have shape {shape}: {why}; check [data] and [model]"
    )


@pytest.mark.parametrize(
    ("example", "shown", "why"),
    [
        (IMAGE, "(2, 3, 8, 8)", "missing 1 required positional argument: 'y'"),
        ((IMAGE,) * 3, " and ".join(["(2, 3, 8, 8)"] * 3), "takes 3 positional arguments but 4 were given"),
    ],
)
def test_inputs_of_the_wrong_number_are_refused(example, shown, why):
    assert refusal(Pair(lambda net, x, y: x + y), example, ConfigError) == (
        f"model: input must fit the network, not have shape {shown}: Pair.forward() {why}; check [data] and [model]"
    )


def test_masks_of_torch_that_are_not_permanent_are_refused():
    model = nn.Sequential(conv())
    l1_unstructured(model[0], "weight", amount=0.5)
    assert refusal(model, IMAGE) == (
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
    assert refusal(graph, IMAGE) == (
        f"model: layer '0' must be torch.nn's own Conv2d, not {__name__}'s; convert it first"
    )


@pytest.mark.parametrize(
    ("error", "told"),
    [(AssertionError(), "AssertionError"), (KeyError("width"), "'width'"), (ZeroDivisionError("a\nb"), "a")],
)
def test_a_forward_that_fails_in_its_own_way_is_told(error: Exception, told: str) -> None:
    class Failing(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if isinstance(x, torch.Tensor):  # tracing comes so far
                raise error
            return x

    with pytest.raises(ConfigError) as refused:
        network.trace(Failing(), torch.zeros(1, 3))
    assert str(refused.value) == (
        f"model: input must fit the network, not have shape (1, 3): {told}; check [data] and [model]"
    )
