"""Train: a float network, from scratch or from a checkpoint."""

from __future__ import annotations

import math
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
    seed: int = 0,
    progress: Progress = silent,
) -> Trained:
    """Train a copy of ``model`` with Adam, one-cycle cosine decay and cross-entropy; keep the best epoch.

    The best epoch is the one of the least validation loss. ``epochs = 0`` only measures the network.

    Args:
        model: a torch network that reads ``data`` and gives one output a class; it is not changed.
        data: see `flow.load_data`.
        epochs: passes over the training samples.
        learning_rate: of the first epoch; it falls to a hundredth along half a cosine.
        batch_size: samples a step.
        weight_decay: L2, decoupled.
        seed: seed of the order of the samples.
        progress: called after every epoch.

    Returns:
        The network as a graph of standard modules, with its accuracy on the test set.

    Raises:
        ConfigError: an option is out of range, samples or labels do not fit, the loss is not finite.
        UnsupportedError: the network cannot be traced.
    """
    import torch

    training.check_options(
        "train", epochs=epochs, batch_size=batch_size, learning_rate=learning_rate, weight_decay=weight_decay
    )
    training.seed_everything(seed)
    training.check_labels(model, data.train, data.validation, data.test)
    graph = network.trace(model, torch.from_numpy(data.train[0][:2]))
    if epochs:
        training.check_trainable(graph)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(graph.parameters(), lr=learning_rate, weight_decay=weight_decay)
    best, state = math.inf, training.snapshot(graph)
    history = []
    for epoch in range(epochs):
        rate = learning_rate * (0.01 + 0.99 * (1 + math.cos(math.pi * epoch / epochs)) / 2)
        for group in optimizer.param_groups:
            group["lr"] = rate
        train_loss = training.train_epoch(
            graph, data.train, optimizer, batch_size=batch_size, generator=generator
        )
        loss, accuracy = training.evaluate(graph, data.validation)
        if loss < best:
            best, state = loss, training.snapshot(graph)
        history.append({"epoch": epoch, "train_loss": train_loss, "validation_loss": loss})
        progress(epoch + 1, epochs, f"validation accuracy {accuracy:.2%}")
    graph.load_state_dict(state)
    graph.eval()
    return Trained(graph, training.evaluate(graph, data.test)[1], tuple(history))
