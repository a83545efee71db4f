"""What the config alone can tell is told before any training, and before anything is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flow.errors import FlowError
from flow.run import pipeline

NET = {"name": "net", "model": {"source": "flow.demo:digits_cnn"}}
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"train": {"epochs": -1}}, "train: epochs must be at least 0, not -1; 20 to 100 is usual"),
    ({"train": {"batch_size": 1}}, "train: batch_size must be at least 2, not 1; 64 is usual"),
    (
        {"train": {"optimizer": "adam"}},
        "optimizer: name must be one of adamw, sgd, not 'adam'; did you mean 'adamw'?",
    ),
    (
        {"train": {"momentum": 0.9}},
        "optimizer: momentum must be 0 with adamw, not 0.9; leave it out, or choose sgd",
    ),
    (
        {"prune": {"pruning_ratio": 1.5}},
        "prune: pruning_ratio must be in [0, 1), not 1.5; 0.5 removes half of the channels",
    ),
    (
        {"prune": {"schedule": "cubics", "pruning_ratio": 0.5}},
        "prune: schedule must be one of pwe, linear, cubic, one-shot, not 'cubics'",
    ),
    (
        {"prune": {"schedule": "linear"}},
        "prune: pruning_ratio must be given where there is no data, or a schedule of fixed steps, not left "
        "out; try 0.5",
    ),
    (
        {"prune": {"budget": {"luts": 0.0}}},
        "prune: budget luts must be above 0, not 0.0; leave it out for no limit",
    ),
    (
        {"prune": {"regularizer": "lobstr"}},
        "prune: regularizer must be one of sensitivity, sensitivity-lower-bound, lobster, neuron-lobster, serene, "
        "serene-lower-bound, serene-local, not 'lobstr'",
    ),
    ({"simplify": {"samples": 0}}, "simplify: samples must be at least 1, not 0; 256 is usual"),
    ({"quantize": {"weight_bits": 99}}, "quantize: weight_bits must be in 1 to 16, not 99; 4 to 8 is usual"),
    ({"quantize": {"input_bits": 0}}, "quantize: input_bits must be in 1 to 16, not 0; 4 to 8 is usual"),
    (
        {"quantize": {"layers": {"conv1": {"weight_bits": 0}}}},
        "quantize: weight_bits of layer 'conv1' must be in 1 to 16, not 0; 4 to 8 is usual",
    ),
    (
        {"quantize": {"layers": {"conv1": {"bits": 4}}}},
        "quantize: layer 'conv1' must have widths among weight_bits, activation_bits, bias_bits, not 'bits'; "
        "correct its key",
    ),
    (
        {"quantize": {"scales": "any"}},
        "quantize: scales must be one of power-of-two, free, not 'any'; power-of-two needs no multipliers",
    ),
    (
        {"quantize": {"max_accuracy_drop": 0.01, "bit_budget": {"luts": 9.0}}},
        "quantize: max_accuracy_drop or bit_budget must be given for a search, not both or neither; "
        "0.01 allows one point",
    ),
    (
        {"quantize": {"max_accuracy_drop": 0.01, "candidate_bits": [0, 4]}},
        "quantize: candidate_bits must be widths in 1 to 16, not [0, 4]; [2, 3, 4, 6, 8] is usual",
    ),
    (
        {"hls": {"Strategy": "Fast"}},
        "[hls]: Strategy must be one of Latency, Resource, not 'Fast'; give one of them",
    ),
    (
        {"synth_clk_period_ns": -5.0},
        "config: synth_clk_period_ns must be above 0, not -5.0; leave it out for the board's",
    ),
    (
        {"emulate": {"header": "mine"}},
        "[emulate]: header must be one of light, vendor, not 'mine'; give one of them",
    ),
    (
        {"emulate": {"rtl": True}, "rtl": {"interval_cycles": 9, "target_fps": 1.0}},
        "rtl: either interval_cycles or target_fps must be given, not both; leave one out",
    ),
    (
        {"synthesize": {"toolchain": "open", "cosim": True}},
        "synthesize: cosim must be left out with the open toolchain, which has none, not be True; leave it out, or "
        "choose --toolchain vitis",
    ),
    (
        {"board": "kv260", "synthesize": {"toolchain": "open"}},
        "synthesize: toolchain for board 'kv260' must be one of vitis, not 'open'; choose another board or toolchain",
    ),
]


@pytest.mark.parametrize(("change", "message"), WRONG, ids=[str(change) for change, _ in WRONG])
def test_an_option_that_cannot_work_is_told_first(
    change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(FlowError) as error:
        pipeline.run({**NET, **change}, out=tmp_path / "out")
    assert str(error.value) == message
    assert not (tmp_path / "out").exists()


def test_what_lies_behind_the_last_stage_is_not_looked_at(tmp_path: Path) -> None:
    config = {**NET, "train": {"epochs": 0}, "emulate": {"compiler": "no-such-compiler"}}
    assert pipeline.run(config, out=tmp_path / "out", last="train")["cached.train"] is False
