"""Draws ``docs/pruning.svg`` from the cases that `pruning_lenet300.py` and `pruning_lenet5.py` have finished."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
from figures import rows

matplotlib.use("svg")
import matplotlib.pyplot as plt

PLOT = Path(__file__).parents[1] / "docs" / "pruning.svg"
STYLES = {
    "magnitude": ("#000000", "o", ":"),
    "taylor": ("#CC79A7", "v", "--"),
    "lobster": ("#0072B2", "s", "-"),
    "neuron-lobster": ("#009E73", "^", "--"),
    "sensitivity": ("#E69F00", "P", "-"),
    "serene": ("#D55E00", "D", "-."),
}


def main() -> None:
    matplotlib.rcParams["svg.hashsalt"] = "pruning"
    figure, axes = plt.subplots(1, 3, figsize=(11.4, 3.6), layout="constrained")
    lenet300(axes[0])
    lenet5(axes[1], "mnist", "LeNet-5, MNIST: neurons")
    lenet5(axes[2], "fashion-mnist", "LeNet-5, Fashion-MNIST: neurons")
    figure.savefig(PLOT, metadata={"Date": None})


def lenet300(axis: Any) -> None:
    """Parameters that are left over the epochs, single weights."""
    for case, (color, marker, stroke) in STYLES.items():
        for row in (row for row in rows("pruning_lenet300") if row["case"].split(",")[0] == case):
            xs = [entry["epoch"] for entry in row["history"]]
            ys = [entry["weights"] / 1000 for entry in row["history"]]
            label = case if row["seed"] == 0 else None
            axis.plot(xs, ys, color=color, marker=marker, linestyle=stroke, markersize=3, label=label)
    axis.set(
        title="LeNet-300, MNIST: single weights", xlabel="epoch", ylabel="thousand weights left", yscale="log"
    )
    axis.legend(frameon=False, fontsize=8)


def lenet5(axis: Any, data: str, title: str) -> None:
    """Test error of the results over the neurons that are left, beside the dense network's."""
    found = [row for row in rows("pruning_lenet5") if row["data"] == data]
    for case, (color, marker, _) in STYLES.items():
        mine = [row for row in found if row["case"] == case]
        xs = [sum(row["after"]["neurons"]) - 10 for row in mine]
        ys = [row["after"]["test"] for row in mine]
        if mine:
            axis.plot(xs, ys, color=color, marker=marker, linestyle="none", label=case)
    for row in found:
        axis.axhline(row["before"]["test"], color="gray", linewidth=0.6)
    axis.set(title=title, xlabel="neurons left, of 570", ylabel="test error, % (gray: dense)")
    axis.legend(frameon=False, fontsize=8)


if __name__ == "__main__":
    main()
