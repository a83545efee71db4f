"""Bitstreams as data: real ones of Vivado to exact figures, small ones packet by packet, and every kind of damage."""

import hashlib
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from bit_files import CMD, CRC, DESYNC, FDRI, IDCODE, NOOP, RCRC, bit_file, crc_step

from flow import boards
from flow.errors import ConfigError, ToolError
from flow.toolchains.vitis import bitstream
from flow.toolchains.vitis.bitstream import BitFile

ROOT = Path(__file__).resolve().parents[1]
STREAM = (
    "pynq_z2_mlp_2019.2/dma_test_pynq_stream/dma_test_pynq_v2/dma_test_pynq.runs/impl_1/design_1_wrapper.bit"
)
IRIS = "pynq_z2_iris_2025.1/vivado_project/iris_hardware/iris_hardware.runs/impl_1/design_1_wrapper.bit"
HDF = "mlperf_tiny_hdf/open/hls4ml-finn/code/{}/inference/pynq-z2/vivado_project/hdf/design_1_wrapper.hdf"
SYNC = b"\xaa\x99\x55\x66"


def refused(path, content):
    """Write a file and return why it is refused, without what all messages share."""
    path.write_bytes(content)
    with pytest.raises(ToolError) as caught:
        bitstream.read(path)
    head, tail = f"deploy: bitstream {path} must ", "; copy it again, or build it again"
    assert str(caught.value).startswith(head) and str(caught.value).endswith(tail)
    return str(caught.value)[len(head) : -len(tail)]


def flipped(content, byte, bit=0):
    return content[:byte] + bytes([content[byte] ^ 1 << bit]) + content[byte + 1 :]


# ---------------------------------------------------------------- real bitstreams


@pytest.mark.parametrize(
    ("name", "version", "date", "time", "offset", "sha256"),
    [
        (STREAM, "2019.2", "2021/04/06", "02:12:20", 112,
         "1042a2f4f3949d4157e8e1d1536bfd0306d60a9e26580ba7d10b03b626caa9e8"),
        (IRIS, "2025.1", "2026/03/27", "20:19:59", 128,
         "b598b05bb58e824a117c66a11921316890aab80f013b28d92e0a5a4b1e8f8805"),
    ],
)  # fmt: skip
def test_a_real_bitstream_reads_to_exact_figures(vendor, name, version, date, time, offset, sha256):
    assert bitstream.read(vendor / name) == BitFile(
        path=vendor / name,
        design="design_1_wrapper",
        user_id="0XFFFFFFFF",
        tool_version=version,
        part="7z020clg400",
        date=date,
        time=time,
        size_bytes=4_045_564,
        data_offset=offset,
        sha256=sha256,
        idcode=0x0372_7093,
        frame_words=101 * 10_008,
        crc_checked=True,
    )


@pytest.mark.parametrize("name", ["ad/AD08", "ic/RN07"])
def test_the_bitstream_of_a_real_archive_is_whole(vendor, tmp_path, name):
    path = tmp_path / "design.bit"
    with zipfile.ZipFile(vendor / HDF.format(name)) as archive:
        path.write_bytes(archive.read("design_1_wrapper.bit"))
    bit = bitstream.read(path)
    assert (bit.tool_version, bit.size_bytes, bit.frame_words) == ("2019.1", 4_045_564, 1_010_808)
    assert bit.crc_checked and bit.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_every_real_bitstream_is_read(vendor):
    assert sorted(vendor.rglob("*.bit")) == sorted([vendor / STREAM, vendor / IRIS])


def test_any_flipped_bit_of_real_frame_data_is_found(vendor, tmp_path):
    content = (vendor / STREAM).read_bytes()
    first = content.index(SYNC) + 4 * 47  # 4 bytes a word; the frames begin 47 words behind the sync word
    random = np.random.default_rng(1)
    places = [first, first + 4 * 1_010_808 - 1, *random.integers(first, first + 4 * 1_010_808, 4)]
    for place in places:
        message = refused(tmp_path / "a.bit", flipped(content, int(place), int(random.integers(8))))
        assert message.startswith("have the checksum 0x4438d8ae that it holds, not 0x")


@pytest.mark.parametrize("place", [0, 1, 12, 13, 16, 60, 111, 112, 1_000, 100_000, 4_045_675])
def test_a_real_bitstream_cut_anywhere_is_refused(vendor, tmp_path, place):
    assert " not " in refused(tmp_path / "a.bit", (vendor / STREAM).read_bytes()[:place])


# ---------------------------------------------------------------- small bitstreams


def test_a_small_bitstream_reads_to_exact_figures(tmp_path):
    path = tmp_path / "small.bit"
    path.write_bytes(bit_file("7z010clg400", 3))
    bit = bitstream.read(path)
    assert (bit.design, bit.part, bit.idcode) == ("system_wrapper", "7z010clg400", 0x0372_2093)
    assert (bit.frame_words, bit.crc_checked, bit.data_offset) == (303, True, 110)


@pytest.mark.parametrize("count", [1, 2, 31, 32, 33, 63, 64, 100, 1000])
def test_the_checksum_equals_the_one_calculated_bit_by_bit(count):
    words = np.random.default_rng(count).integers(0, 1 << 32, count, dtype=np.uint32)
    expected = 0x1234_5678
    for word in words.tolist():
        expected = crc_step(expected, FDRI, word)
    assert bitstream._checksum(0x1234_5678, FDRI, words) == expected


def test_every_cut_is_refused(tmp_path):
    whole = bit_file(frames=1)
    for size in (*range(130), *range(130, len(whole), 5)):
        assert " not " in refused(tmp_path / "a.bit", whole[:size])


SIZE = len(bit_file()) - 110
HEADER = bit_file()[:110]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "be a .bit file of Vivado, not an empty file"),
        (b"hello, world\n", "be a .bit file of Vivado, not a file that begins with "
         "68 65 6c 6c 6f 2c 20 77 6f 72 6c 64 0a"),
        (HEADER[:20], "hold a whole field 'a' in its header, not end in it"),
        (HEADER[:13], "hold field 'a' of its header at byte 13, not end there"),
        (flipped(HEADER, 13), "hold field 'a' of its header at byte 13, not 0x60"),
        (HEADER.replace(b"12:34:56", b"12:34-56"),
         "hold a sound field 'd' in its header, not '12:34-56\\x00'"),
        (HEADER.replace(b"7z020clg400\0", b"7z020clg4000"),
         "hold a sound field 'b' in its header, not '7z020clg4000'"),
        (bit_file() + b"\0", f"hold {SIZE:,} bytes of configuration, as its header says, not {SIZE + 1:,}: "
         "there are bytes behind its end"),
        (bit_file()[:-4], f"hold {SIZE:,} bytes of configuration, as its header says, not {SIZE - 4:,}: "
         "it is cut short"),
        (HEADER[:106] + struct.pack(">I", 3) + b"abc", "hold whole words of 4 bytes, not 3 bytes"),
        (bit_file().replace(SYNC, b"\xff" * 4), "hold the sync word AA 99 55 66, not come without it"),
        (bit_file().replace(b"\x11\x22\x00\x44", b"\x11\x22\x00\x45"),
         "hold only dummies and the bus width before its sync word, not 0x11220045"),
        (bit_file(idcode=0x0372_2093), "write the IDCODE 0x03727093 of the 7z020 in its header, not 0x03722093"),
    ],
)  # fmt: skip
def test_damage_is_told(tmp_path, content, message):
    assert refused(tmp_path / "a.bit", content) == message


def packets(*words, part="7z020clg400"):
    """Return a .bit file of these words behind the sync word."""
    data = SYNC + b"".join(struct.pack(">I", word) for word in words)
    head = bit_file(part)
    return head[: head.index(b"e", 100)] + b"e" + struct.pack(">I", len(data)) + data


def write(register, value):
    return (0x3000_0001 | register << 13, value)


RIGHT = write(IDCODE, 0x0372_7093)
END = write(CMD, DESYNC)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((*RIGHT, NOOP), "end with the command DESYNC, not stop without it"),
        ((*RIGHT, 0x3000_4002, 1), "hold the 2 words of the packet at word 2 behind its sync word, not 1"),
        ((*RIGHT, 0x3000_4000, 0x5000_0003, 1), "hold the 3 words of the packet at word 2 behind its sync word, not 1"),
        ((0x5000_0001, 1), "hold the header of a packet at word 0 behind its sync word, not 0x50000001"),
        ((*RIGHT, 0x6000_0000), "hold the header of a packet at word 2 behind its sync word, not 0x60000000"),
        ((*RIGHT, 0x3000_4000, NOOP), "hold the header of a packet at word 3 behind its sync word, not 0x20000000"),
        ((*RIGHT, *END, 0x1234_5678), "hold only no-operations after the command DESYNC, not 0x12345678"),
        ((*RIGHT, *write(FDRI, 7), *END), "hold whole frames of 101 words, not 1 words"),
        (END, "write the IDCODE 0x03727093 of the 7z020 in its header, not none"),
        ((*RIGHT, *write(CMD, RCRC), *write(CRC, 0), *write(FDRI, 1), *END),
         "write a checksum last before the command DESYNC, not other registers"),
    ],
)  # fmt: skip
def test_packets_that_break_a_rule_are_told(tmp_path, words, message):
    assert refused(tmp_path / "a.bit", packets(*words)) == message


def test_every_flipped_bit_from_the_size_on_is_found(tmp_path):
    """Vivado writes a second checksum right before the end: so even a write of the first one cannot go unseen."""
    frame = list(range(101))
    first = 0
    for register, value in ((IDCODE, 0x0372_7093), *((FDRI, word) for word in frame)):
        first = crc_step(first, register, value)
    body = (*write(CMD, RCRC), *RIGHT, 0x3000_4000, 0x5000_0065, *frame, *write(CRC, first), NOOP)
    whole = packets(*body, *write(CMD, 5), *write(CRC, crc_step(0, CMD, 5)), NOOP, *END, NOOP)
    path = tmp_path / "a.bit"
    path.write_bytes(whole)
    assert bitstream.read(path).crc_checked
    frames = whole.index(struct.pack(">II", 0, 1))
    for byte in range(whole.index(b"e", 100), len(whole)):
        for bit in [byte % 8] if 0 <= byte - frames < 404 else range(8):
            path.write_bytes(flipped(whole, byte, bit))
            with pytest.raises(ToolError):
                bitstream.read(path)


def test_a_bitstream_without_a_checksum_is_not_checked(tmp_path):
    path = tmp_path / "a.bit"
    frame = (0x3000_4000, 0x5000_0065, *[7] * 101)
    path.write_bytes(packets(*RIGHT, *frame, *write(CMD, RCRC), *END, NOOP))
    bit = bitstream.read(path)
    assert (bit.crc_checked, bit.frame_words, bit.idcode) == (False, 101, 0x0372_7093)


def test_the_revision_in_an_idcode_does_not_count(tmp_path):
    path = tmp_path / "a.bit"
    path.write_bytes(bit_file(idcode=0x2372_7093))
    assert bitstream.read(path).idcode == 0x2372_7093


def test_packets_of_ultrascale_are_not_followed(tmp_path):
    path = tmp_path / "a.bit"
    part = "xczu3eg-sbva484-1-i"
    path.write_bytes(packets(*write(IDCODE, 0x04A4_2093), *write(FDRI, 7), *write(CRC, 99), *END, part=part))
    bit = bitstream.read(path)
    assert (bit.part, bit.crc_checked, bit.frame_words, bit.idcode) == (part, False, None, None)
    bitstream.check_part(bit, part)
    assert refused(path, path.read_bytes()[:-4]) == (
        "hold 36 bytes of configuration, as its header says, not 32: it is cut short"
    )


def test_a_part_without_a_known_idcode_passes(tmp_path):
    path = tmp_path / "a.bit"
    path.write_bytes(bit_file("7a35tcpg236", idcode=0x1234_5093))
    assert bitstream.read(path).idcode == 0x1234_5093


# ---------------------------------------------------------------- parts


def test_every_zynq_7000_that_vivado_builds_for_has_an_idcode():
    chosen = [board for board in map(boards.load, boards.names()) if "vitis" in board.toolchains]
    parts = {bitstream._chip(board.part)[0] for board in chosen if board.ps["type"] == "zynq7000"}
    assert parts == {"7z020"} <= set(bitstream.IDCODES)


@pytest.mark.parametrize(
    ("part", "chip"),
    [
        ("xc7z020clg400-1", ("7z020", "clg400")),
        ("xc7z020-clg400-1", ("7z020", "clg400")),
        ("7z020clg400", ("7z020", "clg400")),
        ("7z007sclg225", ("7z007s", "clg225")),
        ("xc7vx485tffg1157-2L", ("7vx485t", "ffg1157")),
        ("xck26-sfvc784-2LV-c", ("k26", "sfvc784")),
        ("xczu7ev-ffvc1156-2-e", ("zu7ev", "ffvc1156")),
        ("something else", ("something else", "")),
    ],
)
def test_a_part_is_a_device_and_a_package(part, chip):
    assert bitstream._chip(part) == chip


def test_the_part_of_the_board_is_taken(vendor):
    bit = bitstream.read(vendor / STREAM)
    bitstream.check_part(bit, "xc7z020clg400-1")
    bitstream.check_part(bit, "xc7z020clg400-3")


@pytest.mark.parametrize("part", ["xc7z010clg400-1", "xc7z020clg484-1", "xck26-sfvc784-2LV-c", ""])
def test_another_part_is_refused(vendor, part):
    bit = bitstream.read(vendor / STREAM)
    with pytest.raises(ConfigError) as caught:
        bitstream.check_part(bit, part, subject="synthesize")
    assert str(caught.value) == (
        f"synthesize: bitstream {vendor / STREAM} must be for {part}, not 7z020clg400; build it for this board"
    )


def test_a_missing_file_is_an_error(tmp_path):
    path = tmp_path / "none.bit"
    with pytest.raises(ConfigError) as caught:
        bitstream.read(path, subject="synthesize")
    assert str(caught.value) == (
        f"synthesize: bitstream {path} must be a readable file, not fail with 'No such file or directory'; "
        "build it first"
    )
