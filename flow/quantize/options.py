"""How to quantize: the options of `flow.quantize` and `flow.search_bits` as one object, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from flow import network, training
from flow.quantize.calibration import Calibration
from flow.quantize.widths import Widths, check_bits, check_scales

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
        check_scales(self.scales)
        _ = self.ranges  # it checks itself
        training.check_options(
            "quantize",
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            patience=self.patience,
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
