"""The fit: within the board and the rate by the estimator itself, or short with cures that cure."""

import itertools
import json
import math
import time
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_cli import flow as command
from test_estimate_graph import graph
from torch import nn

import flow
from flow.boards import load
from flow.demo import digits_cnn
from flow.errors import ConfigError, UnsupportedError
from flow.estimate import Work, layer_cost, limits, on_board
from flow.estimate.graph import graph_work
from flow.estimate.reuse import legal_reuse_factors
from flow.fit import Fit, beside
from flow.fit.choice import choose, intervals, layer_options
from flow.fit.cures import best, cycles, pruned

BOARD = load("pynq-z2")
EXAMPLE = torch.zeros(1, 1, 8, 8)


def mlp(*widths: int) -> nn.Sequential:
    """Return a dense network with ReLUs between its layers, always the same."""
    torch.manual_seed(0)
    layers: list[tuple[str, nn.Module]] = []
    for index, (inputs, outputs) in enumerate(itertools.pairwise(widths), start=1):
        layers += [(f"fc{index}", nn.Linear(inputs, outputs)), (f"relu{index}", nn.ReLU())]
    return nn.Sequential(OrderedDict(layers[:-1]))


def fit_mlp(*widths: int, **options: Any) -> Fit:
    return flow.fit(mlp(*widths), example=torch.zeros(1, widths[0]), **options)


def fit_cnn(**options: Any) -> Fit:
    return flow.fit(digits_cnn(), example=EXAMPLE, **options)


# ---------------------------------------------------------------- a design that fits


@pytest.mark.parametrize("target_fps", [1_000, 20_000, 1_000_000, 10_000_000])
def test_the_design_keeps_the_rate_and_the_board(target_fps: float) -> None:
    made = fit_mlp(16, 64, 32, 32, 5, target_fps=target_fps)
    assert made.fits and made.cures == ()
    assert made.samples_per_second >= target_fps
    assert made.interval_cycles == max(layer.interval_cycles for layer in made.layers)
    assert all(use.needed <= use.available and use.short == 0 for use in made.uses.values())
    assert [use.available for use in made.uses.values()] == list(limits(BOARD.resources))


def test_the_chosen_factors_are_legal_and_written_with_their_strategy() -> None:
    made = fit_mlp(16, 64, 32, 5, target_fps=3_000_000)
    shapes = {"fc1": (16, 64), "fc2": (64, 32), "fc3": (32, 5)}
    by_layer = made.hls["LayerName"]
    assert list(by_layer) == list(shapes)
    for name, values in by_layer.items():
        assert values["ReuseFactor"] in legal_reuse_factors(*shapes[name])
        assert values["Strategy"] == ("Latency" if values["ReuseFactor"] == 1 else "Resource")


def test_what_is_taken_is_what_the_estimator_says() -> None:
    works = graph_work(graph())
    options = layer_options(works, "io_stream")
    assert options is not None
    made = choose(works, options, BOARD.resources, 5_000, "io_stream")
    again = on_board(
        [
            (work, option.reuse, layer_cost(work, option.reuse, "io_stream"))
            for work, option in zip(works, made.options, strict=True)
        ]
    )
    assert made.taken == again


def test_small_choices_are_the_best_of_all() -> None:
    """Every combination is tried; the search may come no worse than 2 % above the best."""
    works = [work for work in graph_work(graph()) if work.kind == "product"]
    options = layer_options(works, "io_stream")
    assert options is not None
    for interval in intervals(options)[::7]:
        within = [[o for o in layer if o.cost.interval_cycles <= interval] for layer in options]
        peak = min(
            max(t / limit for t, limit in zip(on_board([(works[0], a.reuse, a.cost), (works[1], b.reuse, b.cost)]),
                                              limits(BOARD.resources), strict=True))
            for a in within[0] for b in within[1]
        )  # fmt: skip
        made = choose(works, options, BOARD.resources, interval, "io_stream")
        assert max(made.shares(BOARD.resources)) <= peak * 1.02


def test_streams_are_taken_for_convs_and_arrays_for_dense_networks() -> None:
    assert flow.fit(graph(), target_fps=1000).io_type == "io_stream"
    assert fit_mlp(16, 8, 5, target_fps=1000).io_type == "io_parallel"
    assert fit_mlp(16, 8, 5, target_fps=1000, io_type="io_stream").io_type == "io_stream"


def test_the_same_question_gets_the_same_answer() -> None:
    first, second = (fit_mlp(16, 64, 32, 5, target_fps=20_000) for _ in range(2))
    assert first == second


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(2, 48), min_size=2, max_size=4),
    st.sampled_from([1e3, 1e5, 1e6, 1e7]),
    st.tuples(*[st.floats(0.2, 1.5)] * 4),
    st.tuples(*[st.floats(1.0, 3.0)] * 4),
)
def test_a_larger_board_never_turns_a_fit_into_none(
    widths: list[int], target_fps: float, share: tuple[float, ...], growth: tuple[float, ...]
) -> None:
    works = [
        Work(f"fc{i}", "product", n, m, 6, 16, 6, digits=2.0 * n * m)
        for i, (n, m) in enumerate(itertools.pairwise(widths))
    ]
    names = ("luts", "flip_flops", "dsps", "bram_bits")
    small = replace(
        BOARD.resources,
        **{n: int(getattr(BOARD.resources, n) * s) for n, s in zip(names, share, strict=True)},
    )
    large = replace(small, **{n: int(getattr(small, n) * g) for n, g in zip(names, growth, strict=True)})
    interval = cycles(10, target_fps)
    made, again = (best(works, board, interval, ("io_parallel",)) for board in (small, large))
    assert made is not None and again is not None
    assert again.fits(large, interval) or not made.fits(small, interval)


# ---------------------------------------------------------------- a design that does not


def test_an_impossible_target_says_what_is_short_and_what_helps() -> None:
    start = time.process_time()
    made = fit_cnn(target_fps=20_000, weight_bits=5, activation_bits=5)
    assert time.process_time() - start < 5
    assert not made.fits
    assert made.uses["luts"].short > 0
    assert [cure.kind for cure in made.cures] == ["widths", "bits", "board", "rate"]


def test_each_cure_cures_when_it_is_applied() -> None:
    asked = {"target_fps": 20_000.0, "weight_bits": 5, "activation_bits": 5}
    cures = {cure.kind: cure.values for cure in fit_cnn(**asked).cures}
    assert fit_cnn(**{**asked, **cures["bits"]}).fits
    assert fit_cnn(**asked, **cures["board"]).fits
    assert fit_cnn(**{**asked, **cures["rate"]}).fits
    widths = cures["widths"]["widths"]
    first, second, third = widths["conv1"], widths["conv2"], widths["conv3"]
    torch.manual_seed(0)
    small = nn.Sequential(
        nn.Conv2d(1, first, 3, padding=1), nn.ReLU(), nn.Conv2d(first, second, 3, padding=1), nn.ReLU(),
        nn.MaxPool2d(2), nn.Conv2d(second, third, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(third * 16, 10),
    )  # fmt: skip
    assert flow.fit(small, example=EXAMPLE, **asked).fits


def test_a_rate_above_the_clock_is_short_of_rate() -> None:
    made = fit_mlp(16, 8, 5, target_fps=2e8)
    assert not made.fits
    assert made.samples_per_second == 1e8
    (rate,) = [cure for cure in made.cures if cure.kind == "rate"]
    assert fit_mlp(16, 8, 5, **rate.values).fits


def test_pruning_narrows_what_it_may_and_nothing_else() -> None:
    conv, relu, pool, fc = pruned(graph_work(graph()), 0.5)
    assert (conv.inputs, conv.outputs, conv.channels) == (27, 2, 3)
    assert (relu.outputs, pool.outputs) == (2, 2)
    assert (fc.inputs, fc.outputs, fc.channels) == (24, 5, 2)
    same = pruned(graph_work(graph()), 1.0)
    assert same == graph_work(graph())


def test_the_interval_of_a_rate_is_never_too_long() -> None:
    assert cycles(10, 20_000) == 5_000
    assert cycles(10, 30_000) == 3_333
    assert cycles(10, 1e8) == 1
    assert cycles(10, 2e8) == 0


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target_fps": 0}, "fit: target_fps must be a number above 0, not 0; samples a second"),
        ({"target_fps": math.nan}, "fit: target_fps must be a number above 0, not nan; samples a second"),
        ({"target_fps": -1}, "fit: target_fps must be a number above 0, not -1; samples a second"),
        ({"target_fps": 1, "io_type": "io_serial"},
         "fit: io_type must be one of io_stream, io_parallel, not 'io_serial'; leave it out for what fits"),
        ({"target_fps": 1, "clock_period_ns": -2}, "fit: clock_period_ns must be above 0, not -2; the board's is 10.0"),
        ({"target_fps": 1, "weight_bits": 0}, "fit: weight_bits must be in 1 to 32, not 0; 6 is usual"),
        ({"target_fps": 1, "activation_bits": 33}, "fit: activation_bits must be in 1 to 32, not 33; 6 is usual"),
    ],
)  # fmt: skip
def test_a_bad_option_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        fit_mlp(4, 2, **options)
    assert str(refused.value) == message


def test_an_unknown_board_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"^board must be one of .*, not 'pynq-z3'; did you mean 'pynq-z"):
        fit_mlp(4, 2, target_fps=1, board="pynq-z3")


def test_a_module_needs_an_example_and_anything_else_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"^fit: example must be given with a torch module, not left out; one sample"
    ):
        flow.fit(mlp(4, 2), target_fps=1)
    with pytest.raises(
        ConfigError, match=r"^fit: source must be a path, a torch module or a FixedGraph, not int; give"
    ):
        flow.fit(5, target_fps=1)  # type: ignore[arg-type]


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"model.onnx' must be an existing file, not missing; flow run --to quantize"
    ):
        flow.fit(tmp_path, target_fps=1)
    with pytest.raises(ConfigError, match=r"^config: .*flow.toml' must be an existing file, not missing"):
        flow.fit(tmp_path / "flow.toml", target_fps=1)


def test_a_layer_that_no_factor_makes_small_enough_is_refused() -> None:
    wide = nn.Conv2d(4100, 4100, 1, groups=4100)
    with pytest.raises(
        UnsupportedError, match=r"^fit: layer 'wide' must come down to 4096 .* stay at 4,100; prune it, or"
    ):
        flow.fit(nn.Sequential(OrderedDict(wide=wide)), example=torch.zeros(1, 4100, 4, 4), target_fps=1)


def test_io_parallel_refuses_tensors_over_the_limit() -> None:
    network = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1))
    with pytest.raises(UnsupportedError, match=r"at most 4096 values, not more; choose io_stream$"):
        flow.fit(network, example=torch.zeros(1, 1, 32, 32), target_fps=1, io_type="io_parallel")


# ---------------------------------------------------------------- files and the command


CONFIG = """\
board = "pynq-z1"        # mine
[model]
source = "flow.demo:digits_cnn"
[quantize]
weight_bits = 4          # narrow
activation_bits = 4
[hls]
# nothing yet
"""


@pytest.mark.slow
def test_the_command_fits_a_config_and_writes_it(tmp_path: Path) -> None:
    path = tmp_path / "flow.toml"
    path.write_text(CONFIG)
    done = command("fit", str(path), "--target-fps", "300", "--write", str(path), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(
        "pynq-z1, 300 samples a second at 10 ns, io_stream: fits (float network, 4-bit weights"
    )
    text = path.read_text()
    assert (
        text.startswith(CONFIG.rstrip())
        and "[hls.LayerName.conv2]" in text
        and 'io_type = "io_stream"' in text
    )
    assert text[len(CONFIG) :].strip() in done.stdout


@pytest.mark.slow
def test_the_command_says_what_is_short_as_json_and_with_its_exit_status() -> None:
    done = command("fit", "demo", "--target-fps", "100000", "--json")
    assert done.returncode == 1
    values = json.loads(done.stdout)
    assert values["fits"] is False and values["uses"]["luts"]["needed"] > values["uses"]["luts"]["available"]
    assert {cure["kind"] for cure in values["cures"]} >= {"bits", "board"}


@pytest.mark.parametrize("name", ["model.onnx", "missing.toml"])
def test_the_command_writes_to_configs_only(name: str) -> None:
    done = command("fit", "--target-fps", "10", "--write", name)
    assert done.returncode == 1
    assert (
        done.stderr
        == f"ConfigError: fit: --write must name an existing flow.toml, not '{name}'; flow init writes one\n"
    )


def test_finn_is_asked_for_the_same_board_clock_and_rate(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import flow.finn as module

    asked: dict[str, Any] = {}

    def stand_in(onnx: Path, **options: Any) -> Any:
        asked.update(options, onnx=onnx)
        layer = module.FinnLayer(layer="fc", name="MVAU_hls_0", cycles=1200, luts=345, dsps=6, bram18=7)
        return module.FinnReport(
            steps=(), layers=(layer,), host=(), samples=0, max_error=None, max_cycles=1200
        )

    monkeypatch.setattr("flow.finn.finn", stand_in)
    made = replace(fit_mlp(16, 8, 5, target_fps=999.5), onnx_path=tmp_path / "model.onnx")
    report = beside.finn_report(made, tmp_path)
    assert beside.rows(report) == [["fc", "MVAU_hls_0", "345", "6", "7", "1,200"]]
    assert asked.pop("onnx") == tmp_path / "model.onnx"
    assert asked == {"out": tmp_path, "part": BOARD.part, "clock_period_ns": 10.0, "target_fps": 1000}
    with pytest.raises(
        ConfigError, match=r"^fit: --finn must have a quantized network, not a float one; give a run's"
    ):
        beside.finn_report(replace(made, onnx_path=None), tmp_path)
