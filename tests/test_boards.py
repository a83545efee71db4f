"""Boards are data: every file reads, the figures are the chip's, and a broken file is named exactly."""

from __future__ import annotations

import dataclasses
import tomllib

import pytest

from flow import boards
from flow.errors import ConfigError
from flow.resources import data_folder
from flow.types import Board, Resources

BRAM36_BITS = 36_864

# AMD DS190 (Zynq-7000), DS891 (Zynq UltraScale+), DS987 (Kria K26): LUT, FF, DSP, BRAM36
XC7Z020 = ("xc7z020clg400-1", 53_200, 106_400, 220, 140)
CHIPS = {
    "arty-z7-20": XC7Z020,
    "kv260": ("xck26-sfvc784-2LV-c", 117_120, 234_240, 1_248, 144),
    "pynq-z1": XC7Z020,
    "pynq-z2": XC7Z020,
    "ultra96-v2": ("xczu3eg-sbva484-1-i", 70_560, 141_120, 360, 216),
    "zcu104": ("xczu7ev-ffvc1156-2-e", 230_400, 460_800, 1_728, 312),
    "zybo-z7-20": XC7Z020,
}

SMALL = """
name = "small"
title = "A small board"
part = "xc7z020clg400-1"
toolchains = ["vitis"]
clock_period_ns = 10

[resources]
luts = 100
flip_flops = 200
dsps = 3
bram_bits = 36864

[ps]
type = "zynq7000"
crystal_mhz = 50.0

[pins]
clock = "H16"

[source]
part = "a document"
resources = "a document"
ps = "a document"
pins = "a document"
"""


@pytest.fixture
def write(tmp_path):
    """Write ``SMALL`` with one text replaced, under the name of the board; return its path."""

    def write(old="", new="", text=SMALL):
        assert old in text
        path = tmp_path / "small.toml"
        path.write_text(text.replace(old, new, 1) if old else text, encoding="utf-8")
        return path

    return write


def refusal(path):
    with pytest.raises(ConfigError) as caught:
        boards.read(path)
    return str(caught.value)


# The boards that the project brings


def test_the_boards_are_listed_in_order():
    assert set(boards.names()) >= set(CHIPS)
    assert list(boards.names()) == sorted(boards.names())


@pytest.mark.parametrize("name", boards.names())
def test_every_board_reads_and_bears_the_name_of_its_file(name):
    board = boards.load(name)
    assert board.name == name
    assert board.clock_period_ns > 0
    assert board.title


@pytest.mark.parametrize("name", CHIPS)
def test_a_board_offers_exactly_what_its_chip_has(name):
    board = boards.load(name)
    part, luts, flip_flops, dsps, brams = CHIPS[name]
    assert board.part == part
    assert board.resources == Resources(luts, flip_flops, dsps, brams * BRAM36_BITS)


@pytest.mark.parametrize("name", ["arty-z7-20", "pynq-z1", "pynq-z2", "zybo-z7-20"])
def test_the_zynq_7020_boards_carry_the_exact_figures_of_the_chip(name):
    board = boards.load(name)
    assert board.part == "xc7z020clg400-1"
    assert board.resources == Resources(luts=53_200, flip_flops=106_400, dsps=220, bram_bits=5_160_960)
    assert board.clock_period_ns == 10.0
    assert board.ps["type"] == "zynq7000"


@pytest.mark.parametrize(
    ("name", "crystal_mhz"),
    [
        ("arty-z7-20", 50.0),
        ("pynq-z1", 50.0),
        ("pynq-z2", 50.0),
        ("zybo-z7-20", 33.333333),
        ("kv260", 33.333333),
        ("zcu104", 33.333333),
        ("ultra96-v2", 33.333333),
    ],
)
def test_every_processor_runs_from_the_crystal_of_its_board(name, crystal_mhz):
    assert boards.load(name).ps["crystal_mhz"] == crystal_mhz


@pytest.mark.parametrize("name", boards.names())
def test_every_group_of_figures_has_its_source(name):
    board = boards.load(name)
    kind = "fpga" if board.fpga else "ps"
    assert set(board.source) == {"part", "resources", kind} | ({"pins"} if board.pins else set())
    assert all(len(line) > 10 and "\n" not in line for line in board.source.values())


@pytest.mark.parametrize("name", boards.names())
def test_no_pin_of_a_board_bears_two_names(name):
    pins = list(boards.load(name).pins.values())
    assert len(set(pins)) == len(pins)


def test_every_key_of_the_board_files_is_explained_in_the_readme():
    text = (data_folder("boards") / "README.md").read_text(encoding="utf-8")
    keys = {field.name for field in dataclasses.fields(Board)}
    keys |= {f"resources.{field.name}" for field in dataclasses.fields(Resources)}
    keys |= {f"ps.{key}" for name in boards.names() for key in boards.load(name).ps}
    tables = {"resources", "ps", "pins", "source"}
    assert sorted(key for key in keys - tables if f"`{key}`" not in text) == []


# Reading


def test_a_file_reads_into_a_board(write):
    assert boards.read(write()) == Board(
        name="small",
        title="A small board",
        part="xc7z020clg400-1",
        toolchains=("vitis",),
        clock_period_ns=10.0,
        resources=Resources(luts=100, flip_flops=200, dsps=3, bram_bits=36_864),
        ps={"type": "zynq7000", "crystal_mhz": 50.0},
        pins={"clock": "H16"},
        source=dict.fromkeys(("part", "resources", "ps", "pins"), "a document"),
    )


def test_a_board_without_pins_reads(write):
    path = write(text=SMALL.replace('[pins]\nclock = "H16"\n', "").replace('pins = "a document"\n', ""))
    assert boards.read(path).pins == {}


def test_two_reads_share_nothing(write):
    path = write()
    boards.read(path).ps["crystal_mhz"] = 0  # type: ignore[index]
    assert boards.read(path).ps["crystal_mhz"] == 50.0


# Errors: subject must be rule, not value; next step


def test_an_unknown_board_is_refused_with_the_nearest_one():
    with pytest.raises(ConfigError) as caught:
        boards.load("pynq_z2")
    assert str(caught.value) == (
        f"board must be one of {', '.join(boards.names())}, not 'pynq_z2'; did you mean 'pynq-z2'?"
    )


def test_a_board_unlike_any_other_is_refused_with_the_way_to_the_list():
    with pytest.raises(ConfigError, match=r"not 'xyz'; flow boards lists them$"):
        boards.load("xyz")


def test_unknown_key_is_refused_with_the_nearest_one(write):
    assert refusal(write("clock_period_ns", "clock_periode_ns")) == (
        "board small: a key of the file must be one of name, title, part, toolchains, clock_period_ns, "
        "resources, ps, fpga, pins, source, not 'clock_periode_ns'; did you mean 'clock_period_ns'?"
    )


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "luts",
            "lutz",
            "[resources] must be one of luts, flip_flops, dsps, bram_bits, not 'lutz'; did you mean 'luts'?",
        ),
        (
            "crystal_mhz",
            "cristal_mhz",
            "[ps] must be one of type, crystal_mhz, cpu_mhz, ddr_type, ddr_part, ddr_width_bits, ddr_mhz, "
            "ddr_mib, not 'cristal_mhz'; did you mean 'crystal_mhz'?",
        ),
        (
            'pins = "a',
            'pin = "a',
            "[source] must be one of part, resources, ps, pins, not 'pin'; did you mean 'pins'?",
        ),
        (
            "[ps]",
            "[ps]\nvoltage = 3",
            "[ps] must be one of type, crystal_mhz, cpu_mhz, ddr_type, ddr_part, ddr_width_bits, ddr_mhz, "
            "ddr_mib, not 'voltage'; boards/README.md explains them",
        ),
    ],
)
def test_unknown_key_of_a_table_is_refused_with_the_nearest_one(write, old, new, message):
    assert refusal(write(old, new)) == f"board small: a key of {message}"


@pytest.mark.parametrize(
    ("line", "key", "rule"),
    [
        ('title = "A small board"\n', "title", "a text that is not empty"),
        ('toolchains = ["vitis"]\n', "toolchains", "a list of texts"),
        ("clock_period_ns = 10\n", "clock_period_ns", "a positive number"),
        ("dsps = 3\n", "resources.dsps", "a positive whole number"),
        ('type = "zynq7000"\n', "ps.type", "a text that is not empty"),
        ("crystal_mhz = 50.0\n", "ps.crystal_mhz", "a positive number"),
        ('ps = "a document"\n', "source.ps", "a text that is not empty"),
        ('pins = "a document"\n', "source.pins", "a text that is not empty"),
    ],
)
def test_missing_key_is_refused(write, line, key, rule):
    path = write(line, "")
    assert refusal(path) == f"board small: {key} must be {rule}, not missing; add it to {path}"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("luts = 100", "luts = 0", "resources.luts must be a positive whole number, not 0"),
        ("luts = 100", "luts = -1", "resources.luts must be a positive whole number, not -1"),
        ("luts = 100", "luts = 100.0", "resources.luts must be a positive whole number, not 100.0"),
        ("luts = 100", "luts = true", "resources.luts must be a positive whole number, not True"),
        ("luts = 100", 'luts = "100"', "resources.luts must be a positive whole number, not '100'"),
        ("_ns = 10", "_ns = 0.0", "clock_period_ns must be a positive number, not 0.0"),
        ("_ns = 10", "_ns = nan", "clock_period_ns must be a positive number, not nan"),
        ("_ns = 10", "_ns = inf", "clock_period_ns must be a positive number, not inf"),
        ("mhz = 50.0", "mhz = -50.0", "ps.crystal_mhz must be a positive number, not -50.0"),
        ("mhz = 50.0", "mhz = 50.0\nddr_mib = 0", "ps.ddr_mib must be a positive whole number, not 0"),
    ],
)
def test_a_figure_that_is_not_positive_is_refused(write, old, new, message):
    path = write(old, new)
    assert refusal(path) == f"board small: {message}; correct {path}"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"A small board"', '" "', "title must be a text that is not empty, not ' '"),
        ('["vitis"]', '"vitis"', "toolchains must be a list of texts, not 'vitis'"),
        ('["vitis"]', "[]", "toolchains must be a list of texts, not []"),
        ('["vitis"]', "[1]", "toolchains must be a list of texts, not [1]"),
        ('"H16"', '"H 16"', "pins.clock must be a package pin such as 'H16', not 'H 16'"),
        ('"H16"', "16", "pins.clock must be a package pin such as 'H16', not 16"),
        ('ps = "a document"', "ps = 190", "source.ps must be a text that is not empty, not 190"),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused(write, old, new, message):
    path = write(old, new)
    assert refusal(path) == f"board small: {message}; correct {path}"


def test_a_table_given_as_a_value_is_refused(write):
    path = write(text=SMALL.split("[resources]")[0] + "resources = 1\nps = {}\nsource = {}\n")
    assert refusal(path) == f"board small: resources must be a table, not 1; correct {path}"


def test_an_unknown_processor_is_refused_with_the_nearest_one(write):
    assert refusal(write("zynq7000", "zynq7")) == (
        "board small: ps.type must be one of zynq7000, zynq_ultrascale, not 'zynq7'; did you mean 'zynq7000'?"
    )


FPGA = """
[fpga]
family = "ecp5"
device = "85k"
baud = 1000000

[pins]
clk = "G2"
rx = "M1"
tx = "L4"
"""
NO_PROCESSOR = (
    SMALL.replace('[ps]\ntype = "zynq7000"\ncrystal_mhz = 50.0\n', "")
    .replace('[pins]\nclock = "H16"\n', FPGA)
    .replace('ps = "a document"', 'fpga = "a document"')
)


def test_a_board_without_a_processor_reads(write):
    board = boards.read(write(text=NO_PROCESSOR))
    assert (board.ps, board.fpga["family"], board.pins["tx"]) == ({}, "ecp5", "L4")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (FPGA, "[pins]\n", "one table of [ps] (with a processor) and [fpga] (without) must be there, not none; "),
        ("[fpga]", '[ps]\ntype = "zynq7000"\n[fpga]', "one table of [ps] (with a processor) and [fpga] (without) "
         "must be there, not both; "),
        ('"ecp5"', '"ecp"', "fpga.family must be one of ecp5, ice40, gowin, not 'ecp'; did you mean 'ecp5'?"),
        ('rx = "M1"\n', "", "pins.rx must be a package pin such as 'H16', not missing; "),
        ('rx = "M1"', 'rx = "M1"\n"high_x = 1; y" = "A2"', "the name of a pin must be a lower-case identifier, since "
         "it becomes a port, not 'high_x = 1; y'; "),
        ("baud = 1000000", "baud = 0", "fpga.baud must be a positive whole number, not 0; "),
    ],
)  # fmt: skip
def test_a_broken_board_without_a_processor_is_refused(write, old, new, message):
    assert refusal(write(old, new, NO_PROCESSOR)).startswith(f"board small: {message}")


def test_a_name_unlike_the_file_is_refused(write):
    path = write('"small"', '"large"')
    assert refusal(path) == (
        f"board small: name must be the file's stem, 'small', not 'large'; correct {path}"
    )


def test_broken_toml_is_refused_with_the_place(write):
    text = SMALL.replace("luts = 100", "luts 100")
    with pytest.raises(tomllib.TOMLDecodeError) as place:
        tomllib.loads(text)
    path = write(text=text)
    assert refusal(path) == (
        f"board small: {path} must be valid TOML, not text that fails with {str(place.value)!r}; "
        "correct it there"
    )
    assert "line 9" in refusal(path)


def test_a_file_that_is_not_text_is_refused(tmp_path):
    path = tmp_path / "small.toml"
    path.write_bytes(b"\xff\xfe")
    assert refusal(path).startswith(f"board small: {path} must be valid TOML, not text that fails with ")


def test_a_missing_file_is_refused(tmp_path):
    path = tmp_path / "small.toml"
    assert refusal(path) == (
        f"board small: {path} must be a readable file, not one that fails with "
        "'No such file or directory'; flow boards lists the boards"
    )
