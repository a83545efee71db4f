"""A run that is killed leaves no process and loses nothing: the same command goes on, to the same hashes.

Two kills of each kind; ``benchmarks/kill_runs.py`` does sixty.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
import vendor_tools
from conftest import SMALL, needs

from flow.build.signals import WORDS

pytestmark = pytest.mark.usefixtures("heard")

STAGES = ("train", "prune", "quantize", "emulate", "synthesize")
"""Where it is killed; the others take less than half a second."""
_OWN = "KILL_RUNS"
_WAIT = "setsid sleep 1.5 & sleep 1.5 & wait\n"
"""What takes its time in the stand-in for a vendor's tool: one child in the group, one in a session of its own."""


class Runs:
    """The digits with few epochs, through a stand-in for Vivado, in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        answers, programs = folder / "answers", folder / "programs"
        for made in (answers, programs):
            made.mkdir(parents=True)
        vendor_tools.leave(answers)
        hls = vendor_tools.HLS + _WAIT
        vendor_tools.put(programs, "vitis_hls", hls)
        vendor_tools.put(
            programs, "vivado", vendor_tools.VIVADO.replace("mkdir -p reports", f"{_WAIT}mkdir -p reports")
        )
        (folder / "small.json").write_text(json.dumps(SMALL))
        self.code = (
            "import json, sys; from pathlib import Path; from flow import cli; from flow.run import pipeline\n"
            "whole = pipeline.run\n"
            "pipeline.run = lambda config, **more: whole(json.loads(Path('small.json').read_text()), **more)\n"
            "sys.argv = ['flow', 'run', 'demo', '--out', sys.argv[1], '--json']; cli.main()\n"
        )
        self.env = {
            **os.environ,
            "PATH": f"{programs}:{os.environ['PATH']}",
            "FAKE": str(answers),
            "XDG_CACHE_HOME": str(folder / "cache"),
            "TMPDIR": str(folder / "tmp"),
            _OWN: str(folder),
        }
        (folder / "tmp").mkdir()

    def start(self, out: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            (sys.executable, "-c", self.code, out),
            cwd=self.folder,
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def whole(self, out: str) -> dict[str, Mapping[str, object]]:
        """Run to the end; return the manifest's values."""
        process = self.start(out)
        printed, said = process.communicate()
        assert process.returncode == 0, said
        return json.loads(printed)

    def fresh_objects(self) -> None:
        """Let csim compile anew."""
        for path in (self.folder / "cache" / "prune2bit" / "csim").glob("*"):
            subprocess.run(("rm", "-rf", str(path)), check=True)

    def killed(self, out: str, stage: str, after_s: float, number: signal.Signals) -> dict[str, str] | None:
        """Start a run and kill it in a stage; return what was finished by then, or None where the run was faster."""
        process = self.start(out)
        store = self.folder / out / ".store"
        while process.poll() is None and not list(store.glob(f".building-{stage}-*")):
            time.sleep(0.02)
        time.sleep(after_s)
        finished = self.finished(out)
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
        if process.returncode == 0:
            return None
        if number is signal.SIGKILL:
            assert process.returncode == -number
        else:
            assert (process.returncode, said.splitlines()[-1:]) == (128 + number, [WORDS])
        deadline = time.monotonic() + 5
        while self.left():
            assert time.monotonic() < deadline, self.left()
            time.sleep(0.02)
        return finished

    def finished(self, out: str) -> dict[str, str]:
        """Return the folders of the stages that are finished."""
        return {
            path.name: os.readlink(path)
            for path in sorted((self.folder / out).glob("*"))
            if path.is_symlink()
        }

    def left(self) -> list[str]:
        """Return the command lines of processes that a run has started, or is."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if f"{_OWN}={self.folder}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                    found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode())
            except OSError:
                continue
        return found


def check(
    runs: Runs, out: str, kills: list[tuple[str, float, signal.Signals]], hashes: object
) -> tuple[int, set[str]]:
    """Kill a run again and again, let it end, and compare; return how many kills hit, and the stages."""
    hit = []
    for stage, after_s, number in kills:
        finished = runs.killed(out, stage, after_s, number)
        if finished is None:
            continue
        hit.append(stage)
        assert finished.items() <= runs.finished(out).items(), "a finished stage is lost"
    values = runs.whole(out)
    assert values["hashes"] == hashes
    assert values["synthesis"]["status"] == "done"
    assert not list((runs.folder / out / ".store").glob(".building-*"))
    return len(hit), set(hit)


def drawn(
    draw: random.Random, count: int, number: signal.Signals, seconds: Mapping[str, float]
) -> list[tuple[str, float, signal.Signals]]:
    """Draw stages, in the order of a run, and moments in them."""
    stages = sorted(draw.choices(STAGES, k=count), key=STAGES.index)
    return [(stage, draw.uniform(0, seconds[stage]), number) for stage in stages]


@pytest.mark.slow
@needs("g++")
def test_killed_runs_leave_no_process_and_go_on_to_the_same_hashes(tmp_path: Path) -> None:
    runs = Runs(tmp_path)
    undisturbed = runs.whole("undisturbed")
    runs.fresh_objects()
    moments = [("quantize", 0.5), ("emulate", 1.0), ("synthesize", 0.7), ("synthesize", 1.8)]
    numbers = (signal.SIGKILL, signal.SIGTERM, signal.SIGTERM, signal.SIGKILL)
    kills = [(*moment, number) for moment, number in zip(moments, numbers, strict=True)]
    assert check(runs, "killed", kills, undisturbed["hashes"])[0] == len(kills)
