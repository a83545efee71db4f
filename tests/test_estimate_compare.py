"""Where the pruning went: both networks at one pace, sums that add up, and the report's table of real figures."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from flow.errors import ToolError
from flow.estimate import Work, design_cost, layer_cost
from flow.estimate.compare import OTHERS, comparison
from flow.report import render
from flow.report.hardware import hardware
from flow.toolchains.vitis.modules import layer_reports
from flow.toolchains.vitis.reports import parse_csynth_xml

ROOT = Path(__file__).resolve().parents[1]


def network(width: int) -> list[Work]:
    return [
        Work("fc1", "product", 16, width, 8, 18, 6, digits=20.0 * width),
        Work("relu", "rescale", 1, width, 18, 6),
        Work("fc2", "product", width, 5, 6, 18, 6, digits=8.0 * width),
    ]


REUSE = {"fc1": 8, "fc2": 16}


def test_every_layer_has_a_row_and_the_rows_add_up() -> None:
    found = comparison(network(64), network(16), REUSE, "io_parallel")
    assert [row["name"] for row in found["layers"]] == ["fc1", "fc2", OTHERS]
    costs = [layer_cost(work, REUSE.get(work.name, 1), "io_parallel") for work in network(16)]
    total = design_cost(costs, "io_parallel")
    assert found["total"]["pruned"]["luts"] == total.luts
    assert found["layers"][0]["pruned"]["luts"] == costs[0].luts
    own = total.luts - sum(cost.luts for cost in costs)
    for side in ("dense", "pruned"):
        assert sum(row[side]["luts"] for row in found["layers"]) + own == found["total"][side]["luts"]


def test_the_dense_network_keeps_the_pace_and_is_larger() -> None:
    found = comparison(network(64), network(16), REUSE, "io_parallel")
    for row in found["layers"][:2]:
        assert row["dense"]["interval_cycles"] <= row["pruned"]["interval_cycles"]
        assert row["dense"]["luts"] > row["pruned"]["luts"]
    assert (
        comparison(network(16), network(16), REUSE, "io_stream")["total"]["dense"]["luts"]
        >= (comparison(network(16), network(16), REUSE, "io_stream")["total"]["pruned"]["luts"])
    )


def test_without_the_network_before_there_is_one_side() -> None:
    found = comparison([], network(16), REUSE, "io_parallel")
    assert found["total"]["dense"] is None
    assert all(row["dense"] is None for row in found["layers"])


def test_a_layer_that_went_whole_is_among_the_others() -> None:
    gone = [*network(64), replace(network(64)[0], name="gone")]
    found = comparison(gone, network(16), REUSE, "io_parallel")
    more = (
        found["layers"][-1]["dense"]["luts"]
        - comparison(network(64), network(16), REUSE, "io_parallel")["layers"][-1]["dense"]["luts"]
    )
    assert more == layer_cost(gone[-1], 1, "io_parallel").luts


# ---------------------------------------------------------------- the page, with real reports


@pytest.fixture(scope="module")
def iris() -> Path:
    folder = Path(os.environ.get("FLOW_SHARED", ROOT.parent / "shared")) / "vendor/pynq_z2_iris_2025.1"
    if not folder.is_dir():
        (pytest.fail if os.environ.get("FLOW_REQUIRE_TOOLS") == "1" else pytest.skip)(f"{folder} is missing")
    return folder / "projeto_iris_hls_ip_axi/myproject_prj/solution1/syn/report"


SOURCE = """\
    nnet::dense<input_t, layer2_t, config2>(x, layer2_out, w2, b2); // Dense_fc1
    nnet::relu<layer2_t, layer3_t, relu_config3>(layer2_out, layer3_out); // Relu_relu1
    nnet::dense<layer3_t, layer4_t, config4>(layer3_out, layer4_out, w4, b4); // Dense_fc2
    nnet::dense<layer3_t, layer4_t, config9>(layer3_out, layer4_out, w4, b4); // Dense_fc9
"""


def test_real_modules_are_those_of_the_layers(iris: Path, tmp_path: Path) -> None:
    (tmp_path / "net.cpp").write_text(SOURCE)
    found = layer_reports(iris / "csynth.xml", tmp_path / "net.cpp")
    assert {name: report.resources.luts for name, report in found.items()} == {
        "Dense_fc1": 1037,
        "Relu_relu1": 304,
        "Dense_fc2": 1957,
    }
    with pytest.raises(
        ToolError, match=r"net2.cpp must be a readable file, not fail with .*; convert again$"
    ):
        layer_reports(iris / "csynth.xml", tmp_path / "net2.cpp")


def test_the_page_shows_predicted_synthesized_and_placed_figures(iris: Path, tmp_path: Path) -> None:
    (tmp_path / "net.cpp").write_text(SOURCE)
    found = layer_reports(iris / "csynth.xml", tmp_path / "net.cpp")
    made = comparison(network(64), network(16), REUSE, "io_parallel")
    real = {"fc1": vars(found["Dense_fc1"].resources), "fc2": vars(found["Dense_fc2"].resources)}
    layers = [{**row, "csynth": real.get(row["name"])} for row in made["layers"]]
    total = {
        **made["total"],
        "csynth": vars(parse_csynth_xml(iris / "csynth.xml").resources),
        "placed": {"luts": 3455, "flip_flops": 5126, "dsps": 110, "bram_bits": 3 * 18 * 1024},
    }
    shown = hardware({"hardware": {"layers": layers, "total": total}})
    assert shown is not None
    assert shown.columns[:4] == ("LUT", "LUT in C synthesis", "FF", "FF in C synthesis")
    first = {c: cell for c, cell in zip(shown.columns, shown.rows[0].cells, strict=True)}
    assert first["LUT in C synthesis"].after == "1,037"
    assert first["LUT"].after == f"{made['layers'][0]['pruned']['luts']:,}"
    assert first["LUT"].before == f"{made['layers'][0]['dense']['luts']:,}"
    whole = {c: cell.after for c, cell in zip(shown.columns, shown.totals[0].cells, strict=True)}
    assert (whole["LUT in C synthesis"], whole["FF in C synthesis"], whole["DSP in C synthesis"]) == (
        "4,725",
        "13,240",
        "110",
    )
    assert whole["BRAM18 in C synthesis"] == "3"
    assert [cell.after for cell in shown.totals[1].cells[::2]] == ["3,455", "5,126", "110", "3"]
    page = render({"name": "iris", "hardware": {"layers": layers, "total": total}})
    assert "Where the pruning went" in page and "1,037" in page and "13,240" in page


def test_without_a_synthesis_its_columns_are_left_out() -> None:
    shown = hardware({"hardware": comparison(network(64), network(16), REUSE, "io_parallel")})
    assert shown is not None
    assert shown.columns == ("LUT", "FF", "DSP", "BRAM18")
    assert [row.name for row in shown.totals] == ["total"]
    assert "Where the pruning went" not in render({"name": "none"})
    assert hardware({}) is None
