"""What a network would take of the config's board: the ``cost`` behind ``[prune.budget]``."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from flow.config import Config
from flow.convert.options import for_all
from flow.quantize import quantize
from flow.types import Board

if TYPE_CHECKING:
    import torch
    from torch import fx

    from flow.quantize.search import BitsCost


def facts(config: Config) -> dict[str, Any]:
    """Return what the figures depend on: beside the board: bit widths, and the folding that is asked for.

    Reuse factors of single layers in ``[hls.LayerName]`` do not count.
    """
    options = config.options("quantize")
    widths = {
        name: options.get(name, inspect.signature(quantize).parameters[name].default)
        for name in ("weight_bits", "activation_bits", "input_bits")
    }
    layers = {
        name: (
            layer.get("weight_bits", widths["weight_bits"]),
            layer.get("activation_bits", widths["activation_bits"]),
        )
        for name, layer in options.get("layers", {}).items()
    }
    latency = str(for_all(config.hls, "Strategy") or "Resource").lower() == "latency"
    return {
        "bits": {**widths, "layers": layers},
        "io_type": config.options("convert").get("io_type"),
        "reuse_factor": for_all(config.hls, "ReuseFactor") or (1 if latency else None),
    }


def cost(
    config: Config, board: Board, example: torch.Tensor
) -> Callable[[fx.GraphModule], Mapping[str, float]] | None:
    """Return the figures of the board for `flow.prune`; None where no budget asks for them.

    A budget of ``interval_cycles`` and of resources is one of resources at that pace: layers are folded as far as it
    allows. Otherwise they are folded as `flow.convert` does.
    """
    budget = config.options("prune").get("budget")
    if not budget:
        return None
    from flow.estimate.budget import board_cost
    from flow.estimate.network import Bits

    given, pace = facts(config), budget.get("interval_cycles")
    bits = given["bits"]
    return board_cost(
        example,
        Bits(bits["weight_bits"], bits["activation_bits"], bits["input_bits"], bits["layers"]),
        board,
        io_type=given["io_type"],
        reuse_factor=given["reuse_factor"],
        pace_cycles=int(pace) if pace and len(budget) > 1 and not given["reuse_factor"] else None,
    )


def bits_cost(config: Config, board: Board, example: torch.Tensor) -> BitsCost | None:
    """Return the figures of the board at chosen widths, for the search of ``[quantize]``; None where there is none.

    See `flow.estimate.budget.bits_cost` for the folding.
    """
    options = config.options("quantize")
    if options.get("max_accuracy_drop") is None and not options.get("bit_budget"):
        return None
    from flow.estimate.budget import bits_cost as made

    given = facts(config)
    return made(example, board, io_type=given["io_type"], reuse_factor=given["reuse_factor"])
