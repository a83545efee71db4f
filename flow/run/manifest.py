"""The manifest: what a run measured, stage by stage, and what a board did with its bitstream."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from flow.config import Config
from flow.errors import ConfigError
from flow.files import file_digest, finite, read_sealed, text_digest, write_atomically, write_sealed
from flow.run import hardware_steps, records, steps
from flow.run.depends import package_version
from flow.run.store import Entry
from flow.types import Board, Deployment, Manifest

MANIFEST, REPORT, DEPLOYED = "manifest.json", "report.html", "deploy.json"


def write(out: Path, values: dict[str, Any]) -> Manifest:
    """Write manifest and report of a run."""
    from flow.report import render

    if record := deployment(out):
        _take_deployment(record, values)
    page = render(values)
    values["report_sha256"] = text_digest(page)
    write_sealed(out / MANIFEST, values)
    write_atomically(out / REPORT, page)
    return Manifest(out / MANIFEST, values)


def add_deployment(out: Path, done: Deployment) -> Manifest:
    """Take what a board did into the run's manifest and report.

    Raises:
        ConfigError: ``out`` holds no run that was synthesized.
    """
    try:
        values = read_sealed(out / MANIFEST)
        built = values["hashes"]["synthesize"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"deploy: {str(out)!r} must hold a run that was synthesized, not {error!r}; flow run makes one"
        ) from error
    record = {"synthesize": built, **records.values(done)}
    write_sealed(out / DEPLOYED, record)
    return write(out, values)


def covered(out: Path, hashes: Mapping[str, str]) -> bool:
    """Tell whether manifest and report are whole, and tell of the same results and of later stages, too."""
    try:
        values = read_sealed(out / MANIFEST)
        known = values["hashes"].items()
        whole = values["report_sha256"] == file_digest(out / REPORT)
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return False
    return bool(whole and known > hashes.items())


def deployment(out: Path) -> dict[str, Any] | None:
    """Return the record of what a board did; None: there is none.

    Raises:
        ConfigError: it is not what was written.
    """
    path = out / DEPLOYED
    try:
        return read_sealed(path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"deploy: {str(path)!r} must be as it was written, not altered ({error}); remove it, or deploy again"
        ) from error


def _take_deployment(record: dict[str, Any], values: dict[str, Any]) -> None:
    """Add what a board did, where it was with this very result of synthesize."""
    if record.pop("synthesize") != values.get("hashes", {}).get("synthesize"):
        return
    hop = _hop("golden vectors = board", record["samples"], record["max_error_lsb"], "LSB")
    values["deployment"] = record
    hops = values["equality"]["hops"]
    hops[:] = [known for known in hops if known["name"] != hop["name"]] + [hop]


def manifest_values(
    config: Config,
    board: Board,
    entries: Mapping[str, Entry],
    cached: Mapping[str, bool],
    total_seconds: float,
    packages: Iterable[str],
) -> dict[str, Any]:
    """Return what ``manifest.json`` holds; ``packages``: those whose versions it names."""
    figures = {name: entry.figures for name, entry in entries.items()}
    manifest: dict[str, Any] = {
        "name": config.name,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "flow_version": package_version("prune2bit"),
        "seed": config.seed,
        "config": {
            "board": config.board,
            "model": dict(config.model),
            **{k: finite(v) for k, v in config.tables.items()},
        },
        "board": steps.board_facts(board),
        "data": {"name": config.options("data").get("train", "digits"), **_sizes(figures)},
        "accuracy": {"float": figures["train"]["accuracy"]} if "train" in figures else {},
        "layers": steps.layer_rows(entries),
        "seconds": {
            **{name: round(entry.seconds, 3) for name, entry in entries.items()},
            "total": round(total_seconds, 3),
        },
        "cached": dict(cached),
        "hashes": {name: entry.hash for name, entry in entries.items()},
        "versions": {
            name: package_version(name) for name in sorted({*packages, "prune2bit", "scikit-learn"})
        },
    }
    if "prune" in figures:
        manifest["accuracy"]["pruned"] = figures["prune"]["accuracy"]
        manifest["channels"] = figures["prune"]["channels"]
        manifest["pruning"] = {key: figures["prune"][key] for key in ("stopped", "history", "figures")}
    if "simplify" in figures:
        manifest["macs"], manifest["parameters"] = (
            figures["simplify"]["macs"],
            figures["simplify"]["parameters"],
        )
        manifest["simplify"] = {"kept": figures["simplify"]["kept"]}
        manifest["onnx"] = figures["simplify"]["onnx"]
    if "quantize" in figures:
        manifest["accuracy"]["quantized"] = figures["quantize"]["accuracy"]
        manifest["quantization"] = {
            key: figures["quantize"][key]
            for key in ("weight_bits", "activation_bits", "bias_bits", "float_bound", "precision")
        }
    if "compress" in figures:
        manifest["compress"] = dict(figures["compress"])
    manifest["training"] = {
        name: {key: figures[name][key] for key in ("stopped", "history")}
        for name in ("train", "quantize")
        if "stopped" in figures.get(name, {})
    }
    manifest["equality"] = equality(figures)
    if "convert" in figures:
        manifest["hls"] = {
            key: figures["convert"][key] for key in ("top", "io_type", "clock_period_ns", "part")
        }
        manifest["hardware"] = hardware_steps.hardware(figures)
    if "emulate" in figures:
        manifest["emulation"] = {
            key: value for key, value in figures["emulate"].items() if key not in ("samples", "max_error_lsb")
        }
    if "synthesize" in figures:
        manifest["synthesis"] = figures["synthesize"]
    return manifest


def _sizes(figures: Mapping[str, Mapping[str, Any]]) -> dict[str, int]:
    """Return the samples of every split, from the first stage."""
    first = figures["train"]["samples"] if "train" in figures else figures["quantize"]["sizes"]
    return dict(first)


def equality(figures: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the equality chain: what was compared, over how many samples, and the largest difference."""
    hops = []
    if "simplify" in figures:
        values = figures["simplify"]
        hops.append(_hop("pruned = simplified", values["samples"], values["max_error"], "relative"))
    if "quantize" in figures and "simplify" in figures:
        bound = figures["quantize"]["float_bound"] or {"output_lsb": 0}
        hop = _hop("torch = QONNX", figures["quantize"]["samples"], bound["output_lsb"], "LSB")
        if bound["output_lsb"]:  # torch equals the integers; the file, in float32, was held to its bound
            hop |= {"unit": "LSB (ties in float32)", "exact": True}
        hops.append(hop)
    equality: dict[str, Any] = {"hops": hops}
    if "emulate" in figures:
        values = figures["emulate"]
        followed = values["samples"] - values["tied_samples"]
        hop = _hop("QONNX = integers", followed, values["head_lsb"], "LSB")
        if values["head_lsb"]:  # the executor has held it to one step of the float result
            hop |= {"unit": "LSB (softmax)", "exact": True}
        hops.append(hop)
        hops.append(_hop("integers = C++ (csim)", values["samples"], values["max_error_lsb"], "LSB"))
        if values["rtl"]:
            rtl = values["rtl"]
            hops.append(_hop("integers = Verilog (RTL)", rtl["frames"], rtl["max_error_lsb"], "LSB"))
        if frames := figures.get("synthesize", {}).get("netlist_frames"):
            hops.append(_hop("integers = netlist (yosys)", frames, 0, "LSB"))
        equality |= {
            "samples": values["samples"],
            "max_error_lsb": values["max_error_lsb"],
            "layers": [layer["name"] for layer in values["layers"]],
            "layer_samples": values["layer_samples"],
        }
    onnx = figures.get("simplify", {}).get("onnx", {})
    if onnx.get("file"):  # the writer has held it to its own tolerance
        hop = _hop("simplified = ONNX", onnx["samples"], onnx["max_error"], "relative")
        hops.append({**hop, "exact": True})
    if figures.get("compress", {}).get("status") == "done":
        hop = _hop("weights = decoded", figures["compress"]["tensors"], 0, "LSB")
        hops.append({**hop, "counted": "tensor"})
    return equality


def _hop(name: str, samples: int, max_error: float, unit: str) -> dict[str, Any]:
    from flow.simplify import TOLERANCE

    exact = max_error == 0 if unit == "LSB" else max_error <= TOLERANCE
    return {"name": name, "samples": samples, "max_error": max_error, "unit": unit, "exact": exact}
