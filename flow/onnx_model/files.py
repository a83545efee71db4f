"""ONNX files as checked protobufs: sizes before data, data only from the model's own folder, nothing executed."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from flow.errors import ConfigError, UnsupportedError

IR_VERSIONS = (3, 13)
OPSETS = (6, 26)
MAX_BYTES = (1 << 31) - 1
"""What protobuf, and so the file with its weights inside, can hold."""
MAX_DIMENSIONS = 64
"""Of numpy's arrays."""
STANDARD = ("", "ai.onnx")
QUANTIZED = ("Quant", "BipolarQuant", "Trunc", "IntQuant", "FloatQuant")
QUANTIZED_DOMAINS = ("onnx.brevitas", "finn.custom_op.general", "qonnx.custom_op.general")
_TENSOR, _GRAPH, _GRAPHS, _SPARSE = 4, 5, 10, (11, 12)
"""Kinds of attributes (onnx.proto, AttributeProto.AttributeType)."""
_CUSTOM = {"narrow": 2, "signed": 2, "rounding_mode": 3}
"""Kinds of the attributes of Quant: integers and a text."""
_FIELDS = {
    **dict.fromkeys(("float32",), "float_data"),
    **dict.fromkeys(("float64",), "double_data"),
    **dict.fromkeys(("int64",), "int64_data"),
    **dict.fromkeys(("uint32", "uint64"), "uint64_data"),
}
"""Where a tensor without raw data keeps its numbers, by type; all others: ``int32_data``."""


def load(path: Path) -> Any:
    """Return a checked ``ModelProto`` whose weights are all inside; nothing in the file is executed.

    Raises:
        ConfigError: the file is missing, broken or hostile, or its versions are unknown.
        UnsupportedError: it holds functions, subgraphs or sparse tensors.
    """
    from google.protobuf.message import DecodeError
    from onnx import ModelProto

    if not path.is_file():
        raise ConfigError(f"onnx: {str(path)!r} must be an existing file, not missing; correct the path")
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise ConfigError(
            f"onnx: {path.name!r} must hold at most {MAX_BYTES} bytes, not {size}; export it anew"
        )
    model = ModelProto()
    try:
        model.ParseFromString(path.read_bytes())
        _check_texts(model, path.name)
        _check_versions(model, path.name)
        _check_graph(model, path.name)
        _check_total(model)
        for name, tensor in tensors_of(model):
            _check_tensor(name, tensor, path)
        _check_names(model)
    except (DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"onnx: {path.name!r} must be a whole ONNX file, not broken ({type(error).__name__}); export it anew"
        ) from error
    return model


def is_quantized(path: Path) -> bool:
    """Tell whether a file is QONNX: whether a node of it is a quantizer."""
    return any(node.op_type in QUANTIZED for node in load(path).graph.node)


def digest(path: Path) -> str:
    """Return a hash of all that a file holds, weights in other files included."""
    return hashlib.sha256(load(path).SerializeToString(deterministic=True)).hexdigest()


def opset_of(model: Any) -> int:
    """Return the version of the standard operators that the file uses."""
    return int(next(entry.version for entry in model.opset_import if entry.domain in STANDARD))


def label(node: Any, index: int) -> str:
    """Return how errors name a node: by its name, or by its place where it has none."""
    return f"node {node.name!r} ({node.op_type})" if node.name else f"node {index} ({node.op_type})"


def tensors_of(model: Any) -> Iterator[tuple[str, Any]]:
    """Yield every tensor in the file with how errors name it."""
    for tensor in model.graph.initializer:
        yield f"tensor {tensor.name!r}", tensor
    for index, node in enumerate(model.graph.node):
        for entry in node.attribute:
            if entry.type == _TENSOR or entry.HasField("t"):
                yield f"{entry.name!r} of {label(node, index)}", entry.t
            for tensor in entry.tensors:
                yield f"{entry.name!r} of {label(node, index)}", tensor


def array_of(tensor: Any) -> np.ndarray:
    """Return a tensor that `load` has checked as an array."""
    from onnx import numpy_helper

    return np.asarray(numpy_helper.to_array(tensor))


def free_inputs(model: Any) -> list[Any]:
    """Return the inputs that are no weights; old files list those too."""
    weights = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in weights]


def _check_versions(model: Any, name: str) -> None:
    low, high = IR_VERSIONS
    if not low <= model.ir_version <= high:
        raise ConfigError(
            f"onnx: {name!r} must have an IR version from {low} to {high}, not {model.ir_version}; export it anew"
        )
    versions = [entry.version for entry in model.opset_import if entry.domain in STANDARD]
    low, high = OPSETS
    if len(versions) != 1 or not low <= versions[0] <= high:
        found = ", ".join(map(str, versions)) or "none"
        raise ConfigError(
            f"onnx: {name!r} must name one operator set from {low} to {high}, not {found}; export it anew with opset 13"
        )
    if not model.graph.node:
        raise ConfigError(f"onnx: {name!r} must hold a network, not be empty; export it anew")
    if model.functions:
        raise UnsupportedError(
            f"onnx: {name!r} must hold plain operators, not {len(model.functions)} functions of its own; "
            "export it without functions"
        )


def _check_graph(model: Any, name: str) -> None:
    if model.graph.sparse_initializer:
        raise UnsupportedError(f"onnx: {name!r} must hold dense weights, not sparse ones; export it dense")
    for index, node in enumerate(model.graph.node):
        where = label(node, index)
        for entry in node.attribute:
            if entry.type in (_GRAPH, _GRAPHS) or entry.HasField("g") or entry.graphs:
                raise UnsupportedError(
                    f"onnx: {where} must not hold a graph of its own; export the network without branches and loops"
                )
            if entry.type in _SPARSE or entry.HasField("sparse_tensor"):
                raise UnsupportedError(f"onnx: {where} must not hold a sparse tensor; export it dense")
            _check_attribute(where, node, entry, opset_of(model))
        known = (*STANDARD, *QUANTIZED_DOMAINS, "qonnx.custom_op.channels_last")
        if node.domain not in known:
            raise UnsupportedError(
                f"onnx: {where} must be of ONNX's own operators, not of the domain {node.domain!r}; "
                "replace it in the network"
            )


def _check_attribute(where: str, node: Any, entry: Any, opset: int) -> None:
    """Check that an attribute has the type that the operator's definition gives it."""
    from onnx import AttributeProto, defs

    kinds = _CUSTOM
    if node.domain in STANDARD and defs.has(node.op_type):
        try:
            schema = defs.get_schema(node.op_type, opset, "")
        except defs.SchemaError:  # the operator is newer than the file
            return
        kinds = {name: int(attribute.type.value) for name, attribute in schema.attributes.items()}
    wanted = kinds.get(entry.name)
    if wanted is not None and entry.type != wanted:
        name = AttributeProto.AttributeType.Name(wanted)
        raise ConfigError(
            f"onnx: {where} must have {entry.name!r} of type {name}, not {entry.type}; export it anew"
        )


def _check_texts(model: Any, name: str) -> None:
    """Check that names are texts: protobuf gives other bytes as they are."""
    graph = model.graph
    found: list[Any] = [named.name for named in (*graph.input, *graph.output, *graph.initializer)]
    found += [entry.domain for entry in model.opset_import]
    for node in graph.node:
        found += [node.name, node.op_type, node.domain, *node.input, *node.output]
        found += [entry.name for entry in node.attribute]
    broken = [text for text in found if not isinstance(text, str)]
    if broken:
        raise ConfigError(f"onnx: names in {name!r} must be UTF-8 texts, not {broken[0]!r}; export it anew")


def _check_names(model: Any) -> None:
    """Check that every tensor has one source, which comes before its readers: so there are no cycles."""
    graph = model.graph
    made: dict[str, str] = {}

    def make(name: str, where: str) -> None:
        if name in made:
            raise ConfigError(
                f"onnx: tensor {name!r} must be made once, not by {made[name]} and by {where}; export it anew"
            )
        made[name] = where

    for tensor in graph.initializer:
        make(tensor.name, "the weights")
    for value in free_inputs(model):
        make(value.name, "the inputs")
    later = {name: label(n, i) for i, n in enumerate(graph.node) for name in n.output if name}
    for index, node in enumerate(graph.node):
        for name in node.input:
            if name and name not in made:
                source = f"{later[name]}, which comes later or is in a cycle" if name in later else "nothing"
                raise ConfigError(
                    f"onnx: tensor {name!r} of {label(node, index)} must be made before it is read, not by {source}; "
                    "export it anew"
                )
        for name in node.output:
            if name:
                make(name, label(node, index))
    if not free_inputs(model) or not graph.output:
        raise ConfigError("onnx: network must have an input and an output, not lack one; export it anew")
    for value in graph.output:
        if value.name not in made:
            raise ConfigError(
                f"onnx: output {value.name!r} must be made by a node, not by nothing; export it anew"
            )


def _check_total(model: Any) -> None:
    """Check what all tensors claim to take, before the first one is read."""
    total = 0
    for name, tensor in tensors_of(model):
        if any(extent < 0 for extent in tensor.dims):
            raise ConfigError(
                f"onnx: {name} must have extents from 0 on, not {list(tensor.dims)}; export it anew"
            )
        if len(tensor.dims) > MAX_DIMENSIONS:
            raise ConfigError(
                f"onnx: {name} must have at most {MAX_DIMENSIONS} dimensions, not {len(tensor.dims)}; export it anew"
            )
        size = math.prod(tensor.dims) * _dtype(name, tensor).itemsize
        total += size
        if total > MAX_BYTES:
            raise ConfigError(
                f"onnx: weights must take at most {MAX_BYTES} bytes together, but {name} of shape "
                f"{list(tensor.dims)} takes {size}; export a smaller network"
            )


def _check_tensor(name: str, tensor: Any, path: Path) -> None:
    """Check that the data are as long as the shape says, and bring data from beside the file into it."""
    dtype = _dtype(name, tensor)
    count = math.prod(tensor.dims)
    wanted = count * dtype.itemsize
    if tensor.HasField("segment"):
        raise UnsupportedError(f"onnx: {name} must be whole, not a segment; export it anew")
    if tensor.data_location == 1:
        raw = _external(name, tensor, path, wanted)
        tensor.ClearField("external_data")
        tensor.ClearField("data_location")
        tensor.raw_data = raw
    field = _FIELDS.get(dtype.name, "int32_data")
    raw_form = tensor.HasField("raw_data")
    held, needed = (len(tensor.raw_data), wanted) if raw_form else (len(getattr(tensor, field)), count)
    if held != needed:
        unit = "bytes" if raw_form else "numbers"
        raise ConfigError(
            f"onnx: {name} of shape {list(tensor.dims)} must hold {needed} {unit}, not {held}; export it anew"
        )
    values = array_of(tensor) if dtype.kind == "f" else np.zeros(0)
    if np.isnan(values).any() or (values.size > 1 and not np.isfinite(values).all()):
        raise ConfigError(
            f"onnx: {name} must hold finite numbers, not NaN or infinite ones; export a network that was trained well"
        )


def _dtype(name: str, tensor: Any) -> np.dtype[Any]:
    from onnx import helper

    try:
        dtype: np.dtype[Any] = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.data_type))
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"onnx: {name} must have a known type, not {tensor.data_type}; export it anew"
        ) from error
    if dtype.kind not in "fiub" or dtype.name.startswith(("bfloat", "float4", "float8")):
        raise UnsupportedError(
            f"onnx: {name} must hold plain numbers, not {dtype.name}; export it in float32"
        )
    return dtype


def _external(name: str, tensor: Any, path: Path, wanted: int) -> bytes:
    """Return what lies in another file of the model's folder, and in no file outside it."""
    entries: Mapping[str, str] = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    folder = path.resolve().parent
    if "\0" in location:
        raise ConfigError(f"onnx: {name} must name a file for its data, not {location!r}; export it anew")
    found = (folder / location).resolve()
    if not location or Path(location).is_absolute() or not found.is_relative_to(folder) or found == folder:
        raise ConfigError(
            f"onnx: {name} must have its data beside the model, not at {location!r}; "
            "put all files into one folder and export it anew"
        )
    if not found.is_file():
        raise ConfigError(
            f"onnx: {name} must have its data in an existing file, not {location!r}; copy it beside the model"
        )
    try:
        offset = int(entries.get("offset", 0))
        length = int(entries.get("length", wanted))
    except ValueError as error:
        raise ConfigError(
            f"onnx: {name} must give its offset and length as numbers; export it anew"
        ) from error
    size = found.stat().st_size
    if offset < 0 or length != wanted or offset + length > size or length > MAX_BYTES:
        raise ConfigError(
            f"onnx: {name} of shape {list(tensor.dims)} must have {wanted} bytes in {location!r}, "
            f"not {length} from byte {offset} of {size}; export it anew"
        )
    with found.open("rb") as file:
        file.seek(offset)
        return file.read(length)
