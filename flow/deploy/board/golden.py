"""``golden.npz``: samples and what must come of them, in LSBs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from . import words
from .errors import BoardError
from .manifest import Manifest, Port


class Golden(NamedTuple):
    """``inputs``, ``outputs``: integers (samples, *shape), one array a port; ``labels``: classes, where known."""

    inputs: tuple[np.ndarray, ...]
    outputs: tuple[np.ndarray, ...]
    labels: np.ndarray | None


@dataclass(frozen=True)
class Difference:
    """The first value that differs, and by how much the worst one does."""

    sample: int
    output: str
    index: tuple[int, ...]
    expected: int
    got: int
    max_error_lsb: int


def read(folder: Path, manifest: Manifest, samples: int | None = None) -> Golden:
    """Return a bundle's golden vectors, at most ``samples`` of them.

    Raises:
        BoardError: the file is damaged, or its arrays are not the ports'.
    """
    name = manifest.golden.name
    try:
        with np.load(str(folder / name), allow_pickle=False) as file:
            arrays = {key: file[key] for key in ("inputs", "outputs", "labels") if key in file}
        inputs = _split(manifest.inputs, arrays["inputs"])
        outputs = _split(manifest.outputs, arrays["outputs"])
    except Exception as error:  # zip, its compressions and numpy's header fail in a dozen ways
        raise BoardError(
            f"golden: {name} must hold samples of the manifest's ports, not be damaged ({error}); copy the bundle again"
        ) from error
    labels = arrays.get("labels")
    count = len(inputs[0])
    if count < 1 or len(outputs[0]) != count or (labels is not None and labels.shape != (count,)):
        raise BoardError(
            f"golden: {name} must hold as many outputs and labels as inputs, and 1 or more, not {count} inputs and "
            f"{len(outputs[0])} outputs; build the bundle again"
        )
    count = count if samples is None else min(samples, count)
    return Golden(
        tuple(array[:count] for array in inputs),
        tuple(array[:count] for array in outputs),
        None if labels is None else labels[:count],
    )


def difference(
    ports: Sequence[Port], got: Sequence[np.ndarray], expected: Sequence[np.ndarray]
) -> Difference | None:
    """Return the first value that differs, by sample, then output, then index; ``None``: every one is equal."""
    largest, firsts = 0, []
    for number in range(len(ports)):
        found = np.argwhere(got[number] != expected[number])
        if len(found):
            firsts.append((int(found[0][0]), number, tuple(int(at) for at in found[0])))
            differs = got[number] != expected[number]
            # as Python's integers, which 64-bit differences do not overflow
            gaps = got[number][differs].astype(object) - expected[number][differs].astype(object)
            largest = max(largest, *(abs(gap) for gap in gaps))
    if not firsts:
        return None
    sample, number, place = min(firsts)
    return Difference(
        sample,
        ports[number].name,
        place[1:],
        int(expected[number][place]),
        int(got[number][place]),
        largest,
    )


def accuracy(outputs: Sequence[np.ndarray], labels: np.ndarray | None) -> float | None:
    """Return the share of samples whose class is the label: the place of the largest value, or the only value.

    ``None`` where the flow's own `flow.training.accuracy` has none; a board has no flow to import it from.
    """
    if labels is None or len(outputs) != 1:
        return None
    rows = outputs[0].reshape(len(outputs[0]), -1)
    if rows.shape[1] != max(outputs[0].shape[1:], default=1):
        return None
    classes = rows.argmax(1) if rows.shape[1] > 1 else rows[:, 0]
    return float((classes == labels).mean())


def _split(ports: Sequence[Port], rows: np.ndarray) -> list[np.ndarray]:
    """Cut rows of values into the ports' arrays, each value within its type."""
    size = sum(port.size for port in ports)
    if rows.ndim != 2 or rows.shape[1] != size or rows.dtype != np.int64:
        raise ValueError(f"int64 (samples, {size}) is due, not {rows.dtype} {rows.shape}")
    arrays, first = [], 0
    for port in ports:
        kind = words.lsb_dtype(port)
        part = rows[:, first : first + port.size].astype(kind)  # a 64-bit unsigned value lies in int64's bits
        words.check(port, part.reshape(len(rows), *port.shape))
        arrays.append(part.reshape(len(rows), *port.shape))
        first += port.size
    return arrays
