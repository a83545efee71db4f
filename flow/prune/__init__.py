"""Prune: choose which channels go. The network keeps its shape; pruned channels are zero."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from flow import network, training
from flow.channels import Channels, analyse
from flow.errors import ConfigError
from flow.types import Data, Progress, Pruned, silent

if TYPE_CHECKING:
    import torch
    from torch import fx, nn


def prune(
    model: nn.Module,
    example: torch.Tensor,
    *,
    data: Data | None = None,
    pruning_ratio: float | None = None,
    criterion: str | None = None,
    ignored_layers: tuple[str, ...] = (),
    pwe: int = 5,
    twt: float | None = 0.05,
    epochs: int = 100,
    learning_rate: float = 1e-3,
    batch_size: int = 64,
    weight_decay: float = 1e-4,
    seed: int = 0,
    progress: Progress = silent,
) -> Pruned:
    """Zero the channels that matter least, in groups that must go together.

    With ``data``: train until the validation loss was above 1.01 times its best for ``pwe`` epochs, go back to the best
    weights, zero every channel group below the largest threshold that keeps the loss within
    ``(1 + twt)`` times what it was, and repeat, until a step removes nothing, ``pruning_ratio`` is reached,
    or the epochs are used up. Without ``data``: remove ``pruning_ratio`` of the channels at once.

    Args:
        model: a trained network; it is not changed.
        example: an input with a batch dimension.
        data: training and validation samples; accuracy is measured on its test set.
        pruning_ratio: share of the channels to remove, in [0, 1); never exceeded. ``None``: as many as
            ``twt`` allows.
        criterion: a name in `flow.prune.criteria.CRITERIA`; ``None``: ``taylor`` with data, else ``magnitude``.
        ignored_layers: names of layers whose channels stay.
        pwe: plateau waiting epochs.
        twt: threshold worsening tolerance, relative. ``None``: each step removes an eighth of what
            ``pruning_ratio`` asks for, whatever the loss does, after a ninth of the epochs at the latest.
        epochs: limit of all epochs together.
        learning_rate, batch_size, weight_decay: of the training between steps (AdamW).
        seed: seed of the order of the samples.
        progress: called after every epoch.

    Returns:
        The pruned network, of unchanged shape. ``pruned`` names the zeroed rows of each layer.

    Raises:
        ConfigError: an option is out of range or names no layer, or samples and labels do not fit.
        UnsupportedError: the network cannot be traced.

    Source: the iterative procedure with PWE and TWT of LOBSTER (Neural Networks 146, 2022) and SeReNe
        (TNNLS 2021), on coupled channel groups in place of single weights.
    """
    from flow.prune.criteria import CRITERIA

    criterion = criterion or ("taylor" if data else "magnitude")
    _check_options(pruning_ratio, criterion, pwe, twt, data is not None, CRITERIA)
    training.check_options(
        "prune", epochs=epochs, batch_size=batch_size, learning_rate=learning_rate, weight_decay=weight_decay
    )
    training.seed_everything(seed)
    graph = network.trace(model, example)
    channels = analyse(graph, network.shapes(graph, example))
    names = {str(node.target) for node, _ in network.weighted(graph)}
    if isinstance(ignored_layers, str):
        ignored_layers = (ignored_layers,)
    for layer in ignored_layers:
        if layer not in names:
            raise ConfigError(
                f"prune: ignored_layers must name layers of the network ({', '.join(sorted(names))}), not {layer!r}"
            )
    from flow.prune.procedure import Procedure

    procedure = Procedure(
        graph,
        channels,
        CRITERIA[criterion],
        tuple(ignored_layers),
        pruning_ratio,
        data.train if data else None,
    )
    if data is None:
        procedure.remove(procedure.budget)
        procedure.stopped = procedure.reason(None)
    else:
        training.check_labels(graph, data.train, data.validation, data.test)
        training.check_trainable(graph)
        procedure.run(
            data,
            pwe=pwe,
            twt=twt,
            epochs=epochs,
            optimizer=_adam(graph, learning_rate, weight_decay),
            batch_size=batch_size,
            seed=seed,
            progress=progress,
        )
    graph.eval()
    accuracy = training.evaluate(graph, data.test)[1] if data else None
    total = len(channels.prunable())
    return Pruned(
        model=graph,
        pruned=_rows_by_layer(channels, procedure.masks.pruned),
        channels_before=total,
        channels_after=total - len(procedure.masks.pruned),
        accuracy=accuracy,
        stopped=procedure.stopped,
        history=tuple(procedure.history),
    )


def _adam(graph: fx.GraphModule, learning_rate: float, weight_decay: float) -> torch.optim.Optimizer:
    import torch

    return torch.optim.AdamW(graph.parameters(), lr=learning_rate, weight_decay=weight_decay)


def _check_options(
    ratio: float | None, criterion: str, pwe: int, twt: float | None, has_data: bool, known: Collection[str]
) -> None:
    if ratio is not None and not 0 <= ratio < 1:
        raise ConfigError(
            f"prune: pruning_ratio must be in [0, 1), not {ratio}; 0.5 removes half of the channels"
        )
    if criterion not in known:
        raise ConfigError(f"prune: criterion must be one of {', '.join(known)}, not {criterion!r}")
    if pwe < 1:
        raise ConfigError(f"prune: pwe must be at least 1 epoch, not {pwe}; 5 to 20 is usual")
    if twt is not None and not twt >= 0:
        raise ConfigError(f"prune: twt must be at least 0, not {twt}; 0.05 allows 5 % more loss a step")
    if ratio is None and (twt is None or not has_data):
        raise ConfigError(
            "prune: pruning_ratio must be given where there is no data or no twt, not left out; try 0.5"
        )


def _rows_by_layer(channels: Channels, pruned: frozenset[int]) -> dict[str, tuple[int, ...]]:
    rows: dict[str, list[int]] = {}
    for label in sorted(pruned):
        for layer, row in channels.writers[label]:
            rows.setdefault(layer, []).append(row)
    return {layer: tuple(sorted(found)) for layer, found in rows.items()}
