"""The accuracy: torch is the oracle, and what cannot be measured is no number."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from flow.deploy.board import golden
from flow.training import accuracy

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 5, 40)


@pytest.mark.parametrize("shape", [(5,), (5, 1, 1), (1, 1, 5)])
@pytest.mark.parametrize("integers", [True, False])
def test_it_is_the_share_of_largest_values_at_the_label(shape: tuple[int, ...], integers: bool) -> None:
    values = RNG.standard_normal((40, *shape)).astype(np.float32)
    if integers:
        values = RNG.integers(-2, 3, (40, *shape))  # with ties: the first is the class
    right = torch.from_numpy(values).reshape(40, 5).argmax(1) == torch.from_numpy(LABELS)
    assert accuracy([values], LABELS) == float(right.double().mean())


def test_an_output_can_be_the_class_itself() -> None:
    values = np.where(np.arange(40) < 30, LABELS, LABELS + 1)[:, None]
    assert accuracy([values], LABELS, classes=True) == 0.75


@pytest.mark.parametrize(
    ("outputs", "labels"),
    [
        ([RNG.random((40, 5))], None),
        ([np.zeros((0, 5))], np.zeros(0, np.int64)),
        ([RNG.random((40, 5)), RNG.random((40, 2))], LABELS),
        ([RNG.random((40, 3, 3, 5))], LABELS),
        ([RNG.random((40, 1, 3, 5))], LABELS),
    ],
    ids=["no labels", "no samples", "two outputs", "an image", "rows"],
)
def test_where_there_is_nothing_to_measure_there_is_no_number(
    outputs: list[np.ndarray], labels: np.ndarray | None
) -> None:
    assert accuracy(outputs, labels) is None


@pytest.mark.parametrize("shape", [(5,), (1,), (1, 1, 5), (2, 2, 5)])
def test_a_board_says_the_same(shape: tuple[int, ...]) -> None:
    values = RNG.integers(0, 5, (40, *shape))
    alone = values[0].size == 1
    assert golden.accuracy([values], LABELS) == accuracy([values], LABELS, classes=alone)
    assert golden.accuracy([values], None) is None
    assert golden.accuracy([values, values], LABELS) is None
