"""Tensors while they are read: which torch tensor stands for a tensor of the file, and how their axes correspond."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import fx

BATCH = 1_000_003
"""Stands for the batch size where a file computes with shapes: a prime that no other extent has."""


@dataclass(frozen=True, eq=False)
class Tensor:
    """A tensor of the file that depends on the input.

    Attributes:
        node: the graph's node that computes it, batch and channels first.
        shape: what the node gives for one sample: (channels, positions..) or (features,).
        axes: for every axis of the file's tensor the axis of the node's (0: batch), None where the node's has no
            such axis because the extent is 1.
        order: the file's feature i is the node's feature ``order[i]``; None: they are in the same order.
    """

    node: fx.Node
    shape: tuple[int, ...]
    axes: tuple[int | None, ...]
    order: np.ndarray | None = None

    @property
    def file_shape(self) -> tuple[int, ...]:
        """The shape of the file's tensor, with `BATCH` for the batch."""
        extents = (BATCH, *self.shape)
        return tuple(1 if axis is None else extents[axis] for axis in self.axes)

    @property
    def plain(self) -> bool:
        """Whether the file's axes are the node's."""
        return self.axes == tuple(range(len(self.shape) + 1))

    def transposed(self, order: Sequence[int]) -> Tensor:
        """Return the tensor with the file's axes in another order."""
        return replace(self, axes=tuple(self.axes[axis] for axis in order))


@dataclass(frozen=True, eq=False)
class Split:
    """A tensor whose channels were split into (groups, channels a group), on the way to a channel shuffle."""

    tensor: Tensor
    groups: int
    swapped: bool = False


def plain(node: fx.Node, shape: Sequence[int]) -> Tensor:
    """Return a tensor whose axes in the file are the node's."""
    return Tensor(node, tuple(shape), tuple(range(len(shape) + 1)))


def flat_order(tensor: Tensor) -> np.ndarray | None:
    """Return the order of the features that a flatten of the file's tensor gives; None: the node's own."""
    places = [axis - 1 for axis in tensor.axes if axis]
    order = np.arange(math.prod(tensor.shape)).reshape(tensor.shape)
    found = order.transpose(places).reshape(-1)
    if tensor.order is not None:
        found = tensor.order
    return None if np.array_equal(found, np.arange(len(found))) else found


def matched(tensor: Tensor, target: Sequence[int]) -> tuple[int | None, ...] | None:
    """Return the axes of the file's tensor after a reshape that only moves extents of 1; None: it does more.

    Args:
        tensor: before the reshape.
        target: the file's shape after it, with `BATCH` first.
    """
    extents = (BATCH, *tensor.shape)
    wide = [axis for axis in tensor.axes if axis is not None and (axis == 0 or extents[axis] > 1)]
    ones = [axis for axis in range(1, len(extents)) if extents[axis] == 1]
    if [extents[axis] for axis in wide] != [extent for extent in target if extent > 1]:
        return None
    if len(tensor.shape) > 1 and list(target).count(1) != len(ones):
        return None
    if list(target).count(1) < len(ones):
        return None
    axes: list[int | None] = []
    for extent in target:
        source = wide if extent > 1 else ones
        axes.append(source.pop(0) if source else None)
    return tuple(axes)


def filled(axes: Sequence[int | None], like: Sequence[int | None] | None = None) -> tuple[int, ...]:
    """Return axes with new positions in the places of None, those of ``like`` or in order."""
    if like is not None:
        return tuple(other if axis is None else axis for axis, other in zip(axes, like, strict=True))  # type: ignore[misc]
    used = sum(axis is not None for axis in axes)
    fresh = iter(range(used, len(axes)))
    return tuple(next(fresh) if axis is None else axis for axis in axes)


def moved(values: np.ndarray, tensor: Tensor) -> np.ndarray:
    """Return what the node computes, (batch, channels, ..), in the file's axes and order."""
    if tensor.order is not None:
        values = values[:, tensor.order]
    values = values.transpose([axis for axis in tensor.axes if axis is not None])
    return np.expand_dims(values, tuple(i for i, axis in enumerate(tensor.axes) if axis is None))
