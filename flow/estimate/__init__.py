"""What a network costs on an FPGA, before anything is synthesized: LUTs, flip-flops, DSP slices, BRAM, cycles."""

from flow.estimate.cost import NAMES, Cost, constants, design_cost, layer_cost, limits, on_board
from flow.estimate.parts import BLOCK_BITS, Parts, parts
from flow.estimate.reuse import MAX_UNROLL
from flow.estimate.work import PRODUCTS, Work, constant_digits

__all__ = [
    "BLOCK_BITS",
    "MAX_UNROLL",
    "NAMES",
    "PRODUCTS",
    "Cost",
    "Parts",
    "Work",
    "constant_digits",
    "constants",
    "design_cost",
    "layer_cost",
    "limits",
    "on_board",
    "parts",
]
