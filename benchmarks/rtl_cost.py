"""What stages take: the rules of `flow.rtl.chip` beside yosys, stage by stage, and the rules fitted anew.

    python benchmarks/rtl_cost.py [--cache FOLDER]

Circuits with random weights of small CNNs and MLPs at several paces and widths, so that engines, adders, both kinds of
windows and all that lies between occur; every stage is synthesized by itself for the Zynq-7000 and the ECP5.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from figures import record, table
from pruning_nets import CACHE

from flow.fixed.graph import Conv, Dense, FixedGraph, Node, Pool, Rescale, Reshape, Tensor
from flow.rtl import write_rtl
from flow.rtl.chip import RULES
from flow.toolchains.open.families import FAMILIES
from flow.toolchains.open.pieces import Yosys, total
from flow.types import FixedPoint

NAME = "rtl_cost"
INPUTS = {"xc7": 6, "ecp5": 4}
"""Of a family's LUTs."""


@dataclass(frozen=True)
class Case:
    """A network: (filters, kernel, padding, stride of the pool behind) of its convs, dense layers; and its pace."""

    image: tuple[int, int, int]
    convs: tuple[tuple[int, int, int, int], ...]
    dense: tuple[int, ...]
    weight_bits: int
    bits: int
    interval: int
    price: float = 1.0


CASES = (
    Case((14, 14, 1), ((4, 3, 0, 2), (6, 3, 0, 2)), (10,), 4, 4, 200),
    Case((14, 14, 1), ((4, 3, 1, 2), (6, 3, 1, 1)), (16, 10), 6, 6, 2_000),
    Case((12, 12, 3), ((8, 3, 1, 2), (12, 3, 0, 1)), (10,), 5, 5, 700),
    Case((10, 10, 2), ((5, 5, 0, 2),), (12, 8), 8, 8, 400),
    Case((16, 16, 1), ((3, 5, 2, 2), (7, 3, 0, 2)), (10,), 3, 2, 5_000),
    Case((1, 1, 16), (), (64, 32, 5), 6, 6, 16),
    Case((1, 1, 16), (), (24, 12, 5), 4, 6, 1),
    Case((1, 1, 20), (), (40, 10), 8, 8, 400),
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cache", type=Path, default=CACHE)
    given = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        for number, case in enumerate(CASES):
            for family in INPUTS:
                rows += measured(case, family, Path(name) / f"{number}-{family}", given.cache)
                print(number, family, len(rows), flush=True)
    lines, cells = [], []
    for family, inputs in INPUTS.items():
        for kind in sorted({row["kind"] for row in rows}):
            mine = [row for row in rows if row["family"] == family and row["kind"] == kind]
            fitted = fit(mine)
            rule = RULES[inputs].get(kind, RULES[inputs][""])
            lines.append(f"{family} {kind}: {tuple(round(float(value), 2) for value in fitted)}")
            made, said = (
                sum(values) for values in zip(*((row["luts"], says(row, rule)) for row in mine), strict=True)
            )
            cells.append(
                [kind, family, str(len(mine)), f"{made:,}", f"{said:,.0f}", f"{said / max(made, 1):.2f}"]
            )
    print("\n".join(lines))
    columns = ["stage", "chip", "synthesized", "LUT by yosys", "by the rule", "rule / yosys"]
    table(NAME, __doc__.split("\n\n")[2].strip().replace("\n", " "), columns, cells)
    record(NAME, worst(rows), "most by which a circuit's LUTs are off the rules", goal="0.25")


def measured(case: Case, family: str, folder: Path, cache: Path) -> list[dict[str, Any]]:
    """Return one row a stage."""
    design = write_rtl(
        network(case), folder, module="net", interval_cycles=case.interval, lut_inputs=INPUTS[family]
    )
    yosys = Yosys(FAMILIES[family], folder / "yosys", None, cache=cache / "netlists")
    rows = []
    for stage, piece in zip(design.circuit.stages, yosys.stages(design), strict=True):
        rows.append(
            {
                "case": case.__repr__(),
                "family": family,
                "kind": stage.kind,
                "features": stage.features,
                "luts": total(FAMILIES[family], [piece]).luts,
                "said": stage.luts,
            }
        )
    return rows


def says(row: dict[str, Any], rule: tuple[float, ...]) -> float:
    return sum(value * each for value, each in zip(row["features"], rule, strict=False))


def fit(rows: list[dict[str, Any]]) -> np.ndarray:
    """Return factors of the features, none below zero, with the least squared relative error."""
    x = np.array([row["features"] for row in rows], float)
    y = np.array([row["luts"] for row in rows], float)
    weight = 1 / (y + 20)
    kept = list(range(x.shape[1]))
    while True:
        found = np.linalg.lstsq(x[:, kept] * weight[:, None], y * weight, rcond=None)[0]
        if (found >= 0).all():
            break
        kept.remove(kept[int(found.argmin())])
    factors = np.zeros(x.shape[1])
    factors[kept] = found
    return factors


def worst(rows: list[dict[str, Any]]) -> float:
    circuits = {(row["case"], row["family"]) for row in rows}
    off = []
    for circuit in circuits:
        mine = [row for row in rows if (row["case"], row["family"]) == circuit]
        off.append(abs(sum(row["said"] for row in mine) / sum(row["luts"] for row in mine) - 1))
    return max(off)


def network(case: Case) -> FixedGraph:
    """Return the network, its weights random."""
    rng = np.random.default_rng(0)
    small, reach = FixedPoint(False, case.bits, 0), 1 << case.weight_bits - 1
    weights, biases = FixedPoint(True, case.weight_bits, 0), FixedPoint(True, 12, 0)
    x = Tensor("x", case.image, small)
    nodes: list[Node] = []
    last = x

    def summed(name: str, shape: tuple[int, ...], inputs: int) -> Tensor:
        return Tensor(
            name, shape, FixedPoint(True, case.bits + case.weight_bits + inputs.bit_length() + 1, 0)
        )

    def quantized(number: int) -> Tensor:
        made = Tensor(f"q{number}", last.shape, small)
        one, none = np.array([1]), np.array([0])
        nodes.append(
            Rescale(
                made.name, (last.name,), made, one, none, case.weight_bits, "HALF_UP", 0, small.maximum_lsb
            )
        )
        return made

    for number, (filters, kernel, pad, stride) in enumerate(case.convs):
        height, width, channels = last.shape
        shape = (height + 2 * pad - kernel + 1, width + 2 * pad - kernel + 1, filters)
        made = summed(f"c{number}", shape, kernel * kernel * channels)
        weight = rng.integers(-reach, reach, (filters, kernel, kernel, channels))
        bias = rng.integers(-99, 99, filters)
        form = (weight, weights, (1, 1), ((pad, pad), (pad, pad)), (1, 1), 1, bias, biases)
        nodes.append(Conv(made.name, (last.name,), made, *form))
        last = made
        last = quantized(number)
        if stride > 1:
            shape = (last.shape[0] // stride, last.shape[1] // stride, filters)
            made = Tensor(f"p{number}", shape, small)
            none = ((0, 0), (0, 0))
            nodes.append(Pool(made.name, (last.name,), made, "max", (stride,) * 2, (stride,) * 2, none))
            last = made
    made = Tensor("flat", (last.size,), small)
    nodes.append(Reshape("flat", (last.name,), made))
    last = made
    for number, outputs in enumerate(case.dense):
        if number:
            last = quantized(100 + number)
        made = summed(f"d{number}", (outputs,), last.size)
        weight = rng.integers(-reach, reach, (outputs, last.size))
        nodes.append(
            Dense(made.name, (last.name,), made, weight, weights, rng.integers(-99, 99, outputs), biases)
        )
        last = made
    return FixedGraph((x,), tuple(nodes), (last.name,))


if __name__ == "__main__":
    main()
