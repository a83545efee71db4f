"""hls4ml's only home: configuration, conversion, and what it wrote, layer by layer."""

from __future__ import annotations

import contextlib
import difflib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flow import qonnx_graph
from flow.convert.folding import Fold, choose
from flow.errors import ConfigError, FlowError, UnsupportedError
from flow.types import FixedPoint, HlsLayer, Port

DEFAULT_PRECISION = "fixed<16,6>"
HLS_KEYS = ("ReuseFactor", "Strategy", "Precision", "Model", "LayerName")
_MULTIPLYING = ("Conv", "MatMul")


def write_project(
    graph: Any,
    out: Path,
    *,
    top: str,
    io_type: str,
    part: str,
    clock_period_ns: float,
    dsps: int,
    input_dtype: FixedPoint,
    options: Mapping[str, Any],
) -> tuple[tuple[HlsLayer, ...], Port]:
    """Convert a channels-last graph and write hls4ml's project; returns its layers and its output."""
    import hls4ml

    said = io.StringIO()  # hls4ml reports by printing
    try:
        with contextlib.redirect_stdout(said):
            config = hls4ml.utils.config_from_onnx_model(
                graph, granularity="name", backend="Vitis", default_precision=DEFAULT_PRECISION
            )
            _configure(config, graph, input_dtype, options, dsps, io_type)
            model = hls4ml.converters.convert_from_onnx_model(
                graph,
                hls_config=config,
                backend="Vitis",
                io_type=io_type,
                output_dir=str(out),
                project_name=top,
                part=part,
                clock_period=clock_period_ns,
            )
            folds = folds_of(graph, io_type)
            layers = _layers(model, graph, folds)
            _check_reuse(layers, folds, config)
            traced = {layer.hls_name for layer in layers}
            model.config.trace_output = True
            for layer in model.get_layers():
                layer.set_attr("trace", layer.name in traced)
            model.write()
    except (FlowError, OSError):
        raise
    except Exception as error:
        raise UnsupportedError(
            f"convert: hls4ml refuses the network: {type(error).__name__}: {error}; "
            "see docs/architecture.md for what converts"
        ) from error
    result = next(iter(model.get_output_variables()))
    return layers, Port(result.name, tuple(result.shape), _dtype(result.type.precision))


def _configure(
    config: dict[str, Any],
    graph: Any,
    input_dtype: FixedPoint,
    options: Mapping[str, Any],
    dsps: int,
    io_type: str,
) -> None:
    """Complete hls4ml's configuration in place: input type, folding, the user's own keys."""
    for key in options:
        if key not in HLS_KEYS:
            near = difflib.get_close_matches(key, HLS_KEYS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(HLS_KEYS)}"
            raise ConfigError(f"[hls]: key must be one of hls4ml's, not {key!r}; {hint}")
    by_layer = config["LayerName"]
    source = graph.graph.input[0].name
    by_layer[source]["Precision"]["result"] = _hls_type(input_dtype)
    folds = folds_of(graph, io_type)
    config["Model"].update(options.get("Model", {}))
    for key in ("ReuseFactor", "Strategy"):
        if key in options:
            config["Model"][key] = options[key]
            for fold in folds:
                by_layer[fold.name][key] = options[key]
    if "Precision" in options:
        config["Model"]["Precision"] = options["Precision"]
    if "ReuseFactor" not in options and options.get("Strategy", "Resource").lower() == "resource":
        config["Model"]["Strategy"] = "Resource"
        for name, factor in choose(folds, dsps).items():
            by_layer[name].update(ReuseFactor=factor, Strategy="Resource")
    for name, values in options.get("LayerName", {}).items():
        if name not in by_layer:
            near = difflib.get_close_matches(name, by_layer, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"layers: {', '.join(by_layer)}"
            raise ConfigError(f"[hls.LayerName]: name must be a layer of the network, not {name!r}; {hint}")
        for key, value in values.items():
            if isinstance(value, Mapping) and isinstance(by_layer[name].get(key), dict):
                by_layer[name][key].update(value)
            else:
                by_layer[name][key] = value


def folds_of(graph: Any, io_type: str) -> list[Fold]:
    """Return the layers that multiply, with their shapes.

    hls4ml's io_parallel conv computes wrongly, without a word, when the reuse factor exceeds its inputs.
    """
    folds = []
    for node in qonnx_graph.compute_nodes(graph):
        if node.op_type not in _MULTIPLYING:
            continue
        weight = graph.get_tensor_shape(node.input[1])
        result = graph.get_tensor_shape(node.output[0])
        if node.op_type == "Conv":
            outputs, height, width, inputs = weight
            positions = result[1] * result[2]
            limited = io_type == "io_parallel"
            folds.append(Fold(node.name, height * width * inputs, outputs, positions, limited))
        else:
            folds.append(Fold(node.name, weight[0], weight[1], 1))
    return folds


def _hls_type(dtype: FixedPoint) -> str:
    return f"{'' if dtype.signed else 'u'}fixed<{dtype.width},{dtype.integer_bits},RND_CONV,SAT>"


def _dtype(precision: Any) -> FixedPoint:
    integer = int(precision.integer)
    return FixedPoint(bool(precision.signed), integer, int(precision.width) - integer)


def _layers(model: Any, graph: Any, folds: list[Fold]) -> tuple[HlsLayer, ...]:
    """Return the layers of the C++ that stand for a tensor of the graph."""
    known = set(qonnx_graph.activations(graph))
    by_name = {fold.name: fold for fold in folds}
    layers = []
    for layer in model.get_layers():
        tensor = layer.outputs[0]
        if tensor not in known or layer.class_name in ("Input", "Reshape"):
            continue
        node = graph.find_producer(tensor)
        variable = layer.get_output_variable()
        fold = by_name.get(node.name)
        reuse = int(layer.get_attr("reuse_factor")) if fold else None
        layers.append(
            HlsLayer(
                name=node.name,
                hls_name=layer.name,
                kind=layer.class_name,
                tensor=_golden_tensor(graph, tensor),
                shape=tuple(int(extent) for extent in variable.shape),
                dtype=_dtype(variable.type.precision),
                reuse_factor=reuse,
                multipliers=fold.multipliers(reuse) if fold and reuse else None,
            )
        )
    return tuple(layers)


def _golden_tensor(graph: Any, tensor: str) -> str:
    """Follow a tensor through what hls4ml folds into the layer: its bias and its quantizer."""
    while True:
        readers = graph.find_consumers(tensor) or []
        if len(readers) != 1:
            return tensor
        reader = readers[0]
        folded = reader.op_type == "Quant" and reader.input[0] == tensor
        if reader.op_type == "Add":
            folded = any(name not in qonnx_graph.activations(graph) for name in reader.input)
        if not folded:
            return tensor
        tensor = reader.output[0]


def _check_reuse(layers: tuple[HlsLayer, ...], folds: list[Fold], config: Mapping[str, Any]) -> None:
    """Refuse reuse factors that hls4ml would replace or compute wrongly with."""
    legal = {fold.name: fold.legal for fold in folds}
    for layer in layers:
        if layer.reuse_factor is None:
            continue
        options = config["LayerName"].get(layer.name, {})
        wanted = options.get("ReuseFactor", layer.reuse_factor)
        resource = str(options.get("Strategy", "")).lower() == "resource"
        if wanted != layer.reuse_factor or (resource and wanted not in legal[layer.name]):
            raise ConfigError(
                f"[hls]: ReuseFactor of layer {layer.name!r} must be one of "
                f"{', '.join(map(str, legal[layer.name]))}, not {wanted}; give one of them, or leave it out"
            )
