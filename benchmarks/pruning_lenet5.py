"""Neurons of LeNet-5 on MNIST and Fashion-MNIST: what each regularizer leaves at the dense network's error.

    python benchmarks/pruning_lenet5.py [--seeds 0 1 2] [--data mnist fashion-mnist] [--cache FOLDER]
    python benchmarks/pruning_lenet5.py --table

Dense baselines: 15 epochs of SGD. From there an epoch is a third of the training set. In rounds: train with the
regularizer until the plateau or for 2 epochs, go back to the best weights, zero channel groups under TWT; the next
round trains the smaller network. The rounds end when training does not bring the *validation* error back to within 1.5
points of the dense network's. Then networks of the rounds, the smallest first and on by bisection, are trained for 10
more epochs at a falling rate without a regularizer: the smallest that is within 0.2 points is the result. The test set
decides nothing.

``magnitude`` and ``taylor`` have no regularizer; groups are scored by the criterion magnitude in the first, by taylor
in all others.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import math
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from figures import add_row, record, rows, table
from pruning_nets import CACHE, batches, data_for, dense, loss_of, measure, size
from torch import nn

import flow
from flow.types import Data

NAME = "pruning_lenet5"
CASES: dict[str, dict[str, Any]] = {
    "magnitude": {"criterion": "magnitude"},
    "taylor": {},
    "lobster": {"regularizer": "lobster"},
    "neuron-lobster": {"regularizer": "neuron-lobster"},
    "serene": {"regularizer": "serene-lower-bound"},
}
STRENGTH, EPOCHS, PWE, PATIENCE, TWT, BATCHES = 1e-4, 48, 2, 2, 0.8, 180
RATE, LAST, MARGIN, ROUGHLY, SCORED = 0.1, 10, 0.2, 1.5, 2000
EXAMPLE = torch.zeros(2, 1, 28, 28)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--data", nargs="+", default=["mnist", "fashion-mnist"])
    parser.add_argument("--cases", nargs="+", default=list(CASES))
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--table", action="store_true", help="only write the table of the finished cases")
    given = parser.parse_args()
    torch.set_num_threads(1)
    for name in [] if given.table else given.data:
        data = data_for(name)
        for seed in given.seeds:
            for case in given.cases:
                key = {"data": name, "case": case, "seed": seed}
                if not any(key.items() <= row.items() for row in rows(NAME)):
                    add_row(NAME, {**key, **one(case, data, seed, given.cache)})
    summary()


def one(case: str, data: Data, seed: int, cache: Path) -> dict[str, Any]:
    """Prune one network; returns sizes and errors before and after, every round, and the seconds."""
    started = time.perf_counter()
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    net: nn.Module = dense("lenet5", data, seed, cache)
    before = size(net, data)
    made: list[nn.Module] = [net]
    epochs, rounds = 0, []
    while epochs < EPOCHS:
        found, smaller, used = round_of(case, net, data, seed, generator, EPOCHS - epochs)
        epochs += used
        rounds.append({"epochs": epochs, **size(found, data, test=False)})
        print(f"{data.name} {case} {seed}: {rounds[-1]}", flush=True)
        if rounds[-1]["validation"] > before["validation"] + ROUGHLY:
            break
        made.append(found)
        if smaller is None:
            break
        net = smaller
    low, high, best = -1, len(made) - 1, net
    while low < high:  # the first try is the smallest network
        middle = high if low < 0 else (low + high + 1) // 2
        found = tuned(made[middle], data, generator)
        holds = measure(found, data.validation)[1] <= before["validation"] + MARGIN
        print(f"{data.name} {case} {seed}: round {middle} tuned: {size(found, data)}, {holds}", flush=True)
        low, high, best = (middle, high, found) if holds else (max(low, 0), middle - 1, best)
    after = size(best, data)
    seconds = round(time.perf_counter() - started)
    return {"before": before, "after": after, "rounds": rounds, "epochs": epochs, "seconds": seconds}


def round_of(
    case: str, net: nn.Module, data: Data, seed: int, generator: torch.Generator, epochs: int
) -> tuple[nn.Module, nn.Module | None, int]:
    """Train until the plateau and prune once; returns the network before, the smaller one or None, and the epochs."""
    options = {"criterion": "taylor", "regularizer_lambda": STRENGTH, **CASES[case]}
    samples = tuple(part[:SCORED] for part in data.train)
    pruner = flow.Pruner(net, EXAMPLE, samples=samples, pwe=PWE, twt=TWT, epochs=epochs, seed=seed, **options)
    optimizer = torch.optim.SGD(pruner.model.parameters(), lr=RATE)
    pruner.attach(optimizer)

    def validate() -> float:
        return measure(pruner.model, data.validation, exact=False)[0]

    pruner.start(validate)
    best, least = copy.deepcopy(pruner.model), math.inf
    for epoch in range(1, epochs + 1):
        train(pruner.model, optimizer, data, generator)
        losses = [validate()]
        if losses[0] < least:
            least, best = losses[0], copy.deepcopy(pruner.model)
        steps = len(pruner.history)
        if (
            pruner.epoch_end(lambda known=losses: known.pop() if known else validate())
            or len(pruner.history) > steps
        ):
            break
        if epoch >= PATIENCE:
            pruner.step(validate)
            break
    pruned = pruner.result()
    shrunk = pruned.channels_after < pruned.channels_before
    return best, pruner.smaller() if shrunk else None, epoch


def tuned(net: nn.Module, data: Data, generator: torch.Generator) -> nn.Module:
    """Return the network after some epochs at a rate that falls along half a cosine: the best by validation loss."""
    model, best, least = copy.deepcopy(net), net, measure(net, data.validation, exact=False)[0]
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    for epoch in range(LAST):
        optimizer.param_groups[0]["lr"] = RATE * 0.5 * (1 + math.cos(math.pi * (epoch + 0.5) / LAST))
        train(model, optimizer, data, generator)
        loss = measure(model, data.validation, exact=False)[0]
        if loss < least:
            least, best = loss, copy.deepcopy(model)
    return best


def train(model: nn.Module, optimizer: torch.optim.Optimizer, data: Data, generator: torch.Generator) -> None:
    model.train()
    for x, y in itertools.islice(batches(data, generator), BATCHES):
        optimizer.zero_grad(set_to_none=True)
        loss_of(model, x, y).backward()
        optimizer.step()


def summary() -> None:
    """Write the table and the figures of the finished cases."""
    cells = []
    for data in ("mnist", "fashion-mnist"):
        done = [row for row in rows(NAME) if row["data"] == data]
        dense_rows = list({row["seed"]: row["before"] for row in done}.values())
        for case, found in (
            ("none", dense_rows),
            *((c, [r["after"] for r in done if r["case"] == c]) for c in CASES),
        ):
            if found:
                cells.append([f"{data}, {case}", *columns(found), str(len(found))])
    text = (
        "LeNet-5 after structured pruning, mean and standard deviation over seeds: neurons left in conv1, conv2, fc1 "
        "(of 20, 50, 500), neurons that are gone, parameters, MACs of one sample, test error. `none` is dense."
    )
    table(NAME, text, ["", "neurons left", "gone %", "parameters", "MACs", "test error %", "seeds"], cells)
    for case in CASES:
        after = [r["after"] for r in rows(NAME) if (r["data"], r["case"]) == ("mnist", case)]
        if after:
            gone = statistics.mean(100 * (1 - sum(a["neurons"]) / 580) for a in after)
            record(f"{NAME}_{case}_mnist_gone", round(gone, 1), "% of the neurons", goal=">= 80")


def columns(found: list[dict[str, Any]]) -> list[str]:
    def spread(values: list[float], form: str) -> str:
        deviation = f" ± {statistics.stdev(values):{form}}" if len(values) > 1 else ""
        return f"{statistics.mean(values):{form}}{deviation}"

    layers = " - ".join(f"{statistics.mean(a['neurons'][i] for a in found):.1f}" for i in range(3))
    gone = [100 * (1 - sum(a["neurons"]) / 580) for a in found]
    return [
        layers,
        spread(gone, ".1f"),
        spread([a["parameters"] for a in found], ",.0f"),
        spread([a["macs"] for a in found], ",.0f"),
        spread([a["test"] for a in found], ".2f"),
    ]


if __name__ == "__main__":
    main()
