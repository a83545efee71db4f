"""Streams and stages: what the RTL of a network consists of."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from flow.types import FixedPoint


@dataclass(frozen=True)
class Stream:
    """A tensor on its way, channels last: a beat carries ``lanes`` neighbouring channels of one position.

    ``signal``: the prefix of its wires. ``held``: how many frames may lie between the input and here, at most.
    ``pace``: clocks a frame of the slowest stage before it. ``pause``: clocks without a beat that it cannot avoid.
    """

    signal: str
    dtype: FixedPoint
    shape: tuple[int, ...]
    lanes: int
    held: float = 0.0
    pace: int = 0
    pause: int = 0

    @property
    def channels(self) -> int:
        return self.shape[-1]

    @property
    def positions(self) -> int:
        return math.prod(self.shape[:-1])

    @property
    def folds(self) -> int:
        """Beats of one position."""
        return self.channels // self.lanes

    @property
    def beats(self) -> int:
        """Beats of one frame."""
        return self.positions * self.folds

    @property
    def width(self) -> int:
        """Bits of one beat."""
        return self.lanes * self.dtype.width

    def types(self, made: FixedPoint) -> dict[str, int]:
        """Return the parameters that tell a module the types of its input, which this is, and its output."""
        given = self.dtype
        return {"IN_WIDTH": given.width, "IN_SIGNED": int(given.signed), "OUT_WIDTH": made.width}


@dataclass(frozen=True)
class Stage:
    """One instance of a module of ``hls_templates/verilog``, or of one that is made for it.

    ``kind``: the module, or what the made one is; ``source`` makes that one's text, given its name. ``layer``: the node
    that it belongs to, empty for the input's. ``ports``: the signal behind each stream port; a fork's output has
    several. ``cycles``: clocks it needs for a frame. ``multipliers``: how many work at the same time. ``luts``: about
    how many, from ``features``, see `flow.rtl.chip`. ``data``: the text of each memory's file, made when it is
    written.
    """

    name: str
    kind: str
    module: str
    layer: str
    parameters: Mapping[str, int | str]
    ports: Mapping[str, tuple[str, ...]]
    cycles: int
    multipliers: int = 0
    features: tuple[float, ...] = ()
    luts: int = 0
    data: Mapping[str, Callable[[], str]] = field(default_factory=dict)
    source: Callable[[str], str] | None = None


@dataclass(frozen=True)
class Tap:
    """Where the RTL can be watched: ``stream`` carries the tensor called ``tensor``."""

    tensor: str
    name: str
    stream: Stream


@dataclass(frozen=True)
class Circuit:
    """A network as stages between streams; ``wires``: every stream's signal and bits."""

    inputs: tuple[Stream, ...]
    outputs: tuple[Stream, ...]
    stages: tuple[Stage, ...]
    wires: Mapping[str, int]
    taps: tuple[Tap, ...]

    @property
    def interval_cycles(self) -> int:
        """Clocks from one frame to the next: the slowest stage's."""
        return max(stage.cycles for stage in self.stages)

    @property
    def multipliers(self) -> int:
        return sum(stage.multipliers for stage in self.stages)

    @property
    def luts(self) -> int:
        """About how many the stages take."""
        return sum(stage.luts for stage in self.stages)
