"""Lower: the fixed-point graph as Verilog, sized to a clock count a frame, with the cycles that it will take."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from flow.errors import ConfigError
from flow.fixed.graph import FixedGraph
from flow.lower.build import Builder
from flow.lower.folds import TooFastError
from flow.lower.nodes import lowered
from flow.lower.streams import Circuit
from flow.lower.verilog import stage_module, top_module
from flow.resources import data_folder
from flow.store import write_atomically

MULTIPLIERS = 176
"""80 % of the DSP slices of a PYNQ-Z2."""
SLOWEST = 1 << 40
"""Clocks a frame that no network needs, however narrow."""


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


def lower(
    graph: FixedGraph,
    folder: Path,
    *,
    module: str = "flow_top",
    interval_cycles: int | None = None,
    multipliers: int = MULTIPLIERS,
) -> RtlDesign:
    """Write the Verilog of a network and return it.

    Args:
        graph: the network.
        folder: where the files are written; made if it is missing.
        module: the name of the top module, and what the names of its memories' files begin with.
        interval_cycles: clocks from one frame to the next at most; ``None``: the fewest that ``multipliers`` reach.
        multipliers: that work at the same time at most, where ``interval_cycles`` is ``None``.

    Raises:
        ConfigError: no clocks or no multipliers.
        UnsupportedError: a layer that the RTL does not have, or that cannot be that fast.
    """
    if interval_cycles is not None and interval_cycles < 1:
        raise ConfigError(f"lower: interval_cycles must be at least 1, not {interval_cycles}; leave it out")
    if multipliers < 1:
        raise ConfigError(f"lower: multipliers must be at least 1, not {multipliers}; leave it out")
    circuit = (
        _built(graph, interval_cycles, module)
        if interval_cycles is not None
        else _fastest(graph, multipliers, module)
    )
    library = data_folder("hls_templates") / "verilog"
    names = sorted({stage.module for stage in circuit.stages} | {"flow_tap", "flow_last"})
    files = {f"{module}.sv": top_module(circuit, module)}
    files[f"{module}_stages.sv"] = "\n".join(stage_module(circuit, stage, module) for stage in circuit.stages)
    files |= {f"{name}.sv": (library / f"{name}.sv").read_text(encoding="utf-8") for name in names}
    files |= {name: text() for stage in circuit.stages for name, text in stage.data.items()}
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        write_atomically(folder / name, text)
    return RtlDesign(folder, module, tuple(folder / name for name in files if name.endswith("v")), circuit)


def _built(graph: FixedGraph, interval: int, prefix: str) -> Circuit:
    return Builder(graph, interval, prefix).build(lowered)


def _fastest(graph: FixedGraph, multipliers: int, prefix: str) -> Circuit:
    """Return the circuit of the shortest interval within the multipliers; where none is, the slowest one."""
    slow = _built(graph, SLOWEST, prefix)
    least, most = 0, slow.interval_cycles
    best = slow
    while most - least > 1:
        middle = (least + most) // 2
        try:
            made = _built(graph, middle, prefix)
        except TooFastError:
            least = middle
            continue
        if made.multipliers > multipliers:
            least = middle
        else:
            best, most = made, min(middle, made.interval_cycles)
    return best
