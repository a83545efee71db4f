"""How to quantize: the options of `flow.quantize` and `flow.search_bits` as one object, checked."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from flow import network, training
from flow.errors import ConfigError
from flow.quantize.calibration import Calibration
from flow.quantize.widths import Widths, check_bits, check_layer_keys, check_scales

if TYPE_CHECKING:
    from torch import fx


@dataclass(frozen=True)
class Options:
    """See `flow.quantize`, whose keyword arguments these are."""

    weight_bits: int = 6
    activation_bits: int = 6
    input_bits: int = 8
    bias_bits: int = 16
    layers: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    max_accuracy_drop: float | None = None
    bit_budget: Mapping[str, float] | None = None
    candidate_bits: tuple[int, ...] = (2, 3, 4, 6, 8)
    scales: str = "power-of-two"
    per_channel: bool = False
    calibration: str = "max"
    percentile: float = 99.9
    bias_correction: bool = False
    epochs: int = 20
    learning_rate: float = 1e-3
    batch_size: int = 64
    patience: int | None = None
    seed: int = 0

    def check(self) -> None:
        """Refuse what is out of range or not known.

        Raises:
            ConfigError: an option breaks its rule.
        """
        check_bits(
            weight_bits=self.weight_bits,
            activation_bits=self.activation_bits,
            input_bits=self.input_bits,
            bias_bits=self.bias_bits,
        )
        check_layer_keys(self.layers)
        check_scales(self.scales)
        _ = self.ranges  # it checks itself
        training.check_options(
            "quantize",
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            patience=self.patience,
        )
        if self.max_accuracy_drop is not None or self.bit_budget:
            self.check_search()

    def check_search(self) -> None:
        """Refuse options of a search of widths that are out of range, or contradict one another.

        Raises:
            ConfigError: an option breaks its rule.
        """
        drop, budget, candidates = self.max_accuracy_drop, self.bit_budget, self.candidate_bits
        if (drop is None) == (not budget):
            raise ConfigError(
                "quantize: max_accuracy_drop or bit_budget must be given for a search, not both or neither; "
                "0.01 allows one point"
            )
        if drop is not None and not 0 <= drop < 1:
            raise ConfigError(
                f"quantize: max_accuracy_drop must be in [0, 1), not {drop}; 0.01 allows one point"
            )
        if not candidates or any(not 1 <= bits <= 16 for bits in candidates):
            raise ConfigError(
                f"quantize: candidate_bits must be widths in 1 to 16, not {list(candidates)}; [2, 3, 4, 6, 8] is usual"
            )
        for name, limit in (budget or {}).items():
            if not (limit > 0 and math.isfinite(limit)):
                raise ConfigError(
                    f"quantize: bit_budget {name} must be above 0, not {limit}; leave it out for no limit"
                )

    @property
    def searches(self) -> bool:
        """Tell whether widths are to be searched."""
        return self.max_accuracy_drop is not None or bool(self.bit_budget)

    @property
    def ranges(self) -> Calibration:
        """Return how ranges are set."""
        return Calibration(self.calibration, self.percentile, self.bias_correction)

    def widths(self, graph: fx.GraphModule) -> Widths:
        """Return the widths of a network's numbers."""
        weighted = [str(node.target) for node, _ in network.weighted(graph)]
        biases = {name: self.layers.get(name, {}).get("bias_bits", self.bias_bits) for name in weighted}
        free = self.scales == "free"
        return Widths(
            self.weight_bits,
            self.activation_bits,
            self.input_bits,
            biases,
            self.per_channel,
            free,
            self.layers,
        )
