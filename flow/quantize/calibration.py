"""Ranges of activations and weights that leave out outliers: a percentile, or the least squared error."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flow import network
from flow.errors import ConfigError
from flow.quantize.observed import Observed, observe

if TYPE_CHECKING:
    import torch
    from torch import fx, nn

METHODS = ("max", "percentile", "mse")
DEAD = 1e-9
"""Activations below are zero: their range is 1."""
_OCTAVES = range(2, -15, -1)
_FINE = 16
"""Candidates an octave of a free scale."""
_WEIGHT_OCTAVES = (0, 1, -1, -2, -3, -4, -5, -6, -7, -8)
_WEIGHT_FINE = (0.0, *(k / 16 for k in range(16, -97, -1) if k))


@dataclass(frozen=True)
class Calibration:
    """How ranges are set: ``method`` is one of `METHODS`, ``percentile`` in (50, 100]."""

    method: str = "max"
    percentile: float = 99.9
    bias_correction: bool = False

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ConfigError(
                f"quantize: calibration must be one of {', '.join(METHODS)}, not {self.method!r}; "
                "mse suits 2 to 5 bits"
            )
        if not 50 < self.percentile <= 100:
            raise ConfigError(
                f"quantize: percentile must be in (50, 100], not {self.percentile}; 99.9 is usual"
            )


def percentile_of(values: torch.Tensor, percentile: float) -> float:
    """Return the smallest magnitude that ``percentile`` percent of the magnitudes do not exceed; 0 for what is dead.

    Args:
        values: numbers, at least one.
        percentile: in (50, 100].
    """
    size = values.abs().flatten()
    rank = max(1, math.ceil(percentile / 100 * size.numel()))
    found = float(size.kthvalue(rank).values)
    return found if found > DEAD else 0.0


def range_parameter(quantizer: nn.Module) -> torch.Tensor:
    """Return the parameter that holds the logarithm of a quantizer's range to base 2."""
    return next(p for path, p in quantizer.named_parameters() if path.endswith("scaling_impl.value"))


def squared_error(quantizer: Any, values: torch.Tensor, log_range: float) -> float:
    """Return sum (q(x) - x)^2 in float64, for a range of ``2^log_range``; the quantizer keeps that range."""
    range_parameter(quantizer).data.fill_(log_range)
    return float((quantizer(values).value.double() - values.double()).square().sum())


def least_error(quantizer: Any, seen: Observed, also: tuple[float, ...] = ()) -> float:
    """Return the logarithm of the range with the least sum (q(x) - x)^2; of equal ones the largest.

    All powers of two from four times the largest magnitude to 2^-14 of it are tried; for free scales then 16 ranges an
    octave around the best of them.

    Args:
        quantizer: one of activations, in evaluation mode; it keeps the last range that was tried.
        seen: numbers, not all zero.
        also: logarithms of other ranges to try.
    """
    from flow.quantize.layers import Step

    def best(candidates: list[float]) -> float:
        return -min((squared_error(quantizer, seen.values, c), -c) for c in candidates)[1]

    top = math.ceil(math.log2(seen.largest))
    found = best([*(float(top + k) for k in _OCTAVES), *also])
    if not any(isinstance(module, Step) and module.short for module in quantizer.modules()):
        return found
    return best([found + k / _FINE for k in range(-_FINE, _FINE + 1)])


def set_ranges(quant: fx.GraphModule, samples: tuple[torch.Tensor, ...], how: Calibration) -> None:
    """Set the range of every quantizer of activations by a percentile, or by the least squared error.

        percentile: r = the least |x| with #{|x_i| <= |x|} >= percentile / 100 * n
        mse:        r = argmin sum_i (q_r(x_i) - x_i)^2

    A quantizer shared by several tensors has one range for all their numbers together. Without a number but 0 it is 1.

    Source: Nagel et al., "A White Paper on Neural Network Quantization", 2021, section 3.1.
    """
    import torch

    found = observe(quant, samples)
    with torch.no_grad(), network.evaluating(quant):
        for name, seen in found.items():
            quantizer = quant.get_submodule(name)
            log_range = 0.0
            if seen.largest > DEAD:
                share = percentile_of(seen.values, how.percentile) if how.percentile < 100 else 0.0
                log_range = math.log2(share or seen.largest)
                if how.method == "mse":
                    log_range = least_error(quantizer, seen, (math.log2(seen.largest), log_range))
            range_parameter(quantizer).data.fill_(log_range)


def set_weight_ranges(quant: fx.GraphModule) -> None:
    """Give each layer's weights, or each channel's, the share of their range with the least sum (q(w) - w)^2.

    Tried are 2, 1, 1/2, ..., 1/256 of the usual range, for free scales 16 shares an octave from 2 to 1/64; of equal
    ones the usual. The share stays as it is in training. Weights of 1 and 2 bits keep their own rule.
    """
    import torch

    from flow.quantize.layers import FreeRange, Range

    layers = [module for module in quant.modules() if hasattr(module, "quant_weight")]
    with torch.no_grad():
        for layer in layers:
            span = next(module for module in layer.modules() if isinstance(module, Range))
            if span.bits <= 2:
                continue
            shares = [2.0**k for k in (_WEIGHT_FINE if isinstance(span, FreeRange) else _WEIGHT_OCTAVES)]
            errors = []
            for share in shares:
                span.share = torch.tensor(share)
                error = (layer.quant_weight().value.double() - layer.weight.double()).square()
                errors.append(error.sum() if span.channels is None else error.flatten(1).sum(1))
            span.share = torch.tensor(shares)[torch.stack(errors).argmin(0)]
