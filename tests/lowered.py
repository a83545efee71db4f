"""The integer executor beside QONNX's own, over every tensor that both have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from flow import qonnx
from flow.fixed.execute import execute
from flow.fixed.from_qonnx import lower
from flow.fixed.graph import FixedGraph, Softmax, Table, Tensor

SAMPLES = 512
NEAR = 1e-3
"""How near to a tie, in LSBs, a number must be that float32 and exact arithmetic round to different integers."""


def integers(graph: FixedGraph, samples: int = SAMPLES, seed: int = 0) -> list[np.ndarray]:
    """Return inputs: all at one end, all at the other, zeros, both ends mixed, and random ones."""
    rng = np.random.default_rng(seed)
    made = []
    for tensor in graph.inputs:
        low, high = tensor.dtype.minimum_lsb, tensor.dtype.maximum_lsb
        x = rng.integers(low, high + 1, (samples, *tensor.shape))
        third = samples // 3
        x[:third] = rng.choice([low, high, max(low, -1), 0], (third, *tensor.shape))
        for row, value in enumerate((high, low, 0)[:samples]):
            x[row] = value
        made.append(x)
    return made


def real(tensor: Tensor, lsb: np.ndarray) -> np.ndarray:
    """Return integers of the graph as the numbers of the file's tensor: float64, (samples, size) in its order."""
    values = (tensor.dtype.to_real(lsb) * np.array(tensor.scale)).reshape(len(lsb), -1)
    return values if tensor.order is None else values[:, tensor.order]


def both(
    model: Any, graph: FixedGraph, inputs: list[np.ndarray]
) -> tuple[Mapping[str, np.ndarray], Mapping[str, np.ndarray]]:
    """Return every tensor by the executor, in integers, and every tensor of the file by QONNX."""
    got = execute(graph, inputs, every=True)
    given = tuple(
        real(tensor, x).reshape(len(x), *model.get_tensor_shape(value.name)[1:]).astype(np.float32)
        for tensor, x, value in zip(graph.inputs, inputs, model.graph.input, strict=True)
    )
    return got, qonnx.execute(model, given, context=True)


def check(model: Any, *, samples: int = SAMPLES) -> tuple[FixedGraph, int]:
    """Assert that both give the same for every tensor; returns the graph, and how many numbers differ.

    Numbers on power-of-two grids are equal. Beside them float32 rounds: sums are close, and quantizers give another
    integer only where the exact number is near a tie. Heads are rounded to their type.
    """
    graph = lower(model)
    got, want = both(model, graph, integers(graph, samples))
    heads = {node.output.name for node in graph.nodes if isinstance(node, Softmax | Table)}
    differing = 0
    assert [t.source for t in graph.tensors.values() if t.source in _outputs(model)], "outputs are compared"
    for tensor in graph.tensors.values():
        if tensor.source is None:
            continue
        ours, theirs = (
            real(tensor, got[tensor.name]),
            want[tensor.source].reshape(samples, -1).astype(np.float64),
        )
        step = 2.0**-tensor.dtype.fraction_bits
        if tensor.name in heads:
            rounded = tensor.dtype.to_real(tensor.dtype.to_lsb(theirs / tensor.scale[0])) * tensor.scale[0]
            apart = np.abs(ours - rounded) / step
            assert apart.max() <= 1, f"{tensor.name}: a head within 1 LSB"
            differing += int((apart > NEAR).sum())
        elif _plain(graph, tensor):
            assert np.array_equal(ours, theirs), f"{tensor.name}: exact"
        else:
            differing += _near(graph, tensor, got, ours, theirs)
    return graph, differing


def _outputs(model: Any) -> set[str]:
    return {value.name for value in model.graph.output}


def _plain(graph: FixedGraph, tensor: Tensor) -> bool:
    """Whether this tensor and all before it lie on power-of-two grids, so that float32 is exact."""
    made = next((node for node in graph.nodes if node.output is tensor), None)
    powers = all(np.frexp(factor)[0] == 0.5 for factor in tensor.scale)
    rescale = getattr(made, "plain", True) or getattr(made, "shift", 0) == 0
    sources = made.inputs if made else ()
    return powers and rescale and all(_plain(graph, graph.tensors[name]) for name in sources)


def _near(
    graph: FixedGraph, tensor: Tensor, got: Mapping[str, np.ndarray], ours: np.ndarray, theirs: np.ndarray
) -> int:
    """Assert that numbers differ by float32's rounding alone; returns how many quantized ones do."""
    step = 2.0**-tensor.dtype.fraction_bits * max(tensor.scale)
    apart = np.abs(ours - theirs)
    wrong = apart > 1e-5 * np.abs(theirs).max() + 1e-30
    assert apart.max() <= step * (1 + 1e-5), f"{tensor.name}: one LSB at most"
    assert wrong.mean() < 0.02, f"{tensor.name}: few differ"
    return int(wrong.sum())
