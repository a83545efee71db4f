"""Build plans: what is to run, and running it."""

from __future__ import annotations

import contextlib
import io
import os
import shlex
import shutil
import subprocess
import tarfile
import tempfile
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from flow.build import room
from flow.build.children import started as _start
from flow.errors import ConfigError, ToolError
from flow.files import write_atomically
from flow.types import Command, Plan

_HINTS = {
    "g++": "install it (Debian: apt install g++)",
    "ssh": "install it (Debian: apt install openssh-client)",
    "vitis_hls": "source Vitis HLS' settings64.sh",
    "vitis-run": "source Vitis' settings64.sh",
    "vivado": "source Vivado's settings64.sh",
}


_LAST_LINES = 30  # of a program's output, in messages
_SCRIPT = "build.sh"
_SCRIPT_HEAD = """\
#!/bin/sh
# The whole build, on any machine with its programs: sh build.sh
set -eu
cd "$(dirname "$0")"
step() {
    name=$1
    log=$2
    shift 2
    mkdir -p -- "$(dirname -- "$log")"
    status=0
    "$@" >"$log" 2>&1 </dev/null || status=$?
    [ $status -eq 0 ] && return
    printf "build: '%s' must exit with 0, not %s; see %s\\n" "$name" "$status" "$log" >&2
    exit $status
}
leaves() {
    [ -e "$1" ] && return
    printf "build: the commands must leave %s, not end without it; see their logs\\n" "$1" >&2
    exit 1
}
"""


@dataclass(frozen=True)
class Ended:
    """How a program ended: its status, the end of what it wrote to stderr, and whether its time was up."""

    status: int
    errors: tuple[str, ...]
    expired: bool


def find(program: str) -> Path | None:
    """Return where ``program`` lies on PATH, or None."""
    found = shutil.which(program)
    return Path(found) if found else None


def program_version(program: str) -> str | None:
    """Return the first line that ``program --version`` (or ``-version``) prints, or None."""
    path = find(program)
    if path is None:
        return None
    said: list[str] = []
    try:
        with _start(
            (str(path), version_option(program)),
            "version",
            60,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        ) as process:
            said = [line.strip() for text in process.communicate() for line in text.splitlines()]
            if process.expired:
                return None
    except ToolError:
        return None
    return next(filter(None, said), None)


def version_option(program: str) -> str:
    """Return what a program is asked for its version with."""
    return {"vivado": "-version", "vitis_hls": "-version", "ssh": "-V"}.get(program, "--version")


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


def archive(plan: Plan, path: Path) -> None:
    """Write the plan as a tar file that builds wherever its programs are: unpack it, then ``sh build.sh``.

    ``build.sh`` runs the commands in order, as `run` does; a plan that has a file of this name brings its own. The same
    plan gives the same bytes: names in order, no owner, no time. What a plan expects in its folder beside its own
    files is not in it.

    Args:
        plan: what to do.
        path: the file, replaced if it is there.

    Raises:
        ConfigError: a file, log or product would lie outside the folder that the archive is unpacked into.
    """
    for name in (*plan.files, *(command.log for command in plan.commands), *plan.products):
        plain = PurePosixPath(name)
        if plain.is_absolute() or ".." in plain.parts or str(plain) != name or name == "." or "\\" in name:
            raise ConfigError(
                f"archive: a plan's names must be plain paths inside its folder, not {name!r}; name it from there"
            )
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, text in sorted({_SCRIPT: _script(plan), **plan.files}.items()):
            content = text.encode()
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o755 if name == _SCRIPT else 0o644
            tar.addfile(member, io.BytesIO(content))
    write_atomically(path, target.getvalue())


def _script(plan: Plan) -> str:
    steps = [
        f"step {shlex.join((command.name or command.argv[0], command.log, *command.argv))}\n"
        for command in plan.commands
    ]
    return _SCRIPT_HEAD + "".join(steps) + "".join(f"leaves {shlex.quote(name)}\n" for name in plan.products)


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
        ToolError: a program is missing, fails, runs past its limit, or leaves a product out; a disk is full.
    """
    for command in plan.commands:
        require(command.argv[0], subject)
    places = (folder, *((folder / name).parent for name in plan.products))
    with room.room(subject, *places):
        write(plan, folder)
        for command in plan.commands:
            _run_one(command, folder, subject, timeout_s, env, on_line, places)
    for name in plan.products:
        if not (folder / name).exists():
            if room.is_full(places):
                raise room.no_room(subject, places)
            raise without(plan, name, folder, subject)
    return tuple(folder / name for name in plan.products)


def failure(who: str, status: int, output: Sequence[str]) -> ToolError:
    """Return the error of what ended with a status other than 0, and with the last lines of this output."""
    shown = "\n".join(f"    {line}" for line in output[-_LAST_LINES:])
    return ToolError(f"{who} must exit with 0, not {status}; its output ends with\n{shown}")


def overtime(subject: str, program: str, timeout_s: float, log: Path) -> ToolError:
    """Return the error of a program that ran past its limit."""
    return ToolError(
        f"{subject}: {program!r} must end within {timeout_s:g} s, not run on; its output is in {log}"
    )


def without(plan: Plan, product: str, folder: Path, subject: str) -> ToolError:
    """Return the error of a plan whose commands ended well and left this product out."""
    last = plan.commands[-1]
    return ToolError(
        f"{subject}: {last.name or last.argv[0]!r} must leave {Path(product).name}, not end without it; "
        f"see {folder / last.log}"
    )


def pipe(
    argv: Sequence[str],
    *,
    subject: str,
    stdin: Path | bytes | None = None,
    output: Path | None = None,
    on_line: Callable[[bytes], None] | None = None,
    timeout_s: float | None = None,
) -> Ended:
    """Run one program, feed it and take what it prints, byte for byte; its status is the caller's to judge.

    Args:
        argv: the program, looked up on PATH, and its arguments; no shell reads them.
        subject: the stage, for error messages.
        stdin: a file or bytes that it reads; None: nothing.
        output: the file that stdout goes to; None: stdout comes line by line.
        on_line: called with every line of stdout as it comes, its end included.
        timeout_s: limit in seconds; the program is killed then, with all that it started.

    Raises:
        ToolError: it is not on PATH or cannot be started; a disk is full.
    """
    require(argv[0], subject)
    with contextlib.ExitStack() as stack:
        stack.enter_context(room.room(subject, *([output.parent] if output else [])))
        source: Any = subprocess.DEVNULL
        if isinstance(stdin, Path):
            source = stack.enter_context(stdin.open("rb"))
        elif stdin is not None:  # a file, unlike a pipe, needs nobody who writes while the output is read
            source = stack.enter_context(tempfile.TemporaryFile())
            source.write(stdin)
            source.seek(0)
        errors = stack.enter_context(tempfile.TemporaryFile())
        sink: Any = stack.enter_context(output.open("wb")) if output else subprocess.PIPE
        with _start(argv, subject, timeout_s, stdin=source, stdout=sink, stderr=errors) as process:
            for line in process.stdout or ():
                if on_line:
                    on_line(line)
            status = process.wait()
        return Ended(status, _last_lines(errors), process.expired)


def _last_lines(file: IO[bytes]) -> tuple[str, ...]:
    file.seek(max(0, file.seek(0, os.SEEK_END) - (1 << 16)))
    lines = file.read().decode(errors="replace").splitlines()
    return tuple(lines[-_LAST_LINES:])


def _run_one(
    command: Command,
    folder: Path,
    subject: str,
    timeout_s: float | None,
    env: Mapping[str, str] | None,
    on_line: Callable[[str], None] | None,
    places: Sequence[Path],
) -> None:
    program = command.name or command.argv[0]
    log = folder / command.log
    log.parent.mkdir(parents=True, exist_ok=True)
    tail: deque[str] = deque(maxlen=_LAST_LINES)
    with (
        log.open(
            "w", encoding="utf-8", buffering=1
        ) as sink,  # line by line: it outlives a flow that is killed
        _start(
            command.argv,
            subject,
            timeout_s,
            cwd=folder,
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as process,
    ):
        for line in process.stdout:
            sink.write(line)
            tail.append(line.rstrip())
            if on_line:
                on_line(line.rstrip())
        status = process.wait()
    if process.expired:
        assert timeout_s is not None
        raise overtime(subject, program, timeout_s, log)
    if status != 0:
        if room.told(tail) or room.is_full(places):
            raise room.no_room(subject, places)
        raise failure(f"{subject}: {program!r}", status, tuple(tail))
