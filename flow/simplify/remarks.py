"""What stayed although it is constant, and why: in words, by layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from flow.network import output_nodes, weighted
from flow.network.channels import Channels, input_labels
from flow.simplify.constants import State, absorbable

if TYPE_CHECKING:
    from torch import fx


def remarks(graph: fx.GraphModule, channels: Channels, states: Mapping[str, State]) -> dict[str, str]:
    """Say by layer which constant channels stay, and why."""
    live = {
        label
        for name, labels in channels.labels.items()
        for label in labels[np.isnan(states[name].value)].tolist()
    }
    reasons: dict[str, list[str]] = {}
    for node, module in weighted(graph):
        state = states[node.args[0].name]
        steady = ~np.isnan(state.value)
        grouped = np.isin(input_labels(channels, node), list(channels.grouped))
        stuck = int((steady & ~absorbable(module, state) & ~grouped).sum())
        written = set(channels.labels[node.name][states[node.name].uniform].tolist())
        counts = {
            "constant input channels stay: zeros around them alter them at the border": stuck,
            "dead output channels stay: the network's output holds them": len(written & channels.pinned),
            "dead output channels stay: a grouped conv needs groups of one size": len(
                written & channels.grouped - channels.pinned
            ),
            "dead output channels stay: they are coupled with live ones": len(
                written & live - channels.pinned - channels.grouped
            ),
        }
        reasons.setdefault(str(node.target), []).extend(f"{n} {text}" for text, n in counts.items() if n)
    found = {name: "; ".join(dict.fromkeys(texts)) for name, texts in reasons.items() if texts}
    if all(states[node.name].uniform.all() for node in output_nodes(graph)):
        found["output"] = "it is constant: it no longer depends on the input"
    return found
