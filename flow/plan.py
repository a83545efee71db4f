"""Build plans, and the only place of the flow that starts a program."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path

from flow.errors import ToolError
from flow.types import Command, Plan

_HINTS = {
    "g++": "install it (Debian: apt install g++)",
    "vitis_hls": "source Vitis HLS' settings64.sh",
    "vitis-run": "source Vitis' settings64.sh",
    "vivado": "source Vivado's settings64.sh",
}


def find(program: str) -> Path | None:
    """Return where ``program`` lies on PATH, or None."""
    found = shutil.which(program)
    return Path(found) if found else None


def program_version(program: str) -> str | None:
    """Return the first line that ``program --version`` (or ``-version``) prints, or None."""
    path = find(program)
    if path is None:
        return None
    option = "-version" if program in ("vivado", "vitis_hls", "vitis-run") else "--version"
    try:
        done = subprocess.run(
            (str(path), option),
            capture_output=True,
            text=True,
            errors="replace",
            timeout=60,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    return lines[0] if lines else None


def missing(plan: Plan) -> tuple[str, ...]:
    """Return the programs of ``plan`` that are not on PATH, each once, in order of use."""
    programs = dict.fromkeys(command.argv[0] for command in plan.commands)
    return tuple(program for program in programs if find(program) is None)


def require(program: str, subject: str) -> None:
    """Refuse to go on without ``program``.

    Raises:
        ToolError: it is not on PATH.
    """
    if find(program) is None:
        hint = _HINTS.get(program, "install it")
        raise ToolError(
            f"{subject}: {program!r} must be on PATH, not missing; {hint} (flow doctor shows what was found)"
        )


def write(plan: Plan, folder: Path) -> None:
    """Write the plan's files under ``folder``."""
    for name, text in plan.files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def run(
    plan: Plan,
    folder: Path,
    *,
    subject: str,
    timeout_s: float | None = None,
    env: Mapping[str, str] | None = None,
    on_line: Callable[[str], None] | None = None,
) -> tuple[Path, ...]:
    """Write the plan's files under ``folder``, run its commands in order and return its products.

    Args:
        plan: what to do; commands run with ``folder`` as the working directory.
        folder: an existing folder; logs go there too.
        subject: the stage, for error messages.
        timeout_s: limit for each command, in seconds.
        env: variables added to the environment.
        on_line: called with every line that a program prints.

    Raises:
        ToolError: a program is missing, fails, runs past its limit, or leaves a product out.
    """
    for command in plan.commands:
        require(command.argv[0], subject)
    write(plan, folder)
    for command in plan.commands:
        _run_one(command, folder, subject, timeout_s, env, on_line)
    products = tuple(folder / name for name in plan.products)
    for product in products:
        if not product.exists():
            last = plan.commands[-1]
            raise ToolError(
                f"{subject}: {last.name or last.argv[0]!r} must leave {product.name}, not end without it; "
                f"see {folder / last.log}"
            )
    return products


def _run_one(
    command: Command,
    folder: Path,
    subject: str,
    timeout_s: float | None,
    env: Mapping[str, str] | None,
    on_line: Callable[[str], None] | None,
) -> None:
    program = command.name or command.argv[0]
    log = folder / command.log
    log.parent.mkdir(parents=True, exist_ok=True)
    tail: deque[str] = deque(maxlen=30)
    with log.open("w", encoding="utf-8") as sink:
        process = _start(command, folder, subject, env)
        expired: list[bool] = []
        timer = _watchdog(process, timeout_s, expired)
        try:
            assert process.stdout is not None
            for line in process.stdout:
                sink.write(line)
                tail.append(line.rstrip())
                if on_line:
                    on_line(line.rstrip())
            status = process.wait()
        except BaseException:
            _kill(process)
            process.wait()
            raise
        finally:
            if timer:
                timer.cancel()
    if expired:
        raise ToolError(
            f"{subject}: {program!r} must end within {timeout_s:g} s, not run on; its output is in {log}"
        )
    if status != 0:
        shown = "\n".join(f"    {line}" for line in tail)
        raise ToolError(
            f"{subject}: {program!r} must exit with 0, not {status}; its output ends with\n{shown}"
        )


def _start(
    command: Command, folder: Path, subject: str, env: Mapping[str, str] | None
) -> subprocess.Popen[str]:
    try:
        return subprocess.Popen(
            command.argv,
            cwd=folder,
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
    except OSError as error:
        raise ToolError(
            f"{subject}: {command.argv[0]!r} must start, not fail with {error.strerror!r}; install it anew"
        ) from error


def _kill(process: subprocess.Popen[str]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _watchdog(
    process: subprocess.Popen[str], timeout_s: float | None, expired: list[bool]
) -> threading.Timer | None:
    """Kill the program when its time is up, and say so in ``expired``."""
    if timeout_s is None:
        return None

    def expire() -> None:
        expired.append(True)
        _kill(process)

    timer = threading.Timer(timeout_s, expire)
    timer.start()
    return timer
