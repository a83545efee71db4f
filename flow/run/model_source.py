"""Where the network of a run comes from: a Python function, a checkpoint, an ONNX file."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from flow.config import Config
from flow.errors import ConfigError
from flow.training.state_dict import load_state_dict

if TYPE_CHECKING:
    from torch import nn


def load_model(config: Config, shape: tuple[int, ...]) -> tuple[nn.Module, bool]:
    """Return the network for samples of ``shape``, and whether it comes with trained weights."""
    if "onnx" in config.model:
        from flow.onnx_model import read

        return read(onnx_path(config), shape=shape, logits=True), True
    model = build_model(config)
    if "checkpoint" not in config.model:
        return model, False
    load_state_dict(model, config.base / config.model["checkpoint"])
    return model, True


def onnx_path(config: Config) -> Path:
    """Return where the network's ONNX file is."""
    return config.base / str(config.model["onnx"])


def enters_quantized(config: Config) -> bool:
    """Tell whether the network is a QONNX file, so that the run starts at quantize."""
    if "onnx" not in config.model:
        return False
    from flow.onnx_model import is_quantized

    return is_quantized(onnx_path(config))


def build_model(config: Config) -> nn.Module:
    """Import ``package.module:function`` and call it.

    Raises:
        ConfigError: it cannot be imported, or does not return a torch module.
    """
    from torch import nn

    source = config.model["source"]
    module_name, _, function = source.partition(":")
    if not module_name or not function:
        raise ConfigError(
            f"[model]: source must be 'package.module:function', not {source!r}; add the function's name"
        )
    sys.path.insert(0, str(config.base.resolve()))
    try:
        _forget(config)
        made = getattr(importlib.import_module(module_name), function)()
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"[model]: source {source!r} must be importable, not fail with {type(error).__name__}: {error}; "
            f"modules are looked up beside the config ({config.base}) first"
        ) from error
    finally:
        sys.path.remove(str(config.base.resolve()))
    if not isinstance(made, nn.Module):
        raise ConfigError(f"[model]: source {source!r} must return a torch module, not {type(made).__name__}")
    return made


def _forget(config: Config) -> None:
    """Let the user's modules be imported anew: in a notebook's process they may have been edited since."""
    files = {(config.base / name).resolve() for name in config.network}
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file and name != "__main__" and Path(file).resolve() in files:
            del sys.modules[name]
