"""The page and the terminal's summary: every figure given, nothing invented, nothing loaded."""

from __future__ import annotations

import copy
import io
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from flow.report import drawing, render, table
from flow.report.equality import state_of
from flow.report.view import wilson

VOID = {"meta", "br", "wbr", "hr", "img", "link", "input"}


def layer(
    name: str, kind: str, channels: tuple[int, int], macs: tuple[int, int], **more: Any
) -> dict[str, Any]:
    return {
        "name": name,
        "kind": kind,
        "channels_before": channels[0],
        "channels_after": channels[1],
        "macs_before": macs[0],
        "macs_after": macs[1],
        "weight_bits": 6,
        "bias_bits": 16,
        "activation_bits": 7,
        "reuse_factor": 9,
        **more,
    }


def hop(
    name: str, error: Any, unit: str = "LSB", samples: int = 360, exact: bool | None = True
) -> dict[str, Any]:
    return {"name": name, "samples": samples, "max_error": error, "unit": unit, "exact": exact}


MANIFEST: dict[str, Any] = {
    "name": "digits",
    "date": "2026-01-31T12:00:00",
    "flow_version": "0.1.0",
    "seed": 41,
    "config": {"prune": {"pruning_ratio": 0.7}, "convert": {"hls": {"Strategy": "Resource"}}},
    "board": {
        "name": "pynq-z2",
        "title": "TUL PYNQ-Z2",
        "part": "xc7z020clg400-1",
        "clock_period_ns": 10.0,
        "resources": {"luts": 53200, "flip_flops": 106400, "dsps": 220, "bram_bits": 5160960},
    },
    "data": {"name": "digits", "train": 1149, "validation": 288, "test": 360},
    "accuracy": {"float": 0.9861, "pruned": 0.9833, "quantized": 0.9806},
    "channels": {"before": 128, "after": 40},
    "macs": {"before": 608256, "after": 72576},
    "parameters": {"before": 9568, "after": 1156},
    "layers": [
        layer(
            "conv1",
            "Conv2d",
            (32, 9),
            (18432, 5184),
            parameters_before=320,
            parameters_after=90,
            multipliers=9,
        ),
        layer(
            "conv2",
            "Conv2d",
            (64, 13),
            (589824, 67392),
            parameters_before=9248,
            parameters_after=1066,
            multipliers=117,
        ),
    ],
    "equality": {
        "samples": 360,
        "max_error_lsb": 0,
        "hops": [
            hop("pruned = simplified", 1.2e-15, "relative", 64),
            hop("torch = QONNX", 0),
            hop("QONNX = integers", 0),
            hop("integers = C++ (csim)", 0),
            {**hop("weights = decoded", 0, samples=8), "counted": "tensor"},
        ],
        "layers": ["conv1", "relu1", "conv2"],
        "layer_samples": 32,
    },
    "pruning": {
        "history": [
            {"step": 1, "channels": 96, "validation_accuracy": 0.987},
            {"step": 2, "channels": 40, "validation_accuracy": 0.981},
        ]
    },
    "synthesis": {
        "status": "not run",
        "command": "cd runs/digits/synthesize && sh build.sh",
        "missing_tools": ["vitis_hls", "vivado"],
        "report": None,
    },
    "compress": {
        "status": "done",
        "reason": "",
        "file": "weights.nnc",
        "sha256": "5c0ffee5",
        "bytes": 4002,
        "bytes_at_widths": 4643,
        "bytes_as_float": 24400,
        "tensors": 8,
    },
    "seconds": {"train": 12.1, "prune": 40.2, "convert": 0.02, "total": 130.0},
    "cached": {"train": True, "prune": False},
    "hashes": {"train": "sha256:9f2c1a77"},
    "versions": {"torch": "2.13.0"},
}
REPORT = {
    "resources": {"luts": 31877, "flip_flops": 28012, "dsps": 232, "bram_bits": None},
    "slack_ns": 0.3,
    "fmax_mhz": 103.0,
    "latency_cycles": 700,
    "interval_cycles": 680,
}
BOTH = """98.61% | 98.33% | 98.06% | −0.28 | −0.55 | on 360 test samples | TUL PYNQ-Z2 | 40 of 128 channels |
    11.9% of the multiply-accumulates | conv1 | conv2 | 32 → 9 | 64 → 13 | 96 → 22 | 320 → 90 | 9,248 → 1,066 |
    9,568 → 1,156 | 18,432 → 5,184 | 589,824 → 67,392 | 608,256 → 72,576 | 630 | 6,526 | 7,156 | 117 |
    1.2e-15 relative | 0 LSB | 64 samples | C++ (csim) | equal to rounding | in every bit on 360 samples | 53,200 |
    106,400 | 126 multipliers | 57.3% | 7,156 weight bits | 5,160,960 | not synthesized yet | vitis_hls, vivado |
    decoded | 8 tensors | 4,002 bytes | 4,643 bytes | 24,400 bytes | at their bit widths | as float32 |
    weights.nnc (ISO/IEC 15938-17), 6.1 times smaller than float32; SHA-256 5c0ffee5 |
    cd runs/digits/synthesize && sh build.sh | 12.1 s | cached | 40.2 s | < 0.1 s | 130.0 s"""
PAGE = """xc7z020clg400-1 | 10 ns (100 MHz) | 1,149 train, 288 validation, 360 test | one sample is 0.28 points |
    2.13.0 | sha256:9f2c1a77 | pruning_ratio | hls.Strategy | 0.1.0 | conv1, relu1, conv2 | 98.10% | Conv2d |
    Verilog and bitstream were not compared | The run itself counts 128 → 40 channels"""
DONE = """31,877 | 59.9% | 28,012 | 26.3% | 232 | 105.5% | not reported | 0.3 ns at 10 ns, timing met | 103 MHz |
    700 cycles, 7 µs at 10 ns | 680 cycles, 147,059 samples a second | timing met with 0.3 ns of slack"""


def phrases(listed: str) -> list[str]:
    return [phrase.strip() for phrase in listed.split("|")]


class Page(HTMLParser):
    """Checks that every element is closed in order, and gathers the text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.texts: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)
        self.texts.append(" " if tag in ("td", "th", "dt", "dd", "p", "h2") else "")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.texts.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", "".join(self.texts))


def shown(manifest: dict[str, Any], width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(table(manifest))
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


def changed(**more: Any) -> dict[str, Any]:
    return {**copy.deepcopy(MANIFEST), **more}


def paths(node: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    keys = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in keys:
        yield (*at, key)
        yield from paths(value, (*at, key))


SYNTHESIZED = changed(synthesis={"status": "done", "report": REPORT})
DEPLOYED = {
    **SYNTHESIZED,
    "deployment": {
        "board": "pynq-z2",
        "link": "DMA (pynq)",
        "samples": 256,
        "latency_us": 101.72,
        "samples_per_second": 71278.4,
        "cycles_per_sample": 784.04,
    },
}


def replace(manifest: dict[str, Any], path: tuple[Any, ...], *value: Any) -> None:
    """Remove the key at ``path`` in place, or give it another value; a path that has gone is passed over."""
    node: Any = manifest
    try:
        for key in path[:-1]:
            node = node[key]
        if value:
            node[path[-1]] = value[0]
        else:
            del node[path[-1]]
    except (KeyError, IndexError, TypeError):
        return


@pytest.mark.parametrize("figure", phrases(BOTH) + phrases(PAGE))
def test_page_holds_the_figure(figure: str) -> None:
    assert figure in Page(render(MANIFEST)).text


@pytest.mark.parametrize("figure", phrases(BOTH))
def test_terminal_holds_the_figure(figure: str) -> None:
    assert figure in " ".join(shown(MANIFEST, 200).split())


@pytest.mark.parametrize("figure", phrases(DONE))
def test_figures_of_the_synthesis_report_are_shown(figure: str) -> None:
    assert figure in Page(render(SYNTHESIZED)).text
    assert figure in " ".join(shown(SYNTHESIZED, 200).split())


def test_synthesized_design_shows_no_estimates_and_no_command() -> None:
    text = Page(render(SYNTHESIZED)).text
    for phrase in ("weight bits 7,156 weight bits", "multipliers 220", "not synthesized", "workstation"):
        assert phrase not in text


def test_terminal_fits_80_columns() -> None:
    lines = shown(MANIFEST, 80).splitlines()
    assert max(map(len, lines)) <= 80
    assert any(all(part in line for part in ("conv2", "64 → 13", "589,824 → 67,392")) for line in lines)


@pytest.mark.parametrize("manifest", [MANIFEST, SYNTHESIZED, {"name": "bare"}], ids=["plan", "done", "bare"])
def test_page_is_self_contained_and_well_formed(manifest: dict[str, Any]) -> None:
    page = render(manifest)
    for loader in ("http:", "https:", "src=", "@import", "url(", "href="):
        assert loader not in page
    tags = Page(page).tags
    assert not {"script", "link", "img", "iframe"} & set(tags)
    assert tags.count("h1") == 1
    assert "default-src 'none'" in page


def test_markup_in_names_is_escaped() -> None:
    evil = "<script>alert('x')</script>"
    manifest = changed(name=evil, versions={evil: evil}, config={"prune": {"x": evil}})
    manifest["layers"][0].update(name=evil, kind=evil)
    manifest["equality"]["hops"][0]["name"] = f"{evil} = {evil}"
    manifest["synthesis"]["command"] = evil
    page = render(manifest)
    assert "<script" not in page
    assert "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;" in page
    Page(page)
    assert shown(changed(name="[bold]raw[/nothing]")).startswith("[bold]raw[/nothing]")


@pytest.mark.parametrize("manifest", [MANIFEST, SYNTHESIZED], ids=["plan", "done"])
def test_any_key_may_be_missing(manifest: dict[str, Any]) -> None:
    for path in paths(manifest):
        less = copy.deepcopy(manifest)
        replace(less, path)
        Page(render(less))
        shown(less)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_odd_values_never_raise(data: st.DataObject) -> None:
    manifest = copy.deepcopy(SYNTHESIZED if data.draw(st.booleans()) else MANIFEST)
    odd = st.sampled_from(
        [None, "", "text", 0, -1, 1e300, float("nan"), float("inf"), True, [], {}, [None], {"x": 1}]
    )
    for path in data.draw(st.lists(st.sampled_from(list(paths(manifest))), max_size=8)):
        replace(manifest, path, data.draw(odd))
    Page(render(manifest))
    shown(manifest)


def test_weights_that_were_not_coded_say_why_and_show_no_sizes() -> None:
    manifest = changed(
        compress={"status": "not installed", "reason": "nncodec is not installed; pip install it"}
    )
    for seen in (Page(render(manifest)).text, shown(manifest, 200)):
        assert "Weights not coded: nncodec is not installed; pip install it." in seen
        assert "as float32" not in seen
    assert "Weights" not in render(changed(compress=None))


def test_input_is_not_changed() -> None:
    before = copy.deepcopy(MANIFEST)
    render(MANIFEST)
    table(MANIFEST)
    assert before == MANIFEST


def test_missing_figures_are_named_and_never_zero() -> None:
    text = Page(render({"name": "bare", "accuracy": {"float": 0.5}})).text
    assert "pruned not measured" in text
    assert "not run not measured not measured" in text
    assert not re.search(r"(?<![\d.])0(\.0+)?(?![\d.])", text)


def test_total_with_a_gap_is_not_measured() -> None:
    manifest = copy.deepcopy(MANIFEST)
    manifest["layers"][1]["multipliers"] = None
    text = Page(render(manifest)).text
    assert "not measured" in text
    assert "9 multipliers" not in text


def test_column_that_no_layer_knows_is_left_out() -> None:
    manifest = copy.deepcopy(MANIFEST)
    for row in manifest["layers"]:
        del row["reuse_factor"]
    assert "reuse factor" in render(MANIFEST)
    assert "reuse factor" not in render(manifest)


@pytest.mark.parametrize(
    ("given_hop", "state"),
    [
        (hop("a = b", 0), "exact"),
        (hop("a = b", 0.0, exact=None), "exact"),
        (hop("a = b", 0, exact=False), "differs"),
        (hop("a = b", 1e-15, "relative"), "equal to rounding"),
        (hop("a = b", 1e-3, "relative", exact=False), "differs"),
        (hop("a = b", 1, "LSB", exact=True), "differs"),
        (hop("a = b", float("nan"), "relative"), "differs"),
        (hop("a = b", None), "not run"),
        ({}, "not run"),
    ],
)
def test_state_of_a_hop(given_hop: dict[str, Any], state: str) -> None:
    assert state_of(given_hop) == state


def test_broken_chain_is_in_the_headline() -> None:
    manifest = copy.deepcopy(MANIFEST)
    manifest["equality"]["hops"][1] = hop("torch = QONNX", 2, exact=False)
    text = Page(render(manifest)).text
    assert "the equality chain breaks at torch = QONNX" in text
    assert "in every bit" not in text
    manifest["equality"]["max_error_lsb"] = 3
    assert "the C++ differs from its reference by up to 3 LSB on 360 samples" in Page(render(manifest)).text


def test_absent_hop_is_shown_as_not_run() -> None:
    manifest = changed(equality={"hops": MANIFEST["equality"]["hops"][:2]})
    text = Page(render(manifest)).text
    assert "integers ? C++ (csim) not run" in text
    assert "the C++ was not compared" in text


def test_wilson_interval_agrees_with_published_values() -> None:
    # Newcombe, "Two-sided confidence intervals for the single proportion", 1998, table I, method 3
    assert wilson(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(0 / 20, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)


def test_chunks_are_balanced_and_complete() -> None:
    assert drawing.chunks(0, 12) == ()
    assert drawing.chunks(5, 12) == ((0, 5),)
    assert drawing.chunks(26, 12) == ((0, 9), (9, 17), (17, 26))


def test_axis_opens_to_whole_steps_and_is_never_empty() -> None:
    assert drawing.axis([0.9806, 0.9861], 0.01, 0, 1) == pytest.approx((0.98, 0.99))
    assert drawing.axis([0.98, 0.99], 0.01, 0, 1) == pytest.approx((0.98, 0.99))
    assert drawing.axis([1.0], 0.01, 0, 1) == pytest.approx((0.99, 1.0))
    assert drawing.axis([0.0], 0.01, 0, 1) == pytest.approx((0.0, 0.01))
    assert drawing.axis([], 0.01, 0, 1) == (0, 1)


def test_silhouette_heights_are_proportional_to_the_widths() -> None:
    made = drawing.silhouette([(64, 16), (32, 32), (None, None)], peak=64, height=130)
    boxes = [shape for shape in made.shapes if isinstance(shape, drawing.Rect)]
    assert [(box.role, box.height) for box in boxes] == [
        ("before", 128),
        ("before", 64),
        ("after", 32),
        ("after", 64),
    ]
    assert all(box.y + box.height / 2 == made.height / 2 for box in boxes)
    assert [shape.role for shape in made.shapes if isinstance(shape, drawing.Line)] == ["axis", "unknown"]
    assert sum(isinstance(shape, drawing.Polygon) for shape in made.shapes) == 2


def test_bar_beyond_its_frame_is_full_and_marked() -> None:
    frame, filled = drawing.bar(1.7, "estimated").shapes
    assert isinstance(frame, drawing.Rect)
    assert isinstance(filled, drawing.Rect)
    assert (filled.width, filled.role) == (frame.width, "estimated over")
    assert len(drawing.bar(0).shapes) == 1


def test_course_runs_from_left_to_right_with_larger_values_higher() -> None:
    made = drawing.course([(1, 128), (2, 64), (3, 0)], (1, 3), (0, 128), height=80)
    traces = [shape for shape in made.shapes if isinstance(shape, drawing.Line) and shape.role == "trace"]
    assert [(line.x1, line.y1, line.x2, line.y2) for line in traces] == [(0, 0, 50, 40), (50, 40, 100, 80)]


def test_estimate_places_dot_and_whisker_on_the_axis() -> None:
    made = drawing.estimate(0.95, (0.92, 0.98), (0.9, 1.0))
    dot = next(shape for shape in made.shapes if isinstance(shape, drawing.Dot))
    whisker = next(
        shape for shape in made.shapes if isinstance(shape, drawing.Line) and shape.role == "whisker"
    )
    assert (dot.x, whisker.x1, whisker.x2) == pytest.approx((50, 20, 80))


def test_what_a_board_did_is_shown_on_the_page_and_in_the_terminal() -> None:
    for words in (Page(render(DEPLOYED)).text, re.sub(r"\s+", " ", shown(DEPLOYED))):
        assert "; the board equals the integers on 256 samples." in words
        assert (
            "on the board 256 samples equal, 101.7 µs for one, 71,278 samples a second over the DMA (pynq), "
            "784.0 clocks a sample in a batch"
        ) in words


def test_power_is_shown_as_the_estimate_that_it_is() -> None:
    report = {**REPORT, "power_w": 1.603}
    words = Page(render(changed(synthesis={"status": "done", "report": report}))).text
    assert "1.603 W by Vivado's estimate" in words
