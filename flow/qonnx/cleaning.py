"""Cleaning QONNX files, so that nodes have the names of the network's layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flow.errors import UnsupportedError
from flow.names import Names, free_name, identifier
from flow.onnx_model.files import QUANTIZED, QUANTIZED_DOMAINS
from flow.onnx_model.runtime import FLOAT, quiet
from flow.qonnx.files import load
from flow.qonnx.graph import CHANNELS_LAST, QUANTIZERS, compute_nodes

_KINDS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("QuantConv1d", "QuantConv2d"), ("Conv",)),
    "QuantLinear": ("Gemm",),
    **dict.fromkeys(("QuantReLU", "ReLU"), ("Relu",)),
    **dict.fromkeys(("ReLU6", "Hardtanh"), ("Clip",)),
    "LeakyReLU": ("LeakyRelu",),
    "PReLU": ("PRelu",),
    "Sigmoid": ("Sigmoid",),
    "Tanh": ("Tanh",),
    "ELU": ("Elu",),
    "SELU": ("Selu",),
    "GELU": ("Gelu",),
    "Softplus": ("Softplus",),
    "SiLU": ("Sigmoid", "Mul"),
    "Mish": ("Softplus", "Tanh", "Mul"),
    "HardSigmoid": ("Add", "Clip", "Div"),
    "HardSwish": ("Add", "Clip", "Mul", "Div"),
    **dict.fromkeys(("MaxPool1d", "MaxPool2d"), ("MaxPool",)),
    **dict.fromkeys(("AvgPool1d", "AvgPool2d"), ("AveragePool",)),
    **dict.fromkeys(("AdaptiveAvgPool1d", "AdaptiveAvgPool2d"), ("GlobalAveragePool",)),
    "Upsample": ("Resize",),
    "Flatten": ("Flatten",),
    "Softmax": ("Softmax",),
    "add": ("Add",),
    "mul": ("Mul",),
    "cat": ("Concat",),
}
"""Quantized torch layers and joins: the operators that one of them becomes, in order; the last has its name."""


def clean(source: Path, target: Path, names: Sequence[tuple[str, str]]) -> None:
    """Fold constants, infer shapes, and name the nodes of an exported file after the torch modules.

    Args:
        source: the exported file.
        target: where the cleaned file goes.
        names: (kind, name) of the modules in the order of execution; kinds without an ONNX node of their own
            (quantizers) are passed over.

    Raises:
        ConfigError: the file cannot be read.
        UnsupportedError: the nodes are not those of the modules, or two modules would have one name in C++.
    """
    from qonnx.util.cleanup import cleanup_model

    model = load(source)
    _mark(model, [part for kind, name in names for part in _parts(kind, name)])
    twice = {n.doc_string: [list(n.input).index(name) for name in n.input] for n in compute_nodes(model)}
    with quiet():
        model = cleanup_model(model)
    for node in model.graph.node:  # the clean-up renames a tensor that a node reads twice in one place alone
        for place, first in enumerate(twice.get(node.doc_string, ())):
            node.input[place] = node.input[first]
    _name_nodes(model)
    model.save(str(target))


def clean_named(source: Path, target: Path, shapes: Mapping[str, Sequence[int]] | None = None) -> None:
    """Make a file fit for qonnx's executor; names stay, made fit for C++.

    Args:
        source: a file of somebody's own.
        target: where the cleaned file goes.
        shapes: of its tensors, with the batch. qonnx's own inference, which takes minutes for large images, finds
            those that neither they nor the file state.

    Raises:
        ConfigError: the file cannot be read.
    """
    from qonnx.transformation.general import RemoveStaticGraphInputs
    from qonnx.transformation.infer_shapes import InferShapes

    model = load(source).transform(RemoveStaticGraphInputs())  # old files list weights, too
    _remove_unread(model.graph)
    taken = Names(value.name for value in model.graph.input)
    for node in model.graph.node:
        if node.op_type in QUANTIZED and node.domain in QUANTIZED_DOMAINS:
            node.domain = QUANTIZED_DOMAINS[-1]  # the one that qonnx executes
        node.name = taken.take(identifier(node.name or node.op_type))
    stated = {entry.domain: entry.version for entry in model.model.opset_import}
    if CHANNELS_LAST not in stated:  # qonnx would take version 1, which lacks options
        model.model.opset_import.add(domain=CHANNELS_LAST, version=stated.get("", 1))
    _state_shapes(model.graph, shapes or {})
    if not _all_shaped(model.graph):
        with quiet():
            model = model.transform(InferShapes())
    model.save(str(target))


def _state_shapes(graph: Any, shapes: Mapping[str, Sequence[int]]) -> None:
    """State the shapes of tensors that are no constants; qonnx's own functions look through all tensors for each."""
    fixed = {tensor.name for tensor in graph.initializer}
    known = {value.name: value for value in (*graph.value_info, *graph.output, *graph.input)}
    for name, shape in shapes.items():
        if name in fixed:
            continue
        value = known.get(name) or graph.value_info.add(name=name)
        tensor = value.type.tensor_type
        tensor.elem_type = tensor.elem_type if name in known else FLOAT
        del tensor.shape.dim[:]
        for extent in shape:
            tensor.shape.dim.add(dim_value=extent)


def _all_shaped(graph: Any) -> bool:
    """Tell whether every tensor's shape is stated."""
    values = (*graph.value_info, *graph.output, *graph.input)
    shaped = {value.name for value in values if value.type.tensor_type.HasField("shape")}
    shaped |= {tensor.name for tensor in graph.initializer}
    return all(not name or name in shaped for node in graph.node for name in (*node.input, *node.output))


def _remove_unread(graph: Any) -> None:
    """Remove nodes that no output depends on, in place."""
    used = {value.name for value in graph.output}
    for place in reversed(range(len(graph.node))):
        node = graph.node[place]
        if used & set(node.output):
            used |= set(node.input)
        else:
            del graph.node[place]


def _parts(kind: str, name: str) -> list[tuple[str, str]]:
    """Return (operator, name) of the nodes that a layer becomes."""
    operators = _KINDS.get(kind, ())
    return [(operator, f"{name}_{operator.lower()}") for operator in operators[:-1]] + [
        (operator, name) for operator in operators[-1:]
    ]


def _mark(model: Any, wanted: Sequence[tuple[str, str]]) -> None:
    """Note the layers' names in the nodes' doc strings, which survive sorting and renaming.

    Args:
        model: a graph in the order of execution, which the clean-up changes where there are branches.
        wanted: (operator, name) in this order.
    """
    operators = {operator for kind in _KINDS.values() for operator in kind}
    nodes = [node for node in model.graph.node if node.op_type in operators]
    _check_kinds([node.op_type for node in nodes], [kind for kind, _ in wanted])
    for node, (_, name) in zip(nodes, wanted, strict=True):
        node.doc_string = name
    for node in model.graph.node:
        if node.op_type in QUANTIZERS:
            node.doc_string = _quantizer_name(node.name)


def _quantizer_name(scope: str) -> str:
    """Return a name from what torch's exporter calls a quantizer: ``/network/fc/weight_quant/export_handler/Quant``."""
    layer, kind = scope.split("/")[2:4]
    own = "" if layer.startswith("quant_") else "_quant"
    return layer + {"weight_quant": "_weight", "bias_quant": "_bias"}.get(kind, own)


def _check_kinds(found: list[str], wanted: list[str]) -> None:
    if found != wanted:
        raise UnsupportedError(
            f"qonnx: graph must hold the nodes {', '.join(wanted)}, not {', '.join(found)}; report the network"
        )


def _name_nodes(model: Any) -> None:
    """Name the nodes after what `_mark` noted; hls4ml does not tell upper from lower case."""
    nodes = compute_nodes(model)
    _check_kinds([node.op_type for node in nodes], [node.op_type for node in nodes if node.doc_string])
    taken = {value.name.lower(): value.name for value in model.graph.input}
    for node in nodes:
        name = identifier(node.doc_string)
        if name.lower() in taken:
            raise UnsupportedError(
                f"qonnx: layers {taken[name.lower()]!r} and {node.doc_string!r} must have different names in C++, "
                f"not both {name.lower()!r}; rename one"
            )
        taken[name.lower()] = node.doc_string
        node.name = name
        node.doc_string = ""
    for node in model.graph.node:
        if node.doc_string:  # a quantizer, called more than once where it is shared
            node.name = free_name(identifier(node.doc_string), taken)
            taken[node.name.lower()] = node.name
            node.doc_string = ""
