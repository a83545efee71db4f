"""Data sets: sizes and splits, the forms of .npz files, the folder of the usual sets, whole messages."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.datasets

from flow.errors import ConfigError
from flow.training import data
from flow.training.data import fingerprint, load

LABELS = np.arange(60) % 3
ADVICE = "write it anew with numpy.savez(file, x=..., y=...)"


def vectors(count: int = 60, first: int = 0) -> np.ndarray:
    """Return samples that differ from one another: sample i starts with the number i."""
    x = np.zeros((count, 2), np.float32)
    x[:, 0] = np.arange(first, first + count)
    return x


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write arrays to ``mine.npz``; return the arguments that load it."""
    monkeypatch.delenv("FLOW_DATA", raising=False)

    def write(file="mine.npz", save=np.savez, **arrays):
        save(tmp_path / file, **arrays)
        return {"train": file, "base": tmp_path}

    return write


def refusal(**options) -> str:
    with pytest.raises(ConfigError) as caught:
        load(**options)
    return str(caught.value)


def numbers(split) -> list[int]:
    return split[0][:, 0].astype(int).tolist()


# ---------------------------------------------------------------- digits and splits


def test_digits_have_their_sizes_shape_and_range():
    digits = load("digits")
    assert [len(split[1]) for split in (digits.train, digits.validation, digits.test)] == [1149, 288, 360]
    for x, y in (digits.train, digits.validation, digits.test):
        assert (x.shape[1:], x.dtype, y.dtype) == ((1, 8, 8), np.float32, np.int64)
        assert x.min() == 0
        assert x.max() == 1
        assert x.flags.c_contiguous


def test_digits_are_split_by_label():
    digits = load("digits")
    whole = np.bincount(sklearn.datasets.load_digits().target) / 1797
    for _, y in (digits.train, digits.validation, digits.test):
        assert np.abs(np.bincount(y) / len(y) - whole).max() < 0.005


def test_digits_come_whole():
    digits = load("digits")
    x = np.concatenate([split[0] for split in (digits.train, digits.validation, digits.test)])
    whole = sklearn.datasets.load_digits().images[:, None] / 16
    assert sorted(map(bytes, x)) == sorted(map(bytes, whole.astype(np.float32)))


def test_splits_do_not_overlap_and_hold_everything(write):
    loaded = load(**write(x=vectors(), y=LABELS))
    parts = [numbers(split) for split in (loaded.train, loaded.validation, loaded.test)]
    assert [len(part) for part in parts] == [38, 10, 12]
    assert sorted(parts[0] + parts[1] + parts[2]) == list(range(60))
    for split in (loaded.train, loaded.validation, loaded.test):
        assert np.array_equal(split[1], split[0][:, 0].astype(int) % 3)


def test_the_seed_decides_on_the_splits(write):
    options = write(x=vectors(), y=LABELS)
    first, same, other = (load(**options, seed=seed) for seed in (0, 0, 1))
    assert numbers(first.test) == numbers(same.test) != numbers(other.test)
    assert numbers(first.validation) == numbers(same.validation) != numbers(other.validation)


def test_fractions_are_of_what_they_split(write):
    options = write(x=vectors(), y=LABELS)
    loaded = load(**options, test_fraction=0.5, validation_fraction=0.1)
    assert [len(s[1]) for s in (loaded.train, loaded.validation, loaded.test)] == [27, 3, 30]


@pytest.mark.parametrize("name", ["validation_fraction", "test_fraction"])
@pytest.mark.parametrize("value", [0, 1, -0.1, 1.5, float("nan")])
def test_a_fraction_out_of_range_is_rejected(name, value):
    assert refusal(**{name: value}) == f"data: {name} must be in (0, 1), not {value}; 0.2 is usual"


def test_too_few_samples_of_a_class_are_rejected(write):
    message = refusal(**write(x=vectors(4), y=np.array([0, 0, 0, 1])))
    assert message.startswith("data: 'mine.npz' must be large enough to split by label: ")
    assert message.endswith("; add samples, or change the fractions")


# ---------------------------------------------------------------- .npz files


def test_a_test_set_in_the_file_is_the_test_set(write):
    x_test, y_test = vectors(6, first=100), LABELS[:6]
    loaded = load(**write(x_train=vectors(), y_train=LABELS, x_test=x_test, y_test=y_test))
    assert np.array_equal(loaded.test[0], x_test)
    assert np.array_equal(loaded.test[1], y_test)
    assert len(loaded.train[1]) + len(loaded.validation[1]) == 60


def test_a_file_without_a_test_set_is_split(write):
    loaded = load(**write(x_train=vectors(), y_train=LABELS))
    assert len(loaded.test[1]) == 12


def test_a_test_file_wins(write):
    write("test.npz", x=vectors(6, first=200), y=LABELS[:6])
    options = write(x_train=vectors(), y_train=LABELS, x_test=vectors(3, first=100), y_test=LABELS[:3])
    assert numbers(load(**options, test="test.npz").test) == list(range(200, 206))


def test_a_compressed_file_and_other_arrays_in_it_do_not_matter(write):
    options = write(save=np.savez_compressed, x=vectors(), y=LABELS, names=np.array(["a"]))
    assert len(load(**options).train[1]) == 38


def test_images_without_channels_get_one(write):
    loaded = load(**write(x=np.zeros((60, 5, 7)), y=LABELS))
    assert loaded.train[0].shape == (38, 1, 5, 7)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_channels_come_first(write, channels):
    x = np.random.default_rng(0).random((60, 5, 7, channels)).astype(np.float32)
    last = load(**write(x=x, y=LABELS))
    first = load(**write(x=x.transpose(0, 3, 1, 2), y=LABELS))
    assert last.train[0].shape == (38, channels, 5, 7)
    assert np.array_equal(last.train[0], first.train[0])
    assert last.train[0].flags.c_contiguous


@pytest.mark.parametrize(
    ("kind", "largest"), [(np.uint8, 255), (np.uint16, 65535), (np.int8, 127), (np.int16, 32767)]
)
def test_integers_are_scaled_by_their_type(write, kind, largest):
    x = np.full((60, 2), largest, kind)
    x[:, 1] = largest // 5
    loaded = load(**write(x=x, y=LABELS))
    assert loaded.train[0].dtype == np.float32
    assert np.allclose(loaded.train[0], [1, (largest // 5) / largest], rtol=1e-7, atol=0)


@pytest.mark.parametrize("kind", [np.float16, np.float64, np.bool_])
def test_floats_are_taken_as_they_are(write, kind):
    x = np.full((60, 2), 1, kind)
    assert np.array_equal(load(**write(x=x, y=LABELS)).test[0], np.ones((12, 2), np.float32))


@pytest.mark.parametrize("kind", [np.int32, np.int64, np.uint32, np.complex64, np.str_, "datetime64[s]"])
def test_samples_without_a_plain_scale_are_rejected(write, kind):
    x = np.ones((60, 2), np.int64).astype(kind)
    assert refusal(**write(x=x, y=LABELS)) == (
        f"data: 'mine.npz' must hold floats, or integers of 8 or 16 bits, not {x.dtype} samples; convert x"
    )


@pytest.mark.parametrize("shape", [(60,), (60, 1, 2, 3, 4)])
def test_samples_of_other_dimensions_are_rejected(write, shape):
    assert refusal(**write(x=np.zeros(shape), y=LABELS)) == (
        f"data: 'mine.npz' must hold vectors (2 dimensions) or images (3 or 4), not {len(shape)} dimensions; reshape x"
    )


@pytest.mark.parametrize(
    "labels",
    [LABELS[:59], LABELS[:, None], LABELS.astype(float), LABELS.astype(str), LABELS > 0, np.int64(3)],
    ids=["too few", "a column", "floats", "texts", "truth values", "a number"],
)
def test_labels_that_are_not_one_integer_a_sample_are_rejected(write, labels):
    labels = np.asarray(labels)
    assert refusal(**write(x=vectors(), y=labels)) == (
        f"data: 'mine.npz' must hold one integer label a sample, not {labels.dtype} labels of shape {labels.shape} "
        "for samples of shape (60, 2); save class numbers from 0"
    )


def test_samples_that_are_one_number_are_rejected(write):
    assert refusal(**write(x=np.float32(1), y=np.int64(3))) == (
        "data: 'mine.npz' must hold one integer label a sample, not int64 labels of shape () "
        "for samples of shape (); save class numbers from 0"
    )


@pytest.mark.parametrize(("x", "y"), [(vectors(), LABELS - 1), (vectors(0), LABELS[:0])], ids=["-1", "none"])
def test_labels_below_zero_and_empty_files_are_rejected(write, x, y):
    assert refusal(**write(x=x, y=y)) == (
        "data: 'mine.npz' must hold labels from 0 on, for at least one sample; save class numbers"
    )


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
def test_samples_that_are_not_finite_are_rejected(write, value):
    x = np.zeros((60, 2))
    x[3, 1] = value
    assert refusal(**write(x=x, y=LABELS)) == (
        "data: 'mine.npz' must hold finite samples, but some are NaN or infinite; clean them first"
    )


@pytest.mark.parametrize(
    ("arrays", "missing"),
    [
        ({"x": vectors()}, "y"),
        ({"y": LABELS}, "x_train"),
        ({"x_train": vectors()}, "y_train"),
        ({"images": vectors(), "labels": LABELS}, "x_train"),
    ],
)
def test_missing_arrays_are_named(write, arrays, missing):
    assert refusal(**write(**arrays)) == (
        f"data: 'mine.npz' must hold x and y (or x_train and y_train), but {missing!r} is missing; "
        "write it with numpy.savez(file, x=..., y=...)"
    )


@pytest.mark.parametrize("given", ["x_test", "y_test"])
def test_half_a_test_set_is_rejected(write, given):
    arrays = {"x": vectors(), "y": LABELS, given: vectors(6) if given == "x_test" else LABELS[:6]}
    assert refusal(**write(**arrays)) == (
        "data: 'mine.npz' must hold x_test and y_test, not one of them; add the other"
    )


def test_a_test_set_of_another_shape_is_rejected(write):
    write("test.npz", x=np.zeros((6, 3)), y=LABELS[:6])
    assert refusal(**write(x=vectors(), y=LABELS), test="test.npz") == (
        "data: test samples must have the shape of the training samples (2,), not (3,); check test.npz"
    )


class Trap:
    def __reduce__(self):
        return print, ("the pickle ran",)


def test_pickled_arrays_are_refused_unread(write, capsys):
    options = write(x=np.array([Trap()] * 60, dtype=object), y=LABELS)
    assert refusal(**options) == (
        "data: 'mine.npz' must be a whole .npz file of plain arrays, not ValueError: Object arrays cannot be loaded "
        f"when allow_pickle=False; {ADVICE}"
    )
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("content", [b"", b"text", b"\x80\x04."], ids=["empty", "text", "pickle"])
def test_a_file_of_another_kind_is_refused(tmp_path, content):
    (tmp_path / "mine.npz").write_bytes(content)
    assert refusal(train="mine.npz", base=tmp_path) == (
        "data: 'mine.npz' must be a whole .npz file of plain arrays, not BadZipFile: File is not a zip file; "
        + ADVICE
    )


def test_a_file_of_one_array_is_refused(tmp_path):
    np.save(tmp_path / "mine.npy", vectors())
    assert refusal(train="mine.npy", base=tmp_path) == (
        "data: 'mine.npy' must be a whole .npz file of plain arrays, not BadZipFile: File is not a zip file; "
        + ADVICE
    )


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("damage", ["cut", "overwritten"])
def test_a_damaged_file_is_refused(tmp_path, write, save, damage):
    options = write(save=save, x=np.random.default_rng(0).random((60, 50)), y=LABELS)
    content = (tmp_path / "mine.npz").read_bytes()
    middle = len(content) // 2
    broken = content[:middle] if damage == "cut" else content[:middle] + b"\xff" * 64 + content[middle + 64 :]
    (tmp_path / "mine.npz").write_bytes(broken)
    message = refusal(**options)
    assert message.startswith("data: 'mine.npz' must be a whole .npz file of plain arrays, not ")
    assert message.endswith(ADVICE)


@pytest.mark.parametrize("name", ["nothing.npz", "cifar100", ".", "a" * 300, "a\0b"])
def test_a_missing_file_is_named(tmp_path, name):
    expected = (
        f"data: {name!r} must be an existing .npz file or one of digits, fashion-mnist, mnist, cifar10; "
        "check [data] in the config"
    )
    assert refusal(train=name, base=tmp_path) == expected
    assert refusal(test=name, base=tmp_path) == expected


# ---------------------------------------------------------------- the usual sets


@pytest.fixture
def offline(monkeypatch):
    """Make OpenML unreachable; return what was asked for."""
    asked = []

    def fetch(name, **options):
        asked.append(name)
        raise ConnectionError("no network")

    monkeypatch.setattr(sklearn.datasets, "fetch_openml", fetch)
    monkeypatch.delenv("FLOW_DATA", raising=False)
    return asked


@pytest.mark.parametrize(
    ("name", "file", "shape", "expected"),
    [
        ("mnist", "mnist.npz", (28, 28), (1, 28, 28)),
        ("fashion-mnist", "fashion_mnist.npz", (28, 28), (1, 28, 28)),
        ("cifar10", "cifar10.npz", (32, 32, 3), (3, 32, 32)),
        ("cifar10", "cifar10_25k.npz", (32, 32, 3), (3, 32, 32)),
    ],
)
def test_the_folder_of_flow_data_is_read(write, offline, monkeypatch, tmp_path, name, file, shape, expected):
    train, test = np.full((60, *shape), 255, np.uint8), np.zeros((6, *shape), np.uint8)
    write(
        file, x_train=train, y_train=LABELS.astype(np.uint8), x_test=test, y_test=LABELS[:6].astype(np.uint8)
    )
    monkeypatch.setenv("FLOW_DATA", str(tmp_path))
    loaded = load(name)
    assert loaded.name == name
    assert loaded.train[0].shape == (48, *expected)
    assert loaded.train[0].min() == 1
    assert loaded.test[0].shape == (6, *expected)
    assert offline == []


@pytest.mark.parametrize(
    ("name", "files", "openml"),
    [
        ("mnist", "mnist.npz", "mnist_784"),
        ("fashion-mnist", "fashion_mnist.npz", "Fashion-MNIST"),
        ("cifar10", "cifar10.npz or cifar10_25k.npz", "CIFAR_10"),
    ],
)
@pytest.mark.parametrize("folder", [True, False])
def test_a_set_that_is_nowhere_is_named(offline, monkeypatch, tmp_path, name, files, openml, folder):
    if folder:
        monkeypatch.setenv("FLOW_DATA", str(tmp_path))
    assert refusal(train=name) == (
        f"data: {name!r} must be in the folder that FLOW_DATA names ({files}) or reachable at OpenML, not neither "
        "(ConnectionError); set FLOW_DATA, or go online"
    )
    assert offline == [openml]


def test_what_openml_gives_is_shaped_and_scaled(monkeypatch):
    class Bunch:
        data = np.full((60, 784), 255.0)
        target = LABELS.astype(str).astype(object)

    monkeypatch.delenv("FLOW_DATA", raising=False)
    monkeypatch.setattr(sklearn.datasets, "fetch_openml", lambda *args, **options: Bunch)
    loaded = load("mnist")
    assert loaded.train[0].shape == (38, 1, 28, 28)
    assert loaded.train[0].max() == 1
    assert sorted(np.concatenate([s[1] for s in (loaded.train, loaded.validation, loaded.test)])) == sorted(
        LABELS
    )


# ---------------------------------------------------------------- fingerprints


def test_a_fingerprint_changes_with_the_content_of_each_file(write, tmp_path):
    write("test.npz", x=vectors(6), y=LABELS[:6])
    write(x=vectors(), y=LABELS)
    first = fingerprint("mine.npz", "test.npz", tmp_path)
    assert fingerprint("mine.npz", "test.npz", tmp_path) == first
    write(x=vectors() + 1, y=LABELS)
    second = fingerprint("mine.npz", "test.npz", tmp_path)
    write("test.npz", x=vectors(6) + 1, y=LABELS[:6])
    third = fingerprint("mine.npz", "test.npz", tmp_path)
    assert len({first, second, third, fingerprint("mine.npz", None, tmp_path)}) == 4


def test_fingerprints_of_the_usual_sets(write, offline, monkeypatch, tmp_path):
    assert fingerprint("digits", None).startswith("digits of scikit-learn ")
    assert fingerprint("mnist", None) == "OpenML mnist_784"
    write("mnist.npz", x=vectors(), y=LABELS)
    monkeypatch.setenv("FLOW_DATA", str(tmp_path))
    assert len(fingerprint("mnist", None)) == 64
    assert offline == []


def test_every_name_has_its_files_and_its_openml_name():
    usual = set(data.NAMES) - {"digits"}
    assert set(data._FILES) == set(data._OPENML) == set(data._SHAPES) == usual
