"""The loop that trains: shared by the stages train, prune and quantize."""

from __future__ import annotations

import difflib
import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flow.errors import ConfigError, UnsupportedError, first_line
from flow.network import evaluating
from flow.training.checkpoint import Checkpoint
from flow.training.metric import accuracy
from flow.types import Data, Progress

if TYPE_CHECKING:
    import torch
    from torch import nn

Split = tuple[np.ndarray, np.ndarray]
OPTIMIZERS = ("adamw", "sgd")
ALL_DONE = "all epochs are done"


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
    subject: str,
    *,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    weight_decay: float = 0.0,
    patience: int | None = None,
) -> None:
    """Refuse options of a training that no training could use."""
    if patience is not None and patience < 1:
        raise ConfigError(
            f"{subject}: patience must be at least 1, not {patience}; leave it out to train all epochs"
        )
    for name, value, holds, rule, usual in (
        ("epochs", epochs, epochs >= 0, "at least 0", "20 to 100 is usual"),
        ("batch_size", batch_size, batch_size >= 2, "at least 2", "64 is usual"),
        ("learning_rate", learning_rate, learning_rate > 0, "above 0", "0.001 is usual"),
        ("weight_decay", weight_decay, weight_decay >= 0, "at least 0", "0.0001 is usual"),
    ):
        if not holds:
            raise ConfigError(f"{subject}: {name} must be {rule}, not {value}; {usual}")


def check_optimizer(name: str, momentum: float) -> None:
    """Refuse an optimizer that is not known, and a momentum that it cannot use."""
    if name not in OPTIMIZERS:
        near = difflib.get_close_matches(name, OPTIMIZERS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"{OPTIMIZERS[0]} suits most networks"
        raise ConfigError(f"optimizer: name must be one of {', '.join(OPTIMIZERS)}, not {name!r}; {hint}")
    if not 0 <= momentum < 1:
        raise ConfigError(f"optimizer: momentum must be in [0, 1), not {momentum}; 0.9 is usual")
    if momentum and name != "sgd":
        raise ConfigError(
            f"optimizer: momentum must be 0 with {name}, not {momentum}; leave it out, or choose sgd"
        )


def optimizer(
    name: str, parameters: Iterable[torch.Tensor], learning_rate: float, momentum: float, weight_decay: float
) -> torch.optim.Optimizer:
    """Return the optimizer of this name: ``adamw`` decays weights apart from the gradient, ``sgd`` as L2 in it.

    Args:
        name: ``adamw`` or ``sgd``.
        parameters: what it changes; at least one.
        learning_rate: the step's size, above 0.
        momentum: of ``sgd``, in [0, 1).
        weight_decay: from 0 on.

    Raises:
        ConfigError: an argument breaks its rule.
    """
    import torch

    check_optimizer(name, momentum)
    held = list(parameters)
    if not held:
        raise ConfigError(
            "optimizer: parameters must be at least one, not none; give it those of a network with weights"
        )
    if name == "sgd":
        return torch.optim.SGD(held, lr=learning_rate, momentum=momentum, weight_decay=weight_decay)
    return torch.optim.AdamW(held, lr=learning_rate, weight_decay=weight_decay)


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
    except Exception as error:  # the network's code is the user's
        raise ConfigError(
            f"data: samples must fit the network, not have shape {tuple(x.shape[1:])}: {first_line(error)}; "
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
) -> float:
    """Train for one epoch with cross-entropy; returns the mean loss, or the first one that is not finite.

    After such a loss the epoch ends at once: the weights are of no use.

    Raises:
        ConfigError: there are not two samples.
    """
    from torch.nn.functional import cross_entropy

    if len(split[1]) < 2:
        raise ConfigError(
            f"data: train must hold at least 2 samples to learn from, not {len(split[1])}; add samples"
        )
    model.train()
    total, seen = 0.0, 0
    for x, y in batches(split, batch_size, generator):
        if len(y) < 2:
            continue  # BatchNorm has no variance over one sample
        optimizer.zero_grad(set_to_none=True)
        loss = cross_entropy(model(x), y)
        if not math.isfinite(mean := float(loss.detach())):
            return mean
        loss.backward()
        optimizer.step()
        if after_step:
            after_step()
        total += mean * len(y)
        seen += len(y)
    return total / max(seen, 1)


def finite(loss: float, subject: str) -> float:
    """Return ``loss``, unless the training has diverged."""
    if not np.isfinite(loss):
        raise ConfigError(f"{subject}: loss must stay finite, not become {loss}; lower learning_rate")
    return loss


@dataclass(frozen=True)
class Fitted:
    """What `fit` did: the losses of every epoch, and in words why there are no more."""

    history: tuple[Mapping[str, float], ...]
    stopped: str


@dataclass
class _Standing:
    """Where a training is: all that a checkpoint holds beside model, optimizer and random numbers."""

    best: float
    state: dict[str, torch.Tensor]
    kept: int = 0
    history: list[dict[str, float]] = field(default_factory=list)

    @property
    def epoch(self) -> int:
        return len(self.history)


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
    patience: int | None = None,
    checkpoint: Path | None = None,
) -> Fitted:
    """Train ``model`` in place and leave it with the weights of the least validation loss.

    The learning rate falls from the optimizer's own to a hundredth of it along half a cosine over ``epochs``.

    Args:
        model: the network.
        data: its training samples, and the validation samples that say which epoch is kept.
        optimizer: of the model's parameters.
        epochs: how often all training samples are seen, at most.
        batch_size: samples a step.
        seed: seed of the order of the samples.
        best: the validation loss that an epoch must beat to be kept; a finite one says that the weights which ``model``
            comes with are good.
        subject: the stage, for error messages.
        progress: called after every epoch.
        patience: stop after so many epochs without a better validation loss; ``None``: never.
        checkpoint: a file that takes the state after every epoch; a call with the same arguments goes on from it and
            ends with the same bits as a call that nothing disturbed.

    Raises:
        ConfigError: the loss became NaN or infinite, and there was no good state before.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    rates = [group["lr"] for group in optimizer.param_groups]
    facts = {"subject": subject, "epochs": epochs, "batch": batch_size, "seed": seed, "patience": patience}
    saved = Checkpoint(checkpoint, {**facts, "best": best, **_identity(model, data, optimizer)})
    at = _Standing(best if math.isfinite(best) else math.inf, snapshot(model))
    if (found := saved.load()) is not None:
        at = _resumed(found, model, optimizer, generator)
        progress(at.epoch, epochs, f"goes on after epoch {at.epoch}")
    stopped = ALL_DONE
    for epoch in range(at.epoch, epochs):
        if patience is not None and epoch - at.kept >= patience:
            stopped = f"no better validation loss for {patience} epochs"
            break
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * (0.01 + 0.99 * (1 + math.cos(math.pi * epoch / epochs)) / 2)
        train_loss = train_epoch(model, data.train, optimizer, batch_size=batch_size, generator=generator)
        loss, right = evaluate(model, data.validation) if math.isfinite(train_loss) else (train_loss, 0.0)
        if not math.isfinite(loss):
            stopped = _diverged(loss, epoch + 1, at, subject)
            break
        if loss < at.best:
            at.best, at.state, at.kept = loss, snapshot(model), epoch + 1
        at.history.append({"epoch": epoch, "train_loss": train_loss, "validation_loss": loss})
        saved.save(_state(at, model, optimizer, generator))
        progress(epoch + 1, epochs, f"validation accuracy {right:.2%}")
    if stopped != ALL_DONE:
        progress(epochs, epochs, stopped)
    model.load_state_dict(at.state)
    model.eval()
    return Fitted(tuple(at.history), stopped)


def _diverged(loss: float, epoch: int, at: _Standing, subject: str) -> str:
    """Say what is kept of a training whose loss is not finite any more.

    Raises:
        ConfigError: nothing is.
    """
    if at.best == math.inf:
        finite(loss, subject)
    kept = f"of epoch {at.kept}" if at.kept else "before the first epoch"
    return f"the loss became {loss} in epoch {epoch}: the state {kept} is kept; lower learning_rate"


def _state(
    at: _Standing, model: nn.Module, optimizer: torch.optim.Optimizer, generator: torch.Generator
) -> dict[str, Any]:
    """Return all that `_resumed` needs; the global random numbers are those of Dropout."""
    import torch

    return {
        "progress": vars(at),
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "random": [generator.get_state(), torch.get_rng_state()],
    }


def _resumed(
    state: Mapping[str, Any], model: nn.Module, optimizer: torch.optim.Optimizer, generator: torch.Generator
) -> _Standing:
    import torch

    with torch.no_grad():  # Brevitas' load_state_dict would make parameters that no optimizer knows
        for name, value in model.state_dict().items():
            value.copy_(state["model"][name])
    optimizer.load_state_dict(state["optimizer"])
    order, everything = state["random"]
    generator.set_state(order)
    torch.set_rng_state(everything)
    return _Standing(**state["progress"])


def _identity(model: nn.Module, data: Data, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Return the kind of an optimizer and its options, and what it starts from."""
    groups = [
        {name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups
    ]
    return {"optimizer": [type(optimizer).__name__, groups], "digest": digest(model, data)}


def digest(model: nn.Module, data: Data) -> str:
    """Return the SHA-256 of the weights and of the samples that a training starts from."""
    found = hashlib.sha256()
    arrays = {name: value.cpu().numpy() for name, value in model.state_dict().items()}
    arrays |= {f"{split} {i}": getattr(data, split)[i] for split in ("train", "validation") for i in (0, 1)}
    for name, array in arrays.items():
        found.update(f"{name} {array.shape} {array.dtype}".encode())
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()


def evaluate(model: nn.Module, split: Split, batch_size: int = 512) -> tuple[float, float]:
    """Return (mean cross-entropy, accuracy in [0, 1]) over a whole split."""
    from torch.nn.functional import cross_entropy

    x, y = tensors(split)
    outputs = predict(model, x, batch_size)
    return float(cross_entropy(outputs, y)), accuracy((outputs.numpy(),), split[1]) or 0.0  # None: no samples


def predict(model: nn.Module, x: torch.Tensor, batch_size: int = 512) -> torch.Tensor:
    """Return the network's outputs in evaluation mode."""
    import torch

    with torch.no_grad(), evaluating(model):
        parts = [model(x[first : first + batch_size]) for first in range(0, len(x), batch_size)]
    return torch.cat([getattr(part, "value", part) for part in parts])


def snapshot(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return a copy of the state dict."""
    return {name: value.detach().clone() for name, value in model.state_dict().items()}
