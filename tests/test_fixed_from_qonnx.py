"""QONNX as integers: every operator gives what QONNX's own execution gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import quantized
from lowered import check
from onnx_files import save
from qonnx_files import NETWORKS, Bits, Net, network

from flow.errors import ConfigError
from flow.fixed.from_qonnx import lower, read
from flow.fixed.graph import Conv, Dense, Rescale
from flow.qonnx import load

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


def written(folder: Path, seed: int, name: str = "model.onnx") -> Path:
    net = Net(seed)
    return save(net.proto(net.quant(net.flatten(net.conv(net.input((2, 5, 4)), 3)))), folder, name)


def test_the_same_file_is_the_same_graph_wherever_it_lies(tmp_path: Path) -> None:
    first = read(written(tmp_path, 0))
    assert repr(first) == repr(lower(load(tmp_path / "model.onnx")))
    assert read(written(tmp_path, 0, "copy.onnx")) is first


def test_a_file_that_was_written_anew_is_read_anew(tmp_path: Path) -> None:
    first = read(written(tmp_path, 0))
    assert not np.array_equal(read(written(tmp_path, 1)).nodes[0].weight, first.nodes[0].weight)  # type: ignore[attr-defined]


def test_the_last_files_are_remembered(tmp_path: Path) -> None:
    first = read(written(tmp_path, 0))
    others = [read(written(tmp_path, seed)) for seed in (1, 2, 3)]
    assert read(written(tmp_path, 0)) is first
    read(written(tmp_path, 4))
    assert [
        read(written(tmp_path, seed)) is other for seed, other in zip((2, 3), others[1:], strict=True)
    ] == [
        True,
        True,
    ]
    assert read(written(tmp_path, 1)) is not others[0]


def test_nobody_can_change_a_graph_that_others_read(tmp_path: Path) -> None:
    graph = read(written(tmp_path, 0))
    arrays = [
        value
        for holder in (*graph.inputs, *graph.nodes, *graph.tensors.values())
        for value in vars(holder).values()
        if isinstance(value, np.ndarray)
    ]
    assert len(arrays) > 3
    for array in arrays:
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0


def test_a_file_that_may_have_weights_elsewhere_is_read_each_time(tmp_path: Path) -> None:
    path = written(tmp_path, 0)
    made = load(path).model
    made.doc_string = "location"
    save(made, tmp_path)
    again = read(path)
    assert repr(read(path)) == repr(again) and read(path) is not again


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        read(tmp_path / "none.onnx")
    assert str(error.value) == (
        f"qonnx: {str(tmp_path / 'none.onnx')!r} must be an existing file, not missing; run the stage quantize"
    )
