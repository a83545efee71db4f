"""How often a classifier is right."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def accuracy(
    outputs: Sequence[np.ndarray], labels: np.ndarray | None, *, classes: bool = False
) -> float | None:
    """Return the share of samples whose class is their label.

    A sample's class is the place of its largest value, the first of equal ones.

    Args:
        outputs: one array (samples, ...) for each output of the network: real numbers, or integers of one scale.
        labels: the right classes (samples,); ``None``: not known.
        classes: the output is the class itself, as behind an ArgMax.

    Returns:
        A number in [0, 1]; ``None`` without labels or samples, with several outputs, and with an output that is no
        vector, such as an image.
    """
    if labels is None or len(labels) == 0 or len(outputs) != 1:
        return None
    (values,) = outputs
    rows = values.reshape(len(labels), -1)
    if rows.shape[1] != max(values.shape[1:], default=1):
        return None
    return float(((rows[:, 0] if classes else rows.argmax(1)) == labels).mean())
