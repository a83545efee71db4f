"""QONNX as integers: every operator gives what QONNX's own execution gives."""

from __future__ import annotations

import pytest
import quantized
from lowered import check
from qonnx_files import NETWORKS, Bits, network

from flow.fixed.graph import Conv, Dense, Rescale

WEIGHTED = [name for name in NETWORKS if name.startswith(("Conv", "Gemm", "MatMul"))]


@pytest.mark.parametrize("name", quantized.NETS)
def test_what_the_flow_quantizes_is_exact(name: str) -> None:
    graph, differing = check(quantized.graph(name))
    assert differing == 0
    assert all(node.plain for node in graph.nodes if isinstance(node, Rescale))


@pytest.mark.parametrize("name", NETWORKS)
def test_every_operator_is_exact(name: str) -> None:
    _, differing = check(network(name))
    assert differing == 0 or name in ROUNDED


ROUNDED = ("Softmax", "Mul by a constant", "Mul by a constant a channel")
"""Where float32 rounds a product to a tie, or a Softmax's sum; `check` holds how far."""


@pytest.mark.parametrize("name", WEIGHTED)
@pytest.mark.parametrize("free", [False, True])
def test_scales_a_channel(name: str, free: bool) -> None:
    graph, differing = check(network(name, Bits(per_channel=True, free=free)))
    assert differing == 0
    assert any(len(node.output.scale) > 1 for node in graph.nodes)


@pytest.mark.parametrize("name", ["Conv2d", "Gemm"])
@pytest.mark.parametrize(
    ("weight", "activation"), [(1, 2), (2, 2), (2, 8), (3, 5), (6, 4), (8, 8), (12, 4), (16, 3)]
)
def test_every_width(name: str, weight: int, activation: int) -> None:
    graph, differing = check(network(name, Bits(weight=weight, activation=activation), seed=weight))
    assert differing == 0
    layer = next(node for node in graph.nodes if isinstance(node, Conv | Dense))
    assert layer.weight_dtype.width == max(weight, 2)
    assert graph.inputs[0].dtype.width == activation
