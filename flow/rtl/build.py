"""The fixed-point graph as stages: which module computes each node, how wide, and what lies between them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from flow.fixed.graph import FixedGraph, Reshape, Tensor
from flow.names import free_name, identifier
from flow.rtl.chip import Chip, features
from flow.rtl.folds import TooFastError, least_lanes
from flow.rtl.streams import Circuit, Stage, Stream, Tap
from flow.types import FixedPoint

SLACK_BEATS = 32
"""What the branches of a join hold beside whole rows and vectors: pipelines and small FIFOs."""
_SMALL = 2


class Builder:
    """Collects stages and streams.

    Args:
        graph: the network.
        interval: clocks a frame at most.
        prefix: begins the names of all files.
        chip: what stages cost.
        price: LUTs that a multiplier is worth, where a layer has a choice.
    """

    def __init__(self, graph: FixedGraph, interval: int, prefix: str, chip: Chip, price: float) -> None:
        self.graph, self.interval, self.prefix = graph, interval, prefix
        self.chip, self.price = chip, price
        self._stages: list[Stage] = []
        self._wires: dict[str, int] = {}
        self._taps: list[Tap] = []
        self._waiting: dict[str, list[Stream]] = {}
        self._layer = ""

    # ------------------------------------------------------------ what nodes are made of

    def take(self, tensor: str) -> Stream:
        """Return the stream of a tensor for one more reader."""
        return self._waiting[tensor].pop(0)

    def stage(
        self,
        module: str,
        name: str,
        given: Mapping[str, Stream],
        made: tuple[FixedPoint, tuple[int, ...], int],
        parameters: Mapping[str, int],
        *,
        cycles: int = 0,
        held: float = 0.0,
        pause: int = 0,
        multipliers: int = 0,
        sizes: Mapping[str, int] | None = None,
        memories: Mapping[str, Callable[[], str]] | None = None,
        source: Callable[..., str] | None = None,
    ) -> Stream:
        """Add a stage and return its output.

        Args:
            module: of ``hls_templates/verilog``; with ``source``: what the name of its own module ends with.
            name: what the output's signal is called after.
            given: the streams at its input ports.
            made: type, shape and lanes of the output.
            parameters: the module's.
            cycles: clocks it needs for a frame beside those of its streams' beats.
            held: frames that it may hold.
            pause: of its ``cycles``, those that it makes its readers wait, beside what it waits itself.
            multipliers: that work at the same time.
            sizes: what its LUTs follow, beside the parameters.
            memories: the texts of the files that parameters name.
            source: makes the text of its module, given its name.
        """
        own = max(cycles, _beats(made), *(stream.beats for stream in given.values()))
        given = {port: self._steady(stream, own) for port, stream in given.items()}
        before = list(given.values())
        pace = max(own, *(stream.pace for stream in before))
        out = replace(
            self._stream(name, *made, max(stream.held for stream in before) + held),
            pace=pace,
            pause=max(stream.pause for stream in before) + math.ceil(pause * pace / own),
        )
        files = {
            parameter: (f"{self.prefix}_{out.signal}_{parameter.lower()}.hex", text)
            for parameter, text in (memories or {}).items()
        }
        size = features(module, {**parameters, **(sizes or {})}, out.width)
        self._stages.append(
            Stage(
                name=f"u_{out.signal}",
                kind=module,
                module=f"{self.prefix}_{out.signal}_{module}" if source else module,
                layer=self._layer,
                parameters={**parameters, **{key: file for key, (file, _) in files.items()}},
                ports={port: (s.signal,) for port, s in given.items()} | {"out": (out.signal,)},
                cycles=own,
                multipliers=multipliers,
                features=size,
                luts=self.chip.takes(module, size),
                data=dict(files.values()),
                source=source,
            )
        )
        return out

    def _steady(self, stream: Stream, cycles: int) -> Stream:
        """Return the stream for a stage of so many clocks a frame: a slower one works through the stream's pauses."""
        if not stream.pause or cycles <= stream.beats:
            return stream
        depth = min(math.ceil(stream.pause * stream.beats / cycles), stream.beats) + _SMALL
        return replace(self.fifo(stream, depth), pause=0)

    def cheapest(self, options: Sequence[Callable[[], Stream]]) -> Stream:
        """Add the stages of the option that takes least of the chip, each option made once to see.

        Raises:
            TooFastError: none is fast enough.
        """
        costs: list[tuple[float, int]] = []
        slow: list[TooFastError] = []
        for number, option in enumerate(options):
            stages, wires = len(self._stages), dict(self._wires)
            try:
                option()
                added = self._stages[stages:]
                costs.append((sum(s.luts + self.price * s.multipliers for s in added), number))
            except TooFastError as error:
                slow.append(error)
            del self._stages[stages:]
            self._wires = wires
        if not costs:
            raise min(slow, key=lambda error: error.least)
        return options[min(costs)[1]]()

    def fifo(self, stream: Stream, depth: int) -> Stream:
        """Return the stream behind a FIFO of at least ``depth`` beats."""
        parameters = {"WIDTH": stream.width, "DEPTH": max(depth, _SMALL)}
        made = (stream.dtype, stream.shape, stream.lanes)
        return self.stage("flow_fifo", f"{stream.signal}_q", {"in": stream}, made, parameters)

    def widened(self, stream: Stream, lanes: int) -> Stream:
        """Return the stream with another number of lanes, by way of a common multiple."""
        for step in (math.lcm(stream.lanes, lanes), lanes):
            if step != stream.lanes:
                parameters = {
                    "WIDTH": stream.dtype.width,
                    "IN_LANES": stream.lanes,
                    "OUT_LANES": step,
                }
                made = (stream.dtype, stream.shape, step)
                stream = self.stage("flow_width", f"{stream.signal}_w", {"in": stream}, made, parameters)
        return stream

    def joined(self, streams: list[Stream], lanes: int) -> list[Stream]:
        """Return the streams with equal lanes, each behind a FIFO that holds what the longest branch holds more."""
        longest = max(stream.held for stream in streams)
        wide = [self.widened(stream, lanes) for stream in streams]
        return [
            self.fifo(stream, math.ceil((longest - stream.held) * stream.beats) + SLACK_BEATS)
            for stream in wide
        ]

    # ------------------------------------------------------------ the whole circuit

    def build(self, lowered: Callable[..., Stream]) -> Circuit:
        """Return the circuit; ``lowered(node, builder)`` makes the stages of a node."""
        inputs = []
        for tensor in self.graph.inputs:
            lanes = least_lanes(tensor.shape[-1], tensor.size, self.interval, tensor.name)
            inputs.append(self._stream(tensor.name, tensor.dtype, tensor.shape, lanes, 0.0))
            self._offer(tensor, self.fifo(inputs[-1], _SMALL))
        for node in self.graph.nodes:
            self._layer = node.name
            stream = lowered(node, self)
            if not isinstance(node, Reshape):
                stream = self.fifo(stream, _SMALL)  # cuts the way of ready from stage to stage
                self._taps.append(Tap(node.output.name, f"{self.prefix}_{stream.signal}_tap", stream))
            self._offer(node.output, stream)
        outputs = tuple(self.take(name) for name in self.graph.outputs)
        return Circuit(tuple(inputs), outputs, tuple(self._stages), self._wires, tuple(self._taps))

    def _stream(
        self, name: str, dtype: FixedPoint, shape: tuple[int, ...], lanes: int, held: float
    ) -> Stream:
        signal = free_name(identifier(name), self._wires, first=len(self._wires), cased=True)
        made = Stream(signal, dtype, shape, lanes, held)
        self._wires[signal] = made.width
        return made

    def _offer(self, tensor: Tensor, stream: Stream) -> None:
        """Let the tensor's readers have it, each its own stream."""
        users = sum(node.inputs.count(tensor.name) for node in self.graph.nodes)
        users += self.graph.outputs.count(tensor.name)
        if users == 1:
            self._waiting[tensor.name] = [stream]
            return
        given = (stream.dtype, stream.shape, stream.lanes, stream.held)
        branches = [
            replace(self._stream(f"{stream.signal}_to", *given), pace=stream.pace, pause=stream.pause)
            for _ in range(users)
        ]
        self._waiting[tensor.name] = [self.fifo(branch, _SMALL) for branch in branches]
        self._stages.append(
            Stage(
                name=f"fork_{stream.signal}",
                kind="flow_fork",
                module="flow_fork",
                layer=self._layer,
                parameters={"WIDTH": stream.width, "BRANCHES": users},
                ports={"in": (stream.signal,), "out": tuple(branch.signal for branch in branches)},
                cycles=stream.beats,
            )
        )


def _beats(made: tuple[FixedPoint, tuple[int, ...], int]) -> int:
    """Return the beats of a frame of such a stream."""
    return math.prod(made[1]) // made[2]
