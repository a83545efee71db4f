"""The pipeline: the literal tuple of stages, what each one depends on, caching and resuming."""

from __future__ import annotations

import errno
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from flow import boards
from flow.build.objects import caching
from flow.config import Config, load
from flow.errors import ConfigError
from flow.files import finite, json_text
from flow.run import early, hardware_steps, manifest, steps
from flow.run.depends import Depends, changes, facts, key
from flow.run.model_files import network_files
from flow.run.model_source import enters_quantized
from flow.run.store import Entry, Store
from flow.synthesize import reach_host
from flow.types import Board, Manifest


@dataclass(frozen=True)
class Stage:
    """One stage of a run.

    Attributes:
        name: its name, its table in the config, and its folder.
        step: what it does.
        depends: what its result depends on; see `flow.run.depends.declared`.
        check: refuses, in the first seconds of a run, what cannot work.
        reach: refuses, before the first stage that is built, what is far away and does not answer.
        look_again: takes in what was done to a finished result by hand.
    """

    name: str
    step: steps.Step
    depends: Callable[[Config, Board], Depends]
    check: Callable[[Config, Board], None] = lambda config, board: None
    reach: Callable[[Config], None] = lambda config: None
    look_again: Callable[[steps.Context, Entry], Entry] = lambda context, entry: entry


_FROM_QONNX: tuple[Stage, ...] = (
    Stage("compress", steps.compress, steps.compress_depends),
    Stage("convert", hardware_steps.convert, hardware_steps.convert_depends, check=early.convert),
    Stage(
        "emulate",
        hardware_steps.emulate,
        hardware_steps.emulate_depends,
        check=early.emulate,
    ),
    Stage(
        "synthesize",
        hardware_steps.synthesize,
        hardware_steps.synthesize_depends,
        check=early.synthesize,
        reach=lambda config: reach_host(config.options("synthesize")),
        look_again=hardware_steps.built_by_hand,
    ),
)
STAGES: tuple[Stage, ...] = (
    Stage("train", steps.train, steps.train_depends, check=early.train),
    Stage("prune", steps.prune, steps.prune_depends, check=early.prune),
    Stage("simplify", steps.simplify, steps.simplify_depends, check=early.simplify),
    Stage("quantize", steps.quantize, steps.quantize_depends, check=early.quantize),
    *_FROM_QONNX,
)
QONNX_STAGES: tuple[Stage, ...] = (Stage("quantize", steps.adopt, steps.adopt_depends), *_FROM_QONNX)
"""Of a network that is quantized already: its file takes the place of what quantize makes."""
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
        checked = checked.with_options(stage, {**checked.options(stage), **given})
    target = boards.load(checked.board)
    checked = hardware_steps.proven(checked, target)
    stages, rebuilt = _chosen(checked, first, last)
    for chosen in stages:
        chosen.check(checked, target)
    folder = Path(out) if out is not None else Path("runs") / checked.name
    store = Store(folder)
    manifest.deployment(folder)
    with store.locked(), caching(store.root / "cache"):
        try:
            checked = replace(checked, network=network_files(checked, store.root))
            work = _Run(checked, target, folder, store, listener or (lambda *_: None))
            return work.through(stages, rebuilt, keep_report)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise store.no_room() from error
            raise


def stages_of(config: Config) -> tuple[Stage, ...]:
    """Return the stages of a run: a network that is quantized already starts at quantize."""
    return QONNX_STAGES if enters_quantized(config) else STAGES


def _chosen(config: Config, first: str | None, last: str | None) -> tuple[tuple[Stage, ...], set[str]]:
    """Return the stages of the run, and the names of those that are built whatever the store has."""
    stages = stages_of(config)
    names = [stage.name for stage in stages]
    for name in (first, last):
        if name is not None and name not in names:
            raise ConfigError(
                f"run: stage must be one of {', '.join(names)}, not {name!r}; correct --from or --to"
            )
    end = names.index(last) + 1 if last else len(names)
    return stages[:end], set(names[names.index(first) :] if first else ())


@dataclass(frozen=True)
class _Run:
    """A run under way."""

    config: Config
    board: Board
    out: Path
    store: Store
    listener: Listener

    def through(self, stages: tuple[Stage, ...], rebuilt: set[str], keep_report: bool) -> Manifest:
        """Take every stage from the store or build it; write manifest and report."""
        started = time.perf_counter()
        entries: dict[str, Entry] = {}
        cached: dict[str, bool] = {}
        packages: set[str] = set()
        for stage in stages:
            depends = stage.depends(self.config, self.board)
            packages.update(depends["packages"])
            made_of = facts(stage.name, {name: done.hash for name, done in entries.items()}, depends)
            name = key(made_of)
            entry = None if stage.name in rebuilt else self.store.find(stage.name, name)
            cached[stage.name] = entry is not None
            if entry is None:
                if all(cached[done] for done in entries):  # nothing was built yet
                    for ahead in stages:
                        ahead.reach(self.config)
                why = changes(self.store.earlier_facts(stage.name), made_of)
                self.listener(stage.name, "start", 0, 1, why)
                entry = self._build(stage, made_of, entries)
            else:
                entry = stage.look_again(self._context(stage, name, entries), entry)
            entries[stage.name] = entry
            self.store.show(stage.name, entry)
            self.listener(stage.name, "cached" if cached[stage.name] else "done", 1, 1, "")
        seconds = time.perf_counter() - started
        values = manifest.manifest_values(self.config, self.board, entries, cached, seconds, packages)
        if keep_report and manifest.covered(self.out, values["hashes"]):
            return Manifest(self.out / manifest.MANIFEST, values)
        return manifest.write(self.out, values)

    def _context(self, stage: Stage, name: str, entries: Mapping[str, Entry]) -> steps.Context:
        def progress(done: int, total: int, text: str) -> None:
            self.listener(stage.name, "progress", done, total, text)

        checkpoint = self.store.checkpoint(stage.name, name)
        return steps.Context(self.config, self.board, entries, self.out, progress, checkpoint)

    def _build(self, stage: Stage, made_of: Mapping[str, Any], entries: Mapping[str, Entry]) -> Entry:
        name = key(made_of)
        with self.store.building(stage.name) as folder:
            if "torch" in made_of["packages"]:
                steps.use_threads(self.config.threads)
            start = time.perf_counter()
            figures = stage.step(self._context(stage, name, entries), folder)
            seconds = time.perf_counter() - start
            plain = json.loads(json_text(finite(figures)))
            return self.store.add(stage.name, name, folder, plain, seconds, made_of)
