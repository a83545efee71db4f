"""The vendor build on another host: a real sshd with small scripts in place of the vendor's programs."""

import dataclasses
import threading
import time

import pytest
from ssh_server import needs_sshd, serving
from vendor_tools import BOARD, HLS, VERSION, VIVADO, put, same

from flow.errors import ConfigError, ToolError
from flow.synthesize import synthesize

pytestmark = needs_sshd


@pytest.fixture
def workstation(tmp_path, tools):
    """A login with the vendor's programs behind a settings file, and none of them on its PATH."""
    with serving(tmp_path / "workstation") as server:
        (server.folder / "vendor").mkdir()
        (server.home / "settings64.sh").write_text(
            f"export PATH='{server.folder}/vendor':$PATH FAKE='{tools()}'\n"
        )

        def installed(**scripts):
            for name, script in scripts.items():
                put(server.folder / "vendor", name, script)
            return server

        server.put = installed
        yield server


def there(server, **options):
    given = {"host": "workstation", "host_setup": "settings64.sh", "ssh_config": str(server.config)}
    return {"board": BOARD, "host_folder": "builds", **given, **options}


def test_the_same_build_runs_there_and_its_results_come_back(design, workstation, tmp_path):
    workstation.put(vitis_hls=HLS, vivado=VIVADO)
    seen = []
    out = tmp_path / "out"
    result = synthesize(design, out=out, progress=lambda *step: seen.append(step), **there(workstation))
    assert result.path == out / "net.bit"
    assert same(result.report)
    assert (out / "logs" / "vivado.log").exists()
    assert seen[0] == (1, 9, "C simulation")
    assert seen[-1] == (9, 9, "done")
    (build,) = (workstation.home / "builds").glob("[0-9a-f]*")
    assert (build / "work" / "argv.txt").read_text() == (
        "vitis_hls -f vitis_hls.tcl\nvivado -mode batch -nojournal -source vivado.tcl\n"
    )


def test_a_connection_that_is_cut_in_the_middle_costs_nothing(design, workstation, tmp_path):
    slow = VIVADO.replace(
        "mkdir -p reports", 'for i in 1 2 3 4 5 6; do echo "Phase $i Placer"; sleep 0.5; done'
    )
    workstation.put(vitis_hls=HLS, vivado=slow + 'echo once >> "$FAKE/built.txt"\n')
    seen = []

    def cut():
        while not any("Phase" in text or "2 Placer" in text for _, _, text in seen):
            time.sleep(0.05)
        workstation.cut()

    cutter = threading.Thread(target=cut)
    cutter.start()
    out = tmp_path / "out"
    result = synthesize(design, out=out, progress=lambda *step: seen.append(step), **there(workstation))
    cutter.join()
    assert same(result.report)
    phases = [text for _, _, text in seen if "Placer" in text]
    assert phases == [f"implementation: {number} Placer" for number in range(1, 7)]
    # the same call again finds the finished build
    assert same(synthesize(design, out=tmp_path / "again", **there(workstation)).report)
    assert (tmp_path / "answers" / "built.txt").read_text() == "once\n"


def test_a_failure_there_is_told_with_the_tool_s_errors(design, workstation, tmp_path):
    said = (
        "ERROR: [Place 30-640] Place Check : This design requires more LUT as Logic cells than are available"
    )
    workstation.put(vitis_hls=HLS, vivado=VERSION + f'echo "{said}"\nexit 1\n')
    out = tmp_path / "out"
    with pytest.raises(ToolError) as caught:
        synthesize(design, out=out, **there(workstation))
    assert str(caught.value) == (
        "synthesize: 'vivado' must exit with 0, not 1; the network must fit the board; prune more, use fewer bits, or "
        f"higher reuse factors (flow fit); its first errors are (logs in {out / 'logs'})\n    {said}"
    )


def test_programs_that_are_not_there_are_named_with_the_host(design, workstation, tmp_path):
    workstation.put(vitis_hls=HLS)
    with pytest.raises(ToolError) as caught:
        synthesize(design, out=tmp_path / "out", **there(workstation))
    assert str(caught.value) == (
        "synthesize: 'vivado' must be on PATH at workstation, not missing; name the settings64.sh there with "
        "[synthesize] host_setup"
    )


def test_a_version_there_is_checked(design, workstation, tmp_path):
    workstation.put(vitis_hls=HLS, vivado=VIVADO.replace("2023.2", "2020.1"))
    with pytest.raises(ToolError, match="'vivado' must be of version 2022.2 to 2025.2, not 2020.1"):
        synthesize(design, out=tmp_path / "out", **there(workstation))
    assert not (workstation.home / "builds").exists()


@pytest.mark.parametrize("host", ["-oProxyCommand=true", "a b", "user@", ""])
def test_a_name_that_is_no_host_s_is_refused_before_any_work(design, tmp_path, host):
    with pytest.raises(ConfigError, match="^synthesize: host must be a name such as user@workstation, not "):
        synthesize(design, board=BOARD, out=tmp_path / "out", host=host)
    assert not (tmp_path / "out").exists()


def test_the_open_toolchain_builds_here_alone(design, tmp_path):
    board = dataclasses.replace(BOARD, toolchains=("vitis", "open"))
    with pytest.raises(ConfigError) as caught:
        synthesize(design, board=board, out=tmp_path / "out", toolchain="open", host="user@workstation")
    assert str(caught.value) == (
        "synthesize: host must be left out with the open toolchain, which builds here, not be 'user@workstation'; "
        "leave it out, or choose --toolchain vitis"
    )
