"""hls4ml's only home: configuration, conversion, and what it wrote, layer by layer."""

from __future__ import annotations

import contextlib
import difflib
import io
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flow import qonnx_graph
from flow.convert.folding import Fold, choose
from flow.errors import ConfigError, FlowError, UnsupportedError
from flow.types import FixedPoint, HlsLayer, Port

DEFAULT_PRECISION = "fixed<16,6>"
_COMMON_KEYS = ("ReuseFactor", "Strategy", "Precision")
HLS_KEYS = (*_COMMON_KEYS, "Model", "LayerName")
_MORE_KEYS = ("TargetCycles", "ConvImplementation", "Compression")
MODEL_KEYS = (*_COMMON_KEYS, *_MORE_KEYS, "BramFactor", "PipelineStyle", "PipelineInterval", "TraceOutput")
LAYER_KEYS = (*_COMMON_KEYS, *_MORE_KEYS, "ParallelizationFactor", "TableSize", "Trace")
PRECISION_KEYS = ("default", "maximum", "result", "accum", "weight", "bias", "table")
STRATEGIES = ("Latency", "Resource")
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
            f"convert: hls4ml refuses the network: {traceback.format_exception_only(error)[-1].strip()}; "
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
    names = [node.name for node in qonnx_graph.compute_nodes(graph)]
    check_options(options, names)
    by_layer = config["LayerName"]
    by_layer[graph.graph.input[0].name]["Precision"]["result"] = _hls_type(input_dtype)
    folds = folds_of(graph, io_type)
    config["Model"].update(options.get("Model", {}))
    config["Model"].update({key: options[key] for key in _COMMON_KEYS if key in options})
    for_all = {**options.get("Model", {}), **options}
    for key in ("ReuseFactor", "Strategy"):
        if key in for_all:
            for fold in folds:
                by_layer[fold.name][key] = for_all[key]
    if "ReuseFactor" not in for_all and for_all.get("Strategy", "Resource").lower() == "resource":
        config["Model"]["Strategy"] = "Resource"
        for name, factor in choose(folds, dsps).items():
            by_layer[name].update(ReuseFactor=factor, Strategy="Resource")
    for fold in folds:
        if fold.depthwise:
            by_layer[fold.name]["Strategy"] = "Latency"
    for name, values in options.get("LayerName", {}).items():
        for key, value in values.items():
            if isinstance(value, Mapping) and isinstance(by_layer[name].get(key), dict):
                by_layer[name][key].update(value)
            else:
                by_layer[name][key] = value


def check_options(options: Mapping[str, Any], layers: Sequence[str]) -> None:
    """Refuse keys, names and values that hls4ml would pass over in silence.

    Args:
        options: the table ``[hls]``.
        layers: names of the network's layers.

    Raises:
        ConfigError: with the nearest name.
    """
    _check_table("[hls]", options, HLS_KEYS)
    if "Model" in options:
        _check_table("[hls.Model]", options["Model"], MODEL_KEYS)
    by_layer = options.get("LayerName", {})
    _check_is_table("[hls.LayerName]", by_layer)
    for name, values in by_layer.items():
        if name not in layers:
            raise ConfigError(
                f"[hls.LayerName]: name must be a layer of the network, not {name!r}; "
                f"{_nearest(name, layers, 'layers')}"
            )
        _check_table(f"[hls.LayerName.{name}]", values, LAYER_KEYS)


def _check_table(table: str, values: Any, known: Sequence[str]) -> None:
    _check_keys(table, values, known)
    if isinstance(values.get("Precision"), Mapping):
        _check_keys(f"{table[:-1]}.Precision]", values["Precision"], PRECISION_KEYS)
    strategy, reuse = values.get("Strategy", "Latency"), values.get("ReuseFactor", 1)
    if str(strategy).lower() not in map(str.lower, STRATEGIES):
        raise ConfigError(
            f"{table}: Strategy must be one of {', '.join(STRATEGIES)}, not {strategy!r}; give one of them"
        )
    if type(reuse) is not int or reuse < 1:
        raise ConfigError(
            f"{table}: ReuseFactor must be a whole number from 1 on, not {reuse!r}; "
            "leave it out to fold by the board's DSP slices"
        )


def _check_keys(table: str, values: Any, known: Sequence[str]) -> None:
    _check_is_table(table, values)
    for key in values:
        if key not in known:
            raise ConfigError(
                f"{table}: key must be one of hls4ml's, not {key!r}; {_nearest(key, known, 'known keys')}"
            )


def _check_is_table(table: str, values: Any) -> None:
    if not isinstance(values, Mapping):
        raise ConfigError(f"{table} must be a table, not {values!r}; write keys and values under it")


def _nearest(name: str, known: Sequence[str], what: str) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"{what}: {', '.join(known)}"


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
            folds.append(
                Fold(
                    node.name,
                    height * width * inputs,
                    outputs,
                    positions,
                    limited=io_type == "io_parallel",
                    depthwise=any(entry.name == "group" and entry.i > 1 for entry in node.attribute),
                )
            )
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
    written = {name for layer in model.get_layers() for name in layer.outputs}
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
                tensor=_golden_tensor(graph, tensor, written),
                shape=tuple(int(extent) for extent in variable.shape),
                dtype=_dtype(variable.type.precision),
                reuse_factor=reuse,
                multipliers=fold.multipliers(reuse) if fold and reuse else None,
            )
        )
    return tuple(layers)


def _golden_tensor(graph: Any, tensor: str, written: set[str]) -> str:
    """Follow a tensor through what hls4ml has folded into the layer: its bias and its quantizer.

    ``written``: the tensors that the layers of the C++ write; a Precision of the user's keeps layers apart.
    """
    while True:
        readers = graph.find_consumers(tensor) or []
        if len(readers) != 1:
            return tensor
        reader = readers[0]
        if reader.output[0] in written:
            return tensor
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
        resource = options.get("Strategy", "").lower() == "resource"
        if resource and layer.kind.startswith("Depthwise"):
            raise ConfigError(
                f"[hls]: Strategy of layer {layer.name!r} must be Latency, not Resource, which hls4ml has not for "
                "depthwise convs; leave it out"
            )
        if wanted != layer.reuse_factor or (resource and wanted not in legal[layer.name]):
            raise ConfigError(
                f"[hls]: ReuseFactor of layer {layer.name!r} must be one of "
                f"{', '.join(map(str, legal[layer.name]))}, not {wanted}; give one of them, or leave it out"
            )
