"""One view of all layers with weights: (groups, outputs a group, inputs a group, kernel positions)."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from flow.network.forms import TRANSPOSED, kind

if TYPE_CHECKING:
    import torch


def widths(module: Any) -> tuple[int, int]:
    """Return the input and output channels of a Conv, transposed Conv or Linear layer."""
    if kind(module) == "Linear":
        return module.in_features, module.out_features
    return module.in_channels, module.out_channels


def blocks(module: Any, values: torch.Tensor | None = None) -> torch.Tensor:
    """Return the weights as (groups, outputs a group, inputs a group, positions): a view of them.

    Args:
        module: a Conv, transposed Conv or Linear layer.
        values: something of the weights' shape in their place, such as gradients.
    """
    weight: torch.Tensor = module.weight.detach() if values is None else values
    groups = getattr(module, "groups", 1)
    flat = weight.reshape(groups, weight.shape[0] // groups, weight.shape[1], -1)
    return flat.transpose(1, 2) if kind(module) in TRANSPOSED else flat


def weight_rows(module: Any, values: torch.Tensor | None = None) -> torch.Tensor:
    """Return the weights as (outputs, inputs a group, positions).

    A view, except for transposed convs whose groups have several inputs and outputs.
    """
    return blocks(module, values).flatten(0, 1)


def with_blocks(module: Any, weights: torch.Tensor, bias: torch.Tensor | None) -> Any:
    """Return a layer like ``module`` with other weights, as `blocks` gives them; ``module`` is not changed."""
    import torch

    groups, outputs, inputs, _ = weights.shape
    kernel = module.weight.shape[2:]
    made = copy.copy(module)
    made._parameters = dict(module._parameters)  # a shallow copy shares it
    if kind(module) in TRANSPOSED:
        weights = weights.transpose(1, 2)
    shape = (groups * weights.shape[1], weights.shape[2], *kernel)
    copied = weights.detach().reshape(shape).clone(memory_format=torch.contiguous_format)
    made.weight = torch.nn.Parameter(copied)
    made.bias = None if bias is None else torch.nn.Parameter(bias.detach().clone())
    if kind(module) == "Linear":
        made.in_features, made.out_features = inputs, outputs
    else:
        made.in_channels, made.out_channels, made.groups = groups * inputs, groups * outputs, groups
    return made
