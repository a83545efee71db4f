""".npz files that are damaged or made to do harm: what is wrong is told, and no memory is taken for it."""

import io
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from flow.errors import ConfigError
from flow.training import data, npz

LABELS = np.arange(60) % 3
SAMPLES = np.arange(120, dtype=np.float32).reshape(60, 2)


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def declared(
    shape: str, kind: str = "'<f4'", order: str = "False", size: int = 480, version: int = 1
) -> bytes:
    """Return an array's file that says of itself what it likes."""
    text = f"{{'descr': {kind}, 'fortran_order': {order}, 'shape': {shape}, }}\n".encode()
    return (
        b"\x93NUMPY"
        + bytes([version, 0])
        + len(text).to_bytes(2 if version == 1 else 4, "little")
        + text
        + bytes(size)
    )


def zipped(tmp_path: Path, *members: tuple[str, bytes], method: int = zipfile.ZIP_STORED) -> Path:
    path = tmp_path / "mine.npz"
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def edited(path: Path, old: bytes, new: bytes) -> Path:
    """Replace a part of the zip's own records."""
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new))
    return path


def refused(path: Path) -> str:
    """Return what the file holds, as the reader says and as the user of `data` is told."""
    with pytest.raises(ValueError) as error:
        npz.read(path, ("x", "y"))
    with pytest.raises(ConfigError) as told:
        data.load(path.name, base=path.parent)
    assert str(told.value) == (
        f"data: {path.name!r} must be a whole .npz file of plain arrays, not {error.value}; "
        "write it anew with numpy.savez(file, x=..., y=...)"
    )
    return str(error.value)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_come_as_they_were_written_and_others_are_not_read(tmp_path: Path, save: object) -> None:
    save(tmp_path / "a.npz", x=SAMPLES, y=np.int8(3), z=np.array([None]), f=np.asfortranarray(SAMPLES))
    found = npz.read(tmp_path / "a.npz", ("y", "x", "f", "none"))
    assert list(found) == ["y", "x", "f"]
    assert np.array_equal(found["x"], SAMPLES) and np.array_equal(found["f"], SAMPLES)
    assert (found["y"].shape, found["y"].dtype, int(found["y"])) == ((), np.int8, 3)
    assert all(array.flags.c_contiguous for array in found.values())


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compressions_are_read(tmp_path: Path, method: int) -> None:
    path = zipped(tmp_path, ("x.npy", npy(SAMPLES)), ("y.npy", npy(LABELS)), method=method)
    assert np.array_equal(npz.read(path, ("x",))["x"], SAMPLES)


def test_the_order_in_memory_changes_nothing(tmp_path: Path) -> None:
    images = np.random.default_rng(0).random((60, 3, 4, 5)).astype(np.float32)
    loaded = []
    for array in (images, np.asfortranarray(images)):
        np.savez(tmp_path / "mine.npz", x=array, y=LABELS)
        loaded.append(data.load("mine.npz", base=tmp_path).train[0])
    assert loaded[0].tobytes("A") == loaded[1].tobytes("A")
    assert loaded[0].strides == loaded[1].strides


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        (f"({10**15}, 2)", 480),
        (f"({2**62}, 4)", 0),  # 2**66 bytes, which 64-bit arithmetic takes for 0
        (f"({2**40}, 0, {2**40})", 480),
        ("(-60, 2)", 480),
        ("(60, 2)", 472),
        ("(60, 2)", 488),
        ("()", 480),
    ],
)
def test_a_shape_that_the_file_does_not_hold_is_refused_unallocated(
    tmp_path: Path, shape: str, size: int
) -> None:
    path = zipped(tmp_path, ("x.npy", declared(shape, size=size)), ("y.npy", npy(LABELS)))
    tracemalloc.start()
    assert refused(path) == f"'x' of shape {shape} and type float32 in {size} bytes"
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_a_file_that_would_fill_the_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(npz.os, "sysconf", lambda name: 1000)  # a thousand pages of a thousand bytes
    header = len(declared("(500000,)", size=0))
    path = zipped(
        tmp_path,
        ("x.npy", declared("(500000,)", size=2_000_000)),
        ("y.npy", npy(LABELS)),
        method=zipfile.ZIP_DEFLATED,
    )
    assert path.stat().st_size < 4000
    assert refused(path) == f"{2_000_000 + header + 608:,} bytes of arrays for a memory of 1,000,000"


def test_a_bomb_behind_an_array_is_not_unpacked(tmp_path: Path) -> None:
    path = zipped(
        tmp_path,
        ("x.npy", npy(SAMPLES) + bytes(50_000_000)),
        ("y.npy", npy(LABELS)),
        method=zipfile.ZIP_DEFLATED,
    )
    tracemalloc.start()
    assert refused(path) == "'x' of shape (60, 2) and type float32 in 50,000,480 bytes"
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"text", "'x' as something else than an array"),
        (b"", "'x' as something else than an array"),
        (b"\x80\x04.", "'x' as something else than an array"),
        (
            b"\x93NUMPY\x07\x00",
            "ValueError: EOF: reading array header length, expected 4 bytes got 0",
        ),
        (b"\x93NUM", "'x' as something else than an array"),
        (b"\x93NUMPY\x01\x00", "ValueError: EOF: reading array header length, expected 2 bytes got 0"),
        (
            declared("(60, 2), 'extra': 1"),
            "ValueError: Header does not contain the correct keys: ['descr', 'extra', 'fortran_order', 'shape']",
        ),
        (declared("(60, 'nan')"), "ValueError: shape is not valid: (60, 'nan')"),
        (declared("(60, 2.5)"), "ValueError: shape is not valid: (60, 2.5)"),
        (declared("60"), "ValueError: shape is not valid: 60"),
        (declared("(60, 2)", kind="'<q9'"), "ValueError: descr is not a valid dtype descriptor: '<q9'"),
        (declared("(60, 2)", order="1"), "ValueError: fortran_order is not a valid bool: 1"),
        (
            declared("(60, 2)", kind="'|O'"),
            "ValueError: Object arrays cannot be loaded when allow_pickle=False",
        ),
    ],
)
def test_a_member_that_is_no_plain_array_is_refused(tmp_path: Path, content: bytes, told: str) -> None:
    assert refused(zipped(tmp_path, ("x.npy", content), ("y.npy", npy(LABELS)))) == told


@pytest.mark.parametrize(
    "text", ["(" * 3000 + ")" * 3000, "1 + " * 2000 + "1", "(60," + "9" * 6000 + ")", "x\0"]
)
@pytest.mark.parametrize("version", [1, 2, 3])
def test_a_header_that_python_cannot_parse_is_refused(tmp_path: Path, text: str, version: int) -> None:
    path = zipped(tmp_path, ("x.npy", declared(text, version=version)), ("y.npy", npy(LABELS)))
    with pytest.raises(ConfigError) as error:
        data.load(path.name, base=path.parent)
    told = str(error.value)
    assert told.startswith("data: 'mine.npz' must be a whole .npz file of plain arrays, not ")
    assert len(told) < 400 and "\n" not in told


def test_a_huge_header_is_refused(tmp_path: Path) -> None:
    path = zipped(tmp_path, ("x.npy", declared("(60, 2)" + " " * 20000)), ("y.npy", npy(LABELS)))
    assert refused(path).startswith("ValueError: Header info length (")


def test_a_member_that_comes_twice_is_refused(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate name"):
        path = zipped(tmp_path, *[("x.npy", npy(SAMPLES))] * 2, ("y.npy", npy(LABELS)))
    assert refused(path) == "two arrays of the name 'x'"
    path = zipped(tmp_path, ("x.npy", npy(SAMPLES)), ("x", npy(SAMPLES)), ("y.npy", npy(LABELS)))
    assert refused(path) == "two arrays of the name 'x'"


def test_an_encrypted_member_is_refused(tmp_path: Path) -> None:
    path = zipped(tmp_path, ("x.npy", npy(SAMPLES)), ("y.npy", npy(LABELS)))
    head = b"PK\x03\x04\x14\x00", b"PK\x01\x02\x14\x03\x14\x00"
    for record in head:
        edited(path, record + b"\x00", record + b"\x01")
    assert refused(path) == "an encrypted 'x'"


def test_an_unknown_compression_is_refused(tmp_path: Path) -> None:
    path = zipped(tmp_path, ("x.npy", npy(SAMPLES)), ("y.npy", npy(LABELS)))
    for record in (b"PK\x03\x04\x14\x00\x00\x00", b"PK\x01\x02\x14\x03\x14\x00\x00\x00"):
        edited(path, record + b"\x00\x00", record + b"\x63\x00")
    assert refused(path) == "NotImplementedError: That compression method is not supported"


def test_damaged_lzma_is_refused(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).random((60, 2)).astype(np.float32)
    path = zipped(tmp_path, ("x.npy", npy(noise)), ("y.npy", npy(LABELS)), method=zipfile.ZIP_LZMA)
    content = bytearray(path.read_bytes())
    content[60:90] = b"\xff" * 30
    path.write_bytes(content)
    assert refused(path) == "LZMAError: Corrupt input data"


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_every_flipped_byte_is_refused_or_changes_nothing(tmp_path: Path, method: int) -> None:
    path = zipped(tmp_path, ("x.npy", npy(SAMPLES)), method=method)
    whole = path.read_bytes()
    refusals = 0
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :])
        try:
            found = npz.read(path, ("x",))
        except ValueError:
            refusals += 1
        else:
            assert "x" not in found or np.array_equal(found["x"], SAMPLES)
    assert refusals > 0.8 * len(whole)


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        (LABELS.astype(np.uint64) + np.uint64(2**63), f"labels of at most {2**31 - 1}, not {2**63 + 2}"),
        (LABELS + 2**31, f"labels of at most {2**31 - 1}, not {2**31 + 2}"),
    ],
)
def test_labels_that_no_network_has_outputs_for_are_refused(
    tmp_path: Path, labels: np.ndarray, told: str
) -> None:
    np.savez(tmp_path / "mine.npz", x=SAMPLES, y=labels)
    with pytest.raises(ConfigError) as error:
        data.load("mine.npz", base=tmp_path)
    assert str(error.value) == f"data: 'mine.npz' must hold {told}; save class numbers from 0"


def test_labels_and_samples_of_odd_types_are_refused(tmp_path: Path) -> None:
    pairs = np.zeros(60, [("a", "<f4"), ("b", "<i4")])
    for labels in (LABELS.astype("m8[s]"), pairs, LABELS.astype("V4"), LABELS.astype("S1")):
        np.savez(tmp_path / "mine.npz", x=SAMPLES, y=labels)
        with pytest.raises(ConfigError) as error:
            data.load("mine.npz", base=tmp_path)
        assert str(error.value) == (
            f"data: 'mine.npz' must hold one integer label a sample, not {labels.dtype} labels of shape (60,) for "
            "samples of shape (60, 2); save class numbers from 0"
        )
    np.savez(tmp_path / "mine.npz", x=np.stack([pairs, pairs], 1), y=LABELS)
    with pytest.raises(ConfigError) as error:
        data.load("mine.npz", base=tmp_path)
    assert str(error.value) == (
        f"data: 'mine.npz' must hold floats, or integers of 8 or 16 bits, not {pairs.dtype} samples; convert x"
    )


def test_samples_without_values_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "mine.npz", x=np.zeros((60, 0, 4)), y=LABELS)
    with pytest.raises(ConfigError) as error:
        data.load("mine.npz", base=tmp_path)
    assert str(error.value) == (
        "data: 'mine.npz' must hold samples with values, not of shape (0, 4); save them anew"
    )


def test_a_file_that_is_not_there_is_the_callers(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        npz.read(tmp_path / "none.npz", ("x",))
