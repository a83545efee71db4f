"""Networks on disk: ``network.json`` and ``weights.pt``, plain data that executes nothing."""

from __future__ import annotations

import json
import math
import operator
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flow.errors import ConfigError, FlowError, first_line
from flow.files import write_json
from flow.network.forms import MODULES, WEIGHTED, kind
from flow.network.tracing import check_kind

if TYPE_CHECKING:
    import torch
    from torch import fx, nn

_SHOWN = 160


def save(graph: fx.GraphModule, folder: Path) -> None:
    """Write the graph as ``network.json`` and ``weights.pt`` (a plain state dict): no code, no pickle."""
    import torch

    nodes = []
    modules = {}
    for node in graph.graph.nodes:
        entry = {"name": node.name, "op": node.op, "target": str(node.target)}
        entry["inputs"] = [source.name for source in _sources(node)]
        if node.op == "call_function":
            entry["target"] = node.target.__name__
            if node.target is torch.narrow:
                entry["range"] = node.args[2:]
        if node.op == "output":
            entry["several"] = isinstance(node.args[0], tuple)
        nodes.append(entry)
        if node.op == "call_module":
            module = graph.get_submodule(node.target)
            options = {key: _plain(getattr(module, key)) for key in MODULES[kind(module)]}
            if kind(module) in WEIGHTED:
                options["bias"] = module.bias is not None
            modules[node.target] = {"kind": kind(module), "options": options}
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "network.json", {"format": 2, "nodes": nodes, "modules": modules})
    torch.save(
        {name: value.cpu().contiguous() for name, value in graph.state_dict().items()}, folder / "weights.pt"
    )


def load(folder: Path) -> fx.GraphModule:
    """Read what `save` wrote; returns the graph in evaluation mode. Nothing in the files is executed.

    Raises:
        UnsupportedError: ``network.json`` holds a layer outside `MODULES`.
        ConfigError: the files are missing or damaged, or hold what `save` does not write.
    """
    try:
        return _load(folder)
    except FlowError:
        raise
    except Exception as error:  # of what is missing, damaged or foreign
        raise ConfigError(
            f"model: {str(folder)!r} must hold what flow.network.save writes, not fail with {type(error).__name__}: "
            f"{first_line(error)[:_SHOWN]}; run the stage that wrote it again"
        ) from error


def _load(folder: Path) -> fx.GraphModule:
    import torch
    from torch import fx, nn

    description = json.loads((folder / "network.json").read_text(encoding="utf-8"))
    _check_names(description)
    root = nn.Module()
    for name, entry in description["modules"].items():
        check_kind(name, entry["kind"])
        options = {key: _option(value) for key, value in entry["options"].items()}
        _set(root, name, getattr(nn, entry["kind"])(**options))
    graph = fx.Graph()
    made: dict[str, fx.Node] = {}
    for entry in description["nodes"]:
        inputs = [made[name] for name in entry["inputs"]]
        target, arguments = _call(entry, inputs)
        made[entry["name"]] = graph.create_node(entry["op"], target, arguments, name=entry["name"])
    model = fx.GraphModule(root, graph)
    state = torch.load(folder / "weights.pt", weights_only=True)
    model.to(next((v.dtype for v in state.values() if v.is_floating_point()), torch.float32))
    _fill(model, state)
    return model.eval()


def _fill(model: fx.GraphModule, state: Mapping[str, torch.Tensor]) -> None:
    """Take the weights; torch's own function goes through all of them for every module."""
    import torch

    own = model.state_dict()
    if own.keys() != state.keys():
        raise ValueError(f"{sorted(own.keys() ^ state.keys())[0]!r} is in one of the files only")
    with torch.no_grad():
        for name, value in own.items():
            if value.shape != state[name].shape or value.dtype != state[name].dtype:
                raise ValueError(f"{name!r} is {state[name].dtype} of shape {tuple(state[name].shape)}")
            value.copy_(state[name])


def _plain(option: Any) -> Any:
    """Return a layer's option as JSON has it: an infinite bound of a clamp as its text."""
    return str(option) if isinstance(option, float) and math.isinf(option) else option


def _option(value: Any) -> Any:
    """Return what `_plain` was made of."""
    if isinstance(value, list):
        return tuple(value)
    return float(value) if value in ("inf", "-inf") else value


def _sources(node: fx.Node) -> tuple[fx.Node, ...]:
    """Return the nodes that ``node`` reads, in order, one as often as it is read."""
    import torch

    if node.target is torch.cat or (node.op == "output" and isinstance(node.args[0], tuple)):
        return tuple(node.args[0])  # type: ignore[arg-type]
    return tuple(arg for arg in node.args if hasattr(arg, "op"))  # type: ignore[misc]


def _call(entry: Mapping[str, Any], inputs: list[fx.Node]) -> tuple[Any, tuple[Any, ...]]:
    """Return target and arguments of the node that ``entry`` describes."""
    import torch

    if entry["op"] == "output":
        return "output", (tuple(inputs),) if entry["several"] else tuple(inputs)
    if entry["op"] != "call_function":
        return entry["target"], tuple(inputs)
    if entry["target"] == "cat":
        return torch.cat, (inputs, 1)
    if entry["target"] == "narrow":
        start, length = entry["range"]
        return torch.narrow, (*inputs, 1, int(start), int(length))
    return {"add": operator.add, "mul": operator.mul}[entry["target"]], tuple(inputs)


def _check_names(description: Mapping[str, Any]) -> None:
    """Refuse what would be more than a name in the code that torch.fx writes from a graph."""
    plain = {"placeholder": r"[A-Za-z_]\w*", "call_module": r'[^"\\\x00-\x1f]+'}
    plain |= {"call_function": "add|mul|cat|narrow", "output": "output"}
    for entry in description["nodes"]:
        for text, pattern in ((entry["name"], r"\w+"), (entry["target"], plain.get(entry["op"], ""))):
            if not re.fullmatch(pattern, text):
                raise ConfigError(
                    f"model: network.json must hold what flow.network.save writes, not {text!r} ({entry['op']}); "
                    "run the stage that wrote it again"
                )


def _set(root: nn.Module, path: str, module: nn.Module) -> None:
    from torch import nn

    *parents, leaf = path.split(".")
    for name in parents:
        if not hasattr(root, name):
            root.add_module(name, nn.Module())
        root = getattr(root, name)
    root.add_module(leaf, module)
