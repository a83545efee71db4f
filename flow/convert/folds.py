"""The layers that multiply, as the folding sees them, and the reuse factors and strategies they get."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from flow.convert.layer_list import hls4ml_has
from flow.convert.options import for_all
from flow.estimate.reuse import Fold, choose
from flow.fixed.graph import Conv, Dense, FixedGraph


def folds_of(graph: FixedGraph, io_type: str) -> list[Fold]:
    """Return the layers that multiply, with their shapes.

    hls4ml's io_parallel conv computes wrongly, without a word, when the reuse factor exceeds its inputs; our own
    kernel takes divisors of its inputs only, with both strategies.
    """
    folds = []
    for node in graph.nodes:
        if isinstance(node, Dense):
            outputs, inputs = node.weight.shape
            folds.append(Fold(node.name, inputs, outputs, 1))
        elif isinstance(node, Conv):
            positions = int(np.prod(node.output.shape[:-1]))
            inputs = int(np.prod(node.weight.shape[1:]))
            folds.append(
                Fold(
                    node.name,
                    inputs,
                    node.weight.shape[0],
                    positions,
                    limited=io_type == "io_parallel" or not hls4ml_has(node, io_type),
                )
            )
    return folds


def chosen(folds: Sequence[Fold], options: Mapping[str, Any], dsps: int) -> dict[str, dict[str, Any]]:
    """Return ReuseFactor and Strategy of each layer that multiplies: the user's for all, else by the DSP slices."""
    given = {key: for_all(options, key) for key in ("ReuseFactor", "Strategy")}
    given = {key: value for key, value in given.items() if value is not None}
    keys: dict[str, dict[str, Any]] = {
        fold.name: {"ReuseFactor": 1, "Strategy": "Latency", **given} for fold in folds
    }
    if "ReuseFactor" not in given and given.get("Strategy", "Resource").lower() == "resource":
        for name, factor in choose(folds, dsps).items():
            keys[name] = {"ReuseFactor": factor, "Strategy": "Resource"}
    return keys
