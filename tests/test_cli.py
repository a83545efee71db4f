"""The command: quick, one message an error, JSON for machines."""

import json
import os
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import pytest
from bit_files import bit_file
from conftest import SMALL, needs

from flow.errors import ConfigError, MismatchError, ToolError
from flow.files import read_sealed
from flow.types import FixedPoint, LayerCheck

PROGRAM = [sys.executable, "-m", "flow.cli"]


def flow(*arguments: str, cwd: Path | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PROGRAM, *arguments],
        cwd=cwd,
        env={**os.environ, "COLUMNS": "100", **env},
        capture_output=True,
        text=True,
        check=False,
    )


def as_toml(config: dict[str, object]) -> str:
    """Return the test's config as a file."""
    head = [f"{key} = {json.dumps(value)}" for key, value in config.items() if not isinstance(value, dict)]
    tables = [
        "\n".join([f"[{key}]", *(f"{option} = {json.dumps(chosen)}" for option, chosen in value.items())])
        for key, value in config.items()
        if isinstance(value, dict)
    ]
    return "\n".join([*head, *tables])


def test_help_lists_the_commands() -> None:
    done = flow("--help")
    assert done.returncode == 0
    for command in ("run", "demo", "init", "doctor", "boards", "scan"):
        assert f"  {command} " in done.stdout


def test_help_loads_no_heavy_library() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "flow.cli", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = {line.split("|")[-1].strip() for line in done.stderr.splitlines()}
    assert not loaded & {"torch", "numpy", "hls4ml", "onnx", "rich", "sklearn", "flow.run.pipeline"}


def test_the_version_is_printed_without_a_heavy_library() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "flow.cli", "--version"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"prune2bit {version('prune2bit')}\n"
    loaded = {line.split("|")[-1].strip() for line in done.stderr.splitlines()}
    assert not loaded & {"torch", "numpy", "hls4ml", "onnx", "rich", "sklearn", "flow.run.pipeline"}


@pytest.mark.parametrize("columns", ["80", "100"])
def test_every_command_is_described_in_one_line(columns: str) -> None:
    lines = flow("--help", COLUMNS=columns).stdout.splitlines()
    commands = lines[lines.index("Commands:") + 1 :]
    assert len(commands) == 11
    assert all(line.endswith(".") and not line.endswith("...") and len(line) <= 80 for line in commands)


@pytest.mark.parametrize("arguments", [("boards",), ("doctor",)])
def test_lists_keep_within_eighty_columns(arguments: tuple[str, ...]) -> None:
    lines = flow(*arguments, COLUMNS="80").stdout.splitlines()
    assert all(len(line) <= 80 for line in lines if line.startswith("    ") or arguments == ("boards",))
    assert len(lines) > 10


@pytest.mark.parametrize(
    ("arguments", "digits"),
    [
        (("run",), "flow demo runs the digits"),
        (("emulate",), "flow emulate demo takes the digits"),
        (("deploy",), "flow deploy demo takes the digits"),
        (("fit", "--target-fps", "100"), "flow fit demo takes the digits"),
        (("finn",), "flow finn demo takes the digits"),
        (("scan",), "flow scan demo takes the digits"),
    ],
)
def test_without_a_config_a_command_names_the_next_steps(
    tmp_path: Path, arguments: tuple[str, ...], digits: str
) -> None:
    done = flow(*arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (
        1,
        "",
        f"ConfigError: {arguments[0]}: a config must be named where the folder has no flow.toml, not left out; "
        f"flow init writes one, {digits}\n",
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "arguments", [("run",), ("emulate",), ("deploy",), ("fit", "--target-fps", "100"), ("scan",)]
)
def test_the_config_of_the_folder_is_taken_and_said_so(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    (tmp_path / "flow.toml").write_text("[prun]\n")
    done = flow(*arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr.splitlines()) == (
        1,
        "",
        [
            f"{arguments[0]}: takes this folder's flow.toml",
            "ConfigError: config: key 'prun' is not known; did you mean 'prune'?",
        ],
    )


@pytest.mark.parametrize("arguments", [("demo",), ("run", "demo")])
def test_the_demo_is_the_digits_whatever_the_folder_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    from typer.testing import CliRunner

    from flow import cli
    from flow.run import pipeline

    (tmp_path / "flow.toml").write_text("[prun]\n")
    monkeypatch.chdir(tmp_path)
    asked: list[tuple[object, dict[str, object]]] = []

    def run(config: object, **given: object) -> SimpleNamespace:
        asked.append((config, given))
        return SimpleNamespace(values={})

    monkeypatch.setattr(pipeline, "run", run)
    chosen = (
        "--board",
        "ulx3s-85f",
        "--toolchain",
        "open",
        "--to",
        "convert",
        "--out",
        "there",
        "--seed",
        "3",
    )
    done = CliRunner().invoke(cli.app, [*arguments, *chosen, "--json"])
    assert (done.exit_code, done.stderr) == (0, "")
    given = {"out": Path("there"), "first": None, "last": "convert", "seed": 3, "board": "ulx3s-85f"}
    assert asked == [(None, {"options": {"synthesize": {"toolchain": "open"}}, **given})]


def test_boards_are_listed_with_their_resources() -> None:
    done = flow("boards")
    line = next(line for line in done.stdout.splitlines() if line.startswith("pynq-z2"))
    assert line.split() == [
        "pynq-z2",
        "xc7z020clg400-1",
        "53,200",
        "106,400",
        "220",
        "5,040",
        "vitis",
        "open",
    ]


def test_boards_are_listed_for_machines() -> None:
    rows = json.loads(flow("boards", "--json").stdout)
    assert {"name": "pynq-z2", "luts": 53200, "bram_kibit": 5040}.items() <= {r["name"]: r for r in rows}[
        "pynq-z2"
    ].items()


def test_doctor_names_every_tool_its_place_and_its_use() -> None:
    rows = {row["name"]: row for row in json.loads(flow("doctor", "--json").stdout)}
    assert rows["torch"]["version"].startswith("2.")
    assert rows["vivado"]["use"] == "synthesize: Verilog to bitstream"
    assert {"g++", "vitis_hls", "vitis-run", "hls4ml", "brevitas", "qonnx"} <= rows.keys()


def test_doctor_says_what_is_not_there(tmp_path: Path) -> None:
    rows = {row["name"]: row for row in json.loads(flow("doctor", "--json", PATH=str(tmp_path)).stdout)}
    assert (rows["g++"]["version"], rows["g++"]["path"]) == (None, None)


def test_init_writes_a_config_once(tmp_path: Path) -> None:
    first = flow("init", cwd=tmp_path)
    assert (first.returncode, first.stdout) == (0, "flow.toml written; edit it, then: flow run\n")
    second = flow("init", cwd=tmp_path)
    assert (second.returncode, second.stderr) == (
        1,
        "ConfigError: init: 'flow.toml' must not exist yet; move it away, or name another file\n",
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "config: 'flow.toml' must be an existing file, not missing; flow init writes one"),
        ("[prun]\n", "config: key 'prun' is not known; did you mean 'prune'?"),
        ('[model]\nsource = "a:b"\n[prune]\npruning_ration = 1\n', "[prune]: key 'pruning_ration' is not known; "
         "did you mean 'pruning_ratio'?"),
        ('board = "pynq-z22"\n[model]\nsource = "a:b"\n', "board must be one of arty-z7-20, icebreaker, kv260, "
         "pynq-z1, pynq-z2, tang-nano-20k, ultra96-v2, ulx3s-85f, zcu104, zybo-z7-20, not 'pynq-z22'; did you mean "
         "'pynq-z2'?"),
    ],
)  # fmt: skip
def test_bad_input_is_one_message_and_a_non_zero_exit(tmp_path: Path, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / "flow.toml").write_text(text)
    done = flow("run", "flow.toml", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"ConfigError: {message}\n")


def test_an_output_folder_that_is_a_file_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("mine")
    done = flow("demo", "--out", "taken", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (
        1,
        "ConfigError: out: 'taken' must be a folder, not a file; choose another with --out\n",
    )
    assert (tmp_path / "taken").read_text() == "mine"


@pytest.mark.parametrize("host", ["-oProxyCommand=true", "a b"])
def test_a_host_that_is_none_is_said_before_the_long_work(tmp_path: Path, host: str) -> None:
    done = flow("demo", f"--host={host}", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        f"ConfigError: synthesize: host must be a name such as user@workstation, not {host!r}; "
        "a port or a proxy belongs into ssh's config"
    )
    assert not (tmp_path / "runs" / "digits" / "train").exists()


def test_a_bitstream_is_described(tmp_path: Path) -> None:
    path = tmp_path / "net.bit"
    path.write_bytes(bit_file())
    done = flow("bitstream", str(path), "--board", "pynq-z2")
    assert done.returncode == 0
    rows = dict(
        re.split(r"  +", line.strip(), maxsplit=1) for line in done.stdout.splitlines() if line.strip()
    )
    assert rows["part"] == "7z020clg400"
    assert rows["made"] == "2026/11/29 12:34:56, Vivado 2023.2"
    assert rows["checksum"] == "right"
    values = json.loads(flow("bitstream", str(path), "--json").stdout)
    assert (values["part"], values["crc_checked"]) == ("7z020clg400", True)
    refused = flow("bitstream", str(path), "--board", "zcu104")
    assert refused.returncode == 1
    assert refused.stderr.splitlines()[-1].startswith("ConfigError: flow: bitstream ")


def test_no_compiler_is_one_message(tmp_path: Path) -> None:
    done = flow("demo", cwd=tmp_path, PATH=str(tmp_path))
    assert (done.returncode, done.stderr.splitlines()[-1]) == (
        1,
        "ToolError: emulate: 'g++' must be on PATH, not missing; install it (Debian: apt install g++) "
        "(flow doctor shows what was found)",
    )


@needs("g++")
def test_a_finished_run_shows_its_figures_and_its_page(copy: Path, tmp_path: Path) -> None:
    (tmp_path / "flow.toml").write_text(as_toml(SMALL))
    done = flow("run", "flow.toml", "--out", str(copy), "--to", "train", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "accuracy" in done.stdout
    assert done.stdout.rstrip().endswith(f"report: {copy / 'report.html'}")


@needs("g++")
def test_json_prints_the_manifest_and_nothing_else(copy: Path, tmp_path: Path) -> None:
    (tmp_path / "flow.toml").write_text(as_toml(SMALL))
    done = flow("run", "flow.toml", "--out", str(copy), "--to", "train", "--json", cwd=tmp_path)
    assert json.loads(done.stdout) == read_sealed(copy / "manifest.json")
    assert done.stderr == ""


@pytest.fixture
def untrained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a config of a network that is not trained, in the current folder."""
    monkeypatch.chdir(tmp_path)
    config = {
        "name": "raw",
        "model": {"source": "flow.demo:digits_cnn"},
        "train": {"epochs": 0},
        "prune": {"pruning_ratio": 0.5, "criterion": "magnitude", "ignored_layers": ["conv1"]},
    }
    (tmp_path / "flow.toml").write_text(as_toml(config))
    return Path("flow.toml")


def scanned(config: Path, **options: object) -> None:
    from flow import cli

    cli.scan(config, **{"out": None, "ratios": "0.5,0.25", "max_drop": 0.5, "as_json": False, **options})


def test_scan_prints_a_table_and_what_to_put_into_the_config(
    untrained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scanned(untrained)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [line[:2] for line in lines[2:6]] == [
        ["layers", "width"],
        ["all", "channels"],
        ["conv2", "48"],
        ["conv3", "64"],
    ]
    assert lines[2][2:] == ["0.25", "0.5"]
    place = lines.index(["[prune.pruning_ratio_dict]"])
    assert lines[place + 1 :] == [['"conv2"', "=", "0.5"], ['"conv3"', "=", "0.5"]]
    assert ["plot:", "runs/raw/scan.svg"] in lines
    assert Path("runs/raw/scan.svg").read_text().rstrip().endswith("</svg>")


def test_scan_takes_the_trained_network_of_the_run(
    untrained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    from flow import network
    from flow.prune.scan import scan
    from flow.run import pipeline
    from flow.training import data

    folder = pipeline.run(untrained, last="train").path.parent
    capsys.readouterr()
    scanned(untrained, as_json=True, out=Path("mine.png"))
    found = json.loads(capsys.readouterr().out)
    assert json.loads((folder / "manifest.json").read_text())["cached"] == {"train": True}
    samples = data.load()
    want = scan(
        network.load(folder / "train"),
        torch.from_numpy(samples.train[0][:2]),
        data=samples,
        ratios=(0.25, 0.5),
        criterion="magnitude",
        ignored_layers=("conv1",),
    )
    assert [(row["layers"], row["ratio"], row["loss"]) for row in found["rows"]] == [
        (list(row.layers), row.ratio, row.loss) for row in want.rows
    ]
    assert (found["accuracy"], found["plot"]) == (want.accuracy, "mine.png")
    assert found["suggested"] == want.suggested(0.5)
    assert Path("mine.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ratios": "0.5;0.9"}, "scan: ratios must be numbers with commas between them, not '0.5;0.9'; write 0.25,0.5"),
        ({"ratios": "1"}, "scan: ratios must be in [0, 1), not 1.0; 0.5 removes half of the channels"),
        ({"max_drop": 1.5}, "scan: max_accuracy_drop must be in [0, 1), not 1.5; 0.01 allows one point"),
        ({"out": Path("scan.pdf")}, "scan: plot must end in .svg or .png, not 'scan.pdf'; scan.svg stays sharp"),
    ],
)  # fmt: skip
def test_scan_refuses_bad_input_before_all_work(
    untrained: Path, options: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        scanned(untrained, **options)
    assert str(caught.value) == message
    assert not Path("runs").exists()


def test_scan_refuses_a_network_that_is_quantized_already(
    untrained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flow.run.scanning.enters_quantized", lambda _: True)
    with pytest.raises(ConfigError) as caught:
        scanned(untrained)
    assert str(caught.value) == (
        "scan: network must be a float one, not a quantized file; name the network that it was made of"
    )


def emulated(
    copy: Path, monkeypatch: pytest.MonkeyPatch, config: dict[str, object] = SMALL, **options: bool
) -> None:
    """Run ``flow emulate`` on a copy of the finished run, with ``config`` in the place of its file."""
    from flow import cli
    from flow.run import pipeline

    run = pipeline.run
    monkeypatch.setattr(pipeline, "run", lambda _, **given: run(config, **given))
    cli.emulate(Path("demo"), **{"layers": False, "as_json": False, **options}, out=copy)


@needs("g++")
def test_emulate_shows_the_chain_layer_by_layer(
    copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    emulated(copy, monkeypatch, layers=True)
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    head = next(number for number, line in enumerate(lines) if line.startswith("layer"))
    table = [line.split() for line in lines[head + 1 : head + 10]]
    assert [row[0] for row in table] == [
        "conv1",
        "relu1",
        "conv2",
        "relu2",
        "pool",
        "conv3",
        "relu3",
        "flatten",
        "fc",
    ]
    assert all(row[-2:] == (["-", "-"] if row[0] == "flatten" else ["0", "0"]) for row in table)
    for hop in ("torch = QONNX", "QONNX = integers", "integers = C++ (csim)"):
        assert f"{hop}: 0 LSB on 360 samples" in lines


@needs("g++")
def test_emulate_prints_the_chain_for_machines(
    copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    emulated(copy, monkeypatch, as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert [layer["csim_lsb"] for layer in found["layers"]] == [0] * 7 + [None, 0]
    assert {hop["name"]: hop["max_error"] for hop in found["hops"]}["integers = C++ (csim)"] == 0


@needs("g++")
def test_emulate_compares_the_verilog_too(
    copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    emulated(copy, monkeypatch, rtl=True, vcd=True)
    lines = capsys.readouterr().out.splitlines()
    assert "integers = Verilog (RTL): 0 LSB on 200 samples" in lines
    assert any(re.match(r"Verilog: (\S+) clocks a frame predicted, \1 measured; ", line) for line in lines)
    made = copy / "emulate" / "rtl"
    assert {"net.sv", "flow_mvau.sv", "wave.vcd"} <= {path.name for path in made.iterdir()}
    assert not list(made.glob("*.bin"))


def test_a_missing_verilator_is_said_before_the_long_work(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from flow import cli
    from flow.rtl import verilator

    monkeypatch.setattr(verilator, "installed", lambda: None)
    with pytest.raises(ToolError, match="'verilator' must be installed"):
        cli.emulate(Path("demo"), as_json=True, rtl=True, out=tmp_path)
    assert not list(tmp_path.glob("train*"))


def test_emulate_stops_at_the_first_layer_that_differs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from flow import cli
    from flow.run import pipeline

    before = LayerCheck("conv1", "Conv", (8, 8, 4), FixedPoint(True, 3, 9), -700, 800, 0.0, 0, 0)

    def run(*_: object, **__: object) -> None:
        raise MismatchError("emulate: it differs; first at layer 'relu1'", (before,))

    monkeypatch.setattr(pipeline, "run", run)
    with pytest.raises(MismatchError, match="first at layer 'relu1'"):
        cli.emulate(Path("demo"), layers=True, out=None, as_json=False)
    shown = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert shown[-1] == ["conv1", "conv", "8x8x4", "fixed<12,3>", "-700..800", "-", "0", "0"]
