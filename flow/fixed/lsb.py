"""Samples and results as integers: what the hardware reads and writes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from flow.errors import UnsupportedError
from flow.fixed.graph import FixedGraph
from flow.types import Port

_ROUNDED = 2.0**-20
"""A float32 number lies this close, relatively, to the step of the grid that it stands for."""


def input_lsb(port: Port, samples: np.ndarray, order: np.ndarray | None = None) -> np.ndarray:
    """Return float samples as the LSBs that the hardware reads; int64 (samples, size).

    Args:
        port: the input.
        samples: (samples, ...) in the layout of the file: channels first, where no ``order`` is given.
        order: see `flow.fixed.graph.Tensor`.
    """
    if order is None and samples.ndim > 2:
        samples = np.moveaxis(samples, 1, -1)
    rows = placed(samples.reshape(len(samples), -1), order)
    if port.scale != 1:  # in float32, as the file divides
        rows = rows.astype(np.float32) / np.float32(port.scale)
    return port.dtype.to_lsb(rows)


def inputs_lsb(graph: FixedGraph, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return float samples as what the graph reads: LSBs (samples, *shape), channels last, one array an input."""
    made = []
    for tensor, samples in zip(graph.inputs, inputs, strict=True):
        order = np.arange(tensor.size) if tensor.order is None else tensor.order
        made.append(input_lsb(tensor.port, samples, order).reshape(len(samples), *tensor.shape))
    return made


def exact_lsb(port: Port, values: np.ndarray, *, rounded: bool = False) -> np.ndarray:
    """Return values that lie on the port's grid as LSBs; int64 (samples, size).

    Args:
        port: the output.
        values: (samples, ...).
        rounded: round to the grid what may lie beside it: the float results of a softmax or a sigmoid.

    Raises:
        UnsupportedError: a value lies between two steps of the grid, or is not finite.
    """
    real = values.astype(np.float64).reshape(len(values), -1)
    scaled = np.ldexp(real / port.scale, port.dtype.fraction_bits)
    held = np.isfinite(scaled) & (np.abs(scaled) < 2.0**63)
    steps = np.rint(np.where(held, scaled, 0))
    if rounded:
        steps = np.clip(steps, port.dtype.minimum_lsb, port.dtype.maximum_lsb)
    else:
        slack = 0 if port.scale == 1 else _ROUNDED * np.maximum(1, np.abs(steps))
        held &= np.abs(np.where(held, scaled, 0) - steps) <= slack
    if not held.all():
        raise UnsupportedError(
            f"output {port.name!r} must hold values on the grid of {port.dtype}, not beside it; "
            "put a quantizer behind it"
        )
    return steps.astype(np.int64)


def placed(rows: np.ndarray, order: np.ndarray | None) -> np.ndarray:
    """Return values in the order of the file, (samples, size), in the order of a tensor of the graph."""
    if order is None:
        return rows
    result = np.empty_like(rows)
    result[:, order.reshape(-1)] = rows
    return result
