"""Train: a float network, from scratch or from a checkpoint."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from flow import network, training
from flow.types import Data, Progress, Trained, silent

if TYPE_CHECKING:
    from torch import nn


def train(
    model: nn.Module,
    data: Data,
    *,
    epochs: int = 40,
    learning_rate: float = 2e-3,
    batch_size: int = 64,
    weight_decay: float = 1e-4,
    optimizer: str = "adamw",
    momentum: float = 0.0,
    patience: int | None = None,
    seed: int = 0,
    checkpoint: Path | None = None,
    progress: Progress = silent,
) -> Trained:
    """Train a copy of ``model`` with cross-entropy and half a cosine of learning rates; keep the best epoch.

    The best epoch is the one of the least validation loss. ``epochs = 0`` only measures the network.

    Args:
        model: a torch network that reads ``data`` and gives one output a class; it is not changed.
        data: see `flow.load_data`.
        epochs: passes over the training samples, at most.
        learning_rate: of the first epoch; it falls to a hundredth along half a cosine.
        batch_size: samples a step.
        weight_decay: L2; apart from the gradient with ``adamw``.
        optimizer: ``adamw`` or ``sgd``.
        momentum: of ``sgd``, in [0, 1).
        patience: stop after so many epochs without a better validation loss; ``None``: never.
        seed: seed of the order of the samples and of Dropout.
        checkpoint: a file that takes the state after every epoch; a run that finds its own there goes on from it and
            gives the same bits as one that nothing disturbed. It is left there.
        progress: called after every epoch.

    Returns:
        The network as a graph of standard modules, with its accuracy on the test set and, in words, why the training
        stopped. Where the loss became NaN after a good epoch, that epoch is what is returned.

    Raises:
        ConfigError: an option is out of range, samples or labels do not fit, the loss was never finite.
        UnsupportedError: the network cannot be traced.
    """
    import torch

    check(epochs, learning_rate, batch_size, weight_decay, optimizer, momentum, patience)
    training.seed_everything(seed)
    training.check_labels(model, data.train, data.validation, data.test)
    graph = network.trace(model, torch.from_numpy(data.train[0][:2]))
    fitted = training.Fitted((), "no epochs were asked for")
    if epochs:
        training.check_trainable(graph)
        fitted = training.fit(
            graph,
            data,
            training.optimizer(optimizer, graph.parameters(), learning_rate, momentum, weight_decay),
            epochs=epochs,
            batch_size=batch_size,
            seed=seed,
            best=math.inf,
            subject="train",
            progress=progress,
            patience=patience,
            checkpoint=checkpoint,
        )
    return Trained(graph, training.evaluate(graph, data.test)[1], fitted.history, fitted.stopped)


def check(
    epochs: int,
    learning_rate: float,
    batch_size: int,
    weight_decay: float,
    optimizer: str,
    momentum: float,
    patience: int | None,
) -> None:
    """Refuse options of `train` that are out of range or not known.

    Raises:
        ConfigError: with the first of these.
    """
    training.check_options(
        "train",
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        patience=patience,
    )
    training.check_optimizer(optimizer, momentum)
