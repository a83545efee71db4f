"""Preflight: what stops a synthesis, or silently loses bits, is refused at once, with the cure."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fixed_graphs import Builder, write

from flow.convert.layer_list import LIMIT
from flow.errors import ConfigError, UnsupportedError
from flow.fixed.graph import FixedGraph, Tensor
from flow.types import FixedPoint

BYTE = FixedPoint(True, 1, 7)
AFTER = "Vivado and Vitis HLS stop there, after hours"
STREAM = 'choose io_type = "io_stream"'
FOLD = 'give it a larger ReuseFactor with Strategy = "Resource", or prune it'
NARROW = "prune the layer to fewer channels"


def dense(inputs: int, outputs: int) -> FixedGraph:
    made = Builder(Tensor("x", (inputs,), BYTE))
    return made.graph(made.dense("fc", "x", outputs))


def conv(shape: tuple[int, ...], filters: int, kernel: tuple[int, ...]) -> FixedGraph:
    made = Builder(Tensor("x", shape, BYTE))
    return made.graph(made.conv("c", "x", filters, kernel))


@pytest.mark.parametrize(
    ("graph", "io_type", "hls", "text"),
    [
        (
            dense(64, 65),
            "io_parallel",
            {"Strategy": "Latency"},
            f"'fc' must not have more than 4096 products at once (Strategy Latency), not 4160: {AFTER}; {FOLD}",
        ),
        (
            dense(90, 91),
            "io_stream",
            {"Strategy": "Resource", "ReuseFactor": 1},
            f"'fc' must not have more than 4096 multipliers at once, not 8190: {AFTER}; {FOLD}",
        ),
        (
            dense(4097, 1),
            "io_stream",
            {},
            f"'x' must not have more than 4096 channels side by side in a stream, not 4097: {AFTER}; {NARROW}",
        ),
        (
            dense(4095, 1),
            "io_parallel",
            {"ReuseFactor": 4095, "Strategy": "Resource"},
            f"'x' must not have more than 4096 lanes in the AXI4-Stream's shift register, not 4098: {AFTER}; {STREAM}",
        ),
        (
            conv((46, 45, 2), 2, (3, 3)),
            "io_parallel",
            {},
            f"'x' must not have more than 4096 values in registers at once (io_parallel), not 4140: {AFTER}; {STREAM}",
        ),
        (
            conv((4, 4, 456), 1, (3, 3)),
            "io_stream",
            {},
            f"'c' must not have more than 4096 inputs of a sum in registers at once, not 4104: {AFTER}; {NARROW}",
        ),
        (
            conv((6, 6, 24), 2, (3, 3)),
            "io_parallel",
            {"ReuseFactor": 1, "Strategy": "Latency", "LayerName": {"c": {"ParallelizationFactor": 16}}},
            f"'c' must not have more than 4096 products at once (Strategy Latency), not 6912: {AFTER}; {FOLD}",
        ),
    ],
)
def test_arrays_that_no_synthesis_partitions_are_refused(
    graph: FixedGraph, io_type: str, hls: dict[str, Any], text: str, tmp_path: Path
) -> None:
    with pytest.raises(UnsupportedError) as error:
        write(graph, tmp_path, io_type, hls)
    assert str(error.value) == f"convert: layer {text}"


def test_the_limit_itself_is_taken(tmp_path: Path) -> None:
    assert LIMIT == 64 * 64
    write(dense(64, 64), tmp_path / "parallel", "io_parallel", {"Strategy": "Latency"})
    write(conv((2, 2, 64), 64, (1, 1)), tmp_path / "stream", "io_stream")


def test_a_1x1_conv_with_more_weights_than_registers_goes_to_our_kernel(tmp_path: Path) -> None:
    for inputs, kind in ((64, "PointwiseConv2D"), (65, "FlowConv")):
        _, written = write(conv((2, 2, inputs), 64, (1, 1)), tmp_path / kind, "io_stream")
        assert written.layers[0].kind == kind


@pytest.mark.parametrize(
    ("hls", "text"),
    [
        (
            {"LayerName": {"fc": {"Precision": {"accum": "fixed<16,6>"}}}},
            "Precision.accum of layer 'fc' must hold -49088 to 16320 in steps of 2^-13, as fixed<17,4> does, not "
            "fixed<16,6>; widen it, or leave it out",
        ),
        (
            {"Precision": {"weight": "fixed<4,3>"}},
            "Precision.weight of layer 'fc' must hold -8 to 7 in steps of 2^-3, as fixed<4,1> does, not fixed<4,3>; "
            "widen it, or leave it out",
        ),
        (
            {"Model": {"Precision": {"bias": "ufixed<20,3>"}}},
            "Precision.bias of layer 'fc' must hold -32768 to 0 in steps of 2^-13, as fixed<16,3> does, not "
            "ufixed<20,3>; widen it, or leave it out",
        ),
        (
            {"LayerName": {"fc": {"Precision": {"result": "fixed<32,12>"}}}},
            "Precision.result of layer 'fc' must be fixed<17,4>, not fixed<32,12>: the network's types are exact; "
            "set widths where they are chosen, in [quantize]",
        ),
        (
            {"LayerName": {"flat": {"Precision": {"accum": "fixed<32,12>"}}}},
            "Precision.accum of layer 'flat' must be left out, not fixed<32,12>: the layer has none",
        ),
        (
            {"LayerName": {"fc": {"Precision": {"accum": "wide"}}}},
            "Precision.accum of layer 'fc' must be a type such as fixed<16,6>, not 'wide'; "
            "leave it out for the exact one",
        ),
        (
            {"Precision": "fixed<16,6>"},
            "Precision must be a table of accum, weight, bias, result, not 'fixed<16,6>'; leave it out: every type "
            "follows from the quantized network, whose widths belong to [quantize]",
        ),
    ],
)
def test_types_that_lose_bits_are_refused(hls: dict[str, Any], text: str, tmp_path: Path) -> None:
    """Bytes times -8, 7, 1 and 0 eighths: 2040 either way, in steps of 2^-10; and -32768 steps of 2^-13."""
    made = Builder(Tensor("x", (2, 2), BYTE))
    made.dense("fc", made.reshape("flat", "x"), 1)
    node = dataclasses.replace(made.nodes[-1], weight=np.array([[-8, 7, 1, 0]]), bias=np.array([-32768]))
    node = dataclasses.replace(node, output=Tensor("fc", (1,), FixedPoint(True, 4, 13)))
    with pytest.raises(ConfigError) as error:
        write(FixedGraph(made.inputs, (made.nodes[0], node), ("fc",)), tmp_path, "io_parallel", hls)
    assert str(error.value) == f"[hls]: {text}"
