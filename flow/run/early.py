"""What the config alone can tell, told before any training: each stage's own checks of its options."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from flow.build.plan import require
from flow.config import Config
from flow.errors import ConfigError
from flow.rtl import check_pace, verilator
from flow.synthesize import check_target, toolchain_of
from flow.types import Board

_VENDORS = ("cosim", "out_of_context", "host", "host_setup")
"""Options of ``[synthesize]`` that ask for something which the open toolchain does not do."""


def train(config: Config, board: Board) -> None:
    """Check ``[train]``."""
    from flow.train import check, train

    check(**_with_defaults(train, config.options("train"), check))


def prune(config: Config, board: Board) -> None:
    """Check ``[prune]``."""
    from flow.prune.options import Options, check

    check(Options(**config.options("prune")), trained=True)


def quantize(config: Config, board: Board) -> None:
    """Check ``[quantize]``, the search of widths included."""
    from flow.quantize.options import Options

    Options(**config.options("quantize")).check()


def simplify(config: Config, board: Board) -> None:
    """Check ``[simplify]``."""
    from flow.simplify import check_options

    check_options(**config.options("simplify"))


def convert(config: Config, board: Board) -> None:
    """Check ``[convert]``, and ``[hls]`` but for the names of layers."""
    from flow.convert.options import check_options
    from flow.estimate.io_types import check_io_type

    check_io_type("convert", config.options("convert").get("io_type"))
    check_options(config.hls, None)
    period = config.synth_clk_period_ns
    if period is not None and not 0 < period < 1e6:
        raise ConfigError(
            f"config: synth_clk_period_ns must be above 0, not {period}; leave it out for the board's"
        )


def emulate(config: Config, board: Board) -> None:
    """Check ``[emulate]`` and ``[rtl]``, and that the programs are there."""
    from flow.emulate.csim import check_header

    options = config.options("emulate")
    check_header(options.get("header", "light"))
    require(str(options.get("compiler", "g++")), "emulate")
    if options.get("rtl"):
        check_pace(**config.options("rtl"))
        verilator.require()


def synthesize(config: Config, board: Board) -> None:
    """Check ``[synthesize]``: a toolchain that the board has, and options that it has."""
    options = config.options("synthesize")
    chosen = check_target(board, options.get("toolchain"), options.get("host"))
    for name in _VENDORS if chosen == "open" else ():
        if options.get(name):
            raise ConfigError(
                f"synthesize: {name} must be left out with the open toolchain, which has none, not be "
                f"{options[name]!r}; leave it out, or choose --toolchain vitis"
            )


def opened(config: Config, board: Board) -> bool:
    """Tell whether the run builds with the open toolchain."""
    return toolchain_of(board, config.options("synthesize").get("toolchain")) == "open"


def _with_defaults(
    stage: Callable[..., Any], options: Mapping[str, Any], check: Callable[..., Any]
) -> dict[str, Any]:
    """Return what a check of a stage's options takes: those that were given, the stage's defaults else."""
    parameters = inspect.signature(stage).parameters
    return {name: options.get(name, parameters[name].default) for name in inspect.signature(check).parameters}
