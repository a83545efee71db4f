"""QONNX as integers: what cannot be exact is refused by node, operator and rule."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx_files import weights as floats
from qonnx_files import Net

from flow import qonnx
from flow.errors import UnsupportedError
from flow.fixed.from_qonnx import lower

Build = Callable[[Net], str]


def dense(net: Net, **options: Any) -> str:
    return net.dense(net.input((6,)), 5, **options)


def image(net: Net, **options: Any) -> str:
    return net.conv(net.input((4, 6, 5)), 3, **options)


def raw(net: Net, **parameters: Any) -> str:
    """Add a quantizer of a dense layer's sums whose parameters are as given."""
    values = {"scale": 0.25, "zero": 0.0, "bits": 6.0, **parameters}
    inputs = [dense(net), *(net.constant(value) for value in values.values())]
    return net.node(
        "Quant", inputs, (5,), domain=net.domain, signed=1, narrow=0, rounding_mode="ROUND", name="q"
    )


REFUSED: dict[str, tuple[Build, str]] = {
    "a zero point": (
        lambda net: raw(net, zero=3.0),
        "node 'q' (Quant) must have a zero point of 0, not [3.0]; quantize symmetrically"),
    "a scale of 0": (
        lambda net: raw(net, scale=0.0),
        "node 'q' (Quant) must have positive scales, not [0.0]; quantize it anew"),
    "bits between": (
        lambda net: raw(net, bits=7.5),
        "node 'q' (Quant) must have one whole number of bits from 1 to 32, not [7.5]; quantize it anew"),
    "too many bits": (
        lambda net: raw(net, bits=33.0),
        "node 'q' (Quant) must have one whole number of bits from 1 to 32, not [33.0]; quantize it anew"),
    "a scale that depends on the input": (
        lambda net: (lambda y: net.node("Quant", [y, y, net.constant(0), net.constant(8)], (5,), domain=net.domain,
                                        signed=1, narrow=0, name="q"))(dense(net)),
        "node 'q' (Quant) must have a constant as its scale, not 'gemm_0_out'; export it anew"),
    "rounding away from zero": (
        lambda net: net.quant(dense(net), rounding="UP", name="q"),
        "node 'q' (Quant) must round by one of ROUND, HALF_EVEN, FLOOR, CEIL, DOWN, ROUND_TO_ZERO, HALF_UP, HALF_DOWN, "
        "not by 'UP'; quantize it so"),
    "an input that is rounded down": (
        lambda net: net.quant(net.input((6,), quantized=False), rounding="FLOOR", name="q"),
        "node 'q' (Quant) must round half to even (ROUND), as the input of the hardware does; quantize the input so"),
    "an input that two quantizers read": (
        lambda net: (lambda x: net.join("Add", net.quant(x, name="a"), net.quant(x, bits=4)))(
            net.input((6,), quantized=False, name="x")),
        "node 'a' (Quant) must not read the input 'x' unless it is the one Quant node that does: the hardware's input "
        "has its type; quantize the input"),
    "an unknown operator": (
        lambda net: net.quant(net.node("Slice", [dense(net), net.constant([0], np.int64), net.constant([2], np.int64)],
                                       (2,), name="s")),
        "node 's' (Slice) is not supported; supported operators: "),
    "a foreign domain": (
        lambda net: net.quant(net.node("Relu", [dense(net)], (5,), domain="some.body", name="r")),
        "node 'r' (Relu) must be of ONNX itself, not of the domain 'some.body'; replace it in the network"),
    "a foreign quantizer": (
        lambda net: net.node("Quant", [dense(net), *map(net.constant, (1.0, 0.0, 8.0))], (5,), domain="some.body",
                             signed=1, narrow=0, name="q"),
        "node 'q' (Quant) must be of 'onnx.brevitas' or 'finn.custom_op.general' or 'qonnx.custom_op.general', not of "
        "the domain 'some.body'; replace it in the network"),
    "float weights": (
        lambda net: net.quant(net.node("Gemm", [net.input((6,)), net.constant(floats(5, 6), np.float32)], (5,),
            transB=1,
                                       name="fc")),
        "node 'fc' (Gemm) must have numbers on a power-of-two grid of at most 24 bits as input 1, not the floats of "
        "'constant_3'; put a Quant node behind them"),
    "weights that depend on the input": (
        lambda net: (lambda x: net.quant(net.node("MatMul", [x, x], (4, 4), name="m")))(net.input((4, 4))),
        "node 'm' (MatMul) must have constant weights, not the product of two activations; change the network"),
    "weights on the left": (
        lambda net: net.quant(net.node("MatMul", [net.constant(np.ones((1, 4, 4))), net.input((4, 3))], (4, 3),
            name="m")),
        "node 'm' (MatMul) must have its weights on the right, x * W, not W * x; change the network"),
    "weights of the wrong size": (
        lambda net: net.quant(net.node("Gemm", [net.input((6,)), net.constant(np.ones((5, 7)))], (5,),
            transB=1, name="fc")),
        "node 'fc' (Gemm) must have weights for 6 inputs, not 7; export it anew"),
    "a transposed input": (
        lambda net: net.quant(net.node("Gemm", [net.input((6,)), net.constant(np.ones((5, 6)))], (5,),
            transB=1, transA=1,
                                       name="fc")),
        "node 'fc' (Gemm) must not transpose its input (transA 0); export it anew"),
    "three dimensions": (
        lambda net: net.quant(net.conv(net.reshape(net.input((8, 4, 4)), (2, 4, 4, 4)), 2, name="c")),
        "node 'c' (Conv) must have one or two spatial dimensions, not 3; change the network"),
    "wrong groups": (
        lambda net: net.quant(net.node("Conv", [net.input((4, 5)), net.constant(np.ones((3, 3, 1)))], (3, 5), group=2,
                                       name="c")),
        "node 'c' (Conv) must have weights for 4 channels in 2 groups, not for 3 in each; export it anew"),
    "a kernel larger than the image": (
        lambda net: net.quant(net.node("Conv", [net.input((4, 5)), net.constant(np.ones((3, 4, 7)))], (3, 1),
            name="c")),
        "node 'c' (Conv) must have a kernel within its input of [5], not [7]; export it anew"),
    "a transposed image": (
        lambda net: net.quant(net.conv(net.transpose(image(net), (0, 1, 3, 2)), 2, name="c")),
        "node 'c' (Conv) must read images of channels and positions, not a tensor that a Transpose or Reshape put into "
        "another order; leave the layout to the flow"),
    "the batch moved": (
        lambda net: net.quant(net.transpose(net.input((4,)), (1, 0))),
        "node 'transpose_0' (Transpose) must leave the batch in front, not permute by [1, 0]; change the network"),
    "a dilated pool": (
        lambda net: net.quant(net.node("MaxPool", [image(net)], (3, 2, 1), kernel_shape=[2, 2], dilations=[2,
            2], name="p")),
        "node 'p' (MaxPool) must have dilations of 1, not [2, 2]; change the network"),
    "an average that does not count its padding": (
        lambda net: net.quant(net.node("AveragePool", [image(net)], (3, 5, 4), kernel_shape=[2, 2], pads=[1, 1, 1, 1],
                                       name="p")),
        "node 'p' (AveragePool) must count its padding (count_include_pad 1), or have none; change the network"),
    "an average rounded up": (
        lambda net: net.quant(net.node("AveragePool", [image(net)], (3, 2, 2), kernel_shape=[2, 2], strides=[2, 2],
                                       ceil_mode=1, name="p")),
        "node 'p' (AveragePool) must round its size down (ceil_mode 0): windows at the end would count fewer; "
        "change the network"),
    "a mean over channels": (
        lambda net: net.quant(net.node("ReduceMean", [image(net)], (1, 4, 3), axes=[1], name="m")),
        "node 'm' (ReduceMean) must reduce all positions and no channels, not the axes [1]; change the network"),
    "different scales": (
        lambda net: (lambda x: net.quant(net.node("Add", [net.quant(x), net.quant(x, scale=np.float32(0.3))], (5,),
                                                  name="sum")))(dense(net)),
        "node 'sum' (Add) must read scales that are equal up to powers of two, not 0.0625 and 0.3; share one "
        "quantizer"),
    "a scale a channel before a dense layer": (
        lambda net: net.quant(net.dense(net.quant(dense(net), scale=np.float32([[0.1, 0.2, 0.3, 0.4, 0.5]])), 3,
                                        name="fc")),
        "node 'fc' (Gemm) must read one scale a tensor, not one a channel; quantize its input with one scale"),
    "a constant an element": (
        lambda net: net.quant(net.by("Mul", image(net), np.arange(12).reshape(4, 3))),
        "node 'mul_0' (Mul) must have one number, or one a channel, not one an element; change the network"),
    "a division by an activation": (
        lambda net: (lambda x: net.quant(net.node("Div", [x, net.quant(x)], (5,), name="d")))(dense(net)),
        "node 'd' (Div) must divide by a constant, not by an activation; change the network"),
    "a wide function": (
        lambda net: net.quant(net.unary(net.quant(dense(net), bits=13), "Tanh", name="t")),
        "node 't' (Tanh) must read integers of at most 12 bits, not 13; put a quantizer before it"),
    "a function that nothing rounds": (
        lambda net: net.quant(net.dense(net.unary(net.quant(dense(net)), "Tanh"), 3, name="fc")),
        "node 'fc' (Gemm) must not read a function's result that no quantizer rounds; put a quantizer before it"),
    "a function without a value": (
        lambda net: net.quant(net.unary(net.quant(dense(net)), "Log", name="l")),
        "node 'l' (Log) must give finite numbers for every input, not infinite ones; quantize its input to "
        "another range"),
    "a Softmax over positions": (
        lambda net: net.unary(net.quant(image(net)), "Softmax", axis=1, name="s"),
        "node 's' (Softmax) must read vectors along axis 1, not 3 dimensions along axis 1; put a Flatten before it"),
    "a wide Softmax": (
        lambda net: net.unary(net.quant(dense(net, weight_bits=16), bits=22, power=-12), "Softmax", axis=1, name="s"),
        "node 's' (Softmax) must read integers of at most 20 bits, not 22; put a quantizer before it"),
    "the last of equal numbers": (
        lambda net: net.node("ArgMax", [dense(net)], (1,), axis=1, select_last_index=1, name="a"),
        "node 'a' (ArgMax) must take the first of equal numbers (select_last_index 0); change the network"),
    "linear interpolation": (
        lambda net: net.quant(net.resize(image(net), mode="linear")),
        "node 'resize_0' (Resize) must take the nearest neighbour, not 'linear'; change the network"),
    "half a factor": (
        lambda net: net.quant(net.node("Resize", [image(net), "", net.constant([1, 1, 1.5, 2])], (3, 6, 6),
            mode="nearest",
                                       name="r")),
        "node 'r' (Resize) must have whole factors, not [1.0, 1.5, 2.0]; change the network"),
    "corners that are aligned": (
        lambda net: net.quant(net.resize(image(net), coordinate_transformation_mode="align_corners")),
        "node 'resize_0' (Resize) must repeat every position, not take others (align_corners, floor); "
        "export it as asymmetric and floor"),
    "positions joined": (
        lambda net: (lambda x: net.quant(net.join("Concat", x, x, axis=2)))(image(net)),
        "node 'concat_0' (Concat) must join tensors along their channels, not along positions; change the network"),
    "a BatchNorm at the end": (
        lambda net: net.batchnorm(image(net)),
        "node 'batchnormalization_0_out' (output) must read numbers on one grid, not those of scales that are "
        "no powers "
        "of two; put a quantizer before it"),
    "sums of more than 63 bits": (
        lambda net: (lambda x: net.join("Mul", x, x))(net.dense(net.input((6,), bits=16), 5, weight_bits=16)),
        "node 'mul_0' (Mul) must give integers of at most 63 bits, not 67; put a quantizer before it"),
    "a scale whose exact product is too wide": (
        lambda net: net.quant(net.dense(net.input((6,), bits=16), 5, weight_bits=16), bits=20, power=-9, free=True,
                              name="q"),
        "node 'q' (Quant) must read integers that a multiplier of 64 bits rescales exactly, not 33 bits at this scale; "
        "quantize with powers of two, or put a quantizer before it"),
}  # fmt: skip


def loaded(proto: Any, folder: Path) -> Any:
    """Return a network as the file has it: not cleaned, which some of these do not survive."""
    path = folder / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    return qonnx.load(path)


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_exact_is_refused(name: str, tmp_path: Path) -> None:
    build, message = REFUSED[name]
    net = Net()
    with pytest.raises(UnsupportedError) as error:
        lower(loaded(net.proto(build(net)), tmp_path))
    assert str(error.value).startswith(f"qonnx: {message}")


def test_a_float_network_is_sent_to_quantize(tmp_path: Path) -> None:
    net = Net()
    y = net.node(
        "Gemm", [net.input((6,), quantized=False), net.constant(floats(5, 6))], (5,), transB=1, name="fc"
    )
    with pytest.raises(UnsupportedError) as error:
        lower(loaded(net.proto(y), tmp_path))
    assert str(error.value) == (
        "qonnx: node 'fc' (Gemm) must belong to a quantized network, not to a float one: the file has no Quant node; "
        "take it through the stage quantize"
    )


@pytest.mark.parametrize(
    ("extents", "shown"), [(None, "no shape"), ([1, 6, None, 5], "[1, 6, '?', 5]"), ([6], "[6]")]
)
def test_an_input_without_a_known_shape_is_refused(extents: Any, shown: str, tmp_path: Path) -> None:
    from onnx import TensorProto, helper

    net = Net()
    proto = net.proto(image(net))
    made = helper.make_tensor_value_info(proto.graph.input[0].name, TensorProto.FLOAT, extents)
    proto.graph.input[0].CopyFrom(made)
    with pytest.raises(UnsupportedError) as error:
        lower(loaded(proto, tmp_path))
    assert str(error.value) == (
        f"qonnx: input 'input_0' must be vectors, sequences or images of known size with a batch, not of {shown}; "
        "export it with fixed shapes"
    )


def test_an_output_that_is_a_constant_is_refused(tmp_path: Path) -> None:
    from onnx import TensorProto, helper

    net = Net()
    proto = net.proto(dense(net))
    proto.graph.output.append(
        helper.make_tensor_value_info(next(iter(net.constants)), TensorProto.FLOAT, None)
    )
    with pytest.raises(UnsupportedError) as error:
        lower(loaded(proto, tmp_path))
    assert str(error.value) == (
        "qonnx: output 'constant_0' must depend on the network's input through a node, not be a constant or an input; "
        "leave it out"
    )
