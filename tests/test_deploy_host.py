"""From a finished run to a board behind a real sshd: the bundle, the self-test there, the report."""

import json
import os
import re
import sys
from pathlib import Path

import pytest
from conftest import SMALL
from ssh_server import Server, needs_sshd, serving
from vendor_tools import leave

from flow import cli
from flow.deploy import deploy
from flow.errors import ConfigError, MismatchError, ToolError
from flow.run import deployment, pipeline

ROOT = Path(__file__).resolve().parents[1]
pytestmark = needs_sshd


def by_hand(out, **hardware):
    """Put what ``sh build.sh`` leaves into the run's folder; the network of ``net`` stands for it."""
    top = json.loads((out / "manifest.json").read_text())["hls"]["top"]
    folder = out / "synthesize"
    leave(folder, top, **hardware)
    return folder


@pytest.fixture
def run(copy):
    """A finished run with a build by hand in its folder."""
    by_hand(copy)
    return copy


@pytest.fixture
def board(tmp_path):
    """A login that plays the board: PYNQ's environment is set up by its login shell, as on a real image."""
    with serving(tmp_path / "board") as server:
        yield server


def wire(server: Server, out: Path, **facts):
    """Put the run's network and faults behind the login."""
    monitor = json.loads((out / "bundle" / "manifest.json").read_text())["monitor"] or {"design_id": "0"}
    known = {"onnx": str(out / "quantize" / "model.onnx"), "design_id": monitor["design_id"], **facts}
    (server.folder / "facts.json").write_text(json.dumps(known))
    paths = os.pathsep.join(str(path) for path in (ROOT / "tests" / "fake_board", ROOT / "tests", ROOT))
    (server.home / ".bash_profile").write_text(
        f"echo 'Welcome to the board'\nexport PATH={server.bin}:$PATH PYTHONPATH={paths} OMP_NUM_THREADS=1\n"
        f"export FLOW_BOARD=\"$(cat '{server.folder}/facts.json')\"\n"
    )
    server.program("python3", f'exec {sys.executable} "$@"')


def login(server):
    return {"host": "workstation", "ssh_config": str(server.config), "host_folder": "bundles"}


def test_a_bundle_goes_to_the_board_and_its_result_into_the_report(run, board):
    pipeline.run(SMALL, out=run)
    source, done = deployment.deploy_run(SMALL, out=run)
    assert (source, done) == (run / "bundle", None)
    wire(board, run)
    _, done = deployment.deploy_run(SMALL, out=run, **login(board))
    assert (done.board, done.samples, done.max_error_lsb, done.link) == ("pynq-z2", 256, 0, "DMA (pynq)")
    assert done.design_id == json.loads((source / "manifest.json").read_text())["monitor"]["design_id"]
    assert done.clocks[0] > 10 and done.cycles_per_sample > 1 and done.clock_mhz == 100
    assert 0.5 < done.accuracy <= 1
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["deployment"]["samples_per_second"] == done.samples_per_second
    assert manifest["equality"]["hops"][-1]["name"] == "golden vectors = board"
    page = (run / "report.html").read_text()
    assert "on the board" in page and "golden vectors" in page
    again = pipeline.run(SMALL, out=run).values
    assert again["deployment"] == manifest["deployment"]
    assert again["synthesis"]["report"]["slack_ns"] == 0.25


def test_the_bundle_holds_the_driver_and_nothing_of_this_machine(run):
    source, _ = deployment.deploy_run(SMALL, out=run)
    names = {path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file()}
    assert {
        *("manifest.json", "net.bit", "net.hwh", "golden.npz", "selftest.py", "README.md"),
        *("flow_board/__init__.py", "flow_board/driver.py", "flow_board/dma.py", "flow_board/selftest.py"),
    } <= names
    assert not [name for name in names if name.startswith("flow_board/") and not name.endswith(".py")]
    for name in names:
        assert str(run).encode() not in (source / name).read_bytes(), name
    manifest = json.loads((source / "manifest.json").read_text())
    assert manifest["dma"]["address"] == 0x4040_0000
    assert manifest["dma"]["length_bits"] == 26
    assert manifest["clock_mhz"] == 100
    assert manifest["inputs"][0]["shape"] == [8, 8, 1]


def test_one_lsb_on_the_board_is_a_mismatch_and_not_in_the_report(run, board):
    deployment.deploy_run(SMALL, out=run)
    wire(board, run, error_lsb=1)
    with pytest.raises(MismatchError) as caught:
        deployment.deploy_run(SMALL, out=run, **login(board))
    assert str(caught.value).startswith(
        "deploy: workstation: selftest: the board must equal the golden vectors, but sample 0, output "
    )
    assert "deployment" not in json.loads((run / "manifest.json").read_text())


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"fault": "no_tlast"}, "S2MM"),
        ({"design_id": "fedcba9876543210"}, "fedcba9876543210"),
    ],
)
def test_what_the_board_refuses_is_told_here(run, board, facts, message):
    deployment.deploy_run(SMALL, out=run)
    wire(board, run, **facts)
    with pytest.raises(ToolError, match=message) as caught:
        deployment.deploy_run(SMALL, out=run, **login(board))
    assert str(caught.value).startswith("deploy: workstation: ")


def test_a_login_without_a_self_test_s_result_is_told_with_its_last_lines(run, board):
    deployment.deploy_run(SMALL, out=run)
    wire(board, run)
    board.program("python3", "echo no numpy here; exit 1")
    with pytest.raises(ToolError) as caught:
        deployment.deploy_run(SMALL, out=run, **login(board))
    assert str(caught.value) == (
        "deploy: the self-test on workstation must end with its result, not without; its output ends with\n"
        "    Welcome to the board\n    no numpy here"
    )


def test_a_board_whose_key_is_not_known_is_refused(run, board):
    deployment.deploy_run(SMALL, out=run)
    board.know(None)
    with pytest.raises(ToolError, match="host key of 'workstation' must be known"):
        deployment.deploy_run(SMALL, out=run, **login(board))


def test_a_login_that_is_not_root_is_refused(run, board):
    deployment.deploy_run(SMALL, out=run)
    board.program("id", "echo 1000")
    board.program("sudo", "exit 1")
    with pytest.raises(ConfigError) as caught:
        deployment.deploy_run(SMALL, out=run, **login(board))
    assert str(caught.value) == (
        "deploy: workstation must let the login become root without a password, not ask for one; log in as root, "
        "or allow it in /etc/sudoers.d (docs/boards.md): only root programs the fabric"
    )


def test_a_build_of_another_design_gives_no_bundle(run):
    settings = run / "synthesize" / "settings.tcl"
    (run / "synthesize" / "hls").exists()
    text = settings.read_text()
    settings.write_text(text.replace("set settings(design_id) {", "set settings(design_id) {0"))
    with pytest.raises(ConfigError, match="settings.tcl is missing or altered"):
        deployment.deploy_run(SMALL, out=run)


def test_a_run_that_was_not_built_gives_no_bundle(copy):
    with pytest.raises(ConfigError) as caught:
        deployment.deploy_run(SMALL, out=copy)
    path = (copy / "synthesize" / "net.bit").resolve()
    assert str(caught.value) == (
        f"deploy: {str(path)!r} must be there, not missing; build it with flow run, or with sh build.sh where Vitis "
        "HLS and Vivado are"
    )


@pytest.mark.parametrize("hardware", [{"scatter_gather": 1}])
def test_a_hand_off_without_a_dma_for_the_network_gives_no_bundle(copy, hardware):
    by_hand(copy, **hardware)
    with pytest.raises(ConfigError, match="scatter"):
        deployment.deploy_run(SMALL, out=copy)


def test_a_real_hand_off_of_another_design_gives_a_bundle_without_a_monitor(copy, vendor, board):
    folder = by_hand(copy)
    real = next(vendor.glob("pynq_z2_mlp_2019.2/dma_test_pynq_stream/**/design_1.hwh"))
    (folder / "net.hwh").write_text(real.read_text(encoding="utf-8-sig").replace("myproject_axi", "net_axis"))
    source, _ = deployment.deploy_run(SMALL, out=copy)
    manifest = json.loads((source / "manifest.json").read_text())
    assert manifest["monitor"] is None
    assert manifest["dma"] == {
        "instance": "hier_0_axi_dma_0",
        "address": 0x4040_0000,
        "span": 0x1_0000,
        "length_bits": 26,
        "address_bits": 32,
        "word_bits": 32,
    }
    wire(board, copy)
    _, done = deployment.deploy_run(SMALL, out=copy, **login(board))
    assert (done.samples, done.max_error_lsb, done.clocks, done.design_id) == (256, 0, None, "")


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(ConfigError) as caught:
        deployment.deploy_run(SMALL, out=tmp_path / "none")
    assert (
        str(caught.value)
        == f"deploy: {str(tmp_path / 'none')!r} must hold a run, not be missing; flow run makes one"
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "deploy: one of serial and host must be given, not none; name the board's port or login"),
        (
            {"serial": "/dev/ttyUSB0", "host": "a@b"},
            "deploy: one of serial and host must be given, not both; name the board's port or login",
        ),
        (
            {"host": "a@b", "samples": 0},
            "deploy: samples must be at least 1, not 0; leave it out for all",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(tmp_path, given, message):
    with pytest.raises(ConfigError) as caught:
        deploy(tmp_path, **given)
    assert str(caught.value) == message


def test_a_folder_that_is_no_bundle_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="must be a bundle, not fail with FileNotFoundError"):
        deploy(tmp_path, host="xilinx@pynq")


def test_the_command_prints_what_the_board_did(run, board, capsys, monkeypatch):
    config = run.parent / "flow.toml"
    config.write_text('name = "small"\n[model]\nsource = "flow.demo:digits_cnn"\n')

    def flow(*options):
        monkeypatch.setattr(sys, "argv", ["flow", "deploy", str(config), "--out", str(run), *options])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return ended.value.code, capsys.readouterr().out

    assert flow() == (
        0,
        f"bundle: {run / 'bundle'}\ncopy it to the board; there, as root: python3 selftest.py\n",
    )
    wire(board, run)
    status, printed = flow("--host", "workstation", "--ssh-config", str(board.config), "--samples", "40")
    assert status == 0
    first, second, third = printed.splitlines()
    assert re.fullmatch(r"pynq-z2: 40 samples, 0 LSB, accuracy [0-9.]+ %", first)
    assert re.fullmatch(
        r"on the chip: [0-9,]+ clocks a sample \([0-9.,]+ us\), [0-9.,]+ from sample to sample in a batch",
        second,
    )
    assert re.fullmatch(r"over the DMA \(pynq\): [0-9.,]+ us for one sample, [0-9,]+ samples a second", third)
    status, printed = flow("--host", "workstation", "--ssh-config", str(board.config), "--json")
    assert (status, json.loads(printed)["samples"]) == (0, 256)
