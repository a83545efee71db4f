"""The vendor's road: scripts and a copy of the HLS project, built here or carried to a workstation."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

from flow import plan as plans
from flow.errors import ConfigError, ToolError
from flow.toolchains import vitis
from flow.types import Bitstream, Board, HlsProject, Plan, Progress


def check(board: Board) -> None:
    """Refuse a board that Vivado cannot build for (`UnsupportedError`)."""
    vitis.check_board(board)


def build(
    design: HlsProject, board: Board, out: Path, *, timeout_s: float | None, cosim: bool, progress: Progress
) -> Bitstream:
    """Write the build into ``out``, and run it if every program is on PATH; see `flow.synthesize.synthesize`."""
    plan = vitis.plan(design, board, cosim=cosim)
    _prepare(design, plan, out)
    command = f"cd {shlex.quote(str(out))} && sh build.sh"
    absent = plans.missing(plan)
    if absent:
        progress(1, 1, f"written; {', '.join(absent)} not on PATH")
        return Bitstream(path=None, report=None, folder=out, command=command, missing_tools=absent)

    steps = [step for step in vitis.STEPS if cosim or step != "cosimulation"]

    def on_line(line: str) -> None:
        step = line.removeprefix("flow: step ")
        if step != line and step in steps:
            progress(steps.index(step), len(steps), step)

    plans.run(plan, out, subject="synthesize", timeout_s=timeout_s, on_line=on_line)
    report = vitis.report(out)
    # the scripts check it as well; a bitstream that misses its clock must not pass for any reason
    if report.slack_ns is None or report.slack_ns < 0:
        raise ToolError(
            f"synthesize: the worst setup slack must be 0 ns or more, not {report.slack_ns} ns; raise "
            f"clock_period_ns above {design.clock_period_ns:g}"
        )
    progress(len(steps), len(steps), "done")
    return Bitstream(path=out / plan.products[0], report=report, folder=out, command=command)


def _prepare(design: HlsProject, plan: Plan, out: Path) -> None:
    """Write the plan and a fresh copy of the HLS project into ``out``, and remove old products."""
    source, copy = design.path.resolve(), (out / "hls").resolve()
    if source.is_relative_to(copy) or copy.is_relative_to(source):
        raise ConfigError(
            f"synthesize: out must be a folder apart from the HLS project {design.path}, not {out}; "
            "choose another folder"
        )
    for name in (
        f"firmware/{design.top}.cpp",
        f"firmware/{design.top}_axis.cpp",
        "tb/testbench.cpp",
        "tb/testbench.h",
        "tb_data/inputs.dat",
        "tb_data/golden.dat",
    ):
        if not (source / name).is_file():
            raise ConfigError(
                f"synthesize: HLS project {design.path} must hold {name}, not lack it; convert again"
            )
    out.mkdir(parents=True, exist_ok=True)
    for product in plan.products:
        (out / product).unlink(missing_ok=True)
    if copy.exists():
        shutil.rmtree(copy)
    shutil.copytree(source, copy, ignore=shutil.ignore_patterns("*.o", "*.so", "__pycache__"))
    plans.write(plan, out)
