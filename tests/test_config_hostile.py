"""Configs that are broken or hold what no option can mean: one clear error each."""

import datetime
import os
from pathlib import Path
from typing import Any

import pytest

from flow import config
from flow.errors import ConfigError

MODEL = {"model": {"source": "a:b"}}
CORES = os.cpu_count() or 1


def refused(values: Any) -> str:
    with pytest.raises(ConfigError) as error:
        config.load(values)
    return str(error.value)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"\xff\xfe", "'utf-8' codec can't decode byte 0xff in position 0: invalid start byte"),
        (b"seed = ", "Invalid value (at end of document)"),
        (b"a = " + b"[" * 100_000, "maximum recursion depth exceeded while calling a Python object"),
        (b"a = " + b"{a=" * 100_000, "maximum recursion depth exceeded while calling a Python object"),
        (
            b"seed = " + b"9" * 5000,
            "Exceeds the limit (4300 digits) for integer string conversion: value has 5000 digits; "
            "use sys.set_int_max_str_digits() to increase the limit",
        ),
        (b"a = 1979-13-40", "Expected newline or end of document after a statement (at line 1, column 9)"),
    ],
)
def test_a_file_that_is_not_toml_is_refused(tmp_path: Path, text: bytes, reason: str) -> None:
    path = tmp_path / "flow.toml"
    path.write_bytes(text)
    message = refused(path)
    assert message.startswith(f"config: {str(path)!r} must be TOML, not broken: ")
    assert reason.partition(" while ")[0] in message
    assert message.endswith("; correct that line")


@pytest.mark.parametrize("name", ["none.toml", "a" * 300, "a\0b", "."])
def test_a_name_that_is_no_file_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    assert refused(path) == (
        f"config: {str(path)!r} must be an existing file, not missing; flow init writes one"
    )


@pytest.mark.parametrize("seed", [-1, 2**32 - 1, 2**63 - 1])
def test_a_seed_that_torch_and_numpy_do_not_both_take_is_refused(seed: int) -> None:
    assert refused({**MODEL, "seed": seed}) == (
        f"config: seed must be in [0, 4294967294], not {seed}; 0 is usual"
    )


def test_the_largest_seed_runs_through_every_generator(tmp_path: Path) -> None:
    from flow.training import seed_everything
    from flow.training.data import load

    seed = config.load({**MODEL, "seed": config.LARGEST_SEED}).seed
    seed_everything(seed)
    assert len(load(seed=seed).train[1]) == 1149


@pytest.mark.parametrize("threads", [0, -3, CORES + 1, 1_000_000])
def test_threads_that_the_machine_does_not_have_are_refused(threads: int) -> None:
    assert refused({**MODEL, "threads": threads}) == (
        f"config: threads must be in [1, {CORES}], this machine's, not {threads}; 1 suits small networks"
    )
    assert config.load({**MODEL, "threads": CORES}).threads == CORES


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"seed": 2**63}, "config: 'seed' must be an integer of at most 63 bits, not of 64"),
        ({"threads": -(10**5000)}, "config: 'threads' must be an integer of at most 63 bits, not of 16610"),
        ({"name": 10**5000}, "config: 'name' must be an integer of at most 63 bits, not of 16610"),
        (
            {"train": {"epochs": 10**400}},
            "[train]: 'epochs' must be an integer of at most 63 bits, not of 1329",
        ),
        ({"prune": {"twt": 10**400}}, "[prune]: 'twt' must be an integer of at most 63 bits, not of 1329"),
        ({"prune": {"twt": float("nan")}}, "[prune]: 'twt' must be a number, not nan"),
        ({"synth_clk_period_ns": float("nan")}, "config: 'synth_clk_period_ns' must be a number, not nan"),
        (
            {"hls": {"Model": {"ReuseFactor": 10**30}}},
            "[hls]: 'ReuseFactor' must be an integer of at most 63 bits, not of 100",
        ),
        ({"hls": {"Model": {"a": [[float("nan")]]}}}, "[hls]: 'a' must be a number, not nan"),
        (
            {"board": "a\0b"},
            r"config: 'board' must be a text of at most 4096 characters without NUL, not 'a\x00b'",
        ),
        (
            {"model": {"source": "a:b", "checkpoint": "\0"}},
            r"[model]: 'checkpoint' must be a text of at most 4096 characters without NUL, not '\x00'",
        ),
        (
            {"data": {"train": "x" * 5000}},
            f"[data]: 'train' must be a text of at most 4096 characters without NUL, not '{'x' * 80}'",
        ),
        (
            {"data": {"train": "\udc80"}},
            r"[data]: 'train' must be a text of at most 4096 characters without NUL, not '\udc80'",
        ),
        (
            {"k" * 5000: 1},
            f"config: '{'k' * 80}' must be a text of at most 4096 characters without NUL, not '{'k' * 80}'",
        ),
    ],
)
def test_values_that_no_option_can_mean_are_refused(values: dict[str, Any], message: str) -> None:
    assert refused({**MODEL, **values}) == f"{message}; correct the config"


@pytest.mark.parametrize("key", [1, None, ("a",), 2**70])
def test_keys_that_are_no_texts_are_refused(key: Any) -> None:
    told = f"keys must be texts, not of type {type(key).__name__}; correct the config"
    assert refused({**MODEL, key: 1}) == f"config: {told}"
    assert refused({**MODEL, "train": {key: 1}}) == f"[train]: {told}"
    assert refused({**MODEL, "hls": {"Model": {key: 1}}}) == f"[hls]: {told}"


@pytest.mark.parametrize("value", [datetime.date(1979, 5, 27), {"a": 1}, [1], None, b"x", 1.5])
def test_every_option_refuses_what_is_not_of_its_type(value: Any) -> None:
    for key in ("name", "seed", "threads", "board"):
        assert refused({**MODEL, key: value}).startswith(f"config: {key} must be ")
    for table in config.TABLES:
        if not isinstance(value, dict):
            assert refused({**MODEL, table: value}).startswith(f"config: {table} must be a table, not ")
