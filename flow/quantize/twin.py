"""The quantized twin of a network: the same graph with Brevitas' layers, and a quantizer wherever sums grow wide."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from flow import network
from flow.errors import UnsupportedError
from flow.quantize.widths import Widths, check_used, name_of

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


def quantized_copy(graph: fx.GraphModule, widths: Widths) -> tuple[fx.GraphModule, dict[str, int]]:
    """Return a Brevitas network with the weights of ``graph``, and the bits of the quantizer behind each layer.

    Module names survive. A layer without a quantizer behind it has no bits.

    Args:
        graph: what `flow.quantize.prepare.prepared` returned.
        widths: bits.

    Raises:
        ConfigError: a width is asked for where no quantizer stands.
        UnsupportedError: a quantizer of 1 bit with a sign whose scale is no power of two.
    """
    quant = copy.deepcopy(graph)
    builder = _Builder(quant, widths)
    for node in list(quant.graph.nodes):
        builder.place(node)
    quant.recompile()
    check_used(widths.layers, builder.stands)
    return quant, builder.stands


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
    """What is known of a tensor: whether it can be negative, and its bits, ``None`` while no quantizer narrowed it.

    ``asked``: the bits that the user gave the layer it comes from. ``waiting``: the layers behind which no quantizer
    stands yet.
    """

    signed: bool
    bits: int | None = None
    asked: int | None = None
    waiting: tuple[str, ...] = ()


class _Builder:
    """Goes through the nodes in order, replaces layers and inserts quantizers.

    ``stands``: the bits of the quantizer behind each layer that has one; the largest where there are several.
    """

    def __init__(self, graph: fx.GraphModule, widths: Widths) -> None:
        self.graph = graph
        self.widths = widths
        self.states: dict[fx.Node, _State] = {}
        self.stands: dict[str, int] = {}

    def place(self, node: fx.Node) -> None:
        sources = [self.states[source] for source in node.all_input_nodes if node.op != "output"]
        if node.op == "placeholder":
            name = "quant_input" if not self.states else f"quant_{node.name}"
            self.behind(node, name, _State(self.widths.input > 1, self.widths.input))
        elif node.op == "call_function":
            self.join(node, sources)
        elif node.op == "call_module":
            self.module(node, str(node.target), sources[0])

    def join(self, node: fx.Node, sources: list[_State]) -> None:
        signed = any(source.signed for source in sources)
        asked = self.widths.asked(node.name)
        if network.calls(node, "mul"):
            self.wide(node, _State(signed, None, asked, (node.name,)))
            return
        sides = [source.asked for source in sources]
        if asked is None and any(sides):
            asked = max(side or self.widths.activation for side in sides)
        bits = asked or self.widths.activation
        self.before(node, f"quant_{node.name}", _State(signed, bits))
        self.stand((node.name,), bits)
        if network.calls(node, "cat"):
            self.states[node] = _State(signed, bits, asked)
        else:
            self.wide(node, _State(signed), bits + 1)

    def module(self, node: fx.Node, name: str, source: _State) -> None:
        from flow.quantize import layers

        module: Any = self.graph.get_submodule(name)
        what = network.kind(module)
        state = self.after(name, source)
        if what in network.WEIGHTED:
            self.graph.set_submodule(name, self.weighted(node, name, module))
            self.wide(node, replace(state, signed=True))
        elif what == "ReLU" and not self.joined(node):
            made = self.narrow(replace(state, signed=False))
            self.graph.set_submodule(name, layers.relu(made.bits or 0, self.widths.free))
            self.states[node] = made
        elif what == "ReLU":
            self.states[node] = self.passed(name, _State(False, None, source.asked, state.waiting))
        elif what in CLIPS:
            positive = what == "ReLU6" or module.min_val >= 0
            self.narrowed(node, replace(state, signed=source.signed and not positive))
        elif what in SLOPES:
            self.graph.set_submodule(name, layers.sloped(module))
            self.narrowed(node, state)
        elif what in TABLES or what == "Softmax":
            self.table(node, name, what, source, state)
        elif what in _AVERAGES:
            self.narrowed(node, state)
        else:
            waiting = state.waiting if source.bits is None else ()
            self.states[node] = self.passed(name, replace(source, waiting=waiting))

    def after(self, name: str, source: _State) -> _State:
        """Return what is asked of the quantizer behind a layer: by itself, or by layers that wait for one yet."""
        asked = self.widths.asked(name)
        if asked is None and source.bits is None:
            asked = source.asked
        return _State(source.signed, None, asked, (*source.waiting, name))

    def passed(self, name: str, state: _State) -> _State:
        asked = self.widths.asked(name)
        return state if asked is None else replace(state, asked=asked)

    def weighted(self, node: fx.Node, name: str, module: Any) -> Any:
        """Return a layer with quantized weights; one scale where nothing behind brings channels to one grid."""
        from flow.quantize import layers

        bare = any(reader.op == "output" for reader in self.readers(node))
        per_channel = self.widths.per_channel and not (self.widths.free and bare)
        bits = self.widths.weight_of(name)
        return layers.weighted(module, bits, self.widths.bias[name], per_channel, self.widths.free)

    def table(self, node: fx.Node, name: str, what: str, source: _State, state: _State) -> None:
        """Put a quantizer before a function, where what it reads is too fine, and one behind it."""
        from flow.quantize import layers

        if source.bits is None or source.bits > TABLE_BITS:
            finer = min((state.asked or self.widths.activation) + 2, TABLE_BITS)
            self.before(node, f"quant_{node.name}_in", _State(source.signed, finer), what == "Softmax")
        if what in TABLES:
            made = {"Hardsigmoid": layers.HardSigmoid, "Hardswish": layers.HardSwish}.get(what)
            self.graph.set_submodule(name, made() if made else self.graph.get_submodule(name))
            self.narrowed(node, replace(state, signed=source.signed and what not in _POSITIVE))

    def narrow(self, state: _State) -> _State:
        """Return what a tensor is behind its quantizer."""
        bits = state.asked or self.widths.activation
        self.stand(state.waiting, bits)
        return _State(state.signed, bits, state.asked)

    def stand(self, names: tuple[str, ...], bits: int) -> None:
        for name in names:
            self.stands[name] = max(bits, self.stands.get(name, 0))

    def narrowed(self, node: fx.Node, state: _State) -> None:
        """Put a quantizer behind a node whose result must always be narrowed, unless that of a join stands there."""
        if self.joined(node):
            self.states[node] = state
            return
        self.behind(node, f"quant_{node.name}_out", self.narrow(state))

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

    def wide(self, node: fx.Node, state: _State, bits: int | None = None) -> None:
        """Put a quantizer behind a node whose result is wide if a layer reads it that takes no wide numbers."""
        self.states[node] = state
        if any(self._needs_narrow(user) for user in self.readers(node)):
            made = replace(state, bits=bits) if bits else self.narrow(state)
            self.behind(node, f"quant_{node.name}_out", made)

    def _needs_narrow(self, user: fx.Node) -> bool:
        if user.op != "call_module":
            return network.calls(user, "mul")  # sums and concatenations have a quantizer of their own
        own = ("ReLU", "Softmax", *CLIPS, *SLOPES, *TABLES)
        return self.kind(user) not in own

    def behind(self, node: fx.Node, name: str, state: _State) -> None:
        self._add(node, name, state)
        users = list(node.users)
        with self.graph.graph.inserting_after(node):
            made = self.graph.graph.call_module(name, (node,))
        for user in users:
            user.replace_input_with(node, made)
        self.states[node] = _State(state.signed)
        self.states[made] = state

    def before(self, node: fx.Node, name: str, state: _State, counts: bool = True) -> None:
        """Put one quantizer, shared by all inputs, before a node; ``counts``: it is that of the layers before it."""
        self._add(node, name, state)
        for source in list(node.all_input_nodes):
            if counts and state.bits:
                self.stand(self.states[source].waiting, state.bits)
            with self.graph.graph.inserting_before(node):
                made = self.graph.graph.call_module(name, (source,))
            node.replace_input_with(source, made)
            self.states[made] = state

    def _add(self, node: fx.Node, name: str, state: _State) -> None:
        from flow.quantize import layers

        assert state.bits is not None
        if state.bits == 1 and state.signed and self.widths.free:
            raise UnsupportedError(
                f"quantize: quantizer at {name_of(node)!r} must have 2 bits or more, not 1, where numbers can be "
                'negative and scales are free; set its activation_bits to 2, or scales = "power-of-two"'
            )
        what = "input" if node.op == "placeholder" else ""
        self.graph.add_submodule(name, layers.quantizer(state.bits, state.signed, self.widths.free, what))
