"""Networks synthesized by yosys, with no vendor tool: LUTs, flip-flops, DSP slices, block RAM, and clocks a frame.

    python benchmarks/open_synthesis.py [--nets digits digits-pruned ...] [--families xc7 ecp5] [--cache FOLDER]

Each stage is synthesized by itself; nothing is placed, and the host's side is not counted. `latency`: clocks from a
frame's first beat to its last result, in the simulation of the Verilog, whose results all equal the integer executor's.
digits, LeNet-5 (20-50-500 neurons) and the jets MLP (16-64-32-32-5, its weights untrained) have 6 bits, calibrated
alone; `-pruned`: to 0.3 of the channels and fine-tuned; half of the neurons by magnitude (jets); to 250,000 MACs, then
fine-tuned at 4 bits (LeNet-5). mnist-8 to mnist-4 are a 5 x 5 conv of so many filters, stride 2, and a dense layer,
with weights of 3 bits, activations of 2, and pixels of 2 (mnist-8) or 1, for the fewest LUTs.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from figures import add_row, record, rows, table
from pruning_nets import CACHE, data_for
from rtl_networks import network
from torch import nn

import flow
from flow import qonnx
from flow.emulate.rtl import emulate_rtl
from flow.fixed.from_qonnx import lower
from flow.fixed.lsb import inputs_lsb
from flow.rtl import write_rtl
from flow.toolchains.open.families import FAMILIES
from flow.toolchains.open.pieces import Yosys, total

NAME = "open_synthesis"
PRUNED = "digits-pruned"
NETS = (
    *(PRUNED, "digits", "jets-pruned", "jets", "lenet5-pruned", "lenet5", "mnist-8", "mnist-6", "mnist-4"),
)
SMALL = {"mnist-8": (8, 3, 2, 2), "mnist-6": (6, 3, 2, 1), "mnist-4": (4, 3, 2, 1)}
"""Filters, and the bits of weights, activations and pixels."""
PACES = {"jets-pruned": 1, "lenet5-pruned": 784, "mnist-8": 784, "mnist-6": 784, "mnist-4": 784}
"""Clocks a frame; the others run as fast as 80 % of a PYNQ-Z2's DSP slices and 20,000 LUTs allow."""
FRAMES = 20
"""Simulated."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nets", nargs="+", default=list(NETS))
    parser.add_argument("--families", nargs="+", default=["xc7", "ecp5"])
    parser.add_argument("--cache", type=Path, default=CACHE)
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        for net in given.nets:
            if any(row["net"] == net for row in rows(NAME)):  # from a run before
                continue
            graph, accuracy, frames = quantized(net, given.cache, Path(name) / net)
            paces = [PACES.get(net)]
            if net == "digits":
                paces += [row["interval"] for row in rows(NAME) if row["net"] == PRUNED][:1]
            places = [(pace, family) for pace in paces for family in given.families]
            for row in [measured(net, graph, accuracy, frames, *place, Path(name)) for place in places]:
                add_row(NAME, row)
    done = sorted(rows(NAME), key=lambda row: NETS.index(row["net"]))
    cells = [
        [
            f"{row['net']}, {row['family']}",
            "untrained" if "jets" in row["net"] else f"{100 * row['accuracy']:.2f} %",
            *(f"{row[key]:,}" for key in ("interval", "latency", "luts", "flip_flops", "dsps")),
            f"{row['bram_bits'] / 1024:,.0f}",
            f"{row['luts'] * row['latency'] / 1e6:.2f}",
            f"{row['seconds']:.0f}",
        ]
        for row in done
    ]
    columns = ["network, chip", "accuracy", "clocks a frame", "latency", "LUT", "FF", "DSP", "BRAM Kibit"]
    columns += ["LUT x latency, millions", "yosys s"]
    table(NAME, __doc__.split("\n\n")[2].strip().replace("\n", " "), columns, cells)
    both = {row["net"]: row["luts"] for row in done if row["family"] == given.families[0]}
    if {"digits", PRUNED} <= set(both):  # of digits the last row: at the pruned one's pace
        record(NAME, both["digits"] / both[PRUNED], "times the LUTs of digits, pruned, at the same pace")


def quantized(net: str, cache: Path, folder: Path) -> tuple[Any, float, Any]:
    """Return a network as a fixed-point graph, its accuracy, and test samples in LSBs."""
    made, data = build(net, cache, folder)
    graph = lower(qonnx.load(made.onnx_path))
    return graph, made.accuracy, inputs_lsb(graph, [data.test[0][:FRAMES]])


def build(net: str, cache: Path, folder: Path) -> tuple[Any, Any]:
    """Return a network after `flow.quantize`, and its data."""
    if net in SMALL:
        return small(net, folder)
    model, data = network(net.removesuffix("-pruned"), cache)
    example = torch.from_numpy(data.train[0][:2])
    options: dict[str, Any] = {"epochs": 0}
    if net == PRUNED:
        model = flow.prune(model, example, data=data, pruning_ratio=0.7, twt=1.0, epochs=200).model
        options = {"epochs": 20}
    elif net == "jets-pruned":
        model = flow.prune(model, example, pruning_ratio=0.5, global_pruning=False).model
    elif net == "lenet5-pruned":
        goal = {"budget": {"macs": 250_000}, "schedule": "cubic", "epochs": 20, "batch_size": 256}
        model = flow.prune(model, example, data=data, twt=1.0, **goal).model
        options = {"weight_bits": 4, "activation_bits": 4, "epochs": 6, "batch_size": 256}
    simple = flow.simplify(model, example).model
    return flow.quantize(simple, example, out=folder, data=data, **options), data


def small(net: str, folder: Path) -> tuple[Any, Any]:
    """Return a network of a conv and a dense layer for MNIST, trained here, after `flow.quantize`."""
    filters, weight_bits, activation_bits, input_bits = SMALL[net]
    data = data_for("mnist")
    torch.manual_seed(0)
    layers = (nn.Conv2d(1, filters, 5, 2), nn.ReLU(), nn.Flatten(), nn.Linear(filters * 12**2, 10))
    model = nn.Sequential(*layers)
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    x, y = (torch.from_numpy(part) for part in data.train)
    for _ in range(8):
        for chosen in torch.randperm(len(y)).split(128):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[chosen]), y[chosen]).backward()
            optimizer.step()
    bits = {"weight_bits": weight_bits, "activation_bits": activation_bits, "input_bits": input_bits}
    options = {"epochs": 30, "batch_size": 128, "learning_rate": 2e-3}
    return flow.quantize(model.eval(), x[:2], out=folder, data=data, **bits, **options), data


def measured(
    net: str, graph: Any, accuracy: float, frames: Any, pace: int | None, family: str, folder: Path
) -> dict[str, Any]:
    """Return what yosys says of a network for a family of chips, after a simulation of its Verilog."""
    place = folder / f"rtl-{net}-{family}-{pace}"
    design = write_rtl(graph, place, module="net", interval_cycles=pace, **FAMILIES[family].facts)
    simulated = emulate_rtl(graph, design, frames, place / "simulation")
    yosys = Yosys(FAMILIES[family], folder / f"{net}-{family}-{pace}", None, cache=folder / "netlists")
    start = time.perf_counter()
    used = total(FAMILIES[family], yosys.stages(design))
    return {
        "net": net,
        "family": family,
        "accuracy": accuracy,
        "interval": simulated.interval_cycles,
        "latency": simulated.latency_cycles,
        "seconds": time.perf_counter() - start,
        **vars(used),
    }


if __name__ == "__main__":
    main()
