"""The plot of a sensitivity scan."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING

from flow.errors import ConfigError
from flow.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
"""Okabe and Ito: told apart with every kind of colour vision; their yellow is too pale for a line on white."""
LINES = ("-", "--", "-.")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*")
SUFFIXES = (".svg", ".png")


@dataclass(frozen=True)
class Curve:
    """Accuracies over the ratios that were removed, and the curve's name in the legend."""

    label: str
    ratios: tuple[float, ...]
    accuracies: tuple[float, ...]


def draw(curves: Sequence[Curve], path: Path, *, whole: float, samples: int, criterion: str) -> Path:
    """Draw accuracy over ratio, a line a curve, and the accuracy of the ``whole`` network as a dashed line."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    check_suffix(path)
    buffer = io.BytesIO()
    # no pyplot: it keeps state, and asks for a display; the salt makes one plot one file
    with mpl.rc_context({"svg.hashsalt": "flow", "font.size": 9}):
        figure = Figure(figsize=(8, max(4, 1 + 0.21 * len(curves))), layout="constrained")
        axes = figure.add_subplot()
        _lines(axes, curves, whole)
        axes.set_ylabel(f"accuracy on {samples} validation samples")
        title = f"Sensitivity to pruning, least channels by {criterion} first"
        axes.set_title(title, loc="left")
        figure.savefig(
            buffer,
            format=path.suffix.removeprefix(".").lower(),
            dpi=150,
            metadata={"Date": None} if path.suffix.lower() == ".svg" else None,
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, buffer.getvalue())
    return path


def check_suffix(path: Path) -> None:
    """Refuse a file of a kind that is not drawn."""
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(
            f"scan: plot must end in {' or '.join(SUFFIXES)}, not {path.name!r}; scan.svg stays sharp"
        )


def _lines(axes: Axes, curves: Sequence[Curve], whole: float) -> None:
    from matplotlib.ticker import PercentFormatter

    axes.axhline(whole, color="0.35", linestyle=(0, (6, 4)), linewidth=1, label="all channels")
    marks = islice(cycle(MARKERS), len(curves))
    for place, (curve, mark) in enumerate(zip(curves, marks, strict=True)):
        axes.plot(
            [0.0, *curve.ratios],
            [whole, *curve.accuracies],
            color=COLOURS[place % len(COLOURS)],
            linestyle=LINES[place // len(COLOURS) % len(LINES)],
            marker=mark,
            markersize=4,
            linewidth=1.4,
            label=curve.label,
        )
    axes.set_xlabel("channels removed, of one class of layers alone")
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
    axes.set_xlim(0, max(max(curve.ratios) for curve in curves) or 1)
    axes.grid(color="0.9", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(
        title="layers (channels)",
        loc="upper left",
        bbox_to_anchor=(1.01, 1.0),
        frameon=False,
        fontsize=8,
        ncols=1 + len(curves) // 30,
        handlelength=3.2,
    )
