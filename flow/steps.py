"""The stages as the pipeline runs them: read the artifacts before, call the stage, write the artifact.

Every step reads from disk what an earlier step wrote there, in the same run or in one before, so that a
resumed run gives the same results as an undisturbed one.
"""

from __future__ import annotations

import dataclasses
import json
import shlex
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flow import boards
from flow.config import Config
from flow.errors import UnsupportedError
from flow.folding import DSP_SHARE
from flow.names import identifier
from flow.store import Entry, write_atomically
from flow.types import (
    Data,
    FixedPoint,
    FloatBound,
    HlsLayer,
    HlsProject,
    LayerCost,
    Port,
    Progress,
    Quantized,
)

if TYPE_CHECKING:
    import torch

HLS_FOLDER = "hls"
Figures = dict[str, Any]
Step = Callable[["Context", Path], Figures]


@dataclass(frozen=True)
class Context:
    """What a step may look at: the config, the finished stages, the progress callback, a file for a checkpoint."""

    config: Config
    entries: Mapping[str, Entry]
    out: Path
    progress: Progress
    checkpoint: Path

    @cached_property
    def data(self) -> Data:
        from flow.data import load

        return load(**self.config.options("data"), seed=self.config.seed, base=self.config.base)

    @property
    def example(self) -> torch.Tensor:
        import torch

        return torch.from_numpy(self.data.train[0][:2])

    def folder(self, stage: str) -> Path:
        return self.entries[stage].folder

    def options(self, stage: str) -> dict[str, Any]:
        return self.config.options(stage)


def train(context: Context, out: Path) -> Figures:
    """Train the network, or measure it where it comes with weights."""
    from flow import network, training
    from flow.model_source import load_model
    from flow.train import train as stage

    training.seed_everything(context.config.seed)
    model, trained_already = load_model(context.config, context.data.train[0].shape[1:])
    options = {**({"epochs": 0} if trained_already else {}), **context.options("train")}
    trained = stage(
        model,
        context.data,
        **options,
        seed=context.config.seed,
        checkpoint=context.checkpoint,
        progress=context.progress,
    )
    network.save(trained.model, out)
    return {
        "accuracy": trained.accuracy,
        "samples": sizes(context.data),
        "stopped": trained.stopped,
        "history": list(trained.history),
    }


def prune(context: Context, out: Path) -> Figures:
    """Zero channels or weights."""
    from flow import network, pricing
    from flow.prune import prune as stage

    pruned = stage(
        network.load(context.folder("train")),
        context.example,
        data=context.data,
        **context.options("prune"),
        cost=pricing.cost(context.config, context.example),
        seed=context.config.seed,
        checkpoint=context.checkpoint,
        progress=context.progress,
    )
    network.save(pruned.model, out)
    write_json(out / "pruned.json", pruned.pruned)
    return {
        "accuracy": pruned.accuracy,
        "channels": {"before": pruned.channels_before, "after": pruned.channels_after},
        "stopped": pruned.stopped,
        "history": list(pruned.history),
        "figures": {"before": dict(pruned.figures_before), "after": dict(pruned.figures_after)},
    }


def simplify(context: Context, out: Path) -> Figures:
    """Make the tensors smaller."""
    from flow import network
    from flow.simplify import simplify as stage

    before = network.load(context.folder("prune"))
    small = stage(
        before,
        context.example,
        **context.options("simplify"),
        seed=context.config.seed,
        progress=context.progress,
    )
    network.save(small.model, out)
    return {
        "max_error": small.max_error,
        "samples": small.samples,
        "parameters": {
            "before": network.total_parameters(before),
            "after": network.total_parameters(small.model),
        },
        "macs": {"before": sum(c.macs for c in small.before), "after": sum(c.macs for c in small.after)},
        "before": [dataclasses.asdict(cost) for cost in small.before],
        "after": [dataclasses.asdict(cost) for cost in small.after],
        "kept": dict(small.kept),
        "onnx": write_onnx(small.model, context, out),
    }


def write_onnx(model: Any, context: Context, out: Path) -> Figures:
    """Write the simplified network as plain ONNX; a network that no exporter takes goes on without it."""
    from flow.onnx_model import write
    from flow.onnx_model.writer import SAMPLES

    try:
        error = write(model, out / "network.onnx", context.example, **context.options("onnx"))
    except UnsupportedError as refused:
        return {"file": None, "samples": 0, "max_error": None, "reason": str(refused)}
    return {"file": "network.onnx", "samples": SAMPLES, "max_error": error, "reason": ""}


def adopt(context: Context, out: Path) -> Figures:
    """Take the user's QONNX file in the place of what quantize makes."""
    from flow.model_source import onnx_path
    from flow.onnx_model.adopt import adopt as stage

    made = stage(onnx_path(context.config), context.data, out, progress=context.progress)
    return {**quantized_figures(made), "sizes": sizes(context.data)}


def quantize(context: Context, out: Path) -> Figures:
    """Quantize, fine-tune, export, prove."""
    from flow import network, pricing
    from flow.quantize import quantize as stage

    made = stage(
        network.load(context.folder("simplify")),
        context.example,
        out=out,
        data=context.data,
        **context.options("quantize"),
        cost=pricing.bits_cost(context.config, context.example),
        seed=context.config.seed,
        checkpoint=context.checkpoint,
        progress=context.progress,
    )
    return {**quantized_figures(made), "stopped": made.stopped, "history": list(made.history)}


def quantized_figures(made: Quantized) -> Figures:
    """Return what `load_quantized` reads again."""
    return {
        "accuracy": made.accuracy,
        "samples": made.samples,
        "inputs": [dataclasses.asdict(port) for port in made.inputs],
        "bias_bits": dict(made.bias_bits),
        "weight_bits": dict(made.weight_bits),
        "activation_bits": dict(made.activation_bits),
        "float_bound": dataclasses.asdict(made.float_bound) if made.float_bound else None,
        "precision": dataclasses.asdict(made.precision) if made.precision else None,
    }


def compress(context: Context, out: Path) -> Figures:
    """Code the weights, where nncodec is installed."""
    from flow.compress import compress as stage

    made = stage(load_quantized(context.entries["quantize"]), out=out, progress=context.progress)
    return {
        "status": made.status,
        "reason": made.reason,
        "file": made.path.name if made.path else None,
        "sha256": made.sha256,
        "bytes": made.bytes,
        "bytes_at_widths": made.bytes_at_widths,
        "bytes_as_float": made.bytes_as_float,
        "ratio": round(made.bytes_as_float / made.bytes, 3) if made.bytes else None,
        "tensors": made.tensors,
        "layers": dict(made.layers),
    }


def convert(context: Context, out: Path) -> Figures:
    """Write the HLS project."""
    from flow.convert import convert as stage

    folder = out / HLS_FOLDER
    folder.mkdir()
    project = stage(
        load_quantized(context.entries["quantize"]),
        out=folder,
        board=context.config.board,
        clock_period_ns=context.config.synth_clk_period_ns,
        hls=context.config.hls,
        **context.options("convert"),
        progress=context.progress,
    )
    values = dataclasses.asdict(project)
    figures = {key: value for key, value in values.items() if not isinstance(value, Path)}
    return {**figures, "hardware": predicted_hardware(context, project)}


def predicted_hardware(context: Context, project: HlsProject) -> Figures:
    """Return what the network is expected to take, beside what it would have taken before pruning."""
    from flow import network, qonnx_graph
    from flow.estimate.compare import comparison
    from flow.estimate.graph import graph_work
    from flow.estimate.network import Bits, network_work
    from flow.fixed.lower import lower

    quantized = load_quantized(context.entries["quantize"])
    dense: Sequence[Any] = ()
    if "train" in context.entries:
        weight = max(quantized.weight_bits.values())
        activation = max(quantized.activation_bits.values(), default=weight)
        layers = {
            name: (quantized.weight_bits.get(name, weight), bits)
            for name, bits in quantized.activation_bits.items()
        }
        bits = Bits(weight, activation, quantized.inputs[0].dtype.width, layers)
        dense = network_work(network.load(context.folder("train")), context.example, bits)
    reuse = {layer.name: layer.reuse_factor for layer in project.layers if layer.reuse_factor}
    pruned = graph_work(lower(qonnx_graph.load(quantized.onnx_path)))
    return comparison(dense, pruned, reuse, project.io_type)


def emulate(context: Context, out: Path) -> Figures:
    """Run csim over the whole test set."""
    from flow.emulate import emulate as stage

    design = load_project(context.entries["convert"], context.entries["quantize"])
    options = context.options("emulate")
    if options.get("rtl"):
        options |= {"rtl_options": rtl_options(context), "rtl_folder": out / "rtl"}
    result = stage(design, **options, progress=context.progress)
    np.savez(out / "csim.npz", outputs_lsb=result.outputs)
    return {
        "samples": result.samples,
        "max_error_lsb": result.max_error_lsb,
        "accuracy": result.accuracy,
        "layers": [dataclasses.asdict(layer) for layer in result.layers],
        "layer_samples": result.layer_samples,
        "build_seconds": result.build_seconds,
        "samples_per_second": result.samples_per_second,
        "executor_samples_per_second": result.executor_samples_per_second,
        "header": result.header,
        "head_lsb": result.head_lsb,
        "tied_samples": result.tied_samples,
        "rtl": dataclasses.asdict(result.rtl) if result.rtl else None,
    }


LUT_SHARE = 0.6
"""Of the board's LUTs, that the network's Verilog may take by estimate; placing needs the rest."""


def rtl_options(context: Context) -> dict[str, Any]:
    """Return the options of the network's Verilog, with what the board has."""
    from flow.lower import LUTS
    from flow.toolchains.open.families import family_of

    board = boards.load(context.config.board)
    family = family_of(board)
    room = {
        "multipliers": max(1, int(DSP_SHARE * (board.resources.dsps or 0))),
        "luts": min(int(LUT_SHARE * (board.resources.luts or LUTS) / family.packing), LUTS),
        **family.facts,
        "clock_period_ns": board.clock_period_ns,
    }
    return room | context.options("rtl")


def synthesize(context: Context, out: Path) -> Figures:
    """Build the bitstream; write the vendor's build where its tools are missing."""
    from flow.synthesize import NETLIST_FRAMES, toolchain_of
    from flow.synthesize import synthesize as stage

    options = context.options("synthesize")
    opened = toolchain_of(boards.load(context.config.board), options.get("toolchain")) == "open"
    with tempfile.TemporaryDirectory() as work:
        if opened and options.get("dense", True) and "train" in context.entries:
            options["dense_onnx"] = dense_quantized(context, Path(work))
        made = stage(
            load_project(context.entries["convert"], context.entries["quantize"]),
            board=context.config.board,
            out=out,
            **options,
            rtl_options=rtl_options(context),
            progress=context.progress,
        )
    done = made.path is not None
    return {
        "toolchain": "open" if opened else "vitis",
        "netlist_frames": options.get("netlist_frames", NETLIST_FRAMES) if opened else 0,
        "yosys": json.loads((out / "layers.json").read_text("utf-8")) if opened else {},
        "csynth": synthesized_layers(context, out) if done and not opened else {},
        "status": "done" if done else "not run",
        "bitstream": made.path.relative_to(out).as_posix() if made.path else None,
        "command": None
        if opened or not made.command
        else f"cd {shlex.quote(str(context.out / 'synthesize'))} && sh build.sh",
        "missing_tools": list(made.missing_tools),
        "report": dataclasses.asdict(made.report) if made.report else None,
    }


def dense_quantized(context: Context, out: Path) -> Path:
    """Return the unpruned network as a QONNX file, at the widths of the pruned one, calibrated alone."""
    from flow import network
    from flow.quantize import quantize as stage
    from flow.simplify import simplify as smaller

    context.progress(0, 1, "quantizing the unpruned network, to compare")
    figures = context.entries["quantize"].figures
    layers = {name: {"weight_bits": bits} for name, bits in figures["weight_bits"].items()}
    for name, bits in figures["activation_bits"].items():
        layers.setdefault(name, {})["activation_bits"] = bits
    options = context.options("quantize")
    fixed = {
        key: options[key] for key in ("input_bits", "bias_bits", "scales", "per_channel") if key in options
    }
    model = smaller(network.load(context.folder("train")), context.example, seed=context.config.seed).model
    made = stage(
        model,
        context.example,
        out=out,
        data=context.data,
        layers=layers,
        epochs=0,
        seed=context.config.seed,
        **fixed,
    )
    return made.onnx_path


def synthesized_layers(context: Context, out: Path) -> Figures:
    """Return what C synthesis said about each layer, by the network's names, and about the design."""
    from flow.toolchains.vitis_modules import layer_reports
    from flow.toolchains.vitis_reports import parse_csynth_xml

    project = load_project(context.entries["convert"], context.entries["quantize"])
    report = out / "reports" / "csynth.xml"
    found = layer_reports(report, out / "hls" / "firmware" / f"{project.top}.cpp")
    names = {layer.name: layer.hls_name for layer in project.layers if layer.hls_name in found}
    layers = {name: dataclasses.asdict(found[hls_name].resources) for name, hls_name in names.items()}
    return {"layers": layers, "total": dataclasses.asdict(parse_csynth_xml(report).resources)}


def hardware(figures: Mapping[str, Mapping[str, Any]]) -> Figures:
    """Return the report's comparison: predicted before and after pruning, C synthesis, placed."""
    predicted = figures["convert"]["hardware"]
    synthesis = figures.get("synthesize", {})
    csynth = synthesis.get("csynth", {})
    layers = [{**row, "csynth": csynth.get("layers", {}).get(row["name"])} for row in predicted["layers"]]
    placed = (synthesis.get("report") or {}).get("resources")
    return {
        "layers": layers,
        "total": {**predicted["total"], "csynth": csynth.get("total"), "placed": placed},
    }


def use_threads(count: int) -> None:
    """Give torch so many threads: sums, and so the trained weights, depend on their number."""
    import torch

    torch.set_num_threads(count)


def sizes(data: Data) -> dict[str, int]:
    """Return the samples of every split."""
    return {split: len(getattr(data, split)[1]) for split in ("train", "validation", "test")}


def load_quantized(entry: Entry) -> Quantized:
    """Return the artifact of the stage quantize."""
    figures = entry.figures
    return Quantized(
        onnx_path=entry.folder / "model.onnx",
        golden_path=entry.folder / "golden.npz",
        inputs=tuple(_port(port) for port in figures["inputs"]),
        accuracy=figures["accuracy"],
        samples=figures["samples"],
        bias_bits=figures["bias_bits"],
        weight_bits=figures["weight_bits"],
        activation_bits=figures["activation_bits"],
        float_bound=FloatBound(**figures["float_bound"]) if figures["float_bound"] else None,
    )


def load_project(entry: Entry, quantized: Entry) -> HlsProject:
    """Return the artifact of the stage convert."""
    figures = entry.figures
    layers = [
        HlsLayer(**{**layer, "shape": tuple(layer["shape"]), "dtype": FixedPoint(**layer["dtype"])})
        for layer in figures["layers"]
    ]
    return HlsProject(
        path=entry.folder / HLS_FOLDER,
        top=figures["top"],
        io_type=figures["io_type"],
        inputs=tuple(_port(port) for port in figures["inputs"]),
        outputs=tuple(_port(port) for port in figures["outputs"]),
        layers=tuple(layers),
        onnx_path=quantized.folder / "model.onnx",
        golden_path=quantized.folder / "golden.npz",
        clock_period_ns=figures["clock_period_ns"],
        part=figures["part"],
    )


def _port(values: Mapping[str, Any]) -> Port:
    return Port(values["name"], tuple(values["shape"]), FixedPoint(**values["dtype"]), values["scale"])


def layer_rows(entries: Mapping[str, Entry]) -> list[Figures]:
    """Return the report's table: every Conv and Linear layer before and after."""
    if "simplify" not in entries:
        return []
    costs = {
        side: [LayerCost(**c) for c in entries["simplify"].figures[side]] for side in ("before", "after")
    }
    after = {cost.name: cost for cost in costs["after"]}
    bits = entries["quantize"].figures if "quantize" in entries else {}
    hls = (
        {layer["name"]: layer for layer in entries["convert"].figures["layers"]}
        if "convert" in entries
        else {}
    )
    rows = []
    for cost in costs["before"]:
        left = after.get(cost.name)
        row: Figures = {"name": cost.name, "kind": cost.kind}
        for key, attribute in (("channels", "outputs"), ("parameters", "parameters"), ("macs", "macs")):
            row[f"{key}_before"] = getattr(cost, attribute)
            row[f"{key}_after"] = getattr(left, attribute) if left else 0
        row["weight_bits"] = bits.get("weight_bits", {}).get(cost.name)
        row["bias_bits"] = bits.get("bias_bits", {}).get(cost.name)
        row["activation_bits"] = bits.get("activation_bits", {}).get(cost.name)
        layer = hls.get(identifier(cost.name), {})
        row["reuse_factor"] = layer.get("reuse_factor")
        row["multipliers"] = layer.get("multipliers")
        rows.append(row)
    return rows


def board_facts(name: str) -> Figures:
    """Return a board as plain values."""
    board = boards.load(name)
    return {
        "name": board.name,
        "title": board.title,
        "part": board.part,
        "clock_period_ns": board.clock_period_ns,
        "resources": dataclasses.asdict(board.resources),
    }


def write_json(path: Path, values: Any) -> None:
    """Write values as JSON."""
    write_atomically(path, json.dumps(values, indent=1) + "\n")
