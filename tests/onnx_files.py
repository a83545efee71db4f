"""Small ONNX files for the tests, and onnxruntime as the oracle."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

MODELS = Path(os.environ.get("FLOW_SHARED", Path(__file__).parents[2] / "shared")) / "models"
EXAMPLES = MODELS / "example-models"
JETS = MODELS / "jets" / "qkeras_jettagging.onnx"
FLOAT_FILES = (
    "conv1d_small_keras",
    "conv2d_small_keras",
    "conv2d_small_mp_keras",
    "dense_big_keras",
    "three_layer_bn_keras",
    "three_layer_bn_pytorch",
    "three_layer_keras",
    "three_layer_pytorch",
    "two_layer_keras",
    "two_layer_pytorch",
)
needs_examples = pytest.mark.skipif(
    not EXAMPLES.is_dir() and os.environ.get("FLOW_REQUIRE_TOOLS") != "1",
    reason=f"the example models are not in {EXAMPLES} (FLOW_SHARED)",
)
RNG = np.random.default_rng(0)


def weights(*shape: int) -> np.ndarray:
    """Return float32 numbers of both signs."""
    return RNG.standard_normal(shape).astype(np.float32)


def node(kind: str, *inputs: str, to: str = "y", name: str = "", **options: Any) -> Any:
    """Return a node with one output, or with several that ``to`` names with spaces between."""
    return helper.make_node(kind, list(inputs), to.split(), name=name, **options)


def model(
    nodes: Sequence[Any],
    shape: Sequence[int | str | None],
    constants: Mapping[str, np.ndarray] | None = None,
    *,
    opset: int = 13,
    outputs: Sequence[str] = ("y",),
    inputs: Mapping[str, Sequence[int | str | None]] | None = None,
) -> Any:
    """Return a model with the input ``x`` of ``shape``, batch first, or with several inputs."""
    given = inputs if inputs is not None else {"x": shape}
    graph = helper.make_graph(
        list(nodes),
        "test",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, list(s)) for n, s in given.items()],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in outputs],
        [numpy_helper.from_array(np.asarray(v), n) for n, v in (constants or {}).items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    made.ir_version = 8
    return made


def save(made: Any, folder: Path, name: str = "model.onnx") -> Path:
    """Write a model."""
    path = folder / name
    path.write_bytes(made.SerializeToString())
    return path


def execute(path: Path, *inputs: np.ndarray) -> list[np.ndarray]:
    """Run a file in onnxruntime."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        onnx.load(str(path)).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    feed = {value.name: array for value, array in zip(session.get_inputs(), inputs, strict=True)}
    return [np.asarray(value) for value in session.run(None, feed)]
