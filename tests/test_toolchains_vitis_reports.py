"""The readers of the vendor's reports, against real reports of 2019.2, 2020.1 and 2025.1."""

import dataclasses
import re
from pathlib import Path

import pytest

from flow.errors import ToolError
from flow.toolchains.vitis import reports
from flow.toolchains.vitis.modules import parse_summary
from flow.toolchains.vitis.reports import Power, Timing
from flow.types import Report, Resources

ROOT = Path(__file__).resolve().parents[1]


# ---------------------------------------------------------------- real reports


MLP = "pynq_z2_mlp_2019.2/dma_test_pynq_{}/"
MLP_RUN = MLP + "dma_test_pynq_v2/dma_test_pynq.runs/"
IRIS_RUN = "pynq_z2_iris_2025.1/vivado_project/iris_hardware/iris_hardware.runs/"
IRIS_HLS = "pynq_z2_iris_2025.1/projeto_iris_hls_ip_axi/myproject_prj/solution1/syn/report/"
VIVADO_HLS = "hls4ml_2020.1/test/pytest/test_report/Vivado/"
WRAPPER = "impl_1/design_1_wrapper_"


STREAM_HLS = MLP.format("stream") + "cpp_nn_v3/myproject_prj/solution1/syn/report/"
FIXED_HLS = MLP.format("ap_fixed") + "cpp_nn_v2/myproject_prj/solution1/syn/report/"
FLOAT_HLS = MLP.format("float") + "cpp_nn_v2/myproject_prj/solution1/syn/report/"
SVHN = "svhn_cnn_xcu250_2020.1/{}pruned_cnn/myproject_prj/solution1/syn/report/myproject_csynth.rpt"


def hls(luts, flip_flops, dsps, blocks, latency, interval, clock_ns, estimated_ns):
    """Return what HLS said; blocks have 18 Kibit, latency and interval are the best and the worst case in cycles."""
    return Report(
        resources=Resources(luts, flip_flops, dsps, blocks * 18 * 1024),
        fmax_mhz=1000 / estimated_ns,
        latency_cycles=latency[1],
        interval_cycles=interval[1],
        best_latency_cycles=latency[0],
        interval_min_cycles=interval[0],
        clock_period_ns=clock_ns,
        estimated_clock_period_ns=estimated_ns,
    )


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (STREAM_HLS + "csynth.xml", hls(44027, 14170, 21, 20, (172, 173), (173, 174), 10, 8.670)),
        (STREAM_HLS + "myproject_csynth.xml", hls(36782, 13025, 21, 20, (77, 78), (69, 70), 10, 7.859)),
        (STREAM_HLS + "dense_wrapper_ap_fixed_ap_fixed_16_6_5_3_0_config2_s_csynth.xml",
         hls(3768, 3353, 16, 4, (66, 67), (64, 64), 10, 6.982)),
        (FIXED_HLS + "csynth.xml", hls(37975, 11873, 21, 20, (287, 287), (288, 288), 5, 6.982)),
        (FIXED_HLS + "relu_csynth.xml", hls(3083, 194, 0, 0, (0, 0), (1, 1), 5, 4.246)),
        (FLOAT_HLS + "csynth.xml", hls(39835, 14086, 21, 20, (300, 300), (301, 301), 5, 6.982)),
        (VIVADO_HLS + "myproject_csynth.xml", hls(2532, 7969, 73, 0, (10, 10), (8, 8), 5, 4.049)),
        (IRIS_HLS + "csynth.xml", hls(4725, 13240, 110, 3, (32, 32), (1, 1), 5, 3.624)),
        (IRIS_HLS + "myproject_csynth.xml", hls(4725, 13240, 110, 3, (32, 32), (1, 1), 5, 3.624)),
    ],
)  # fmt: skip
def test_csynth_reports_parse_to_exact_figures(vendor, path, expected):
    assert reports.parse_csynth_xml(vendor / path) == expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (STREAM_HLS + "myproject_csynth.rpt", hls(36782, 13025, 21, 20, (77, 78), (69, 70), 10, 7.859)),
        (STREAM_HLS + "myproject_axi_csynth.rpt", hls(44027, 14170, 21, 20, (172, 173), (172, 173), 10, 8.670)),
        (FIXED_HLS + "softmax_latency_csynth.rpt", hls(247, 617, 5, 4, (9, 9), (1, 1), 5, 3.962)),
        (VIVADO_HLS + "myproject_csynth.rpt", hls(2532, 7969, 73, 0, (10, 10), (8, 8), 5, 4.049)),
        (SVHN.format(""), hls(245466, 52549, 5414, 100, (1044, 1044), (1028, 1028), 5, 4.363)),
        (SVHN.format("quantized_"), hls(263280, 43847, 340, 100, (1044, 1044), (1028, 1028), 5, 4.373)),
        (IRIS_HLS + "myproject_csynth.rpt", hls(4725, 13240, 110, 3, (32, 32), (1, 1), 5, 3.624)),
    ],
)  # fmt: skip
def test_csynth_texts_parse_to_exact_figures(vendor, path, expected):
    assert reports.parse_csynth_text(vendor / path) == expected


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
    assert reports.parse_utilization(vendor / path) == Resources(
        luts, flip_flops, dsps, int(tiles * 36 * 1024)
    )


@pytest.mark.parametrize(
    ("path", "setup_ns", "hold_ns", "pulse_ns"),
    [
        (MLP_RUN.format("stream"), 0.044, 0.011, 3.75),
        (MLP_RUN.format("ap_fixed"), 0.226, 0.016, 3.75),
        (MLP_RUN.format("float"), 0.549, 0.021, 3.75),
        (IRIS_RUN, 0.784, 0.020, 4.02),
    ],
)
def test_timing_summaries_parse_to_exact_figures(vendor, path, setup_ns, hold_ns, pulse_ns):
    report = vendor / path / (WRAPPER + "timing_summary_routed.rpt")
    assert reports.parse_timing_summary(report) == Timing(
        *(setup_ns, 0.0, 0), *(hold_ns, 0.0, 0), *(pulse_ns, 0.0, 0), worst_clock="clk_fpga_0"
    )
    assert reports.parse_clock_period(report) == 10.0


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (MLP_RUN.format("stream"), Power(1.550, 1.412, 0.138, "Medium")),
        (MLP_RUN.format("ap_fixed"), Power(1.531, 1.393, 0.138, "Medium")),
        (MLP_RUN.format("float"), Power(1.543, 1.405, 0.138, "Medium")),
        (IRIS_RUN, Power(1.603, 1.463, 0.139, "Medium")),
    ],
)
def test_power_reports_parse_to_exact_figures(vendor, path, expected):
    assert reports.parse_power(vendor / path / (WRAPPER + "power_routed.rpt")) == expected


def test_the_worst_clock_of_several_is_told(vendor, tmp_path):
    text = (vendor / IRIS_RUN / (WRAPPER + "timing_summary_routed.rpt")).read_text()
    inter = re.compile(r"(\| Inter Clock Table\n(?:.*\n){5})")
    assert len(inter.findall(text)) == 1
    row = "clk_fpga_0    clk_other          -1.500       -3.000                      2  \n"
    path = tmp_path / "timing.rpt"
    path.write_text(inter.sub(lambda found: found[0] + row, text))
    assert reports.parse_timing_summary(path).worst_clock == "clk_fpga_0 -> clk_other"


def test_a_chip_that_gets_too_hot_has_its_power_all_the_same(vendor, tmp_path):
    text = (vendor / IRIS_RUN / (WRAPPER + "power_routed.rpt")).read_text()
    path = tmp_path / "power.rpt"
    path.write_text(text.replace("1.603        |", "46.284 (Junction temp exceeded!) |", 1))
    assert reports.parse_power(path).total_w == 46.284


def test_a_power_of_one_row_is_enough(tmp_path):
    path = tmp_path / "power.rpt"
    path.write_text("| Total On-Chip Power (W)  | 1.500 |\n")
    assert reports.parse_power(path) == Power(1.5)


# ---------------------------------------------------------------- every report there is

KINDS = {
    "csynth.xml": (r".*/csynth\.xml", 4),
    "function.xml": (r".*_csynth\.xml", 45),
    "function.rpt": (r".*_csynth\.rpt", 47),
    "summary": (r".*/csynth\.rpt", 1),
    "utilization": (r".*(_utilization_(synth|placed)|/vivado_synth)\.rpt", 27),
    "timing": (r".*_timing_summary_routed\.rpt", 4),
    "power": (r".*_power_routed\.rpt", 4),
    # the compiler's instructions, phase by phase: nothing of it is in the hardware
    "skipped: design size": (r".*/csynth_design_size\.(rpt|xml)", 2),
    # clock buffers and their places; the period is in the timing report
    "skipped: clocks": (r".*_clock_utilization_routed\.rpt", 4),
}


@pytest.fixture(scope="module")
def kinds(vendor):
    """All reports by kind; each is of one kind."""
    found = {kind: [] for kind in KINDS}
    for path in sorted(path for path in vendor.rglob("*") if path.suffix in (".rpt", ".xml")):
        fits = [kind for kind, (pattern, _) in KINDS.items() if re.fullmatch(pattern, path.as_posix())]
        assert len(fits) == 1, path
        found[fits[0]].append(path)
    return found


def test_every_report_is_of_a_known_kind(kinds):
    assert {kind: len(paths) for kind, paths in kinds.items()} == {
        kind: count for kind, (_, count) in KINDS.items()
    }


def test_xml_and_text_of_every_function_agree(vendor, kinds):
    """Vivado HLS's text gives a top that is not pipelined one cycle less from start to start than its XML."""
    differing = set()
    for path in kinds["function.xml"]:
        xml = reports.parse_csynth_xml(path)
        text = reports.parse_csynth_text(path.with_suffix(".rpt"))
        if text != xml:
            differing.add(path.relative_to(vendor).as_posix())
            text = dataclasses.replace(
                text,
                interval_cycles=text.interval_cycles + 1,
                interval_min_cycles=text.interval_min_cycles + 1,
            )
        assert text == xml
    assert differing == {folder + "myproject_axi_csynth.xml" for folder in (STREAM_HLS, FIXED_HLS, FLOAT_HLS)}


def test_every_text_without_xml_is_in_the_table_above(vendor, kinds):
    alone = [path for path in kinds["function.rpt"] if not path.with_suffix(".xml").exists()]
    assert sorted(alone) == sorted(vendor / SVHN.format(name) for name in ("", "quantized_"))


def test_every_csynth_xml_is_that_of_its_top(kinds):
    for path in kinds["csynth.xml"]:
        top = re.search("<TopModelName>(.*)</TopModelName>", path.read_text())[1]
        report = reports.parse_csynth_xml(path)
        assert report == reports.parse_csynth_xml(path.with_name(f"{top}_csynth.xml"))
        assert None not in (report.clock_period_ns, report.best_latency_cycles, report.interval_min_cycles)


def test_every_function_of_the_summary_agrees_with_its_own_report(kinds):
    for path in kinds["summary"]:
        found = parse_summary(path)
        assert len(found) == 7
        for name, report in found.items():
            own = reports.parse_csynth_xml(path.with_name(f"{name}_csynth.xml"))
            assert report == Report(
                own.resources, latency_cycles=own.latency_cycles, interval_cycles=own.interval_cycles
            )


def _used(text, name):
    """Return the 'Used' cells of all rows with a name."""
    return [float(found) for found in re.findall(rf"^\| *{name}\*? *\| *([0-9.]+) ", text, re.MULTILINE)]


def test_every_utilization_agrees_with_its_own_parts(kinds):
    for path in kinds["utilization"]:
        text, used = path.read_text(), reports.parse_utilization(path)
        assert used.luts == _used(text, "LUT as Logic")[0] + _used(text, "LUT as Memory")[0]
        assert (
            used.flip_flops == _used(text, "Register as Flip Flop")[0] + _used(text, "Register as Latch")[0]
        )
        blocks = 2 * _used(text, "RAMB36/FIFO")[0] + _used(text, "RAMB18")[0]
        assert used.bram_bits == blocks * 18 * 1024
        assert used.dsps == sum(_used(text, r"DSP48E\d only"))
        clocked = re.findall(r"^\| (\d+) +\| +(?:Yes|_) \|", text, re.MULTILINE)
        assert used.flip_flops == sum(map(int, clocked))


def test_every_timing_summary_agrees_with_its_clocks(kinds):
    for path in kinds["timing"]:
        text, timing = path.read_text(), reports.parse_timing_summary(path)
        clocks = f"From Clock:  {timing.worst_clock}\n  To Clock:  {timing.worst_clock}"
        pattern = rf"^{clocks}\n\nSetup : +(\d+) .*?Worst Slack +(\S+)ns"
        failing, slack = re.search(pattern, text, re.MULTILINE).groups()
        assert (int(failing), float(slack)) == (timing.setup_failing, timing.setup_slack_ns)
        assert reports.parse_clock_period(path) == 10.0
        assert timing.setup_total_ns == timing.hold_total_ns == timing.pulse_total_ns == 0


def test_every_power_report_agrees_with_its_own_parts(kinds):
    for path in kinds["power"]:
        text, power = path.read_text(), reports.parse_power(path)
        assert power.total_w == pytest.approx(
            power.dynamic_w + power.static_w, abs=0.0011
        )  # three figures rounded
        assert [power.static_w] == _used(text, "Static Power")
        assert [power.total_w] == _used(text, "Total")


# ---------------------------------------------------------------- the keys of hls4ml


def test_a_report_has_the_keys_of_hls4ml(vendor):
    report = reports.parse_csynth_xml(vendor / STREAM_HLS / "csynth.xml")
    assert reports.hls4ml_keys(
        dataclasses.replace(report, slack_ns=0.044, hold_slack_ns=0.011, power_w=1.55)
    ) == {
        "TargetClockPeriod": 10.0,
        "EstimatedClockPeriod": 8.67,
        "BestLatency": 172,
        "WorstLatency": 173,
        "IntervalMin": 173,
        "IntervalMax": 174,
        "LUT": 44027,
        "FF": 14170,
        "DSP": 21,
        "BRAM_18K": 20,
        "WNS": 0.044,
        "WHS": 0.011,
        "Power": 1.55,
    }


def test_what_is_not_reported_has_no_key():
    assert reports.hls4ml_keys(Report(Resources(luts=5), slack_ns=0.0)) == {"LUT": 5, "WNS": 0.0}
    assert reports.hls4ml_keys(Report(Resources())) == {}


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
        reports.parse_utilization(path)
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
        reports.parse_timing_summary(path)
    assert str(caught.value) == (
        f"synthesize: report {path} must hold a design timing summary, not end without it; "
        "run the build again"
    )
    with pytest.raises(ToolError, match="must hold a clock summary, not end without it"):
        reports.parse_clock_period(path)


@pytest.mark.parametrize(
    "place",
    [
        "| Clock Summary",
        "| Intra Clock Table\n",
        "clk_fpga_0          0.784",
        "| Other Path Groups Table\n| ---",
    ],
)
def test_a_timing_report_cut_behind_its_summary_has_no_worst_clock(vendor, tmp_path, place):
    path = _cut(vendor / IRIS_RUN / (WRAPPER + "timing_summary_routed.rpt"), place, tmp_path)
    with pytest.raises(
        ToolError, match=r"must hold its (intra clock|inter clock|other path groups) table, not end"
    ):
        reports.parse_timing_summary(path)


@pytest.mark.parametrize(
    ("place", "missing"),
    [
        ("Power Report", "Total On-Chip Power (W)"),
        ("| Total On-Chip Power (W)  | 1.6", "Total On-Chip Power (W)"),
        ("| Power Budget Margin (W)  | NA           |", "Dynamic (W)"),
        ("| Dynamic (W)              | 1.463        ", "Dynamic (W)"),
        ("| Device Static (W)        | 0.1", "Device Static (W)"),
        ("| Confidence Level         | Med", "Confidence Level"),
    ],
)
def test_a_cut_power_report_is_an_error(vendor, tmp_path, place, missing):
    path = _cut(vendor / IRIS_RUN / (WRAPPER + "power_routed.rpt"), place, tmp_path)
    with pytest.raises(ToolError) as caught:
        reports.parse_power(path)
    assert str(caught.value) == (
        f"synthesize: report {path} must hold a whole row {missing!r}, not end without it; run the build again"
    )


@pytest.mark.parametrize(
    ("place", "rule"),
    [
        ("== Vi", "be Vivado or Vitis HLS's report on a function, not come without that title"),
        ("== Performance Estimates", "hold a whole timing summary, not end without it"),
        ("|ap_clk  |  5.00 ns|  3.6", "hold a whole timing summary, not end without it"),
        ("3.624 ns|     1.35 ns|\n", "hold a whole timing summary, not end without it"),
        ("+ Latency: ", "hold a whole latency summary, not end without it"),
        ("|       32|       3", "hold a whole latency summary, not end without it"),
        ("== Utilization Estimates", "hold a whole utilization summary, not end without it"),
        ("|Register         |        -|    -|     659|      -|    -|\n",
         "hold a whole utilization summary, not end without it"),
        ("|Total            |        3|  110|   132", "hold a whole utilization summary, not end without it"),
    ],
)  # fmt: skip
def test_a_cut_csynth_text_is_an_error(vendor, tmp_path, place, rule):
    path = _cut(vendor / IRIS_HLS / "myproject_csynth.rpt", place, tmp_path)
    with pytest.raises(ToolError) as caught:
        reports.parse_csynth_text(path)
    assert str(caught.value) == f"synthesize: report {path} must {rule}; run the build again"


@pytest.mark.parametrize(
    ("parse", "name"),
    [
        (reports.parse_csynth_text, VIVADO_HLS + "myproject_csynth.rpt"),
        (reports.parse_csynth_text, IRIS_HLS + "myproject_csynth.rpt"),
        (reports.parse_utilization, VIVADO_HLS + "vivado_synth.rpt"),
        (reports.parse_utilization, IRIS_RUN + WRAPPER + "utilization_placed.rpt"),
        (
            reports.parse_timing_summary,
            MLP_RUN.format("stream") + WRAPPER + "timing_summary_routed.rpt",
        ),
        (reports.parse_timing_summary, IRIS_RUN + WRAPPER + "timing_summary_routed.rpt"),
        (reports.parse_power, MLP_RUN.format("stream") + WRAPPER + "power_routed.rpt"),
        (lambda path: tuple(parse_summary(path).items()), IRIS_HLS + "csynth.rpt"),
    ],
)
def test_a_cut_report_gives_the_whole_figures_or_none(vendor, tmp_path, parse, name):
    text, whole = (vendor / name).read_text(), parse(vendor / name)
    path = tmp_path / "cut.rpt"
    found = []
    for place in range(0, 16_000, 41):
        path.write_text(text[:place])
        try:
            found.append(parse(path))
        except ToolError:
            found.append(None)
    assert {None, whole} == set(found)
    assert found == sorted(found, key=lambda report: report is not None)  # and none again once it is whole


@pytest.mark.parametrize(
    "place", ["Synthesis Summary", "|+ myproject", "relu_config3_s      |", "3 (1%)|     3 (1%)|"]
)
def test_a_cut_summary_is_an_error(vendor, tmp_path, place):
    path = _cut(vendor / IRIS_HLS / "csynth.rpt", place, tmp_path)
    with pytest.raises(ToolError) as caught:
        parse_summary(path)
    assert str(caught.value) == (
        f"synthesize: report {path} must hold a whole table of modules, not end without it; run the build again"
    )


@pytest.mark.parametrize("place", ["<profile>", "<FF>13240</FF>", "</AreaEstimates>"])
def test_a_cut_csynth_report_is_an_error(vendor, tmp_path, place):
    path = _cut(vendor / IRIS_HLS / "csynth.xml", place, tmp_path)
    with pytest.raises(
        ToolError, match=r"^synthesize: report .* must be whole XML, not text that fails with"
    ):
        reports.parse_csynth_xml(path)


def test_a_csynth_report_without_a_figure_is_an_error(vendor, tmp_path):
    text = (vendor / IRIS_HLS / "csynth.xml").read_text().replace("LUT>", "LUTS>")
    path = tmp_path / "csynth.xml"
    path.write_text(text)
    with pytest.raises(ToolError) as caught:
        reports.parse_csynth_xml(path)
    assert str(caught.value) == (
        f"synthesize: report {path} must hold AreaEstimates/Resources/LUT, not come without it; "
        "run the build again"
    )


def test_a_latency_that_hls_cannot_tell_is_none(vendor, tmp_path):
    text = (vendor / IRIS_HLS / "csynth.xml").read_text()
    text = re.sub(r"(<Worst-caseLatency>)\d+", r"\1undef", text)
    path = tmp_path / "csynth.xml"
    path.write_text(re.sub(r"(<Interval-max>)\d+", r"\1?", text))
    report = reports.parse_csynth_xml(path)
    assert (report.latency_cycles, report.interval_cycles) == (None, None)


@pytest.mark.parametrize(
    "parse",
    [
        reports.parse_csynth_xml,
        reports.parse_csynth_text,
        reports.parse_utilization,
        reports.parse_timing_summary,
        reports.parse_clock_period,
        reports.parse_power,
        parse_summary,
    ],
)
def test_a_missing_report_is_an_error(tmp_path, parse):
    path = tmp_path / "none.rpt"
    with pytest.raises(ToolError) as caught:
        parse(path)
    assert str(caught.value) == (
        f"synthesize: report {path} must be a readable file, not fail with 'No such file or directory'; "
        "run the build again"
    )


def test_a_clock_summary_with_long_lines_and_no_end_is_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "timing.rpt"
    rows = ("x" * 3000 + "\n") * 5
    path.write_text(f"| Clock Summary\n\n\n\nClock  Waveform\n-----  -----\n{rows}")
    with pytest.raises(ToolError) as error:
        reports.parse_clock_period(path)
    assert str(error.value) == (
        f"synthesize: report {path} must hold a clock summary, not end without it; run the build again"
    )


@pytest.mark.parametrize("number", ["inf", "1e999", "nan", "1e-300", "9" * 400])
def test_a_figure_that_no_chip_has_is_refused(number: str, tmp_path: Path) -> None:
    path = tmp_path / "power.rpt"
    path.write_text(f"| Total On-Chip Power (W)  | {number} |\n")
    with pytest.raises(ToolError) as error:
        reports.parse_power(path)
    assert str(error.value) == (
        f"synthesize: report {path} must hold a number for Total On-Chip Power (W), not {number[:80]!r}; "
        "run the build again"
    )
