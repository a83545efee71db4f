"""The keys of ``[hls]``: checked before hls4ml, which passes over what it does not know."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from flow.errors import ConfigError

COMMON_KEYS = ("ReuseFactor", "Strategy", "Precision")
HLS_KEYS = (*COMMON_KEYS, "Model", "LayerName")
_MORE_KEYS = ("TargetCycles", "ConvImplementation")
MODEL_KEYS = (*COMMON_KEYS, *_MORE_KEYS, "BramFactor", "PipelineStyle", "PipelineInterval", "TraceOutput")
LAYER_KEYS = (*COMMON_KEYS, *_MORE_KEYS, "ParallelizationFactor", "Trace")
PRECISION_KEYS = ("accum", "weight", "bias", "result")
STRATEGIES = ("Latency", "Resource")


def check_options(options: Mapping[str, Any], layers: Sequence[str] | None) -> None:
    """Refuse keys, names and values that hls4ml would pass over in silence.

    Args:
        options: the table ``[hls]``.
        layers: names of the network's layers; None: not known yet.

    Raises:
        ConfigError: with the nearest name.
    """
    _check_table("[hls]", options, HLS_KEYS)
    if "Model" in options:
        _check_table("[hls.Model]", options["Model"], MODEL_KEYS)
    by_layer = options.get("LayerName", {})
    _check_is_table("[hls.LayerName]", by_layer)
    for name, values in by_layer.items():
        if layers is not None and name not in layers:
            raise ConfigError(
                f"[hls.LayerName]: name must be a layer of the network, not {name!r}; "
                f"{_nearest(name, layers, 'layers')}"
            )
        _check_table(f"[hls.LayerName.{name}]", values, LAYER_KEYS)


def for_all(options: Mapping[str, Any], key: str) -> Any:
    """Return what ``[hls]``, or else ``[hls.Model]``, says for all layers; None where neither does."""
    return options.get(key, options.get("Model", {}).get(key))


def precisions(options: Mapping[str, Any], layer: str) -> tuple[dict[str, str], dict[str, str]]:
    """Return the types that ``[hls]`` asks for: for all layers, and for one layer."""
    own = options.get("LayerName", {}).get(layer, {}).get("Precision", {})
    return dict(for_all(options, "Precision") or {}), dict(own)


def _check_table(table: str, values: Any, known: Sequence[str]) -> None:
    _check_keys(table, values, known)
    if "Precision" in values:
        _check_precision(table, values["Precision"])
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


def _check_precision(table: str, values: Any) -> None:
    if not isinstance(values, Mapping):
        raise ConfigError(
            f"{table}: Precision must be a table of {', '.join(PRECISION_KEYS)}, not {values!r}; "
            "leave it out: every type follows from the quantized network, whose widths belong to [quantize]"
        )
    _check_keys(f"{table[:-1]}.Precision]", values, PRECISION_KEYS)


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
