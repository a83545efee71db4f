"""The report's section of the open tool chain: each layer before and after pruning, the routed design, the board."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console
from test_report import changed

from flow.report import render, table
from flow.report.synthesized import synthesized
from flow.report.view import view


def used(luts: int, flip_flops: int | None = 10, dsps: int = 1, bram_bits: int = 18_432) -> dict[str, Any]:
    return {"luts": luts, "flip_flops": flip_flops, "dsps": dsps, "bram_bits": bram_bits}


OPEN = changed(
    synthesis={
        "status": "done",
        "toolchain": "open",
        "yosys": {
            "layers": {"conv1": used(120), "fc": used(60)},
            "link": used(900),
            "total": used(1080, 30, 3, 55_296),
            "dense": {"layers": {"conv1": used(400), "gone": used(77), "fc": used(80)}, "total": used(557)},
        },
        "report": {"resources": used(1200, None), "fmax_mhz": 61.5, "slack_ns": 20.0},
    },
    hardware={"layers": [{"name": "conv1", "pruned": used(1)}], "total": {}},
)


def cells(row: Any) -> list[tuple[str, str | None]]:
    return [(cell.after, cell.before) for cell in row.cells]


def test_every_layer_stands_beside_the_unpruned_one() -> None:
    made = synthesized(OPEN)
    assert made is not None
    rows = {row.name: cells(row) for row in made.rows}
    assert list(rows) == ["conv1", "fc", "gone"]
    assert rows["conv1"][0] == ("120", "400")
    assert rows["gone"] == [("0", "77"), ("0", "10"), ("0", "1"), ("0", "18")]
    totals = {row.name: cells(row) for row in made.totals}
    assert totals["total"][0] == ("1,080", "557")
    assert totals["placed"][:2] == [("1,200", None), ("", None)]  # a figure that was not measured is no zero
    assert list(totals) == ["top", "total", "placed", "board"]


def test_it_takes_the_place_of_the_prediction_for_the_c() -> None:
    assert view(OPEN).hardware is None
    page = render(OPEN)
    assert "Synthesized in the open" in page and "Where the pruning went" not in page
    assert "61.5 MHz by nextpnr" in page
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(table(OPEN))
    lines = [line.split() for line in console.export_text().splitlines()]
    assert ["gone", "77", "→", "0", "10", "→", "0", "1", "→", "0", "18", "→", "0"] in lines


def test_without_a_build_there_is_no_section() -> None:
    assert synthesized(changed(synthesis={"status": "not run"})) is None
    alone = synthesized(changed(synthesis={"yosys": {"layers": {"fc": used(60)}}}))
    assert alone is not None and cells(alone.rows[0])[0] == ("60", None)


def test_a_netlist_without_place_and_route_says_what_is_missing() -> None:
    synthesis = {
        **OPEN["synthesis"],
        "status": "not run",
        "report": None,
        "missing_tools": ["nextpnr-xilinx", "CHIPDB"],
    }
    manifest = {**OPEN, "synthesis": synthesis}
    note = "The netlist is whole, but not placed: nextpnr-xilinx, CHIPDB not found; flow doctor shows"
    assert note in render(manifest)
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(table(manifest))
    shown = console.export_text()
    assert note in shown and "build.sh" not in shown
    made = synthesized(manifest)
    assert made is not None and [row.name for row in made.totals] == ["top", "total", "board"]
