"""Networks that come with the flow."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


def digits_cnn() -> nn.Module:
    """Return a CNN with BatchNorm for 1x8x8 images in 10 classes: 3 convs, a max pool, a dense layer."""
    from collections import OrderedDict

    from torch import nn

    layers: list[tuple[str, nn.Module]] = []
    for index, (inputs, outputs) in enumerate(((1, 32), (32, 48), (48, 64)), start=1):
        layers += [
            (f"conv{index}", nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)),
            (f"bn{index}", nn.BatchNorm2d(outputs)),
            (f"relu{index}", nn.ReLU()),
        ]
        if index == 2:
            layers.append(("pool", nn.MaxPool2d(2)))
    layers += [("flatten", nn.Flatten()), ("fc", nn.Linear(64 * 4 * 4, 10))]
    return nn.Sequential(OrderedDict(layers))
