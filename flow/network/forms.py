"""The node forms of a graph: which modules and joins there are, and how to look at them."""

from __future__ import annotations

import copy
import operator
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from flow.errors import UnsupportedError

if TYPE_CHECKING:
    from typing import TypeAlias

    import torch
    from torch import fx, nn

    Example: TypeAlias = torch.Tensor | tuple[torch.Tensor, ...]
else:
    Example = Any
"""One input tensor, or one a network input in a tuple; each with a batch dimension."""
Seen = dict[str, Any]
"""Node name -> the shape of its tensor, a list of shapes, or its value where it is no tensor."""

_SHARED = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups")
_CONV = (*_SHARED, "padding_mode")
_UNCONV = (*_SHARED, "output_padding")
_NORM = ("num_features", "eps", "momentum", "affine", "track_running_stats")
_MAX = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")
_AVG = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad")
ELEMENTWISE: dict[str, tuple[str, ...]] = {
    "ReLU": (),
    "ReLU6": (),
    "LeakyReLU": ("negative_slope",),
    "PReLU": ("num_parameters",),
    "ELU": ("alpha",),
    "SELU": (),
    "GELU": ("approximate",),
    "SiLU": (),
    "Mish": (),
    "Softplus": ("beta", "threshold"),
    "Hardswish": (),
    "Hardsigmoid": (),
    "Hardtanh": ("min_val", "max_val"),
    "Sigmoid": (),
    "Tanh": (),
    "Dropout": ("p",),
    "Identity": (),
}
"""Modules that treat each value by itself."""
MODULES: dict[str, tuple[str, ...]] = {
    "Conv1d": _CONV,
    "Conv2d": _CONV,
    "ConvTranspose1d": _UNCONV,
    "ConvTranspose2d": _UNCONV,
    "Linear": ("in_features", "out_features"),
    "BatchNorm1d": _NORM,
    "BatchNorm2d": _NORM,
    **ELEMENTWISE,
    "Softmax": ("dim",),
    "LogSoftmax": ("dim",),
    "MaxPool1d": _MAX,
    "MaxPool2d": _MAX,
    "AvgPool1d": _AVG,
    "AvgPool2d": (*_AVG, "divisor_override"),
    "AdaptiveAvgPool1d": ("output_size",),
    "AdaptiveAvgPool2d": ("output_size",),
    "AdaptiveMaxPool1d": ("output_size",),
    "AdaptiveMaxPool2d": ("output_size",),
    "Upsample": ("size", "scale_factor", "mode", "align_corners", "recompute_scale_factor"),
    "ZeroPad1d": ("padding",),
    "ZeroPad2d": ("padding",),
    "ChannelShuffle": ("groups",),
    "Flatten": ("start_dim", "end_dim"),
    "Unflatten": ("dim", "unflattened_size"),
}
"""The modules a network may hold, each with the constructor options that describe it."""

CONVS = ("Conv1d", "Conv2d")
TRANSPOSED = ("ConvTranspose1d", "ConvTranspose2d")
WEIGHTED = (*CONVS, *TRANSPOSED, "Linear")
NORMS = ("BatchNorm1d", "BatchNorm2d")


def kind(module: nn.Module) -> str:
    """Return the class name that `MODULES` knows the module by."""
    return type(module).__name__


def as_inputs(example: Example) -> tuple[torch.Tensor, ...]:
    """Return the input tensors of an example."""
    return tuple(example) if isinstance(example, tuple | list) else (example,)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put ``model`` in evaluation mode for a while; every module gets its own flag back."""
    flags = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, flag in flags.items():
            module.training = flag


def dtype(model: nn.Module, default: torch.dtype) -> torch.dtype:
    """Return the type of the network's weights, ``default`` where it has none."""
    return next((v.dtype for v in model.state_dict().values() if v.is_floating_point()), default)


def like_weights(model: nn.Module, tensor: torch.Tensor) -> torch.Tensor:
    """Return a copy of ``tensor`` in the type of the network's weights."""
    return tensor.detach().to(dtype(model, tensor.dtype), copy=True)


def add_module(graph: fx.GraphModule, name: str, module: nn.Module) -> str:
    """Add a module under ``name``, with underscores behind it where that is taken; returns the name."""
    while hasattr(graph, name):
        name += "_"
    graph.add_submodule(name, module)
    return name


def calls(node: fx.Node, name: str) -> bool:
    """Tell whether a node is the join ``name``: add, mul, cat or narrow."""
    return node.op == "call_function" and getattr(node.target, "__name__", "") == name


def is_join(node: fx.Node) -> bool:
    """Tell whether a node is a sum or product of two tensors, a concatenation or a slice of channels."""
    import torch

    if node.op != "call_function" or node.kwargs:
        return False
    if node.target is torch.cat:
        parts, *axis = node.args
        return axis == [1] and isinstance(parts, tuple | list) and all(hasattr(part, "op") for part in parts)
    if node.target is torch.narrow:
        source, *numbers = node.args
        return hasattr(source, "op") and numbers[0] == 1 and all(type(number) is int for number in numbers)
    return node.target in (operator.add, operator.mul) and all(hasattr(arg, "op") for arg in node.args)


def uses(graph: fx.GraphModule) -> dict[str, list[fx.Node]]:
    """Return the nodes that call each module, by the module's name."""
    found: dict[str, list[fx.Node]] = {}
    for node in graph.graph.nodes:
        if node.op == "call_module":
            found.setdefault(str(node.target), []).append(node)
    return found


def output_node(graph: fx.GraphModule) -> fx.Node:
    """Return the output node; its only argument is the node that computes the result, or a tuple of them."""
    return next(node for node in graph.graph.nodes if node.op == "output")


def output_nodes(graph: fx.GraphModule) -> tuple[fx.Node, ...]:
    """Return the nodes that compute the results."""
    result: Any = output_node(graph).args[0]
    return tuple(result) if isinstance(result, tuple) else (result,)


def check_single(graph: fx.GraphModule, subject: str) -> None:
    """Refuse networks with several inputs or outputs, for the stages that data is fed through."""
    inputs = sum(node.op == "placeholder" for node in graph.graph.nodes)
    outputs = output_node(graph).args[0]
    count = len(outputs) if isinstance(outputs, tuple) else 1
    if inputs != 1 or isinstance(outputs, tuple):
        raise UnsupportedError(
            f"{subject}: network must have one input and one output tensor, not {inputs} and {count}; "
            "wrap it in a module with one of each"
        )


def share(graph: fx.GraphModule) -> fx.GraphModule:
    """Return a copy of the graph that holds the same modules: a pass replaces them and never changes them."""
    from torch import fx

    copied = fx.GraphModule(graph, copy.deepcopy(graph.graph))
    copied.training = graph.training
    return copied


def tidy(graph: fx.GraphModule) -> None:
    """Drop the nodes and modules that nothing reads any more; the inputs stay."""
    for node in reversed(list(graph.graph.nodes)):
        if not node.users and node.op not in ("placeholder", "output"):
            graph.graph.erase_node(node)
    graph.delete_all_unused_submodules()
    graph.recompile()
