"""What bit widths cost in accuracy, and what they save on a board: uniform ones, and those of a search.

    python benchmarks/quantize_bits.py [demo lenet5 resnet8]

Three trained networks (the digits demo unpruned, LeNet-5 on MNIST, the residual net of `pruning_nets.py` on CIFAR-10),
weights and activations of equal widths, calibrated (``mse``, with bias correction), and fine-tuned where that is cheap; then
`flow.search_bits` on validation samples. Every point is exported and proven equal to torch on the test samples that
its accuracy is of. The cost is the estimate for a PYNQ-Z2, folded for the same pace at every width, so that LUTs
compare. Finished points are kept in ``results/quantize_bits.jsonl``; a later run goes on after them.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from figures import add_row, record, rows, table
from pruning_nets import dense, loaded
from torch import nn

import flow
from flow import boards, network, training
from flow.estimate.budget import network_cost
from flow.estimate.network import Bits
from flow.networks import digits_cnn
from flow.types import Data
