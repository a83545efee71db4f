"""The readers of the vendor's reports, against real reports of 2019.2, 2020.1 and 2025.1."""

import os
import re
from pathlib import Path

import pytest

from flow.errors import ToolError
from flow.toolchains import vitis_reports
from flow.types import Report, Resources

ROOT = Path(__file__).resolve().parents[1]


# ---------------------------------------------------------------- real reports


@pytest.fixture(scope="module")
def vendor():
    """The reports made by others: in the folder that FLOW_SHARED names, else beside the checkout."""
    folder = Path(os.environ.get("FLOW_SHARED", ROOT.parent / "shared")) / "vendor"
    if not folder.is_dir():
        reason = f"the vendor reports are not in {folder} (FLOW_SHARED)"
        (pytest.fail if os.environ.get("FLOW_REQUIRE_TOOLS") == "1" else pytest.skip)(reason)
    return folder


MLP = "pynq_z2_mlp_2019.2/dma_test_pynq_{}/"
MLP_RUN = MLP + "dma_test_pynq_v2/dma_test_pynq.runs/"
IRIS_RUN = "pynq_z2_iris_2025.1/vivado_project/iris_hardware/iris_hardware.runs/"
IRIS_HLS = "pynq_z2_iris_2025.1/projeto_iris_hls_ip_axi/myproject_prj/solution1/syn/report/"
VIVADO_HLS = "hls4ml_2020.1/test/pytest/test_report/Vivado/"
WRAPPER = "impl_1/design_1_wrapper_"


@pytest.mark.parametrize(
    ("path", "period_ns", "expected"),
    [
        # luts, flip-flops, DSPs, 18 Kibit block RAMs, latency, interval
        (MLP.format("stream") + "cpp_nn_v3/myproject_prj/solution1/syn/report/csynth.xml", 8.670,
         (44027, 14170, 21, 20, 173, 174)),
        (MLP.format("ap_fixed") + "cpp_nn_v2/myproject_prj/solution1/syn/report/csynth.xml", 6.982,
         (37975, 11873, 21, 20, 287, 288)),
        (VIVADO_HLS + "myproject_csynth.xml", 4.049, (2532, 7969, 73, 0, 10, 8)),
        (IRIS_HLS + "csynth.xml", 3.624, (4725, 13240, 110, 3, 32, 1)),
        (IRIS_HLS + "myproject_csynth.xml", 3.624, (4725, 13240, 110, 3, 32, 1)),
    ],
)  # fmt: skip
def test_csynth_reports_parse_to_exact_figures(vendor, path, period_ns, expected):
    luts, flip_flops, dsps, blocks, latency, interval = expected
    assert vitis_reports.parse_csynth_xml(vendor / path) == Report(
        resources=Resources(luts, flip_flops, dsps, blocks * 18 * 1024),
        fmax_mhz=1000 / period_ns,
        slack_ns=None,
        latency_cycles=latency,
        interval_cycles=interval,
    )


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        # luts, flip-flops, DSPs, 36 Kibit block RAM tiles
        (MLP_RUN.format("stream") + WRAPPER + "utilization_placed.rpt", (17192, 19167, 21, 5)),
        (MLP_RUN.format("ap_fixed") + WRAPPER + "utilization_placed.rpt", (17654, 18333, 21, 5)),
        (MLP_RUN.format("float") + WRAPPER + "utilization_placed.rpt", (18321, 19049, 21, 5)),
        (VIVADO_HLS + "vivado_synth.rpt", (1526, 2428, 66, 0)),
        ("svhn_cnn_xcu250_2020.1/pruned_cnn/vivado_synth.rpt", (123948, 43435, 5386, 42)),
        ("svhn_cnn_xcu250_2020.1/quantized_pruned_cnn/vivado_synth.rpt", (118931, 30702, 353, 34)),
        (IRIS_RUN + WRAPPER + "utilization_placed.rpt", (3455, 5126, 110, 1.5)),
        (IRIS_RUN + "synth_1/design_1_wrapper_utilization_synth.rpt", (3604, 5476, 110, 1.5)),
    ],
)
def test_utilization_reports_parse_to_exact_figures(vendor, path, expected):
    luts, flip_flops, dsps, tiles = expected
    assert vitis_reports.parse_utilization(vendor / path) == Resources(luts, flip_flops, dsps, int(tiles * 36 * 1024))


@pytest.mark.parametrize(
    ("path", "slack_ns"),
    [
        (MLP_RUN.format("stream"), 0.044),
        (MLP_RUN.format("ap_fixed"), 0.226),
        (MLP_RUN.format("float"), 0.549),
        (IRIS_RUN, 0.784),
    ],
)
def test_timing_reports_parse_to_exact_figures(vendor, path, slack_ns):
    report = vendor / path / (WRAPPER + "timing_summary_routed.rpt")
    assert vitis_reports.parse_timing(report) == slack_ns
    assert vitis_reports.parse_clock_period(report) == 10.0


# ---------------------------------------------------------------- damaged reports


def _cut(source, place, tmp_path):
    """Copy the part of a report that ends with ``place``."""
    text = source.read_text()
    path = tmp_path / source.name
    path.write_text(text[: text.index(place) + len(place)])
    return path


@pytest.mark.parametrize(
    ("place", "missing"),
    [
        ("Utilization Design", "Slice LUTs"),
        ("| Slice LUTs                 | 34", "Slice LUTs"),
        ("| Slice LUTs                 | 3455 |", "Slice LUTs"),
        ("|   LUT as Logic ", "Slice Registers"),
        ("3. Memory\n---", "Block RAM Tile"),
        ("| DSPs           |  11", "DSPs"),
        ("| DSPs           |  110 |     0 |", "DSPs"),
    ],
)
def test_a_cut_utilization_report_is_an_error(vendor, tmp_path, place, missing):
    path = _cut(vendor / IRIS_RUN / (WRAPPER + "utilization_placed.rpt"), place, tmp_path)
    with pytest.raises(ToolError) as caught:
        vitis_reports.parse_utilization(path)
    assert str(caught.value) == (
        f"synthesize: report {path} must hold a whole row {missing!r}, not end without it; "
        "run the build again"
    )


@pytest.mark.parametrize(
    "place", ["Timing Summary Report", "WNS(ns)", "      0.784", "0.000                       0"]
)
def test_a_cut_timing_report_is_an_error(vendor, tmp_path, place):
    path = _cut(vendor / IRIS_RUN / (WRAPPER + "timing_summary_routed.rpt"), place, tmp_path)
    with pytest.raises(ToolError) as caught:
        vitis_reports.parse_timing(path)
    assert str(caught.value) == (
        f"synthesize: report {path} must hold a design timing summary, not end without it; "
        "run the build again"
    )
    with pytest.raises(ToolError, match="must hold a clock summary, not end without it"):
        vitis_reports.parse_clock_period(path)


@pytest.mark.parametrize("place", ["<profile>", "<FF>13240</FF>", "</AreaEstimates>"])
def test_a_cut_csynth_report_is_an_error(vendor, tmp_path, place):
    path = _cut(vendor / IRIS_HLS / "csynth.xml", place, tmp_path)
    with pytest.raises(
        ToolError, match=r"^synthesize: report .* must be whole XML, not text that fails with"
    ):
        vitis_reports.parse_csynth_xml(path)


def test_a_csynth_report_without_a_figure_is_an_error(vendor, tmp_path):
    text = (vendor / IRIS_HLS / "csynth.xml").read_text().replace("LUT>", "LUTS>")
    path = tmp_path / "csynth.xml"
    path.write_text(text)
    with pytest.raises(ToolError) as caught:
        vitis_reports.parse_csynth_xml(path)
    assert str(caught.value) == (
        f"synthesize: report {path} must hold AreaEstimates/Resources/LUT, not come without it; "
        "run the build again"
    )


def test_a_latency_that_hls_cannot_tell_is_none(vendor, tmp_path):
    text = (vendor / IRIS_HLS / "csynth.xml").read_text()
    text = re.sub(r"(<Worst-caseLatency>)\d+", r"\1undef", text)
    path = tmp_path / "csynth.xml"
    path.write_text(re.sub(r"(<Interval-max>)\d+", r"\1?", text))
    report = vitis_reports.parse_csynth_xml(path)
    assert (report.latency_cycles, report.interval_cycles) == (None, None)


@pytest.mark.parametrize("parse", [vitis_reports.parse_csynth_xml, vitis_reports.parse_utilization, vitis_reports.parse_timing])
def test_a_missing_report_is_an_error(tmp_path, parse):
    path = tmp_path / "none.rpt"
    with pytest.raises(ToolError) as caught:
        parse(path)
    assert str(caught.value) == (
        f"synthesize: report {path} must be a readable file, not fail with 'No such file or directory'; "
        "run the build again"
    )
