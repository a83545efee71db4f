"""The stages as the pipeline runs them: read the artifacts before, call the stage, write the artifact.

Every step reads from disk what an earlier step wrote there, in the same run or in one before, so that a
resumed run gives the same results as an undisturbed one.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import shlex
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flow import boards
from flow.config import Config
from flow.errors import ConfigError
from flow.names import identifier
from flow.store import Entry, write_atomically
from flow.types import Data, FixedPoint, HlsLayer, HlsProject, LayerCost, Port, Progress, Quantized

if TYPE_CHECKING:
    import torch
    from torch import nn

HLS_FOLDER = "hls"
Figures = dict[str, Any]
Step = Callable[["Context", Path], Figures]


@dataclass(frozen=True)
class Context:
    """What a step may look at: the config, the finished stages, the progress callback."""

    config: Config
    entries: Mapping[str, Entry]
    out: Path
    progress: Progress

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
    """Train the network, or load its checkpoint and measure it."""
    from flow import network, training
    from flow.train import train as stage

    training.seed_everything(context.config.seed)
    model = build_model(context.config)
    options = context.options("train")
    if "checkpoint" in context.config.model:
        load_checkpoint(model, context.config.base / context.config.model["checkpoint"])
        options = {"epochs": 0, **options}
    trained = stage(model, context.data, **options, seed=context.config.seed, progress=context.progress)
    network.save(trained.model, out)
    sizes = {split: len(getattr(context.data, split)[1]) for split in ("train", "validation", "test")}
    return {"accuracy": trained.accuracy, "samples": sizes}


def prune(context: Context, out: Path) -> Figures:
    """Zero channels."""
    from flow import network
    from flow.prune import prune as stage

    pruned = stage(
        network.load(context.folder("train")),
        context.example,
        data=context.data,
        **context.options("prune"),
        seed=context.config.seed,
        progress=context.progress,
    )
    network.save(pruned.model, out)
    write_json(out / "pruned.json", pruned.pruned)
    return {
        "accuracy": pruned.accuracy,
        "channels": {"before": pruned.channels_before, "after": pruned.channels_after},
        "stopped": pruned.stopped,
        "history": list(pruned.history),
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
    }


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
        seed=context.config.seed,
        progress=context.progress,
    )
    return {
        "accuracy": made.accuracy,
        "samples": made.samples,
        "inputs": [dataclasses.asdict(port) for port in made.inputs],
        "bias_bits": dict(made.bias_bits),
        "weight_bits": dict(made.weight_bits),
        "activation_bits": dict(made.activation_bits),
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
    return {key: value for key, value in values.items() if not isinstance(value, Path)}


def emulate(context: Context, out: Path) -> Figures:
    """Run csim over the whole test set."""
    from flow.emulate import emulate as stage

    design = load_project(context.entries["convert"], context.entries["quantize"])
    result = stage(design, **context.options("emulate"), progress=context.progress)
    np.savez(out / "csim.npz", outputs_lsb=result.outputs)
    return {
        "samples": result.samples,
        "max_error_lsb": result.max_error_lsb,
        "accuracy": result.accuracy,
        "layers": list(result.layers),
        "layer_samples": result.layer_samples,
        "build_seconds": result.build_seconds,
        "samples_per_second": result.samples_per_second,
    }


def synthesize(context: Context, out: Path) -> Figures:
    """Write the vendor build, and run it where the tools are."""
    from flow.synthesize import synthesize as stage

    made = stage(
        load_project(context.entries["convert"], context.entries["quantize"]),
        board=context.config.board,
        out=out,
        **context.options("synthesize"),
        progress=context.progress,
    )
    done = made.path is not None
    return {
        "status": "done" if done else "not run",
        "bitstream": made.path.relative_to(out).as_posix() if made.path else None,
        "command": f"cd {shlex.quote(str(context.out / 'synthesize'))} && sh build.sh",
        "missing_tools": list(made.missing_tools),
        "report": dataclasses.asdict(made.report) if made.report else None,
    }


def use_threads(count: int) -> None:
    """Give torch so many threads: sums, and so the trained weights, depend on their number."""
    import torch

    torch.set_num_threads(count)


def build_model(config: Config) -> nn.Module:
    """Import ``package.module:function`` and call it.

    Raises:
        ConfigError: it cannot be imported, or does not return a torch module.
    """
    from torch import nn

    source = config.model["source"]
    module_name, _, function = source.partition(":")
    if not module_name or not function:
        raise ConfigError(
            f"[model]: source must be 'package.module:function', not {source!r}; add the function's name"
        )
    sys.path.insert(0, str(config.base.resolve()))
    try:
        loaded = sys.modules.get(module_name)  # it may have been edited since, in a notebook's process
        module = importlib.reload(loaded) if loaded else importlib.import_module(module_name)
        made = getattr(module, function)()
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"[model]: source {source!r} must be importable, not fail with {type(error).__name__}: {error}; "
            f"modules are looked up beside the config ({config.base}) first"
        ) from error
    finally:
        sys.path.remove(str(config.base.resolve()))
    if not isinstance(made, nn.Module):
        raise ConfigError(f"[model]: source {source!r} must return a torch module, not {type(made).__name__}")
    return made


def load_checkpoint(model: nn.Module, path: Path) -> None:
    """Load a plain state dict of tensors; nothing in the file is executed.

    Raises:
        ConfigError: the file is missing, holds more than tensors, or does not fit the network.
    """
    import pickle

    import torch

    if not path.is_file():
        raise ConfigError(
            f"[model]: checkpoint must be an existing file, not {str(path)!r}; correct the config"
        )
    advice = "save it with torch.save(model.state_dict(), file)"
    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise ConfigError(
            f"[model]: checkpoint {path.name!r} must be a plain state dict, not hold anything else "
            f"({type(error).__name__}); {advice}"
        ) from error
    if not isinstance(state, Mapping) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise ConfigError(
            f"[model]: checkpoint {path.name!r} must be a plain state dict, not hold anything else "
            f"({type(state).__name__}); {advice}"
        )
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()[1:3]]
        raise ConfigError(
            f"[model]: checkpoint {path.name!r} must fit the network, not differ: {' '.join(lines)}; "
            "correct source or checkpoint"
        ) from error


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
        onnx_path=entry.folder / HLS_FOLDER / "model.onnx",
        golden_path=quantized.folder / "golden.npz",
        clock_period_ns=figures["clock_period_ns"],
        part=figures["part"],
    )


def _port(values: Mapping[str, Any]) -> Port:
    return Port(values["name"], tuple(values["shape"]), FixedPoint(**values["dtype"]))


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
