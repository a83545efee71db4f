"""The stages from C++ to hardware as the pipeline runs them; `flow.run.steps` has those before, and how."""

from __future__ import annotations

import dataclasses
import json
import shlex
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from flow import boards
from flow.config import Config
from flow.run import records
from flow.run.depends import Depends, declared, samples
from flow.run.early import opened
from flow.run.steps import BOARD, HLS_FOLDER, INTEGERS, RTL, Context, Figures, load_project, load_quantized
from flow.run.store import Entry
from flow.synthesize import NETLIST_FRAMES, tools_of
from flow.types import Bitstream, Board, HlsProject


def convert_depends(config: Config, board: Board) -> Depends:
    """Return what `convert` depends on, and its forecast of the unpruned network."""
    return declared(
        config,
        board,
        stages=("train", "quantize"),
        options=("convert", "data"),
        settings=("hls", "synth_clk_period_ns", "seed"),
        fields=("part", "clock_period_ns", "resources"),
        packages=("hls4ml", "scikit-learn", *INTEGERS),
        contents=samples(config),
    )


def convert(context: Context, out: Path) -> Figures:
    """Write the HLS project."""
    from flow.convert import convert as stage

    folder = out / HLS_FOLDER
    folder.mkdir()
    project = stage(
        load_quantized(context.entries["quantize"]),
        out=folder,
        board=context.board,
        clock_period_ns=context.config.synth_clk_period_ns,
        hls=context.config.hls,
        **context.options("convert"),
        progress=context.progress,
    )
    return {**records.values(project), "hardware": predicted_hardware(context, project)}


def predicted_hardware(context: Context, project: HlsProject) -> Figures:
    """Return what the network is expected to take, beside what it would have taken before pruning."""
    from flow import network
    from flow.estimate.compare import comparison
    from flow.estimate.graph import graph_work
    from flow.estimate.network import Bits, network_work
    from flow.fixed import from_qonnx

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
    pruned = graph_work(from_qonnx.read(quantized.onnx_path))
    return comparison(dense, pruned, reuse, project.io_type)


def emulate_depends(config: Config, board: Board) -> Depends:
    """Return what `emulate` depends on: for the Verilog, also what of the board it is sized to."""
    rtl = bool(config.options("emulate").get("rtl"))
    return declared(
        config,
        board,
        stages=("quantize", "convert"),
        options=("emulate", "rtl") if rtl else ("emulate",),
        fields=_RTL_FIELDS if rtl else (),
        packages=(*INTEGERS, *(RTL if rtl else ())),
        programs=(_compiler(config), *(("g++", "make") if rtl else ())),
    )


def _compiler(config: Config) -> str:
    return str(config.options("emulate").get("compiler", "g++"))


def emulate(context: Context, out: Path) -> Figures:
    """Run csim over the whole test set."""
    from flow.emulate import emulate as stage

    design = load_project(context.entries["convert"], context.entries["quantize"])
    options = context.options("emulate")
    if options.get("rtl"):
        options |= {"rtl_options": rtl_options(context), "rtl_folder": out / "rtl"}
    result = stage(design, **options, progress=context.progress)
    np.savez(out / "csim.npz", outputs_lsb=result.outputs)
    return records.values(result)


_DENSE_OPTIONS = ("input_bits", "bias_bits", "scales", "per_channel")
"""Of ``[quantize]``, that the unpruned network takes over."""
_RTL_FIELDS = ("ps", "fpga", "clock_period_ns", "resources")
"""Of the board, that the network's Verilog is sized to."""
LUT_SHARE = 0.6
"""Of the board's LUTs, that the network's Verilog may take by estimate; placing needs the rest."""


def rtl_options(context: Context) -> dict[str, Any]:
    """Return the options of the network's Verilog, with what the board has."""
    from flow.rtl import LUTS
    from flow.toolchains.open.families import family_of

    board = context.board
    family = family_of(board)
    room = {
        "multipliers": max(1, boards.usable_dsps(board)),
        "luts": min(int(LUT_SHARE * (board.resources.luts or LUTS) / family.packing), LUTS),
        **family.facts,
        "clock_period_ns": board.clock_period_ns,
    }
    return room | context.options("rtl")


def synthesize_depends(config: Config, board: Board) -> Depends:
    """Return what `synthesize` depends on: the toolchain's programs, and for the open one the network's Verilog."""
    options = config.options("synthesize")
    tools = tools_of(board, options.get("toolchain"))
    shared: dict[str, Any] = {"fields": BOARD, "programs": tools.programs}
    if not opened(config, board):
        return declared(config, board, stages=("quantize", "convert"), options=("synthesize",), **shared)
    return declared(
        config,
        board,
        stages=("train", "quantize", "convert", "emulate"),
        options=("synthesize", "rtl", "data", *(f"quantize.{key}" for key in _DENSE_OPTIONS)),
        settings=("seed", "threads"),
        packages=(*tools.packages, *RTL, "scikit-learn", "brevitas", "onnxoptimizer", *INTEGERS),
        contents={**samples(config), "databases": tools.databases},
        **shared,
    )


def proven(config: Config, board: Board) -> Config:
    """Return the config with the Verilog among what is emulated, where it becomes the hardware."""
    if not opened(config, board):
        return config
    return config.with_options("emulate", {"rtl": True, **config.options("emulate")})


def synthesize(context: Context, out: Path) -> Figures:
    """Build the bitstream; write the vendor's build where its tools are missing."""
    from flow.synthesize import synthesize as stage

    options = context.options("synthesize")
    is_open = opened(context.config, context.board)
    with tempfile.TemporaryDirectory() as work:
        if is_open and options.get("dense", True) and "train" in context.entries:
            options["dense_onnx"] = dense_quantized(context, Path(work))
        if is_open:
            options["proven_rtl"] = context.folder("emulate") / "rtl"
        made = stage(
            load_project(context.entries["convert"], context.entries["quantize"]),
            board=context.board,
            out=out,
            **options,
            rtl_options=rtl_options(context),
            progress=context.progress,
        )
    return synthesis_figures(context, made, out, is_open, options)


def synthesis_figures(
    context: Context, made: Bitstream, out: Path, opened: bool, options: Mapping[str, Any]
) -> Figures:
    """Return what the manifest says of a build."""
    done = made.report is not None
    return {
        "toolchain": "open" if opened else "vitis",
        "netlist_frames": options.get("netlist_frames", NETLIST_FRAMES) if opened else 0,
        "yosys": json.loads((out / "layers.json").read_text("utf-8")) if opened else {},
        "csynth": synthesized_layers(context, out) if done and not opened else {},
        "status": "done" if done else "not run",
        "out_of_context": bool(options.get("out_of_context")),
        "host": options.get("host"),
        "bitstream": made.path.relative_to(out).as_posix() if made.path else None,
        "command": None
        if opened or not made.command
        else f"cd {shlex.quote(str(context.out / 'synthesize'))} && sh build.sh",
        "missing_tools": list(made.missing_tools),
        "report": records.values(made.report) if made.report else None,
    }


def built_by_hand(context: Context, entry: Entry) -> Entry:
    """Return the entry of synthesize with what a build by hand in its folder has left since, if it is whole."""
    from flow.synthesize import finished

    if entry.figures.get("status") != "not run" or entry.figures.get("toolchain") != "vitis":
        return entry
    project = load_project(context.entries["convert"], context.entries["quantize"])
    options = context.options("synthesize")
    made = finished(project, context.board, entry.folder, options.get("out_of_context", False))
    if made is None:
        return entry
    return dataclasses.replace(entry, figures=synthesis_figures(context, made, entry.folder, False, options))


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
    fixed = {key: options[key] for key in _DENSE_OPTIONS if key in options}
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
    from flow.toolchains.vitis.modules import layer_reports
    from flow.toolchains.vitis.reports import parse_csynth_xml

    project = load_project(context.entries["convert"], context.entries["quantize"])
    report = out / "reports" / "csynth.xml"
    found = layer_reports(report, out / "hls" / "firmware" / f"{project.top}.cpp")
    names = {layer.name: layer.hls_name for layer in project.layers if layer.hls_name in found}
    layers = {name: records.values(found[hls_name].resources) for name, hls_name in names.items()}
    return {"layers": layers, "total": records.values(parse_csynth_xml(report).resources)}


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
