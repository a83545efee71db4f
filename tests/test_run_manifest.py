"""The manifest: what a board did counts for the bitstream that it ran, and for no other."""

import json

import pytest

import flow.report
from flow.errors import ConfigError
from flow.files import write_sealed
from flow.run import manifest
from flow.types import Deployment

DONE = Deployment(
    board="pynq-z2",
    design_id="0x1",
    link="DMA (pynq)",
    samples=256,
    max_error_lsb=0,
    accuracy=None,
    clocks=(10, 12),
    latency_us=1.0,
    samples_per_second=1e6,
    clock_mhz=100.0,
)
CSIM = {"name": "integers = C++ (csim)"}


def values(built):
    return {"hashes": {"synthesize": built}, "equality": {"hops": [dict(CSIM)]}}


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Return the folder of a run whose board ran the build ``a``."""
    monkeypatch.setattr(flow.report, "render", lambda values: "a report")
    manifest.write(tmp_path, values("a"))
    manifest.add_deployment(tmp_path, DONE)
    return tmp_path


def read(run):
    return json.loads((run / manifest.MANIFEST).read_text())


@pytest.mark.parametrize("again", [lambda run: values("a"), read], ids=["built again", "as it was"])
def test_what_a_board_did_stays_with_its_build(run, again):
    manifest.write(run, again(run))
    assert read(run)["deployment"]["samples"] == 256
    assert [hop["name"] for hop in read(run)["equality"]["hops"]] == [CSIM["name"], "golden vectors = board"]


@pytest.mark.parametrize(
    "other", [values("b"), {"equality": {"hops": [CSIM]}}], ids=["built anew", "not built"]
)
def test_what_a_board_did_with_another_build_is_left_out(run, other):
    manifest.write(run, other)
    assert "deployment" not in read(run)
    assert read(run)["equality"]["hops"] == [CSIM]
    assert (run / manifest.DEPLOYED).is_file()


@pytest.mark.parametrize("text", ["", "[]", '{"synthesize": "a"}', '"a"', "one digit"])
def test_an_altered_record_is_refused(run, text):
    file = run / manifest.DEPLOYED
    file.write_text(file.read_text().replace("256", "255") if text == "one digit" else text)
    with pytest.raises(ConfigError) as error:
        manifest.write(run, values("a"))
    assert str(error.value).startswith(f"deploy: {str(file)!r} must be as it was written, not altered (")
    assert str(error.value).endswith("); remove it, or deploy again")


def test_a_manifest_or_report_that_was_altered_is_written_anew(run):
    hashes = {}
    assert manifest.covered(run, hashes)
    report = (run / manifest.REPORT).read_bytes()
    (run / manifest.REPORT).write_bytes(report + b" ")
    assert not manifest.covered(run, hashes)
    (run / manifest.REPORT).write_bytes(report)
    file = run / manifest.MANIFEST
    file.write_text(file.read_text().replace("csim", "sim"))
    assert not manifest.covered(run, hashes)


def test_a_folder_without_a_synthesized_run_is_refused(tmp_path):
    write_sealed(tmp_path / manifest.MANIFEST, {"hashes": {}})
    with pytest.raises(ConfigError) as error:
        manifest.add_deployment(tmp_path, DONE)
    assert str(error.value) == (
        f"deploy: {str(tmp_path)!r} must hold a run that was synthesized, not KeyError('synthesize'); "
        "flow run makes one"
    )
