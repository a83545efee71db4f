"""The layers of a streaming design as processes that pass tokens, between the AXI4-Streams."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from flow.convert.layer_list import Layer
from flow.convert.streams import Process, Step, each, gathered, in_turn, padded, windows
from flow.fixed.graph import Conv, FixedGraph, Tensor


@dataclass(frozen=True)
class Part:
    """A layer of hls4ml's model; ``layer`` is what it was made from, None for a copy of a stream."""

    name: str
    class_name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    layer: Layer | None


def processes(parts: Sequence[Part], outputs: tuple[str, ...], graph: FixedGraph) -> list[Process]:
    """Return the processes of one frame; the first writes the inputs, the last reads the outputs, each in turn."""
    streams: dict[str, tuple[str, Tensor]] = {}
    found: list[Process] = []
    sources: list[tuple[str, int]] = []
    for part in parts:
        if part.class_name == "Input" and part.layer:
            streams[part.name] = part.name, part.layer.tensor
            sources.append((part.name, tokens(part.layer.tensor)))
            continue
        given = [streams[name] for name in part.inputs]
        if part.class_name == "Reshape":
            streams[part.name] = given[0]
            continue
        tensor = part.layer.tensor if part.layer else given[0][1]
        for name in part.outputs:
            streams[name] = name, tensor
        found.append(Process(part.name, _steps(part, given, tensor, graph)))
    wanted = [(streams[name][0], tokens(streams[name][1])) for name in outputs]
    first = Process("the inputs", in_turn(sources, reading=False))
    return [first, *found, Process("the outputs", in_turn(wanted, reading=True))]


def tokens(tensor: Tensor) -> int:
    """Return the tokens of a tensor: its positions."""
    return tensor.size // tensor.shape[-1]


def _steps(part: Part, given: list[tuple[str, Tensor]], tensor: Tensor, graph: FixedGraph) -> list[Step]:
    name, source = given[0]
    layer = part.layer
    if layer is None:
        return each((name,), part.outputs, tokens(source))
    if layer.pads:
        return padded(name, part.name, source.shape[:-1], layer.pads)
    node = layer.node
    if part.class_name == "Dense":
        return gathered(name, part.name, tokens(source), 1)
    if part.class_name == "Repack":
        return _repacked(name, part.name, source, tensor)
    if isinstance(node, Conv) and layer.multiplies:
        return windows(name, part.name, source.shape[:-1], node.weight.shape[1:-1], node.strides)
    from flow.convert import operators

    assert node is not None
    streams = [stream for stream, _ in given]
    return [
        (tuple(streams[number] for number in reads), part.outputs * written)
        for reads, written in operators.stream_steps(node, graph)
    ]


def _repacked(name: str, result: str, source: Tensor, tensor: Tensor) -> list[Step]:
    """Return the steps of a repack: arrays are cut up, or put together."""
    few, many = sorted((tokens(source), tokens(tensor)))
    if tokens(source) == few:
        return gathered(name, result, 1, many // few) * few
    return gathered(name, result, many // few, 1) * few
