"""The synthesize stage, with small scripts in place of the vendor's programs."""

import dataclasses
import subprocess

import pytest
from conftest import needs
from test_toolchains_vitis import BOARD, PROJECT

from flow import boards
from flow.errors import ConfigError, ToolError
from flow.synthesize import synthesize
from flow.types import Report, Resources

CSYNTH = """\
<profile>
<PerformanceEstimates>
<SummaryOfTimingAnalysis><EstimatedClockPeriod>7.300</EstimatedClockPeriod></SummaryOfTimingAnalysis>
<SummaryOfOverallLatency>
<Worst-caseLatency>120</Worst-caseLatency><Interval-max>64</Interval-max>
</SummaryOfOverallLatency>
</PerformanceEstimates>
<AreaEstimates><Resources>
<BRAM_18K>2</BRAM_18K><DSP>3</DSP><FF>500</FF><LUT>900</LUT>
</Resources></AreaEstimates>
</profile>
"""
UTILIZATION = """\
| Site Type      | Used | Available |
| Slice LUTs     | 4000 |     53200 |
| Slice Registers | 5000 |   106400 |
| Site Type      | Used | Available |
| Block RAM Tile |  2.5 |       140 |
| Site Type      | Used | Available |
| DSPs           |    3 |       220 |
"""
TIMING = """\
| Design Timing Summary
| ---------------------
-----------------------

    WNS(ns)      TNS(ns)  TNS Failing Endpoints  and so on
    -------      -------  ---------------------  ---------
      {slack}        0.000  0  10  0.020  0.000  0  10  4.020  0.000  0  5

| Clock Summary
| -------------
---------------

Clock       Waveform(ns)       Period(ns)      Frequency(MHz)
-----       ------------       ----------      --------------
clk_fpga_0  {{0.000 5.000}}      10.000          100.000

"""
HLS = """\
echo "vitis_hls $*" >> argv.txt
echo "flow: step C simulation"
mkdir -p reports
cp "$FAKE/csynth.xml" reports/
"""
VIVADO = """\
echo "vivado $*" >> argv.txt
echo "flow: step implementation"
cp "$FAKE/utilization.rpt" "$FAKE/timing.rpt" reports/
cp "$FAKE/net.bit" "$FAKE/net.hwh" .
"""


@pytest.fixture
def design(tmp_path):
    """An HLS project as far as this stage looks into it."""
    folder = tmp_path / "project"
    for name in ("firmware/net.cpp", "firmware/net_axis.cpp", "tb/testbench.cpp", "tb/testbench.h"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"// {name}\n")
    (folder / "tb_data").mkdir()
    for name in ("inputs.dat", "golden.dat"):
        (folder / "tb_data" / name).write_text("0\n")
    (folder / "firmware" / "net.so").write_text("built elsewhere")
    return dataclasses.replace(PROJECT, path=folder)


@pytest.fixture
def tools(tmp_path, monkeypatch):
    """Put programs on PATH: ``tools(vitis_hls=script, vivado=script)``; the rest of PATH is the system's."""
    answers = tmp_path / "answers"
    answers.mkdir()
    (answers / "csynth.xml").write_text(CSYNTH)
    (answers / "utilization.rpt").write_text(UTILIZATION)
    (answers / "timing.rpt").write_text(TIMING.format(slack="0.250"))
    (answers / "net.bit").write_text("bits")
    (answers / "net.hwh").write_text("hand-off")
    monkeypatch.setenv("FAKE", str(answers))
    programs = tmp_path / "programs"
    programs.mkdir()
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")

    def put(**scripts):
        for name, script in scripts.items():
            path = programs / name.replace("vitis_run", "vitis-run")
            path.write_text(f"#!/bin/sh\nset -eu\n{script}")
            path.chmod(0o755)
        return answers

    return put


def test_without_the_programs_a_complete_folder_is_written(design, tools, tmp_path):
    out = tmp_path / "a folder"
    result = synthesize(design, board=BOARD, out=out)
    assert (result.path, result.report, result.folder) == (None, None, out)
    assert result.command == f"cd '{out}' && sh build.sh"
    assert result.missing_tools == ("vitis_hls", "vivado")
    written = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    assert written == {
        "build.sh",
        "settings.tcl",
        "vitis_hls.tcl",
        "vivado_zynq7000.tcl",
        "hls/firmware/net.cpp",
        "hls/firmware/net_axis.cpp",
        "hls/tb/testbench.cpp",
        "hls/tb/testbench.h",
        "hls/tb_data/inputs.dat",
        "hls/tb_data/golden.dat",
    }


def test_the_written_folder_names_no_place_of_this_machine(design, tools, tmp_path):
    synthesize(design, board=BOARD, out=tmp_path / "out")
    for path in (tmp_path / "out").glob("*.*"):
        assert str(tmp_path) not in path.read_text(), path


def test_one_missing_program_is_named(design, tools, tmp_path):
    tools(vitis_run=HLS)
    result = synthesize(design, board=BOARD, out=tmp_path / "out")
    assert result.missing_tools == ("vivado",)


def test_the_programs_give_a_bitstream_and_its_report(design, tools, tmp_path):
    tools(vitis_hls=HLS, vivado=VIVADO)
    seen = []
    out = tmp_path / "out"
    result = synthesize(design, board=BOARD, out=out, progress=lambda *step: seen.append(step))
    assert result.path == out / "net.bit"
    assert result.missing_tools == ()
    assert result.report == Report(
        resources=Resources(luts=4000, flip_flops=5000, dsps=3, bram_bits=92160),
        fmax_mhz=1000 / 9.75,
        slack_ns=0.25,
        latency_cycles=120,
        interval_cycles=64,
    )
    assert (out / "argv.txt").read_text() == (
        "vitis_hls -f vitis_hls.tcl\nvivado -mode batch -nojournal -source vivado_zynq7000.tcl\n"
    )
    assert seen == [(1, 9, "C simulation"), (6, 9, "implementation"), (9, 9, "done")]


@pytest.mark.tool
@needs("sh")
@pytest.mark.parametrize("hls", ["vitis_hls", "vitis_run"])
def test_build_sh_runs_the_same_programs_elsewhere(design, tools, tmp_path, hls):
    synthesize(design, board=BOARD, out=tmp_path / "out")
    carried = (tmp_path / "out").rename(tmp_path / "work station")
    tools(**{hls: HLS.replace("vitis_hls $", f"{hls} $"), "vivado": VIVADO})
    subprocess.run(["sh", carried / "build.sh"], cwd=tmp_path, check=True)
    first = {
        "vitis_hls": "vitis_hls -f vitis_hls.tcl",
        "vitis_run": "vitis_run --mode hls --tcl vitis_hls.tcl",
    }
    assert (carried / "argv.txt").read_text().splitlines()[0] == first[hls]
    assert (carried / "net.bit").exists()


@pytest.mark.tool
@needs("sh")
def test_build_sh_stops_at_the_first_failure(design, tools, tmp_path):
    out = tmp_path / "out"
    synthesize(design, board=BOARD, out=out)
    missing = subprocess.run(["sh", out / "build.sh"], capture_output=True, text=True, check=False)
    assert missing.stderr == (
        "build: 'vitis_hls' or 'vitis-run' must be on PATH, not missing; source Vitis' settings64.sh\n"
    )
    assert missing.returncode == 1
    tools(vitis_hls="exit 3", vivado=VIVADO)
    assert subprocess.run(["sh", out / "build.sh"], check=False).returncode == 3
    assert not (out / "argv.txt").exists()


def test_a_failing_program_is_an_error_with_its_last_lines(design, tools, tmp_path):
    tools(vitis_hls='echo "ERROR: [SIM 211-100] CSim failed"\nexit 3', vivado=VIVADO)
    with pytest.raises(ToolError) as caught:
        synthesize(design, board=BOARD, out=tmp_path / "out")
    assert str(caught.value) == (
        "synthesize: 'vitis_hls' must exit with 0, not 3; its output ends with\n"
        "    ERROR: [SIM 211-100] CSim failed"
    )
    assert not (tmp_path / "out" / "argv.txt").exists()


def test_a_missing_bitstream_is_an_error(design, tools, tmp_path):
    tools(vitis_hls=HLS, vivado=VIVADO.replace('"$FAKE/net.bit" ', ""))
    out = tmp_path / "out"
    with pytest.raises(ToolError) as caught:
        synthesize(design, board=BOARD, out=out)
    assert str(caught.value) == (
        f"synthesize: 'vivado' must leave net.bit, not end without it; see {out / 'logs' / 'vivado.log'}"
    )


def test_an_old_bitstream_does_not_pass_for_a_new_one(design, tools, tmp_path):
    out = tmp_path / "out"
    tools(vitis_hls=HLS, vivado=VIVADO)
    synthesize(design, board=BOARD, out=out)
    (out / "hls" / "stale.txt").write_text("of the build before")
    tools(vivado="exit 0")
    with pytest.raises(ToolError, match=r"'vivado' must leave net\.bit, not end without it"):
        synthesize(design, board=BOARD, out=out)
    assert not (out / "hls" / "stale.txt").exists()


@pytest.mark.parametrize(("slack", "shown"), [("-0.013", "-0.013"), ("NA", "None")])
def test_a_clock_that_is_not_reached_is_an_error(design, tools, tmp_path, slack, shown):
    answers = tools(vitis_hls=HLS, vivado=VIVADO)
    (answers / "timing.rpt").write_text(TIMING.format(slack=slack))
    with pytest.raises(ToolError) as caught:
        synthesize(design, board=BOARD, out=tmp_path / "out")
    assert str(caught.value) == (
        f"synthesize: the worst setup slack must be 0 ns or more, not {shown} ns; "
        "raise clock_period_ns above 10"
    )


def test_a_damaged_report_is_an_error(design, tools, tmp_path):
    answers = tools(vitis_hls=HLS, vivado=VIVADO)
    (answers / "utilization.rpt").write_text(UTILIZATION[:80])
    with pytest.raises(ToolError, match=r"utilization\.rpt must hold a whole row 'Slice Registers'"):
        synthesize(design, board=BOARD, out=tmp_path / "out")


def test_a_program_that_does_not_end_is_stopped(design, tools, tmp_path):
    tools(vitis_hls="sleep 60", vivado=VIVADO)
    out = tmp_path / "out"
    with pytest.raises(ToolError) as caught:
        synthesize(design, board=BOARD, out=out, timeout_s=0.2)
    assert str(caught.value) == (
        "synthesize: 'vitis_hls' must end within 0.2 s, not run on; its output is in "
        f"{out / 'logs' / 'vitis_hls.log'}"
    )


def test_an_unknown_toolchain_is_rejected(design, tmp_path):
    with pytest.raises(ConfigError) as caught:
        synthesize(design, board=BOARD, out=tmp_path / "out", toolchain="quartus")
    assert str(caught.value) == (
        "synthesize: toolchain must be one of vitis, open, not 'quartus'; correct [synthesize]"
    )


def test_a_board_of_another_toolchain_is_rejected(design, tmp_path):
    board = dataclasses.replace(BOARD, name="ulx3s", toolchains=("open",))
    with pytest.raises(ConfigError) as caught:
        synthesize(design, board=board, out=tmp_path / "out", toolchain="vitis")
    assert str(caught.value) == (
        "synthesize: toolchain for board 'ulx3s' must be one of open, not 'vitis'; "
        "choose another board or toolchain"
    )


def test_a_board_is_found_by_its_name(design, tools, tmp_path):
    assert synthesize(design, board="pynq-z2", out=tmp_path / "out").missing_tools
    assert boards.load("pynq-z2").part in (tmp_path / "out" / "settings.tcl").read_text()


def test_an_incomplete_project_is_rejected(design, tmp_path):
    (design.path / "tb_data" / "golden.dat").unlink()
    with pytest.raises(ConfigError) as caught:
        synthesize(design, board=BOARD, out=tmp_path / "out")
    assert str(caught.value) == (
        f"synthesize: HLS project {design.path} must hold tb_data/golden.dat, not lack it; convert again"
    )


@pytest.mark.parametrize("place", [".", "build", "tb"])
def test_an_out_inside_the_project_is_rejected(design, place):
    out = design.path / place
    with pytest.raises(ConfigError, match=r"^synthesize: out must be a folder apart from the HLS project"):
        synthesize(design, board=BOARD, out=out)
    assert (design.path / "firmware" / "net.cpp").exists()


def test_the_project_is_not_touched(design, tools, tmp_path):
    before = {path: path.stat().st_mtime_ns for path in design.path.rglob("*")}
    synthesize(design, board=BOARD, out=tmp_path / "out")
    assert {path: path.stat().st_mtime_ns for path in design.path.rglob("*")} == before
