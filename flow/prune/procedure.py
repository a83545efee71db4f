"""The iterative procedure: train, wait for the plateau, search the threshold, zero, repeat."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from flow import training
from flow.channels import Channels
from flow.errors import ConfigError
from flow.prune.criteria import Criterion
from flow.prune.masks import Masks
from flow.prune.plateau import Plateau
from flow.prune.threshold import search
from flow.training import Split
from flow.types import Data, Progress

if TYPE_CHECKING:
    import torch
    from torch import fx

STEPS_WITHOUT_TWT = 8


class Procedure:
    """One pruning run over one graph, which it changes in place."""

    def __init__(
        self,
        graph: fx.GraphModule,
        channels: Channels,
        criterion: Criterion,
        ignored_layers: tuple[str, ...],
        pruning_ratio: float | None,
        split: Split | None,
    ) -> None:
        self.graph = graph
        self.channels = channels
        self.criterion = criterion
        self.split = split
        self.prunable = frozenset(channels.prunable(ignored_layers))
        self._owners: dict[str, set[int]] = {}
        for label, rows in channels.writers.items():
            for layer, _ in rows:
                self._owners.setdefault(layer, set()).add(label)
        total = len(channels.prunable())
        self.budget = (
            len(self.prunable) if pruning_ratio is None else math.floor(pruning_ratio * total + 1e-9)
        )
        if self.budget > len(self.prunable):
            raise ConfigError(
                f"prune: pruning_ratio must leave ignored_layers whole, not ask for {self.budget} of "
                f"{len(self.prunable)} prunable channels; lower it, or ignore fewer layers"
            )
        self.masks = Masks(graph, channels)
        self.history: list[dict[str, float]] = []
        self.stopped = "the epochs are used up"

    @property
    def left(self) -> int:
        """Return how many more channels may go."""
        return self.budget - len(self.masks.pruned)

    def candidates(self) -> dict[int, float]:
        """Return the scores of the channels that may still go, least first."""
        scores = self.criterion(self.graph, self.channels, self.split)
        alive = [label for label in self.prunable if label not in self.masks.pruned]
        return {label: scores[label] for label in sorted(alive, key=lambda label: (scores[label], label))}

    def remove(self, count: int) -> int:
        """Zero the ``count`` least channels, but never the last one of a layer; returns how many went."""
        return len(self._zero(list(self.candidates()), count))

    def _zero(self, labels: list[int], limit: int | None = None) -> list[int]:
        """Zero up to ``limit`` of ``labels`` in this order, leaving one channel to every layer; return them."""
        room = self.left if limit is None else min(limit, self.left)
        chosen: list[int] = []
        alive = {layer: len(owners - self.masks.pruned) for layer, owners in self._owners.items()}
        for label in labels:
            layers = {layer for layer, _ in self.channels.writers[label]}
            if len(chosen) < room and all(alive[layer] > 1 for layer in layers):
                chosen.append(label)
                for layer in layers:
                    alive[layer] -= 1
        self.masks.add(chosen)
        return chosen

    def run(
        self,
        data: Data,
        *,
        pwe: int,
        twt: float | None,
        epochs: int,
        optimizer: torch.optim.Optimizer,
        batch_size: int,
        seed: int,
        progress: Progress,
    ) -> None:
        """Run the procedure; at the end the graph holds the best weights since the last step."""
        import torch

        generator = torch.Generator().manual_seed(seed)
        plateau = Plateau(pwe)
        loss, accuracy = training.evaluate(self.graph, data.validation)
        plateau.fires(training.finite(loss, "prune"), self.graph)
        self._note(0, None, loss, accuracy)
        for epoch in range(1, epochs + 1):
            training.train_epoch(
                self.graph,
                data.train,
                optimizer,
                batch_size=batch_size,
                generator=generator,
                after_step=self.masks.apply,
                subject="prune",
            )
            loss = training.finite(training.evaluate(self.graph, data.validation)[0], "prune")
            fires = plateau.fires(loss, self.graph)
            progress(epoch, epochs, f"{len(self.prunable) - len(self.masks.pruned)} channels left")
            steps = len(self.history) - 1
            overdue = (
                twt is None and self.left > 0 and epoch >= (steps + 1) * epochs // (STEPS_WITHOUT_TWT + 1)
            )
            if not (fires or overdue):
                continue
            self.graph.load_state_dict(plateau.state)
            threshold = self._step(data, plateau.best, twt)
            if threshold is None:
                self.stopped = self.reason(twt)
                break
            loss, accuracy = training.evaluate(self.graph, data.validation)
            self._note(epoch, threshold, loss, accuracy)
            optimizer.state.clear()
            plateau.reset()
        if plateau.state:
            self.graph.load_state_dict(plateau.state)

    def reason(self, twt: float | None) -> str:
        """Say why a step removed nothing."""
        if not self.left:
            return "pruning_ratio is reached"
        return "no layer may lose its last channel" if twt is None else "nothing more could go within twt"

    def _step(self, data: Data, loss_before: float, twt: float | None) -> float | None:
        """Zero one step's channels; returns the threshold, or None when nothing could go."""
        scores = self.candidates()
        if self.left <= 0 or not scores:
            return None
        if twt is None:
            gone = self._zero(list(scores), max(1, math.ceil(self.budget / STEPS_WITHOUT_TWT)))
            return scores[gone[-1]] if gone else None
        threshold = self._search(data, scores, loss_before, twt)
        return threshold if self._zero([label for label in scores if scores[label] < threshold]) else None

    def _search(self, data: Data, scores: dict[int, float], loss_before: float, twt: float) -> float:
        state, pruned = training.snapshot(self.graph), self.masks.pruned

        def loss_at(threshold: float) -> float:
            self._zero([label for label, score in scores.items() if score < threshold])
            loss, _ = training.evaluate(self.graph, data.validation)
            self.masks.pruned = pruned
            self.graph.load_state_dict(state)
            return loss

        layers: dict[Any, list[float]] = {}
        for label, score in scores.items():
            if score > 0:
                layers.setdefault(self.channels.writers[label][0][0], []).append(score)
        found = math.inf
        if layers:
            found = search(list(layers.values()), loss_at, loss_before=loss_before, twt=twt)
        if not loss_at(found) <= loss_before * (1 + twt):
            found = 0.0  # channels that score zero may matter: a weightless row has a bias, samples differ
        self.masks.add(())
        return found

    def _note(self, epoch: int, threshold: float | None, loss: float, accuracy: float) -> None:
        self.history.append(
            {
                "step": len(self.history),
                "epoch": epoch,
                "threshold": threshold if threshold is not None else 0.0,
                "channels": len(self.channels.prunable()) - len(self.masks.pruned),
                "validation_loss": loss,
                "validation_accuracy": accuracy,
            }
        )
