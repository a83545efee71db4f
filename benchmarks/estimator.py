"""Fits the estimator's constants to real reports, and measures its error on layers that were held back.

    python benchmarks/estimator.py [--rule4ml PYTHON]

PYTHON: an interpreter that has rule4ml (0.2.0), for its predictions on the same rows; without it those are left out.
Reads the reports in ``../shared/vendor`` (or ``$FLOW_SHARED/vendor``); writes ``flow/estimate/constants.toml``.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from estimator_reports import (
    SHARED,
    other_constants,
    other_layers,
    placed_shares,
    product_layers,
    shell,
    whole_mlp,
)
from figures import machine, record, table

from flow.estimate import BLOCK_BITS, NAMES, Parts, Work, constant_digits, parts
from flow.estimate import constants as fresh_constants
from flow.types import Resources

ROOT = Path(__file__).parents[1]
CONSTANTS = ROOT / "flow/estimate/constants.toml"
DENSE = SHARED / "vendor/dense_layers_csynth/results_format_test.csv"
HELD_BACK = 0.3
SEED = 1
MEASURES = (*NAMES, "latency_cycles")
FLOORS = {"luts": 100, "flip_flops": 100, "dsps": 2, "blocks": 2, "latency_cycles": 10}
"""An error is relative to the true figure, but never to less than this: 0 DSP slices would divide by zero."""
_COLUMNS = dict(
    zip(MEASURES, ("LUT_hls", "FF_hls", "DSP_hls", "BRAM_18K_hls", "WorstLatency_hls"), strict=True)
)


@dataclass(frozen=True)
class Row:
    """One synthesized dense layer."""

    inputs: int
    outputs: int
    weight_bits: int
    reuse: int
    strategy: str
    parts: Parts = field(hash=False)
    true: dict[str, int] = field(hash=False)


def rows() -> tuple[list[Row], int]:
    """Return the rows that `flow.fit` could choose, and how many others have results.

    The layers' weights are not in the table: they are drawn as Keras draws them (Glorot, uniform) and cut to the
    row's bits. Inputs and sums have 16 bits.
    """
    found, others = [], 0
    with DENSE.open(encoding="utf-8") as file:
        for line in csv.DictReader(file):
            if line["hls_synth_success"] != "TRUE":
                continue
            inputs, outputs, bits, reuse = (int(line[key]) for key in ("d_in", "d_out", "prec", "rf"))
            if (line["strategy"] == "latency") != (reuse == 1):
                others += 1
                continue
            drawn = (
                np.random.default_rng(0).uniform(-1, 1, (inputs, outputs)) * (6 / (inputs + outputs)) ** 0.5
            )
            digits, wide = constant_digits(np.floor(drawn * 2 ** (bits - 1)).astype(np.int64), 16)
            work = Work("layer", "product", inputs, outputs, 16, 16, bits, digits=digits, wide=wide)
            true = {name: int(line[column]) for name, column in _COLUMNS.items()}
            made = parts(work, reuse, "io_parallel")
            found.append(Row(inputs, outputs, bits, reuse, line["strategy"], made, true))
    return found, others


def split(found: list[Row]) -> tuple[list[Row], list[Row]]:
    """Hold back whole shapes, so that no layer is on both sides; the few shapes with latency rows are drawn apart."""
    choose = random.Random(SEED)
    few = {(row.inputs, row.outputs) for row in found if row.strategy == "latency"}
    many = {(row.inputs, row.outputs) for row in found} - few
    held = {
        shape
        for group in (few, many)
        for shape in choose.sample(sorted(group), round(HELD_BACK * len(group)))
    }
    return (
        [row for row in found if (row.inputs, row.outputs) not in held],
        [row for row in found if (row.inputs, row.outputs) in held],
    )


def fitted(training: list[Row], resource: str, known: dict[str, float]) -> dict[str, float]:
    """Return the constants, none negative, with the least relative squares; both strategies count the same.

    ``known``: constants that other reports gave.
    """
    from scipy.optimize import nnls

    names = sorted({name for row in training for name in getattr(row.parts, resource)} - set(known))
    counts = np.array(
        [[*(getattr(row.parts, resource).get(name, 0) for name in names), 1] for row in training], dtype=float
    )
    given = [
        sum(known.get(name, 0) * count for name, count in getattr(row.parts, resource).items())
        for row in training
    ]
    true = np.array([row.true[resource] for row in training], dtype=float)
    sizes = {s: sum(row.strategy == s for row in training) for s in ("latency", "resource")}
    weight = np.array([sizes[row.strategy] ** -0.5 for row in training]) / true
    found, _ = nnls(counts * weight[:, None], (true - given) * weight)
    return known | {
        name: float(f"{value:.4g}") for name, value in zip([*names, "design"], found, strict=True)
    }


def predicted(made: Parts, constants: dict[str, dict[str, float]], designs: int = 0) -> dict[str, float]:
    """Return what the estimator says about a layer; ``designs`` 1: about a design of this layer alone."""

    def total(resource: str) -> float:
        known = constants[resource]
        return designs * known["design"] + sum(
            known[n] * count for n, count in getattr(made, resource).items()
        )

    return {
        "luts": total("luts"),
        "flip_flops": total("flip_flops"),
        "dsps": made.dsps,
        "blocks": made.blocks,
        "latency_cycles": made.tail_cycles,
    }


Pair = tuple[dict[str, float], dict[str, int]]
"""What was predicted, and what is true."""


def errors(pairs: Sequence[Pair]) -> dict[str, tuple[float, float]]:
    """Return (median, 90 % quantile) of the relative error, by measure."""
    found = {}
    for name in pairs[0][1]:
        relative = [abs(said[name] - true[name]) / max(true[name], FLOORS[name]) for said, true in pairs]
        found[name] = (float(np.median(relative)), float(np.quantile(relative, 0.9)))
    return found


def margins(pairs: Sequence[Pair]) -> dict[str, float]:
    """Return what 9 of 10 layers take above the prediction, as a share of it, by resource."""
    return {
        name: max(
            0.0,
            float(
                np.quantile(
                    [(true[name] - said[name]) / max(said[name], FLOORS[name]) for said, true in pairs], 0.9
                )
            ),
        )
        for name in NAMES
    }


def true_of(resources: Resources) -> dict[str, int]:
    """Return a report's resources by the names of `NAMES`."""
    blocks = (resources.bram_bits or 0) // BLOCK_BITS
    return dict(zip(NAMES, (resources.luts, resources.flip_flops, resources.dsps, blocks), strict=True))


def rule4ml(python: str, held: list[Row]) -> Callable[[Row], dict[str, float]]:
    """Return rule4ml's predictions for the held-back rows, from a process of its own."""
    asked = [(row.inputs, row.outputs, row.weight_bits, row.reuse, row.strategy) for row in held]
    done = subprocess.run(
        [python, str(Path(__file__).with_name("estimator_rule4ml.py"))],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""},
    )
    answers = dict(zip(map(tuple, asked), json.loads(done.stdout.splitlines()[-1]), strict=True))
    return lambda row: answers[row.inputs, row.outputs, row.weight_bits, row.reuse, row.strategy]


def write_constants(tables: dict[str, dict[str, float]]) -> None:
    """Write ``constants.toml``; the comments above its tables stay as they are."""
    text = CONSTANTS.read_text(encoding="utf-8")
    for name, values in tables.items():
        body = "".join(f"{key} = {value:.4g}\n" for key, value in values.items())
        text, count = re.subn(rf"(?m)^\[{name}\]\n(?:[a-z0-9_]+ = .*\n)*", f"[{name}]\n{body}", text)
        if count != 1:
            raise SystemExit(f"estimator: {CONSTANTS} must hold one table [{name}], not {count}")
    CONSTANTS.write_text(text, encoding="utf-8")


def main() -> None:
    """Fit, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rule4ml", metavar="PYTHON")
    options = parser.parse_args()
    found, others = rows()
    training, held = split(found)
    other = other_constants()
    constants = {name: fitted(training, name, other[name]) for name in ("luts", "flip_flops")}
    ours = {row: (predicted(row.parts, constants, 1), row.true) for row in held}
    whole = [
        (layer.reuse, (predicted(made, constants), true_of(true.resources)))
        for layer, made, true in product_layers()
    ]
    others_said = [(predicted(made, constants), true_of(true)) for made, true in other_layers()]
    bands = {"margin.other": margins(others_said)}
    for strategy in ("latency", "resource"):
        seen = [pair for row, pair in ours.items() if row.strategy == strategy]
        used = [pair for reuse, pair in whole if (reuse == 1) == (strategy == "latency")]
        # registers depend on tool and clock: the older tools pipeline deeper, and must not be outvoted by the many rows
        deep = max(margins(pairs)["flip_flops"] for pairs in (seen, used))
        bands[f"margin.{strategy}"] = {**margins(seen + used), "flip_flops": deep}
    write_constants({**constants, **bands, "placed": placed_shares(), "shell": shell()})
    shown = {
        "ours": errors(list(ours.values())),
        "latency": errors([pair for row, pair in ours.items() if row.reuse == 1]),
        "resource": errors([pair for row, pair in ours.items() if row.reuse > 1]),
        "other designs": errors([pair for _, pair in whole]),
    }
    if options.rule4ml:
        said = rule4ml(options.rule4ml, held)
        shown["rule4ml 0.2.0"] = errors([(said(row), row.true) for row in held])
        shown["rule4ml, latency"] = errors([(said(row), row.true) for row in held if row.reuse == 1])
        # the figures tell their command, not where this machine has it
        sys.argv[1:] = ["--rule4ml", "PYTHON"]
    fresh_constants.cache_clear()
    record("estimator_whole_mlp", whole_mlp(), "predicted, in C synthesis, on the board with margin, placed")
    write_results(shown, held, len(found), others, len(whole))


def write_results(
    shown: dict[str, dict[str, tuple[float, float]]], held: list[Row], count: int, others: int, layers: int
) -> None:
    """Write the errors: a figure a measure, and a table."""

    def percent(pair: tuple[float, float]) -> dict[str, float]:
        return {"median": round(100 * pair[0], 1), "percent90": round(100 * pair[1], 1)}

    for name in MEASURES:
        peer = {"rule4ml 0.2.0": percent(shown["rule4ml 0.2.0"][name])} if "rule4ml 0.2.0" in shown else None
        record(f"estimator_{name}", percent(shown["ours"][name]), "% relative error", peer=peer)
    cells = [
        [
            name,
            *(
                f"{100 * error:.1f}" if name in e else ""
                for e in shown.values()
                for error in e.get(name, (0, 0))
            ),
        ]
        for name in MEASURES
    ]
    shapes = {(row.inputs, row.outputs) for row in held}
    unfolded = sum(row.reuse == 1 for row in held)
    text = (
        f"Relative error in % (median, 90 % of the rows) on {len(held)} of {count} synthesized dense layers: those of "
        f"{len(shapes)} shapes that the constants have not seen; the same apart for latency ({unfolded} rows) and "
        f"resource strategy. {others} more rows have a strategy that the fit never chooses (latency with reuse, "
        f"resource without). Other designs: {layers} dense and conv layers of whole designs from Vivado HLS 2019.2 and "
        "2020.1, whose weights are drawn. An error is relative to the true figure, but to no less than "
        f"{', '.join(f'{value} {name}' for name, value in FLOORS.items())}. {machine()}."
    )
    heads = [f"{group}, {kind}" for group in shown for kind in ("median", "90 %")]
    table("estimator", text, ["", *heads], cells)


if __name__ == "__main__":
    main()
