"""Ranges of activations and widths of biases, from samples."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import fx

MAX_BIAS_BITS = 32
_DEAD = 1e-9
"""Activations below are zero: they get the range 1, where Brevitas takes 1e-10, which is not a power of two."""


def calibrate(quant: fx.GraphModule, samples: tuple[torch.Tensor, ...]) -> None:
    """Set the range of every quantizer of activations; a shared one spans the largest of its tensors."""
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
                if ranges.get(name, 0.0) > _DEAD:
                    parameter.fill_(math.log2(ranges[name]))
                if not 2**parameter > _DEAD:
                    parameter.zero_()


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
