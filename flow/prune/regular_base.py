"""What the regularizers share: hooks that see every pass and every step, and the decay itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from flow.errors import ConfigError
from flow.network import NORMS, kind, weighted
from flow.network.tracing import tensors_of

if TYPE_CHECKING:
    import torch
    from torch import fx, nn
    from torch.optim import Optimizer


class Regularizer:
    """Decay, after every step of an optimizer, what the network is insensitive to.

    w <- w - strength * w * max(0, 1 - S), with S the sensitivity that the subclass measures

    Acts on weights of Conv, transposed Conv and Linear layers that require a gradient, have one, and are held by the
    optimizer. Several passes before a step count as one: S, or what it is the absolute value of, is their mean.
    """

    def __init__(self, graph: fx.GraphModule, *, strength: float, decay_biases: bool = False) -> None:
        """Take a network; nothing is registered before `attach`.

        Args:
            graph: a network from `flow.network.trace`.
            strength: lambda, at least 0; not multiplied by the learning rate.
            decay_biases: act on biases and BatchNorm, too.

        Raises:
            ConfigError: ``strength`` is negative or not finite.
        """
        if not (math.isfinite(strength) and strength >= 0):
            raise ConfigError(
                f"prune: regularizer_lambda must be finite and at least 0, not {strength}; "
                "the papers use 1e-4 at a learning rate of 0.1"
            )
        self.graph, self.strength, self.decay_biases = graph, strength, decay_biases
        self.layers: dict[str, nn.Module] = {str(node.target): module for node, module in weighted(graph)}
        if decay_biases:
            norms = {name: module for name, module in graph.named_modules() if kind(module) in NORMS}
            self.layers |= {name: module for name, module in norms.items() if module.weight is not None}
        self._held: set[int] = set()
        self._handles: list[Any] = []
        self._sums: dict[str, torch.Tensor] = {}
        self._counts: dict[str, int] = {}

    def attach(self, optimizer: Optimizer) -> None:
        """Act after every step of ``optimizer``; of an optimizer that was attached before, no more.

        Raises:
            ConfigError: the optimizer holds no parameter of the network.
        """
        held = held_parameters(self.graph, optimizer)
        self.detach()
        self._held = held
        self._handles = [optimizer.register_step_post_hook(Hook(self._stepped)), *self._register()]

    def detach(self) -> None:
        """Remove every hook; what was measured since the last step is dropped."""
        for handle in self._handles:
            handle.remove()
        self._handles, self._held = [], set()
        self._forget()

    def state_dict(self) -> dict[str, Any]:
        """Return what must be kept from step to step."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take what `state_dict` returned."""

    def _register(self) -> list[Any]:
        """Add the hooks that measure; returns their handles."""
        return []

    def _sensitivities(self) -> Iterable[tuple[nn.Parameter, torch.Tensor]]:
        """Yield parameters with their sensitivities, of the same shape or one that broadcasts to it."""
        raise NotImplementedError

    def _stepped(self, *_: Any) -> None:
        import torch

        with torch.no_grad():
            for parameter, sensitivity in self._sensitivities():
                if self._decays(parameter):
                    insensitivity = (1 - sensitivity).clamp_(min=0)
                    parameter.mul_(insensitivity.mul_(-self.strength).add_(1))
        self._forget()

    def _decays(self, parameter: nn.Parameter) -> bool:
        return id(parameter) in self._held and parameter.requires_grad and parameter.grad is not None

    def _parameters(self) -> dict[str, nn.Parameter]:
        """Return the parameters to act on, by name."""
        found = {}
        for name, module in self.layers.items():
            found[f"{name}.weight"] = module.weight
            if self.decay_biases and module.bias is not None:
                found[f"{name}.bias"] = module.bias
        return found

    def _add(self, name: str, value: torch.Tensor) -> None:
        """Add one measurement to the mean of a layer or parameter."""
        self._sums[name] = self._sums[name] + value if name in self._sums else value
        self._counts[name] = self._counts.get(name, 0) + 1

    def _means(self) -> dict[str, torch.Tensor]:
        return {name: total / self._counts[name] for name, total in self._sums.items()}

    def _forget(self) -> None:
        self._sums, self._counts = {}, {}


def held_parameters(graph: fx.GraphModule, optimizer: Optimizer) -> set[int]:
    """Return the ids of the network's parameters that an optimizer holds.

    Raises:
        ConfigError: it holds none.
    """
    mine = {id(parameter) for parameter in graph.parameters()}
    held = mine & {id(p) for group in optimizer.param_groups for p in group["params"]}
    if not held:
        raise ConfigError(
            "prune: optimizer must hold parameters of the network, not none of them; "
            "build it from pruner.model.parameters()"
        )
    return held


class Hook:
    """A hook that copies of its network do not inherit, and that does not keep the network from being pickled."""

    def __init__(self, function: Callable[..., None]) -> None:
        self.function = function

    def __call__(self, *args: Any) -> None:
        self.function(*args)

    def __reduce__(self) -> tuple[Callable[[], Hook], tuple[()]]:
        return _idle, ()


def _nothing(*_: Any) -> None:
    """Stand in for a hook in a copy."""


def _idle() -> Hook:
    return Hook(_nothing)


def wide(value: torch.Tensor) -> torch.Tensor:
    """Return a tensor without its history in float32, or in float64 where it is."""
    import torch

    return value.detach().to(torch.promote_types(value.dtype, torch.float32))


def batch_outputs(result: Any) -> torch.Tensor | None:
    """Return all outputs as (batch, outputs), each element of a sample's result being one; None: no gradient."""
    import torch

    found = [value for value in tensors_of(result) if value.is_floating_point()]
    if not any(value.requires_grad for value in found):
        return None
    return torch.cat([value.reshape(len(value), -1).to(wide(value).dtype) for value in found], 1)


def derivatives(scalars: torch.Tensor, inputs: list[Any]) -> Iterable[tuple[torch.Tensor | None, ...]]:
    """Yield the derivatives of each of ``scalars`` by all ``inputs``; the graph is kept for the loss.

    Args:
        scalars: a vector; one backward pass for each element.
        inputs: tensors or gradient edges.
    """
    import torch

    with torch.autocast(scalars.device.type, enabled=False):
        for scalar in scalars.unbind():
            yield torch.autograd.grad(scalar, inputs, retain_graph=True, allow_unused=True)
