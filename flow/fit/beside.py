"""FINN's estimates beside ours."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from flow import boards
from flow.errors import ConfigError
from flow.fit.result import Fit

if TYPE_CHECKING:
    from flow.finn import FinnReport

HEADS = ("layer", "FINN", "LUT", "DSP", "BRAM18", "cycles")


def finn_report(made: Fit, out: Path) -> FinnReport:
    """Return what FINN says about the network of a fit, at its board's part, clock and rate.

    Args:
        made: the fit of a quantized network.
        out: a folder for FINN's graphs.

    Raises:
        ConfigError: the network is not quantized.
        ToolError, UnsupportedError, MismatchError: see `flow.finn.finn`.
    """
    from flow.finn import finn

    if made.onnx_path is None:
        raise ConfigError(
            "fit: --finn must have a quantized network, not a float one; give a run's folder or a QONNX file"
        )
    return finn(
        made.onnx_path,
        out=out,
        part=boards.load(made.board).part,
        clock_period_ns=made.clock_period_ns,
        target_fps=math.ceil(made.target_fps),
    )


def rows(report: FinnReport) -> list[list[str]]:
    """Return a row a hardware layer of FINN's, in the columns of `HEADS`."""
    return [
        [layer.layer, layer.name, *(f"{n:,}" for n in (layer.luts, layer.dsps, layer.bram18, layer.cycles))]
        for layer in report.layers
    ]
