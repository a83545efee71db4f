"""The cost of a float network: convert's folding, the quantized file's figures within a bound, laws of narrowing."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import networks
import numpy as np
import pytest
import torch
from networks import Forward, analysed, lively
from torch import nn

from flow import qonnx
from flow.boards import DSP_SHARE, load
from flow.convert.folds import chosen, folds_of
from flow.demo import digits_cnn
from flow.errors import ConfigError, UnsupportedError
from flow.estimate import constant_digits, constants, design_cost, layer_cost, limits, on_board
from flow.estimate.budget import COSTS, board_cost, narrowed_shapes, network_cost
from flow.estimate.graph import graph_work
from flow.estimate.network import Bits, network_work
from flow.estimate.reuse import Fold, hls4ml_streams
from flow.fixed.from_qonnx import lower
from flow.network import shapes, trace, weighted
from flow.network.channels import analyse
from flow.network.fuse import fuse_batchnorm
from flow.network.narrow import narrow
from flow.quantize import quantize
from flow.types import Data

BOARD = load("pynq-z2")
BITS = Bits(6, 6, 8)
IMAGE = torch.zeros(1, 1, 8, 8)


def demo() -> nn.Module:
    """Return the demo network with BatchNorm that matters."""
    torch.manual_seed(0)
    model = digits_cnn()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 2)
            module.running_var.uniform_(0.5, 2)
    return model.eval()


def cost(model: nn.Module, example: torch.Tensor, **options) -> dict[str, float]:
    bits = options.pop("bits", BITS)
    return network_cost(trace(model, example), example, bits, options.pop("board", BOARD), **options)


# ---------------------------------------------------------------- against the quantized file


@pytest.fixture(scope="module")
def file_works(tmp_path_factory: pytest.TempPathFactory):
    """Return the fixed-point graph of the demo network's QONNX file."""
    draw = np.random.default_rng(0)

    def split(count: int) -> tuple[np.ndarray, np.ndarray]:
        return draw.uniform(-1, 1, (count, 1, 8, 8)).astype(np.float32), np.arange(count) % 10

    data = Data("random", split(16), split(8), split(8))
    folder: Path = tmp_path_factory.mktemp("quantized")
    made = quantize(fuse_batchnorm(trace(demo(), IMAGE)), IMAGE, data=data, out=folder, epochs=0)
    return lower(qonnx.load(made.onnx_path))


@pytest.mark.parametrize("name", ["pynq-z2", "zcu104"])
@pytest.mark.parametrize("reuse_factor", [None, 1])
def test_the_float_demo_costs_what_its_quantized_file_does(file_works, name, reuse_factor):
    """Cycles, DSP slices and memories are equal; LUTs and flip-flops up to a tenth above: sums are as wide as any
    weights could make them."""
    board = load(name)
    options = {} if reuse_factor is None else {"ReuseFactor": reuse_factor}
    keys = chosen(folds_of(file_works, "io_stream"), options, board.resources.dsps)
    works = graph_work(file_works)
    layers = []
    for work in works:
        factor = keys.get(work.name, {"ReuseFactor": 1})["ReuseFactor"]
        layers.append((work, factor, layer_cost(work, factor, "io_stream")))
    design = design_cost([of_layer for _, _, of_layer in layers], "io_stream")
    luts, flip_flops, dsps, blocks = on_board(layers)
    mine = cost(demo(), IMAGE, board=board, reuse_factor=reuse_factor)
    assert mine["interval_cycles"] == design.interval_cycles
    assert mine["latency_cycles"] == design.tail_cycles
    assert (mine["dsps"], mine["bram18"]) == (dsps, blocks)
    assert luts <= mine["luts"] <= 1.1 * luts
    assert flip_flops <= mine["flip_flops"] <= 1.1 * flip_flops


# ---------------------------------------------------------------- what the figures are


def mlp(*widths: int) -> nn.Module:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def test_the_figures_are_those_of_the_layers_at_the_chosen_factors():
    found = cost(mlp(16, 8, 4), torch.zeros(1, 16), reuse_factor=4)
    works = network_work(trace(mlp(16, 8, 4), torch.zeros(1, 16)), torch.zeros(1, 16), BITS)
    layers = [(w, r, layer_cost(w, r, "io_parallel")) for w, r in zip(works, (4, 1, 4), strict=True)]
    design, taken = design_cost([c for _, _, c in layers], "io_parallel"), on_board(layers)
    shares = [t / limit for t, limit in zip(taken, limits(BOARD.resources), strict=True)]
    expected = (*taken, design.interval_cycles, design.tail_cycles, max(shares))
    assert found == dict(zip(COSTS, expected, strict=True))


def test_streams_are_taken_where_the_network_has_convs():
    conv, dense = nn.Sequential(nn.Conv2d(1, 4, 3)), nn.Sequential(nn.Linear(8, 4))
    for model, example, io_type in ((conv, IMAGE, "io_stream"), (dense, torch.zeros(1, 8), "io_parallel")):
        figures = {name: cost(model, example, io_type=name) for name in ("io_stream", "io_parallel")}
        assert figures["io_stream"] != figures["io_parallel"]
        assert cost(model, example) == figures[io_type]


def test_folding_keeps_the_multipliers_within_the_boards_dsp_slices():
    found = cost(mlp(64, 64, 32, 10), torch.zeros(1, 64), bits=Bits(12, 12, 12))
    assert 0 < found["dsps"] <= DSP_SHARE * BOARD.resources.dsps * constants()["placed"]["dsps"]
    wide = replace(BOARD, resources=replace(BOARD.resources, dsps=10_000))
    assert (
        cost(mlp(64, 64, 32, 10), torch.zeros(1, 64), board=wide)["interval_cycles"]
        < found["interval_cycles"]
    )


def test_a_board_without_figures_has_no_share_of_them():
    unknown = replace(BOARD, resources=replace(BOARD.resources, luts=None, flip_flops=None, dsps=None))
    found = cost(demo(), IMAGE, board=unknown)
    assert found["board_share"] == pytest.approx(found["bram18"] / limits(BOARD.resources)[3])


def test_batchnorm_costs_nothing_and_scales_the_weights():
    graph = trace(demo(), IMAGE)
    for reuse_factor in (None, 1):
        with_norms, fused = (
            network_cost(g, IMAGE, BITS, BOARD, reuse_factor=reuse_factor)
            for g in (graph, fuse_batchnorm(graph))
        )
        assert with_norms == fused


def test_zeros_are_free_where_a_layer_is_not_folded():
    dense, sparse = mlp(32, 16, 4), mlp(32, 16, 4)
    with torch.no_grad():
        sparse[0].weight[:, ::2] = 0
    example = torch.zeros(1, 32)
    assert cost(sparse, example, reuse_factor=1)["luts"] < 0.7 * cost(dense, example, reuse_factor=1)["luts"]
    assert cost(sparse, example, reuse_factor=8) == cost(dense, example, reuse_factor=8)


def test_the_network_is_not_changed():
    graph = trace(demo(), IMAGE)
    before = networks.state(graph)
    network_cost(graph, IMAGE, BITS, BOARD)
    networks.assert_untouched(graph, before)


def test_a_layer_that_is_used_twice_is_built_twice():
    def chain(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
        return net.out(net.again(torch.relu(net.a(x))))

    layer, out = nn.Linear(8, 8), nn.Linear(8, 2)
    twin = nn.Linear(8, 8)
    twin.load_state_dict(layer.state_dict())
    apart = Forward(chain, a=layer, again=twin, out=out)
    shared = Forward(lambda net, x: net.out(net.a(torch.relu(net.a(x)))), a=layer, out=out)
    for reuse_factor in (None, 1, 4):
        costs = [cost(net, torch.zeros(1, 8), reuse_factor=reuse_factor) for net in (apart, shared)]
        assert costs[0] == costs[1]


# ---------------------------------------------------------------- widths of single layers


def works(model: nn.Module, example: torch.Tensor, bits: Bits):
    return {work.name: work for work in network_work(trace(model, example), example, bits)}


def test_a_layer_has_its_own_widths_and_hands_them_on():
    found = works(demo(), IMAGE, Bits(6, 6, 8, {"conv2": (3, 4), "conv3": (5, 7)}))
    plain = works(demo(), IMAGE, BITS)
    widths = {name: (w.input_bits, w.weight_bits, w.output_bits) for name, w in found.items()}
    assert widths["conv1"] == (8, 6, plain["conv1"].output_bits)
    assert widths["conv2"][:2] == (6, 3) and widths["conv2 quantizer"][2] == 4
    assert widths["pool"] == (4, 0, 4)
    assert widths["conv3"][:2] == (4, 5) and widths["conv3 quantizer"][2] == 7
    assert widths["fc"][:2] == (7, 6)


def test_the_same_widths_by_layer_are_the_same_network():
    names = ("conv1", "conv2", "conv3", "fc")
    assert works(demo(), IMAGE, Bits(9, 9, 8, dict.fromkeys(names, (6, 6)))) == works(demo(), IMAGE, BITS)


def test_a_join_goes_by_its_node():
    def forward(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
        return net.out(torch.cat([net.a(x), net.b(x)], 1))

    model = Forward(forward, a=nn.Conv2d(1, 2, 1), b=nn.Conv2d(1, 2, 1), out=nn.Conv2d(4, 2, 1))
    for layers, expected in (
        ({}, 6),
        ({"cat": (6, 3)}, 3),
        ({"a": (6, 4)}, 6),
        ({"a": (6, 7), "b": (6, 2)}, 7),
    ):
        assert works(model, IMAGE, Bits(6, 6, 8, layers))["out"].input_bits == expected


def test_an_activation_may_be_asked_for_its_width():
    found = works(demo(), IMAGE, Bits(6, 6, 8, {"conv2": (6, 5), "relu2": (6, 3)}))
    assert (found["pool"].input_bits, found["conv3"].input_bits) == (3, 3)


@pytest.mark.parametrize("changed", [{"conv2": (2, 6)}, {"conv2": (6, 2)}])
def test_narrower_layers_cost_less(changed):
    before, after = (cost(demo(), IMAGE, bits=Bits(6, 6, 8, layers)) for layers in ({}, changed))
    assert after["luts"] < before["luts"] and after["interval_cycles"] == before["interval_cycles"]


def test_one_bit_weights_are_signs_a_digit_each():
    model = mlp(16, 8)
    with torch.no_grad():
        model[0].weight[:] = torch.randn(8, 16)
    (work,) = works(model, torch.zeros(1, 16), Bits(1, 6, 8)).values()
    assert (work.digits, work.wide) == (128, 0)


# ---------------------------------------------------------------- pruned networks


def shuffled() -> nn.Module:
    def forward(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
        left, right = net.shuffle(torch.cat([net.a(x), net.b(x)], 1)).chunk(2, dim=1)
        return net.fc(torch.flatten(net.c(left) + net.d(right), 1))

    convs = {"a": nn.Conv2d(2, 4, 1), "b": nn.Conv2d(2, 4, 1), "shuffle": nn.ChannelShuffle(2)}
    convs |= {"c": nn.Conv2d(4, 3, 1), "d": nn.Conv2d(4, 3, 1), "fc": nn.Linear(3 * 25, 2)}
    return lively(Forward(forward, **convs))


NETS = {
    "demo": (demo, (1, 8, 8)), "residual": (networks.residual, (2, 5, 5)), "mobile": (networks.mobile, (2, 5, 5)),
    "branches": (networks.branches, (2, 5, 5)), "shuffle": (shuffled, (2, 5, 5)), "mlp": (networks.mlp, (6,)),
}  # fmt: skip


def fewer(name: str, seed: int) -> tuple[torch.fx.GraphModule, torch.fx.GraphModule]:
    """Return a network, and the same with some of its channels left."""
    model, shape = NETS[name]
    graph, channels = analysed(model(), 1, *shape)
    draw = np.random.default_rng(seed)
    alive = np.ones(1 + max(int(labels.max()) for labels in channels.labels.values()), dtype=bool)
    prunable = np.array(sorted(channels.prunable()))
    alive[draw.permutation(prunable)[: int(draw.integers(1, len(prunable) + 1))]] = False
    for labels in channels.labels.values():
        alive[labels[0]] = True
    return graph, narrow(graph, channels, alive)


@pytest.mark.parametrize("name", NETS)
def test_the_shapes_of_a_narrower_network_follow_from_those_before(name):
    example = torch.zeros(1, *NETS[name][1])
    for seed in range(3):
        graph, small = fewer(name, seed)
        assert narrowed_shapes(small, shapes(graph, example)) == shapes(small, example)


@pytest.mark.parametrize("name", NETS)
def test_the_cost_function_gives_the_cost_of_pruned_networks(name):
    example = torch.zeros(1, *NETS[name][1])
    graph, small = fewer(name, 0)
    measure = board_cost(example, BITS, BOARD)
    for each in (graph, small, graph):
        assert measure(each) == network_cost(each, example, BITS, BOARD)


def test_the_cost_function_measures_another_network_anew():
    measure = board_cost(IMAGE, BITS, BOARD, reuse_factor=4)
    for model in (demo(), nn.Sequential(nn.Flatten(), nn.Linear(64, 4)), demo()):
        assert measure(trace(model, IMAGE)) == cost(model, IMAGE, reuse_factor=4)


def cut(graph: torch.fx.GraphModule, example: torch.Tensor, step: int, draw: np.random.Generator, once: bool):
    """Return a network with fewer channels, by multiples of ``step``: one step in one layer, or any in each layer."""
    channels = analyse(graph, shapes(graph, example))
    alive = np.ones(1 + max(int(labels.max()) for labels in channels.labels.values()), dtype=bool)
    layers = [channels.labels[node.name] for node, _ in weighted(graph)][:-1]
    chosen = [layers[int(draw.integers(len(layers)))]] if once else layers
    for labels in chosen:
        left = len(labels) - step if once else step * int(draw.integers(1, len(labels) // step + 1))
        alive[labels[max(left, step) :]] = False
    return narrow(graph, channels, alive)


def drawn(index: int, draw: np.random.Generator) -> tuple[nn.Module, torch.Tensor]:
    """Return an MLP or a CNN whose widths are multiples of 8 up to 64."""
    a, b, c = (int(8 * draw.integers(2, 9)) for _ in range(3))
    if index % 2:
        return mlp(32, a, b, c, 10), torch.zeros(1, 32)
    convs = [nn.Conv2d(1, a, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(a, b, 3), nn.ReLU(), nn.Flatten()]
    return nn.Sequential(*convs, nn.Linear(b, c), nn.ReLU(), nn.Linear(c, 10)), IMAGE


@pytest.mark.parametrize(
    ("once", "reuse_factor", "step", "bound"),
    [
        *((False, 1, 1, 1.05), (False, None, 8, 1.05), (False, 8, 8, 1.05), (False, None, 1, 2.5)),
        *((True, 1, 1, 1.05), (True, None, 8, 1.2), (True, 8, 8, 1.2), (True, None, 1, 3.5)),
    ],
)
def test_fewer_channels_do_not_cost_more_resources_times_cycles(once, reuse_factor, step, bound):
    """Widths with few divisors fold badly, so that one channel less can cost more; multiples of 8 hardly do."""
    draw = np.random.default_rng(0)
    for index in range(12):
        model, example = drawn(index, draw)
        graph = trace(model, example)
        bits = (BITS, Bits(12, 12, 12))[index // 2 % 2]
        volumes = []
        for net in (graph, cut(graph, example, step, draw, once)):
            found = network_cost(net, example, bits, BOARD, reuse_factor=reuse_factor)
            taken = [
                found[name] / limit for name, limit in zip(COSTS[:4], limits(BOARD.resources), strict=True)
            ]
            volumes.append(sum(taken) * found["interval_cycles"])
        assert volumes[1] <= bound * volumes[0], (index, volumes)


@pytest.mark.parametrize("bits", [BITS, Bits(12, 12, 12)], ids=["6 bits", "12 bits"])
def test_at_one_pace_every_resource_falls_with_the_channels(bits):
    """Without a pace, DSP slices that are saved are spent on speed."""
    graph = trace(demo(), IMAGE)
    channels = analyse(graph, shapes(graph, IMAGE))
    measure = board_cost(IMAGE, bits, BOARD, pace_cycles=10_000)
    found = []
    for share in (1, 2, 4):
        alive = np.ones(1 + max(int(labels.max()) for labels in channels.labels.values()), dtype=bool)
        for name in ("conv1", "conv2", "conv3"):
            labels = channels.labels[name]
            alive[labels[-(-len(labels) // share // 8) * 8 :]] = False
        found.append(measure(narrow(graph, channels, alive)))
    for before, after in pairwise(found):
        assert all(after[name] <= before[name] for name in (*COSTS[:4], "board_share"))
        assert after["luts"] < 0.8 * before["luts"]
    assert all(figures["interval_cycles"] <= 10_000 for figures in found)
    if bits is not BITS:
        assert found[2]["dsps"] < 0.5 * found[0]["dsps"]


@pytest.mark.parametrize("io_type", ["io_stream", "io_parallel"])
@pytest.mark.parametrize("pace", [1, 70, 1_000, 10**9])
def test_each_layer_is_folded_as_far_as_the_pace_lets_it(pace, io_type):
    example = torch.zeros(1, 64)
    graph = trace(mlp(64, 32, 10), example)
    layers = []
    for work in network_work(graph, example, BITS):
        costs = {r: layer_cost(work, r, io_type) for r in work.reuse_factors(io_type)}
        fast = [r for r, of_layer in costs.items() if of_layer.interval_cycles <= pace]
        reuse = max(fast) if fast else min(costs, key=lambda r: costs[r].interval_cycles)
        layers.append((work, reuse, costs[reuse]))
    found = network_cost(graph, example, BITS, BOARD, io_type=io_type, pace_cycles=pace)
    assert tuple(found[name] for name in COSTS[:4]) == on_board(layers)
    assert found["interval_cycles"] == max(of_layer.interval_cycles for _, _, of_layer in layers)


def test_a_layer_beyond_the_unroll_limit_has_a_cost_still():
    example = torch.zeros(1, 4)
    assert cost(mlp(4, 5000), example, pace_cycles=4)["luts"] > 0


def test_digits_of_many_sizes_are_those_of_each_alone():
    draw = np.random.default_rng(0)
    for limit in (1 << 6, 1 << 15, 1 << 20):  # counted by size, or sorted where there are too many sizes
        weights = draw.integers(-limit, limit, 300)
        alone = [constant_digits(np.array([weight]), 8) for weight in weights]
        assert constant_digits(weights, 8) == tuple(map(sum, zip(*alone, strict=True)))
    assert constant_digits(np.zeros((0, 4)), 8) == (0, 0)


# ---------------------------------------------------------------- folding, shared with convert


def test_the_nearest_factor_is_a_legal_one_with_the_least_distance():
    fold = Fold("layer", 12, 5, 1)
    for asked in range(1, 80):
        found = fold.nearest(asked)
        assert found in fold.legal
        assert all(abs(found - asked) <= abs(factor - asked) for factor in fold.legal)
    assert Fold("layer", 12, 5, 1).nearest(5) == 4 and Fold("conv", 12, 5, 9, limited=True).nearest(60) == 12


@pytest.mark.parametrize(
    ("conv", "own"),
    [
        (nn.Conv2d(1, 4, 3), False),
        (nn.Conv2d(1, 4, 3, dilation=2), True),
        (nn.Conv2d(1, 4, (1, 3), stride=(2, 1)), True),
        (nn.Conv2d(1, 4, 1), False),
        (nn.Conv2d(1, 4097, 1), True),
    ],
)
def test_convs_that_hls4ml_has_not_are_folded_within_their_inputs(conv, own):
    (work,) = network_work(trace(nn.Sequential(conv), IMAGE), IMAGE, BITS)
    assert work.own_kernel is own
    streams = hls4ml_streams(conv.kernel_size, conv.stride, conv.dilation, conv.groups, conv.weight.numel())
    assert streams is not own


@pytest.mark.parametrize(("padding", "pads"), [("same", 1), ("valid", 0)])
def test_padding_by_name_is_that_in_numbers(padding, pads):
    named, numbered = (nn.Sequential(nn.Conv2d(1, 4, 3, padding=pad)) for pad in (padding, pads))
    numbered.load_state_dict(named.state_dict())
    assert cost(named, IMAGE) == cost(numbered, IMAGE)


# ---------------------------------------------------------------- messages


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"io_type": "stream"},
            "estimate: io_type must be one of io_stream, io_parallel, not 'stream'; leave it out to have streams where "
            "the network has convs",
        ),
        (
            {"reuse_factor": 0},
            "estimate: reuse_factor must be a whole number from 1 on, not 0; leave it out to fold by the board's DSP "
            "slices",
        ),
        (
            {"pace_cycles": -1},
            "estimate: pace_cycles must be a whole number from 1 on, not -1; leave it out to fold by the board's DSP "
            "slices",
        ),
        (
            {"pace_cycles": 100, "reuse_factor": 2},
            "estimate: pace_cycles must be left out where reuse_factor is given, not 100; give one of them",
        ),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    for ask in (
        lambda: cost(mlp(4, 2), torch.zeros(1, 4), **options),
        lambda: board_cost(IMAGE, BITS, BOARD, **options),
    ):
        with pytest.raises(ConfigError) as caught:
            ask()
        assert str(caught.value) == message


def test_a_layer_without_hardware_is_refused():
    with pytest.raises(UnsupportedError) as caught:
        cost(nn.Sequential(nn.ConvTranspose2d(1, 2, 2)), IMAGE)
    assert str(caught.value) == (
        "estimate: layer '0' (ConvTranspose2d) is not supported; take an upsampling and a conv in its place"
    )
