"""Runs FINN's own steps; started by the other environment's Python with ``request.json`` in the working folder.

It must import nothing of the flow, which is not installed there.
"""

from __future__ import annotations

import json
import os
import re
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

STEPS = (
    "step_qonnx_to_finn",
    "step_tidy_up",
    "step_streamline",
    "step_convert_to_hw",
    "step_minimize_bit_width_initial",
    "step_create_dataflow_partition",
    "step_specialize_layers",
    "step_target_fps_parallelization",
    "step_apply_folding_config",
    "step_minimize_bit_width",
)
"""FINN's ``estimate_only_dataflow_steps`` but for its reports, which are read from the graph."""
EXECUTED = STEPS[: STEPS.index("step_create_dataflow_partition")]
"""Later layers are HLS and RTL, which only the vendor's simulators execute."""
_BEFORE = ("FMPadding", "ConvolutionInputGenerator", "StreamingDataWidthConverter")
"""Layers that work for the one behind them; all others belong to the one before."""


def main() -> None:
    """Read the request, run the steps, write ``result.json``."""
    request = json.loads(Path("request.json").read_text(encoding="utf-8"))
    Path("build").mkdir(exist_ok=True)
    os.environ["FINN_BUILD_DIR"] = str(Path("build").resolve())
    # FINN's steps import its interface to Vivado's simulator, which asks for Vivado; no step here simulates.
    simulator = ModuleType("finn.xsi")
    simulator.SimEngine = None  # type: ignore[attr-defined]
    sys.modules["finn.xsi"] = simulator
    result = build(request)
    Path("result.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def build(request: dict[str, Any]) -> dict[str, Any]:
    """Run FINN's steps until one refuses."""
    from finn.builder import build_dataflow_steps
    from finn.builder.build_dataflow_config import DataflowBuildConfig
    from qonnx.core.modelwrapper import ModelWrapper

    options = DataflowBuildConfig(
        output_dir=str(Path("finn").resolve()),
        generate_outputs=[],
        synth_clk_period_ns=request["clock_period_ns"],
        fpga_part=request["part"],
        target_fps=request["target_fps"],
        standalone_thresholds=request["standalone_thresholds"],
        folding_config_file=Path(request["folding"]) if request["folding"] else None,
    )
    model = ModelWrapper(request["prepared"])
    inputs, expected = np.load("inputs.npy"), np.load("expected.npy")
    result: dict[str, Any] = {
        "steps": [],
        "layers": [],
        "host": [],
        "max_error": None,
        "samples": len(inputs),
    }
    for name in STEPS:
        print(f"step: {name}", flush=True)
        try:
            model = getattr(build_dataflow_steps, name)(model, options)
            error = None
            if name in EXECUTED:
                error = difference(model, inputs, expected, request["output_lsb"])
                result["max_error"] = max(error, result["max_error"] or 0.0)
        except Exception as refusal:  # whatever FINN raises is its answer
            traceback.print_exc()
            result["steps"].append(
                {"name": name, "status": "refused", "reason": reason(refusal, model), "max_error": None}
            )
            return result
        result["steps"].append({"name": name, "status": "accepted", "reason": "", "max_error": error})
        if name == "step_convert_to_hw":
            result["host"] = [
                f"{node.op_type} {label(node)}" for node in model.graph.node if not is_hardware(node)
            ]
        model.save(f"{name}.onnx")
    result["layers"] = layers(model, request)
    return result


def difference(model: Any, inputs: Any, expected: Any, lsb: float) -> float:
    """Return the largest difference of the outputs from those before FINN; infinite where shapes differ."""
    from finn.core.onnx_exec import execute_onnx

    source, sink = model.graph.input[0].name, model.graph.output[0].name
    found = np.concatenate([execute_onnx(model, {source: sample[None]})[sink] for sample in inputs])
    if found.shape != expected.shape:
        return float("inf")
    return float(np.abs(found.astype(np.float64) * lsb - expected).max())


def reason(refusal: BaseException, model: Any) -> str:
    """Return what FINN says with our names of the nodes, and the node it was at: the innermost that its frames hold."""
    from onnx import NodeProto

    at = None
    frame = refusal.__traceback__
    while frame is not None:
        here = [value for value in frame.tb_frame.f_locals.values() if isinstance(value, NodeProto)]
        at = here[-1] if here else at
        frame = frame.tb_next
    text = " ".join(str(refusal).split()) or type(refusal).__name__
    for node in model.graph.node:
        if label(node) != node.name:
            text = re.sub(rf"\b{re.escape(node.name)}\b", f"{node.name} ({label(node)!r})", text)
    return text if at is None else f"node {label(at)!r} ({at.op_type}): {text}"


def label(node: Any) -> str:
    """Return the name that a node had before FINN, else FINN's."""
    return str(node.doc_string or node.name)


def is_hardware(node: Any) -> bool:
    """Tell whether a node is a layer of FINN's hardware."""
    return str(node.domain).startswith("finn.custom_op.fpgadataflow")


def layers(model: Any, request: dict[str, Any]) -> list[dict[str, Any]]:
    """Return FINN's estimates, a row a hardware layer, with the layer of ours that it works for."""
    from finn.analysis.fpgadataflow.exp_cycles_per_layer import exp_cycles_per_layer
    from finn.analysis.fpgadataflow.res_estimation import res_estimation

    cycles = model.analysis(exp_cycles_per_layer)
    costs = res_estimation(model, request["part"])
    owners = owned(model, request)
    return [
        {
            "layer": owners.get(node.name, ""),
            "name": node.name,
            "cycles": int(cycles[node.name]),
            "luts": int(np.ceil(costs[node.name]["LUT"])),
            "dsps": int(np.ceil(costs[node.name]["DSP"])),
            "bram18": int(np.ceil(costs[node.name]["BRAM_18K"])),
        }
        for node in model.graph.node
        if node.name in cycles
    ]


def owned(model: Any, request: dict[str, Any]) -> dict[str, str]:
    """Return the layer of ours of every hardware layer: by order and size of the weights, then by neighbours."""
    macs, pools = [list(entry) for entry in request["macs"]], list(request["pools"])
    owners: dict[str, str] = {}
    for node in model.graph.node:
        if node.op_type.startswith(("MVAU", "VVAU")) and macs:
            name, size = macs.pop(0)
            weights = model.get_initializer(node.input[1])
            if weights is not None and weights.size == size:
                owners[node.name] = name
        elif node.op_type.startswith("Pool") and pools:
            owners[node.name] = pools.pop(0)
    for node in reversed(model.graph.node):
        behind = model.find_direct_successors(node) or []
        if node.op_type.startswith(_BEFORE) and behind:
            owners.setdefault(node.name, owners.get(behind[0].name, ""))
    for node in model.graph.node:
        ahead = model.find_direct_predecessors(node) or []
        if ahead:
            owners.setdefault(node.name, owners.get(ahead[0].name, ""))
    return owners


if __name__ == "__main__":
    main()
