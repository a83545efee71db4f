"""The architectures that simplify must shrink exactly, from torchvision's definitions, with weights of our own.

torchvision is a test dependency only. Weights are random and every bias is away from zero, so that a dead
channel leaves a constant behind, which is what simplification must get right.
"""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path
from types import ModuleType

import torch
from torch import nn

OPERATORS = (
    "nms",
    "qnms",
    "roi_align",
    "_roi_align_backward",
    "roi_pool",
    "_roi_pool_backward",
    "ps_roi_align",
    "_ps_roi_align_backward",
    "ps_roi_pool",
    "_ps_roi_pool_backward",
    "deform_conv2d",
    "_deform_conv2d_backward",
)
NAMES = (
    "alexnet",
    "vgg11",
    "vgg13",
    "vgg16",
    "vgg19",
    "inception_v3",
    "densenet121",
    "mnasnet1_0",
    "googlenet",
    "shufflenet_v2_x2_0",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "wide_resnet50_2",
    "resnext101_32x8d",
    "mobilenet_v2",
    "mobilenet_v3_large",
    "squeezenet1_1",
)
WITHOUT = ("alexnet", "squeezenet1_1")
"""Architectures that have no BatchNorm in their definition."""
CASES = tuple((name, True) for name in NAMES if name not in WITHOUT) + tuple((name, False) for name in NAMES)
"""Every architecture with and without BatchNorm, as arguments of `build`."""
SMALLEST = {"alexnet": (64, 67), "inception_v3": (80, 91)}
"""Edges in pixels of square images that are small and fit, and of a second size; `sizes` has the others."""


@cache
def torchvision_models() -> ModuleType:
    """Import torchvision's model definitions beside any build of torch.

    torchvision's own operators are compiled for one build of torch. No model here uses them, but its import
    registers functions for their names, so where the compiled ones do not load the names alone are defined.
    """
    spec = importlib.util.find_spec("torchvision")
    assert spec is not None, "torchvision must be installed; make test does (see CONTRIBUTING.md)"
    try:
        torch.ops.load_library(str(Path(spec.origin or "").with_name("_C.so")))
    except OSError:
        library = torch.library.Library("torchvision", "DEF")
        for name in OPERATORS:
            library.define(f"{name}(Tensor x) -> Tensor")
        _ALIVE.append(library)
    from torchvision import models

    return models


_ALIVE: list[torch.library.Library] = []
"""A library takes its operators away when it is collected."""


def sizes(name: str) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return two (height, width) in pixels that are cheap to compute; the second is not square."""
    first, second = SMALLEST.get(name, (48, 51))
    return (first, first), (second, second + 6)


def build(
    name: str, *, batchnorm: bool, seed: int = 0, classes: int = 10, hidden: int | None = None
) -> nn.Module:
    """Return an architecture in evaluation mode with random weights and no zero among its biases.

    Args:
        name: one of `NAMES`.
        batchnorm: with it as defined; without it every conv has a bias instead.
        seed: seed of the weights.
        classes: outputs.
        hidden: width of the hidden layers in the classifiers of alexnet and vgg; None leaves them at 4096.
    """
    assert not (batchnorm and name in WITHOUT), f"{name} has no BatchNorm"
    options = dict.fromkeys(("aux_logits", "init_weights"), False)
    if name not in ("googlenet", "inception_v3"):
        options = {}
    defined = f"{name}_bn" if batchnorm and name.startswith("vgg") else name
    with torch.device("meta"):
        model = getattr(torchvision_models(), defined)(weights=None, num_classes=classes, **options)
        if hidden is not None and isinstance(getattr(model, "classifier", None), nn.Sequential):
            narrow(model.classifier, hidden)
        if not batchnorm:
            drop_batchnorm(model)
    model = model.to_empty(device="cpu").eval()
    randomize(model, seed)
    return model


def narrow(classifier: nn.Sequential, hidden: int) -> None:
    """Give every Linear layer but the last of a classifier ``hidden`` outputs."""
    places = [index for index, layer in enumerate(classifier) if isinstance(layer, nn.Linear)]
    width = classifier[places[0]].in_features if places else 0
    for index in places:
        outputs = classifier[index].out_features if index == places[-1] else hidden
        classifier[index] = nn.Linear(width, outputs)
        width = outputs


def drop_batchnorm(model: nn.Module) -> None:
    """Replace BatchNorm by Identity and give every conv a bias."""
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.BatchNorm2d):
            model.set_submodule(name, nn.Identity())
        elif isinstance(module, nn.Conv2d) and module.bias is None:
            module.bias = nn.Parameter(torch.empty(module.out_channels))


def randomize(model: nn.Module, seed: int) -> None:
    """Fill every parameter and running statistic; biases and scales have both signs and stay off zero."""
    generator = torch.Generator().manual_seed(seed)

    def off_zero(like: torch.Tensor, low: float, high: float) -> torch.Tensor:
        sign = 2.0 * torch.randint(0, 2, like.shape, generator=generator) - 1
        return sign * (low + (high - low) * torch.rand(like.shape, generator=generator))

    with torch.no_grad():
        for name, value in model.state_dict(keep_vars=True).items():
            if name.endswith("num_batches_tracked"):
                value.zero_()
            elif name.endswith("running_var"):
                value.copy_(off_zero(value, 0.5, 1.5).abs())
            elif name.endswith(("bias", "running_mean")):
                value.copy_(off_zero(value, 0.1, 0.6))
            elif value.dim() == 1:
                value.copy_(off_zero(value, 0.5, 1.5))
            else:
                value.normal_(generator=generator).div_(value[0].numel() ** 0.5)


def prune(model: nn.Module, ratio: float, seed: int, *, spare: tuple[str, ...] = ()) -> None:
    """Zero the weights of a random share of the output channels of every conv, in place; biases stay.

    Args:
        model: any network.
        ratio: share of the output channels, rounded to whole channels, in [0, 1).
        seed: seed of the choice.
        spare: names of convs that stay whole.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            order = torch.randperm(module.out_channels, generator=generator)
            if name not in spare:
                with torch.no_grad():
                    module.weight[order[: round(ratio * module.out_channels)]] = 0


def settle(model: nn.Module, size: tuple[int, int], seed: int) -> None:
    """Scale weights and set running statistics in place, so that signals keep their size at any depth.

    Without it a deep network forgets its input (its output is a constant to 1e-9, and any proof of equality
    is empty) or overflows. Zeros stay zeros and biases stay as they are.

    Args:
        model: a network with images of 3 channels as its input.
        size: (height, width) in pixels.
        seed: seed of the images, and of how far running statistics are from the true ones.
    """
    generator = torch.Generator().manual_seed(seed)

    def scale(layer: nn.Module, _: tuple[torch.Tensor], output: torch.Tensor) -> torch.Tensor:
        varying = per_channel(output).std(1)
        varying = varying[varying > 1e-6 * output.abs().max()]
        if not len(varying):
            return output
        spread = varying.mean()
        layer.weight.div_(spread)
        if layer.bias is None:
            return output / spread
        bias = layer.bias.reshape(-1, *[1] * (output.dim() - 2))
        return (output - bias) / spread + bias

    def follow(norm: nn.Module, inputs: tuple[torch.Tensor]) -> None:
        found = per_channel(inputs[0])
        shift, factor = torch.rand((2, len(found)), generator=generator, dtype=torch.float64).to(found.dtype)
        norm.running_mean.copy_(found.mean(1) + (shift - 0.5) * (found.std(1) + 1))
        norm.running_var.copy_(found.var(1) * (0.5 + factor) + 0.1)

    hooks = []
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            hooks.append(layer.register_forward_hook(scale))
        elif isinstance(layer, nn.BatchNorm2d):
            hooks.append(layer.register_forward_pre_hook(follow))
    with torch.no_grad():
        x = torch.randn((4, 3, *size), generator=generator, dtype=torch.float64)
        model(x.to(next(model.parameters()).dtype))
    for hook in hooks:
        hook.remove()


def per_channel(tensor: torch.Tensor) -> torch.Tensor:
    """Return a batch as (channels, values)."""
    return tensor.transpose(0, 1).flatten(1)


def pruned(
    name: str,
    batchnorm: bool,
    ratio: float,
    seed: int,
    *,
    classes: int = 10,
    hidden: int | None = None,
) -> nn.Module:
    """Return a pruned architecture in float64 whose signals keep their size."""
    model = build(name, batchnorm=batchnorm, seed=seed, classes=classes, hidden=hidden).double()
    prune(model, ratio, seed)
    settle(model, sizes(name)[0], seed)
    return model


def images(size: tuple[int, int], seed: int = 9) -> torch.Tensor:
    """Return two random images of both signs in float64."""
    return torch.randn((2, 3, *size), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def difference(left: nn.Module, right: nn.Module, size: tuple[int, int]) -> float:
    """Return max |left - right| / max |left| over full outputs of float64 networks; NaN is a difference too."""
    with torch.no_grad():
        want, got = left(images(size)), right(images(size))
    assert want.shape == got.shape
    assert want.dtype == got.dtype == torch.float64
    found = float((want - got).abs().max() / want.abs().max())
    return found if found == found else float("inf")


def variation(model: nn.Module, size: tuple[int, int]) -> float:
    """Return how far the outputs of two images lie apart, relative to the largest output."""
    with torch.no_grad():
        first, second = model(images(size))
    return float((first - second).abs().max() / torch.stack([first, second]).abs().max())


def parameters(model: nn.Module) -> int:
    """Return the number of parameters."""
    return sum(parameter.numel() for parameter in model.parameters())


def foreign(model: nn.Module) -> list[str]:
    """Return the names of the modules inside that are not torch.nn's own."""
    return [
        name
        for name, module in model.named_modules()
        if name and type(module) is not getattr(nn, type(module).__name__, None)
    ]


def same(left: nn.Module, right: nn.Module) -> bool:
    """Tell whether two networks hold the same tensors under the same names, bit for bit."""
    ours, others = left.state_dict(), right.state_dict()
    return ours.keys() == others.keys() and all(torch.equal(ours[key], others[key]) for key in ours)
