"""Layers of other names, and layers in place, become those of `forms.MODULES`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flow.network.forms import Seen, kind

if TYPE_CHECKING:
    from torch import fx, nn


def standardize(graph: fx.GraphModule, seen: Seen) -> None:
    """Replace, in ``graph``, layers that another layer computes; nothing stays in place."""
    for name, module in list(graph.named_modules()):
        if made := _twin(module):
            graph.set_submodule(name, made.train(module.training))
        elif kind(module) in ("Softmax", "LogSoftmax") and module.dim == -1:
            _softmax_over_channels(graph, name, module, seen)
        elif getattr(module, "inplace", False):
            module.inplace = False


def _twin(module: nn.Module) -> nn.Module | None:
    """Return the module of `forms.MODULES` that does the same as one outside, or None."""
    from torch import nn

    options: Any = module
    if kind(module) in ("Dropout1d", "Dropout2d"):
        return nn.Dropout(options.p)
    if kind(module) == "Softmax2d":
        return nn.Softmax(1)
    if kind(module) in ("UpsamplingNearest2d", "UpsamplingBilinear2d"):
        return nn.Upsample(options.size, options.scale_factor, options.mode, options.align_corners)
    if kind(module) in ("ConstantPad1d", "ConstantPad2d") and options.value == 0:
        return {"1": nn.ZeroPad1d, "2": nn.ZeroPad2d}[kind(module)[-2]](options.padding)
    return None


def _softmax_over_channels(graph: fx.GraphModule, name: str, module: Any, seen: Seen) -> None:
    nodes = [n for n in graph.graph.nodes if n.op == "call_module" and n.target == name]
    if all(len(seen.get(n.name, (0, 0))) == 2 for n in nodes):
        module.dim = 1
