"""Random small graphs, with every kind of dead and of almost dead channel, stay equal and never grow."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

import networks
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from flow import network
from flow.simplify import simplify

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]
EXAMPLE, OTHER = (2, 2, 5, 6), (2, 2, 9, 10)
KILLABLE = nn.Conv2d | nn.ConvTranspose2d | nn.Linear | nn.BatchNorm2d
PADDING_MODES = ("zeros", "zeros", "reflect", "replicate", "circular")


@dataclass
class Step:
    """One node: a module or a join, and the positions of the tensors that it reads (0 is the input)."""

    module: nn.Module | str
    reads: tuple[int, ...]
    span: tuple[int, int] = (0, 0)


@dataclass
class Recipe:
    """The nodes of a network with the (channels, height, width) of every tensor."""

    shapes: list[tuple[int, int, int]]
    steps: list[Step] = field(default_factory=list)

    def add(self, module: nn.Module | str, *reads: int, span: tuple[int, int] = (0, 0)) -> int:
        channels, height, width = self.shapes[reads[0]]
        if module == "cat":
            self.shapes.append((sum(self.shapes[read][0] for read in reads), height, width))
        elif module == "narrow":
            self.shapes.append((span[1], height, width))
        elif isinstance(module, str):
            self.shapes.append(self.shapes[reads[0]])
        else:
            probe = copy.deepcopy(module).double().eval()(torch.zeros(2, channels, height, width).double())
            self.shapes.append(tuple(probe.shape[1:]))
        self.steps.append(Step(module, reads, span))
        return len(self.shapes) - 1


class Graph(nn.Module):
    """The network of a recipe; its last tensor is pooled, or flattened, into a dense layer, or left.

    With ``also``, the tensor before the head is a second output.
    """

    def __init__(self, recipe: Recipe, head: str, also: bool) -> None:
        super().__init__()
        self.steps = recipe.steps
        self.also = also
        self.layers = nn.ModuleList(step.module for step in recipe.steps if not isinstance(step.module, str))
        channels, height, width = recipe.shapes[-1]
        self.head = {
            "none": nn.Sequential(),
            "pool": nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 2)),
            "flatten": nn.Sequential(nn.Flatten(), nn.Linear(channels * height * width, 3), nn.Sigmoid()),
        }[head]

    def extra_repr(self) -> str:
        """Show the nodes of a case that fails."""
        names = [
            step.module if isinstance(step.module, str) else type(step.module).__name__ for step in self.steps
        ]
        found = [
            f"{n}{s.reads}{s.span if any(s.span) else ''}" for n, s in zip(names, self.steps, strict=True)
        ]
        return f"{', '.join(found)}; also={self.also}"

    def forward(self, x: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
        tensors, layers = [x], iter(self.layers)
        for step in self.steps:
            read = [tensors[index] for index in step.reads]
            if step.module == "add":
                tensors.append(read[0] + read[1])
            elif step.module == "mul":
                tensors.append(read[0] * read[1])
            elif step.module == "cat":
                tensors.append(torch.cat(read, 1))
            elif step.module == "narrow":
                tensors.append(read[0][:, step.span[0] : sum(step.span)])
            else:
                tensors.append(next(layers)(read[0]))
        result = self.head(tensors[-1])
        return (result, tensors[-1]) if self.also else result


def conv(draw, channels: int, height: int, width: int, outputs: int | None = None) -> nn.Module:
    """Draw a plain, depthwise or grouped conv; with ``outputs``, one that keeps height and width."""
    if outputs is not None:
        kernel = draw(st.sampled_from((1, 3)))
        return nn.Conv2d(channels, outputs, kernel, padding=kernel // 2, bias=draw(st.booleans()))
    kernel = draw(st.sampled_from([size for size in (1, 2, 3) if size <= min(height, width)]))
    kind = draw(st.sampled_from(("plain", "plain", "plain", "depthwise", "grouped", "transposed")))
    if kind == "transposed":
        groups, stride = (
            draw(st.sampled_from((1, 1, 2 - channels % 2, channels))),
            draw(st.sampled_from((1, 2))),
        )
        return nn.ConvTranspose2d(
            channels,
            groups * draw(st.integers(1, 3)),
            kernel,
            stride=stride,
            groups=groups,
            bias=draw(st.booleans()),
        )
    divisors = [count for count in range(1, channels + 1) if channels % count == 0]
    groups = {"plain": 1, "depthwise": channels, "grouped": draw(st.sampled_from(divisors))}[kind]
    outputs = {"plain": draw(st.integers(1, 8)), "depthwise": channels, "grouped": 2 * groups}[kind]
    return nn.Conv2d(
        channels,
        outputs,
        kernel,
        stride=draw(st.sampled_from((1, 1, 2))),
        padding=draw(st.integers(0, kernel // 2)),
        groups=groups,
        bias=draw(st.booleans()),
        padding_mode=draw(st.sampled_from(PADDING_MODES)),
    )


def other(draw, channels: int, height: int, width: int) -> nn.Module:
    """Draw a layer without a mix of channels."""
    pools = [
        nn.MaxPool2d(2, stride=1, padding=1),
        nn.AvgPool2d(2, stride=1, padding=1),
        nn.AvgPool2d(2, stride=1, padding=1, count_include_pad=False),
        nn.ZeroPad2d((0, 1, 1, 0)),
        nn.AdaptiveMaxPool2d(2),
    ]
    if height * width < 60:
        pools += [nn.Upsample(scale_factor=2), nn.ChannelShuffle(2 - channels % 2)]
    if min(height, width) >= 2:
        pools += [nn.MaxPool2d(2, ceil_mode=True), nn.AvgPool2d(2), nn.AvgPool2d(2, divisor_override=3)]
    layers = [nn.ReLU(), nn.ReLU(), nn.LeakyReLU(0.2), nn.Sigmoid(), nn.Tanh(), nn.Identity(), nn.Dropout()]
    layers += [nn.PReLU(), nn.PReLU(channels), nn.Hardswish(), nn.ELU(), nn.ReLU6(), nn.SiLU(), nn.Softmax(1)]
    layers += [
        nn.BatchNorm2d(channels),
        nn.BatchNorm2d(channels, affine=False),
        nn.BatchNorm2d(channels, track_running_stats=False),
    ]
    return draw(st.sampled_from(layers + pools))


@st.composite
def graphs(draw) -> tuple[Graph, bool]:
    """Draw a network; tell also whether it takes images of the size `OTHER`."""
    recipe = Recipe([EXAMPLE[1:]])
    recipe.add(conv(draw, *recipe.shapes[0], outputs=draw(st.integers(1, 5))), 0)
    for _ in range(draw(st.integers(1, 7))):
        grow(draw, recipe)
    head = draw(st.sampled_from(("none", "pool", "flatten")))
    graph = networks.lively(Graph(recipe, head, draw(st.booleans())), seed=draw(st.integers(0, 999)))
    for layer in graph.modules():
        if isinstance(layer, KILLABLE) and layer.weight is not None:
            kill(draw, layer)
    return graph, takes(graph, OTHER)


def grow(draw, recipe: Recipe) -> None:
    """Draw one more layer, join, gate, slice, or second use of a layer."""
    source = draw(st.integers(max(0, len(recipe.shapes) - 3), len(recipe.shapes) - 1))
    shape = recipe.shapes[source]
    choice = draw(
        st.sampled_from(("conv", "conv", "other", "other", "add", "cat", "gate", "narrow", "again"))
    )
    if choice == "conv":
        recipe.add(conv(draw, *shape), source)
    elif choice == "other":
        recipe.add(other(draw, *shape), source)
    elif choice == "narrow":
        start = draw(st.integers(0, shape[0] - 1))
        recipe.add("narrow", source, span=(start, draw(st.integers(1, shape[0] - start))))
    elif choice == "gate":
        pool = recipe.add(nn.AdaptiveAvgPool2d(1), source)
        gate = recipe.add(nn.Conv2d(shape[0], shape[0], 1), pool)
        recipe.add("mul", source, recipe.add(draw(st.sampled_from((nn.Sigmoid(), nn.Hardsigmoid()))), gate))
    elif choice == "again":
        used = [s.module for s in recipe.steps if isinstance(s.module, nn.Conv2d | nn.BatchNorm2d)]
        fits = [module for module in used if accepts(module, shape)]
        recipe.add(draw(st.sampled_from(fits)) if fits else other(draw, *shape), source)
    else:
        alike = [i for i, found in enumerate(recipe.shapes) if found[1:] == shape[1:]]
        partner = draw(st.sampled_from(alike))
        if choice == "add" and recipe.shapes[partner] != shape:
            partner = recipe.add(conv(draw, *recipe.shapes[partner], outputs=shape[0]), partner)
        recipe.add(choice, source, partner)


def accepts(module: nn.Module, shape: tuple[int, int, int]) -> bool:
    if isinstance(module, nn.BatchNorm2d):
        return module.num_features == shape[0]
    return module.in_channels == shape[0] and min(shape[1:]) >= 3


def takes(graph: Graph, shape: tuple[int, ...]) -> bool:
    """Tell whether a network takes images of a size: a dense layer fixes it, and branches may no longer meet."""
    try:
        graph(torch.zeros(shape).double())
    except RuntimeError:
        return False
    return True


def kill(draw, layer: nn.Module) -> None:
    """Make some rows dead, dead with a bias, or balanced (their sum is zero), and some columns dead."""
    weight = layer.weight if isinstance(layer, nn.BatchNorm2d) else network.weight_rows(layer)
    states = st.sampled_from(("live", "zero", "bias", "balanced"))
    rows = draw(
        st.just(["bias"] * len(weight))
        if draw(st.integers(0, 5)) == 0
        else st.lists(states, max_size=len(weight))
    )
    with torch.no_grad():
        for row, state in enumerate(rows):
            if state == "balanced":
                weight[row] -= weight[row].mean()
                weight[(row, *[-1] * (weight.dim() - 1))] -= weight[row].sum()
            elif state != "live":
                weight[row] = 0
                if layer.bias is not None and state == "zero":
                    layer.bias[row] = 0
        if layer.weight.dim() > 1:
            columns = draw(st.sets(st.integers(0, weight.shape[1] - 1), max_size=2))
            weight[:, sorted(columns)] = 0


def size(model: nn.Module) -> int:
    return sum(value.numel() for value in model.state_dict().values() if value.is_floating_point())


@settings(
    max_examples=300, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None
)
@given(graphs())
def test_any_graph_stays_equal_and_never_grows(drawn):
    check(*drawn)


def check(model: nn.Module, takes_other: bool) -> None:
    """Assert what holds for every network."""
    example = torch.zeros(EXAMPLE)
    before = networks.state(model)
    result = simplify(model, example, samples=4)
    networks.assert_untouched(model, before)
    assert networks.difference(model, result.model, *EXAMPLE) < 1e-9
    if takes_other:
        assert networks.difference(model, result.model, *OTHER) < 1e-9
    assert size(result.model) <= size(model)
    assert sum(cost.macs for cost in result.after) <= sum(cost.macs for cost in result.before)
    again = simplify(result.model, example, samples=4)
    assert (again.after, again.kept) == (result.after, result.kept)
    assert networks.kinds(again.model) == networks.kinds(result.model)
    assert networks.difference(result.model, again.model, *EXAMPLE) < 1e-12
    assert network.trace(result.model, example).code == result.model.code
