"""Regularizers by name: they drive weights or neurons to zero that the network is not sensitive to."""

from __future__ import annotations

from flow.prune.regular_base import Regularizer
from flow.prune.regular_neurons import NeuronLobster, Serene, SereneLocal, SereneLowerBound
from flow.prune.regular_weights import Lobster, Sensitivity, SensitivityLowerBound

__all__ = ["REGULARIZERS", "Regularizer"]

REGULARIZERS: dict[str, type[Regularizer]] = {
    "sensitivity": Sensitivity,
    "sensitivity-lower-bound": SensitivityLowerBound,
    "lobster": Lobster,
    "neuron-lobster": NeuronLobster,
    "serene": Serene,
    "serene-lower-bound": SereneLowerBound,
    "serene-local": SereneLocal,
}
