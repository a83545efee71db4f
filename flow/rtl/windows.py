"""Sliding windows, one position after the other or a whole window at a time."""

from __future__ import annotations

import math
from dataclasses import dataclass

from flow.fixed import graph as g
from flow.rtl.build import Builder
from flow.rtl.folds import TooFastError
from flow.rtl.streams import Stream

_Pair = tuple[int, int]


@dataclass(frozen=True)
class _Geometry:
    """Windows over an image, (rows, columns) each; a 1-D tensor is one row. ``before``: padding at the top and left."""

    image: _Pair
    outputs: _Pair
    kernel: _Pair
    strides: _Pair
    dilations: _Pair
    before: _Pair

    @property
    def spans(self) -> _Pair:
        height, width = ((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True))
        return height, width

    def parameters(self, stream: Stream, fill: int) -> dict[str, int]:
        """Return what both modules are told; ``fill``: the LSBs outside the image."""
        names = ("IN_{}", "OUT_{}", "K_{}", "STRIDE_{}", "DILATION_{}")
        pairs = (self.image, self.outputs, self.kernel, self.strides, self.dilations)
        sizes = {
            name.format(side): pair[place]
            for name, pair in zip(names, pairs, strict=True)
            for place, side in enumerate("HW")
        }
        pad_value = fill & (1 << stream.dtype.width) - 1
        pads = {"PAD_TOP": self.before[0], "PAD_LEFT": self.before[1], "PAD_VALUE": pad_value}
        return {"WIDTH": stream.dtype.width, "LANES": stream.lanes, **sizes, **pads}


def _geometry(
    node: g.Conv | g.Pool, stream: Stream, kernel: tuple[int, ...], dilations: tuple[int, ...]
) -> _Geometry:
    (top, _), (left, _) = _plane(node.pads, (0, 0))
    return _Geometry(
        _plane(stream.shape[:-1], 1),
        _plane(node.output.shape[:-1], 1),
        _plane(kernel, 1),
        _plane(node.strides, 1),
        _plane(dilations, 1),
        (top, left),
    )


def _plane(extents: tuple, single: object) -> tuple:  # type: ignore[type-arg]
    """Return two extents; a 1-D tensor has one row."""
    return extents if len(extents) == 2 else (single, *extents)


def window(
    node: g.Conv | g.Pool,
    stream: Stream,
    kernel: tuple[int, ...],
    dilations: tuple[int, ...],
    fill: int,
    builder: Builder,
) -> Stream:
    """Return the windows' positions one after the other."""
    made = _geometry(node, stream, kernel, dilations)
    height, span = made.image[0], made.spans[0]
    stride, top = made.strides[0], made.before[0]
    cropped = max(0, height + top - (made.outputs[0] - 1) * stride - span)  # rows that no window reads
    rows = span + max(stride, cropped + span - top)  # the next frame's first ones come in time
    shape = (math.prod(made.outputs) * math.prod(made.kernel), stream.channels)
    return builder.stage(
        "flow_window",
        f"{node.name}_window",
        {"in": stream},
        (stream.dtype, shape, stream.lanes),
        made.parameters(stream, fill) | {"FOLDS": stream.folds, "ROWS": rows},
        held=rows / height,
        pause=span * made.image[1] * stream.folds if stream.pause else 0,
    )


def patch(node: g.Conv, stream: Stream, builder: Builder) -> Stream:
    """Return the windows, a whole one a beat.

    Raises:
        TooFastError: the module has not this form of them, or is too slow.
    """
    stream = builder.widened(stream, stream.channels)
    made = _geometry(node, stream, node.weight.shape[1:-1], node.dilations)
    (_, width), (span_h, span_w), (stride_h, stride_w) = made.image, made.spans, made.strides
    first = (span_h - 1 - made.before[0]) * width + span_w - 1 - made.before[1]
    row = (made.outputs[1] - 1) * stride_w
    last = first + (made.outputs[0] - 1) * stride_h * width + row
    cycles = max(last + 1, math.prod(made.image))
    if first < 0 or row >= stride_h * width or (width == 1 and span_h > 1):
        raise TooFastError(node.name, builder.interval, math.inf)
    if cycles > builder.interval:
        raise TooFastError(node.name, builder.interval, cycles)
    lanes = math.prod(made.kernel) * stream.channels
    return builder.stage(
        "flow_patch",
        f"{node.name}_patch",
        {"in": stream},
        (stream.dtype, (math.prod(made.outputs), lanes), lanes),
        made.parameters(stream, 0),
        cycles=cycles,
        held=span_h / made.image[0],
        pause=max(cycles - last + first, stride_h * width - row),
    )
