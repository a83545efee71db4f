"""What bit widths cost in accuracy, and what they save on a board: uniform ones, and those of a search.

    python benchmarks/quantize_bits.py [demo lenet5 resnet8]

Three trained networks, none of them pruned: the digits demo, LeNet-5 on MNIST, the residual net of `pruning_nets.py`
on CIFAR-10. Weights and activations of equal widths are calibrated (``mse``, with bias correction), and fine-tuned
where that is cheap; then `flow.search_bits` looks for widths of single layers on validation samples. Every point is
exported and proven equal to torch on the test samples that its accuracy is of. The cost is the estimate for a
PYNQ-Z2, folded for the same pace at every width, so that LUTs compare. Finished points are kept in
``results/quantize_bits.jsonl``; a later run goes on after them.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from figures import add_row, record, rows, table
from pruning_nets import data_for, dense
from torch import nn

import flow
from flow import boards, network, training
from flow.demo import digits_cnn
from flow.estimate.budget import network_cost
from flow.estimate.network import Bits
from flow.types import Data

NAME = "quantize_bits"
PLOT = Path(__file__).parents[1] / "docs" / f"{NAME}.svg"
WIDTHS = (2, 3, 4, 6, 8)
DROPS = (0.003, 0.01, 0.03)
CALIBRATION: dict[str, Any] = {"calibration": "mse", "bias_correction": True}


@dataclass(frozen=True)
class Case:
    """One network: ``epochs`` of fine-tuning at a ``rate`` for widths up to ``tuned``; the samples of each split."""

    title: str
    data: str
    pace_cycles: int
    epochs: int
    rate: float
    tuned: int
    train: int
    validation: int
    test: int
    candidates: tuple[int, ...] = WIDTHS


CASES = {
    "demo": Case("demo CNN, digits", "digits", 10_000, 20, 1e-3, 8, 1149, 288, 360),
    "lenet5": Case("LeNet-5, MNIST", "mnist", 100_000, 2, 1e-4, 4, 6000, 2000, 2000),
    "resnet8": Case("residual net, CIFAR-10", "cifar10", 300_000, 0, 1e-4, 0, 2000, 500, 1000, (4, 6, 8)),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("nets", nargs="*", default=list(CASES))
    torch.set_num_threads(1)
    for net in parser.parse_args().nets:
        measure(net, CASES[net])
    report(rows(NAME))


def measure(net: str, case: Case) -> None:
    """Append what is missing of one network."""
    done = {key(row) for row in rows(NAME)}
    data = shortened(case)
    model = flow.simplify(trained(net, data), example(data)).model
    if (net, "float", 32, 0) not in done:
        accuracy = training.evaluate(model, data.test)[1]
        add_row(NAME, {"net": net, "kind": "float", "bits": 32, "epochs": 0, "accuracy": accuracy})
    for width in WIDTHS:
        for epochs in {0, case.epochs if width <= case.tuned else 0}:
            if (net, "uniform", width, epochs) not in done:
                uniform = {"bits": width, "layers": {}, "epochs": epochs}
                point(net, "uniform", case, model, data, uniform)
    if not any(row["net"] == net and row["kind"] == "searched" for row in rows(NAME)):
        search(net, case, model, data)


def key(row: Mapping[str, Any]) -> tuple[str, str, int, int]:
    return row["net"], row["kind"], row["bits"], row["epochs"]


def shortened(case: Case) -> Data:
    """Return the data with the first samples of each split."""
    data = flow.load_data("digits") if case.data == "digits" else data_for(case.data)
    parts = {
        name: tuple(array[: getattr(case, name)] for array in getattr(data, name))
        for name in ("train", "validation", "test")
    }
    return replace(data, **parts)


def trained(net: str, data: Data) -> nn.Module:
    """Return the dense network with its trained weights."""
    if net != "demo":
        return dense(net, data, 0)
    training.seed_everything(0)
    return flow.train(digits_cnn(), data).model


def example(data: Data) -> torch.Tensor:
    return torch.from_numpy(data.train[0][:2])


def point(net: str, kind: str, case: Case, model: nn.Module, data: Data, chosen: Mapping[str, Any]) -> None:
    """Quantize at the chosen widths, prove, and append the figures."""
    started = time.perf_counter()
    width, layers = chosen["bits"], chosen["layers"]
    with tempfile.TemporaryDirectory() as folder:
        made = flow.quantize(
            model,
            example(data),
            out=Path(folder),
            data=data,
            weight_bits=width,
            activation_bits=width,
            layers=layers,
            epochs=chosen["epochs"],
            learning_rate=case.rate,
            **CALIBRATION,
        )
    widths = {name: (made.weight_bits.get(name, width), bits) for name, bits in made.activation_bits.items()}
    figures = cost(model, data, case, Bits(width, width, 8, widths))
    seconds = round(time.perf_counter() - started, 1)
    row = {"net": net, "kind": kind, **chosen, "accuracy": made.accuracy, "figures": figures}
    add_row(NAME, {**row, "widths": widths, "seconds": seconds})


def search(net: str, case: Case, model: nn.Module, data: Data) -> None:
    """Search once, then prove and test the cheapest widths within each drop on the validation samples."""
    started = time.perf_counter()
    pace = case.pace_cycles
    board = boards.load("pynq-z2")
    found = flow.search_bits(
        model,
        example(data),
        data=data,
        cost=lambda graph, bits: network_cost(graph, example(data), bits, board, pace_cycles=pace),
        max_accuracy_drop=max(DROPS),
        candidate_bits=case.candidates,
        samples=case.validation,
        **CALIBRATION,
    )
    print(f"{net}: {len(found.points)} points measured in {time.perf_counter() - started:.0f} s", flush=True)
    for drop in DROPS:
        held = [p for p in found.points if p.accuracy >= found.float_accuracy - drop]
        best = min(held, key=lambda p: p.cost["luts"])
        chosen = {"bits": max(case.candidates), "layers": best.layers, "epochs": 0, "drop": drop}
        validation = {"validation": best.accuracy, "points": len(found.points)}
        for epochs in sorted({0, case.epochs}):
            point(net, "searched", case, model, data, {**chosen, **validation, "epochs": epochs})


def cost(model: nn.Module, data: Data, case: Case, bits: Bits) -> dict[str, float]:
    """Return LUTs and the others on the PYNQ-Z2 at the case's pace."""
    graph = network.trace(model, example(data))
    board = boards.load("pynq-z2")
    figures = network_cost(graph, example(data), bits, board, pace_cycles=case.pace_cycles)
    return {name: round(value, 3) for name, value in figures.items()}


def report(known: list[dict[str, Any]]) -> None:
    """Write the table, the plot and the figures that the docs quote."""
    cells = []
    for net in [net for net in CASES if any(row["net"] == net for row in known)]:
        mine = [row for row in known if row["net"] == net]
        start = next(row["accuracy"] for row in mine if row["kind"] == "float")
        cells.append([f"{CASES[net].title}, float", f"{start:.2%}", "", "", ""])
        for row in sorted(
            (row for row in mine if row["kind"] != "float"), key=lambda row: row["figures"]["luts"]
        ):
            cells.append([label(row), *texts(row, start)])
        figures_of(net, mine, start)
    text = (
        "Accuracy on the test samples (digits 360, MNIST 2,000, CIFAR-10 1,000), and what a PYNQ-Z2 is estimated to "
        "pay at the same pace for every width (10,000, 100,000 and 300,000 cycles a sample). PTQ: mse calibration "
        "with bias correction; QAT: that, then fine-tuned."
    )
    table(NAME, text, ["widths", "accuracy", "points", "LUTs", "BRAM18"], cells)
    plot(known)


def label(row: Mapping[str, Any]) -> str:
    if row["kind"] == "searched":
        return f"searched, {100 * row['drop']:g} points, {'QAT' if row['epochs'] else 'PTQ'}"
    return f"{row['bits']} bits, {'QAT' if row['epochs'] else 'PTQ'}"


def texts(row: Mapping[str, Any], start: float) -> list[str]:
    figures = row["figures"]
    difference = 100 * (row["accuracy"] - start)
    return [
        f"{row['accuracy']:.2%}",
        f"{difference:+.2f}",
        f"{figures['luts']:,.0f}",
        f"{figures['bram18']:,.0f}",
    ]


def figures_of(net: str, mine: list[dict[str, Any]], start: float) -> None:
    """Record the narrowest uniform width within one point, and what the search saves against it."""
    for word, tuned in (("ptq", False), ("qat", True)):
        held = [
            row
            for row in mine
            if row["kind"] == "uniform" and bool(row["epochs"]) == tuned and row["accuracy"] >= start - 0.01
        ]
        if held:
            narrow = min(row["bits"] for row in held)
            record(f"{NAME}_{net}_{word}", narrow, "bits, least uniform width within 1 point of float")
    uniform = [row for row in mine if row["kind"] == "uniform" and not row["epochs"]]
    for row in (row for row in mine if row.get("drop") == 0.01 and not row["epochs"]):
        rivals = [one["figures"]["luts"] for one in uniform if one["accuracy"] >= row["accuracy"]]
        if rivals:
            saved = round(1 - row["figures"]["luts"] / min(rivals), 3)
            unit = "share of the LUTs of the cheapest uniform PTQ at least as accurate"
            record(f"{NAME}_{net}_saved", saved, unit)


def plot(known: list[dict[str, Any]]) -> None:
    """Draw accuracy over LUTs, a network a panel; shapes and strokes tell the kinds apart, not only colours."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    matplotlib.rcParams["svg.hashsalt"] = NAME
    nets = [net for net in CASES if any(row["net"] == net for row in known)]
    kinds = (
        ("uniform, calibrated only", "uniform", False, "#000000", "o", ":"),
        ("uniform, fine-tuned", "uniform", True, "#009E73", "^", "-"),
        ("searched a layer, calibrated only", "searched", False, "#0072B2", "D", "--"),
        ("searched a layer, fine-tuned", "searched", True, "#D55E00", "s", "-."),
    )
    figure, axes = plt.subplots(
        1, len(nets), figsize=(3.6 * len(nets), 3.6), layout="constrained", squeeze=False
    )
    for net, axis in zip(nets, axes[0], strict=True):
        mine = [row for row in known if row["net"] == net]
        for title, kind, tuned, color, marker, stroke in kinds:
            shown = [row for row in mine if row["kind"] == kind and bool(row["epochs"]) == tuned]
            shown.sort(key=lambda row: row["figures"]["luts"])
            xs = [row["figures"]["luts"] / 1000 for row in shown]
            ys = [100 * row["accuracy"] for row in shown]
            axis.plot(xs, ys, color=color, marker=marker, linestyle=stroke, markersize=5, label=title)
            for row, x, y in zip(shown, xs, ys, strict=True):
                if kind == "uniform" and not tuned:
                    axis.annotate(
                        str(row["bits"]), (x, y), xytext=(4, -11), textcoords="offset points", fontsize=8
                    )
        start = next(row["accuracy"] for row in mine if row["kind"] == "float")
        axis.axhline(100 * start, color="gray", linewidth=0.8)
        axis.set(title=CASES[net].title, xlabel="thousand LUTs, estimated")
    axes[0][0].set_ylabel("accuracy, %")
    handles, names = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=2, frameon=False)
    figure.savefig(PLOT, metadata={"Date": None})
    plt.close(figure)


if __name__ == "__main__":
    main()
