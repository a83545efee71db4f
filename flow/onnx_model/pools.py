"""Pools, padding and resizing: what works on positions."""

from __future__ import annotations

import math
from typing import Any

from flow.onnx_model.building import Builder, Step
from flow.onnx_model.layers import geometry, pad, padding
from flow.onnx_model.layouts import BATCH, Tensor
from flow.onnx_model.shapes import reshaped

_NOT_NEGATIVE = ("ReLU", "ReLU6", "Sigmoid", "Hardsigmoid", "Softplus", "Softmax")


def max_pool(builder: Builder, step: Step) -> Tensor:
    """MaxPool: what is padded counts as minus infinity."""
    from torch import nn

    if len([name for name in step.node.output if name]) > 1:
        raise step.unsupported("must give values alone, not indices")
    source = step.channels_first()
    kernel, stride, dilation = geometry(step, len(source.shape) - 1)
    begin, end = padding(step, source.shape[1:], kernel, stride, dilation)
    made = (nn.MaxPool1d, nn.MaxPool2d)[len(kernel) - 1]
    ceil = _ceil(step, source, kernel, stride, dilation, begin, end)
    if ceil is None and type(builder.module_of(source)).__name__ in _NOT_NEGATIVE:
        source = pad(builder, step, source, begin, end)  # zeros are no larger than any value
        begin, ceil = (0,) * len(kernel), bool(step.options.get("ceil_mode", 0))
    if ceil is None:
        raise step.unsupported(f"must pad both sides alike, not by {begin} and {end}", "pad both sides alike")
    options = [_single(v) if len(kernel) == 1 else v for v in (kernel, stride, begin, dilation)]
    return builder.call(step, made(*options, ceil_mode=ceil), source)  # type: ignore[arg-type]


def average_pool(builder: Builder, step: Step) -> Tensor:
    """AveragePool: the padding counts as zeros, or not at all."""
    from torch import nn

    source = step.channels_first()
    kernel, stride, dilation = geometry(step, len(source.shape) - 1)
    begin, end = padding(step, source.shape[1:], kernel, stride, dilation)
    if any(value != 1 for value in dilation):
        raise step.unsupported(f"must not be dilated by {dilation}")
    counted = bool(step.options.get("count_include_pad", 0))
    ceil = _ceil(step, source, kernel, stride, dilation, begin, end, exact=counted)
    if ceil is None and counted:
        source = pad(builder, step, source, begin, end)
        begin, ceil = (0,) * len(kernel), bool(step.options.get("ceil_mode", 0))
    if ceil is None:
        raise step.unsupported(f"must pad both sides alike, not by {begin} and {end}", "pad both sides alike")
    made = (nn.AvgPool1d, nn.AvgPool2d)[len(kernel) - 1]
    options = [_single(v) if len(kernel) == 1 else v for v in (kernel, stride, begin)]
    counted = counted or not any(begin)
    return builder.call(step, made(*options, ceil_mode=ceil, count_include_pad=counted), source)  # type: ignore[arg-type]


def _single(value: tuple[int, ...]) -> int:
    return value[0]


def _ceil(
    step: Step,
    source: Tensor,
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    dilation: tuple[int, ...],
    begin: tuple[int, ...],
    end: tuple[int, ...],
    *,
    exact: bool = False,
) -> bool | None:
    """Return torch's ``ceil_mode`` for a pool; None: no choice of it gives the file's windows.

    Windows that reach over the end may come from padding there, which torch has only through ``ceil_mode``.
    ``exact``: the padding counts, so it must be the same on both sides.
    """
    ceil = bool(step.options.get("ceil_mode", 0))
    if begin == end:
        return ceil
    if exact:
        return None

    def windows(extent: int, place: int, last: int, up: bool) -> int:
        span = extent + begin[place] + last - dilation[place] * (kernel[place] - 1) - 1
        count = (math.ceil if up else math.floor)(span / stride[place]) + 1
        return count - (up and (count - 1) * stride[place] >= extent + begin[place])

    places = range(len(kernel))
    wanted = [windows(e, p, end[p], ceil) for p, e in enumerate(source.shape[1:])]
    for up in (False, True):
        if wanted == [windows(source.shape[1 + p], p, begin[p], up) for p in places] and all(
            (w - 1) * stride[p] < source.shape[1 + p] + begin[p] for p, w in enumerate(wanted)
        ):
            return up
    return None


def global_pool(builder: Builder, step: Step) -> Tensor:
    """GlobalAveragePool, GlobalMaxPool, and ReduceMean and ReduceMax over all positions."""
    from torch import nn

    source = builder.settled(step, step.tensor())
    keep = True
    if step.node.op_type.startswith("Reduce"):
        axes = step.setting("axes", 1) or []
        keep = bool(step.options.get("keepdims", 1))
        over = sorted(step.axis(source, int(axis)) or 0 for axis in axes)
        if over != list(range(2, len(source.shape) + 1)) or not over:
            raise step.unsupported(f"must be over all positions and nothing else, not over axes {list(axes)}")
    elif not source.plain:
        raise step.unsupported("must read channels first")
    maximum = "Max" in step.node.op_type
    one = nn.AdaptiveMaxPool1d if maximum else nn.AdaptiveAvgPool1d
    two = nn.AdaptiveMaxPool2d if maximum else nn.AdaptiveAvgPool2d
    if len(source.shape) not in (2, 3):
        raise step.unsupported("must read one or two positions")
    pool: Any = one(1) if len(source.shape) == 2 else two(1)
    pooled = builder.call(step, pool, source)
    return pooled if keep else reshaped(builder, step, pooled, (BATCH, source.shape[0]))


def zero_pad(builder: Builder, step: Step) -> Tensor:
    """Pad with zeros around the positions."""
    source = step.channels_first()
    mode, value = step.options.get("mode", "constant"), step.constant(2)
    number = step.options.get("value", 0.0) if value is None else value.reshape(-1)[0]
    if mode != "constant" or number != 0:
        raise step.unsupported(f"must pad with zeros, not {mode} {number}")
    widths = [int(v) for v in step.setting("pads", 1) or step.options.get("paddings") or []]
    rank = len(source.axes)
    axes = [int(v) % rank for v in step.setting("axes", 3) or range(rank)]
    if len(widths) != 2 * len(axes):
        raise step.broken(f"must have two widths an axis, not {len(widths)} for {len(axes)}")
    pairs = {axis: (widths[i], widths[i + len(axes)]) for i, axis in enumerate(axes)}
    if any(pairs.get(axis, (0, 0)) != (0, 0) for axis in (0, 1)) or min(widths, default=0) < 0:
        raise step.unsupported(f"must widen the positions alone, not by {widths}")
    begin, end = zip(*(pairs.get(axis, (0, 0)) for axis in range(2, rank)), strict=True)
    return pad(builder, step, source, begin, end) if any(widths) else source


def resize(builder: Builder, step: Step) -> Tensor:
    """Resize and Upsample by whole factors: the nearest value, or between the values (linear)."""
    from torch import nn

    source = step.channels_first()
    factors = _factors(step, source)
    if list(factors[:2]) != [1, 1] or any(factor != int(factor) or factor < 1 for factor in factors):
        raise step.unsupported(f"must resize the positions by whole factors, not by {list(factors)}")
    if all(factor == 1 for factor in factors):
        return source
    mode = step.options.get("mode", "nearest")
    where = step.options.get("coordinate_transformation_mode", "half_pixel")
    old = step.node.op_type == "Upsample" or step.builder.opset < 11
    aligned = where == "align_corners"
    scale = tuple(float(factor) for factor in factors[2:])
    if mode == "nearest":
        nearest = step.options.get("nearest_mode", "round_prefer_floor")
        same = old or (where == "asymmetric" and nearest == "floor")
        if not same and not (where in ("half_pixel", "pytorch_half_pixel") and nearest.startswith("round")):
            raise step.unsupported(f"must repeat values, not take the nearest by {where} and {nearest}")
        return builder.call(step, nn.Upsample(scale_factor=scale, mode="nearest"), source)
    if (
        mode != "linear"
        or old
        or len(scale) != 2
        or where not in ("half_pixel", "pytorch_half_pixel", "align_corners")
    ):
        raise step.unsupported(
            f"must resize by the nearest value or linearly in two positions, not {mode} ({where})"
        )
    return builder.call(step, nn.Upsample(scale_factor=scale, mode="bilinear", align_corners=aligned), source)


def _factors(step: Step, source: Tensor) -> tuple[float, ...]:
    """Return one factor an axis."""
    place = 1 if step.node.op_type == "Upsample" or step.builder.opset < 11 else 2
    factors = step.setting("scales", place)
    sizes = step.setting("", 3) if place == 2 else None
    if sizes and len(sizes) == len(source.axes) and sizes[0] in (BATCH, step.builder.batch):
        factors = [1.0, *(size / extent for size, extent in zip(sizes[1:], source.shape, strict=True))]
    if not factors or len(factors) != len(source.axes) or "axes" in step.options:
        raise step.unsupported("must have one factor an axis, or a size that keeps the batch")
    return tuple(factors)
