"""The vendor build as a plan, and its scripts run against stand-ins for the vendor's commands."""

import dataclasses
import os
import re
import subprocess
from pathlib import Path

import pytest
from conftest import needs
from vendor_tools import BOARD, PROJECT

from flow import boards
from flow.errors import ConfigError, ToolError, UnsupportedError
from flow.toolchains.vitis import plan as vitis

ROOT = Path(__file__).resolve().parents[1]
GOLDEN = Path(__file__).parent / "golden" / "vitis"
TCL = ROOT / "hls_templates" / "tcl"
COMMON = ("build.sh", "common.tcl", "vitis_hls.tcl")
VIVADO = ("vivado.sh", "vivado.tcl", "vivado_zynq7000.tcl")


def same_as_golden(text, name):
    """Compare with tests/golden/vitis/<name>; FLOW_UPDATE_GOLDEN=1 writes it instead."""
    if os.environ.get("FLOW_UPDATE_GOLDEN") == "1":
        (GOLDEN / name).write_text(text, encoding="utf-8")
    assert text == (GOLDEN / name).read_text(encoding="utf-8"), f"differs from {GOLDEN / name}"


# ---------------------------------------------------------------- the plan


@pytest.fixture
def project(tmp_path):
    """An HLS project as far as its design id looks into it."""
    (tmp_path / "project" / "firmware").mkdir(parents=True)
    (tmp_path / "project" / "firmware" / "net.cpp").write_text("// the network\n")
    return dataclasses.replace(PROJECT, path=tmp_path / "project")


VIVADO_BOARDS = [name for name in boards.names() if "vitis" in boards.load(name).toolchains]


@pytest.mark.parametrize("name", VIVADO_BOARDS)
def test_settings_of_every_board_equal_the_golden_ones(name):
    board = boards.load(name)
    design = dataclasses.replace(PROJECT, part=board.part, clock_period_ns=board.clock_period_ns)
    same_as_golden(vitis.plan(design, board).files["settings.tcl"], f"{name}.settings.tcl")


def test_there_are_boards_of_both_kinds():
    kinds = {boards.load(name).ps["type"] for name in VIVADO_BOARDS}
    assert kinds == {"zynq7000", "zynq_ultrascale"}
    assert {"pynq-z1", "pynq-z2", "arty-z7-20", "zybo-z7-20"} <= set(VIVADO_BOARDS)


def test_plan_has_the_scripts_as_they_are_and_names_its_products():
    plan = vitis.plan(PROJECT, BOARD)
    assert set(plan.files) == {*COMMON, *VIVADO, "settings.tcl", "flow_monitor.v"}
    for name in (*COMMON, *VIVADO):
        assert plan.files[name] == (TCL / name).read_text(encoding="utf-8")
    assert plan.products == (
        "net.bit",
        "net.hwh",
        "reports/csynth.xml",
        "reports/utilization.rpt",
        "reports/timing.rpt",
        "reports/power.rpt",
    )


def test_out_of_context_has_a_script_of_its_own_and_no_bitstream():
    plan = vitis.plan(PROJECT, BOARD, out_of_context=True)
    assert set(plan.files) == {*COMMON, "vivado_ooc.tcl", "settings.tcl"}
    assert plan.commands[1].argv == ("vivado", "-mode", "batch", "-nojournal", "-source", "vivado_ooc.tcl")
    assert plan.products[:2] == ("net_ooc.dcp", "reports/csynth.xml")


def test_the_monitor_bears_the_design_s_id(project):
    plan = vitis.plan(project, BOARD)
    identity = vitis.design_id(project, BOARD)
    assert re.fullmatch("[0-9a-f]{16}", identity)
    assert plan.files["flow_monitor.v"].count(f"parameter [63:0] DESIGN_ID = 64'h{identity},") == 1
    assert "parameter integer CLOCK_HZ = 100000000\n" in plan.files["flow_monitor.v"]
    assert "set settings(monitor) {1}\n" in plan.files["settings.tcl"]


def test_another_weight_or_board_gives_another_id(project):
    first = vitis.design_id(project, BOARD)
    assert vitis.design_id(project, BOARD) == first
    assert vitis.design_id(project, dataclasses.replace(BOARD, name="pynq-z1")) != first
    (project.path / "firmware" / "net.cpp").write_text("// another\n")
    assert vitis.design_id(project, BOARD) != first


def test_the_monitor_can_be_left_out():
    plan = vitis.plan(PROJECT, BOARD, monitor=False)
    assert "flow_monitor.v" not in plan.files
    assert "set settings(monitor) {0}\n" in plan.files["settings.tcl"]


def test_the_same_project_gives_the_same_plan():
    assert vitis.plan(PROJECT, BOARD) == vitis.plan(PROJECT, BOARD)


@pytest.mark.parametrize(
    ("hls", "first"),
    [
        ("vitis_hls", "vitis_hls -f vitis_hls.tcl"),
        ("vitis-run", "vitis-run --mode hls --tcl vitis_hls.tcl"),
    ],
)
def test_commands_of_the_plan(hls, first):
    commands = vitis.plan(PROJECT, BOARD, hls=hls).commands
    assert [" ".join(command.argv) for command in commands] == [first, "sh vivado.sh"]


def versions(vitis_hls=None, vitis_run=None, vivado=None):
    return {"vitis_hls": vitis_hls, "vitis-run": vitis_run, "vivado": vivado}


HLS_23 = "Vitis HLS - High-Level Synthesis from C, C++ and OpenCL v2023.2 (64-bit)"


@pytest.mark.parametrize(
    ("found", "program"),
    [
        (versions(), "vitis_hls"),
        (versions(vitis_hls=HLS_23), "vitis_hls"),
        (versions(vitis_hls=HLS_23, vitis_run="****** vitis-run v2023.2 (64-bit)"), "vitis_hls"),
        (versions(vitis_hls="v2024.2", vitis_run="****** vitis-run v2024.2 (64-bit)"), "vitis-run"),
        (versions(vitis_run="****** vitis-run v2025.1 (64-bit)"), "vitis-run"),
        (versions(vitis_hls=HLS_23, vitis_run=""), "vitis_hls"),
        (versions(vitis_hls="", vitis_run=""), "vitis_hls"),
    ],
)
def test_hls_program_is_chosen_by_the_version_found(found, program):
    assert vitis.hls_program(found) == program


def test_missing_programs_are_the_ones_that_the_build_would_start():
    assert vitis.missing(versions()) == ("vitis_hls", "vivado")
    assert vitis.missing(versions(vitis_run="v2025.1")) == ("vivado",)
    assert vitis.missing(versions(vitis_hls=HLS_23, vivado="vivado v2023.2 (64-bit)")) == ()


@pytest.mark.parametrize(
    "found",
    [
        versions(vitis_hls="v2022.2", vivado="vivado v2022.2 (64-bit)"),
        versions(vitis_run="v2025.2", vivado="vivado v2025.2 (64-bit)"),
        versions(vitis_hls=HLS_23, vivado="Vivado v2024.1 (64-bit)"),
        versions(vitis_hls="", vivado="who knows"),
    ],
)
def test_versions_that_the_scripts_are_written_for_pass(found):
    vitis.check_versions(found)


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (
            versions(vitis_hls=HLS_23, vivado="Vivado v2019.2 (64-bit)"),
            "synthesize: 'vivado' must be of version 2022.2 to 2025.2, not 2019.2; "
            "source the settings64.sh of such a version",
        ),
        (
            versions(vitis_run="vitis-run v2031.1", vivado="Vivado v2025.1 (64-bit)"),
            "synthesize: 'vitis-run' must be of version 2022.2 to 2025.2, not 2031.1; "
            "source the settings64.sh of such a version",
        ),
        (
            versions(vitis_hls=HLS_23, vivado="Vivado v2022.2 (64-bit)"),
            "synthesize: 'vivado' must be at least as new as 'vitis_hls', 2023.2, not 2022.2; "
            "source the settings64.sh of one version for both",
        ),
    ],
)
def test_a_wrong_version_is_refused(found, message):
    with pytest.raises(ToolError) as caught:
        vitis.check_versions(found)
    assert str(caught.value) == message


def test_cosimulation_is_a_setting():
    assert "set settings(cosim) {0}\n" in vitis.plan(PROJECT, BOARD).files["settings.tcl"]
    assert "set settings(cosim) {1}\n" in vitis.plan(PROJECT, BOARD, cosim=True).files["settings.tcl"]


def test_clock_is_the_project_s_not_the_board_s():
    settings = vitis.plan(dataclasses.replace(PROJECT, clock_period_ns=7.5), BOARD).files["settings.tcl"]
    assert "set settings(clock_period_ns) {7.5}\n" in settings
    assert "set settings(clock_mhz) {133.3333333}\n" in settings
    monitor = vitis.plan(dataclasses.replace(PROJECT, clock_period_ns=7.5), BOARD).files["flow_monitor.v"]
    assert "parameter integer CLOCK_HZ = 133333333\n" in monitor


@pytest.mark.parametrize(
    ("ps", "kind"), [({}, "none"), ({"type": "microblaze", "crystal_mhz": 33.3}, "microblaze")]
)
def test_a_board_without_a_zynq_is_refused(ps, kind):
    board = dataclasses.replace(BOARD, name="ulx3s-85f", ps=ps)
    with pytest.raises(UnsupportedError) as caught:
        vitis.plan(PROJECT, board)
    assert str(caught.value) == (
        "synthesize: board 'ulx3s-85f' must have one of zynq7000, zynq_ultrascale as its PS for Vivado, not "
        f"{kind}; choose such a board, or --toolchain open where the board has it"
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


def _written(folder, board=BOARD, **options):
    design = dataclasses.replace(PROJECT, part=board.part, clock_period_ns=board.clock_period_ns)
    for name, text in vitis.plan(design, board, **options).files.items():
        (folder / name).write_text(text, encoding="utf-8")
    (folder / "hls" / "firmware" / "weights").mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture
def build(tmp_path):
    return _written(tmp_path)


@needs("tclsh")
@pytest.mark.parametrize("name", VIVADO_BOARDS)
def test_every_board_s_block_design_equals_the_golden_one(tmp_path, name):
    ran = _tclsh(_written(tmp_path, boards.load(name)), "vivado.tcl")
    assert (ran.stderr, ran.returncode) == ("", 0)
    same_as_golden(_calls(tmp_path), f"{name}.vivado.calls")


@needs("tclsh")
@pytest.mark.parametrize(
    ("script", "options", "golden"),
    [
        ("vitis_hls.tcl", {}, "vitis_hls.tcl.calls"),
        ("vitis_hls.tcl", {"cosim": True}, "vitis_hls.cosim.calls"),
        ("vivado.tcl", {"monitor": False}, "vivado.no_monitor.calls"),
        ("vivado_ooc.tcl", {"out_of_context": True}, "vivado_ooc.tcl.calls"),
    ],
)
def test_vendor_commands_equal_the_golden_ones(tmp_path, script, options, golden):
    ran = _tclsh(_written(tmp_path, **options), script)
    assert (ran.stderr, ran.returncode) == ("", 0)
    same_as_golden(_calls(tmp_path), golden)


@needs("tclsh")
@pytest.mark.parametrize("path", sorted(TCL.glob("*.tcl")), ids=lambda path: path.name)
def test_every_tcl_file_is_whole(path):
    program = f"set f [open {{{path}}}]; puts [info complete [read $f]]"
    done = subprocess.run(["tclsh"], input=program, capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"


@needs("tclsh")
@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("place_desing", "place_desing must be a command of the table, not unknown to it"),
        ("place_design -fast", "place_design must have an option of UG835, not -fast"),
        ("synth_design -top", "synth_design -top must have a value (UG835)"),
        ("set_part", "set_part must have 1 to 1 words beside its options (UG1399), not 0: set_part"),
    ],
)
def test_what_no_vendor_document_has_fails(tmp_path, line, message):
    (tmp_path / "script.tcl").write_text(line)
    ran = _tclsh(tmp_path, "script.tcl")
    assert ran.returncode == 1
    assert ran.stderr.splitlines()[0] == message


@needs("tclsh")
def test_announced_steps_are_those_that_the_module_lists(tmp_path):
    _written(tmp_path, cosim=True)
    printed = "".join(_tclsh(tmp_path, script).stdout for script in ("vitis_hls.tcl", "vivado.tcl"))
    assert tuple(re.findall("^flow: step (.*)$", printed, re.MULTILINE)) == vitis.STEPS


@needs("tclsh")
def test_both_scripts_leave_their_products_and_the_runs_logs(build):
    for script in ("vitis_hls.tcl", "vivado.tcl"):
        assert _tclsh(build, script, HANDOFF="srcs").returncode == 0
    for name in ("net.bit", "net.hwh", "reports/csynth.xml", "logs/synth_1.log", "logs/impl_1.log"):
        assert (build / name).exists()


@needs("tclsh")
@pytest.mark.parametrize(
    ("script", "options"),
    [("vitis_hls.tcl", {}), ("vivado.tcl", {}), ("vivado_ooc.tcl", {"out_of_context": True})],
)
def test_a_failure_of_any_vendor_command_ends_the_script_with_1(tmp_path, script, options):
    build = _written(tmp_path, **options)
    _tclsh(build, script)
    commands = dict.fromkeys(line.split()[0] for line in _calls(build).splitlines())
    assert len(commands) > 8
    for product in ("net.bit", "net_ooc.dcp"):
        (build / product).unlink(missing_ok=True)
    for command in commands:
        ran = _tclsh(build, script, FAIL=command)
        assert (ran.stderr, ran.returncode) == (f"ERROR: {script}: {command} failed\n", 1)
        assert not (build / "net.bit").exists()


@needs("tclsh")
@pytest.mark.parametrize(
    ("env", "message"),
    [
        (
            {"SLACK-setup": "-0.013"},
            "the worst setup slack must be 0 ns or more, not -0.013 ns; raise synth_clk",
        ),
        (
            {"SLACK-hold": "-0.2"},
            "the worst hold slack must be 0 ns or more, not -0.2 ns; raise synth_clk_period",
        ),
        ({"SLACK-setup": ""}, "the worst setup slack must be a number, not ''"),
        ({"PROGRESS": "34%"}, "synth_1 must reach 100%, not 34% (synth_design ERROR)"),
        ({"LOST": "net_axis_0/ap_rst_n"}, "the block design must hold net_axis_0/ap_rst_n once, not 0 times"),
        ({"IPS": "0"}, "the IP catalog must hold xilinx.com:ip:processing_system7:* once, not 0 times"),
        (
            {"CLOCK": "142.857132"},
            "the fabric clock must be the HLS clock, 100 MHz, or up to a tenth slower, not 142.857132 MHz; "
            "set synth_clk_period_ns to 7",
        ),
        (
            {"CLOCK": "50"},
            "the fabric clock must be the HLS clock, 100 MHz, or up to a tenth slower, not 50 MHz;",
        ),
        ({"CLOCK": ""}, "the fabric clock must be a number of MHz, not ''"),
    ],
)
def test_a_result_that_is_not_good_ends_vivado_s_script_with_1(build, env, message):
    ran = _tclsh(build, "vivado.tcl", **env)
    assert ran.stderr.startswith(f"ERROR: vivado.tcl: {message}")
    assert ran.returncode == 1
    assert not (build / "net.bit").exists()


@needs("tclsh")
def test_a_clock_that_the_processor_makes_slightly_slower_is_taken(build):
    ran = _tclsh(build, "vivado.tcl", CLOCK="93.749")
    assert (ran.stderr, ran.returncode) == ("", 0)
    assert "flow: fabric clock 93.749 MHz\n" in ran.stdout


@needs("tclsh")
def test_an_export_without_an_ip_ends_the_hls_script_with_1(build):
    ran = _tclsh(build, "vitis_hls.tcl", NO_IP="1")
    assert ran.stderr.startswith(
        "ERROR: vitis_hls.tcl: the export must leave vitis/solution/impl/ip/component.xml"
    )
    assert ran.returncode == 1


@needs("tclsh")
@pytest.mark.parametrize("script", ["vitis_hls.tcl", "vivado.tcl"])
def test_missing_settings_end_the_script_with_1(build, script):
    (build / "settings.tcl").unlink()
    assert _tclsh(build, script).returncode == 1


@pytest.mark.parametrize("name", ["build.sh", "vivado.sh"])
def test_shell_scripts_are_whole(name):
    assert subprocess.run(["sh", "-n", str(TCL / name)], check=False).returncode == 0
