"""The sensitivity scan: against a literal loop that zeroes by hand, and what it leaves alone."""

from __future__ import annotations

import copy
import io
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from networks import Forward, assert_untouched, clusters, cnn, fill, lively, mlp, named, residual, state
from torch import nn

import flow
from flow.errors import ConfigError, UnsupportedError
from flow.prune.scan import Scan, ScanRow, title
from flow.types import Data

RATIOS = (0.25, 0.5, 0.9)
Class = tuple[tuple[str, ...], tuple[tuple[tuple[str, int], ...], ...]]
"""Layers, and for each unit of theirs the rows that go together."""


def of(count: int, *layers: str) -> Class:
    """Return a class whose unit i is row i of every layer."""
    return layers, tuple(tuple((layer, row) for layer in layers) for row in range(count))


def concat() -> nn.Module:
    return lively(
        Forward(
            lambda net, x: net.fc(
                torch.flatten(torch.cat([torch.relu(net.left(x)), torch.relu(net.right(x))], 1), 1)
            ),
            left=nn.Conv2d(2, 4, 3),
            right=nn.Conv2d(2, 3, 3),
            fc=nn.Linear(7 * 9, 3),
        )
    )


def depthwise() -> nn.Module:
    up, depth = nn.Conv2d(2, 5, 1), nn.Conv2d(5, 5, 3, groups=5)
    layers = named(up=up, r1=nn.ReLU(), depth=depth, r2=nn.ReLU(), flat=nn.Flatten(), fc=nn.Linear(45, 3))
    return lively(nn.Sequential(layers))


def grouped() -> nn.Module:
    first, pairs = nn.Conv2d(2, 6, 1), nn.Conv2d(6, 6, 3, groups=2)
    layers = named(
        first=first, r1=nn.ReLU(), pairs=pairs, r2=nn.ReLU(), flat=nn.Flatten(), fc=nn.Linear(54, 3)
    )
    return lively(nn.Sequential(layers))


def normed() -> nn.Module:
    model = lively(cnn())
    for norm in (model.bn1, model.bn2):
        norm.running_var.data += 0.5
    return model


def in_step(layer: str) -> Class:
    """Return the class of 6 rows in 2 groups, where rows 0 and 3, 1 and 4, 2 and 5 go together."""
    return (layer,), tuple(((layer, row), (layer, row + 3)) for row in range(3))


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], tuple[Class, ...]]] = {
    "mlp": (lambda: lively(mlp()), (6,), (of(8, "fc1"), of(8, "fc2"))),
    "BatchNorm": (normed, (1, 6, 6), (of(6, "conv1"), of(8, "conv2"), of(7, "hidden"))),
    "residual": (residual, (2, 5, 5), (of(4, "stem", "b"), of(4, "a"))),
    "concat": (concat, (2, 5, 5), (of(4, "left"), of(3, "right"))),
    "depthwise": (depthwise, (2, 5, 5), (of(5, "up", "depth"),)),
    "grouped": (grouped, (2, 5, 5), (in_step("first"), in_step("pairs"))),
}


def told(model: nn.Module, shape: tuple[int, ...]) -> Data:
    """Return samples whose validation labels are the network's own; those for training and test are wrong."""
    found = clusters(samples=60, shape=shape, noise=3)
    with torch.no_grad():
        y = model(torch.from_numpy(found.validation[0])).argmax(1).numpy()
    return replace(found, validation=(found.validation[0], y))


def made(name: str) -> tuple[nn.Module, torch.Tensor, Data]:
    build, shape, _ = NETWORKS[name]
    model = build().float().eval()
    last = list(model.modules())[-1]
    with torch.no_grad():  # else one class wins everywhere, whatever is zero
        last.bias -= model(torch.from_numpy(told(model, shape).validation[0])).mean(0)
    return model, torch.zeros(2, *shape), told(model, shape)


def norms_of(model: nn.Module, layer: str) -> torch.Tensor:
    """Return the norm of each row, times its BatchNorm's factor, over the mean of the layer."""
    rows = model.get_submodule(layer).weight.detach().double().flatten(1).norm(dim=1)
    if layer.startswith("conv") and hasattr(model, "bn1"):
        norm = model.get_submodule(layer.replace("conv", "bn"))
        rows = rows * (norm.weight / (norm.running_var + norm.eps).sqrt()).detach().double().abs()
    return rows / rows.mean()


def by_hand(model: nn.Module, chosen: Class, ratio: float, data: Data) -> tuple[int, float, float]:
    """Zero the least units of a copy, one by one; return channels left, accuracy and loss."""
    layers, units = chosen
    scores = {layer: norms_of(model, layer) for layer in layers}
    worth = [sum(float(scores[layer][row]) for layer, row in unit) / len(unit) for unit in units]
    going = sorted(range(len(units)), key=lambda unit: worth[unit])[: math.floor(ratio * len(units) + 1e-9)]
    twin = copy.deepcopy(model)
    for unit in going:
        for layer, row in units[unit]:
            fill(twin.get_submodule(layer), [row])
            if layer.startswith("conv") and hasattr(model, "bn1"):
                norm = twin.get_submodule(layer.replace("conv", "bn"))
                fill(norm, [row])
                norm.running_mean[row] = 0
    x, y = (torch.from_numpy(part) for part in data.validation)
    with torch.no_grad():
        outputs = twin(x)
    accuracy = float((outputs.argmax(1) == y).double().mean())
    return len(units) - len(going), accuracy, float(nn.functional.cross_entropy(outputs, y))


@pytest.mark.parametrize("name", NETWORKS)
def test_every_row_is_what_zeroing_by_hand_gives(name: str) -> None:
    model, example, data = made(name)
    found = flow.scan(model, example, data=data, ratios=RATIOS, criterion="magnitude")
    classes = {layers: (layers, units) for layers, units in NETWORKS[name][2]}
    assert [(row.layers, row.ratio) for row in found.rows] == [
        (layers, ratio) for layers in classes for ratio in RATIOS
    ]
    assert found.accuracy == 1
    assert len({row.accuracy for row in found.rows} | {found.accuracy}) >= 3  # else the zeros went nowhere
    for row in found.rows:
        channels, accuracy, loss = by_hand(model, classes[row.layers], row.ratio, data)
        assert (row.channels_before, row.channels) == (len(classes[row.layers][1]), channels)
        assert row.accuracy == pytest.approx(accuracy)
        assert row.loss == pytest.approx(loss, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_network_is_left_as_it_was(name: str) -> None:
    model, example, data = made(name)
    before = state(model)
    flow.scan(model, example, data=data, ratios=RATIOS)
    assert_untouched(model, before)


def test_macs_are_those_of_the_smaller_network() -> None:
    model, example, data = made("mlp")
    found = flow.scan(model, example, data=data, ratios=(0.5,))
    assert found.macs == 6 * 8 + 8 * 8 + 8 * 3
    assert [row.macs for row in found.rows] == [6 * 4 + 4 * 8 + 8 * 3, 6 * 8 + 8 * 4 + 4 * 3]
    model, example, data = made("residual")
    rows = flow.scan(model, example, data=data, ratios=(0.5,)).rows
    assert [row.macs for row in rows] == [
        25 * 9 * (2 * 2 + 2 * 4 + 4 * 2) + 2 * 3,
        25 * 9 * (2 * 4 + 4 * 2 + 2 * 4) + 4 * 3,
    ]


def test_one_channel_always_stays() -> None:
    model, example, data = made("mlp")
    assert [row.channels for row in flow.scan(model, example, data=data, ratios=(0.999,)).rows] == [1, 1]


def test_ratio_zero_and_a_ratio_below_one_channel_are_the_network_as_it_came() -> None:
    model, example, data = made("mlp")
    found = flow.scan(model, example, data=data, ratios=(0, 0.1))
    assert {(r.accuracy, r.loss, r.macs, r.channels) for r in found.rows} == {
        (found.accuracy, found.loss, found.macs, 8)
    }


def test_ratios_come_in_order_and_once() -> None:
    model, example, data = made("mlp")
    rows = flow.scan(model, example, data=data, ratios=[0.5, 0.25, 0.5]).rows
    assert [row.ratio for row in rows] == [0.25, 0.5, 0.25, 0.5]


def test_test_samples_are_never_looked_at() -> None:
    model, example, data = made("mlp")
    blind = replace(data, test=(np.full_like(data.test[0], np.nan), data.test[1] - 99))
    assert flow.scan(model, example, data=blind) == flow.scan(model, example, data=data)


def test_taylor_takes_the_samples_that_are_given() -> None:
    model, example, data = made("mlp")
    own = flow.scan(model, example, data=data)
    assert own.criterion == "taylor"
    assert flow.scan(model, example, data=data, samples=data.train) == own
    few = (data.train[0][:4], data.validation[1][:4])
    other = flow.scan(model, example, data=data, samples=few, criterion="taylor")
    assert [row.loss for row in other.rows] != [row.loss for row in own.rows]


def test_random_depends_on_the_seed_alone() -> None:
    model, example, data = made("mlp")
    one, same, other = (
        flow.scan(model, example, data=data, criterion="random", seed=seed) for seed in (1, 1, 2)
    )
    assert one == same
    assert one != other


def test_ignored_layers_are_not_scanned_with_all_that_hangs_on_them() -> None:
    model, example, data = made("residual")
    rows = flow.scan(model, example, data=data, ratios=(0.5,), ignored_layers=("b",)).rows
    assert [row.layers for row in rows] == [("a",)]


def test_progress_counts_the_classes() -> None:
    model, example, data = made("residual")
    seen: list[tuple[int, int, str]] = []
    flow.scan(model, example, data=data, ratios=(0.5,), progress=lambda *args: seen.append(args))
    assert seen == [(1, 2, "stem + b"), (2, 2, "a")]


def test_what_is_suggested_is_ready_for_prune() -> None:
    model, example, data = made("residual")
    chosen = flow.scan(model, example, data=data, ratios=(0.25, 0.5)).suggested(0.99)
    assert chosen == {"stem": 0.5, "b": 0.5, "a": 0.5}
    pruned = flow.prune(model, example, pruning_ratio_dict=chosen)
    assert {layer: len(rows) for layer, rows in pruned.pruned.items()} == {"stem": 2, "b": 2, "a": 2}


def scanned(*classes: tuple[tuple[str, ...], list[float]], accuracy: float = 0.9) -> Scan:
    """Return a scan of these accuracies at ratios 0.1, 0.2, ..."""
    rows = [
        ScanRow(layers, place / 10, 16, 16 - place, value, 0.5, 100.0)
        for layers, values in classes
        for place, value in enumerate(values, 1)
    ]
    return Scan(tuple(rows), accuracy, 0.4, 120.0, "magnitude", 100)


def test_a_curve_that_comes_back_is_cut_where_it_first_falls() -> None:
    made = scanned((("a",), [0.9, 0.8, 0.9, 0.9]), (("b",), [0.7, 0.9]), (("c",), [0.95, 0.89]))
    assert made.suggested(0.01) == {"a": 0.1, "b": 0.0, "c": 0.2}
    assert made.suggested(0.1) == {"a": 0.4, "b": 0.0, "c": 0.2}


def test_a_drop_at_the_limit_is_within_it() -> None:
    assert 0.8 - 0.1 > 0.7  # by a rounding
    assert scanned((("a",), [0.7]), accuracy=0.8).suggested(0.1) == {"a": 0.1}


def test_a_layer_of_several_classes_gets_the_least_of_them() -> None:
    made = scanned((("a",), [0.9, 0.9]), (("a", "b"), [0.9, 0.5]), (("b",), [0.1, 0.1]))
    assert made.suggested(0.01) == {"a": 0.1, "b": 0.0}


@pytest.mark.parametrize("drop", [-0.01, 1, math.nan])
def test_a_drop_out_of_range_is_rejected(drop: float) -> None:
    with pytest.raises(ConfigError) as caught:
        scanned((("a",), [0.9])).suggested(drop)
    assert str(caught.value) == (
        f"scan: max_accuracy_drop must be in [0, 1), not {drop}; 0.01 allows one point"
    )


def many(count: int) -> Scan:
    return scanned(*[((f"layer{i}.conv",), [0.9 - i / 50, 0.8 - i / 50]) for i in range(count)])


def test_the_svg_is_whole_and_has_a_line_a_class(tmp_path: Path) -> None:
    made, file = many(20), tmp_path / "deep" / "scan.svg"
    assert made.plot(file) == file
    root = ElementTree.parse(file).getroot()
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    text = file.read_text()
    for i in range(20):
        assert f"<!-- layer{i}.conv (16) -->" in text
    assert "<!-- all channels -->" in text
    assert [path.name for path in file.parent.iterdir()] == ["scan.svg"]
    assert made.plot(tmp_path / "again.svg").read_bytes() == file.read_bytes()


def test_the_png_is_an_image(tmp_path: Path) -> None:
    from matplotlib.image import imread

    file = many(3).plot(str(tmp_path / "scan.PNG"))
    height, width, _ = imread(io.BytesIO(file.read_bytes()), format="png").shape
    assert width >= 1000 and height >= 500


def test_lines_differ_in_more_than_colour() -> None:
    from matplotlib.figure import Figure

    from flow.prune.drawing import _lines

    axes, made = Figure().add_subplot(), many(40)
    _lines(axes, made.curves(), made.accuracy)
    lines = axes.get_lines()[1:]
    assert len({(line.get_linestyle(), line.get_marker()) for line in lines[:20]}) == 20
    assert len({(line.get_color(), line.get_linestyle(), line.get_marker()) for line in lines}) == 40


def test_a_plot_that_cannot_be_written_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = many(1).plot(tmp_path / "scan.svg")
    before = file.read_bytes()

    def fails(*_: object) -> None:
        raise OSError("no room")

    monkeypatch.setattr("os.replace", fails)
    with pytest.raises(OSError, match="no room"):
        many(2).plot(file)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("scan.svg", before)]


def test_another_suffix_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        many(1).plot(tmp_path / "scan.jpg")
    assert str(caught.value) == "scan: plot must end in .svg or .png, not 'scan.jpg'; scan.svg stays sharp"


def test_the_table_has_a_row_a_class_and_a_column_a_ratio() -> None:
    from rich.console import Console

    console = Console(width=80, file=io.StringIO())
    long = ("stem", "block1.b", "block2.b")
    console.print(scanned((long, [0.9, 0.85]), (("block1.a",), [0.9, 0.4])).table())
    lines = [line.split() for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]
    assert lines == [
        ["layers", "width", "0.1", "0.2"],
        ["all", "channels", "90.0", "90.0"],
        ["stem", "+", "2", "more", "16", "90.0", "85.0"],
        ["block1.a", "16", "90.0", "40.0"],
    ]


def test_two_layers_that_go_together_are_named_in_full() -> None:
    assert [title(layers) for layers in (("a",), ("a", "b"), ("a", "b", "c"))] == ["a", "a + b", "a + 2 more"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ratios": (0.5, 1.0)}, "scan: ratios must be in [0, 1), not 1.0; 0.5 removes half of the channels"),
        ({"ratios": (-0.5,)}, "scan: ratios must be in [0, 1), not -0.5; 0.5 removes half of the channels"),
        ({"ratios": (math.nan,)}, "scan: ratios must be in [0, 1), not nan; 0.5 removes half of the channels"),
        ({"ratios": ()}, "scan: ratios must name at least one share, not none; (0.25, 0.5, 0.75) is quick"),
        ({"data": None}, "scan: data must be samples with labels, not NoneType; flow.load_data gives some"),
        ({"batch_size": 0}, "scan: batch_size must be at least 1, not 0; 512 is usual"),
        ({"criterion": "size"}, "prune: criterion must be one of magnitude"),
        ({"ignored_layers": "fc9"}, "prune: ignored_layers must name layers of the network (fc1, fc2, fc3), not 'fc9'"),
    ],
)  # fmt: skip
def test_bad_input_is_rejected(options: dict[str, object], message: str) -> None:
    model, example, data = made("mlp")
    with pytest.raises(ConfigError) as caught:
        flow.scan(model, example, **{"data": data, **options})  # type: ignore[arg-type]
    assert str(caught.value).startswith(message)


def test_no_validation_samples_are_rejected() -> None:
    model, example, data = made("mlp")
    none = replace(data, validation=tuple(part[:0] for part in data.validation))
    with pytest.raises(ConfigError, match="must hold at least one sample each, not 0"):
        flow.scan(model, example, data=none)


def test_a_loss_that_is_not_finite_is_rejected() -> None:
    model, example, data = made("mlp")
    far = replace(data, validation=(np.full_like(data.validation[0], np.inf), data.validation[1]))
    with pytest.raises(ConfigError, match="scan: loss of the network must be finite, not nan; "):
        flow.scan(model, example, data=far)


def test_a_network_with_nothing_to_prune_is_rejected() -> None:
    model = lively(nn.Sequential(named(fc=nn.Linear(6, 3)))).float()
    with pytest.raises(UnsupportedError) as caught:
        flow.scan(model, torch.zeros(2, 6), data=told(model, (6,)))
    assert str(caught.value) == (
        "scan: network must have channels that may go, not none; free layers, or add a hidden layer"
    )
