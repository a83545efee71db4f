"""A deployment flow for reconfigurable hardware: a trained network in, a proven bitstream out.

One function a stage, and `run` for all of them in order. Each is imported when it is first used, so that
``import flow`` and ``flow --help`` cost nothing.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flow.compress import compress
    from flow.compress import load as load_weights
    from flow.convert import convert
    from flow.data import load as load_data
    from flow.deploy import deploy
    from flow.deploy.bundle import bundle
    from flow.emulate import emulate
    from flow.errors import ConfigError, FlowError, MismatchError, ToolError, UnsupportedError
    from flow.fit import fit
    from flow.onnx_model import read as read_onnx
    from flow.onnx_model import write as write_onnx
    from flow.pipeline import run
    from flow.prune import Pruner, prune
    from flow.prune.scan import scan
    from flow.quantize import quantize, search_bits
    from flow.simplify import simplify
    from flow.synthesize import synthesize
    from flow.train import train

__all__ = [
    "ConfigError",
    "FlowError",
    "MismatchError",
    "Pruner",
    "ToolError",
    "UnsupportedError",
    "bundle",
    "compress",
    "convert",
    "deploy",
    "emulate",
    "fit",
    "load_data",
    "load_weights",
    "prune",
    "quantize",
    "read_onnx",
    "run",
    "scan",
    "search_bits",
    "simplify",
    "synthesize",
    "train",
    "write_onnx",
]
_HOMES = {
    "Pruner": ("prune", "Pruner"),
    "bundle": ("deploy.bundle", "bundle"),
    "load_data": ("data", "load"),
    "load_weights": ("compress", "load"),
    "read_onnx": ("onnx_model", "read"),
    "run": ("pipeline", "run"),
    "search_bits": ("quantize", "search_bits"),
    "scan": ("prune.scan", "scan"),
    "write_onnx": ("onnx_model", "write"),
}


class _Package(ModuleType):
    """Gives ``flow.prune`` as the stage's function, although a submodule bears the same name."""

    def __getattr__(self, name: str) -> Any:
        if name not in __all__:
            raise AttributeError(f"module 'flow' has no attribute {name!r}")
        module, attribute = _HOMES.get(name, ("errors" if name.endswith("Error") else name, name))
        return getattr(import_module(f"flow.{module}"), attribute)

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in __all__ and isinstance(value, ModuleType)):
            super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *__all__]


sys.modules[__name__].__class__ = _Package
