"""hls4ml's only home: configuration, conversion, and a check of what it made of every layer."""

from __future__ import annotations

import contextlib
import io
import traceback
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from flow.convert import operators, preflight
from flow.convert.folds import chosen, folds_of
from flow.convert.layer_list import Layer, layer_list
from flow.convert.network import Part, processes
from flow.convert.options import COMMON_KEYS, check_options, precisions
from flow.convert.streams import depths
from flow.errors import ConfigError, FlowError, MismatchError, UnsupportedError
from flow.estimate.reuse import Fold
from flow.fixed.graph import Conv, Dense, FixedGraph, Reshape
from flow.types import FixedPoint, HlsLayer

_UNUSED_PRECISION = "fixed<16,6>"  # hls4ml wants a default; `_verify` finds a layer that takes it


@dataclass(frozen=True)
class Written:
    """What hls4ml wrote.

    ``inputs``, ``outputs``: C++ type and FIFO depth of each port. ``weights``: for the stem of each weights file its
    integers, in order, and their fraction bits.
    """

    layers: tuple[HlsLayer, ...]
    inputs: tuple[tuple[str, int], ...]
    outputs: tuple[tuple[str, int], ...]
    weights: Mapping[str, tuple[np.ndarray, int]]


@dataclass(frozen=True)
class Target:
    """Where the C++ goes and what it is for."""

    out: Path
    top: str
    io_type: str
    part: str
    clock_period_ns: float
    dsps: int


def write_project(graph: FixedGraph, target: Target, options: Mapping[str, Any]) -> Written:
    """Convert a fixed-point graph and write hls4ml's project.

    Raises:
        ConfigError: a key of ``[hls]`` breaks a rule.
        UnsupportedError: a layer that the C++ does not have, or that no synthesis would take.
        MismatchError: hls4ml made something else of a layer.
    """
    check_options(options, [node.name for node in graph.nodes])
    said = io.StringIO()  # hls4ml reports by printing
    try:
        with contextlib.redirect_stdout(said), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _write(graph, target, options)
    except (FlowError, OSError):
        raise
    except Exception as error:
        raise UnsupportedError(
            f"convert: hls4ml refuses the network: {traceback.format_exception_only(error)[-1].strip()}; "
            "see docs/architecture.md for what converts"
        ) from error


def _write(graph: FixedGraph, target: Target, options: Mapping[str, Any]) -> Written:
    from hls4ml.backends import get_backend
    from hls4ml.model import ModelGraph

    operators.register()
    layers = layer_list(graph, target.io_type)
    folds = folds_of(graph, target.io_type)
    configuration = _configuration(graph, layers, chosen(folds, options, target.dsps), options)
    preflight.check_arrays(graph, layers, configuration["LayerName"], target.io_type)
    config = {
        **get_backend("Vitis").create_initial_config(
            target.part, target.clock_period_ns, io_type=target.io_type
        ),
        "OutputDir": str(target.out),
        "ProjectName": target.top,
        "Backend": "Vitis",
        "HLSConfig": configuration,
    }
    names = {layer.tensor.name: layer.name for layer in layers}
    model = ModelGraph.from_layer_list(
        config,
        [layer.entry() for layer in layers],
        [names[tensor.name] for tensor in graph.inputs],
        [names[name] for name in graph.outputs],
    )
    _verify(model, layers, configuration["LayerName"])
    made = _hls_layers(model, layers, folds)
    preflight.check_reuse(made, folds, configuration["LayerName"])
    depths = _set_depths(model, layers, graph) if target.io_type == "io_stream" else {}
    model.config.trace_output = True
    traced = {layer.hls_name for layer in made}
    for layer in model.get_layers():
        layer.set_attr("trace", layer.name in traced)
    model.write()
    return Written(
        layers=made,
        inputs=_ports(model.get_input_variables(), depths),
        outputs=_ports(model.get_output_variables(), depths),
        weights=_weights(model, layers),
    )


def _configuration(
    graph: FixedGraph,
    layers: Sequence[Layer],
    folding: Mapping[str, Mapping[str, Any]],
    options: Mapping[str, Any],
) -> dict[str, Any]:
    """Return hls4ml's HLSConfig: types, folding and the user's own keys of every layer."""
    by_layer: dict[str, dict[str, Any]] = {}
    for layer in layers:
        node = layer.node
        types = {key: str(dtype) for key, dtype in layer.types.items()}
        own: dict[str, Any] = {}
        if node is not None:
            own = dict(options.get("LayerName", {}).get(node.name, {}))
            types |= _given_types(layer, graph, options)
            own = {**folding.get(node.name, {}), **own}
        by_layer[layer.name] = {**own, "Precision": types}
    general = {
        **{key: value for key, value in options.get("Model", {}).items() if key not in COMMON_KEYS},
        "Precision": {"default": _UNUSED_PRECISION},
        "ReuseFactor": 1,
        "Strategy": "Latency",
    }
    if any(layer.class_name == operators.class_name(Conv) for layer in layers):
        # our conv loops over positions: PIPELINE on the top function would unroll that loop
        general.setdefault("PipelineStyle", "dataflow")
    strategies = {keys["Strategy"] for keys in folding.values()}
    if "Resource" in strategies:
        general["Strategy"] = "Resource"
    return {"Model": general, "LayerName": by_layer}


def _given_types(layer: Layer, graph: FixedGraph, options: Mapping[str, Any]) -> dict[str, str]:
    """Return the types that the user gives for a layer, after they were found wide enough."""
    node = layer.node
    assert node is not None
    general, own = precisions(options, node.name)
    given = {**{key: text for key, text in general.items() if key in layer.types}, **own}
    wanted = {key: _parsed(node.name, key, text) for key, text in given.items()}
    preflight.check_precisions(node, wanted, layer.types, graph.tensors[node.inputs[0]].dtype)
    return given


def _parsed(layer: str, key: str, text: str) -> FixedPoint:
    from hls4ml.backends import get_backend

    try:
        return _dtype(get_backend("Vitis").convert_precision_string(text))
    except (AttributeError, ValueError, IndexError, TypeError) as error:
        raise ConfigError(
            f"[hls]: Precision.{key} of layer {layer!r} must be a type such as fixed<16,6>, not {text!r}; "
            "leave it out for the exact one"
        ) from error


def _dtype(precision: Any) -> FixedPoint:
    integer = int(precision.integer)
    return FixedPoint(bool(precision.signed), integer, int(precision.width) - integer)


def _verify(model: Any, layers: Sequence[Layer], keys: Mapping[str, Mapping[str, Any]]) -> None:
    """Check that hls4ml left every layer, type and shape as they were given, and added copies of streams only."""
    found = dict(model.graph)
    for layer in layers:
        made = found.pop(layer.name, None)
        if made is None and layer.class_name == "Reshape":
            continue  # the last one of io_parallel has nothing to do
        if made is None or made.class_name not in (layer.class_name, f"Pointwise{layer.class_name}"):
            raise _changed(layer, "kind", layer.class_name, made and made.class_name)
        variable = made.get_output_variable()
        if _dtype(variable.type.precision) != layer.types["result"]:
            raise _changed(layer, "type", layer.types["result"], _dtype(variable.type.precision))
        if tuple(variable.shape) != layer.tensor.shape:
            raise _changed(layer, "shape", layer.tensor.shape, tuple(variable.shape))
        for key in ("accum", "weight", "bias"):
            if key in layer.types:
                wanted = _parsed(layer.name, key, keys[layer.name]["Precision"][key])
                if _dtype(made.get_attr(f"{key}_t").precision) != wanted:
                    raise _changed(layer, key, wanted, _dtype(made.get_attr(f"{key}_t").precision))
    for name, made in found.items():
        if made.class_name == "Clone":
            wanted = _dtype(made.get_input_variable().type.precision)
            if any(_dtype(copy.type.precision) != wanted for copy in made.get_variables()):
                raise MismatchError(
                    f"convert: hls4ml must keep the type of {name!r}, {wanted}, not change it; report the network"
                )
        else:
            raise MismatchError(
                f"convert: hls4ml must add nothing but copies of streams, not {name!r} ({made.class_name}); "
                "report the network"
            )


def _changed(layer: Layer, what: str, wanted: Any, got: Any) -> MismatchError:
    return MismatchError(
        f"convert: hls4ml must keep the {what} of layer {layer.name!r}, {wanted}, not make it {got}; "
        "report the network"
    )


def _hls_layers(model: Any, layers: Sequence[Layer], folds: Sequence[Fold]) -> tuple[HlsLayer, ...]:
    """Return the layers of the C++ that compute something; a reshape only moves it."""
    by_name = {fold.name: fold for fold in folds}
    made = []
    for layer in layers:
        if layer.node is None or isinstance(layer.node, Reshape):
            continue
        fold = by_name.get(layer.node.name)
        reuse = int(model.graph[layer.name].get_attr("reuse_factor")) if fold else None
        made.append(
            HlsLayer(
                name=layer.node.name,
                hls_name=layer.name,
                kind=model.graph[layer.name].class_name,
                tensor=layer.tensor.name,
                shape=layer.tensor.shape,
                dtype=layer.tensor.dtype,
                reuse_factor=reuse,
                multipliers=fold.multipliers(reuse) if fold and reuse else None,
            )
        )
    return tuple(made)


def _set_depths(model: Any, layers: Sequence[Layer], graph: FixedGraph) -> dict[str, int]:
    """Give every stream the depth it needs; returns the depths by the names of the variables."""
    by_name = {layer.name: layer for layer in layers}
    made = [(made, by_name.get(made.name)) for made in model.get_layers()]
    shown = [
        Part(part.name, part.class_name, tuple(part.inputs), tuple(part.outputs), layer)
        for part, layer in made
    ]
    found = depths(processes(shown, tuple(model.outputs), graph))
    by_variable = {}
    for part, _ in made:
        for name in part.outputs:
            variable = part.variables[name]
            if variable.pragma:
                depth = found[name]
                variable.pragma = ("stream", depth)
                by_variable[variable.name] = depth
    return by_variable


def _ports(variables: Sequence[Any], depths: Mapping[str, int]) -> tuple[tuple[str, int], ...]:
    return tuple((variable.type.name, depths.get(variable.name, 0)) for variable in variables)


def _weights(model: Any, layers: Sequence[Layer]) -> dict[str, tuple[np.ndarray, int]]:
    """Return the integers that each weights file must hold, in its order, and their fraction bits."""
    files: dict[str, tuple[np.ndarray, int]] = {}
    for layer in layers:
        made = model.graph.get(layer.name)
        for key, variable in made.weights.items() if made is not None else ():
            fraction = _dtype(variable.type.precision).fraction_bits
            values = np.ldexp(np.asarray(variable.data, dtype=np.float64).reshape(-1), fraction)
            files[variable.name] = values.astype(np.int64), fraction
            node = layer.node
            if isinstance(node, Dense | Conv) and key == "weight" and layer.multiplies:
                resource = str(made.get_attr("strategy")).lower() == "resource"
                own = node.weight if resource else np.moveaxis(node.weight, 0, -1)
                files[variable.name] = own.reshape(-1) << fraction - node.weight_dtype.fraction_bits, fraction
            if isinstance(node, Dense | Conv) and key == "bias" and "bias" in layer.types:
                assert node.bias is not None
                assert node.bias_dtype is not None
                files[variable.name] = node.bias << (fraction - node.bias_dtype.fraction_bits), fraction
    return files
