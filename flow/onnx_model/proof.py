"""The file beside the network: every tensor that both compute, on random inputs.

A tensor of the file may be `TOLERANCE` of its largest value from what the network gives in float64, or `ALLOWANCE`
times as far as the network in float32 is. Both sum float32 products in orders of their own: a few layers leave some
10^-7, deep networks that amplify rounding leave 10^-5 on either side, and nothing computed in float32 comes closer.
Every tensor is compared, so that a wrong weight, padding or axis shows at its own node, where rounding is small;
beyond `LIMIT` nothing is allowed for.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from flow.errors import ConfigError, MismatchError, first_line
from flow.onnx_model.files import opset_of
from flow.onnx_model.layouts import Tensor, moved
from flow.onnx_model.runtime import runtime

if TYPE_CHECKING:
    from torch import fx

TOLERANCE = 1e-6
ALLOWANCE = 8.0
LIMIT = 1e-3
SCALES = (0.3, 1.0, 3.0, 0.03)
"""Standard deviation of the random inputs, one a sample: small ones keep a softmax from saturating."""
EXACT_BATCH = 64
"""Files with a fixed batch up to this size are executed with it; in larger ones the batch is made free."""
OLDEST = 7
"""The oldest operators that onnxruntime executes."""


@dataclass(frozen=True)
class Reading:
    """A file and the network that was read from it.

    Attributes:
        model: the file.
        graph: the network.
        inputs: by the file's names.
        tensors: what stands for the file's tensors, by name.
        batch: the file's batch, None where it is free.
        transposed_norms: places of BatchNormalization nodes that read (features, samples), which no runtime executes.
    """

    model: Any
    graph: fx.GraphModule
    inputs: Mapping[str, Tensor]
    tensors: Mapping[str, Tensor]
    batch: int | None
    transposed_norms: tuple[int, ...] = ()


def prove(reading: Reading, name: str) -> None:
    """Execute both and compare.

    Raises:
        ConfigError: onnxruntime does not execute the file.
        MismatchError: a tensor differs; it names the first.
    """
    rng = np.random.default_rng(0)
    size = reading.batch if reading.batch is not None and reading.batch <= EXACT_BATCH else len(SCALES)
    samples = -(-len(SCALES) // size) * size
    scales = np.resize(np.array(SCALES), samples)
    inputs = {}
    for key, tensor in reading.inputs.items():
        values = rng.standard_normal((samples, *tensor.shape))
        inputs[key] = (values * scales.reshape(-1, *[1] * len(tensor.shape))).astype(np.float32)
    exact, single = (values_of(reading.graph, list(inputs.values()), double=d) for d in (True, False))
    for key, got in _file(reading, inputs, size, name).items():
        tensor = reading.tensors[key]
        both = [moved(values[tensor.node.name], tensor) for values in (exact, single)]
        error, allowed = difference(got, *both)
        if not error <= allowed:
            raise MismatchError(
                f"onnx: the network must compute what {name!r} does, but tensor {key!r} differs by {error:.3g} of its "
                f"largest value on random inputs, and {allowed:.3g} is rounding; report the file"
            )


def difference(found: np.ndarray, exact: np.ndarray, single: np.ndarray) -> tuple[float, float]:
    """Return how far ``found`` is from ``exact``, relative to the largest value, and how far it may be.

    Args:
        found: a tensor that onnxruntime computed.
        exact, single: the same tensor that torch computed in float64 and in float32.
    """
    if found.shape != exact.shape:
        return float("inf"), 0.0
    largest = float(np.abs(exact).max(initial=0.0)) or 1.0
    error, own = (float(np.abs(values - exact).max(initial=0.0)) / largest for values in (found, single))
    return error, min(LIMIT, max(TOLERANCE, ALLOWANCE * own))


def values_of(graph: fx.GraphModule, inputs: list[np.ndarray], *, double: bool) -> dict[str, np.ndarray]:
    """Return every tensor of a network by its node's name, computed in float64 or in float32."""
    import torch
    from torch import fx

    kind = torch.float64 if double else torch.float32
    # a copy of thousands of nodes takes as long as running them
    same = all(value.dtype == kind for value in graph.state_dict().values() if value.is_floating_point())
    executed = graph if same else copy.deepcopy(graph).to(kind)
    seen: dict[str, np.ndarray] = {}

    class Watch(fx.Interpreter):  # type: ignore[misc]
        def run_node(self, n: fx.Node) -> Any:
            value = super().run_node(n)
            if n.op != "output":
                seen[n.name] = value.numpy().copy()  # what follows may change it in place
            return value

    with torch.no_grad():
        Watch(executed).run(*(torch.from_numpy(value).to(kind) for value in inputs))
    return seen


def _file(reading: Reading, inputs: Mapping[str, np.ndarray], size: int, name: str) -> dict[str, np.ndarray]:
    """Return the file's tensors, executed as it says, without optimizations."""
    model = _executable(reading)
    outputs = [value.name for value in model.graph.output]
    parts = []
    try:
        session = runtime(model, optimized=False)
        for first in range(0, len(next(iter(inputs.values()))), size):
            feed = {
                key: np.ascontiguousarray(moved(value[first : first + size], reading.inputs[key]))
                for key, value in inputs.items()
            }
            parts.append(session.run(outputs, feed))
    except Exception as error:
        raise ConfigError(
            f"onnx: {name!r} must be executed by onnxruntime, not refused: {first_line(error)}; export it anew"
        ) from error
    sides = {key: reading.tensors[key].axes.index(0) for key in outputs}
    return {
        key: np.concatenate([part[place] for part in parts], sides[key]) for place, key in enumerate(outputs)
    }


def _executable(reading: Reading) -> Any:
    """Return the file with a free batch where its own is large, and every tensor that is compared as an output."""
    from onnx import ModelProto, ValueInfoProto

    source = reading.model
    model = ModelProto(ir_version=source.ir_version, opset_import=source.opset_import)
    model.graph.name = "network"  # texts that nobody reads stay out: they need not even be texts
    for field in ("initializer", "input", "output"):
        getattr(model.graph, field).extend(getattr(source.graph, field))
    nodes = []
    for index, node in enumerate(copy.deepcopy(source.graph.node)):
        node.ClearField("doc_string")
        if index in reading.transposed_norms:
            nodes += _untransposed(node, index)
        else:
            nodes.append(node)
    model.graph.node.extend(nodes)
    if opset_of(model) < OLDEST:
        model = _converted(model)
    if opset_of(reading.model) < OLDEST or (reading.batch is not None and reading.batch > EXACT_BATCH):
        for value in model.graph.input:
            if value.name in reading.inputs:
                value.type.tensor_type.shape.dim[0].dim_param = "batch"
    given = {value.name for value in model.graph.output}
    made = {name for node in model.graph.node for name in node.output}
    names = [name for name in reading.tensors if name in made]
    kept = [value for value in model.graph.output if value.name in names]
    fresh = [ValueInfoProto(name=name) for name in names if name not in given]
    del model.graph.output[:]
    model.graph.output.extend([*kept, *fresh])
    for value in model.graph.output:
        value.type.Clear()
    return model


def _converted(model: Any) -> Any:
    """Return a file of old operators with those of opset 9; the converter wants numbers as extents."""
    from onnx import version_converter

    for value in [*model.graph.input, *model.graph.output]:
        for dim in value.type.tensor_type.shape.dim:
            if not dim.dim_value:
                dim.dim_value = 1
    try:
        return version_converter.convert_version(model, 9)
    except Exception as error:
        raise ConfigError(
            f"onnx: operators of opset {opset_of(model)} must convert to opset 9, not fail: "
            f"{first_line(error)}; export it anew with opset 13"
        ) from error


def _untransposed(node: Any, index: int) -> list[Any]:
    """Return a BatchNormalization of (features, samples) between two transposes: what its shapes can only mean."""
    from onnx import helper

    before, after = f"flow_before_{index}", f"flow_after_{index}"
    source, result = node.input[0], node.output[0]
    changed = copy.deepcopy(node)
    changed.input[0], changed.output[0] = before, after
    return [
        helper.make_node("Transpose", [source], [before], perm=[1, 0]),
        changed,
        helper.make_node("Transpose", [after], [result], perm=[1, 0]),
    ]
