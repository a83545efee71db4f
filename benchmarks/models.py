"""Other people's quantized models through the whole chain: lowered, converted, and csim against the integer executor.

``python benchmarks/models.py``: the files of the shared models that are quantized; writes results/models.md.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

import numpy as np
from figures import record, table

from flow import qonnx
from flow.convert import convert
from flow.emulate.csim import Csim
from flow.fixed.execute import execute
from flow.fixed.from_qonnx import lower
from flow.fixed.golden import Golden, write_golden
from flow.types import Quantized

SHARED = Path(os.environ.get("FLOW_SHARED", Path(__file__).parents[2] / "shared"))
FILES = {
    "jets/qkeras_jettagging": (500, "io_parallel"),
    "example-models/bnn_model_fc_1layer": (500, "io_parallel"),
    "example-models/separable_conv_model_ch_last": (1, "io_stream"),
    "example-models/branched_model_ch_last": (1, "io_stream"),
    "example-models/tiny_unet_ch_last": (1, "io_stream"),
}
"""File, random samples, and form of the C++."""


def measure(name: str, count: int, io_type: str, folder: Path) -> list[str]:
    """Return a row: layers, seconds to convert and to compile, values compared, the largest difference in LSBs."""
    start = time.perf_counter()
    qonnx.clean_named(SHARED / "models" / f"{name}.onnx", folder / "model.onnx")
    graph = lower(qonnx.load(folder / "model.onnx"))
    (tensor,) = graph.inputs
    low, high = tensor.dtype.minimum_lsb, tensor.dtype.maximum_lsb
    lsb = np.random.default_rng(0).integers(low, high + 1, (count, *tensor.shape))
    real = np.ldexp(lsb.reshape(count, -1).astype(float), -tensor.dtype.fraction_bits) * tensor.scale[0]
    real = real if tensor.order is None else real[:, tensor.order.reshape(-1)]
    write_golden(folder / "golden.npz", Golden((real,), ()))
    quantized = Quantized(folder / "model.onnx", folder / "golden.npz", (), 0.0, count, {}, {}, {})
    design = convert(quantized, out=folder / "hls", io_type=io_type, golden_samples=1)
    converted = time.perf_counter() - start
    csim = Csim(design, folder / "csim", cache=folder / "cache")
    built = csim.build()
    got = csim.run(lsb.reshape(count, -1))
    results = execute(graph, [lsb])
    want = np.concatenate([results[output].reshape(count, -1) for output in graph.outputs], axis=1)
    figures = (f"{converted:.1f}", f"{built:.1f}", f"{want.size:,}", str(np.abs(got - want).max()))
    return [name.split("/")[1], io_type, str(len(design.layers)), *figures]


def main() -> None:
    """Measure all files."""
    cells = []
    for name, (count, io_type) in FILES.items():
        with tempfile.TemporaryDirectory() as folder:
            cells.append(measure(name, count, io_type, Path(folder)))
        print(*cells[-1], flush=True)
    text = (
        "Quantized models made by others: seconds to convert and to compile (empty cache), and csim against the "
        "integer executor."
    )
    columns = ["file", "C++", "layers", "convert s", "compile s", "values", "largest LSB"]
    table("models", text, columns, cells)
    record("models_largest_lsb", max(int(row[-1]) for row in cells), "LSB", goal="0 in every file")


if __name__ == "__main__":
    main()
