"""The fixed-point graph: a network as exact operations on integers, channels last.

Every tensor holds integers (LSBs); ``real = lsb * 2**-fraction_bits * scale``. All nodes but `Rescale`, `Sign`,
`Table`, `Softmax` and `ArgMax` are exact: the output's type holds every value that its inputs can give.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from flow.types import FixedPoint, Port

ROUNDINGS = ("ROUND", "FLOOR", "CEIL", "ROUND_TO_ZERO", "HALF_UP", "HALF_DOWN")
"""QONNX's names; ROUND is half to even."""


@dataclass(frozen=True)
class Tensor:
    """One activation, without the batch dimension: ``shape`` is (C,), (L, C) or (H, W, C).

    ``scale``: one factor, or one a channel, beside the power of two that ``dtype`` holds; (1.0,) for fixed point.
    ``source``: the QONNX tensor that holds the same values, where there is one.
    ``order``: for each element of ``source`` (flat, without the batch) its place in this tensor (flat); ``None``:
    the same order.
    """

    name: str
    shape: tuple[int, ...]
    dtype: FixedPoint
    scale: tuple[float, ...] = (1.0,)
    source: str | None = None
    order: np.ndarray | None = field(default=None, compare=False)

    @property
    def size(self) -> int:
        return int(np.prod(self.shape))

    @property
    def port(self) -> Port:
        """The tensor as an input or output of the network; a port has one scale, the first."""
        return Port(self.name, self.shape, self.dtype, self.scale[0])


@dataclass(frozen=True)
class Node:
    """One operation; ``name`` is the layer's name in the network, ``inputs`` are names of tensors."""

    name: str
    inputs: tuple[str, ...]
    output: Tensor


@dataclass(frozen=True)
class Dense(Node):
    """y = W x + b on a vector. ``weight``: int64 (outputs, inputs); ``bias``: int64 (outputs,), of its own type."""

    weight: np.ndarray
    weight_dtype: FixedPoint
    bias: np.ndarray | None = None
    bias_dtype: FixedPoint | None = None


@dataclass(frozen=True)
class Conv(Node):
    """Cross-correlation, 1-D or 2-D. ``weight``: int64 (outputs, *kernel, inputs / groups); zeros as padding.

    ``strides``, ``dilations``: one a spatial dimension; ``pads``: (before, after) a spatial dimension.
    """

    weight: np.ndarray
    weight_dtype: FixedPoint
    strides: tuple[int, ...]
    pads: tuple[tuple[int, int], ...]
    dilations: tuple[int, ...]
    groups: int = 1
    bias: np.ndarray | None = None
    bias_dtype: FixedPoint | None = None


@dataclass(frozen=True)
class Pool(Node):
    """``kind`` max (padding never wins) or sum (padding is zero); an average is a sum with a smaller scale."""

    kind: str
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    pads: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Add(Node):
    """x + y of two tensors of one shape."""


@dataclass(frozen=True)
class Mul(Node):
    """x * y of two tensors of one shape."""


@dataclass(frozen=True)
class Concat(Node):
    """Tensors put together along the channels."""


@dataclass(frozen=True)
class Upsample(Node):
    """Nearest neighbour: every position is repeated ``factors`` times, one a spatial dimension."""

    factors: tuple[int, ...]


@dataclass(frozen=True)
class Reshape(Node):
    """The same integers in the same (channels-last) order under another shape."""


@dataclass(frozen=True)
class Relu(Node):
    """max(x, 0)."""


@dataclass(frozen=True)
class PRelu(Node):
    """x where x >= 0, else slope * x. ``slope``: int64, one or one a channel (LeakyReLU has one)."""

    slope: np.ndarray
    slope_dtype: FixedPoint


@dataclass(frozen=True)
class Rescale(Node):
    """A quantizer: clip(round((x * multiplier + offset) / 2**shift), minimum, maximum), on LSBs.

    ``multiplier``, ``offset``: int64, one or one a channel; a plain change of the grid has multiplier 1 and offset 0.
    ``shift`` may be negative. ``rounding``: one of `ROUNDINGS`. A ReLU before the quantizer is its ``minimum``.
    """

    multiplier: np.ndarray
    offset: np.ndarray
    shift: int
    rounding: str
    minimum: int
    maximum: int

    @property
    def plain(self) -> bool:
        return bool((self.multiplier == 1).all() and not self.offset.any())


@dataclass(frozen=True)
class Sign(Node):
    """A bipolar quantizer: +1 where x * multiplier + offset >= 0, else -1, on LSBs; one or one a channel."""

    multiplier: np.ndarray
    offset: np.ndarray


@dataclass(frozen=True)
class Table(Node):
    """y = values[x - minimum of x's type]: sigmoid, tanh and the like with the quantizer behind them."""

    values: np.ndarray


@dataclass(frozen=True)
class Softmax(Node):
    """e = exponential[max(x) - x]; y = min((2**(f + 1) * e + s) // (2 * s), maximum) with s = sum of e, on a vector.

    f: ``output.dtype.fraction_bits``; ``exponential``: int64, exp(-d) of every difference d, in steps of 2**-24.
    """

    exponential: np.ndarray


@dataclass(frozen=True)
class ArgMax(Node):
    """The index of the largest element of a vector, the first of equal ones; shape (1,)."""


@dataclass(frozen=True)
class FixedGraph:
    """A network: nodes in an order of execution; ``outputs`` are names of tensors."""

    inputs: tuple[Tensor, ...]
    nodes: tuple[Node, ...]
    outputs: tuple[str, ...]

    @cached_property
    def tensors(self) -> Mapping[str, Tensor]:
        """Every tensor by its name, in order."""
        return {t.name: t for t in (*self.inputs, *(node.output for node in self.nodes))}

    @property
    def gives_class(self) -> bool:
        """Tell whether an ArgMax gives an output."""
        return any(isinstance(node, ArgMax) and node.output.name in self.outputs for node in self.nodes)

    def readers(self, tensor: str) -> tuple[Node, ...]:
        """Return the nodes that read a tensor, in order."""
        return tuple(node for node in self.nodes if tensor in node.inputs)
