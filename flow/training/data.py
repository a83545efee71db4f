"""Data sets: scikit-learn's digits, the usual image sets from a folder, and .npz files of the user's own."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np

from flow.errors import ConfigError
from flow.files import is_file
from flow.training import npz
from flow.types import Data

NAMES = ("digits", "fashion-mnist", "mnist", "cifar10")
_FILES = {
    "fashion-mnist": ("fashion_mnist.npz",),
    "mnist": ("mnist.npz",),
    "cifar10": ("cifar10.npz", "cifar10_25k.npz"),
}
_OPENML = {"fashion-mnist": "Fashion-MNIST", "mnist": "mnist_784", "cifar10": "CIFAR_10"}
_SHAPES = {"fashion-mnist": (28, 28), "mnist": (28, 28), "cifar10": (3, 32, 32)}


def load(
    train: str = "digits",
    *,
    test: str | None = None,
    validation_fraction: float = 0.2,
    test_fraction: float = 0.2,
    seed: int = 0,
    base: Path | None = None,
) -> Data:
    """Load a data set and split it, seeded and stratified by label.

    Args:
        train: ``digits``, ``fashion-mnist``, ``mnist``, ``cifar10``, or an .npz file with ``x`` and ``y``
            (or ``x_train``, ``y_train`` and optionally ``x_test``, ``y_test``). Images are (samples, H, W),
            (samples, H, W, C) or (samples, C, H, W); vectors are (samples, features). Integers of 8 or 16
            bits are divided by the largest value of their type (digits by 16), floats are taken as they are.
        test: an .npz file with ``x`` and ``y``; without it, and without a test set in ``train``,
            ``test_fraction`` of the samples are held back.
        validation_fraction: share of the training samples, held back for decisions during training.
        test_fraction: see ``test``.
        seed: seed of the splits.
        base: folder that relative file names start from.

    Returns:
        Inputs float32, channels first; labels int64.

    Raises:
        ConfigError: no such name or file, or the arrays break a rule.
    """
    for name, value in (("validation_fraction", validation_fraction), ("test_fraction", test_fraction)):
        if not 0 < value < 1:
            raise ConfigError(f"data: {name} must be in (0, 1), not {value}; 0.2 is usual")
    if train in NAMES:
        x, y, held_back = _builtin(train)
    else:
        x, y, held_back = _read_npz(_resolve(train, base), train)
    if test is not None:
        held_back = _read_npz(_resolve(test, base), test)[:2]
    if held_back is None:
        x, y, held_back = _split(x, y, test_fraction, seed, train)
    x, y, validation = _split(x, y, validation_fraction, seed + 1, train)
    if held_back[0].shape[1:] != x.shape[1:]:
        raise ConfigError(
            f"data: test samples must have the shape of the training samples {x.shape[1:]}, "
            f"not {held_back[0].shape[1:]}; check {test or train}"
        )
    return Data(train, (x, y), validation, held_back)


def fingerprint(train: str, test: str | None, base: Path | None = None) -> str:
    """Return a short text that changes when the data changes, without loading it."""
    parts = []
    for name in (train, test):
        if name is None:
            continue
        if name == "digits":
            from importlib.metadata import version

            parts.append(f"digits of scikit-learn {version('scikit-learn')}")
        elif name in NAMES:
            path = _in_folder(name)
            parts.append(_digest(path) if path else f"OpenML {_OPENML[name]}")
        else:
            parts.append(_digest(_resolve(name, base)))
    return ", ".join(parts)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _resolve(name: str, base: Path | None) -> Path:
    path = (base or Path()) / name
    if not is_file(path):
        raise ConfigError(
            f"data: {name!r} must be an existing .npz file or one of {', '.join(NAMES)}; check [data] in the config"
        )
    return path


def _builtin(name: str) -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray] | None]:
    if name == "digits":
        from sklearn.datasets import load_digits

        bunch = load_digits()
        return (
            (bunch.images.reshape(-1, 1, 8, 8) / 16).astype(np.float32),
            bunch.target.astype(np.int64),
            None,
        )
    path = _in_folder(name)
    if path:
        return _read_npz(path, name)
    return _openml(name)


def _in_folder(name: str) -> Path | None:
    folder = os.environ.get("FLOW_DATA")
    for file in _FILES[name] if folder else ():
        path = Path(folder or "") / file
        if path.is_file():
            return path
    return None


def _openml(name: str) -> tuple[np.ndarray, np.ndarray, None]:
    from sklearn.datasets import fetch_openml

    try:
        bunch = fetch_openml(_OPENML[name], version=1, as_frame=False, parser="liac-arff")
    except Exception as error:
        raise ConfigError(
            f"data: {name!r} must be in the folder that FLOW_DATA names ({' or '.join(_FILES[name])}) or reachable at "
            f"OpenML, not neither ({type(error).__name__}); set FLOW_DATA, or go online"
        ) from error
    images = bunch.data.reshape(-1, *_SHAPES[name]).astype(np.uint8)
    return _images(images, name), bunch.target.astype(np.int64), None


def _read_npz(path: Path, name: str) -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray] | None]:
    try:
        arrays = npz.read(path, ("x", "y", *_SPLIT_KEYS))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"data: {name!r} must be a whole .npz file of plain arrays, not {error}; "
            "write it anew with numpy.savez(file, x=..., y=...)"
        ) from error
    keys = ("x", "y") if "x" in arrays else ("x_train", "y_train")
    for key in keys:
        if key not in arrays:
            raise ConfigError(
                f"data: {name!r} must hold x and y (or x_train and y_train), but {key!r} is missing; "
                "write it with numpy.savez(file, x=..., y=...)"
            )
    if ("x_test" in arrays) != ("y_test" in arrays):
        raise ConfigError(f"data: {name!r} must hold x_test and y_test, not one of them; add the other")
    x, y = _checked(arrays[keys[0]], arrays[keys[1]], name)
    if "x_test" in arrays:
        return x, y, _checked(arrays["x_test"], arrays["y_test"], name)
    return x, y, None


_LARGEST_LABEL = 2**31 - 1
"""No network has as many outputs."""
_SPLIT_KEYS = ("x_train", "y_train", "x_test", "y_test")


def _checked(x: np.ndarray, y: np.ndarray, name: str) -> tuple[np.ndarray, np.ndarray]:
    if y.ndim != 1 or x.shape[:1] != y.shape or y.dtype.kind not in "iu":
        raise ConfigError(
            f"data: {name!r} must hold one integer label a sample, not {y.dtype} labels of shape {y.shape} for "
            f"samples of shape {x.shape}; save class numbers from 0"
        )
    if len(y) == 0 or y.min() < 0:
        raise ConfigError(
            f"data: {name!r} must hold labels from 0 on, for at least one sample; save class numbers"
        )
    if y.max() > _LARGEST_LABEL:
        raise ConfigError(
            f"data: {name!r} must hold labels of at most {_LARGEST_LABEL}, not {y.max()}; save class numbers from 0"
        )
    images = _images(x, name)
    if not np.isfinite(images).all():
        raise ConfigError(
            f"data: {name!r} must hold finite samples, but some are NaN or infinite; clean them first"
        )
    return images, y.astype(np.int64)


def _images(x: np.ndarray, name: str) -> np.ndarray:
    """Return float32 with channels first; integers are scaled to [0, 1] by their type's largest value."""
    if x.ndim not in (2, 3, 4):
        raise ConfigError(
            f"data: {name!r} must hold vectors (2 dimensions) or images (3 or 4), not {x.ndim} dimensions; reshape x"
        )
    if 0 in x.shape[1:]:
        raise ConfigError(
            f"data: {name!r} must hold samples with values, not of shape {x.shape[1:]}; save them anew"
        )
    if x.dtype.kind not in "biuf" or (x.dtype.kind in "iu" and x.dtype.itemsize > 2):
        raise ConfigError(
            f"data: {name!r} must hold floats, or integers of 8 or 16 bits, not {x.dtype} samples; convert x"
        )
    scale = np.float32(np.iinfo(x.dtype).max) if np.issubdtype(x.dtype, np.integer) else np.float32(1)
    with np.errstate(over="ignore"):  # what overflows is infinite, and refused
        x = x.astype(np.float32) / scale
    if x.ndim == 3:
        return x.reshape(len(x), 1, *x.shape[1:])  # a new axis would get stride 0, which torch takes for NHWC
    if x.ndim == 4 and x.shape[3] in (1, 3, 4) and x.shape[1] not in (1, 3, 4):
        return np.ascontiguousarray(x.transpose(0, 3, 1, 2))
    return x


def _split(
    x: np.ndarray, y: np.ndarray, fraction: float, seed: int, name: str
) -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray]]:
    from sklearn.model_selection import train_test_split

    try:
        kept, held = train_test_split(np.arange(len(y)), test_size=fraction, random_state=seed, stratify=y)
    except ValueError as error:
        raise ConfigError(
            f"data: {name!r} must be large enough to split by label: {error}; add samples, or change the fractions"
        ) from error
    return x[kept], y[kept], (x[held], y[held])
