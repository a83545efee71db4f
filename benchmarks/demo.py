"""Measures the digits demo: accuracy, size, equality and time over several seeds, fresh and unchanged."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from figures import record

import flow


def main(seeds: list[int]) -> None:
    """Run the demo for every seed and write the figures."""
    runs, seconds, again = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        for seed in seeds:
            for bucket in (seconds, again):
                start = time.perf_counter()
                manifest = flow.run(None, out=Path(folder) / str(seed), seed=seed)
                bucket.append(round(time.perf_counter() - start, 2))
            runs.append(manifest)
            print(f"seed {seed}: {seconds[-1]} s, then {again[-1]} s")
    points = [round(100 * (run["accuracy.quantized"] - run["accuracy.float"]), 2) for run in runs]
    channels = [round(1 - run["channels.after"] / run["channels.before"], 3) for run in runs]
    macs = [round(run["macs.before"] / run["macs.after"], 2) for run in runs]
    record(
        "demo_accuracy_float", [run["accuracy.float"] for run in runs], "share, a seed each", goal=">= 0.97"
    )
    record("demo_accuracy_change", points, "points, a seed each", goal=">= -1.5")
    record("demo_channels_removed", channels, "share, a seed each", goal=">= 0.6")
    record("demo_macs_ratio", macs, "dense / pruned, a seed each", goal=">= 3")
    record("demo_difference", max(run["equality.max_error_lsb"] for run in runs), "LSB, largest", goal="0")
    record("demo_seconds", statistics.median(seconds), "s, fresh, median", goal="<= 300")
    record("demo_seconds_unchanged", statistics.median(again), "s, second run, median", goal="<= 3")
    record("help_seconds", help_seconds(), "s, best of 5", goal="<= 0.3")


def help_seconds() -> float:
    """Return the time of ``flow --help``."""
    times = []
    for _ in range(5):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "flow.cli", "--help"], check=True, capture_output=True)
        times.append(time.perf_counter() - start)
    return round(min(times), 3)


if __name__ == "__main__":
    main([int(seed) for seed in sys.argv[1:]] or [0, 1, 2])
