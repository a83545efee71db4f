"""The design as text: pasted or put into a flow.toml, where everything else stays."""

import tomllib
from pathlib import Path
from typing import Any

import pytest

from flow.errors import ConfigError
from flow.fit import Fit, LayerFit, hls_block, write
from flow.fit.writing import block_text


def layer(name: str, reuse: int | None) -> LayerFit:
    strategy = None if reuse is None else "Latency" if reuse == 1 else "Resource"
    return LayerFit(name, "product", reuse, strategy, 1, 1, 1, 1, 1)


LAYERS = (layer("conv1", 9), layer("conv1 quantizer", None), layer("block.fc", 1))


def made(fits: bool = True) -> Fit:
    return Fit(fits, "pynq-z2", 1.0, 10.0, "io_stream", LAYERS, {}, 9, 9, hls=hls_block(LAYERS))


def wanted(before: str) -> dict[str, Any]:
    config = tomllib.loads(before)
    config.setdefault("convert", {})["io_type"] = "io_stream"
    by_layer = config.setdefault("hls", {}).setdefault("LayerName", {})
    by_layer.setdefault("conv1", {}).update(ReuseFactor=9, Strategy="Resource")
    by_layer.setdefault("block.fc", {}).update(ReuseFactor=1, Strategy="Latency")
    return config


def test_only_layers_with_products_have_keys() -> None:
    assert hls_block(LAYERS)["LayerName"] == {
        "conv1": {"ReuseFactor": 9, "Strategy": "Resource"},
        "block.fc": {"ReuseFactor": 1, "Strategy": "Latency"},
    }


def test_the_block_to_paste_is_toml() -> None:
    assert tomllib.loads(block_text(made())) == wanted("")


FILES = {
    "empty": "",
    "without the tables": '# first\nname = "x"  # my name\n\n[model]\nsource = "a:b"',
    "with tables": (
        '[convert]   # C++\ntop = "net" # keep\nio_type = "io_parallel"  # why not\n\n'
        '[hls] # words\nStrategy = "Resource"\n[hls.LayerName.conv1]\nPrecision = "fixed<8,3>"\n'
        "ReuseFactor = 4 # tried\n"
        "# the end of conv1\n[emulate]\ntimeout_s = 9\n"
    ),
    "with quoted and spaced headers": '[ hls . LayerName . "block.fc" ]\nReuseFactor = 7\n[convert]\n',
    "with keys that look alike": (
        '[convert]\n# io_type = "io_parallel"\n[hls.LayerName.conv1]\nReuseFactorOld = 3\n[x]\nio_type = 1\n'
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_a_file_gets_the_keys_and_keeps_its_values_and_comments(name: str, tmp_path: Path) -> None:
    path = tmp_path / "flow.toml"
    path.write_text(FILES[name])
    write(made(), path)
    text = path.read_text()
    assert tomllib.loads(text) == wanted(FILES[name])
    for line in FILES[name].splitlines():
        if "#" in line:
            assert line[line.index("#") :] in text
    assert [entry.name for entry in tmp_path.iterdir()] == ["flow.toml"]


@pytest.mark.parametrize("name", FILES)
def test_writing_twice_is_writing_once(name: str, tmp_path: Path) -> None:
    path = tmp_path / "flow.toml"
    path.write_text(FILES[name])
    write(made(), path)
    once = path.read_text()
    write(made(), path)
    assert path.read_text() == once


@pytest.mark.parametrize(
    "text", ["hls = {LayerName = {conv1 = {ReuseFactor = 3}}}\n", 'convert.io_type = "io_parallel"\n']
)
def test_a_file_that_spells_tables_inline_stays_as_it_is(text: str, tmp_path: Path) -> None:
    path = tmp_path / "flow.toml"
    path.write_text(text)
    with pytest.raises(
        ConfigError, match=r"^fit: .* must spell \[convert\] and \[hls\] as tables .* not inline; paste"
    ):
        write(made(), path)
    assert path.read_text() == text


def test_a_design_that_does_not_fit_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "flow.toml"
    path.write_text("")
    with pytest.raises(
        ConfigError, match=r"^fit: only a design that fits must be written, not one that is short; .* stays"
    ):
        write(made(fits=False), path)
    assert path.read_text() == ""
