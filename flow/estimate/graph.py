"""The work of a network's layers: of a fixed-point graph, exactly; of a float network, with assumed widths."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import singledispatch

from flow.estimate.reuse import hls4ml_streams
from flow.estimate.work import PRODUCTS, Work, constant_digits
from flow.fixed.graph import (
    Add,
    Conv,
    Dense,
    FixedGraph,
    Mul,
    Node,
    Pool,
    PRelu,
    Relu,
    Rescale,
    Reshape,
    Sign,
    Softmax,
    Table,
    Tensor,
)


@dataclass(frozen=True)
class Step:
    """A layer among its tensors; ``work`` is None where it takes nothing."""

    work: Work | None
    inputs: tuple[str, ...]
    output: str


def graph_work(graph: FixedGraph) -> tuple[Work, ...]:
    """Return the work of every node of a fixed-point graph, in order."""
    steps = []
    for node in graph.nodes:
        source = graph.tensors[node.inputs[0]]
        work = None if isinstance(node, Reshape) else _work(node, source)
        if isinstance(work, Work):
            shape = _before_reshape(graph, node.inputs[0]).shape
            work = replace(work, scans=max(work.scans, math.prod(shape[:-1])), channels=shape[-1])
            if isinstance(node, Mul):
                work = replace(work, weight_bits=graph.tensors[node.inputs[1]].dtype.width)
        steps.append(Step(work, node.inputs, node.output.name))
    return mark(steps, [tensor.name for tensor in graph.inputs], graph.outputs)


def mark(steps: Sequence[Step], inputs: Iterable[str], outputs: Iterable[str]) -> tuple[Work, ...]:
    """Return the work of all steps, told which widths pruning cannot change: those of inputs and outputs."""
    given, asked = set(inputs), set(outputs)
    for step in steps:
        if not _narrows(step) and given.issuperset(step.inputs):
            given.add(step.output)
    for step in reversed(steps):
        if step.output in asked and not _narrows(step):
            asked.update(step.inputs)
    return tuple(
        replace(step.work, reads_input=given.issuperset(step.inputs), is_output=step.output in asked)
        for step in steps
        if step.work is not None
    )


def _narrows(step: Step) -> bool:
    return step.work is not None and step.work.kind == PRODUCTS and not step.work.grouped


def _before_reshape(graph: FixedGraph, name: str) -> Tensor:
    """Return a tensor as it was before it was reshaped: a stream brings it in that form."""
    made = {node.output.name: node for node in graph.nodes}
    while isinstance(made.get(name), Reshape):
        name = made[name].inputs[0]
    return graph.tensors[name]


def _plain(node: Node, source: Tensor, kind: str, inputs: int = 1) -> Work:
    shape = node.output.shape
    return Work(
        node.name,
        kind,
        inputs,
        shape[-1],
        source.dtype.width,
        node.output.dtype.width,
        positions=math.prod(shape[:-1]),
    )


@singledispatch
def _work(node: Node, source: Tensor) -> Work:
    """Return a node's work; concat, upsample and argmax only move values."""
    return _plain(node, source, "move")


@_work.register
def _(node: Dense, source: Tensor) -> Work:
    digits, wide = constant_digits(node.weight, source.dtype.width)
    work = _plain(node, source, PRODUCTS, node.weight.shape[1])
    return replace(work, weight_bits=node.weight_dtype.width, digits=digits, wide=wide)


@_work.register
def _(node: Conv, source: Tensor) -> Work:
    digits, wide = constant_digits(node.weight, source.dtype.width)
    work = _plain(node, source, PRODUCTS, math.prod(node.weight.shape[1:]))
    rows = [(size - 1) * step for size, step in zip(node.weight.shape[1:-1], node.dilations, strict=True)]
    scans, line_bits = window(source.shape, source.dtype.width, node.pads, rows)
    return replace(
        work,
        scans=scans,
        line_bits=line_bits,
        window=True,
        weight_bits=node.weight_dtype.width,
        digits=digits,
        wide=wide,
        grouped=node.groups > 1,
        own_kernel=not hls4ml_streams(
            node.weight.shape[1:-1], node.strides, node.dilations, node.groups, node.weight.size
        ),
    )


@_work.register
def _(node: Pool, source: Tensor) -> Work:
    work = _plain(node, source, "pool", math.prod(node.kernel))
    scans, line_bits = window(source.shape, source.dtype.width, node.pads, [size - 1 for size in node.kernel])
    return replace(work, scans=scans, line_bits=line_bits)


def window(
    shape: tuple[int, ...], bits: int, pads: Sequence[tuple[int, int]], rows: Sequence[int]
) -> tuple[int, int]:
    """Return the places that a layer with a window reads, and the bits of the lines that it keeps.

    Args:
        shape: of its input, channels last.
        bits: width of one input.
        pads: (before, after), one a spatial dimension.
        rows: how many places back the window reaches, one a spatial dimension.
    """
    sizes = [size + before + after for size, (before, after) in zip(shape[:-1], pads, strict=True)]
    lines = rows[0] * sizes[1] * shape[-1] * bits if len(sizes) == 2 else 0
    return math.prod(sizes), lines


@_work.register
def _(node: Add, source: Tensor) -> Work:
    return _plain(node, source, "add")


@_work.register(Mul)
@_work.register(PRelu)
def _(node: Mul | PRelu, source: Tensor) -> Work:
    bits = node.slope_dtype.width if isinstance(node, PRelu) else 0
    return replace(_plain(node, source, "scale"), weight_bits=bits)


@_work.register(Rescale)
@_work.register(Sign)
def _(node: Rescale | Sign, source: Tensor) -> Work:
    if (node.multiplier == 1).all():
        return _plain(node, source, "rescale")
    return replace(
        _plain(node, source, "scale"), weight_bits=1 + int(abs(node.multiplier).max()).bit_length()
    )


@_work.register
def _(node: Relu, source: Tensor) -> Work:
    return _plain(node, source, "relu")


@_work.register
def _(node: Table, source: Tensor) -> Work:
    return replace(_plain(node, source, "table"), entries=len(node.values))


@_work.register
def _(node: Softmax, source: Tensor) -> Work:
    return _plain(node, source, "softmax")
