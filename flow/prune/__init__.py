"""Prune: choose which channels or weights go. The network keeps its shape; what is pruned is zero."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from flow import training
from flow.errors import ConfigError
from flow.prune.goal import Cost
from flow.prune.options import Options, check
from flow.prune.pruner import Pruner
from flow.training.checkpoint import Checkpoint
from flow.types import Data, Progress, Pruned, silent

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["Cost", "Pruner", "prune"]


def prune(
    model: nn.Module,
    example: torch.Tensor,
    *,
    data: Data | None = None,
    granularity: str = "structured",
    pruning_ratio: float | None = None,
    pruning_ratio_dict: Mapping[str, float] | None = None,
    global_pruning: bool = True,
    budget: Mapping[str, float] | None = None,
    cost: Cost | None = None,
    round_to: int = 1,
    ignored_layers: tuple[str, ...] = (),
    criterion: str | None = None,
    regularizer: str | None = None,
    regularizer_lambda: float = 1e-4,
    decay_biases: bool = False,
    schedule: str = "pwe",
    pwe: int = 5,
    twt: float = 0.05,
    steps: int = 8,
    epochs: int = 100,
    optimizer: str = "adamw",
    learning_rate: float = 1e-3,
    momentum: float = 0.0,
    weight_decay: float = 1e-4,
    batch_size: int = 64,
    seed: int = 0,
    checkpoint: Path | None = None,
    progress: Progress = silent,
) -> Pruned:
    """Zero the channels (in groups that must go together) or the weights that matter least.

    With ``data`` and the schedule ``pwe``: train until the validation loss was above 1.01 times its best for ``pwe``
    epochs, go back to the best weights, zero every unit below the largest threshold that keeps the loss within
    ``(1 + twt)`` times what it was, and repeat, until a step removes nothing, the ratio or the budget is reached, or
    the epochs are used up. The other schedules remove a fixed share each step, whatever the loss does. Without
    ``data`` all goes at once.

    Args:
        model: a trained network; it is not changed.
        example: an input with a batch dimension.
        data: training and validation samples; accuracy is measured on its test set.
        granularity: ``structured`` (channel groups) or ``unstructured`` (single weights of Conv and Linear layers).
        pruning_ratio: share of the units to remove, in [0, 1); never exceeded. ``None``: as many as ``twt`` or the
            budget asks for.
        pruning_ratio_dict: the most that may go of single layers, by name, each in [0, 1).
        global_pruning: scores of all layers compete. False: ``pruning_ratio`` holds for every layer by itself.
        budget: stop when all of these figures are at most their limits: ``parameters``, ``macs``, and those of ``cost``
            (in a config: ``luts``, ``flip_flops``, ``dsps``, ``bram18``, ``interval_cycles``, ``latency_cycles``,
            ``board_share`` of the board). Scores count per share of the budget that a channel saves.
        cost: gives figures of a network of the surviving size; a config takes the board's estimate.
        round_to: widths of layers that lose channels stay multiples of this.
        ignored_layers: names of layers that stay.
        criterion: a name in `flow.prune.criteria.CRITERIA`; ``None``: ``taylor`` for channels with data, else
            ``magnitude``.
        regularizer: a name in `flow.prune.regularizers.REGULARIZERS`; it acts after every step of the optimizer.
        regularizer_lambda: its strength, not multiplied by the learning rate.
        decay_biases: let it act on biases and BatchNorm, too.
        schedule: ``pwe``, ``linear`` or ``cubic`` (``steps`` steps, spread over the epochs at the latest), or
            ``one-shot`` (all before the first epoch).
        pwe: plateau waiting epochs.
        twt: threshold worsening tolerance, relative.
        steps: of ``linear`` and ``cubic``.
        epochs: limit of all epochs together.
        optimizer, learning_rate, momentum, weight_decay, batch_size: of the training between steps; ``adamw`` or
            ``sgd``.
        seed: seed of the order of the samples, and of the criterion ``random``.
        checkpoint: a file that takes the state after every epoch; a run that finds its own there goes on from it.
        progress: called after every epoch.

    Returns:
        The pruned network, of unchanged shape.

    Raises:
        ConfigError: an option is out of range or names no layer, samples and labels do not fit, the budget is not
            reached (it says how far it got), or the loss was never finite.
        UnsupportedError: the network cannot be traced, or has nothing that may go.

    Source: the iterative procedure with PWE and TWT of LOBSTER (Neural Networks 146, 2022) and SeReNe
        (TNNLS 2021); see docs/algorithms.
    """
    given = locals()
    options = Options(**{field.name: given[field.name] for field in dataclasses.fields(Options)})
    check(options, trained=data is not None)
    training.seed_everything(seed)
    samples = data.train if data else None
    pruner = Pruner(model, example, samples=samples, cost=cost, trains=data is not None, options=options)
    if data is None:
        pruner.cut()
        return _checked(pruner, None)
    training.check_labels(pruner.model, data.train, data.validation, data.test)
    training.check_trainable(pruner.model)
    made = training.optimizer(optimizer, pruner.model.parameters(), learning_rate, momentum, weight_decay)
    pruner.attach(made)
    facts = {"options": repr(options)}
    if checkpoint is not None:  # a hash of all samples is not free
        facts["digest"] = training.digest(pruner.model, data)
    _train(pruner, data, made, Checkpoint(checkpoint, facts), progress)
    return _checked(pruner, training.evaluate(pruner.model, data.test)[1])


def _train(
    pruner: Pruner, data: Data, optimizer: torch.optim.Optimizer, checkpoint: Checkpoint, progress: Progress
) -> None:
    """Run the built-in loop until the pruner is done; a saved state goes on where it was."""
    import torch

    def evaluate() -> tuple[float, float]:
        return training.evaluate(pruner.model, data.validation)

    generator = torch.Generator().manual_seed(pruner.options.seed)
    first, epochs = 0, pruner.options.epochs
    if state := checkpoint.load():
        first = state["epoch"]
        pruner.load_state_dict(state["pruner"])
        optimizer.load_state_dict(state["optimizer"])
        generator.set_state(state["generator"])
        torch.set_rng_state(state["rng"])
        progress(first, epochs, f"goes on after epoch {first}")
    else:
        pruner.start(evaluate)
    for epoch in range(first + 1, epochs + 1):
        if pruner.done:
            break
        loss = training.train_epoch(
            pruner.model,
            data.train,
            optimizer,
            batch_size=pruner.options.batch_size,
            generator=generator,
        )
        pruner.epoch_end(evaluate if math.isfinite(loss) else partial(float, loss))
        checkpoint.save(
            {
                "epoch": epoch,
                "pruner": pruner.state_dict(),
                "optimizer": optimizer.state_dict(),
                "generator": generator.get_state(),
                "rng": torch.get_rng_state(),
            }
        )
        progress(epoch, epochs, f"{pruner.units_left} {pruner.units.word} left")
    pruner.finish()


def _checked(pruner: Pruner, accuracy: float | None) -> Pruned:
    """Return the result, unless its budget is not met."""
    if pruner.options.budget and not pruner.goal.met():
        raise ConfigError(
            f"prune: budget must be met, but pruning ended at {pruner.goal.shortfall()} ({pruner.stopped}); "
            "raise the budget, twt or epochs"
        )
    return dataclasses.replace(pruner.result(), accuracy=accuracy)
