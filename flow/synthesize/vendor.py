"""The vendor's road: scripts and a copy of the HLS project, built here, on another host, or carried to one by hand."""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from flow.build import plan as plans
from flow.build import remote
from flow.build.remote import Host
from flow.build.room import room
from flow.errors import ConfigError, ToolError
from flow.files import hashes, text_digest, write_json
from flow.toolchains.vitis import bitstream, log
from flow.toolchains.vitis import plan as vitis
from flow.toolchains.vitis.reports import hls4ml_keys
from flow.types import Bitstream, Board, HlsProject, Plan, Progress, Tools

REPORT = "report.json"
PREVIOUS = "previous"
"""Where the products of an earlier build are until a new one is whole."""
_COLLECTED = ("logs", "reports")
_BUILT = ("hls", "logs", "vitis", "vivado")


def check(board: Board) -> None:
    """Refuse a board that Vivado cannot build for (`UnsupportedError`)."""
    vitis.check_board(board)


def tools_of(board: Board) -> Tools:
    """Return the vendor's programs."""
    return Tools(programs=vitis.PROGRAMS)


def build(
    design: HlsProject,
    board: Board,
    out: Path,
    *,
    timeout_s: float | None,
    cosim: bool,
    out_of_context: bool,
    monitor: bool,
    host: Host | None,
    progress: Progress,
) -> Bitstream:
    """Write the build into ``out``, and run it where every program is there; see `flow.synthesize.synthesize`."""
    options = {"cosim": cosim, "out_of_context": out_of_context, "monitor": monitor}
    _check_folder(design, out)
    out.mkdir(parents=True, exist_ok=True)
    with _locked(out), room("synthesize", out):
        versions = _versions(host)
        plan = vitis.plan(design, board, hls=vitis.hls_program(versions), **options)
        absent = vitis.missing(versions)
        if absent and host is not None:
            raise _absent(absent, host)
        if not absent:
            vitis.check_versions(versions)
        _prepare(design, plan, out)
        if absent:
            progress(1, 1, f"written; {', '.join(absent)} not on PATH")
            return Bitstream(None, None, out, _by_hand(out), absent)
        steps = [step for step in vitis.STEPS if step != "cosimulation" or cosim]
        if out_of_context:
            steps = [step for step in steps if step not in ("block design", "bitstream")]
        _run(plan, out, host, timeout_s, _told(steps, progress))
        made = _checked(plan.products, out, board, design)
        progress(len(steps), len(steps), "done")
        return made


def _versions(host: Host | None) -> Mapping[str, str | None]:
    if host is not None:
        return remote.versions(host, vitis.PROGRAMS, subject="synthesize")
    # a program that is there and says nothing of itself is there all the same
    return {name: plans.program_version(name) or "" if plans.find(name) else None for name in vitis.PROGRAMS}


def _absent(programs: tuple[str, ...], host: Host) -> ToolError:
    named = " and ".join(repr(name) for name in programs)
    return ToolError(
        f"synthesize: {named} must be on PATH at {host.name}, not missing; name the settings64.sh there with "
        "[synthesize] host_setup"
    )


def _told(steps: list[str], progress: Progress) -> Callable[[str], None]:
    """Return what turns lines of the log into progress."""
    at = [0]

    def on_line(line: str) -> None:
        step, detail = log.detail(line)
        if step in steps:
            at[0] = steps.index(step)
            progress(at[0], len(steps), step)
        elif detail:
            progress(at[0], len(steps), f"{steps[at[0]]}: {detail}")

    return on_line


def _run(
    plan: Plan, out: Path, host: Host | None, timeout_s: float | None, on_line: Callable[[str], None]
) -> None:
    """Run the plan; what fails is told with the tools' own errors and what they call for."""
    try:
        if host is None:
            plans.run(plan, out, subject="synthesize", timeout_s=timeout_s, on_line=on_line)
        else:
            remote.run(
                plan,
                out,
                host,
                subject="synthesize",
                key=_key(plan, out),
                collect=_COLLECTED,
                timeout_s=timeout_s,
                on_line=on_line,
            )
    except ToolError as error:
        lines = log.errors(out)
        if not lines or "a full disk" in str(error):
            raise
        told = str(error).split("; its output ends with")[0]
        rule = log.advice((*lines, str(error)))
        shown = "\n".join(f"    {line}" for line in lines)
        raise ToolError(
            f"{told}{f'; {rule}' if rule else ''}; its first errors are (logs in {out / 'logs'})\n{shown}"
        ) from error


def _key(plan: Plan, out: Path) -> str:
    """Return what the build on another host is known by: its files."""
    return text_digest(json.dumps([dict(plan.files), hashes(out / "hls")], sort_keys=True))[:32]


def finished(design: HlsProject, board: Board, out: Path, out_of_context: bool) -> Bitstream | None:
    """Return what a build by hand has left in ``out``; ``None`` where it has not come to its end.

    Raises:
        ConfigError: the bitstream is for another part.
        ToolError: its clock is not reached, or its bitstream or a report is damaged.
    """
    products = vitis.products(design.top, out_of_context)
    return _checked(products, out, board, design) if (out / products[0]).is_file() else None


def _checked(products: tuple[str, ...], out: Path, board: Board, design: HlsProject) -> Bitstream:
    """Return the result of a build, its report written beside it; a bitstream that is not good is refused."""
    report = vitis.report(out)
    # the scripts check it as well; a bitstream that misses its clock must not pass for any reason
    if report.slack_ns is None or report.slack_ns < 0:
        raise ToolError(
            f"synthesize: the worst setup slack must be 0 ns or more, not {report.slack_ns} ns; raise "
            f"synth_clk_period_ns above {design.clock_period_ns:g}"
        )
    bit = next((out / name for name in products if name.endswith(".bit")), None)
    if bit:
        bitstream.check_part(bitstream.read(bit, subject="synthesize"), board.part, subject="synthesize")
    write_json(out / REPORT, hls4ml_keys(report))
    shutil.rmtree(out / PREVIOUS, ignore_errors=True)
    return Bitstream(path=bit, report=report, folder=out, command=_by_hand(out))


def _by_hand(out: Path) -> str:
    return f"cd {shlex.quote(str(out))} && sh build.sh"


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Keep a second build out of the folder."""
    folder = os.open(out, os.O_RDONLY)  # the folder itself: no file is left, and none can be taken away
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise ConfigError(
            f"synthesize: {str(out)!r} must be used by one build at a time, not two; wait for the other, or choose "
            "another folder"
        ) from error
    finally:
        os.close(folder)


def _check_folder(design: HlsProject, out: Path) -> None:
    """Refuse, before anything is written, a folder inside the HLS project and a project that is not whole."""
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


def _prepare(design: HlsProject, plan: Plan, out: Path) -> None:
    """Write the plan and a fresh copy of the HLS project into ``out``; old products wait in ``previous/``."""
    for name in (*plan.products, REPORT):
        if (out / name).exists():
            (out / PREVIOUS / name).parent.mkdir(parents=True, exist_ok=True)
            os.replace(out / name, out / PREVIOUS / name)
    for name in _BUILT:  # logs of an earlier build are not this one's
        shutil.rmtree(out / name, ignore_errors=True)
    shutil.copytree(design.path, out / "hls", ignore=shutil.ignore_patterns("*.o", "*.so", "__pycache__"))
    plans.write(plan, out)
