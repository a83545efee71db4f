"""Measures csim of the digits CNN against hls4ml's own compile() and predict(), in one run, on the same graph."""

from __future__ import annotations

import contextlib
import io
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from figures import record

import flow
from flow.emulate.csim import Csim
from flow.lsb import input_lsb
from flow.steps import load_project
from flow.store import Store


def child_cpu_seconds() -> float:
    """Return the CPU seconds that finished child processes have taken."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main(out: Path) -> None:
    """Build and run both; ``out`` is the demo's output folder."""
    manifest = flow.run(None, out=out)
    entries = {name: entry_of(out, name) for name in ("quantize", "convert")}
    design = load_project(entries["convert"], entries["quantize"])
    with np.load(design.golden_path) as golden:
        inputs = golden["inputs"]
    with tempfile.TemporaryDirectory() as folder:
        csim = Csim(design, Path(folder))
        start = child_cpu_seconds()
        csim.build()
        ours_build = child_cpu_seconds() - start
        start_time = time.perf_counter()
        csim.run(input_lsb(design.inputs[0], inputs))
        ours_rate = len(inputs) / (time.perf_counter() - start_time)
        theirs_build, theirs_rate = stock(design, inputs, Path(folder) / "stock")
    record("csim_build_cpu", round(ours_build, 2), "CPU s", peer={"hls4ml compile()": round(theirs_build, 2)})
    record("csim_build_ratio", round(theirs_build / ours_build, 2), "times less CPU than hls4ml's compile()")
    record("csim_rate", round(ours_rate), "samples/s", peer={"hls4ml predict()": round(theirs_rate)})
    print(f"demo accuracy {manifest['accuracy.quantized']:.4f}")


def entry_of(out: Path, stage: str):  # type: ignore[no-untyped-def]
    """Return the finished stage that ``<out>/<stage>`` points at."""
    folder = (out / stage).resolve()
    key = folder.name.removeprefix(f"{stage}-")
    entry = Store(out).find(stage, key)
    assert entry is not None
    return entry


def stock(design, inputs: np.ndarray, folder: Path) -> tuple[float, float]:  # type: ignore[no-untyped-def]
    """Return CPU seconds of compile() and samples a second of predict() of hls4ml alone, same folding."""
    import hls4ml
    from qonnx.core.modelwrapper import ModelWrapper

    graph = ModelWrapper(str(design.onnx_path))
    with contextlib.redirect_stdout(io.StringIO()):
        config = hls4ml.utils.config_from_onnx_model(
            graph, granularity="name", backend="Vitis", default_precision="fixed<16,6>"
        )
        dtype = design.inputs[0].dtype
        source = graph.graph.input[0].name
        config["LayerName"][source]["Precision"]["result"] = (
            f"fixed<{dtype.width},{dtype.integer_bits},RND_CONV,SAT>"
        )
        for layer in design.layers:
            if layer.reuse_factor:
                config["LayerName"][layer.name].update(ReuseFactor=layer.reuse_factor, Strategy="Resource")
        model = hls4ml.converters.convert_from_onnx_model(
            graph,
            hls_config=config,
            backend="Vitis",
            io_type=design.io_type,
            output_dir=str(folder),
            part=design.part,
        )
        start = child_cpu_seconds()
        model.compile()
        build = child_cpu_seconds() - start
        last = np.ascontiguousarray(np.moveaxis(inputs, 1, -1))
        start = time.perf_counter()
        model.predict(last)
        return build, len(inputs) / (time.perf_counter() - start)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("runs/digits"))
