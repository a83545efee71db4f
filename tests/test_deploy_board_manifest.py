"""The bundle's files are read without trust: every broken value is refused with its rule."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from board_bundle import IMAGE, SCORES, TWO_INPUTS, bit_file, manifest_values, samples, write_bundle

from flow.deploy.board import bitfile, golden, manifest
from flow.deploy.board.errors import BoardError

AGAIN = "; build the bundle again"


def changed(path: str, value: object) -> dict[str, Any]:
    """Return a manifest with one value replaced, or taken away by ``None``."""
    values = copy.deepcopy(manifest_values())
    table: Any = values
    *way, last = (int(key) if key.isdigit() else key for key in path.split("."))
    for key in way:
        table = table[key]
    if value is None:
        del table[last]
    else:
        table[last] = value
    return values


def test_a_bundle_is_read_as_it_is_written(tmp_path: Path) -> None:
    read = manifest.read(write_bundle(tmp_path, TWO_INPUTS))
    manifest.check_files(tmp_path, read)
    assert (read.inputs, read.outputs) == (TWO_INPUTS, (SCORES,))
    assert (read.clock_mhz, read.crystal_mhz, read.ps, read.part) == (
        100.0,
        50.0,
        "zynq7000",
        "xc7z020clg400-1",
    )
    assert read.dma == manifest.Dma("axi_dma_0", 0x40400000, 65536, 23, 32)
    assert read.monitor == manifest.MonitorPlace("monitor_0", 0x43C00000, 4096, "0123456789abcdef")
    assert manifest.parse(manifest_values(monitor=False)).monitor is None


BROKEN = [
    ("name", "", "name must be a name of 1 to 200 printable characters, not ''"),
    ("part", "x\n", "part must be a name of 1 to 200 printable characters, not 'x\\n'"),
    ("board", None, "board must be a name of 1 to 200 printable characters, not missing"),
    ("ps", "versal", "ps must be zynq7000 or zynq_ultrascale, not 'versal'"),
    ("ps", ["zynq7000"], "ps must be zynq7000 or zynq_ultrascale, not ['zynq7000']"),
    ("clock_mhz", 0, "clock_mhz must be a number from 1 to 1000, not 0"),
    ("clock_mhz", float("nan"), "clock_mhz must be a number from 1 to 1000, not nan"),
    ("clock_mhz", 10**400, "clock_mhz must be a number from 1 to 1000, not 1" + "0" * 56 + "..."),
    ("crystal_mhz", "50", "crystal_mhz must be a number from 1 to 1000, not '50'"),
    ("bitstream", "net.bit", "bitstream must be a table, not 'net.bit'"),
    (
        "bitstream.file",
        "../net.bit",
        "bitstream.file must be the plain name of a file in the bundle, not '../net.bit'",
    ),
    (
        "bitstream.file",
        "/etc/passwd",
        "bitstream.file must be the plain name of a file in the bundle, not '/etc/passwd'",
    ),
    ("bitstream.file", "..", "bitstream.file must be the plain name of a file in the bundle, not '..'"),
    (
        "golden.sha256",
        "A" * 64,
        f"golden.sha256 must be 64 hexadecimal digits in lower case, not '{'A' * 56}...",
    ),
    ("handoff.sha256", "0", "handoff.sha256 must be 64 hexadecimal digits in lower case, not '0'"),
    ("dma", [], "dma must be a table, not []"),
    ("dma.address", 0x40400001, "dma.address must be a multiple of 4096, not 1077936129"),
    ("dma.address", -4096, f"dma.address must be a whole number from 0 to {(1 << 40) - 1}, not -4096"),
    ("dma.span", 8, "dma.span must be a whole number from 92 to 16777216, not 8"),
    ("dma.length_bits", 27, "dma.length_bits must be a whole number from 8 to 26, not 27"),
    ("dma.length_bits", True, "dma.length_bits must be a whole number from 8 to 26, not True"),
    ("dma.address_bits", 31, "dma.address_bits must be a whole number from 32 to 64, not 31"),
    (
        "monitor.design_id",
        "0x12",
        "monitor.design_id must be 16 hexadecimal digits in lower case, not '0x12'",
    ),
    ("monitor.address", 1.0, f"monitor.address must be a whole number from 0 to {(1 << 40) - 1}, not 1.0"),
    ("inputs", [], "inputs must be a list of 1 to 64 ports, not []"),
    ("inputs", {}, "inputs must be a list of 1 to 64 ports, not {}"),
    ("inputs.0", 3, "inputs[0] must be a table, not 3"),
    ("inputs.0.shape", [], "inputs[0].shape must be a list of 1 to 8 whole numbers of 1 or more, not []"),
    (
        "inputs.0.shape",
        [8, 0],
        "inputs[0].shape must be a list of 1 to 8 whole numbers of 1 or more, not [8, 0]",
    ),
    (
        "inputs.0.shape",
        [True],
        "inputs[0].shape must be a list of 1 to 8 whole numbers of 1 or more, not [True]",
    ),
    (
        "inputs.0.shape",
        [1 << 20, 1 << 20],
        "inputs[0].shape must be at most 16777216 values, not [1048576, 1048576]",
    ),
    ("outputs.0.width", 65, "outputs[0].width must be a whole number from 1 to 64, not 65"),
    ("outputs.0.signed", 1, "outputs[0].signed must be true or false, not 1"),
    (
        "outputs.0.fraction_bits",
        10**6,
        "outputs[0].fraction_bits must be a whole number from -256 to 256, not 1000000",
    ),
    ("outputs.0.scale", 0.0, "outputs[0].scale must be a number from 1e-30 to 1e+30, not 0.0"),
    ("outputs.0.scale", float("inf"), "outputs[0].scale must be a number from 1e-30 to 1e+30, not inf"),
]


@pytest.mark.parametrize(("path", "value", "message"), BROKEN, ids=[path for path, *_ in BROKEN])
def test_a_broken_value_is_refused_with_its_rule(path: str, value: object, message: str) -> None:
    with pytest.raises(BoardError) as caught:
        manifest.parse(changed(path, value))
    assert str(caught.value) == f"manifest: {message}{AGAIN}"


@pytest.mark.parametrize("value", [2, 0, "1", True, 1.5, None])
def test_another_format_is_refused(value: object) -> None:
    with pytest.raises(BoardError) as caught:
        manifest.parse(changed("format", value))
    assert str(caught.value) == (
        f"manifest: format must be 1, not {'missing' if value is None else repr(value)}; take flow_board and the "
        "manifest from one bundle"
    )


def test_a_handoff_that_pynq_would_not_find_is_refused() -> None:
    with pytest.raises(BoardError) as caught:
        manifest.parse(changed("handoff.file", "design.hwh"))
    assert str(caught.value) == (
        "manifest: handoff.file must be 'net.hwh', where PYNQ looks for it, not 'design.hwh'; build the bundle again"
    )


def test_streams_of_another_width_are_refused() -> None:
    with pytest.raises(BoardError) as caught:
        manifest.parse(changed("dma.word_bits", 64))
    assert (
        str(caught.value)
        == "manifest: dma.word_bits must be 32, not 64; build the design with 32-bit streams"
    )


@pytest.mark.parametrize("text", ["", "{", "[1]", "[" * 100_000, '{"format": 1}', "\xff", "null"])
def test_what_is_no_manifest_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text, encoding="latin-1")
    with pytest.raises(BoardError, match="^manifest: "):
        manifest.read(tmp_path)


def test_a_missing_and_a_huge_manifest_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BoardError, match="must be readable, not fail .*; copy the whole bundle to the board"):
        manifest.read(tmp_path)
    (tmp_path / "manifest.json").write_text(json.dumps({"x": "0" * (1 << 20)}))
    with pytest.raises(BoardError, match="must have at most 1048576 bytes"):
        manifest.read(tmp_path)


@pytest.mark.parametrize("name", ["net.bit", "net.hwh", "golden.npz"])
def test_a_file_that_differs_from_the_manifest_is_refused(tmp_path: Path, name: str) -> None:
    read = manifest.read(write_bundle(tmp_path))
    with (tmp_path / name).open("ab") as file:
        file.write(b"\0")
    with pytest.raises(
        BoardError, match=rf"^bundle: {name} must have the manifest's SHA-256 .*: copy the bundle again"
    ):
        manifest.check_files(tmp_path, read)
    (tmp_path / name).unlink()
    with pytest.raises(BoardError, match=f"^bundle: {name} must be readable, not fail"):
        manifest.check_files(tmp_path, read)


@pytest.mark.parametrize(
    ("part", "whole"),
    [
        ("7z020clg400", "xc7z020clg400-1"),
        ("xczu3eg-sbva484-1-e", "xczu3eg-sbva484-1-e"),
        ("xck26-sfvc784-2LV-c", "XCK26-sfvc784-2lv-c"),
    ],
)
def test_a_bitstream_for_the_part_is_taken(tmp_path: Path, part: str, whole: str) -> None:
    (tmp_path / "net.bit").write_bytes(bit_file(part))
    bitfile.check_part(tmp_path / "net.bit", whole)


@pytest.mark.parametrize("part", ["7z010clg400", "7z020clg484", "7z", "7z020clg400x"])
def test_a_bitstream_for_another_part_is_refused(tmp_path: Path, part: str) -> None:
    (tmp_path / "net.bit").write_bytes(bit_file(part))
    with pytest.raises(BoardError) as caught:
        bitfile.check_part(tmp_path / "net.bit", "xc7z020clg400-1")
    assert str(caught.value) == (
        f"bitstream: net.bit must be built for the manifest's xc7z020clg400-1, not {part}; take both from one build"
    )


def test_any_cut_bit_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.bit"
    whole = bit_file()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(BoardError, match=r"^bitstream: net.bit must be a whole \.bit file of Vivado"):
            bitfile.read(path)
    path.write_bytes(whole + b"\0")
    with pytest.raises(BoardError, match=r"must be a whole \.bit file"):
        bitfile.read(path)


def test_golden_vectors_are_cut_into_the_ports_arrays(tmp_path: Path) -> None:
    read = manifest.read(write_bundle(tmp_path, TWO_INPUTS, count=5))
    given = samples(TWO_INPUTS, 5)
    vectors = golden.read(tmp_path, read)
    assert all(np.array_equal(a, b) for a, b in zip(vectors.inputs, given, strict=True))
    assert vectors.outputs[0].shape == (5, 3) and vectors.labels is not None and len(vectors.labels) == 5
    assert len(golden.read(tmp_path, read, 2).inputs[1]) == 2


@pytest.mark.parametrize(
    "arrays",
    [
        {},
        {"inputs": np.zeros((2, 6), np.int64)},
        {"inputs": np.zeros((2, 5), np.int64), "outputs": np.zeros((2, 3), np.int64)},
        {"inputs": np.zeros((2, 6)), "outputs": np.zeros((2, 3), np.int64)},
        {"inputs": np.full((2, 6), 128), "outputs": np.zeros((2, 3), np.int64)},
        {"inputs": np.zeros((2, 6), np.int64), "outputs": np.zeros((3, 3), np.int64)},
        {"inputs": np.zeros((0, 6), np.int64), "outputs": np.zeros((0, 3), np.int64)},
        {"inputs": np.array([[{}] * 6]), "outputs": np.zeros((1, 3), np.int64)},
        {"inputs": np.zeros((2, 6), np.int64), "outputs": np.zeros((2, 3), np.int64), "labels": np.zeros(3)},
    ],
)  # fmt: skip
def test_golden_vectors_that_are_not_the_ports_are_refused(
    tmp_path: Path, arrays: dict[str, np.ndarray]
) -> None:
    read = manifest.read(write_bundle(tmp_path))
    np.savez(tmp_path / "golden.npz", **arrays)
    with pytest.raises(BoardError, match=r"^golden: golden\.npz must hold "):
        golden.read(tmp_path, read)
    (tmp_path / "golden.npz").write_bytes(b"PK\3\4 no archive")
    with pytest.raises(BoardError, match=r"^golden: golden\.npz must hold samples"):
        golden.read(tmp_path, read)


def test_the_first_difference_is_the_first_samples() -> None:
    one, two = np.zeros((4, 2, 3), np.int64), np.zeros((4, 3), np.int64)
    got_one, got_two = one.copy(), two.copy()
    assert golden.difference((IMAGE, SCORES), (got_one, got_two), (one, two)) is None
    got_one[2, 1, 0], got_two[1, 2], got_two[3, 0] = 1, -7, 5
    found = golden.difference((IMAGE, SCORES), (got_one, got_two), (one, two))
    assert found == golden.Difference(1, "scores", (2,), 0, -7, 7)


@pytest.mark.parametrize(
    ("old", "new"), [('"scale": 1.0', '"scale": 2.0'), ('"clock_mhz": 100', '"clock_mhz": 101')]
)
def test_a_manifest_that_was_altered_is_refused(tmp_path: Path, old: str, new: str) -> None:
    write_bundle(tmp_path)
    file = tmp_path / "manifest.json"
    manifest.read(tmp_path)
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))
    with pytest.raises(BoardError) as error:
        manifest.read(tmp_path)
    assert str(error.value) == (
        f"manifest: {str(file)!r} must be as it was written, not altered; copy the bundle again"
    )
