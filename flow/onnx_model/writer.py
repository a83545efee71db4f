"""From a network of standard torch modules to a plain ONNX file, proven by onnxruntime."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flow import network
from flow.errors import ConfigError, MismatchError, UnsupportedError, first_line
from flow.onnx_model.constants import FOLDABLE, fold
from flow.onnx_model.files import STANDARD, array_of, label
from flow.onnx_model.proof import difference, values_of
from flow.onnx_model.runtime import runtime

if TYPE_CHECKING:
    import torch
    from torch import fx, nn

OPSETS = (9, 23)
"""What torch's exporter writes and onnxruntime executes; below 13 some modules are missing."""
SAMPLES = 8
_CEIL, _LINEAR = 19, 11
"""The first opsets in which average pools round up, and values are interpolated, as torch does it."""


def write(graph: nn.Module, path: str | Path, example: network.Example, *, opset: int = 13) -> float:
    """Write a network as plain ONNX with a free batch: standard operators only, constants folded.

    The file appears by rename, after the checker has passed it and onnxruntime has given the network's numbers on
    random inputs of both signs.

    Args:
        graph: a torch network, or a graph of one; it is not changed. Its weights are written as float32.
        path: the file to write.
        example: an input with a batch dimension, or a tuple of them.
        opset: version of the operators, `OPSETS`.

    Returns:
        The largest difference between onnxruntime and torch in float64, relative to the largest output: at most 10^-6
        where float32 is that exact (see `flow.onnx_model.proof`).

    Raises:
        ConfigError: ``opset`` is outside `OPSETS`, the folder is missing, or the example does not fit.
        UnsupportedError: the exporter has not a module in this opset.
        MismatchError: onnxruntime gives other numbers.
    """
    path = Path(path)
    check_opset(opset)
    if not path.parent.is_dir():
        raise ConfigError(f"onnx: folder of {str(path)!r} must exist, not be missing; make it first")
    traced = network.trace(graph, example).float().eval()
    inputs = tuple(tensor.detach().float() for tensor in network.as_inputs(example))
    _check_modules(traced, example, opset)
    model = _folded(_export(_spelled(traced, example), inputs, opset))
    _set_shapes(model, traced, example)
    error = _prove(traced, model, inputs, path.name)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(model.SerializeToString(deterministic=True))
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)
    return error


def check_opset(opset: int) -> None:
    """Refuse versions of the operators that cannot be written."""
    low, high = OPSETS
    if not low <= opset <= high:
        raise ConfigError(
            f"onnx: opset must be from {low} to {high}, not {opset}; 13 is read by most programs"
        )


def _check_modules(graph: fx.GraphModule, example: network.Example, opset: int) -> None:
    """Refuse modules that ONNX does not have, or that this opset has with other numbers."""
    shapes = network.shapes(graph, example)
    for node in graph.graph.nodes:
        if node.op != "call_module":
            continue
        module: Any = graph.get_submodule(node.target)
        what = network.kind(module)
        space, wanted = shapes[node.all_input_nodes[0].name][2:], shapes[node.name][2:]
        rule = ""
        if what.startswith("Adaptive") and any(a % b for a, b in zip(space, wanted, strict=True)):
            rule = f"have windows of one size, not {wanted} windows over {space}; choose an output size that divides"
        elif what.startswith("AvgPool") and module.ceil_mode and opset < _CEIL:
            rule = f"round its size down, not up; choose opset {_CEIL} or newer"
        elif what == "Upsample" and module.mode != "nearest" and opset < _LINEAR:
            rule = f"take the nearest value, not {module.mode}; choose opset {_LINEAR} or newer"
        if rule:
            raise UnsupportedError(f"onnx: layer {node.target!r} ({what}) must, in opset {opset}, {rule}")


def _set_shapes(model: Any, graph: fx.GraphModule, example: network.Example) -> None:
    """Write the outputs' shapes into the file: the exporter loses extents behind a reshape."""
    shapes = network.shapes(graph, example)
    for value, node in zip(model.graph.output, network.output_nodes(graph), strict=True):
        kind = value.type.tensor_type
        del kind.shape.dim[:]
        kind.shape.dim.add().dim_param = "batch"
        for extent in shapes[node.name][1:]:
            kind.shape.dim.add().dim_value = extent
    del model.graph.value_info[:]


def _spelled(graph: fx.GraphModule, example: network.Example) -> fx.GraphModule:
    """Return a copy in which modules that the exporter lacks are reshapes and transposes of fixed extents."""
    copied = network.share(graph)
    shapes = network.shapes(graph, example)
    for node in list(copied.graph.nodes):
        module: Any = copied.get_submodule(node.target) if node.op == "call_module" else None
        if network.kind(module) not in ("ChannelShuffle", "Unflatten"):
            continue
        source = node.args[0]
        channels, *space = shapes[source.name][1:]
        with copied.graph.inserting_before(node):
            if network.kind(module) == "Unflatten":
                made = copied.graph.call_method("reshape", (source, (-1, *module.unflattened_size)))
            else:
                parts = (-1, module.groups, channels // module.groups, *space)
                made = copied.graph.call_method("reshape", (source, parts))
                made = copied.graph.call_method("transpose", (made, 1, 2))
                made = copied.graph.call_method("reshape", (made, (-1, channels, *space)))
        node.replace_all_uses_with(made)
        copied.graph.erase_node(node)
    copied.recompile()
    return copied


def _export(graph: fx.GraphModule, inputs: tuple[torch.Tensor, ...], opset: int) -> Any:
    """Return what torch's exporter writes, as a protobuf."""
    import torch
    from onnx import load_model_from_string

    outputs = len(network.output_nodes(graph))
    names = ["input"] if len(inputs) == 1 else [f"input{i}" for i in range(len(inputs))]
    results = ["output"] if outputs == 1 else [f"output{i}" for i in range(outputs)]
    file = io.BytesIO()
    try:
        with warnings.catch_warnings(), _silent():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                graph,
                inputs,
                file,
                dynamo=False,
                opset_version=opset,
                input_names=names,
                output_names=results,
                dynamic_axes={name: {0: "batch"} for name in (*names, *results)},
            )
    except Exception as error:
        raise UnsupportedError(
            f"onnx: network must be one that torch exports with opset {opset}, not fail with "
            f"{type(error).__name__}: {first_line(error)}; choose opset 13 or newer"
        ) from error
    return load_model_from_string(file.getvalue())


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Keep the exporter from printing: where it fails, C++ writes its whole graph on the terminal."""
    sys.stdout.flush()
    kept = os.dup(1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)


def _folded(model: Any) -> Any:
    """Compute in place what depends on constants alone; the nodes that made it go."""
    from onnx import numpy_helper

    opset = next(entry.version for entry in model.opset_import if entry.domain in STANDARD)
    known = {tensor.name: array_of(tensor) for tensor in model.graph.initializer}
    kept = []
    for index, node in enumerate(model.graph.node):
        given = [name for name in node.input if name]
        if node.op_type in FOLDABLE and all(name in known for name in given):
            arrays = [known[name] if name else None for name in node.input]
            for name, array in zip(node.output, fold(node, arrays, opset, label(node, index)), strict=False):
                known[name] = array
        else:
            kept.append(node)
    used = {name for node in kept for name in node.input} | {value.name for value in model.graph.output}
    del model.graph.node[:]
    del model.graph.initializer[:]
    model.graph.node.extend(kept)
    model.graph.initializer.extend(
        numpy_helper.from_array(np.ascontiguousarray(array), name)
        for name, array in known.items()
        if name in used
    )
    return model


def _prove(graph: fx.GraphModule, model: Any, inputs: tuple[torch.Tensor, ...], name: str) -> float:
    """Compare onnxruntime with torch on random inputs; returns the largest relative difference."""
    import onnx

    onnx.checker.check_model(model, full_check=True)
    foreign = sorted({node.domain for node in model.graph.node} - set(STANDARD))
    if foreign:
        raise UnsupportedError(
            f"onnx: {name!r} must hold standard operators, not of {', '.join(foreign)}; report it"
        )
    rng = np.random.default_rng(0)
    batch = [rng.standard_normal((SAMPLES, *tensor.shape[1:])).astype(np.float32) for tensor in inputs]
    session = runtime(model, optimized=True)
    feed = {value.name: values for value, values in zip(session.get_inputs(), batch, strict=True)}
    exact, single = (values_of(graph, batch, double=double) for double in (True, False))
    worst = 0.0
    for node, got in zip(network.output_nodes(graph), session.run(None, feed), strict=True):
        error, allowed = difference(got, exact[node.name], single[node.name])
        if not error <= allowed:
            raise MismatchError(
                f"onnx: {name!r} must give what torch gives, but onnxruntime differs by {error:.3g} of the largest "
                f"output, and {allowed:.3g} is rounding; report the network"
            )
        worst = max(worst, error)
    return worst
