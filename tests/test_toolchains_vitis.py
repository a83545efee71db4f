"""The vendor build as a plan, and its scripts run against stand-ins for the vendor's commands."""

import dataclasses
import os
import re
import subprocess
from pathlib import Path

import pytest
from conftest import needs

from flow.errors import ConfigError, UnsupportedError
from flow.toolchains import vitis
from flow.types import Board, FixedPoint, HlsProject, Port, Resources

ROOT = Path(__file__).resolve().parents[1]
GOLDEN = Path(__file__).parent / "golden" / "vitis"
TCL = ROOT / "hls_templates" / "tcl"
SCRIPTS = ("vitis_hls.tcl", "vivado_zynq7000.tcl")

BOARD = Board(
    name="pynq-z2",
    title="TUL PYNQ-Z2",
    part="xc7z020clg400-1",
    toolchains=("vitis",),
    clock_period_ns=10.0,
    resources=Resources(),
    ps={
        "type": "zynq7000",
        "crystal_mhz": 50.0,
        "cpu_mhz": 650.0,
        "ddr_type": "DDR3",
        "ddr_part": "MT41J256M16 RE-125",
        "ddr_width_bits": 16,
        "ddr_mhz": 525.0,
        "ddr_mib": 512,
    },
    pins={},
    source={},
)
PROJECT = HlsProject(
    path=Path("project"),
    top="net",
    io_type="io_stream",
    inputs=(Port("image", (8, 8, 1), FixedPoint(True, 1, 7)),),
    outputs=(Port("scores", (10,), FixedPoint(True, 6, 17)),),
    layers=(),
    onnx_path=Path("net.onnx"),
    golden_path=Path("golden.npz"),
    clock_period_ns=10.0,
    part="xc7z020clg400-1",
)


def same_as_golden(text, name):
    """Compare with tests/golden/vitis/<name>; FLOW_UPDATE_GOLDEN=1 writes it instead."""
    if os.environ.get("FLOW_UPDATE_GOLDEN") == "1":
        (GOLDEN / name).write_text(text, encoding="utf-8")
    assert text == (GOLDEN / name).read_text(encoding="utf-8"), f"differs from {GOLDEN / name}"


# ---------------------------------------------------------------- the plan


def test_settings_equal_the_golden_ones():
    same_as_golden(vitis.plan(PROJECT, BOARD).files["settings.tcl"], "settings.tcl")


def test_build_script_equals_the_golden_one():
    same_as_golden(vitis.plan(PROJECT, BOARD).files["build.sh"], "build.sh")


def test_plan_has_the_scripts_as_they_are_and_names_its_products():
    plan = vitis.plan(PROJECT, BOARD)
    assert set(plan.files) == {*SCRIPTS, "settings.tcl", "build.sh"}
    for name in SCRIPTS:
        assert plan.files[name] == (TCL / name).read_text(encoding="utf-8")
    assert plan.products == (
        "net.bit",
        "net.hwh",
        "reports/csynth.xml",
        "reports/utilization.rpt",
        "reports/timing.rpt",
    )


def test_the_same_project_gives_the_same_plan():
    assert vitis.plan(PROJECT, BOARD) == vitis.plan(PROJECT, BOARD)


@pytest.mark.parametrize(
    ("found", "first"),
    [
        ((), "vitis_hls -f vitis_hls.tcl"),
        (("vitis-run",), "vitis-run --mode hls --tcl vitis_hls.tcl"),
        (("vitis-run", "vitis_hls"), "vitis_hls -f vitis_hls.tcl"),
    ],
)
def test_vitis_run_takes_the_place_of_a_missing_vitis_hls(monkeypatch, tmp_path, found, first):
    for program in found:
        (tmp_path / program).write_text("#!/bin/sh\n")
        (tmp_path / program).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    commands = vitis.plan(PROJECT, BOARD).commands
    assert [" ".join(command.argv) for command in commands] == [
        first,
        "vivado -mode batch -nojournal -source vivado_zynq7000.tcl",
    ]


def test_cosimulation_is_a_setting():
    assert "set settings(cosim) {0}\n" in vitis.plan(PROJECT, BOARD).files["settings.tcl"]
    assert "set settings(cosim) {1}\n" in vitis.plan(PROJECT, BOARD, cosim=True).files["settings.tcl"]


def test_clock_is_the_project_s_not_the_board_s():
    settings = vitis.plan(dataclasses.replace(PROJECT, clock_period_ns=7.5), BOARD).files["settings.tcl"]
    assert "set settings(clock_period_ns) {7.5}\n" in settings
    assert "set settings(clock_mhz) {133.3333333}\n" in settings


def test_a_zynq_ultrascale_board_is_not_supported_yet():
    board = dataclasses.replace(BOARD, name="kv260", ps={"type": "zynq_ultrascale", "crystal_mhz": 33.3})
    with pytest.raises(UnsupportedError) as caught:
        vitis.plan(PROJECT, board)
    assert str(caught.value) == (
        "synthesize: board 'kv260' must have a zynq7000 PS for a bitstream, not zynq_ultrascale; "
        "choose such a board, or stop with --to emulate and put the HLS project into a block design of your own"
    )


def test_a_project_for_another_part_is_rejected():
    with pytest.raises(ConfigError) as caught:
        vitis.plan(dataclasses.replace(PROJECT, part="xc7z010clg400-1"), BOARD)
    assert str(caught.value) == (
        "synthesize: the HLS project must be for xc7z020clg400-1 (pynq-z2), not xc7z010clg400-1; "
        "convert for board 'pynq-z2'"
    )


@pytest.mark.parametrize("period", [0.0, -1.0, float("nan"), float("inf")])
def test_a_clock_period_that_is_not_positive_is_rejected(period):
    with pytest.raises(ConfigError, match=r"^synthesize: clock_period_ns must be positive, not "):
        vitis.plan(dataclasses.replace(PROJECT, clock_period_ns=period), BOARD)


@pytest.mark.parametrize("text", ["a}; exec rm {b", "[exit]", "a\nb", "$x", "a\\", "", '"'])
def test_a_value_that_tcl_would_read_otherwise_is_rejected(text):
    board = dataclasses.replace(BOARD, ps={**BOARD.ps, "ddr_part": text})
    with pytest.raises(ConfigError, match=r"^synthesize: PCW_UIPARAM_DDR_PARTNO must consist of"):
        vitis.plan(PROJECT, board)


def test_an_unknown_memory_is_rejected():
    with pytest.raises(ConfigError) as caught:
        vitis.plan(PROJECT, dataclasses.replace(BOARD, ps={**BOARD.ps, "ddr_type": "DDR9"}))
    assert str(caught.value) == (
        "synthesize: ps.ddr_type must be one of DDR3, DDR3L, DDR2, LPDDR2, not 'DDR9'; "
        "correct board 'pynq-z2'"
    )


# ---------------------------------------------------------------- the scripts, against stand-ins


def _tclsh(folder, script, **env):
    return subprocess.run(
        ["tclsh", str(GOLDEN / "stubs.tcl"), script],
        cwd=folder,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=False,
    )


def _calls(folder):
    return (folder / "calls.txt").read_text(encoding="utf-8")


@pytest.fixture
def build(tmp_path):
    for name, text in vitis.plan(PROJECT, BOARD).files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    (tmp_path / "hls" / "firmware" / "weights").mkdir(parents=True)
    return tmp_path


@pytest.mark.tool
@needs("tclsh")
@pytest.mark.parametrize("script", SCRIPTS)
def test_vendor_commands_equal_the_golden_ones(build, script):
    ran = _tclsh(build, script)
    assert (ran.stderr, ran.returncode) == ("", 0)
    same_as_golden(_calls(build), f"{script}.calls")


@pytest.mark.tool
@needs("tclsh")
def test_announced_steps_are_those_that_the_module_lists(build):
    (build / "settings.tcl").write_text(vitis.plan(PROJECT, BOARD, cosim=True).files["settings.tcl"])
    printed = "".join(_tclsh(build, script).stdout for script in SCRIPTS)
    assert tuple(re.findall("^flow: step (.*)$", printed, re.MULTILINE)) == vitis.STEPS
    assert "cosim_design -rtl verilog\n" in _calls(build)


@pytest.mark.tool
@needs("tclsh")
def test_both_scripts_leave_their_products(build):
    for script in SCRIPTS:
        assert _tclsh(build, script, HANDOFF="srcs").returncode == 0
    assert (build / "net.bit").exists()
    assert (build / "net.hwh").exists()
    assert (build / "reports" / "csynth.xml").exists()


@pytest.mark.tool
@needs("tclsh")
@pytest.mark.parametrize("script", SCRIPTS)
def test_a_failure_of_any_vendor_command_ends_the_script_with_1(build, script):
    _tclsh(build, script)
    commands = dict.fromkeys(line.split()[0] for line in _calls(build).splitlines())
    assert len(commands) > 8
    for command in commands:
        ran = _tclsh(build, script, FAIL=command)
        assert (ran.stderr, ran.returncode) == (f"ERROR: {script}: {command} failed\n", 1)
        assert not (build / "net.bit").exists()


@pytest.mark.tool
@needs("tclsh")
@pytest.mark.parametrize(
    ("env", "message"),
    [
        ({"SLACK-setup": "-0.013"}, "the worst setup slack must be 0 ns or more, not -0.013 ns; raise clock"),
        (
            {"SLACK-hold": "-0.2"},
            "the worst hold slack must be 0 ns or more, not -0.2 ns; raise clock_period",
        ),
        ({"SLACK-setup": ""}, "the worst setup slack must be a number, not ''"),
        ({"PROGRESS": "34%"}, "synth_1 must reach 100%, not 34% (synth_design ERROR)"),
        ({"LOST": "net_axis_0/ap_rst_n"}, "the block design must hold net_axis_0/ap_rst_n once, not 0 times"),
        ({"IPS": "0"}, "the IP catalog must hold xilinx.com:ip:processing_system7:* once, not 0 times"),
    ],
)
def test_a_result_that_is_not_good_ends_vivado_s_script_with_1(build, env, message):
    ran = _tclsh(build, "vivado_zynq7000.tcl", **env)
    assert ran.stderr.startswith(f"ERROR: vivado_zynq7000.tcl: {message}")
    assert ran.returncode == 1
    assert not (build / "net.bit").exists()


@pytest.mark.tool
@needs("tclsh")
def test_an_export_without_an_ip_ends_the_hls_script_with_1(build):
    ran = _tclsh(build, "vitis_hls.tcl", NO_IP="1")
    assert ran.stderr.startswith(
        "ERROR: vitis_hls.tcl: the export must leave vitis/solution/impl/ip/component.xml"
    )
    assert ran.returncode == 1


@pytest.mark.tool
@needs("tclsh")
@pytest.mark.parametrize("script", SCRIPTS)
def test_missing_settings_end_the_script_with_1(build, script):
    (build / "settings.tcl").unlink()
    assert _tclsh(build, script).returncode == 1
