"""Proves simplify on every architecture: full definitions, 1000 classes, two shares, three seeds, with and without
BatchNorm.

    python benchmarks/simplify_architectures.py [NAME ...]

Images are small, since they are what time goes into; channels, layers and classifiers are the full ones. Every
finished case is a line of ``results/simplify_architectures.jsonl``, and a killed run goes on after the last; a
case that failed is tried again. Some 8 GB of memory at most, for VGG in float64.
"""

from __future__ import annotations

import sys
import time
from itertools import product
from pathlib import Path
from typing import Any

import torch
from figures import add_row, machine, record, rows, table

import flow

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import architectures
import networks

NAME = "simplify_architectures"
RATIOS, SEEDS = (0.5, 0.8), 3
MOST = 12
"""Seeds to try for `SEEDS` networks whose output depends on their input: random pruning may cut every path."""
CONSTANT = 1e-6
"""Variation of the output below which pruning has cut every path; rounding leaves some 1e-15."""
KEY = ("name", "batchnorm", "ratio", "seed")


def measure(name: str, batchnorm: bool, ratio: float, seed: int) -> dict[str, Any]:
    """Return the row of one case; what it holds under ``broken`` is the list of promises that do not hold."""
    row: dict[str, Any] = dict(zip(KEY, (name, batchnorm, ratio, seed), strict=True))
    first, second = architectures.sizes(name)
    model = architectures.pruned(name, batchnorm, ratio, seed, classes=1000)
    row["variation"] = architectures.variation(model, first)
    before = networks.state(model)
    start = time.process_time()
    try:
        result = flow.simplify(model, torch.zeros(1, 3, *first), samples=2)
    except Exception as error:
        return row | {"broken": [f"{type(error).__name__}: {error}"]}
    row["cpu_seconds"] = round(time.process_time() - start, 2)
    broken = []
    try:
        networks.assert_untouched(model, before)
    except AssertionError:
        broken.append("the caller's network changed")
    row["difference"] = [architectures.difference(model, result.model, size) for size in (first, second)]
    row["parameters"] = [architectures.parameters(net) for net in (model, result.model)]
    row["macs"] = [sum(cost.macs for cost in costs) for costs in (result.before, result.after)]
    del model, before
    if max(row["difference"]) >= 1e-9:
        broken.append("outputs differ")
    if row["parameters"][1] >= row["parameters"][0] or row["macs"][1] >= row["macs"][0]:
        broken.append("nothing shrinks")
    if architectures.foreign(result.model):
        broken.append(f"modules that are not torch's: {architectures.foreign(result.model)[:3]}")
    again = flow.simplify(result.model, torch.zeros(1, 3, *first), samples=2)
    if not architectures.same(again.model, result.model):
        broken.append("a second time changes it")
    return row | {"broken": broken}


def latest() -> dict[tuple[Any, ...], dict[str, Any]]:
    """Return the last row of every case."""
    return {tuple(row[key] for key in KEY): row for row in rows(NAME)}


def report() -> None:
    """Write the table, an architecture a row, and the number of cases that keep every promise."""
    found = latest()
    columns = ["architecture", "cases equal", "largest difference", "with a constant output"]
    columns += [f"{what} left at {ratio:.0%}" for ratio in RATIOS for what in ("parameters", "MACs")]
    cells = []
    for name, batchnorm in architectures.CASES:
        mine = [row for key, row in found.items() if key[:2] == (name, batchnorm)]
        if not mine:
            continue
        whole = [row for row in mine if not row["broken"]]
        cells.append(
            [
                f"{name}, {'with' if batchnorm else 'without'} BatchNorm",
                f"{len(whole)} of {len(mine)}",
                f"{max((max(row['difference']) for row in whole), default=float('nan')):.1e}",
                str(sum(row["variation"] <= CONSTANT for row in mine)),
                *(left(whole, ratio, what) for ratio in RATIOS for what in ("parameters", "macs")),
            ]
        )
    text = (
        "# Simplified architectures\n\nFull torchvision definitions, 1000 classes, random weights; that share of the "
        "output channels of every conv is zeroed at random,\nbiases stay; seeds 0, 1, 2. Equal: over full outputs in "
        "float64 at two image sizes to 1e-9 (relative), smaller, standard modules only,\nthe caller's network "
        "untouched, and a second time changes nothing. With a constant output: pruning cut every path from input to "
        "output (such a case gets one more seed).\n"
        f"Mean over the seeds of what is left. torch {torch.__version__}, {machine()}."
    )
    broken = [f"- {key}: {'; '.join(row['broken'])}" for key, row in found.items() if row["broken"]]
    table(NAME, "\n\n".join([text, *(["\n".join(broken)] if broken else [])]), columns, cells)
    record(
        "simplify_cases",
        sum(not row["broken"] for row in found.values()),
        f"cases equal, of {len(found)}",
        goal=f"all, at least {len(architectures.CASES) * len(RATIOS) * SEEDS}",
    )


def left(found: list[dict[str, Any]], ratio: float, what: str) -> str:
    """Return the mean share that is left."""
    shares = [row[what][1] / row[what][0] for row in found if row["ratio"] == ratio]
    return f"{sum(shares) / len(shares):.1%}" if shares else "-"


def main(names: list[str]) -> None:
    """Run the cases that have not passed yet."""
    torch.set_num_threads(1)
    for (name, batchnorm), ratio in product(architectures.CASES, RATIOS):
        if names and name not in names:
            continue
        alive = 0
        for seed in range(MOST):
            row = latest().get((name, batchnorm, ratio, seed))
            if row is None or row["broken"]:
                row = measure(name, batchnorm, ratio, seed)
                add_row(NAME, row)
                print(*(row[key] for key in KEY), row["broken"] or "ok", row.get("cpu_seconds"), flush=True)
            alive += row["variation"] > CONSTANT
            if alive == SEEDS:
                break
    report()


if __name__ == "__main__":
    main(sys.argv[1:])
