"""Ranges of activations and widths of biases, from samples."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any

from flow.quantize.calibration import DEAD, Calibration, set_ranges, set_weight_ranges

if TYPE_CHECKING:
    import torch
    from torch import fx

MAX_BIAS_BITS = 32


def calibrate(
    quant: fx.GraphModule, samples: tuple[torch.Tensor, ...], how: Calibration | None = None
) -> None:
    """Set the range of every quantizer of activations, and of weights where the least squared error is asked for.

    Args:
        quant: what `quantized_copy` returned.
        samples: one tensor an input (samples, ...).
        how: ``None``: the largest magnitude.
    """
    how = how or Calibration()
    if how.method == "mse":
        set_weight_ranges(quant)
    if how.method == "max":
        _span_largest(quant, samples)
    else:
        set_ranges(quant, samples, how)


def _span_largest(quant: fx.GraphModule, samples: tuple[torch.Tensor, ...]) -> None:
    """Set ranges to the largest magnitudes, as Brevitas counts them; a shared one spans the largest of its tensors."""
    import torch
    from brevitas.graph.calibrate import calibration_mode

    calls = Counter(str(node.target) for node in quant.graph.nodes if node.op == "call_module")
    ranges: dict[str, float] = {}
    hooks = []
    for name, count in calls.items():
        if count > 1:

            def note(module: Any, args: Any, name: str = name) -> None:
                largest = float(getattr(args[0], "value", args[0]).abs().max())
                ranges[name] = max(ranges.get(name, 0.0), largest)

            hooks.append(quant.get_submodule(name).register_forward_pre_hook(note))
    with torch.no_grad():
        with calibration_mode(quant):
            quant(*samples)
        for hook in hooks:
            hook.remove()
        for path, parameter in quant.named_parameters():
            if path.endswith("scaling_impl.value"):  # the logarithm of the range
                name = path.partition(".act_quant.")[0]
                if ranges.get(name, 0.0) > DEAD:
                    parameter.fill_(math.log2(ranges[name]))
                if not 2**parameter > DEAD:
                    parameter.zero_()  # Brevitas takes 1e-10, which is not a power of two


def needed_bias_bits(
    quant: fx.GraphModule, layers: list[str], sample: tuple[torch.Tensor, ...]
) -> dict[str, int]:
    """Return the bits that each layer's biases need in steps of input scale x weight scale, one to spare for training.

    Without them a bias saturates: a layer with a small scale would lose it.
    """
    from flow.quantize.layers import inputs_of

    needed = {}
    for name, source in zip(layers, inputs_of(quant, layers, sample), strict=True):
        module: Any = quant.get_submodule(name)
        step = (source.scale * module.quant_weight().scale).detach().reshape(-1)
        largest = float((module.bias.detach().abs() / step).max())
        needed[name] = min(MAX_BIAS_BITS, math.ceil(math.log2(largest + 1)) + 2)
    return needed
