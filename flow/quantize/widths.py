"""How many bits each number takes: one width for the whole network, and others for single layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from flow import network
from flow.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np
    from torch import fx

LayerBits = Mapping[str, Mapping[str, int]]
LIMITS = {"weight_bits": 16, "activation_bits": 16, "input_bits": 16, "bias_bits": 32}
"""The most bits of every kind of number; the least is 1."""
_USUAL = {"bias_bits": "16 is usual"}
_OF_WEIGHTS = ("weight_bits", "bias_bits")
SCALES = ("power-of-two", "free")
KEYS = ("weight_bits", "activation_bits", "bias_bits")
"""What a layer can have a width of its own for."""


@dataclass(frozen=True)
class Widths:
    """Bits of every kind of number; ``bias``: by layer.

    ``per_channel``: one scale an output channel of weights. ``free``: scales need not be powers of two. ``layers``: the
    widths of single layers, by the module's name, or the node's where there is none (``add``, ``cat``, ``mul``).
    """

    weight: int
    activation: int
    input: int
    bias: Mapping[str, int]
    per_channel: bool = False
    free: bool = False
    layers: LayerBits = field(default_factory=dict)

    def weight_of(self, layer: str) -> int:
        """Return the bits of a layer's weights."""
        return self.layers.get(layer, {}).get("weight_bits", self.weight)

    def asked(self, layer: str) -> int | None:
        """Return the bits that were asked for behind a layer, if any were."""
        return self.layers.get(layer, {}).get("activation_bits")


def check_bits(**bits: int) -> None:
    """Refuse widths out of range."""
    for name, value in bits.items():
        _check(f"quantize: {name}", name, value)


def _check(subject: str, key: str, value: int) -> None:
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not (whole and 1 <= value <= LIMITS[key]):
        raise ConfigError(
            f"{subject} must be in 1 to {LIMITS[key]}, not {value!r}; {_USUAL.get(key, '4 to 8 is usual')}"
        )


def check_positive(input_bits: int, samples: tuple[np.ndarray, ...]) -> None:
    """Refuse 1 bit for inputs that can be negative."""
    if input_bits == 1 and any((array < 0).any() for array in samples):
        raise ConfigError("quantize: input_bits must be 2 or more for samples below 0, not 1; 8 is usual")


def check_scales(scales: str) -> None:
    """Refuse scales that there are not."""
    if scales not in SCALES:
        raise ConfigError(
            f"quantize: scales must be one of {', '.join(SCALES)}, not {scales!r}; power-of-two needs no multipliers"
        )


def name_of(node: fx.Node) -> str:
    """Return the name by which a layer or a join is called."""
    return str(node.target) if node.op == "call_module" else node.name


def check_layer_bits(graph: fx.GraphModule, layers: LayerBits) -> None:
    """Refuse widths of layers that are not there, and keys and numbers that no layer takes.

    Args:
        graph: what `flow.quantize.prepare.prepared` returned.
        layers: see `Widths`.

    Raises:
        ConfigError: with the first of these.
    """
    nodes = [node for node in graph.graph.nodes if node.op in ("call_module", "call_function")]
    weighted = [str(node.target) for node, _ in network.weighted(graph)]
    for name, bits in layers.items():
        if name not in map(name_of, nodes):
            raise ConfigError(
                f"quantize: layers must name layers of the network, not {name!r}; its layers: "
                f"{', '.join(map(name_of, nodes))}"
            )
        for key in bits:
            if key in _OF_WEIGHTS and name not in weighted:
                raise ConfigError(
                    f"quantize: layer {name!r} must have weights to take {key}, not be without; "
                    f"layers with weights: {', '.join(weighted)}"
                )


def check_layer_keys(layers: LayerBits) -> None:
    """Refuse widths of single layers that no layer takes, whatever the network.

    Raises:
        ConfigError: with the first of these.
    """
    for name, bits in layers.items():
        for key, value in bits.items():
            if key not in KEYS:
                raise ConfigError(
                    f"quantize: layer {name!r} must have widths among {', '.join(KEYS)}, not {key!r}; correct its key"
                )
            _check(f"quantize: {key} of layer {name!r}", key, value)


def check_used(layers: LayerBits, activation_bits: Mapping[str, int]) -> None:
    """Refuse widths for a quantizer that is not there.

    Args:
        layers: see `Widths`.
        activation_bits: the bits of the quantizer behind each layer that has one.

    Raises:
        ConfigError: with the first of these.
    """
    for name, bits in layers.items():
        if "activation_bits" in bits and name not in activation_bits:
            raise ConfigError(
                f"quantize: layer {name!r} must have a quantizer behind it to take activation_bits, not be without; "
                f"layers with one: {', '.join(activation_bits) or 'none'}"
            )
