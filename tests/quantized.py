"""Small networks, quantized and converted once for all tests, and a reference that computes QONNX in float64.

The test samples of every network begin with random ones; the rest holds values that lie exactly between two steps
of the input, saturate it, or are -0.0. float64 holds every sum of these networks exactly, so that `reference` is
right whatever torch, QONNX or C++ do.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from operator_networks import OPERATORS, Forward
from torch import nn

from flow import boards, qonnx
from flow.convert import convert
from flow.emulate import emulate
from flow.emulate.csim import Csim
from flow.fixed.execute import execute
from flow.fixed.from_qonnx import lower
from flow.quantize import quantize
from flow.types import Board, Data, Emulation, HlsProject, Quantized

_ROOT = tempfile.TemporaryDirectory(prefix="quantized-")
INPUT_STEP = 2.0**-7
"""The step of the 8-bit inputs: training samples lie in [-1, 1]."""
SAMPLES = 300
_EDGES = np.array([-0.0, 0, 127, 127.4, 127.5, 127.6, -127.5, -128, -128.5, -129, 1e9, -1e9, 1e30, -1e30])
"""In steps: the ends of the range, their neighbours, and values far outside."""


def folder() -> Path:
    """Return a new, empty folder that goes when the tests end."""
    return Path(tempfile.mkdtemp(dir=_ROOT.name))


def data(
    shape: tuple[int, ...], classes: int, *, samples: int = SAMPLES, scale: float = 1.0, seed: int = 0
) -> Data:
    """Return random samples, the test set with adversarial ones behind them."""
    rng = np.random.default_rng(seed)

    def split(count: int) -> tuple[np.ndarray, np.ndarray]:
        x = scale * rng.uniform(-1, 1, (count, *shape)).astype(np.float32)
        return x, np.arange(count) % classes

    third = (samples // 3, *shape)
    ties = (rng.integers(-128, 128, third) + 0.5) * INPUT_STEP
    far = rng.choice(_EDGES, third) * INPUT_STEP
    x, y = split(samples)
    x[-2 * len(ties) :] = (scale * np.concatenate([ties, far])).astype(np.float32)
    return Data("random", split(192), split(64), (x, y))


def mlp() -> nn.Module:
    """Odd widths, and two layers without ReLU between them."""
    return nn.Sequential(nn.Linear(5, 13), nn.ReLU(), nn.Linear(13, 7), nn.Linear(7, 3))


def cnn() -> nn.Module:
    """Odd widths, H != W, a padded and a bare conv, a pool, a flatten; names that C++ does not have."""
    net = nn.Sequential()
    block = nn.Sequential(nn.Conv2d(2, 7, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
    net.add_module("block", block)
    net.add_module("conv-2", nn.Conv2d(7, 13, (3, 2)))
    net.add_module("relu", nn.ReLU())
    net.add_module("flatten", nn.Flatten())
    net.add_module("fc", nn.Linear(13 * 2 * 2, 5))
    return net


def residual() -> nn.Module:
    """Branches of unequal depth, two sums, one ReLU for all."""

    def forward(net: Any, x: Any) -> Any:
        x = net.relu(net.stem(x))
        x = net.relu(net.conv2(net.relu(net.conv1(x))) + net.shortcut(x))
        return net.fc(torch.flatten(net.relu(net.conv3(x) + x), 1))

    return Forward(
        forward,
        stem=nn.Conv2d(1, 3, 3, padding=1),
        conv1=nn.Conv2d(3, 5, 3, stride=2, padding=1),
        conv2=nn.Conv2d(5, 4, 3, padding=1),
        shortcut=nn.Conv2d(3, 4, 1, stride=2),
        conv3=nn.Conv2d(4, 4, 1),
        fc=nn.Linear(4 * 3 * 3, 4),
        relu=nn.ReLU(),
    )


def depthwise() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(2, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 3, groups=4, padding=1), nn.ReLU()),
        *(nn.Conv2d(4, 3, 1), nn.ReLU(), nn.Flatten(), nn.Linear(3 * 4 * 3, 3)),
    )


def zeros() -> nn.Module:
    """A row of zeros with a bias, a row that sums to zero, a layer of zeros with a bias, a ReLU that is always 0."""

    def forward(net: Any, x: Any) -> Any:
        return net.last(net.relu(net.rows(x)) + net.relu(net.zero(x)) + net.relu(net.dead(x)))

    layers = {name: nn.Linear(4, 6) for name in ("rows", "zero", "dead")}
    net = Forward(forward, **layers, last=nn.Linear(6, 3), relu=nn.ReLU())
    with torch.no_grad():
        net.rows.weight[0] = 0
        net.rows.bias[0] = 0.75
        net.rows.weight[1] = torch.tensor([0.5, -0.5, 0.25, -0.25])
        net.zero.weight.zero_()
        net.zero.bias.copy_(torch.tensor([0.5, -0.5, 0.25, 1.0, 0.0, 0.125]))
        net.dead.bias.fill_(-100.0)
    return net


def single() -> nn.Module:
    """One value from the first layer to the last."""
    net = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1))
    for parameter in net.parameters():
        nn.init.constant_(parameter, 0.4)
    return net


def equal_layers() -> nn.Module:
    """Two convs with the same weights, and H = W = C, where a wrong layout does not show in the shapes."""
    net = nn.Sequential(
        *(nn.Conv2d(3, 3, 3, padding=1), nn.ReLU(), nn.Conv2d(3, 3, 3, padding=1), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(27, 3)),
    )
    net[2].load_state_dict(net[0].state_dict())
    return net


def parallel_dense() -> nn.Module:
    """Two dense layers side by side."""
    return Forward(
        lambda net, x: net.c(torch.relu(net.a(x) + net.b(x))),
        a=nn.Linear(4, 5),
        b=nn.Linear(4, 5),
        c=nn.Linear(5, 3),
    )


NETS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], int]] = {
    "mlp": (mlp, (5,), 3),
    "cnn": (cnn, (2, 8, 6), 5),
    "residual": (residual, (1, 6, 5), 4),
    "depthwise": (depthwise, (2, 4, 3), 3),
    "zeros": (zeros, (4,), 3),
    "equal_layers": (equal_layers, (3, 3, 3), 3),
    "parallel_dense": (parallel_dense, (4,), 3),
    "sum_of_the_input": (
        lambda: Forward(
            lambda net, x: net.fc(torch.flatten(x + net.conv(x), 1)),
            conv=nn.Conv2d(2, 2, 1),
            fc=nn.Linear(24, 3),
        ),
        (2, 4, 3),
        3,
    ),
    "sum_at_the_end": (
        lambda: Forward(lambda net, x: net.a(x) + net.b(x), a=nn.Linear(4, 3), b=nn.Linear(4, 3)),
        (4,),
        3,
    ),
    "flat_image": (
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(24, 7), nn.ReLU(), nn.Linear(7, 3)),
        (2, 3, 4),
        3,
    ),
    "pool_first": (lambda: nn.Sequential(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(12, 3)), (2, 4, 6), 3),
    "overlapping_pool": (
        lambda: nn.Sequential(nn.Conv2d(1, 2, 1), nn.MaxPool2d(3, stride=2), nn.Flatten(), nn.Linear(12, 3)),
        (1, 5, 7),
        3,
    ),
    "strides": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 3, (3, 2), (2, 1), (1, 0)), nn.ReLU(), nn.Flatten(), nn.Linear(36, 3)
        ),
        (2, 5, 5),
        3,
    ),
    "single": (single, (1,), 1),
    "relus": (lambda: nn.Sequential(nn.ReLU(), nn.Linear(5, 3), nn.ReLU(), nn.ReLU()), (5,), 3),
    "no_bias": (lambda: nn.Sequential(nn.Linear(5, 3, bias=False)), (5,), 3),
}


def build(name: str) -> nn.Module:
    """Return the network with seeded weights."""
    torch.manual_seed(0)
    return {**NETS, **OPERATORS}[name][0]()


@cache
def quantized(name: str) -> Quantized:
    """Return the network, of `NETS` or `operator_networks.OPERATORS`, quantized without training."""
    _, shape, classes, options = (
        (*NETS[name], {}) if name in NETS else (*OPERATORS[name][:2], 3, OPERATORS[name][2])
    )
    samples = data(shape, classes)
    example = torch.from_numpy(samples.train[0][:2])
    return quantize(build(name), example, out=folder(), data=samples, epochs=0, **options)


def graph(name: str) -> Any:
    """Return the network's QONNX graph, new at every call."""
    return qonnx.load(quantized(name).onnx_path)


def golden(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the test samples and torch's outputs."""
    with np.load(quantized(name).golden_path) as file:
        return file["inputs"], file["outputs"]


def small_board(dsps: int) -> Board:
    """Return a board with few DSP slices, for which the layers must be folded."""
    board = boards.load("pynq-z2")
    return Board(**{**vars(board), "resources": type(board.resources)(dsps=dsps)})


def project(name: str, io_type: str, dsps: int = 220) -> HlsProject:
    """Return the network as an HLS project."""
    return _project(name, io_type, dsps)


@cache
def _project(name: str, io_type: str, dsps: int) -> HlsProject:
    return convert(quantized(name), out=folder(), board=small_board(dsps), io_type=io_type)


def emulated(name: str, io_type: str, dsps: int = 220) -> tuple[Emulation, Csim]:
    """Return the result of emulating the project with the whole test set, and the compiled program."""
    return _emulated(name, io_type, dsps)


@cache
def _emulated(name: str, io_type: str, dsps: int) -> tuple[Emulation, Csim]:
    design, build = project(name, io_type, dsps), folder()
    return emulate(design, build_folder=build), Csim(design, build)


def executed(model: Any, *samples: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return what the integer executor makes of a QONNX graph: each output as real numbers, in the file's order."""
    lowered = lower(model)
    given = [
        tensor.dtype.to_lsb(np.moveaxis(x, 1, -1)) for tensor, x in zip(lowered.inputs, samples, strict=True)
    ]
    made = execute(lowered, given)
    outputs = []
    for name, value in zip(lowered.outputs, model.graph.output, strict=True):
        tensor = lowered.tensors[name]
        real = (tensor.dtype.to_real(made[name]) * np.array(tensor.scale)).reshape(len(samples[0]), -1)
        real = real if tensor.order is None else real[:, tensor.order]
        outputs.append(real.reshape(len(real), *model.get_tensor_shape(value.name)[1:]))
    return tuple(outputs)


Override = Mapping[str, Callable[[np.ndarray], np.ndarray]]


def reference_values(model: Any, x: np.ndarray, override: Override | None = None) -> dict[str, np.ndarray]:
    """Compute every tensor of an exported QONNX graph (channels first) in float64, with numpy alone.

    Args:
        model: the graph.
        x: samples.
        override: functions that take the place of quantizers, by the name of the tensor they write.
    """
    values = {
        entry.name: model.get_initializer(entry.name).astype(np.float64) for entry in model.graph.initializer
    }
    values[model.graph.input[0].name] = x.astype(np.float64)
    for node in model.graph.node:
        options = {entry.name: list(entry.ints) or entry.i for entry in node.attribute}
        rounds = [entry.s for entry in node.attribute if entry.name == "rounding_mode"]
        assert rounds in ([], [b"ROUND"]), "half to even"
        inputs = [values[name] for name in node.input]
        if node.output[0] in (override or {}):
            values[node.output[0]] = (override or {})[node.output[0]](inputs[0])
        else:
            values[node.output[0]] = _OPERATORS[node.op_type](SimpleNamespace(**options), *inputs)
    return values


def reference(model: Any, x: np.ndarray) -> np.ndarray:
    """Compute the output of an exported QONNX graph in float64."""
    return reference_values(model, x)[model.graph.output[0].name]


def _quant(options: Any, x: np.ndarray, scale: np.ndarray, zero: np.ndarray, bits: np.ndarray) -> np.ndarray:
    assert scale.size == 1
    assert np.frexp(scale)[0] == 0.5, "a power of two"
    assert zero == 0
    high = 2 ** (bits - options.signed) - 1
    low = (-high - 1 + options.narrow) if options.signed else 0
    return np.clip(np.rint(x / scale), low, high) * scale


def _windows(x: np.ndarray, size: list[int], strides: list[int]) -> np.ndarray:
    found = np.lib.stride_tricks.sliding_window_view(x, size, axis=(2, 3))
    return found[:, :, :: strides[0], :: strides[1]]


def _conv(options: Any, x: np.ndarray, w: np.ndarray, b: np.ndarray) -> np.ndarray:
    top, left, bottom, right = options.pads
    seen = _windows(
        np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right))), options.kernel_shape, options.strides
    )
    count, each = options.group, x.shape[1] // options.group
    parts = [
        np.einsum("nchwij,ocij->nohw", seen[:, g * each : (g + 1) * each], np.split(w, count)[g])
        for g in range(count)
    ]
    return np.concatenate(parts, axis=1) + b[:, None, None]


_OPERATORS: dict[str, Callable[..., np.ndarray]] = {
    "Quant": _quant,
    "Conv": _conv,
    "Gemm": lambda options, x, w, b: x @ w.T + b,
    "Relu": lambda options, x: np.maximum(x, 0),
    "Add": lambda options, x, y: x + y,
    "MaxPool": lambda options, x: _windows(x, options.kernel_shape, options.strides).max((4, 5)),
    "Flatten": lambda options, x: x.reshape(len(x), -1),
}
