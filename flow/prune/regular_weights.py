"""Regularizers of single weights: sensitivity, its lower bound, and LOBSTER."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from flow.prune.regular_base import Hook, Regularizer, batch_outputs, derivatives, wide

if TYPE_CHECKING:
    import torch
    from torch import nn


class Lobster(Regularizer):
    """S(w) = |dL/dw|, from the gradient that the optimizer has just used.

    Source: Tartaglione et al., "LOBSTER", Neural Networks 146, 2022.
    """

    def _sensitivities(self) -> Iterable[tuple[nn.Parameter, torch.Tensor]]:
        for parameter in self._parameters().values():
            if parameter.grad is not None:
                yield parameter, wide(parameter.grad).abs()


class Sensitivity(Regularizer):
    """S(w) = sum over the outputs k of alpha * |d ybar_k / dw|, alpha = 1 / C, ybar the batch mean: C backward passes.

    Source: Tartaglione et al., "Learning Sparse Neural Networks via Sensitivity-Driven Regularization", NeurIPS 2018.
    """

    def _register(self) -> list[Any]:
        return [self.graph.register_forward_hook(Hook(self._passed))]

    def _passed(self, _module: nn.Module, _inputs: Any, result: Any) -> None:
        outputs = batch_outputs(result) if self.graph.training else None
        chosen = {
            name: value
            for name, value in self._parameters().items()
            if id(value) in self._held and value.requires_grad
        }
        if outputs is None or not chosen:
            return
        sums: dict[str, torch.Tensor] = {}
        for found in derivatives(self._scalars(outputs), list(chosen.values())):
            for name, value in zip(chosen, found, strict=True):
                if value is not None:
                    size = wide(value).abs()
                    sums[name] = sums[name].add_(size) if name in sums else size
        for name, value in chosen.items():
            self._add(name, sums[name] if name in sums else wide(value.new_zeros(value.shape)))

    def _scalars(self, outputs: torch.Tensor) -> torch.Tensor:
        """Return, from outputs as (batch, C), what the absolute derivatives are summed of."""
        return outputs.mean(0) / outputs.shape[1]

    def _sensitivities(self) -> Iterable[tuple[nn.Parameter, torch.Tensor]]:
        parameters = self._parameters()
        for name, value in self._means().items():
            yield parameters[name], value


class SensitivityLowerBound(Sensitivity):
    """S(w) = |d (sum over k of alpha * ybar_k) / dw|: one backward pass; at most the exact sensitivity."""

    def _scalars(self, outputs: torch.Tensor) -> torch.Tensor:
        return outputs.mean(0).mean().reshape(1)
