"""Our kernels as layers of hls4ml: every layer of the C++ equals the integer executor in both io types."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import needs
from fixed_graphs import Builder, write
from kernel_cases import case, conv, fixed, pool, rows

from flow.convert import kernel_files, operators
from flow.convert.accumulators import partial_sums
from flow.convert.kernels import KINDS, kernel
from flow.emulate.csim import Csim
from flow.errors import UnsupportedError
from flow.fixed.execute import execute
from flow.fixed.graph import (
    Add,
    ArgMax,
    Concat,
    Conv,
    FixedGraph,
    Mul,
    Node,
    Pool,
    PRelu,
    Relu,
    Rescale,
    Sign,
    Softmax,
    Table,
    Tensor,
    Upsample,
)

X = Tensor("x", (6, 8, 4), fixed("s5.2"))
SMALL = (3, 4, 8)


def numbers(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


def network() -> FixedGraph:
    """Every kernel once or more, behind forks and joins, with five outputs."""
    made = Builder(X, seed=4)

    def add(cls: type[Node], inputs: str, output: str, shape: tuple[int, ...], /, **fields: Any) -> None:
        name = cls.__name__.lower()
        name = f"{name}2" if name in made.tensors else name
        made.add(cls(name, tuple(inputs.split()), Tensor(name, shape, fixed(output)), **fields))

    weights = fixed("s4.3")
    fields = {
        "strides": (1, 1),
        "pads": ((1, 1), (2, 2)),
        "dilations": (1, 2),
        "groups": 2,
        "weight_dtype": weights,
    }
    first = Conv("conv", ("x",), Tensor("conv", X.shape, fixed("s1.0")), made.numbers(weights, (4, 3, 3, 2)), **fields,
                 bias=made.numbers(weights, (4,)), bias_dtype=weights)  # fmt: skip
    made.add(replace(first, output=replace(first.output, dtype=partial_sums(first, X.dtype).dtype())))
    add(Rescale, "conv", "s6.3", X.shape, multiplier=numbers(3, -2, 7, 1), offset=numbers(0, 5, -60, 9), shift=6,
        rounding="ROUND", minimum=-32, maximum=30)  # fmt: skip
    add(Relu, "rescale", "u5.3", X.shape)
    add(PRelu, "rescale", "s10.6", X.shape, slope=numbers(1, -3, 0, 7), slope_dtype=weights)
    add(Add, "relu rescale", "s8.3", X.shape)
    add(Mul, "relu x", "s11.5", X.shape)
    add(Concat, "add mul", "s12.5", (6, 8, 8))
    pads = ((1, 1), (1, 1))
    add(Pool, "concat", "s12.5", SMALL, kind="max", kernel=(3, 3), strides=(2, 2), pads=pads)
    add(Pool, "pool", "s16.8", (1, 1, 8), kind="sum", kernel=(3, 4), strides=(3, 4), pads=((0, 0), (0, 0)))
    add(Upsample, "pool", "s12.5", (6, 8, 8), factors=(2, 2))
    made.reshape("flat", "pool2")
    add(Rescale, "flat", "s6.0", (8,), multiplier=numbers(1), offset=numbers(0), shift=5, rounding="HALF_UP",
        minimum=-32, maximum=31)  # fmt: skip
    add(Table, "rescale2", "s7.4", (8,), values=made.rng.integers(-64, 64, 64))
    add(
        Sign,
        "rescale2",
        "s2.0",
        (8,),
        multiplier=made.rng.integers(-3, 4, 8),
        offset=made.rng.integers(-9, 10, 8),
    )
    powers = np.rint(np.ldexp(np.exp(-np.arange(128) / 16), 24)).astype(np.int64)
    add(Softmax, "table", "u16.16", (8,), exponential=powers)
    add(ArgMax, "rescale2", "u3.0", (1,))
    return made.graph("softmax", "argmax", "sign", "upsample", "prelu")


def test_the_network_has_every_kernel() -> None:
    assert {type(node) for node in network().nodes} > set(KINDS)


@needs("g++")
@pytest.mark.parametrize(("io_type", "reuse"), [("io_stream", 1), ("io_parallel", 6)])
def test_every_layer_equals_the_executor(io_type: str, reuse: int, tmp_path: Path) -> None:
    graph = network()
    hls = {"LayerName": {"conv": {"ReuseFactor": reuse, "Strategy": "Latency" if reuse == 1 else "Resource"}}}
    design, _ = write(graph, tmp_path / "design", io_type, hls)
    for name, text in kernel_files().items():
        (design.path / name).parent.mkdir(parents=True, exist_ok=True)
        (design.path / name).write_text(text, encoding="utf-8")
    frames = rows(X.dtype, X.shape, 64)
    expected = execute(graph, [frames], every=True)
    csim = Csim(design, tmp_path / "csim", optimization="-O0", cache=tmp_path / "cache")
    csim.build()
    assert f"reuse_factor = {reuse};" in (design.path / "firmware" / "parameters.h").read_text()
    traced = csim.trace(frames.reshape(64, -1))
    assert len(traced) == len(graph.nodes) - 1
    for layer in design.layers:
        found = np.ldexp(traced[layer.hls_name], layer.dtype.fraction_bits)
        np.testing.assert_array_equal(found, expected[layer.tensor].reshape(64, -1), layer.name)
    given = np.concatenate([expected[name].reshape(64, -1) for name in graph.outputs], axis=1)
    np.testing.assert_array_equal(csim.run(frames.reshape(64, -1)), given)


def test_registering_twice_changes_nothing() -> None:
    from hls4ml.model.layers import layer_map

    operators.register()
    before = dict(layer_map)
    operators.register()
    assert layer_map == before
    assert all(operators.class_name(kind) in layer_map for kind in KINDS)


def test_arrays_are_as_large_as_the_kernels_declare_them() -> None:
    none, one = ((0, 0), (0, 0)), ((1, 1), (1, 1))
    made = pool("", "max", "s6.2", (6, 7, 3), (3, 2), (1, 1), none)
    assert operators.arrays(made.node, made.graph, "io_stream", 1) == {
        "memories of rows that wait": 2 * 3,
        "values of a window in registers": 3 * 2 * 3,
    }
    assert operators.arrays(made.node, made.graph, "io_parallel", 1) == {
        "values of windows at once": 4 * 6 * 3 * 6
    }
    made = pool("", "sum", "s6.2", (6, 7, 3), (3, 2), (3, 3), none)
    assert operators.arrays(made.node, made.graph, "io_stream", 1) == {}
    made = conv("", "s5.2", (9, 8, 4), 6, (3, 3), (1, 1), one, (2, 2), groups=2)
    assert operators.arrays(made.node, made.graph, "io_stream", 3) == {
        "memories of rows that wait": 4 * 4,
        "values of a window in registers": 3 * 5 * 4,
        "multipliers at once": 6 * 18 // 3,
        "inputs of a position in registers": 36,
    }


def wrong_scales() -> tuple[Node, FixedGraph]:
    made = case("", Add, [("s5.1", (2,)), ("s5.1", (2,))], ("s7.1", (2,)))
    inputs = tuple(replace(x, scale=(s,)) for x, s in zip(made.graph.inputs, (1.0, 1.5), strict=True))
    return made.node, replace(made.graph, inputs=inputs)


def mixed_scales() -> tuple[Node, FixedGraph]:
    made = case("", Concat, [("s5.1", (2,)), ("s5.1", (2,))], ("s7.1", (4,)))
    inputs = tuple(replace(x, scale=(1.0, s)) for x, s in zip(made.graph.inputs, (1.0, 2.0), strict=True))
    return made.node, replace(made.graph, inputs=inputs)


def long_table() -> tuple[Node, FixedGraph]:
    made = case("", Table, [("s17.0", (1,))], ("s7.1", (1,)), values=np.zeros(1 << 17, np.int64))
    return made.node, made.graph


def wide_rescale() -> tuple[Node, FixedGraph]:
    fields = {"offset": numbers(0), "shift": 50, "rounding": "ROUND", "minimum": 0, "maximum": 1}
    made = case("", Rescale, [("s32.0", (1,))], ("u1.0", (1,)), multiplier=numbers(1 << 40), **fields)
    return made.node, made.graph


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (
            wrong_scales,
            "(Add) must read steps that are whole powers of two of its own, not 3/2 of one; share one quantizer",
        ),
        (
            mixed_scales,
            "(Concat) must read and give the same scale a channel, not others; quantize its inputs with one scale",
        ),
        (
            long_table,
            "(Table) must have a table of at most 65536 numbers, not 131072; quantize its input to fewer bits",
        ),
        (
            wide_rescale,
            "(Rescale) must calculate with at most 64 bits, not 72; quantize its input to fewer bits",
        ),
    ],
)
def test_what_no_kernel_computes_is_refused(made: Any, message: str) -> None:
    with pytest.raises(UnsupportedError) as refused:
        kernel(*made())
    assert str(refused.value) == f"convert: layer 'node' {message}"


def test_a_zero_tail_of_exponentials_takes_no_table() -> None:
    powers = np.array([1 << 24, 5, 0, 0, *[0] * 252])
    made = case("", Softmax, [("s8.0", (3,))], ("u16.16", (3,)), exponential=powers)
    text = "\n".join(kernel(made.node, made.graph).config)
    assert "entries = 2;" in text
    assert "numbers[2] = {16777216LL, 5LL};" in text
    assert f"sum_width = {math.ceil(math.log2(3 << 24))};" in text
