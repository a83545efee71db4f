"""The dataclasses that stages hand to one another: frozen, standard library and numpy only."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

Progress = Callable[[int, int, str], None]
"""``progress(done, total, text)``: called while a stage works; ``total`` may change."""


def silent(done: int, total: int, text: str) -> None:
    """Ignore progress: the default of every stage."""


@dataclass(frozen=True)
class FixedPoint:
    """A fixed-point type; ``integer_bits`` counts the sign bit, as ``ap_fixed<W, I>`` does."""

    signed: bool
    integer_bits: int
    fraction_bits: int

    @property
    def width(self) -> int:
        return self.integer_bits + self.fraction_bits

    @property
    def minimum_lsb(self) -> int:
        return -(1 << (self.width - 1)) if self.signed else 0

    @property
    def maximum_lsb(self) -> int:
        return (1 << (self.width - int(self.signed))) - 1

    def to_lsb(self, values: np.ndarray) -> np.ndarray:
        """Round half to even and saturate real values onto the grid; returns int64 LSBs."""
        scaled = np.rint(np.ldexp(np.asarray(values, dtype=np.float64), self.fraction_bits))
        return np.clip(scaled, self.minimum_lsb, self.maximum_lsb).astype(np.int64)

    def to_real(self, lsb: np.ndarray) -> np.ndarray:
        """Turn integer LSBs back into float64 values."""
        return np.ldexp(np.asarray(lsb, dtype=np.float64), -self.fraction_bits)

    def __str__(self) -> str:
        return f"{'' if self.signed else 'u'}fixed<{self.width},{self.integer_bits}>"


@dataclass(frozen=True)
class Port:
    """One input or output tensor: ``shape`` has no batch dimension, channels last.

    ``scale``: what the values are multiplied with beside the power of two of ``dtype``; 1 for fixed point.
    """

    name: str
    shape: tuple[int, ...]
    dtype: FixedPoint
    scale: float = 1.0

    @property
    def size(self) -> int:
        return int(np.prod(self.shape))


@dataclass(frozen=True)
class Resources:
    """What a chip offers or a design takes; ``None`` means not reported."""

    luts: int | None = None
    flip_flops: int | None = None
    dsps: int | None = None
    bram_bits: int | None = None


@dataclass(frozen=True)
class Board:
    """One board, read from ``boards/<name>.toml``; it has ``ps``, a processor, or ``fpga``, what its chip alone is."""

    name: str
    title: str
    part: str
    toolchains: tuple[str, ...]
    clock_period_ns: float
    resources: Resources
    ps: Mapping[str, Any]
    pins: Mapping[str, str]
    source: Mapping[str, str]
    fpga: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Command:
    """One program call: ``argv[0]`` is looked up on PATH; ``log`` is relative to the plan's folder.

    ``name``: what messages call it; empty: ``argv[0]``.
    """

    argv: tuple[str, ...]
    log: str
    name: str = ""


@dataclass(frozen=True)
class Plan:
    """A build that can run here or elsewhere: texts by relative path, commands in order, products."""

    files: Mapping[str, str]
    commands: tuple[Command, ...]
    products: tuple[str, ...]

    @property
    def digest(self) -> str:
        """Return the SHA-256 of files, commands and products: the same for equal plans, on every machine."""
        commands = [[command.argv, command.log, command.name] for command in self.commands]
        text = json.dumps([dict(self.files), commands, self.products], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Tools:
    """What a build's result depends on: Python packages, programs, and databases by what names their folder."""

    packages: tuple[str, ...] = ()
    programs: tuple[str, ...] = ()
    databases: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """What a vendor tool said about a design; ``None`` means not reported.

    ``slack_ns``, ``hold_slack_ns``: the worst ones of setup and hold. ``latency_cycles``, ``interval_cycles``: the
    worst case, with ``best_latency_cycles`` and ``interval_min_cycles`` the best. ``clock_period_ns``: what HLS was
    asked for; ``estimated_clock_period_ns``: what it expects. ``power_w``: of the whole chip, by estimate.
    """

    resources: Resources
    fmax_mhz: float | None = None
    slack_ns: float | None = None
    latency_cycles: int | None = None
    interval_cycles: int | None = None
    best_latency_cycles: int | None = None
    interval_min_cycles: int | None = None
    clock_period_ns: float | None = None
    estimated_clock_period_ns: float | None = None
    hold_slack_ns: float | None = None
    power_w: float | None = None

    @property
    def bram18(self) -> int | None:
        """Return the block RAM in the vendor's blocks of 18 Kibit."""
        bits = self.resources.bram_bits
        return None if bits is None else bits // (18 * 1024)


@dataclass(frozen=True)
class Data:
    """Images and labels: inputs float32 ``(samples, ...)`` channels first, labels int64 ``(samples,)``."""

    name: str
    train: tuple[np.ndarray, np.ndarray]
    validation: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class LayerCost:
    """Size of one Conv or Linear layer; MACs are for one sample."""

    name: str
    kind: str
    inputs: int
    outputs: int
    parameters: int
    macs: int


@dataclass(frozen=True)
class Trained:
    """A float network with its accuracy on the test set (``None`` without labels); ``stopped``: why it ended."""

    model: Any
    accuracy: float | None
    history: tuple[Mapping[str, float], ...] = ()
    stopped: str = ""


@dataclass(frozen=True)
class Pruned:
    """A network of the same shape whose pruned channels or weights are zero; ``stopped`` says why there are no more.

    ``pruned``: the rows of each layer that are gone whole. ``figures_before``, ``figures_after``: parameters, MACs of
    one sample, and the figures of the cost that a budget named, of what is not pruned.
    """

    model: Any
    pruned: Mapping[str, tuple[int, ...]]
    channels_before: int
    channels_after: int
    accuracy: float | None
    stopped: str
    history: tuple[Mapping[str, float | None], ...] = ()
    figures_before: Mapping[str, float] = field(default_factory=dict)
    figures_after: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Simplified:
    """A smaller network that computes the same; ``max_error`` is relative, over full outputs."""

    model: Any
    max_error: float
    samples: int
    before: tuple[LayerCost, ...]
    after: tuple[LayerCost, ...]
    kept: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class FloatBound:
    """How far a QONNX file with free scales, executed in float32, was off the exact integers, over a whole test set.

    ``bound_steps``: how far float32 can be off before a quantizer, in its steps, whatever the sample;
    ``largest_steps``: how far it was. ``ties``: numbers that a quantizer rounded to the other side of a tie for that.
    ``samples``: those with another output for that; ``output_lsb``: by how much at most.
    """

    bound_steps: float
    largest_steps: float
    ties: int
    samples: int
    output_lsb: int


@dataclass(frozen=True)
class BitsPoint:
    """One choice of widths as it was measured: loss and accuracy by calibration alone, and the figures of its cost.

    ``name``: ``N bits`` where all widths are equal, ``one width`` where one alone is lowered, ``mixed`` otherwise.
    """

    name: str
    layers: Mapping[str, Mapping[str, int]]
    loss: float
    accuracy: float
    cost: Mapping[str, float]


@dataclass(frozen=True)
class Precision:
    """The widths that a search chose, and everything that it measured, over ``samples`` validation samples."""

    layers: Mapping[str, Mapping[str, int]]
    accuracy: float
    float_accuracy: float
    cost: Mapping[str, float]
    objective: str
    points: tuple[BitsPoint, ...]
    samples: int


@dataclass(frozen=True)
class Quantized:
    """A QONNX file with the samples that prove it equal to torch (``golden_path``, an .npz).

    ``history``, ``stopped``: the losses of the fine-tuning's epochs, and why there are no more. ``float_bound``: where
    scales are free; else torch and the file are equal.
    """

    onnx_path: Path
    golden_path: Path
    inputs: tuple[Port, ...]
    accuracy: float | None
    samples: int
    bias_bits: Mapping[str, int]
    weight_bits: Mapping[str, int]
    activation_bits: Mapping[str, int]
    history: tuple[Mapping[str, float], ...] = ()
    stopped: str = ""
    float_bound: FloatBound | None = None
    precision: Precision | None = None


@dataclass(frozen=True)
class Coded:
    """One tensor of a weights file: integers (output, input, ...) in int32 and what one of them is worth."""

    lsb: np.ndarray
    dtype: FixedPoint


@dataclass(frozen=True)
class Compressed:
    """The weights as one NNC-coded file; ``path`` is None, and ``reason`` says why, where it was not coded.

    ``bytes_at_widths`` is what the numbers take at their bit widths, ``layers`` holds each layer's coded bytes.
    """

    path: Path | None
    status: str
    tensors: int
    bytes_at_widths: int
    bytes_as_float: int
    bytes: int | None = None
    sha256: str | None = None
    layers: Mapping[str, int] = field(default_factory=dict)
    reason: str = ""


@dataclass(frozen=True)
class HlsLayer:
    """One layer of the C++ and the tensor of the fixed-point graph that it must equal."""

    name: str
    hls_name: str
    kind: str
    tensor: str
    shape: tuple[int, ...]
    dtype: FixedPoint
    reuse_factor: int | None = None
    multipliers: int | None = None


@dataclass(frozen=True)
class HlsProject:
    """An HLS C++ project on disk."""

    path: Path
    top: str
    io_type: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    layers: tuple[HlsLayer, ...]
    onnx_path: Path
    golden_path: Path
    clock_period_ns: float
    part: str


@dataclass(frozen=True)
class LayerCheck:
    """One layer of the equality chain; a hop is its largest difference in LSBs, ``None`` where it has no counterpart.

    ``lowest``, ``highest``: the range seen, in LSBs. ``saturated``: the share of values that a quantizer clipped
    or left at an end of its range. ``ties``: values that float32 rounded to the other side of a tie.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    dtype: FixedPoint
    lowest: int
    highest: int
    saturated: float
    qonnx_lsb: int | None
    csim_lsb: int | None
    ties: int = 0


@dataclass(frozen=True)
class RtlEmulation:
    """The result of simulating the RTL clock by clock; every frame equals the integer executor.

    ``interval_cycles``: clocks from frame to frame, measured without stalls; ``None`` with fewer than three frames.
    ``latency_cycles``: from reset to the last beat of the first frame.
    """

    frames: int
    max_error_lsb: int
    predicted_interval_cycles: int
    interval_cycles: int | None
    latency_cycles: int
    multipliers: int
    stages: int
    build_seconds: float


@dataclass(frozen=True)
class Emulation:
    """The result of running the integer executor and the C++ against their references.

    ``head_lsb``: how far a softmax may lie from its float reference. ``tied_samples``: samples that the file's own
    float32 execution rounds to the other side of a tie; there the exact integers hold.
    """

    samples: int
    max_error_lsb: int
    accuracy: float | None
    outputs: np.ndarray
    layers: tuple[LayerCheck, ...]
    layer_samples: int
    build_seconds: float
    samples_per_second: float
    executor_samples_per_second: float
    header: str
    head_lsb: int = 0
    tied_samples: int = 0
    rtl: RtlEmulation | None = None


@dataclass(frozen=True)
class Bitstream:
    """The vendor build: ``path`` and ``report`` are ``None`` while the tools have not run."""

    path: Path | None
    report: Report | None
    folder: Path
    command: str
    missing_tools: tuple[str, ...] = ()


@dataclass(frozen=True)
class Deployment:
    """What a board did; every result equals its golden vector.

    ``link``: what samples came over, which may be what limits ``samples_per_second``. ``clocks``: of the quickest and
    of the slowest sample on the chip, from the first word in to the last one out; ``None`` where nothing counts them.
    ``latency_us``: of one sample with the link around it.
    ``cycles_per_sample``: clocks of a batch by its samples. ``retries``: requests repeated over a serial line.
    """

    board: str
    design_id: str
    link: str
    samples: int
    max_error_lsb: int
    accuracy: float | None
    clocks: tuple[int, int] | None
    latency_us: float
    samples_per_second: float
    clock_mhz: float
    cycles_per_sample: float | None = None
    retries: int | None = None


@dataclass(frozen=True)
class Manifest:
    """What a run measured: the contents of ``manifest.json``, with dotted look-ups."""

    path: Path
    values: Mapping[str, Any]

    def __getitem__(self, key: str) -> Any:
        """Return a value by its dotted key, such as ``accuracy.float``."""
        found: Any = self.values
        for part in key.split("."):
            found = found[part]
        return found
