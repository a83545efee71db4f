"""Yosys, stage by stage: netlists and what they take, in parallel, kept by content."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from flow.build import plan
from flow.build.children import together
from flow.build.objects import Objects, digest
from flow.rtl import RtlDesign
from flow.rtl.streams import Stage
from flow.rtl.verilog import module_name, stage_module
from flow.toolchains.open import tools
from flow.toolchains.open.families import Family, resources_of
from flow.types import Plan, Progress, Resources, silent

NETLIST, CELLS = "netlist.il", "cells.json"


@dataclass(frozen=True)
class Piece:
    """One module after synthesis: its netlist, in yosys' RTLIL, and how many cells of each type it has."""

    module: str
    netlist: Path
    cells: Mapping[str, int]


class Yosys:
    """Yosys for a family of chips.

    Args:
        family: of the chip.
        folder: where scripts and logs go.
        timeout_s: limit for one module.
        cache: where netlists are kept; ``None``: the user's cache folder.
    """

    def __init__(
        self, family: Family, folder: Path, timeout_s: float | None, cache: Path | None = None
    ) -> None:
        self.family, self.folder, self.timeout_s = family, folder, timeout_s
        self.objects = Objects(cache, "yosys")

    def stages(self, design: RtlDesign, progress: Progress = silent) -> tuple[Piece, ...]:
        """Synthesize every stage of a design, as many at a time as there are cores.

        Raises:
            ToolError: yosys is missing, fails or runs past its limit.
        """
        stages = design.circuit.stages
        library = {path.name: path.read_text(encoding="utf-8") for path in design.sources}
        own = {f"{design.top}.sv", f"{design.top}_stages.sv"}
        library = {name: text for name, text in library.items() if name not in own}
        finished = 0

        def one(stage: Stage) -> Piece:
            nonlocal finished
            text = stage_module(design.circuit, stage, design.top)
            data = {name: (design.folder / name).read_text(encoding="utf-8") for name in stage.data}
            used = {name: text for name, text in library.items() if _used(name, stage, library)}
            made = self.piece(module_name(stage, design.top), text, used, data)
            finished += 1
            progress(finished, len(stages), f"{finished} of {len(stages)} stages synthesized (yosys)")
            return made

        return tuple(together(one, stages, len(os.sched_getaffinity(0))))

    def piece(
        self,
        module: str,
        text: str,
        library: Mapping[str, str],
        data: Mapping[str, str],
        *,
        boxes: str = "",
        pads: bool = False,
    ) -> Piece:
        """Synthesize one module, or take it from the cache.

        Args:
            module: its name.
            text: its Verilog.
            library: modules that it may instantiate, texts by file name.
            data: memory files by name.
            boxes: the text of modules that stay as they are.
            pads: add what a whole design has at its pins.
        """
        command = f"{self.family.synthesis} {'' if pads else self.family.pads} -top {module}"
        files = {"module.sv": text, "boxes.sv": boxes, **library, **data}
        reads = [f"read_verilog -sv -defer {name}" for name in library]
        reads += ["read_verilog -sv -lib boxes.sv", "read_verilog -sv module.sv"]
        script = [*reads, command, f"tee -q -o {CELLS} stat -json", f"write_rtlil {NETLIST}"]
        key = digest((version("pyosys"), *script, *(f"{k}\n{v}" for k, v in files.items())), ())

        def make(path: Path) -> None:
            work = self.folder / module
            work.mkdir(parents=True, exist_ok=True)
            self._run(work, {**files, "synth.ys": "\n".join(script) + "\n"}, (NETLIST, CELLS))
            for name in (CELLS, NETLIST):
                shutil.move(work / name, path.parent / name)  # the cache may be on another disk

        netlist = self.objects.get(key, NETLIST, make)
        stat = json.loads((netlist.parent / CELLS).read_text(encoding="utf-8"))
        return Piece(module, netlist, stat["design"]["num_cells_by_type"])

    def joined(self, top: str, pieces: Sequence[Piece], work: Path, *, writes: Sequence[str]) -> None:
        """Put pieces, the top first, together to one flat netlist.

        ``writes``: yosys' commands that write it into ``work``.
        """
        script = [f'read_rtlil -overwrite "{piece.netlist}"' for piece in pieces]
        script += [f"hierarchy -check -top {top}", "flatten", "opt_clean -purge", *writes]
        self._run(work, {"join.ys": "\n".join(script) + "\n"}, (), "join.ys")

    def _run(
        self, work: Path, files: Mapping[str, str], products: tuple[str, ...], script: str = "synth.ys"
    ) -> None:
        command = tools.command("yosys", (script,), f"{Path(script).stem}.log")
        plan.run(Plan(files, (command,), products), work, subject="synthesize", timeout_s=self.timeout_s)


def total(family: Family, pieces: Sequence[Piece]) -> Resources:
    """Return what pieces take together."""
    counts: dict[str, int] = {}
    for piece in pieces:
        for cell, count in piece.cells.items():
            counts[cell] = counts.get(cell, 0) + count
    return resources_of(family.cells, counts)


def _used(name: str, stage: Stage, library: Mapping[str, str]) -> bool:
    """Tell whether a stage's module is in this file, or names a module of it."""
    module = name.rsplit(".", 1)[0]
    return module == stage.module or module in library[f"{stage.module}.sv"]
