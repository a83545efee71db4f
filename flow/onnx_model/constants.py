"""What a file computes from constants alone: done once, with numpy, for few operators and small results."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from flow.errors import ConfigError, UnsupportedError
from flow.onnx_model.files import array_of

MAX_VALUES = 1 << 28
"""Largest tensor, in numbers, that is computed; a gigabyte of float32."""

Array = np.ndarray
Attributes = Mapping[str, Any]


def attributes_of(node: Any) -> dict[str, Any]:
    """Return a node's attributes as numbers, texts, lists and arrays."""
    from onnx import helper

    found = {}
    for entry in node.attribute:
        value = helper.get_attribute_value(entry)
        if hasattr(value, "dims"):
            value = array_of(value)
        found[entry.name] = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    return found


def fold(node: Any, inputs: Sequence[Array | None], opset: int, where: str) -> list[Array]:
    """Return what a node makes of constants.

    Args:
        node: a node of the file, or one as `flow.qonnx.FileNode`.
        inputs: its inputs, None where one is left out.
        opset: version of the operators.
        where: how errors name the node.

    Raises:
        UnsupportedError: the operator is not one of `FOLDABLE`.
        ConfigError: shapes or numbers do not fit the operator, or the result is too large.
    """
    if node.op_type not in FOLDABLE:
        raise UnsupportedError(
            f"onnx: {where} must read a tensor that depends on the input, not constants alone; "
            "export the network with constants folded"
        )
    options = node.attributes if hasattr(node, "attributes") else attributes_of(node)
    try:
        with np.errstate(all="ignore"):
            found = FOLDABLE[node.op_type](options, opset, *inputs)
    except (ValueError, IndexError, TypeError, ZeroDivisionError, AttributeError, KeyError) as error:
        raise ConfigError(
            f"onnx: {where} must fit its constants, not fail with {type(error).__name__}: {error}; export it anew"
        ) from error
    results = found if isinstance(found, list) else [found]
    return [np.asarray(result) for result in results]


def _axes(attributes: Attributes, given: Array | None) -> list[int] | None:
    if given is not None:
        return [int(axis) for axis in given.reshape(-1)]
    axes = attributes.get("axes")
    return None if axes is None else [int(axis) for axis in axes]


def _constant(attributes: Attributes, opset: int) -> Array:
    if "value" in attributes:
        return np.asarray(attributes["value"])
    for name, dtype in (("float", np.float32), ("int", np.int64)):
        for key in (f"value_{name}", f"value_{name}s"):
            if key in attributes:
                return np.asarray(attributes[key], dtype=dtype)
    raise ValueError("a constant without a value")


def _cast(attributes: Attributes, opset: int, x: Array) -> Array:
    from onnx import helper

    return x.astype(helper.tensor_dtype_to_np_dtype(attributes["to"]))


def _filled(attributes: Attributes, opset: int, shape: Array) -> Array:
    extents = [int(extent) for extent in shape.reshape(-1)]
    if math.prod(extents) > MAX_VALUES or any(extent < 0 for extent in extents):
        raise ValueError(f"shape {extents}")
    value = np.asarray(attributes.get("value", np.zeros(1, np.float32)))
    return np.full(extents, value.reshape(-1)[0], dtype=value.dtype)


def _reshape(attributes: Attributes, opset: int, x: Array, shape: Array | None = None) -> Array:
    wanted = [int(v) for v in (attributes["shape"] if shape is None else shape)]
    return x.reshape(
        [x.shape[i] if v == 0 and not attributes.get("allowzero") else v for i, v in enumerate(wanted)]
    )


def _slice(attributes: Attributes, opset: int, x: Array, *given: Array | None) -> Array:
    starts, ends, axes, steps = slices(attributes, given, x.ndim)
    index = [slice(None)] * x.ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        index[axis] = slice(start, end if end >= -x.shape[axis] or step > 0 else None, step)
    return x[tuple(index)]


def slices(attributes: Attributes, given: Sequence[Array | None], rank: int) -> tuple[list[int], ...]:
    """Return starts, ends, axes (from 0 on) and steps of a Slice, from attributes or from constants."""
    found = [_axes({"axes": attributes.get(key)}, None) for key in ("starts", "ends", "axes")] + [None]
    for place, value in enumerate(given):
        if value is not None:
            found[place] = [int(v) for v in value.reshape(-1)]
    starts, ends = found[0] or [], found[1] or []
    axes = [axis % rank for axis in (found[2] or range(len(starts)))]
    return starts, ends, axes, found[3] or [1] * len(starts)


def _squeeze(attributes: Attributes, opset: int, x: Array, axes: Array | None = None) -> Array:
    found = _axes(attributes, axes)
    return np.squeeze(x, None if found is None else tuple(found))


def _unsqueeze(attributes: Attributes, opset: int, x: Array, axes: Array | None = None) -> Array:
    return np.asarray(np.expand_dims(x, tuple(_axes(attributes, axes) or ())))


def _divide(attributes: Attributes, opset: int, a: Array, b: Array) -> Array:
    if a.dtype.kind not in "iu":
        return np.asarray(a / b)
    if not b.all():
        raise ZeroDivisionError("division by 0")
    quotient = np.abs(a) // np.abs(b)
    return np.asarray(np.where((a < 0) != (b < 0), -quotient, quotient).astype(a.dtype))


def _expand(attributes: Attributes, opset: int, x: Array, shape: Array) -> Array:
    extents = np.broadcast_shapes(x.shape, tuple(int(v) for v in shape))
    if math.prod(extents) > MAX_VALUES:
        raise ValueError(f"shape {extents}")
    return np.broadcast_to(x, extents)


def _range(attributes: Attributes, opset: int, start: Array, limit: Array, delta: Array) -> Array:
    if abs(float(limit) - float(start)) > MAX_VALUES * abs(float(delta)):
        raise ValueError(f"more than {MAX_VALUES} numbers")
    return np.arange(start.item(), limit.item(), delta.item()).astype(start.dtype)


def _gather(attributes: Attributes, opset: int, x: Array, indices: Array) -> Array:
    axis = attributes.get("axis", 0)
    if indices.size * x.size // max(1, x.shape[axis]) > MAX_VALUES:
        raise ValueError(f"{indices.size} indices")
    return np.take(x, indices.astype(np.int64), axis)


def _where(attributes: Attributes, opset: int, condition: Array, a: Array, b: Array) -> Array:
    if math.prod(np.broadcast_shapes(condition.shape, a.shape, b.shape)) > MAX_VALUES:
        raise ValueError(f"shapes {condition.shape}, {a.shape} and {b.shape}")
    return np.where(condition, a, b)


def _shape(attributes: Attributes, opset: int, x: Array) -> Array:
    return shape_of(x.shape, attributes)


def shape_of(shape: Sequence[int], attributes: Attributes) -> Array:
    """Return what the operator Shape gives of a tensor of this shape."""
    return np.array(shape[attributes.get("start", 0) : attributes.get("end")], dtype=np.int64)


def _concat(attributes: Attributes, opset: int, *parts: Array) -> Array:
    if sum(part.size for part in parts) > MAX_VALUES:
        raise ValueError(f"more than {MAX_VALUES} numbers")
    return np.concatenate(parts, attributes.get("axis", 1))


def _plain(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda attributes, opset, *inputs: function(*inputs)


def _small(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function of two arrays that broadcast, with a limit to the result."""

    def checked(attributes: Attributes, opset: int, a: Array, b: Array) -> Any:
        if math.prod(np.broadcast_shapes(a.shape, b.shape)) > MAX_VALUES:
            raise ValueError(f"shapes {a.shape} and {b.shape}")
        return function(attributes, opset, a, b) if function is _divide else function(a, b)

    return checked


FOLDABLE: dict[str, Callable[..., Any]] = {
    "Constant": _constant,
    "Identity": _plain(lambda x: x),
    "Cast": _cast,
    "Shape": _shape,
    "ConstantOfShape": _filled,
    "Transpose": lambda attributes, opset, x: np.transpose(x, attributes.get("perm")),
    "Reshape": _reshape,
    "Slice": _slice,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Gather": _gather,
    "Concat": _concat,
    "Expand": _expand,
    "Range": _range,
    "Add": _small(np.add),
    "Sub": _small(np.subtract),
    "Mul": _small(np.multiply),
    "Div": _small(_divide),
    "Mod": _small(lambda a, b: np.mod(a, b)),
    "Pow": _small(lambda a, b: np.power(a, b).astype(a.dtype)),
    "Equal": _small(np.equal),
    "Min": _small(np.minimum),
    "Max": _small(np.maximum),
    "Where": _where,
    "Neg": _plain(np.negative),
    "Sqrt": _plain(np.sqrt),
    "Reciprocal": _plain(lambda x: (1 / x).astype(x.dtype)),
    "Floor": _plain(np.floor),
    "Ceil": _plain(np.ceil),
    "ReduceProd": lambda attributes, opset, x: np.prod(
        x, axis=tuple(attributes.get("axes", range(x.ndim))), keepdims=bool(attributes.get("keepdims", 1))
    ).astype(x.dtype),
}
"""The operators that are computed from constants, each from (attributes, opset, *inputs)."""
