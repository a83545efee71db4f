"""What each node of the fixed-point graph computes, on batches: integers that floats hold exactly.

A node computes in float32 where 24 bits hold every partial sum, in float64 where 53 bits do, and in int64 beyond.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce, singledispatch
from typing import TYPE_CHECKING, Any

import numpy as np

from flow.errors import UnsupportedError
from flow.fixed import graph as g
from flow.fixed.from_qonnx.rescale import divide
from flow.fixed.sums import FAR, Sums, constant, kind_of, peak
from flow.types import FixedPoint

if TYPE_CHECKING:
    import torch

Run = Callable[..., "torch.Tensor"]


@singledispatch
def prepared(node: g.Node, graph: g.FixedGraph) -> Run:
    """Return what computes a node's output from its inputs; all have the batch first and channels last."""
    raise TypeError(f"no rule for {type(node).__name__}")


def fused(
    layer: g.Dense | g.Conv, quantizer: g.Rescale, pool: g.Pool | None, graph: g.FixedGraph
) -> Run | None:
    """Return what computes a layer, the quantizer that alone reads it and a max pool; None where that is no faster.

    The quantizer's factor is part of the weights. What is left of it never falls as its input rises, so that the
    largest number of a window can be taken before it.
    """
    import torch

    bounds = max(abs(quantizer.minimum), abs(quantizer.maximum))
    alone = Sums.of(layer, graph)
    try:
        together = Sums.of(layer, graph, quantizer)
    except UnsupportedError:  # the quantizer alone, which reads a narrower type, may do without 64 bits
        return None
    if together.kind not in (alone.kind, torch.float32) or kind_of(bounds, layer.name) != torch.float32:
        return None
    if together.kind == torch.int64 or abs(quantizer.shift) > FAR:
        return None
    run, finish, kind = _layer(layer, together), _finish(quantizer), _kind(quantizer)
    windows = None if pool is None else _windows(pool)

    def pooled(x: torch.Tensor) -> torch.Tensor:
        return x if windows is None else windows(x)

    return lambda x: finish(pooled(run(x))).to(kind)


def _kind(node: g.Node) -> torch.dtype:
    return kind_of(peak(node.output.dtype), node.name)


def _source(node: g.Node, graph: g.FixedGraph) -> FixedPoint:
    return graph.tensors[node.inputs[0]].dtype


# ---------------------------------------------------------------- layers


@prepared.register(g.Dense)
@prepared.register(g.Conv)
def _(node: g.Dense | g.Conv, graph: g.FixedGraph) -> Run:
    return _layer(node, Sums.of(node, graph))


def _layer(node: g.Dense | g.Conv, sums: Sums) -> Run:
    import torch

    if isinstance(node, g.Conv):
        return _wide_conv(node, sums) if sums.kind == torch.int64 else _conv(node, sums)
    weight, bias = sums.weight.T.contiguous().numpy(), sums.bias

    def run(x: torch.Tensor) -> torch.Tensor:
        y = torch.from_numpy(x.to(sums.kind).numpy() @ weight)  # torch's own is slow for odd widths
        return y if bias is None else y.add_(bias)

    return run


def _conv(node: g.Conv, sums: Sums) -> Run:
    """Return a conv in floats; a 1-D one is one row of a 2-D one, which is faster."""
    import torch
    from torch.nn import functional

    missing = 2 - len(node.strides)
    shape = (sums.weight.shape[0], *(1,) * missing, *sums.weight.shape[1:])
    kernel = sums.weight.reshape(shape).movedim(-1, 1).contiguous(memory_format=torch.channels_last)
    strides, dilations = (1,) * missing + node.strides, (1,) * missing + node.dilations
    pads = ((0, 0),) * missing + node.pads
    even = all(before == after for before, after in pads)
    padding = tuple(before for before, _ in pads) if even else (0, 0)
    around = [extent for pair in pads[::-1] for extent in pair]

    def run(x: torch.Tensor) -> torch.Tensor:
        x = x.to(sums.kind)
        x = (x.unsqueeze(1) if missing else x).movedim(-1, 1)
        if not even:
            x = functional.pad(x, around)
        y = functional.conv2d(x, kernel, sums.bias, strides, padding, dilations, node.groups).movedim(1, -1)
        return y.squeeze(1) if missing else y

    return run


def _wide_conv(node: g.Conv, sums: Sums) -> Run:
    """Return a conv in int64, which torch does not have."""
    import torch
    from torch.nn import functional

    each, filters = node.weight.shape[-1], len(node.weight) // node.groups
    rows = sums.weight.reshape(node.groups, filters, -1)
    around = [0, 0, *(extent for pair in node.pads[::-1] for extent in pair)]
    window = list(zip(node.weight.shape[1:-1], node.strides, node.dilations, strict=True))

    def run(x: torch.Tensor) -> torch.Tensor:
        x = functional.pad(x.to(torch.int64), around)
        for axis, (size, stride, dilation) in enumerate(window, 1):
            x = x.unfold(axis, dilation * (size - 1) + 1, stride)[..., ::dilation]
        x = x.movedim(len(window) + 1, -1)  # (samples, *positions, *kernel, channels)
        parts = [
            x[..., group * each : (group + 1) * each].flatten(len(window) + 1) @ rows[group].T
            for group in range(node.groups)
        ]
        y = torch.cat(parts, -1)
        return y if sums.bias is None else y + sums.bias

    return run


@prepared.register(g.Pool)
def _(node: g.Pool, graph: g.FixedGraph) -> Run:
    from torch.nn import functional

    source = _source(node, graph)
    kind = kind_of(max(peak(source), peak(node.output.dtype)), node.name)
    fill = source.minimum_lsb if node.kind == "max" else 0
    around = [0, 0, *(extent for pair in node.pads[::-1] for extent in pair)]
    reduced = _windows(node)

    def run(x: torch.Tensor) -> torch.Tensor:
        x = x.to(kind)
        return reduced(functional.pad(x, around, value=fill) if any(around) else x)

    return run


def _windows(node: g.Pool) -> Run:
    """Return the largest number or the sum of every window, one dimension after the other."""
    import torch

    join: Any = torch.maximum if node.kind == "max" else torch.add

    def run(x: torch.Tensor) -> torch.Tensor:
        for axis, (size, stride) in enumerate(zip(node.kernel, node.strides, strict=True), 1):
            last = (x.shape[axis] - size) // stride * stride + 1
            before = (slice(None),) * axis
            x = reduce(join, [x[(*before, slice(start, start + last, stride))] for start in range(size)])
        return x

    return run


# ---------------------------------------------------------------- joins and layouts


def _aligned(node: g.Node, graph: g.FixedGraph) -> list[Run]:
    """Return what brings each input onto the output's grid."""
    kind = _kind(node)
    shifts = [
        node.output.dtype.fraction_bits - graph.tensors[name].dtype.fraction_bits for name in node.inputs
    ]
    return [
        lambda x, factor=1 << shift: x.to(kind) * factor if factor > 1 else x.to(kind) for shift in shifts
    ]


@prepared.register(g.Add)
def _(node: g.Add, graph: g.FixedGraph) -> Run:
    left, right = _aligned(node, graph)
    return lambda x, y: left(x) + right(y)


@prepared.register(g.Concat)
def _(node: g.Concat, graph: g.FixedGraph) -> Run:
    import torch

    sides = _aligned(node, graph)
    return lambda *parts: torch.cat([side(x) for side, x in zip(sides, parts, strict=True)], -1)


@prepared.register(g.Mul)
def _(node: g.Mul, graph: g.FixedGraph) -> Run:
    kind = _kind(node)
    return lambda x, y: x.to(kind) * y.to(kind)


@prepared.register(g.Upsample)
def _(node: g.Upsample, graph: g.FixedGraph) -> Run:
    def run(x: torch.Tensor) -> torch.Tensor:
        for axis, factor in enumerate(node.factors, 1):
            x = x.repeat_interleave(factor, axis)
        return x

    return run


@prepared.register(g.Reshape)
def _(node: g.Reshape, graph: g.FixedGraph) -> Run:
    return lambda x: x.reshape(len(x), *node.output.shape)


# ---------------------------------------------------------------- quantizers and functions


@prepared.register(g.Relu)
def _(node: g.Relu, graph: g.FixedGraph) -> Run:
    return lambda x: x.clamp(min=0)


@prepared.register(g.PRelu)
def _(node: g.PRelu, graph: g.FixedGraph) -> Run:
    import torch

    finer = node.output.dtype.fraction_bits - _source(node, graph).fraction_bits
    slopes = node.slope.astype(object) << finer - node.slope_dtype.fraction_bits
    steepest = max(1 << finer, *(abs(int(slope)) for slope in slopes))
    kind = kind_of(peak(_source(node, graph)) * steepest, node.name)
    slope, one = constant(slopes, kind), 1 << finer

    def run(x: torch.Tensor) -> torch.Tensor:
        x = x.to(kind)
        return torch.where(x < 0, x * slope, x * one)

    return run


def _products(node: g.Rescale | g.Sign, graph: g.FixedGraph) -> int:
    """Return the largest magnitude of x * multiplier + offset."""
    pairs = np.broadcast(node.multiplier.astype(object), node.offset.astype(object))
    return max(abs(int(m)) * peak(_source(node, graph)) + abs(int(o)) for m, o in pairs)


@prepared.register(g.Rescale)
def _(node: g.Rescale, graph: g.FixedGraph) -> Run:
    import torch

    largest = max(_products(node, graph), abs(node.minimum), abs(node.maximum))
    if abs(node.shift) > FAR:
        largest = max(largest, 1 << 53)
    kind, result = kind_of(largest, node.name), _kind(node)
    if kind == torch.int64:
        return _wide_rescale(node, result)
    factor = 2.0**-node.shift
    multiplier, offset = constant(node.multiplier, kind) * factor, constant(node.offset, kind) * factor
    plain, finish = node.plain, _finish(node)

    def run(x: torch.Tensor) -> torch.Tensor:
        y = x.to(kind)
        y = y * factor if plain else (y * multiplier).add_(offset)
        return finish(y).to(result)

    return run


def _finish(node: g.Rescale) -> Run:
    """Return the rounding and clipping, in place."""
    rounding = ROUNDINGS[node.rounding]
    return lambda x: rounding(x).clamp_(node.minimum, node.maximum)


def _half(x: torch.Tensor, *, away: bool) -> torch.Tensor:
    whole = x.trunc()
    rest = (x - whole).abs_()
    return whole.add_((rest >= 0.5 if away else rest > 0.5).to(x.dtype).mul_(x.sign()))


ROUNDINGS: dict[str, Run] = {
    "ROUND": lambda x: x.round_(),
    "FLOOR": lambda x: x.floor_(),
    "CEIL": lambda x: x.ceil_(),
    "ROUND_TO_ZERO": lambda x: x.trunc_(),
    "HALF_UP": lambda x: _half(x, away=True),
    "HALF_DOWN": lambda x: _half(x, away=False),
}
"""QONNX's HALF_UP goes away from zero, its HALF_DOWN towards it."""


def _wide_rescale(node: g.Rescale, result: torch.dtype) -> Run:
    """Return a quantizer whose products need more than 53 bits."""
    import torch

    def run(x: torch.Tensor) -> torch.Tensor:
        product = x.to(torch.int64).numpy() * node.multiplier + node.offset
        if node.shift > 62:
            rounded = divide(product.astype(object), 1 << node.shift, node.rounding)
        elif node.shift >= 0:
            rounded = divide(product, 1 << node.shift, node.rounding)
        else:
            rounded = product.astype(object) << -node.shift
        return torch.from_numpy(np.clip(rounded, node.minimum, node.maximum).astype(np.int64)).to(result)

    return run


@prepared.register(g.Sign)
def _(node: g.Sign, graph: g.FixedGraph) -> Run:
    import torch

    kind = kind_of(_products(node, graph), node.name)
    multiplier, offset = constant(node.multiplier, kind), constant(node.offset, kind)
    return lambda x: torch.where(x.to(kind) * multiplier + offset >= 0, 1.0, -1.0)


@prepared.register(g.Table)
def _(node: g.Table, graph: g.FixedGraph) -> Run:
    import torch

    first = _source(node, graph).minimum_lsb
    values = constant(node.values, _kind(node))
    return lambda x: values[x.to(torch.int64) - first]


@prepared.register(g.Softmax)
def _(node: g.Softmax, graph: g.FixedGraph) -> Run:
    import torch

    exponential, kind = constant(node.exponential, torch.int64), _kind(node)
    dtype = node.output.dtype

    def run(x: torch.Tensor) -> torch.Tensor:
        whole = x.to(torch.int64)
        e = exponential[whole.amax(-1, keepdim=True) - whole]
        s = e.sum(-1, keepdim=True)
        y = ((e << dtype.fraction_bits + 1) + s) // (2 * s)
        return y.clamp_(max=dtype.maximum_lsb).to(kind)

    return run


@prepared.register(g.ArgMax)
def _(node: g.ArgMax, graph: g.FixedGraph) -> Run:
    import torch

    # numpy promises the first of equal ones
    return lambda x: torch.from_numpy(x.numpy().argmax(-1)[..., None])
