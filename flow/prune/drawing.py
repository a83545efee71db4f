"""The plot of a sensitivity scan."""

from __future__ import annotations

import io
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING

from flow.errors import ConfigError
from flow.store import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from flow.prune.scan import Scan

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
"""Okabe and Ito: told apart with every kind of colour vision; their yellow is too pale for a line on white."""
LINES = ("-", "--", "-.")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*")
SUFFIXES = (".svg", ".png")


def draw(scan: Scan, path: Path) -> Path:
    """Draw accuracy over ratio, a line a class; see `Scan.plot`."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    check_suffix(path)
    classes = len(scan.classes())
    buffer = io.BytesIO()
    # no pyplot: it keeps state, and asks for a display; the salt makes one plot one file
    with mpl.rc_context({"svg.hashsalt": "flow", "font.size": 9}):
        figure = Figure(figsize=(8, max(4, 1 + 0.21 * classes)), layout="constrained")
        _lines(figure.add_subplot(), scan)
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


def _lines(axes: Axes, scan: Scan) -> None:
    from matplotlib.ticker import PercentFormatter

    from flow.prune.scan import title

    classes = scan.classes()
    axes.axhline(scan.accuracy, color="0.35", linestyle=(0, (6, 4)), linewidth=1, label="all channels")
    marks = islice(cycle(MARKERS), len(classes))
    for place, ((layers, rows), mark) in enumerate(zip(classes.items(), marks, strict=True)):
        axes.plot(
            [0.0, *(row.ratio for row in rows)],
            [scan.accuracy, *(row.accuracy for row in rows)],
            color=COLOURS[place % len(COLOURS)],
            linestyle=LINES[place // len(COLOURS) % len(LINES)],
            marker=mark,
            markersize=4,
            linewidth=1.4,
            label=f"{title(layers)} ({rows[0].channels_before})",
        )
    axes.set_xlabel("channels removed, of one class of layers alone")
    axes.set_ylabel(f"accuracy on {scan.samples} validation samples")
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
    axes.set_xlim(0, max(row.ratio for row in scan.rows) or 1)
    axes.set_title(f"Sensitivity to pruning, least channels by {scan.criterion} first", loc="left")
    axes.grid(color="0.9", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(
        title="layers (channels)",
        loc="upper left",
        bbox_to_anchor=(1.01, 1.0),
        frameon=False,
        fontsize=8,
        ncols=1 + len(classes) // 30,
        handlelength=3.2,
    )
