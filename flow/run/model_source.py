"""Where the network of a run comes from: a Python function, a checkpoint, an ONNX file."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flow.config import Config
from flow.errors import ConfigError
from flow.files import hashes, text_digest
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
        loaded = sys.modules.get(module_name)  # it may have been edited since, in a notebook's process
        module = importlib.reload(loaded) if loaded else importlib.import_module(module_name)
        made = getattr(module, function)()
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


def digest(config: Config) -> dict[str, Any]:
    """Return hashes of the Python files beside the network's and of the checkpoint."""
    found: dict[str, Any] = {}
    if "onnx" in config.model:
        from flow.onnx_model import digest as file_digest

        return {"onnx": file_digest(onnx_path(config))}
    top = config.model["source"].partition(":")[0].partition(".")[0]
    local = config.base / f"{top}.py"
    if local.is_file():
        found = {
            path.name: text_digest(path.read_text("utf-8", "replace"))
            for path in sorted(config.base.glob("*.py"))
        }
    elif (config.base / top).is_dir():
        found = {name: digest for name, digest in hashes(config.base / top).items() if name.endswith(".py")}
    elif top and top != "flow" and (spec := importlib.util.find_spec(top)) and spec.origin:
        origin = Path(spec.origin)
        files = sorted(origin.parent.rglob("*.py")) if origin.name == "__init__.py" else [origin]
        found = {str(path): text_digest(path.read_text("utf-8", "replace")) for path in files}
    checkpoint = config.base / config.model.get("checkpoint", "")
    if checkpoint.is_file():
        import hashlib

        found["checkpoint"] = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    return found
