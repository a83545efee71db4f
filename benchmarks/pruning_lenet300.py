"""Single weights of LeNet-300 on MNIST under each regularizer: parameters left and test error after every step.

    python benchmarks/pruning_lenet300.py [--seeds 0 1 2] [--cache FOLDER]

Dense baselines: 30 epochs of SGD. From there each regularizer prunes with PWE and TWT, in a plain training loop that
`flow.Pruner` watches. What is quoted is the last step whose *validation* error is not above the dense one's by more than 0.1
points, so that the test set decides nothing.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch
from figures import add_row, rows
from pruning_nets import CACHE, batches, data_for, dense, loss_of, measure

import flow
from flow.types import Data

NAME = "pruning_lenet300"
CASES: dict[str, dict[str, Any]] = {
    "none": {},
    "lobster": {"regularizer": "lobster", "regularizer_lambda": 1e-4},
    "sensitivity": {"regularizer": "sensitivity", "regularizer_lambda": 1e-4},
    "sensitivity-lower-bound": {"regularizer": "sensitivity-lower-bound", "regularizer_lambda": 1e-4},
    "serene-lower-bound": {"regularizer": "serene-lower-bound", "regularizer_lambda": 1e-4},
}
EPOCHS, PWE, TWT, RATE = 200, 5, 0.1, 0.1


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--cases", nargs="+", default=list(CASES))
    parser.add_argument("--cache", type=Path, default=CACHE)
    given = parser.parse_args()
    torch.set_num_threads(1)
    data = data_for("mnist")
    for seed in given.seeds:
        for case in given.cases:
            if not any((row["case"], row["seed"]) == (case, seed) for row in rows(NAME)):
                add_row(NAME, {"case": case, "seed": seed, **one(case, data, seed, given.cache)})


def one(case: str, data: Data, seed: int, cache: Path) -> dict[str, Any]:
    """Prune one network; returns its errors, the steps, and the seconds."""
    started = time.perf_counter()
    model = dense("lenet300", data, seed, cache)
    before = {
        "dense_test": measure(model, data.test)[1],
        "dense_validation": measure(model, data.validation)[1],
    }
    pruner = flow.Pruner(
        model,
        torch.zeros(2, 1, 28, 28),
        granularity="unstructured",
        pwe=PWE,
        twt=TWT,
        epochs=EPOCHS,
        seed=seed,
        **CASES[case],
    )
    optimizer = torch.optim.SGD(pruner.model.parameters(), lr=RATE)
    pruner.attach(optimizer)
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    steps: list[dict[str, float]] = []

    def validate() -> float:
        return measure(pruner.model, data.validation)[0]

    pruner.start(validate)
    for epoch in range(EPOCHS):
        pruner.model.train()
        for x, y in batches(data, generator):
            optimizer.zero_grad(set_to_none=True)
            loss_of(pruner.model, x, y).backward()
            optimizer.step()
        known = len(pruner.history)
        done = pruner.epoch_end(validate)
        left = pruner.units_left
        error, test = (measure(pruner.model, split)[1] for split in (data.validation, data.test))
        steps.append({"epoch": epoch + 1, "weights": left, "validation": error, "test": test})
        if len(pruner.history) > known or epoch % 10 == 9:
            print(f"{case} {seed} epoch {epoch + 1}: {left} weights, test error {test:.2f} %", flush=True)
        if done:
            break
    return {**before, "stopped": pruner.stopped, "steps": steps, "seconds": time.perf_counter() - started}


if __name__ == "__main__":
    main()
