"""The FPGA families that yosys knows: how it synthesizes for them, and what their cells take of the chip."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from flow.errors import UnsupportedError
from flow.types import Board, Resources

Cost = tuple[float, float, float, float]
"""LUTs, flip-flops, DSP slices, bits of block RAM."""
_FIELDS = ("luts", "flip_flops", "dsps", "bram_bits")


@dataclass(frozen=True)
class Family:
    """One family of chips.

    ``synthesis``: yosys' command; ``pads``: the options with which it adds no pads, for a part of a design.
    ``cells``: what a cell takes: LUTs, flip-flops, DSP slices, bits of block RAM; cells that are not named take nothing
    that is counted (wide multiplexers, carry chains that share a LUT's place). ``models``: yosys' file of what its
    cells compute, read with ``defines``; empty where cells are missing from it and from ours. ``packing``: LUTs after
    placement for each one before, measured. ``lut_inputs``: of a LUT. ``multiplier_bits``:
    of a DSP slice's wider side.
    """

    name: str
    synthesis: str
    cells: Mapping[str, Cost]
    models: str = ""
    defines: tuple[str, ...] = ()
    pads: str = ""
    packing: float = 1.0
    lut_inputs: int = 4
    multiplier_bits: int = 18

    @property
    def facts(self) -> dict[str, Any]:
        """Return what `flow.rtl.write_rtl` must know of the chip."""
        return {"lut_inputs": self.lut_inputs, "multiplier_bits": self.multiplier_bits}


def resources_of(cells: Mapping[str, Cost], counts: Mapping[str, int]) -> Resources:
    """Return what so many cells of each type take; a ``*`` at the end of a name in ``cells`` stands for any text."""
    sums = [0.0] * len(_FIELDS)
    for cell, count in counts.items():
        fitting = [name for name in cells if fnmatchcase(cell, name)]
        for place, each in enumerate(cells[max(fitting, key=len)] if fitting else ()):
            sums[place] += each * count
    return Resources(**{name: math.ceil(value) for name, value in zip(_FIELDS, sums, strict=True)})


LUT, FF, DSP = (1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0)

_XILINX_CELLS = {
    **{f"LUT{inputs}": LUT for inputs in range(1, 7)},
    **{name: LUT for name in ("SRL16E", "SRLC32E", "SRLC16E", "RAM32X1S", "RAM64X1S")},
    **{name: (2, 0, 0, 0) for name in ("RAM32X1D", "RAM64X1D", "RAM128X1S")},
    **{name: (4, 0, 0, 0) for name in ("RAM32M", "RAM64M", "RAM128X1D", "RAM256X1S")},
    "INV": LUT,
    **{name: FF for name in ("FDRE", "FDSE", "FDCE", "FDPE")},
    "DSP48E*": DSP,
    "RAMB18E*": (0, 0, 0, 18_432),
    "RAMB36E*": (0, 0, 0, 36_864),
}

FAMILIES = {
    "ecp5": Family(
        "ecp5",
        "synth_ecp5",
        {
            "LUT4": LUT,
            "CCU2C": (2, 0, 0, 0),
            "TRELLIS_DPR16X4": (4, 0, 0, 0),
            "TRELLIS_FF": FF,
            "MULT18X18D": DSP,
            "DP16KD": (0, 0, 0, 18_432),
            "PDPW16KD": (0, 0, 0, 18_432),
        },
        "ecp5/cells_sim.v",
        packing=1.15,
    ),
    "ice40": Family(
        "ice40",
        "synth_ice40 -dsp",
        {
            "SB_LUT4": LUT,
            "SB_DFF*": FF,
            "SB_MAC16": DSP,
            "SB_RAM40_4K*": (0, 0, 0, 4_096),
        },
        "ice40/cells_sim.v",
        ("-DNO_ICE40_DEFAULT_ASSIGNMENTS",),
        multiplier_bits=16,
        packing=1.5,  # flip-flops without a LUT take its place, too
    ),
    "gowin": Family(
        "gowin",
        "synth_gowin -family gw2a",
        {
            **{f"LUT{inputs}": LUT for inputs in range(1, 5)},
            "ALU": LUT,
            "RAM16SDP*": (4, 0, 0, 0),
            "DFF*": FF,
            "MULT9X9": (0, 0, 0.5, 0),
            "MULT18X18": DSP,
            "MULT36X36": (0, 0, 4, 0),
            **{
                name: (0, 0, 0, 18_432)
                for name in ("SP", "SPX9", "SDPB", "SDPX9B", "DPB", "DPX9B", "pROM", "pROMX9")
            },
        },
        "gowin/cells_sim.v",
        pads="-noiopads",
    ),
    "xc7": Family(
        "xc7",
        "synth_xilinx -family xc7 -flatten",
        _XILINX_CELLS,
        "xilinx/cells_sim.v",
        pads="-noiopad -noclkbuf",
        lut_inputs=6,
        multiplier_bits=25,
    ),
    "xcup": Family(
        "xcup",
        "synth_xilinx -family xcup -flatten",
        _XILINX_CELLS,
        pads="-noiopad -noclkbuf",
        lut_inputs=6,
        multiplier_bits=25,
    ),
}
_PROCESSORS = {"zynq7000": "xc7", "zynq_ultrascale": "xcup"}


def family_of(board: Board) -> Family:
    """Return the family of a board's chip.

    Raises:
        UnsupportedError: yosys does not know it.
    """
    name = board.fpga["family"] if board.fpga else _PROCESSORS.get(board.ps.get("type", ""), "")
    if name not in FAMILIES:
        raise UnsupportedError(
            f"synthesize: board {board.name!r} must have a chip of {', '.join(FAMILIES)}, not {name!r}; choose another"
        )
    return FAMILIES[name]
