"""Nodes that only move numbers: reshapes, transposes, slices, concatenations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from flow.onnx_model.building import Builder, Step
from flow.onnx_model.constants import shape_of, slices
from flow.onnx_model.layouts import BATCH, Split, Tensor, flat_order, matched


def reshaped(builder: Builder, step: Step, source: Tensor, target: Sequence[int]) -> Tensor:
    """Return a tensor in another shape of the file, with `BATCH` first: only extents of 1 move, or all is flattened."""
    from torch import nn

    target = tuple(target)
    if target == source.file_shape:
        return source
    axes = matched(source, target)
    if axes is not None:
        return replace(source, axes=axes)
    if source.axes[0] == 0 and target == (BATCH, math.prod(source.shape)):
        order = flat_order(source)
        if len(source.shape) > 1:
            source = builder.call(step, nn.Flatten(), source)
        return replace(source, axes=(0, 1), order=order)
    shown = [str(extent) if extent != BATCH else "batch" for extent in target]
    raise step.unsupported(
        f"must flatten, or add or drop extents of 1, not make ({', '.join(shown)}) of {source.shape} a sample"
    )


def reshape(builder: Builder, step: Step) -> Tensor | Split:
    """Reshape: see `reshaped`; the first and the last of a channel shuffle."""
    from torch import nn

    given = step.given[0]
    wanted = [int(v) for v in step.setting("shape", 1) or []]
    source = given.tensor if isinstance(given, Split) else step.tensor()
    if isinstance(given, Split):
        target = _target(builder, step, wanted, (BATCH, given.groups, -1, *source.shape[1:]), source)
        if not given.swapped or target != source.file_shape:
            raise step.unsupported("must bring the channels together again, as a channel shuffle does")
        return builder.call(step, nn.ChannelShuffle(given.groups), source)
    target = _target(builder, step, wanted, source.file_shape, source)
    groups = target[1] if len(target) > 2 else 0
    split = (BATCH, groups, source.shape[0] // max(1, groups), *source.shape[1:])
    if groups > 1 and target == split and source.plain and source.order is None and len(source.shape) > 1:
        return Split(source, groups)
    return reshaped(builder, step, source, target)


def _target(
    builder: Builder, step: Step, wanted: Sequence[int], before: Sequence[int], source: Tensor
) -> tuple[int, ...]:
    """Return the shape that a reshape asks for, with `BATCH` first."""
    target = list(wanted)
    if not step.options.get("allowzero", 0):
        target = [before[i] if v == 0 and i < len(before) else v for i, v in enumerate(target)]
    if target and target[0] == builder.batch:
        target[0] = BATCH
    size = math.prod(source.shape)
    if -1 in target:
        rest = math.prod(v for v in target if v != -1)
        place = target.index(-1)
        target[place] = BATCH * size // rest if rest and (BATCH * size) % rest == 0 else -1
    if not target or target[0] != BATCH or math.prod(target) != BATCH * size or min(target) < 1:
        raise step.unsupported(
            f"must keep the batch as the first axis and all numbers, not ask for {list(wanted)}"
        )
    return tuple(target)


def flatten(builder: Builder, step: Step) -> Tensor:
    """Flatten of all but the batch; with axis 0 where the file's batch is 1, as Keras exporters write it."""
    source = step.tensor()
    axis = int(step.options.get("axis", 1))
    axis += len(source.axes) if axis < 0 else 0
    before = source.file_shape
    if not (axis == 1 or (axis == 0 and builder.batch == 1)) and math.prod(before[1:axis]) != 1:
        raise step.unsupported(f"must flatten all but the batch, not from axis {axis}")
    return reshaped(builder, step, source, (BATCH, math.prod(source.shape)))


def squeeze(builder: Builder, step: Step) -> Tensor:
    """Squeeze: drop extents of 1."""
    source = step.tensor()
    before = source.file_shape
    axes = step.setting("axes", 1)
    if axes is None:
        if builder.batch == 1:
            raise step.unsupported("must name its axes, not drop the batch of 1 too")
        axes = [i for i, extent in enumerate(before) if extent == 1]
    drop = {int(axis) % len(before) for axis in axes}
    if any(before[axis] != 1 for axis in drop):
        raise step.unsupported(f"must drop extents of 1, not axes {sorted(drop)}")
    if all(source.axes[axis] is None for axis in drop):
        return replace(source, axes=tuple(a for i, a in enumerate(source.axes) if i not in drop))
    return reshaped(builder, step, source, [v for i, v in enumerate(before) if i not in drop])


def unsqueeze(builder: Builder, step: Step) -> Tensor:
    """Unsqueeze: add extents of 1."""
    source = step.tensor()
    rank = len(source.axes) + len(step.setting("axes", 1) or [])
    added = {int(axis) % rank for axis in step.setting("axes", 1) or []}
    left = iter(source.axes)
    return replace(source, axes=tuple(None if i in added else next(left) for i in range(rank)))


def transpose(builder: Builder, step: Step) -> Tensor | Split:
    """Transpose: nothing is moved, the axes are noted."""
    given = step.given[0]
    if isinstance(given, Split):
        rank = len(given.tensor.axes) + 1
        if list(step.options.get("perm", [])) != [0, 2, 1, *range(3, rank)]:
            raise step.unsupported("must exchange groups and channels, as a channel shuffle does")
        return replace(given, swapped=True)
    source = step.tensor()
    rank = len(source.axes)
    order = [int(axis) for axis in step.options.get("perm", range(rank)[::-1])]
    if sorted(order) != list(range(rank)):
        raise step.broken(f"must have every axis of {rank} once, not {order}")
    return source.transposed(order)


def concat(builder: Builder, step: Step) -> Tensor:
    """Concat of channels."""
    import torch

    parts = [step.tensor(place) for place in range(len(step.given))]
    parts = [builder.settled(step, part, parts[0]) for part in parts]
    if step.axis(parts[0], int(step.options.get("axis", 1))) != 1:
        raise step.unsupported("must join channels, not another axis")
    if any(part.axes != parts[0].axes for part in parts):
        raise step.unsupported("must join tensors of one layout, not channels first and last")
    first = replace(parts[0], order=_joined(parts))
    if len(parts) == 1:
        return parts[0]
    return builder.join(step, torch.cat, (parts, 1), first)


def _joined(parts: Sequence[Tensor]) -> np.ndarray | None:
    """Return the order of the features of a concatenation."""
    if all(part.order is None for part in parts):
        return None
    found, start = [], 0
    for part in parts:
        found.append(start + (np.arange(part.shape[0]) if part.order is None else part.order))
        start += part.shape[0]
    return np.concatenate(found)


def slice_channels(builder: Builder, step: Step) -> Tensor:
    """Slice of consecutive channels."""
    source = step.tensor()
    starts, ends, axes, steps = slices(
        step.options, [step.constant(place) for place in range(1, len(step.given))], len(source.axes)
    )
    for start, end, axis, stride in zip(starts, ends, axes, steps, strict=True):
        extent = source.file_shape[axis]
        if stride < 1:
            raise step.unsupported(f"must go forwards, not in steps of {stride}")
        first, last, _ = slice(start, end).indices(extent)
        if source.axes[axis] == 0 and (start, end >= 1 << 31) == (0, True):
            continue
        if (first, last, stride) == (0, extent, 1) and source.axes[axis] != 0:
            continue
        if stride != 1 or source.axes[axis] != 1:
            raise step.unsupported(f"must take consecutive channels, not axis {axis} in steps of {stride}")
        source = narrowed(builder, step, source, first, last - first)
    return source


def split(builder: Builder, step: Step) -> list[Tensor]:
    """Split into slices of channels."""
    source = step.tensor()
    if step.axis(source, int(step.options.get("axis", 0))) != 1:
        raise step.unsupported("must split channels, not another axis")
    count = len(step.node.output)
    each = -(-source.shape[0] // count)
    sizes = [int(v) for v in step.setting("split", 1) or []] or [each] * (count - 1) + [
        source.shape[0] - each * (count - 1)
    ]
    if len(sizes) != count or sum(sizes) != source.shape[0] or min(sizes) < 1:
        raise step.broken(f"must split {source.shape[0]} channels into {count} parts, not {sizes}")
    starts = np.cumsum([0, *sizes])
    return [narrowed(builder, step, source, int(s), size) for s, size in zip(starts, sizes, strict=False)]


def narrowed(builder: Builder, step: Step, source: Tensor, start: int, length: int) -> Tensor:
    """Return some consecutive channels."""
    import torch

    source = builder.settled(step, source)
    if source.order is not None:
        raise step.unsupported(
            "must take channels before a flatten, not features behind one of channels last"
        )
    if length < 1:
        raise step.broken("must take at least one channel, not none")
    return builder.join(step, torch.narrow, (source, 1, start, length), source)


def shape(builder: Builder, step: Step) -> np.ndarray:
    """Shape: a constant, in which `BATCH` stands for the batch."""
    return shape_of(step.tensor().file_shape, step.options)
