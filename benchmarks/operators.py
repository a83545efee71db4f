"""Every operator at every width in both forms of the C++ against the integer executor: writes docs/operators.md.

``python benchmarks/operators.py [CASE ...]``: all cases, or some of them anew. A killed run goes on where it stopped.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from figures import RESULTS, add_row, record, rows

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from operator_cells import CASES, EXACT, SAMPLES, WIDTHS, verdicts

from flow.estimate.io_types import IO_TYPES

NAME = "operators"
PAGE = Path(__file__).parents[1] / "docs" / "operators.md"
HEAD = f"""# Operators

What becomes HLS C++, in both forms and at every width. Each cell is a network of one operator between two quantizers
with weights of so many bits (1: bipolar, 2: ternary) and activations of so many, from 2 on, whose weights hold the ends
of their range, a channel of zeros and one that sums to zero.

**=** exact: on {SAMPLES} samples, random and at the ends of the range, the C++ (csim) gives what the integer executor
gives, 0 LSB. **-** with a number: refused before anything is built, for the reason under the table.
"""
FOOT = """
An operator that the table lacks (Pad, Slice, Split, ConvTranspose, LayerNormalization, ...) is refused by its name, as
are zero points other than 0, rounding UP, and a Softmax before another layer.

The executor itself is compared with QONNX, on every tensor, in `tests/test_fixed_from_qonnx_networks.py`. Scales
that are not powers of two go through an integer multiplier and a shift that give, for every integer of the range,
what the exact product of the file's scales rounds to. A softmax lies within one step of the float one.

`python benchmarks/operators.py` writes this page; a test holds it to `benchmarks/results/operators.jsonl`.
"""


def page(found: list[dict[str, Any]]) -> str:
    """Return docs/operators.md."""
    cells = {(row["case"], row["io_type"], row["width"]): row["verdict"] for row in found}
    reasons: dict[str, int] = {}

    def cell(case: str, io_type: str, width: int) -> str:
        verdict = cells.get((case, io_type, width))
        if verdict is None or verdict == EXACT:
            return "=" if verdict else "?"
        return f"- {reasons.setdefault(verdict, len(reasons) + 1)}"

    heads = [f"{'s' if io == 'io_stream' else 'p'}{width}" for io in IO_TYPES for width in WIDTHS]
    lines = [
        HEAD,
        "p: io_parallel, s: io_stream, with the bits.",
        "",
        f"| operator | {' | '.join(heads)} |",
        f"|:---|{'---|' * len(heads)}",
    ]
    for case in CASES:
        row = " | ".join(cell(case, io, width) for io in IO_TYPES for width in WIDTHS)
        lines.append(f"| {case} | {row} |")
    lines += ["", *(f"{number}. {reason}" for reason, number in reasons.items())]
    return "\n".join(lines) + "\n" + FOOT


def main() -> None:
    """Measure what is missing, then write the page."""
    again = set(sys.argv[1:])
    kept = [row for row in rows(NAME) if row["case"] in CASES and row["case"] not in again]
    if again:
        (RESULTS / f"{NAME}.jsonl").unlink(missing_ok=True)
        for row in kept:
            add_row(NAME, row)
    done = {(row["case"], row["io_type"]) for row in kept}
    for name, case in CASES.items():
        for io_type in IO_TYPES:
            if (name, io_type) in done:
                continue
            with tempfile.TemporaryDirectory() as folder:
                found = verdicts([(case, width) for width in WIDTHS], io_type, Path(folder))
            for width, verdict in zip(WIDTHS, found, strict=True):
                add_row(NAME, {"case": name, "io_type": io_type, "width": width, "verdict": verdict})
            print(name, io_type, sum(verdict == EXACT for verdict in found), flush=True)
    found = rows(NAME)
    PAGE.write_text(page(found), encoding="utf-8")
    count = sum(row["verdict"] == EXACT for row in found)
    record(
        "operators_exact",
        count,
        f"of {len(found)} cells",
        goal="every cell exact, or refused with its reason",
    )


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
