"""Signals that end the command: what it has started ends first, then it says so, in a status of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Ctrl-C; timeout, docker stop, a cancelled job; a terminal that is closed."""
WORDS = "interrupted; finished stages are kept, the same command goes on from there"
_PATIENCE_S = 8.0
"""Until a command that does not come to its end is left; docker kills after 10 s."""


class Stopped(BaseException):
    """A signal has come. It is no KeyboardInterrupt, which typer would turn into a status and words of its own."""


def stoppable(command: Callable[[], object]) -> None:
    """Run a command, and end it by any of `SIGNALS` alike; for the main thread of a program of its own.

    A signal that is ignored already, such as SIGHUP under nohup, stays so.

    Raises:
        SystemExit: with 128 and the signal's number, if one has come.
    """
    came: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        if not came:  # timeout sends two
            came.append(number)
            late = threading.Timer(_PATIENCE_S, _leave, (number,))
            late.daemon = True  # for a library that swallows what is raised here
            late.start()
            raise Stopped

    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number in SIGNALS:
        if before[number] is not signal.SIG_IGN:
            signal.signal(number, stop)
    try:
        command()
    except BaseException:  # whatever became of `Stopped` on its way
        if not came:
            raise
    finally:
        for number in SIGNALS:
            if not came:
                signal.signal(number, before[number])
    if came:
        _say()
        sys.exit(128 + came[0])


def _leave(number: int) -> None:
    _say()
    os._exit(128 + number)


def _say() -> None:
    with contextlib.suppress(OSError):
        print(WORDS, file=sys.stderr, flush=True)
    for stream in (sys.stdout, sys.stderr):  # a closed terminal takes nothing, which would change the status
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
