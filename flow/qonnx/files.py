"""Reading a QONNX file."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from flow.errors import ConfigError


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
            model = ModelWrapper(str(path), fix_missing_initializer_valueinfo=False)
    except DecodeError as error:
        raise ConfigError(
            f"qonnx: {str(path)!r} must be an ONNX file, not broken: {error}; export it anew"
        ) from error
    if not model.graph.node:
        raise ConfigError(f"qonnx: {str(path)!r} must hold a network, not be empty; export it anew")
    _state_shapes_of_weights(model.graph)
    return model


def _state_shapes_of_weights(graph: Any) -> None:
    """State the shape of every initializer as ``ModelWrapper`` does, which takes a look at all tensors for each."""
    read = {name for node in graph.node for name in node.input}
    stated = {value.name for value in (*graph.input, *graph.output, *graph.value_info)}
    for tensor in graph.initializer:
        if tensor.name in read and tensor.name not in stated:
            stated.add(tensor.name)
            shaped = graph.value_info.add(name=tensor.name).type.tensor_type
            shaped.elem_type = tensor.data_type
            shaped.shape.SetInParent()
            for extent in tensor.dims:
                shaped.shape.dim.add(dim_value=extent)


def datatype(name: str) -> Any:
    """Return qonnx's type of this name, such as ``UINT8``."""
    from qonnx.core.datatype import DataType

    return DataType[name]
