"""QONNX files: cleaning, executing over many samples, and as plain Python."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from flow.errors import ConfigError, UnsupportedError
from flow.names import identifier
from flow.onnx_model.constants import attributes_of
from flow.onnx_model.files import QUANTIZED, QUANTIZED_DOMAINS, STANDARD, array_of
from flow.types import Coded, FixedPoint, Progress, silent

CHANNELS_LAST = "qonnx.custom_op.channels_last"
BATCH = 64
QUANTIZERS = ("Quant", "BipolarQuant")
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


def load(path: Path) -> Any:
    """Return the QONNX file as a qonnx ``ModelWrapper``.

    Raises:
        ConfigError: the file is missing, empty, or not an ONNX file.
    """
    from google.protobuf.message import DecodeError
    from qonnx.core.modelwrapper import ModelWrapper

    if not path.is_file():
        raise ConfigError(
            f"qonnx: {str(path)!r} must be an existing file, not missing; run the stage quantize"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of domains by their old names
            model = ModelWrapper(str(path))
    except DecodeError as error:
        raise ConfigError(
            f"qonnx: {str(path)!r} must be an ONNX file, not broken: {error}; export it anew"
        ) from error
    if not model.graph.node:
        raise ConfigError(f"qonnx: {str(path)!r} must hold a network, not be empty; export it anew")
    return model


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


def apply(node: FileNode, opset: int, *inputs: np.ndarray) -> np.ndarray:
    """Return what a standard operator gives for float32 arrays, by onnxruntime.

    Raises:
        UnsupportedError: onnxruntime does not know it in this operator set, or not with these inputs.
    """
    from onnx import TensorProto, helper
    from onnxruntime import InferenceSession

    names = [f"x{index}" for index in range(len(inputs))]
    made = helper.make_node(node.op_type, names, ["y"], **node.attributes)
    shapes = zip(names, inputs, strict=True)
    graph = helper.make_graph(
        [made],
        "one",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, x.shape) for name, x in shapes],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    try:
        with quiet():
            session = InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
            return np.asarray(session.run(None, dict(zip(names, inputs, strict=True)))[0])
    except Exception as error:  # onnxruntime's errors have no common base
        raise UnsupportedError(
            f"qonnx: node {node.name!r} ({node.op_type}) must be executed by onnxruntime with opset {opset}, not fail "
            f"with {(str(error).splitlines() or [''])[0]}; export it anew"
        ) from error


def clean(source: Path, target: Path, names: Sequence[tuple[str, str]]) -> None:
    """Fold constants, infer shapes, and name the nodes of an exported file after the torch modules.

    Args:
        source: the exported file.
        target: where the cleaned file goes.
        names: (kind, name) of the modules in the order of execution; kinds without an ONNX node of their own
            (quantizers) are passed over.
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
    """
    from onnx import TensorProto
    from onnx.helper import make_opsetid
    from qonnx.transformation.general import RemoveStaticGraphInputs
    from qonnx.transformation.infer_shapes import InferShapes

    model = load(source).transform(RemoveStaticGraphInputs())  # old files list weights, too
    _remove_unread(model.graph)
    taken = {value.name.lower() for value in model.graph.input}
    for node in model.graph.node:
        if node.op_type in QUANTIZED and node.domain in QUANTIZED_DOMAINS:
            node.domain = QUANTIZED_DOMAINS[-1]  # the one that qonnx executes
        node.name = _unused(identifier(node.name or node.op_type), taken)
        taken.add(node.name.lower())
    stated = {entry.domain: entry.version for entry in model.model.opset_import}
    if CHANNELS_LAST not in stated:  # qonnx would take version 1, which lacks options
        model.model.opset_import.append(make_opsetid(CHANNELS_LAST, stated.get("", 1)))
    fixed = {tensor.name for tensor in model.graph.initializer}
    for name, shape in (shapes or {}).items():
        if name not in fixed:
            known = model.get_tensor_valueinfo(name)
            kind = known.type.tensor_type.elem_type if known is not None else TensorProto.FLOAT
            model.set_tensor_shape(name, list(shape), kind)
    if not model.check_all_tensor_shapes_specified():
        with quiet():
            model = model.transform(InferShapes())
    model.save(str(target))


def _remove_unread(graph: Any) -> None:
    """Remove nodes that no output depends on, in place."""
    used = {value.name for value in graph.output}
    for node in list(graph.node)[::-1]:
        if used & set(node.output):
            used |= set(node.input)
        else:
            graph.node.remove(node)


def _unused(name: str, taken: Container[str]) -> str:
    """Return a name that is not taken, in either case: this one, or with a number behind it."""
    found = name
    count = 0
    while found.lower() in taken:
        count += 1
        found = f"{name}_{count}"
    return found


def execute(model: Any, inputs: Any, *, progress: Progress = silent, context: bool = False) -> Any:
    """Run a QONNX graph over many samples with qonnx's executor.

    Args:
        model: a ``ModelWrapper`` with batch size 1.
        inputs: float32 (samples, ...), in the layout of the graph's input; a tuple of them for several inputs.
        progress: called after every batch.
        context: return every tensor of the graph, not only the output.

    Returns:
        float32 (samples, ...), a tuple of them for several outputs, or a dict of them by tensor name.
    """
    from qonnx.core.onnx_exec import execute_onnx

    given = inputs if isinstance(inputs, tuple) else (inputs,)
    outputs = [value.name for value in model.graph.output]
    count = len(given[0])
    parts: list[Mapping[str, np.ndarray]] = []
    sized: dict[int, Any] = {}
    with quiet():
        for first in range(0, count, BATCH):
            size = min(BATCH, count - first)
            if size not in sized:
                sized[size] = _with_batch(model, size)
            batch = {
                value.name: np.ascontiguousarray(array[first : first + size], dtype=np.float32)
                for value, array in zip(model.graph.input, given, strict=True)
            }
            parts.append(execute_onnx(sized[size], batch, return_full_exec_context=context))
            progress(first + size, count, "executing QONNX")
    wanted = activations(model) if context else outputs
    made = {key: np.concatenate([part[key] for part in parts]) for key in wanted}
    if context:
        return made
    return made[outputs[0]] if len(outputs) == 1 else tuple(made[name] for name in outputs)


def without_softmax(model: Any) -> Any:
    """Return a graph that ends before the softmax that gives its output, if there is one."""
    model = copy.deepcopy(model)
    for output in model.graph.output:
        node = model.find_producer(output.name)
        if node.op_type == "Softmax":
            for known in [v for v in model.graph.value_info if v.name == node.input[0]]:
                model.graph.value_info.remove(known)  # an output is listed once
            output.name = node.input[0]
            model.graph.node.remove(node)
    return model


def activations(model: Any) -> list[str]:
    """Return the names of the tensors that depend on the input, in order of execution."""
    names = dict.fromkeys(value.name for value in model.graph.input)
    for node in model.graph.node:
        if any(source in names for source in node.input):
            names.update(dict.fromkeys(node.output))
    return list(names)


def _with_batch(model: Any, size: int) -> Any:
    """Return a copy whose activations have batch size ``size``."""
    model = copy.deepcopy(model)
    depend = set(activations(model))
    for value in [*model.graph.input, *model.graph.output, *model.graph.value_info]:
        if value.name in depend:
            value.type.tensor_type.shape.dim[0].dim_value = size
    return model


def compute_nodes(model: Any) -> list[Any]:
    """Return the nodes that are not quantizers, in the graph's order."""
    return [node for node in model.graph.node if node.op_type not in QUANTIZERS]


def weights(model: Any) -> dict[tuple[str, str], Coded]:
    """Return the integers of every Conv and Gemm node, by (node name, ``weight`` or ``bias``), in the graph's order.

    Raises:
        UnsupportedError: a number has no quantizer, a scale is no power of two, or a zero point is not 0.
    """
    return {
        (node.name, kind): _integers(model, f"{node.name}.{kind}", source)
        for node in compute_nodes(model)
        if node.op_type in ("Conv", "Gemm", "MatMul")
        for kind, source in zip(("weight", "bias"), node.input[1:], strict=False)
        if source
    }


def _integers(model: Any, name: str, source: str) -> Coded:
    """Return what a quantizer of constants gives, in steps of its (smallest) scale."""
    node = model.find_producer(source)
    if node is None or node.op_type not in ("Quant", "BipolarQuant"):
        raise UnsupportedError(
            f"qonnx: numbers of {name!r} must come from a quantizer, not from none; quantize with flow.quantize"
        )
    real, scale, zero, width = _quantized(model, node)
    mantissa, exponent = np.frexp(scale.astype(np.float64))
    if (mantissa != 0.5).any() or zero.any():
        raise UnsupportedError(
            f"qonnx: scales of {name!r} must be powers of two without a zero point, not {scale.tolist()} and "
            f"{zero.tolist()}; quantize with flow.quantize"
        )
    fraction = 1 - int(exponent.min())
    lsb = np.ldexp(real.astype(np.float64), fraction)
    width += int(exponent.max() - exponent.min())
    signed = bool((lsb < 0).any()) or node.op_type == "BipolarQuant" or _signed(node)
    dtype = FixedPoint(signed, width - fraction, fraction)
    if width > 32 or not np.array_equal(np.clip(np.rint(lsb), dtype.minimum_lsb, dtype.maximum_lsb), lsb):
        raise UnsupportedError(
            f"qonnx: numbers of {name!r} must be integers of at most 32 bits, not lie between or beyond; "
            "lower the widths"
        )
    return Coded(lsb.astype(np.int32), dtype)


def _signed(node: Any) -> bool:
    return any(entry.name == "signed" and entry.i for entry in node.attribute)


def _quantized(model: Any, node: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Return what a quantizer of constants gives, its scale, its zero point, and its bits."""
    from qonnx.custom_op.general.quant import quant
    from qonnx.util.basic import get_by_name

    values, scale, *more = (model.get_initializer(name) for name in node.input)
    if node.op_type == "BipolarQuant":
        return np.where(values >= 0, scale, -scale), scale, np.zeros(1), 2
    signed, narrow, rounding = (
        get_by_name(node.attribute, key) for key in ("signed", "narrow", "rounding_mode")
    )
    real = quant(values, scale, *more, signed.i, narrow.i, rounding.s.decode())
    return real, scale, more[0], int(more[1].item())


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
            node.name = _unused(identifier(node.doc_string), taken)
            taken[node.name.lower()] = node.name
            node.doc_string = ""


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the libraries' warnings about old operator sets and optional kernels off the terminal."""
    import onnxruntime

    onnxruntime.set_default_logger_severity(4)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        onnxruntime.set_default_logger_severity(2)
