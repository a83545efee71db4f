"""Sums of products: an engine of multipliers behind windows, or adders made for the weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from flow.fixed import graph as g
from flow.rtl import adders
from flow.rtl.build import Builder
from flow.rtl.folds import TooFastError, fold, least_lanes
from flow.rtl.streams import Stream
from flow.rtl.windows import patch, window
from flow.rtl.words import memory
from flow.types import FixedPoint


def dense(node: g.Dense, builder: Builder) -> Stream:
    """Return the stream of a layer's outputs."""
    stream = builder.take(node.inputs[0])
    outputs, inputs = node.weight.shape

    def engine() -> Stream:
        simd, pe = _folded(node, stream, inputs, outputs, 1, builder)
        vectors = builder.fifo(builder.widened(stream, simd), inputs // simd)  # the next one comes meanwhile
        return _engine(node, replace(vectors, pause=0), node.weight, pe, 1, builder, held=2.0)

    return builder.cheapest((engine, lambda: _adders(node, stream, node.weight, builder)))


def conv(node: g.Conv, builder: Builder) -> Stream:
    """Return the stream of a layer's outputs."""
    stream = builder.take(node.inputs[0])
    filters, channels = node.output.shape[-1], stream.channels
    if node.groups == channels == filters and channels > 1:
        return _depthwise(node, stream, builder)
    positions, kernel = math.prod(node.output.shape[:-1]), node.weight.shape[1:-1]
    weight = _ungrouped(node, channels).reshape(filters, -1)
    inputs = weight.shape[1]
    pointwise = set(kernel) == set(node.strides) == {1} and not np.any(node.pads)

    def one_position_at_a_time() -> Stream:
        simd, pe = _folded(node, stream, inputs, filters, positions, builder)
        narrow = builder.widened(stream, simd)
        if pointwise:
            vectors, held = builder.fifo(narrow, channels // simd), 2 / positions
        else:
            vectors, held = window(node, narrow, kernel, node.dilations, 0, builder), 1 / positions
        return _engine(node, vectors, weight, pe, positions, builder, held=held)

    def whole_windows() -> Stream:
        windows = patch(node, stream, builder)
        simd, pe = _folded(node, windows, inputs, filters, positions, builder)
        return _engine(
            node, builder.widened(windows, simd), weight, pe, positions, builder, held=2 / positions
        )

    def adders_alone() -> Stream:
        return _adders(node, stream if pointwise else patch(node, stream, builder), weight, builder)

    return builder.cheapest((one_position_at_a_time, whole_windows, adders_alone))


def _adders(node: g.Dense | g.Conv, stream: Stream, weight: np.ndarray, builder: Builder) -> Stream:
    """Return the sums of ``weight``, (outputs, inputs), times vectors of the stream, a vector a clock.

    Raises:
        TooFastError: adders are not wanted, or alkaid does not take such constants.
    """
    outputs, inputs = weight.shape
    dtype = node.output.dtype
    bias = np.zeros(outputs, np.int64) if node.bias is None else _on_grid(node)
    count = adders.digits(weight)
    if not (builder.chip.adders and adders.applies(weight, bias)) or count > adders.MAXIMUM_DIGITS:
        raise TooFastError(node.name, builder.interval, math.inf)
    vectors = builder.widened(stream, inputs)
    shift = _products(node, vectors, dtype)["PRODUCT_SHIFT"]
    return builder.stage(
        "adders",
        node.name,
        {"in": vectors},
        (dtype, node.output.shape, outputs),
        {},
        held=1 / math.prod(vectors.shape[:-1]),
        sizes={"DIGITS": max(count - outputs, 0), "IN_WIDTH": vectors.dtype.width},
        source=partial(
            adders.module_text, weight=weight, bias=bias, given=vectors.dtype, made=dtype, shift=shift
        ),
    )


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
        rows=_rows(node, stream, builder),
    )


def _rows(node: g.Dense | g.Conv, stream: Stream, builder: Builder) -> int:
    """Return how many outputs' products one multiplier makes: two where both fit into its wider side."""
    a, b = (dtype.width + (not dtype.signed) for dtype in (stream.dtype, node.weight_dtype))
    return 2 if a + 2 * b + 1 <= builder.chip.multiplier_bits else 1


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
    rows = _rows(node, stream, builder)
    words = weight.reshape(neuron, pe, synapse, simd).swapaxes(1, 2).reshape(-1, pe * simd)
    parameters = _products(node, stream, dtype) | {
        "SIMD": simd,
        "PE": pe,
        "SYNAPSE_FOLD": synapse,
        "NEURON_FOLD": neuron,
        "PACKED": int(rows > 1),
    }
    return builder.stage(
        "flow_mvau",
        node.name,
        {"in": stream},
        (dtype, node.output.shape, pe),
        parameters,
        cycles=positions * synapse * neuron,
        held=held,
        multipliers=simd * math.ceil(pe / rows),
        memories={"WEIGHTS": partial(memory, words, node.weight_dtype.width)} | _biases(node, pe),
    )


def _depthwise(node: g.Conv, stream: Stream, builder: Builder) -> Stream:
    """Return one sum a channel."""
    kernel, positions = node.weight.shape[1:-1], math.prod(node.output.shape[:-1])
    beats = math.prod(kernel)
    elements = max(positions * beats * stream.channels, math.prod(stream.shape))
    lanes = least_lanes(stream.channels, elements, builder.interval, node.name)
    windows = window(node, builder.widened(stream, lanes), kernel, node.dilations, 0, builder)
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
        **stream.types(dtype),
        "WEIGHT_WIDTH": weights.width,
        "WEIGHT_SIGNED": int(weights.signed),
        "PRODUCT_SHIFT": dtype.fraction_bits - weights.fraction_bits - stream.dtype.fraction_bits,
    }


def _biases(node: g.Dense | g.Conv, lanes: int) -> dict[str, Callable[[], str]]:
    if node.bias is None:
        return {}
    return {"BIASES": partial(memory, _on_grid(node).reshape(-1, lanes), node.output.dtype.width)}


def _on_grid(node: g.Dense | g.Conv) -> np.ndarray:
    """Return the biases on the output's grid."""
    fraction_bits = node.bias_dtype.fraction_bits if node.bias_dtype else 0
    return np.asarray(node.bias).astype(object) << node.output.dtype.fraction_bits - fraction_bits
