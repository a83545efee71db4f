"""Every kind of node as stages."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial, singledispatch

import numpy as np

from flow.errors import UnsupportedError
from flow.fixed import graph as g
from flow.lower.build import Builder
from flow.lower.folds import fold, least_lanes
from flow.lower.streams import Stream
from flow.lower.words import memory, signed_width
from flow.types import FixedPoint


@singledispatch
def lowered(node: g.Node, builder: Builder) -> Stream:
    """Add a node's stages and return the stream of its output.

    Raises:
        UnsupportedError: the RTL does not have it.
        TooFastError: it cannot be as fast as the builder wants it.
    """
    raise UnsupportedError(
        f"lower: layer {node.name!r} must be one that the RTL has, not {type(node).__name__}; "
        "leave it to the host, or use the HLS C++"
    )


def _types(stream: Stream, dtype: FixedPoint) -> dict[str, int]:
    """Return the parameters that tell a module the types of its input and output."""
    given = stream.dtype
    return {"IN_WIDTH": given.width, "IN_SIGNED": int(given.signed), "OUT_WIDTH": dtype.width}


@lowered.register
def _(node: g.Reshape, builder: Builder) -> Stream:
    stream = builder.take(node.inputs[0])
    return Stream(stream.signal, stream.dtype, node.output.shape, stream.lanes, stream.held)


# ---------------------------------------------------------------- sums of products


@lowered.register
def _(node: g.Dense, builder: Builder) -> Stream:
    stream = builder.take(node.inputs[0])
    outputs, inputs = node.weight.shape
    simd, pe = _folded(node, stream, inputs, outputs, 1, builder)
    vector = builder.fifo(builder.widened(stream, simd), inputs // simd)  # the next one comes meanwhile
    return _engine(node, vector, node.weight, pe, 1, builder, held=2.0)


@lowered.register
def _(node: g.Conv, builder: Builder) -> Stream:
    stream = builder.take(node.inputs[0])
    filters, channels = node.output.shape[-1], stream.channels
    positions, kernel = math.prod(node.output.shape[:-1]), node.weight.shape[1:-1]
    if node.groups == channels == filters and channels > 1:
        return _depthwise(node, stream, builder)
    weight = _ungrouped(node, channels)
    simd, pe = _folded(node, stream, math.prod(kernel) * channels, filters, positions, builder)
    stream = builder.widened(stream, simd)
    if set(kernel) == set(node.strides) == {1} and not np.any(node.pads):
        stream, held = builder.fifo(stream, channels // simd), 2 / positions
    else:
        stream, held = _window(node, stream, kernel, node.dilations, 0, builder), 1 / positions
    return _engine(node, stream, weight.reshape(filters, -1), pe, positions, builder, held=held)


def _folded(
    node: g.Dense | g.Conv, stream: Stream, inputs: int, outputs: int, positions: int, builder: Builder
) -> tuple[int, int]:
    return fold(
        inputs,
        outputs,
        positions,
        builder.interval,
        channels=stream.channels,
        arriving=math.prod(stream.shape),
        lanes=stream.lanes,
        name=node.name,
    )


def _ungrouped(node: g.Conv, channels: int) -> np.ndarray:
    """Return the weights (outputs, *kernel, channels), zeros where a group does not read."""
    if node.groups == 1:
        return node.weight
    whole = np.zeros((*node.weight.shape[:-1], channels), np.int64)
    each, filters = node.weight.shape[-1], len(node.weight) // node.groups
    for group in range(node.groups):
        mine = slice(group * filters, (group + 1) * filters)
        whole[mine, ..., group * each : (group + 1) * each] = node.weight[mine]
    return whole


def _engine(
    node: g.Dense | g.Conv,
    stream: Stream,
    weight: np.ndarray,
    pe: int,
    positions: int,
    builder: Builder,
    *,
    held: float,
) -> Stream:
    """Return the sums of ``weight``, (outputs, inputs), times vectors of the stream."""
    simd, dtype = stream.lanes, node.output.dtype
    outputs, inputs = weight.shape
    synapse, neuron = inputs // simd, outputs // pe
    words = weight.reshape(neuron, pe, synapse, simd).swapaxes(1, 2).reshape(-1, pe * simd)
    parameters = _products(node, stream, dtype) | {
        "SIMD": simd,
        "PE": pe,
        "SYNAPSE_FOLD": synapse,
        "NEURON_FOLD": neuron,
    }
    return builder.stage(
        "flow_mvau",
        node.name,
        {"in": stream},
        (dtype, node.output.shape, pe),
        parameters,
        cycles=positions * synapse * neuron,
        held=held,
        multipliers=simd * pe,
        memories={"WEIGHTS": partial(memory, words, node.weight_dtype.width)} | _biases(node, pe),
    )


def _depthwise(node: g.Conv, stream: Stream, builder: Builder) -> Stream:
    """Return one sum a channel."""
    kernel, positions = node.weight.shape[1:-1], math.prod(node.output.shape[:-1])
    beats = math.prod(kernel)
    elements = max(positions * beats * stream.channels, math.prod(stream.shape))
    lanes = least_lanes(stream.channels, elements, builder.interval, node.name)
    windows = _window(node, builder.widened(stream, lanes), kernel, node.dilations, 0, builder)
    folds = stream.channels // lanes
    words = node.weight.reshape(stream.channels, beats).T.reshape(beats * folds, lanes)
    return builder.stage(
        "flow_depthwise",
        node.name,
        {"in": windows},
        (node.output.dtype, node.output.shape, lanes),
        _products(node, windows, node.output.dtype) | {"LANES": lanes, "FOLDS": folds, "BEATS": beats},
        cycles=positions * beats * folds,
        multipliers=lanes,
        memories={"WEIGHTS": partial(memory, words, node.weight_dtype.width)} | _biases(node, lanes),
    )


def _products(node: g.Dense | g.Conv, stream: Stream, dtype: FixedPoint) -> dict[str, int]:
    weights = node.weight_dtype
    return {
        **_types(stream, dtype),
        "WEIGHT_WIDTH": weights.width,
        "WEIGHT_SIGNED": int(weights.signed),
        "PRODUCT_SHIFT": dtype.fraction_bits - weights.fraction_bits - stream.dtype.fraction_bits,
    }


def _biases(node: g.Dense | g.Conv, lanes: int) -> dict[str, Callable[[], str]]:
    """Return the biases on the output's grid."""
    if node.bias is None or node.bias_dtype is None:
        return {}
    dtype = node.output.dtype
    shifted = node.bias.astype(object) << dtype.fraction_bits - node.bias_dtype.fraction_bits
    return {"BIASES": partial(memory, shifted.reshape(-1, lanes), dtype.width)}


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
        stream = _window(node, stream, node.kernel, (1,) * len(node.kernel), fill, builder)
    folds = node.output.shape[-1] // lanes
    parameters = {
        "LARGEST": int(node.kind == "max"),
        **_types(stream, node.output.dtype),
        "LANES": lanes,
        "FOLDS": folds,
        "BEATS": beats,
    }
    made = (node.output.dtype, node.output.shape, lanes)
    cycles = positions * beats * folds
    return builder.stage("flow_pool", node.name, {"in": stream}, made, parameters, cycles=cycles, held=held)


def _window(
    node: g.Conv | g.Pool,
    stream: Stream,
    kernel: tuple[int, ...],
    dilations: tuple[int, ...],
    fill: int,
    builder: Builder,
) -> Stream:
    """Return the windows one after the other, position by position; a 1-D tensor is one row."""
    (height, width), (out_height, out_width) = _plane(stream.shape[:-1], 1), _plane(node.output.shape[:-1], 1)
    (kernel_h, kernel_w), (stride_h, stride_w) = _plane(kernel, 1), _plane(node.strides, 1)
    dilation_h, dilation_w = _plane(dilations, 1)
    (top, _), (left, _) = _plane(node.pads, (0, 0))
    span = (kernel_h - 1) * dilation_h + 1
    cropped = max(0, height + top - (out_height - 1) * stride_h - span)  # rows that no window reads
    rows = span + max(stride_h, cropped + span - top)  # the next frame's first ones come in time
    mask = (1 << stream.dtype.width) - 1
    parameters = {
        "WIDTH": stream.dtype.width,
        "LANES": stream.lanes,
        "FOLDS": stream.folds,
        "IN_H": height,
        "IN_W": width,
        "OUT_H": out_height,
        "OUT_W": out_width,
        "K_H": kernel_h,
        "K_W": kernel_w,
        "STRIDE_H": stride_h,
        "STRIDE_W": stride_w,
        "DILATION_H": dilation_h,
        "DILATION_W": dilation_w,
        "PAD_TOP": top,
        "PAD_LEFT": left,
        "ROWS": rows,
        "PAD_VALUE": fill & mask,
    }
    shape = (out_height * out_width * kernel_h * kernel_w, stream.channels)
    made = (stream.dtype, shape, stream.lanes)
    held = rows / height
    return builder.stage("flow_window", f"{node.name}_window", {"in": stream}, made, parameters, held=held)


def _plane(extents: tuple, single: object) -> tuple:  # type: ignore[type-arg]
    """Return two extents; a 1-D tensor has one row."""
    return extents if len(extents) == 2 else (single, *extents)


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
        **_types(stream, dtype),
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
        **_types(stream, node.output.dtype),
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
        **_types(stream, dtype),
        "LANES": stream.lanes,
    }
    made = (dtype, stream.shape, stream.lanes)
    memories = {"VALUES": partial(memory, node.values.reshape(-1, 1), dtype.width)}
    return builder.stage("flow_table", node.name, {"in": stream}, made, parameters, memories=memories)


@lowered.register
def _(node: g.ArgMax, builder: Builder) -> Stream:
    stream = builder.take(node.inputs[0])
    parameters = {
        **_types(stream, node.output.dtype),
        "LANES": stream.lanes,
        "FOLDS": stream.folds,
    }
    made = (node.output.dtype, node.output.shape, 1)
    return builder.stage("flow_argmax", node.name, {"in": stream}, made, parameters)
