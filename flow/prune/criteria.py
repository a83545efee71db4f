"""Criteria: functions from a network to one score a label; the least scores go first."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from flow.channels import Channels
from flow.errors import ConfigError
from flow.fuse import fusable, fused
from flow.network import TRANSPOSED, kind, weight_rows, weighted
from flow.training import Split, tensors

if TYPE_CHECKING:
    import torch
    from torch import fx

Criterion = Callable[["fx.GraphModule", Channels, "Split | None"], dict[int, float]]


def magnitude(graph: fx.GraphModule, channels: Channels, split: Split | None = None) -> dict[int, float]:
    """Return the norm of each label's rows, BatchNorm fused, relative to the mean of its layer.

    score = mean over the label's rows of ||w'_row|| / (mean over the layer's non-zero rows of ||w'_row||)

    The fused row is what the hardware will hold; a row in front of a BatchNorm has no scale of its own.
    Norms of different layers have different scales (they grow with the fan-in), so each layer is the
    measure of its own rows.
    """
    norms = {str(layer.target): str(norm.target) for norm, layer in fusable(graph)}
    relative: dict[str, list[float]] = {}
    for node, module in weighted(graph):
        name = str(node.target)
        if name in norms:
            module = fused(module, graph.get_submodule(norms[name]))
        rows = weight_rows(module).double().flatten(1).norm(dim=1)
        alive = int((rows != 0).sum())
        relative[name] = (rows / (rows.sum() / alive if alive else 1)).tolist()
    return {
        label: sum(relative[layer][row] for layer, row in rows) / len(rows)
        for label, rows in channels.writers.items()
    }


def taylor(graph: fx.GraphModule, channels: Channels, split: Split | None) -> dict[int, float]:
    """Return the change of the loss that zeroing each label would cause, to first order.

    score = sum over the label's rows of sqrt(mean over batches of (sum of theta * dL/dtheta)^2)

    theta are the scale and shift of the row's BatchNorm where it has one (then the sum is exactly that over
    the channel's activations), else its weights and bias.

    Raises:
        ConfigError: there are no samples to take gradients on.

    Source: Molchanov et al., "Importance Estimation for Neural Network Pruning", CVPR 2019.
    """
    import torch

    if split is None:
        raise ConfigError(
            "prune: criterion 'taylor' must have data to take gradients on; give data, or 'magnitude'"
        )

    graph = copy.deepcopy(graph).eval().requires_grad_(True)  # frozen layers have a score too
    affine = {str(node.target): module for node, module in weighted(graph)}
    for norm, layer in fusable(graph):
        module = graph.get_submodule(str(norm.target))
        if module.weight is not None:
            affine[str(layer.target)] = module
    squares = dict.fromkeys(affine, torch.zeros(1, dtype=torch.float64))
    x, y = tensors(split)
    for first in range(0, len(y), TAYLOR_BATCH):
        graph.zero_grad(set_to_none=True)
        batch = slice(first, first + TAYLOR_BATCH)
        torch.nn.functional.cross_entropy(graph(x[batch]), y[batch]).backward()
        for name, module in affine.items():
            squares[name] = squares[name] + _moment(module).square()
    count = -(-len(y) // TAYLOR_BATCH)
    scores = {name: (total / count).sqrt().tolist() for name, total in squares.items()}
    return {label: sum(scores[layer][row] for layer, row in rows) for label, rows in channels.writers.items()}


def _moment(module: Any) -> torch.Tensor:
    """Return sum(theta * dL/dtheta) for each row."""
    products = [p.detach() * p.grad for p in (module.weight, module.bias) if p is not None]
    if kind(module) in TRANSPOSED:
        products[0] = weight_rows(module, products[0])
    return sum(product.double().reshape(len(product), -1).sum(1) for product in products)


TAYLOR_BATCH = 32
CRITERIA: dict[str, Criterion] = {"magnitude": magnitude, "taylor": taylor}
