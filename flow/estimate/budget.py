"""What a float network would take of a board: figures for a pruning budget and for a search of bit widths."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from flow.errors import ConfigError
from flow.estimate.cost import design_cost, layer_cost, limits, on_board
from flow.estimate.io_types import by_preference, check_io_type
from flow.estimate.network import Bits, network_work
from flow.estimate.reuse import Fold, choose
from flow.estimate.work import PRODUCTS, Work
from flow.network import WEIGHTED, Example, calls, kind, shapes, widths

if TYPE_CHECKING:
    from torch import fx

    from flow.types import Board

COSTS = (
    "luts",
    "flip_flops",
    "dsps",
    "bram18",
    "interval_cycles",
    "latency_cycles",
    "board_share",
)
"""The keys of `network_cost`."""


def network_cost(
    graph: fx.GraphModule,
    example: Example,
    bits: Bits,
    board: Board,
    *,
    io_type: str | None = None,
    reuse_factor: int | None = None,
    pace_cycles: int | None = None,
    sizes: Mapping[str, tuple[int, ...]] | None = None,
) -> dict[str, float]:
    """Return what a network would take of a board, folded as the stage convert folds it.

    luts, flip_flops, dsps, bram18: what a placed design with DMA and interconnect takes, with the estimator's margin;
    interval_cycles, latency_cycles: of one sample; board_share = max over resources of taken / offered.

    Args:
        graph: a graph of `flow.network.trace`; BatchNorm counts as fused.
        example: one input tensor, or a tuple of them, with a batch dimension.
        bits: the widths that the network will get.
        board: its DSP slices decide the folding.
        io_type: ``io_stream`` or ``io_parallel``; None: streams where the network has convs.
        reuse_factor: of every layer, or the nearest legal one; None: the shortest interval that the board's DSP
            slices allow.
        pace_cycles: in place of both, each layer is folded as far as an interval of so many cycles a sample lets it;
            a layer that cannot keep it is not folded further than it must.
        sizes: the shapes of all tensors, where they are known.

    Returns:
        A figure for each of `COSTS`.

    Raises:
        ConfigError: an option is out of range, or both ``reuse_factor`` and ``pace_cycles`` are given.
        UnsupportedError: a layer that convert has not.
    """
    _check(io_type, reuse_factor, pace_cycles)
    works = network_work(graph, example, bits, sizes=sizes)
    if io_type is None:
        io_type = by_preference(any(work.window for work in works))[0]
    if pace_cycles is not None:
        reuse = [_paced(work, pace_cycles, io_type) for work in works]
    else:
        reuse = _folded(works, io_type, board.resources.dsps or 0, reuse_factor)
    layers = [(work, r, layer_cost(work, r, io_type)) for work, r in zip(works, reuse, strict=True)]
    design = design_cost((cost for _, _, cost in layers), io_type)
    taken = on_board(layers)
    shares = [t / limit for t, limit in zip(taken, limits(board.resources), strict=True)]
    figures = (*taken, design.interval_cycles, design.tail_cycles, max(shares))
    return dict(zip(COSTS, map(float, figures), strict=True))


def board_cost(
    example: Example,
    bits: Bits,
    board: Board,
    *,
    io_type: str | None = None,
    reuse_factor: int | None = None,
    pace_cycles: int | None = None,
) -> Callable[[fx.GraphModule], dict[str, float]]:
    """Return `network_cost` as a function of the network alone: the ``cost`` of `flow.prune`.

    The first network is measured tensor by tensor; pruned ones have its node names and extents, which saves most of
    the time.
    """
    _check(io_type, reuse_factor, pace_cycles)
    known: dict[str, tuple[int, ...]] = {}

    def cost(graph: fx.GraphModule) -> dict[str, float]:
        found = narrowed_shapes(graph, known)
        if found is None:
            found = shapes(graph, example)
            known.clear()
            known.update(found)
        return network_cost(
            graph,
            example,
            bits,
            board,
            io_type=io_type,
            reuse_factor=reuse_factor,
            pace_cycles=pace_cycles,
            sizes=found,
        )

    return cost


def bits_cost(
    example: Example,
    board: Board,
    *,
    io_type: str | None = None,
    reuse_factor: int | None = None,
    pace_cycles: int | None = None,
) -> Callable[[fx.GraphModule, Bits], dict[str, float]]:
    """Return the ``cost`` of `flow.search_bits`: the figures of a network at some widths.

    All are compared at one folding: ``reuse_factor``, or ``pace_cycles``, or the interval of the first network that it
    is called with, folded as the stage convert folds it. See `network_cost`.
    """
    _check(io_type, reuse_factor, pace_cycles)
    sizes: dict[str, tuple[int, ...]] = {}
    pace = [pace_cycles]

    def cost(graph: fx.GraphModule, bits: Bits) -> dict[str, float]:
        sizes.update(sizes or shapes(graph, example))

        def at(reuse: int | None, cycles: int | None) -> dict[str, float]:
            return network_cost(
                graph,
                example,
                bits,
                board,
                io_type=io_type,
                reuse_factor=reuse,
                pace_cycles=cycles,
                sizes=sizes,
            )

        if reuse_factor is None and pace[0] is None:
            pace[0] = int(at(None, None)["interval_cycles"])
        return at(reuse_factor, pace[0])

    return cost


def narrowed_shapes(
    graph: fx.GraphModule, known: Mapping[str, tuple[int, ...]]
) -> dict[str, tuple[int, ...]] | None:
    """Return the shapes of a network whose tensors have other channels than in ``known``; None where one is new."""
    found: dict[str, tuple[int, ...]] = {}
    for node in graph.graph.nodes:
        if node.op == "output":
            continue
        if node.name not in known or not all(source.name in found for source in node.all_input_nodes):
            return None
        batch, _, *extents = known[node.name]
        found[node.name] = (batch, _channels(graph, node, found, known[node.name][1]), *extents)
    return found


def _channels(graph: fx.GraphModule, node: fx.Node, found: Mapping[str, tuple[int, ...]], before: int) -> int:
    if node.op == "placeholder":
        return before
    sources = [found[source.name] for source in node.all_input_nodes]
    if node.op == "call_module":
        module = graph.get_submodule(str(node.target))
        if kind(module) in WEIGHTED:
            return widths(module)[1]
        return math.prod(sources[0][1:]) if kind(module) == "Flatten" else sources[0][1]
    if calls(node, "cat"):
        return sum(found[part.name][1] for part in node.args[0])  # type: ignore[union-attr, misc]
    return int(node.args[3]) if calls(node, "narrow") else sources[0][1]  # type: ignore[arg-type]


def _folds(works: Sequence[Work], io_type: str) -> dict[int, Fold]:
    """Return the layers that multiply, by their place: names need not differ."""
    return {
        index: Fold(
            str(index),
            work.inputs,
            work.outputs,
            work.positions,
            work.own_kernel or (work.window and io_type == "io_parallel"),
        )
        for index, work in enumerate(works)
        if work.kind == PRODUCTS
    }


def _folded(works: Sequence[Work], io_type: str, dsps: int, reuse_factor: int | None) -> list[int]:
    """Return the reuse factor of each layer, 1 for those without products."""
    folds = _folds(works, io_type)
    if reuse_factor is None:
        chosen = choose(folds.values(), dsps)
        return [chosen.get(str(index), 1) for index in range(len(works))]
    return [folds[index].nearest(reuse_factor) if index in folds else 1 for index in range(len(works))]


def _paced(work: Work, cycles: int, io_type: str) -> int:
    """Return the largest reuse factor of a layer within an interval, or else that of its shortest."""
    legal = work.reuse_factors(io_type) or tuple(fold.legal[-1] for fold in _folds([work], io_type).values())
    intervals = [(layer_cost(work, factor, io_type).interval_cycles, factor) for factor in legal]
    return max((factor for interval, factor in intervals if interval <= cycles), default=min(intervals)[1])


def _check(io_type: str | None, reuse_factor: int | None, pace_cycles: int | None) -> None:
    check_io_type("estimate", io_type)
    for name, value in (("reuse_factor", reuse_factor), ("pace_cycles", pace_cycles)):
        if value is not None and value < 1:
            raise ConfigError(
                f"estimate: {name} must be a whole number from 1 on, not {value!r}; "
                "leave it out to fold by the board's DSP slices"
            )
    if reuse_factor is not None and pace_cycles is not None:
        raise ConfigError(
            f"estimate: pace_cycles must be left out where reuse_factor is given, not {pace_cycles}; give one of them"
        )
