"""What layers and designs cost: counts times the fitted constants."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from flow.estimate.parts import BLOCK_BITS, parts
from flow.estimate.work import PRODUCTS, Work
from flow.types import Resources

NAMES = ("luts", "flip_flops", "dsps", "blocks")
"""The resources of `Cost`, in order; blocks have 18 Kibit."""


@dataclass(frozen=True)
class Cost:
    """What C synthesis would report; ``tail_cycles``: from a layer's last input to its last output."""

    luts: int
    flip_flops: int
    dsps: int
    blocks: int
    interval_cycles: int
    tail_cycles: int

    def amounts(self) -> tuple[int, int, int, int]:
        """Return the resources in the order of `NAMES`."""
        return self.luts, self.flip_flops, self.dsps, self.blocks


@cache
def constants() -> Mapping[str, Any]:
    """Return ``constants.toml``, which ``benchmarks/estimator.py`` writes."""
    return tomllib.loads(Path(__file__).with_name("constants.toml").read_text(encoding="utf-8"))


def layer_cost(work: Work, reuse: int, io_type: str) -> Cost:
    """Return the cost of one layer.

    luts = sum over parts of constant * count, and the same for flip-flops; DSP slices, blocks and cycles are counted.

    Args:
        work: the layer.
        reuse: one of its ``reuse_factors``.
        io_type: ``io_stream`` or ``io_parallel``.
    """
    made, known = parts(work, reuse, io_type), constants()
    return Cost(
        luts=round(sum(known["luts"][name] * count for name, count in made.luts.items())),
        flip_flops=round(sum(known["flip_flops"][name] * count for name, count in made.flip_flops.items())),
        dsps=made.dsps,
        blocks=made.blocks,
        interval_cycles=made.interval_cycles,
        tail_cycles=made.tail_cycles,
    )


def design_cost(layers: Iterable[Cost], io_type: str) -> Cost:
    """Return the cost of a design: the sum of its layers and what a design takes by itself.

    The slowest layer gives the interval. Streaming layers work at the same time, so that the latency
    (``tail_cycles``) is the interval and what each layer needs for the last of its inputs; with io_parallel the
    layers follow one another.
    """
    layers, known = tuple(layers), constants()
    interval = max((layer.interval_cycles for layer in layers), default=1)
    tail = sum(layer.tail_cycles for layer in layers)
    return Cost(
        luts=sum(layer.luts for layer in layers) + round(known["luts"]["design"]),
        flip_flops=sum(layer.flip_flops for layer in layers) + round(known["flip_flops"]["design"]),
        dsps=sum(layer.dsps for layer in layers),
        blocks=sum(layer.blocks for layer in layers),
        interval_cycles=interval,
        tail_cycles=tail + interval if io_type == "io_stream" else tail,
    )


def on_board(layers: Iterable[tuple[Work, int, Cost]]) -> tuple[float, float, float, float]:
    """Return what a placed design with DMA and interconnect takes, with a margin, in the order of `NAMES`.

    taken = (design + sum over layers of cost * (1 + margin)) * placed + shell; ``constants.toml`` explains each.

    Args:
        layers: work, reuse factor and cost of each layer.
    """
    known = constants()
    totals = [known["luts"]["design"], known["flip_flops"]["design"], 0.0, 0.0]
    for work, reuse, cost in layers:
        group = "other" if work.kind != PRODUCTS else "latency" if reuse == 1 else "resource"
        for index, (name, amount) in enumerate(zip(NAMES, cost.amounts(), strict=True)):
            totals[index] += amount * (1 + known["margin"][group][name])
    luts, flip_flops, dsps, blocks = (
        total * known["placed"][name] + known["shell"][name]
        for name, total in zip(NAMES, totals, strict=True)
    )
    return luts, flip_flops, dsps, blocks


def limits(resources: Resources) -> tuple[float, float, float, float]:
    """Return what a board offers, in the order of `NAMES`; infinite where it does not say."""

    def known(value: int | None) -> float:
        return float("inf") if value is None else float(value)

    blocks = known(resources.bram_bits) / BLOCK_BITS
    return known(resources.luts), known(resources.flip_flops), known(resources.dsps), blocks
