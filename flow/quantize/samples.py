"""Samples of networks with one input and output, or several."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from flow import network, training
from flow.errors import ConfigError
from flow.types import Data

if TYPE_CHECKING:
    from torch import fx

BATCH = 512


def arrays(samples: Any) -> tuple[np.ndarray, ...]:
    """Return the arrays of a split's samples, one an input."""
    return samples if isinstance(samples, tuple) else (samples,)


def check_samples(graph: fx.GraphModule, data: Data, epochs: int) -> None:
    """Refuse samples and labels that do not fit the network, and training of what has no one output to train on."""
    inputs = sum(node.op == "placeholder" for node in graph.graph.nodes)
    outputs = len(network.output_nodes(graph))
    if inputs == outputs == 1:
        training.check_labels(graph, data.train, data.validation, data.test)
        return
    if epochs:
        raise ConfigError(
            f"quantize: epochs must be 0 for a network with {inputs} inputs and {outputs} outputs, not {epochs}; "
            "such a network is calibrated only"
        )
    for split in (data.train, data.validation, data.test):
        given = arrays(split[0])
        if len(given) != inputs or len({len(array) for array in given}) != 1 or not len(given[0]):
            raise ConfigError(
                f"data: samples must be {inputs} arrays of one length, one an input, not "
                f"{' and '.join(str(array.shape) for array in given)}; check the splits"
            )


def predict(model: fx.GraphModule, samples: Any, *, double: bool = False) -> tuple[np.ndarray, ...]:
    """Return each of the network's outputs in evaluation mode, float32 or float64 (samples, ...)."""
    import torch

    given = [torch.from_numpy(array) for array in arrays(samples)]
    if double:
        given = [tensor.double() for tensor in given]
    parts = []
    with torch.no_grad(), network.evaluating(model):
        for first in range(0, len(given[0]), BATCH):
            made = model(*(tensor[first : first + BATCH] for tensor in given))
            # a QuantTensor is a tuple itself
            parts.append([getattr(one, "value", one) for one in (made if type(made) is tuple else (made,))])
    return tuple(torch.cat(column).numpy() for column in zip(*parts, strict=True))
