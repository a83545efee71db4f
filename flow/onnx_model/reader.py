"""From an ONNX file to a network of standard torch modules, proven on random inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flow import network
from flow.errors import ConfigError, UnsupportedError
from flow.onnx_model import layers, pointwise, pools, shapes
from flow.onnx_model.building import Builder, Step
from flow.onnx_model.constants import MAX_VALUES, fold
from flow.onnx_model.files import QUANTIZED, STANDARD, array_of, free_inputs, label, load, opset_of
from flow.onnx_model.layouts import Tensor
from flow.onnx_model.patterns import with_gelu
from flow.onnx_model.proof import Reading, prove

if TYPE_CHECKING:
    from torch import fx

OPERATORS: dict[str, Callable[[Builder, Step], Any]] = {
    "Conv": layers.conv,
    "ConvTranspose": layers.conv_transpose,
    "Gemm": layers.gemm,
    "MatMul": layers.matmul,
    "BatchNormalization": layers.batch_norm,
    "MaxPool": pools.max_pool,
    "AveragePool": pools.average_pool,
    **dict.fromkeys(("GlobalAveragePool", "GlobalMaxPool", "ReduceMean", "ReduceMax"), pools.global_pool),
    "Pad": pools.zero_pad,
    "Resize": pools.resize,
    "Upsample": pools.resize,
    **dict.fromkeys(("Relu", "LeakyRelu", "Elu", "Selu", "Sigmoid", "Tanh"), pointwise.activation),
    **dict.fromkeys(("HardSigmoid", "HardSwish", "Softplus", "Gelu", "Mish"), pointwise.activation),
    "PRelu": pointwise.prelu,
    "Clip": pointwise.clip,
    **dict.fromkeys(("Softmax", "LogSoftmax"), pointwise.softmax),
    "Dropout": pointwise.dropout,
    "Identity": pointwise.identity,
    "Cast": pointwise.identity,
    "Add": pointwise.add,
    "Sum": pointwise.add,
    "Sub": pointwise.subtract,
    "Mul": pointwise.multiply,
    "Div": pointwise.divide,
    "Neg": pointwise.negative,
    "Reshape": shapes.reshape,
    "Flatten": shapes.flatten,
    "Squeeze": shapes.squeeze,
    "Unsqueeze": shapes.unsqueeze,
    "Transpose": shapes.transpose,
    "Concat": shapes.concat,
    "Slice": shapes.slice_channels,
    "Split": shapes.split,
    "Shape": shapes.shape,
}
"""What is read, each into modules, joins or nothing."""
_TRANSPARENT = ("Identity", "Cast", "Dropout", "Relu", "Clip", "Add", "Sub", "Mul", "Div", "Sigmoid", "Tanh")


def read(path: str | Path, *, shape: Sequence[int] | None = None, logits: bool = False) -> fx.GraphModule:
    """Read a float ONNX file as a network in float32 and evaluation mode.

    Inputs and outputs are channels first, in a file that is channels last too: axes are followed through the file,
    no transpose remains, and the columns of dense layers are permuted where the file flattens channels last. The
    batch is free, whatever the file says. Modules are named after the file's nodes.

    The network is executed beside the file, by onnxruntime, on random inputs of both signs and several sizes, and
    every tensor that both have is compared (see `flow.onnx_model.proof`).

    Args:
        path: the file; weights may lie in other files of its folder.
        shape: shape of one sample, channels first, for a file that leaves extents open.
        logits: leave out a softmax that gives the output: training and quantizing take what it reads, whose largest
            value is at the same class.

    Raises:
        ConfigError: the file is missing, broken or hostile, or leaves extents open.
        UnsupportedError: an operator, or an option of one, that the network cannot hold; it names the node.
        MismatchError: the network does not compute what the file does.
    """
    from torch import fx

    path = Path(path)
    model = load(path)
    refuse_quantized(model)
    builder, inputs = _start(model, path, shape)
    nodes = with_gelu(
        model.graph.node, {n: v for n, v in builder.values.items() if isinstance(v, np.ndarray)}
    )
    for index, node in nodes:
        _read_node(builder, node, index)
    builder.graph.output(_outputs(model, builder))
    graph = fx.GraphModule(builder.root, builder.graph)
    network.tidy(graph)
    graph.eval()
    kept = set(graph.graph.nodes)
    tensors = {n: v for n, v in builder.values.items() if isinstance(v, Tensor) and v.node in kept}
    prove(Reading(model, graph, inputs, tensors, builder.batch, tuple(builder.transposed_norms)), path.name)
    return _without_softmax(graph) if logits else graph


def _without_softmax(graph: fx.GraphModule) -> fx.GraphModule:
    """Return the graph with what a softmax at its end reads as the output."""
    result = network.output_node(graph)
    last = network.output_nodes(graph)[0]
    single = result.args[0] is last and last.op == "call_module"
    if single and network.kind(graph.get_submodule(str(last.target))) in ("Softmax", "LogSoftmax"):
        last.replace_all_uses_with(last.all_input_nodes[0])
        network.tidy(graph)
    return graph


def refuse_quantized(model: Any) -> None:
    """Refuse QONNX, which is no float network."""
    for index, node in enumerate(model.graph.node):
        if node.op_type in QUANTIZED:
            raise UnsupportedError(
                f"onnx: {label(node, index)} must not be a quantizer, since a float network is read; "
                "give a QONNX file as [model] onnx of a run, which starts at quantize with it"
            )
        if node.domain not in STANDARD:
            raise UnsupportedError(
                f"onnx: {label(node, index)} must be of ONNX's own operators, not of the domain {node.domain!r}; "
                "replace it in the network"
            )


def _start(model: Any, path: Path, shape: Sequence[int] | None) -> tuple[Builder, dict[str, Tensor]]:
    """Return a builder that holds the constants and the inputs of a file."""
    values = free_inputs(model)
    first = values[0].type.tensor_type.shape.dim
    batch = int(first[0].dim_value) if len(first) and first[0].dim_value > 0 else None
    builder = Builder(opset_of(model), batch)
    for tensor in model.graph.initializer:
        builder.keep(tensor.name, array_of(tensor))
    for node in model.graph.node:
        for name in node.input:
            builder.readers[name] = builder.readers.get(name, 0) + 1
    for value in model.graph.output:
        builder.readers[value.name] = builder.readers.get(value.name, 0) + 2  # never the sole reader's
    inputs = {}
    for value in values:
        last = _is_channels_last(model, value.name)
        extents = _extents(value, path.name, shape if len(values) == 1 else None, last)
        source = builder.placeholder(value.name, extents)
        rank = len(extents) + 1
        inputs[value.name] = source.transposed((0, *range(2, rank), 1)) if last else source
    for name, tensor in inputs.items():
        builder.keep(name, tensor)
    return builder, inputs


def _extents(value: Any, name: str, shape: Sequence[int] | None, last: bool) -> list[int]:
    """Return the shape of one sample of an input, channels first."""
    kind = value.type.tensor_type
    if value.type.WhichOneof("value") != "tensor_type" or kind.elem_type != 1:
        raise UnsupportedError(
            f"onnx: input {value.name!r} must be a float32 tensor, not of type {kind.elem_type}; export it in float32"
        )
    if not kind.HasField("shape") or not 2 <= len(kind.shape.dim) <= 4:
        raise UnsupportedError(
            f"onnx: input {value.name!r} must be a batch of vectors or of channels with one or two positions, not "
            f"have {len(kind.shape.dim)} dimensions; export another network"
        )
    found = [int(dim.dim_value) if dim.HasField("dim_value") else 0 for dim in kind.shape.dim][1:]
    if last:
        found = [found[-1], *found[:-1]]
    given = list(shape) if shape is not None else found
    if len(given) != len(found) or any(f not in (0, g) for f, g in zip(found, given, strict=True)):
        raise ConfigError(
            f"onnx: samples must have the shape of the input {value.name!r} of {name!r}, {tuple(found)} channels "
            f"first, not {tuple(given)}; check [data] and [model]"
        )
    if min(given) < 1:
        raise ConfigError(
            f"onnx: input {value.name!r} must have known extents, not {tuple(given)} for one sample; "
            "give shape=(channels, ..), or export it with fixed extents"
        )
    return given


def _is_channels_last(model: Any, name: str) -> bool:
    """Tell whether the first node that is particular about axes takes an input as (batch, positions.., channels)."""
    constants = {tensor.name for tensor in model.graph.initializer}
    value = next((v for v in model.graph.input if v.name == name), None)
    rank = len(value.type.tensor_type.shape.dim) if value is not None else 0
    extents = [dim.dim_value for dim in value.type.tensor_type.shape.dim] if value is not None else []
    wanted = [name]
    for node in model.graph.node if rank > 2 else ():
        if not node.input or node.input[0] not in wanted:
            continue
        if node.op_type in _TRANSPARENT:
            wanted += node.output
        elif node.op_type == "Transpose":
            perm = next((list(a.ints) for a in node.attribute if a.name == "perm"), list(range(rank))[::-1])
            return perm == [0, rank - 1, *range(1, rank - 1)]
        elif node.op_type == "Reshape":  # of one channel, which moves nothing
            shape = next((array_of(t) for t in model.graph.initializer if t.name == node.input[1]), None)
            moved = [extents[-1], *extents[1:-1]]
            return (
                extents[-1] == 1 != extents[1]
                and shape is not None
                and shape.reshape(-1)[1:].tolist() == moved
            )
        else:
            return node.op_type == "MatMul" and node.input[1] in constants
    return False


def _read_node(builder: Builder, node: Any, index: int) -> None:
    """Read one node: from constants alone at once, else by its operator."""
    step = Step(builder, node, index)
    known = [value for value in step.given if value is not None]
    if all(isinstance(value, np.ndarray) for value in known):
        results: list[Any] = list(fold(node, step.given, builder.opset, step.where))  # type: ignore[arg-type]
        if builder.constant_numbers > MAX_VALUES:
            raise step.broken(f"must leave at most {MAX_VALUES} constant numbers in the network")
    elif node.op_type not in OPERATORS:
        raise step.unsupported(f"is not supported; supported operators: {', '.join(OPERATORS)}")
    else:
        made = OPERATORS[node.op_type](builder, step)
        results = made if isinstance(made, list) else [made]
    for name, result in zip(node.output, results, strict=False):
        if name:
            builder.keep(name, result)


def _outputs(model: Any, builder: Builder) -> Any:
    """Return the node, or the tuple of nodes, that compute the file's outputs."""
    found = []
    for value in model.graph.output:
        tensor = builder.values.get(value.name)
        rule = ""
        if not isinstance(tensor, Tensor):
            rule = "must depend on the input, not be a constant"
        elif tensor.order is not None or tensor.axes[0] != 0:
            rule = "must have the batch and the channels first, not be flattened channels last"
        if not isinstance(tensor, Tensor) or rule:
            raise UnsupportedError(f"onnx: output {value.name!r} {rule}; export another output")
        found.append(tensor.node)
    return found[0] if len(found) == 1 else tuple(found)
