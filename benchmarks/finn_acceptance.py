"""Does finn-plus take our QONNX? The demo CNN and the jets MLP, unpruned, calibrated only, through FINN's build steps.

Needs FLOW_FINN_PYTHON (docs/finn.md). Writes results/finn_acceptance.jsonl and .md.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import torch
from figures import RESULTS, add_row, record, table
from torch import nn

from flow import network
from flow.demo import digits_cnn
from flow.finn import FinnReport, finn, installed
from flow.network.fuse import fuse_batchnorm
from flow.quantize import quantize
from flow.training import data as flow_data
from flow.types import Data

PART = "xc7z020clg400-1"
RATES = (None, 20_000)


def jets() -> tuple[nn.Module, Data]:
    """Return the MLP 16-64-32-32-5 with random weights and samples of its shape."""
    layers: list[nn.Module] = []
    for inputs, outputs in ((16, 64), (64, 32), (32, 32)):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    rng = np.random.default_rng(0)

    def split(count: int) -> tuple[np.ndarray, np.ndarray]:
        return rng.normal(0, 1, (count, 16)).astype(np.float32), rng.integers(0, 5, count)

    return nn.Sequential(*layers, nn.Linear(32, 5)), Data("random", split(256), split(64), split(64))


def cnn() -> tuple[nn.Module, Data]:
    """Return the demo's network with random weights, BatchNorm fused, and its data."""
    return digits_cnn(), flow_data.load("digits")


def main() -> None:
    """Quantize both, hand them to FINN folded and not, write what it says."""
    torch.manual_seed(0)
    (RESULTS / "finn_acceptance.jsonl").unlink(missing_ok=True)
    cells, accepted = [], 0
    networks = {"demo CNN": cnn(), "jets MLP 16-64-32-32-5": jets()}
    for name, (model, data) in networks.items():
        folder = Path(mkdtemp())
        example = torch.from_numpy(data.train[0][:2])
        graph = fuse_batchnorm(network.trace(model.eval(), example))
        made = quantize(graph, example, out=folder, data=data, epochs=0)
        for rate in RATES:
            start = time.perf_counter()
            report = finn(
                made.onnx_path, out=folder / str(rate), part=PART, target_fps=rate, inputs=data.test[0][:32]
            )
            seconds = time.perf_counter() - start
            accepted += report.accepted
            add_row("finn_acceptance", {"network": name, "target_fps": rate, **report.values()})
            cells.append(row(name, rate, report, seconds))
    version = installed()
    table(
        "finn_acceptance",
        f"finn-plus {version[0] if version else ''}, {PART}, 10 ns, random weights, 6-bit weights and activations, "
        "8-bit input; before and after each step up to the hardware layers: 32 random and 32 test samples.",
        [
            "network",
            "target fps",
            "steps accepted",
            "largest difference",
            "cycles",
            "LUT",
            "DSP",
            "BRAM18",
            "seconds",
        ],
        cells,
    )
    record("finn_accepted", accepted, f"of {len(cells)} runs", goal="all")
    if accepted != len(cells):
        sys.exit(1)


def row(name: str, rate: int | None, report: FinnReport, seconds: float) -> list[str]:
    """Return a run's cells."""
    steps = f"{sum(step.status == 'accepted' for step in report.steps)} of {len(report.steps)}"
    sums = [sum(getattr(layer, key) for layer in report.layers) for key in ("luts", "dsps", "bram18")]
    numbers = [report.max_cycles or 0, *sums]
    return [name, str(rate), steps, f"{report.max_error:g}", *(f"{n:,}" for n in numbers), f"{seconds:.0f}"]


if __name__ == "__main__":
    main()
