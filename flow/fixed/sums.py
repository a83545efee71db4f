"""Weights and biases of a layer as one tensor each, in the fastest type that holds every partial sum exactly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from flow.errors import UnsupportedError
from flow.fixed.graph import Conv, Dense, FixedGraph, Rescale
from flow.types import FixedPoint

if TYPE_CHECKING:
    import torch

FAR = 100
"""Bits of a shift beyond which float32 nears the ends of its exponents."""


def peak(dtype: FixedPoint) -> int:
    """Return the largest magnitude of a type, in LSBs."""
    return max(-dtype.minimum_lsb, dtype.maximum_lsb)


def kind_of(largest: int, name: str) -> torch.dtype:
    """Return the fastest type that holds every integer up to a magnitude.

    Raises:
        UnsupportedError: int64 does not.
    """
    import torch

    bits = largest.bit_length()
    if bits > 63:
        raise UnsupportedError(
            f"execute: node {name!r} must stay within 64 bits, not reach {bits + 1}; lower its bit widths"
        )
    return torch.float32 if bits <= 24 else torch.float64 if bits <= 53 else torch.int64


def constant(values: np.ndarray, kind: torch.dtype) -> torch.Tensor:
    """Return integers as a tensor of a type that holds them."""
    import torch

    return torch.from_numpy(np.array(values, dtype=np.int64)).to(kind)


@dataclass(frozen=True)
class Sums:
    """A layer's weights and biases on its output's grid, and the type that holds every partial sum."""

    weight: torch.Tensor
    bias: torch.Tensor | None
    kind: torch.dtype

    @classmethod
    def of(cls, node: Dense | Conv, graph: FixedGraph, quantizer: Rescale | None = None) -> Sums:
        """Return the numbers of a node, or of one with the multiplication of the quantizer that reads it.

        Raises:
            UnsupportedError: partial sums need more than 64 bits.
        """
        dtype, out = graph.tensors[node.inputs[0]].dtype, node.output.dtype
        finer = out.fraction_bits - dtype.fraction_bits - node.weight_dtype.fraction_bits
        times = np.broadcast_to(1 if quantizer is None else quantizer.multiplier, len(node.weight))
        added = np.broadcast_to(0 if quantizer is None else quantizer.offset, len(node.weight)).astype(object)
        if node.bias is not None and node.bias_dtype is not None:
            bias_shift = out.fraction_bits - node.bias_dtype.fraction_bits
            added = added + (node.bias.astype(object) << bias_shift) * times.astype(object)
        rows = np.abs(node.weight).reshape(len(node.weight), -1).sum(1).astype(object)
        reach = (rows << finer) * np.abs(times).astype(object) * peak(dtype) + np.abs(added)
        kind = kind_of(int(max(reach)), node.name)
        shape = (-1, *(1,) * (node.weight.ndim - 1))
        weight = constant((node.weight << finer) * times.reshape(shape), kind)
        bias = constant(added, kind) if node.bias is not None or added.any() else None
        if quantizer is None:
            return cls(weight, bias, kind)
        factor = 2.0**-quantizer.shift
        return cls(weight * factor, None if bias is None else bias * factor, kind)
