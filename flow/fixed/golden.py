"""Golden vectors: the samples that prove a network, as golden.npz."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Golden:
    """The samples that prove a network: float arrays in the layout of the file, one a port; labels where known."""

    inputs: tuple[np.ndarray, ...]
    outputs: tuple[np.ndarray, ...]
    labels: np.ndarray | None = None


def read_golden(path: Path) -> Golden:
    """Read golden.npz: ``inputs`` and ``outputs``, or for several ports ``inputs_0``, ``inputs_1``, ..."""
    with np.load(path) as file:
        inputs, outputs = (
            tuple(
                file[name]
                for name in ([kind] if kind in file else port_names(kind, _count(kind, file.files)))
            )
            for kind in ("inputs", "outputs")
        )
        return Golden(inputs, outputs, file.get("labels"))


def write_golden(path: Path, golden: Golden) -> None:
    """Write golden.npz."""
    arrays: dict[str, Any] = {} if golden.labels is None else {"labels": golden.labels}
    for kind, side in (("inputs", golden.inputs), ("outputs", golden.outputs)):
        arrays |= zip(port_names(kind, len(side)), side, strict=True)
    np.savez(path, **arrays)


def port_names(kind: str, count: int) -> list[str]:
    """Return the names of the ports' arrays in golden.npz."""
    return [kind] if count == 1 else [f"{kind}_{number}" for number in range(count)]


def _count(kind: str, names: Sequence[str]) -> int:
    return sum(name.startswith(f"{kind}_") for name in names)
