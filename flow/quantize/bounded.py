"""The proof where scales are free: torch in float64 equals the integers, the file in float32 does but at ties.

float32 rounds sums of products whose scales are no powers of two. A quantizer behind such a sum rounds to the other
side of a tie where the exact sum lies as close to the tie as float32 can be off, and to no other number.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flow import qonnx
from flow.errors import MismatchError, UnsupportedError
from flow.fixed import from_qonnx
from flow.fixed.execute import execute
from flow.fixed.graph import Add, FixedGraph, Node, Relu, Rescale, Table, Tensor
from flow.fixed.lsb import inputs_lsb, placed
from flow.fixed.rounding import float_bounds
from flow.quantize.samples import arrays, predict
from flow.types import FloatBound, Progress

if TYPE_CHECKING:
    from torch import fx

BATCH = 256
LARGEST = 1 << 22
"""Steps that float32 tells apart when they are multiplied with a free scale, and divided by it again."""
_DIVIDED = 2.0**-22
"""By how much, relatively, float32 is off where it multiplies with a scale, applies a ReLU and divides."""
_BESIDE = 2.0**-30
"""float64 rounds sums of more than 53 bits."""


def frozen(fixed: fx.GraphModule, sample: Any) -> fx.GraphModule:
    """Return the network in float64 with the scales, weights and biases that it has in float32.

    Args:
        fixed: what `flow.quantize.tables.tabulated` returned.
        sample: the inputs of one sample.
    """
    import torch

    from flow.quantize.layers import Step, inputs_of

    made = copy.deepcopy(fixed).eval()
    names = [str(node.target) for node, _ in _weighted(made)]
    hooks = [module.register_forward_hook(_hold) for module in made.modules() if isinstance(module, Step)]
    given = inputs_of(made, names, sample)
    for hook in hooks:
        hook.remove()
    numbers = []
    with torch.no_grad():
        for name, source in zip(names, given, strict=True):
            layer: Any = made.get_submodule(name)
            weight = layer.quant_weight()
            codes = (weight.value / weight.scale).round().double()
            step = (source.scale * weight.scale).reshape(-1)
            limit = 2.0 ** (int(layer.bias_quant.bit_width()) - 1)
            bias = (layer.bias / step).round().clamp(-limit, limit - 1).double()
            numbers.append((layer, codes * weight.scale.double(), bias * step.double()))
        made.double()
        for layer, weight, bias in numbers:
            layer.weight.copy_(weight)
            layer.bias.copy_(bias)
    return made


def _weighted(graph: fx.GraphModule) -> list[tuple[fx.Node, Any]]:
    return [
        (node, graph.get_submodule(str(node.target)))
        for node in graph.graph.nodes
        if node.op == "call_module" and hasattr(graph.get_submodule(str(node.target)), "quant_weight")
    ]


def _hold(module: Any, _args: Any, output: Any) -> None:
    module.held = output.detach()


def prove_bounded(trunk: fx.GraphModule, onnx_path: Path, samples: Any, progress: Progress) -> FloatBound:
    """Compare torch in float64 with the integers exactly, and the file in float32 with them up to ties.

    Args:
        trunk: what `frozen` returned, without a softmax at its end.
        onnx_path: what `export` wrote.
        samples: float32 (samples, ...), or a tuple of them, one an input.
        progress: called while the file is executed.

    Returns:
        How far the file was off.

    Raises:
        ConfigError: the file cannot be read.
        MismatchError: torch and the integers differ, or the file differs where float32 does not explain it.
        UnsupportedError: results that float32 does not hold.
    """
    whole = qonnx.load(onnx_path)
    model = qonnx.without_softmax(whole)
    same = len(model.graph.node) == len(whole.graph.node)
    graph = from_qonnx.read(onnx_path) if same else from_qonnx.lower(model)
    lsb = inputs_lsb(graph, arrays(samples))
    results = execute(graph, lsb)
    made = predict(trunk, dequantized(graph, lsb, samples), double=True)
    for name, values in zip(graph.outputs, made, strict=True):
        _check_output(graph.tensors[name], values, results[name])
    quantizers = _quantizers(model)
    found = []
    for first in range(0, len(lsb[0]), BATCH):
        part = slice(first, first + BATCH)
        context = qonnx.execute(model, tuple(x[part] for x in arrays(samples)), context=True)
        found.append(_Walk(graph, quantizers, context, first).through([x[part] for x in lsb], results))
        progress(min(part.stop, len(lsb[0])), len(lsb[0]), "executing QONNX")
    return FloatBound(
        bound_steps=max(one.bound_steps for one in found),
        largest_steps=max(one.largest_steps for one in found),
        ties=sum(one.ties for one in found),
        samples=sum(one.samples for one in found),
        output_lsb=max(one.output_lsb for one in found),
    )


def dequantized(graph: FixedGraph, lsb: list[np.ndarray], samples: Any) -> tuple[np.ndarray, ...]:
    """Return the real numbers of the integers, float64, laid out as the samples are."""
    made = []
    for tensor, codes, array in zip(graph.inputs, lsb, arrays(samples), strict=True):
        flat = (codes * _steps(tensor)).reshape(len(codes), -1)
        made.append((flat if tensor.order is None else flat[:, tensor.order]).reshape(array.shape))
    return tuple(made)


def _steps(tensor: Tensor) -> np.ndarray:
    """Return what one LSB of each channel is worth."""
    return np.asarray(np.ldexp(np.array(tensor.scale), -tensor.dtype.fraction_bits))


def _in_steps(tensor: Tensor, values: np.ndarray) -> np.ndarray:
    """Return the file's numbers in LSBs, laid out as the graph's tensor."""
    rows = placed(values.astype(np.float64).reshape(len(values), -1), tensor.order)
    return np.asarray(rows.reshape(len(values), *tensor.shape) / _steps(tensor))


def _check_output(tensor: Tensor, values: np.ndarray, wanted: np.ndarray) -> None:
    """Refuse results of torch in float64 that are not the integers', and those that float32 does not hold."""
    found = _in_steps(tensor, values)
    wrong = np.abs(found - wanted) > _BESIDE * np.maximum(1, np.abs(wanted))
    if wrong.any():
        first = tuple(np.argwhere(wrong)[0].tolist())
        raise MismatchError(
            f"quantize: torch in float64 must equal the integers, but {int(wrong.sum())} of {wrong.size} outputs "
            f"differ; the first: sample {first[0]}, output {first[1:]}: torch {found[first]!r} LSB, integers "
            f"{wanted[first]}; report it"
        )
    if int(np.abs(wanted).max(initial=0)) >= LARGEST:
        raise UnsupportedError(
            f"quantize: results must be below 2**{LARGEST.bit_length() - 1} steps for float32 to hold them, not reach "
            f"{int(np.abs(wanted).max())}; lower weight_bits or activation_bits"
        )


def _quantizers(model: Any) -> dict[str, tuple[str, np.ndarray]]:
    """Return what each quantizer of the file reads, and its scale, by its output."""
    return {
        node.output[0]: (node.input[0], model.get_initializer(node.input[1]))
        for node in model.graph.node
        if node.op_type == "Quant"
    }


class _Walk:
    """Goes through the graph with what the file gave at every quantizer, so that each layer is judged alone."""

    def __init__(
        self,
        graph: FixedGraph,
        quantizers: Mapping[str, tuple[str, np.ndarray]],
        context: Mapping[str, np.ndarray],
        first: int,
    ) -> None:
        self.graph = graph
        self.quantizers = quantizers
        self.context = context
        self.first = first
        self.bounds = float_bounds(graph)
        self.values: dict[str, np.ndarray] = {}
        self.ties = 0
        self.largest = 0.0
        self.off: dict[str, float] = {}

    def through(self, lsb: list[np.ndarray], results: Mapping[str, np.ndarray]) -> FloatBound:
        """Return how far the file was off; ``results``: the integers of all samples."""
        for tensor, codes in zip(self.graph.inputs, lsb, strict=True):
            self.values[tensor.name] = codes
        for node in self.graph.nodes:
            inputs = tuple(self.graph.tensors[name] for name in node.inputs)
            alone = FixedGraph(tuple(dict.fromkeys(inputs)), (node,), (node.output.name,))
            exact = execute(alone, [self.values[tensor.name] for tensor in alone.inputs])[node.output.name]
            self.values[node.output.name] = self.judged(node, exact)
        error = np.zeros(len(lsb[0]), np.int64)
        for name in self.graph.outputs:
            wanted = results[name][self.first : self.first + len(error)]
            given = self.values[name].reshape(len(error), -1)
            error = np.maximum(error, np.abs(given - wanted.reshape(given.shape)).max(1))
        bounds = [self.bounds[node.output.name] for node in self.graph.nodes if self.rounds(node)]
        return FloatBound(
            float(max(bounds, default=0.0)), self.largest, self.ties, int((error > 0).sum()), int(error.max())
        )

    def rounds(self, node: Node) -> bool:
        return isinstance(node, Rescale | Table) and node.output.source in self.quantizers

    def judged(self, node: Node, exact: np.ndarray) -> np.ndarray:
        """Return what the file gives for a node, where it says so, unless float32 does not explain it."""
        tensor = node.output
        if tensor.source is None or tensor.source not in self.context:
            return exact
        found = _in_steps(tensor, self.context[tensor.source])
        if not self.rounds(node):
            error = np.abs(found - exact)
            wrong = error > self.bounds[tensor.name]
            made = exact
            self.off[tensor.name] = float((error * _steps(tensor)).max(initial=0))
        else:
            made = np.rint(found).astype(np.int64)
            differ = made != exact
            wrong = differ & ~(self.beside_a_tie(node) & (np.abs(made - exact) == 1))
            self.ties += int(differ.sum())
        if wrong.any():
            place = tuple(np.argwhere(wrong)[0].tolist())
            raise MismatchError(
                f"quantize: the file in float32 must be within {self.bounds[tensor.name]:.2g} steps of the integers, "
                f"but {int(wrong.sum())} of {wrong.size} numbers of layer {node.name!r} are not; the first: sample "
                f"{self.first + place[0]}, index {place[1:]}: {found[place]!r} in place of {exact[place]}; report it"
            )
        return made

    def measured(self, name: str) -> float | None:
        """Return how far the file was off where sums end, as a real number; exact nodes of the integers are between."""
        made = {node.output.name: node for node in self.graph.nodes}
        while name not in self.off and name in made:
            if made[name].output.source is not None or not isinstance(made[name], Rescale | Relu | Add):
                return None
            name = made[name].inputs[0]
        return self.off.get(name)

    def beside_a_tie(self, node: Node) -> np.ndarray:
        """Tell where what a quantizer reads lies as close to a tie as float32 can be off."""
        before, scale = self.quantizers[str(node.output.source)]
        real = self.context[before].astype(np.float64) / scale.astype(np.float64)
        rows = placed(real.reshape(len(real), -1), node.output.order).reshape(len(real), *node.output.shape)
        near = self.bounds[node.output.name]
        measured = self.measured(node.inputs[0])
        if measured is not None:  # with the division's rounding it is less than what float32 could be off
            step = float(_steps(node.output).min())
            near = min(near, measured / step + _DIVIDED * max(1, abs(node.output.dtype.maximum_lsb)))
        self.largest = max(self.largest, float(near))
        return np.asarray(np.abs(rows - np.floor(rows) - 0.5) <= near)
