"""FIFO depths: how many tokens wait in each stream when a frame passes, by running it token by token.

A token is one position of an activation, all channels. A layer is a sequence of steps a frame; a step waits for
the tokens that it reads, then writes. The order that is run here never holds more tokens in a stream than its
depth, so that no streams of these depths can deadlock, whatever the layers' speeds: which tokens pass does not
depend on the order of the steps (Kahn's process networks).

A pipelined loop stalls where nothing comes in, and keeps what it has read for as many steps as it is deep. `HOLD`
is the most steps that a layer may keep so; a stream beside a chain of layers is deeper by as much for each of them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from flow.errors import UnsupportedError

HOLD = 16
"""Steps that a layer may keep in its pipeline: its latency over its interval."""

Step = tuple[tuple[str, ...], tuple[str, ...]]
"""The streams that a step reads a token of, and those that it then writes a token to."""
_Numbered = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]


@dataclass(frozen=True)
class Process:
    """A layer: its steps for one frame."""

    name: str
    steps: Sequence[Step]


def occupancy(processes: Sequence[Process], limits: Mapping[str, int] | None = None) -> dict[str, int]:
    """Return the most tokens that wait in each stream while one frame passes.

    Args:
        processes: in an order of execution, the source first.
        limits: depths of streams; a step waits until there is room.

    Raises:
        UnsupportedError: the frame does not pass.
    """
    names = list(
        dict.fromkeys(name for one in processes for step in one.steps for part in step for name in part)
    )
    frame = _Frame(processes, {name: number for number, name in enumerate(names)}, limits or {})
    while frame.advanced() and limits:
        pass
    stuck = [one.name for one, at in zip(processes, frame.done, strict=True) if at < len(one.steps)]
    left = [name for name, count in zip(names, frame.held, strict=True) if count]
    if stuck or left:
        raise UnsupportedError(
            f"convert: streams must let a frame pass, not stop at {', '.join(map(repr, stuck or left))}; "
            'give their FIFOs more depth, or choose io_type = "io_parallel"'
        )
    return dict(zip(names, frame.most, strict=True))


class _Frame:
    """A frame on its way: tokens in each stream, now and at most, and the steps that each process has done."""

    def __init__(
        self, processes: Sequence[Process], numbers: Mapping[str, int], limits: Mapping[str, int]
    ) -> None:
        self.done = [0] * len(processes)
        self.held = [0] * len(numbers)
        self.most = [0] * len(numbers)
        self.room = [limits.get(name, sys.maxsize) for name in numbers]
        readers: dict[str, int] = {}
        for place, one in enumerate(processes):
            readers |= {name: place for step in one.steps for name in step[0]}
        known: dict[Step, _Numbered] = {}
        for step in {step for one in processes for step in one.steps}:
            reads, writes = (tuple(numbers[name] for name in names) for names in step)
            known[step] = reads, writes, tuple(sorted({readers[name] for name in step[1] if name in readers}))
        self.steps = [[known[step] for step in one.steps] for one in processes]

    def advanced(self) -> bool:
        """Let every process go as far as it can, the one furthest down first; tells whether any did a step."""
        before = sum(self.done)
        waiting = list(range(len(self.steps)))
        while waiting:
            place = waiting.pop()
            woken = self._go(place)
            if woken:  # all of them lie further down: the list stays in order
                waiting.append(place)
                waiting.extend(woken)
        return sum(self.done) > before

    def _go(self, place: int) -> tuple[int, ...]:
        """Do the steps of one process until it writes, waits or ends; returns who reads what it wrote."""
        held, most, room, steps = self.held, self.most, self.room, self.steps[place]
        for at in range(self.done[place], len(steps)):
            reads, writes, woken = steps[at]
            for name in reads:
                if not held[name]:
                    self.done[place] = at
                    return ()
            for name in writes:
                if held[name] >= room[name]:
                    self.done[place] = at
                    return ()
            for name in reads:
                held[name] -= 1
            for name in writes:
                held[name] += 1
                if held[name] > most[name]:
                    most[name] = held[name]
            if woken:
                self.done[place] = at + 1
                return woken
        self.done[place] = len(steps)
        return ()


def depths(processes: Sequence[Process]) -> dict[str, int]:
    """Return a depth for each stream that no frame can deadlock with.

    depth = tokens that wait + min(`HOLD` * layers on the longest way beside the stream, tokens a frame)
    """
    tokens: dict[str, int] = {}
    levels: dict[str, int] = {}
    ways: dict[str, int] = {}
    for process in processes:
        level = 1 + max((levels[name] for reads, _ in process.steps for name in reads), default=-1)
        for reads, writes in process.steps:
            for name in reads:
                ways[name] = level - levels[name]
            for name in writes:
                levels[name] = level
                tokens[name] = tokens.get(name, 0) + 1
    most = occupancy(processes)
    return {name: most[name] + min(HOLD * ways[name], count) for name, count in tokens.items()}


def each(reads: tuple[str, ...], writes: tuple[str, ...], tokens: int) -> list[Step]:
    """Return the steps of a layer that turns token after token into one token."""
    return [(reads, writes)] * tokens


def in_turn(streams: Iterable[tuple[str, int]], *, reading: bool) -> list[Step]:
    """Return the steps that write (or read) streams one after the other, each whole."""
    steps: list[Step] = []
    for name, tokens in streams:
        steps += [((name,), ()) if reading else ((), (name,))] * tokens
    return steps


def gathered(source: str, result: str, read: int, written: int) -> list[Step]:
    """Return the steps of a layer that reads ``read`` tokens before it writes ``written``."""
    return [((source,), ())] * read + [((), (result,))] * written


def padded(source: str, result: str, size: tuple[int, ...], pads: tuple[tuple[int, int], ...]) -> list[Step]:
    """Return the steps of a layer that writes zeros around what it reads; ``size``: what it reads."""
    spans = [
        [pad[0] <= place < pad[0] + extent for place in range(extent + sum(pad))]
        for extent, pad in zip(size, pads, strict=True)
    ]
    outside: Step = ((), (result,))
    through: Step = ((source,), (result,))
    return [through if all(inside) else outside for inside in product(*spans)]


def windows(
    source: str, result: str, size: tuple[int, ...], kernel: tuple[int, ...], strides: tuple[int, ...]
) -> list[Step]:
    """Return the steps of a layer that writes a window as soon as its last token is there."""
    ends = [
        [place >= span - 1 and (place - span + 1) % stride == 0 for place in range(extent)]
        for extent, span, stride in zip(size, kernel, strides, strict=True)
    ]
    silent: Step = ((source,), ())
    writing: Step = ((source,), (result,))
    return [writing if all(complete) else silent for complete in product(*ends)]
