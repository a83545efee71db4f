"""RTL: the fixed-point graph as Verilog, sized to a clock count a frame, with the cycles that it will take."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flow import boards
from flow.errors import ConfigError
from flow.files import write_atomically
from flow.fixed.graph import FixedGraph
from flow.resources import data_folder
from flow.rtl.chip import Chip
from flow.rtl.choice import fastest, within
from flow.rtl.streams import Circuit
from flow.rtl.verilog import stage_module, top_module

LUTS = 20_000
"""By estimate; about what nextpnr places in ten minutes."""
LUT_INPUTS, MULTIPLIER_BITS = 6, 25


@dataclass(frozen=True)
class RtlDesign:
    """Verilog in a folder of its own: ``sources`` are the top and its modules, the memories' files lie beside them."""

    folder: Path
    top: str
    sources: tuple[Path, ...]
    circuit: Circuit

    @property
    def interval_cycles(self) -> int:
        """Predicted clocks from one frame to the next."""
        return self.circuit.interval_cycles


def write_rtl(
    graph: FixedGraph,
    folder: Path,
    *,
    module: str = "flow_top",
    interval_cycles: int | None = None,
    target_fps: float | None = None,
    clock_period_ns: float = 10.0,
    multipliers: int | None = None,
    luts: int = LUTS,
    lut_inputs: int = LUT_INPUTS,
    multiplier_bits: int = MULTIPLIER_BITS,
    adders: bool = True,
) -> RtlDesign:
    """Write the Verilog of a network and return it.

    Args:
        graph: the network.
        folder: where the files are written; made if it is missing.
        module: the name of the top module, and what the names of its memories' files begin with.
        interval_cycles: clocks from one frame to the next at most; ``None``: the fewest within the other two.
        target_fps: in place of ``interval_cycles``: frames a second.
        clock_period_ns: what ``target_fps`` is reached at.
        multipliers: that work at the same time at most, where that is possible; ``None``: as many DSP slices as the
            default board has for a network.
        luts: at most, by estimate, where that is possible.
        lut_inputs: of the chip's LUTs, 6 or 4.
        multiplier_bits: of its multipliers' wider side; narrow weights share one.
        adders: layers may be adders made for their weights, where that costs less than multipliers.

    Raises:
        ConfigError: no clocks, no multipliers or no LUTs; both ways to say how fast.
        UnsupportedError: a layer that the RTL does not have, or that cannot be that fast.
    """
    check_pace(interval_cycles, target_fps, multipliers, luts)
    if target_fps is not None:
        interval_cycles = math.floor(1e9 / clock_period_ns / target_fps)
        if interval_cycles < 1:
            raise ConfigError(
                f"rtl: target_fps must be at most one frame a clock, {1e9 / clock_period_ns:,.0f}, not {target_fps:,}; "
                "lower it"
            )
    usual = multipliers or boards.usable_dsps(boards.load(boards.DEFAULT))
    chip = Chip(luts, usual, lut_inputs, multiplier_bits, adders)
    circuit = (
        within(graph, chip, interval_cycles, module)
        if interval_cycles is not None
        else fastest(graph, chip, module)
    )
    library = data_folder("hls_templates") / "verilog"
    own = {stage.module: stage.source for stage in circuit.stages if stage.source}
    names = sorted({stage.module for stage in circuit.stages} - set(own) | {"flow_tap", "flow_last"})
    files = {f"{module}.sv": top_module(circuit, module)}
    files[f"{module}_stages.sv"] = "\n".join(stage_module(circuit, stage, module) for stage in circuit.stages)
    files |= {f"{name}.sv": (library / f"{name}.sv").read_text(encoding="utf-8") for name in names}
    files |= {f"{name}.sv": text(name) for name, text in own.items()}
    files |= {name: text() for stage in circuit.stages for name, text in stage.data.items()}
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        write_atomically(folder / name, text)
    return RtlDesign(folder, module, tuple(folder / name for name in files if name.endswith("v")), circuit)


def check_pace(
    interval_cycles: int | None = None,
    target_fps: float | None = None,
    multipliers: int | None = None,
    luts: int | None = None,
    **more: Any,
) -> None:
    """Refuse options of `write_rtl` that are out of range, or contradict one another; ``more`` has no rule.

    Raises:
        ConfigError: with the first of these.
    """
    if target_fps is not None:
        if interval_cycles is not None:
            raise ConfigError(
                "rtl: either interval_cycles or target_fps must be given, not both; leave one out"
            )
        if not target_fps > 0:
            raise ConfigError(f"rtl: target_fps must be above 0, not {target_fps}; leave it out")
    for name, value in {"interval_cycles": interval_cycles, "multipliers": multipliers, "luts": luts}.items():
        if value is not None and value < 1:
            raise ConfigError(f"rtl: {name} must be at least 1, not {value}; leave it out")
