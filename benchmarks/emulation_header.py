"""Compares our headers for emulation with the vendor's in thousands of random cases; every case is new C++.

    python benchmarks/emulation_header.py [minutes]      20 without a number; later runs go on with other cases

A case is a pair of types with everything that is done with them, over all values of narrow numbers and over edges and
random values of wide ones (tests/number_programs.py).
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from pathlib import Path

from figures import add_row, record, rows

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from number_programs import conversions, differences, operations

NAME = "emulation_header"
WIDTHS = [
    ((1, 8), (2, 8)),
    ((1, 9), (20, 63)),
    ((20, 63), (2, 9)),
    ((30, 64), (30, 63)),
    ((60, 100), (20, 63)),
]


def cases(seed: int) -> list[str]:
    """Return the C++ lines of a chunk: all roundings and overflows, and two cases of every other kind."""
    draw = random.Random(seed)
    return conversions(draw, *WIDTHS[seed % len(WIDTHS)]) + operations(draw, 2)


def main(minutes: float) -> None:
    """Run chunks until the time is up."""
    end = time.monotonic() + 60 * minutes
    while time.monotonic() < end:
        seed = 1000 + len(rows(NAME))
        lines = cases(seed)
        with tempfile.TemporaryDirectory() as folder:
            different = differences(lines, Path(folder))
        add_row(NAME, {"seed": seed, "cases": len(lines), "different": different})
        print(seed, len(lines), different, flush=True)
    done = rows(NAME)
    record(f"{NAME}_cases", sum(row["cases"] for row in done), "cases compared with the vendor's headers")
    record(f"{NAME}_different", sum(len(row["different"]) for row in done), "cases that differ", goal="0")


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 20)
