"""Every operator at every width in both forms of the C++: exact, or refused and why.

A *case* is an operator between two quantizers (`qonnx_files.NETWORKS`, and variants of their scales and roundings), a
*cell* is a case at one width in one io_type. The networks of one group share an HLS project, each with an input and an
output of its own, so that a compiler is started once for all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import qonnx_files
from qonnx_files import Bits, Net

from flow.convert import convert
from flow.emulate.csim import Csim
from flow.errors import FlowError, UnsupportedError
from flow.fixed.execute import execute
from flow.fixed.from_qonnx import lower
from flow.fixed.golden import port_names
from flow.fixed.graph import FixedGraph, Tensor
from flow.types import HlsProject, Quantized

WIDTHS = (1, 2, 3, 4, 6, 8, 12, 16)
"""Bits of the weights, and of the activations from 2 on."""
SAMPLES = 512
EXACT = "exact"


@dataclass(frozen=True)
class Case:
    """An operator of `qonnx_files.NETWORKS` with the kinds of its scales and its quantizer's rounding."""

    operator: str
    per_channel: bool = False
    free: bool = False
    rounding: str = "ROUND"
    bipolar: bool = False

    def bits(self, width: int) -> Bits:
        activation = max(width, 2)
        return Bits(width, activation, activation, per_channel=self.per_channel, free=self.free)

    def add(self, net: Net, width: int) -> str:
        """Add the operator between quantizers of its own to a network; returns its output."""
        shape, build = qonnx_files.NETWORKS[self.operator]
        bits = self.bits(width)
        y = build(net, net.input(shape, bits=bits.activation), bits)
        if self.operator in qonnx_files.HEADS:
            return y
        if self.bipolar:
            return net.quant(y, kind="BipolarQuant", power=0)
        return net.quant(y, bits=bits.output, free=bits.free, rounding=self.rounding)


CASES: Mapping[str, Case] = {
    **{name: Case(name) for name in qonnx_files.NETWORKS},
    "Conv2d, power-of-two scales a channel": Case("Conv2d", per_channel=True),
    "Conv2d, other scales": Case("Conv2d", free=True),
    "Conv2d, other scales a channel": Case("Conv2d", per_channel=True, free=True),
    "Gemm, other scales a channel": Case("Gemm", per_channel=True, free=True),
    "Conv2d, bipolar output": Case("Conv2d", bipolar=True),
    **{f"Gemm, rounding {name}": Case("Gemm", rounding=name) for name in ("FLOOR", "CEIL", "ROUND_TO_ZERO")},
}


def together(cells: Iterable[tuple[Case, int]]) -> Any:
    """Return one cleaned QONNX network in which every cell has an input and an output of its own."""
    net = Net()
    return net.model(*[case.add(net, width) for case, width in cells])


@cache
def refusal(case: Case, width: int) -> str:
    """Return why the graph of a cell is refused, or nothing."""
    try:
        lower(together([(case, width)]))
    except UnsupportedError as error:
        return str(error)
    return ""


def samples(graph: FixedGraph, seed: int = 0) -> list[np.ndarray]:
    """Return integers of every input's range: random ones, and many at both ends and around zero."""
    rng = np.random.default_rng(seed)
    made = []
    for tensor in graph.inputs:
        low, high = tensor.dtype.minimum_lsb, tensor.dtype.maximum_lsb
        x = rng.integers(low, high + 1, (SAMPLES, *tensor.shape))
        ends = np.clip([low, low + 1, -1, 0, 1, high - 1, high], low, high)
        x[SAMPLES // 2 :] = rng.choice(ends, (SAMPLES - SAMPLES // 2, *tensor.shape))
        x[-len(ends) :] = ends.reshape(-1, *(1,) * len(tensor.shape))
        made.append(x)
    return made


def project(model: Any, io_type: str, folder: Path) -> tuple[HlsProject, FixedGraph]:
    """Convert a network of cells into one HLS project, whose test bench has the executor's results.

    Raises:
        FlowError: convert refuses it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model.save(str(folder / "model.onnx"))
    graph = lower(model)
    inputs = samples(graph)
    results = execute(graph, inputs)
    outputs = [graph.tensors[name] for name in graph.outputs]
    golden = {
        **arrays("inputs", graph.inputs, inputs),
        **arrays("outputs", outputs, [results[tensor.name] for tensor in outputs]),
    }
    np.savez(folder / "golden.npz", **golden)
    quantized = Quantized(folder / "model.onnx", folder / "golden.npz", (), 0.0, SAMPLES, {}, {}, {})
    return convert(quantized, out=folder / io_type, io_type=io_type), graph


def arrays(side: str, tensors: Sequence[Tensor], lsb: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """Return integers as golden.npz has them: real numbers in the layout of the file."""
    names = port_names(side, len(tensors))
    made = {}
    for name, tensor, values in zip(names, tensors, lsb, strict=True):
        real = np.ldexp(values.reshape(SAMPLES, -1).astype(np.float64), -tensor.dtype.fraction_bits)
        made[name] = tensor.scale[0] * (real if tensor.order is None else real[:, tensor.order.reshape(-1)])
    return made


def verdicts(cells: Sequence[tuple[Case, int]], io_type: str, folder: Path) -> list[str]:
    """Return, for each cell, `EXACT`, how it differs, or why it is refused; csim runs `SAMPLES` samples."""
    found = {cell: refusal(*cell) for cell in cells}
    left = [cell for cell in cells if not found[cell]]
    if left:
        try:
            found |= dict(zip(left, differences(together(left), io_type, folder), strict=True))
        except FlowError as error:
            if len(left) == 1:
                found[left[0]] = str(error)
            else:
                found |= {cell: verdicts([cell], io_type, folder / str(n))[0] for n, cell in enumerate(left)}
    return [found[cell] for cell in cells]


def differences(model: Any, io_type: str, folder: Path) -> list[str]:
    """Return, for each output of a network, `EXACT` or how the C++ differs from the integer executor."""
    design, graph = project(model, io_type, folder)
    inputs = samples(graph, seed=1)
    wanted = execute(graph, inputs)
    csim = Csim(design, folder / f"{io_type}_csim")
    csim.build()
    got = csim.run(np.concatenate([x.reshape(SAMPLES, -1) for x in inputs], axis=1))
    said, first = [], 0
    for name in graph.outputs:
        size = graph.tensors[name].size
        error = np.abs(got[:, first : first + size] - wanted[name].reshape(SAMPLES, -1))
        first += size
        said.append(
            f"{int((error > 0).sum())} values differ, by up to {error.max()} LSB" if error.any() else EXACT
        )
    return said
