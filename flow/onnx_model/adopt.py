"""A QONNX file of somebody's own in the place of what the stage quantize makes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from flow import qonnx_graph
from flow.errors import ConfigError, FlowError, UnsupportedError
from flow.onnx_model.constants import attributes_of, fold
from flow.onnx_model.files import (
    QUANTIZED_DOMAINS,
    STANDARD,
    array_of,
    free_inputs,
    label,
    load,
)
from flow.types import Data, FixedPoint, Port, Progress, Quantized, silent

DOMAIN = "qonnx.custom_op.general"
OPERATORS = ("Quant", "Conv", "Gemm", "MatMul", "Add", "Relu", "MaxPool", "Flatten")
MAX_BITS = 32


def adopt(path: Path, data: Data, out: Path, *, progress: Progress = silent) -> Quantized:
    """Check a QONNX file, clean it, and execute it over the test set.

    Dense layers become Gemm nodes; the numbers stay as they are. The executor's results are what the C++ must give.

    Args:
        path: the file.
        data: gives the test set.
        out: a folder, made if it is missing; ``model.onnx`` and ``golden.npz`` are written there.
        progress: called while the file is executed.

    Raises:
        ConfigError: the file is broken or hostile, or samples do not fit it.
        UnsupportedError: a node, or an option of one, that the flow does not convert exactly; it names the node.
    """
    model = load(path)
    check(model)
    port = _input_port(model)
    wanted = (port.shape[-1], *port.shape[:-1])
    samples, labels = data.test
    if samples.shape[1:] != wanted:
        raise ConfigError(
            f"onnx: samples must have the shape of the input of {path.name!r}, {wanted} channels first, "
            f"not {samples.shape[1:]}; check [data] and [model]"
        )
    out.mkdir(parents=True, exist_ok=True)
    graph, outputs = _executed(model, path.name, samples, out, progress)
    if outputs.ndim != 2 or int(labels.max()) >= outputs.shape[1]:
        raise ConfigError(
            f"data: labels must be below the outputs of {path.name!r} {outputs.shape[1:]}, not reach "
            f"{int(labels.max())}; give the network one output a class"
        )
    np.savez(out / "golden.npz", inputs=samples, outputs=outputs, labels=labels)
    layers = {kind: _bits(graph.graph, place) for kind, place in (("weight", 1), ("bias", 2))}
    return Quantized(
        onnx_path=out / "model.onnx",
        golden_path=out / "golden.npz",
        inputs=(port,),
        accuracy=float((outputs.argmax(1) == labels).mean()),
        samples=len(outputs),
        bias_bits=layers["bias"],
        weight_bits=layers["weight"],
        activation_bits=_activation_bits(graph.graph),
    )


def _executed(
    model: Any, name: str, samples: np.ndarray, out: Path, progress: Progress
) -> tuple[Any, np.ndarray]:
    """Write the cleaned file; returns its graph and what it gives for the samples."""
    raw = out / "model.raw.onnx"
    raw.write_bytes(_normal(model).SerializeToString())
    try:
        qonnx_graph.clean_named(raw, out / "model.onnx")
        graph = qonnx_graph.load(out / "model.onnx")
        outputs = qonnx_graph.execute(graph, samples, progress=progress)
    except FlowError:
        raise
    except Exception as error:  # whatever qonnx and onnxruntime make of nodes that do not fit together
        raise ConfigError(
            f"onnx: {name!r} must be executed by qonnx, not fail with {type(error).__name__}: "
            f"{(str(error).splitlines() or [''])[0]}; export it anew"
        ) from error
    raw.unlink()
    return graph, outputs


def check(model: Any) -> None:
    """Refuse what the flow does not convert exactly, naming node, operator and rule."""
    graph = model.graph
    made = {name: node for node in graph.node for name in node.output}
    constants = _constants(graph)
    for index, node in enumerate(graph.node):
        if node.op_type == "Constant":
            continue
        where = label(node, index)
        if node.op_type not in OPERATORS:
            raise UnsupportedError(
                f"onnx: {where} is not supported in a quantized file; supported operators: {', '.join(OPERATORS)}"
            )
        if node.domain not in (STANDARD if node.op_type != "Quant" else QUANTIZED_DOMAINS):
            raise UnsupportedError(
                f"onnx: {where} must be channels first, of ONNX's own operators, not of the domain {node.domain!r}; "
                "export it before it is made channels last"
            )
        if node.op_type == "Quant":
            _check_quant(node, where, constants)
        elif node.op_type in ("Conv", "Gemm", "MatMul"):
            _check_weighted(node, where, made, constants, graph)
        elif node.op_type == "Add":
            _check_sum(node, where, made, constants)
        if node.op_type in ("Conv", "MaxPool", "Flatten"):
            _check_options(node, where)
    _check_ends(model)


def _constants(graph: Any) -> dict[str, np.ndarray]:
    """Return the weights and the values of Constant nodes by name."""
    found = {tensor.name: array_of(tensor) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            value = fold(node, [], 0, label(node, 0))
            found[node.output[0]] = value[0]
    return found


def _check_quant(node: Any, where: str, constants: Mapping[str, np.ndarray]) -> None:
    names = list(node.input[1:])
    if len(names) != 3 or any(name not in constants for name in names):
        raise UnsupportedError(
            f"onnx: {where} must have constants as scale, zero point and bits; export it anew"
        )
    scale, zero, bits = (constants[name].astype(np.float64) for name in names)
    mantissa = np.frexp(scale)[0]
    if scale.size != 1 or mantissa.item() != 0.5 or zero.any():
        raise UnsupportedError(
            f"onnx: {where} must have one power of two as its scale and no zero point, not "
            f"{scale.reshape(-1)[:4].tolist()} and {zero.reshape(-1)[:4].tolist()}; quantize in fixed point"
        )
    if bits.size != 1 or bits.item() != int(bits.item()) or not 1 <= bits.item() <= MAX_BITS:
        raise UnsupportedError(
            f"onnx: {where} must have a whole number of bits from 1 to {MAX_BITS}, not "
            f"{bits.reshape(-1)[:4].tolist()}; quantize in fixed point"
        )
    options = attributes_of(node)
    missing = [name for name in ("signed", "narrow") if options.get(name) not in (0, 1)]
    if missing:
        raise ConfigError(f"onnx: {where} must say {' and '.join(missing)} as 0 or 1; export it anew")
    rounding = options.get("rounding_mode", "ROUND")
    if str(rounding).upper() != "ROUND":
        raise UnsupportedError(
            f"onnx: {where} must round half to even (ROUND), not by {rounding!r}; quantize with it"
        )


def _check_weighted(
    node: Any, where: str, made: Mapping[str, Any], constants: Mapping[str, np.ndarray], graph: Any
) -> None:
    """Check that weights and biases are quantized constants."""
    names = list(node.input[1:])
    if node.op_type == "MatMul":
        reader = [n for n in graph.node if node.output[0] in n.input]
        if len(reader) == 1 and reader[0].op_type == "Add":
            names += [name for name in reader[0].input if name != node.output[0]]
    options = attributes_of(node)
    plain = (options.get("alpha", 1.0), options.get("beta", 1.0), options.get("transA", 0)) == (1.0, 1.0, 0)
    if not plain or (node.op_type == "Gemm" and options.get("transB", 0) != 1):
        raise UnsupportedError(
            f"onnx: {where} must be x * transpose(W) + b, not have other factors; export it anew"
        )
    quantized = [
        made[name].op_type == "Quant" and made[name].input[0] in constants for name in names if name in made
    ]
    if len(names) != 2 or len(quantized) != 2 or not all(quantized):
        raise UnsupportedError(
            f"onnx: {where} must have weights and biases from a Quant node each, whose numbers are constant; "
            "give the layer a quantized bias, of zeros if need be"
        )


def _check_sum(node: Any, where: str, made: Mapping[str, Any], constants: Mapping[str, np.ndarray]) -> None:
    """Check that a sum is of two tensors, or adds the bias of a dense layer."""
    kinds = [made[name].op_type if name in made else "" for name in node.input]
    fixed = [
        name in constants
        or (name in made and made[name].op_type == "Quant" and made[name].input[0] in constants)
        for name in node.input
    ]
    if any(fixed) and "MatMul" not in kinds:
        raise UnsupportedError(
            f"onnx: {where} must add two tensors that depend on the input, or the bias of a MatMul, not a constant; "
            "add it to a bias"
        )


def _check_options(node: Any, where: str) -> None:
    """Refuse options that the C++ does not have, or gets wrong."""
    options = attributes_of(node)
    ones = set(options.get("dilations", [1])) == {1}
    rules = [
        (options.get("auto_pad", "NOTSET") == "NOTSET", "give its padding as numbers (auto_pad NOTSET)"),
        (ones, "have dilations of 1"),
        (options.get("ceil_mode", 0) == 0, "round its size down (ceil_mode 0)"),
        (node.op_type != "MaxPool" or not any(options.get("pads", [])), "not be padded"),
        (node.op_type != "MaxPool" or len(node.output) == 1, "give values alone, not indices"),
        (node.op_type != "Flatten" or options.get("axis", 1) == 1, "flatten all but the batch (axis 1)"),
        (node.op_type == "Flatten" or len(options.get("kernel_shape", [])) == 2, "have two positions"),
        (node.op_type == "Flatten" or len(options.get("strides", [])) == 2, "name its strides"),
    ]
    for holds, rule in rules:
        if not holds:
            raise UnsupportedError(f"onnx: {where} must {rule}; change the network")


def _check_ends(model: Any) -> None:
    """Check that there is one input, which a quantizer alone reads, and one output."""
    inputs, outputs = free_inputs(model), model.graph.output
    if len(inputs) != 1 or len(outputs) != 1:
        raise UnsupportedError(
            f"onnx: quantized file must have one input and one output, not {len(inputs)} and {len(outputs)}; "
            "export one of each"
        )
    name = inputs[0].name
    readers = [(i, n) for i, n in enumerate(model.graph.node) if name in n.input]
    for index, node in readers:
        if node.op_type != "Quant" or len(readers) > 1:
            raise UnsupportedError(
                f"onnx: {label(node, index)} must not read the input {name!r} unless it is the one Quant node that "
                "does: the hardware's input has its type; quantize the input"
            )
        if attributes_of(node).get("narrow", 0):
            raise UnsupportedError(
                f"onnx: {label(node, index)} must take all values of its width (narrow = 0), as the hardware's input "
                "does, not all but the least; quantize the input so"
            )
    rank = len(inputs[0].type.tensor_type.shape.dim)
    extents = [dim.dim_value for dim in inputs[0].type.tensor_type.shape.dim][1:]
    if rank not in (2, 4) or min(extents, default=0) < 1:
        raise UnsupportedError(
            f"onnx: input {name!r} must be vectors or images of known size with a batch, not {rank} dimensions "
            f"{extents}; export it so"
        )


def _input_port(model: Any) -> Port:
    """Return the input: channels last, with the type of its quantizer."""
    value = free_inputs(model)[0]
    constants = _constants(model.graph)
    node = next(n for n in model.graph.node if value.name in n.input)
    scale, _, bits = (constants[name].item() for name in node.input[1:])
    fraction, width = 1 - int(np.frexp(scale)[1]), int(bits)
    channels, *space = (int(dim.dim_value) for dim in value.type.tensor_type.shape.dim[1:])
    signed = bool(attributes_of(node).get("signed", 1))
    return Port("input", (*space, channels), FixedPoint(signed, width - fraction, fraction))


def _normal(model: Any) -> Any:
    """Return the file with qonnx's own domain, batch 1 and Gemm nodes in place of MatMul and Add."""
    from onnx import ModelProto, helper, numpy_helper

    made = ModelProto()
    made.CopyFrom(model)
    names = {value.name for value in free_inputs(made)}
    inputs = [value for value in made.graph.input if value.name in names]
    del made.graph.input[:]
    made.graph.input.extend(inputs)
    made.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    if made.graph.output[0].type.tensor_type.shape.dim:
        made.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 1
    known = _constants(made.graph)
    for node in made.graph.node:
        if node.op_type == "Quant":
            node.domain = DOMAIN
            for place in (1, 2, 3):  # hls4ml takes a scale of one dimension for one a channel
                name = f"{node.output[0]}_parameter{place}"
                number = known[node.input[place]].astype(np.float32).reshape(())
                made.graph.initializer.append(numpy_helper.from_array(number, name))
                node.input[place] = name
    opsets = [entry for entry in made.opset_import if entry.domain in STANDARD]
    del made.opset_import[:]
    made.opset_import.extend([*opsets, helper.make_opsetid(DOMAIN, 1)])
    nodes = _with_gemm(made.graph, known)
    del made.graph.node[:]
    made.graph.node.extend(nodes)
    return made


def _with_gemm(graph: Any, constants: Mapping[str, np.ndarray]) -> list[Any]:
    """Return the nodes with a Gemm for every MatMul and its Add, and without those that nothing reads."""
    products = {node.output[0]: node for node in graph.node if node.op_type == "MatMul"}
    nodes: list[Any] = []
    for node in graph.node:
        product = next((products[name] for name in node.input if name in products), None)
        if product is not None:
            nodes += _as_gemm(graph, constants, product, node)
        elif node.op_type != "MatMul":
            nodes.append(node)
    used = {value.name for value in graph.output}
    kept = []
    for node in reversed(nodes):
        if used & set(node.output):
            used |= set(node.input)
            kept.append(node)
    return kept[::-1]


def _as_gemm(graph: Any, constants: Mapping[str, np.ndarray], node: Any, add: Any) -> list[Any]:
    """Return the weights' quantizer of a MatMul transposed, and a Gemm in the place of the MatMul and its Add."""
    from onnx import helper, numpy_helper

    bias = next(name for name in add.input if name != node.output[0])
    quantizer = next(n for n in graph.node if node.input[1] in n.output)
    name = f"{node.input[1]}_transposed"
    weight = np.ascontiguousarray(constants[quantizer.input[0]].T)
    graph.initializer.append(numpy_helper.from_array(weight, f"{name}_values"))
    turned = helper.make_node("Quant", [f"{name}_values", *quantizer.input[1:]], [name], domain=DOMAIN)
    turned.attribute.extend(quantizer.attribute)
    gemm = helper.make_node(
        "Gemm", [node.input[0], name, bias], [add.output[0]], name=node.name or "dense", transB=1
    )
    return [turned, gemm]


def _bits(graph: Any, place: int) -> dict[str, int]:
    """Return the width of what every Conv and Gemm node reads as its weights or its biases."""
    made = {name: node for node in graph.node for name in node.output}
    constants = _constants(graph)
    return {
        node.name: int(constants[made[node.input[place]].input[3]].item())
        for node in graph.node
        if node.op_type in ("Conv", "Gemm")
    }


def _activation_bits(graph: Any) -> dict[str, int]:
    """Return the width that every Conv and Gemm node's result is quantized to, behind its activation."""
    constants = _constants(graph)
    found = {}
    for node in graph.node:
        if node.op_type not in ("Conv", "Gemm"):
            continue
        last = node
        while last.op_type != "Quant":
            readers = [n for n in graph.node if last.output[0] in n.input]
            if len(readers) != 1 or readers[0].op_type not in ("Relu", "Quant"):
                break
            last = readers[0]
        if last.op_type == "Quant":
            found[node.name] = int(constants[last.input[3]].item())
    return found
