"""Simplify: make the tensors really smaller, and compute exactly the same.

The passes run in this order, each a function from graph to new graph, until nothing changes.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from flow import network
from flow.errors import ConfigError, MismatchError
from flow.network import Example
from flow.network.channels import analyse
from flow.network.tracing import tensors_of
from flow.types import Progress, Simplified, silent

if TYPE_CHECKING:
    from torch import fx, nn

TOLERANCE = 1e-9
"""Bound of the relative difference, in float64, over full output tensors."""
BATCH = 16
"""Samples that the proof runs at a time."""


def simplify(
    model: nn.Module,
    example: Example,
    *,
    samples: int = 256,
    seed: int = 0,
    progress: Progress = silent,
) -> Simplified:
    """Return a smaller network of standard modules that computes the same as ``model``.

    BatchNorm is fused into the layer before it, constants of dead channels move into the bias of their
    consumers, dead channels leave every tensor, and branches that became constant leave the graph. A channel
    whose constant meets zero padding is not constant at the border: of all those that a layer reads one stays,
    with the weights of all. `Simplified.kept` says what stays and why.

    Args:
        model: a trained (pruned) network; it is not changed.
        example: an input with a batch dimension, or a tuple of them.
        samples: random inputs of the proof, at least 1.
        seed: seed of the random inputs.
        progress: see `flow.types.Progress`.

    Returns:
        The network in evaluation mode and in the parameters' own type, with images laid out channels last in
        memory; ``max_error`` was measured in float64.

    Raises:
        ConfigError: ``samples`` is below 1, weights are not finite, or the example does not fit.
        UnsupportedError: the network holds something outside `flow.network.MODULES`.
        MismatchError: the two networks differ by more than `TOLERANCE` (a defect of this stage).

    Source: Bragagnolo and Barbano, "Simplify: a Python library for optimizing pruned neural networks",
        SoftwareX 2022; the exact treatment of padding and of coupled channels is this project's.
    """
    import torch

    check_options(samples)
    original = network.trace(model, example).eval()
    sizes = network.shapes(original, example)
    analyse(original, sizes)  # refuses what cannot be followed
    before = network.costs_of(original, sizes)
    small, kept = _reduce(original.double(), example, progress)
    max_error = relative_difference(original, small, example, samples=samples, seed=seed, progress=progress)
    if not max_error <= TOLERANCE:
        raise MismatchError(
            f"simplify: outputs must be equal to {TOLERANCE:g}, not differ by {max_error:.3g} (relative, float64); "
            "keep the network and report it"
        )
    dtype = network.dtype(model, network.as_inputs(example)[0].dtype)
    small = small.to(dtype=dtype, memory_format=torch.channels_last)  # in which odd widths cost a CPU nothing
    return Simplified(small, max_error, samples, before, network.costs(small, example), kept)


def check_options(samples: int = 256) -> None:
    """Refuse options of `simplify` that are out of range (`ConfigError`)."""
    if samples < 1:
        raise ConfigError(f"simplify: samples must be at least 1, not {samples}; 256 is usual")


def _reduce(
    graph: fx.GraphModule, example: Example, progress: Progress
) -> tuple[fx.GraphModule, dict[str, str]]:
    """Run the passes until none changes anything; each needs what the others have left."""
    from flow.network.fuse import fuse_batchnorm
    from flow.simplify.branches import drop_constant_branches, drop_identities
    from flow.simplify.constants import constants
    from flow.simplify.remarks import remarks
    from flow.simplify.remove import remove_dead

    turn, changed = 0, True
    while changed:
        turn += 1
        progress(turn, turn + 1, "removing dead channels")
        graph = fuse_batchnorm(drop_identities(graph))
        sizes = network.shapes(graph, example)
        states = constants(graph, sizes)
        graph, changed = drop_constant_branches(graph, sizes, states)
        if not changed:
            channels = analyse(graph, sizes)
            kept = remarks(graph, channels, states)
            graph, changed = remove_dead(graph, channels, states)
    return graph, kept


def relative_difference(
    left: nn.Module,
    right: nn.Module,
    example: Example,
    *,
    samples: int,
    seed: int,
    progress: Progress = silent,
) -> float:
    """Return max |left - right| / max |left| over full outputs on random float64 inputs of both signs.

    NaN where an output of either is not finite.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    difference, largest = 0.0, 0.0
    with torch.no_grad():
        for first in range(0, samples, BATCH):
            progress(first, samples, "comparing full outputs")
            count = min(BATCH, samples - first)
            x = [
                torch.randn((count, *tensor.shape[1:]), generator=generator, dtype=torch.float64)
                for tensor in network.as_inputs(example)
            ]
            for want, got in zip(tensors_of(left(*x)), tensors_of(right(*x)), strict=True):
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
