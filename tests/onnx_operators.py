"""One small ONNX network an operator, or a way of using one, with the modules that it must become."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import helper
from onnx_files import node, weights

IMAGE = (None, 4, 7, 6)
ROW = (None, 4, 9)
VECTOR = (None, 6)


@dataclass(frozen=True)
class Case:
    """Nodes, the shape of the input, the constants, the opset, and the kinds of the network's nodes."""

    nodes: list[Any]
    shape: tuple[int | None, ...]
    constants: dict[str, np.ndarray]
    opset: int
    kinds: list[str]


def case(kinds: str, shape: tuple[int | None, ...], *nodes: Any, opset: int = 13, **constants: Any) -> Case:
    """Return a case; ``kinds`` has spaces between."""
    arrays = {name: np.asarray(value) for name, value in constants.items()}
    return Case(list(nodes), shape, arrays, opset, kinds.split())


def i64(*values: int) -> np.ndarray:
    """Return integers as ONNX takes shapes and axes."""
    return np.array(values, dtype=np.int64)


def f32(*values: float) -> np.ndarray:
    """Return float32 numbers."""
    return np.array(values, dtype=np.float32)


def conv(kinds: str, **options: Any) -> Case:
    """Return a conv of 4 images to 8."""
    return case(kinds, IMAGE, node("Conv", "x", "w", "b", **options), w=weights(8, 4, 3, 3), b=weights(8))


def one(
    kinds: str, kind: str, shape: tuple[int | None, ...] = IMAGE, opset: int = 13, **options: Any
) -> Case:
    """Return a case of one node that reads the input alone."""
    return case(kinds, shape, node(kind, "x", **options), opset=opset)


def norm(count: int) -> dict[str, np.ndarray]:
    """Return scales, shifts, means and variances."""
    return {**{name: weights(count) for name in "shm"}, "v": np.abs(weights(count)) + np.float32(0.1)}


_HALF, _ROOT, _ONE, _SIXTH = np.float32(0.5), np.float32(2**0.5), np.float32(1), 1 / 6
_NORM = ("s", "h", "m", "v")
_PAD = {"pads": [1, 1, 1, 1]}

LAYERS = {
    "conv": conv("Conv2d"),
    "conv padded": conv("Conv2d", pads=[1, 2, 1, 2]),
    "conv padded unevenly": conv("ZeroPad2d Conv2d", pads=[0, 1, 2, 1]),
    "conv same upper": conv("ZeroPad2d Conv2d", auto_pad="SAME_UPPER", strides=[2, 2]),
    "conv same lower": conv("ZeroPad2d Conv2d", auto_pad="SAME_LOWER", strides=[2, 2]),
    "conv valid": conv("Conv2d", auto_pad="VALID"),
    "conv dilated": conv("Conv2d", dilations=[2, 1], strides=[1, 2], pads=[2, 0, 2, 0]),
    "conv grouped": case("Conv2d", IMAGE, node("Conv", "x", "w", group=2), w=weights(6, 2, 3, 3)),
    "conv depthwise": case("Conv2d", IMAGE, node("Conv", "x", "w", group=4), w=weights(4, 1, 3, 3)),
    "conv 1d": case("ZeroPad1d Conv1d", ROW, node("Conv", "x", "w", pads=[1, 2]), w=weights(5, 4, 4)),
    "transposed": case(
        "ConvTranspose2d",
        IMAGE,
        node("ConvTranspose", "x", "w", "b", strides=[2, 2], output_padding=[1, 0], **_PAD),
        w=weights(4, 5, 3, 3),
        b=weights(5),
    ),
    "transposed, cropped less at the end": case(
        "ConvTranspose2d",
        IMAGE,
        node("ConvTranspose", "x", "w", strides=[2, 2], pads=[1, 1, 0, 0]),
        w=weights(4, 5, 3, 3),
    ),
    "transposed, grouped, same": case(
        "ConvTranspose2d",
        IMAGE,
        node("ConvTranspose", "x", "w", strides=[2, 2], group=2, auto_pad="SAME_UPPER"),
        w=weights(4, 3, 4, 4),
    ),
    "transposed to a shape": case(
        "ConvTranspose2d",
        IMAGE,
        node("ConvTranspose", "x", "w", strides=[2, 2], output_shape=[14, 12], auto_pad="SAME_UPPER"),
        w=weights(4, 3, 4, 4),
    ),
    "transposed 1d": case(
        "ConvTranspose1d",
        ROW,
        node("ConvTranspose", "x", "w", strides=[3], dilations=[2]),
        w=weights(4, 2, 3),
    ),
    "gemm": case(
        "Linear",
        VECTOR,
        node("Gemm", "x", "w", "b", alpha=0.5, beta=-2.0, transB=1),
        w=weights(3, 6),
        b=weights(3),
    ),
    "gemm not transposed": case(
        "Linear", VECTOR, node("Gemm", "x", "w", "b"), w=weights(6, 3), b=weights(1, 3)
    ),
    "gemm of one bias": case("Linear", VECTOR, node("Gemm", "x", "w", "b"), w=weights(6, 3), b=weights(1)),
    "gemm of features and samples": case(
        "Linear",
        VECTOR,
        node("Transpose", "x", to="t", perm=[1, 0]),
        node("Gemm", "t", "w", transA=1),
        w=weights(6, 3),
    ),
    "matmul and add": case(
        "Linear",
        VECTOR,
        node("MatMul", "x", "w", to="t"),
        node("Add", "b", "t"),
        w=weights(6, 3),
        b=weights(3),
    ),
    "weights made of constants": case(
        "Linear",
        VECTOR,
        node("Transpose", "w", to="v", perm=[1, 0]),
        node("MatMul", "x", "v"),
        w=weights(3, 6),
    ),
    "scale and shift in the layer before": case(
        "Conv2d",
        IMAGE,
        node("Conv", "x", "w", to="c"),
        node("Mul", "c", "m", to="d"),
        node("Sub", "d", "s", to="e"),
        node("Div", "e", "h"),
        w=weights(8, 4, 3, 3),
        m=weights(8, 1, 1),
        s=weights(1, 8, 1, 1),
        h=np.float32(3),
    ),
    "scale and shift alone": case(
        "BatchNorm2d BatchNorm2d",
        IMAGE,
        node("Mul", "x", "m", to="a"),
        node("Sub", "s", "a"),
        m=np.float32(1 / 255),
        s=weights(4, 1, 1),
    ),
    "a scaled conv that others read too": case(
        "Conv2d BatchNorm2d add",
        IMAGE,
        node("Conv", "x", "w", to="c"),
        node("Mul", "c", "m", to="d"),
        node("Add", "c", "d"),
        w=weights(8, 4, 3, 3),
        m=weights(8, 1, 1),
    ),
    "negative": one("BatchNorm1d", "Neg", VECTOR),
    "batch norm": case(
        "BatchNorm2d", IMAGE, node("BatchNormalization", "x", *_NORM, epsilon=0.01), **norm(4)
    ),
    "batch norm without epsilon": case(
        "BatchNorm1d", VECTOR, node("BatchNormalization", "x", *_NORM, epsilon=0.0), opset=9, **norm(6)
    ),
    "batch norm between an added position": case(
        "BatchNorm1d",
        VECTOR,
        node("Unsqueeze", "x", to="u", axes=[2]),
        node("BatchNormalization", "u", *_NORM, to="n"),
        node("Squeeze", "n", axes=[2]),
        opset=9,
        **norm(6),
    ),
}
ACTIVATIONS = {
    "relu": one("ReLU", "Relu"),
    "leaky relu": one("LeakyReLU", "LeakyRelu", alpha=0.3),
    "prelu a channel": case("PReLU", IMAGE, node("PRelu", "x", "s"), s=weights(4, 1, 1)),
    "prelu of one": case("PReLU", VECTOR, node("PRelu", "x", "s"), s=weights(1)),
    "elu": one("ELU", "Elu", alpha=0.7),
    "selu": one("SELU", "Selu"),
    "sigmoid": one("Sigmoid", "Sigmoid"),
    "tanh": one("Tanh", "Tanh"),
    "hard sigmoid": one("Hardsigmoid", "HardSigmoid", alpha=_SIXTH, beta=0.5),
    "hard swish": one("Hardswish", "HardSwish", opset=14),
    "hard swish as a product": case(
        "Hardswish",
        IMAGE,
        node("HardSigmoid", "x", to="h", alpha=_SIXTH, beta=0.5),
        node("Mul", "x", "h"),
    ),
    "silu": case("SiLU", IMAGE, node("Sigmoid", "x", to="s"), node("Mul", "s", "x")),
    "a sigmoid that others read too": case(
        "Sigmoid mul add",
        IMAGE,
        node("Sigmoid", "x", to="s"),
        node("Mul", "s", "x", to="m"),
        node("Add", "m", "s"),
    ),
    "mish": case(
        "Mish", IMAGE, node("Softplus", "x", to="s"), node("Tanh", "s", to="t"), node("Mul", "x", "t")
    ),
    "softplus": one("Softplus", "Softplus"),
    "relu6": case("ReLU6", IMAGE, node("Clip", "x", "a", "b"), a=np.float32(0), b=np.float32(6)),
    "clip": one("Hardtanh", "Clip", opset=9, min=-0.5, max=0.25),
    "clip from 0": case("ReLU", IMAGE, node("Clip", "x", "a"), a=np.float32(0)),
    "gelu": one("GELU", "Gelu", opset=20),
    "gelu by tanh": one("GELU", "Gelu", opset=20, approximate="tanh"),
    "gelu by erf": case(
        "GELU",
        IMAGE,
        node("Div", "x", "r", to="d"),
        node("Erf", "d", to="e"),
        node("Add", "e", "o", to="a"),
        node("Mul", "x", "a", to="p"),
        node("Mul", "p", "h"),
        r=_ROOT,
        o=_ONE,
        h=_HALF,
    ),
    "gelu by erf, halved first": case(
        "GELU",
        IMAGE,
        node("Mul", "x", "h", to="p"),
        node("Mul", "x", "r", to="d"),
        node("Erf", "d", to="e"),
        node("Add", "o", "e", to="a"),
        node("Mul", "p", "a"),
        r=np.float32(0.5**0.5),
        o=_ONE,
        h=_HALF,
    ),
    "softmax": one("Softmax", "Softmax", VECTOR, axis=-1),
    "softmax over the channels of images": one("Softmax", "Softmax", axis=1),
    "log softmax": one("LogSoftmax", "LogSoftmax", axis=1),
    "softmax of old operators": one("Softmax", "Softmax", VECTOR, opset=11),
    "dropout, identity, cast": case(
        "Dropout",
        IMAGE,
        node("Dropout", "x", to="d"),
        node("Identity", "d", to="i"),
        helper.make_node("Cast", ["i"], ["y"], to=1),
    ),
}
POSITIONS = {
    "max pool": one("MaxPool2d", "MaxPool", kernel_shape=[3, 2], strides=[2, 1], pads=[1, 0, 1, 0]),
    "max pool, more at the end": one(
        "MaxPool2d", "MaxPool", kernel_shape=[2, 3], strides=[2, 2], auto_pad="SAME_UPPER"
    ),
    "max pool of what is not negative": case(
        "ReLU ZeroPad2d MaxPool2d",
        IMAGE,
        node("Relu", "x", to="r"),
        node("MaxPool", "r", kernel_shape=[2, 2], pads=[1, 1, 0, 0]),
    ),
    "max pool, ceil, dilated": one(
        "MaxPool2d", "MaxPool", kernel_shape=[2, 2], strides=[2, 2], dilations=[2, 1], ceil_mode=1
    ),
    "max pool 1d": one("MaxPool1d", "MaxPool", ROW, kernel_shape=[3], strides=[3]),
    "average pool": one("AvgPool2d", "AveragePool", kernel_shape=[3, 3], **_PAD),
    "average pool with its padding": one(
        "AvgPool2d", "AveragePool", kernel_shape=[3, 3], count_include_pad=1, **_PAD
    ),
    "average pool, uneven": one(
        "ZeroPad2d AvgPool2d", "AveragePool", kernel_shape=[3, 3], pads=[0, 1, 1, 1], count_include_pad=1
    ),
    "average pool same": one(
        "AvgPool2d", "AveragePool", kernel_shape=[2, 2], strides=[2, 2], auto_pad="SAME_UPPER"
    ),
    "average pool 1d": one("AvgPool1d", "AveragePool", ROW, kernel_shape=[2], strides=[2]),
    "global average pool": one("AdaptiveAvgPool2d", "GlobalAveragePool"),
    "global max pool": one("AdaptiveMaxPool1d", "GlobalMaxPool", ROW),
    "mean": one("AdaptiveAvgPool2d Flatten", "ReduceMean", axes=[2, 3], keepdims=0),
    "mean of new operators": case(
        "AdaptiveAvgPool2d", IMAGE, node("ReduceMean", "x", "a"), opset=18, a=i64(-1, -2)
    ),
    "pad": case("ZeroPad2d", IMAGE, node("Pad", "x", "p"), p=i64(0, 0, 1, 2, 0, 0, 0, 3)),
    "resize nearest": case(
        "Upsample",
        IMAGE,
        node("Resize", "x", "", "s", coordinate_transformation_mode="asymmetric", nearest_mode="floor"),
        s=f32(1, 1, 2, 3),
    ),
    "resize to a size": case(
        "Upsample", (3, *IMAGE[1:]), node("Resize", "x", "", "", "s"), s=i64(3, 4, 14, 12)
    ),
    "resize linear": case("Upsample", IMAGE, node("Resize", "x", "", "s", mode="linear"), s=f32(1, 1, 2, 2)),
    "upsample": case("Upsample", IMAGE, node("Upsample", "x", "s"), opset=9, s=f32(1, 1, 2, 2)),
}
SHAPES = {
    "flatten": one("Flatten", "Flatten"),
    "reshape": case("Flatten", IMAGE, node("Reshape", "x", "s"), s=i64(0, -1)),
    "reshape by the input's shape": case(
        "Flatten",
        IMAGE,
        node("Shape", "x", to="s"),
        node("Gather", "s", "z", to="n"),
        node("Unsqueeze", "n", "a", to="u"),
        node("Concat", "u", "m", to="t", axis=0),
        node("Reshape", "x", "t"),
        z=np.int64(0),
        a=i64(0),
        m=i64(-1),
    ),
    "pool and squeeze": case(
        "AdaptiveAvgPool2d Flatten",
        IMAGE,
        node("GlobalAveragePool", "x", to="g"),
        node("Squeeze", "g", "a"),
        a=i64(2, 3),
    ),
    "squeeze and excite": case(
        "AdaptiveAvgPool2d Flatten Linear Sigmoid Unflatten mul",
        IMAGE,
        node("GlobalAveragePool", "x", to="g"),
        node("Flatten", "g", to="f"),
        node("MatMul", "f", "w", to="m"),
        node("Reshape", "m", "s", to="r"),
        node("Sigmoid", "r", to="q"),
        node("Mul", "q", "x"),
        w=weights(4, 4),
        s=i64(-1, 4, 1, 1),
    ),
    "channel shuffle": case(
        "ChannelShuffle",
        IMAGE,
        node("Reshape", "x", "a", to="r"),
        node("Transpose", "r", to="t", perm=[0, 2, 1, 3, 4]),
        node("Reshape", "t", "b"),
        a=i64(-1, 2, 2, 7, 6),
        b=i64(-1, 4, 7, 6),
    ),
    "concat": case("ReLU cat", IMAGE, node("Relu", "x", to="r"), node("Concat", "x", "r", "x", axis=1)),
    "sum": case("ReLU add add", IMAGE, node("Relu", "x", to="r"), node("Sum", "x", "r", "x")),
    "residual": case(
        "Conv2d add",
        IMAGE,
        node("Conv", "x", "w", to="c", **_PAD),
        node("Add", "c", "x"),
        w=weights(4, 4, 3, 3),
    ),
    "slice": case("narrow", IMAGE, node("Slice", "x", "a", "b", "c"), a=i64(1), b=i64(3), c=i64(1)),
    "slice of old operators": one("narrow", "Slice", opset=9, starts=[-3], ends=[99], axes=[1]),
    "split": case(
        "narrow narrow cat",
        IMAGE,
        node("Split", "x", "s", to="a b", axis=1),
        node("Concat", "b", "a", axis=1),
        s=i64(1, 3),
    ),
    "split alike": case(
        "narrow narrow add", IMAGE, node("Split", "x", to="a b", axis=1), node("Add", "b", "a"), opset=11
    ),
}
CASES = {**LAYERS, **ACTIVATIONS, **POSITIONS, **SHAPES}
