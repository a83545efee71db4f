"""The Verilog of whole networks: 0 LSB in Verilator, clocks a frame predicted and measured, and the simulation's speed.

    python benchmarks/rtl_networks.py [--nets digits lenet5 jets resnet8] [--cache FOLDER]

Weights and activations of 6 bits, calibrated alone; trained weights, but for the jets MLP (16-64-32-32-5), whose data
is not at hand, and the ResNet. Frames are test samples. Each network at two sizes: 176 multipliers (80 % of a PYNQ-Z2's
DSP slices) and 20,000 LUTs by estimate, and 32 multipliers without layers of adders.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from figures import record, table
from pruning_nets import CACHE, data_for, dense, resnet8
from torch import nn

import flow
from flow import qonnx, training
from flow.demo import digits_cnn
from flow.emulate.rtl import emulate_rtl
from flow.fixed.from_qonnx import lower
from flow.fixed.lsb import inputs_lsb
from flow.rtl import write_rtl
from flow.types import Data

NAME = "rtl_networks"
ROOMS: tuple[dict[str, Any], ...] = ({"multipliers": 176}, {"multipliers": 32, "adders": False})
FRAMES = {"digits": 200, "lenet5": 40, "jets": 200, "resnet8": 8}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nets", nargs="+", default=list(FRAMES))
    parser.add_argument("--cache", type=Path, default=CACHE)
    given = parser.parse_args()
    torch.set_num_threads(1)
    done = [row for net in given.nets for row in measured(net, given.cache)]
    cells = [
        [
            f"{row['net']}, {row['limit']} multipliers at most",
            str(row["multipliers"]),
            f"{row['luts']:,}",
            f"{row['predicted']:,}",
            f"{row['interval']:,}",
            f"{row['latency']:,}",
            str(row["frames"]),
            f"{row['build']:.0f}",
            f"{row['clocks_per_second'] / 1000:,.0f}",
        ]
        for row in done
    ]
    columns = [
        "network",
        "multipliers",
        "LUT by the rules",
        "clocks a frame, predicted",
        "measured",
        "to the first result",
    ]
    columns += ["frames at 0 LSB", "build s", "thousand clocks simulated a s"]
    table(NAME, __doc__.split("\n\n")[2].strip().replace("\n", " "), columns, cells)
    off = max(abs(row["interval"] - row["predicted"]) for row in done)
    record(NAME, off, "clocks a frame off the prediction, at most", goal="0")


def measured(net: str, cache: Path) -> list[dict[str, Any]]:
    """Return one row a pace."""
    model, data = network(net, cache)
    example = torch.from_numpy(data.train[0][:2])
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        small = flow.simplify(model, example).model
        options = {"weight_bits": 6, "activation_bits": 6, "epochs": 0, "calibration": "mse"}
        made = flow.quantize(small, example, out=folder / "q", data=data, **options)
        graph = lower(qonnx.load(made.onnx_path))
        frames = data.test[0][: FRAMES[net]]
        lsb = inputs_lsb(graph, [frames])
        for room in ROOMS:
            limit = room["multipliers"]
            design = write_rtl(graph, folder / f"rtl{limit}", **room)
            start = time.perf_counter()
            result = emulate_rtl(graph, design, lsb, folder / f"sim{limit}")
            seconds = time.perf_counter() - start - result.build_seconds
            clocks = 2 * len(frames) * result.predicted_interval_cycles
            rows.append(
                {
                    "net": net,
                    "limit": limit,
                    "multipliers": result.multipliers,
                    "luts": design.circuit.luts,
                    "predicted": result.predicted_interval_cycles,
                    "interval": result.interval_cycles,
                    "latency": result.latency_cycles,
                    "frames": result.frames,
                    "build": result.build_seconds,
                    "clocks_per_second": clocks / seconds,
                }
            )
            print(rows[-1], flush=True)
    return rows


def network(net: str, cache: Path) -> tuple[nn.Module, Data]:
    if net == "digits":
        data = flow.load_data("digits")
        training.seed_everything(0)
        return flow.train(digits_cnn(), data).model, data
    if net == "lenet5":
        data = data_for("mnist")
        return dense(net, data, 0, cache), data
    torch.manual_seed(0)
    if net == "resnet8":
        return resnet8().eval(), data_for("cifar10")
    sizes = (16, 64, 32, 32)
    layers = [part for a, b in pairwise(sizes) for part in (nn.Linear(a, b), nn.ReLU())]
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1000, 16)).astype(np.float32)
    split = (x, np.arange(len(x)) % 5)
    return nn.Sequential(*layers, nn.Linear(32, 5)), Data("random", split, split, split)


if __name__ == "__main__":
    main()
