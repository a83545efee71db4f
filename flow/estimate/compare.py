"""Where the pruning went: what a network would have taken, and what it takes, layer by layer at one pace."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from flow.estimate.cost import Cost, design_cost, layer_cost
from flow.estimate.work import PRODUCTS, Work

OTHERS = "other layers"


def comparison(
    dense: Sequence[Work], pruned: Sequence[Work], reuse: Mapping[str, int], io_type: str
) -> dict[str, Any]:
    """Return what both networks are expected to take in C synthesis.

    Each layer of the dense network gets the largest reuse factor that keeps the pace of its pruned self, so that the
    two differ by the pruning alone.

    Args:
        dense: the network before pruning; empty where it is not known.
        pruned: the network that is converted.
        reuse: the reuse factors of its layers, by name; 1 for others.
        io_type: ``io_stream`` or ``io_parallel``.

    Returns:
        ``layers``: for each layer with products, and for all others together, ``name``, ``dense`` and ``pruned``, each
        a table of `Cost`'s fields or None; ``total``: the same for the whole design.
    """
    after = {work.name: layer_cost(work, reuse.get(work.name, 1), io_type) for work in pruned}
    before = {
        work.name: layer_cost(work, _paced(work, after.get(work.name), io_type), io_type) for work in dense
    }
    named = [work.name for work in pruned if work.kind == PRODUCTS]
    rows = [
        {"name": name, "dense": _table(before.get(name)), "pruned": _table(after[name])} for name in named
    ]
    others = {"name": OTHERS, "dense": _rest(before, named), "pruned": _rest(after, named)}
    total = {
        "dense": _table(design_cost(before.values(), io_type)) if before else None,
        "pruned": _table(design_cost(after.values(), io_type)),
    }
    return {"layers": [*rows, others], "total": total}


def _paced(work: Work, pace: Cost | None, io_type: str) -> int:
    legal = work.reuse_factors(io_type)
    if pace is None or not legal:
        return 1
    within = [r for r in legal if layer_cost(work, r, io_type).interval_cycles <= pace.interval_cycles]
    return max(within, default=min(legal))


def _table(cost: Cost | None) -> dict[str, int] | None:
    return None if cost is None else dataclasses.asdict(cost)


def _rest(costs: Mapping[str, Cost], named: Sequence[str]) -> dict[str, int] | None:
    """Return the sum over the layers that have no row of their own."""
    tables = [dataclasses.asdict(cost) for name, cost in costs.items() if name not in named]
    if not tables:
        return None
    return {
        key: (max if key == "interval_cycles" else sum)(table[key] for table in tables) for key in tables[0]
    }
