"""Thousands of random small networks, drawn anew: each must stay equal, never grow, and be done after one turn.

    python benchmarks/simplify_random.py [--cases N] [--seed N]

The law and the generator are those of ``tests/test_simplify_random.py``, which runs some hundred fixed cases. The
first case that breaks the law is printed, as small as hypothesis can make it, and ends the run with an error.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import hypothesis
import torch
from figures import record
from hypothesis import HealthCheck, Phase, given, settings

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import test_simplify_random as random_networks


def main() -> None:
    """Draw and check the cases, then write the figure."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cases", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    checked = 0

    @hypothesis.seed(options.seed)
    @settings(
        max_examples=options.cases,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink),
    )
    @given(random_networks.graphs())
    def law(drawn) -> None:
        nonlocal checked
        random_networks.check(*drawn)
        checked += 1
        if checked % 100 == 0:
            print(checked, f"{time.process_time():.0f} CPU s", flush=True)

    law()
    record("simplify_random", checked, "random networks equal to 1e-9, none larger", goal=">= 2000")


if __name__ == "__main__":
    main()
