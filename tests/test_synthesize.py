"""The synthesize stage, with small scripts in place of the vendor's programs."""

import dataclasses
import errno
import fcntl
import json
import os
import shutil
import subprocess

import pytest
from bit_files import bit_file
from conftest import needs
from vendor_tools import BOARD, HLS, TIMING, UTILIZATION, VERSION, VIVADO, same

from flow import boards
from flow.errors import ConfigError, FlowError, ToolError
from flow.synthesize import finished, synthesize

FILES = {
    "build.sh",
    "common.tcl",
    "flow_monitor.v",
    "settings.tcl",
    "vitis_hls.tcl",
    "vivado.sh",
    "vivado.tcl",
    "vivado_zynq7000.tcl",
    "hls/firmware/net.cpp",
    "hls/firmware/net_axis.cpp",
    "hls/tb/testbench.cpp",
    "hls/tb/testbench.h",
    "hls/tb_data/inputs.dat",
    "hls/tb_data/golden.dat",
}


def test_without_the_programs_a_complete_folder_is_written(design, tools, tmp_path):
    out = tmp_path / "a folder"
    result = synthesize(design, board=BOARD, out=out)
    assert (result.path, result.report, result.folder) == (None, None, out)
    assert result.command == f"cd '{out}' && sh build.sh"
    assert result.missing_tools == ("vitis_hls", "vivado")
    written = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    assert written == FILES


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
    assert same(result.report)
    assert (out / "argv.txt").read_text() == (
        "vitis_hls -f vitis_hls.tcl\nvivado -mode batch -nojournal -source vivado.tcl\n"
    )
    assert seen == [
        (1, 9, "C simulation"),
        (1, 9, "C simulation: Implementing module 'dense'"),
        (6, 9, "implementation"),
        (9, 9, "done"),
    ]


def test_a_finished_build_leaves_its_report_under_hls4ml_s_keys(design, tools, tmp_path):
    tools(vitis_hls=HLS, vivado=VIVADO)
    synthesize(design, board=BOARD, out=tmp_path / "out")
    found = json.loads((tmp_path / "out" / "report.json").read_text())
    assert {key: found[key] for key in ("LUT", "FF", "DSP", "BRAM_18K", "WNS", "WorstLatency")} == {
        "LUT": 4000,
        "FF": 5000,
        "DSP": 3,
        "BRAM_18K": 5,
        "WNS": 0.25,
        "WorstLatency": 120,
    }


def test_out_of_context_gives_a_report_and_no_bitstream(design, tools, tmp_path):
    tools(vitis_hls=HLS, vivado=VIVADO)
    result = synthesize(design, board=BOARD, out=tmp_path / "out", out_of_context=True)
    assert result.path is None
    assert result.missing_tools == ()
    assert same(result.report)
    assert (tmp_path / "out" / "argv.txt").read_text().splitlines()[1] == (
        "vivado -mode batch -nojournal -source vivado_ooc.tcl"
    )


def test_what_vivado_s_runs_write_is_shown_while_they_run(design, tools, tmp_path):
    run = (
        VIVADO
        + """\
mkdir -p vivado/vivado.runs/impl_1
for line in "Command: place_design" "Phase 2 Global Placement" "Phase 2 Global Placement | Checksum: 1f"; do
    echo "$line" >> vivado/vivado.runs/impl_1/runme.log
done
sleep 1.5
"""
    )
    tools(vitis_hls=HLS, vivado=run)
    seen = []
    synthesize(design, board=BOARD, out=tmp_path / "out", progress=lambda *step: seen.append(step[2]))
    assert seen[-3:] == ["implementation: place_design", "implementation: 2 Global Placement", "done"]


def test_a_real_log_is_followed_phase_by_phase(design, tools, tmp_path, vendor):
    log = next(vendor.glob("pynq_z2_iris_2025.1/**/impl_1/runme.log"))
    answers = tools(
        vitis_hls=HLS,
        vivado=VIVADO
        + 'mkdir -p vivado/vivado.runs/impl_1\ncp "$FAKE/runme.log" vivado/vivado.runs/impl_1/\nsleep 1.5\n',
    )
    (answers / "runme.log").write_bytes(log.read_bytes())
    seen = []
    synthesize(design, board=BOARD, out=tmp_path / "out", progress=lambda *step: seen.append(step[2]))
    order = [seen.index(f"implementation: {name}") for name in ("opt_design", "place_design", "route_design")]
    assert order == sorted(order)
    assert "implementation: 2.5.2 Physical Synthesis In Placer" in seen


def test_a_build_by_hand_is_taken_in(design, tools, tmp_path):
    out = tmp_path / "out"
    synthesize(design, board=BOARD, out=out)
    assert finished(design, BOARD, out) is None
    tools(vitis_hls=HLS, vivado=VIVADO)
    subprocess.run(["sh", out / "build.sh"], check=True, capture_output=True)
    made = finished(design, BOARD, out)
    assert made.path == out / "net.bit"
    assert same(made.report)


@needs("sh")
@pytest.mark.parametrize("hls", ["vitis_hls", "vitis_run"])
def test_build_sh_runs_the_same_programs_elsewhere(design, tools, tmp_path, hls):
    synthesize(design, board=BOARD, out=tmp_path / "out")
    carried = (tmp_path / "out").rename(tmp_path / "work station")
    tools(**{hls: HLS.replace("vitis_hls $*", f"{hls} $*"), "vivado": VIVADO})
    subprocess.run(["sh", carried / "build.sh"], cwd=tmp_path, check=True)
    first = {
        "vitis_hls": "vitis_hls -f vitis_hls.tcl",
        "vitis_run": "vitis_run --mode hls --tcl vitis_hls.tcl",
    }
    assert (carried / "argv.txt").read_text().splitlines()[0] == first[hls]
    assert (carried / "net.bit").exists()


@needs("sh")
def test_build_sh_stops_at_the_first_failure(design, tools, tmp_path):
    out = tmp_path / "out"
    synthesize(design, board=BOARD, out=out)
    missing = subprocess.run(["sh", out / "build.sh"], capture_output=True, text=True, check=False)
    assert missing.stderr == (
        "build: 'vitis_hls' or 'vitis-run' must be on PATH, not missing; source Vitis' settings64.sh\n"
    )
    assert missing.returncode == 1
    tools(vitis_hls=VERSION + "exit 3", vivado=VIVADO)
    assert subprocess.run(["sh", out / "build.sh"], check=False).returncode == 3
    assert not (out / "argv.txt").exists()


def test_a_failing_program_is_an_error_with_its_last_lines(design, tools, tmp_path):
    tools(vitis_hls=VERSION + 'echo "out of ideas"\nexit 3', vivado=VIVADO)
    with pytest.raises(ToolError) as caught:
        synthesize(design, board=BOARD, out=tmp_path / "out")
    assert str(caught.value) == (
        "synthesize: 'vitis_hls' must exit with 0, not 3; its output ends with\n    out of ideas"
    )
    assert not (tmp_path / "out" / "argv.txt").exists()


def test_a_failure_shows_the_tool_s_errors_first_and_what_they_call_for(design, tools, tmp_path):
    said = "ERROR: [Common 17-345] A valid license was not found for feature 'Synthesis' and/or device 'xc7z020'."
    lines = "".join(f'echo "INFO: line {number}"\n' for number in range(50))
    tools(vitis_hls=HLS, vivado=VERSION + f'echo "{said}"\n{lines}exit 1')
    out = tmp_path / "out"
    with pytest.raises(ToolError) as caught:
        synthesize(design, board=BOARD, out=out)
    assert str(caught.value) == (
        "synthesize: 'vivado' must exit with 0, not 1; a licence for this part must be there: start Vivado's licence "
        "manager, set XILINXD_LICENSE_FILE, or choose a part of the free Standard edition such as xc7z020; its first "
        f"errors are (logs in {out / 'logs'})\n    {said}"
    )


def test_errors_of_vivado_s_runs_are_shown_though_they_stand_in_logs_of_their_own(design, tools, tmp_path):
    run = """\
mkdir -p vivado/vivado.runs/synth_1
echo "ERROR: [Synth 8-439] module 'dense' not found" > vivado/vivado.runs/synth_1/runme.log
echo "ERROR: vivado.tcl: synth_1 must reach 100%, not 0% (synth_design ERROR)" >&2
exit 1
"""
    tools(vitis_hls=HLS, vivado=VERSION + run)
    with pytest.raises(ToolError) as caught:
        synthesize(design, board=BOARD, out=tmp_path / "out")
    assert str(caught.value).splitlines()[1:] == [
        "    ERROR: vivado.tcl: synth_1 must reach 100%, not 0% (synth_design ERROR)",
        "    ERROR: [Synth 8-439] module 'dense' not found",
    ]


def test_a_disk_that_is_full_during_a_build_is_said(design, tools, tmp_path):
    tools(vitis_hls=HLS, vivado=VERSION + 'echo "ERROR: write failed: No space left on device"\nexit 1')
    out = tmp_path / "out"
    with pytest.raises(ToolError) as caught:
        synthesize(design, board=BOARD, out=out)
    assert str(caught.value) == f"synthesize: {str(out)!r} must have room, not a full disk; free some"


def test_a_disk_that_is_full_before_the_build_is_said(design, tools, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copytree", full)
    out = tmp_path / "out"
    with pytest.raises(ToolError) as caught:
        synthesize(design, board=BOARD, out=out)
    assert str(caught.value) == f"synthesize: {str(out)!r} must have room, not a full disk; free some"


def test_a_second_build_in_one_folder_is_refused(design, tools, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    folder = os.open(out, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    try:
        with pytest.raises(ConfigError) as caught:
            synthesize(design, board=BOARD, out=out)
    finally:
        os.close(folder)
    assert str(caught.value) == (
        f"synthesize: {str(out)!r} must be used by one build at a time, not two; wait for the other, or choose "
        "another folder"
    )
    assert synthesize(design, board=BOARD, out=out).missing_tools


def test_a_tool_that_is_killed_is_an_error_and_the_result_before_stays(design, tools, tmp_path):
    out = tmp_path / "out"
    tools(vitis_hls=HLS, vivado=VIVADO)
    before = synthesize(design, board=BOARD, out=out).path.read_bytes()
    tools(vivado=VERSION + "kill -9 $$")
    with pytest.raises(ToolError, match=r"'vivado' must exit with 0, not 137"):
        synthesize(design, board=BOARD, out=out)
    assert not (out / "net.bit").exists()
    assert (out / "previous" / "net.bit").read_bytes() == before
    assert (out / "previous" / "reports" / "timing.rpt").exists()
    tools(vivado=VIVADO)
    assert synthesize(design, board=BOARD, out=out).path.exists()
    assert not (out / "previous").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (bit_file("7z010clg400"), r"7z010clg400"),
        (bit_file()[:-100], r"net\.bit"),
        (bit_file()[:700] + b"\x01" + bit_file()[701:], r"net\.bit"),
        (b"", r"net\.bit"),
    ],
)
def test_a_bitstream_that_is_not_good_is_refused(design, tools, tmp_path, content, message):
    answers = tools(vitis_hls=HLS, vivado=VIVADO)
    (answers / "net.bit").write_bytes(content)
    with pytest.raises(FlowError, match=message):
        synthesize(design, board=BOARD, out=tmp_path / "out")


def test_tools_of_another_version_are_refused_before_they_work(design, tools, tmp_path):
    tools(vitis_hls=HLS, vivado=VIVADO.replace("2023.2", "2019.2"))
    with pytest.raises(ToolError, match="'vivado' must be of version 2022.2 to 2025.2, not 2019.2"):
        synthesize(design, board=BOARD, out=tmp_path / "out")
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
    tools(vivado=VERSION + "exit 0")
    with pytest.raises(ToolError, match=r"'vivado' must leave net\.bit, not end without it"):
        synthesize(design, board=BOARD, out=out)
    assert not (out / "hls" / "stale.txt").exists()


@pytest.mark.parametrize(("slack", "shown"), [("-0.013", "-0.013"), ("NA", "None")])
def test_a_clock_that_is_not_reached_is_an_error(design, tools, tmp_path, slack, shown):
    answers = tools(vitis_hls=HLS, vivado=VIVADO)
    (answers / "reports" / "timing.rpt").write_text(TIMING.format(slack=slack))
    with pytest.raises(ToolError) as caught:
        synthesize(design, board=BOARD, out=tmp_path / "out")
    assert str(caught.value) == (
        f"synthesize: the worst setup slack must be 0 ns or more, not {shown} ns; "
        "raise synth_clk_period_ns above 10"
    )


def test_a_damaged_report_is_an_error(design, tools, tmp_path):
    answers = tools(vitis_hls=HLS, vivado=VIVADO)
    (answers / "reports" / "utilization.rpt").write_text(UTILIZATION[:80])
    with pytest.raises(ToolError, match=r"utilization\.rpt must hold a whole row 'Slice Registers'"):
        synthesize(design, board=BOARD, out=tmp_path / "out")


def test_a_program_that_does_not_end_is_stopped(design, tools, tmp_path):
    tools(vitis_hls=VERSION + "sleep 60", vivado=VIVADO)
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
