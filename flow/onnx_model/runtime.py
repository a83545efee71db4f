"""onnxruntime, and the nodes that are made for it: the one place for both."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

FLOAT = 1
"""ONNX's number of float32 (``TensorProto.FLOAT``)."""


def node(operator: str, inputs: Sequence[str], outputs: Sequence[str], **options: Any) -> Any:
    """Return an ONNX node; ``options``: its attributes, and ``name``, ``doc_string``, ``domain``."""
    from onnx import helper

    return helper.make_node(operator, inputs, outputs, **options)


def runtime(model: Any, *, optimized: bool) -> Any:
    """Return an onnxruntime session of a file: on one thread, and silent."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    if not optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def run_operator(
    operator: str, attributes: Mapping[str, Any], opset: int, inputs: Sequence[np.ndarray]
) -> np.ndarray:
    """Return what a standard operator gives for float32 arrays; onnxruntime's own errors come through."""
    from onnx import helper

    names = [f"x{index}" for index in range(len(inputs))]
    graph = helper.make_graph(
        [node(operator, names, ["y"], **attributes)],
        "one",
        [helper.make_tensor_value_info(name, FLOAT, x.shape) for name, x in zip(names, inputs, strict=True)],
        [helper.make_tensor_value_info("y", FLOAT, None)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    with quiet():
        session = runtime(model, optimized=True)
        return np.asarray(session.run(None, dict(zip(names, inputs, strict=True)))[0])


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
