"""What the logs of a vendor build say: against a real log of 2025.1, and lines of the errors that users meet."""

import pytest

from flow.toolchains.vitis import log

RUN = "pynq_z2_iris_2025.1/vivado_project/iris_hardware/iris_hardware.runs/impl_1/runme.log"


@pytest.fixture
def real_log(vendor):
    """The log of a real implementation run, line by line."""
    return (vendor / RUN).read_text(encoding="utf-8", errors="replace").splitlines()


def test_a_real_log_tells_its_phases_in_order(real_log):
    details = [detail for line in real_log if (detail := log.detail(line)[1])]
    assert len(details) > 60
    order = [details.index(name) for name in ("opt_design", "place_design", "route_design")]
    assert order == sorted(order)
    assert "1 Placer Initialization" in details
    assert "4.1.1.1 BUFG Insertion" in details
    assert not [detail for detail in details if "Checksum" in detail]


def test_a_real_log_of_a_good_run_holds_no_error(real_log, tmp_path):
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "impl_1.log").write_text("\n".join(real_log))
    assert log.errors(tmp_path) == ()


@pytest.mark.parametrize(
    ("line", "step", "detail"),
    [
        ("flow: step C synthesis", "C synthesis", None),
        ("flow: worst setup slack 0.25 ns", None, "worst setup slack 0.25 ns"),
        ("flow: fabric clock 100.000000 MHz", None, "fabric clock 100.000000 MHz"),
        ("INFO: [HLS 200-10] -- Implementing module 'dense_config2' ", None, "Implementing module 'dense_config2'"),
        ("Phase 2.3 Update Timing", None, "2.3 Update Timing"),
        ("Phase 2.3 Update Timing | Checksum: 1fad70717", None, None),
        ("Command: place_design", None, "place_design"),
        ("Starting Routing Task", None, "Routing"),
        ("INFO: [Timing 38-35] Done setting XDC timing constraints.", None, None),
        ("", None, None),
    ],
)  # fmt: skip
def test_lines_are_steps_or_what_is_done_in_them(line, step, detail):
    assert log.detail(line) == (step, detail)


def test_errors_come_from_every_log_each_once(tmp_path):
    for name, text in (
        ("logs/vitis_hls.log", "INFO: fine\nERROR: [HLS 200-70] first\nERROR: [HLS 200-70] first\n"),
        ("logs/vivado.log", "ERROR: vivado.tcl: synth_1 must reach 100%, not 0%\n"),
        (
            "vivado/vivado.runs/synth_1/runme.log",
            "WARNING: no\n  ERROR: [Synth 8-439] module 'x' not found\n",
        ),
        ("vitis/solution/csim/report/net_axis_csim.log", "MISMATCH sample 3 output 1 expected 2 got 3\n"),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert log.errors(tmp_path) == (
        "ERROR: [HLS 200-70] first",
        "ERROR: vivado.tcl: synth_1 must reach 100%, not 0%",
        "ERROR: [Synth 8-439] module 'x' not found",
        "MISMATCH sample 3 output 1 expected 2 got 3",
    )


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        (
            "ERROR: [Common 17-345] A valid license was not found for feature 'Synthesis' and/or device 'xcu250'.",
            "a licence for this part must be there",
        ),
        ("ERROR: [Common 17-179] Fork failed: No space left on device", "the disk must have room; free some"),
        ("ERROR: [Coretcl 2-106] Specified part could not be found.", "the board's part must be installed"),
        ("terminate called: std::bad_alloc", "the machine must have enough memory"),
        ("ERROR: vivado.tcl: the IP catalog must hold *:hls:net_axis:* once", "Vivado's IP catalog must hold it"),
        ("MISMATCH sample 3 output 1 expected 2 got 3", "the C++ must compute the same under the vendor's headers"),
        ("ERROR: vivado.tcl: the worst setup slack must be 0 ns or more, not -1", "the clock must be reached"),
        ("ERROR: [Place 30-640] Place Check : This design requires more LUT cells", "the network must fit the board"),
        ("libtinfo.so.5: cannot open shared object file", "a library of the system must be there; install it"),
    ],
)  # fmt: skip
def test_known_errors_say_what_to_do(line, rule):
    assert log.advice(["INFO: nothing", line]).startswith(rule)


def test_an_unknown_error_has_no_advice():
    assert log.advice(["ERROR: [Synth 8-439] module 'x' not found"]) is None
