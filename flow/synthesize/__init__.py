"""From an HLS project to a bitstream with its report, or to a folder that a workstation builds as it is."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

from flow import boards
from flow import plan as plans
from flow.errors import ConfigError, ToolError
from flow.toolchains import vitis
from flow.types import Bitstream, Board, HlsProject, Plan, Progress, silent

TOOLCHAINS = {"vitis": vitis}


def synthesize(
    design: HlsProject,
    *,
    board: str | Board,
    out: Path,
    toolchain: str = "vitis",
    timeout_s: float | None = None,
    cosim: bool = False,
    progress: Progress = silent,
) -> Bitstream:
    """Build a bitstream of ``design`` for ``board``.

    The scripts and a copy of the HLS project are always written into ``out``, which can be carried to a
    workstation. They run here only if every program is on PATH.

    Args:
        design: the converted network.
        board: its name, or a board read from elsewhere.
        out: the folder for scripts, logs, reports and products.
        toolchain: ``vitis``.
        timeout_s: limit for each program, in seconds.
        cosim: also run the generated Verilog against the test bench (slow).
        progress: called at every step of the scripts.

    Returns:
        The bitstream and its report; or, where programs are missing, their names and the command that
        builds it, with ``path`` and ``report`` ``None``.

    Raises:
        ConfigError: toolchain, board, project or folder break a rule.
        UnsupportedError: the toolchain cannot build for the board.
        ToolError: a program failed, a product or a report is missing, or the clock is not reached.
    """
    chosen = boards.load(board) if isinstance(board, str) else board
    check_target(chosen, toolchain)
    plan = TOOLCHAINS[toolchain].plan(design, chosen, cosim=cosim)
    _prepare(design, plan, out)
    command = f"cd {shlex.quote(str(out))} && sh build.sh"
    absent = plans.missing(plan)
    if absent:
        progress(1, 1, f"written; {', '.join(absent)} not on PATH")
        return Bitstream(path=None, report=None, folder=out, command=command, missing_tools=absent)

    steps = [step for step in TOOLCHAINS[toolchain].STEPS if cosim or step != "cosimulation"]

    def on_line(line: str) -> None:
        step = line.removeprefix("flow: step ")
        if step != line and step in steps:
            progress(steps.index(step), len(steps), step)

    plans.run(plan, out, subject="synthesize", timeout_s=timeout_s, on_line=on_line)
    report = TOOLCHAINS[toolchain].report(out)
    # the scripts check it as well; a bitstream that misses its clock must not pass for any reason
    if report.slack_ns is None or report.slack_ns < 0:
        raise ToolError(
            f"synthesize: the worst setup slack must be 0 ns or more, not {report.slack_ns} ns; raise "
            f"clock_period_ns above {design.clock_period_ns:g}"
        )
    progress(len(steps), len(steps), "done")
    return Bitstream(path=out / plan.products[0], report=report, folder=out, command=command)


def check_target(board: Board, toolchain: str = "vitis") -> None:
    """Refuse, before any work, a toolchain or a board that cannot give a bitstream.

    Raises:
        ConfigError: there is no such toolchain, or the board has another.
        UnsupportedError: the toolchain cannot build for the board.
    """
    if toolchain not in TOOLCHAINS:
        raise ConfigError(
            f"synthesize: toolchain must be one of {', '.join(TOOLCHAINS)}, not {toolchain!r}; "
            "correct [synthesize]"
        )
    if toolchain not in board.toolchains:
        raise ConfigError(
            f"synthesize: toolchain for board {board.name!r} must be one of {', '.join(board.toolchains)}, "
            f"not {toolchain!r}; choose another board or toolchain"
        )
    TOOLCHAINS[toolchain].check_board(board)


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
