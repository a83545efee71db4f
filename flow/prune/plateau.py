"""PWE: fires when the validation loss has not improved for a number of epochs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from flow.training import snapshot

if TYPE_CHECKING:
    import torch
    from torch import nn


class Plateau:
    """Watches the validation loss and remembers the best weights since the last reset.

    bad = 0 when L < 1.01 * best, else bad + 1; it fires when bad >= PWE.
    """

    def __init__(self, pwe: int) -> None:
        self.pwe = pwe
        self.reset()

    def reset(self) -> None:
        """Forget the best loss: a pruning step has changed the network."""
        self.best, self.bad = math.inf, 0
        self.state: dict[str, torch.Tensor] = {}

    def fires(self, loss: float, model: nn.Module) -> bool:
        """Take in one epoch's validation loss; tell whether the plateau is reached."""
        self.bad = 0 if loss < 1.01 * self.best else self.bad + 1
        if loss < self.best:
            self.best, self.state = loss, snapshot(model)
        return self.bad >= self.pwe
