"""What the quantizers of activations read, over calibration samples."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import fx, nn

BATCH = 64
KEPT = 1 << 18
"""Numbers that are kept of each tensor: a random choice with a fixed seed where there are more."""


@dataclass(frozen=True)
class Observed:
    """What one quantizer read: ``values`` (numbers,), all or a random choice; ``largest`` magnitude of all."""

    values: torch.Tensor
    largest: float


def batches(samples: tuple[torch.Tensor, ...]) -> Iterator[tuple[torch.Tensor, ...]]:
    """Yield samples, `BATCH` at a time."""
    for first in range(0, len(samples[0]), BATCH):
        yield tuple(tensor[first : first + BATCH] for tensor in samples)


def is_quantizer(module: nn.Module) -> bool:
    """Tell whether a module quantizes activations on a range of its own."""
    return hasattr(module, "act_quant") and any(
        path.endswith("scaling_impl.value") for path, _ in module.named_parameters()
    )


def observe(quant: fx.GraphModule, samples: tuple[torch.Tensor, ...]) -> dict[str, Observed]:
    """Return what every quantizer of activations reads over the samples; a shared one: of all its tensors together.

    Activations are not quantized meanwhile, weights are. About `KEPT` numbers of each tensor are kept, each number as
    likely as any other.
    """
    import torch
    from brevitas.graph.calibrate import calibration_mode

    generator = torch.Generator().manual_seed(0)
    kept: dict[str, list[torch.Tensor]] = {}
    largest: dict[str, float] = {}

    def note(name: str, module: Any, args: Any) -> None:
        given = getattr(args[0], "value", args[0]).detach()
        flat = (given if module.act_quant.is_signed else given.relu()).flatten()
        largest[name] = max(largest.get(name, 0.0), float(flat.abs().max()))
        share = KEPT * len(given) / (len(flat) * len(samples[0]))
        if share < 1:
            flat = flat[torch.randint(len(flat), (max(1, int(share * len(flat))),), generator=generator)]
        kept.setdefault(name, []).append(flat.clone())

    hooks = [
        module.register_forward_pre_hook(lambda module, args, name=name: note(name, module, args))
        for name, module in quant.named_modules()
        if is_quantizer(module)
    ]
    with torch.no_grad(), calibration_mode(quant):
        for batch in batches(samples):
            quant(*batch)
    for hook in hooks:
        hook.remove()
    return {name: Observed(torch.cat(parts), largest[name]) for name, parts in kept.items()}
