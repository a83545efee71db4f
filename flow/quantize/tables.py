"""Functions that become tables: where float32 leaves a tie to rounding, the file's value counts.

torch and onnxruntime compute gelu and the like to within a few units in the last place. Near a tie of the quantizer
behind (gelu(x) is x but for 1e-7 from x = 5 on) the two may round differently. Hardware looks up what the file gives,
so torch takes that over, in these places alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flow import network, qonnx
from flow.errors import MismatchError
from flow.names import identifier
from flow.quantize.twin import TABLES

if TYPE_CHECKING:
    from torch import fx

FUNCTIONS = tuple(kind for kind in TABLES if not kind.startswith("Hard"))
"""Those that no float32 arithmetic gives exactly."""
TOLERANCE = 1e-5
"""The largest difference of two float32 implementations, of values up to 1, or relative to larger ones."""


def tabulated(quant: fx.GraphModule, sample: Any, functions: tuple[str, ...] = FUNCTIONS) -> fx.GraphModule:
    """Return a network that shares the modules of a calibrated one, but for tables in the place of functions.

    Args:
        quant: the network.
        sample: the inputs of one sample.
        functions: the kinds that become tables.
    """
    from flow.quantize.layers import LookUp, inputs_of

    made = network.share(quant)
    names = [
        str(node.target)
        for node in made.graph.nodes
        if node.op == "call_module" and _kind(made, node).replace("HardS", "Hards") in functions
    ]
    for name, given in zip(names, inputs_of(quant, names, sample), strict=True):
        made.set_submodule(name, LookUp(made.get_submodule(name), given))
    return made


def settle(fixed: fx.GraphModule, onnx_path: Path, *, free: bool = False) -> dict[str, int]:
    """Make tables round as the file does; returns the number of places by layer.

    Args:
        fixed: what `tabulated` returned; its tables change.
        onnx_path: what was exported from the network.
        free: scales are no powers of two; tables then hold what the quantizer behind makes of the file's values.

    Raises:
        ConfigError: the file cannot be read.
        MismatchError: a function differs by more than rounding.
    """
    file = qonnx.plain(qonnx.load(onnx_path))
    changed = {}
    for node in fixed.graph.nodes:
        if node.op != "call_module" or _kind(fixed, node) != "LookUp":
            continue
        name = str(node.target)
        table: Any = fixed.get_submodule(name)
        mine = table.values
        theirs = _from_file(file, identifier(name), table.inputs)
        if not np.allclose(mine, theirs, rtol=TOLERANCE, atol=TOLERANCE):
            raise MismatchError(
                f"quantize: layer {name!r} ({table.what}) must be the same in QONNX, not differ by "
                f"{np.abs(mine - theirs).max():.2g}; report it"
            )
        differ = _rounded(fixed, node, mine) != _rounded(fixed, node, theirs)
        if differ.any():
            table.values = np.where(differ, theirs, mine)
            changed[name] = int(differ.sum())
        if free:
            table.values = _rounded(fixed, node, theirs)
    return changed


def _kind(graph: fx.GraphModule, node: fx.Node) -> str:
    return network.kind(graph.get_submodule(str(node.target)))


def _rounded(fixed: fx.GraphModule, node: fx.Node, values: np.ndarray) -> np.ndarray:
    """Return what the quantizer behind a function makes of its values."""
    import torch

    reader = next(iter(node.users))
    while _kind(fixed, reader) == "Flatten":
        reader = next(iter(reader.users))
    with torch.no_grad():
        result: np.ndarray = fixed.get_submodule(str(reader.target))(torch.from_numpy(values)).value.numpy()
    return result


def _from_file(file: qonnx.FileGraph, name: str, x: np.ndarray) -> np.ndarray:
    """Return what the nodes of one layer, the last of which has its name, give for numbers behind a quantizer."""
    makers = {node.outputs[0]: node for node in file.nodes}

    def value(tensor: str) -> np.ndarray:
        if tensor in file.constants:
            return file.constants[tensor]
        node = makers.get(tensor)
        if node is None or not (node.name == name or node.name.startswith(f"{name}_")):
            return x
        return qonnx.apply(node, file.opsets[""], *map(value, node.inputs))

    return value(next(node.outputs[0] for node in file.nodes if node.name == name))
