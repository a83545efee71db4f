"""The user's checkpoint: a state dict of a file that is not trusted, into a network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from flow.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn


def load_state_dict(model: nn.Module, path: Path) -> None:
    """Load a plain state dict of tensors; nothing in the file is executed.

    Raises:
        ConfigError: the file is missing, holds more than tensors, or does not fit the network.
    """
    import pickle

    import torch

    if not path.is_file():
        raise ConfigError(
            f"[model]: checkpoint must be an existing file, not {str(path)!r}; correct the config"
        )
    advice = "save it with torch.save(model.state_dict(), file)"
    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise ConfigError(
            f"[model]: checkpoint {path.name!r} must be a plain state dict, not hold anything else "
            f"({type(error).__name__}); {advice}"
        ) from error
    if not isinstance(state, Mapping) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise ConfigError(
            f"[model]: checkpoint {path.name!r} must be a plain state dict, not hold anything else "
            f"({type(state).__name__}); {advice}"
        )
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()[1:3]]
        raise ConfigError(
            f"[model]: checkpoint {path.name!r} must fit the network, not differ: {' '.join(lines)}; "
            "correct source or checkpoint"
        ) from error
