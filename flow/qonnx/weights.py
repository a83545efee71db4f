"""The integers that a QONNX file's quantizers give for its weights."""

from __future__ import annotations

from typing import Any

import numpy as np

from flow.errors import UnsupportedError
from flow.onnx_model.constants import attributes_of
from flow.qonnx.graph import compute_nodes
from flow.types import Coded, FixedPoint


def weights(model: Any) -> dict[tuple[str, str], Coded]:
    """Return the integers of every Conv and Gemm node, by (node name, ``weight`` or ``bias``), in the graph's order.

    Raises:
        UnsupportedError: a number has no quantizer, a scale is no power of two, or a zero point is not 0.
    """
    return {
        (node.name, kind): _integers(model, f"{node.name}.{kind}", source)
        for node in compute_nodes(model)
        if node.op_type in ("Conv", "Gemm", "MatMul")
        for kind, source in zip(("weight", "bias"), node.input[1:], strict=False)
        if source
    }


def _integers(model: Any, name: str, source: str) -> Coded:
    """Return what a quantizer of constants gives, in steps of its (smallest) scale."""
    node = model.find_producer(source)
    if node is None or node.op_type not in ("Quant", "BipolarQuant"):
        raise UnsupportedError(
            f"qonnx: numbers of {name!r} must come from a quantizer, not from none; quantize with flow.quantize"
        )
    real, scale, zero, width = constant(model, node)
    mantissa, exponent = np.frexp(scale.astype(np.float64))
    if (mantissa != 0.5).any() or zero.any():
        raise UnsupportedError(
            f"qonnx: scales of {name!r} must be powers of two without a zero point, not {scale.tolist()} and "
            f"{zero.tolist()}; quantize with flow.quantize"
        )
    fraction = 1 - int(exponent.min())
    lsb = np.ldexp(real.astype(np.float64), fraction)
    width += int(exponent.max() - exponent.min())
    signed = (
        bool((lsb < 0).any()) or node.op_type == "BipolarQuant" or bool(attributes_of(node).get("signed"))
    )
    dtype = FixedPoint(signed, width - fraction, fraction)
    if width > 32 or not np.array_equal(np.clip(np.rint(lsb), dtype.minimum_lsb, dtype.maximum_lsb), lsb):
        raise UnsupportedError(
            f"qonnx: numbers of {name!r} must be integers of at most 32 bits, not lie between or beyond; "
            "lower the widths"
        )
    return Coded(lsb.astype(np.int32), dtype)


def constant(model: Any, node: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Return what a quantizer of constants gives, its scale, its zero point, and its bits."""
    from qonnx.custom_op.general.quant import quant

    values, scale, *more = (model.get_initializer(name) for name in node.input)
    if node.op_type == "BipolarQuant":
        return np.where(values >= 0, scale, -scale), scale, np.zeros(1), 2
    options = attributes_of(node)
    real = quant(values, scale, *more, options["signed"], options["narrow"], options["rounding_mode"])
    return real, scale, more[0], int(more[1].item())
