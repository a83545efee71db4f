"""The operator table: docs/operators.md says what was measured, and a sample of its cells is measured here again."""

import json
import sys
from pathlib import Path

import pytest
from conftest import needs
from operator_cells import CASES, EXACT, WIDTHS, refusal, verdicts

from flow.estimate.io_types import IO_TYPES

ROOT = Path(__file__).parents[1]
ROWS = [
    json.loads(line)
    for line in (ROOT / "benchmarks" / "results" / "operators.jsonl").read_text(encoding="utf-8").splitlines()
]
VERDICTS = {(row["case"], row["io_type"], row["width"]): row["verdict"] for row in ROWS}
REFUSED = sorted({(case, width) for (case, _, width), verdict in VERDICTS.items() if verdict != EXACT})


def test_every_cell_was_measured_and_none_differs() -> None:
    assert set(VERDICTS) == {(case, io, width) for case in CASES for io in IO_TYPES for width in WIDTHS}
    assert [row for row in ROWS if "values differ" in row["verdict"]] == []


def test_the_page_says_what_was_measured() -> None:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    from operators import page

    assert (ROOT / "docs" / "operators.md").read_text(encoding="utf-8") == page(ROWS)


@needs("g++")
@pytest.mark.parametrize("io_type", IO_TYPES)
def test_operators_give_in_cpp_what_the_executor_gives(io_type: str, tmp_path: Path) -> None:
    """Every operator, each at another width."""
    cells = [
        (name, next(w for w in (*WIDTHS[place % 8 :], *WIDTHS) if VERDICTS[name, io_type, w] == EXACT))
        for place, name in enumerate(CASES)
    ]
    found = verdicts([(CASES[name], width) for name, width in cells], io_type, tmp_path)
    assert {cell: said for cell, said in zip(cells, found, strict=True) if said != EXACT} == {}


@pytest.mark.parametrize(("case", "width"), REFUSED)
def test_what_the_page_calls_refused_is_refused_with_that_reason(case: str, width: int) -> None:
    said = {VERDICTS[case, io, width] for io in IO_TYPES}
    assert refusal(CASES[case], width) in said
