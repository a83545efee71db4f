"""Kills whole runs at random moments: no process is left, nothing finished is lost, the hashes are the same.

    python benchmarks/kill_runs.py [--kills N] [--seed N]

The digits with few epochs, csim from an empty cache, stand-ins for Vitis HLS and Vivado: the law and the run are those
of ``tests/test_kill_runs.py``, which kills four times. A run is killed up to six times, in stages drawn anew, and then
let to its end. Half of the runs are killed by SIGKILL, half by SIGTERM.
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from figures import record

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import test_kill_runs as law

_PER_RUN = 6


def main() -> None:
    """Kill, compare and write the figure."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=30, help="of each signal")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    draw = random.Random(options.seed)
    hits: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as folder:
        runs = law.Runs(Path(folder) / "runs")
        undisturbed = runs.whole("undisturbed")
        print("undisturbed:", undisturbed["seconds"], flush=True)
        for number in (signal.SIGKILL, signal.SIGTERM):
            while (done := hits.get(number.name, 0)) < options.kills:
                runs.fresh_objects()
                count = min(_PER_RUN, options.kills - done)
                kills = law.drawn(draw, count, number, undisturbed["seconds"])
                hit, stages = law.check(runs, "killed", kills, undisturbed["hashes"])
                shutil.rmtree(runs.folder / "killed")
                hits[number.name] = done + hit
                print(number.name, hits[number.name], *sorted(stages), flush=True)
    record("kill_runs", hits, "kills, the same hashes, no process left", goal="30 of each")


if __name__ == "__main__":
    main()
