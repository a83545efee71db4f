"""What stages take of a chip, about: rules fitted to what yosys made of them (benchmarks/rtl_cost.py)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from flow.rtl.streams import Circuit

Sizes = Mapping[str, int]
_LUT_MEMORY_WORDS = 64
"""A deeper memory goes to block RAM."""


def _fifo(p: Sizes, bits: int) -> tuple[float, ...]:
    return 1, bits, bits * min(p["DEPTH"], 512) / 32


def _width(p: Sizes, bits: int) -> tuple[float, ...]:
    return 1, p["WIDTH"] * max(p["IN_LANES"], p["OUT_LANES"])


def _rescale(p: Sizes, bits: int) -> tuple[float, ...]:
    return 1, p["LANES"] * p["IN_WIDTH"], bits


def _patch(p: Sizes, bits: int) -> tuple[float, ...]:
    padded = p["PAD_TOP"] or p["PAD_LEFT"]
    above = (p["K_H"] - 1) * p["DILATION_H"] * p["LANES"] * p["WIDTH"]
    return 1, bits if padded else 0, above


def _mvau(p: Sizes, bits: int) -> tuple[float, ...]:
    products, words = p["PE"] * p["SIMD"], p["SYNAPSE_FOLD"] * p["NEURON_FOLD"]
    weights = products * p["WEIGHT_WIDTH"] * words / _LUT_MEMORY_WORDS if words <= _LUT_MEMORY_WORDS else 0
    split = (p["PE"] // 2) * p["SIMD"] * (p["IN_WIDTH"] + p["WEIGHT_WIDTH"]) if p["PACKED"] else 0
    return 1, bits, products * (p["IN_WIDTH"] + p["WEIGHT_WIDTH"]), weights, split


def _adders(p: Sizes, bits: int) -> tuple[float, ...]:
    return 1, p["DIGITS"] * (p["IN_WIDTH"] + 3), bits


_FEATURES: dict[str, Callable[[Sizes, int], tuple[float, ...]]] = {
    "flow_fifo": _fifo,
    "flow_width": _width,
    "flow_rescale": _rescale,
    "flow_patch": _patch,
    "flow_mvau": _mvau,
    "adders": _adders,
}
RULES: dict[int, dict[str, tuple[float, ...]]] = {
    6: {
        "adders": (0.0, 0.52, 1.33),
        "flow_fifo": (11.32, 0.58, 0.5),
        "flow_mvau": (90.0, 2.5, 0.3, 2.5, 2.0),
        "flow_patch": (47.29, 1.47, 0.42),
        "flow_pool": (13.17, 1.48),
        "flow_rescale": (0.34, 0.27, 1.0),
        "flow_width": (0.0, 0.53),
        "flow_window": (257.05, 2.05),
        "": (30.0, 2.0),
    },
    4: {
        "adders": (67.42, 0.78, 0.88),
        "flow_fifo": (14.16, 0.8, 2.54),
        "flow_mvau": (118.0, 0.5, 3.3, 2.5, 2.0),
        "flow_patch": (84.75, 2.27, 0.34),
        "flow_pool": (26.82, 2.13),
        "flow_rescale": (2.0, 0.5, 6.3),
        "flow_width": (0.0, 2.2),
        "flow_window": (474.17, 5.13),
        "": (60.0, 4.0),
    },
}
"""LUTs for each of a kind's features; for LUTs of 6 and of 4 inputs. The kinds that are not named have the rule ""."""


def features(kind: str, sizes: Sizes, bits: int) -> tuple[float, ...]:
    """Return what the LUTs of a stage follow.

    Args:
        kind: the module of ``hls_templates/verilog``, or ``adders``.
        sizes: its parameters.
        bits: of an output beat.
    """
    return _FEATURES[kind](sizes, bits) if kind in _FEATURES else (1, bits)


@dataclass(frozen=True)
class Chip:
    """What there is: ``luts`` and ``multipliers`` at most; ``inputs``: of a LUT, 6 or 4.

    ``multiplier_bits``: of a multiplier's wider side. ``adders``: layers may be adders made for their weights.
    """

    luts: int
    multipliers: int
    inputs: int
    multiplier_bits: int
    adders: bool

    def holds(self, circuit: Circuit) -> bool:
        """Tell whether there is room for a circuit."""
        return circuit.luts <= self.luts and circuit.multipliers <= self.multipliers

    def takes(self, kind: str, size: tuple[float, ...]) -> int:
        """Return about how many LUTs a stage with these features takes."""
        rules = RULES[self.inputs]
        return round(sum(each * value for each, value in zip(rules.get(kind, rules[""]), size, strict=False)))
