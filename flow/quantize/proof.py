"""Export to QONNX, and the proof that torch and QONNX agree in every value."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flow import network, qonnx
from flow.errors import MismatchError, UnsupportedError
from flow.onnx_model.runtime import quiet
from flow.quantize.samples import arrays, predict
from flow.types import Progress

if TYPE_CHECKING:
    from torch import fx

    from flow.network import Example


def check_exact(trunk: fx.GraphModule, samples: Any) -> None:
    """Refuse sums that need more than the 24 bits of float32: torch and QONNX would round, the C++ would not."""
    exact = predict(copy.deepcopy(trunk).double(), samples, double=True)
    found = predict(trunk, samples)
    rounded = sum(int((a != b).sum()) for a, b in zip(found, exact, strict=True))
    if rounded:
        raise UnsupportedError(
            f"quantize: sums must fit the 24 bits of float32, but {rounded} of {sum(a.size for a in exact)} outputs "
            "are rounded; lower weight_bits, activation_bits or bias_bits"
        )


def export(quant: fx.GraphModule, example: Example, path: Path) -> None:
    """Write the network as cleaned QONNX; nodes carry the names of the torch modules.

    Args:
        quant: a calibrated network; it is left in evaluation mode.
        example: one sample.
        path: the file to write.

    Raises:
        UnsupportedError: two layers would have one name in C++.
    """
    from flow.quantize.layers import Exporter, Values

    raw = path.with_suffix(".raw.onnx")
    with quiet():
        Exporter.export(Values(quant).eval(), args=example, export_path=str(raw), dynamo=False)
    names = [
        (network.kind(quant.get_submodule(node.target)), str(node.target))
        if node.op == "call_module"
        else (node.target.__name__, node.name)
        for node in quant.graph.nodes
        if node.op in ("call_module", "call_function")
    ]
    qonnx.clean(raw, path, names)
    raw.unlink()


def prove_equal(trunk: fx.GraphModule, onnx_path: Path, samples: Any, progress: Progress) -> None:
    """Compare torch and QONNX exactly on all samples, before a softmax where one ends the network.

    Args:
        trunk: the network, without a softmax at its end.
        onnx_path: what `export` wrote.
        samples: float32 (samples, ...), or a tuple of them, one an input.
        progress: called while QONNX is executed.

    Raises:
        ConfigError: the file cannot be read.
        MismatchError: they differ.
        UnsupportedError: float32 rounds sums of these samples.
    """
    check_exact(trunk, samples)
    model = qonnx.without_softmax(qonnx.load(onnx_path))
    made = qonnx.execute(model, samples, progress=progress)
    for expected, got in zip(predict(trunk, samples), arrays(made), strict=True):
        if got.shape != expected.shape:
            raise MismatchError(
                f"quantize: QONNX must give shape {expected.shape}, not {got.shape}; report it"
            )
        different = np.argwhere(got != expected)
        if len(different):
            first = tuple(different[0].tolist())
            output = first[1] if len(first) == 2 else first[1:]
            raise MismatchError(
                f"quantize: QONNX must equal torch, but {len(different)} of {expected.size} outputs differ; the first: "
                f"sample {first[0]}, output {output}: torch {expected[first]!r}, QONNX {got[first]!r}"
            )
