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
    optimizer = torch.optim.AdamW(graph.parameters(), lr=learning_rate, weight_decay=weight_decay)
    history = training.fit(
        graph,
        data,
        optimizer,
        epochs=epochs,
        batch_size=batch_size,
        seed=seed,
        best=math.inf,
        subject="train",
        progress=progress,
    )
    return Trained(graph, training.evaluate(graph, data.test)[1], tuple(history))
