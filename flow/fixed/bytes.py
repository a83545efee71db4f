"""Layers on bytes: oneDNN sums products of 8-bit numbers in 32 bits, several times as fast as floats.

Only what is exact on every processor is done here, and tried out against floats before it is used.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from flow.fixed.graph import Conv, Dense, FixedGraph, Rescale, Tensor
from flow.fixed.sums import Sums

if TYPE_CHECKING:
    import torch

_BYTE = 255
_PAIR = 1 << 15
"""Processors without 8-bit dot products add pairs of products in 16 bits."""
_TRIED = 4

Run = Callable[["torch.Tensor"], "torch.Tensor"]


def on_bytes(layer: Dense | Conv, quantizer: Rescale, graph: FixedGraph, floats: Run) -> Run | None:
    """Return what computes a layer and the quantizer behind it as bytes, but for its upper limit.

    Args:
        layer, quantizer: the nodes.
        graph: theirs.
        floats: computes the layer with the quantizer's factor, in float32.

    Returns:
        None where bytes do not hold the numbers, or torch has no such conv.
    """
    source = graph.tensors[layer.inputs[0]]
    rows = np.abs(layer.weight).reshape(len(layer.weight), -1)
    fits = source.dtype.width <= 8 and 2 * _BYTE * int(rows.max()) < _PAIR
    sums = int(rows.sum(1).max()) * _BYTE < 1 << 24
    limits = quantizer.minimum == 0 and quantizer.maximum <= _BYTE and quantizer.rounding == "ROUND"
    even = isinstance(layer, Dense) or all(before == after for before, after in layer.pads)
    if not (fits and sums and limits and even and bool((quantizer.multiplier == 1).all())):
        return None
    try:
        run = _prepared(layer, quantizer, graph)
        return run if _equal(run, floats, source) else None
    except (AttributeError, RuntimeError, TypeError):
        return None  # another version of torch, or one without oneDNN


def _prepared(layer: Dense | Conv, quantizer: Rescale, graph: FixedGraph) -> Run:
    import torch

    source, out = graph.tensors[layer.inputs[0]].dtype, layer.output.dtype
    grid = out.fraction_bits - source.fraction_bits - layer.weight_dtype.fraction_bits - quantizer.shift
    factor, zero = 2.0**grid, 128 if source.signed else 0
    filters, *kernel, inputs = layer.weight.shape
    missing = (1,) * (2 - len(kernel))
    image = layer.weight.reshape(filters, *missing, *kernel, inputs)
    given: tuple[Any, ...] = ([1, 1], [0, 0], [1, 1], 1)
    if isinstance(layer, Conv):
        pads = [0] * len(missing) + [before for before, _ in layer.pads]
        given = ([*missing, *layer.strides], pads, [*missing, *layer.dilations], layer.groups)
    ones, none = torch.ones(filters), torch.zeros(filters, dtype=torch.int64)
    operators: Any = torch.ops.onednn
    weight = torch.from_numpy(np.moveaxis(image, -1, 1).astype(np.int8))
    packed = operators.qconv_prepack(weight, ones, 1.0, zero, *given, None)
    bias = Sums.of(layer, graph, quantizer).bias

    def run(x: torch.Tensor) -> torch.Tensor:
        x = (x.add(zero) if zero else x).to(torch.uint8)
        # a batch of vectors is one image of a single column
        x = x[None, :, None] if not kernel else x.unsqueeze(1) if missing else x
        y = operators.qconv2d_pointwise(
            x.movedim(-1, 1), factor, zero, packed, ones, none, bias, *given, 1.0, 0, torch.uint8, "none", [], ""
        ).movedim(1, -1)  # fmt: skip
        return y[0, :, 0] if not kernel else y.squeeze(1) if missing else y

    return run


def _equal(run: Run, floats: Run, source: Tensor) -> bool:
    """Try random samples, half of them at the ends of the type."""
    import torch

    low, high = source.dtype.minimum_lsb, source.dtype.maximum_lsb
    shape, random = (_TRIED, *source.shape), torch.Generator().manual_seed(0)
    anywhere = torch.randint(low, high + 1, shape, generator=random)
    ends = torch.randint(0, 2, shape, generator=random) * (high - low) + low
    x = torch.cat([anywhere, ends]).float()
    return bool(torch.equal(run(x).float(), floats(x).round().clamp(0, _BYTE)))
