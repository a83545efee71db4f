"""Programs under way: none outlives the flow, whatever ends it.

A program gets a session of its own and a mark in its environment, which all that it starts inherits. Who ends it ends
every process with the mark, in whatever group or session. A shell beside the flow waits for the end of a pipe that the
flow alone holds open: when the flow dies, be it by SIGKILL, it ends what still has a mark of the flow's. Signals of
the kernel's (PR_SET_PDEATHSIG) reach neither grandchildren nor what a thread has started that lives on. A build on
another host has no mark, and goes on.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import secrets
import signal
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from glob import glob
from itertools import count
from typing import Any, TypeVar

from flow.errors import ToolError

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
_MARK = "PRUNE2BIT_RUN"
_ROUNDS = 100
"""A process may start another while it is looked for; each round finds what the last one missed."""
_WATCH = """\
trap '' HUP INT TERM
read -r _
rounds=0
while [ $rounds -lt 100 ]; do
    rounds=$((rounds + 1))
    found=$(grep -lF -- "$1" /proc/[0-9]*/environ 2>/dev/null)
    [ -n "$found" ] || exit 0
    for path in $found; do
        path=${path%/environ}
        kill -KILL "${path#/proc/}" 2>/dev/null
    done
done
"""


class _Watch:
    """The shell that outlives the flow; started with the first program."""

    def __init__(self) -> None:
        self.run = secrets.token_hex(16)
        self._numbers = count()
        self._lock = threading.Lock()
        self._shell: subprocess.Popen[bytes] | None = None

    def mark(self) -> str:
        """Return a new program's mark; the shell watches by then."""
        with self._lock:
            if self._shell is None:
                self._shell = subprocess.Popen(
                    ("/bin/sh", "-c", _WATCH, "watch", f"{_MARK}={self.run}-"),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    cwd="/",
                    env={"PATH": os.defpath},
                    start_new_session=True,
                )
        return f"{self.run}-{next(self._numbers)}"

    def end(self) -> None:
        """Let the shell end what is left, and wait for it."""
        if self._shell is not None:
            assert self._shell.stdin is not None
            self._shell.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._shell.wait(10)

    def leave(self) -> None:
        """In a fork of the flow: let go of the pipe, which is the flow's to end."""
        if self._shell is not None:
            assert self._shell.stdin is not None
            self._shell.stdin.close()
            self._shell.returncode = 0  # another's child: nobody here waits for it


_watch = _Watch()


def _start_anew() -> None:
    global _watch
    _watch.leave()
    _watch = _Watch()


atexit.register(lambda: _watch.end())
os.register_at_fork(after_in_child=_start_anew)


class _Gate:
    """What the threads of one `together` may start, and have started."""

    def __init__(self) -> None:
        self.closed = False
        self.running: dict[subprocess.Popen[Any], str] = {}

    def close(self) -> None:
        """Start nothing more; end what runs."""
        self.closed = True
        for process, mark in tuple(self.running.items()):
            _kill(process, mark)


_here = threading.local()


@contextlib.contextmanager
def started(argv: Sequence[str], subject: str, timeout_s: float | None, **options: Any) -> Iterator[Any]:
    """Start a program; when its time is up, or the block is left, it and all that it has started are ended.

    Args:
        argv: the program and its arguments; no shell reads them.
        subject: the stage, for error messages.
        timeout_s: limit in seconds, or None.
        options: of `subprocess.Popen`.

    Returns:
        The process; its ``expired`` says whether its time was up.

    Raises:
        ToolError: it cannot be started.
    """
    mark, gate = _watch.mark(), getattr(_here, "gate", None) or _Gate()
    if gate.closed:
        raise ToolError(
            f"{subject}: {argv[0]!r} must start before another fails, not after it; see the other's error"
        )
    env = {**(options.pop("env", None) or os.environ), _MARK: mark}
    try:
        process: Any = subprocess.Popen(tuple(argv), start_new_session=True, env=env, **options)
    except OSError as error:
        raise ToolError(
            f"{subject}: {argv[0]!r} must start, not fail with {error.strerror!r}; install it anew"
        ) from error
    process.expired = False

    def expire() -> None:
        process.expired = True
        _kill(process, mark)

    timer = threading.Timer(timeout_s, expire) if timeout_s is not None else None
    try:
        gate.running[process] = mark
        if gate.closed:  # while it started
            _kill(process, mark)
        if timer:
            timer.start()
        yield process
    except BaseException:
        _kill(process, mark)
        process.wait()
        raise
    finally:
        if timer:
            timer.cancel()
        gate.running.pop(process, None)
        for stream in filter(None, (process.stdout, process.stderr)):
            stream.close()
        _end_marked(mark)  # what it has left behind


def together(action: Callable[[_Item], _Result], items: Iterable[_Item], jobs: int) -> list[_Result]:
    """Call ``action`` for every item, ``jobs`` at a time; return the results in order.

    Where one fails, or the wait is interrupted, the programs of the others are ended, and no more are started.
    """
    gate = _Gate()

    def one(item: _Item) -> _Result:
        _here.gate = gate
        try:
            return action(item)
        except BaseException:
            gate.closed = True  # before this thread takes another item
            raise

    with ThreadPoolExecutor(jobs) as pool:
        futures = [pool.submit(one, item) for item in items]
        try:
            for future in as_completed(futures):
                future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            gate.close()  # before the pool waits for its threads
            raise
    return [future.result() for future in futures]


def _kill(process: subprocess.Popen[Any], mark: str) -> None:
    if process.returncode is None:  # nobody has asked for its end: its number is no other's yet
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    _end_marked(mark)


def _end_marked(mark: str) -> None:
    entry = f"{_MARK}={mark}".encode()
    for _ in range(_ROUNDS):
        found = [number for number in map(int, _numbers()) if entry in _environment(number)]
        for number in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        if not found:
            return


def _numbers() -> list[str]:
    return [path.split("/")[2] for path in glob("/proc/[0-9]*/environ")]


def _environment(number: int) -> list[bytes]:
    try:
        with open(f"/proc/{number}/environ", "rb") as file:
            return file.read().split(b"\0")
    except OSError:  # ended, or another user's
        return []
