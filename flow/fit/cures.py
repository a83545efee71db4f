"""What would make a design fit: each cure is tried, and named only if the estimator then says yes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from flow import boards
from flow.estimate import PRODUCTS, Work
from flow.fit.choice import Choice, choose, intervals, layer_options
from flow.fit.result import Cure
from flow.types import Board, Resources

_BITS = (12, 10, 8, 6, 5, 4, 3, 2)
_WIDTHS = tuple(step / 20 for step in range(19, 0, -1))
Works = Sequence[Work]


def best(works: Works, resources: Resources, interval_cycles: int, io_types: Sequence[str]) -> Choice | None:
    """Return the first design that fits, or else the one that comes nearest; None where all are illegal."""
    found: list[tuple[float, Choice]] = []
    for io_type in io_types:
        options = layer_options(works, io_type)
        if options is None:
            continue
        made = choose(works, options, resources, interval_cycles, io_type)
        if made.fits(resources, interval_cycles):
            return made
        late = made.design.interval_cycles / max(interval_cycles, 0.5)
        found.append((max(*made.shares(resources), late), made))
    return min(found, key=lambda pair: pair[0])[1] if found else None


def cures(
    works: Works,
    narrowed: Callable[[int], Works],
    board: Board,
    clock_period_ns: float,
    target_fps: float,
    io_types: Sequence[str],
) -> tuple[Cure, ...]:
    """Return what would help, each alone: narrower layers, fewer bits, another board, a lower rate.

    Args:
        works: the network.
        narrowed: gives the network with weights and activations of so many bits at most.
        board: the board that is too small.
        clock_period_ns: the design's.
        target_fps: the rate that was asked for.
        io_types: those that may be chosen.
    """
    interval = cycles(clock_period_ns, target_fps)

    def fits(changed: Works, resources: Resources, limit: int) -> bool:
        made = best(changed, resources, limit, io_types)
        return made is not None and made.fits(resources, limit)

    found = [
        *_widths(works, lambda w: fits(w, board.resources, interval)),
        *_bits(works, narrowed, lambda w: fits(w, board.resources, interval)),
        *_boards(
            board, lambda other, period: fits(works, other, cycles(period, target_fps)), clock_period_ns
        ),
        *_rate(works, board.resources, clock_period_ns, interval, io_types),
    ]
    return tuple(found)


def cycles(clock_period_ns: float, target_fps: float) -> int:
    """Return the cycles between two samples at a rate; 0 where the clock is too slow for it."""
    return math.floor(1e9 / (clock_period_ns * target_fps) + 1e-9)


def pruned(works: Works, share: float) -> tuple[Work, ...]:
    """Return the network with ``share`` of each layer's channels, rounded up; inputs and outputs keep theirs."""

    def kept(channels: int) -> int:
        return max(1, math.ceil(channels * share - 1e-9))

    made = []
    for work in works:
        inputs = work.inputs
        if work.kind == PRODUCTS and not (work.reads_input or work.grouped):
            inputs = work.inputs // work.channels * kept(work.channels)
        fixed = work.is_output or (work.reads_input and (work.kind != PRODUCTS or work.grouped))
        outputs = work.outputs if fixed else kept(work.outputs)
        lines = work.line_bits if work.reads_input else math.ceil(work.line_bits * share)
        left = inputs * outputs / (work.inputs * work.outputs)
        made.append(
            replace(
                work,
                inputs=inputs,
                outputs=outputs,
                line_bits=lines,
                channels=work.channels if work.reads_input else kept(work.channels),
                digits=work.digits * left,
                wide=work.wide * left,
            )
        )
    return tuple(made)


def _widths(works: Works, fits: Callable[[Works], bool]) -> Iterator[Cure]:
    for share in _WIDTHS:
        small = pruned(works, share)
        if not fits(small):
            continue
        widths = {
            new.name: new.outputs
            for old, new in zip(works, small, strict=True)
            if old.kind == PRODUCTS and old.outputs != new.outputs
        }
        if widths:
            told = ", ".join(f"{name} {outputs}" for name, outputs in widths.items())
            yield Cure(
                "widths", f"prune to {share:.0%} of the channels: {told}", {"share": share, "widths": widths}
            )
        return


def _bits(works: Works, narrowed: Callable[[int], Works], fits: Callable[[Works], bool]) -> Iterator[Cure]:
    widest = max((work.weight_bits for work in works if work.kind == PRODUCTS), default=0)
    for bits in _BITS:
        if bits < widest and fits(narrowed(bits)):
            text = f"quantize weights and activations to {bits} bits"
            yield Cure("bits", text, {"weight_bits": bits, "activation_bits": bits})
            return


def _boards(board: Board, fits: Callable[[Resources, float], bool], clock_period_ns: float) -> Iterator[Cure]:
    others = [boards.load(name) for name in boards.names() if name != board.name]
    for other in sorted(others, key=lambda each: (each.resources.luts or 0, each.name)):
        period = clock_period_ns if clock_period_ns != board.clock_period_ns else other.clock_period_ns
        if fits(other.resources, period):
            yield Cure("board", f"take the board {other.name}", {"board": other.name})
            return


def _rate(
    works: Works, resources: Resources, clock_period_ns: float, interval: int, io_types: Sequence[str]
) -> Iterator[Cure]:
    """Find the shortest interval that fits, by halving: a longer one allows whatever a shorter one did."""
    reached: list[int] = []
    for io_type in io_types:
        options = layer_options(works, io_type)
        if options is None:
            continue
        tried = [limit for limit in intervals(options) if limit > interval]
        low, high = 0, len(tried)
        while low < high:
            middle = (low + high) // 2
            made = choose(works, options, resources, tried[middle], io_type)
            low, high = (low, middle) if made.fits(resources, tried[middle]) else (middle + 1, high)
        if low < len(tried):
            reached.append(tried[low])
    if reached:
        fps = 1e9 / (clock_period_ns * min(reached))
        rounded = math.floor(fps) if fps >= 10 else math.floor(fps * 100) / 100
        yield Cure("rate", f"ask for {rounded:,} samples a second", {"target_fps": rounded})
