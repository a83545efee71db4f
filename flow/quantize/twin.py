"""The quantized twin of a network: the same graph with Brevitas' layers, and a quantizer wherever sums grow wide."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flow import network

if TYPE_CHECKING:
    from torch import fx

TABLE_BITS = 10
"""The most bits of what a table is looked up with."""
CLIPS = ("ReLU6", "Hardtanh")
SLOPES = ("LeakyReLU", "PReLU")
TABLES = (
    *("Sigmoid", "Tanh", "Hardsigmoid", "Hardswish"),
    *("ELU", "SELU", "SiLU", "GELU", "Mish", "Softplus"),
)
"""Functions that become a table: a quantizer stands before and behind each."""
_POSITIVE = ("Sigmoid", "Hardsigmoid", "Softplus")
_AVERAGES = ("AvgPool1d", "AvgPool2d", "AdaptiveAvgPool1d", "AdaptiveAvgPool2d")


@dataclass(frozen=True)
class Widths:
    """Bits of every kind of number; ``bias``: by layer. ``per_channel``: one scale an output channel of weights."""

    weight: int
    activation: int
    input: int
    bias: Mapping[str, int]
    per_channel: bool = False


def quantized_copy(graph: fx.GraphModule, widths: Widths) -> fx.GraphModule:
    """Return a Brevitas network with the weights of ``graph``; module names survive.

    Args:
        graph: what `flow.quantize.prepare.prepared` returned.
        widths: bits.
    """
    quant = copy.deepcopy(graph)
    builder = _Builder(quant, widths)
    for node in list(quant.graph.nodes):
        builder.place(node)
    quant.recompile()
    return quant


def without_softmax(quant: fx.GraphModule) -> fx.GraphModule:
    """Return a network that shares the modules and ends before a softmax."""
    trunk = network.share(quant)
    for node in list(trunk.graph.nodes):
        if node.op == "call_module" and network.kind(trunk.get_submodule(node.target)) == "Softmax":
            node.replace_all_uses_with(node.args[0])
            trunk.graph.erase_node(node)
    trunk.recompile()
    return trunk


@dataclass(frozen=True)
class _State:
    """What is known of a tensor: whether it can be negative, and its bits, ``None`` while no quantizer narrowed it."""

    signed: bool
    bits: int | None = None


class _Builder:
    """Goes through the nodes in order, replaces layers and inserts quantizers."""

    def __init__(self, graph: fx.GraphModule, widths: Widths) -> None:
        self.graph = graph
        self.widths = widths
        self.states: dict[fx.Node, _State] = {}

    def place(self, node: fx.Node) -> None:
        sources = [self.states[source] for source in node.all_input_nodes if node.op != "output"]
        signed = any(source.signed for source in sources)
        if node.op == "placeholder":
            first = not self.states
            self.behind(
                node, "quant_input" if first else f"quant_{node.name}", _State(True, self.widths.input)
            )
        elif node.op == "call_function":
            self.join(node, signed)
        elif node.op == "call_module":
            self.module(node, str(node.target), sources[0])

    def join(self, node: fx.Node, signed: bool) -> None:
        bits = self.widths.activation
        if network.calls(node, "mul"):
            self.wide(node, signed, bits)
            return
        self.before(node, f"quant_{node.name}", _State(signed, bits))
        if network.calls(node, "cat"):
            self.states[node] = _State(signed, bits)
        else:
            self.wide(node, signed, bits + 1)

    def module(self, node: fx.Node, name: str, source: _State) -> None:
        from flow.quantize import layers

        module: Any = self.graph.get_submodule(name)
        what = network.kind(module)
        bits = self.widths.activation
        if what in network.WEIGHTED:
            options = (self.widths.weight, self.widths.bias[name], self.widths.per_channel)
            self.graph.set_submodule(name, layers.weighted(module, *options))
            self.wide(node, True, bits)
        elif what == "ReLU" and not self.joined(node):
            self.graph.set_submodule(name, layers.relu(bits))
            self.states[node] = _State(False, bits)
        elif what == "ReLU":
            self.states[node] = _State(False)
        elif what in CLIPS:
            positive = what == "ReLU6" or module.min_val >= 0
            self.narrowed(node, source.signed and not positive)
        elif what in SLOPES:
            self.graph.set_submodule(name, layers.sloped(module))
            self.narrowed(node, source.signed)
        elif what in TABLES or what == "Softmax":
            if source.bits is None or source.bits > TABLE_BITS:
                finer = min(bits + 2, TABLE_BITS)
                self.before(node, f"quant_{node.name}_in", _State(source.signed, finer))
            if what in TABLES:
                made = {"Hardsigmoid": layers.HardSigmoid, "Hardswish": layers.HardSwish}.get(what)
                self.graph.set_submodule(name, made() if made else module)
                self.narrowed(node, source.signed and what not in _POSITIVE)
        elif what in _AVERAGES:
            self.narrowed(node, source.signed)
        else:
            self.states[node] = source

    def narrowed(self, node: fx.Node, signed: bool) -> None:
        """Put a quantizer behind a node whose result must always be narrowed, unless that of a join stands there."""
        if self.joined(node):
            self.states[node] = _State(signed)
            return
        self.behind(node, f"quant_{node.name}_out", _State(signed, self.widths.activation))

    def joined(self, node: fx.Node) -> bool:
        """Tell whether sums and concatenations alone read a node: their quantizer follows."""
        readers = self.readers(node)
        return bool(readers) and all(network.calls(u, "add") or network.calls(u, "cat") for u in readers)

    def readers(self, node: fx.Node) -> list[fx.Node]:
        """Return what reads a node's numbers, behind any flatten."""
        found = []
        for user in node.users:
            flatten = user.op == "call_module" and self.kind(user) == "Flatten"
            found += self.readers(user) if flatten else [user]
        return found

    def kind(self, node: fx.Node) -> str:
        return network.kind(self.graph.get_submodule(str(node.target)))

    def wide(self, node: fx.Node, signed: bool, bits: int) -> None:
        """Put a quantizer behind a node whose result is wide if a layer reads it that takes no wide numbers."""
        self.states[node] = _State(signed)
        if any(self._needs_narrow(user) for user in self.readers(node)):
            self.behind(node, f"quant_{node.name}_out", _State(signed, bits))

    def _needs_narrow(self, user: fx.Node) -> bool:
        if user.op != "call_module":
            return network.calls(user, "mul")  # sums and concatenations have a quantizer of their own
        own = ("ReLU", "Softmax", *CLIPS, *SLOPES, *TABLES)
        return self.kind(user) not in own

    def behind(self, node: fx.Node, name: str, state: _State) -> None:
        self._add(name, state)
        users = list(node.users)
        with self.graph.graph.inserting_after(node):
            made = self.graph.graph.call_module(name, (node,))
        for user in users:
            user.replace_input_with(node, made)
        self.states[node] = _State(state.signed)
        self.states[made] = state

    def before(self, node: fx.Node, name: str, state: _State) -> None:
        """Put one quantizer, shared by all inputs, before a node."""
        self._add(name, state)
        for source in list(node.all_input_nodes):
            with self.graph.graph.inserting_before(node):
                made = self.graph.graph.call_module(name, (source,))
            node.replace_input_with(source, made)
            self.states[made] = state

    def _add(self, name: str, state: _State) -> None:
        from flow.quantize import layers

        assert state.bits is not None
        self.graph.add_submodule(name, layers.quantizer(state.bits, state.signed))
