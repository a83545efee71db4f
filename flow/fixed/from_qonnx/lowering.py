"""A file on its way to a `FixedGraph`: the nodes made so far, and what each tensor of the file holds."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any, NoReturn

import numpy as np

from flow.errors import UnsupportedError
from flow.fixed.from_qonnx.constants import Constant, fractions_of, on_grid
from flow.fixed.from_qonnx.rescale import Multiplier, divide
from flow.fixed.from_qonnx.values import (
    MAX_WIDTH,
    Factors,
    Interval,
    Value,
    flat_order,
    label_of,
    merged,
    power_of_two,
    same_order,
    two_to,
    type_of,
    width_of,
)
from flow.fixed.graph import Node, Relu, Rescale, Reshape, Tensor
from flow.names import Names, identifier
from flow.qonnx import FileGraph, FileNode
from flow.types import FixedPoint


def refuse(node: FileNode, rule: str) -> NoReturn:
    """Raise the error that names a node and its operator.

    Args:
        node: the node of the file.
        rule: *must be ..., not ...; next step*.

    Raises:
        UnsupportedError: always.
    """
    raise UnsupportedError(f"qonnx: node {node.name!r} ({node.op_type}) {rule}")


class Lowering:
    """The graph that is being made.

    ``nodes``: by the name of their output. ``values``: by the name of the tensor in the file. ``raw``: its constants;
    ``quantized``: what quantizers make of them. ``intervals``: the integers that each tensor of the graph can hold.
    """

    def __init__(self, file: FileGraph) -> None:
        self.file = file
        self.raw = dict(file.constants)
        self.inputs: list[Tensor] = []
        self.nodes: dict[str, Node] = {}
        self.values: dict[str, Value] = {}
        self.quantized: dict[str, Constant] = {}
        self.intervals: dict[str, Interval] = {}
        self.readers = Counter(name for node in file.nodes for name in set(node.inputs))
        self.readers.update(file.outputs)
        self.batch = 1
        self._taken = Names()
        self._bare: dict[Any, Value] = {}

    @property
    def opset(self) -> int:
        return self.file.opsets.get("", 1)

    def name(self, wanted: str) -> str:
        """Return a name that is free in C++ and Verilog, where upper and lower case are no difference."""
        return self._taken.take(identifier(wanted))

    def is_constant(self, name: str) -> bool:
        return name in self.raw or name in self.quantized

    def value(self, node: FileNode, place: int = 0) -> Value:
        """Return an input that must depend on the network's input."""
        name = node.inputs[place]
        if name not in self.values:
            refuse(
                node,
                f"must read a tensor that depends on the input as input {place}, not {name!r}; change the network",
            )
        return self.values[name]

    def constant(self, node: FileNode, place: int) -> Constant:
        """Return an input that must be constant, as integers and scales."""
        name = node.inputs[place]
        if name in self.quantized:
            return self.quantized[name]
        if name not in self.raw:
            refuse(node, f"must have a constant as input {place}, not {name!r}; change the network")
        found = on_grid(self.raw[name])
        if found is None:
            refuse(
                node,
                f"must have numbers on a power-of-two grid of at most 24 bits as input {place}, "
                f"not the floats of {name!r}; put a Quant node behind them",
            )
        return found

    def numbers(self, node: FileNode, place: int) -> np.ndarray:
        """Return an input that must be constant as exact fractions, in an array of objects."""
        name = node.inputs[place]
        if name in self.quantized:
            return self.quantized[name].fractions()
        if name not in self.raw:
            refuse(node, f"must have a constant as input {place}, not {name!r}; change the network")
        if not np.isfinite(self.raw[name]).all():
            refuse(node, f"must have finite numbers as input {place}, not those of {name!r}; export it anew")
        return fractions_of(self.raw[name])

    def emit(
        self,
        kind: type[Node],
        node: FileNode,
        inputs: Sequence[Value],
        shape: tuple[int, ...],
        interval: Interval,
        scale: Factors,
        order: np.ndarray,
        /,
        *,
        name: str = "",
        source: str | None = None,
        fraction_bits: int | None = None,
        width: tuple[bool, int] | None = None,
        **fields: Any,
    ) -> Value:
        """Add a node, with the smallest type that holds ``interval`` if ``width`` gives none.

        Args:
            kind: the class of the node.
            node: the node of the file, for names and errors.
            inputs: what it reads.
            shape, interval, scale: of its output.
            order: of its output, where ``source`` (a tensor of the file) holds the same.
            name: other than the node's.
            source: see `Tensor`.
            fraction_bits: of its output, if not those that leave a scale in [1, 2).
            width: signed or not, and the bits.
            fields: of the node itself.

        Raises:
            UnsupportedError: ``interval`` needs too many bits.
        """
        bits, beside = label_of(scale, fraction_bits)
        low, high = interval.least, interval.largest
        needed = width_of(low, high)
        if needed > MAX_WIDTH:
            refuse(
                node,
                f"must give integers of at most {MAX_WIDTH} bits, not {needed}; put a quantizer before it",
            )
        dtype = type_of(low, high, bits) if width is None else FixedPoint(width[0], width[1] - bits, bits)
        interval = Interval(interval.low.astype(np.int64), interval.high.astype(np.int64))
        free = self.name(name or node.name)
        tensor = Tensor(free, shape, dtype, beside, source, None if source is None else flat_order(order))
        self.nodes[free] = kind(free, tuple(value.tensor.name for value in inputs), tensor, **fields)
        self.intervals[free] = interval
        return Value(tensor, order, scale)

    def bare(self, node: FileNode, value: Value) -> Value:
        """Return the value as a tensor with a positive scale alone, which the tensor states: exact nodes read these."""
        if value.table is not None:
            refuse(
                node, "must not read a function's result that no quantizer rounds; put a quantizer before it"
            )
        key = (value.tensor.name, value.scale, value.offset, value.low, value.high)
        if key not in self._bare:
            self._bare[key] = self._made_bare(node, value)
        return replace(self._bare[key], order=value.order)

    def _made_bare(self, node: FileNode, value: Value) -> Value:
        if value.bare:
            if label_of(value.scale, value.tensor.dtype.fraction_bits)[1] == value.tensor.scale:
                return value
            return self.rescale(node, value, Multiplier(np.array([1]), np.array([0]), 0), value.scale)
        simple = replace(value, low=None, high=None, relu="")
        if value.low == 0 and value.high is None and simple.bare:
            read = self.bare(node, simple)
            interval = self.interval(read)
            positive = Interval(np.maximum(interval.low, 0), np.maximum(interval.high, 0))
            return self.emit(
                Relu, node, [read], value.tensor.shape, positive, value.scale, value.order, name=value.relu
            )
        return self._affine(node, value)

    def one_scale(self, node: FileNode, value: Value) -> Value:
        """Return the value bare, with one scale for all channels: powers of two are brought to one.

        Raises:
            UnsupportedError: they differ otherwise.
        """
        value = self.bare(node, value)
        if len(value.scale) == 1:
            return value
        least = min(value.scale)
        ratios = [factor / least for factor in value.scale]
        if not all(power_of_two(ratio) for ratio in ratios) or max(ratios) >= 1 << 31:
            refuse(node, "must read one scale a tensor, not one a channel; quantize its input with one scale")
        key = (value.tensor.name, value.scale)
        if key not in self._bare:
            times = np.array([int(ratio) for ratio in ratios])
            found = Multiplier(times, np.zeros_like(times), 0)
            self._bare[key] = self.rescale(node, value, found, (least,))
        return replace(self._bare[key], order=value.order)

    def _affine(self, node: FileNode, value: Value) -> Value:
        """Bring scale, offset and bounds onto one grid, exactly."""
        bounds = [bound for bound in (value.low, value.high) if bound is not None]
        step = _common([*value.scale, *value.offset, *bounds])
        times = [factor / step for factor in value.scale]
        plus = [number / step for number in value.offset]
        if max(abs(int(number)).bit_length() for number in (*times, *plus)) > MAX_WIDTH:
            refuse(
                node,
                "must read numbers on one grid, not those of scales that are no powers of two; "
                "put a quantizer before it",
            )
        found = Multiplier(np.array([int(t) for t in times]), np.array([int(p) for p in plus]), 0)
        low = None if value.low is None else int(value.low / step)
        high = None if value.high is None else int(value.high / step)
        return self.rescale(node, value, found, (step,), limits=(low, high), name=value.relu)

    def rescale(
        self,
        node: FileNode,
        value: Value,
        found: Multiplier,
        scale: Factors,
        *,
        limits: tuple[int | None, int | None] = (None, None),
        rounding: str = "ROUND",
        name: str = "",
        source: str | None = None,
        width: tuple[bool, int] | None = None,
    ) -> Value:
        """Add a Rescale of the integers of a value's tensor."""
        given = self.interval(value)
        ends = []
        for side in (given.low, given.high):
            number = side.astype(object) * found.multiplier + found.offset
            shifted = number << -found.shift if found.shift < 0 else number
            ends.append(divide(shifted, 1 << max(0, found.shift), rounding))
        low, high = np.minimum(*ends), np.maximum(*ends)
        if limits[0] is not None:
            low, high = np.maximum(low, limits[0]), np.maximum(high, limits[0])
        if limits[1] is not None:
            low, high = np.minimum(low, limits[1]), np.minimum(high, limits[1])
        if max(int(high.max()), -int(low.min())).bit_length() >= MAX_WIDTH:
            refuse(node, f"must give integers of at most {MAX_WIDTH} bits; put a quantizer before it")
        interval = Interval(low.astype(np.int64), high.astype(np.int64))
        return self.emit(
            Rescale,
            node,
            [value],
            value.tensor.shape,
            interval,
            scale,
            value.order,
            name=name or (node.name if source else f"{value.tensor.name}_exact"),
            source=source,
            width=width,
            multiplier=found.multiplier,
            offset=found.offset,
            shift=found.shift,
            rounding=rounding,
            minimum=interval.least if limits[0] is None else limits[0],
            maximum=interval.largest if limits[1] is None else limits[1],
        )

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of every tensor of the file that was met, with a batch of 1 where there is one."""
        return {
            **{name: array.shape for name, array in self.raw.items()},
            **{name: constant.integers.shape for name, constant in self.quantized.items()},
            **{name: (1, *value.shape) for name, value in self.values.items()},
        }

    def interval(self, value: Value) -> Interval:
        return self.intervals[value.tensor.name]

    def laid_out(
        self, node: FileNode, value: Value, order: np.ndarray, shape: tuple[int, ...], what: str
    ) -> Value:
        """Return the bare value as a tensor of ``shape`` whose elements the file has in ``order``.

        Raises:
            UnsupportedError: the file has them in another order.
        """
        value = self.bare(node, value)
        if not same_order(value.order, order):
            refuse(node, f"must read {what}, not a tensor that a Transpose or Reshape put into another order; "
                         "leave the layout to the flow")  # fmt: skip
        return self.reshaped(node, value, shape)

    def reshaped(self, node: FileNode, value: Value, shape: tuple[int, ...]) -> Value:
        """Return the value with its tensor under another shape; scales a channel must go on to be scales a channel."""
        held = value.tensor
        if held.shape == shape:
            return value
        times = shape[-1] // held.shape[-1]
        label = tuple(Fraction(factor) * two_to(-held.dtype.fraction_bits) for factor in held.scale)
        parts = [label, value.scale, value.offset]
        if times * held.shape[-1] != shape[-1]:
            if any(len(part) > 1 for part in parts):
                refuse(
                    node, "must read one scale a tensor, not one a channel; quantize a tensor with one scale"
                )
            times = 1
        label, scale, offset = (part * (1 if len(part) == 1 else times) for part in parts)
        made = self.emit(
            Reshape, node, [value], shape, self.interval(value).tiled(shape[-1]), label, value.order,
            name=value.moved or f"{held.name}_as_{'x'.join(map(str, shape))}", fraction_bits=held.dtype.fraction_bits,
        )  # fmt: skip
        return replace(value, tensor=made.tensor, scale=scale, offset=offset)

    def vector(self, node: FileNode, value: Value) -> Value:
        """Return a value as a tensor of one dimension; its order stays."""
        return self.reshaped(node, value, (math.prod(value.tensor.shape),))

    def by_channel(self, node: FileNode, value: Value, numbers: np.ndarray) -> tuple[Value, Factors]:
        """Return the numbers that a constant has for each channel of a value's tensor.

        A vector whose tensor is an image yet becomes a tensor of one dimension.
        """
        if numbers.size == 1:
            return value, (numbers.reshape(-1)[0],)
        if numbers.ndim == len(value.shape) + 1 and numbers.shape[0] == 1:
            numbers = numbers[0]
        try:
            place = np.broadcast_to(np.arange(numbers.size).reshape(numbers.shape), value.shape)
        except ValueError:
            refuse(
                node,
                f"must have a constant that fits {list(value.shape)}, not {list(numbers.shape)}; export it anew",
            )
        flat = np.empty(value.order.size, dtype=np.int64)
        flat[value.order.reshape(-1)] = place.reshape(-1)
        rows = flat.reshape(-1, value.tensor.shape[-1])
        if not (rows == rows[0]).all():
            if len(value.shape) > 1:
                refuse(node, "must have one number, or one a channel, not one an element; change the network")
            return self.by_channel(node, self.vector(node, value), numbers)
        return value, merged(tuple(numbers.reshape(-1)[rows[0]]))


def _common(numbers: Sequence[Fraction]) -> Fraction:
    """Return the largest number that all are whole multiples of."""
    found = Fraction(0)
    for number in numbers:
        top = math.gcd(found.numerator * number.denominator, number.numerator * found.denominator)
        found = Fraction(top, found.denominator * number.denominator)
    return found or Fraction(1)
