"""Convs on bytes: oneDNN sums products of 8-bit numbers in 32 bits, several times as fast as floats.

Only what is exact on every processor is done here, and tried out against floats before it is used.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from flow.fixed.graph import Conv, FixedGraph, Rescale
from flow.fixed.sums import Sums

if TYPE_CHECKING:
    import torch

_BYTE = 255
_PAIR = 1 << 15
"""Processors without 8-bit dot products add pairs of products in 16 bits."""
_TRIED = 4

Run = Callable[["torch.Tensor"], "torch.Tensor"]


def byte_conv(conv: Conv, quantizer: Rescale, graph: FixedGraph, floats: Run) -> Run | None:
    """Return what computes a conv and the quantizer behind it as bytes, but for its upper limit.

    Args:
        conv, quantizer: the nodes.
        graph: theirs.
        floats: computes the conv with the quantizer's factor, in float32.

    Returns:
        None where bytes do not hold the numbers, or torch has no such conv.
    """
    source = graph.tensors[conv.inputs[0]]
    rows = np.abs(conv.weight).reshape(len(conv.weight), -1)
    fits = source.dtype.width <= 8 and int(rows.max()) <= 127 and 2 * _BYTE * int(rows.max()) < _PAIR
    sums = int(rows.sum(1).max()) * _BYTE < 1 << 24
    limits = quantizer.minimum == 0 and quantizer.maximum <= _BYTE and quantizer.rounding == "ROUND"
    flat = len(conv.strides) == 2 and all(before == after for before, after in conv.pads)
    if not (fits and sums and limits and flat and bool((quantizer.multiplier == 1).all())):
        return None
    try:
        run = _prepared(conv, quantizer, graph)
        return run if _equal(run, floats, source.shape, source.dtype) else None
    except (AttributeError, RuntimeError, NotImplementedError, TypeError):
        return None  # another version of torch, or one without oneDNN


def _prepared(conv: Conv, quantizer: Rescale, graph: FixedGraph) -> Run:
    import torch

    source, out = graph.tensors[conv.inputs[0]].dtype, conv.output.dtype
    grid = out.fraction_bits - source.fraction_bits - conv.weight_dtype.fraction_bits - quantizer.shift
    zero = 128 if source.signed else 0
    ones = torch.ones(len(conv.weight))
    operators: Any = torch.ops.onednn
    weight = torch.from_numpy(np.moveaxis(conv.weight, -1, 1).astype(np.int8))
    given = (list(conv.strides), [before for before, _ in conv.pads], list(conv.dilations), conv.groups)
    packed = operators.qconv_prepack(weight, ones, 1.0, zero, *given, None)
    bias = Sums.of(conv, graph, quantizer).bias
    factor, none = 2.0**grid, torch.zeros(len(conv.weight), dtype=torch.int64)

    def run(x: torch.Tensor) -> torch.Tensor:
        x = (x.add(zero) if zero else x).to(torch.uint8).movedim(-1, 1)
        return operators.qconv2d_pointwise(
            x, factor, zero, packed, ones, none, bias, *given, 1.0, 0, torch.uint8, "none", [], ""
        ).movedim(1, -1)  # fmt: skip

    return run


def _equal(run: Run, floats: Run, shape: tuple[int, ...], dtype: Any) -> bool:
    """Try random samples, half of them at the ends of the type."""
    import torch

    random = torch.Generator().manual_seed(0)
    x = torch.randint(dtype.minimum_lsb, dtype.maximum_lsb + 1, (_TRIED, *shape), generator=random).float()
    ends = torch.tensor([dtype.minimum_lsb, dtype.maximum_lsb]).float()
    x[: _TRIED // 2] = ends[torch.randint(0, 2, (_TRIED // 2, *shape), generator=random)]
    want = floats(x).round().clamp(0, _BYTE)
    return torch.equal(run(x).float(), want)
