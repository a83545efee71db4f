"""The config: every key and value is checked, and a mistake is answered with the nearest right key."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from flow import config
from flow.errors import ConfigError

MODEL = {"model": {"source": "a:b"}}


def refused(values: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as error:
        config.load(values)
    return str(error.value)


def test_the_demo_is_a_valid_config() -> None:
    checked = config.load(None)
    assert (checked.name, checked.board, checked.seed) == ("digits", "pynq-z2", 0)


def test_the_example_that_init_writes_is_valid_and_shows_every_option(tmp_path: Path) -> None:
    from flow.doctor import write_example

    write_example(tmp_path / "flow.toml")
    config.load(tmp_path / "flow.toml")
    shown = (tmp_path / "flow.toml").read_text()
    for stage, function in config.TABLES.items():
        table = shown.split(f"[{stage}]")[1].split("\n[")[0]
        for option in config._hints(function):
            assert f"{option} =" in table, f"[{stage}] {option}"


def test_the_defaults_in_the_example_are_the_defaults_of_the_stages(tmp_path: Path) -> None:
    import inspect
    import tomllib

    from flow.doctor import write_example

    write_example(tmp_path / "flow.toml")
    lines = (tmp_path / "flow.toml").read_text().splitlines()
    stage = ""
    compared = 0
    for line in lines:
        if line.startswith("["):
            stage = line.split("]")[0].strip("[")
        elif line.startswith("# ") and " = " in line and stage in config.TABLES and "default:" not in line:
            ((key, value),) = tomllib.loads(line[2:]).items()
            default = inspect.signature(config.TABLES[stage]).parameters[key].default
            if default is not None:
                assert (tuple(value) if isinstance(value, list) else value) == default, f"[{stage}] {key}"
                compared += 1
    assert compared > 20


def test_lists_become_tuples() -> None:
    checked = config.load({**MODEL, "prune": {"ignored_layers": ["conv1"]}})
    assert checked.options("prune") == {"ignored_layers": ("conv1",)}


def test_a_mistyped_key_is_refused_with_the_nearest_one() -> None:
    assert refused({**MODEL, "prune": {"prunning_ratio": 0.5}}) == (
        "[prune]: key 'prunning_ratio' is not known; did you mean 'pruning_ratio'?"
    )


def test_a_mistyped_table_is_refused_with_the_nearest_one() -> None:
    assert (
        refused({**MODEL, "quantise": {}}) == "config: key 'quantise' is not known; did you mean 'quantize'?"
    )


def test_an_unknown_key_is_refused_with_the_known_ones() -> None:
    assert (
        refused({**MODEL, "simplify": {"zzz": 1}})
        == "[simplify]: key 'zzz' is not known; known keys: samples"
    )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"prune": {"pwe": "five"}}, "[prune]: pwe must be an integer, not 'five'; correct the config"),
        ({"prune": {"pwe": True}}, "[prune]: pwe must be an integer, not True; correct the config"),
        ({"prune": {"twt": "low"}}, "[prune]: twt must be a number, not 'low'; correct the config"),
        (
            {"prune": {"ignored_layers": [1]}},
            "[prune]: ignored_layers must be a list of texts, not [1]; correct the config",
        ),
        ({"seed": 1.5}, "config: seed must be an integer, not 1.5; correct the config"),
        ({"train": 3}, "config: train must be a table, not 3; write [train] above its keys"),
        (
            {"synthesize": {"cosim": "yes"}},
            "[synthesize]: cosim must be true or false, not 'yes'; correct the config",
        ),
    ],
)
def test_a_value_of_the_wrong_type_is_refused(values: dict[str, Any], message: str) -> None:
    assert refused({**MODEL, **values}) == message


@pytest.mark.parametrize(
    ("stage", "key"),
    [("train", "progress"), ("train", "checkpoint"), ("prune", "cost"), ("quantize", "seed")],
)
def test_the_arguments_that_the_pipeline_fills_are_no_options(stage: str, key: str) -> None:
    assert refused({**MODEL, stage: {key: 1}}).startswith(f"[{stage}]: key {key!r} is not known")


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../x",
        "a/../../x",
        "/tmp/x",
        "a/b",
        "a\\b",
        ".store",
        "a\0b",
        "a\nb",
        "\x1b[2J",
        " a",
        "a ",
        "é" * 51,
        "a" * 101,
        "\udc80",
        "\u202eb",
    ],
)
def test_a_name_that_is_no_plain_folder_is_refused_before_anything_is_written(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import flow

    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as error:
        flow.run({"name": name, **MODEL})
    assert str(error.value) == (
        f"config: name must be a plain name for a folder, not {name!r}; take up to 100 letters, digits, - and _: "
        "results go to runs/<name>"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a", "digits-8_bit v1.2", "größe", "-x", "a" * 100])
def test_a_plain_name_is_taken(name: str) -> None:
    assert config.load({"name": name, **MODEL}).name == name


def test_a_config_without_a_network_is_refused() -> None:
    assert refused({"name": "x"}) == (
        "[model]: source must name a function as 'package.module:function', not be left out; or name a file with onnx"
    )


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        config.load(tmp_path / "none.toml")
    assert str(error.value) == (
        f"config: '{tmp_path / 'none.toml'}' must be an existing file, not missing; flow init writes one"
    )


def test_a_file_that_is_not_toml_is_refused(tmp_path: Path) -> None:
    (tmp_path / "flow.toml").write_text("name = ")
    with pytest.raises(ConfigError, match="must be TOML, not broken: Invalid value"):
        config.load(tmp_path / "flow.toml")


def test_an_onnx_file_stands_alone() -> None:
    assert config.load({"model": {"onnx": "net.onnx"}}).model == {"onnx": "net.onnx"}
    for other in ("source", "checkpoint"):
        assert refused({"model": {"onnx": "net.onnx", other: "a:b"}}) == (
            f"[model]: onnx must stand alone, not beside {other}: the file holds network and weights; remove one"
        )


def test_an_opset_that_cannot_be_written_is_refused_before_the_long_work() -> None:
    assert refused({**MODEL, "onnx": {"opset": 99}}) == (
        "onnx: opset must be from 9 to 23, not 99; 13 is read by most programs"
    )
    assert refused({**MODEL, "onnx": {"path": "x"}}) == "[onnx]: key 'path' is not known; known keys: opset"


TABLES = '[model]\nsource = "a:b"\n[prune.budget]\nluts = 30000\nmacs = 1e6\n[quantize.layers.conv1]\nweight_bits = 4\n'


def nested(x: Mapping[str, float] | None = None, y: Mapping[str, Mapping[str, int]] | None = None) -> None:
    """Stand for a stage with tables among its options."""


def test_tables_within_tables_are_options(tmp_path: Path) -> None:
    (tmp_path / "flow.toml").write_text(TABLES)
    checked = config.load(tmp_path / "flow.toml")
    assert checked.options("prune") == {"budget": {"luts": 30000, "macs": 1e6}}
    assert checked.options("quantize") == {"layers": {"conv1": {"weight_bits": 4}}}


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"x": {"luts": "few"}}, "[train]: x must be a table of numbers, not {'luts': 'few'}"),
        ({"x": {"luts": True}}, "[train]: x must be a table of numbers, not {'luts': True}"),
        ({"x": 5}, "[train]: x must be a table of numbers, not 5"),
        ({"x": {"a": {"b": 1}}}, "[train]: x must be a table of numbers, not {'a': {'b': 1}}"),
        ({"y": {"bits": 4}}, "[train]: y must be a table of tables of integers, not {'bits': 4}"),
        (
            {"y": {"conv1": {"bits": 4.5}}},
            "[train]: y must be a table of tables of integers, not {'conv1': {'bits': 4.5}}",
        ),
    ],
)
def test_a_table_with_values_of_the_wrong_type_is_refused(
    monkeypatch: pytest.MonkeyPatch, table: dict[str, Any], message: str
) -> None:
    monkeypatch.setitem(config.TABLES, "train", nested)
    assert refused({**MODEL, "train": table}) == f"{message}; correct the config"
    good = {"x": {"luts": 3, "macs": 1e6}, "y": {"conv1": {"bits": 4}, "conv2": {}}}
    assert config.load({**MODEL, "train": good}).options("train") == good
