"""Fit: which reuse factors bring a network onto a board at a rate, or what is short and what would help."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from flow import boards
from flow.errors import ConfigError, UnsupportedError
from flow.estimate import NAMES, PRODUCTS, limits
from flow.estimate.io_types import by_preference, check_io_type
from flow.fit.choice import Choice
from flow.fit.cures import best, cures, cycles
from flow.fit.result import Cure, Fit, LayerFit, Use
from flow.fit.sources import Source, read
from flow.fit.writing import hls_block, write
from flow.fixed.graph import FixedGraph
from flow.types import Board

if TYPE_CHECKING:
    from torch import nn

    from flow.network import Example

__all__ = ["Cure", "Fit", "LayerFit", "Use", "fit", "hls_block", "write"]


def fit(
    source: str | Path | FixedGraph | nn.Module | None,
    *,
    target_fps: float,
    board: str | Board | None = None,
    clock_period_ns: float | None = None,
    io_type: str | None = None,
    weight_bits: int | None = None,
    activation_bits: int | None = None,
    input_bits: int | None = None,
    example: Example | None = None,
) -> Fit:
    """Choose ReuseFactor, Strategy and io type for every layer so that a network fits a board at a rate.

    The estimator is analytical (``docs/fit.md`` has its errors); nothing is trained or synthesized. Each resource must
    keep within the board with the margin that nine of ten real layers needed, and with DMA and interconnect beside.

    Args:
        source: a ``flow.toml``, an ONNX or QONNX file, a run's folder (its quantized network), a fixed-point graph,
            or a torch module with its ``example``; ``None``: the demo. A float network is taken at assumed widths,
            with its present weights.
        target_fps: samples a second, above 0.
        board: a name in ``boards/`` or a `Board`; ``None``: the config's, else pynq-z2.
        clock_period_ns: ``None``: the config's, else the board's.
        io_type: ``io_stream`` or ``io_parallel``; ``None``: the config's, else whichever fits, streams first where
            the network has convs.
        weight_bits, activation_bits, input_bits: 1 to 32, of a float network; ``None``: the config's, else
            quantize's defaults.
        example: one sample with a batch dimension, channels first, for a torch module.

    Returns:
        The design; where ``fits`` is false, the one that comes nearest, and the cures.

    Raises:
        ConfigError: an unknown board or io type, a rate, clock or width out of range, a broken file or config.
        UnsupportedError: a layer that the flow does not convert, or that no reuse factor makes small enough for HLS.
        MismatchError: what was read of an ONNX file computes something else.
    """
    if not (math.isfinite(target_fps) and target_fps > 0):
        raise ConfigError(f"fit: target_fps must be a number above 0, not {target_fps}; samples a second")
    bits = {"weight_bits": weight_bits, "activation_bits": activation_bits, "input_bits": input_bits}
    known = board if isinstance(board, Board) else boards.load(board) if board else None
    found = read(source, example, bits)
    where = known or boards.load(found.board or boards.DEFAULT)
    chosen_type = io_type or found.io_type
    check_io_type("fit", chosen_type, "leave it out for what fits")
    period = (
        clock_period_ns if clock_period_ns is not None else found.clock_period_ns or where.clock_period_ns
    )
    if not (math.isfinite(period) and period > 0):
        raise ConfigError(
            f"fit: clock_period_ns must be above 0, not {period}; the board's is {where.clock_period_ns}"
        )
    return _fit(found, where, period, target_fps, _io_types(found, chosen_type))


def _io_types(source: Source, chosen: str | None) -> tuple[str, ...]:
    if chosen is not None:
        return (chosen,)
    return by_preference(any(work.window for work in source.works))


def _fit(source: Source, board: Board, period: float, target_fps: float, io_types: tuple[str, ...]) -> Fit:
    interval = cycles(period, target_fps)
    made = best(source.works, board.resources, interval, io_types)
    if made is None:
        raise _illegal(source, io_types)
    fits = made.fits(board.resources, interval)
    available = limits(board.resources)
    return Fit(
        fits=fits,
        board=board.name,
        target_fps=target_fps,
        clock_period_ns=period,
        io_type=made.io_type,
        layers=_layers(made),
        uses={
            name: Use(taken, limit)
            for name, taken, limit in zip((*NAMES[:3], "bram_blocks"), made.taken, available, strict=True)
        },
        interval_cycles=made.design.interval_cycles,
        latency_cycles=made.design.tail_cycles,
        cures=() if fits else cures(source.works, source.narrowed, board, period, target_fps, io_types),
        source=source.text,
        onnx_path=source.onnx_path,
        hls=hls_block(_layers(made)),
    )


def _illegal(source: Source, io_types: tuple[str, ...]) -> UnsupportedError:
    for work in source.works:
        if not any(work.reuse_factors(io_type) for io_type in io_types):
            return UnsupportedError(
                f"fit: layer {work.name!r} must come down to 4096 multipliers at some legal reuse factor, not stay at "
                f"{work.multipliers(work.inputs):,}; prune it, or split it"
            )
    return UnsupportedError(
        "fit: with io_parallel, every tensor must have at most 4096 values, not more; choose io_stream"
    )


def _layers(made: Choice) -> tuple[LayerFit, ...]:
    return tuple(
        LayerFit(
            name=work.name,
            kind=work.kind,
            reuse_factor=option.reuse if work.kind == PRODUCTS else None,
            strategy=None if work.kind != PRODUCTS else "Latency" if option.reuse == 1 else "Resource",
            luts=option.cost.luts,
            flip_flops=option.cost.flip_flops,
            dsps=option.cost.dsps,
            bram_blocks=option.cost.blocks,
            interval_cycles=option.cost.interval_cycles,
        )
        for work, option in zip(made.works, made.options, strict=True)
    )
