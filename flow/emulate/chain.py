"""The equality chain, layer by layer: QONNX = integer executor = C++, and the first place where it breaks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from flow import qonnx
from flow.errors import MismatchError
from flow.fixed.execute import execute
from flow.fixed.graph import FixedGraph, Node, Rescale, Softmax, Table
from flow.fixed.lsb import placed
from flow.fixed.rounding import float_bounds
from flow.types import HlsLayer, LayerCheck

HEAD_LSB = 1
"""How far the integers of a softmax may lie from its float results."""
_TIE = 2.0**-18
"""A product of float32 numbers this close, relatively, to a tie may be rounded to its other side."""
INNER = "an inner layer differs, although no output does"
QONNX, CSIM = "the integer executor must equal QONNX", "the C++ must equal the integer executor"


@dataclass(frozen=True)
class Samples:
    """A few samples on their way through the network.

    ``numbers``: which samples of the whole set; ``values``: every tensor in LSBs; ``context``: every QONNX tensor;
    ``quantized``: what each quantizer of the file reads, and its scale, by its output.
    """

    numbers: np.ndarray
    values: Mapping[str, np.ndarray]
    context: Mapping[str, np.ndarray]
    quantized: Mapping[str, tuple[str, np.ndarray]] = field(default_factory=dict)


def through(
    graph: FixedGraph, model: Any, real: Sequence[np.ndarray], lsb: Sequence[np.ndarray], numbers: np.ndarray
) -> Samples:
    """Run the samples ``numbers`` through QONNX and the integer executor, keeping every tensor."""
    picked = tuple(x[numbers] for x in real)
    context = qonnx.execute(model, picked, context=True)
    return Samples(
        numbers, execute(graph, [x[numbers] for x in lsb], every=True), context, _quantizers(model)
    )


def _quantizers(model: Any) -> dict[str, tuple[str, np.ndarray]]:
    """Return what each quantizer reads, and its scale, by its output."""
    made = {}
    for node in model.graph.node:
        if node.op_type == "Quant":
            scale = model.get_initializer(node.input[1])
            if scale is not None:
                made[node.output[0]] = (node.input[0], scale)
    return made


def check_qonnx(graph: FixedGraph, samples: Samples, head: str) -> tuple[list[LayerCheck], np.ndarray]:
    """Compare the executor with QONNX, node by node.

    Where a quantizer's scales are no powers of two, QONNX itself computes in float32, and may round a product that
    lies next to a tie the other way; such a sample is left out from there on, and counted.

    Returns:
        The layers so far, and which samples were left out.

    Raises:
        MismatchError: for the first layer that differs; ``head`` says what brought us here.
    """
    tied = np.zeros(len(samples.numbers), dtype=bool)
    checks: list[LayerCheck] = []
    bounds = float_bounds(graph)
    for node in graph.nodes:
        tensor = node.output
        got = samples.values[tensor.name]
        row = _row(node, got)
        if tensor.source is not None:
            expected = _expected(node, samples.context[tensor.source])
            error = np.where(tied.reshape(-1, *(1,) * (got.ndim - 1)), 0, np.abs(expected - got))
            error[error <= (HEAD_LSB if isinstance(node, Softmax) else 0)] = 0
            ties = _ties(node, samples, expected, error, bounds[tensor.name])
            wrong = (error > 0) & ~ties
            if wrong.any():
                raise MismatchError(
                    f"emulate: {QONNX}, but {head}; {_where(node, samples, wrong, expected, got)}; "
                    "report the network",
                    tuple(checks),
                )
            tied |= ties.reshape(len(ties), -1).any(axis=1)
            row = replace(row, qonnx_lsb=0, ties=int(ties.sum()))
        checks.append(row)
    return checks, tied


def check_csim(
    graph: FixedGraph,
    checks: Sequence[LayerCheck],
    samples: Samples,
    layers: Sequence[HlsLayer],
    traces: Mapping[str, np.ndarray],
    head: str,
) -> tuple[LayerCheck, ...]:
    """Compare every layer of the C++ with the executor; returns the rows with that hop.

    Raises:
        MismatchError: for the first layer that differs.
    """
    by_tensor = {layer.tensor: layer for layer in layers}
    done: list[LayerCheck] = []
    for node, row in zip(graph.nodes, checks, strict=True):
        layer = by_tensor.get(node.output.name)
        if layer is None:
            done.append(row)
            continue
        want = samples.values[node.output.name].astype(np.float64)
        got = np.ldexp(traces[layer.hls_name], layer.dtype.fraction_bits).reshape(want.shape)
        if not np.array_equal(want, got):
            raise MismatchError(
                f"emulate: {CSIM}, but {head}; {_where(node, samples, want != got, want, got)}; "
                "compare its weights in firmware/weights and its types in [hls] with the graph's",
                tuple(done),
            )
        done.append(replace(row, csim_lsb=0))
    return tuple(done)


def _row(node: Node, values: np.ndarray) -> LayerCheck:
    dtype = node.output.dtype
    saturated = 0.0
    if isinstance(node, Rescale):
        ends = values == node.maximum
        if node.minimum < 0:
            ends |= values == node.minimum
        saturated = float(ends.mean())
    return LayerCheck(
        name=node.name,
        kind=type(node).__name__,
        shape=node.output.shape,
        dtype=dtype,
        lowest=int(values.min()),
        highest=int(values.max()),
        saturated=saturated,
        qonnx_lsb=None,
        csim_lsb=None,
    )


def _expected(node: Node, values: np.ndarray) -> np.ndarray:
    """Return a QONNX tensor in steps of the graph's tensor, (samples, *shape); whole, but for fixed point."""
    tensor = node.output
    rows = placed(values.astype(np.float64).reshape(len(values), -1), tensor.order)
    steps = np.ldexp(
        rows.reshape(len(values), *tensor.shape) / np.array(tensor.scale), tensor.dtype.fraction_bits
    )
    fixed = tensor.scale == (1.0,) and not isinstance(node, Softmax | Table)
    if fixed:
        return np.asarray(steps)
    return np.asarray(np.clip(np.rint(steps), tensor.dtype.minimum_lsb, tensor.dtype.maximum_lsb))


def _ties(node: Node, samples: Samples, expected: np.ndarray, error: np.ndarray, bound: float) -> np.ndarray:
    """Tell which differences of one step come from a product next to a tie, rounded to its other side.

    ``bound``: how far float32 can be off, in steps.
    """
    read = samples.quantized.get(node.output.source or "")
    exact_anyway = isinstance(node, Rescale) and node.plain and node.output.scale == (1.0,)
    if read is None or not isinstance(node, Rescale) or exact_anyway:
        return np.zeros(error.shape, dtype=bool)
    before, scale = read
    real = (samples.context[before] / scale.astype(np.float64)).reshape(len(error), -1)
    exact = placed(real, node.output.order).reshape(error.shape)
    beside = np.maximum(_TIE * np.maximum(1, np.abs(exact)), min(bound, 0.5))
    whole = {"FLOOR": np.floor, "CEIL": np.ceil, "ROUND_TO_ZERO": np.trunc}.get(node.rounding, np.rint)
    sides = [np.clip(whole(exact + shift), node.minimum, node.maximum) for shift in (-beside, beside)]
    found = (expected, samples.values[node.output.name])
    return np.asarray((error == 1) & np.all([(x == sides[0]) | (x == sides[1]) for x in found], axis=0))


def _where(node: Node, samples: Samples, wrong: np.ndarray, expected: np.ndarray, got: np.ndarray) -> str:
    """Say where the first difference lies."""
    place = tuple(np.argwhere(wrong)[0])
    index = ", ".join(str(int(i)) for i in place[1:])
    return (
        f"first at layer {node.name!r} ({type(node).__name__}), sample {samples.numbers[place[0]]}, index ({index}): "
        f"expected {expected[place]:.16g} LSB, got {got[place]:.16g} LSB, {abs(expected[place] - got[place]):.16g} LSB "
        f"apart (1 LSB = 2^{-node.output.dtype.fraction_bits})"
    )
