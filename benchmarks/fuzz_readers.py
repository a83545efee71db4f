"""Thousands of spoilt inputs for every reader of files that the flow did not write: only its own errors may come out.

    python benchmarks/fuzz_readers.py [--cases N] [--seed N] [--only NAME]

Readers, whole inputs and ways to spoil them are those of ``tests/mutants.py``; ``tests/test_mutants.py`` runs some
hundred of seed 0. The first input that is answered with anything else ends the run with an error that names it.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from pathlib import Path

from figures import record

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import mutants

SLOW = ("onnx", "csynth modules")
"""One is compared with onnxruntime, the other has a megabyte: a third of the cases."""


def main() -> None:
    """Run all readers, then write the figure."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cases", type=int, default=6000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only")
    options = parser.parse_args()
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        for reader in mutants.readers(Path(folder) / "whole"):
            if options.only in (None, reader.name):
                count = options.cases // 3 if reader.name in SLOW else options.cases
                start = time.monotonic()
                refused = mutants.run(reader, count, options.seed, Path(folder))
                rows[reader.name] = {"inputs": count, "refused": refused}
                print(
                    f"{reader.name}: {count} inputs, {refused} refused, {time.monotonic() - start:.0f} s",
                    flush=True,
                )
    if options.only is None:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        value = {"inputs": sum(row["inputs"] for row in rows.values()), "peak_mib": peak, "readers": rows}
        record("fuzz_readers", value, "spoilt inputs, none answered with anything but the flow's own errors")


if __name__ == "__main__":
    main()
