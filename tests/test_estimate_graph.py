"""The work of networks: of fixed-point graphs built by hand, and of float networks at assumed widths."""

from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import nn

from flow.errors import UnsupportedError
from flow.estimate import Work, constant_digits
from flow.estimate.graph import graph_work
from flow.estimate.network import Bits, network_work
from flow.fixed.graph import Concat, Conv, Dense, FixedGraph, Pool, Rescale, Reshape, Softmax, Table, Tensor
from flow.network import trace
from flow.types import FixedPoint

ONE = np.array([1])


def tensor(name: str, shape: tuple[int, ...], bits: int) -> Tensor:
    return Tensor(name, shape, FixedPoint(True, bits, 0))


def rescale(name: str, source: str, output: Tensor, multiplier: int = 1) -> Rescale:
    return Rescale(name, (source,), output, np.array([multiplier]), np.array([0]), 4, "ROUND", 0, 31)


def graph() -> FixedGraph:
    """8x6x3 -> conv 3x3, 4 -> rescale -> pool 2 -> flatten -> dense 5."""
    draw = np.random.default_rng(0)
    weight = FixedPoint(True, 4, 0)
    return FixedGraph(
        (tensor("x", (8, 6, 3), 8),),
        (
            Conv(
                "conv",
                ("x",),
                tensor("a", (8, 6, 4), 17),
                draw.integers(-8, 8, (4, 3, 3, 3)),
                weight,
                (1, 1),
                ((1, 1), (1, 1)),
                (1, 1),
            ),
            rescale("relu", "a", tensor("b", (8, 6, 4), 5)),
            Pool("pool", ("b",), tensor("c", (4, 3, 4), 5), "max", (2, 2), (2, 2), ((0, 0), (0, 0))),
            Reshape("flatten", ("c",), tensor("d", (48,), 5)),
            Dense("fc", ("d",), tensor("y", (5,), 15), draw.integers(-8, 8, (5, 48)), weight),
        ),
        ("y",),
    )


def test_a_graph_gives_shapes_widths_and_the_digits_of_its_weights() -> None:
    conv, relu, pool, fc = graph_work(graph())
    weight = graph().nodes[0].weight  # type: ignore[attr-defined]
    digits, wide = constant_digits(weight, 8)
    assert conv == Work(
        "conv", "product", 27, 4, 8, 17, 4, positions=48, scans=80, line_bits=2 * 8 * 3 * 8, window=True,
        channels=3, digits=digits, wide=wide, reads_input=True,
    )  # fmt: skip
    assert (relu.kind, relu.outputs, relu.positions, relu.input_bits, relu.output_bits) == (
        "rescale",
        4,
        48,
        17,
        5,
    )
    assert (pool.inputs, pool.positions, pool.scans, pool.line_bits) == (4, 12, 48, 6 * 4 * 5)
    assert (fc.inputs, fc.outputs, fc.scans, fc.channels, fc.is_output, fc.window) == (
        48,
        5,
        12,
        4,
        True,
        False,
    )
    assert not (relu.reads_input or relu.is_output or fc.reads_input or conv.is_output)


def test_other_nodes_have_their_kinds() -> None:
    x, y = tensor("x", (6,), 8), tensor("y", (6,), 8)
    nodes = (
        rescale("scaled", "x", tensor("a", (6,), 8), 45),
        Table("sigmoid", ("a",), tensor("b", (6,), 9), np.zeros(256, dtype=np.int64)),
        Concat("cat", ("b", "y"), tensor("c", (12,), 9)),
        Softmax("softmax", ("c",), tensor("z", (12,), 16), np.zeros(512, dtype=np.int64)),
    )
    works = graph_work(FixedGraph((x, y), nodes, ("z",)))
    assert [work.kind for work in works] == ["scale", "table", "move", "softmax"]
    assert works[0].weight_bits == 7
    assert works[1].entries == 256
    assert all(work.reads_input and work.is_output for work in works)


def network() -> nn.Module:
    layers = OrderedDict(
        conv=nn.Conv2d(3, 4, 3, padding=1), bn=nn.BatchNorm2d(4), relu=nn.ReLU(), pool=nn.MaxPool2d(2),
        flatten=nn.Flatten(), fc=nn.Linear(48, 5),
    )  # fmt: skip
    return nn.Sequential(layers)


def test_a_float_network_gives_the_work_of_its_quantized_graph() -> None:
    example = torch.zeros(1, 3, 8, 6)
    found = network_work(trace(network(), example), example, Bits(4, 5, 8))
    assert [work.name for work in found] == ["conv", "conv quantizer", "pool", "fc"]
    for mine, exact in zip(found, graph_work(graph()), strict=True):
        for name in ("kind", "inputs", "outputs", "input_bits", "weight_bits", "positions", "scans", "line_bits",
                     "window", "channels", "reads_input", "is_output"):  # fmt: skip
            assert getattr(mine, name) == getattr(exact, name), (mine.name, name)
        assert abs(mine.output_bits - exact.output_bits) <= 1


def test_pruned_weights_cost_nothing_unfolded() -> None:
    example = torch.zeros(1, 48)
    layer = nn.Linear(48, 5)
    with torch.no_grad():
        layer.weight[:, 10:] = 0
    zeros = network_work(trace(nn.Sequential(layer), example), example, Bits(6, 6, 8))[0]
    assert 0 < zeros.digits + zeros.wide <= 3 * 50


class Branches(nn.Module):
    """A residual block with a joined branch."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 4, 1), nn.Conv2d(4, 4, 1, groups=4)
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a = torch.relu(self.first(x))
        b = torch.sigmoid(a + self.second(a))
        return self.head(torch.cat([a, b], 1).mean((2, 3)))


def test_joins_tables_and_grouped_convs_are_counted() -> None:
    example = torch.zeros(1, 2, 4, 4)
    works = {w.name: w for w in network_work(trace(Branches(), example), example, Bits(6, 6, 8))}
    kinds = sorted(work.kind for work in works.values())
    assert kinds == ["add", "move", "pool", "product", "product", "product", "rescale", "rescale", "table"]
    assert works["second"].grouped and works["second"].own_kernel and works["second"].inputs == 1
    assert works["head"].is_output


def test_a_layer_without_hardware_is_refused() -> None:
    example = torch.zeros(1, 2, 4, 4)
    with pytest.raises(
        UnsupportedError,
        match=r"^estimate: layer '0' \(ConvTranspose2d\) is not supported; take an upsampling",
    ):
        network_work(trace(nn.Sequential(nn.ConvTranspose2d(2, 2, 2)), example), example, Bits(6, 6, 8))
