"""A deployment flow for reconfigurable hardware: a trained network in, a proven bitstream out.

One function a stage, and `run` for all of them in order. Each is imported when it is first used, so that
``import flow`` and ``flow --help`` cost nothing.

A stage's package is the stage: ``flow.prune(...)`` calls the function `flow.prune.prune`, and ``import flow.prune``
gives the module with all that stands beside it.
"""

import sys
from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flow.compress import compress
    from flow.compress import load as load_weights
    from flow.convert import convert
    from flow.deploy import deploy
    from flow.deploy.bundle import bundle
    from flow.emulate import emulate
    from flow.errors import ConfigError, FlowError, MismatchError, ToolError, UnsupportedError
    from flow.fit import fit
    from flow.onnx_model import read as read_onnx
    from flow.onnx_model import write as write_onnx
    from flow.prune import Pruner, prune
    from flow.prune.scan import scan
    from flow.quantize import quantize, search_bits
    from flow.run import run
    from flow.simplify import simplify
    from flow.synthesize import synthesize
    from flow.train import train
    from flow.training.data import load as load_data

    __version__: str

__all__ = [
    "ConfigError",
    "FlowError",
    "MismatchError",
    "Pruner",
    "ToolError",
    "UnsupportedError",
    "__version__",
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
_STAGES = frozenset(
    ("compress", "convert", "deploy", "emulate", "fit", "prune", "quantize", "run", "simplify", "synthesize")
) | {"train"}
_HOMES = {
    "Pruner": ("prune", "Pruner"),
    "bundle": ("deploy.bundle", "bundle"),
    "load_data": ("training.data", "load"),
    "load_weights": ("compress", "load"),
    "read_onnx": ("onnx_model", "read"),
    "search_bits": ("quantize", "search_bits"),
    "scan": ("prune.scan", "scan"),
    "write_onnx": ("onnx_model", "write"),
}


class _Stage(ModuleType):
    """A stage's package: calling it calls the function of the same name."""

    @property
    def __wrapped__(self) -> Callable[..., Any]:  # for `help`, notebooks and `inspect.signature`
        function: Callable[..., Any] = vars(self)[self.__name__.rpartition(".")[2]]
        return function

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return self.__wrapped__(*arguments, **options)


class _Package(ModuleType):
    """Imports what is asked for, and makes stages callable."""

    def __getattr__(self, name: str) -> Any:
        if name == "__version__":
            from importlib.metadata import version

            return version("prune2bit")
        if name not in __all__:
            raise AttributeError(f"module 'flow' has no attribute {name!r}")
        if name in _STAGES:
            return import_module(f"flow.{name}")
        module, attribute = _HOMES.get(name, ("errors", name))
        return getattr(import_module(f"flow.{module}"), attribute)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _STAGES and isinstance(value, ModuleType):
            value.__class__ = _Stage
        super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *__all__]


sys.modules[__name__].__class__ = _Package
