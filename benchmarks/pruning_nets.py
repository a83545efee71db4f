"""The networks, data and dense baselines of the pruning benchmarks; finished baselines are kept in ``--cache``.

    python benchmarks/pruning_nets.py lenet5 mnist 0

LeNet-300 and LeNet-5 as the papers have them, trained with plain SGD (lr 0.1, batch 100); LeNet-300 on images that
are shifted by up to one pixel, a batch at a time. The residual net is a ResNet with one block a stage, 24-48-96
channels, trained with SGD (lr 0.1, momentum 0.9, weight decay 5e-4, one-cycle cosine) on 20,000 of the 25,000
training images at hand, flipped and shifted by up to 4 pixels; 2,000 more decide, and 3,000 more and the 1,000 test
images are the test set, so that its accuracy is not the figure of the usual 10,000.
"""

from __future__ import annotations

import argparse
import math
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from flow import network
from flow.files import write_atomically
from flow.training.data import load
from flow.types import Data

CACHE = Path(__file__).parent / ".cache"
EPOCHS = {"lenet300": 40, "lenet5": 15, "resnet8": 40}
BATCH = 100


def lenet300() -> nn.Module:
    """Return 784-300-100-10: 266,610 parameters."""
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs, outputs in ((784, 300), (300, 100)):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(100, 10))


def lenet5() -> nn.Module:
    """Return conv 20, conv 50 (5x5, no padding), dense 500, dense 10: 431,080 parameters, 580 neurons."""
    return nn.Sequential(
        *(nn.Conv2d(1, 20, 5), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(20, 50, 5), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(800, 500), nn.ReLU(), nn.Linear(500, 10)),
    )


class Block(nn.Module):
    """Two 3x3 convs beside a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.relu2 = nn.ReLU()
        self.down: nn.Module = nn.Identity()
        if stride > 1:
            self.down = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        return self.relu2(y + self.down(x))


def resnet8(width: int = 24) -> nn.Module:
    """Return a residual net for 3x32x32 images: a conv, three blocks, a dense layer."""
    return nn.Sequential(
        *(nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()),
        *(Block(width, width, 1), Block(width, 2 * width, 2), Block(2 * width, 4 * width, 2)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * width, 10)),
    )


NETS: dict[str, Callable[[], nn.Module]] = {"lenet300": lenet300, "lenet5": lenet5, "resnet8": resnet8}


def data_for(name: str) -> Data:
    """Return ``mnist`` or ``fashion-mnist`` with 10 % for validation, or ``cifar10`` as the module's text says."""
    os.environ.setdefault("FLOW_DATA", str(Path(__file__).parents[2] / "shared" / "data"))
    if name != "cifar10":
        return load(name, validation_fraction=0.1)
    data = load(name, validation_fraction=0.2)  # 20,000 and 5,000
    (x, y), (tx, ty) = data.validation, data.test
    test = np.concatenate([x[2000:], tx]), np.concatenate([y[2000:], ty])
    return Data(name, data.train, (x[:2000], y[:2000]), test)


def batches(
    data: Data, generator: torch.Generator, shift: bool = False
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield an epoch of shuffled batches; CIFAR-10's images flipped and shifted, others on demand by up to a pixel."""
    x, y = (torch.from_numpy(part) for part in data.train)
    order = torch.randperm(len(y), generator=generator)
    for chosen in order.split(BATCH):
        images = x[chosen]
        if data.name == "cifar10":
            images = augmented(images, generator)
        elif shift:
            dy, dx = torch.randint(0, 3, (2,), generator=generator).tolist()
            images = functional.pad(images, (1, 1, 1, 1))[:, :, dy : dy + 28, dx : dx + 28]
        yield images, y[chosen]


def augmented(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Return images of which half are flipped, all shifted by -4 to 4 pixels."""
    flip = torch.rand(len(x), generator=generator) < 0.5
    x = torch.where(flip[:, None, None, None], x.flip(3), x)
    padded = functional.pad(x, (4, 4, 4, 4))
    shifts = torch.randint(0, 9, (len(x), 2), generator=generator).tolist()
    height, width = x.shape[2:]
    return torch.stack(
        [image[:, dy : dy + height, dx : dx + width] for image, (dy, dx) in zip(padded, shifts, strict=True)]
    )


def loss_of(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Return the cross-entropy; products in bfloat16, which halves the time on a CPU that has it."""
    if x.ndim == 4:
        x = x.contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        return functional.cross_entropy(model(x), y)


def measure(
    model: nn.Module, split: tuple[np.ndarray, np.ndarray], *, exact: bool = True
) -> tuple[float, float]:
    """Return (loss, error in percent) in float32, or with products in bfloat16, which is faster."""
    x, y = (torch.from_numpy(part) for part in split)
    was = model.training
    model.eval()
    if not exact and x.ndim == 4:
        x = x.contiguous(memory_format=torch.channels_last)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=not exact):
        outputs = torch.cat([model(part) for part in x.split(1000)]).float()
    model.train(was)
    return float(functional.cross_entropy(outputs, y)), 100 * float((outputs.argmax(1) != y).float().mean())


def size(net: nn.Module, data: Data, *, test: bool = True) -> dict[str, Any]:
    """Return neurons of each layer, parameters, MACs and the errors in percent."""
    example = torch.from_numpy(data.train[0][:2])
    graph = network.trace(net, example)
    costs = network.costs(graph, example)
    return {
        "neurons": [cost.outputs for cost in costs],
        "parameters": network.total_parameters(graph),
        "macs": sum(cost.macs for cost in costs),
        "validation": round(measure(net, data.validation)[1], 3),
        **({"test": round(measure(net, data.test)[1], 3)} if test else {}),
    }


def dense(net: str, data: Data, seed: int, cache: Path = CACHE) -> nn.Module:
    """Return the trained dense network, from the cache where it is there."""
    torch.manual_seed(seed)
    model = NETS[net]()
    file = cache / f"{net}-{data.name}-{seed}.pt"
    if file.is_file():
        model.load_state_dict(torch.load(file, weights_only=True))
        return model.eval()
    cache.mkdir(parents=True, exist_ok=True)
    model = model.to(memory_format=torch.channels_last)
    residual = net == "resnet8"
    options = {"momentum": 0.9, "weight_decay": 5e-4, "nesterov": True} if residual else {}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, **options)
    generator = torch.Generator().manual_seed(seed)
    epochs = EPOCHS[net]
    steps = math.ceil(len(data.train[1]) / BATCH) * epochs
    done, lines = 0, []
    for epoch in range(epochs):
        model.train()
        started = time.perf_counter()
        for x, y in batches(data, generator, shift=net == "lenet300"):
            if residual:
                warm = min(1.0, (done + 1) / (0.1 * steps))
                optimizer.param_groups[0]["lr"] = 0.1 * warm * 0.5 * (1 + math.cos(math.pi * done / steps))
            optimizer.zero_grad(set_to_none=True)
            loss_of(model, x, y).backward()
            optimizer.step()
            done += 1
        loss, error = measure(model, data.validation)
        seconds = time.perf_counter() - started
        lines.append(f"epoch {epoch + 1}: validation loss {loss:.4f}, error {error:.2f} %, {seconds:.0f} s")
        print(lines[-1], flush=True)
    lines.append(f"test error {measure(model, data.test)[1]:.2f} %")
    part = file.with_suffix(".part")
    torch.save({name: value.contiguous() for name, value in model.state_dict().items()}, part)
    part.rename(file)
    write_atomically(file.with_suffix(".log"), "\n".join(lines) + "\n")
    return model.eval()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("net", choices=NETS)
    parser.add_argument("data", choices=("mnist", "fashion-mnist", "cifar10"))
    parser.add_argument("seed", type=int)
    parser.add_argument("--cache", type=Path, default=CACHE)
    given = parser.parse_args()
    torch.set_num_threads(1)
    dense(given.net, data_for(given.data), given.seed, given.cache)
