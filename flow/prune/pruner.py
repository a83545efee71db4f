"""The iterative procedure as one object: it watches a training loop, decides when units go, and keeps them at zero."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from flow import network, training
from flow.errors import UnsupportedError
from flow.network.channels import analyse
from flow.prune.goal import Cost, Goal
from flow.prune.options import Options, check_names, of_pruner
from flow.prune.plateau import Plateau
from flow.prune.regular_base import held_parameters
from flow.prune.threshold import search
from flow.prune.units import ChannelUnits, WeightUnits
from flow.training import Split
from flow.types import Pruned

if TYPE_CHECKING:
    import torch
    from torch import fx, nn

Evaluate = Callable[[], "float | tuple[float, float]"]
"""Gives the validation loss, or loss and accuracy, of `Pruner.model` as it is now."""


class Pruner:
    """Prunes a network while a loop of the user's own trains it.

        pruner = flow.Pruner(model, example, pruning_ratio=0.8, regularizer="lobster", epochs=60)
        optimizer = torch.optim.SGD(pruner.model.parameters(), lr=0.1)
        pruner.attach(optimizer)
        pruner.start(validate)
        for epoch in range(60):
            train_one_epoch(pruner.model, optimizer)
            if pruner.epoch_end(validate):
                break
        pruned = pruner.result()

    ``validate`` takes no argument and returns the loss of ``pruner.model`` on samples that it is not trained on. The
    options are those of `flow.prune`; ``epochs`` is what ``linear`` and ``cubic`` spread their steps over.

    Attributes:
        model: the network to train: a copy, as a graph of standard modules.
        done: whether pruning has come to its end; ``stopped`` says why.
    """

    def __init__(
        self,
        model: nn.Module,
        example: torch.Tensor,
        *,
        samples: Split | None = None,
        cost: Cost | None = None,
        trains: bool = True,
        options: Options | None = None,
        **values: Any,
    ) -> None:
        """Trace the network and find its units.

        Args:
            model: a network; it is not changed.
            example: an input with a batch dimension.
            samples: training samples and labels, for the criterion ``taylor``.
            cost: the figures of a network of the surviving size, for ``budget``.
            trains: whether a loop follows; without one, `cut` prunes all at once.
            options: what ``values`` would say, as one object in their place.
            values: see `flow.prune`.

        Raises:
            ConfigError: an option is out of range or not known, names no layer, or asks for what cannot be reached.
            UnsupportedError: the network cannot be traced, or has nothing to prune where something must go.
        """
        from flow.prune.criteria import CRITERIA
        from flow.prune.regularizers import REGULARIZERS

        chosen = of_pruner(values) if options is None else options
        chosen.check(CRITERIA, REGULARIZERS, trains)
        self.options, self.samples = chosen, samples
        self.model: fx.GraphModule = network.trace(model, example)
        self.units = _units(self.model, example, chosen, samples is not None)
        if not self.units.free.any() and (chosen.budget or chosen.pruning_ratio_dict):
            raise UnsupportedError(
                f"prune: network must have {self.units.word} that may go, not none; "
                "free layers, or leave out the budget"
            )
        self.goal = Goal(self.units, chosen, cost, trains)
        self.regularizer = None
        if chosen.regularizer is not None:
            self.regularizer = REGULARIZERS[chosen.regularizer](
                self.model, strength=chosen.regularizer_lambda, decay_biases=chosen.decay_biases
            )
        self._shape = tuple(example.shape[1:])
        self.history: list[dict[str, float | None]] = []
        self.done, self.stopped = False, "the epochs are used up"
        self._epoch, self._steps_done, self._best_epoch = 0, 0, 0
        self._plateau = Plateau(chosen.pwe)
        self._optimizer: torch.optim.Optimizer | None = None

    def attach(self, optimizer: torch.optim.Optimizer) -> None:
        """Let the regularizer and the masks act after every step of ``optimizer``, of whatever kind it is.

        Raises:
            ConfigError: it holds no parameter of the network.
        """
        held_parameters(self.model, optimizer)
        if self.regularizer:
            self.regularizer.attach(optimizer)
        optimizer.register_step_post_hook(lambda *_: self.units.apply())
        self._optimizer = optimizer

    def start(self, evaluate: Evaluate) -> None:
        """Take in the network as it comes; ``one-shot`` prunes it now."""
        loss, accuracy = self._measured(evaluate)
        self._plateau.fires(training.finite(loss, "prune"), self.model)
        self._note(0.0, loss, accuracy)
        if self.options.schedule == "one-shot":
            self.step(evaluate)

    def epoch_end(self, evaluate: Evaluate) -> bool:
        """Take in one epoch: prune where it is time; returns whether pruning has come to its end.

        At the end the network has the best weights since the last step.

        Raises:
            ConfigError: the loss is not finite, and never was.
        """
        self._epoch += 1
        loss, _ = self._measured(evaluate)
        if not math.isfinite(loss) and self._plateau.state:
            self._end(
                f"the loss became {loss} in epoch {self._epoch}: the state of epoch {self._best_epoch} is kept; "
                "lower learning_rate"
            )
            return True
        if training.finite(loss, "prune") < self._plateau.best:
            self._best_epoch = self._epoch
        fires = self._plateau.fires(loss, self.model)
        if (fires or self._overdue()) and not self.step(evaluate):
            self._end(self._reason())
        elif self._epoch >= self.options.epochs:
            self.finish()
        return self.done

    def step(self, evaluate: Evaluate) -> bool:
        """Go back to the best weights and prune one step now; tells whether any units went.

        `epoch_end` calls it where it is time; a loop that knows better may call it itself.
        """
        if self._plateau.state:
            self.model.load_state_dict(self._plateau.state)
        order, scores = self._candidates()
        chosen, threshold = np.array([], dtype=int), 0.0
        if len(order) and not self.goal.met():
            if self.options.schedule == "pwe":
                threshold = self._search(evaluate, order, scores)
                chosen = self.goal.take(order[scores[order] < threshold])
            else:
                chosen = self._fixed(order)
        if not len(chosen):
            return False
        self._zero(chosen)
        loss, accuracy = self._measured(evaluate)
        self._note(threshold if 0 < threshold < math.inf else float(scores[chosen].max()), loss, accuracy)
        if self._optimizer is not None:
            self._optimizer.state.clear()
        self._plateau.reset()
        self._best_epoch = self._epoch
        self._plateau.fires(loss, self.model)
        self._plateau.best = math.inf  # the next epoch counts, however the step has hurt
        return True

    def smaller(self) -> fx.GraphModule:
        """Return a copy of the network without its pruned channels, to train on at its own speed.

        BatchNorm stays, unlike in `flow.simplify`, which fuses it and can take over constants.

        Raises:
            UnsupportedError: pruned channels do not compute zero, as behind a sigmoid.
        """
        import torch

        made = copy.deepcopy(self.units.surviving(self.units.pruned))
        x = torch.randn(4, *self._shape, generator=torch.Generator().manual_seed(0))
        with torch.no_grad(), network.evaluating(self.model), network.evaluating(made):
            want, got = self.model(x), made(x)
        if float((want - got).abs().max()) > 1e-4 * max(1.0, float(want.abs().max())):
            raise UnsupportedError(
                "prune: pruned channels must compute zero to be left out, not the constant of an activation or of a "
                "BatchNorm; take flow.simplify"
            )
        return made

    def cut(self) -> None:
        """Prune all at once, without training."""
        order, _ = self._candidates()
        self._zero(self.goal.take(order))
        self.stopped = self._reason(trained=False)

    def finish(self) -> None:
        """Go back to the best weights since the last step, where the loop ends by itself."""
        if not self.done:
            reached = self.goal.met() or (self.options.pruning_ratio is not None and self.goal.left <= 0)
            self._end(self._reason() if reached and self.units.pruned.any() else self.stopped)

    @property
    def units_left(self) -> int:
        """Return how many units are not pruned."""
        return int((~self.units.pruned).sum())

    def result(self) -> Pruned:
        """Return the network as it is now."""
        before, after = self.goal.start, self.goal.figures(self.units.pruned)
        graph = self.model.eval()
        rows = self.units.rows()
        total = self._channels()
        return Pruned(
            model=graph,
            pruned=rows,
            channels_before=total,
            channels_after=total - self._channels(rows),
            accuracy=None,
            stopped=self.stopped,
            history=tuple(self.history),
            figures_before=before,
            figures_after=after,
        )

    def state_dict(self) -> dict[str, Any]:
        """Return all that `load_state_dict` needs to go on: tensors, numbers and texts."""
        import torch

        return {
            "model": training.snapshot(self.model),
            "pruned": torch.from_numpy(self.units.pruned.copy()),
            "plateau": [self._plateau.best, self._plateau.bad, self._plateau.state],
            "history": list(self.history),
            "counters": [self._epoch, self._steps_done, self._best_epoch],
            "end": [self.done, self.stopped],
            "regularizer": self.regularizer.state_dict() if self.regularizer else {},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where another pruner of the same network and options was."""
        self.model.load_state_dict(state["model"])
        self.units.set(state["pruned"].numpy())
        self._plateau.best, self._plateau.bad, self._plateau.state = state["plateau"]
        self.history = list(state["history"])
        self._epoch, self._steps_done, self._best_epoch = state["counters"]
        self.done, self.stopped = state["end"]
        if self.regularizer:
            self.regularizer.load_state_dict(state["regularizer"])
            if self.done:
                self.regularizer.detach()

    def _measured(self, evaluate: Evaluate) -> tuple[float, float | None]:
        found = evaluate()
        return found if isinstance(found, tuple) else (float(found), None)

    def _end(self, why: str) -> None:
        self.done, self.stopped = True, why
        if self.regularizer:
            self.regularizer.detach()  # what follows is fine-tuning; the masks stay
        if self._plateau.state:
            self.model.load_state_dict(self._plateau.state)

    def _overdue(self) -> bool:
        """Tell whether a step of a fixed size must wait no longer for the plateau."""
        left, steps = self.options.steps - self._steps_done, self.options.steps
        fixed = self.options.schedule in ("linear", "cubic")
        return (
            fixed and left > 0 and self._epoch >= (self._steps_done + 1) * self.options.epochs // (steps + 1)
        )

    def _fixed(self, order: np.ndarray) -> np.ndarray:
        """Return what the next step of a schedule with fixed steps takes; a step that rounding empties is skipped."""
        steps = 1 if self.options.schedule == "one-shot" else self.options.steps
        chosen = np.array([], dtype=int)
        while not len(chosen) and self._steps_done < steps:
            self._steps_done += 1
            done = self._steps_done / steps
            chosen = self.goal.take(order, 1 - (1 - done) ** 3 if self.options.schedule == "cubic" else done)
        return chosen

    def _candidates(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the units that may still go, least score first, and the scores of all."""
        scores = self.goal.worth(self.units.scores(self.samples))
        alive = np.flatnonzero(self.units.free & ~self.units.pruned)
        return alive[np.argsort(scores[alive], kind="stable")], scores

    def _search(self, evaluate: Evaluate, order: np.ndarray, scores: np.ndarray) -> float:
        """Return the largest threshold that was measured to hold the loss within TWT."""
        before, twt = self._plateau.best, self.options.twt
        if before == math.inf:  # no epoch since the last step
            before = training.finite(self._measured(evaluate)[0], "prune")
        state, pruned = training.snapshot(self.model), self.units.pruned

        def loss_at(threshold: float) -> float:
            self._zero(self.goal.take(order[scores[order] < threshold]))
            loss, _ = self._measured(evaluate)
            self.model.load_state_dict(state)
            self.units.set(pruned)
            return loss

        positive = order[scores[order] > 0]
        layers = [
            scores[positive[self.units.classes[positive] == index]] for index in range(len(self.units.layers))
        ]
        found = math.inf
        if len(positive):
            found = search([layer for layer in layers if len(layer)], loss_at, loss_before=before, twt=twt)
        if not loss_at(found) <= before * (1 + twt):
            found = 0.0  # channels that score zero may matter: a weightless row has a bias, samples differ
        return found

    def _zero(self, chosen: np.ndarray) -> None:
        pruned = self.units.pruned.copy()
        pruned[chosen] = True
        self.units.set(pruned)

    def _reason(self, trained: bool = True) -> str:
        if self.goal.met():
            return "the budget is met"
        if self.goal.left <= 0:
            return "pruning_ratio is reached"
        if trained and self.options.schedule == "pwe":
            return "nothing more could go within twt"
        return "no layer may lose its last channel"

    def _channels(self, rows: Mapping[str, tuple[int, ...]] | None = None) -> int:
        """Return how many prunable channels there are, or how many of them these rows are."""
        if isinstance(self.units, ChannelUnits):
            return len(self.units.classes) if rows is None else int(self.units.pruned.sum())
        if rows is None:
            return sum(network.widths(module)[1] for _, module in network.weighted(self.model))
        return sum(len(found) for found in rows.values())

    def _note(self, threshold: float, loss: float, accuracy: float | None) -> None:
        self.history.append(
            {
                "step": len(self.history),
                "epoch": self._epoch,
                "threshold": threshold,
                self.units.word: int((~self.units.pruned).sum()),
                **self.goal.figures(self.units.pruned),
                "validation_loss": loss,
                "validation_accuracy": accuracy,
            }
        )


def _units(
    graph: fx.GraphModule, example: torch.Tensor, chosen: Options, has_samples: bool
) -> ChannelUnits | WeightUnits:
    sizes = network.shapes(graph, example)
    names = {str(node.target) for node, _ in network.weighted(graph)}
    check_names("ignored_layers", chosen.ignored_layers, names)
    check_names("pruning_ratio_dict", chosen.pruning_ratio_dict or {}, names)
    score = chosen.score(has_samples)
    if chosen.granularity == "unstructured":
        return WeightUnits(graph, sizes, score, chosen.ignored_layers, chosen.seed)
    channels = analyse(graph, sizes, couple_groups=True)
    return ChannelUnits(graph, channels, sizes, score, chosen.ignored_layers, chosen.seed)
