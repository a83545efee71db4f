"""The loop that trains: shared by the stages train, prune and quantize."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from flow.errors import ConfigError

if TYPE_CHECKING:
    import torch
    from torch import nn

Split = tuple[np.ndarray, np.ndarray]


def seed_everything(seed: int) -> None:
    """Seed torch and ask for deterministic kernels."""
    import torch

    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True, warn_only=True)


def tensors(split: Split) -> tuple[torch.Tensor, torch.Tensor]:
    """Return inputs and labels as tensors that share the arrays' memory."""
    import torch

    return torch.from_numpy(split[0]), torch.from_numpy(split[1])


def check_labels(model: nn.Module, split: Split) -> None:
    """Refuse samples that do not fit the network and labels that its outputs cannot tell apart."""
    import torch

    x, y = tensors(split)
    model.eval()
    try:
        with torch.no_grad():
            outputs = model(x[:1])
    except RuntimeError as error:
        raise ConfigError(
            f"data: samples must fit the network, not have shape {tuple(x.shape[1:])}: {str(error).splitlines()[0]}; "
            "check [data] and [model]"
        ) from error
    if outputs.ndim != 2 or int(y.max()) >= outputs.shape[1]:
        raise ConfigError(
            f"data: labels must be below the network's outputs {tuple(outputs.shape[1:])}, not reach {int(y.max())}; "
            "give the network one output a class"
        )


def batches(split: Split, size: int, generator: torch.Generator) -> Iterator[tuple[Any, Any]]:
    """Yield shuffled batches."""
    import torch

    x, y = tensors(split)
    order = torch.randperm(len(y), generator=generator)
    for first in range(0, len(y), size):
        chosen = order[first : first + size]
        yield x[chosen], y[chosen]


def train_epoch(
    model: nn.Module,
    split: Split,
    optimizer: torch.optim.Optimizer,
    *,
    batch_size: int,
    generator: torch.Generator,
    after_step: Callable[[], None] | None = None,
    subject: str = "train",
) -> float:
    """Train for one epoch with cross-entropy; returns the mean loss.

    Raises:
        ConfigError: the loss is not finite.
    """
    from torch.nn.functional import cross_entropy

    model.train()
    total, seen = 0.0, 0
    for x, y in batches(split, batch_size, generator):
        if len(y) < 2:
            continue  # BatchNorm has no variance over one sample
        optimizer.zero_grad(set_to_none=True)
        loss = cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        if after_step:
            after_step()
        total += float(loss.detach()) * len(y)
        seen += len(y)
    mean = total / max(seen, 1)
    if not np.isfinite(mean):
        raise ConfigError(f"{subject}: loss must stay finite, not become {mean}; lower learning_rate")
    return mean


def evaluate(model: nn.Module, split: Split, batch_size: int = 512) -> tuple[float, float]:
    """Return (mean cross-entropy, accuracy in [0, 1]) over a whole split."""
    import torch
    from torch.nn.functional import cross_entropy

    x, y = tensors(split)
    outputs = predict(model, x, batch_size)
    loss = float(cross_entropy(outputs, y)) if len(y) else float("nan")
    return loss, float((outputs.argmax(1) == y).to(torch.float64).mean())


def predict(model: nn.Module, x: torch.Tensor, batch_size: int = 512) -> torch.Tensor:
    """Return the network's outputs in evaluation mode."""
    import torch

    training = model.training
    model.eval()
    with torch.no_grad():
        parts = [model(x[first : first + batch_size]) for first in range(0, len(x), batch_size)]
    model.train(training)
    return torch.cat([getattr(part, "value", part) for part in parts])


def snapshot(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return a copy of the state dict."""
    return {name: value.detach().clone() for name, value in model.state_dict().items()}
