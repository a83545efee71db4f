"""Pass: dead channels leave every tensor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from flow.network import blocks, share, tidy, uses, with_blocks
from flow.network.channels import Channels
from flow.network.narrow import narrowed, relink
from flow.simplify.constants import State
from flow.simplify.readers import Reader, readers
from flow.simplify.survivors import Survivors, stand_in, survivors

if TYPE_CHECKING:
    import torch
    from torch import fx


def remove_dead(
    graph: fx.GraphModule, channels: Channels, states: Mapping[str, State]
) -> tuple[fx.GraphModule, bool]:
    """Return a graph without the channels that nothing needs, and whether any left.

    A label leaves when every living row that reads it has zero weights for it, reads a constant that its bias
    takes over, or reads one for which another channel stands (see `flow.simplify.survivors`).
    """
    mixers = readers(graph, channels, states)
    left = survivors(graph, channels, states, mixers)
    if all(left.alive[labels].all() for labels in channels.labels.values()):
        return graph, False
    graph = share(graph)
    for reader in mixers:
        same = left.keeps(reader.inputs) and left.keeps(reader.outputs)
        if not same and left.alive[reader.outputs].any():
            graph.set_submodule(reader.name, _shrunk(reader, left))
    mixing = {reader.name for reader in mixers}
    for name, nodes in uses(graph).items():
        labels = channels.labels[nodes[0].name]
        if name not in mixing and left.alive[labels].any() and not left.keeps(labels):
            graph.set_submodule(name, narrowed(graph.get_submodule(name), left.order(labels), len(labels)))
    relink(graph, channels, left.alive)
    tidy(graph)
    return graph, True


def _shrunk(reader: Reader, left: Survivors) -> Any:
    """Return the layer with its living rows and columns, and what the others gave it."""
    import torch

    weights = blocks(reader.module).clone()
    _, outputs, inputs, _ = weights.shape
    bias = reader.module.bias
    bias = None if bias is None else bias.detach().clone()
    _stand_in_for(reader, weights, left.alive)
    extra = _absorbed(reader, weights, ~left.alive[reader.inputs])
    if extra is not None:
        bias = extra if bias is None else bias + extra
    groups = len(left.packs.get(reader.name, [0]))
    rows = torch.from_numpy(left.order(reader.outputs)).reshape(groups, -1, 1)
    columns = torch.from_numpy(left.order(reader.inputs)).reshape(groups, 1, -1)
    chosen = weights[rows // outputs, rows % outputs, columns % inputs]
    if groups < len(weights):
        chosen = chosen * (rows // outputs == columns // inputs).unsqueeze(-1)
    return with_blocks(reader.module, chosen, None if bias is None else bias[rows.reshape(-1)])


def _stand_in_for(reader: Reader, weights: torch.Tensor, alive: np.ndarray) -> None:
    """Add the weights of removed constants to the channel that stands for them, in proportion."""
    inputs = weights.shape[2]
    removed = reader.needed(alive) & ~alive[reader.inputs]
    for members in reader.classes(removed):
        target = stand_in(reader, members, alive)
        group, place = divmod(target, inputs)
        for member in members:
            ratio = float(reader.state.value[member] / reader.state.value[target])
            weights[group, :, place] += ratio * weights[group, :, int(member) % inputs]


def _absorbed(reader: Reader, weights: torch.Tensor, removed: np.ndarray) -> torch.Tensor | None:
    """Return what the removed input channels contribute, sum_i c_i W_ti, for every row; None for nothing."""
    import torch

    groups, outputs, inputs, _ = weights.shape
    moved = removed & reader.free & (reader.state.value != 0)
    extra = torch.zeros(groups, outputs, dtype=weights.dtype)
    for column in np.flatnonzero(moved):
        group, place = divmod(int(column), inputs)
        extra[group] += float(reader.state.value[column]) * weights[group, :, place].sum(dim=1)
    return extra.reshape(-1) if bool(extra.any()) else None
