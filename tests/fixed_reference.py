"""What every node of the fixed-point graph means, one number after the other, in Python's integers and fractions."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import singledispatch
from typing import Any

import numpy as np

from flow.fixed import graph as g


def reference(graph: g.FixedGraph, inputs: list[np.ndarray]) -> dict[str, np.ndarray]:
    """Return every tensor, (samples, *shape), as Python's integers."""
    values = {t.name: np.array(x, dtype=object) for t, x in zip(graph.inputs, inputs, strict=True)}
    for node in graph.nodes:
        samples = zip(*(values[name] for name in node.inputs), strict=True)
        made = [computed(node, graph, *(np.array(x, dtype=object) for x in sample)) for sample in samples]
        values[node.output.name] = np.array(made, dtype=object).reshape(-1, *node.output.shape)
    return values


def rounded(number: Fraction, mode: str) -> int:
    down, rest = math.floor(number), number - math.floor(number)
    away = down if number < 0 else down + 1
    return {
        "ROUND": round(number),
        "FLOOR": down,
        "CEIL": math.ceil(number),
        "ROUND_TO_ZERO": math.trunc(number),
        "HALF_UP": away if rest == Fraction(1, 2) else math.floor(number + Fraction(1, 2)),
        "HALF_DOWN": math.trunc(number) if rest == Fraction(1, 2) else math.floor(number + Fraction(1, 2)),
    }[mode]


def each(output: g.Tensor, number: Callable[[tuple[int, ...]], Any]) -> np.ndarray:
    result = np.empty(output.shape, dtype=object)
    for place in itertools.product(*map(range, output.shape)):
        result[place] = number(place)
    return result


def of(values: np.ndarray, channel: int) -> int:
    """Return one number a channel, or the one for all."""
    return int(values[channel] if len(values) > 1 else values[0])


def exactly(number: Fraction) -> int:
    assert number.denominator == 1, "on the grid"
    return number.numerator


def regrid(x: Any, source: int, target: int) -> int:
    """Return an integer of one grid on another."""
    return exactly(Fraction(int(x)) * Fraction(2) ** (target - source))


def fraction(graph: g.FixedGraph, node: g.Node, index: int = 0) -> int:
    return graph.tensors[node.inputs[index]].dtype.fraction_bits


@singledispatch
def computed(node: g.Node, graph: g.FixedGraph, *x: np.ndarray) -> np.ndarray:
    raise NotImplementedError(node)


def bias(node: g.Dense | g.Conv, filter_: int) -> int:
    if node.bias is None or node.bias_dtype is None:
        return 0
    return regrid(node.bias[filter_], node.bias_dtype.fraction_bits, node.output.dtype.fraction_bits)


@computed.register(g.Dense)
def _(node: g.Dense, graph: g.FixedGraph, x: np.ndarray) -> np.ndarray:
    grid = fraction(graph, node) + node.weight_dtype.fraction_bits

    def number(place: tuple[int, ...]) -> int:
        total = sum(int(w) * int(v) for w, v in zip(node.weight[place[0]], x, strict=True))
        return regrid(total, grid, node.output.dtype.fraction_bits) + bias(node, place[0])

    return each(node.output, number)


def window(
    x: np.ndarray, place: tuple[int, ...], node: g.Conv | g.Pool, kernel: tuple[int, ...]
) -> Iterator[tuple[tuple[int, ...], np.ndarray]]:
    """Give the places in the kernel and the channels there, without the padding."""
    dilations = getattr(node, "dilations", (1,) * len(kernel))
    for offset in itertools.product(*map(range, kernel)):
        at = tuple(
            p * s - pad[0] + o * d
            for p, s, pad, o, d in zip(place, node.strides, node.pads, offset, dilations, strict=True)
        )
        if all(0 <= a < size for a, size in zip(at, x.shape, strict=False)):
            yield offset, x[at]


@computed.register(g.Conv)
def _(node: g.Conv, graph: g.FixedGraph, x: np.ndarray) -> np.ndarray:
    grid = fraction(graph, node) + node.weight_dtype.fraction_bits
    filters, *kernel, each_ = node.weight.shape

    def number(place: tuple[int, ...]) -> int:
        *position, made = place
        first = made // (filters // node.groups) * each_
        total = sum(
            int(node.weight[(made, *offset, c)]) * int(channels[first + c])
            for offset, channels in window(x, tuple(position), node, tuple(kernel))
            for c in range(each_)
        )
        return regrid(total, grid, node.output.dtype.fraction_bits) + bias(node, made)

    return each(node.output, number)


@computed.register(g.Pool)
def _(node: g.Pool, graph: g.FixedGraph, x: np.ndarray) -> np.ndarray:
    join: Callable[[list[int]], int] = max if node.kind == "max" else sum

    def number(place: tuple[int, ...]) -> int:
        return join([int(channels[place[-1]]) for _, channels in window(x, place[:-1], node, node.kernel)])

    return each(node.output, number)


@computed.register(g.Add)
def _(node: g.Add, graph: g.FixedGraph, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    out = node.output.dtype.fraction_bits
    left, right = (fraction(graph, node, side) for side in (0, 1))
    return each(node.output, lambda p: regrid(x[p], left, out) + regrid(y[p], right, out))


@computed.register(g.Mul)
def _(node: g.Mul, graph: g.FixedGraph, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return each(node.output, lambda p: int(x[p]) * int(y[p]))


@computed.register(g.Concat)
def _(node: g.Concat, graph: g.FixedGraph, *parts: np.ndarray) -> np.ndarray:
    out = node.output.dtype.fraction_bits

    def number(place: tuple[int, ...]) -> int:
        channel = place[-1]
        for index, part in enumerate(parts):
            if channel < part.shape[-1]:
                return regrid(part[(*place[:-1], channel)], fraction(graph, node, index), out)
            channel -= part.shape[-1]
        raise AssertionError("too few channels")

    return each(node.output, number)


@computed.register(g.Upsample)
def _(node: g.Upsample, graph: g.FixedGraph, x: np.ndarray) -> np.ndarray:
    return each(node.output, lambda p: x[(*(i // f for i, f in zip(p, node.factors, strict=False)), p[-1])])


@computed.register(g.Reshape)
def _(node: g.Reshape, graph: g.FixedGraph, x: np.ndarray) -> np.ndarray:
    return x.reshape(node.output.shape)


@computed.register(g.Relu)
def _(node: g.Relu, graph: g.FixedGraph, x: np.ndarray) -> np.ndarray:
    return each(node.output, lambda p: max(int(x[p]), 0))


@computed.register(g.PRelu)
def _(node: g.PRelu, graph: g.FixedGraph, x: np.ndarray) -> np.ndarray:
    source, out = fraction(graph, node), node.output.dtype.fraction_bits

    def number(place: tuple[int, ...]) -> int:
        if x[place] >= 0:
            return regrid(x[place], source, out)
        product = int(x[place]) * of(node.slope, place[-1])
        return regrid(product, source + node.slope_dtype.fraction_bits, out)

    return each(node.output, number)


@computed.register(g.Rescale)
def _(node: g.Rescale, graph: g.FixedGraph, x: np.ndarray) -> np.ndarray:
    def number(place: tuple[int, ...]) -> int:
        product = int(x[place]) * of(node.multiplier, place[-1]) + of(node.offset, place[-1])
        made = rounded(product * Fraction(2) ** -node.shift, node.rounding)
        return min(max(made, node.minimum), node.maximum)

    return each(node.output, number)


@computed.register(g.Sign)
def _(node: g.Sign, graph: g.FixedGraph, x: np.ndarray) -> np.ndarray:
    def number(place: tuple[int, ...]) -> int:
        return 1 if int(x[place]) * of(node.multiplier, place[-1]) + of(node.offset, place[-1]) >= 0 else -1

    return each(node.output, number)


@computed.register(g.Table)
def _(node: g.Table, graph: g.FixedGraph, x: np.ndarray) -> np.ndarray:
    first = graph.tensors[node.inputs[0]].dtype.minimum_lsb
    return each(node.output, lambda p: int(node.values[int(x[p]) - first]))


@computed.register(g.Softmax)
def _(node: g.Softmax, graph: g.FixedGraph, x: np.ndarray) -> np.ndarray:
    e = [int(node.exponential[int(max(x)) - int(v)]) for v in x]
    s, scale = sum(e), 2 ** (node.output.dtype.fraction_bits + 1)
    return each(node.output, lambda p: min((scale * e[p[0]] + s) // (2 * s), node.output.dtype.maximum_lsb))


@computed.register(g.ArgMax)
def _(node: g.ArgMax, graph: g.FixedGraph, x: np.ndarray) -> np.ndarray:
    return np.array([x.tolist().index(max(x.tolist()))], dtype=object)
