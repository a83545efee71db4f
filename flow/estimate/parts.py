"""What a layer consists of: countable things whose size in LUTs and flip-flops the constants give.

The names are those of ``constants.toml``; every count is exact, every factor in front of it is fitted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from flow.estimate.work import PRODUCTS, Work, takes_dsp

BLOCK_BITS = 18 * 1024
_SMALL_MEMORY_BITS = 1024
"""Below this HLS takes LUTs for a table."""
_SHIFT_DEPTH = 17
"""Depth of a FIFO in a chain of layers."""
_FILL_CYCLES = 2
"""From the last input of a layer to its last output, beside its reuse: registers, the last sums."""
_STREAM_CYCLES = 4
"""What a streaming layer adds to each sample: it starts anew."""
_RESOURCE_STEP_CYCLES = 5
"""What a folded conv adds to each position: its loop over positions is not pipelined."""
_SHAPES = ((512, 36), (1024, 18), (2048, 9), (4096, 4), (8192, 2), (16384, 1))


@dataclass(frozen=True)
class Parts:
    """Counts by their names in ``constants.toml``; DSP slices, 18 Kibit blocks and cycles need no constants."""

    luts: Mapping[str, float]
    flip_flops: Mapping[str, float]
    dsps: int
    blocks: int
    interval_cycles: int
    tail_cycles: int


def parts(work: Work, reuse: int, io_type: str) -> Parts:
    """Return what ``work`` consists of at a reuse factor.

    Args:
        work: the layer.
        reuse: one of its ``reuse_factors``; 1 takes the latency strategy, more the resource strategy.
        io_type: ``io_stream`` or ``io_parallel``.
    """
    stream = io_type == "io_stream"
    if work.kind == PRODUCTS:
        made = _constants(work) if reuse == 1 else _folded(work, reuse)
    else:
        made = _lanes(work, work.outputs if stream else work.outputs * work.positions)
    return _streamed(work, reuse, made) if stream else _unrolled(work, made)


def memory_blocks(bits: int, depth: int) -> int:
    """Return the 18 Kibit blocks of a memory of ``depth`` words of ``bits`` bits."""
    for rows, width in _SHAPES:
        if depth <= rows:
            return math.ceil(bits / width)
    return bits * math.ceil(depth / _SHAPES[-1][0])


def _constants(work: Work) -> Parts:
    """One multiplier a weight, each with a constant of its own: the latency strategy without reuse."""
    bits = (min(work.input_bits + work.weight_bits, work.output_bits) + work.output_bits) / 2
    ports = work.inputs * work.input_bits
    results = work.outputs * work.output_bits
    luts = {"digit_bits": bits * work.digits, "wide_bits": bits * work.wide, "result_bits": results}
    registers = {
        "digit_bits": bits * work.digits,
        "wide_bits": bits * work.wide,
        "input_bits": ports,
        "result_bits": results,
    }
    depth = math.ceil(math.log2(max(2, work.inputs)) / 4)
    return Parts(luts, registers, math.ceil(work.wide), 0, work.positions, depth)


def _folded(work: Work, reuse: int) -> Parts:
    """``reuse`` cycles, weights from a ROM: the resource strategy.

    Up to ``inputs`` cycles each multiplier feeds one sum and chooses among ``reuse`` inputs; beyond that all share
    one input and each chooses among the sums that it feeds. HLS sees through a choice of two only, and takes a
    choice among all sums, rounded up to a power of two, for the others.
    """
    multipliers = work.multipliers(reuse)
    in_dsp = takes_dsp(work.input_bits, work.weight_bits)
    sums = reuse // work.inputs
    chosen = 0 if sums <= 1 else 2 if sums == 2 else 1 << math.ceil(math.log2(work.outputs))
    lanes = max(1, work.inputs // reuse)
    results = work.outputs * work.output_bits
    ports = work.inputs * work.input_bits
    luts = {
        "folded_input_bits": ports,
        "folded_result_bits": results,
        "sum_bits": 0 if in_dsp else multipliers * work.output_bits,
        "multiplier_bits": 0 if in_dsp else multipliers * work.input_bits * work.weight_bits,
        "choice_bits": multipliers * chosen * work.output_bits
        + lanes * min(reuse, work.inputs) * work.input_bits,
    }
    registers = {
        "folded_input_bits": ports,
        "folded_result_bits": results,
        "weight_bits": multipliers * work.weight_bits if in_dsp else 0,
    }
    table_bits = math.ceil(math.log2(sums)) if sums > 1 else 0
    table = memory_blocks(table_bits, reuse) if table_bits * reuse >= _SMALL_MEMORY_BITS else 0
    blocks = memory_blocks(multipliers * work.weight_bits, reuse) + table
    return Parts(luts, registers, multipliers if in_dsp else 0, blocks, work.positions * reuse, reuse)


def _lanes(work: Work, lanes: int) -> Parts:
    """A layer that treats ``lanes`` values at the same time."""
    bits = lanes * (work.input_bits + work.output_bits)
    dsps = blocks = 0
    if work.kind == "pool":
        bits = lanes * work.input_bits * work.inputs
    elif work.kind == "scale":
        dsps = lanes if takes_dsp(work.input_bits, work.weight_bits) else 0
    elif work.kind == "table":
        small = work.entries * work.output_bits <= _SMALL_MEMORY_BITS
        blocks = 0 if small else math.ceil(lanes / 2) * memory_blocks(work.output_bits, work.entries)
    elif work.kind == "softmax":
        dsps, blocks = lanes, 4
    name = f"{work.kind}_bits"
    return Parts({name: bits}, {name: bits}, dsps, blocks, work.positions, 1)


def _streamed(work: Work, reuse: int, made: Parts) -> Parts:
    """Add what streaming takes: ports, the window of a conv or pool with its lines, the FIFO behind the layer.

    A FIFO in a chain is as deep as a shift register in LUTs; one beside a branch holds up to a whole frame.
    """
    word_bits = work.outputs * work.output_bits
    luts = {**made.luts, "line_bits": work.line_bits, "fifo_bits": word_bits}
    registers = {**made.flip_flops, "fifo_bits": word_bits}
    interval = work.scans + _STREAM_CYCLES
    if work.kind == PRODUCTS:
        ports = work.inputs * work.input_bits + word_bits
        luts["port_bits"] = ports
        registers["port_bits"] = ports
        if reuse > 1:
            step = _RESOURCE_STEP_CYCLES if work.window else 0
            waiting = max(0, work.scans - work.positions)
            interval = work.positions * (reuse + step) + waiting + _STREAM_CYCLES
    beside = work.kind == "add" and work.positions > _SHIFT_DEPTH
    fifo = memory_blocks(word_bits, work.positions) if beside else 0
    return Parts(luts, registers, made.dsps, made.blocks + fifo, interval, made.tail_cycles + _FILL_CYCLES)


def _unrolled(work: Work, made: Parts) -> Parts:
    """Add what io_parallel takes: the choice of a conv's window at every position."""
    if work.kind != PRODUCTS:
        return replace(made, interval_cycles=1)
    window = work.inputs * work.input_bits * work.positions if work.window else 0
    luts = {**made.luts, "choice_bits": made.luts.get("choice_bits", 0) + window}
    interval, tail = made.interval_cycles, made.tail_cycles + _FILL_CYCLES
    if work.positions > 1:
        tail = interval + _FILL_CYCLES
    return replace(made, luts=luts, interval_cycles=interval, tail_cycles=tail)
