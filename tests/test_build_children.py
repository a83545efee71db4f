"""Programs end with the flow, whatever ends it, and with all that they have started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flow.build import plan
from flow.build.children import together
from flow.errors import ToolError
from flow.types import Command, Plan

pytestmark = pytest.mark.usefixtures("heard")

SCRIPT = """\
(trap '' TERM HUP INT; sleep 301) & echo $! > stubborn
setsid sh -c 'echo $$ > session; exec sleep 302' &
timeout 303 sh -c 'echo $$ > group; exec sleep 304' &
nohup sh -c 'echo $$ > nohup; exec sleep 305' > /dev/null 2>&1 &
while [ ! -s session ] || [ ! -s group ] || [ ! -s nohup ]; do sleep 0.02; done
echo $$ > self
echo ready
wait
"""
STARTED = ("self", "stubborn", "session", "group", "nohup")


def shell(script: str) -> Plan:
    return Plan({}, (Command(("sh", "-c", script), "out.log"),), ())


def gone(number: int, within_s: float = 5) -> bool:
    """Tell whether a process ends, or is a zombie."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state in "ZX":
            return True
        time.sleep(0.02)
    return False


def numbers(folder: Path, within_s: float = 30) -> list[int]:
    """Return the processes that `SCRIPT` told of, once it has told of all."""
    deadline = time.monotonic() + within_s
    while not all((folder / name).is_file() and (folder / name).read_text() for name in STARTED):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return [int((folder / name).read_text()) for name in STARTED]


def flow(folder: Path, code: str) -> subprocess.Popen[str]:
    """Start a program that has the flow run things in ``folder``."""
    head = (
        "import os, signal, sys, threading; from pathlib import Path; from flow.build import plan\n"
        "from flow.build.children import together; from flow.types import Command, Plan\n"
        f"folder, script = Path({str(folder)!r}), {SCRIPT!r}\n"
        "def run(folder=folder, **more):\n"
        "    folder.mkdir(exist_ok=True)\n"
        "    made = Plan({}, (Command(('sh', '-c', script), 'out.log'),), ())\n"
        "    plan.run(made, folder, subject='build', **more)\n"
    )
    return subprocess.Popen(
        (sys.executable, "-c", head + code), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize(
    "code",
    [
        "run()",
        "threading.Thread(target=run).start()",
        "plan.pipe(('sh', '-c', f'cd {folder}; {script}'), subject='build')",
    ],
    ids=["here", "in a thread", "piped"],
)
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGQUIT, signal.SIGSEGV])
def test_programs_die_with_a_flow_that_nobody_asked(
    number: signal.Signals, code: str, tmp_path: Path
) -> None:
    process = flow(tmp_path, code)
    started = numbers(tmp_path)
    process.send_signal(number)
    process.communicate()
    assert process.returncode == -number
    assert [gone(child) for child in started] == [True] * len(STARTED)


def test_programs_of_a_pool_die_with_it(tmp_path: Path) -> None:
    process = flow(tmp_path, "together(run, [folder / name for name in 'abc'], 3)")
    started = [number for name in "abc" for number in numbers(tmp_path / name)]
    process.kill()
    process.communicate()
    assert all(gone(child) for child in started)


def test_a_fork_of_the_flow_does_not_keep_its_programs_alive(tmp_path: Path) -> None:
    process = flow(
        tmp_path,
        "threading.Thread(target=run).start()\n"
        "while not (folder / 'self').is_file(): pass\n"
        "child = os.fork()\n"
        "if child == 0: os.dup2(os.open(os.devnull, os.O_RDWR), 1); os.dup2(1, 2); signal.pause()\n"
        "print(child, flush=True); signal.pause()",
    )
    started = numbers(tmp_path)
    assert process.stdout is not None
    fork = int(process.stdout.readline())
    try:
        process.kill()
        process.communicate()
        assert all(gone(child) for child in started)
        assert not gone(fork, within_s=0)
    finally:
        os.kill(fork, signal.SIGKILL)


def test_a_fork_of_the_flow_may_run_programs(tmp_path: Path) -> None:
    process = flow(
        tmp_path,
        "plan.pipe(('true',), subject='build')\n"
        "child = os.fork()\n"
        "if child == 0: run()\n"
        "print(child, flush=True); os.waitpid(child, 0)",
    )
    assert process.stdout is not None
    fork = int(process.stdout.readline())
    started = numbers(tmp_path)
    os.kill(fork, signal.SIGKILL)
    assert all(gone(child) for child in started)
    process.communicate()


def test_what_a_program_leaves_behind_ends_when_it_has_ended(tmp_path: Path) -> None:
    plan.run(shell("setsid sleep 306 > /dev/null 2>&1 & echo $! > left"), tmp_path, subject="build")
    assert gone(int((tmp_path / "left").read_text()))


def test_what_a_limit_ends_is_ended_in_every_session(tmp_path: Path) -> None:
    with pytest.raises(ToolError, match=r"must end within 2 s, not run on"):
        plan.run(shell(SCRIPT), tmp_path, subject="build", timeout_s=2)
    assert all(gone(child) for child in numbers(tmp_path))


def test_programs_know_nothing_of_each_other_and_other_programs_live_on(tmp_path: Path) -> None:
    other = subprocess.Popen(("sleep", "30"))
    plan.run(shell("env > env.txt"), tmp_path, subject="build")
    plan.run(shell("env > env2.txt"), tmp_path, subject="build")
    marks = [
        line
        for name in ("env.txt", "env2.txt")
        for line in (tmp_path / name).read_text().splitlines()
        if line.startswith("PRUNE2BIT_RUN=")
    ]
    assert len(set(marks)) == 2
    assert other.poll() is None
    other.kill()
    other.wait()


# ---------------------------------------------------------------- many at a time


def test_results_come_in_order() -> None:
    assert together(lambda number: number * number, range(20), 3) == [number**2 for number in range(20)]
    assert together(lambda number: number, (), 3) == []


@pytest.mark.parametrize("jobs", [1, 2, 3])
def test_where_one_fails_the_others_end_and_no_more_start(jobs: int, tmp_path: Path) -> None:
    def action(number: int) -> None:
        script = "sleep 0.5; exit 3" if number == jobs - 1 else f"touch {number}; sleep 60"
        plan.run(Plan({}, (Command(("sh", "-c", script), f"{number}.log"),), ()), tmp_path, subject="build")

    start = time.monotonic()
    with pytest.raises(ToolError) as error:
        together(action, range(20), jobs)
    assert str(error.value) == "build: 'sh' must exit with 0, not 3; its output ends with\n"
    assert time.monotonic() - start < 20
    begun = {path.name for path in tmp_path.iterdir() if path.suffix != ".log"}
    assert begun == {str(number) for number in range(jobs - 1)}


def test_an_interrupted_wait_ends_the_programs_at_once(tmp_path: Path) -> None:
    process = flow(
        tmp_path,
        "try: together(run, [folder / name for name in 'abcd'], 2)\n"
        "except KeyboardInterrupt: print('interrupted', sorted(path.name for path in folder.iterdir()))",
    )
    started = [number for name in "ab" for number in numbers(tmp_path / name)]
    start = time.monotonic()
    process.send_signal(signal.SIGINT)
    printed, said = process.communicate()
    assert time.monotonic() - start < 10
    assert (process.returncode, printed) == (0, "interrupted ['a', 'b']\n"), said
    assert all(gone(child) for child in started)
