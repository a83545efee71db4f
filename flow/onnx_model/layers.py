"""Nodes with weights: convs, dense layers, normalization, and constants that fold into them."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from flow.onnx_model.building import Builder, Step
from flow.onnx_model.layouts import Tensor

NORM_EPS = 1e-5
"""For a BatchNorm that stands for a scale and a shift: its variance is 1 less this."""


def conv(builder: Builder, step: Step) -> Tensor:
    """Conv: padding that is not the same on both sides becomes a ZeroPad."""
    from torch import nn

    source = step.channels_first()
    positions = len(source.shape) - 1
    weight = step.weight(1, positions + 2)
    bias = _bias(step, 2, len(weight))
    kernel, stride, dilation = geometry(step, positions, weight.shape[2:])
    begin, end = padding(step, source.shape[1:], kernel, stride, dilation)
    groups = _groups(step, weight.shape[1], source.shape[0], len(weight))
    if begin != end:
        source = pad(builder, step, source, begin, end)
        begin = (0,) * positions
    made: Any = (nn.Conv1d, nn.Conv2d)[positions - 1](
        *(weight.shape[1] * groups, len(weight), kernel, stride, begin, dilation, groups, bias is not None)
    )
    _fill(made, weight, bias)
    return builder.call(step, made, source)


def conv_transpose(builder: Builder, step: Step) -> Tensor:
    """ConvTranspose: padding that is less at the end is more output padding."""
    from torch import nn

    source = step.channels_first()
    positions = len(source.shape) - 1
    weight = step.weight(1, positions + 2)
    kernel, stride, dilation = geometry(step, positions, weight.shape[2:])
    groups = _groups(step, len(weight), len(weight), len(weight))
    bias = _bias(step, 2, weight.shape[1] * groups)
    extra = step.whole("output_padding", (0,) * positions)
    if "output_shape" in step.options or step.options.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        begin, end = _transposed_padding(step, source.shape[1:], kernel, stride, dilation, extra)
    else:
        begin, end = _pads(step, positions)
    extra = tuple(e + b - a for e, b, a in zip(extra, begin, end, strict=True))
    if any(not 0 <= e < max(s, d) for e, s, d in zip(extra, stride, dilation, strict=True)):
        raise step.unsupported(
            f"must crop at most as much at the end as at the beginning and at most one stride less, not {begin} "
            f"and {end}",
            "pad both sides alike",
        )
    made: Any = (nn.ConvTranspose1d, nn.ConvTranspose2d)[positions - 1](
        *(
            len(weight),
            weight.shape[1] * groups,
            kernel,
            stride,
            begin,
            extra,
            groups,
            bias is not None,
            dilation,
        )
    )
    _fill(made, weight, bias)
    return builder.call(step, made, source)


def gemm(builder: Builder, step: Step) -> Tensor:
    """Gemm: alpha * A * B + beta * C with constant B and C."""
    source = step.tensor()
    weight = step.weight(1, 2).astype(np.float64) * step.options.get("alpha", 1.0)
    if not step.options.get("transB", 0):
        weight = weight.T
    if step.options.get("transA", 0):
        source = source.transposed((1, 0)) if len(source.axes) == 2 else source
    shift = step.constant(2)
    bias = None
    if shift is not None:
        if shift.size not in (1, len(weight)) or shift.shape[-1:] not in ((), (1,), (len(weight),)):
            raise step.unsupported(f"must add one number an output, not shape {shift.shape}")
        bias = np.broadcast_to(shift.reshape(-1), len(weight)) * float(step.options.get("beta", 1.0))
    return _dense(builder, step, source, weight, bias)


def matmul(builder: Builder, step: Step) -> Tensor:
    """MatMul with a constant: a dense layer, or a conv of one position where there are positions."""
    return _dense(builder, step, step.tensor(), step.weight(1, 2).T, None)


def _dense(
    builder: Builder, step: Step, source: Tensor, weight: np.ndarray, bias: np.ndarray | None
) -> Tensor:
    from torch import nn

    source = builder.settled(step, source)
    if source.axes[-1] != 1 or source.axes[0] != 0:
        raise step.unsupported("must multiply the channels of samples, not other axes")
    positions = len(source.shape) - 1
    if weight.shape[1] != source.shape[0]:
        raise step.broken(f"must have weights for {source.shape[0]} inputs, not {weight.shape[1]}")
    outputs, inputs = weight.shape
    if positions:
        made: Any = (nn.Conv1d, nn.Conv2d)[positions - 1](inputs, outputs, 1, bias=bias is not None)
        _fill(made, weight.reshape(*weight.shape, *[1] * positions), bias)
        return builder.call(step, made, source)
    if source.order is not None:
        ordered = np.empty_like(weight)
        ordered[:, source.order] = weight
        weight, source = ordered, replace(source, order=None)
    linear = nn.Linear(inputs, outputs, bias=bias is not None)
    _fill(linear, weight, bias)
    return builder.call(step, linear, source)


def batch_norm(builder: Builder, step: Step) -> Tensor:
    """BatchNormalization in evaluation mode, over the channels."""
    if step.options.get("training_mode", 0) or (builder.opset < 7 and not step.options.get("is_test", 0)):
        raise step.unsupported("must use stored statistics, not a batch's", "export in evaluation mode")
    if step.options.get("spatial", 1) != 1:
        raise step.unsupported("must have one mean a channel, not one a position (spatial = 0)")
    source = step.tensor()
    if (
        source.axes == (1, 0) and builder.batch != source.shape[0]
    ):  # old Keras exporters: features and samples exchanged, which no runtime executes
        builder.transposed_norms.append(step.index)
    elif len(source.axes) < 2 or source.axes[1] != 1:
        raise step.unsupported("must normalize the channels, not another axis")
    scale, shift, mean, variance = (step.weight(place, 1).astype(np.float64) for place in (1, 2, 3, 4))
    wanted = (source.shape[0],)
    if {v.shape for v in (scale, shift, mean, variance)} != {wanted}:
        found = [len(v) for v in (scale, shift, mean, variance)]
        raise step.broken(f"must have {wanted[0]} scales, shifts, means and variances, not {found}")
    eps = float(step.options.get("epsilon", 1e-5))
    if variance.min() + eps <= 0:
        raise step.broken("must have variances above 0, not 0 or less")
    order = source.order if source.order is not None else np.arange(len(scale))
    values = np.empty((4, len(scale)))
    values[:, order] = scale, shift, mean, variance
    if eps <= 0:
        factor = values[0] / np.sqrt(values[3] + eps)
        return _normalize(builder, step, source, factor, values[1] - values[2] * factor)
    return builder.call(step, _norm(source, values, eps), source)


def scaled(builder: Builder, step: Step, source: Tensor, scale: np.ndarray, shift: np.ndarray) -> Tensor:
    """Multiply channels and add to them: in the layer before where only this node reads it, else as a BatchNorm.

    Args:
        builder: the graph that grows.
        step: the node of the file.
        source: (batch, channels, ..).
        scale, shift: (channels) in the node's order, float64.
    """
    import torch

    module = builder.module_of(source)
    weighted = type(module).__name__ in ("Conv1d", "Conv2d", "Linear")
    if not weighted or not builder.sole(source):
        return _normalize(builder, step, source, scale, shift)
    weight = module.weight.detach().numpy().astype(np.float64)
    bias = np.zeros(len(scale)) if module.bias is None else module.bias.detach().numpy().astype(np.float64)
    module.bias = torch.nn.Parameter(torch.empty(len(scale)))
    _fill(module, weight * scale.reshape(-1, *[1] * (weight.ndim - 1)), bias * scale + shift)
    builder.forget(source)
    return source


def _normalize(builder: Builder, step: Step, source: Tensor, scale: np.ndarray, shift: np.ndarray) -> Tensor:
    count = len(scale)
    values = np.stack([scale, shift, np.zeros(count), np.full(count, 1 - NORM_EPS)])
    return builder.call(step, _norm(source, values, NORM_EPS), source)


def _norm(source: Tensor, values: np.ndarray, eps: float) -> Any:
    """Return a BatchNorm with (scales, shifts, means, variances) for each channel."""
    import torch
    from torch import nn

    made: Any = (nn.BatchNorm1d if len(source.shape) < 3 else nn.BatchNorm2d)(source.shape[0], eps=eps)
    with torch.no_grad():
        for target, row in zip(
            (made.weight, made.bias, made.running_mean, made.running_var), values, strict=True
        ):
            target.copy_(torch.from_numpy(row))
    return made


def geometry(
    step: Step, positions: int, kernel: tuple[int, ...] | None = None
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Return kernel, stride and dilation of a conv or pool."""
    found = step.whole("kernel_shape", kernel or (0,) * positions)
    stride = step.whole("strides", (1,) * positions)
    dilation = step.whole("dilations", (1,) * positions)
    if kernel is not None and found != kernel:
        raise step.broken(f"must have weights of its kernel {found}, not {kernel}")
    if any(not 0 < value < 1 << 31 for value in (*found, *stride, *dilation)):
        raise step.broken(
            f"must have kernel, stride and dilation from 1 on, not {found}, {stride}, {dilation}"
        )
    return found, stride, dilation


def padding(
    step: Step,
    extents: tuple[int, ...],
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    dilation: tuple[int, ...],
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the padding at the beginning and at the end of every position, from ``pads`` or ``auto_pad``."""
    mode = step.options.get("auto_pad", "NOTSET")
    if mode in ("NOTSET", ""):
        return _pads(step, len(extents))
    if mode == "VALID":
        return (0,) * len(extents), (0,) * len(extents)
    if mode not in ("SAME_UPPER", "SAME_LOWER"):
        raise step.broken(f"must have auto_pad NOTSET, VALID, SAME_UPPER or SAME_LOWER, not {mode!r}")
    total = [
        max(0, (math.ceil(e / s) - 1) * s + d * (k - 1) + 1 - e)
        for e, k, s, d in zip(extents, kernel, stride, dilation, strict=True)
    ]
    less, more = tuple(t // 2 for t in total), tuple(t - t // 2 for t in total)
    return (less, more) if mode == "SAME_UPPER" else (more, less)


def pad(builder: Builder, step: Step, source: Tensor, begin: tuple[int, ...], end: tuple[int, ...]) -> Tensor:
    """Put zeros around the positions."""
    from torch import nn

    widths = [width for pair in zip(reversed(begin), reversed(end), strict=True) for width in pair]
    made = (nn.ZeroPad1d if len(begin) == 1 else nn.ZeroPad2d)(tuple(widths))  # type: ignore[arg-type]
    return builder.call(step, made, source, name=f"{step.name}_pad")


def _pads(step: Step, positions: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    pads = step.whole("pads", (0,) * (2 * positions))
    if any(not 0 <= value < 1 << 31 for value in pads):
        raise step.unsupported(f"must have pads from 0 on, not {list(pads)}")
    return pads[:positions], pads[positions:]


def _transposed_padding(
    step: Step,
    extents: tuple[int, ...],
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    dilation: tuple[int, ...],
    extra: tuple[int, ...],
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return what ``output_shape`` or ``auto_pad`` crops; it is split as ONNX's ConvTranspose says."""
    mode = step.options.get("auto_pad", "NOTSET")
    wanted = [e * s for e, s in zip(extents, stride, strict=True)]
    if "output_shape" in step.options:
        wanted = list(step.whole("output_shape", tuple(wanted)))
    total = [
        s * (e - 1) + x + (k - 1) * d + 1 - w
        for e, k, s, d, x, w in zip(extents, kernel, stride, dilation, extra, wanted, strict=True)
    ]
    if any(value < 0 for value in total):
        raise step.unsupported(f"must give at most what its kernel reaches, not {wanted}")
    less, more = tuple(t // 2 for t in total), tuple(t - t // 2 for t in total)
    return (less, more) if mode == "SAME_UPPER" else (more, less)


def _groups(step: Step, inputs_each: int, inputs: int, parts: int) -> int:
    groups = int(step.options.get("group", 1))
    if groups < 1 or parts % groups or (step.node.op_type == "Conv" and inputs_each * groups != inputs):
        raise step.broken(
            f"must have weights for {inputs} inputs in its groups, not {inputs_each} in each of {groups}"
        )
    return groups


def _bias(step: Step, place: int, outputs: int) -> np.ndarray | None:
    if step.constant(place) is None:
        return None
    bias = step.weight(place, 1)
    if len(bias) != outputs:
        raise step.broken(f"must have {outputs} biases, not {len(bias)}")
    return bias


def _fill(module: Any, weight: np.ndarray, bias: np.ndarray | None) -> None:
    import torch

    with torch.no_grad():
        module.weight.copy_(torch.from_numpy(np.array(weight)))
        if bias is not None:
            module.bias.copy_(torch.from_numpy(np.array(bias)))
