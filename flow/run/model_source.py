"""Where the network of a run comes from: a Python function, a checkpoint, an ONNX file."""

from __future__ import annotations

import importlib
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from flow.config import Config
from flow.errors import ConfigError, FlowError
from flow.run.watch_build import outside
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
        ConfigError: it cannot be imported, fails, exits, or does not return a torch module.
    """
    from torch import nn

    source = config.model["source"]
    module_name, _, function = source.partition(":")
    if not function or not all(part.isidentifier() for part in module_name.split(".")):
        raise ConfigError(
            f"[model]: source must be 'package.module:function', not {source!r}; add the function's name"
        )
    sys.path.insert(0, str(config.base.resolve()))
    try:
        _forget(config)
        made = getattr(importlib.import_module(module_name), function)()
    except FlowError:
        raise
    except (Exception, SystemExit) as error:
        raise _failed(source, config.base, error) from error
    finally:
        with suppress(ValueError):  # the user's code may have changed the path itself
            sys.path.remove(str(config.base.resolve()))
    if not isinstance(made, nn.Module):
        raise ConfigError(f"[model]: source {source!r} must return a torch module, not {type(made).__name__}")
    return made


def _failed(source: str, base: Path, error: BaseException) -> ConfigError:
    """Return what is told of the user's code that failed, with its line where it came so far."""
    reason = (
        error.msg if isinstance(error, SyntaxError) else str(error)
    )  # its text has file and line once more
    told = f"{type(error).__name__}: {reason}".strip(": ").partition("\n")[0]
    place = _place(base.resolve(), error)
    if place is not None:
        did = f"exit with {error.code!r}" if isinstance(error, SystemExit) else f"raise {told}"
        return ConfigError(
            f"[model]: source {source!r} must build the network, not {did} ({place}); correct the code there"
        )
    if isinstance(error, ImportError | AttributeError):
        return ConfigError(
            f"[model]: source {source!r} must be importable, not fail with {told}; modules are looked up beside the "
            f"config ({base}) first"
        )
    return ConfigError(
        f"[model]: source {source!r} must be a function without arguments that builds the network, not fail with "
        f"{told}; correct it"
    )


def _place(base: Path, error: BaseException) -> str | None:
    """Return file and line of the innermost code that is the user's."""
    places = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    if isinstance(error, SyntaxError) and error.filename:
        places.append((error.filename, error.lineno))
    own = [place for place in places if not place[0].startswith("<") and outside(place[0])]
    if not own:
        return None
    file = Path(own[-1][0])
    name = file.relative_to(base) if file.is_relative_to(base) else file
    return f"{name}, line {own[-1][1]}"


def _forget(config: Config) -> None:
    """Let the user's modules be imported anew: in a notebook's process they may have been edited since."""
    files = {(config.base / name).resolve() for name in config.network}
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file and name != "__main__" and Path(file).resolve() in files:
            del sys.modules[name]
