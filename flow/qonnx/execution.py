"""Executing QONNX over many samples."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np

from flow.errors import UnsupportedError
from flow.onnx_model.runtime import quiet, run_operator
from flow.qonnx.graph import FileNode
from flow.types import Progress, silent

BATCH = 64


def apply(node: FileNode, opset: int, *inputs: np.ndarray) -> np.ndarray:
    """Return what a standard operator gives for float32 arrays, by onnxruntime.

    Raises:
        UnsupportedError: onnxruntime does not know it in this operator set, or not with these inputs.
    """
    try:
        return run_operator(node.op_type, node.attributes, opset, inputs)
    except Exception as error:  # onnxruntime's errors have no common base
        raise UnsupportedError(
            f"qonnx: node {node.name!r} ({node.op_type}) must be executed by onnxruntime with opset {opset}, not fail "
            f"with {(str(error).splitlines() or [''])[0]}; export it anew"
        ) from error


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
