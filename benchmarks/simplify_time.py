"""Measures how much faster simplified networks are: ours and torch-simplify 1.1.4, in one process.

Half of the output channels of every conv are zeroed at random (seed 0); BatchNorm has random statistics. Batch
1, float32, 224 x 224 pixels (inception 299 x 299). The networks take turns, round after round, so that a busy
machine slows all of them alike.

torch-simplify is needed here only, and it asks for a torchvision of its own choice; an environment on top of
the project's keeps it apart:

    python3 -m venv peer
    echo "$PWD"/.venv/lib/python3*/site-packages > "$(echo peer/lib/python3*/site-packages)/project.pth"
    peer/bin/pip install --no-deps torch-simplify==1.1.4
    peer/bin/python benchmarks/simplify_time.py [--threads N] [--seconds N] [NETWORK ...]

Finished networks are in ``results/simplify_time.jsonl``; delete it to measure anew.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from figures import add_row, machine, record, rows, table
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import architectures

import flow

NAME = "simplify_time"
CLASSIFIER_KEPT = "squeezenet1_1, last conv whole"
"""torch-simplify's own tests and benchmarks leave the last conv of SqueezeNet whole."""
NETWORKS = {
    **{f"{name}_bn": (name, True, ()) for name in architectures.NAMES if name.startswith("vgg")},
    **{
        name: (name, name not in architectures.WITHOUT, ())
        for name in architectures.NAMES
        if name[:3] != "vgg"
    },
    **{name: (name, False, ()) for name in architectures.NAMES if name.startswith("vgg")},
    CLASSIFIER_KEPT: ("squeezenet1_1", False, ("classifier.1",)),
}
ROUNDS = (15, 200)
"""Fewest and most rounds, whatever the time they take."""


def networks(label: str) -> tuple[nn.Module, nn.Module, torch.Tensor]:
    """Return the dense network, the pruned one and an example."""
    name, batchnorm, spare = NETWORKS[label]
    edge = 299 if name == "inception_v3" else 224
    dense = architectures.build(name, batchnorm=batchnorm, seed=0, classes=1000)
    architectures.settle(dense, (edge, edge), seed=0)
    pruned = copy.deepcopy(dense)
    architectures.prune(pruned, 0.5, seed=0, spare=spare)
    return dense, pruned, torch.zeros(1, 3, edge, edge)


def ours(pruned: nn.Module, example: torch.Tensor) -> nn.Module:
    """Return what this project makes of a pruned network."""
    return flow.simplify(pruned, example, samples=2).model.eval()


def theirs(pruned: nn.Module, example: torch.Tensor) -> nn.Module:
    """Return what torch-simplify makes of a copy, called as its README says: folding and pins are its own."""
    import simplify  # behind torchvision_models(): it imports torchvision

    return simplify.simplify(copy.deepcopy(pruned), example, fuse_bn=True).eval()


def attempt(
    way: Callable[[nn.Module, torch.Tensor], nn.Module], pruned: nn.Module, example: torch.Tensor
) -> tuple[nn.Module | None, str]:
    """Return a network that runs, or the text of the error that it or its making ends with."""
    try:
        with torch.no_grad():
            made = way(pruned, example)
            found = tuple(made(example).shape)
            wanted = tuple(pruned(example).shape)
    except Exception as error:
        text = " ".join(str(error).split())
        return None, f"{type(error).__name__}: {text}"[:160]
    return (made, "") if found == wanted else (None, f"its output has shape {found} instead of {wanted}")


def difference(pruned: nn.Module, other: nn.Module, example: torch.Tensor) -> float:
    """Return max |pruned - other| / max |pruned| over full outputs in float32, on random images."""
    x = torch.randn((4, *example.shape[1:]), generator=torch.Generator().manual_seed(1))
    want, got = pruned(x), other(x)
    return float((want - got).abs().max() / want.abs().max())


def milliseconds(models: dict[str, nn.Module], x: torch.Tensor, seconds: float) -> dict[str, list[float]]:
    """Return the times of every model, one a round; the models take turns."""
    found: dict[str, list[float]] = {name: [] for name in models}
    for model in models.values():
        model(x)
    end = time.perf_counter() + seconds
    for index in range(ROUNDS[1]):
        if index >= ROUNDS[0] and time.perf_counter() > end:
            break
        for name, model in models.items():
            start = time.perf_counter()
            model(x)
            found[name].append(1e3 * (time.perf_counter() - start))
    return found


def ratio(left: list[float], right: list[float]) -> float:
    """Return the median over the rounds of left / right: what slows a round down slows both."""
    return statistics.median(one / other for one, other in zip(left, right, strict=True))


def parameters(model: nn.Module) -> int:
    """Return the number of parameters."""
    return sum(parameter.numel() for parameter in model.parameters())


def measure(label: str, seconds: float, ways: dict[str, Callable[..., nn.Module]]) -> dict[str, Any]:
    """Return the row of one network: times in ms, parameters, differences, and errors where a way fails."""
    dense, pruned, example = networks(label)
    row: dict[str, Any] = {"network": label, "threads": torch.get_num_threads(), "torch": torch.__version__}
    row["parameters"] = {"dense": parameters(dense)}
    row["difference"], row["error"] = {}, {}
    models = {"dense": dense, "pruned": pruned}
    for way, function in ways.items():
        made, row["error"][way] = attempt(function, pruned, example)
        if made is not None:
            models[way] = made
            row["parameters"][way] = parameters(made)
    x = torch.randn(example.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for way in ways:
            if way in models:
                row["difference"][way] = difference(pruned, models[way], example)
        times = milliseconds(models, x, seconds)
    row["rounds"] = len(times["dense"])
    row["median"] = {name: statistics.median(found) for name, found in times.items()}
    row["minimum"] = {name: min(found) for name, found in times.items()}
    row["speedup"] = {way: ratio(times["dense"], times[way]) for way in ways if way in times}
    if set(WAYS) <= set(times):
        row["theirs / ours"] = ratio(times["theirs"], times["ours"])
    return row


def report(found: list[dict[str, Any]]) -> None:
    """Write the table and the speed-ups."""
    columns = [
        "network",
        "dense ms",
        "pruned ms",
        "ours ms",
        "theirs ms",
        "ours ×",
        "theirs ×",
        "theirs / ours",
    ]
    columns += ["dense M", "ours M", "theirs M", "ours differ", "theirs differ"]
    cells, failures = [], []
    for row in found:
        times, sizes, speed = row["median"], row["parameters"], row["speedup"]
        cells.append(
            [row["network"]]
            + [f"{times[n]:.1f} ({row['minimum'][n]:.1f})" if n in times else "fails" for n in KINDS]
            + [f"{speed[n]:.2f}" if n in speed else "-" for n in WAYS]
            + [f"{row['theirs / ours']:.2f}" if "theirs / ours" in row else "-"]
            + [f"{sizes[n] / 1e6:.2f}" if n in sizes else "-" for n in ("dense", *WAYS)]
            + [f"{row['difference'][n]:.0e}" if n in row["difference"] else "-" for n in WAYS]
        )
        failures += [f"- {row['network']}, {way}: `{text}`" for way, text in row["error"].items() if text]
    threads = sorted({row["threads"] for row in found})
    text = (
        "# Time of simplified networks\n\nHalf of the output channels of every conv zeroed at random (seed 0), "
        "random weights and BatchNorm statistics,\nbatch 1, float32, 224 x 224 (inception 299 x 299). "
        f"torch {found[0]['torch']}, threads: {', '.join(map(str, threads))}, {machine()}.\n"
        "Times: median (minimum) of rounds in which the networks take turns. theirs: torch-simplify 1.1.4.\n"
        "×: dense / simplified, and theirs / ours, are medians of the ratios round by round. M: millions of "
        "parameters.\ndiffer: largest difference from the pruned network over full outputs, relative, in float32; "
        "a row in which theirs is in the tenths\ncompares times with a network that computes something else: the "
        "constants of its dead channels are gone. Ours is laid\nout channels last in memory, theirs is as it comes."
    )
    if failures:
        text += "\n\n" + "\n".join(failures)
    table(NAME, text, columns, cells)
    record(
        "simplify_speedup",
        {row["network"]: round(row["speedup"]["ours"], 2) for row in found if "ours" in row["speedup"]},
        "dense time / simplified time",
        peer={row["network"]: round(row["speedup"].get("theirs", 0), 2) or "fails" for row in found},
    )


WAYS: dict[str, Callable[..., nn.Module]] = {"ours": ours, "theirs": theirs}
KINDS = ("dense", "pruned", *WAYS)


def main() -> None:
    """Measure the networks that have no row yet."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("networks", nargs="*", metavar="NETWORK", help="all unless named")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--seconds", type=float, default=60, help="to measure a network, after the least rounds"
    )
    options = parser.parse_args()
    if importlib.util.find_spec("simplify") is None:
        sys.exit("simplify_time: torch-simplify must be installed; the head of this file says how")
    torch.set_num_threads(options.threads)
    for label in options.networks or NETWORKS:
        if label not in {row["network"] for row in rows(NAME)}:
            add_row(NAME, measure(label, options.seconds, WAYS))
            print(label, flush=True)
    report(rows(NAME))


if __name__ == "__main__":
    main()
