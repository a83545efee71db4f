"""QONNX networks for the tests, node by node: every operator, at any width, with adversarial weights.

A `Net` is built from the input on; each method adds one layer and returns the name of its tensor::

    net = Net()
    x = net.input((2, 8, 8), bits=8)
    x = net.relu(net.conv(x, 5, kernel=3, weight_bits=4, per_channel=True))
    model = net.model(net.quant(x, bits=6, signed=False))

and `network` gives whole networks of one operator between two quantizers, at any width: ``network("Conv2d dilated",
Bits(weight=2, activation=6))``; `NETWORKS` lists them. Weights hold the ends of their range, a channel of zeros, one
that sums to zero, and random numbers. Scales are powers of two, or, with ``free=True``, are not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from flow import qonnx

LAST = "qonnx.custom_op.channels_last"
DOMAINS = ("qonnx.custom_op.general", "finn.custom_op.general", "onnx.brevitas")
Shape = tuple[int, ...]


class Net:
    """A QONNX network under construction; shapes have no batch."""

    def __init__(self, seed: int = 0, *, domain: str = DOMAINS[0], opset: int = 14) -> None:
        self.rng = np.random.default_rng(seed)
        self.domain, self.opset = domain, opset
        self.nodes: list[Any] = []
        self.constants: dict[str, np.ndarray] = {}
        self.shapes: dict[str, Shape] = {}
        self.inputs: dict[str, Shape] = {}
        self._counts: dict[str, int] = {}
        self._scales: dict[str, np.ndarray] = {}
        self._fixed: set[str] = set()

    # ------------------------------------------------------------ the pieces

    def fixed(self, kind: str, inputs: Sequence[str], shape: Shape, **options: Any) -> str:
        """Add a node of constants alone, which has no batch; returns its output."""
        made = self.node(kind, inputs, shape, **options)
        self._fixed.add(made)
        return made

    def node(
        self,
        kind: str,
        inputs: Sequence[str],
        shape: Shape,
        *,
        domain: str = "",
        name: str = "",
        **options: Any,
    ) -> str:
        """Add any node; returns its output."""
        name = name or self._name(kind.lower())
        self.nodes.append(
            helper.make_node(kind, list(inputs), [f"{name}_out"], name=name, domain=domain, **options)
        )
        self.shapes[f"{name}_out"] = tuple(shape)
        return f"{name}_out"

    def constant(self, values: Any, dtype: Any = np.float32) -> str:
        """Add numbers; returns their name."""
        name = self._name("constant")
        self.constants[name] = np.asarray(values, dtype=dtype)
        return name

    def scale(self, power: int, count: int = 0, *, free: bool = False) -> np.ndarray:
        """Return a scale near 2**power: one, or ``count`` different ones; powers of two, or not at all."""
        size = count or 1
        made = 2.0 ** (power - (np.arange(size) % 3))
        if free:
            made = made * (0.7 + 0.6 * self.rng.random(size))
        return made.astype(np.float32) if count else made.astype(np.float32).reshape(())

    def input(self, shape: Shape, *, bits: int = 8, signed: bool = True, power: int = -6, free: bool = False,
              narrow: bool = False, quantized: bool = True, name: str = "") -> str:  # fmt: skip
        """Add an input, with the quantizer that gives it its type."""
        name = name or self._name("input")
        self.inputs[name] = self.shapes[name] = tuple(shape)
        if not quantized:
            return name
        return self.quant(name, bits=bits, signed=signed, power=power, free=free, narrow=narrow)

    def quant(self, x: str, *, bits: int = 8, signed: bool = True, narrow: bool = False, power: int = -4,
              rounding: str = "ROUND", per_channel: bool = False, free: bool = False, kind: str = "Quant",
              scale: Any = None, zero: float = 0.0, last: bool = False, name: str = "") -> str:  # fmt: skip
        """Add a quantizer of a tensor; ``per_channel``: the channels are first, or, with ``last``, last."""
        shape = self.shapes[x]
        if scale is None:
            scale = self.scale(power, shape[-1 if last else 0] if per_channel else 0, free=free)
            if per_channel and not last:
                scale = scale.reshape(-1, *[1] * (len(shape) - 1))
            if per_channel:
                scale = scale[None] if not last else scale.reshape(*[1] * len(shape), -1)
        if kind == "BipolarQuant":
            return self.node(kind, [x, self.constant(scale)], shape, domain=self.domain, name=name)
        inputs = [x, *(self.constant(value) for value in (scale, zero, bits))]
        options = {"signed": int(signed), "narrow": int(narrow), "rounding_mode": rounding}
        return self.node(kind, inputs, shape, domain=self.domain, name=name, **options)

    def weights(self, shape: Shape, *, bits: int = 8, per_channel: bool = False, free: bool = False, power: int = -4,
                axis: int = 0, raw: bool = False, kind: str = "Quant", narrow: bool = True) -> str:  # fmt: skip
        """Add weights with outputs along ``axis``: random integers, both ends, rows of zeros and of sum zero."""
        integers = np.moveaxis(self.integers(np.moveaxis(np.empty(shape), axis, 0).shape, bits), 0, axis)
        scale = self.scale(power, shape[axis] if per_channel else 0, free=free)
        if per_channel:
            scale = scale.reshape([-1 if place == axis else 1 for place in range(len(shape))])
        real = (integers * scale).astype(np.float32)
        if raw:
            made = self.constant(real)
            self._scales[made] = scale
            return made
        source = self.constant(real)
        self.shapes[source] = tuple(shape)
        if bits == 1:
            kind = "BipolarQuant" if kind == "Quant" else kind
        made = self.quant(source, bits=bits, narrow=narrow and bits > 1, scale=scale, kind=kind)
        self._scales[made] = scale
        return made

    def integers(self, shape: Shape, bits: int) -> np.ndarray:
        """Return weights of a layer, outputs first."""
        if bits == 1:
            return self.rng.choice([-1, 1], shape)
        high = (1 << (bits - 1)) - 1
        made = self.rng.integers(-high, high + 1, shape)
        rows = made.reshape(shape[0], -1)
        for row, fill in enumerate((high, -high, 0)[: max(0, shape[0] - 1)]):
            rows[row] = fill
        if shape[0] > 4 and rows.shape[1] > 1:
            rows[3] = np.where(np.arange(rows.shape[1]) % 2, high, -high)
            if rows.shape[1] % 2:
                rows[3, 0] = 0
        return made

    def bias(self, weight: str, count: int, *, bits: int = 12, power: int | None = None) -> str:
        """Add a quantized bias that has both ends of its range.

        Its steps are those of the products of ``weight`` with an input of steps of 2**-6, or 2**power.
        """
        high = (1 << (bits - 1)) - 1
        values = self.rng.integers(-high, high + 1, count)
        values[: min(2, count)] = [high, -high][: min(2, count)]
        scale = self._scales[weight].reshape(-1) * 2.0**-6 if power is None else np.array(2.0**power)
        scale = scale.astype(np.float32) if scale.size > 1 else scale.astype(np.float32).reshape(())
        source = self.constant(values * scale)
        self.shapes[source] = (count,)
        made = self.quant(source, bits=bits, scale=scale)
        self._fixed.add(made)
        return made

    # ------------------------------------------------------------ layers

    def conv(self, x: str, outputs: int, *, kernel: int | Sequence[int] = 3, strides: int = 1, pads: Any = 0,
             dilations: int = 1, groups: int = 1, weight_bits: int = 4, per_channel: bool = False, free: bool = False,
             bias: bool = True, bias_power: int | None = None, last: bool = False, raw: bool = False,
             name: str = "") -> str:  # fmt: skip
        """Add a Conv1d or Conv2d; ``pads``: one number, or ONNX's (befores, afters)."""
        shape = self.shapes[x]
        count = len(shape) - 1
        kernel = [kernel] * count if isinstance(kernel, int) else list(kernel)
        space = shape[:-1] if last else shape[1:]
        channels = shape[-1] if last else shape[0]
        pads = [pads] * (2 * count) if isinstance(pads, int) else list(pads)
        each = channels // groups
        wanted = (outputs, *kernel, each) if last else (outputs, each, *kernel)
        weight = self.weights(wanted, bits=weight_bits, per_channel=per_channel, free=free, raw=raw)
        inputs = [x, weight]
        if bias:
            inputs.append(self.bias(weight, outputs, power=bias_power))
        extent = [
            (n + pads[i] + pads[i + count] - dilations * (kernel[i] - 1) - 1) // strides + 1
            for i, n in enumerate(space)
        ]
        out = (*extent, outputs) if last else (outputs, *extent)
        return self.node(
            "Conv", inputs, out, domain=LAST if last else "", name=name, kernel_shape=kernel, strides=[strides] * count,
            pads=pads, dilations=[dilations] * count, group=groups,
        )  # fmt: skip

    def dense(self, x: str, outputs: int, *, weight_bits: int = 4, per_channel: bool = False, free: bool = False,
              bias: bool = True, bias_power: int | None = None, kind: str = "Gemm", raw: bool = False,
              name: str = "") -> str:  # fmt: skip
        """Add a Gemm, or (kind MatMul) a MatMul and an Add; the last dimension is the features."""
        shape = self.shapes[x]
        out = (*shape[:-1], outputs)
        options = {"bits": weight_bits, "per_channel": per_channel, "free": free, "raw": raw}
        wanted, axis = ((outputs, shape[-1]), 0) if kind == "Gemm" else ((shape[-1], outputs), 1)
        weight = self.weights(wanted, axis=axis, **options)
        biases = [self.bias(weight, outputs, power=bias_power)] if bias else []
        if kind == "Gemm":
            return self.node("Gemm", [x, weight, *biases], out, name=name, transB=1)
        y = self.node("MatMul", [x, weight], out, name=name)
        return self.node("Add", [y, *biases], out) if bias else y

    def pool(self, x: str, kind: str = "MaxPool", *, kernel: int = 2, strides: int = 2, pads: int = 0,
             last: bool = False, **options: Any) -> str:  # fmt: skip
        """Add a MaxPool or AveragePool."""
        shape = self.shapes[x]
        count = len(shape) - 1
        space = shape[:-1] if last else shape[1:]
        up = strides - 1 if options.get("ceil_mode") else 0
        extent = [(n + 2 * pads - kernel + up) // strides + 1 for n in space]
        out = (*extent, shape[-1]) if last else (shape[0], *extent)
        return self.node(
            kind, [x], out, domain=LAST if last else "", kernel_shape=[kernel] * count, strides=[strides] * count,
            pads=[pads] * (2 * count), **options,
        )  # fmt: skip

    def global_pool(self, x: str, kind: str = "GlobalAveragePool", **options: Any) -> str:
        """Add a GlobalAveragePool, a GlobalMaxPool, or a ReduceMean over all positions."""
        shape = self.shapes[x]
        if kind.startswith("Reduce"):
            axes = list(range(2, len(shape) + 1))
            keep = options.get("keepdims", 1)
            return self.node(kind, [x], (shape[0], *[1] * (len(shape) - 1) * keep), axes=axes, keepdims=keep)
        return self.node(kind, [x], (shape[0], *[1] * (len(shape) - 1)))

    def unary(self, x: str, kind: str, **options: Any) -> str:
        """Add Relu, LeakyRelu, Sigmoid, Tanh, Softmax or any other operator of one tensor that keeps its shape."""
        return self.node(kind, [x], self.shapes[x], **options)

    def relu(self, x: str, name: str = "") -> str:
        return self.node("Relu", [x], self.shapes[x], name=name)

    def clip(self, x: str, low: float = 0.0, high: float = 6.0) -> str:
        """Add a Clip: ReLU6 by default."""
        return self.node("Clip", [x, self.constant(low), self.constant(high)], self.shapes[x])

    def prelu(self, x: str, *, power: int = -3) -> str:
        """Add a PRelu with a slope a channel, one of them negative and one 0."""
        slopes = self.rng.integers(-3, 8, self.shapes[x][0]) * 2.0**power
        slopes[: min(2, len(slopes))] = [0.0, -(2.0**power)][: min(2, len(slopes))]
        return self.node(
            "PRelu", [x, self.constant(slopes.reshape(-1, *[1] * (len(self.shapes[x]) - 1)))], self.shapes[x]
        )

    def batchnorm(self, x: str) -> str:
        """Add a BatchNormalization; a gain is negative, one is 0."""
        count = self.shapes[x][0]
        gain = self.rng.uniform(0.5, 2, count)
        gain[: min(2, count)] = [-0.75, 0.0][: min(2, count)]
        parts = [
            gain,
            self.rng.normal(size=count),
            self.rng.normal(size=count),
            self.rng.uniform(0.2, 3, count),
        ]
        return self.node("BatchNormalization", [x, *map(self.constant, parts)], self.shapes[x])

    def join(self, kind: str, *inputs: str, axis: int = 1) -> str:
        """Add an Add, Sub or Mul of two tensors, or a Concat."""
        if kind != "Concat":
            return self.node(kind, inputs, max((self.shapes[name] for name in inputs), key=np.prod))
        shape = list(self.shapes[inputs[0]])
        shape[axis - 1] = sum(self.shapes[name][axis - 1] for name in inputs)
        return self.node("Concat", inputs, tuple(shape), axis=axis)

    def by(self, kind: str, x: str, values: Any) -> str:
        """Add an Add, Sub, Mul or Div with a constant."""
        return self.node(kind, [x, self.constant(values)], self.shapes[x])

    def flatten(self, x: str, name: str = "") -> str:
        return self.node("Flatten", [x], (int(np.prod(self.shapes[x])),), name=name, axis=1)

    def reshape(self, x: str, shape: Shape) -> str:
        return self.node("Reshape", [x, self.constant([-1, *shape], np.int64)], shape)

    def transpose(self, x: str, perm: Sequence[int]) -> str:
        """Add a Transpose; ``perm`` counts the batch."""
        return self.node("Transpose", [x], tuple(self.shapes[x][p - 1] for p in perm[1:]), perm=list(perm))

    def resize(self, x: str, factor: int = 2, *, last: bool = False, **options: Any) -> str:
        """Add a Resize to the nearest neighbour."""
        shape = self.shapes[x]
        factors = [factor] * len(shape)
        factors[-1 if last else 0] = 1
        options = {
            "mode": "nearest",
            "coordinate_transformation_mode": "asymmetric",
            "nearest_mode": "floor",
            **options,
        }
        inputs = [x, "", self.constant([1, *factors])]
        return self.node(
            "Resize", inputs, tuple(n * f for n, f in zip(shape, factors, strict=True)), **options
        )

    def trunc(self, x: str, *, power: int, bits_in: int, bits_out: int, rounding: str = "FLOOR") -> str:
        """Add a Trunc (version 1)."""
        inputs = [x, *(self.constant(value) for value in (2.0**power, 0.0, bits_in, bits_out))]
        return self.node("Trunc", inputs, self.shapes[x], domain=self.domain, rounding_mode=rounding)

    # ------------------------------------------------------------ the whole

    def proto(self, *outputs: str) -> Any:
        """Return the network as a ``ModelProto`` of batch 1."""
        graph = helper.make_graph(
            self.nodes,
            "test",
            [
                helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, *shape])
                for name, shape in self.inputs.items()
            ],
            [
                helper.make_tensor_value_info(name, self._type(name), [1, *self.shapes[name]])
                for name in outputs
            ],
            [numpy_helper.from_array(value, name) for name, value in self.constants.items()],
            value_info=[
                helper.make_tensor_value_info(node.output[0], TensorProto.FLOAT, self._stated(node.output[0]))
                for node in self.nodes
                if node.output[0] not in outputs
            ],
        )
        domains = {node.domain for node in self.nodes if node.domain}
        opsets = [helper.make_opsetid("", self.opset)]
        opsets += [helper.make_opsetid(name, self.opset if name == LAST else 1) for name in sorted(domains)]
        made = helper.make_model(graph, opset_imports=opsets)
        made.ir_version = 8
        return made

    def model(self, *outputs: str) -> Any:
        """Return the network cleaned, as `flow.fixed.from_qonnx` reads it."""
        with TemporaryDirectory() as folder:
            source, target = Path(folder) / "raw.onnx", Path(folder) / "model.onnx"
            source.write_bytes(self.proto(*outputs).SerializeToString())
            qonnx.clean_named(source, target)
            return qonnx.load(target)

    def _stated(self, name: str) -> list[int]:
        """Return a tensor's shape, with the batch where it depends on the input."""
        fixed = name in self._scales or name in self._fixed
        return [*self.shapes[name]] if fixed else [1, *self.shapes[name]]

    def _type(self, name: str) -> int:
        made = {node.output[0]: node.op_type for node in self.nodes}
        return int(TensorProto.INT64 if made.get(name) == "ArgMax" else TensorProto.FLOAT)

    def _name(self, kind: str) -> str:
        self._counts[kind] = self._counts.get(kind, -1) + 1
        return f"{kind}_{self._counts[kind]}"


# ---------------------------------------------------------------- networks of one operator


@dataclass(frozen=True)
class Bits:
    """Widths and scales of a network of one operator.

    ``free``: the scales of the weights and the output are no powers of two. ``per_channel``: those of the weights.
    """

    weight: int = 4
    activation: int = 8
    output: int = 7
    per_channel: bool = False
    free: bool = False
    bias: bool = True
    raw: bool = False

    @property
    def layer(self) -> dict[str, Any]:
        """The options of a layer with weights."""
        return {
            "weight_bits": self.weight,
            "per_channel": self.per_channel,
            "free": self.free,
            "bias": self.bias,
            "raw": self.raw,
        }


Build = Callable[[Net, str, Bits], str]
IMAGE, SEQUENCE, VECTOR = (4, 7, 6), (4, 9), (6,)


def _two(net: Net, x: str, bits: Bits, kind: str) -> str:
    """Join two convs of one input."""
    sides = [net.quant(net.conv(x, 4, **bits.layer), bits=bits.activation, power=power) for power in (-3, -4)]
    return net.join(kind, *sides)


def _bottleneck(net: Net, x: str, bits: Bits) -> str:
    """Squeeze and excite."""
    y = net.quant(net.global_pool(x), bits=bits.activation, power=-6)
    y = net.quant(net.relu(net.conv(y, 2, kernel=1, **bits.layer)), bits=bits.activation, signed=False)
    y = net.quant(net.conv(y, 4, kernel=1, **bits.layer), bits=bits.activation, power=-5)
    gate = net.quant(net.unary(y, "Sigmoid"), bits=bits.activation, signed=False, power=-8)
    return net.join("Mul", x, gate)


def _silu(net: Net, x: str, bits: Bits) -> str:
    return net.join("Mul", x, net.unary(x, "Sigmoid"))


def _flat_concat(net: Net, x: str, bits: Bits) -> str:
    sides = [net.flatten(net.quant(net.conv(x, n, **bits.layer), bits=bits.activation)) for n in (3, 2)]
    return net.dense(net.join("Concat", *sides), 5, **bits.layer)


NETWORKS: Mapping[str, tuple[Shape, Build]] = {
    "Gemm": (VECTOR, lambda net, x, b: net.dense(x, 5, **b.layer)),
    "MatMul": (VECTOR, lambda net, x, b: net.dense(x, 5, kind="MatMul", **b.layer)),
    "MatMul at positions": ((5, 4), lambda net, x, b: net.dense(x, 3, kind="MatMul", **b.layer)),
    "Conv1d": (SEQUENCE, lambda net, x, b: net.conv(x, 5, **b.layer)),
    "Conv1d strided, padded, dilated": (
        SEQUENCE, lambda net, x, b: net.conv(x, 5, strides=2, pads=(2, 1), dilations=2, **b.layer)),
    "Conv1d depthwise": (SEQUENCE, lambda net, x, b: net.conv(x, 4, groups=4, pads=1, **b.layer)),
    "Conv2d": (IMAGE, lambda net, x, b: net.conv(x, 5, kernel=(3, 2), **b.layer)),
    "Conv2d strided": (IMAGE, lambda net, x, b: net.conv(x, 5, strides=2, pads=(1, 0, 2, 1), **b.layer)),
    "Conv2d dilated": (IMAGE, lambda net, x, b: net.conv(x, 5, dilations=2, pads=2, **b.layer)),
    "Conv2d depthwise": (IMAGE, lambda net, x, b: net.conv(x, 4, groups=4, pads=1, **b.layer)),
    "Conv2d depthwise, multiplied": (IMAGE, lambda net, x, b: net.conv(x, 8, groups=4, **b.layer)),
    "Conv2d grouped": (IMAGE, lambda net, x, b: net.conv(x, 6, groups=2, pads=1, **b.layer)),
    "Conv2d pointwise": (IMAGE, lambda net, x, b: net.conv(x, 5, kernel=1, **b.layer)),
    "MaxPool": (IMAGE, lambda net, x, b: net.pool(x)),
    "MaxPool padded, overlapping": (IMAGE, lambda net, x, b: net.pool(x, kernel=3, strides=2, pads=1)),
    "MaxPool rounded up": (IMAGE, lambda net, x, b: net.pool(x, ceil_mode=1)),
    "MaxPool1d": (SEQUENCE, lambda net, x, b: net.pool(x)),
    "AveragePool": (IMAGE, lambda net, x, b: net.pool(x, "AveragePool")),
    "AveragePool of 9": (IMAGE, lambda net, x, b: net.pool(x, "AveragePool", kernel=3, strides=1)),
    "AveragePool padded": (IMAGE, lambda net, x, b: net.pool(x, "AveragePool", pads=1, count_include_pad=1)),
    "GlobalAveragePool": (IMAGE, lambda net, x, b: net.global_pool(x)),
    "GlobalMaxPool": (IMAGE, lambda net, x, b: net.global_pool(x, "GlobalMaxPool")),
    "ReduceMean": (IMAGE, lambda net, x, b: net.global_pool(x, "ReduceMean", keepdims=0)),
    "Add": (IMAGE, lambda net, x, b: _two(net, x, b, "Add")),
    "Sub": (IMAGE, lambda net, x, b: _two(net, x, b, "Sub")),
    "Mul": (IMAGE, lambda net, x, b: _two(net, x, b, "Mul")),
    "Mul by one position": (IMAGE, _bottleneck),
    "Add of the input to itself": (VECTOR, lambda net, x, b: net.join("Add", x, x)),
    "Concat": (IMAGE, lambda net, x, b: _two(net, x, b, "Concat")),
    "Concat of features": (IMAGE, _flat_concat),
    "Flatten": (IMAGE, lambda net, x, b: net.dense(net.flatten(x), 5, **b.layer)),
    "Reshape": (IMAGE, lambda net, x, b: net.dense(net.reshape(x, (168,)), 5, **b.layer)),
    "Transpose": (IMAGE, lambda net, x, b: net.dense(net.flatten(net.transpose(x, (0, 3, 1, 2))), 5, **b.layer)),
    "Resize": (IMAGE, lambda net, x, b: net.conv(net.resize(x), 3, **b.layer)),
    "Resize by 3, half pixels": (
        IMAGE, lambda net, x, b: net.resize(
            x, 3, coordinate_transformation_mode="half_pixel", nearest_mode="round_prefer_floor")),
    "Relu": (IMAGE, lambda net, x, b: net.relu(net.conv(x, 5, **b.layer))),
    "Relu alone": (IMAGE, lambda net, x, b: net.pool(net.relu(x))),
    "LeakyRelu": (IMAGE, lambda net, x, b: net.unary(net.conv(x, 5, **b.layer), "LeakyRelu", alpha=0.1015625)),
    "PRelu": (IMAGE, lambda net, x, b: net.prelu(net.conv(x, 5, **b.layer))),
    "Clip": (VECTOR, lambda net, x, b: net.clip(net.dense(x, 5, **b.layer), 0, 2.3)),
    "Clip on both sides": (VECTOR, lambda net, x, b: net.clip(net.dense(x, 5, **b.layer), -0.7, 0.9)),
    **{
        kind: (VECTOR, lambda net, x, b, kind=kind: net.unary(x, kind))
        for kind in ("Sigmoid", "Tanh", "HardSigmoid", "HardSwish", "Selu", "Elu", "Softplus", "Softsign", "Erf")
    },
    "x * sigmoid(x)": (VECTOR, _silu),
    "BatchNormalization": (IMAGE, lambda net, x, b: net.batchnorm(net.conv(x, 5, **b.layer))),
    "BatchNormalization, Relu": (IMAGE, lambda net, x, b: net.relu(net.batchnorm(net.conv(x, 5, **b.layer)))),
    "Mul by a constant": (VECTOR, lambda net, x, b: net.by("Mul", x, 0.3)),
    "Div by a constant": (VECTOR, lambda net, x, b: net.by("Div", x, 3)),
    "Mul by a constant a channel": (
        IMAGE, lambda net, x, b: net.by("Mul", x, np.array([0.3, -1.7, 1, 0.5]).reshape(4, 1, 1))),
    "Add of a constant": (VECTOR, lambda net, x, b: net.by("Add", x, np.linspace(-1, 1, 6))),
    "Sub of a constant": (VECTOR, lambda net, x, b: net.by("Sub", net.relu(x), 0.37)),
    "Softmax": (VECTOR, lambda net, x, b: net.unary(net.quant(net.dense(x, 5, **b.layer)), "Softmax", axis=1)),
    "ArgMax": (VECTOR, lambda net, x, b: net.node("ArgMax", [net.dense(x, 5, **b.layer)], (1,), axis=1, keepdims=1)),
}  # fmt: skip
"""Networks of one operator: the input's shape, and what is added behind its quantizer."""
HEADS = ("Softmax", "ArgMax")
"""What no quantizer stands behind."""


def network(
    name: str, bits: Bits | None = None, *, seed: int = 0, last: Build | None = None, **kinds: Any
) -> Any:
    """Return a network of one operator between two quantizers, cleaned.

    Args:
        name: one of `NETWORKS`.
        bits: widths and scales.
        seed: of weights and scales.
        last: what is added behind it in place of a quantizer.
        kinds: options of `Net`, such as the quantizers' ``domain``.
    """
    bits = bits or Bits()
    shape, build = NETWORKS[name]
    net = Net(seed, **kinds)
    y = build(net, net.input(shape, bits=bits.activation), bits)
    if name not in HEADS:
        y = last(net, y, bits) if last else net.quant(y, bits=bits.output, free=bits.free)
    return net.model(y)
