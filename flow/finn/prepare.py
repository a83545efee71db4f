"""What FINN is given: the same network with integers at both ends, biases as numbers, images channels last."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from flow import qonnx
from flow.errors import UnsupportedError
from flow.onnx_model.constants import attributes_of
from flow.onnx_model.runtime import node as make_node

_THROUGH = ("Flatten", "Reshape", "Transpose", "MaxPool", "Relu", "Identity")
_MACS = ("Conv", "Gemm", "MatMul")
MAX_THRESHOLD_BITS = 8
"""FINN's ``max_multithreshold_bit_width``: 255 comparisons a channel; wider quantizers are left to FINN."""


@dataclass(frozen=True)
class Prepared:
    """The file's changes, all of them exact.

    ``input_type``: FINN's name, such as ``INT8``; real input = integer times ``input_lsb``, real output =
    output times ``output_lsb``. ``macs``, ``pools``: names of the layers and sizes of the weights, in order.
    """

    input_type: str
    input_lsb: float
    output_lsb: float
    channels_last: bool
    macs: tuple[tuple[str, int], ...]
    pools: tuple[str, ...]


def prepare(source: Path, target: Path) -> Prepared:
    """Write the graph as FINN takes it.

    The input's quantizer becomes an integer input and its scale, those of activations become thresholds, those of
    biases the numbers that they give; an image enters channels last; the output counts steps of the last accumulator.

    Raises:
        ConfigError: the file cannot be read.
        UnsupportedError: several inputs or outputs, or an input that is not quantized with one power of two.
    """
    model = qonnx.load(source)
    if len(model.graph.input) != 1 or len(model.graph.output) != 1:
        raise UnsupportedError(
            f"finn: the network must have one input and one output, not {len(model.graph.input)} and "
            f"{len(model.graph.output)}; give FINN one head at a time"
        )
    for node in model.graph.node:
        node.doc_string = node.name  # FINN renames every node, and keeps this
    macs = [node for node in model.graph.node if node.op_type in _MACS]
    sized = tuple((node.name, int(np.prod(model.get_tensor_shape(node.input[1])))) for node in macs)
    pools = tuple(node.name for node in model.graph.node if "Pool" in node.op_type)
    output_lsb = _scale(model, model.graph.output[0].name)
    for node in [node for node in model.graph.node if node.op_type == "Quant"]:
        _as_thresholds(model, node)
    input_type, input_lsb = _integer_input(model)
    for node in macs:
        _plain_bias(model, node)
    if output_lsb is not None:
        _count_output(model, output_lsb)
    channels_last = len(model.get_tensor_shape(model.graph.input[0].name)) == 4
    if channels_last:
        _image_channels_last(model)
    model.save(str(target))
    return Prepared(input_type, input_lsb, output_lsb or 1.0, channels_last, sized, pools)


def _attribute(node: Any, key: str) -> Any:
    return attributes_of(node)[key]


def _power_of_two(model: Any, quantizer: Any) -> float | None:
    """Return the scale of a quantizer where it is one power of two without a zero point."""
    scale, zero = (model.get_initializer(name) for name in quantizer.input[1:3])
    if scale is None or scale.size != 1 or zero is None or np.any(zero):
        return None
    value = float(scale.item())
    return value if np.frexp(value)[0] == 0.5 else None


def _scale(model: Any, tensor: str) -> float | None:
    """Return the step of a tensor's values where quantizers and layers with one scale say it."""
    node = model.find_producer(tensor)
    while node is not None and node.op_type in _THROUGH:
        node = model.find_producer(node.input[0])
    if node is None:
        return None
    if node.op_type == "Quant":
        return _power_of_two(model, node)
    if node.op_type == "Mul" and (before := model.find_producer(node.input[0])) is not None:
        known = before.op_type == "MultiThreshold"  # made here, with its step behind it
        return float(model.get_initializer(node.input[1]).item()) if known else None
    if node.op_type in _MACS:
        left, right = (_scale(model, name) for name in node.input[:2])
        return None if left is None or right is None else left * right
    if node.op_type == "Add":
        sides = [_scale(model, name) for name in node.input if model.find_producer(name) is not None]
        known = [side for side in sides if side is not None]
        return min(known) if known and len(known) == len(sides) else None
    return None


def _integer_input(model: Any) -> tuple[str, float]:
    """Put the input's scale in the place of its quantizer; return the type of its integers and the scale."""
    graph, name = model.graph, model.graph.input[0].name
    readers = model.find_consumers(name)
    lsb = _power_of_two(model, readers[0]) if [r.op_type for r in readers] == ["Quant"] else None
    if lsb is None:
        raise UnsupportedError(
            f"finn: input {name!r} must be read by one Quant node with one power of two as its scale and zero point 0, "
            f"not by {', '.join(r.op_type for r in readers)}; quantize with flow.quantize"
        )
    quantizer = readers[0]
    bits = int(model.get_initializer(quantizer.input[3]).item())
    kind = f"{'INT' if _attribute(quantizer, 'signed') else 'UINT'}{bits}"
    scaled = make_node("Mul", [name, quantizer.input[1]], list(quantizer.output), name="input_lsb")
    scaled.doc_string = quantizer.name
    place = list(graph.node).index(quantizer)
    graph.node.remove(quantizer)
    graph.node.insert(place, scaled)
    model.set_tensor_datatype(name, qonnx.datatype(kind))
    return kind, lsb


def _as_thresholds(model: Any, quantizer: Any) -> None:
    """Put thresholds in the place of an activation's quantizer, ties to even; FINN's own would round ties up.

    Level q is reached at (q - 1/2) of its step; there an odd q is not reached, and the values before are on a grid of
    their own, so that half a step of the finer grid is added.
    """
    before = model.find_producer(quantizer.input[0])
    grid, step = _scale(model, quantizer.input[0]), _power_of_two(model, quantizer)
    bits = int(model.get_initializer(quantizer.input[3]).item())
    signed, narrow = (bool(_attribute(quantizer, key)) for key in ("signed", "narrow"))
    if before is None or grid is None or step is None or narrow or bits > MAX_THRESHOLD_BITS:
        return
    if _attribute(quantizer, "rounding_mode") != "ROUND" or (signed and before.op_type == "Relu"):
        return
    low = -(2 ** (bits - 1)) if signed else 0
    levels = np.arange(low + 1, low + 2**bits)
    thresholds = (levels - 0.5) * step + (levels % 2) * min(grid, step) / 2
    name = f"{quantizer.name}_thresholds"
    model.set_initializer(name, thresholds.astype(np.float32)[None])
    source = (
        before.input[0] if before.op_type == "Relu" else quantizer.input[0]
    )  # below 0 no level is reached
    made = make_node(
        "MultiThreshold",
        [source, name],
        [f"{name}_levels"],
        name=quantizer.name,
        doc_string=quantizer.name,
        domain="qonnx.custom_op.general",
        out_dtype=f"{'INT' if signed else 'UINT'}{bits}",
        out_bias=float(low),
        data_layout="NCHW" if len(model.get_tensor_shape(source)) == 4 else "NC",
    )
    place = list(model.graph.node).index(quantizer)
    model.graph.node.remove(quantizer)
    model.graph.node.insert(place, made)
    scaled = make_node(
        "Mul", [f"{name}_levels", quantizer.input[1]], list(quantizer.output), name=f"{name}_step"
    )
    model.graph.node.insert(place + 1, scaled)
    model.set_tensor_shape(f"{name}_levels", model.get_tensor_shape(source))
    if before.op_type == "Relu" and not model.find_consumers(before.output[0]):
        model.graph.node.remove(before)


def _plain_bias(model: Any, node: Any) -> None:
    """Put the numbers in the place of a bias's quantizer: qonnx 1.0.0 fails on one scale for all biases of a conv."""
    quantizer = model.find_producer(node.input[2]) if len(node.input) > 2 else None
    if quantizer is None or quantizer.op_type != "Quant":
        return
    if model.get_initializer(quantizer.input[0]) is None:
        return
    numbers = qonnx.constant(model, quantizer)[0]
    model.graph.node.remove(quantizer)
    model.set_initializer(quantizer.output[0], numbers.astype(np.float32))


def _count_output(model: Any, lsb: float) -> None:
    """Divide the output by its step, so that no float operator is left at the end."""
    output = model.graph.output[0].name
    inner = f"{output}_real"
    shape = model.get_tensor_shape(output)
    model.find_producer(output).output[0] = inner
    model.set_tensor_shape(inner, shape)
    model.set_initializer("output_lsb_inverse", np.float32(1 / lsb))
    counted = make_node("Mul", [inner, "output_lsb_inverse"], [output], name="output_lsb")
    counted.doc_string = "output"
    model.graph.node.append(counted)


def _image_channels_last(model: Any) -> None:
    """Let an image enter as NHWC, as FINN streams it."""
    graph, name = model.graph, model.graph.input[0].name
    n, c, h, w = model.get_tensor_shape(name)
    kind = model.get_tensor_datatype(name)
    inner = f"{name}_nchw"
    for reader in model.find_consumers(name):
        reader.input[list(reader.input).index(name)] = inner
    turned = make_node("Transpose", [name], [inner], name="input_nchw", perm=[0, 3, 1, 2])
    turned.doc_string = "input"
    graph.node.insert(0, turned)
    model.set_tensor_shape(inner, [n, c, h, w])
    model.set_tensor_datatype(inner, kind)
    model.set_tensor_shape(name, [n, h, w, c])
    model.set_tensor_layout(name, ["N", "H", "W", "C"])
