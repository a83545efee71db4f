"""Networks synthesized by yosys, with no vendor tool: LUTs, flip-flops, DSP slices, block RAM, and clocks a frame.

    python benchmarks/open_synthesis.py [--nets digits digits-pruned jets lenet5] [--families xc7 ecp5] [--cache FOLDER]

Each stage is synthesized by itself; nothing is placed, and the host's side is not counted. Weights and activations of
6 bits, calibrated alone; `digits-pruned` is pruned to 0.3 of its channels and fine-tuned, and `digits` runs at its pace
beside its own. Multipliers: 80 % of a PYNQ-Z2's DSP slices at most, where no pace is given.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from figures import record, table
from pruning_nets import CACHE
from rtl_networks import network

import flow
from flow import qonnx_graph
from flow.fixed.lower import lower as fixed
from flow.lower import lower
from flow.toolchains.open.families import FAMILIES
from flow.toolchains.open.pieces import Yosys, total

NAME = "open_synthesis"
PRUNED = "digits-pruned"
NETS = (PRUNED, "digits", "jets", "lenet5")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nets", nargs="+", default=list(NETS))
    parser.add_argument("--families", nargs="+", default=["xc7", "ecp5"])
    parser.add_argument("--cache", type=Path, default=CACHE)
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        for net in given.nets:
            graph, accuracy = quantized(net, given.cache, Path(name) / net)
            paces: list[int | None] = [None]
            if net == "digits":
                paces += [row["interval"] for row in rows if row["net"] == PRUNED][:1]
            for pace in paces:
                for family in given.families:
                    rows.append(measured(net, graph, accuracy, family, pace, Path(name)))
                    print(rows[-1], flush=True)
    cells = [
        [
            f"{row['net']}, {row['family']}",
            "untrained" if row["net"] == "jets" else f"{100 * row['accuracy']:.2f} %",
            *(f"{row[key]:,}" for key in ("interval", "luts", "flip_flops", "dsps")),
            f"{row['bram_bits'] / 1024:,.0f}",
            f"{row['seconds']:.0f}",
        ]
        for row in rows
    ]
    columns = ["network, chip", "accuracy", "clocks a frame", "LUT", "FF", "DSP", "BRAM Kibit", "yosys s"]
    table(NAME, __doc__.split("\n\n")[2].strip().replace("\n", " "), columns, cells)
    both = {row["net"]: row["luts"] for row in rows if row["family"] == given.families[0]}
    if {"digits", PRUNED} <= set(both):  # of digits the last row: at the pruned one's pace
        record(NAME, both["digits"] / both[PRUNED], "times the LUTs of digits, pruned, at the same pace")


def quantized(net: str, cache: Path, folder: Path) -> tuple[Any, float]:
    """Return a network as a fixed-point graph, and its accuracy."""
    model, data = network(net.removesuffix("-pruned"), cache)
    example = torch.from_numpy(data.train[0][:2])
    if net == PRUNED:
        model = flow.prune(model, example, data=data, pruning_ratio=0.7, twt=1.0, epochs=200).model
    small = flow.simplify(model, example).model
    epochs = 20 if net == PRUNED else 0
    made = flow.quantize(small, example, out=folder, data=data, epochs=epochs)
    return fixed(qonnx_graph.load(made.onnx_path)), made.accuracy


def measured(
    net: str, graph: Any, accuracy: float, family: str, pace: int | None, folder: Path
) -> dict[str, Any]:
    """Return what yosys says of a network for a family of chips."""
    design = lower(graph, folder / f"rtl-{net}-{pace}", module="net", interval_cycles=pace)
    yosys = Yosys(FAMILIES[family], folder / f"{net}-{family}-{pace}", None, cache=folder / "netlists")
    start = time.perf_counter()
    used = total(FAMILIES[family], yosys.stages(design))
    return {
        "net": net,
        "family": family,
        "accuracy": accuracy,
        "interval": design.interval_cycles,
        "seconds": time.perf_counter() - start,
        **vars(used),
    }


if __name__ == "__main__":
    main()
