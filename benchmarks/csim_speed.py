"""Measures csim against hls4ml's own compile() and predict(), in one run, on the same networks and samples.

    python benchmarks/csim_speed.py                   all networks, all parts
    python benchmarks/csim_speed.py jets lenet        some networks
    python benchmarks/csim_speed.py --ours            our parts alone, beside hls4ml's figures of the last full run

CPU seconds count the compiler and all that it starts.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import os
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from figures import RESULTS, machine, record, table

NAME = "csim_speed"
ROUNDS = 5
"""Every rate is the best of so many."""
SECONDS = 1.0
"""What a round of samples takes at least."""


def dense(*widths: int) -> Any:
    """Return an MLP with ReLUs between its layers."""
    from torch import nn

    layers: list[Any] = []
    for inputs, outputs in itertools.pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def digits() -> Any:
    """Return the digits CNN without its BatchNorms."""
    import torch

    import flow
    from flow.demo import digits_cnn

    return flow.simplify(digits_cnn().eval(), torch.zeros(1, 1, 8, 8)).model


def lenet5() -> Any:
    """Return LeNet-5 with ReLUs and max pools."""
    from torch import nn

    return nn.Sequential(
        *(nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
        *(nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)),
    )


NETS: dict[str, tuple[str, Callable[[], Any], tuple[int, ...]]] = {
    "mlp": ("MLP 16-40-23-5", lambda: dense(16, 40, 23, 5), (16,)),
    "jets": ("jets MLP 16-64-32-32-5", lambda: dense(16, 64, 32, 32, 5), (16,)),
    "digits": ("digits CNN", digits, (1, 8, 8)),
    "lenet": ("LeNet-5", lenet5, (1, 28, 28)),
}


def prepare(name: str, out: Path) -> tuple[Any, Any, np.ndarray]:
    """Return a network's quantized file, its HLS project and random samples; nothing is trained."""
    import torch

    from flow.convert import convert
    from flow.quantize import quantize
    from flow.types import Data

    torch.manual_seed(0)
    torch.set_num_threads(1)
    _, build, shape = NETS[name]
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (1000, *shape)).astype(np.float32)
    labels = np.arange(len(x)) % 5
    data = Data("random", (x[:128], labels[:128]), (x[128:192], labels[128:192]), (x, labels))
    quantized = quantize(build(), torch.from_numpy(x[:2]), out=out / "quantize", data=data, epochs=0)
    return quantized, convert(quantized, out=out / "convert"), x


def children() -> float:
    """Return the CPU seconds that finished child processes have taken."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def cpu_of(call: Callable[[], Any]) -> float:
    """Return the CPU seconds of the programs that a call starts."""
    start = children()
    call()
    return children() - start


Call = tuple[Callable[[np.ndarray], Any], np.ndarray]


def rates(calls: dict[str, Call]) -> dict[str, float]:
    """Return samples a second of each function: the best of rounds in turn, so that all see the same machine."""
    best = dict.fromkeys(calls, 0.0)
    batches = {name: long_enough(call, samples) for name, (call, samples) in calls.items()}
    for _ in range(ROUNDS):
        for name, (call, _) in calls.items():
            best[name] = max(best[name], len(batches[name]) / seconds_of(call, batches[name]))
    return best


def seconds_of(call: Callable[[np.ndarray], Any], batch: np.ndarray) -> float:
    """Return how long a call takes."""
    start = time.perf_counter()
    call(batch)
    return time.perf_counter() - start


def long_enough(call: Callable[[np.ndarray], Any], samples: np.ndarray) -> np.ndarray:
    """Return as many samples as take `SECONDS`, at most a million; this is the warm-up too."""
    wanted = int(SECONDS * 100 / seconds_of(call, samples[:100]))
    if wanted > len(samples):
        wanted = int(SECONDS * len(samples) / seconds_of(call, samples))
    wanted = min(max(100, wanted), 1_000_000)
    return np.concatenate([samples] * -(-wanted // len(samples)))[:wanted]


def stock(quantized: Any, design: Any, samples: np.ndarray, folder: Path) -> tuple[float, Call]:
    """Return the CPU seconds of hls4ml's own compile(), with our folding and the input's type, and its predict()."""
    import hls4ml
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.transformation.channels_last import ConvertToChannelsLastAndClean
    from qonnx.transformation.gemm_to_matmul import GemmToMatMul
    from qonnx.util.cleanup import cleanup_model

    with contextlib.redirect_stdout(io.StringIO()):
        graph = cleanup_model(ModelWrapper(str(quantized.onnx_path)))
        if samples.ndim > 2:
            graph = graph.transform(ConvertToChannelsLastAndClean())
        graph = cleanup_model(graph.transform(GemmToMatMul()))
        config = hls4ml.utils.config_from_onnx_model(
            graph, granularity="name", backend="Vitis", default_precision="fixed<16,6>"
        )
        dtype = design.inputs[0].dtype
        entry = config["LayerName"][graph.graph.input[0].name]
        entry["Precision"]["result"] = f"fixed<{dtype.width},{dtype.integer_bits},RND_CONV,SAT>"
        factors = {layer.name: layer.reuse_factor for layer in design.layers if layer.reuse_factor}
        for name, options in config["LayerName"].items():
            if name in factors:
                options.update(ReuseFactor=factors[name], Strategy="Resource")
        model = hls4ml.converters.convert_from_onnx_model(
            graph,
            hls_config=config,
            backend="Vitis",
            io_type=design.io_type,
            output_dir=str(folder),
            part=design.part,
        )
        build = cpu_of(model.compile)
        last = np.ascontiguousarray(np.moveaxis(samples, 1, -1) if samples.ndim > 2 else samples)
        return build, (model.predict, last)


def ours(design: Any, samples: np.ndarray, folder: Path) -> tuple[dict[str, float], Call]:
    """Return our CPU seconds: from nothing, with what another design left, and for nothing new; and csim's run."""
    from flow.emulate.csim import Csim
    from flow.fixed.lsb import input_lsb

    csim = Csim(design, folder / "build", cache=folder / "cache")
    cold = cpu_of(csim.build)
    for path in (folder / "cache").rglob("*.o"):
        if path.name == "net.o":  # what another design does not share
            path.unlink()
    warm = cpu_of(csim.build)
    again = cpu_of(csim.build)
    return {"cold": cold, "warm": warm, "again": again}, (csim.run, input_lsb(design.inputs[0], samples))


def executor(quantized: Any, design: Any, samples: np.ndarray) -> Call:
    """Return the integer executor and the same samples."""
    from flow import qonnx
    from flow.fixed.execute import execute
    from flow.fixed.from_qonnx import lower
    from flow.fixed.lsb import input_lsb

    graph = lower(qonnx.load(quantized.onnx_path))
    shape = graph.inputs[0].shape
    x = input_lsb(design.inputs[0], samples).reshape(-1, *shape)
    return lambda batch: next(iter(execute(graph, [batch]).values())), x


def measure(name: str, only_ours: bool, last: dict[str, Any]) -> dict[str, Any]:
    """Return the figures of one network."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        quantized, design, samples = prepare(name, folder)
        mine, csim = ours(design, samples, folder)
        integers = executor(quantized, design, samples)
        check_equal(csim, integers)
        calls = {"csim": csim, "executor": integers}
        if not only_ours:
            build, calls["hls4ml"] = stock(quantized, design, samples, folder / "stock")
        found = rates(calls)
    theirs = last[name]["hls4ml"] if only_ours else {"build": build, "rate": found["hls4ml"]}
    row = {
        "hls4ml": theirs,
        "csim": {**mine, "rate": found["csim"]},
        "executor": {"rate": found["executor"]},
        "load": os.getloadavg()[0],
    }
    print(name, row, flush=True)
    return row


def check_equal(csim: Call, integers: Call) -> None:
    """Stop where csim and the executor differ: what is wrong needs no speed."""
    (run, x), (execute, y) = csim, integers
    assert np.array_equal(run(x), execute(y).reshape(len(y), -1))


def write(rows: dict[str, Any]) -> None:
    """Write the table and the figures: the worst network's ratio of each kind."""
    record(f"{NAME}_cases", rows, "CPU s and samples/s")
    cells = []
    for name, row in rows.items():
        theirs, mine, fixed = row["hls4ml"], row["csim"], row["executor"].get("rate")
        cells.append(
            [
                *(NETS[name][0], f"{theirs['build']:.1f}", f"{mine['cold']:.1f}", f"{mine['warm']:.2f}"),
                *(f"{theirs['build'] / mine['warm']:.1f}", f"{theirs['rate']:,.0f}", f"{mine['rate']:,.0f}"),
                f"{mine['rate'] / theirs['rate']:.1f}",
                *((f"{fixed:,.0f}", f"{fixed / theirs['rate']:,.0f}") if fixed else ("-", "-")),
            ]
        )
    text = (
        "Emulation beside stock hls4ml 1.3.0, same networks and folding, one run. *Build* is CPU seconds of the "
        "compiler: hls4ml's `compile()`; ours from an empty cache; ours for a new design when the cache holds what all "
        "designs share. *Rates* are samples a second: hls4ml's `predict()`, our csim (one process a core), our "
        f"integer executor. {machine()}."
    )
    columns = [
        "network",
        "hls4ml build",
        "empty cache",
        "new design",
        "times less",
        "predict()",
        "csim",
        "times",
    ]
    table(NAME, text, [*columns, "executor", "times"], cells)
    record(
        f"{NAME}_build", min(_ratios(rows, "build")), "times less CPU than hls4ml's compile()", goal=">= 10"
    )
    record(
        f"{NAME}_rate", min(_ratios(rows, "rate")), "times the samples/s of hls4ml's predict()", goal=">= 50"
    )
    fast = _ratios(rows, "executor")
    if fast:
        record(f"{NAME}_executor", min(fast), "times the samples/s of hls4ml's predict()", goal=">= 1000")


def _ratios(rows: dict[str, Any], kind: str) -> list[float]:
    if kind == "build":
        return [round(row["hls4ml"]["build"] / row["csim"]["warm"], 1) for row in rows.values()]
    part = "csim" if kind == "rate" else "executor"
    return [round(row[part]["rate"] / row["hls4ml"]["rate"], 1) for row in rows.values() if row[part]]


def main() -> None:
    """Measure what the command line names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("networks", nargs="*", choices=[*NETS, []], help="all without")
    parser.add_argument("--ours", action="store_true", help="take hls4ml's figures from the last run")
    given = parser.parse_args()
    path = RESULTS / f"{NAME}_cases.json"
    last = _last(path) if given.ours or given.networks else {}
    rows = {**last, **{name: measure(name, given.ours, last) for name in given.networks or NETS}}
    write({name: rows[name] for name in NETS if name in rows})


def _last(path: Path) -> dict[str, Any]:
    import json

    return json.loads(path.read_text(encoding="utf-8"))["value"] if path.exists() else {}


if __name__ == "__main__":
    main()
