"""The threshold search under TWT: the largest threshold that was measured to hold the bound."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np


def search(
    scores: Sequence[Sequence[float]],
    loss_at: Callable[[float], float],
    *,
    loss_before: float,
    twt: float,
) -> float:
    """Return a threshold T such that zeroing all that scores below T keeps the loss within the bound.

    bound = loss_before * (1 + twt)

    Args:
        scores: the scores that are not zero, layer by layer.
        loss_at: the validation loss with everything below a threshold zeroed; it leaves no trace.
        loss_before: the validation loss before the step.
        twt: threshold worsening tolerance, a relative increase of the loss.

    Returns:
        The last threshold that was measured to hold the bound; the least score (which removes nothing)
        when none did.

    Source: the published procedure of LOBSTER and SeReNe; one published version returns the middle of the
        last interval, which was never measured.
    """
    known = np.unique(np.concatenate([np.asarray(layer, dtype=np.float64) for layer in scores]))
    bound = loss_before * (1 + twt)
    middle = sum(sum(layer) / len(layer) for layer in scores) / len(scores)
    loss_middle = loss_at(middle)
    if loss_middle < bound:
        low, loss_low = middle, loss_middle
        high, loss_high = max(max(layer) for layer in scores), math.inf
    else:
        low, loss_low = min(min(layer) for layer in scores), loss_before
        high, loss_high = middle, loss_middle
    previous = math.inf
    while abs(loss_low - loss_high) >= 0.05 * bound:
        candidate = (low + high) / 2
        between = np.searchsorted(known, high) - np.searchsorted(known, low)
        if between <= 1:  # every threshold from here on zeroes what one of the two ends does
            unmeasured = between == 1 and loss_high == math.inf
            return high if unmeasured and loss_at(high) <= bound else low
        if abs(candidate - previous) <= 1e-10:
            break
        loss = loss_at(candidate)
        if loss <= bound:
            low, loss_low = candidate, loss
        else:
            high, loss_high = candidate, loss
        previous = candidate
    return low
