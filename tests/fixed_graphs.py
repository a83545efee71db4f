"""Fixed-point graphs built by hand from the layers that hls4ml's own kernels compute, and what they compute."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from flow.convert.accumulators import partial_sums
from flow.convert.axis import Side, axis_files
from flow.convert.hls4ml_project import Target, Written, write_project
from flow.fixed.graph import Conv, Dense, FixedGraph, Node, Reshape, Tensor
from flow.types import FixedPoint, HlsProject, Port

WEIGHTS = FixedPoint(True, 1, 3)
BIASES = FixedPoint(True, 3, 13)


class Builder:
    """Makes layers with random numbers, one after the other."""

    def __init__(self, *inputs: Tensor, seed: int = 0) -> None:
        self.inputs = inputs
        self.tensors = {tensor.name: tensor for tensor in inputs}
        self.nodes: list[Node] = []
        self.rng = np.random.default_rng(seed)

    def numbers(self, dtype: FixedPoint, shape: tuple[int, ...]) -> np.ndarray:
        """Return integers of a type, its ends among them."""
        found = self.rng.integers(dtype.minimum_lsb, dtype.maximum_lsb, shape, endpoint=True)
        ends = found.reshape(-1)[: min(2, found.size)]
        ends[:] = (dtype.minimum_lsb, dtype.maximum_lsb)[: len(ends)]
        return found

    def dense(self, name: str, source: str, outputs: int, weights: FixedPoint = WEIGHTS) -> str:
        values = self.numbers(weights, (outputs, self.tensors[source].size)), weights
        biases = self.numbers(BIASES, (outputs,)), BIASES

        def made(dtype: FixedPoint) -> Dense:
            return Dense(name, (source,), Tensor(name, (outputs,), dtype), *values, *biases)

        return self._exact(made)

    def conv(
        self,
        name: str,
        source: str,
        filters: int,
        kernel: tuple[int, ...],
        strides: tuple[int, ...] | None = None,
        pads: tuple[tuple[int, int], ...] | None = None,
        weights: FixedPoint = WEIGHTS,
    ) -> str:
        shape = self.tensors[source].shape
        steps, edges = strides or (1,) * len(kernel), pads or ((0, 0),) * len(kernel)
        result = tuple(
            (size + sum(edge) - span) // step + 1
            for size, edge, span, step in zip(shape, edges, kernel, steps, strict=False)
        )
        values = self.numbers(weights, (filters, *kernel, shape[-1]))
        biases = self.numbers(BIASES, (filters,))

        def made(dtype: FixedPoint) -> Conv:
            tensor = Tensor(name, (*result, filters), dtype)
            ones = (1,) * len(kernel)
            return Conv(name, (source,), tensor, values, weights, steps, edges, ones, 1, biases, BIASES)

        return self._exact(made)

    def reshape(self, name: str, source: str, shape: tuple[int, ...] | None = None) -> str:
        tensor = self.tensors[source]
        return self.add(Reshape(name, (source,), Tensor(name, shape or (tensor.size,), tensor.dtype)))

    def graph(self, *outputs: str) -> FixedGraph:
        return FixedGraph(self.inputs, tuple(self.nodes), outputs)

    def add(self, node: Node) -> str:
        """Add any layer; returns its tensor's name."""
        self.nodes.append(node)
        self.tensors[node.output.name] = node.output
        return node.output.name

    def _exact(self, made: Any) -> str:
        node = made(FixedPoint(True, 1, 0))
        return self.add(made(partial_sums(node, self.tensors[node.inputs[0]].dtype).dtype()))


def execute(graph: FixedGraph, inputs: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """Return every tensor's integers for frames of inputs, (frames, *shape)."""
    values = {tensor.name: rows for tensor, rows in zip(graph.inputs, inputs, strict=True)}
    for node in graph.nodes:
        x = values[node.inputs[0]]
        if isinstance(node, Reshape):
            values[node.output.name] = x.reshape(len(x), *node.output.shape)
            continue
        assert isinstance(node, Dense | Conv)
        sums = _windows(node, x) @ node.weight.reshape(len(node.weight), -1).T
        fraction = graph.tensors[node.inputs[0]].dtype.fraction_bits + node.weight_dtype.fraction_bits
        result = sums << (node.output.dtype.fraction_bits - fraction)
        if node.bias is not None and node.bias_dtype is not None:
            result = result + (node.bias << (node.output.dtype.fraction_bits - node.bias_dtype.fraction_bits))
        values[node.output.name] = result
    return values


def _windows(node: Dense | Conv, x: np.ndarray) -> np.ndarray:
    """Return what each output is a sum of, in its last dimension."""
    if isinstance(node, Dense):
        return x
    spatial = tuple(range(1, x.ndim - 1))
    kernel = node.weight.shape[1:-1]
    zeros = np.pad(x, ((0, 0), *node.pads, (0, 0)))
    seen = np.lib.stride_tricks.sliding_window_view(zeros, kernel, axis=spatial)
    seen = seen[(slice(None), *(slice(None, None, step) for step in node.strides))]
    seen = np.moveaxis(seen, len(spatial) + 1, -1)
    return seen.reshape(*seen.shape[: len(spatial) + 1], math.prod(node.weight.shape[1:]))


def write(
    graph: FixedGraph, out: Path, io_type: str, hls: dict[str, Any] | None = None, dsps: int = 220
) -> tuple[HlsProject, Written]:
    """Write a graph as an HLS project, without test vectors."""
    written = write_project(graph, Target(out, "net", io_type, "xc7z020clg400-1", 10.0, dsps), hls or {})
    ports = [
        tuple(Port(t.name, t.shape, t.dtype) for t in tensors)
        for tensors in (graph.inputs, [graph.tensors[name] for name in graph.outputs])
    ]
    sides = [
        [Side(port, *made) for port, made in zip(given, found, strict=True)]
        for given, found in zip(ports, (written.inputs, written.outputs), strict=True)
    ]
    traced = [(layer.hls_name, math.prod(layer.shape)) for layer in written.layers]
    for name, text in axis_files("net", io_type, sides[0], sides[1], traced).items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text(text, encoding="utf-8")
    design = HlsProject(out, "net", io_type, ports[0], ports[1], written.layers, out, out, 10.0, "")
    return design, written
