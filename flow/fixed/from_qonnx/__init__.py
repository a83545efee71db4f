"""QONNX -> the fixed-point graph."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from flow.errors import UnsupportedError
from flow.fixed.from_qonnx import heads, joins, layouts, pointwise, pools, quantizers, tables, weighted
from flow.fixed.from_qonnx.constants import Constant
from flow.fixed.from_qonnx.inputs import add_inputs
from flow.fixed.from_qonnx.lowering import Lowering, refuse
from flow.fixed.from_qonnx.values import Value, flat_order
from flow.fixed.graph import FixedGraph, Reshape
from flow.onnx_model.constants import FOLDABLE, fold, shape_of
from flow.onnx_model.files import QUANTIZED, QUANTIZED_DOMAINS
from flow.qonnx import CHANNELS_LAST, FileGraph, FileNode, load, plain
from flow.types import FixedPoint

Operator = Callable[[Lowering, FileNode], Value | Constant]
_KEPT = 4
_read: dict[str, FixedGraph] = {}


def read(path: Path) -> FixedGraph:
    """Return a QONNX file as `lower` gives it; a file of the same content is lowered once in a process.

    The arrays of the graph are read-only: every caller gets the same ones.

    Args:
        path: a file that `flow.qonnx.clean` has written, or one like it.

    Raises:
        ConfigError: the file is missing, empty, or not an ONNX file.
        UnsupportedError: see `lower`.
    """
    content = path.read_bytes() if path.is_file() else b""
    if b"location" in content:  # of weights in another file, perhaps, which the digest would not see
        return lower(load(path))
    digest = hashlib.sha256(content).hexdigest()
    graph = _read.pop(digest, None) or _read_only(lower(load(path)))
    _read[digest] = graph  # the newest is last
    for oldest in list(_read)[:-_KEPT]:
        _read.pop(oldest, None)
    return graph


def _read_only(graph: FixedGraph) -> FixedGraph:
    """Let nobody write to the arrays of a graph."""
    for holder in (*graph.inputs, *graph.nodes, *(node.output for node in graph.nodes)):
        for value in vars(holder).values():
            if isinstance(value, np.ndarray):
                value.setflags(write=False)
    return graph


def lower(model: Any, *, inputs: Mapping[str, FixedPoint] | None = None) -> FixedGraph:
    """Return a cleaned QONNX file as exact operations on integers.

    Every node but quantizers, tables and heads is exact: its type holds each result that its inputs can give, found
    from the input's type and the weights themselves. A quantizer rounds the exact product of the file's scales
    (float32 numbers, as the fractions that they are), half to even or by the file's mode. A function (sigmoid and the
    like) is looked up with the quantizer behind it.

    Args:
        model: a ``ModelWrapper`` that `flow.qonnx.load` returned.
        inputs: types of inputs that no quantizer reads, by name.

    Raises:
        UnsupportedError: a node cannot be exact; it names the node, its operator and the rule.
    """
    return lower_with_shapes(model, inputs=inputs)[0]


def lower_with_shapes(
    model: Any, *, inputs: Mapping[str, FixedPoint] | None = None
) -> tuple[FixedGraph, Mapping[str, tuple[int, ...]]]:
    """Return what `lower` does, and the shapes of the file's tensors, with a batch of 1 where there is one."""
    file = plain(model)
    _check_quantized(file)
    lowering = Lowering(file)
    add_inputs(lowering, inputs or {})
    for node in _live(file):
        if node.outputs[0] not in lowering.values:
            _lower_node(lowering, node)
    outputs = [_output(lowering, name) for name in file.outputs]
    return FixedGraph(tuple(lowering.inputs), _needed(lowering, outputs), tuple(outputs)), lowering.shapes()


def _lower_node(lowering: Lowering, node: FileNode) -> None:
    given = [lowering.raw.get(name) for name in node.inputs]
    if node.op_type == "Shape" and node.inputs[0] in lowering.values:
        shape = (lowering.batch, *lowering.values[node.inputs[0]].shape)
        lowering.raw[node.outputs[0]] = shape_of(shape, node.attributes)
    elif node.op_type in FOLDABLE and all(
        value is not None or not name for name, value in zip(node.inputs, given, strict=True)
    ):
        where = f"node {node.name!r} ({node.op_type})"
        lowering.raw.update(zip(node.outputs, fold(node, given, lowering.opset, where), strict=False))
    else:
        found = _operator(node)(lowering, node)
        last = node.outputs[-1] if node.op_type == "TopK" else node.outputs[0]
        if isinstance(found, Constant):
            lowering.quantized[last] = found
        else:
            lowering.values[last] = found


def _live(file: FileGraph) -> list[FileNode]:
    """Return the nodes that an output depends on."""
    used = set(file.outputs)
    kept = []
    for node in reversed(file.nodes):
        if used & set(node.outputs):
            used |= set(node.inputs)
            kept.append(node)
    return kept[::-1]


def _operator(node: FileNode) -> Operator:
    """Return what lowers a node."""
    known: tuple[str, ...] = QUANTIZED_DOMAINS if node.op_type in QUANTIZED else ("",)
    if node.op_type in ("Conv", "MaxPool", "BatchNormalization"):
        known = ("", CHANNELS_LAST)
    if node.op_type not in OPERATORS:
        refuse(node, f"is not supported; supported operators: {', '.join(sorted(OPERATORS))}")
    if node.domain not in known:
        refuse(
            node,
            f"must be of {' or '.join(repr(name) if name else 'ONNX itself' for name in known)}, not of the domain "
            f"{node.domain!r}; replace it in the network",
        )
    return OPERATORS[node.op_type]


def _check_quantized(file: FileGraph) -> None:
    if not any(node.op_type in QUANTIZED for node in file.nodes):
        first = file.nodes[0]
        raise UnsupportedError(
            f"qonnx: node {first.name!r} ({first.op_type}) must belong to a quantized network, not to a float one: the "
            "file has no Quant node; take it through the stage quantize"
        )


def _output(lowering: Lowering, name: str) -> str:
    node = next((node for node in lowering.file.nodes if name in node.outputs), None)
    if node is None or name not in lowering.values:
        raise UnsupportedError(
            f"qonnx: output {name!r} must depend on the network's input through a node, not be a constant or an input; "
            "leave it out"
        )
    value = lowering.values[name]
    if value.table is not None:
        return tables.head(lowering, node, value).tensor.name
    value = lowering.bare(replace(node, name=name, op_type="output"), value)
    return _stated(lowering, node, value, name)


def _stated(lowering: Lowering, node: FileNode, value: Value, name: str) -> str:
    """Return the tensor that holds an output and says so: a flattened image becomes a vector."""
    held, order = value.tensor, flat_order(value.order)
    if held.source == name:
        return held.name
    same = held.source is None or np.array_equal(_order(held.order), _order(order))
    free = held.name in lowering.nodes and held.source not in lowering.file.outputs
    shape = value.shape if len(value.shape) == 1 else held.shape
    if same and free and shape == held.shape:
        made = lowering.nodes[held.name]
        lowering.nodes[held.name] = replace(made, output=replace(held, source=name, order=order))
        return held.name
    interval = lowering.interval(value).tiled(shape[-1])
    scale = value.scale * (1 if len(value.scale) == 1 else shape[-1] // len(value.scale))
    made_value = lowering.emit(
        Reshape, node, [value], shape, interval, scale, value.order, name=value.moved or f"{held.name}_output",
        source=name, fraction_bits=held.dtype.fraction_bits,
    )  # fmt: skip
    return made_value.tensor.name


def _order(order: np.ndarray | None) -> np.ndarray:
    return np.zeros(0) if order is None else order


def _needed(lowering: Lowering, outputs: list[str]) -> tuple[Any, ...]:
    used = set(outputs)
    kept = []
    for node in reversed(lowering.nodes.values()):
        if node.output.name in used:
            used |= set(node.inputs)
            kept.append(node)
    return tuple(kept[::-1])


OPERATORS: Mapping[str, Operator] = {
    **dict.fromkeys(("Quant", "IntQuant", "BipolarQuant"), quantizers.quant),
    "Conv": weighted.conv,
    "Gemm": weighted.gemm,
    "MatMul": weighted.matmul,
    **dict.fromkeys(("Add", "Sub"), pointwise.add),
    **dict.fromkeys(("Mul", "Div"), pointwise.multiply),
    "Neg": pointwise.negate,
    "BatchNormalization": pointwise.batchnorm,
    **dict.fromkeys(("Relu", "Clip"), pointwise.clip),
    **dict.fromkeys(("LeakyRelu", "PRelu"), pointwise.leaky),
    **dict.fromkeys(("MaxPool", "AveragePool"), pools.pool),
    **dict.fromkeys(("GlobalAveragePool", "GlobalMaxPool", "ReduceMean", "ReduceMax"), pools.global_pool),
    "Trunc": quantizers.trunc,
    "Softmax": heads.softmax,
    **dict.fromkeys(("ArgMax", "TopK"), heads.argmax),
    "Concat": joins.concat,
    **dict.fromkeys(("Identity", "Dropout", "Cast"), layouts.identity),
    "Transpose": layouts.transpose,
    **dict.fromkeys(("Reshape", "Squeeze", "Unsqueeze"), layouts.folded),
    "Flatten": layouts.flatten,
    **dict.fromkeys(("Resize", "Upsample"), layouts.upsample),
    **dict.fromkeys(
        ("Sigmoid", "Tanh", "HardSigmoid", "HardSwish", "Selu", "Elu", "Celu", "Softplus", "Softsign", "Erf", "Gelu",
         "Mish", "Exp", "Log", "Sqrt", "Abs", "ThresholdedRelu", "Sin", "Cos", "Atan", "Pow", "Reciprocal"),
        tables.function,
    ),
}  # fmt: skip

__all__ = ["lower", "lower_with_shapes", "read"]
