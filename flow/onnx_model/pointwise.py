"""Nodes that treat each value by itself: activations, sums, products, constants a channel."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import numpy as np

from flow.onnx_model.building import Builder, Step
from flow.onnx_model.layers import scaled
from flow.onnx_model.layouts import Tensor

if TYPE_CHECKING:
    from torch import nn

_GATES = {"Sigmoid": "SiLU", "Hardsigmoid": "Hardswish"}
"""x * gate(x) is one module."""
_CLOSE = 1e-6
"""How near an option must be to the one that a module has built in: files hold float32."""


def activation(builder: Builder, step: Step) -> Tensor:
    """A node with one input that has a module of its own."""
    source = step.tensor()
    return builder.call(step, _module(step), source)


def _module(step: Step) -> nn.Module:
    from torch import nn

    name, options = step.node.op_type, step.options
    plain = {"Relu": nn.ReLU, "Sigmoid": nn.Sigmoid, "Tanh": nn.Tanh, "Softplus": nn.Softplus}
    plain |= {"HardSwish": nn.Hardswish, "Mish": nn.Mish}
    if name in plain:
        return plain[name]()
    if name == "LeakyRelu":
        return nn.LeakyReLU(options.get("alpha", 0.01))
    if name == "Elu":
        return nn.ELU(options.get("alpha", 1.0))
    if name == "Gelu":
        return nn.GELU(approximate=options.get("approximate", "none"))
    if name == "Selu":
        _like(
            step,
            ("alpha", 1.6732632423543772, 1.6732632423543772),
            ("gamma", 1.0507009873554805, 1.0507009873554805),
        )
        return nn.SELU()
    _like(step, ("alpha", 0.2, 1 / 6), ("beta", 0.5, 0.5))
    return nn.Hardsigmoid()


def _like(step: Step, *rules: tuple[str, float, float]) -> None:
    """Refuse options (name, default) that are not what the module has built in."""
    for name, default, wanted in rules:
        value = step.options.get(name, default)
        if abs(value - wanted) > _CLOSE:
            raise step.unsupported(f"must have {name} {wanted:.6g}, not {value:.6g}")


def clip(builder: Builder, step: Step) -> Tensor:
    """Clip: ReLU, ReLU6 or Hardtanh."""
    from torch import nn

    low, high = (
        (step.setting(key, i) or [default])[0]
        for key, i, default in (("min", 1, -np.inf), ("max", 2, np.inf))
    )
    huge = float(np.finfo(np.float32).max)
    if low == 0 and high >= huge:
        return builder.call(step, nn.ReLU(), step.tensor())
    if low <= -huge or high >= huge or low >= high:
        raise step.unsupported(f"must have two bounds, the lower one first, not {low:g} and {high:g}")
    return builder.call(step, nn.ReLU6() if (low, high) == (0, 6) else nn.Hardtanh(low, high), step.tensor())


def prelu(builder: Builder, step: Step) -> Tensor:
    """PRelu with one slope, or one a channel."""
    import torch
    from torch import nn

    source = step.tensor()
    slope = step.constant(1)
    if slope is None:
        raise step.broken("must have slopes, not lack them")
    values = np.unique(slope) if slope.size == 1 else per_channel(step, slope, source)
    made = nn.PReLU(len(values))
    with torch.no_grad():
        made.weight.copy_(torch.from_numpy(np.array(values)))
    return builder.call(step, made, source)


def softmax(builder: Builder, step: Step) -> Tensor:
    """Softmax and LogSoftmax over channels."""
    from torch import nn

    source = step.tensor()
    if builder.opset < 13:  # over all axes from this one on, as one
        axis = int(step.options.get("axis", 1)) % len(source.axes)
        over = [a for a in source.axes[axis:] if a is not None and (a == 0 or source.shape[a - 1] > 1)]
        found = over[0] if len(over) == 1 else 1 if not over else None
    else:
        found = step.axis(source, int(step.options.get("axis", -1)))
    if found != 1:
        raise step.unsupported("must be over the channels, not over other axes")
    made = nn.LogSoftmax if step.node.op_type == "LogSoftmax" else nn.Softmax
    return builder.call(step, made(dim=1), source)


def dropout(builder: Builder, step: Step) -> Tensor:
    """Dropout: nothing in evaluation mode, there when the network is trained further."""
    from torch import nn

    mode = step.constant(2)
    if mode is not None and bool(mode.any()):
        raise step.unsupported("must not drop values", "export in evaluation mode")
    ratio = float((step.setting("ratio", 1) or [0.5])[0])
    if not 0 <= ratio <= 1:
        raise step.broken(f"must have a ratio from 0 to 1, not {ratio}")
    return builder.call(step, nn.Dropout(ratio), step.tensor())


def identity(builder: Builder, step: Step) -> Tensor:
    """Identity, and Cast to what the tensor is already."""
    if step.node.op_type == "Cast" and step.options.get("to") != 1:
        raise step.unsupported("must leave values float32, not convert them")
    return step.tensor()


def add(builder: Builder, step: Step) -> Tensor:
    """Add of two tensors, or of one number a channel."""
    found = _with_constant(builder, step)
    return _sum(builder, step) if found is None else found


def subtract(builder: Builder, step: Step) -> Tensor:
    """Sub of one number a channel."""
    found = _with_constant(builder, step)
    if found is None:
        raise step.unsupported("must subtract a constant, not a tensor")
    return found


def divide(builder: Builder, step: Step) -> Tensor:
    """Div by one number a channel."""
    if not step.is_constant(1):
        raise step.unsupported("must divide by a constant, not by a tensor")
    return _with_constant(builder, step)  # type: ignore[return-value]


def multiply(builder: Builder, step: Step) -> Tensor:
    """Mul of two tensors, one of which may have one value a channel, or by one number a channel."""

    found = _with_constant(builder, step)
    if found is not None:
        return found
    left, right = _pair(builder, step, step.tensor(0), step.tensor(1))
    for gate, other in ((left, right), (right, left)):
        module = _gated(builder, gate, other)
        if module is not None:
            return builder.call(step, module, other)
    gates = [set(side.shape[1:]) <= {1} for side in (left, right)]
    if left.shape[0] != right.shape[0] or (left.shape != right.shape and not any(gates)):
        raise step.unsupported(
            f"must multiply equal shapes, or by one value a channel, not {left.shape} and {right.shape}"
        )
    first, second = (right, left) if gates[0] and left.shape != right.shape else (left, right)
    return builder.join(step, operator.mul, (first, second), first)


def _gated(builder: Builder, gate: Tensor, other: Tensor) -> nn.Module | None:
    """Return the module that x * gate(x) is, if it is one."""
    from torch import nn

    module = builder.module_of(gate)
    if module is None or not builder.sole(gate):
        return None
    (source,) = gate.node.all_input_nodes
    name = _GATES.get(type(module).__name__)
    if name and source is other.node:
        return getattr(nn, name)()  # type: ignore[no-any-return]
    inner = builder.root.get_submodule(str(source.target)) if source.op == "call_module" else None
    if type(module) is nn.Tanh and type(inner) is nn.Softplus and source.all_input_nodes == [other.node]:
        return nn.Mish()
    return None


def negative(builder: Builder, step: Step) -> Tensor:
    """Neg: a product with -1."""
    source = step.tensor()
    return scaled(builder, step, source, -np.ones(source.shape[0]), np.zeros(source.shape[0]))


def _sum(builder: Builder, step: Step) -> Tensor:
    total = step.tensor()
    for place in range(1, len(step.given)):
        left, right = _pair(builder, step, total, step.tensor(place))
        if left.shape != right.shape:
            raise step.unsupported(f"must add tensors of one shape, not {left.shape} and {right.shape}")
        total = builder.join(step, operator.add, (left, right), left)
    return total


def _pair(builder: Builder, step: Step, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Return both tensors in one layout."""
    if left.axes != right.axes and len(left.axes) == len(right.axes):
        left, right = builder.settled(step, left, right), builder.settled(step, right, left)
    same = (left.order is None) == (right.order is None) and np.array_equal(
        np.zeros(0) if left.order is None else left.order, np.zeros(0) if right.order is None else right.order
    )
    if left.axes != right.axes or not same:
        raise step.unsupported(
            f"must join tensors of one layout, not axes {list(left.axes)} and {list(right.axes)}"
        )
    return left, right


def _with_constant(builder: Builder, step: Step) -> Tensor | None:
    """Return source * scale + shift where one side of a node is constant, else None."""
    places = [place for place in range(len(step.given)) if step.is_constant(place)]
    if len(step.given) != 2 or len(places) != 1:
        return None
    if step.options.get("axis") is not None:
        raise step.unsupported("must broadcast from the last axis on, not from an axis of its own (opset 6)")
    source = step.tensor(1 - places[0])
    value = per_channel(step, step.constant(places[0]), source)
    one, zero = np.ones(source.shape[0]), np.zeros(source.shape[0])
    name = step.node.op_type
    if name == "Div" and not value.all():
        raise step.broken("must divide by numbers other than 0")
    scale, shift = {
        "Add": (one, value),
        "Sum": (one, value),
        "Sub": (one, -value) if places[0] == 1 else (-one, value),
        "Mul": (value, zero),
        "Div": (1 / value if name == "Div" else one, zero),
    }[name]
    if (scale == 1).all() and not shift.any():
        return source
    return scaled(builder, step, source, scale, shift)


def per_channel(step: Step, constant: Any, source: Tensor) -> np.ndarray:
    """Return (channels) float64 of a constant that has one number, or one a channel, in the node's order."""
    shape = (1,) * (len(source.axes) - constant.ndim) + constant.shape
    channels = source.shape[0]
    place = source.axes.index(1)
    others = [extent for i, extent in enumerate(shape) if i != place]
    if len(shape) != len(source.axes) or any(v != 1 for v in others) or shape[place] not in (1, channels):
        raise step.unsupported(
            f"must have one number, or one a channel, not a constant of shape {constant.shape}"
        )
    values = np.broadcast_to(constant.astype(np.float64).reshape(-1), channels).copy()
    if not np.isfinite(values).all():
        raise step.broken("must have finite constants")
    if source.order is not None:
        ordered = np.empty_like(values)
        ordered[source.order] = values
        return ordered
    return values
