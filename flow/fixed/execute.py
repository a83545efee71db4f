"""The integer executor: the fixed-point graph over whole data sets, exactly."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from flow.errors import ConfigError
from flow.fixed.graph import Conv, Dense, FixedGraph, Node, Pool, Rescale, Tensor
from flow.fixed.operations import Run, fused, prepared
from flow.fixed.sums import kind_of, peak
from flow.types import Progress, silent

if TYPE_CHECKING:
    import torch

BATCH_VALUES = 3 << 18
"""Values of the largest tensor in one batch: few calls, and still in the cache."""


def execute(
    graph: FixedGraph,
    inputs: Sequence[np.ndarray],
    *,
    every: bool = False,
    batch: int | None = None,
    threads: int | None = None,
    progress: Progress = silent,
) -> dict[str, np.ndarray]:
    """Return the outputs, or with ``every`` all tensors, by name: int64 LSBs (samples, *shape), channels last.

    Every integer is exact: each node runs in the fastest type that holds all its partial sums.

    Args:
        graph: the network.
        inputs: integers in LSBs (samples, *shape), channels last, one array an input.
        every: return every tensor.
        batch: samples at a time; ``None``: as many as a core's cache holds.
        threads: batches at a time; ``None``: one a core.
        progress: called after every batch.

    Raises:
        ConfigError: an input has another shape, or values that its type does not hold.
        UnsupportedError: a node needs more than 64 bits.
    """
    check_inputs(graph, inputs)
    samples = len(inputs[0])
    largest = max(tensor.size for tensor in graph.tensors.values())
    size = batch or max(1, BATCH_VALUES // largest)
    names = list(graph.tensors) if every else list(graph.outputs)
    made = {name: np.empty((samples, *graph.tensors[name].shape), np.int64) for name in names}
    program = _program(graph, names)
    parts = [slice(first, min(first + size, samples)) for first in range(0, samples, size)]

    def run(part: slice) -> None:
        for name, values in _batch(graph, program, [x[part] for x in inputs], made).items():
            made[name][part] = values.numpy()

    with exact_floats(), ThreadPoolExecutor(threads or len(os.sched_getaffinity(0))) as pool:
        for part, _ in zip(parts, pool.map(run, parts), strict=True):
            progress(part.stop, samples, "executing the fixed-point graph")
    return made


def check_inputs(graph: FixedGraph, inputs: Sequence[np.ndarray]) -> None:
    """Check the inputs' number, types and shapes.

    Raises:
        ConfigError: they do not fit the graph.
    """
    if len(inputs) != len(graph.inputs) or len({len(x) for x in inputs}) != 1:
        raise ConfigError(
            f"execute: inputs must be {len(graph.inputs)} arrays of equally many samples, not "
            f"{', '.join(str(x.shape) for x in inputs) or 'none'}; give one an input"
        )
    for tensor, x in zip(graph.inputs, inputs, strict=True):
        if x.shape[1:] != tensor.shape or not np.issubdtype(x.dtype, np.integer):
            raise ConfigError(
                f"execute: input {tensor.name!r} must be integers of shape (samples, "
                f"{', '.join(map(str, tensor.shape))}), not {x.dtype} {x.shape}; give LSBs, channels last"
            )


@dataclass(frozen=True)
class _Step:
    """One node, or a layer with its quantizer; ``last``: the tensors that nothing reads afterwards."""

    inputs: tuple[str, ...]
    output: str
    run: Run
    last: tuple[str, ...] = ()


def _program(graph: FixedGraph, wanted: Sequence[str]) -> list[_Step]:
    """Return the steps; a layer goes with the quantizer and the max pool behind it, where nobody else reads it."""
    steps: list[_Step] = []
    done: set[str] = set()
    for node in graph.nodes:
        if node.output.name in done:
            continue
        last: Node = node
        run = None
        if isinstance(node, Dense | Conv):
            quantizer = _next(graph, node, wanted)
            if isinstance(quantizer, Rescale):
                pool = _next(graph, quantizer, wanted)
                found = (
                    pool if isinstance(pool, Pool) and pool.kind == "max" and not np.any(pool.pads) else None
                )
                run = fused(node, quantizer, found, graph)
                last = (found or quantizer) if run else node
                done |= {quantizer.output.name, last.output.name} if run else set()
        steps.append(_Step(node.inputs, last.output.name, run or prepared(node, graph)))
    return _with_ends(steps, wanted)


def _next(graph: FixedGraph, node: Node, wanted: Sequence[str]) -> Node | None:
    """Return the node that alone reads this one's output."""
    readers = graph.readers(node.output.name)
    return readers[0] if len(readers) == 1 and node.output.name not in wanted else None


def _with_ends(steps: Sequence[_Step], wanted: Sequence[str]) -> list[_Step]:
    seen = set(wanted)
    ended = []
    for step in reversed(steps):
        last = tuple(dict.fromkeys(name for name in step.inputs if name not in seen))
        seen.update(step.inputs)
        ended.append(_Step(step.inputs, step.output, step.run, last))
    return ended[::-1]


def _batch(
    graph: FixedGraph,
    program: Sequence[_Step],
    inputs: Sequence[np.ndarray],
    wanted: Mapping[str, np.ndarray],
) -> dict[str, torch.Tensor]:
    """Return the wanted tensors of one batch."""
    import torch

    with torch.inference_mode():
        values = {tensor.name: _given(tensor, x) for tensor, x in zip(graph.inputs, inputs, strict=True)}
        for step in program:
            values[step.output] = step.run(*(values[name] for name in step.inputs))
            for name in step.last:
                del values[name]
        return {name: values[name] for name in wanted}


def _given(tensor: Tensor, x: np.ndarray) -> torch.Tensor:
    """Return an input in the type that its integers travel in; rounding does not hide one that is too large."""
    import torch

    dtype = tensor.dtype
    made = torch.empty(x.shape, dtype=kind_of(peak(dtype), tensor.name))
    made.numpy()[...] = x
    low, high = made.aminmax()
    if low < dtype.minimum_lsb or high > dtype.maximum_lsb:
        raise ConfigError(
            f"execute: input {tensor.name!r} must lie in {dtype.minimum_lsb} to {dtype.maximum_lsb} LSB, not reach "
            f"{x.min()} and {x.max()}; quantize it with the port's type"
        )
    return made


@contextmanager
def exact_floats() -> Iterator[None]:
    """Keep torch and numpy to one thread a batch, and torch to plain float32 products, whatever the caller chose."""
    import torch
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    try:
        torch.set_num_threads(1)
        torch.set_float32_matmul_precision("highest")
        with threadpool_limits(1, "blas"):
            yield
    finally:
        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision(precision)
