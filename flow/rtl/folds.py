"""Folding: how many inputs (SIMD) and outputs (PE) of a layer are computed at a time."""

from __future__ import annotations

import math

from flow.errors import UnsupportedError


class TooFastError(UnsupportedError):
    """A layer cannot be as fast as the interval that was asked for; ``least``: the clocks a frame that it needs."""

    def __init__(self, layer: str, interval: int, least: float) -> None:
        self.least = least
        super().__init__(
            f"rtl: layer {layer!r} must have at least {least:,} clock cycles a frame, not {interval:,}; "
            "give a longer interval"
        )


def divisors(number: int) -> tuple[int, ...]:
    return tuple(factor for factor in range(1, number + 1) if number % factor == 0)


def least_lanes(channels: int, elements: int, interval: int, name: str) -> int:
    """Return the fewest lanes, a divisor of ``channels``, that pass ``elements`` within ``interval`` clocks.

    Raises:
        TooFastError: all channels at once are too few.
    """
    for lanes in divisors(channels):
        if elements <= interval * lanes:
            return lanes
    raise TooFastError(name, interval, math.ceil(elements / channels))


def fold(
    inputs: int,
    outputs: int,
    positions: int,
    interval: int,
    *,
    channels: int,
    arriving: int,
    lanes: int,
    name: str,
    rows: int = 1,
) -> tuple[int, int]:
    """Return (SIMD, PE) of ``inputs`` x ``outputs`` products at ``positions`` positions: the fewest multipliers.

    Among equals, few width changes behind the ``lanes`` that arrive. SIMD divides ``channels``, PE ``outputs``.

    Args:
        inputs: products of one output.
        outputs: outputs of one position.
        positions: positions of a frame.
        interval: clocks for a frame.
        channels: of the tensor that is read.
        arriving: elements of the tensor that is read.
        lanes: elements a beat of the stream that is read.
        name: of the layer.
        rows: outputs that share a multiplier.

    Raises:
        TooFastError: all channels and outputs at once are too few.
    """
    found = [
        (simd * math.ceil(pe / rows), max(simd, lanes) // math.gcd(simd, lanes), pe, simd)
        for simd in divisors(channels)
        for pe in divisors(outputs)
        if positions * (inputs // simd) * (outputs // pe) <= interval and arriving <= interval * simd
    ]
    if not found:
        raise TooFastError(name, interval, max(positions * inputs, arriving) // channels)
    _, _, pe, simd = min(found)
    return simd, pe
