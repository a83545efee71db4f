"""Operators that exporters spell with several nodes and torch has as one module."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def with_gelu(nodes: Sequence[Any], constants: Mapping[str, np.ndarray]) -> list[tuple[int, Any]]:
    """Return the nodes with their places, x / 2 * (1 + erf(x / sqrt(2))) as one Gelu.

    Args:
        nodes: the file's, in order.
        constants: the weights and the values of Constant nodes, by name.
    """
    from onnx import helper

    made = {name: index for index, node in enumerate(nodes) for name in node.output}
    readers: dict[str, list[int]] = {}
    for index, node in enumerate(nodes):
        for name in node.input:
            readers.setdefault(name, []).append(index)
    gone: set[int] = set()
    instead: dict[int, Any] = {}
    for index, node in enumerate(nodes):
        if node.op_type == "Erf":
            found = _gelu(nodes, constants, made, readers, index)
            if found:
                source, inside, last = found
                gone |= inside
                name = nodes[last].name or node.name
                instead[last] = helper.make_node("Gelu", [source], [nodes[last].output[0]], name=name)
    return [(i, instead.get(i, node)) for i, node in enumerate(nodes) if i not in gone or i in instead]


def _gelu(
    nodes: Sequence[Any],
    constants: Mapping[str, np.ndarray],
    made: Mapping[str, int],
    readers: Mapping[str, list[int]],
    erf: int,
) -> tuple[str, set[int], int] | None:
    """Return (source, nodes of the pattern, the last of them) around an Erf node, None if it is no GELU."""

    def other(index: int, name: str) -> str:
        a, b = nodes[index].input
        return str(b if a == name else a)

    def value(name: str) -> float:
        found = constants.get(name)
        return float(found.reshape(-1)[0]) if found is not None and found.size == 1 else math.nan

    def next_of(index: int, kind: str) -> int | None:
        following = readers.get(nodes[index].output[0], [])
        return following[0] if len(following) == 1 and nodes[following[0]].op_type == kind else None

    first = made.get(nodes[erf].input[0])
    add = next_of(erf, "Add")
    if first is None or add is None or len(nodes[first].input) != 2:
        return None
    source, factor = nodes[first].input
    ratio = value(factor) if nodes[first].op_type == "Div" else 1 / (value(factor) or math.nan)
    one = value(other(add, nodes[erf].output[0]))
    product = next_of(add, "Mul")
    if nodes[first].op_type not in ("Div", "Mul") or product is None:
        return None
    if abs(ratio - math.sqrt(2)) > 1e-6 or one != 1:
        return None
    inside = {first, erf, add, product}
    left = other(product, nodes[add].output[0])
    if left == source:
        half = next_of(product, "Mul")
        if half is not None and value(other(half, nodes[product].output[0])) == 0.5:
            return source, inside | {half}, half
    elif left in made:
        half = made[left]
        if nodes[half].op_type == "Mul" and source in nodes[half].input and value(other(half, source)) == 0.5:
            return source, inside | {half}, product
    return None
