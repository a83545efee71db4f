"""The integer executor: the fixed-point graph over whole data sets, exactly.

Integers travel as float32 where 24 bits hold every partial sum of a node, as float64 where 53 bits do, and as int64
beyond: floating-point units then give exact results many times faster than integer ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import singledispatch
from typing import TYPE_CHECKING, Any

import numpy as np

from flow.errors import ConfigError
from flow.fixed import graph as g
from flow.types import FixedPoint, Progress, silent

if TYPE_CHECKING:
    import torch

BATCH_VALUES = 1 << 18
"""Values of the largest tensor in one batch: they stay in the cache."""


def execute(
    graph: g.FixedGraph,
    inputs: Sequence[np.ndarray],
    *,
    every: bool = False,
    batch: int | None = None,
    progress: Progress = silent,
) -> dict[str, np.ndarray]:
    """Return the outputs, or with ``every`` all tensors, by name: int64 LSBs (samples, *shape), channels last.

    Args:
        graph: the network.
        inputs: integers in LSBs (samples, *shape), channels last, one array an input.
        every: return every tensor.
        batch: samples at a time; ``None``: as many as the cache holds.
        progress: called after every batch.

    Raises:
        ConfigError: an input has another shape, or values that its type does not hold.
    """
    import torch

    _check(graph, inputs)
    largest = max(tensor.size for tensor in graph.tensors.values())
    size = batch or max(1, BATCH_VALUES // largest)
    total = len(inputs[0])
    names = list(graph.tensors) if every else list(graph.outputs)
    made = {name: np.empty((total, *graph.tensors[name].shape), np.int64) for name in names}
    steps = [(node, _prepared(node, graph)) for node in graph.nodes]
    with torch.no_grad():
        for first in range(0, total, size):
            part = slice(first, min(first + size, total))
            values = {
                tensor.name: torch.from_numpy(np.ascontiguousarray(x[part])).to(_kind(_bits(tensor.dtype)))
                for tensor, x in zip(graph.inputs, inputs, strict=True)
            }
            for node, step in steps:
                values[node.output.name] = step(*(values[name] for name in node.inputs))
            for name in names:
                made[name][part] = values[name].numpy()
            progress(part.stop, total, "executing the fixed-point graph")
    return made


def _check(graph: g.FixedGraph, inputs: Sequence[np.ndarray]) -> None:
    if len(inputs) != len(graph.inputs) or len({len(x) for x in inputs}) != 1:
        raise ConfigError(
            f"execute: inputs must be {len(graph.inputs)} arrays of equally many samples, not "
            f"{[x.shape for x in inputs]}; give one an input"
        )
    for tensor, x in zip(graph.inputs, inputs, strict=True):
        if x.shape[1:] != tensor.shape or not np.issubdtype(x.dtype, np.integer):
            raise ConfigError(
                f"execute: input {tensor.name!r} must be integers of shape (samples, "
                f"{', '.join(map(str, tensor.shape))}), not {x.dtype} {x.shape}; give LSBs, channels last"
            )
        low, high = tensor.dtype.minimum_lsb, tensor.dtype.maximum_lsb
        if x.size and (x.min() < low or x.max() > high):
            raise ConfigError(
                f"execute: input {tensor.name!r} must lie in {low} to {high} LSB, not reach "
                f"{x.min()} and {x.max()}; quantize it with the port's type"
            )


def _bits(dtype: FixedPoint) -> int:
    """Return the bits of the largest magnitude."""
    return max(-dtype.minimum_lsb, dtype.maximum_lsb).bit_length()


def _kind(bits: int) -> torch.dtype:
    """Return the fastest type that holds every integer of so many bits."""
    import torch

    return torch.float32 if bits <= 24 else torch.float64 if bits <= 53 else torch.int64


Step = Callable[..., "torch.Tensor"]


@singledispatch
def _prepared(node: g.Node, graph: g.FixedGraph) -> Step:
    """Return what computes a node's output from its inputs, batch first."""
    raise TypeError(f"no rule for {type(node).__name__}")


def _peak(dtype: FixedPoint) -> int:
    return max(-dtype.minimum_lsb, dtype.maximum_lsb)


def _aligned(x: torch.Tensor, source: FixedPoint, target: FixedPoint, kind: Any) -> torch.Tensor:
    """Return integers of one grid as integers of a finer one."""
    shift = target.fraction_bits - source.fraction_bits
    x = x.to(kind)
    return x if shift == 0 else x * 2**shift


def _constant(values: np.ndarray, kind: Any) -> torch.Tensor:
    import torch

    return torch.from_numpy(np.ascontiguousarray(values)).to(kind)


def _sums(node: g.Dense | g.Conv, graph: g.FixedGraph) -> tuple[Any, np.ndarray, np.ndarray | None]:
    """Return the type that holds every partial sum, and weight and bias on the output's grid."""
    source = graph.tensors[node.inputs[0]].dtype
    out = node.output.dtype
    weight = node.weight << (out.fraction_bits - source.fraction_bits - node.weight_dtype.fraction_bits)
    bias = None
    if node.bias is not None and node.bias_dtype is not None:
        bias = node.bias << (out.fraction_bits - node.bias_dtype.fraction_bits)
    rows = np.abs(weight.reshape(len(weight), -1)).astype(object).sum(axis=1)
    peak = int(rows.max()) * _peak(source) + (int(np.abs(bias).max()) if bias is not None else 0)
    return _kind(peak.bit_length()), weight, bias


@_prepared.register(g.Dense)
def _(node: g.Dense, graph: g.FixedGraph) -> Step:
    import torch

    kind, weight, bias = _sums(node, graph)
    transposed = _constant(weight.T, kind)
    added = None if bias is None else _constant(bias, kind)
    if added is None:
        return lambda x: torch.mm(x.to(kind), transposed)
    return lambda x: torch.addmm(added, x.to(kind), transposed)


@_prepared.register(g.Conv)
def _(node: g.Conv, graph: g.FixedGraph) -> Step:
    import torch
    from torch.nn import functional

    kind, weight, bias = _sums(node, graph)
    if kind == torch.int64:
        return _wide_conv(node, weight, bias)
    spatial = weight.ndim - 2
    kernel = _constant(np.moveaxis(weight, -1, 1), kind)
    added = None if bias is None else _constant(bias, kind)
    convolve: Any = functional.conv2d if spatial == 2 else functional.conv1d
    pads = [extent for pair in node.pads[::-1] for extent in pair]
    symmetric = all(before == after for before, after in node.pads)
    padding = tuple(before for before, _ in node.pads) if symmetric else 0

    def run(x: torch.Tensor) -> torch.Tensor:
        x = x.to(kind).movedim(-1, 1)
        if not symmetric:
            x = functional.pad(x, pads)
        y = convolve(x, kernel, added, node.strides, padding, node.dilations, node.groups)
        return y.movedim(1, -1)

    return run


def _wide_conv(node: g.Conv, weight: np.ndarray, bias: np.ndarray | None) -> Step:
    """Return a conv whose sums need more than 53 bits."""
    import torch

    def run(x: torch.Tensor) -> torch.Tensor:
        patches = _patches(x.to(torch.int64), node.pads, weight.shape[1:-1], node.strides, node.dilations, 0)
        each, outputs = weight.shape[-1], len(weight) // node.groups
        parts = []
        for group in range(node.groups):
            rows = torch.from_numpy(weight[group * outputs : (group + 1) * outputs].reshape(outputs, -1))
            picked = patches[..., group * each : (group + 1) * each].flatten(x.ndim - 1)
            parts.append(picked @ rows.T)
        y = torch.cat(parts, -1)
        return y if bias is None else y + torch.from_numpy(bias)

    return run


def _patches(
    x: torch.Tensor,
    pads: Sequence[tuple[int, int]],
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    fill: int,
) -> torch.Tensor:
    """Return the windows: (samples, *positions, *kernel, channels)."""
    import torch
    from torch.nn import functional

    x = functional.pad(x, [0, 0, *(extent for pair in pads[::-1] for extent in pair)], value=fill)
    for axis, (size, stride, dilation) in enumerate(zip(kernel, strides, dilations, strict=True), 1):
        x = x.unfold(axis, dilation * (size - 1) + 1, stride)[..., ::dilation]
    order = [*range(len(kernel) + 1), *range(len(kernel) + 2, x.ndim), len(kernel) + 1]
    return torch.permute(x, order)


@_prepared.register(g.Pool)
def _(node: g.Pool, graph: g.FixedGraph) -> Step:
    source = graph.tensors[node.inputs[0]].dtype
    largest = node.kind == "max"
    kind = _kind(max(_bits(source), _bits(node.output.dtype)))
    fill = -_peak(source) if largest else 0
    ones = (1,) * len(node.kernel)
    axes = tuple(range(1 + len(node.kernel), 1 + 2 * len(node.kernel)))

    def run(x: torch.Tensor) -> torch.Tensor:
        patches = _patches(x.to(kind), node.pads, node.kernel, node.strides, ones, fill)
        return patches.amax(axes) if largest else patches.sum(axes)

    return run


@_prepared.register(g.Add)
def _(node: g.Add, graph: g.FixedGraph) -> Step:
    left, right = (graph.tensors[name].dtype for name in node.inputs)
    out = node.output.dtype
    kind = _kind(_bits(out) + 1)
    return lambda x, y: _aligned(x, left, out, kind) + _aligned(y, right, out, kind)


@_prepared.register(g.Mul)
def _(node: g.Mul, graph: g.FixedGraph) -> Step:
    kind = _kind(_bits(node.output.dtype))
    return lambda x, y: x.to(kind) * y.to(kind)


@_prepared.register(g.Concat)
def _(node: g.Concat, graph: g.FixedGraph) -> Step:
    import torch

    types = [graph.tensors[name].dtype for name in node.inputs]
    out = node.output.dtype
    kind = _kind(_bits(out))
    return lambda *parts: torch.cat(
        [_aligned(x, dtype, out, kind) for x, dtype in zip(parts, types, strict=True)], -1
    )


@_prepared.register(g.Upsample)
def _(node: g.Upsample, graph: g.FixedGraph) -> Step:
    def run(x: torch.Tensor) -> torch.Tensor:
        for axis, factor in enumerate(node.factors, 1):
            x = x.repeat_interleave(factor, axis)
        return x

    return run


@_prepared.register(g.Reshape)
def _(node: g.Reshape, graph: g.FixedGraph) -> Step:
    return lambda x: x.reshape(len(x), *node.output.shape)


@_prepared.register(g.Relu)
def _(node: g.Relu, graph: g.FixedGraph) -> Step:
    return lambda x: x.clamp(min=0)


@_prepared.register(g.PRelu)
def _(node: g.PRelu, graph: g.FixedGraph) -> Step:
    import torch

    source, out = graph.tensors[node.inputs[0]].dtype, node.output.dtype
    finer = out.fraction_bits - source.fraction_bits
    slope_shift = finer - node.slope_dtype.fraction_bits
    peak = _peak(source) * max(1 << finer, int(np.abs(node.slope).max()) << slope_shift)
    kind = _kind(peak.bit_length())
    slope = _constant(node.slope << slope_shift, kind)

    def run(x: torch.Tensor) -> torch.Tensor:
        x = x.to(kind)
        return torch.where(x < 0, x * slope, x * 2**finer)

    return run


@_prepared.register(g.Rescale)
def _(node: g.Rescale, graph: g.FixedGraph) -> Step:
    import torch

    source = graph.tensors[node.inputs[0]].dtype
    peak = _peak(source) * int(np.abs(node.multiplier).max()) + int(np.abs(node.offset).max())
    kind = _kind(peak.bit_length())
    if kind == torch.int64:
        return _wide_rescale(node)
    result = _kind(_bits(node.output.dtype))
    factor = 2.0**-node.shift
    plain = node.plain
    multiplier, offset = _constant(node.multiplier, kind) * factor, _constant(node.offset, kind) * factor
    rounding = _rounding(node.rounding)

    def run(x: torch.Tensor) -> torch.Tensor:
        x = x.to(kind)
        y = x * factor if plain else (x * multiplier).add_(offset)
        return rounding(y).clamp_(node.minimum, node.maximum).to(result)

    return run


def _rounding(name: str) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return a rounding of floats in place; QONNX's HALF_UP goes away from zero, HALF_DOWN towards it."""
    import torch

    def away(x: torch.Tensor) -> torch.Tensor:
        whole = x.trunc()
        return whole.add_(((x - whole).abs() >= 0.5).to(x.dtype) * x.sign())

    def towards(x: torch.Tensor) -> torch.Tensor:
        whole = x.trunc()
        return whole.add_(((x - whole).abs() > 0.5).to(x.dtype) * x.sign())

    return {
        "ROUND": torch.Tensor.round_,
        "FLOOR": torch.Tensor.floor_,
        "CEIL": torch.Tensor.ceil_,
        "ROUND_TO_ZERO": torch.Tensor.trunc_,
        "HALF_UP": away,
        "HALF_DOWN": towards,
    }[name]


def _wide_rescale(node: g.Rescale) -> Step:
    """Return a rescale whose products need more than 53 bits."""
    import torch

    from flow.fixed.lower.rescale import divide

    def run(x: torch.Tensor) -> torch.Tensor:
        product = x.to(torch.int64).numpy() * node.multiplier + node.offset
        if node.shift < 0:
            bound = 1 << 62 >> -node.shift
            rounded = np.clip(product, -bound, bound) << -node.shift
        else:
            rounded = divide(product, 1 << node.shift, node.rounding)
        made = np.clip(rounded, node.minimum, node.maximum).astype(np.int64)
        return torch.from_numpy(made).to(_kind(_bits(node.output.dtype)))

    return run


@_prepared.register(g.Sign)
def _(node: g.Sign, graph: g.FixedGraph) -> Step:
    import torch

    source = graph.tensors[node.inputs[0]].dtype
    peak = _peak(source) * int(np.abs(node.multiplier).max()) + int(np.abs(node.offset).max())
    kind = _kind(peak.bit_length())
    multiplier, offset = _constant(node.multiplier, kind), _constant(node.offset, kind)
    return lambda x: torch.where(x.to(kind) * multiplier + offset >= 0, 1.0, -1.0)


@_prepared.register(g.Table)
def _(node: g.Table, graph: g.FixedGraph) -> Step:
    import torch

    first = graph.tensors[node.inputs[0]].dtype.minimum_lsb
    values = _constant(node.values, _kind(_bits(node.output.dtype)))
    return lambda x: values[x.to(torch.int64) - first]


@_prepared.register(g.Softmax)
def _(node: g.Softmax, graph: g.FixedGraph) -> Step:
    import torch

    table = torch.from_numpy(node.exponential)
    dtype = node.output.dtype

    def run(x: torch.Tensor) -> torch.Tensor:
        whole = x.to(torch.int64)
        e = table[whole.amax(-1, keepdim=True) - whole]
        s = e.sum(-1, keepdim=True)
        y = (e * 2 ** (dtype.fraction_bits + 1) + s) // (2 * s)
        return y.clamp_(max=dtype.maximum_lsb).to(_kind(_bits(dtype)))

    return run


@_prepared.register(g.ArgMax)
def _(node: g.ArgMax, graph: g.FixedGraph) -> Step:
    import torch

    # numpy promises the first of equal ones
    return lambda x: torch.from_numpy(x.numpy().argmax(-1)[..., None])


