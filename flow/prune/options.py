"""What to prune, how much, when: the options of `flow.prune` and `flow.Pruner`, checked."""

from __future__ import annotations

import difflib
import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from flow import training
from flow.errors import ConfigError

GRANULARITIES = ("structured", "unstructured")
SCHEDULES = ("pwe", "linear", "cubic", "one-shot")
OF_TRAINING = ("optimizer", "learning_rate", "momentum", "weight_decay", "batch_size")
"""Options of the loop that `flow.prune` brings along; a loop of the user's own has its own."""


@dataclass(frozen=True)
class Options:
    """See `flow.prune`, whose keyword arguments these are."""

    granularity: str = "structured"
    pruning_ratio: float | None = None
    pruning_ratio_dict: Mapping[str, float] | None = None
    global_pruning: bool = True
    budget: Mapping[str, float] | None = None
    round_to: int = 1
    ignored_layers: tuple[str, ...] = ()
    criterion: str | None = None
    regularizer: str | None = None
    regularizer_lambda: float = 1e-4
    decay_biases: bool = False
    schedule: str = "pwe"
    pwe: int = 5
    twt: float = 0.05
    steps: int = 8
    epochs: int = 100
    optimizer: str = "adamw"
    learning_rate: float = 1e-3
    momentum: float = 0.0
    weight_decay: float = 1e-4
    batch_size: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        """Take one name for a tuple of names."""
        if isinstance(self.ignored_layers, str):
            object.__setattr__(self, "ignored_layers", (self.ignored_layers,))

    def score(self, has_samples: bool) -> str:
        """Return the criterion's name."""
        fallback = "taylor" if has_samples and self.granularity == "structured" else "magnitude"
        return self.criterion or fallback

    def check(self, criteria: Collection[str], regularizers: Collection[str], trained: bool) -> None:
        """Refuse what is out of range, not known, or leaves open how much to prune.

        Args:
            criteria, regularizers: the known names.
            trained: whether a validation loss tells how much is too much.

        Raises:
            ConfigError: with the first of these.
        """
        _one_of("granularity", self.granularity, GRANULARITIES)
        _one_of("schedule", self.schedule, SCHEDULES)
        if self.criterion is not None:
            _one_of("criterion", self.criterion, criteria)
        if self.regularizer is not None:
            _one_of("regularizer", self.regularizer, regularizers)
            if not trained:
                raise ConfigError(
                    f"prune: regularizer {self.regularizer!r} must have data to train on; give data, or leave it out"
                )
        if self.pruning_ratio is not None:
            _ratio("pruning_ratio", self.pruning_ratio)
        for layer, ratio in (self.pruning_ratio_dict or {}).items():
            _ratio(f"pruning_ratio_dict[{layer!r}]", ratio)
        self._check_numbers()
        self._check_amount(trained)

    def _check_numbers(self) -> None:
        for name, value, holds, rule, usual in (
            ("pwe", self.pwe, self.pwe >= 1, "at least 1 epoch", "5 to 20 is usual"),
            ("twt", self.twt, self.twt >= 0, "at least 0", "0.05 allows 5 % more loss a step"),
            ("steps", self.steps, self.steps >= 1, "at least 1", "8 is usual"),
            ("round_to", self.round_to, self.round_to >= 1, "at least 1", "4 or 8 folds well"),
        ):
            if not holds:
                raise ConfigError(f"prune: {name} must be {rule}, not {value}; {usual}")
        if self.round_to > 1 and self.granularity == "unstructured":
            raise ConfigError(
                f"prune: round_to must be 1 for single weights, not {self.round_to}; layers keep their widths"
            )
        for name, limit in (self.budget or {}).items():
            if not (limit > 0 and math.isfinite(limit)):
                raise ConfigError(
                    f"prune: budget {name} must be above 0, not {limit}; leave it out for no limit"
                )

    def _check_amount(self, trained: bool) -> None:
        if self.pruning_ratio is not None or self.pruning_ratio_dict or self.budget:
            return
        if not trained or self.schedule != "pwe":
            raise ConfigError(
                "prune: pruning_ratio must be given where there is no data, or a schedule of fixed steps, not left "
                "out; try 0.5"
            )


def check(options: Options, trained: bool) -> None:
    """Refuse options of `flow.prune` that are out of range or not known.

    Args:
        options: those of the pruning and of its training.
        trained: whether there are data to train on.

    Raises:
        ConfigError: with the first of these.
    """
    from flow.prune.criteria import CRITERIA
    from flow.prune.regularizers import REGULARIZERS

    training.check_options(
        "prune",
        epochs=options.epochs,
        batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        weight_decay=options.weight_decay,
    )
    if trained:
        training.check_optimizer(options.optimizer, options.momentum)
    options.check(CRITERIA, REGULARIZERS, trained)


def of_pruner(values: Mapping[str, Any]) -> Options:
    """Return the options of a `flow.Pruner`, by name.

    Raises:
        ConfigError: a name is not known.
    """
    known = [field.name for field in fields(Options) if field.name not in OF_TRAINING]
    for name in values:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known options: {', '.join(known)}"
            raise ConfigError(f"prune: option {name!r} is not known; {hint}")
    return Options(**values)


def check_names(what: str, given: Iterable[str], known: Collection[str]) -> None:
    """Refuse names of layers that the network has not."""
    for layer in given:
        if layer not in known:
            raise ConfigError(
                f"prune: {what} must name layers of the network ({', '.join(sorted(known))}), not {layer!r}"
            )


def _one_of(name: str, value: str, known: Collection[str]) -> None:
    if value not in known:
        raise ConfigError(f"prune: {name} must be one of {', '.join(known)}, not {value!r}")


def _ratio(name: str, value: float) -> None:
    if not 0 <= value < 1:
        raise ConfigError(f"prune: {name} must be in [0, 1), not {value}; 0.5 removes half of the channels")
