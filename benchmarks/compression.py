"""Measures what pruning is worth in bytes: dense, unstructured, structured, each simplified, quantized, NNC-coded.

Repeats the comparison of Bragagnolo, Tartaglione, Fiandrotti and Grangetto, "On the role of structured pruning for
neural network compression" (ICIP 2021), with LeNet-5 on a part of Fashion-MNIST. Needs nncodec and matplotlib.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from figures import record
from torch import nn

import flow
from flow import network, training
from flow.types import Data

ROOT = Path(__file__).parents[1]
PLOT = ROOT / "docs" / "compression.svg"
KINDS = ("unstructured", "structured")
LEVELS = 6
KEEP_WEIGHTS, KEEP_CHANNELS = 0.5, 0.7
"""What a level keeps of the level before: half of the weights; 0.7 of the channels are 0.49 of the weights."""
PRUNE_EPOCHS, TUNE_EPOCHS, STEPS = 8, 6, 4
TOLERANCE = 0.01
"""Accuracy that a network may lose against the dense one and still count as equal."""
TOLERANCES = (0.005, 0.01, 0.015)
"""Others beside it: the answer depends on the choice."""


@dataclass(frozen=True)
class Point:
    """One network: its float parameters that are not zero, the file's bytes, accuracy after quantization."""

    kind: str
    seed: int
    level: int
    parameters: int
    bytes: int
    bytes_at_widths: int
    accuracy: float


def lenet5() -> nn.Module:
    """Return LeNet-5 with ReLU and max pools: 61,706 parameters."""
    return nn.Sequential(
        *(nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
        *(nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)),
    )


def fashion(seed: int) -> Data:
    """Return 8,000 training, 2,000 validation and 5,000 test samples of Fashion-MNIST."""
    shared = Path(os.environ.get("FLOW_SHARED", ROOT.parent / "shared"))
    os.environ.setdefault("FLOW_DATA", str(shared / "data"))
    data = flow.load_data("fashion-mnist", seed=seed)
    splits = ((data.train, 8_000), (data.validation, 2_000), (data.test, 5_000))
    return Data(data.name, *(part(split, count, seed) for split, count in splits))


def part(split: tuple[np.ndarray, np.ndarray], count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return ``count`` samples of a split, at random."""
    chosen = np.random.default_rng(seed).permutation(len(split[1]))[:count]
    return split[0][chosen], split[1][chosen]


def measure(kind: str, seed: int, level: int, model: nn.Module, data: Data) -> Point:
    """Simplify, quantize without fine-tuning (which would fill the zeros again), and code a network."""
    example = torch.from_numpy(data.train[0][:2])
    small = flow.simplify(model, example).model
    with tempfile.TemporaryDirectory() as folder:
        quantized = flow.quantize(
            small, example, out=Path(folder), data=data, weight_bits=8, activation_bits=8, epochs=0
        )
        coded = flow.compress(quantized, out=Path(folder))
    if coded.bytes is None:
        raise SystemExit(f"compression: nncodec must be installed, not missing; {coded.reason}")
    left = sum(int(tensor.count_nonzero()) for tensor in small.parameters())
    made = Point(kind, seed, level, left, coded.bytes, coded.bytes_at_widths, quantized.accuracy)
    print(made, flush=True)
    return made


def structured(model: nn.Module, data: Data, seed: int) -> nn.Module:
    """Remove channels: the flow's own stages, then fine-tuning of the smaller network."""
    example = torch.from_numpy(data.train[0][:2])
    pruned = flow.prune(
        model,
        example,
        data=data,
        pruning_ratio=1 - KEEP_CHANNELS,
        schedule="linear",
        pwe=1,
        epochs=PRUNE_EPOCHS,
        seed=seed,
    )
    small = flow.simplify(pruned.model, example).model
    return flow.train(small, data, epochs=TUNE_EPOCHS, learning_rate=1e-3, seed=seed).model  # type: ignore[no-any-return]


def unstructured(model: nn.Module, data: Data, seed: int) -> nn.Module:
    """Zero the weights of least magnitude over all layers, in steps, with training after each; as many epochs."""
    graph = network.trace(model, torch.from_numpy(data.train[0][:2]))
    weights = [module.weight for _, module in network.weighted(graph)]
    alive = sum(int(weight.count_nonzero()) for weight in weights)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(graph.parameters(), lr=1e-3, weight_decay=1e-4)
    masks: list[torch.Tensor] = []

    def mask() -> None:
        with torch.no_grad():
            for weight, kept in zip(weights, masks, strict=True):
                weight.mul_(kept)

    def epoch() -> None:
        training.train_epoch(
            graph, data.train, optimizer, batch_size=64, generator=generator, after_step=mask
        )

    for step in range(1, STEPS + 1):
        count = round(alive * KEEP_WEIGHTS ** (step / STEPS))
        sizes = torch.cat([weight.detach().abs().flatten() for weight in weights])
        threshold = sizes.sort(descending=True).values[count - 1]
        masks[:] = [(weight.detach().abs() >= threshold).float() for weight in weights]
        mask()
        for _ in range(PRUNE_EPOCHS // STEPS):
            epoch()
    best, state = training.evaluate(graph, data.validation)[0], training.snapshot(graph)
    for index in range(TUNE_EPOCHS):
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * (0.01 + 0.99 * (1 + np.cos(np.pi * index / TUNE_EPOCHS)) / 2)
        epoch()
        loss = training.evaluate(graph, data.validation)[0]
        if loss < best:
            best, state = loss, training.snapshot(graph)
    graph.load_state_dict(state)
    return graph.eval()


def main(seeds: list[int]) -> None:
    """Measure every seed, write the figures and the plot."""
    torch.set_num_threads(1)
    start = time.perf_counter()
    points: list[Point] = []
    for seed in seeds:
        data = fashion(seed)
        torch.manual_seed(seed)
        dense = flow.train(lenet5(), data, epochs=20, seed=seed).model
        points.append(measure("dense", seed, 0, dense, data))
        for kind, prune in zip(KINDS, (unstructured, structured), strict=True):
            model = dense
            for level in range(1, LEVELS + 1):
                model = prune(model, data, seed)
                points.append(measure(kind, seed, level, model, data))
    report(points, seeds)
    plot(points)
    print(f"{time.perf_counter() - start:.0f} s")


def report(points: list[Point], seeds: list[int]) -> None:
    """Write all points, and what each kind of pruning needs some way below the dense network's accuracy."""
    record("compression_points", [vars(point) for point in points], "bytes and accuracy, a network each")
    dense = [point for point in points if point.kind == "dense"]
    record(
        "compression_accuracy", [point.accuracy for point in dense], "share, dense and quantized, a seed each"
    )
    curves = {
        kind: [[p for p in points if p.seed == seed and p.kind in (kind, "dense")] for seed in seeds]
        for kind in KINDS
    }
    for attribute, goal in (("bytes", "ICIP 2021: above 1"), ("parameters", "ICIP 2021: below 1")):
        found = {"dense": [getattr(point, attribute) for point in dense]}
        for kind in KINDS:
            found[kind] = [round(crossing(curve, attribute, TOLERANCE)) for curve in curves[kind]]
        what = "bytes of weights.nnc" if attribute == "bytes" else "parameters that are not zero"
        record(f"compression_{attribute}", found, f"{what}, a seed each, 1 point below dense, interpolated")
        ratios = {
            f"{100 * tolerance:g} points": ratio(curves, attribute, tolerance) for tolerance in TOLERANCES
        }
        record(f"compression_{attribute}_ratio", ratios, "unstructured / structured, a seed each", goal=goal)
    measured = {
        kind: [min(p.bytes for p in curve if p.accuracy >= limit(curve, TOLERANCE)) for curve in curves[kind]]
        for kind in KINDS
    }
    record("compression_bytes_measured", measured, "bytes, smallest measured network within 1 point of dense")


def ratio(curves: dict[str, list[list[Point]]], attribute: str, tolerance: float) -> list[float]:
    """Return unstructured / structured for every seed."""
    pairs = zip(*(curves[kind] for kind in KINDS), strict=True)
    return [
        round(crossing(one, attribute, tolerance) / crossing(other, attribute, tolerance), 2)
        for one, other in pairs
    ]


def limit(curve: list[Point], tolerance: float) -> float:
    """Return the accuracy that is ``tolerance`` below the dense network's, which comes first."""
    return curve[0].accuracy - tolerance


def crossing(curve: list[Point], attribute: str, tolerance: float) -> float:
    """Return where a curve from dense to small falls below the limit for good; geometric between two networks."""
    least = limit(curve, tolerance)
    above = max(index for index, point in enumerate(curve) if point.accuracy >= least)
    if above == len(curve) - 1:
        raise SystemExit(f"compression: {curve[-1]} must be below {least}, not above; raise LEVELS")
    one, other = curve[above], curve[above + 1]
    share = (one.accuracy - least) / (one.accuracy - other.accuracy)
    sizes = float(getattr(one, attribute)), float(getattr(other, attribute))
    return sizes[0] ** (1 - share) * sizes[1] ** share


def plot(points: list[Point]) -> None:
    """Draw accuracy over bytes: every network a dot, lines through the medians."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "compression"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    for kind, colour, sign in (("unstructured", "#b5561c", "o"), ("structured", "#1f5f8b", "s")):
        levels = [
            [p for p in points if p.kind in (kind, "dense") and p.level == level]
            for level in range(LEVELS + 1)
        ]
        every = [point for level in levels for point in level]
        axes.plot([p.bytes for p in every], [100 * p.accuracy for p in every], sign, color=colour, alpha=0.35)
        middle = [
            (statistics.median(p.bytes for p in level), statistics.median(p.accuracy for p in level))
            for level in levels
        ]
        axes.plot([b for b, _ in middle], [100 * a for _, a in middle], color=colour, label=kind)
    dense = statistics.median(p.accuracy for p in points if p.kind == "dense")
    axes.axhline(100 * (dense - TOLERANCE), color="#888", linestyle=":", label="dense − 1 point")
    axes.set(xscale="log", xlabel="bytes of weights.nnc", ylabel="accuracy after quantization, %")
    axes.set_ylim(bottom=100 * (dense - 0.06))
    axes.legend(loc="lower right")
    axes.grid(alpha=0.2)
    figure.savefig(PLOT, metadata={"Date": None})


if __name__ == "__main__":
    main([int(seed) for seed in sys.argv[1:]] or [0, 1, 2])
