"""A saved network computes the same, bit for bit; files hold plain data, and what is no such data is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import networks
import pytest
import torch
from networks import Forward, Pair
from torch import nn

from flow import network
from flow.errors import ConfigError, UnsupportedError
from flow.network.tracing import tensors_of

IMAGE = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
SIGNAL = torch.randn(2, 3, 16, generator=torch.Generator().manual_seed(1))
ELEMENTWISE = {
    "ReLU": nn.ReLU(),
    "ReLU6": nn.ReLU6(),
    "LeakyReLU": nn.LeakyReLU(0.3),
    "PReLU": nn.PReLU(6, init=0.4),
    "ELU": nn.ELU(0.6),
    "SELU": nn.SELU(),
    "GELU": nn.GELU("tanh"),
    "SiLU": nn.SiLU(),
    "Mish": nn.Mish(),
    "Softplus": nn.Softplus(2, 0.7),
    "Hardswish": nn.Hardswish(),
    "Hardsigmoid": nn.Hardsigmoid(),
    "Hardtanh": nn.Hardtanh(-0.3, 0.4),
    "Sigmoid": nn.Sigmoid(),
    "Tanh": nn.Tanh(),
    "Dropout": nn.Dropout(0.2),
    "Identity": nn.Identity(),
    "Softmax": nn.Softmax(1),
    "LogSoftmax": nn.LogSoftmax(1),
    "ChannelShuffle": nn.ChannelShuffle(3),
}
"""Layers that leave the shape as it is, with no option at its default."""
PLANE = {
    "Conv2d": nn.Conv2d(
        6, 6, (3, 1), stride=2, padding=(1, 0), dilation=(2, 1), groups=3, padding_mode="reflect"
    ),
    "Conv2d same": nn.Conv2d(6, 6, 3, padding="same", bias=False, padding_mode="circular"),
    "ConvTranspose2d": nn.ConvTranspose2d(6, 6, 3, 2, (1, 0), (1, 0), groups=2, bias=False, dilation=2),
    "BatchNorm2d": nn.BatchNorm2d(6, eps=0.1, affine=False),
    "BatchNorm2d without statistics": nn.BatchNorm2d(6, momentum=None, track_running_stats=False),
    "MaxPool2d": nn.MaxPool2d((3, 2), stride=2, padding=(1, 0), dilation=(1, 2), ceil_mode=True),
    "AvgPool2d": nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False, divisor_override=4),
    "AdaptiveMaxPool2d": nn.AdaptiveMaxPool2d((3, None)),
    "Upsample": nn.Upsample(
        scale_factor=1.5, mode="bilinear", align_corners=False, recompute_scale_factor=True
    ),
    "Upsample to a size": nn.Upsample((5, 4)),
    "ZeroPad2d": nn.ZeroPad2d((1, 2, 0, 3)),
    "AdaptiveAvgPool2d": nn.AdaptiveAvgPool2d((None, 2)),
}
LINE = {
    "Conv1d": nn.Conv1d(6, 6, 3, stride=2, padding=2, groups=2, padding_mode="replicate"),
    "ConvTranspose1d": nn.ConvTranspose1d(6, 6, 3, stride=2, output_padding=1),
    "BatchNorm1d": nn.BatchNorm1d(6, momentum=0.3),
    "MaxPool1d": nn.MaxPool1d(2, stride=1, padding=1),
    "AvgPool1d": nn.AvgPool1d(3, stride=1, padding=1, count_include_pad=False),
    "AdaptiveMaxPool1d": nn.AdaptiveMaxPool1d(7),
    "ZeroPad1d": nn.ZeroPad1d((0, 1)),
    "AdaptiveAvgPool1d": nn.AdaptiveAvgPool1d(2),
}


def joined(net: nn.Module, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Send two inputs through every layer and every join; return four tensors, one an input."""
    plane = net.shared(net.first(x)) + net.shared(net.second(x))
    plane = plane * net.first(x)
    for name in [*ELEMENTWISE, *PLANE]:
        plane = getattr(net, name)(plane)
    line = net.third(y)
    for name in LINE:
        line = getattr(net, name)(line)
    flat = torch.cat([net.flat(plane), net.flat(line)], 1)
    gate = net.gate(net.fc(flat))
    return plane * gate, gate, flat[:, 2:5], y


def everything() -> nn.Module:
    """Return a network with every kind of `MODULES`, each option away from its default, and every join."""
    made = {"first": nn.Conv2d(3, 6, 1), "second": nn.Conv2d(3, 6, 3, padding=1), "third": nn.Conv1d(3, 6, 1)}
    made |= {"shared": nn.Conv2d(6, 6, 1), **ELEMENTWISE, **PLANE, **LINE, "flat": nn.Flatten()}
    made |= {"fc": nn.Linear(108, 6, bias=False), "gate": nn.Unflatten(1, (6, 1, 1))}
    return networks.lively(Pair(joined, **made))


EXAMPLE = (IMAGE, SIGNAL)


def lines(graph: nn.Module) -> list[str]:
    """Return the code of a graph without its head, which may name the types of the arguments."""
    return [line for line in graph.code.splitlines() if not line.startswith("def forward")]


def test_the_network_of_these_tests_has_every_kind_and_every_join():
    graph = network.trace(everything(), EXAMPLE)
    assert set(networks.kinds(graph)) == {*network.MODULES, "add", "mul", "cat", "narrow"}


def test_a_saved_network_computes_the_same_in_its_own_type(tmp_path):
    model = everything()
    graph = network.trace(model, EXAMPLE)
    network.save(graph, tmp_path)
    loaded = network.load(tmp_path)
    inputs = (torch.randn(5, 3, 8, 8).double(), torch.randn(5, 3, 16).double())
    want, got = tensors_of(model(*inputs)), tensors_of(loaded(*inputs))
    assert [tuple(tensor.shape) for tensor in got][1:] == [(5, 6, 1, 1), (5, 3), (5, 3, 16)]
    assert len(want) == len(got) == 4
    assert all(map(torch.equal, want, got))
    assert all(tensor.isfinite().all() and tensor.any() for tensor in got)
    assert not any(module.training for module in loaded.modules())


def test_a_saved_network_has_the_same_nodes_modules_and_state(tmp_path):
    graph = network.trace(everything(), EXAMPLE)
    network.save(graph, tmp_path)
    loaded = network.load(tmp_path)
    assert lines(loaded) == lines(graph)
    assert {name: str(module) for name, module in loaded.named_modules() if name} == {
        name: str(module) for name, module in graph.named_modules() if name
    }
    assert {n: tuple(v.shape) for n, v in loaded.state_dict().items()} == {
        n: tuple(v.shape) for n, v in graph.state_dict().items()
    }


def test_saving_leaves_the_network_alone(tmp_path):
    graph = network.trace(everything(), EXAMPLE).train()
    before = networks.state(graph)
    network.save(graph, tmp_path)
    networks.assert_untouched(graph, before)


def test_saving_twice_writes_the_same_bytes(tmp_path):
    graph = network.trace(everything(), EXAMPLE)
    network.save(graph, tmp_path / "one")
    network.save(network.load(tmp_path / "one"), tmp_path / "two")
    names = ["network.json", "weights.pt"]
    assert sorted(path.name for path in (tmp_path / "two").iterdir()) == names
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_a_shared_layer_is_saved_once(tmp_path):
    model = Forward(lambda net, x: net.c(net.c(x)), c=nn.Conv2d(3, 3, 1))
    network.save(network.trace(model, IMAGE), tmp_path)
    loaded = network.load(tmp_path)
    assert [node.name for node in network.uses(loaded)["c"]] == ["c", "c_1"]
    assert list(loaded.state_dict()) == ["c.weight", "c.bias"]
    assert torch.equal(loaded(IMAGE), model(IMAGE))


@pytest.mark.parametrize(
    "forward",
    [lambda net, x: x, lambda net, x: (x, x), lambda net, x: x + x, lambda net, x: torch.cat([x, x], 1)],
)
def test_networks_without_layers_survive(tmp_path, forward):
    model = Forward(forward)
    network.save(network.trace(model, IMAGE), tmp_path)
    want, got = tensors_of(model(IMAGE)), tensors_of(network.load(tmp_path)(IMAGE))
    assert len(want) == len(got)
    assert all(map(torch.equal, want, got))


def test_nested_names_and_odd_names_survive(tmp_path):
    model = nn.Sequential(networks.named(features=nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU())))
    model.features.add_module("conv-1 (last)", nn.Conv2d(3, 3, 1))
    graph = network.trace(model, IMAGE)
    network.save(graph, tmp_path)
    assert torch.equal(network.load(tmp_path)(IMAGE), model(IMAGE))
    assert [node.target for node, _ in network.weighted(network.load(tmp_path))] == [
        "features.0",
        "features.conv-1 (last)",
    ]


def test_the_weights_are_read_without_pickle(tmp_path):
    network.save(network.trace(nn.Sequential(nn.Conv2d(3, 3, 3)), IMAGE), tmp_path)
    state = torch.load(tmp_path / "weights.pt", weights_only=True)
    assert {name: tuple(value.shape) for name, value in state.items()} == {
        "0.weight": (3, 3, 3, 3),
        "0.bias": (3,),
    }


def test_an_open_bound_of_a_clamp_is_json(tmp_path):
    graph = network.trace(nn.Sequential(nn.Hardtanh(-float("inf"), 2.5)), IMAGE)
    network.save(graph, tmp_path)
    written = json.loads((tmp_path / "network.json").read_text())
    assert written["modules"]["0"]["options"] == {"min_val": "-inf", "max_val": 2.5}
    assert str(network.load(tmp_path).get_submodule("0")) == str(graph.get_submodule("0"))


# ---------------------------------------------------------------- what is refused


def tampered(folder: Path, change: Callable[[dict], None]) -> str:
    """Return what `load` says against a saved conv and sum after ``change`` of its description."""
    model = nn.Sequential(nn.Conv2d(3, 3, 1), Forward(lambda net, x: x + x))
    network.save(network.trace(model, IMAGE), folder)
    path = folder / "network.json"
    description = json.loads(path.read_text())
    change(description)
    path.write_text(json.dumps(description))
    with pytest.raises((UnsupportedError, ConfigError)) as caught:
        network.load(folder)
    return str(caught.value)


def test_an_unknown_kind_in_a_file_is_refused(tmp_path):
    def change(description):
        description["modules"]["0"]["kind"] = "Bilinear"

    assert tampered(tmp_path, change) == (
        f"model: layer '0' (Bilinear) is not supported; supported layers: {', '.join(network.MODULES)}"
    )


@pytest.mark.parametrize(
    ("node", "key", "value", "op"),
    [
        (0, "target", "x, y=print('run')", "placeholder"),
        (0, "target", "*x", "placeholder"),
        (1, "target", '0")(print("run"), "', "call_module"),
        (1, "op", "call_method", "call_method"),
        (1, "op", "get_attr", "get_attr"),
        (1, "op", "call_function", "call_function"),
        (1, "name", "a = print('run')", "call_module"),
        (2, "target", "sub", "call_function"),
        (2, "target", "eval", "call_function"),
        (3, "target", "print('run')", "output"),
    ],
)
def test_a_name_in_a_file_that_would_run_as_code_is_refused(tmp_path, capsys, node, key, value, op):
    def change(description):
        description["nodes"][node][key] = value
        if key == "target":
            description["modules"][value] = description["modules"]["0"]

    shown = "0" if key == "op" else value
    assert tampered(tmp_path, change) == (
        f"model: network.json must hold what flow.network.save writes, not {shown!r} ({op}); "
        "run the stage that wrote it again"
    )
    assert capsys.readouterr().out == ""


def damaged(folder: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        network.load(folder)
    head, tail = (
        f"model: {str(folder)!r} must hold what flow.network.save writes, not fail with ",
        "; run the stage ",
    )
    message = str(caught.value)
    assert message.startswith(head)
    return message.removeprefix(head).partition(tail)[0]


def test_files_that_are_missing_or_broken_are_refused(tmp_path):
    assert damaged(tmp_path).startswith("FileNotFoundError: ")
    network.save(network.trace(nn.Sequential(nn.Conv2d(3, 3, 1)), IMAGE), tmp_path)
    whole = (tmp_path / "network.json").read_text()
    for text, told in (
        ("", "JSONDecodeError: Expecting value: line 1 column 1 (char 0)"),
        ("[]", "TypeError: list indices must be integers or slices, not str"),
        ("{}", "KeyError: 'nodes'"),
        ("[" * 100_000, "RecursionError: maximum recursion depth exceeded while decoding a JSON array"),
        (whole.replace('"inputs"', '"given"'), "KeyError: 'inputs'"),
        (whole.replace('"out_channels": 3', '"out_channels": -3'), None),
        (
            whole.replace('"out_channels": 3', '"out_channels": 4'),
            "ValueError: '0.weight' is torch.float32 of shape",
        ),
    ):
        (tmp_path / "network.json").write_text(text)
        assert told is None or damaged(tmp_path).startswith(told.partition(" while")[0])
        assert damaged(tmp_path)
    (tmp_path / "network.json").write_text(whole)
    weights = (tmp_path / "weights.pt").read_bytes()
    (tmp_path / "weights.pt").write_bytes(weights[: len(weights) // 2])
    assert damaged(tmp_path).startswith("RuntimeError: ")
    torch.save({"0.weight": torch.zeros(3, 3, 1, 1)}, tmp_path / "weights.pt")
    assert damaged(tmp_path) == "ValueError: '0.bias' is in one of the files only"
    torch.save([torch.zeros(3)], tmp_path / "weights.pt")
    assert damaged(tmp_path) == "AttributeError: 'list' object has no attribute 'values'"
