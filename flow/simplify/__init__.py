"""Simplify: make the tensors really smaller, and compute exactly the same.

The passes run in this order, each a function from graph to new graph, until nothing changes.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from flow import network
from flow.channels import analyse
from flow.errors import ConfigError, MismatchError
from flow.types import Progress, Simplified, silent

if TYPE_CHECKING:
    import torch
    from torch import nn

TOLERANCE = 1e-9
"""Bound of the relative difference, in float64, over full output tensors."""


def simplify(
    model: nn.Module,
    example: torch.Tensor,
    *,
    samples: int = 256,
    seed: int = 0,
    progress: Progress = silent,
) -> Simplified:
    """Return a smaller network of standard modules that computes the same as ``model``.

    BatchNorm is fused into the layer before it, constants of dead channels move into the bias of their
    consumers, and dead channels leave every tensor. A channel whose constant would meet zero padding is
    not constant at the border: it stays, and `Simplified.kept` says where and why.

    Args:
        model: a trained (pruned) network; it is not changed.
        example: an input with a batch dimension.
        samples: random inputs of the proof, at least 1.
        seed: seed of the random inputs.
        progress: see `flow.types.Progress`.

    Returns:
        The network in evaluation mode and in the parameters' own type; ``max_error`` was measured in float64.

    Raises:
        ConfigError: ``samples`` is below 1, weights are not finite, or the example does not fit.
        UnsupportedError: the network holds something outside `flow.network.MODULES`.
        MismatchError: the two networks differ by more than `TOLERANCE` (a defect of this stage).

    Source: Bragagnolo and Barbano, "Simplify: a Python library for optimizing pruned neural networks",
        SoftwareX 2022; the exact treatment of padding and of coupled channels is this project's.
    """
    from flow.fuse import fuse_batchnorm
    from flow.simplify.remove import drop_identities, remove_dead

    if samples < 1:
        raise ConfigError(f"simplify: samples must be at least 1, not {samples}; 256 is usual")
    original = network.trace(model, example).eval()
    analyse(original, network.shapes(original, example))  # refuses what cannot be followed
    before = network.costs(original, example)
    work = fuse_batchnorm(drop_identities(original.double()))
    small, kept = remove_dead(work, example.double(), progress)
    max_error = relative_difference(original, small, example, samples=samples, seed=seed)
    if not max_error <= TOLERANCE:
        raise MismatchError(
            f"simplify: outputs must be equal to {TOLERANCE:g}, not differ by {max_error:.3g} (relative, float64); "
            "keep the network and report it"
        )
    small = small.to(network.dtype(model, example.dtype))
    return Simplified(small, max_error, samples, before, network.costs(small, example), kept)


def relative_difference(
    left: nn.Module, right: nn.Module, example: torch.Tensor, *, samples: int, seed: int
) -> float:
    """Return max |left - right| / max |left| over full outputs on random float64 inputs of both signs.

    NaN where an output of either is not finite.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    difference, largest = 0.0, 0.0
    with torch.no_grad():
        for first in range(0, samples, 32):
            count = min(32, samples - first)
            x = torch.randn((count, *example.shape[1:]), generator=generator, dtype=torch.float64)
            want, got = left(x), right(x)
            if want.shape != got.shape:
                raise MismatchError(
                    f"simplify: output must keep its shape {tuple(want.shape)}, not become {tuple(got.shape)}; "
                    "report the network"
                )
            if not (want - got).isfinite().all():
                return math.nan
            difference = max(difference, float((want - got).abs().max()))
            largest = max(largest, float(want.abs().max()))
    return difference / largest if largest else difference
