"""A QONNX file as plain Python."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from flow.onnx_model.constants import attributes_of
from flow.onnx_model.files import STANDARD, array_of

CHANNELS_LAST = "qonnx.custom_op.channels_last"
QUANTIZERS = ("Quant", "BipolarQuant")


@dataclass(frozen=True)
class FileNode:
    """One node of a file; inputs and outputs are names of tensors, ``""`` where one is left out."""

    name: str
    op_type: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]


@dataclass(frozen=True)
class FileGraph:
    """A file as plain Python.

    ``shapes``: with the batch; ``None`` for an extent that the file leaves open.
    """

    nodes: tuple[FileNode, ...]
    constants: Mapping[str, np.ndarray]
    shapes: Mapping[str, tuple[int | None, ...]]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    opsets: Mapping[str, int]


def plain(model: Any) -> FileGraph:
    """Return a ``ModelWrapper``'s graph as plain Python."""
    graph = model.graph
    opsets = {("" if e.domain in STANDARD else e.domain): int(e.version) for e in model.model.opset_import}
    constants = {tensor.name: array_of(tensor) for tensor in graph.initializer}
    nodes = [
        FileNode(
            node.name or f"{node.op_type}_{index}",
            node.op_type,
            "" if node.domain in STANDARD else node.domain,
            tuple(node.input),
            tuple(node.output),
            attributes_of(node),
        )
        for index, node in enumerate(graph.node)
    ]
    return FileGraph(
        nodes=tuple(nodes),
        constants=constants,
        shapes=_shapes(graph),
        inputs=tuple(value.name for value in graph.input if value.name not in constants),
        outputs=tuple(value.name for value in graph.output),
        opsets=opsets,
    )


def _shapes(graph: Any) -> dict[str, tuple[int | None, ...]]:
    """Return the shapes that a file states."""
    return {
        value.name: tuple(
            dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else None
            for dim in value.type.tensor_type.shape.dim
        )
        for value in [*graph.input, *graph.output, *graph.value_info]
        if value.type.tensor_type.HasField("shape")
    }


def compute_nodes(model: Any) -> list[Any]:
    """Return the nodes that are not quantizers, in the graph's order."""
    return [node for node in model.graph.node if node.op_type not in QUANTIZERS]
