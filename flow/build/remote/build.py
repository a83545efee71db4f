"""A build plan on another host: it goes on there, whatever becomes of the connection."""

from __future__ import annotations

import re
import secrets
import shlex
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from flow.build.plan import failure, overtime, without, write
from flow.build.remote.folders import fetch, push
from flow.build.remote.ssh import Host, UnreachableError, call, check, full, job, script, talk
from flow.build.room import told
from flow.errors import ConfigError, ToolError
from flow.types import Plan

_Result = TypeVar("_Result")
_SHORT_S = 300  # for scripts that look and start: seconds there, minutes on a host that is all but stuck


def run(
    plan: Plan,
    folder: Path,
    host: Host,
    *,
    subject: str,
    key: str,
    collect: tuple[str, ...] = (),
    timeout_s: float | None = None,
    retry_s: tuple[float, ...] = (1, 2, 5, 10, 30, 60),
    give_up_s: float = 1800.0,
    on_line: Callable[[str], None] | None = None,
) -> tuple[Path, ...]:
    """Run a plan on a host as `flow.build.plan.run` does here, and return its products, fetched into ``folder``.

    The build lies in ``<host.folder>/<key>`` there. It outlives the connection, and this process: the same
    call finds it again, running or ended. One that has ended well is only fetched; one that failed starts anew in the
    call after the one that told. When a build starts, those of other keys that ended more than 30 days ago are removed.

    Args:
        plan: what to do; commands run in a copy of the folder, with nothing on stdin.
        folder: an existing folder; it goes there with all that is in it.
        host: where; its setup is sourced before the commands run.
        subject: the stage, for error messages.
        key: a hexadecimal digest of all that the build depends on.
        collect: files and folders that are fetched beside products and logs, where they exist.
        timeout_s: limit for each command, in seconds, from the call that starts the build.
        retry_s: waits before the first, second, ... try to connect again, in seconds; the last one repeats.
        give_up_s: how long the host may be silent, in seconds.
        on_line: called with every line that a program prints; from the first one on where a running build is found.

    Raises:
        ConfigError: the host or the key is not one; the host's setup is not there.
        ToolError: the host cannot be reached (at once at first, after ``give_up_s`` later); a program is missing there,
            fails, runs past its limit or leaves a product out; the build there was killed; its disk is full.
    """
    build = _Build(plan, folder, host, subject, key)
    check(host, subject)
    write(plan, folder)
    patience = _Patience(host, subject, retry_s, give_up_s)
    state = build.look()
    if state in ("absent", "failed"):
        part = f"{host.folder}/.part-{secrets.token_hex(8)}"
        patience.keep(lambda: push(host, folder, f"{part}/work", subject=subject))
        patience.keep(lambda: build.start(part, timeout_s))
    if state != "done":
        _judge(build, *_follow(build, patience, on_line), patience)
    fetched = patience.keep(lambda: build.fetch((*plan.products, *build.logs, *collect)))
    for product in plan.products:
        if product not in fetched:
            raise without(plan, product, folder, subject)
    return tuple(folder / name for name in plan.products)


def remove(host: Host, key: str, *, subject: str = "remove") -> None:
    """Remove a build from a host; one that runs is ended first, with all that it started.

    Args:
        host: where.
        key: as given to `run`.
        subject: the stage, for error messages.

    Raises:
        ConfigError, ToolError: as `flow.build.remote.call`.
    """
    text = script("remove", place=_place(host, key, subject))
    talk(host, text, subject=subject, timeout_s=_SHORT_S, setup=False)


def _place(host: Host, key: str, subject: str) -> str:
    if not re.fullmatch("[0-9a-f]{8,128}", key):  # it names a folder that is removed
        raise ConfigError(f"{subject}: key must be a hexadecimal digest, not {key!r}; take a SHA-256")
    return f"{host.folder}/{key}"


@dataclass(frozen=True)
class _Build:
    """One build on its host."""

    plan: Plan
    folder: Path
    host: Host
    subject: str
    key: str

    @property
    def place(self) -> str:
        return _place(self.host, self.key, self.subject)

    @property
    def logs(self) -> tuple[str, ...]:
        return tuple(command.log for command in self.plan.commands)

    def look(self) -> str:
        """Return how it stands there: absent, failed, done, or there, to be followed; what is absent can start."""
        programs = dict.fromkeys(command.argv[0] for command in self.plan.commands)
        text = f"set -- {shlex.join(programs)}\n" + script("look", place=self.place)
        state, *missing = call(self.host, text, subject=self.subject, timeout_s=_SHORT_S).splitlines()
        if state in ("absent", "failed") and missing:
            raise ToolError(
                f"{self.subject}: {missing[0]!r} must be on PATH of {self.host.name!r}, not missing; install it there, "
                "or give the host a setup file that finds it"
            )
        return state

    def start(self, part: str, timeout_s: float | None) -> None:
        """Start it from the folder ``part`` there, unless another has."""
        steps = [shlex.join((command.log, *command.argv)) for command in self.plan.commands]
        text = job(steps, timeout_s).encode()
        root = self.host.folder
        start = script("start", root=root, key=self.key, place=self.place, part=part, size=str(len(text)))
        call(self.host, start, subject=self.subject, timeout_s=_SHORT_S, stdin=text)

    def fetch(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """Fetch those of the files and folders that exist, and return their names."""
        return fetch(self.host, f"{self.place}/work", names, self.folder, subject=self.subject)


class _Patience:
    """Tries again what failed for want of a connection, until the host has been silent for too long.

    Lines that come and calls that end well are signs of life. A connection that was lost is none, so that one that
    is always lost again has an end too; the time that it held is not silence, though.
    """

    def __init__(self, host: Host, subject: str, retry_s: tuple[float, ...], give_up_s: float) -> None:
        self.host, self.subject, self.retry_s, self.give_up_s = host, subject, retry_s, give_up_s
        self.met()

    def met(self) -> None:
        """Note a sign of life."""
        self.last, self.tries = time.monotonic(), 0

    def keep(self, action: Callable[[], _Result]) -> _Result:
        """Call ``action`` until it ends without losing the connection, and return its result."""
        while True:
            begun = time.monotonic()
            try:
                result = action()
            except UnreachableError as error:
                if error.connected:
                    self.last += time.monotonic() - max(begun, self.last)
                if not error.heals:
                    raise
                self._wait(error)
            else:
                self.met()
                return result

    def _wait(self, error: UnreachableError) -> None:
        if time.monotonic() - self.last >= self.give_up_s:
            raise ToolError(
                f"{self.subject}: {self.host.name!r} must answer within {self.give_up_s:g} s, not be silent; "
                "a build that has started goes on there, and the same command picks it up"
            ) from error
        time.sleep(self.retry_s[min(self.tries, len(self.retry_s) - 1)])
        self.tries += 1


def _follow(
    build: _Build, patience: _Patience, on_line: Callable[[str], None] | None
) -> tuple[str, tuple[str, ...]]:
    """Hand on what the build prints until it ends; return its last state and its last lines."""
    token = secrets.token_hex(16).encode()
    reached = 0
    state = ""
    tail: deque[str] = deque(maxlen=30)

    def take(line: bytes) -> None:
        nonlocal reached, state
        if not line.endswith(b"\n"):
            return  # cut with the connection: it comes again
        patience.met()
        text, last, rest = line.partition(token)
        if last:
            state = rest.decode().strip()
        if text:
            reached += len(text)
            tail.append(text.decode(errors="replace").rstrip())
            if on_line:
                on_line(tail[-1])

    def attend() -> None:
        text = script("follow", place=build.place, offset=str(reached), token=token.decode())
        talk(build.host, text, subject=build.subject, on_line=take, setup=False)

    patience.keep(attend)
    return state, tuple(tail)


def _judge(build: _Build, state: str, tail: tuple[str, ...], patience: _Patience) -> None:
    """Raise the error of a build that did not end with 0, in the words of `flow.build.plan.run`."""
    place, status, *limit = state.split()
    if status == "0":
        return
    host, subject = build.host, build.subject
    if status == "full" or told(tail):
        raise full(host, subject)
    if status == "died":
        shown = "\n".join(f"    {line}" for line in tail)
        raise ToolError(
            f"{subject}: the build on {host.name!r} must run to its end, not be killed (by a restart, or for want of "
            f"memory); run it again to start anew; its output ends with\n{shown}"
        )
    fetched = patience.keep(lambda: build.fetch(build.logs))
    command = build.plan.commands[int(place)]
    program, log = command.name or command.argv[0], build.folder / command.log
    if status == "expired":
        raise overtime(subject, program, float(limit[0]), log)
    lines = log.read_text("utf-8", "replace").splitlines() if command.log in fetched else tail
    raise failure(f"{subject}: {program!r}", int(status), [line.rstrip() for line in lines])
