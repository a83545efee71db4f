"""The sensitivity scan: how much accuracy each layer costs when channels of it alone go."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from flow import network, training
from flow.errors import ConfigError, UnsupportedError
from flow.network.channels import analyse
from flow.prune.drawing import Curve, draw
from flow.prune.options import check_names
from flow.prune.units import ChannelUnits
from flow.training import Split
from flow.types import Data, Progress, silent

if TYPE_CHECKING:
    import torch
    from rich.table import Table
    from torch import nn

RATIOS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


@dataclass(frozen=True)
class ScanRow:
    """The network with the least channels of one class of layers zeroed.

    Attributes:
        layers: the layers whose channels must go together.
        ratio: the share that was asked for.
        channels_before, channels: of the class, before and left; those that go together count as one.
        accuracy, loss: over the validation samples.
        macs: of one sample, in a network of the size that is left.
    """

    layers: tuple[str, ...]
    ratio: float
    channels_before: int
    channels: int
    accuracy: float
    loss: float
    macs: float


@dataclass(frozen=True)
class Scan:
    """What `flow.scan` measured: ``rows`` by class, then ratio; the rest is of the network as it came."""

    rows: tuple[ScanRow, ...]
    accuracy: float
    loss: float
    macs: float
    criterion: str
    samples: int

    def classes(self) -> dict[tuple[str, ...], tuple[ScanRow, ...]]:
        """Return the rows of each class of layers, in the network's order."""
        found: dict[tuple[str, ...], tuple[ScanRow, ...]] = {}
        for row in self.rows:
            found[row.layers] = (*found.get(row.layers, ()), row)
        return found

    def suggested(self, max_accuracy_drop: float) -> dict[str, float]:
        """Return the most that may go of each layer, ready for ``pruning_ratio_dict`` of `flow.prune`.

        ratio = max r such that accuracy(r') >= accuracy - max_accuracy_drop for every scanned r' <= r; 0 where none is

        Each layer was alone when it was measured: the drops of several add up, and training wins some of it back.

        Args:
            max_accuracy_drop: in [0, 1); 0.01 is one point.

        Returns:
            A ratio for every scanned layer; one that is in several classes gets the least of theirs.

        Raises:
            ConfigError: the drop is out of range.
        """
        check_drop(max_accuracy_drop)
        found: dict[str, float] = {}
        for layers, rows in self.classes().items():
            ratio = 0.0
            for row in rows:
                if row.accuracy < self.accuracy - max_accuracy_drop - 1e-12:
                    break
                ratio = row.ratio
            for layer in layers:
                found[layer] = min(found.get(layer, 1.0), ratio)
        return found

    def plot(self, path: str | Path) -> Path:
        """Draw accuracy over ratio, a line a class, the network as it came as a dashed line.

        Args:
            path: an ``.svg`` or ``.png`` file; it appears whole or not at all.

        Raises:
            ConfigError: the file has another suffix.
        """
        return draw(
            self.curves(),
            Path(path),
            whole=self.accuracy,
            samples=self.samples,
            criterion=self.criterion,
        )

    def curves(self) -> list[Curve]:
        """Return accuracy over ratio, a curve a class."""
        return [
            Curve(
                f"{title(layers)} ({rows[0].channels_before})",
                tuple(row.ratio for row in rows),
                tuple(row.accuracy for row in rows),
            )
            for layers, rows in self.classes().items()
        ]

    def table(self) -> Table:
        """Return accuracies in percent for ``rich.print`` and notebooks: a row a class, a column a ratio."""
        from rich.table import Table

        made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
        made.add_column("layers", overflow="fold")
        made.add_column("width", justify="right", no_wrap=True)
        ratios = dict.fromkeys(row.ratio for row in self.rows)
        for ratio in ratios:
            made.add_column(f"{ratio:.3g}", justify="right", no_wrap=True)
        made.add_row("all channels", "", *[f"{100 * self.accuracy:.1f}"] * len(ratios), style="dim")
        for layers, rows in self.classes().items():
            cells = (f"{100 * row.accuracy:.1f}" for row in rows)
            made.add_row(title(layers), str(rows[0].channels_before), *cells)
        return made


def title(layers: Sequence[str]) -> str:
    """Return a short name of layers that go together."""
    return " + ".join(layers) if len(layers) <= 2 else f"{layers[0]} + {len(layers) - 1} more"


def scan(
    model: nn.Module,
    example: torch.Tensor,
    *,
    data: Data,
    ratios: Sequence[float] = RATIOS,
    criterion: str | None = None,
    samples: Split | None = None,
    ignored_layers: tuple[str, ...] = (),
    batch_size: int = 512,
    seed: int = 0,
    progress: Progress = silent,
) -> Scan:
    """Measure what each layer costs: zero the least channels of it alone, evaluate, restore, for each ratio.

    channels that go = min(floor(ratio * channels), channels - 1)

    Layers whose channels must go together (a sum's two sides, a depthwise conv and what feeds it) are one class, as
    in `flow.prune`. The test set is never looked at, and nothing is trained.

    Args:
        model: a trained network; it is not changed.
        example: an input with a batch dimension.
        data: accuracy and loss are those of its validation samples.
        ratios: shares of a class to remove, each in [0, 1).
        criterion: a name in `flow.prune.criteria.CRITERIA`; ``None``: ``taylor``, as in `flow.prune`.
        samples: inputs and labels for ``taylor``; ``None``: the training samples of ``data``.
        ignored_layers: names of layers that stay, and are not scanned.
        batch_size: of the evaluation.
        seed: of the criterion ``random``.
        progress: called after every class.

    Raises:
        ConfigError: an option is out of range or names no layer, there are no samples or they do not fit, or the
            network's loss is not finite.
        UnsupportedError: the network cannot be traced, or has no channels that may go.

    Source: Li et al., "Pruning Filters for Efficient ConvNets", ICLR 2017, section 3.2; see
        docs/algorithms/sensitivity-scan.md.
    """
    chosen = check_ratios(ratios)
    _check_given(data, batch_size)
    graph = network.trace(model, example).eval()
    training.check_labels(graph, data.validation)
    score = criterion or "taylor"
    units = _units(graph, example, score, ignored_layers, seed)
    scores = units.scores(samples if samples is not None else data.train)
    loss, accuracy = training.evaluate(graph, data.validation, batch_size)
    if not math.isfinite(loss):
        raise ConfigError(f"scan: loss of the network must be finite, not {loss}; train it first")
    dense = Scan((), accuracy, loss, units.figures(units.pruned)["macs"], score, len(data.validation[1]))
    scanned = [index for index in range(len(units.layers)) if units.free[units.classes == index].any()]
    rows: list[ScanRow] = []
    for done, index in enumerate(scanned, 1):
        order = np.flatnonzero((units.classes == index) & units.free)
        order = order[np.argsort(scores[order], kind="stable")]
        rows.extend(_class_rows(units, index, order, chosen, dense, data.validation, batch_size))
        progress(done, len(scanned), title(units.layers[index]))
    return Scan(tuple(rows), accuracy, loss, dense.macs, score, dense.samples)


def _class_rows(
    units: ChannelUnits,
    index: int,
    order: np.ndarray,
    ratios: Sequence[float],
    dense: Scan,
    split: Split,
    batch_size: int,
) -> Iterator[ScanRow]:
    """Yield one class's rows; the network is afterwards as it was."""
    layers, before = units.layers[index], len(order)
    state, whole = training.snapshot(units.graph), units.pruned
    caps = np.full(len(units.layers), before)
    measured = {0: (dense.loss, dense.accuracy, dense.macs)}
    for ratio in ratios:
        going = units.allowed(order, caps)[: math.floor(ratio * before + 1e-9)]
        if len(going) not in measured:
            pruned = whole.copy()
            pruned[going] = True
            units.set(pruned)
            figures = training.evaluate(units.graph, split, batch_size)
            measured[len(going)] = (*figures, units.figures(pruned)["macs"])
            units.graph.load_state_dict(state)
            units.set(whole)
        loss, accuracy, macs = measured[len(going)]
        yield ScanRow(layers, ratio, before, before - len(going), accuracy, loss, macs)


def _units(
    graph: torch.fx.GraphModule, example: torch.Tensor, score: str, ignored_layers: tuple[str, ...], seed: int
) -> ChannelUnits:
    ignored = (ignored_layers,) if isinstance(ignored_layers, str) else tuple(ignored_layers)
    check_names("ignored_layers", ignored, {str(node.target) for node, _ in network.weighted(graph)})
    sizes = network.shapes(graph, example)
    units = ChannelUnits(graph, analyse(graph, sizes, couple_groups=True), sizes, score, ignored, seed)
    if not units.free.any():
        raise UnsupportedError(
            "scan: network must have channels that may go, not none; free layers, or add a hidden layer"
        )
    return units


def check_drop(value: float) -> None:
    """Refuse a loss of accuracy that is out of range."""
    if not 0 <= value < 1:
        raise ConfigError(f"scan: max_accuracy_drop must be in [0, 1), not {value}; 0.01 allows one point")


def check_ratios(ratios: Sequence[float]) -> tuple[float, ...]:
    """Return the ratios in order, each once; refuse those out of range."""
    if not len(ratios):
        raise ConfigError("scan: ratios must name at least one share, not none; (0.25, 0.5, 0.75) is quick")
    for ratio in ratios:
        if not 0 <= ratio < 1:
            raise ConfigError(
                f"scan: ratios must be in [0, 1), not {ratio}; 0.5 removes half of the channels"
            )
    return tuple(sorted({float(ratio) for ratio in ratios}))


def _check_given(data: Data, batch_size: int) -> None:
    if not isinstance(data, Data):
        raise ConfigError(
            f"scan: data must be samples with labels, not {type(data).__name__}; flow.load_data gives some"
        )
    if batch_size < 1:
        raise ConfigError(f"scan: batch_size must be at least 1, not {batch_size}; 512 is usual")
