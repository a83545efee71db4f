"""What `flow.fit` returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class LayerFit:
    """One layer of the design: what is chosen, and what C synthesis is expected to report.

    ``reuse_factor`` and ``strategy`` are None for a layer without products; ``bram_blocks`` have 18 Kibit.
    """

    name: str
    kind: str
    reuse_factor: int | None
    strategy: str | None
    luts: int
    flip_flops: int
    dsps: int
    bram_blocks: int
    interval_cycles: int


@dataclass(frozen=True)
class Use:
    """One resource: what the placed design takes at most, margin and shell included, and what the board has."""

    needed: float
    available: float

    @property
    def short(self) -> float:
        return max(0.0, self.needed - self.available)


@dataclass(frozen=True)
class Cure:
    """A change after which the estimator says yes; ``values`` holds it in numbers.

    ``kind``: ``widths`` (layer name -> channels), ``bits`` (``weight_bits`` and ``activation_bits``), ``board``
    (``board``) or ``rate`` (``target_fps``).
    """

    kind: str
    text: str
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Fit:
    """A design for a board and a rate, or why there is none.

    ``uses``: by ``luts``, ``flip_flops``, ``dsps`` and ``bram_blocks``. Where ``fits`` is false, the layers are those
    of the design that comes nearest, and ``cures`` says what would help. ``onnx_path``: the QONNX file, if any.
    """

    fits: bool
    board: str
    target_fps: float
    clock_period_ns: float
    io_type: str
    layers: tuple[LayerFit, ...]
    uses: Mapping[str, Use]
    interval_cycles: int
    latency_cycles: int
    cures: tuple[Cure, ...] = ()
    source: str = ""
    onnx_path: Path | None = None
    hls: Mapping[str, Any] = field(default_factory=dict)

    @property
    def samples_per_second(self) -> float:
        return 1e9 / (self.clock_period_ns * self.interval_cycles)

    @property
    def latency_us(self) -> float:
        return self.latency_cycles * self.clock_period_ns / 1000
