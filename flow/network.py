"""Networks as plain graphs: tracing, a small set of node forms, shapes, costs, safe files.

Every stage works on the graph that `trace` returns. It has five forms of node only: the input, standard
torch modules (`MODULES`), the sum of two tensors (`operator.add`), a concatenation of channels
(`torch.cat`), and the output. Functional spellings (``F.relu``, ``x.view``) become modules.
"""

from __future__ import annotations

import copy
import json
import operator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flow.errors import ConfigError, UnsupportedError
from flow.types import LayerCost

if TYPE_CHECKING:
    import torch
    from torch import fx, nn

_CONV = (
    "in_channels",
    "out_channels",
    "kernel_size",
    "stride",
    "padding",
    "dilation",
    "groups",
    "padding_mode",
)
_NORM = ("num_features", "eps", "momentum", "affine", "track_running_stats")
_MAX = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")
_AVG = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad")
MODULES: dict[str, tuple[str, ...]] = {
    "Conv1d": _CONV,
    "Conv2d": _CONV,
    "Linear": ("in_features", "out_features"),
    "BatchNorm1d": _NORM,
    "BatchNorm2d": _NORM,
    "ReLU": (),
    "LeakyReLU": ("negative_slope",),
    "Sigmoid": (),
    "Tanh": (),
    "MaxPool1d": _MAX,
    "MaxPool2d": _MAX,
    "AvgPool1d": _AVG,
    "AvgPool2d": _AVG,
    "AdaptiveAvgPool1d": ("output_size",),
    "AdaptiveAvgPool2d": ("output_size",),
    "Flatten": ("start_dim", "end_dim"),
    "Dropout": ("p",),
    "Identity": (),
}
"""The modules a network may hold, each with the constructor options that describe it."""

CONVS = ("Conv1d", "Conv2d")
WEIGHTED = (*CONVS, "Linear")
NORMS = ("BatchNorm1d", "BatchNorm2d")


def kind(module: nn.Module) -> str:
    """Return the class name that `MODULES` knows the module by."""
    return type(module).__name__


def trace(model: nn.Module, example: torch.Tensor) -> fx.GraphModule:
    """Return a copy of ``model`` as a graph of standard modules; the model itself is untouched.

    Args:
        model: any torch network with one input and one output.
        example: an input tensor with a batch dimension.

    Raises:
        UnsupportedError: the forward pass cannot be traced, or holds an operation outside `MODULES`.
        ConfigError: weights are not finite, or the example does not fit.
    """
    from torch import fx

    check_finite(model)
    if isinstance(model, fx.GraphModule):
        graph = copy.deepcopy(model)
    else:
        try:
            graph = fx.symbolic_trace(copy.deepcopy(model))
        except Exception as error:
            raise UnsupportedError(
                f"model: forward must be traceable by torch.fx, not {type(error).__name__}: {error}; "
                "replace branches and loops that depend on data"
            ) from error
    _check_fits(model, example)
    _normalize(graph)
    _check_supported(graph)
    shapes(graph, example)
    return graph


def check_finite(model: nn.Module) -> None:
    """Refuse weights that are NaN or infinite."""
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            bad = int((~value.isfinite()).sum())
            if bad:
                raise ConfigError(
                    f"model: weights must be finite, but {name!r} holds {bad} NaN or infinite values; "
                    "load another checkpoint, or train with a smaller learning rate"
                )


def _check_fits(model: nn.Module, example: torch.Tensor) -> None:
    import torch

    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            model(example)
    except RuntimeError as error:
        raise ConfigError(
            f"model: input must fit the network, not have shape {tuple(example.shape)}: "
            f"{str(error).splitlines()[0]}; check [data] and [model]"
        ) from error
    finally:
        model.train(training)


def _normalize(graph: fx.GraphModule) -> None:
    """Rewrite functional spellings as modules, sums as operator.add; drop what is then unused."""
    import torch
    import torch.nn.functional as F  # noqa: N812
    from torch import nn

    relus = (F.relu, torch.relu, "relu", "relu_")
    flattens = (torch.flatten, "flatten", "view", "reshape", torch.reshape)
    adds = (operator.add, operator.iadd, torch.add, "add", "add_")
    pools = {F.max_pool2d: nn.MaxPool2d, torch.max_pool2d: nn.MaxPool2d, F.max_pool1d: nn.MaxPool1d}
    pools |= {F.avg_pool2d: nn.AvgPool2d, F.adaptive_avg_pool2d: nn.AdaptiveAvgPool2d}
    for node in list(graph.graph.nodes):
        if node.op not in ("call_function", "call_method"):
            continue
        target: Any = node.target
        if target in relus:
            _replace(graph, node, nn.ReLU())
        elif target in flattens and _keeps_batch_only(node):
            _replace(graph, node, nn.Flatten())
        elif target in adds and all(hasattr(arg, "op") for arg in node.args) and not node.kwargs:
            node.op, node.target = "call_function", operator.add
        elif target in (torch.cat, torch.concat) and _axis(node) == 1:
            node.target, node.args, node.kwargs = torch.cat, (node.args[0], 1), {}
        elif target in pools:
            options = {k: v for k, v in node.kwargs.items() if k != "return_indices"}
            _replace(graph, node, pools[target](*node.args[1:], **options))
    for name, module in list(graph.named_modules()):
        if kind(module) == "Dropout2d":
            graph.set_submodule(name, nn.Dropout(module.p))
    graph.graph.eliminate_dead_code()
    graph.delete_all_unused_submodules()
    graph.recompile()


def _keeps_batch_only(node: fx.Node) -> bool:
    """Tell whether a flatten, view or reshape is ``(batch, everything else)``."""
    rest: tuple[Any, ...] = tuple(node.args[1:])
    if getattr(node.target, "__name__", node.target) == "flatten":
        return (node.kwargs.get("start_dim", rest[0] if rest else 0)) == 1 and len(rest) < 2
    shape = rest[0] if len(rest) == 1 and isinstance(rest[0], tuple | list) else rest
    return len(shape) == 2 and shape[1] == -1


def _axis(node: fx.Node) -> Any:
    return node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else 0)


def _replace(graph: fx.GraphModule, node: fx.Node, module: nn.Module) -> None:
    name = node.name
    while hasattr(graph, name):
        name += "_"
    graph.add_submodule(name, module)
    with graph.graph.inserting_after(node):
        new = graph.graph.call_module(name, (node.args[0],))
    node.replace_all_uses_with(new)
    graph.graph.erase_node(node)


def _check_supported(graph: fx.GraphModule) -> None:
    import torch

    users: dict[str, str] = {}
    for node in graph.graph.nodes:
        if node.op == "call_module":
            module = graph.get_submodule(node.target)
            if kind(module) not in MODULES:
                raise UnsupportedError(
                    f"model: layer {node.target!r} ({kind(module)}) is not supported; "
                    f"supported layers: {', '.join(MODULES)}"
                )
            if node.target in users and list(module.parameters()):
                raise UnsupportedError(
                    f"model: layer {node.target!r} ({kind(module)}) must be used once, not twice; "
                    "give each use a layer of its own"
                )
            users[node.target] = node.name
        elif node.op not in ("placeholder", "output") and node.target not in (operator.add, torch.cat):
            name = getattr(node.target, "__name__", node.target)
            raise UnsupportedError(
                f"model: operation {name!r} (node {node.name!r}) is not supported; "
                "use standard torch.nn layers, x + y, torch.cat over channels, or flatten"
            )
    inputs = [node for node in graph.graph.nodes if node.op == "placeholder"]
    if len(inputs) != 1 or not hasattr(output_node(graph).args[0], "op"):
        raise UnsupportedError(
            f"model: network must have one input and one output tensor, not {len(inputs)} inputs; "
            "wrap it in a module with one of each"
        )


def input_node(graph: fx.GraphModule) -> fx.Node:
    """Return the input node."""
    return next(node for node in graph.graph.nodes if node.op == "placeholder")


def output_node(graph: fx.GraphModule) -> fx.Node:
    """Return the output node; its only argument is the node that computes the result."""
    return next(node for node in graph.graph.nodes if node.op == "output")


def shapes(graph: fx.GraphModule, example: torch.Tensor) -> dict[str, tuple[int, ...]]:
    """Return the shape of every node's tensor, batch dimension first."""
    import torch
    from torch.fx.passes.shape_prop import ShapeProp

    training = graph.training
    graph.eval()
    with torch.no_grad():
        ShapeProp(graph).propagate(example.to(next(iter(graph.parameters()), example).dtype))
    graph.train(training)
    return {
        node.name: tuple(node.meta["tensor_meta"].shape)
        for node in graph.graph.nodes
        if "tensor_meta" in node.meta
    }


def weighted(graph: fx.GraphModule) -> list[tuple[fx.Node, Any]]:
    """Return the Conv and Linear nodes with their modules, in order."""
    found = []
    for node in graph.graph.nodes:
        if node.op == "call_module" and kind(graph.get_submodule(node.target)) in WEIGHTED:
            found.append((node, graph.get_submodule(node.target)))
    return found


def costs(graph: fx.GraphModule, example: torch.Tensor) -> tuple[LayerCost, ...]:
    """Return parameters and multiply-accumulates (one sample) of every Conv and Linear layer."""
    shape = shapes(graph, example)
    rows = []
    for node, module in weighted(graph):
        positions = 1
        for extent in shape[node.name][2:]:
            positions *= extent
        rows.append(
            LayerCost(
                name=node.target,
                kind=kind(module),
                inputs=module.weight.shape[1] * getattr(module, "groups", 1),
                outputs=module.weight.shape[0],
                parameters=sum(p.numel() for p in module.parameters()),
                macs=module.weight.numel() * positions,
            )
        )
    return tuple(rows)


def total_parameters(graph: fx.GraphModule) -> int:
    """Return the number of parameters, BatchNorm's included."""
    return sum(p.numel() for p in graph.parameters())


def save(graph: fx.GraphModule, folder: Path) -> None:
    """Write the graph as ``network.json`` and ``weights.pt`` (a plain state dict): no code, no pickle."""
    import torch

    nodes = []
    modules = {}
    for node in graph.graph.nodes:
        inputs = [n.name for n in node.all_input_nodes]
        if node.op == "call_function":
            inputs = [n.name for n in (node.args[0] if node.target is torch.cat else node.args)]
        target = node.target.__name__ if node.op == "call_function" else node.target
        nodes.append({"name": node.name, "op": node.op, "target": target, "inputs": inputs})
        if node.op == "call_module":
            module = graph.get_submodule(node.target)
            options = {key: getattr(module, key) for key in MODULES[kind(module)]}
            if kind(module) in WEIGHTED:
                options["bias"] = module.bias is not None
            modules[node.target] = {"kind": kind(module), "options": options}
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"format": 1, "nodes": nodes, "modules": modules}, indent=1)
    (folder / "network.json").write_text(text + "\n", encoding="utf-8")
    torch.save(
        {name: value.cpu().contiguous() for name, value in graph.state_dict().items()}, folder / "weights.pt"
    )


def load(folder: Path) -> fx.GraphModule:
    """Read what `save` wrote; returns the graph in evaluation mode."""
    import torch
    from torch import fx, nn

    description = json.loads((folder / "network.json").read_text(encoding="utf-8"))
    root = nn.Module()
    for name, entry in description["modules"].items():
        if entry["kind"] not in MODULES:
            raise UnsupportedError(f"model: layer {name!r} ({entry['kind']}) is not supported")
        options = {k: tuple(v) if isinstance(v, list) else v for k, v in entry["options"].items()}
        _set(root, name, getattr(nn, entry["kind"])(**options))
    graph = fx.Graph()
    made: dict[str, fx.Node] = {}
    functions = {"add": operator.add, "cat": torch.cat}
    for entry in description["nodes"]:
        inputs = [made[name] for name in entry["inputs"]]
        target: Any = entry["target"]
        arguments: tuple[Any, ...] = tuple(inputs)
        if entry["op"] == "call_function":
            target = functions[target]
            arguments = (inputs, 1) if target is torch.cat else arguments
        made[entry["name"]] = graph.create_node(entry["op"], target, arguments, name=entry["name"])
    model = fx.GraphModule(root, graph)
    model.load_state_dict(torch.load(folder / "weights.pt", weights_only=True))
    return model.eval()


def _set(root: nn.Module, path: str, module: nn.Module) -> None:
    from torch import nn

    *parents, leaf = path.split(".")
    for name in parents:
        if not hasattr(root, name):
            root.add_module(name, nn.Module())
        root = getattr(root, name)
    root.add_module(leaf, module)
