"""The stages' dataclasses as JSON values, and back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import cattrs
import numpy as np

from flow.errors import ConfigError

_Record = TypeVar("_Record")
_CONVERTER = cattrs.Converter()
_CONVERTER.register_unstructure_hook(Path, lambda path: path)


def values(record: Any) -> dict[str, Any]:
    """Return a dataclass as JSON values; arrays, and paths, which change with the folder, are left out."""
    found: dict[str, Any] = _CONVERTER.unstructure(record)
    return {name: value for name, value in found.items() if not isinstance(value, Path | np.ndarray)}


def read(kind: type[_Record], values: Mapping[str, Any], subject: str, **paths: Path) -> _Record:
    """Return the dataclass that `values` was made of; more values do no harm.

    Args:
        kind: its class.
        values: as JSON has them.
        subject: the stage, for the error's message.
        paths: what `values` left out.

    Raises:
        ConfigError: a value is missing or of another kind.
    """
    try:
        return _CONVERTER.structure({**values, **paths}, kind)
    except cattrs.BaseValidationError as error:
        what = "; ".join(cattrs.transform_error(error))
        raise ConfigError(
            f"{subject}: cached result must hold a {kind.__name__}, not differ ({what}); "
            f"run again with --from {subject}"
        ) from error
