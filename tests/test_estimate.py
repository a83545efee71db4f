"""The estimator: its rules against counting by hand, its laws, and its figures against real reports."""

import csv
import os
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flow.boards import load
from flow.estimate import (
    MAX_UNROLL,
    NAMES,
    Work,
    constant_digits,
    constants,
    design_cost,
    layer_cost,
    limits,
    on_board,
    parts,
)
from flow.estimate.io_types import IO_TYPES
from flow.estimate.parts import memory_blocks
from flow.estimate.work import takes_dsp

ROOT = Path(__file__).parents[1]


def dense(inputs: int, outputs: int, bits: int = 6, weight_bits: int = 6) -> Work:
    weight = np.random.default_rng(0).integers(
        -(2 ** (weight_bits - 1)), 2 ** (weight_bits - 1), (outputs, inputs)
    )
    digits, wide = constant_digits(weight, bits)
    return Work(
        "layer",
        "product",
        inputs,
        outputs,
        bits,
        bits + weight_bits + 4,
        weight_bits,
        digits=digits,
        wide=wide,
    )


def conv(inputs: int = 27, outputs: int = 8) -> Work:
    return replace(dense(inputs, outputs), positions=36, scans=64, line_bits=2 * 8 * 3 * 6, window=True)


def signed_digits(value: int) -> int:
    """Return the non-zero digits of the non-adjacent form, digit by digit."""
    count = 0
    while value:
        if value % 2:
            digit = 2 - value % 4
            count += 1
            value -= digit
        value //= 2
    return count


@pytest.mark.parametrize("input_bits", [4, 8, 16])
def test_digits_of_constants_are_those_of_the_non_adjacent_form(input_bits: int) -> None:
    values = np.arange(-300, 301)
    digits = wide = 0
    for value in map(int, values):
        odd = abs(value)
        while odd and odd % 2 == 0:
            odd //= 2
        in_dsp = signed_digits(abs(value)) >= 3 and takes_dsp(input_bits, odd.bit_length() + 1)
        wide += in_dsp
        digits += 0 if in_dsp else signed_digits(abs(value))
    assert constant_digits(values, input_bits) == (digits, wide)
    assert wide > 0 if input_bits == 16 else wide == 0 or input_bits == 8


def test_zeros_and_powers_of_two_are_all_but_free() -> None:
    assert constant_digits(np.zeros((3, 4), dtype=np.int64), 16) == (0, 0)
    assert constant_digits(np.array([1, -2, 4, -128, 0]), 16) == (4, 0)


@pytest.mark.parametrize(
    ("bits", "taken"), [((16, 6), True), ((16, 4), False), ((7, 7), False), ((16, 7), True)]
)
def test_multipliers_take_a_slice_where_real_reports_show_one(bits: tuple[int, int], taken: bool) -> None:
    assert takes_dsp(*bits) is taken
    assert takes_dsp(*bits[::-1]) is taken


@pytest.mark.parametrize(
    ("bits", "depth", "blocks"),
    [
        (512, 384, 15),
        (784, 896, 44),
        (224, 64, 7),
        (35, 32, 1),
        (36, 512, 1),
        (36, 513, 2),
        (1, 16384, 1),
        (1, 16385, 2),
    ],
)
def test_memories_take_whole_blocks(bits: int, depth: int, blocks: int) -> None:
    assert memory_blocks(bits, depth) == blocks


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 64),
    st.integers(1, 64),
    st.integers(2, 16),
    st.integers(1, 16),
    st.sampled_from(IO_TYPES),
)
def test_more_reuse_never_takes_more_multipliers(
    inputs: int, outputs: int, bits: int, weight_bits: int, io_type: str
) -> None:
    work = dense(inputs, outputs, bits, weight_bits)
    folded = [r for r in work.reuse_factors(io_type) if r > 1]
    costs = [layer_cost(work, reuse, io_type) for reuse in folded]
    made = [parts(work, reuse, io_type) for reuse in folded]
    for small, large in zip(range(len(folded)), range(1, len(folded)), strict=False):
        assert costs[large].dsps <= costs[small].dsps
        assert costs[large].interval_cycles > costs[small].interval_cycles
        for name in ("multiplier_bits", "sum_bits"):
            assert made[large].luts[name] <= made[small].luts[name]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 2, 5]), st.sampled_from(IO_TYPES))
def test_a_larger_layer_never_takes_less(inputs: int, outputs: int, factor: int, io_type: str) -> None:
    small, large = dense(inputs, outputs), dense(inputs * factor, outputs)
    before, after = (layer_cost(work, 1, io_type) for work in (small, large))
    if factor > 1:
        assert after.luts >= before.luts
        assert after.flip_flops >= before.flip_flops


@pytest.mark.parametrize("io_type", IO_TYPES)
def test_every_offered_factor_is_legal_and_below_the_unroll_limit(io_type: str) -> None:
    work = dense(300, 200)
    factors = work.reuse_factors(io_type)
    assert 1 not in factors
    assert all(work.multipliers(factor) <= MAX_UNROLL for factor in factors)
    assert all(300 % f == 0 or (f % 300 == 0 and 200 % (f // 300) == 0) for f in factors)


def test_convs_in_io_parallel_are_not_folded_beyond_their_inputs() -> None:
    assert max(conv().reuse_factors("io_parallel")) == 27
    assert max(conv().reuse_factors("io_stream")) == 27 * 8
    assert max(replace(conv(), own_kernel=True).reuse_factors("io_stream")) == 27


def test_a_stream_takes_a_cycle_a_position_and_a_fold_its_reuse() -> None:
    plain = layer_cost(conv(), 1, "io_stream").interval_cycles
    assert 64 <= plain <= 70
    assert layer_cost(conv(), 27, "io_stream").interval_cycles > 36 * 27
    assert layer_cost(conv(), 27, "io_parallel").interval_cycles == 36 * 27
    assert layer_cost(dense(16, 8), 8, "io_parallel").interval_cycles == 8


def test_a_design_is_the_sum_of_its_layers_and_as_slow_as_the_slowest() -> None:
    layers = [layer_cost(dense(16, 8), reuse, "io_parallel") for reuse in (2, 8)]
    design = design_cost(layers, "io_parallel")
    assert design.interval_cycles == 8
    assert design.dsps == sum(layer.dsps for layer in layers)
    assert design.luts == sum(layer.luts for layer in layers) + round(constants()["luts"]["design"])
    assert design_cost(layers, "io_stream").tail_cycles == design.tail_cycles + 8


def test_what_a_board_must_offer_holds_margin_and_shell() -> None:
    empty = on_board(())
    assert empty[NAMES.index("luts")] > constants()["shell"]["luts"] > 1000
    work = dense(16, 8)
    cost = layer_cost(work, 4, "io_parallel")
    taken = on_board([(work, 4, cost)])
    share, margin = constants()["placed"]["luts"], constants()["margin"]["resource"]["luts"]
    assert taken[0] - empty[0] == pytest.approx(cost.luts * (1 + margin) * share)
    assert all(t >= e for t, e in zip(taken, empty, strict=True))


def test_limits_are_those_of_the_board_and_none_is_no_limit() -> None:
    resources = load("pynq-z2").resources
    assert limits(resources) == (53_200, 106_400, 220, 280)
    assert limits(replace(resources, dsps=None))[2] == float("inf")


# ---------------------------------------------------------------- real reports


@cache
def real_rows() -> list[dict[str, str]]:
    path = (
        Path(os.environ.get("FLOW_SHARED", ROOT.parent / "shared"))
        / "vendor/dense_layers_csynth/results_format_test.csv"
    )
    if not path.is_file():
        pytest.skip(f"{path} is missing")
    with path.open(encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if row["hls_synth_success"] == "TRUE"]


def test_real_folded_layers_have_the_predicted_multipliers_memories_and_cycles() -> None:
    misses: dict[str, int] = {"dsps": 0, "blocks": 0, "interval_cycles": 0}
    rows = [row for row in real_rows() if row["strategy"] == "resource" and int(row["rf"]) > 1]
    for row in rows:
        work = Work("layer", "product", int(row["d_in"]), int(row["d_out"]), 16, 16, int(row["prec"]))
        cost = layer_cost(work, int(row["rf"]), "io_parallel")
        # up to 7 of 100 multipliers of 6 bits are optimized away
        misses["dsps"] += abs(cost.dsps - int(row["DSP_hls"])) > max(1, cost.dsps // 14)
        misses["blocks"] += cost.blocks != int(row["BRAM_18K_hls"])
        misses["interval_cycles"] += cost.interval_cycles != int(row["IntervalMax_hls"])
    assert len(rows) == 871
    assert misses["dsps"] == misses["interval_cycles"] == 0
    assert misses["blocks"] <= len(rows) // 8


def test_real_folded_layers_have_the_predicted_luts_and_flip_flops() -> None:
    errors = []
    for row in real_rows():
        if row["strategy"] == "resource" and int(row["rf"]) > 1:
            work = Work("layer", "product", int(row["d_in"]), int(row["d_out"]), 16, 16, int(row["prec"]))
            design = design_cost([layer_cost(work, int(row["rf"]), "io_parallel")], "io_parallel")
            true = (int(row["LUT_hls"]), int(row["FF_hls"]))
            errors.append([abs(p - t) / t for p, t in zip(design.amounts()[:2], true, strict=True)])
    luts, flip_flops = np.quantile(np.array(errors), 0.9, axis=0)
    assert luts < 0.12
    assert flip_flops < 0.12


@pytest.mark.parametrize(
    ("io_type", "luts", "interval"), [("io_stream", 36_782, 69), ("io_parallel", 33_085, 64)]
)
def test_a_real_network_is_predicted(io_type: str, luts: int, interval: int) -> None:
    """The MLP 16-64-32-32-5 of shared/vendor's PYNQ-Z2 designs: 21 DSP slices, 20 blocks."""
    layers = []
    for inputs, outputs, bits, reuse in ((16, 64, 16, 64), (64, 32, 7, 64), (32, 32, 7, 64), (32, 5, 7, 32)):
        layers.append(layer_cost(Work("fc", "product", inputs, outputs, bits, 16, 7), reuse, io_type))
        after = (
            Work("softmax", "softmax", 1, 5, 16, 16)
            if outputs == 5
            else Work("r", "rescale", 1, outputs, 16, 7)
        )
        layers.append(layer_cost(after, 1, io_type))
    design = design_cost(layers, io_type)
    assert (design.dsps, design.blocks) == (21, 20)
    assert abs(design.interval_cycles - interval) <= 1
    assert 0.95 * luts <= design.luts <= 1.2 * luts
