"""How far float32 execution of a file may lie from its exact numbers, before every quantizer.

A sum of n products, each factor rounded once, is off by at most k u / (1 - k u) times the sum of the magnitudes: k is
the number of roundings, and u = 2**-24. Quantizers bring numbers back onto their grid, so that errors do not add up.

Source: N. J. Higham, Accuracy and Stability of Numerical Algorithms, 2nd edition, section 3.1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from flow.fixed.graph import (
    Add,
    Conv,
    Dense,
    FixedGraph,
    Mul,
    Node,
    Pool,
    PRelu,
    Rescale,
    Sign,
    Table,
    Tensor,
)

UNIT = 2.0**-24


@dataclass(frozen=True)
class Spread:
    """The largest sum of magnitudes behind any element of a tensor, and the roundings on the way there."""

    magnitude: float
    roundings: int

    @property
    def error(self) -> float:
        """The largest error, as a real number."""
        share = self.roundings * UNIT
        return math.inf if share >= 1 else self.magnitude * share / (1 - share)


def float_bounds(graph: FixedGraph) -> dict[str, float]:
    """Return how far float32 may be off, in steps: before a quantizer by its output's name, else by the tensor's."""
    spreads = {tensor.name: _fresh(tensor) for tensor in graph.inputs}
    bounds = {}
    for node in graph.nodes:
        given = [spreads[name] for name in node.inputs]
        quantizer = isinstance(node, Rescale | Sign | Table) and node.output.source is not None
        made = _through(node, given, graph)
        bounds[node.output.name] = Spread(made.magnitude, made.roundings + 2).error / min(_steps(node.output))
        spreads[node.output.name] = _fresh(node.output) if quantizer else made
    return bounds


def _steps(tensor: Tensor) -> np.ndarray:
    """Return what one LSB of each channel is worth."""
    return np.asarray(np.ldexp(np.array(tensor.scale), -tensor.dtype.fraction_bits))


def _fresh(tensor: Tensor) -> Spread:
    """Return the spread of numbers on a grid: an integer times a scale, rounded once."""
    reach = max(-tensor.dtype.minimum_lsb, tensor.dtype.maximum_lsb)
    return Spread(reach * float(_steps(tensor).max()), 1)


def _through(node: Node, given: list[Spread], graph: FixedGraph) -> Spread:
    first = given[0]
    most = max(spread.magnitude for spread in given)
    roundings = max(spread.roundings for spread in given)
    if isinstance(node, Dense | Conv):
        return _summed(node, first, graph.tensors[node.inputs[0]])
    if isinstance(node, Pool):
        count = math.prod(node.kernel)
        return first if node.kind == "max" else Spread(most, roundings + count + 1)
    if isinstance(node, Add):
        return Spread(sum(spread.magnitude for spread in given), roundings + 1)
    if isinstance(node, Mul):
        return Spread(math.prod(spread.magnitude for spread in given), sum(s.roundings for s in given) + 1)
    if isinstance(node, PRelu):
        slope = float(np.abs(node.slope).max()) * 2.0**-node.slope_dtype.fraction_bits
        return Spread(most * max(1.0, slope), roundings + 1)
    return Spread(most, roundings + 1)


def _summed(node: Dense | Conv, given: Spread, read: Tensor) -> Spread:
    """Return the spread of sums of products: every input as large as it can be, every weight by its magnitude."""
    weights = np.abs(node.weight.astype(np.float64)).reshape(len(node.weight), -1)
    steps = np.broadcast_to(_steps(node.output), len(weights))
    sums = weights.sum(1) * steps / float(_steps(read).max()) * given.magnitude
    if node.bias is not None and node.bias_dtype is not None:
        finer = node.output.dtype.fraction_bits - node.bias_dtype.fraction_bits
        sums = sums + np.ldexp(np.abs(node.bias.astype(np.float64)), finer) * steps
    return Spread(float(sums.max()), given.roundings + weights.shape[1] + 3)
