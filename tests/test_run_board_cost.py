"""The cost behind a budget: the figures of the config's board, at the widths and with the folding it asks for."""

import json
from typing import Any

import pytest
import torch

from flow import boards, config, network
from flow.demo import digits_cnn
from flow.estimate.budget import network_cost
from flow.estimate.network import Bits
from flow.run import board_cost
from flow.run.depends import facts, key
from flow.run.steps import prune_depends

MODEL = {"model": {"source": "flow.demo:digits_cnn"}}
BUDGET = {"prune": {"budget": {"luts": 30000}}}
EXAMPLE = torch.zeros(2, 1, 8, 8)
BOARD = boards.load("pynq-z2")


def checked(*parts: dict[str, Any]) -> config.Config:
    values: dict[str, Any] = dict(MODEL)
    for part in parts:
        values |= part
    return config.load(values)


@pytest.mark.parametrize(
    ("parts", "bits", "options"),
    [
        ((), Bits(6, 6, 8), {}),
        (({"quantize": {"weight_bits": 3, "input_bits": 4}},), Bits(3, 6, 4), {}),
        (
            (
                {
                    "quantize": {
                        "weight_bits": 3,
                        "layers": {"conv1": {"activation_bits": 4}, "fc": {"weight_bits": 2}},
                    }
                },
            ),
            Bits(3, 6, 8, {"conv1": (3, 4), "fc": (2, 6)}),
            {},
        ),
        (({"hls": {"ReuseFactor": 16}},), Bits(6, 6, 8), {"reuse_factor": 16}),
        (({"hls": {"Model": {"Strategy": "Latency"}}},), Bits(6, 6, 8), {"reuse_factor": 1}),
        (({"convert": {"io_type": "io_parallel"}},), Bits(6, 6, 8), {"io_type": "io_parallel"}),
    ],
)
def test_the_cost_is_that_of_the_network_on_the_configs_board(
    parts: tuple[dict[str, Any], ...], bits: Bits, options: dict[str, Any]
) -> None:
    graph = network.trace(digits_cnn(), EXAMPLE)
    for board in ("pynq-z2", "kv260"):
        cost = board_cost.cost(checked(BUDGET, *parts), boards.load(board), EXAMPLE)
        assert cost is not None
        assert cost(graph) == network_cost(graph, EXAMPLE, bits, boards.load(board), **options)


def test_resources_beside_cycles_are_those_at_that_pace() -> None:
    graph, board = network.trace(digits_cnn(), EXAMPLE), boards.load("pynq-z2")
    both = {"prune": {"budget": {"dsps": 50, "interval_cycles": 2000}}}
    cost = board_cost.cost(checked(both), BOARD, EXAMPLE)
    assert cost is not None
    assert cost(graph) == network_cost(graph, EXAMPLE, Bits(6, 6, 8), board, pace_cycles=2000)
    alone = board_cost.cost(checked({"prune": {"budget": {"interval_cycles": 2000}}}), BOARD, EXAMPLE)
    assert alone is not None
    assert alone(graph) == network_cost(graph, EXAMPLE, Bits(6, 6, 8), board)


def test_without_a_budget_there_is_no_cost() -> None:
    assert board_cost.cost(checked({"prune": {"pruning_ratio": 0.5}}), BOARD, EXAMPLE) is None
    assert board_cost.cost(checked({"prune": {"budget": {}}}), BOARD, EXAMPLE) is None


@pytest.mark.parametrize(
    "change",
    [
        {"board": "kv260"},
        {"quantize": {"weight_bits": 4}},
        {"hls": {"ReuseFactor": 8}},
        {"convert": {"io_type": "io_parallel"}},
    ],
)
def test_the_key_of_prune_holds_the_board_only_where_a_budget_asks(change: dict[str, Any]) -> None:
    def made(*parts: dict[str, Any]) -> str:
        given = checked(*parts)
        return key(facts("prune", {"train": "hash"}, prune_depends(given, boards.load(given.board))))

    assert made(BUDGET) == made(BUDGET)
    assert made(BUDGET) != made(BUDGET, change)
    assert made() == made(change)


def test_the_facts_are_plain() -> None:
    assert json.dumps(board_cost.facts(checked(BUDGET)))
