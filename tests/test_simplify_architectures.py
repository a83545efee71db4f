"""Every named architecture shrinks and stays exactly equal, with and without BatchNorm.

Here with small images and small classifiers, one share and one seed each; `benchmarks/simplify_architectures.py`
has the full matrix with the full definitions.
"""

from __future__ import annotations

from itertools import product

import architectures
import networks
import pytest
import torch

from flow.simplify import simplify

SHARES = list(product((0.5, 0.8), range(3)))
"""(share of dead channels, seed); the cases take turns."""
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]
FORGETFUL = ("mnasnet1_0", "mobilenet_v2")
"""With 80 % gone and seed 0 or 1 no live channel is left in one of their depthwise convs: the output is a constant."""
CASES = [(*case, *SHARES[index % len(SHARES)]) for index, case in enumerate(architectures.CASES)]


def test_the_cases_are_every_architecture_both_shares_and_all_seeds():
    assert {(name, batchnorm) for name, batchnorm, *_ in CASES} == set(architectures.CASES)
    for batchnorm in (True, False):
        assert {tuple(rest) for _, other, *rest in CASES if other == batchnorm} == set(SHARES)


@pytest.mark.parametrize(("name", "batchnorm", "ratio", "seed"), CASES)
def test_an_architecture_shrinks_and_stays_equal(name, batchnorm, ratio, seed):
    if name in FORGETFUL and ratio == 0.8:
        seed = 2
    model = architectures.pruned(name, batchnorm, ratio, seed, hidden=64)
    first, second = architectures.sizes(name)
    example = torch.zeros(1, 3, *first)
    assert architectures.variation(model, first) > 1e-3
    before = networks.state(model)
    result = simplify(model, example, samples=2)
    networks.assert_untouched(model, before)
    assert architectures.difference(model, result.model, first) < 1e-9
    assert architectures.difference(model, result.model, second) < 1e-9
    assert architectures.foreign(result.model) == []
    assert architectures.parameters(result.model) < architectures.parameters(model)
    assert sum(cost.parameters for cost in result.after) < sum(cost.parameters for cost in result.before)
    assert sum(cost.macs for cost in result.after) < sum(cost.macs for cost in result.before)
    again = simplify(result.model, example, samples=2)
    assert again.after == result.after
    assert architectures.same(again.model, result.model)
