"""QONNX files: cleaning, executing over many samples, channels last. The only home of onnx and qonnx."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from flow.errors import ConfigError, MismatchError, UnsupportedError
from flow.names import identifier
from flow.types import Coded, FixedPoint, Progress, silent

CHANNELS_LAST = "qonnx.custom_op.channels_last"
BATCH = 64
_KINDS = {
    "QuantConv2d": "Conv",
    "QuantLinear": "Gemm",
    "QuantReLU": "Relu",
    "MaxPool2d": "MaxPool",
    "Flatten": "Flatten",
    "add": "Add",
}


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
        model = ModelWrapper(str(path))
    except DecodeError as error:
        raise ConfigError(
            f"qonnx: {str(path)!r} must be an ONNX file, not broken: {error}; export it anew"
        ) from error
    if not model.graph.node:
        raise ConfigError(f"qonnx: {str(path)!r} must hold a network, not be empty; export it anew")
    return model


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
    del model.graph.output[1:]  # scale, zero point and width of the last tensor: constants
    _mark(model, [(_KINDS[kind], name) for kind, name in names if kind in _KINDS])
    with quiet():
        model = cleanup_model(model)
    _name_nodes(model)
    model.save(str(target))


def clean_named(source: Path, target: Path) -> None:
    """Fold constants, infer shapes, and keep the names that a file's nodes have, made fit for C++.

    Args:
        source: a file of somebody's own.
        target: where the cleaned file goes.
    """
    from qonnx.util.cleanup import cleanup_model

    model = load(source)
    taken = {model.graph.input[0].name.lower()}
    for node in compute_nodes(model):
        first = name = identifier(node.name or node.op_type)
        count = 0
        while name.lower() in taken:
            count += 1
            name = f"{first}_{count}"
        taken.add(name.lower())
        node.doc_string = name
    with quiet():
        model = cleanup_model(model)
    _name_nodes(model)
    model.save(str(target))


def execute(model: Any, inputs: np.ndarray, *, progress: Progress = silent, context: bool = False) -> Any:
    """Run a QONNX graph over many samples with qonnx's executor.

    Args:
        model: a ``ModelWrapper`` with batch size 1 and one input.
        inputs: float32 (samples, ...), in the layout of the graph's input.
        progress: called after every batch.
        context: return every tensor of the graph, not only the output.

    Returns:
        float32 (samples, ...), or a dict of them by tensor name.
    """
    from qonnx.core.onnx_exec import execute_onnx

    name, output = model.graph.input[0].name, model.graph.output[0].name
    parts: list[Mapping[str, np.ndarray]] = []
    sized: dict[int, Any] = {}
    with quiet():
        for first in range(0, len(inputs), BATCH):
            batch = np.ascontiguousarray(inputs[first : first + BATCH], dtype=np.float32)
            if len(batch) not in sized:
                sized[len(batch)] = _with_batch(model, len(batch))
            got = execute_onnx(sized[len(batch)], {name: batch}, return_full_exec_context=context)
            parts.append(got)
            progress(min(first + BATCH, len(inputs)), len(inputs), "executing QONNX")
    if not context:
        return np.concatenate([part[output] for part in parts])
    return {key: np.concatenate([part[key] for part in parts]) for key in activations(model)}


def activations(model: Any) -> list[str]:
    """Return the names of the tensors that depend on the input, in order of execution."""
    names = {model.graph.input[0].name: None}
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


def to_channels_last(model: Any) -> Any:
    """Return an equal graph whose 4-D tensors are NHWC, as hls4ml reads it.

    Every 4-D activation is re-labelled at once, so no transpose is needed: convs and pools move to qonnx's
    channels-last domain with their weights as (O, H, W, I), and the weights of the dense layer behind a
    flatten are permuted. The input becomes NHWC too. Everything else works on any layout.

    Raises:
        UnsupportedError: a flatten that is not followed by one dense layer.
        MismatchError: the new graph does not compute the same on random inputs.
    """
    from onnx.helper import make_opsetid
    from qonnx.util.cleanup import cleanup_model

    changed = copy.deepcopy(model)
    for node in compute_nodes(changed):
        node.doc_string = node.name
        if node.op_type in ("Conv", "MaxPool"):
            node.domain = CHANNELS_LAST
            if node.op_type == "Conv":
                _permute_weights(changed, node, lambda w: w.transpose(0, 2, 3, 1))
        elif node.op_type == "Flatten":
            _permute_dense(changed, node)
    for node in compute_nodes(changed):
        if node.op_type == "Gemm":
            _split_gemm(changed, node)
    opset = next(entry.version for entry in changed.model.opset_import if entry.domain in ("", "ai.onnx"))
    changed.model.opset_import.append(make_opsetid(CHANNELS_LAST, opset))
    for name in activations(model):
        shape = model.get_tensor_shape(name)
        if len(shape) == 4:
            changed.set_tensor_shape(name, [shape[0], shape[2], shape[3], shape[1]])
    with quiet():
        changed = cleanup_model(changed)
    _name_nodes(changed)
    _check_equal(model, changed)
    return changed


def compute_nodes(model: Any) -> list[Any]:
    """Return the nodes that are not quantizers, in the graph's order."""
    return [node for node in model.graph.node if node.op_type != "Quant"]


def weights(model: Any) -> dict[tuple[str, str], Coded]:
    """Return the integers of every Conv and Gemm node, by (node name, ``weight`` or ``bias``), in the graph's order.

    Raises:
        UnsupportedError: the quantizer's scale is not one power of two, or its zero point is not 0.
    """
    return {
        (node.name, kind): _integers(model, f"{node.name}.{kind}", source)
        for node in compute_nodes(model)
        if node.op_type in ("Conv", "Gemm")
        for kind, source in zip(("weight", "bias"), node.input[1:], strict=True)
    }


def _integers(model: Any, name: str, source: str) -> Coded:
    """Return what a quantizer of constants gives, in steps of its scale."""
    from qonnx.custom_op.general.quant import quant
    from qonnx.util.basic import get_by_name

    node = model.find_producer(source)
    values, scale, zero, bits = (model.get_initializer(i) for i in node.input)
    signed, narrow, rounding = (
        get_by_name(node.attribute, key) for key in ("signed", "narrow", "rounding_mode")
    )
    mantissa, exponent = np.frexp(scale.astype(np.float64))
    if scale.size != 1 or mantissa.item() != 0.5 or zero.any():
        raise UnsupportedError(
            f"qonnx: scale of {name!r} must be one power of two without a zero point, not {scale.tolist()} and "
            f"{zero.tolist()}; quantize with flow.quantize"
        )
    fraction, width = 1 - exponent.item(), int(bits.item())
    dtype = FixedPoint(bool(signed.i), width - fraction, fraction)
    real = quant(values, scale, zero, bits, signed.i, narrow.i, rounding.s.decode())
    lsb = np.ldexp(real.astype(np.float64), fraction)
    if width > 32 or not np.array_equal(np.clip(np.rint(lsb), dtype.minimum_lsb, dtype.maximum_lsb), lsb):
        raise UnsupportedError(
            f"qonnx: numbers of {name!r} must be integers of at most 32 bits, not lie between or beyond; "
            "lower the widths"
        )
    return Coded(lsb.astype(np.int32), dtype)


def _mark(model: Any, wanted: Sequence[tuple[str, str]]) -> None:
    """Note the layers' names in the nodes' doc strings, which survive sorting and renaming.

    Args:
        model: a graph in the order of execution, which the clean-up changes where there are branches.
        wanted: (operator, name) in this order.
    """
    nodes = [node for node in model.graph.node if node.op_type in _KINDS.values()]
    _check_kinds([node.op_type for node in nodes], [kind for kind, _ in wanted])
    for node, (_, name) in zip(nodes, wanted, strict=True):
        node.doc_string = name


def _check_kinds(found: list[str], wanted: list[str]) -> None:
    if found != wanted:
        raise UnsupportedError(
            f"qonnx: graph must hold the nodes {', '.join(wanted)}, not {', '.join(found)}; report the network"
        )


def _name_nodes(model: Any) -> None:
    """Name the nodes after what `_mark` noted; hls4ml does not tell upper from lower case."""
    nodes = compute_nodes(model)
    _check_kinds([node.op_type for node in nodes], [node.op_type for node in nodes if node.doc_string])
    taken = {model.graph.input[0].name.lower(): model.graph.input[0].name}
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


def _permute_weights(model: Any, node: Any, permute: Any) -> None:
    quantizer = model.find_producer(node.input[1])
    weight = np.ascontiguousarray(permute(model.get_initializer(quantizer.input[0])))
    model.set_initializer(quantizer.input[0], weight)
    model.set_tensor_shape(node.input[1], list(weight.shape))


def _permute_dense(model: Any, node: Any) -> None:
    shape = model.get_tensor_shape(node.input[0])
    if len(shape) != 4:
        return
    readers = model.find_consumers(node.output[0])
    if len(readers) != 1 or readers[0].op_type != "Gemm":
        raise UnsupportedError(
            f"convert: flatten {node.name!r} must be followed by one dense layer, not "
            f"{', '.join(r.op_type for r in readers) or 'nothing'}; change the network"
        )
    channels, height, width = shape[1:]

    def permute(weight: np.ndarray) -> np.ndarray:
        cube = weight.reshape(len(weight), channels, height, width)
        return cube.transpose(0, 2, 3, 1).reshape(len(weight), -1)

    _permute_weights(model, readers[0], permute)


def _split_gemm(model: Any, node: Any) -> None:
    """Put a MatMul and an Add, which hls4ml reads, in the place of a Gemm."""
    from onnx.helper import make_node

    source, weight, bias = node.input
    _permute_weights(model, node, lambda w: w.transpose())
    middle = model.make_new_valueinfo_name()
    model.set_tensor_shape(middle, model.get_tensor_shape(node.output[0]))
    place = list(model.graph.node).index(node)
    model.graph.node.insert(place, make_node("MatMul", [source, weight], [middle], doc_string=node.name))
    add = make_node("Add", [middle, bias], [node.output[0]], doc_string=f"{node.name}.bias")
    model.graph.node.insert(place + 1, add)
    model.graph.node.remove(node)


def _check_equal(before: Any, after: Any) -> None:
    name = before.graph.input[0].name
    scale, _, bits = (before.get_initializer(i) for i in before.find_consumers(name)[0].input[1:])
    span = float(scale.item()) * 2 ** float(bits.item())  # twice the range: some saturate
    shape = (8, *before.get_tensor_shape(name)[1:])
    x = np.random.default_rng(0).uniform(-span, span, shape).astype(np.float32)
    want = execute(before, x)
    got = execute(after, np.moveaxis(x, 1, -1) if x.ndim == 4 else x)
    if want.shape != got.shape or not np.array_equal(want, got):
        raise MismatchError(
            "convert: the channels-last graph must equal the exported one on random inputs, not differ; "
            "report the network"
        )


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
