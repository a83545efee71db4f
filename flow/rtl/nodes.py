"""Every kind of node as stages."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial, singledispatch

import numpy as np

from flow.errors import UnsupportedError
from flow.fixed import graph as g
from flow.rtl import products
from flow.rtl.build import Builder
from flow.rtl.folds import least_lanes
from flow.rtl.streams import Stream
from flow.rtl.windows import window
from flow.rtl.words import memory, signed_width
from flow.types import FixedPoint


@singledispatch
def lowered(node: g.Node, builder: Builder) -> Stream:
    """Add a node's stages and return the stream of its output.

    Raises:
        UnsupportedError: the RTL does not have it.
        TooFastError: it cannot be as fast as the builder wants it.
    """
    raise UnsupportedError(
        f"rtl: layer {node.name!r} must be one that the RTL has, not {type(node).__name__}; "
        "leave it to the host, or use the HLS C++"
    )


@lowered.register
def _(node: g.Reshape, builder: Builder) -> Stream:
    stream = builder.take(node.inputs[0])
    return replace(stream, shape=node.output.shape)


lowered.register(products.dense)
lowered.register(products.conv)


# ---------------------------------------------------------------- windows


@lowered.register
def _(node: g.Pool, builder: Builder) -> Stream:
    stream = builder.take(node.inputs[0])
    positions, beats = math.prod(node.output.shape[:-1]), math.prod(node.kernel)
    elements = max(positions * beats * stream.channels, math.prod(stream.shape))
    lanes = least_lanes(stream.channels, elements, builder.interval, node.name)
    if stream.lanes > lanes:  # wider than it needs to be, and there already
        lanes = stream.lanes
    stream = builder.widened(stream, lanes)
    held = 0.0
    if node.kernel == stream.shape[:-1] and not np.any(node.pads):
        held = 1.0
    else:
        fill = stream.dtype.minimum_lsb if node.kind == "max" else 0
        stream = window(node, stream, node.kernel, (1,) * len(node.kernel), fill, builder)
    folds = node.output.shape[-1] // lanes
    parameters = {
        "LARGEST": int(node.kind == "max"),
        **stream.types(node.output.dtype),
        "LANES": lanes,
        "FOLDS": folds,
        "BEATS": beats,
    }
    made = (node.output.dtype, node.output.shape, lanes)
    cycles = positions * beats * folds
    return builder.stage("flow_pool", node.name, {"in": stream}, made, parameters, cycles=cycles, held=held)


# ---------------------------------------------------------------- joins


@lowered.register(g.Add)
@lowered.register(g.Mul)
def _(node: g.Add | g.Mul, builder: Builder) -> Stream:
    streams = [builder.take(name) for name in node.inputs]
    first, second = builder.joined(streams, max(stream.lanes for stream in streams))
    dtype, multiply = node.output.dtype, isinstance(node, g.Mul)
    parameters = {"OUT_WIDTH": dtype.width, "LANES": first.lanes, "MULTIPLY": int(multiply)}
    for side, stream in (("A", first), ("B", second)):
        parameters[f"{side}_WIDTH"] = stream.dtype.width
        parameters[f"{side}_SIGNED"] = int(stream.dtype.signed)
        finer = dtype.fraction_bits - stream.dtype.fraction_bits
        parameters[f"{side}_SHIFT"] = 0 if multiply else finer
    made = (dtype, node.output.shape, first.lanes)
    multipliers = first.lanes * multiply
    given = {"a": first, "b": second}
    return builder.stage("flow_add", node.name, given, made, parameters, multipliers=multipliers)


@lowered.register
def _(node: g.Concat, builder: Builder) -> Stream:
    streams = [builder.take(name) for name in node.inputs]
    common = math.gcd(*(stream.channels for stream in streams))
    lanes = least_lanes(common, node.output.size, builder.interval, node.name)
    first, *rest = (_regrid(node, stream, builder) for stream in builder.joined(streams, lanes))
    for stream in rest:
        shape = (*first.shape[:-1], first.channels + stream.channels)
        parameters = {"WIDTH": first.width, "A_BEATS": first.folds, "B_BEATS": stream.folds}
        made = (first.dtype, shape, lanes)
        first = builder.stage("flow_concat", node.name, {"a": first, "b": stream}, made, parameters)
    return first


def _regrid(node: g.Concat, stream: Stream, builder: Builder) -> Stream:
    """Return the stream with the output's type, which holds all its values."""
    dtype = node.output.dtype
    if stream.dtype == dtype:
        return stream
    shift = stream.dtype.fraction_bits - dtype.fraction_bits
    return _scaled(
        f"{node.name}_grid", stream, dtype, shift, "FLOOR", (dtype.minimum_lsb, dtype.maximum_lsb), builder
    )


# ---------------------------------------------------------------- one element at a time


@lowered.register
def _(node: g.Rescale, builder: Builder) -> Stream:
    stream = builder.take(node.inputs[0])
    limits = (node.minimum, node.maximum)
    constants = None if node.plain else (node.multiplier, node.offset)
    return _scaled(
        node.name, stream, node.output.dtype, node.shift, node.rounding, limits, builder, constants
    )


@lowered.register
def _(node: g.Relu, builder: Builder) -> Stream:
    stream = builder.take(node.inputs[0])
    dtype = node.output.dtype
    return _scaled(node.name, stream, dtype, 0, "FLOOR", (0, dtype.maximum_lsb), builder)


def _scaled(
    name: str,
    stream: Stream,
    dtype: FixedPoint,
    shift: int,
    rounding: str,
    limits: tuple[int, int],
    builder: Builder,
    constants: tuple[np.ndarray, np.ndarray] | None = None,
) -> Stream:
    widths, memories = _constants(stream, constants)
    parameters = {
        **stream.types(dtype),
        "LANES": stream.lanes,
        **widths,
        "SHIFT": shift,
        "ROUNDING": g.ROUNDINGS.index(rounding),
        "MINIMUM": limits[0],
        "MAXIMUM": limits[1],
    }
    made = (dtype, stream.shape, stream.lanes)
    multipliers = stream.lanes * (constants is not None)
    return builder.stage(
        "flow_rescale", name, {"in": stream}, made, parameters, multipliers=multipliers, memories=memories
    )


def _constants(
    stream: Stream, constants: tuple[np.ndarray, np.ndarray] | None
) -> tuple[dict[str, int], dict[str, Callable[[], str]]]:
    """Return the widths and the memory of (multiplier, offset), one pair a channel or one for all."""
    if constants is None:
        return {"FOLDS": 1, "MULTIPLIER_WIDTH": 2, "OFFSET_WIDTH": 2}, {}
    multipliers, offsets = np.broadcast_arrays(*(values.reshape(-1) for values in constants))
    if len(multipliers) == 1:
        multipliers, offsets = (np.repeat(values, stream.lanes) for values in (multipliers, offsets))
    widths = [signed_width(multipliers), signed_width(offsets)]
    low = (1 << widths[0]) - 1
    pairs = [(int(o) << widths[0]) | (int(m) & low) for m, o in zip(multipliers, offsets, strict=True)]
    words = np.array(pairs, object).reshape(-1, stream.lanes)
    parameters = {"FOLDS": len(words), "MULTIPLIER_WIDTH": widths[0], "OFFSET_WIDTH": widths[1]}
    return parameters, {"CONSTANTS": partial(memory, words, sum(widths))}


@lowered.register
def _(node: g.Sign, builder: Builder) -> Stream:
    stream = builder.take(node.inputs[0])
    plain = bool((node.multiplier == 1).all()) and not node.offset.any()
    widths, memories = _constants(stream, None if plain else (node.multiplier, node.offset))
    parameters = {
        **stream.types(node.output.dtype),
        "LANES": stream.lanes,
        **widths,
    }
    made = (node.output.dtype, stream.shape, stream.lanes)
    return builder.stage("flow_sign", node.name, {"in": stream}, made, parameters, memories=memories)


@lowered.register
def _(node: g.PRelu, builder: Builder) -> Stream:
    stream = builder.take(node.inputs[0])
    dtype = node.output.dtype
    finer = dtype.fraction_bits - stream.dtype.fraction_bits
    if not stream.dtype.signed:
        limits = (dtype.minimum_lsb, dtype.maximum_lsb)
        return _scaled(node.name, stream, dtype, -finer, "FLOOR", limits, builder)
    slopes = node.slope.reshape(-1) << finer - node.slope_dtype.fraction_bits
    if len(slopes) == 1:
        slopes = np.repeat(slopes, stream.lanes)
    width, words = signed_width(slopes), slopes.reshape(-1, stream.lanes)
    parameters = {
        "IN_WIDTH": stream.dtype.width,
        "OUT_WIDTH": dtype.width,
        "LANES": stream.lanes,
        "FOLDS": len(words),
        "SLOPE_WIDTH": width,
        "SHIFT": finer,
    }
    made = (dtype, stream.shape, stream.lanes)
    memories = {"SLOPES": partial(memory, words, width)}
    return builder.stage(
        "flow_prelu", node.name, {"in": stream}, made, parameters, multipliers=stream.lanes, memories=memories
    )


@lowered.register
def _(node: g.Table, builder: Builder) -> Stream:
    stream = builder.take(node.inputs[0])
    dtype = node.output.dtype
    parameters = {
        **stream.types(dtype),
        "LANES": stream.lanes,
    }
    made = (dtype, stream.shape, stream.lanes)
    memories = {"VALUES": partial(memory, node.values.reshape(-1, 1), dtype.width)}
    return builder.stage("flow_table", node.name, {"in": stream}, made, parameters, memories=memories)


@lowered.register
def _(node: g.ArgMax, builder: Builder) -> Stream:
    stream = builder.take(node.inputs[0])
    parameters = {
        **stream.types(node.output.dtype),
        "LANES": stream.lanes,
        "FOLDS": stream.folds,
    }
    made = (node.output.dtype, node.output.shape, 1)
    return builder.stage("flow_argmax", node.name, {"in": stream}, made, parameters)
