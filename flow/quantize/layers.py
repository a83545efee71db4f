"""What stands in a quantized network in the place of a float layer. The only home of brevitas' layers."""

from __future__ import annotations

from typing import Any, ClassVar

import brevitas.nn as qnn
import numpy as np
import torch
from brevitas.export.onnx.qonnx.function import BrevitasQuantOp
from brevitas.export.onnx.qonnx.handler import BrevitasActQuantProxyHandler
from brevitas.export.onnx.qonnx.manager import QONNXManager
from brevitas.inject.enum import QuantType, RestrictValueType
from brevitas.quant import (
    Int8ActPerTensorFixedPoint,
    Int8WeightPerTensorFixedPoint,
    Int16Bias,
    Uint8ActPerTensorFixedPoint,
)
from torch import nn
from torch.nn import functional

from flow.network import evaluating, kind

SPREAD = 2.0**-8
"""A channel's range is at least this share of the layer's: biases and sums of all channels keep to one range."""
SLOPE_BITS = 4
"""Slopes times sums of up to 20 bits are exact in float32."""


SIGNIFICANT_BITS = 12
"""Of a free scale: the product of two is exact in float32, and sums in steps of it are exact in float64."""
_SHARES = {"bipolar": 0.25, "input": 2.0, "free": 0.5}
"""What 1 bit multiplies Brevitas' step with: near the mean magnitude where numbers are normal; the largest number of an
input; half of the largest behind a ReLU."""


class Step(nn.Module):  # type: ignore[misc]
    """The step of a quantizer: a share of what its range gives, rounded to `SIGNIFICANT_BITS` bits where it is short.

    Its gradient passes. ``held``: what it gives in the place of that, once it is frozen.
    """

    def __init__(self, share: float, short: bool) -> None:  # Brevitas fills them in by their names
        super().__init__()
        self.share, self.short = share, short
        self.held: torch.Tensor | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.held is not None:
            return self.held.to(x.dtype)
        x = x * self.share
        if not self.short:
            return x
        with torch.no_grad():
            mantissa, exponent = torch.frexp(x)
            whole = (mantissa * 2**SIGNIFICANT_BITS).round()
            near = torch.ldexp(whole, exponent - SIGNIFICANT_BITS)
        return x + (near - x).detach() if x.requires_grad else near


def quantizer(bits: int, signed: bool, free: bool = False, what: str = "") -> nn.Module:
    """Return a quantizer of activations, or of an input, with one scale; 1 bit with a sign is -1 or 1 times it."""
    return qnn.QuantIdentity(  # type: ignore[no-any-return]
        return_quant_tensor=True, **_activation(bits, signed, free, what)
    )


def relu(bits: int, free: bool = False) -> nn.Module:
    """Return a ReLU with its quantizer."""
    return qnn.QuantReLU(return_quant_tensor=True, **_activation(bits, False, free))  # type: ignore[no-any-return]


def _activation(bits: int, signed: bool, free: bool, what: str = "") -> dict[str, Any]:
    share = 1.0
    if bits == 1 and not (free and what == "input"):
        share = _SHARES.get("bipolar" if signed else what or ("free" if free else ""), 1.0)
    return {
        "act_quant": Int8ActPerTensorFixedPoint if signed else Uint8ActPerTensorFixedPoint,
        "bit_width": bits,
        "restrict_scale_threshold_impl": Step,
        "share": share,
        "short": free,
        **({"restrict_scaling_type": RestrictValueType.LOG_FP} if free else {}),
        **({"quant_type": QuantType.BINARY} if bits == 1 and signed else {}),
    }


class _Unsigned(BrevitasActQuantProxyHandler):  # type: ignore[misc]
    """Writes 1 bit without a sign as what it is, 0 or 1, where Brevitas would write -1 or 1."""

    def prepare_for_export(self, module: Any) -> None:
        super().prepare_for_export(module)
        if not module.is_signed:
            self.quant_op = BrevitasQuantOp


class Exporter(QONNXManager):  # type: ignore[misc]
    """Brevitas' export to QONNX, right at 1 bit."""

    handlers: ClassVar[list[type]] = [_Unsigned, *QONNXManager.handlers]


class Range(nn.Module):  # type: ignore[misc]
    """What weights span: their largest magnitude; at 1 and 2 bits what keeps the squared error of normal ones small.

    Weights that are all zero span 1, which the steps of their biases depend on. Rounded up to a power of two later,
    unless scales are free.
    """

    free = False

    def __init__(self, bit_width: int, stats_reduce_dim: int | None) -> None:
        super().__init__()
        self.bits = bit_width
        self.channels = stats_reduce_dim
        self.share: torch.Tensor | float = 1.0  # of a calibration that clips weights

    def forward(self, weights: torch.Tensor) -> torch.Tensor:
        size = weights.abs()
        if self.bits > 2:
            span = size.amax() if self.channels is None else size.amax(self.channels)
        else:  # the best step is the mean (1 bit), or 1.5 times the mean (2 bits)
            mean = size.mean() if self.channels is None else size.mean(self.channels)
            if self.free:
                span = mean * (1 if self.bits == 1 else 1.5)
            else:  # the nearest power of two; half of the span is a step of 2 bits
                span = mean * 2**-0.5 * (1 if self.bits == 1 else 3)
        span = torch.maximum(span * self.share, span.detach().amax() * SPREAD)
        return torch.where(span > 0, span, torch.ones_like(span))


class FreeRange(Range):
    """The same for scales that need not be powers of two."""

    free = True


def weighted(
    module: Any, weight_bits: int, bias_bits: int, per_channel: bool, free: bool = False
) -> nn.Module:
    """Return a Conv or Linear layer with quantized weights and biases."""
    options: dict[str, Any] = {
        "bias": True,
        "weight_quant": Int8WeightPerTensorFixedPoint,
        "weight_bit_width": weight_bits,
        "weight_scaling_stats_impl": Range,
        "weight_scaling_per_output_channel": per_channel,
        "bias_quant": Int16Bias,
        "bias_bit_width": bias_bits,
    }
    if weight_bits == 1:
        options["weight_quant_type"] = QuantType.BINARY
    if free:
        options |= {
            "weight_restrict_scaling_type": RestrictValueType.FP,
            "weight_restrict_scale_threshold_impl": Step,
            "weight_share": 1.0,
            "weight_short": True,
            "weight_scaling_stats_impl": FreeRange,
        }
    made: Any
    if kind(module) == "Linear":
        made = qnn.QuantLinear(module.in_features, module.out_features, **options)
    else:
        keys = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups")
        conv = qnn.QuantConv1d if kind(module) == "Conv1d" else qnn.QuantConv2d
        made = conv(**{key: getattr(module, key) for key in keys}, **options)
    with torch.no_grad():
        made.weight.copy_(module.weight)
        made.bias.copy_(torch.zeros_like(made.bias) if module.bias is None else module.bias)
    made.weight.requires_grad_(
        bool(module.weight.any())
    )  # zeros that begin to train would shrink the biases' steps
    return made  # type: ignore[no-any-return]


def sloped(module: Any) -> nn.Module:
    """Return a LeakyReLU or PReLU whose slopes have `SLOPE_BITS` bits; they stay as they are in training."""
    if kind(module) == "LeakyReLU":
        return nn.LeakyReLU(float(_on_grid(torch.tensor(module.negative_slope))))
    made = nn.PReLU(module.num_parameters)
    with torch.no_grad():
        made.weight.copy_(_on_grid(module.weight.detach()))
    return made.requires_grad_(False)


def _on_grid(slopes: torch.Tensor) -> torch.Tensor:
    largest = slopes.abs().max().double()
    step = 2.0 ** (torch.frexp(largest)[1] - SLOPE_BITS)
    return (slopes.double() / step).round().mul(step).float()


class HardSigmoid(nn.Module):  # type: ignore[misc]
    """relu6(x + 3) / 6, operation by operation: a factor 1/6 would not be exact."""

    def forward(self, x: Any) -> torch.Tensor:
        return functional.relu6(_real(x) + 3) / 6


class HardSwish(nn.Module):  # type: ignore[misc]
    """x * relu6(x + 3) / 6, operation by operation: a factor 1/6 would not be exact."""

    def forward(self, x: Any) -> torch.Tensor:
        return _real(x) * functional.relu6(_real(x) + 3) / 6


class LookUp(nn.Module):  # type: ignore[misc]
    """A function of one tensor as a table; ``inputs`` and ``values``: float32, for each integer that it can hold."""

    def __init__(self, function: nn.Module, given: Any) -> None:
        """Tabulate ``function`` over what the quantized tensor ``given`` can hold."""
        super().__init__()
        self.what = kind(function)
        bits, signed = int(given.bit_width), bool(given.signed)
        bits += bits == 1 and signed  # -1 and 1 take the type of -2 to 1
        self.least = -(1 << (bits - 1)) if signed else 0
        codes = np.arange(self.least, self.least + (1 << bits))
        self.inputs = (codes * float(given.scale)).astype(np.float32)
        with torch.no_grad():
            self.values = function(torch.from_numpy(self.inputs)).numpy()

    def forward(self, x: Any) -> torch.Tensor:
        codes = (x.value / x.scale).round().long() - self.least
        return torch.from_numpy(self.values).to(x.value.dtype)[codes]


def inputs_of(quant: Any, names: list[str], sample: Any) -> list[Any]:
    """Return what the layers of these names read, for a sample."""
    seen: dict[str, Any] = {}
    hooks = [
        quant.get_submodule(name).register_forward_pre_hook(
            lambda _, args, name=name: seen.update({name: args[0]})
        )
        for name in names
    ]
    with torch.no_grad(), evaluating(quant):
        quant(*sample)
    for hook in hooks:
        hook.remove()
    return [seen[name] for name in names]


class Values(nn.Module):  # type: ignore[misc]
    """A network whose outputs are plain tensors, without the scales that Brevitas hands on."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *inputs: torch.Tensor) -> Any:
        outputs = self.network(*inputs)
        return tuple(map(_real, outputs)) if type(outputs) is tuple else _real(outputs)


def _real(x: Any) -> Any:
    return getattr(x, "value", x)
