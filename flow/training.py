"""The loop that trains: shared by the stages train, prune and quantize."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from flow.errors import ConfigError, UnsupportedError
from flow.network import evaluating
from flow.types import Data, Progress

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


def check_options(
    subject: str, *, epochs: int, batch_size: int, learning_rate: float, weight_decay: float = 0.0
) -> None:
    """Refuse options of a training that no training could use."""
    for name, value, holds, rule, usual in (
        ("epochs", epochs, epochs >= 0, "at least 0", "20 to 100 is usual"),
        ("batch_size", batch_size, batch_size >= 2, "at least 2", "64 is usual"),
        ("learning_rate", learning_rate, learning_rate > 0, "above 0", "0.001 is usual"),
        ("weight_decay", weight_decay, weight_decay >= 0, "at least 0", "0.0001 is usual"),
    ):
        if not holds:
            raise ConfigError(f"{subject}: {name} must be {rule}, not {value}; {usual}")


def check_trainable(model: nn.Module) -> None:
    """Refuse a network whose weights are all frozen."""
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ConfigError(
            "model: weights must be trainable, not all frozen; call model.requires_grad_(True) on what may change"
        )


def check_labels(model: nn.Module, *splits: Split) -> None:
    """Refuse samples that do not fit the network and labels that its outputs cannot tell apart."""
    for split in splits:
        _check_split(model, split)


def _check_split(model: nn.Module, split: Split) -> None:
    import torch

    x, y = tensors(split)
    if len(y) == 0:
        raise ConfigError(
            "data: train, validation and test must hold at least one sample each, not 0; add samples"
        )
    try:
        with torch.no_grad(), evaluating(model):
            outputs = model(x[:1].clone())
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        raise ConfigError(
            f"data: samples must fit the network, not have shape {tuple(x.shape[1:])}: {str(error).splitlines()[0]}; "
            "check [data] and [model]"
        ) from error
    if not isinstance(outputs, torch.Tensor):
        raise UnsupportedError(
            f"data: network must return one tensor to be measured on labels, not a {type(outputs).__name__}; "
            "wrap it in a module that does"
        )
    if outputs.ndim != 2 or int(y.max()) >= outputs.shape[1]:
        raise ConfigError(
            f"data: labels must be below the network's outputs {tuple(outputs.shape[1:])}, not reach {int(y.max())}; "
            "give the network one output a class"
        )
    if int(y.min()) < 0:
        raise ConfigError(f"data: labels must be from 0 on, not {int(y.min())}; save class numbers")


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
    return finite(total / max(seen, 1), subject)


def finite(loss: float, subject: str) -> float:
    """Return ``loss``, unless the training has diverged."""
    if not np.isfinite(loss):
        raise ConfigError(f"{subject}: loss must stay finite, not become {loss}; lower learning_rate")
    return loss


def fit(
    model: nn.Module,
    data: Data,
    optimizer: torch.optim.Optimizer,
    *,
    epochs: int,
    batch_size: int,
    seed: int,
    best: float,
    subject: str,
    progress: Progress,
) -> list[dict[str, float]]:
    """Train ``model`` in place and leave it with the weights of the least validation loss; returns the losses.

    The learning rate falls from the optimizer's own to a hundredth of it along half a cosine.

    Args:
        best: the validation loss that an epoch must beat to be kept.
        seed: seed of the order of the samples.
        subject: the stage, for error messages.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    rates = [group["lr"] for group in optimizer.param_groups]
    state = snapshot(model)
    history: list[dict[str, float]] = []
    for epoch in range(epochs):
        factor = 0.01 + 0.99 * (1 + math.cos(math.pi * epoch / epochs)) / 2
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * factor
        train_loss = train_epoch(
            model, data.train, optimizer, batch_size=batch_size, generator=generator, subject=subject
        )
        loss, accuracy = evaluate(model, data.validation)
        if loss < best:
            best, state = loss, snapshot(model)
        history.append({"epoch": epoch, "train_loss": train_loss, "validation_loss": loss})
        progress(epoch + 1, epochs, f"validation accuracy {accuracy:.2%}")
    model.load_state_dict(state)
    model.eval()
    return history


def evaluate(model: nn.Module, split: Split, batch_size: int = 512) -> tuple[float, float]:
    """Return (mean cross-entropy, accuracy in [0, 1]) over a whole split."""
    import torch
    from torch.nn.functional import cross_entropy

    x, y = tensors(split)
    outputs = predict(model, x, batch_size)
    return float(cross_entropy(outputs, y)), float((outputs.argmax(1) == y).to(torch.float64).mean())


def predict(model: nn.Module, x: torch.Tensor, batch_size: int = 512) -> torch.Tensor:
    """Return the network's outputs in evaluation mode."""
    import torch

    with torch.no_grad(), evaluating(model):
        parts = [model(x[first : first + batch_size]) for first in range(0, len(x), batch_size)]
    return torch.cat([getattr(part, "value", part) for part in parts])


def snapshot(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return a copy of the state dict."""
    return {name: value.detach().clone() for name, value in model.state_dict().items()}
