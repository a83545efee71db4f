"""Analysis: which channels do not depend on the input, and what they hold.

A channel is constant where it holds ``value * pattern``: the pattern 0 is one at every position; the others are
what zeros around an image leave of it (a padded average pool gives less at the border), whatever its size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from flow.network import CONVS, NORMS, TRANSPOSED, WEIGHTED, blocks, calls, kind

if TYPE_CHECKING:
    from torch import fx


@dataclass(frozen=True)
class State:
    """What is known of a tensor's channels: float64 values, NaN where they vary, and pattern numbers."""

    value: np.ndarray
    pattern: np.ndarray

    @property
    def uniform(self) -> np.ndarray:
        """Tell for each channel whether it holds one value at every position, whatever the input."""
        return np.asarray(~np.isnan(self.value) & (self.pattern == 0))


def plain(value: np.ndarray) -> State:
    """Return the state of channels that are uniform, or vary (NaN)."""
    return State(value, np.zeros(len(value), dtype=int))


def constants(graph: fx.GraphModule, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, State]:
    """Return the state of every node's channels."""
    states: dict[str, State] = {}
    patterns: dict[tuple[str, int], int] = {}
    for node in graph.graph.nodes:
        if node.op == "placeholder":
            states[node.name] = plain(np.full(shapes[node.name][1], np.nan))
        elif node.op == "call_function":
            states[node.name] = _join(node, states)
        elif node.op == "call_module":
            source = node.args[0].name
            module = graph.get_submodule(node.target)
            if _reweighs_positions(module):
                states[node.name] = _patterned(node.name, states[source], patterns)
            else:
                states[node.name] = _through(module, states[source], shapes[source])
    return states


def _join(node: fx.Node, states: Mapping[str, State]) -> State:
    if calls(node, "cat"):
        parts = [states[n.name] for n in node.args[0]]  # type: ignore[union-attr]
        return State(np.concatenate([p.value for p in parts]), np.concatenate([p.pattern for p in parts]))
    if calls(node, "narrow"):
        source, _, start, length = node.args
        span = slice(start, start + length)  # type: ignore[operator]
        whole = states[source.name]  # type: ignore[union-attr]
        return State(whole.value[span], whole.pattern[span])
    left, right = (states[n.name] for n in node.args)  # type: ignore[union-attr]
    if calls(node, "mul"):
        zero = (left.value == 0) | (right.value == 0)
        both = left.uniform & right.uniform
        return plain(np.where(zero, 0.0, np.where(both, left.value * right.value, np.nan)))
    alike = (left.pattern == right.pattern) | (left.value == 0) | (right.value == 0)
    pattern = np.where(left.value == 0, right.pattern, left.pattern)
    return _tidy(np.where(alike, left.value + right.value, np.nan), pattern)


def _tidy(value: np.ndarray, pattern: np.ndarray) -> State:
    """Zeros, and what varies, have no pattern."""
    return State(value, np.where((value == 0) | np.isnan(value), 0, pattern))


def _reweighs_positions(module: Any) -> bool:
    """Tell whether a layer is linear in each channel, and makes less of a constant at some positions."""
    what = kind(module)
    if what.startswith("AvgPool"):
        padded = np.any(module.padding) and module.count_include_pad
        return bool(padded or getattr(module, "divisor_override", None))
    return what.startswith("ZeroPad")


def _patterned(name: str, state: State, patterns: dict[tuple[str, int], int]) -> State:
    made = {old: patterns.setdefault((name, int(old)), len(patterns) + 1) for old in np.unique(state.pattern)}
    return _tidy(state.value, np.array([made[old] for old in state.pattern], dtype=int))


def _through(module: Any, state: State, shape: tuple[int, ...]) -> State:
    what = kind(module)
    uniform = np.where(state.uniform, state.value, np.nan)
    if what in WEIGHTED:
        return plain(_through_weights(module, state))
    if what == "Flatten":
        return plain(np.repeat(uniform, int(np.prod(shape[2:], dtype=int))))
    if what == "ChannelShuffle":
        parts = (state.value.reshape(module.groups, -1), state.pattern.reshape(module.groups, -1))
        return State(*(part.T.reshape(-1) for part in parts))
    if what in ("Softmax", "LogSoftmax") or (what in NORMS and module.running_mean is None):
        return plain(np.full_like(uniform, np.nan))  # its statistics are the batch's, or all channels'
    if "Pool" in what or what in ("Upsample", "Unflatten"):
        return plain(uniform)
    return plain(_elementwise(module, uniform, len(shape)))


def _elementwise(module: Any, value: np.ndarray, dimensions: int) -> np.ndarray:
    """Run the module itself on the constants."""
    import torch

    with torch.no_grad():
        full = torch.from_numpy(value).reshape(1, -1, *[1] * (dimensions - 2))
        return np.asarray(module(full).reshape(-1))


def _through_weights(module: Any, state: State) -> np.ndarray:
    """Return the constants of rows that read nothing, or nothing but constants that the bias could hold."""
    weights = blocks(module)
    groups, rows, columns, _ = weights.shape
    movable = absorbable(module, state).reshape(groups, 1, columns)
    result = np.zeros(groups * rows) if module.bias is None else module.bias.detach().numpy().astype(float)
    blocked = (reads(module) & ~movable).any(axis=2).reshape(-1)
    for row in np.flatnonzero(~blocked):
        group, place = divmod(int(row), rows)
        values = np.nan_to_num(state.value.reshape(groups, columns)[group])
        result[row] += float(weights[group, place].sum(dim=1).numpy() @ values)
    result[blocked] = np.nan
    return np.asarray(result)


def reads(module: Any) -> np.ndarray:
    """Return (groups, outputs, inputs) booleans: which weights are not zero at some position."""
    return np.asarray((blocks(module) != 0).any(dim=3).numpy())


def absorbable(module: Any, state: State) -> np.ndarray:
    """Tell for each input channel whether its constant may move into ``module``'s bias exactly.

    Zero always may. Another constant may not where zeros around it make it differ at the border, nor through a
    transposed conv, which gives more at some positions than at others.
    """
    what = kind(module)
    borders = what in CONVS and module.padding_mode == "zeros" and _pads(module.padding)
    if borders or what in TRANSPOSED:
        return np.asarray(state.value == 0)
    return state.uniform


def _pads(padding: Any) -> bool:
    return padding == "same" if isinstance(padding, str) else bool(np.any(padding))
