"""Which of our C++ kernels computes a node, and the struct of constants that it reads.

The kernels lie in hls_templates/cpp/kernels; the constants go into the source, the same for csim and synthesis.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from flow.convert.accumulators import MAX_BITS, accumulator, range_of
from flow.errors import UnsupportedError
from flow.fixed.graph import (
    Add,
    ArgMax,
    Concat,
    Conv,
    FixedGraph,
    Mul,
    Node,
    Pool,
    PRelu,
    Relu,
    Rescale,
    Sign,
    Softmax,
    Table,
    Tensor,
    Upsample,
)
from flow.types import FixedPoint

MAX_TABLE = 1 << 16
"""Numbers of a table: 64 Ki of them fill a small chip's block RAM."""

_UNARY = "unary<flow_kernels::{operation}, {{inputs_t}}, {{output_t}}, {{config}}>({{inputs}}, {{output}})"
_BINARY = _UNARY.replace("unary", "binary")
_VECTOR = _UNARY.replace("unary", "vector")
_JOINED = (
    "joined<{{inputs_t}}>::sized<{{sizes}}>::{operation}<{{output_t}}, {{config}}>({{output}}, {{inputs}})"
)
_WINDOW = "{operation}<{{inputs_t}}, {{output_t}}, {{config}}>({{inputs}}, {{output}})"


@dataclass(frozen=True)
class Kernel:
    """A call of a kernel, and the constants that it reads.

    ``header``: a file of hls_templates/cpp/kernels. ``call``: to be formatted with ``inputs_t``, ``output_t``,
    ``config``, ``inputs``, ``output``, ``weights``, and ``sizes``, the values of each input. ``config``: the lines of
    the struct CONFIG_T. ``weights``: real values and their types, which hls4ml writes, by their names.
    """

    header: str
    call: str
    config: tuple[str, ...]
    weights: Mapping[str, tuple[np.ndarray, FixedPoint]]


def kernel(node: Node, graph: FixedGraph) -> Kernel:
    """Return the kernel of a node.

    Raises:
        UnsupportedError: what no kernel computes.
    """
    header, call, operation, config = _KERNELS[type(node)]
    weights: dict[str, tuple[np.ndarray, FixedPoint]] = {}
    if isinstance(node, Conv):
        weights["weight"] = node.weight_dtype.to_real(node.weight), _narrow(node.weight, node.weight_dtype)
        weights["bias"] = np.zeros(len(node.weight)), FixedPoint(False, 1, 0)
        if node.bias is not None and node.bias_dtype is not None:
            weights["bias"] = node.bias_dtype.to_real(node.bias), _narrow(node.bias, node.bias_dtype)
    lines = (*_sizes(node, graph), *config(node, graph))
    return Kernel(header, f"flow_kernels::{call.format(operation=operation)};", lines, weights)


def image(sizes: tuple[int, ...], missing: int = 1) -> tuple[int, int]:
    """Return sizes along height and width, of up to two."""
    height, width = (missing,) * (2 - len(sizes)) + sizes
    return height, width


def spans(node: Pool | Conv) -> tuple[int, int]:
    """Return the height and width that a window reaches over."""
    kernel, dilations = _window(node)
    height, width = (((k - 1) * d + 1) for k, d in zip(image(kernel), image(dilations), strict=True))
    return height, width


def steps(node: Node, graph: FixedGraph) -> list[Fraction]:
    """Return what one LSB of each input is worth in LSBs of the output."""

    def worth(tensor: Tensor) -> tuple[Fraction, ...]:
        return tuple(Fraction(scale) / Fraction(2) ** tensor.dtype.fraction_bits for scale in tensor.scale)

    out = worth(node.output)
    found = []
    for name in node.inputs:
        own = worth(graph.tensors[name])
        ratios = {own[i % len(own)] / out[i % len(out)] for i in range(max(len(own), len(out)))}
        if len(ratios) != 1:
            raise UnsupportedError(
                f"convert: layer {node.name!r} ({type(node).__name__}) must read and give the same scale a channel, "
                "not others; quantize its inputs with one scale"
            )
        found.append(ratios.pop())
    return found


def _window(node: Pool | Conv) -> tuple[tuple[int, ...], tuple[int, ...]]:
    if isinstance(node, Conv):
        return node.weight.shape[1:-1], node.dilations
    return node.kernel, (1,) * len(node.kernel)


def _narrow(integers: np.ndarray, dtype: FixedPoint) -> FixedPoint:
    return range_of(integers, dtype.fraction_bits).dtype()


def _numbers(kind: str, **values: Any) -> list[str]:
    return [f"static const {kind} {name} = {value};" for name, value in values.items()]


def _lookup(name: str, values: np.ndarray, *, registers: bool) -> list[str]:
    """Return a function of a constant array; of a single number, if it has no other; ``registers``: not a memory."""
    dtype = range_of(values, 0).dtype()
    what = f"{dtype.width}, {str(dtype.signed).lower()}"
    head = f"static flow_kernels::integer<{what}>::type {name}(unsigned"
    if values.size == 1:
        return [f"{head}) {{ return {int(values.flat[0])}LL; }}"]
    numbers = ", ".join(f"{number}LL" for number in values.reshape(-1).tolist())
    return [
        f"{head} i) {{",
        f"    static const flow_kernels::constant<{what}>::type numbers[{values.size}] = {{{numbers}}};",
        *(["    #pragma HLS ARRAY_PARTITION variable=numbers complete"] if registers else []),
        "    return numbers[i];",
        "}",
    ]


def _sizes(node: Node, graph: FixedGraph) -> list[str]:
    shape = graph.tensors[node.inputs[0]].shape
    if isinstance(node, Pool | Conv | Upsample):
        height, width = image(shape[:-1])
        return _numbers("unsigned", in_height=height, in_width=width, channels=shape[-1])
    shape = node.output.shape if isinstance(node, Concat) else shape
    return _numbers("unsigned", positions=int(np.prod(shape[:-1], dtype=int)), channels=shape[-1])


def _width(node: Rescale | Sign, source: FixedPoint, *more: int) -> int:
    """Return the bits of every x * multiplier + offset, and of other numbers."""
    ends = [
        int(times) * x + int(plus)
        for times, plus in zip(
            *np.broadcast_arrays(node.multiplier.ravel(), node.offset.ravel()), strict=True
        )
        for x in (source.minimum_lsb, source.maximum_lsb)
    ]
    shift = node.shift if isinstance(node, Rescale) else 0
    ends = [end << max(0, -shift) for end in ends] + list(more)
    bits = max(2, *(1 + max(end, ~end).bit_length() for end in ends))
    if bits > MAX_BITS + 2:
        raise UnsupportedError(
            f"convert: layer {node.name!r} ({type(node).__name__}) must calculate with at most {MAX_BITS + 2} bits, "
            f"not {bits}; quantize its input to fewer bits"
        )
    return max(bits, shift + 1)


def _rescale(node: Rescale, graph: FixedGraph) -> list[str]:
    source = graph.tensors[node.inputs[0]].dtype
    return [
        *_numbers("int", width=_width(node, source, node.minimum, node.maximum), shift=node.shift),
        *_numbers("long long", minimum=f"{node.minimum}LL", maximum=f"{node.maximum}LL"),
        *_numbers("flow_kernels::rounding_mode", rounding=f"flow_kernels::{node.rounding}"),
        *_lookup("multiplier", node.multiplier, registers=True),
        *_lookup("offset", node.offset, registers=True),
    ]


def _sign(node: Sign, graph: FixedGraph) -> list[str]:
    return [
        *_numbers("int", width=_width(node, graph.tensors[node.inputs[0]].dtype)),
        *_lookup("multiplier", node.multiplier, registers=True),
        *_lookup("offset", node.offset, registers=True),
    ]


def _nothing(node: Node, graph: FixedGraph) -> list[str]:
    return []


def _prelu(node: PRelu, graph: FixedGraph) -> list[str]:
    up = node.output.dtype.fraction_bits - graph.tensors[node.inputs[0]].dtype.fraction_bits
    slope = node.slope << (up - node.slope_dtype.fraction_bits)
    return [*_numbers("unsigned", up=up), *_lookup("slope", slope, registers=True)]


def _table(node: Table, graph: FixedGraph) -> list[str]:
    _check_table(node, node.values)
    return _lookup("value", node.values, registers=False)


def _softmax(node: Softmax, graph: FixedGraph) -> list[str]:
    used = node.exponential[: int(np.flatnonzero(node.exponential)[-1]) + 1]
    _check_table(node, used)
    largest = int(used.max())
    total = largest * node.output.size
    shift = node.output.dtype.fraction_bits + 1
    return [
        *_argmax(node, graph),
        *_numbers("unsigned", entries=len(used), shift=shift),
        *_numbers("long long", maximum=f"{node.output.dtype.maximum_lsb}LL"),
        *_numbers("int", sum_width=total.bit_length(), width=((largest << shift) + total).bit_length()),
        *_lookup("exponential", used, registers=False),
    ]


def _argmax(node: Softmax | ArgMax, graph: FixedGraph) -> list[str]:
    return _numbers("unsigned", results=node.output.size)


def _check_table(node: Node, values: np.ndarray) -> None:
    if values.size > MAX_TABLE:
        raise UnsupportedError(
            f"convert: layer {node.name!r} ({type(node).__name__}) must have a table of at most {MAX_TABLE} numbers, "
            f"not {values.size}; quantize its input to fewer bits"
        )


def _ups(node: Node, graph: FixedGraph) -> list[int]:
    """Return how far the integers of each input are shifted to the grid of the output."""
    found = []
    for step in steps(node, graph):
        if step.denominator != 1 or step.numerator & (step.numerator - 1):
            raise UnsupportedError(
                f"convert: layer {node.name!r} ({type(node).__name__}) must read steps that are whole powers of two of "
                f"its own, not {step} of one; share one quantizer"
            )
        found.append(step.numerator.bit_length() - 1)
    return found


def _add(node: Add, graph: FixedGraph) -> list[str]:
    first, second = _ups(node, graph)
    return _numbers("unsigned", up_0=first, up_1=second)


def _concat(node: Concat, graph: FixedGraph) -> list[str]:
    channels = [graph.tensors[name].shape[-1] for name in node.inputs]
    lines = []
    for name, values in (("channels_of", channels), ("up_of", _ups(node, graph))):
        choice = "".join(f"i == {place} ? {value} : " for place, value in enumerate(values[:-1]))
        lines.append(f"static constexpr unsigned {name}(unsigned i) {{ return {choice}{values[-1]}; }}")
    return lines


def _upsample(node: Upsample, graph: FixedGraph) -> list[str]:
    height, width = image(node.factors)
    return _numbers("unsigned", factor_height=height, factor_width=width)


def _pool(node: Pool | Conv, graph: FixedGraph) -> list[str]:
    kernel, dilations = _window(node)
    pads = ((0, 0),) * (2 - len(node.pads)) + tuple(node.pads)
    sides = ("pad_top", "pad_bottom", "pad_left", "pad_right")
    sizes = {
        **{side: pad for side, pad in zip(sides, (*pads[0], *pads[1]), strict=True)},
        **_along("kernel", kernel),
        **_along("stride", node.strides),
        **_along("dilation", dilations),
        **_along("out", node.output.shape[:-1]),
    }
    lines = _numbers("unsigned", **sizes)
    if isinstance(node, Pool):
        lines += _numbers("bool", is_max=str(node.kind == "max").lower())
    return lines


def _along(what: str, sizes: tuple[int, ...]) -> dict[str, int]:
    return dict(zip((f"{what}_height", f"{what}_width"), map(int, image(sizes)), strict=True))


def _conv(node: Conv, graph: FixedGraph) -> list[str]:
    sums = accumulator(node, graph.tensors[node.inputs[0]].dtype)
    sign = "" if sums.signed else "u"
    return [
        *_pool(node, graph),
        *_numbers("unsigned", filters=len(node.weight), groups=node.groups),
        f"typedef ap_{sign}fixed<{sums.width}, {sums.integer_bits}> accum_t;",
    ]


_KERNELS: Mapping[type[Node], tuple[str, str, str, Callable[[Any, FixedGraph], list[str]]]] = {
    Rescale: ("elementwise.h", _UNARY, "rescale", _rescale),
    Sign: ("elementwise.h", _UNARY, "bipolar", _sign),
    Relu: ("elementwise.h", _UNARY, "relu", _nothing),
    PRelu: ("elementwise.h", _UNARY, "prelu", _prelu),
    Table: ("elementwise.h", _UNARY, "table", _table),
    Add: ("elementwise.h", _BINARY, "add", _add),
    Mul: ("elementwise.h", _BINARY, "mul", _nothing),
    Concat: (
        "concat.h",
        _JOINED,
        "concat",
        _concat,
    ),
    Upsample: ("upsample.h", _WINDOW, "upsample", _upsample),
    Pool: ("pool.h", _WINDOW, "pool", _pool),
    Softmax: ("vector.h", _VECTOR, "softmax", _softmax),
    ArgMax: ("vector.h", _VECTOR, "argmax", _argmax),
    Conv: ("conv.h", _WINDOW.replace("{{output}}", "{{output}}, {{weights}}"), "conv", _conv),
}
KINDS = tuple(_KERNELS)
"""The nodes that have a kernel."""
