"""The integer executor: every node beside Python's integers and fractions, in every arithmetic it may choose."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from fixed_reference import reference
from hypothesis import given, settings
from hypothesis import strategies as st

from flow.errors import ConfigError, UnsupportedError
from flow.fixed import graph as g
from flow.fixed.execute import execute
from flow.types import FixedPoint

SAMPLES = 9
KINDS = {"float32": 6, "float64": 20, "int64": 27}
"""Bits of inputs and weights, by the arithmetic that their sums need."""


def signed(bits: int, fraction: int = 0) -> FixedPoint:
    return FixedPoint(True, bits - fraction, fraction)


def unsigned(bits: int, fraction: int = 0) -> FixedPoint:
    return FixedPoint(False, bits - fraction, fraction)


def numbers(dtype: FixedPoint, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Return integers: all at one end, all at the other, zeros, ends mixed, random ones."""
    rng = np.random.default_rng(seed)
    low, high = dtype.minimum_lsb, dtype.maximum_lsb
    made = rng.integers(low, high, shape, endpoint=True)
    made[: len(made) // 2] = rng.choice([low, high, 0, max(low, -1), 1], made[: len(made) // 2].shape)
    for row, value in enumerate((low, high, 0)[: len(made)]):
        made[row] = value
    return made


def tensor(name: str, shape: tuple[int, ...], dtype: FixedPoint) -> g.Tensor:
    return g.Tensor(name, shape, dtype)


def one(node: g.Node, *inputs: g.Tensor) -> g.FixedGraph:
    return g.FixedGraph(inputs, (node,), (node.output.name,))


def check(
    graph: g.FixedGraph, inputs: list[np.ndarray] | None = None, **options: Any
) -> dict[str, np.ndarray]:
    """Assert that the executor gives what the reference does, for every tensor and for the outputs alone."""
    inputs = inputs or [numbers(t.dtype, (SAMPLES, *t.shape), seed) for seed, t in enumerate(graph.inputs)]
    want = reference(graph, inputs)
    got = execute(graph, inputs, every=True, threads=1, **options)
    assert list(got) == list(graph.tensors)
    for name, values in got.items():
        assert values.dtype == np.int64
        assert values.shape == (len(inputs[0]), *graph.tensors[name].shape)
        assert values.tolist() == want[name].tolist(), name
    alone = execute(graph, inputs, threads=1, **options)
    assert list(alone) == list(graph.outputs)
    for name, values in alone.items():
        assert values.tolist() == want[name].tolist(), f"{name} alone"
    return got


# ---------------------------------------------------------------- layers


@pytest.mark.parametrize("bits", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize(("inputs", "outputs"), [(1, 1), (7, 3), (16, 5)])
@pytest.mark.parametrize("biased", [True, False])
def test_dense(bits: int, inputs: int, outputs: int, biased: bool) -> None:
    dtype = signed(bits, 3)
    bias = numbers(signed(bits, 5), (outputs,), 2) if biased else None
    node = g.Dense(
        "fc", ("x",), tensor("y", (outputs,), signed(62, 7)), numbers(signed(bits, 2), (outputs, inputs), 1),
        signed(bits, 2), bias, signed(bits, 5) if biased else None,
    )  # fmt: skip
    check(one(node, tensor("x", (inputs,), dtype)))


SHAPES: list[tuple[Any, ...]] = [
    # image, filters, kernel, strides, pads, dilations, groups
    ((7, 5, 3), 4, (3, 2), (1, 1), ((0, 0), (0, 0)), (1, 1), 1),
    ((7, 5, 3), 4, (3, 3), (2, 1), ((1, 1), (1, 1)), (1, 1), 1),
    ((6, 5, 1), 3, (2, 3), (1, 2), ((0, 1), (2, 0)), (1, 1), 1),
    ((7, 7, 2), 2, (3, 3), (1, 1), ((2, 2), (2, 2)), (2, 2), 1),
    ((5, 4, 6), 6, (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), 6),
    ((5, 4, 6), 9, (2, 2), (1, 1), ((0, 0), (0, 0)), (1, 2), 3),
    ((1, 1, 5), 3, (1, 1), (1, 1), ((0, 0), (0, 0)), (1, 1), 1),
    ((9, 3), 4, (3,), (2,), ((1, 0),), (1,), 1),
    ((9, 4), 4, (3,), (1,), ((2, 2),), (2,), 4),
    ((5, 1), 1, (5,), (1,), ((0, 0),), (1,), 1),
]


def conv(case: tuple[Any, ...], bits: int, biased: bool = True) -> tuple[g.Conv, g.Tensor]:
    image, filters, kernel, strides, pads, dilations, groups = case
    weight = numbers(signed(bits, 4), (filters, *kernel, image[-1] // groups), 1)
    extents = [
        (size + sum(pad) - dilation * (span - 1) - 1) // stride + 1
        for size, span, stride, pad, dilation in zip(image, kernel, strides, pads, dilations, strict=False)
    ]
    node = g.Conv(
        "conv", ("x",), tensor("y", (*extents, filters), signed(62, 6)), weight, signed(bits, 4), strides, pads,
        dilations, groups, numbers(signed(8, 6), (filters,), 2) if biased else None, signed(8, 6) if biased else None,
    )  # fmt: skip
    return node, tensor("x", image, signed(bits, 1))


@pytest.mark.parametrize("bits", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("case", SHAPES, ids=str)
def test_conv(case: tuple[Any, ...], bits: int) -> None:
    node, source = conv(case, bits)
    check(one(node, source), batch=4)


@pytest.mark.parametrize("bits", [6, 27])
def test_conv_without_bias(bits: int) -> None:
    node, source = conv(SHAPES[1], bits, biased=False)
    check(one(node, source))


@pytest.mark.parametrize("samples", [1, 16, 40])
def test_no_fast_transform_rounds_a_conv(samples: int) -> None:
    """Winograd's and Fourier's convs round; the sums here take all of the 24 bits that float32 has."""
    image, weight = signed(9), signed(8)
    node = g.Conv(
        "conv", ("x",), tensor("y", (8, 8, 3), signed(40)), numbers(weight, (3, 3, 3, 7), 1), weight, (1, 1),
        ((1, 1), (1, 1)), (1, 1),
    )  # fmt: skip
    graph = one(node, tensor("x", (8, 8, 7), image))
    check(graph, [numbers(image, (samples, 8, 8, 7), 3)])


@pytest.mark.parametrize("kind", ["max", "sum"])
@pytest.mark.parametrize("dtype", [unsigned(4), signed(5), signed(23), signed(40), signed(56)], ids=str)
@pytest.mark.parametrize(
    ("image", "kernel", "strides", "pads"),
    [
        ((6, 4, 3), (2, 2), (2, 2), ((0, 0), (0, 0))),
        ((7, 5, 2), (3, 3), (2, 1), ((1, 1), (1, 1))),
        ((5, 6, 1), (2, 3), (1, 2), ((0, 1), (1, 0))),
        ((4, 3, 2), (4, 3), (1, 1), ((0, 0), (0, 0))),
        ((9, 3), (3,), (2,), ((1, 1),)),
    ],
)
def test_pool(kind: str, dtype: FixedPoint, image: Any, kernel: Any, strides: Any, pads: Any) -> None:
    extents = [(n + sum(p) - k) // s + 1 for n, k, s, p in zip(image, kernel, strides, pads, strict=False)]
    out = dtype if kind == "max" else signed(dtype.width + 5)
    node = g.Pool("pool", ("x",), tensor("y", (*extents, image[-1]), out), kind, kernel, strides, pads)
    check(one(node, tensor("x", image, dtype)))


# ---------------------------------------------------------------- joins and layouts


@pytest.mark.parametrize("left", [signed(5, 2), signed(24, 2), signed(50, 20), unsigned(7, -3)], ids=str)
@pytest.mark.parametrize("right", [signed(5, 2), unsigned(24, 4), signed(8, -3)], ids=str)
def test_sums_and_concatenations_meet_on_the_finest_grid(left: FixedPoint, right: FixedPoint) -> None:
    finest = max(left.fraction_bits, right.fraction_bits)
    out = signed(62, finest)
    sources = tensor("a", (3, 2), left), tensor("b", (3, 2), right)
    check(one(g.Add("add", ("a", "b"), tensor("y", (3, 2), out)), *sources))
    check(one(g.Add("twice", ("a", "a"), tensor("y", (3, 2), out)), sources[0]))
    check(one(g.Concat("cat", ("b", "a", "b"), tensor("y", (3, 6), out)), *sources))


@pytest.mark.parametrize("bits", [3, 12, 26, 31])
def test_products(bits: int) -> None:
    sources = tensor("a", (2, 3), signed(bits, 1)), tensor("b", (2, 3), unsigned(bits, 2))
    check(one(g.Mul("mul", ("a", "b"), tensor("y", (2, 3), signed(2 * bits + 1, 3))), *sources))
    check(one(g.Mul("square", ("a", "a"), tensor("y", (2, 3), signed(2 * bits, 2))), sources[0]))


@pytest.mark.parametrize("bits", [8, 40, 60])
def test_layouts_keep_the_integers(bits: int) -> None:
    dtype = signed(bits)
    check(one(g.Upsample("up", ("x",), tensor("y", (6, 6, 2), dtype), (3, 2)), tensor("x", (2, 3, 2), dtype)))
    check(one(g.Upsample("up", ("x",), tensor("y", (6, 3), dtype), (2,)), tensor("x", (3, 3), dtype)))
    check(one(g.Reshape("flat", ("x",), tensor("y", (12,), dtype)), tensor("x", (2, 3, 2), dtype)))


# ---------------------------------------------------------------- functions


@pytest.mark.parametrize("bits", [6, 24, 40, 60])
def test_relu(bits: int) -> None:
    check(one(g.Relu("relu", ("x",), tensor("y", (5,), signed(bits))), tensor("x", (5,), signed(bits))))


@pytest.mark.parametrize("bits", [6, 18, 30, 54])
@pytest.mark.parametrize("slopes", [1, 3])
def test_prelu(bits: int, slopes: int) -> None:
    slope = np.array([3, -5, 0])[:slopes]
    node = g.PRelu("act", ("x",), tensor("y", (2, 3), signed(62, 9)), slope, signed(4, 3))
    check(one(node, tensor("x", (2, 3), signed(bits, 5))))


def rescale(
    source: FixedPoint, multiplier: Any, offset: Any, shift: int, rounding: str, low: int, high: int
) -> g.FixedGraph:
    dtype = FixedPoint(low < 0, max(-low - 1, high, 1).bit_length() + (low < 0), 0)
    channels = 3
    node = g.Rescale(
        "q", ("x",), tensor("y", (channels,), dtype), np.array(multiplier), np.array(offset), shift, rounding, low, high
    )  # fmt: skip
    return one(node, tensor("x", (channels,), source))


def near_ties(dtype: FixedPoint, shift: int) -> np.ndarray:
    """Return integers next to every tie and step around zero and at the ends."""
    half, step = (1 << shift >> 1, 1 << shift) if shift > 0 else (0, 1)
    found = {
        np.clip(k * step + side * half + d, dtype.minimum_lsb, dtype.maximum_lsb)
        for k, side, d in itertools.product(range(-4, 5), (-1, 1), (-1, 0, 1))
    }
    ends = [dtype.minimum_lsb, dtype.minimum_lsb + 1, dtype.maximum_lsb - 1, dtype.maximum_lsb]
    values = sorted({int(v) for v in found} | set(ends))
    return np.array(values + values[: -len(values) % 3], dtype=np.int64).reshape(-1, 3)


@pytest.mark.parametrize("rounding", g.ROUNDINGS)
@pytest.mark.parametrize("shift", [-5, -1, 0, 1, 2, 9, 20, 45, 62])
@pytest.mark.parametrize("bits", [6, 24, 25, 50, 62])
def test_a_plain_rescale_rounds_every_way(rounding: str, shift: int, bits: int) -> None:
    source = signed(bits)
    graph = rescale(source, [1], [0], shift, rounding, -8, 7)
    check(graph, [near_ties(source, shift)])
    wide = rescale(source, [1], [0], shift, rounding, -(1 << 58), (1 << 58) - 1)
    check(wide, [near_ties(source, shift)])


@pytest.mark.parametrize("rounding", g.ROUNDINGS)
@pytest.mark.parametrize("shift", [120, 200])
def test_a_shift_beyond_all_bits_still_knows_the_sign(rounding: str, shift: int) -> None:
    check(rescale(signed(10), [1], [0], shift, rounding, -8, 7), [near_ties(signed(10), 4)])


@pytest.mark.parametrize("rounding", g.ROUNDINGS)
@pytest.mark.parametrize(("bits", "factor"), [(8, 5), (8, 40_001), (20, 1 << 30), (30, (1 << 30) - 3)])
@pytest.mark.parametrize("shift", [-2, 3, 17, 40])
def test_multipliers_and_offsets_one_a_channel(rounding: str, bits: int, factor: int, shift: int) -> None:
    offsets = [7, -(1 << max(shift, 1) >> 1), 1 << 44]
    graph = rescale(signed(bits), [factor, -factor, 0], offsets, shift, rounding, -128, 127)
    check(graph)
    check(rescale(signed(bits), [factor], [3], shift, rounding, 0, 63))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_rescale(data: st.DataObject) -> None:
    bits = data.draw(st.integers(2, 40))
    low, high = data.draw(st.tuples(st.integers(-(1 << 20), 0), st.integers(0, 1 << 20)))
    numbers_ = st.integers(-(1 << data.draw(st.integers(0, 20))), 1 << 20)
    graph = rescale(
        signed(bits), data.draw(st.lists(numbers_, min_size=3, max_size=3)),
        data.draw(st.lists(numbers_, min_size=3, max_size=3)), data.draw(st.integers(-10, 55)),
        data.draw(st.sampled_from(g.ROUNDINGS)), low, high,
    )  # fmt: skip
    rows = st.lists(st.integers(-(1 << bits - 1), (1 << bits - 1) - 1), min_size=3, max_size=3)
    check(graph, [np.array(data.draw(st.lists(rows, min_size=1, max_size=4)), dtype=np.int64)])


@pytest.mark.parametrize(("bits", "factor"), [(6, 1), (6, -3), (30, 12345), (40, 1 << 21)])
def test_sign(bits: int, factor: int) -> None:
    out = tensor("y", (3,), signed(2))
    source = tensor("x", (3,), signed(bits))
    for multiplier, offset in (([factor], [0]), ([factor, -factor, 0], [factor, -1, 0])):
        node = g.Sign("sign", ("x",), out, np.array(multiplier), np.array(offset))
        check(one(node, source), [near_ties(signed(bits), 1)])


@pytest.mark.parametrize("source", [signed(5, 2), unsigned(5, 2)], ids=str)
@pytest.mark.parametrize("bits", [8, 40])
def test_a_table_is_looked_up_for_every_code(source: FixedPoint, bits: int) -> None:
    node = g.Table("f", ("x",), tensor("y", (1,), signed(bits)), numbers(signed(bits), (32,), 1))
    codes = np.arange(source.minimum_lsb, source.maximum_lsb + 1)[:, None]
    check(one(node, tensor("x", (1,), source)), [codes])


@pytest.mark.parametrize("bits", [4, 8])
def test_softmax(bits: int) -> None:
    exponential = np.rint(np.exp(-np.arange(1 << bits) / 4) * 2**24).astype(np.int64)
    node = g.Softmax("s", ("x",), tensor("y", (5,), unsigned(16, 16)), exponential)
    got = check(one(node, tensor("x", (5,), signed(bits, 2))))
    assert got["y"].max() == 2**16 - 1 or bits == 4


def test_argmax_takes_the_first_of_equal_ones() -> None:
    node = g.ArgMax("a", ("x",), tensor("y", (1,), unsigned(2)))
    rows = np.array(list(itertools.product((-1, 0, 1), repeat=4)))
    check(one(node, tensor("x", (4,), signed(2))), [rows])


# ---------------------------------------------------------------- whole networks


def network(bits: int, rounding: str = "ROUND", **change: Any) -> g.FixedGraph:
    """Return conv, quantizer, pool, flatten, dense, quantizer: what is computed in one go."""
    first, source = conv(SHAPES[1], bits)
    quantizer = g.Rescale(
        "q1", ("y",), tensor("a", first.output.shape, unsigned(5)), np.array([1]), np.array([0]), bits, rounding, 0, 31
    )  # fmt: skip
    height, width, channels = first.output.shape
    pool = g.Pool("pool", ("a",), tensor("p", (height // 2, width // 2, channels), unsigned(5)), "max", (2, 2), (2, 2),
                  ((0, 0), (0, 0)))  # fmt: skip
    size = pool.output.size
    flat = g.Reshape("flat", ("p",), tensor("f", (size,), unsigned(5)))
    dense = g.Dense(
        "fc", ("f",), tensor("s", (3,), signed(40, 3)), numbers(signed(4, 3), (3, size), 5), signed(4, 3)
    )
    last = g.Rescale(
        "q2", ("s",), tensor("z", (3,), signed(6)), np.array([3, -5, 7]), np.array([9, 0, -4]), 6, rounding, -31, 31
    )  # fmt: skip
    return g.FixedGraph((source,), (first, replace(quantizer, **change), pool, flat, dense, last), ("z",))


@pytest.mark.parametrize("rounding", g.ROUNDINGS)
@pytest.mark.parametrize("bits", KINDS.values(), ids=KINDS)
def test_a_layer_and_its_quantizer_in_one_go(bits: int, rounding: str) -> None:
    check(network(bits, rounding))


WIDER: list[dict[str, Any]] = [
    {"maximum": 1 << 30},
    {"shift": -4},
    {"shift": 130},
    {"multiplier": np.array([1 << 20])},
    {"offset": np.array([1 << 50])},
]


@pytest.mark.parametrize("change", WIDER, ids=str)
def test_a_quantizer_that_needs_wider_numbers_than_its_layer(change: dict[str, Any]) -> None:
    graph = network(6, **change)
    layer, quantizer = graph.nodes[:2]
    shape = layer.output.shape
    nodes = (
        replace(layer, output=tensor("y", shape, signed(30, 6))),
        replace(quantizer, output=tensor("a", shape, unsigned(31))),
    )
    check(g.FixedGraph(graph.inputs, nodes, ("a",)))


def test_a_quantizer_whose_products_fit_its_input_but_not_the_weights_reach() -> None:
    """The layer's type may be narrower than what weights and inputs of their types could give."""
    dtype = signed(30)
    node = g.Dense("fc", ("x",), tensor("y", (3,), signed(31)), np.eye(3, dtype=np.int64), dtype, None, None)
    quantizer = g.Rescale(
        "q", ("y",), tensor("z", (3,), signed(8)), np.array([1 << 31]), np.array([1 << 60]), 55, "ROUND", -128, 127
    )  # fmt: skip
    check(g.FixedGraph((tensor("x", (3,), dtype),), (node, quantizer), ("z",)))


# ---------------------------------------------------------------- parts of a network


def test_sums_that_two_nodes_read_stay() -> None:
    graph = network(6)
    relu = g.Relu("r", ("s",), tensor("r", (3,), signed(40, 3)))
    check(replace(graph, nodes=(*graph.nodes, relu), outputs=("z", "r")))
    check(replace(graph, outputs=("z", "s", "y")))


def test_samples_in_batches_and_threads_are_the_same_in_order() -> None:
    graph = network(6)
    x = [numbers(graph.inputs[0].dtype, (37, *graph.inputs[0].shape))]
    want = execute(graph, x, every=True, batch=37, threads=1)
    told: list[tuple[int, int]] = []

    def progress(done: int, total: int, text: str) -> None:
        told.append((done, total))

    for batch, threads in itertools.product((1, 5, 64, None), (1, 3, None)):
        got = execute(graph, x, every=True, batch=batch, threads=threads, progress=progress)
        assert all(np.array_equal(got[name], want[name]) for name in want)
        assert np.array_equal(execute(graph, x, batch=batch, threads=threads)["z"], want["z"])
    assert told[:3] == [(1, 37), (2, 37), (3, 37)]
    assert told[-1] == (37, 37)


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int64, np.uint8])
def test_integers_of_any_width_are_taken_and_left_alone(dtype: Any) -> None:
    node, source = conv(SHAPES[0], 6)
    x = np.abs(numbers(source.dtype, (3, *source.shape))).clip(0, 31).astype(dtype)
    x.setflags(write=False)
    check(one(node, source), [x])
    wide = g.Relu("r", ("x",), tensor("y", (2,), signed(60)))
    values = np.array([[-5, 5]])
    execute(one(wide, tensor("x", (2,), signed(60))), [values])
    assert values.tolist() == [[-5, 5]]


def test_no_samples_give_no_results() -> None:
    graph = network(6)
    got = execute(graph, [np.zeros((0, *graph.inputs[0].shape), np.int64)])
    assert got["z"].shape == (0, 3)


def test_torch_is_left_as_it_was() -> None:
    graph, threads = network(6), torch.get_num_threads()
    torch.set_float32_matmul_precision("medium")
    try:
        check(graph)
        assert torch.get_float32_matmul_precision() == "medium"
        assert torch.get_num_threads() == threads
    finally:
        torch.set_float32_matmul_precision("highest")


# ---------------------------------------------------------------- refusals


def refused(graph: g.FixedGraph, inputs: list[np.ndarray], kind: Any = ConfigError) -> str:
    with pytest.raises(kind) as error:
        execute(graph, inputs)
    return str(error.value)


def test_inputs_that_do_not_fit_are_refused() -> None:
    node = g.Add("add", ("a", "b"), tensor("y", (2,), signed(9)))
    graph = one(node, tensor("a", (2,), signed(8)), tensor("b", (2,), signed(8)))
    x = np.zeros((4, 2), np.int64)
    assert refused(graph, [x]) == (
        "execute: inputs must be 2 arrays of equally many samples, not (4, 2); give one an input"
    )
    assert refused(graph, []) == (
        "execute: inputs must be 2 arrays of equally many samples, not none; give one an input"
    )
    assert refused(graph, [x, x[:3]]) == (
        "execute: inputs must be 2 arrays of equally many samples, not (4, 2), (3, 2); give one an input"
    )
    assert refused(graph, [x, np.zeros((4, 3), np.int64)]) == (
        "execute: input 'b' must be integers of shape (samples, 2), not int64 (4, 3); give LSBs, channels last"
    )
    assert refused(graph, [x.astype(np.float32), x]) == (
        "execute: input 'a' must be integers of shape (samples, 2), not float32 (4, 2); give LSBs, channels last"
    )


@pytest.mark.parametrize("bits", [8, 24, 25, 53, 54])
@pytest.mark.parametrize("side", [-1, 1])
def test_values_outside_of_the_inputs_type_are_refused(bits: int, side: int) -> None:
    dtype = signed(bits)
    graph = one(g.Relu("r", ("x",), tensor("y", (2,), dtype)), tensor("x", (2,), dtype))
    end = dtype.minimum_lsb if side < 0 else dtype.maximum_lsb
    check(graph, [np.array([[0, end]])])
    assert refused(graph, [np.array([[0, end + side]])]) == (
        f"execute: input 'x' must lie in {dtype.minimum_lsb} to {dtype.maximum_lsb} LSB, not reach "
        f"{min(0, end + side)} and {max(0, end + side)}; quantize it with the port's type"
    )


def test_more_than_64_bits_are_refused() -> None:
    weight = np.full((1, 2), -(1 << 30))
    node = g.Dense("fc", ("x",), tensor("y", (1,), signed(64)), weight, signed(31))
    assert refused(
        one(node, tensor("x", (2,), signed(34))), [np.zeros((1, 2), np.int64)], UnsupportedError
    ) == ("execute: node 'fc' must stay within 64 bits, not reach 66; lower its bit widths")
    check(one(node, tensor("x", (2,), signed(31))))
