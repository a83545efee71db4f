"""A network with plainer layers, in which every layer is used once."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from flow import network

if TYPE_CHECKING:
    from torch import fx

Shapes = Mapping[str, tuple[int, ...]]
ADAPTIVE_POOLS = ("AdaptiveAvgPool1d", "AdaptiveAvgPool2d", "AdaptiveMaxPool1d", "AdaptiveMaxPool2d")


def prepared(graph: fx.GraphModule, shapes: Shapes) -> fx.GraphModule:
    """Return a graph of plainer layers: padding in numbers, whole factors, pools of a size; nothing that only trains.

    Every use of a layer becomes a layer, and so gets weights, a quantizer and a name, of its own.

    Args:
        graph: what `check_layers` accepts; it is not changed.
        shapes: of all its tensors.
    """
    made = copy.deepcopy(graph)
    _unshare(made)
    for node in list(made.graph.nodes):
        if node.op != "call_module":
            continue
        module: Any = made.get_submodule(node.target)
        source = node.all_input_nodes[0]
        what = network.kind(module)
        if what in network.CONVS and isinstance(module.padding, str):
            same = module.padding == "same"
            module.padding = tuple(int(pad) if same else 0 for pad in same_padding(module))
        elif what in ("Dropout", "Identity"):
            node.replace_all_uses_with(source)
            made.graph.erase_node(node)
        elif what in ADAPTIVE_POOLS or what == "Upsample":
            made.set_submodule(node.target, _sized(what, shapes[source.name][2:], shapes[node.name][2:]))
    network.tidy(made)
    return made


def _sized(what: str, before: tuple[int, ...], after: tuple[int, ...]) -> Any:
    """Return a pool or an upsampling with a size in place of one that asks the input for it."""
    from torch import nn

    if what == "Upsample":
        factors = tuple(float(o // i) for i, o in zip(before, after, strict=True))
        return nn.Upsample(scale_factor=factors)
    if "Avg" in what and math.prod(after) == 1:
        return getattr(nn, what)(1)
    kernel = tuple(i // o for i, o in zip(before, after, strict=True))
    return getattr(nn, what.removeprefix("Adaptive"))(kernel)


def same_padding(module: Any) -> tuple[float, ...]:
    """Return the padding that 'same' stands for, on each side of each spatial dimension."""
    return tuple(d * (k - 1) / 2 for d, k in zip(module.dilation, module.kernel_size, strict=True))


def _unshare(graph: fx.GraphModule) -> None:
    """Give every use of a module a module of its own."""
    used = set()
    for node in graph.graph.nodes:
        if node.op != "call_module":
            continue
        if node.target in used:
            twin = copy.deepcopy(graph.get_submodule(str(node.target)))
            node.target = network.add_module(graph, node.name, twin)
        used.add(node.target)
