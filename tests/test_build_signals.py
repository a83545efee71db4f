"""SIGINT, SIGTERM and SIGHUP end the command alike: programs first, then the words, then a status of its own."""

from __future__ import annotations

import os
import pty
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import needs
from test_build_children import SCRIPT, flow, gone, numbers

from flow.build.signals import WORDS, stoppable

pytestmark = pytest.mark.usefixtures("heard")

STOP = "from flow.build.signals import stoppable\n"
STATUSES = [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]


@pytest.mark.parametrize(("number", "status"), STATUSES)
@pytest.mark.parametrize(
    "code", ["run", "lambda: together(run, [folder / name for name in 'abc'], 3)"], ids=["one", "three"]
)
def test_programs_end_first_and_the_words_are_said(
    number: signal.Signals, status: int, code: str, tmp_path: Path
) -> None:
    process = flow(tmp_path, f"{STOP}stoppable({code})")
    folders = [tmp_path] if code == "run" else [tmp_path / name for name in "abc"]
    started = [number for folder in folders for number in numbers(folder)]
    process.send_signal(number)
    process.send_signal(number)  # as timeout does
    assert process.communicate() == ("", f"{WORDS}\n")
    assert process.returncode == status
    assert [gone(child, within_s=0.1) for child in started] == [True] * len(started)


def test_the_words() -> None:
    assert WORDS == "interrupted; finished stages are kept, the same command goes on from there"


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT])
def test_a_signal_that_is_ignored_stays_so(number: signal.Signals, tmp_path: Path) -> None:
    process = flow(tmp_path, f"{STOP}signal.signal({int(number)}, signal.SIG_IGN); stoppable(run)")
    started = numbers(tmp_path)
    process.send_signal(number)
    time.sleep(0.5)
    assert process.poll() is None
    process.terminate()
    assert process.communicate()[1] == f"{WORDS}\n"
    assert process.returncode == 143
    assert all(gone(child) for child in started)


def test_a_library_that_swallows_the_signal_is_left_after_a_while(tmp_path: Path) -> None:
    process = flow(
        tmp_path,
        f"{STOP}from flow.build import signals; signals._PATIENCE_S = 0.5\n"
        "def stubborn():\n"
        "    while True:\n"
        "        try: run()\n"
        "        except BaseException: script = 'sleep 60'\n"
        "stoppable(stubborn)",
    )
    started = numbers(tmp_path)
    process.terminate()
    assert process.communicate()[1] == f"{WORDS}\n"
    assert process.returncode == 143
    assert all(gone(child) for child in started)


def test_a_closed_terminal_ends_it(tmp_path: Path) -> None:
    code = f"""
import os, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_build_children import SCRIPT
from flow.build.signals import stoppable
from flow.build import plan
from flow.types import Command, Plan
from pathlib import Path
made = Plan({{}}, (Command(("sh", "-c", SCRIPT), "out.log"),), ())
print("a line that stays in the buffer", end="")
stoppable(lambda: plan.run(made, Path({str(tmp_path)!r}), subject="build"))
"""
    child, terminal = pty.fork()
    if child == 0:
        os.execv(sys.executable, (sys.executable, "-c", code))
    started = numbers(tmp_path)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 129
    assert all(gone(number) for number in started)


def test_handlers_are_the_commands_alone_and_go_with_it() -> None:
    def seen() -> list[object]:
        return [signal.getsignal(number) for number, _ in STATUSES]

    before, inside = seen(), []
    stoppable(lambda: inside.extend(seen()))
    assert seen() == before
    assert all(now is not then for now, then in zip(inside, before, strict=True))
    with pytest.raises(ValueError, match="mine"):
        stoppable(lambda: (_ for _ in ()).throw(ValueError("mine")).__next__())
    assert seen() == before


def test_as_a_library_no_handler_is_installed() -> None:
    code = (
        "import signal, tempfile; from pathlib import Path; import flow; from flow.build import plan\n"
        "from flow.types import Command, Plan\n"
        "before = [signal.getsignal(number) for number in range(1, 32)]\n"
        "plan.run(Plan({}, (Command(('true',), 'x.log'),), ()), Path(tempfile.mkdtemp()), subject='x')\n"
        "try: flow.run({'name': '..'})\n"
        "except flow.errors.ConfigError: pass\n"
        "print(before == [signal.getsignal(number) for number in range(1, 32)])\n"
    )
    done = subprocess.run((sys.executable, "-c", code), capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("True\n", "")


@needs("g++")
@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), STATUSES)
def test_a_run_that_is_stopped_in_the_compiler_goes_on(
    number: signal.Signals, status: int, finished: Path, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(finished, tmp_path / "out", symlinks=True))
    kept = {path.name for path in (out / ".store").iterdir() if path.is_dir()}
    (tmp_path / "waits").mkdir()
    compiler = tmp_path / "slow-g++"
    compiler.write_text(
        f'#!/bin/sh\ncase "$*" in *--version*) ;; *) [ -e {tmp_path}/go ] || {{ cd {tmp_path}/waits\n{SCRIPT}\n}} ;; '
        'esac\nexec g++ "$@"\n'
    )
    compiler.chmod(0o755)
    config = tmp_path / "flow.toml"
    config.write_text(
        'name = "small"\n[model]\nsource = "flow.demo:digits_cnn"\n[train]\nepochs = 3\n[quantize]\nepochs = 1\n'
        '[prune]\npruning_ratio = 0.875\nschedule = "linear"\nsteps = 4\npwe = 1\nepochs = 9\n'
        f'[emulate]\ncompiler = "{compiler}"\n'
    )
    command = (sys.executable, "-m", "flow", "run", str(config), "--out", str(out))
    env = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
    started = numbers(tmp_path / "waits", within_s=240)
    process.send_signal(number)
    said = process.communicate()[1]
    assert (process.returncode, said.splitlines()[-1]) == (status, WORDS)
    assert "Traceback" not in said
    assert all(gone(child, within_s=0.1) for child in started)
    left = {path.name for path in (out / ".store").iterdir() if path.is_dir()}
    assert kept <= left
    assert not any(name.startswith(".") for name in left)
    (tmp_path / "go").touch()
    again = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    assert again.returncode == 0, again.stderr
