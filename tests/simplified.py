"""What every simplified network must keep to, whatever it is; shared by the tests of `flow.simplify`."""

from __future__ import annotations

import networks
import torch
from networks import difference
from torch import nn

from flow import network
from flow.simplify import TOLERANCE, simplify
from flow.types import Simplified

IMAGE = torch.zeros(2, 2, 6, 6)
COUPLED = "dead output channels stay: they are coupled with live ones"
PINNED = "dead output channels stay: the network's output holds them"
GROUPED = "dead output channels stay: a grouped conv needs groups of one size"
PADDED = "constant input channels stay: zeros around them alter them at the border"


def small(model: nn.Module, example: torch.Tensor = IMAGE, *others: tuple[int, ...]) -> Simplified:
    """Simplify, after every law that holds for all networks: equal, untouched, no larger, twice equals once."""
    before = networks.state(model)
    result = simplify(model, example, samples=8)
    networks.assert_untouched(model, before)
    assert result.max_error <= TOLERANCE
    for shape in (tuple(example.shape), *others):
        assert difference(model, result.model, 5, *shape[1:]) < TOLERANCE
    assert size(result.model) <= size(model)
    assert sum(c.macs for c in result.after) <= sum(c.macs for c in result.before)
    assert {network.kind(m) for m in result.model.modules() if not list(m.children())} <= set(network.MODULES)
    again = simplify(result.model, example, samples=8)
    assert (again.after, again.kept) == (result.after, result.kept)
    assert difference(result.model, again.model, 5, *example.shape[1:]) < 1e-15
    return result


def size(model: nn.Module) -> int:
    """Count parameters and running statistics."""
    return sum(value.numel() for value in model.state_dict().values() if value.is_floating_point())


def widths(result) -> dict[str, tuple[int, int]]:
    return {cost.name: (cost.inputs, cost.outputs) for cost in result.after}
