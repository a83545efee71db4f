"""The netlist after synthesis, simulated with models of the chip's cells: it computes what the network does."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from flow.errors import MismatchError
from flow.fixed.execute import execute
from flow.fixed.graph import FixedGraph
from flow.resources import data_folder
from flow.rtl import RtlDesign
from flow.rtl.verilator import Simulation
from flow.rtl.verilog import axis_ports
from flow.rtl.words import from_beats, to_beats
from flow.toolchains.open.families import Family

STALL = 0.3


def check_netlist(
    design: RtlDesign,
    family: Family,
    netlist: Path,
    graph: FixedGraph,
    inputs: Sequence[np.ndarray],
    folder: Path,
    timeout_s: float,
) -> None:
    """Simulate frames back to back and with stalls; every output must equal the integer executor's.

    Args:
        design: the network's Verilog.
        family: of the chip.
        netlist: the network's top as Verilog of the family's cells.
        graph: the network.
        inputs: LSBs (frames, *shape), channels last, one array an input.
        folder: where Verilator builds; made if it is missing.
        timeout_s: limit for each program.

    Raises:
        ConfigError: the inputs do not fit the network.
        UnsupportedError: a layer needs more than 64 bits.
        ToolError: Verilator is missing or fails, or the netlist gives no result.
        MismatchError: an output differs.
    """
    simulation = simulated(design, family, netlist, folder, timeout_s)
    simulation.build()
    circuit, frames = design.circuit, len(inputs[0])
    beats = [to_beats(s, x) for s, x in zip(circuit.inputs, inputs, strict=True)]
    wanted = [frames * stream.beats for stream in circuit.outputs]
    want = execute(graph, inputs)
    for stall in (0.0, STALL):
        result = simulation.run(beats, wanted, stall=stall, seed=1)
        for name, stream, got in zip(graph.outputs, circuit.outputs, result.outputs, strict=True):
            different = (from_beats(stream, got) != want[name]).reshape(frames, -1).any(axis=1)
            if different.any():
                raise MismatchError(
                    f"synthesize: the netlist must equal the integer executor, but {int(different.sum())} of {frames} "
                    f"frames differ, first at sample {int(different.argmax())}; report the network"
                )


def simulated(design: RtlDesign, family: Family, netlist: Path, folder: Path, timeout_s: float) -> Simulation:
    """Return the simulation of a netlist; its ports are the RTL's."""
    models, options = cell_models(family)
    return Simulation(
        (netlist, *models),
        design.top,
        folder,
        inputs=axis_ports(design.circuit.inputs, "s_axis"),
        outputs=axis_ports(design.circuit.outputs, "m_axis"),
        axis=True,
        lint=False,
        options=options,
        timeout_s=timeout_s,
    )


def cell_models(family: Family) -> tuple[tuple[Path, ...], tuple[str, ...]]:
    """Return what a family's cells compute, to stand behind a netlist, and the options that it needs of Verilator.

    Where a cell is modelled twice the first one is taken: ours.
    """
    package = find_spec("pyosys")
    assert package is not None
    assert package.origin is not None
    cells = Path(package.origin).parent / "share" / family.models
    models = data_folder("hls_templates") / "verilog" / "models"
    own = [path for path in (models / "block_ram.v", models / f"{family.name}.v") if path.is_file()]
    options = (f"-I{cells.parent}", f"-DPYOSYS_{version('pyosys').replace('.', '_')}", *family.defines)
    return (*own, cells), (*options, "-CFLAGS", "-O0")
