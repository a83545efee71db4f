"""The report's sections of pruning and quantization: budgets, courses, mixed widths, the points of a search."""

from __future__ import annotations

import copy
import inspect
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_report import Page, changed, paths, replace, shown

from flow.prune import prune
from flow.report import drawing, render
from flow.report.pruning import USUAL, pruning
from flow.report.quantization import bits_of, quantization


def step(number: int, **more: float) -> dict[str, Any]:
    return {"step": number, "epoch": 5 * number, "validation_accuracy": 0.98 - 0.01 * number, **more}


BUDGETED = changed(
    config={
        "prune": {
            "granularity": "structured",
            "schedule": "cubic",
            "regularizer": "lobster",
            "regularizer_lambda": 0.001,
            "budget": {"luts": 20000, "board_share": 0.9},
        }
    },
    pruning={
        "stopped": "the epochs are used up",
        "history": [
            step(0, channels=128, parameters=9568, luts=40000, board_share=1.5),
            step(1, channels=60, parameters=4000, luts=25000, board_share=1.1),
            step(2, channels=40, parameters=1400, luts=18500, board_share=0.92),
        ],
        "figures": {
            "before": {"parameters": 9568, "macs": 608256, "luts": 40000.0, "board_share": 1.5},
            "after": {"parameters": 1400, "macs": 72576, "luts": 18500.0, "board_share": 0.92},
        },
    },
)


def point(first: int, second: int, accuracy: float, luts: float) -> dict[str, Any]:
    """Return one measured point: conv1 has ``first`` bits everywhere, conv2 ``second``."""
    widths = {"conv1": first, "conv2": second}
    return {
        "layers": {name: {"weight_bits": bits, "activation_bits": bits} for name, bits in widths.items()},
        "accuracy": accuracy,
        "cost": {"luts": luts, "dsps": 0, "board_share": luts / 53200},
    }


SEARCHED = changed(
    config={
        "quantize": {
            "calibration": "percentile",
            "percentile": 99.9,
            "scales": "free",
            "max_accuracy_drop": 0.01,
        }
    },
    quantization={
        "weight_bits": {"conv1": 4, "conv2": 6},
        "activation_bits": {"conv1": 5, "conv2": 5},
        "bias_bits": {"conv1": 16, "conv2": 18},
        "precision": {
            "objective": "luts",
            "layers": point(4, 6, 0, 0)["layers"],
            "accuracy": 0.981,
            "float_accuracy": 0.9861,
            "samples": 288,
            "points": [
                point(8, 8, 0.986, 9000),
                point(6, 6, 0.985, 6400),
                point(4, 6, 0.981, 5050),
                point(6, 4, 0.970, 5060),
                point(2, 2, 0.750, 2800),
            ],
        },
    },
)


@pytest.mark.parametrize(
    "phrase",
    [
        *("schedule cubic", "regularizer lobster, λ = 0.001", "ended because the epochs are used up"),
        *("LUTs 40,000 18,500 ≤ 20,000 met", "share of the board 150.0% 92.0% ≤ 90.0% NOT met"),
        *("parameters 9,568 1,400", "MACs 608,256 72,576"),
    ],
)
def test_page_and_terminal_hold_what_was_asked_of_pruning_and_what_came(phrase: str) -> None:
    assert phrase in Page(render(BUDGETED)).text
    assert phrase in " ".join(shown(BUDGETED, 200).split())


def test_usual_options_of_pruning_are_not_mentioned() -> None:
    text = Page(render(BUDGETED)).text.partition("Provenance")[0]
    assert "granularity" not in text
    assert "criterion" not in text
    defaults = {name: value.default for name, value in inspect.signature(prune).parameters.items()}
    assert {name: defaults[name] for name in USUAL} == USUAL


def test_courses_show_the_budgets_figures_with_their_limit_dashed() -> None:
    seen = pruning(BUDGETED)
    assert seen is not None
    titles = [course.title for course in seen.courses]
    assert titles == [
        *("Channels left", "LUTs, limit 20,000", "Share of the board, limit 90.0%", "Validation accuracy"),
    ]
    dashed = [
        [
            shape.y1
            for shape in course.picture.shapes
            if shape.role == "limit" and isinstance(shape, drawing.Line)
        ]
        for course in seen.courses
    ]
    height = seen.courses[1].picture.height
    assert dashed == [[], [height * 0.5], [pytest.approx(height * (1 - 0.9 / 1.5), abs=1e-2)], []]


def test_pruned_weights_have_a_course_and_the_headline_counts_parameters() -> None:
    history = [step(0, weights=9472, parameters=9568), step(1, weights=1000, parameters=1096)]
    manifest = changed(
        channels={"before": 128, "after": 128},
        config={"prune": {"granularity": "unstructured"}},
        pruning={
            "history": history,
            "figures": {"before": {"parameters": 9568}, "after": {"parameters": 1096}},
        },
    )
    text = Page(render(manifest)).text
    assert "Weights left" in text
    assert "granularity unstructured" in text
    assert "1,096 of 9,568 parameters remain; accuracy" in text
    assert "Channels left" not in text


def test_accuracy_that_the_loop_did_not_give_has_no_course() -> None:
    manifest = changed(pruning={"history": [step(0, channels=9) | {"validation_accuracy": float("nan")}]})
    seen = pruning(manifest)
    assert seen is not None
    assert [course.title for course in seen.courses] == ["Channels left"]


@pytest.mark.parametrize(
    "phrase",
    [
        *("weights 4 to 6 bits", "activations 5 bits", "biases 16 to 18 bits", "scales free"),
        *("calibration percentile 99.9", "6/6 98.50% 6,400 12.0%", "2/2 75.00% 2,800"),
        *("conv1 4/4, conv2 6/6", "the least LUTs at most 1 point below float"),
        *("on 288 validation samples", "float: 98.61%", "Not drawn: 1 below 88.6%"),
    ],
)
def test_page_and_terminal_hold_the_widths_and_the_search(phrase: str) -> None:
    assert phrase in Page(render(SEARCHED)).text
    assert phrase in " ".join(shown(SEARCHED, 200).split())


def test_points_are_in_the_order_of_their_cost_and_one_is_chosen() -> None:
    seen = quantization(SEARCHED)
    assert seen is not None
    assert seen.search is not None
    assert [(row.cells[1], row.state) for row in seen.search.points] == [
        *(
            ("2,800", "front"),
            ("5,050", "chosen"),
            ("5,060", "beaten"),
            ("6,400", "front"),
            ("9,000", "front"),
        ),
    ]
    assert seen.search.beaten == ()
    assert len(re.findall(">chosen</b>", render(SEARCHED))) == 1


def test_beaten_points_of_a_long_search_fold_away_but_stay() -> None:
    manifest = copy.deepcopy(SEARCHED)
    manifest["quantization"]["precision"]["points"] += [point(3, 7, 0.9, 7000 + n) for n in range(20)]
    seen = quantization(manifest)
    assert seen is not None
    assert seen.search is not None
    assert {row.state for row in seen.search.points} == {"front", "chosen"}
    assert len(seen.search.points) + len(seen.search.beaten) == 25
    assert "21 more, beaten in accuracy and cost" in Page(render(manifest)).text
    assert "7,019" in Page(render(manifest)).text


def test_stairs_go_through_the_points_that_no_other_beats() -> None:
    spots = [(1.0, 0.5, "front"), (2.0, 0.4, "beaten"), (3.0, 0.9, "chosen"), (4.0, 0.9, "beaten")]
    made = drawing.tradeoff(spots, (1, 5), (0, 1), height=100)
    lines = [s for s in made.shapes if isinstance(s, drawing.Line) and s.role == "trace"]
    assert [(s.x1, s.y1, s.x2, s.y2) for s in lines] == [(0, 50, 50, 50), (50, 50, 50, 10)]
    dots = [s for s in made.shapes if isinstance(s, drawing.Dot)]
    assert [dot.role for dot in dots] == ["beaten", "beaten", "on-front", "chosen-ring", "after"]


def test_widths_that_are_equal_everywhere_are_written_once() -> None:
    assert bits_of({"a": {"weight_bits": 4, "activation_bits": 6}}) == "4/6"
    assert bits_of({"a": {"weight_bits": 4, "activation_bits": 6}, "b": {"weight_bits": 4}}) == "a 4/6, b 4/-"
    eight = {"weight_bits": 8, "activation_bits": 8}
    assert bits_of({"a": eight, "b": {"weight_bits": 2, "activation_bits": 8}, "c": eight}) == "8/8; b 2/8"
    assert bits_of({}) == "not measured"


@pytest.mark.parametrize("manifest", [BUDGETED, SEARCHED], ids=["budget", "search"])
def test_any_key_of_the_sections_may_be_missing(manifest: dict[str, Any]) -> None:
    sections = {
        key: manifest[key]
        for key in ("name", "config", "channels", "pruning", "quantization")
        if key in manifest
    }
    for path in paths(sections):
        less = copy.deepcopy(sections)
        replace(less, path)
        Page(render(less))
        shown(less)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_odd_values_in_the_sections_never_raise(data: st.DataObject) -> None:
    manifest = copy.deepcopy(data.draw(st.sampled_from([BUDGETED, SEARCHED])))
    known = [
        path for key in ("pruning", "quantization", "config") for path in paths(manifest.get(key, {}), (key,))
    ]
    odd = st.sampled_from(
        [None, "", "text", 0, -1, 1e300, 1e-300, float("nan"), float("inf"), True, [], {}, [None], {"x": 1}]
    )
    for path in data.draw(st.lists(st.sampled_from(known), max_size=8)):
        replace(manifest, path, data.draw(odd))
    Page(render(manifest))
    shown(manifest)
