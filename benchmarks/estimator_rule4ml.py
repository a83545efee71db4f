"""What rule4ml says about dense layers; run by the interpreter that has it, by estimator.py.

Reads a JSON list of (inputs, outputs, weight bits, reuse factor, strategy) and prints a JSON list of predictions.
The device is that of the rows (Alveo U250); the precision is that of the rows' inputs and sums, 16 bits: rule4ml
has one for a network; with the weights' bits in its place (argument ``weights``) its errors are about the same.
"""

from __future__ import annotations

import json
import sys

import keras
from rule4ml.models.wrappers import MultiModelWrapper

NAMES = {"LUT": "luts", "FF": "flip_flops", "DSP": "dsps", "BRAM": "blocks", "CYCLES": "latency_cycles"}


def main() -> None:
    """Predict row by row."""
    asked = json.load(sys.stdin)
    precision = sys.argv[1] if len(sys.argv) > 1 else "16"
    estimator = MultiModelWrapper()
    estimator.load_default_models()
    networks, known, answers = {}, {}, []
    for inputs, outputs, bits, reuse, strategy in asked:
        width = bits if precision == "weights" else int(precision)
        key = (inputs, outputs, width, reuse, strategy)
        if key not in known:
            if (inputs, outputs) not in networks:
                given = keras.layers.Input(shape=(inputs,))
                networks[inputs, outputs] = keras.Model(given, keras.layers.Dense(outputs)(given))
                networks[inputs, outputs].build((None, inputs))
            whole = max(1, round(width * 6 / 16))
            options = {
                "strategy": strategy.capitalize(),
                "precision": f"ap_fixed<{width},{whole}>",
                "reuse_factor": reuse,
            }
            found = estimator.predict(
                networks[inputs, outputs],
                hls_configs=[{"board": "alveo-u250", "model": options}],
                hls4ml_versions=["1.1.0"],
                vivado_versions=["2023.2"],
            )
            known[key] = {name: float(found[column].iloc[0]) for column, name in NAMES.items()}
        answers.append(known[key])
    print(json.dumps(answers))


if __name__ == "__main__":
    main()
