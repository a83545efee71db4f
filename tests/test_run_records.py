"""The stages' dataclasses as JSON and back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from flow.errors import ConfigError
from flow.run import records
from flow.types import FixedPoint, FloatBound, Port, Quantized

PATHS = {"onnx_path": Path("model.onnx"), "golden_path": Path("golden.npz")}


def quantized(**changes: Any) -> Quantized:
    values: dict[str, Any] = {
        "inputs": (Port("x", (8, 8, 1), FixedPoint(True, 1, 7), 1.0),),
        "accuracy": 0.5,
        "samples": 3,
        "bias_bits": {"fc": 9},
        "weight_bits": {"fc": 4},
        "activation_bits": {},
        "float_bound": FloatBound(0.5, 0.25, 1, 2, 0),
        **PATHS,
    }
    return Quantized(**{**values, **changes})


@pytest.mark.parametrize("made", [quantized(), quantized(accuracy=None, float_bound=None, inputs=())])
def test_a_record_comes_back_equal(made: Quantized) -> None:
    text = json.dumps(records.values(made), allow_nan=False)
    assert records.read(Quantized, json.loads(text), "quantize", **PATHS) == made
    assert "onnx_path" not in text


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"inputs": [{"name": "x"}]}, "required field missing @ $.inputs[0].shape"),
        ({"samples": "many"}, "$.samples"),
    ],
)
def test_a_record_of_another_form_is_refused(change: dict[str, Any], what: str) -> None:
    values = {**records.values(quantized()), **change}
    with pytest.raises(ConfigError) as error:
        records.read(Quantized, values, "quantize", **PATHS)
    assert str(error.value).startswith("quantize: cached result must hold a Quantized, not differ (")
    assert what in str(error.value) and str(error.value).endswith("; run again with --from quantize")
