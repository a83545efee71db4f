"""Criteria: scores of channel groups and of single weights; the least scores go first."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from flow.errors import ConfigError, UnsupportedError
from flow.network import TRANSPOSED, kind, weight_rows, weighted
from flow.network.channels import Channels
from flow.network.fuse import fusable, fused
from flow.training import Split, tensors

if TYPE_CHECKING:
    import torch
    from torch import fx

Criterion = Callable[["fx.GraphModule", Channels, "Split | None"], dict[int, float]]
TAYLOR_BATCH = 32


def criterion(name: str, seed: int = 0) -> Criterion:
    """Return the criterion that scores channel groups.

    Args:
        name: one of `CRITERIA`.
        seed: of ``random``, whose scores depend on nothing else.

    Raises:
        ConfigError: there is no such criterion.
    """
    _check_name(name, CRITERIA)
    return partial(random, seed=seed) if name == "random" else CRITERIA[name]


def magnitude(
    graph: fx.GraphModule, channels: Channels, split: Split | None = None, *, order: int = 2
) -> dict[int, float]:
    """Return the norm of each label's rows, BatchNorm fused, relative to the mean of its layer.

    score = mean over the label's rows of ||w'_row|| / (mean over the layer's non-zero rows of ||w'_row||)

    The fused row is what the hardware will hold; a row in front of a BatchNorm has no scale of its own.
    Norms of different layers have different scales (they grow with the fan-in), so each layer is the
    measure of its own rows.

    Args:
        graph: a network from `flow.network.trace`.
        channels: its labels.
        split: not used.
        order: 2: root of the sum of squares (``magnitude``); 1: sum of absolute values (``magnitude-l1``).

    Source: Li et al., "Pruning Filters for Efficient ConvNets", ICLR 2017 (L1, within a layer).
    """
    rows = {name: _norms(module, order) for name, module in _fused(graph).items()}
    return _mean_of_rows(channels, {name: _relative(values) for name, values in rows.items()})


def bn_scale(graph: fx.GraphModule, channels: Channels, split: Split | None = None) -> dict[int, float]:
    """Return the size of each label's BatchNorm scales, relative to the mean of its layer.

    score = mean over the label's rows of |gamma_row| / (mean over the layer's non-zero |gamma|)

    A row whose layer has no BatchNorm with scales directly behind it counts with its `magnitude`, which is
    relative to its layer as well: both are 1 in the mean of a layer, so that such layers are pruned at the
    pace of the others.

    Raises:
        UnsupportedError: no layer has such a BatchNorm.

    Source: Liu et al., "Learning Efficient Convolutional Networks through Network Slimming", ICCV 2017.
    """
    scales = {
        str(layer.target): graph.get_submodule(str(norm.target)).weight for norm, layer in fusable(graph)
    }
    scales = {name: scale for name, scale in scales.items() if scale is not None}
    if not scales:
        raise UnsupportedError(
            "prune: criterion 'bn-scale' must have a BatchNorm with scales directly behind a layer, not a network "
            "without one; choose 'magnitude'"
        )
    rows = {
        name: scales[name].detach().double().abs() if name in scales else _norms(module, 2)
        for name, module in _fused(graph).items()
    }
    return _mean_of_rows(channels, {name: _relative(values) for name, values in rows.items()})


def taylor(graph: fx.GraphModule, channels: Channels, split: Split | None) -> dict[int, float]:
    """Return the change of the loss that zeroing each label would cause, to first order.

    score = sum over the label's rows of sqrt(mean over batches of (sum of theta * dL/dtheta)^2)

    theta are the scale and shift of the row's BatchNorm where it has one (then the sum is exactly that over
    the channel's activations), else its weights and bias.

    Raises:
        ConfigError: there are no samples to take gradients on.

    Source: Molchanov et al., "Importance Estimation for Neural Network Pruning", CVPR 2019.
    """
    graph = _for_gradients(graph)
    affine = {str(node.target): module for node, module in weighted(graph)}
    for norm, layer in fusable(graph):
        module = graph.get_submodule(str(norm.target))
        if module.weight is not None:
            affine[str(layer.target)] = module
    found = _root_mean_squares(graph, affine, split, _moment)
    scores = {name: values.tolist() for name, values in found.items()}
    return {label: sum(scores[layer][row] for layer, row in rows) for label, rows in channels.writers.items()}


def random(
    graph: fx.GraphModule, channels: Channels, split: Split | None = None, *, seed: int = 0
) -> dict[int, float]:
    """Return an independent uniform number in (0, 1] for each label: the same seed gives the same numbers.

    What every other criterion must beat.
    """
    labels = sorted(channels.writers)
    return dict(zip(labels, (1 - np.random.default_rng(seed).random(len(labels))).tolist(), strict=True))


def weight_scores(
    name: str, graph: fx.GraphModule, split: Split | None = None, seed: int = 0
) -> dict[str, torch.Tensor]:
    """Return a score of each weight of Conv and Linear layers, for unstructured pruning.

    magnitude, magnitude-l1: |w|; taylor: sqrt(mean over batches of (w * dL/dw)^2); random: uniform in (0, 1]

    The weights are those of the file, BatchNorm not fused, and layers are compared as they are: one threshold for
    all single weights is what LOBSTER and SeReNe define.

    Args:
        name: one of `WEIGHT_CRITERIA`.
        graph: a network from `flow.network.trace`.
        split: the samples of ``taylor``.
        seed: of ``random``.

    Returns:
        A tensor of the weight's shape, float64, for each layer.

    Raises:
        ConfigError: there is no such criterion, it scores whole channels only, or ``taylor`` has no samples.
    """
    import torch

    _check_name(name, CRITERIA)
    if name not in WEIGHT_CRITERIA:
        raise ConfigError(
            f"prune: criterion of granularity 'unstructured' must be one of {', '.join(WEIGHT_CRITERIA)}, "
            f"not {name!r}, which scores whole channels; choose one of them"
        )
    layers = {str(node.target): module for node, module in weighted(graph)}
    if name == "taylor":
        twin = _for_gradients(graph)
        same = {layer: twin.get_submodule(layer) for layer in layers}
        return _root_mean_squares(twin, same, split, lambda m: m.weight.detach().double() * m.weight.grad)
    if name == "random":
        draw = np.random.default_rng(seed)
        return {
            layer: torch.from_numpy(1 - draw.random(tuple(module.weight.shape)))
            for layer, module in layers.items()
        }
    return {layer: module.weight.detach().double().abs() for layer, module in layers.items()}


def _check_name(name: str, known: Mapping[str, Any]) -> None:
    if name not in known:
        raise ConfigError(
            f"prune: criterion must be one of {', '.join(known)}, not {name!r}; 'magnitude' needs no data"
        )


def _fused(graph: fx.GraphModule) -> dict[str, Any]:
    """Return the layers with weights, each with the BatchNorm behind it fused."""
    norms = {str(layer.target): str(norm.target) for norm, layer in fusable(graph)}
    found = {}
    for node, module in weighted(graph):
        name = str(node.target)
        found[name] = fused(module, graph.get_submodule(norms[name])) if name in norms else module
    return found


def _norms(module: Any, order: int) -> torch.Tensor:
    return weight_rows(module).double().flatten(1).norm(order, dim=1)


def _relative(rows: torch.Tensor) -> list[float]:
    """Return rows relative to the mean of those that are not zero."""
    alive = int((rows != 0).sum())
    return (rows / (rows.sum() / alive if alive else 1)).tolist()  # type: ignore[no-any-return]


def _mean_of_rows(channels: Channels, scores: Mapping[str, list[float]]) -> dict[int, float]:
    return {
        label: sum(scores[layer][row] for layer, row in rows) / len(rows)
        for label, rows in channels.writers.items()
    }


def _for_gradients(graph: fx.GraphModule) -> fx.GraphModule:
    return copy.deepcopy(graph).eval().requires_grad_(True)  # frozen layers have a score too


def _root_mean_squares(
    graph: fx.GraphModule,
    modules: Mapping[str, Any],
    split: Split | None,
    product: Callable[[Any], torch.Tensor],
) -> dict[str, torch.Tensor]:
    """Return sqrt(mean over batches of product(module)^2), float64, with the gradients of each batch in place."""
    import torch

    if split is None:
        raise ConfigError(
            "prune: criterion 'taylor' must have data to take gradients on; give data, or 'magnitude'"
        )
    squares = dict.fromkeys(modules, torch.zeros(1, dtype=torch.float64))
    x, y = tensors(split)
    for first in range(0, len(y), TAYLOR_BATCH):
        graph.zero_grad(set_to_none=True)
        batch = slice(first, first + TAYLOR_BATCH)
        torch.nn.functional.cross_entropy(graph(x[batch]), y[batch]).backward()
        for name, module in modules.items():
            squares[name] = squares[name] + product(module).square()
    count = -(-len(y) // TAYLOR_BATCH)
    return {name: (total / count).sqrt() for name, total in squares.items()}


def _moment(module: Any) -> torch.Tensor:
    """Return sum(theta * dL/dtheta) for each row."""
    products = [p.detach() * p.grad for p in (module.weight, module.bias) if p is not None]
    if kind(module) in TRANSPOSED:
        products[0] = weight_rows(module, products[0])
    return sum(product.double().reshape(len(product), -1).sum(1) for product in products)


CRITERIA: dict[str, Criterion] = {
    "magnitude": magnitude,
    "magnitude-l1": partial(magnitude, order=1),
    "bn-scale": bn_scale,
    "taylor": taylor,
    "random": random,
}
WEIGHT_CRITERIA = ("magnitude", "magnitude-l1", "taylor", "random")
