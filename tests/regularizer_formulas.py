"""The regularizers' formulas written out, one output, neuron and parameter at a time, and tiny networks for them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from networks import Forward, lively
from torch import fx, nn
from torch.nn import functional

from flow import network

LAMBDA = 0.05
LINEAR_OR_CONV = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.ConvTranspose1d, nn.ConvTranspose2d)


def mlp() -> tuple[nn.Module, torch.Tensor]:
    return nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)), torch.randn(6, 4)


def conv() -> tuple[nn.Module, torch.Tensor]:
    net = nn.Sequential(
        *(nn.Conv2d(2, 3, 3, stride=2, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(3, 4, 2, bias=False), nn.Flatten(), nn.Linear(4, 3)),
    )
    return net, torch.randn(3, 2, 7, 7)


def grouped() -> tuple[nn.Module, torch.Tensor]:
    net = nn.Sequential(
        *(nn.Conv2d(4, 6, 3, groups=2, padding=1), nn.ReLU(), nn.Conv2d(6, 6, 3, groups=6), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(6 * 4, 2)),
    )
    return net, torch.randn(3, 4, 4, 4)


def transposed() -> tuple[nn.Module, torch.Tensor]:
    net = nn.Sequential(
        *(nn.ConvTranspose2d(4, 6, 2, stride=2, groups=2), nn.ReLU()),
        *(nn.Conv2d(6, 2, 2), nn.ReLU(), nn.Flatten(), nn.Linear(18, 3)),
    )
    return net, torch.randn(3, 4, 2, 2)


def residual() -> tuple[nn.Module, torch.Tensor]:
    def forward(net: Any, x: torch.Tensor) -> torch.Tensor:
        stem = torch.relu(net.stem(x))
        return net.fc(torch.flatten(torch.relu(stem + net.bn(net.branch(stem))), 1))

    layers = {"stem": nn.Conv2d(2, 3, 3), "branch": nn.Conv2d(3, 3, 3, padding=1), "bn": nn.BatchNorm2d(3)}
    return Forward(forward, **layers, fc=nn.Linear(12, 3)), torch.randn(4, 2, 4, 4)


def shared() -> tuple[nn.Module, torch.Tensor]:
    layers = {"first": nn.Linear(4, 5), "twice": nn.Linear(5, 5), "last": nn.Linear(5, 3)}

    def forward(net: Any, x: torch.Tensor) -> torch.Tensor:
        return net.last(torch.relu(net.twice(torch.relu(net.twice(torch.relu(net.first(x)))))))

    return Forward(forward, **layers), torch.randn(5, 4)


def in_place() -> tuple[nn.Module, torch.Tensor]:
    net = nn.Sequential(
        *(nn.Conv2d(2, 4, 3), nn.ReLU(inplace=True), nn.Conv2d(4, 3, 2), nn.ReLU6(inplace=True)),
        *(nn.Flatten(), nn.Linear(12, 3)),
    )
    return net, torch.randn(4, 2, 5, 5)


NETS = [mlp, conv, grouped, transposed, residual, shared, in_place]


def traced(make: Callable[[], tuple[nn.Module, torch.Tensor]]) -> tuple[fx.GraphModule, torch.Tensor]:
    torch.manual_seed(0)
    model, x = make()
    graph = network.trace(lively(model, 1), x.double()).train()
    for module in graph.modules():
        if make is in_place and isinstance(module, nn.ReLU | nn.ReLU6):
            module.inplace = True  # tracing has made it False
    return graph, x.double()


def loss_of(outputs: torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy(outputs, torch.arange(len(outputs)) % outputs.shape[1])


class Watched:
    """One pass of a copy of a network, with the result of every use of every layer kept apart from what follows."""

    def __init__(self, model: nn.Module, x: torch.Tensor, kinds: tuple[type, ...] = LINEAR_OR_CONV) -> None:
        self.model = copy.deepcopy(model)
        self.layers = {name: layer for name, layer in self.model.named_modules() if isinstance(layer, kinds)}
        self.uses: dict[str, list[torch.Tensor]] = {name: [] for name in self.layers}
        for name, layer in self.layers.items():

            def keep(_: nn.Module, __: Any, value: torch.Tensor, name: str = name) -> torch.Tensor:
                self.uses[name].append(value)
                return value.clone()

            layer.register_forward_hook(keep)
        self.outputs = self.model(x)

    def gradient(self, scalar: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        found = torch.autograd.grad(scalar, [wanted], retain_graph=True, allow_unused=True)[0]
        return torch.zeros_like(wanted) if found is None else found

    def output_scalars(self) -> list[torch.Tensor]:
        """Return ybar_k of every k."""
        batch, count = self.outputs.shape
        return [sum(self.outputs[n, k] for n in range(batch)) / batch for k in range(count)]


def neuron(layer: nn.Module, value: torch.Tensor, i: int) -> torch.Tensor:
    return value[..., i] if isinstance(layer, nn.Linear) else value[:, i]


def width(layer: nn.Module) -> int:
    found = getattr(layer, "out_features", None) or getattr(layer, "out_channels", None)
    return found or layer.num_features


def exact(seen: Watched, name: str, parameter: torch.Tensor) -> torch.Tensor:
    scalars = seen.output_scalars()
    total = torch.zeros_like(parameter)
    for scalar in scalars:
        total = total + 1 / len(scalars) * seen.gradient(scalar, parameter).abs()
    return total


def lower_bound(seen: Watched, name: str, parameter: torch.Tensor) -> torch.Tensor:
    scalars = seen.output_scalars()
    return seen.gradient(sum(1 / len(scalars) * scalar for scalar in scalars), parameter).abs()


def lobster(seen: Watched, name: str, parameter: torch.Tensor) -> torch.Tensor:
    return seen.gradient(loss_of(seen.outputs), parameter).abs()


def serene(seen: Watched, name: str, i: int) -> torch.Tensor:
    scalars, layer = seen.output_scalars(), seen.layers[name]
    found = []
    for use in seen.uses[name]:
        moved = sum(seen.gradient(scalar, use).abs() for scalar in scalars) / len(scalars)
        found.append(neuron(layer, moved, i).mean())
    return sum(found) / len(found)


def serene_lower_bound(seen: Watched, name: str, i: int) -> torch.Tensor:
    total, count = seen.outputs.sum(), seen.outputs.shape[1]
    found = [
        neuron(seen.layers[name], (seen.gradient(total, use) / count).abs(), i).mean()
        for use in seen.uses[name]
    ]
    return sum(found) / len(found)


def serene_local(seen: Watched, name: str, i: int) -> torch.Tensor:
    values = [neuron(seen.layers[name], use, i).mean() for use in seen.uses[name]]
    return torch.tensor(float(sum(values) > 0), dtype=torch.float64)


def loss_moves(seen: Watched, name: str, i: int) -> torch.Tensor:
    """Return the mean over batch, space and uses of dL/dp_i."""
    loss = loss_of(seen.outputs)
    found = [neuron(seen.layers[name], seen.gradient(loss, use), i).mean() for use in seen.uses[name]]
    return sum(found) / len(found)


WEIGHTS = {"sensitivity": exact, "sensitivity-lower-bound": lower_bound, "lobster": lobster}
NEURONS = {"serene": serene, "serene-lower-bound": serene_lower_bound, "serene-local": serene_local}


class Literal:
    """The decay written out, parameter by parameter and neuron by neuron."""

    def __init__(self, name: str, biases: bool = False) -> None:
        self.name, self.biases = name, biases
        self.buffers: dict[tuple[str, int], torch.Tensor] = {}
        self.kinds = (*LINEAR_OR_CONV, nn.BatchNorm2d) if biases else LINEAR_OR_CONV

    def measure(self, model: nn.Module, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return S of every parameter that decays, in its shape."""
        seen = Watched(model, x, self.kinds)
        found = {}
        for name, layer in seen.layers.items():
            if self.name in WEIGHTS:
                found[f"{name}.weight"] = WEIGHTS[self.name](seen, name, layer.weight)
                if self.biases and layer.bias is not None:
                    found[f"{name}.bias"] = WEIGHTS[self.name](seen, name, layer.bias)
                continue
            values = torch.stack([self.of_neuron(seen, name, i) for i in range(width(layer))]).detach()
            shape = torch.zeros_like(layer.weight)
            for i in range(width(layer)):
                rows(layer, shape, i)[...] = values[i]
            found[f"{name}.weight"] = shape
            if layer.bias is not None and (self.biases or self.name == "neuron-lobster"):
                found[f"{name}.bias"] = values
        return {name: value.detach() for name, value in found.items()}

    def of_neuron(self, seen: Watched, name: str, i: int) -> torch.Tensor:
        if self.name != "neuron-lobster":
            return NEURONS[self.name](seen, name, i)
        before = self.buffers.get((name, i), torch.zeros((), dtype=torch.float64))
        self.buffers[name, i] = 0.9 * before + loss_moves(seen, name, i)
        return self.buffers[name, i].abs()

    def decay(self, model: nn.Module, sensitivities: dict[str, torch.Tensor]) -> None:
        parameters = dict(model.named_parameters())
        with torch.no_grad():
            for name, value in sensitivities.items():
                w = parameters[name]
                w -= LAMBDA * w * torch.maximum(torch.zeros_like(value), 1 - value)


def rows(layer: nn.Module, values: torch.Tensor, i: int) -> torch.Tensor:
    """Return what belongs to output ``i``: a view."""
    if not isinstance(layer, nn.ConvTranspose1d | nn.ConvTranspose2d):
        return values[i]
    inside = layer.out_channels // layer.groups
    group, first = divmod(i, inside)
    inputs = layer.in_channels // layer.groups
    return values[group * inputs : (group + 1) * inputs, first]
