"""The user's checkpoint: a state dict of a file that is not trusted, into a network."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flow.errors import ConfigError
from flow.files import is_file

if TYPE_CHECKING:
    import torch
    from torch import nn

_ADVICE = "save it with torch.save(model.state_dict(), file)"
_CONVERT = {
    "safetensors": "convert it with torch.save(safetensors.torch.load_file(file), new_file)",
    "a file without checksums, as torch < 1.6 wrote": "convert it with torch.save(torch.load(file), new_file)",
}


def load_state_dict(model: nn.Module, path: Path) -> None:
    """Load a plain state dict of tensors; nothing in the file is executed.

    Raises:
        ConfigError: the file is missing or damaged, holds more than tensors, or does not fit the network.
    """
    import torch

    if not is_file(path):
        raise ConfigError(
            f"[model]: checkpoint must be an existing file, not {str(path)!r}; correct the config"
        )
    _check_file(path)
    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # a foreign pickle fails in whatever way it likes
        raise _holds_else(path, type(error).__name__) from error
    _check_tensors(state, path)
    _check_names(model, state, path)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()[1:3]]
        raise ConfigError(
            f"[model]: checkpoint {path.name!r} must fit the network, not differ: {' '.join(lines)}; "
            "correct source or checkpoint"
        ) from error


def _holds_else(path: Path, what: str) -> ConfigError:
    return ConfigError(
        f"[model]: checkpoint {path.name!r} must be a plain state dict, not hold anything else ({what}); {_ADVICE}"
    )


def _check_file(path: Path) -> None:
    """Compare the checksums of the file's parts, which torch does not do; refuse what has none."""
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
            if unpacked > path.stat().st_size:
                raise _holds_else(path, f"{unpacked:,} bytes in {path.stat().st_size:,}")
            damaged = archive.testzip()
    except ConfigError:
        raise
    except Exception as error:  # zip and its compressions fail in a dozen ways
        kind = _kind(path)
        if kind in _CONVERT:
            raise ConfigError(
                f"[model]: checkpoint {path.name!r} must be a file of torch >= 1.6, not {kind}; {_CONVERT[kind]}"
            ) from error
        raise _holds_else(path, type(error).__name__) from error
    if damaged is not None:
        raise ConfigError(
            f"[model]: checkpoint {path.name!r} must be whole, not damaged in {damaged!r}; copy it again, or {_ADVICE}"
        )


def _kind(path: Path) -> str | None:
    """Return what a file that is no zip is, where its first bytes tell."""
    with path.open("rb") as file:
        start = file.read(64)
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") <= path.stat().st_size - 8:
        return "safetensors"
    # the number that torch.save began with, as a pickle of protocol 2
    return (
        "a file without checksums, as torch < 1.6 wrote"
        if start.startswith(b"\x80\x02\x8a\x0al\xfc")
        else None
    )


def _check_tensors(state: Any, path: Path) -> None:
    """Refuse what is no dict of plain tensors by name."""
    import torch

    if not isinstance(state, Mapping):
        raise _holds_else(path, type(state).__name__)
    for name, value in state.items():
        if not isinstance(name, str):
            raise _holds_else(path, f"the name {name!r:.40}")
        if isinstance(value, Mapping) and value and all(isinstance(v, torch.Tensor) for v in value.values()):
            raise ConfigError(
                f"[model]: checkpoint {path.name!r} must be a plain state dict, not hold one under {name!r}; "
                f"convert it with torch.save(torch.load(file)[{name!r}], new_file)"
            )
        if not isinstance(value, torch.Tensor):
            raise _holds_else(path, type(state).__name__)
        if value.layout is not torch.strided or value.is_quantized or value.device.type != "cpu":
            raise _holds_else(path, f"a tensor {name!r} that is sparse, quantized or empty of numbers")


def _check_names(model: nn.Module, state: Mapping[str, torch.Tensor], path: Path) -> None:
    """Refuse a wrapper's prefix before every name, and numbers of another kind, which torch would convert silently."""
    import torch

    own = model.state_dict()
    prefixes = {name.removesuffix(first) for name in list(state)[:1] for first in own if name.endswith(first)}
    for prefix in prefixes - {""}:
        if set(state) == {prefix + name for name in own}:
            raise ConfigError(
                f"[model]: checkpoint {path.name!r} must have the network's names, not {prefix!r} before each, as "
                "DataParallel and torch.compile put it; convert it with torch.save({name.removeprefix("
                f"{prefix!r}): value for name, value in torch.load(file).items()}}, new_file)"
            )
    for name in state:
        if isinstance(own.get(name), torch.Tensor) and _numbers(state[name]) != _numbers(own[name]):
            raise ConfigError(
                f"[model]: checkpoint {path.name!r} must hold {name!r} as {_numbers(own[name])} numbers, not "
                f"{_numbers(state[name])} ones; correct source or checkpoint"
            )


def _numbers(tensor: torch.Tensor) -> str:
    if tensor.is_complex():
        return "complex"
    return "floating-point" if tensor.is_floating_point() else str(tensor.dtype).removeprefix("torch.")
