"""Golden vectors: the samples that prove a network, as golden.npz."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from flow.errors import ConfigError
from flow.training import npz


@dataclass(frozen=True)
class Golden:
    """The samples that prove a network: float arrays in the layout of the file, one a port; labels where known."""

    inputs: tuple[np.ndarray, ...]
    outputs: tuple[np.ndarray, ...]
    labels: np.ndarray | None = None


def read_golden(path: Path) -> Golden:
    """Read golden.npz: ``inputs`` and ``outputs``, or for several ports ``inputs_0``, ``inputs_1``, ...

    Raises:
        ConfigError: the file is missing, damaged, or holds something else.
    """
    try:
        found = npz.read(path)
        inputs, outputs = (
            tuple(
                found[name] for name in ([kind] if kind in found else port_names(kind, _count(kind, found)))
            )
            for kind in ("inputs", "outputs")
        )
        arrays = (*inputs, *outputs, *([found["labels"]] if "labels" in found else []))
        if not inputs or not outputs or any(array.ndim == 0 for array in arrays):
            raise ValueError("no samples")
        if any(array.dtype.kind not in "biuf" or array.shape[:1] != inputs[0].shape[:1] for array in arrays):
            raise ValueError("arrays that are no samples")
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(
            f"golden: {str(path)!r} must hold inputs and outputs, a sample a row, not fail with {error}; "
            "run quantize again"
        ) from error
    return Golden(inputs, outputs, found.get("labels"))


def write_golden(path: Path, golden: Golden) -> None:
    """Write golden.npz."""
    arrays: dict[str, Any] = {} if golden.labels is None else {"labels": golden.labels}
    for kind, side in (("inputs", golden.inputs), ("outputs", golden.outputs)):
        arrays |= zip(port_names(kind, len(side)), side, strict=True)
    np.savez(path, **arrays)


def port_names(kind: str, count: int) -> list[str]:
    """Return the names of the ports' arrays in golden.npz."""
    return [kind] if count == 1 else [f"{kind}_{number}" for number in range(count)]


def _count(kind: str, names: Iterable[str]) -> int:
    return sum(name.startswith(f"{kind}_") for name in names)
