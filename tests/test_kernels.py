"""Every kernel equals the integer executor, from arrays and from streams, with both sets of ap_fixed headers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import needs
from kernel_cases import RNG, ROOT, Case, case, conv, fixed, nnet_utils, pool, run

from flow.convert import operators
from flow.fixed.graph import (
    ROUNDINGS,
    Add,
    ArgMax,
    Concat,
    Conv,
    Mul,
    PRelu,
    Relu,
    Rescale,
    Sign,
    Softmax,
    Table,
    Upsample,
)

FRACTIONS, FINER = fixed("s4.3"), fixed("s3.4")


def numbers(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


def rescales() -> list[Case]:
    made = []
    for shift in (-2, 0, 1, 4, 12):
        for rounding in ROUNDINGS:
            plain = {"multiplier": numbers(1), "offset": numbers(0), "shift": shift, "rounding": rounding}
            made.append(case(f"plain {shift} {rounding}", Rescale, [("s9.2", (3, 3, 3))], ("s6.1", (3, 3, 3)), **plain,
                             minimum=-32, maximum=29))  # fmt: skip
    for rounding in ROUNDINGS:
        own = {"multiplier": numbers(-3, 5, 0), "offset": numbers(17, -40, 8), "rounding": rounding}
        made.append(case(f"own {rounding}", Rescale, [("s8.0", (4, 3))], ("u5.2", (4, 3)), **own, shift=4, minimum=0,
                         maximum=31))  # fmt: skip
    large = {"multiplier": numbers(-(2**44) + 7, 2**43 + 5), "offset": numbers(2**58, -(2**59) - 1)}
    return [
        *made,
        case("large", Rescale, [("s16.0", (2,))], ("s16.0", (2,)), **large, shift=44, rounding="ROUND",
             minimum=-32768, maximum=32767),
        case("one bit", Rescale, [("u1.0", (5,))], ("u1.3", (5,)), multiplier=numbers(1), offset=numbers(1), shift=1,
             rounding="FLOOR", minimum=0, maximum=1),
        case("far", Rescale, [("s4.0", (5,))], ("s3.0", (5,)), multiplier=numbers(1), offset=numbers(0), shift=30,
             rounding="HALF_DOWN", minimum=-4, maximum=3),
        case("narrow bounds", Rescale, [("u8.0", (5,))], ("s8.0", (5,)), multiplier=numbers(1), offset=numbers(-128),
             shift=0, rounding="ROUND", minimum=-3, maximum=-1),
    ]  # fmt: skip


def elementwise() -> list[Case]:
    image = (3, 2, 4)
    return [
        case("sign", Sign, [("s7.0", image)], ("s2.0", image), multiplier=numbers(1, -1, 3, 0),
             offset=numbers(0, 5, -9, -1)),
        case("sign of all", Sign, [("u3.0", (6,))], ("s2.1", (6,)), multiplier=numbers(2), offset=numbers(-6)),
        case("relu", Relu, [("s8.3", image)], ("u7.3", image)),
        case("relu of positive", Relu, [("u5.0", (1,))], ("u5.0", (1,))),
        case("prelu", PRelu, [("s6.2", image)], ("s12.5", image), slope=numbers(-8, 7, 0, 3),
             slope_dtype=FRACTIONS),
        case("leaky", PRelu, [("s8.0", (3, 2))], ("s12.4", (3, 2)), slope=numbers(1), slope_dtype=FINER),
        case("prelu of positive", PRelu, [("u4.0", (2,))], ("s9.3", (2,)), slope=numbers(-8, 3), slope_dtype=FRACTIONS),
        case("signed table", Table, [("s6.4", image)], ("s9.8", image), values=RNG.integers(-256, 256, 64)),
        case("unsigned table", Table, [("u5.1", (4, 3))], ("u6.6", (4, 3)), values=RNG.integers(0, 64, 32)),
        case("one bit", Table, [("s1.0", (4,))], ("u2.0", (4,)), values=numbers(3, 1)),
        case("constant table", Table, [("u3.0", (4,))], ("s3.0", (4,)), values=numbers(*[-4] * 8)),
        case("add", Add, [("s6.1", image), ("s5.3", image)], ("s9.3", image)),
        case("add of both signs", Add, [("u8.0", (3, 2)), ("s8.0", (3, 2))], ("s10.0", (3, 2))),
        case("mul", Mul, [("s5.1", image), ("u4.4", image)], ("s9.5", image)),
        case("square", Mul, [("s8.0", (3,)), ("s8.0", (3,))], ("s16.0", (3,))),
    ]  # fmt: skip


def moves() -> list[Case]:
    return [
        case(
            "concat",
            Concat,
            [("s5.1", (3, 2, 2)), ("u4.3", (3, 2, 1)), ("s4.0", (3, 2, 3))],
            ("s9.3", (3, 2, 6)),
        ),
        case("concat of vectors", Concat, [("u3.0", (1,)), ("u3.0", (4,))], ("u3.0", (5,))),
        case("upsample", Upsample, [("s5.1", (3, 2, 2))], ("s5.1", (6, 6, 2)), factors=(2, 3)),
        case("upsample rows", Upsample, [("s5.1", (3, 5))], ("s5.1", (12, 5)), factors=(4,)),
        case("upsample down", Upsample, [("u5.1", (1, 4, 1))], ("u5.1", (5, 4, 1)), factors=(5, 1)),
    ]


def vectors() -> list[Case]:
    powers = [np.rint(np.ldexp(np.exp(-np.arange(span) * step), 24)).astype(np.int64) for span, step in
              ((256, 0.125), (64, 2.0), (16, 0.01))]  # fmt: skip
    return [
        case("softmax", Softmax, [("s8.3", (5,))], ("u16.16", (5,)), exponential=powers[0]),
        case("steep softmax", Softmax, [("u6.0", (3,))], ("u16.16", (3,)), exponential=powers[1]),
        case("softmax of one", Softmax, [("u4.0", (1,))], ("u16.16", (1,)), exponential=powers[2]),
        case("argmax", ArgMax, [("s3.0", (10,))], ("u4.0", (1,)), samples=64),
        case("argmax of one", ArgMax, [("s3.0", (1,))], ("u1.0", (1,))),
        case("argmax of positive", ArgMax, [("u8.0", (3,))], ("u2.0", (1,))),
    ]


def pools() -> list[Case]:
    return [
        pool("max", "max", "s6.2", (6, 7, 3), (2, 2), (2, 2), ((0, 0), (0, 0))),
        pool("overlapping max", "max", "s6.2", (6, 7, 2), (3, 2), (2, 1), ((1, 2), (1, 0))),
        pool("positive max", "max", "u5.0", (5, 4, 1), (3, 3), (1, 1), ((1, 1), (1, 1))),
        pool("max of rows", "max", "s6.2", (9, 4), (3,), (2,), ((1, 1),)),
        pool("max that leaves some", "max", "s4.0", (7, 8, 2), (2, 3), (3, 3), ((0, 0), (0, 0))),
        pool("sum", "sum", "s6.2", (6, 7, 3), (3, 3), (2, 2), ((1, 1), (0, 1))),
        pool("max apart", "max", "s6.2", (8, 9, 2), (2, 2), (3, 4), ((1, 1), (1, 0))),
        pool("sum apart", "sum", "u4.0", (7, 7, 3), (3, 1), (3, 2), ((0, 2), (0, 0))),
        pool("sum of rows", "sum", "u6.0", (8, 2), (4,), (4,), ((0, 0),)),
        pool("global sum", "sum", "s8.4", (4, 5, 3), (4, 5), (4, 5), ((0, 0), (0, 0))),
        pool("single", "sum", "s1.0", (1, 1, 1), (1, 1), (1, 1), ((0, 0), (0, 0))),
    ]


def convs() -> list[Case]:
    none = ((0, 0), (0, 0))
    return [
        conv("grouped", "s5.2", (5, 6, 4), 6, (3, 2), (1, 2), ((1, 0), (2, 1)), (1, 1), groups=2),
        conv("depthwise", "u4.0", (6, 5, 3), 3, (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), groups=3),
        conv("depth multiplier", "u4.0", (4, 4, 2), 6, (2, 2), (2, 2), none, (1, 1), groups=2),
        conv("dilated", "s5.2", (9, 8, 2), 3, (3, 3), (1, 1), ((2, 2), (2, 2)), (2, 2)),
        conv("dilated both ways", "s5.2", (8, 9, 2), 2, (2, 3), (2, 1), ((0, 1), (3, 2)), (3, 2)),
        conv("rows", "s5.2", (11, 4), 4, (3,), (2,), ((2, 1),), (2,), groups=2),
        conv("depthwise rows", "s3.0", (7, 5), 5, (4,), (1,), ((0, 3),), (1,), groups=5, bias=None),
        conv("points", "s5.2", (3, 3, 4), 4, (1, 1), (1, 1), none, (1, 1), groups=2, bias=None),
        conv("ternary", "s8.0", (4, 5, 2), 2, (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), groups=2, weights="s2.0"),
        conv("single", "u8.0", (1, 1, 1), 1, (1, 1), (1, 1), none, (1, 1), bias="s4.2"),
        conv("folded", "s5.2", (5, 6, 4), 6, (3, 2), (1, 2), ((1, 0), (2, 1)), (1, 1), groups=2, reuse=4),
        conv("folded to one", "s5.2", (5, 6, 4), 6, (3, 2), (1, 2), ((1, 0), (2, 1)), (1, 1), groups=2, reuse=12),
        conv("folded depthwise", "u4.0", (6, 5, 3), 3, (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), groups=3, reuse=9),
        conv("folded dilated", "s5.2", (11, 4), 4, (3,), (2,), ((2, 1),), (2,), reuse=6),
    ]  # fmt: skip


def all_cases() -> list[Case]:
    return [*rescales(), *elementwise(), *moves(), *vectors(), *pools(), *convs()]


def check(cases: list[Case], work: Path, headers: Path, *options: str) -> None:
    for one, (arrays, streams) in zip(cases, run(cases, work, headers, *options), strict=True):
        expected = one.expected
        assert expected.size, one.name
        for what, found in (("arrays", arrays), ("streams", streams)):
            np.testing.assert_array_equal(
                found, expected, f"{type(one.node).__name__} {one.name} from {what}"
            )


@needs("g++")
def test_kernels_equal_the_executor_with_the_vendors_headers(tmp_path: Path) -> None:
    check(all_cases(), tmp_path, nnet_utils().parent / "ap_types", "-std=c++14", "-O0")


@needs("g++")
def test_kernels_equal_the_executor_with_our_headers_and_have_no_undefined_behaviour(tmp_path: Path) -> None:
    light = ROOT / "hls_templates" / "cpp" / "emulation"
    check(
        all_cases(),
        tmp_path,
        light,
        "-std=c++17",
        "-O1",
        "-fsanitize=undefined,bounds",
        "-fno-sanitize-recover",
    )


@pytest.mark.parametrize("one", all_cases(), ids=lambda one: f"{type(one.node).__name__} {one.name}")
def test_steps_read_and_write_every_token_once(one: Case) -> None:
    steps = list(operators.stream_steps(one.node, one.graph))
    for place, tensor in enumerate(one.graph.inputs):
        assert sum(place in reads for reads, _ in steps) == tensor.size // tensor.shape[-1]
    assert sum(written for _, written in steps) == one.node.output.size // one.node.output.shape[-1]


def test_multipliers_at_once_are_the_products_by_the_reuse_factor() -> None:
    one = convs()[0]
    assert isinstance(one.node, Conv)
    assert [operators.multipliers(one.node, one.graph, reuse) for reuse in (1, 4, 12)] == [72, 18, 6]
