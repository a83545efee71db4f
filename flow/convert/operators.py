"""Our own C++ kernels as layers of hls4ml, through its extension API."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np

from flow.convert.kernels import KINDS, image, kernel, spans
from flow.fixed.graph import Concat, Conv, FixedGraph, Node, Pool, Upsample

HEADERS = "nnet_utils/flow/"
"""Where the headers lie in the HLS project's firmware."""


def register() -> None:
    """Make hls4ml's Vitis backend know our kernels; a second call does nothing."""
    from hls4ml.backends import get_backend
    from hls4ml.backends.template import FunctionCallTemplate, LayerConfigTemplate
    from hls4ml.model.layers import Layer, layer_map, register_layer

    if class_name(KINDS[0]) in layer_map:
        return

    class KernelLayer(Layer):  # type: ignore[misc]
        def initialize(self) -> None:
            self.add_output_variable(self.get_attr("result_shape"))
            for name, (values, dtype) in self.get_attr("kernel").weights.items():
                precision = self.model.config.backend.convert_precision_string(str(dtype))
                self.add_weights_variable(name, f"{name}{{index}}", precision=precision, data=values)

    classes = [type(class_name(kind), (KernelLayer,), {}) for kind in KINDS]

    class ConfigTemplate(LayerConfigTemplate):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(classes)

        def format(self, node: Any) -> str:
            lines = node.get_attr("kernel").config
            if node.get_attr("kernel").weights:
                lines = (*lines, f"static const unsigned reuse_factor = {node.get_attr('reuse_factor')};")
            return config_struct(f"config{node.index}", lines)

    class FunctionTemplate(FunctionCallTemplate):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(classes)

        def format(self, node: Any) -> str:
            inputs = [node.get_input_variable(name) for name in node.inputs]
            output = node.get_output_variable()
            names = node.get_attr("kernel").weights
            return str(node.get_attr("kernel").call).format(
                inputs_t=", ".join(variable.type.name for variable in inputs),
                output_t=output.type.name,
                config=f"config{node.index}",
                inputs=", ".join(variable.name for variable in inputs),
                output=output.name,
                sizes=", ".join(str(variable.size()) for variable in inputs),
                weights=", ".join(node.get_weights(name).name for name in names),
            )

        def transform(self, model: Any, node: Any) -> bool:
            super().transform(model, node)
            node.set_attr("include_header", [HEADERS + node.get_attr("kernel").header])
            return False

    for made in classes:
        register_layer(made.__name__, made)
    get_backend("Vitis").register_template(ConfigTemplate)
    get_backend("Vitis").register_template(FunctionTemplate)


def class_name(kind: type[Node]) -> str:
    """Return what hls4ml calls our layer of a kind of node."""
    return f"Flow{kind.__name__}"


def config_struct(name: str, lines: tuple[str, ...]) -> str:
    """Return the C++ of a kernel's CONFIG_T."""
    return "\n".join([f"struct {name} {{", *(f"    {line}" for line in lines), "};", ""])


def layer(node: Node, graph: FixedGraph, io_type: str) -> dict[str, Any]:
    """Return a node as an entry of hls4ml's layer list.

    Args:
        node: one of `KINDS`.
        graph: the network.
        io_type: ``io_stream`` or ``io_parallel``.

    Raises:
        UnsupportedError: what no kernel computes.
    """
    return {
        "class_name": class_name(type(node)),
        "name": node.name,
        "inputs": list(node.inputs),
        "outputs": [node.output.name],
        "result_shape": list(node.output.shape),
        "kernel": kernel(node, graph),
    }


def multipliers(node: Conv, graph: FixedGraph, reuse: int) -> int:
    """Return the multipliers of our Conv that work at the same time, at one position."""
    return node.weight.size // reuse


def arrays(node: Node, graph: FixedGraph, io_type: str, reuse: int) -> dict[str, int]:
    """Return what our kernel keeps in registers or unrolls completely, with its size, beside inputs and outputs."""
    found: dict[str, int] = {}
    channels = graph.tensors[node.inputs[0]].shape[-1]
    if isinstance(node, Pool | Conv):
        kernel_sizes = node.kernel if isinstance(node, Pool) else node.weight.shape[1:-1]
        height, width = spans(node)
        apart = isinstance(node, Pool) and all(s >= k for s, k in zip(node.strides, node.kernel, strict=True))
        if io_type == "io_stream" and not apart:
            found["memories of rows that wait"] = (height - 1) * channels
            found["values of a window in registers"] = image(kernel_sizes)[0] * width * channels
        elif io_type == "io_parallel" and isinstance(node, Pool):
            found["values of windows at once"] = node.output.size * int(np.prod(kernel_sizes))
    if isinstance(node, Conv):
        found["multipliers at once"] = multipliers(node, graph, reuse)
        found["inputs of a position in registers"] = int(np.prod(node.weight.shape[1:])) * node.groups
    return found


def stream_steps(node: Node, graph: FixedGraph) -> Iterator[tuple[tuple[int, ...], int]]:
    """Return the order in which our kernel reads and writes one frame in io_stream, a loop step an entry.

    Yields:
        The inputs of which a token is read, and the tokens that are written after that.
    """
    source = graph.tensors[node.inputs[0]].shape
    if isinstance(node, Pool | Conv):
        yield from _scan(node, source)
    elif isinstance(node, Upsample):
        height, width = image(source[:-1])
        down, across = image(node.factors)
        for _, i, _, j in product(range(height), range(down), range(width), range(across)):
            yield (0,) if i == j == 0 else (), 1
    else:
        shape = node.output.shape if isinstance(node, Concat) else source
        for _ in range(int(np.prod(shape[:-1], dtype=int))):
            yield tuple(range(len(node.inputs))), 1


def _scan(node: Pool | Conv, source: tuple[int, ...]) -> Iterator[tuple[tuple[int, ...], int]]:
    sizes, strides, reach = image(source[:-1]), image(node.strides), spans(node)
    pads = ((0, 0),) * (2 - len(node.pads)) + tuple(node.pads)
    axes = [
        [
            (before <= place < before + size, place >= span - 1 and (place - span + 1) % stride == 0)
            for place in range(before + size + after)
        ]
        for size, stride, span, (before, after) in zip(sizes, strides, reach, pads, strict=True)
    ]
    for (row_inside, row_complete), (inside, complete) in product(*axes):
        yield (0,) if row_inside and inside else (), int(row_complete and complete)
