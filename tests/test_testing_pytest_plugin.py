"""The plug-in: a config as a regression test, its ratchet, and every kind of bad input as one message."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from conftest import SMALL, needs

from flow.errors import FlowError, MismatchError, ToolError
from flow.run import pipeline
from flow.testing import ratchet

pytest_plugins = ["pytester"]

GOOD: dict[str, Any] = {
    "accuracy": {"quantized": 0.9},
    "emulation": {"accuracy": 0.9},
    "macs": {"before": 900, "after": 200},
    "parameters": {"before": 90, "after": 50},
    "layers": [{"multipliers": 3}, {"multipliers": None}, {"multipliers": 4}],
    "compress": {"bytes_at_widths": 40},
    "equality": {
        "hops": [
            {"name": "torch = QONNX", "max_error": 0, "unit": "LSB", "exact": True},
            {"name": "QONNX = C++ (csim)", "max_error": 0, "unit": "LSB", "exact": True},
        ],
        "max_error_lsb": 0,
    },
}
FIGURES = {"accuracy": 0.9, "macs": 200, "parameters": 50, "multipliers": 7, "weight_bytes": 40}
Project = Callable[..., pytest.RunResult]


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Return how to run pytest over a project whose stages are a stand-in: it gives a manifest or fails."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    (pytester.path / "flow.toml").write_text('name = "net"\n[model]\nsource = "flow.demo:digits_cnn"\n')

    def run(*arguments: str, manifest: Any = GOOD) -> pytest.RunResult:
        def stages(config: Path, *, out: Path, last: str) -> pipeline.Manifest:
            with (pytester.path / "runs.txt").open("a") as file:
                print(config.name, out.relative_to(pytester.path), last, file=file)
            if isinstance(manifest, FlowError):
                raise manifest
            return pipeline.Manifest(out / "manifest.json", manifest)

        monkeypatch.setattr(pipeline, "run", stages)
        return pytester.runpytest_inprocess("-p", "flow.testing.pytest_plugin", *arguments)

    return run


def committed(folder: Path) -> Any:
    return json.loads((folder / "flow-golden.json").read_text())


def test_a_first_update_writes_the_ratchet_and_the_next_run_holds_to_it(
    project: Project, pytester: pytest.Pytester
) -> None:
    project("--flow-golden", "--flow-golden-update").assert_outcomes(passed=3)
    assert committed(pytester.path) == {"figures": FIGURES, "tolerance": ratchet.TOLERANCE}
    done = project("--flow-golden", "-v")
    done.assert_outcomes(passed=3)
    done.stdout.fnmatch_lines(["*flow.toml::equality PASSED*", "*flow.toml::resources PASSED*"])
    done.stdout.fnmatch_lines(["accuracy *0.9 -> 0.9"])


def test_one_run_serves_all_checks_and_stops_after_the_stage_asked_for(
    project: Project, pytester: pytest.Pytester
) -> None:
    project("--flow-golden", "--flow-golden-update")
    project("--flow-golden", "--flow-golden-to=synthesize")
    runs = (pytester.path / "runs.txt").read_text().splitlines()
    assert runs == ["flow.toml runs/net emulate", "flow.toml runs/net synthesize"]


def test_the_junit_file_holds_differences_accuracy_and_resources(
    project: Project, pytester: pytest.Pytester
) -> None:
    project("--flow-golden", "--flow-golden-update", "--junitxml=out.xml")
    cases = ElementTree.parse(pytester.path / "out.xml").findall(".//testcase")
    found = {
        case.get("name"): {p.get("name"): p.get("value") for p in case.iter("property")} for case in cases
    }
    assert found["equality"] == {"torch = QONNX [LSB]": "0", "QONNX = C++ (csim) [LSB]": "0"}
    assert found["accuracy"] == {"accuracy": "0.9"}
    assert found["resources"] == {k: str(v) for k, v in FIGURES.items() if k != "accuracy"}


def test_worse_results_fail_with_old_new_and_tolerance(project: Project, pytester: pytest.Pytester) -> None:
    project("--flow-golden", "--flow-golden-update")
    worse = {**GOOD, "emulation": {"accuracy": 0.89}, "macs": {"after": 300}}
    for option in ((), ("--flow-golden-update",)):
        done = project("--flow-golden", *option, manifest=worse)
        done.assert_outcomes(passed=1, failed=2)
        text = done.stdout.str()
        assert "accuracy must be at least 0.895 (was 0.9, tolerance 0.005), not 0.89" in text
        assert "macs must be at most 204 (was 200, tolerance 4), not 300" in text
        assert "pytest --flow-golden-force writes flow-golden.json" in text
        assert committed(pytester.path)["figures"] == FIGURES
    project("--flow-golden", "--flow-golden-force", manifest=worse).assert_outcomes(passed=3)
    assert committed(pytester.path)["figures"] == {**FIGURES, "accuracy": 0.89, "macs": 300}


def test_better_results_pass_and_move_the_ratchet_only_when_asked(
    project: Project, pytester: pytest.Pytester
) -> None:
    project("--flow-golden", "--flow-golden-update")
    better = {**GOOD, "emulation": {"accuracy": 0.95}, "macs": {"after": 100}, "parameters": {"after": 51}}
    project("--flow-golden", manifest=better).assert_outcomes(passed=3)
    assert committed(pytester.path)["figures"] == FIGURES
    project("--flow-golden", "--flow-golden-update", manifest=better).assert_outcomes(passed=3)
    # 51 parameters are within the tolerance of 50, and worse
    assert committed(pytester.path)["figures"] == {**FIGURES, "accuracy": 0.95, "macs": 100}
    assert sorted(p.name for p in pytester.path.glob("*golden*")) == ["flow-golden.json"]


def test_the_tolerance_of_the_file_counts(project: Project, pytester: pytest.Pytester) -> None:
    project("--flow-golden", "--flow-golden-update")
    values = committed(pytester.path) | {"tolerance": {"accuracy": 0.0, "resources": 1.0}}
    (pytester.path / "flow-golden.json").write_text(json.dumps(values))
    changed = {**GOOD, "emulation": {"accuracy": 0.8999}, "macs": {"after": 400}}
    done = project("--flow-golden", manifest=changed)
    done.assert_outcomes(passed=2, failed=1)
    assert "accuracy must be at least 0.9 (was 0.9, tolerance 0), not 0.8999" in done.stdout.str()


@pytest.mark.parametrize("gone", [("macs",), ("accuracy",), tuple(FIGURES)])
def test_a_figure_that_the_file_lacks_fails_until_it_is_added(
    project: Project, pytester: pytest.Pytester, gone: tuple[str, ...]
) -> None:
    project("--flow-golden", "--flow-golden-update")
    values = committed(pytester.path)
    for name in gone:
        del values["figures"][name]
    (pytester.path / "flow-golden.json").write_text(json.dumps(values))
    text = project("--flow-golden").stdout.str()
    for name in gone:
        assert (
            f"{name} must be in the ratchet, not be missing there ({FIGURES[name]:g}); "
            "pytest --flow-golden-update adds it"
        ) in text
    project("--flow-golden", "--flow-golden-update").assert_outcomes(passed=3)
    project("--flow-golden").assert_outcomes(passed=3)


@pytest.mark.parametrize(
    ("tolerance", "what"),
    [
        (
            {"accuracy": 0.9, "resources": 0.0},
            "tolerance of accuracy must be below 0.9, not 0.9: it holds nothing",
        ),
        (
            {"accuracy": 2.0, "resources": 0.0},
            "tolerance of accuracy must be below 0.9, not 2: it holds nothing",
        ),
        (
            {"accuracy": 0.0, "resources": 1.5},
            "tolerance of resources must be at most 1, not 1.5: it holds nothing",
        ),
    ],
)
def test_a_tolerance_that_holds_nothing_is_refused(
    project: Project, pytester: pytest.Pytester, tolerance: dict[str, float], what: str
) -> None:
    project("--flow-golden", "--flow-golden-update")
    values = committed(pytester.path) | {"tolerance": tolerance}
    (pytester.path / "flow-golden.json").write_text(json.dumps(values))
    done = project("--flow-golden")
    done.assert_outcomes(passed=1, failed=2)
    assert what in done.stdout.str()


def test_a_figure_that_is_measured_no_more_fails(project: Project) -> None:
    project("--flow-golden", "--flow-golden-update")
    done = project("--flow-golden", manifest={**GOOD, "macs": {}})
    done.assert_outcomes(passed=2, failed=1)
    assert "macs must be measured as before (200), not be missing" in done.stdout.str()


def test_reports_and_estimates_are_held_where_the_run_has_them() -> None:
    report = {
        "resources": {"luts": 11, "dsps": 2, "bram_bits": None},
        "latency_cycles": 5,
        "interval_cycles": None,
    }
    manifest = {
        "synthesis": {"report": report},
        "hardware": {"total": {"pruned": {"luts": 13}, "csynth": {"dsps": 3}}},
    }
    assert ratchet.measured(manifest) == {
        "estimated.luts": 13,
        "csynth.dsps": 3,
        "reported.luts": 11,
        "reported.dsps": 2,
        "reported.latency_cycles": 5,
    }
    assert ratchet.measured({"synthesis": {"report": None}, "hardware": {"total": {"csynth": None}}}) == {}


def test_a_hop_that_is_not_exact_fails(project: Project) -> None:
    hop = {"name": "QONNX = C++ (csim)", "max_error": 3, "unit": "LSB", "exact": False}
    done = project("--flow-golden", "-k", "equality", manifest={**GOOD, "equality": {"hops": [hop]}})
    done.assert_outcomes(failed=1, deselected=2)
    assert "QONNX = C++ (csim): both sides must be equal, not differ by 3 LSB" in done.stdout.str()


def test_a_run_without_csim_is_no_proof(project: Project) -> None:
    short = {**GOOD, "equality": {"hops": GOOD["equality"]["hops"][:1]}}
    done = project("--flow-golden", "-k", "equality", manifest=short)
    done.assert_outcomes(failed=1, deselected=2)
    assert "the C++ must be compared, not left out" in done.stdout.str()


@pytest.mark.parametrize(
    "error",
    [
        MismatchError("emulate: layer 'conv2' differs first: sample 3, index (0, 1): expected 5, got 6"),
        ToolError("emulate: 'g++' must be on PATH, not missing; install it (Debian: apt install g++)"),
    ],
)
def test_an_error_of_the_flow_is_its_message_without_a_traceback(project: Project, error: FlowError) -> None:
    done = project("--flow-golden", manifest=error)
    done.assert_outcomes(failed=3)
    assert done.stdout.str().count(f"flow.toml: {type(error).__name__}: {error}") >= 3
    assert "Traceback" not in done.stdout.str() and "pytest_plugin.py" not in done.stdout.str()


def test_a_missing_and_a_broken_ratchet_say_what_to_do(project: Project, pytester: pytest.Pytester) -> None:
    done = project("--flow-golden")
    done.assert_outcomes(passed=1, failed=2)
    assert (
        "must be committed beside the config, not missing; write it with --flow-golden-update"
        in done.stdout.str()
    )
    for text in ("{", "[]", '{"figures": {"macs": "many"}, "tolerance": {}}', '{"figures": {}}'):
        (pytester.path / "flow-golden.json").write_text(text)
        done = project("--flow-golden", "--flow-golden-update")
        done.assert_outcomes(passed=1, failed=2)
        assert "must hold figures and tolerances as numbers, not be broken" in done.stdout.str()
        assert (pytester.path / "flow-golden.json").read_text() == text
    project("--flow-golden", "--flow-golden-force").assert_outcomes(passed=3)
    assert committed(pytester.path)["figures"] == FIGURES


def test_a_broken_config_is_one_message(project: Project, pytester: pytest.Pytester) -> None:
    (pytester.path / "flow.toml").write_text("name = \n")
    done = project("--flow-golden")
    done.assert_outcomes(failed=3)
    assert "must be TOML, not broken: Invalid value (at line 1" in done.stdout.str()
    (pytester.path / "flow.toml").write_text("[prun]\n")
    assert "did you mean 'prune'?" in project("--flow-golden").stdout.str()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--flow-golden=other.toml",), "'other.toml' must name a file, not nothing in"),
        (("--flow-golden=*/flow.toml",), "'*/flow.toml' must name a file, not nothing in"),
        (
            ("--flow-golden", "runs.txt"),
            "must name a .toml file, not 'runs.txt'; write --flow-golden=flow.toml",
        ),
        (("--flow-golden", "."), "must name a .toml file"),
    ],
)
def test_a_config_that_is_not_there_is_a_usage_error(
    project: Project, pytester: pytest.Pytester, arguments: tuple[str, ...], message: str
) -> None:
    (pytester.path / "runs.txt").touch()
    done = project(*arguments)
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    assert message in done.stderr.str()


def test_several_configs_and_patterns(project: Project, pytester: pytest.Pytester) -> None:
    text = (pytester.path / "flow.toml").read_text()
    for name in ("a", "b"):
        (pytester.path / "nets" / name).mkdir(parents=True)
        (pytester.path / "nets" / name / "flow.toml").write_text(text.replace("net", name))
    done = project(
        "--flow-golden", "--flow-golden=nets/**/*.toml", "--flow-golden=flow.toml", "--flow-golden-update"
    )
    done.assert_outcomes(passed=9)
    found = sorted(str(p.relative_to(pytester.path)) for p in pytester.path.rglob("flow-golden.json"))
    assert found == ["flow-golden.json", "nets/a/flow-golden.json", "nets/b/flow-golden.json"]
    project("--flow-golden=flow.toml", "flow.toml::accuracy").assert_outcomes(passed=1)


def test_without_the_option_nothing_is_collected_and_nothing_heavy_is_imported(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytester.makepyfile(
        test_own="import sys\ndef test_own():\n"
        "    heavy = {'torch', 'numpy', 'hls4ml', 'onnx', 'flow.testing.ratchet', 'flow.config'} & sys.modules.keys()\n"
        "    assert not heavy\n"
    )
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    (pytester.path / "flow.toml").touch()
    done = pytester.runpytest_subprocess("-p", "flow.testing.pytest_plugin", "--strict-markers")
    done.assert_outcomes(passed=1)
    assert "golden" not in done.stdout.str()
    heavy = "{'torch', 'numpy', 'onnx', 'flow.config'}"
    code = f"import sys, flow.testing.pytest_plugin; print({heavy} & sys.modules.keys())"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown == "set()\n"


def test_own_tests_run_beside_the_configs_and_can_be_told_apart(
    project: Project, pytester: pytest.Pytester
) -> None:
    pytester.makepyfile(test_own="def test_own(): pass")
    options = ("--flow-golden", "--flow-golden-update", "--strict-markers")
    project(*options).assert_outcomes(passed=4)
    project(*options, "-m", "flow_golden").assert_outcomes(passed=3, deselected=1)


@needs("g++")
def test_a_real_run_from_its_store(
    copy: Path, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    real = pipeline.run
    # the run that is there was made of SMALL: the store's keys hold its options
    monkeypatch.setattr(pipeline, "run", lambda config, out, last: real(SMALL, out=copy, last=last))
    (pytester.path / "flow.toml").write_text('[model]\nsource = "flow.demo:digits_cnn"\n')
    options = ("-p", "flow.testing.pytest_plugin", "--flow-golden")
    pytester.runpytest_inprocess(*options, "--flow-golden-update").assert_outcomes(passed=3)
    figures = committed(pytester.path)["figures"]
    assert 0.5 < figures["accuracy"] <= 1
    assert {"macs", "parameters", "multipliers", "weight_bytes"} <= figures.keys()
    pytester.runpytest_inprocess(*options).assert_outcomes(passed=3)
