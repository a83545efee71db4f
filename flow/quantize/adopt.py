"""A QONNX file of somebody's own in the place of what the stage quantize makes."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np

from flow import qonnx
from flow.errors import ConfigError, FlowError
from flow.fixed import from_qonnx
from flow.fixed.golden import Golden, write_golden
from flow.fixed.graph import Conv, Dense, FixedGraph, Node, Relu, Rescale, Tensor
from flow.onnx_model.files import free_inputs, load
from flow.training.metric import accuracy
from flow.types import Data, Port, Progress, Quantized, silent


def adopt(path: Path, data: Data, out: Path, *, progress: Progress = silent) -> Quantized:
    """Check a QONNX file, clean it, and execute it over the test set.

    A file is taken when `flow.fixed.from_qonnx` takes it. The executor's results are what the C++ must give. Samples
    for an input that no quantizer reads are rounded to the input's type first.

    Args:
        path: the file.
        data: gives the test set, channels first; a tuple of arrays for several inputs.
        out: a folder, made if it is missing; ``model.onnx`` and ``golden.npz`` are written there.
        progress: called while the file is executed.

    Raises:
        ConfigError: the file is broken or hostile, or samples do not fit it.
        UnsupportedError: a node, or an option of one, that the flow does not convert exactly; it names the node.
    """
    model = load(path)
    out.mkdir(parents=True, exist_ok=True)
    graph, fixed = _cleaned(model, path.name, out)
    samples, labels = data.test
    given: tuple[np.ndarray, ...] = samples if isinstance(samples, tuple) else (samples,)
    _check_samples(fixed, path.name, given)
    raw = {value.name for value in graph.graph.input}
    given = tuple(
        _on_grid(tensor, array) if tensor.source in raw else array
        for tensor, array in zip(fixed.inputs, given, strict=True)
    )
    outputs = _executed(graph, fixed, path.name, given, progress)
    right = _accuracy(fixed, path.name, outputs, labels)
    write_golden(out / "golden.npz", Golden(given, outputs, labels))
    layers = [node for node in fixed.nodes if isinstance(node, Conv | Dense)]
    return Quantized(
        onnx_path=out / "model.onnx",
        golden_path=out / "golden.npz",
        inputs=_ports(fixed.inputs),
        accuracy=right,
        samples=len(outputs[0]),
        bias_bits={node.name: node.bias_dtype.width for node in layers if node.bias_dtype},
        weight_bits={node.name: node.weight_dtype.width for node in layers},
        activation_bits=_activation_bits(fixed, layers),
    )


def _cleaned(model: Any, name: str, out: Path) -> tuple[Any, FixedGraph]:
    """Write the file with a batch of 1, cleaned; returns its graph, and the same in integers."""
    raw = out / "model.raw.onnx"
    raw.write_bytes(_with_batch_of_one(model).SerializeToString())
    try:
        # the file's own names stand in what is refused
        _, shapes = from_qonnx.lower_with_shapes(qonnx.load(raw))
        qonnx.clean_named(raw, out / "model.onnx", shapes)
        return qonnx.load(out / "model.onnx"), from_qonnx.read(out / "model.onnx")
    except FlowError:
        raise
    except Exception as error:  # whatever qonnx and onnx make of nodes that do not fit together
        raise _not_executed(name, error) from error
    finally:
        raw.unlink()


def _not_executed(name: str, error: Exception) -> ConfigError:
    return ConfigError(
        f"onnx: {name!r} must be executed by qonnx, not fail with {type(error).__name__}: "
        f"{(str(error).splitlines() or [''])[0]}; export it anew"
    )


def _with_batch_of_one(model: Any) -> Any:
    """Return the file with a batch of 1."""
    made = copy.deepcopy(model)
    for value in (*free_inputs(made), *made.graph.output):
        if value.type.tensor_type.shape.dim:
            value.type.tensor_type.shape.dim[0].dim_value = 1
    return made


def _check_samples(fixed: FixedGraph, name: str, given: tuple[np.ndarray, ...]) -> None:
    wanted = [(tensor.shape[-1], *tensor.shape[:-1]) for tensor in fixed.inputs]
    found = [array.shape[1:] for array in given]
    if found != wanted:
        raise ConfigError(
            f"onnx: samples must have the shape of the input of {name!r}, "
            f"{' and '.join(map(str, wanted))} channels first, not {' and '.join(map(str, found))}; "
            "check [data] and [model]"
        )


def _on_grid(tensor: Tensor, samples: np.ndarray) -> np.ndarray:
    """Return samples rounded to the input's type."""
    return tensor.dtype.to_real(tensor.dtype.to_lsb(samples)).astype(np.float32)


def _executed(
    graph: Any, fixed: FixedGraph, name: str, given: tuple[np.ndarray, ...], progress: Progress
) -> tuple[np.ndarray, ...]:
    """Return what the file gives, each output as it has it."""
    laid = []
    for tensor, array, value in zip(fixed.inputs, given, graph.graph.input, strict=True):
        flat = np.moveaxis(array, 1, -1).reshape(len(array), -1) if array.ndim > 2 else array
        shape = graph.get_tensor_shape(value.name)[1:]
        laid.append((flat if tensor.order is None else flat[:, tensor.order]).reshape(len(array), *shape))
    try:
        made = qonnx.execute(graph, tuple(laid), progress=progress)
    except Exception as error:
        raise _not_executed(name, error) from error
    return made if isinstance(made, tuple) else (made,)


def _accuracy(
    fixed: FixedGraph, name: str, outputs: tuple[np.ndarray, ...], labels: np.ndarray
) -> float | None:
    found = accuracy(outputs, labels, classes=fixed.gives_class)
    if found is not None and not fixed.gives_class and int(labels.max()) >= outputs[0][0].size:
        raise ConfigError(
            f"data: labels must be below the outputs of {name!r} {outputs[0].shape[1:]}, not reach "
            f"{int(labels.max())}; give the network one output a class"
        )
    return found


def _ports(inputs: tuple[Tensor, ...]) -> tuple[Port, ...]:
    single = len(inputs) == 1
    return tuple(Port("input" if single else t.name, t.shape, t.dtype, t.scale[0]) for t in inputs)


def _activation_bits(fixed: FixedGraph, layers: list[Any]) -> dict[str, int]:
    """Return the width that each layer's result is quantized to, behind its activation."""
    found = {}
    for layer in layers:
        last: Node = layer
        while not isinstance(last, Rescale):
            readers = fixed.readers(last.output.name)
            if len(readers) != 1 or not isinstance(readers[0], Relu | Rescale):
                break
            last = readers[0]
        if isinstance(last, Rescale):
            found[layer.name] = last.output.dtype.width
    return found
