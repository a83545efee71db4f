"""Regularizers of whole neurons: SeReNe in three forms, and Neuron-LOBSTER.

A neuron is an output of a Linear or an output channel of a Conv; its pre-activation p is what the layer itself gives.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from flow.network import TRANSPOSED, kind
from flow.prune.regular_base import Hook, Regularizer, batch_outputs, derivatives, wide

if TYPE_CHECKING:
    import torch
    from torch import nn

MOMENTUM = 0.9


class Neurons(Regularizer):
    """Watches pre-activations; what `_add` takes is one value a neuron, by the name of its layer."""

    takes_bias = False

    def _register(self) -> list[Any]:
        return [
            module.register_forward_hook(Hook(partial(self._seen, name)))
            for name, module in self.layers.items()
            if any(id(parameter) in self._held for parameter in module.parameters(recurse=False))
        ]

    def _seen(self, name: str, module: nn.Module, _inputs: Any, value: torch.Tensor) -> None:
        if self.graph.training and value.requires_grad:
            self._use(name, value)

    def _use(self, name: str, value: torch.Tensor) -> None:
        """Take the pre-activations of one use of a layer."""
        raise NotImplementedError

    def _over_neurons(self, name: str, values: torch.Tensor) -> torch.Tensor:
        """Return the mean over batch and space, in float32 at least."""
        axis = values.ndim - 1 if kind(self.layers[name]) == "Linear" else 1
        others = [dimension for dimension in range(values.ndim) if dimension != axis]
        return values.detach().mean(others, dtype=wide(values[:0]).dtype)

    def _of_neurons(self) -> Mapping[str, torch.Tensor]:
        """Return S of every neuron, by layer."""
        return self._means()

    def _sensitivities(self) -> Iterable[tuple[nn.Parameter, torch.Tensor]]:
        for name, values in self._of_neurons().items():
            module = self.layers[name]
            yield module.weight, spread(module, values)
            if module.bias is not None and (self.takes_bias or self.decay_biases):
                yield module.bias, values


class NeuronLobster(Neurons):
    """S_i = |b_i|, b_i <- 0.9 * b_i + mean over batch and space of dL/dp_i; decays the row and its bias.

    Source: the neuron-wise form of LOBSTER, Neural Networks 146, 2022, in its authors' published code.
    """

    takes_bias = True

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._buffers: dict[str, torch.Tensor] = {}

    def state_dict(self) -> dict[str, Any]:
        """Return the running sums b, by layer."""
        return {"buffers": dict(self._buffers)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take what `state_dict` returned."""
        self._buffers = {
            name: value.to(self.layers[name].weight.device) for name, value in state["buffers"].items()
        }

    def _use(self, name: str, value: torch.Tensor) -> None:
        value.register_hook(partial(self._came_back, name))

    def _came_back(self, name: str, gradient: torch.Tensor) -> None:
        self._add(name, self._over_neurons(name, gradient))

    def _of_neurons(self) -> Mapping[str, torch.Tensor]:
        means = self._means()
        for name, value in means.items():
            before = self._buffers.get(name)
            self._buffers[name] = value if before is None else MOMENTUM * before + value
        return {name: self._buffers[name].abs() for name in means}


class SereneLocal(Neurons):
    """S_i = 0 where the mean pre-activation over batch and space is at most 0, else 1: no backward pass."""

    def _use(self, name: str, value: torch.Tensor) -> None:
        self._add(name, self._over_neurons(name, value))

    def _of_neurons(self) -> Mapping[str, torch.Tensor]:
        return {name: (value > 0).to(value.dtype) for name, value in self._means().items()}


class Serene(Neurons):
    """S_i = mean over batch and space of alpha * sum over k of |d ybar_k / dp_i|, alpha = 1 / C: C backward passes.

    Source: Tartaglione et al., "SeReNe: Sensitivity-based Regularization of Neurons", TNNLS 2021.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._edges: list[tuple[str, Any]] = []

    def _register(self) -> list[Any]:
        return [
            self.graph.register_forward_pre_hook(Hook(self._begins)),
            *super()._register(),
            self.graph.register_forward_hook(Hook(self._passed)),
        ]

    def _begins(self, *_: Any) -> None:
        self._edges = []

    def _use(self, name: str, value: torch.Tensor) -> None:
        from torch.autograd.graph import get_gradient_edge

        # An activation may overwrite the tensor in place; the edge stays that of the layer's own result.
        self._edges.append((name, get_gradient_edge(value)))

    def _passed(self, _module: nn.Module, _inputs: Any, result: Any) -> None:
        edges, self._edges = self._edges, []
        outputs = batch_outputs(result) if edges else None
        if outputs is None:
            return
        sums: dict[int, torch.Tensor] = {}
        for found in derivatives(self._scalars(outputs), [edge for _, edge in edges]):
            for index, value in enumerate(found):
                if value is not None:
                    size = self._over_neurons(edges[index][0], value.abs())
                    sums[index] = sums[index] + size if index in sums else size
        for index, (name, _) in enumerate(edges):
            if index in sums:
                self._add(name, sums[index])

    def _scalars(self, outputs: torch.Tensor) -> torch.Tensor:
        """Return, from outputs as (batch, C), what the absolute derivatives are summed of."""
        return outputs.mean(0) / outputs.shape[1]


class SereneLowerBound(Serene):
    """S_i = mean over batch and space of alpha * |d (sum over samples and k of y_k) / dp_i|: one backward pass."""

    def _scalars(self, outputs: torch.Tensor) -> torch.Tensor:
        return (outputs.sum() / outputs.shape[1]).reshape(1)


def spread(module: Any, values: torch.Tensor) -> torch.Tensor:
    """Return one value a neuron in a shape that broadcasts to the weight.

    Args:
        module: Conv, transposed Conv, Linear or BatchNorm.
        values: (outputs,).
    """
    if kind(module) not in TRANSPOSED:
        return values.reshape(-1, *[1] * (module.weight.ndim - 1))
    inputs, outputs = module.weight.shape[:2]  # outputs of one group; group after group on the first axis
    rows = values.reshape(module.groups, outputs).repeat_interleave(inputs // module.groups, 0)
    return rows.reshape(inputs, outputs, *[1] * (module.weight.ndim - 2))
