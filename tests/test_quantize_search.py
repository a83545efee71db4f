"""The search of widths: what it returns was measured to hold, and is close to the best of all choices."""

from __future__ import annotations

import itertools
from dataclasses import replace

import networks
import numpy as np
import pytest
import torch
from networks import Forward
from torch import nn

import flow
from flow import boards, training
from flow.errors import ConfigError
from flow.estimate.budget import bits_cost
from flow.estimate.network import Bits
from flow.quantize.build import CALIBRATION_SAMPLES, calibrated, traced
from flow.quantize.calibration import Calibration
from flow.quantize.search import search_bits
from flow.quantize.twin import quantized_copy
from flow.quantize.widths import Widths
from flow.types import Data

pytestmark = pytest.mark.slow

VECTOR = torch.zeros(2, 6)


def sums(graph: torch.fx.GraphModule, bits: Bits) -> dict[str, float]:
    """Return a cost that anyone can add up: bits of weights times their number, and bits of activations."""
    weights, activations = 0, 0
    for name, module in graph.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            weight, activation = bits.layers[name]
            weights += weight * module.weight.numel()
            activations += activation * len(module.weight)
    return {"luts": float(weights + 4 * activations), "weights": float(weights)}


@pytest.fixture(scope="module")
def data() -> Data:
    return networks.clusters(240, noise=0.9)


@pytest.fixture(scope="module")
def trained(data: Data) -> nn.Module:
    return flow.train(networks.mlp(), data, epochs=25, learning_rate=1e-2).model


def measured(model: nn.Module, data: Data, layers: dict[str, dict[str, int]], widest: int) -> float:
    """Return the validation accuracy at some widths, by the parts that quantize is made of."""
    graph = traced(model, VECTOR)
    widths = Widths(widest, widest, 8, dict.fromkeys(("fc1", "fc2", "fc3"), 16), layers=layers)
    samples = (torch.from_numpy(data.train[0][:CALIBRATION_SAMPLES]),)
    return training.evaluate(calibrated(graph, widths, samples, Calibration())[0], data.validation)[1]


@pytest.fixture(scope="module")
def everything(trained: nn.Module, data: Data) -> list[tuple[float, float]]:
    """Return accuracy and cost of all 27 choices of weight widths, activations at 6 bits."""
    found = []
    graph = traced(trained, VECTOR)
    for bits in itertools.product((2, 3, 6), repeat=3):
        layers = {name: {"weight_bits": b} for name, b in zip(("fc1", "fc2", "fc3"), bits, strict=True)}
        cost = sums(graph, Bits(6, 6, 8, {n: (layer["weight_bits"], 6) for n, layer in layers.items()}))
        found.append((measured(trained, data, layers, 6), cost["luts"]))
    return found


SETTLED = {"fc1": {"activation_bits": 6}, "fc2": {"activation_bits": 6}}


@pytest.mark.parametrize("drop", [0.0, 0.02, 0.1, 0.4])
def test_the_least_cost_at_an_accuracy_is_close_to_the_best_of_all_choices(trained, data, everything, drop):
    found = search_bits(
        trained,
        VECTOR,
        data=data,
        cost=sums,
        max_accuracy_drop=drop,
        candidate_bits=(2, 3, 6),
        layers=SETTLED,
    )
    least = found.float_accuracy - drop
    assert found.accuracy >= least
    layers = {name: dict(bits) for name, bits in found.layers.items()}
    assert measured(trained, data, layers, 6) == found.accuracy
    best = min(cost for accuracy, cost in everything if accuracy >= least)
    assert best <= found.cost["luts"] <= 1.15 * best
    assert found.samples == len(data.validation[1])


@pytest.mark.parametrize("share", [0.6, 0.7, 0.99])
def test_the_best_accuracy_within_a_budget_is_close_to_the_best_of_all_choices(
    trained, data, everything, share
):
    limit = share * max(cost for _, cost in everything)
    options = {"bit_budget": {"luts": limit}, "candidate_bits": (2, 3, 6), "layers": SETTLED}
    found = search_bits(trained, VECTOR, data=data, cost=sums, **options)
    assert found.cost["luts"] <= limit
    best = max(accuracy for accuracy, cost in everything if cost <= limit)
    assert best - 0.04 <= found.accuracy <= best


def test_every_uniform_width_is_among_the_points(trained, data):
    found = search_bits(trained, VECTOR, data=data, cost=sums, max_accuracy_drop=0.1, candidate_bits=(2, 4))
    assert {point.name for point in found.points} >= {"2 bits", "4 bits", "one width"}
    assert found.layers in [point.layers for point in found.points]
    holding = [p.cost["luts"] for p in found.points if p.accuracy >= found.float_accuracy - 0.1]
    assert found.cost["luts"] <= min(holding) * 1.15


def test_sides_of_a_sum_go_together():
    def forward(net, x):
        left = torch.relu(net.left(x))
        return net.out(left + torch.relu(net.right(x)))

    layers = {"left": nn.Linear(6, 5), "right": nn.Linear(6, 5), "out": nn.Linear(5, 3)}
    torch.manual_seed(0)
    data = networks.clusters(60)
    found = search_bits(
        Forward(forward, **layers), VECTOR, data=data, cost=sums, max_accuracy_drop=0.9, candidate_bits=(2, 3)
    )
    graph = traced(Forward(forward, **layers), VECTOR)
    stands = quantized_copy(graph, Widths(3, 3, 8, dict.fromkeys(layers, 16), layers=found.layers))[1]
    assert stands["left"] == stands["right"] == found.layers["left"]["activation_bits"] == 2
    assert found.layers["right"]["activation_bits"] == 2


def test_settled_widths_stay(trained, data):
    settled = {"fc2": {"weight_bits": 5, "bias_bits": 20}}
    found = search_bits(
        trained, VECTOR, data=data, cost=sums, max_accuracy_drop=0.5, candidate_bits=(2, 3), layers=settled
    )
    assert found.layers["fc2"] == {"weight_bits": 5, "bias_bits": 20, "activation_bits": 2}


def test_the_same_search_gives_the_same_answer_and_resumes_from_what_it_measured(trained, data, tmp_path):
    options = {"data": data, "cost": sums, "max_accuracy_drop": 0.05, "candidate_bits": (2, 3, 4)}
    whole = search_bits(trained, VECTOR, **options)

    class KilledError(Exception):
        pass

    def kill(done: int, total: int, text: str) -> None:
        if done == 7:
            raise KilledError

    file = tmp_path / "search.pt"
    with pytest.raises(KilledError):
        search_bits(trained, VECTOR, **options, checkpoint=file, progress=kill)
    assert search_bits(trained, VECTOR, **options, checkpoint=file) == whole


def test_quantize_takes_the_widths_that_it_searched(trained, data, tmp_path):
    example = torch.from_numpy(data.train[0][:2])
    made = flow.quantize(
        trained,
        example,
        out=tmp_path,
        data=data,
        epochs=1,
        max_accuracy_drop=0.2,
        candidate_bits=(2, 3),
        cost=bits_cost(example, boards.load("pynq-z2")),
    )
    assert made.precision is not None
    for name, bits in made.precision.layers.items():
        assert made.weight_bits[name] == bits["weight_bits"]
        assert made.activation_bits.get(name) == bits.get("activation_bits")


def test_the_boards_figures_fall_with_the_widths_at_one_pace(trained):
    graph = traced(trained, VECTOR)
    cost = bits_cost(VECTOR, boards.load("pynq-z2"))
    found = [cost(graph, Bits(bits, bits, 8)) for bits in (8, 6, 4, 2)]
    assert [f["luts"] for f in found] == sorted((f["luts"] for f in found), reverse=True)
    assert len({f["interval_cycles"] for f in found}) == 1
    other = bits_cost(VECTOR, boards.load("pynq-z2"), reuse_factor=2)
    assert other(graph, Bits(4, 4, 8)) != found[2]


# ---------------------------------------------------------------- messages


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {},
            "quantize: max_accuracy_drop or bit_budget must be given for a search, not both or neither; "
            "0.01 allows one point",
        ),
        (
            {"max_accuracy_drop": 0.1, "bit_budget": {"luts": 1.0}},
            "quantize: max_accuracy_drop or bit_budget must be given for a search, not both or neither; "
            "0.01 allows one point",
        ),
        (
            {"max_accuracy_drop": 1.5},
            "quantize: max_accuracy_drop must be in [0, 1), not 1.5; 0.01 allows one point",
        ),
        (
            {"max_accuracy_drop": 0.1, "candidate_bits": (0, 4)},
            "quantize: candidate_bits must be widths in 1 to 16, not [0, 4]; [2, 3, 4, 6, 8] is usual",
        ),
        (
            {"max_accuracy_drop": 0.1, "samples": 0},
            "quantize: samples must be at least 1, not 0; 1000 is usual",
        ),
        (
            {"bit_budget": {"luts": -1.0}},
            "quantize: bit_budget luts must be above 0, not -1.0; leave it out for no limit",
        ),
        (
            {"bit_budget": {"dsps": 3.0}},
            "quantize: bit_budget must be of luts, weights, not of 'dsps'; correct the name",
        ),
        (
            {"max_accuracy_drop": 0.1, "objective": "lut"},
            "quantize: objective must be of luts, weights, not of 'lut'; correct the name",
        ),
        (
            {"bit_budget": {"weights": 100.0}, "candidate_bits": (2, 3)},
            "quantize: bit_budget must be within reach, but at the least candidate widths the network takes "
            "weights 272 of at most 100; raise it, give smaller candidate_bits, or prune",
        ),
    ],
)
def test_a_search_that_cannot_be_is_refused(trained, data, options, message):
    with pytest.raises(ConfigError) as caught:
        search_bits(trained, VECTOR, data=data, cost=sums, **options)
    assert str(caught.value) == message


def test_an_accuracy_out_of_reach_says_how_far_the_widest_gets(trained, data):
    flipped = replace(
        data, train=(np.zeros_like(data.train[0]) + 1e-3, data.train[1])
    )  # ranges that clip everything
    with pytest.raises(ConfigError) as caught:
        search_bits(trained, VECTOR, data=flipped, cost=sums, max_accuracy_drop=0.0, candidate_bits=(2, 3))
    assert str(caught.value).startswith(
        "quantize: max_accuracy_drop must be within reach of the widest candidates, but 3 bits reach "
    )


def test_quantize_without_a_cost_does_not_search(trained, data, tmp_path):
    with pytest.raises(ConfigError) as caught:
        flow.quantize(trained, VECTOR, out=tmp_path, data=data, max_accuracy_drop=0.1)
    assert str(caught.value) == (
        "quantize: cost must be given for a search of widths, not left out; see flow.estimate.budget"
    )
