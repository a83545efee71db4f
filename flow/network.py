"""Networks as plain graphs: tracing, a small set of node forms, shapes, costs, safe files.

Every stage works on the graph that `trace` returns. It has five forms of node only: the input, standard
torch modules (`MODULES`), the sum of two tensors (`operator.add`), a concatenation of channels
(`torch.cat`), and the output. Functional spellings (``F.relu``, ``x.view``) become modules.
"""

from __future__ import annotations

import copy
import json
import operator
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
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
    "AvgPool2d": (*_AVG, "divisor_override"),
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
    check_finite(model)
    graph = _symbolic(model)
    _normalize(graph)
    _check_supported(graph)
    _check_fits(model, example)
    _check_same(model, graph, example)
    return graph


def _symbolic(model: nn.Module) -> fx.GraphModule:
    from torch import fx

    try:
        model = copy.deepcopy(model)
    except RuntimeError as error:
        raise UnsupportedError(
            f"model: weights must be plain parameters, not computed ones ({str(error).split('.')[0]}); "
            "make masks and weight norms permanent first, e.g. with torch.nn.utils.prune.remove"
        ) from error
    if isinstance(model, fx.GraphModule):
        return model
    try:
        return fx.symbolic_trace(model)
    except Exception as error:
        raise UnsupportedError(
            f"model: forward must be traceable by torch.fx, not {type(error).__name__}: {error}; "
            "replace branches and loops that depend on data"
        ) from error


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put ``model`` in evaluation mode for a while; every module gets its own flag back."""
    flags = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, flag in flags.items():
            module.training = flag


def dtype(model: nn.Module, default: torch.dtype) -> torch.dtype:
    """Return the type of the network's weights, ``default`` where it has none."""
    return next((v.dtype for v in model.state_dict().values() if v.is_floating_point()), default)


def _like_weights(model: nn.Module, tensor: torch.Tensor) -> torch.Tensor:
    """Return a copy of ``tensor`` in the type of the network's weights."""
    return tensor.detach().to(dtype(model, tensor.dtype), copy=True)


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

    try:
        with torch.no_grad(), evaluating(model):
            model(_like_weights(model, example))
    except (RuntimeError, ValueError, IndexError) as error:
        raise ConfigError(
            f"model: input must fit the network, not have shape {tuple(example.shape)}: "
            f"{str(error).splitlines()[0]}; check [data] and [model]"
        ) from error


def _check_same(model: nn.Module, graph: fx.GraphModule, example: torch.Tensor) -> None:
    """Refuse a graph that computes something else than the model, with one sample more than the example.

    What is in place in the model is not in the graph, and a view of a fixed size becomes a flatten.
    """
    import torch

    size = (len(example) + 1, *example.shape[1:])
    x = _like_weights(model, torch.randn(size, generator=torch.Generator().manual_seed(0)))
    try:
        with torch.no_grad(), evaluating(model), evaluating(graph):
            want, got = model(x.clone()), graph(x.clone())
    except (RuntimeError, ValueError, IndexError) as error:
        raise UnsupportedError(
            f"model: forward must take any batch size, but {len(x)} samples fail: {str(error).splitlines()[0]}; "
            "write torch.flatten(x, 1) for a view of a fixed size"
        ) from error
    if want.shape != got.shape or not torch.allclose(want, got, rtol=0, atol=0, equal_nan=True):
        raise UnsupportedError(
            "model: forward must give the same without in-place operations and fixed batch sizes, not differ; "
            "write x = x + y for x += y, relu(x) for relu_(x), torch.flatten(x, 1) for view"
        )


def _normalize(graph: fx.GraphModule) -> None:
    """Rewrite functional spellings as modules, sums as operator.add, nothing in place; drop what is unused."""
    import torch
    import torch.nn.functional as F  # noqa: N812
    from torch import nn

    relus = (F.relu, torch.relu, "relu", "relu_")
    flattens = (torch.flatten, "flatten", "view", "reshape", torch.reshape)
    adds = (operator.add, operator.iadd, torch.add, "add", "add_")
    pools = {F.max_pool2d: nn.MaxPool2d, torch.max_pool2d: nn.MaxPool2d, F.max_pool1d: nn.MaxPool1d}
    pools |= {F.avg_pool2d: nn.AvgPool2d, F.adaptive_avg_pool2d: nn.AdaptiveAvgPool2d}
    for node in list(graph.graph.nodes):
        if node.op not in ("call_function", "call_method") or not node.args:
            continue
        target: Any = node.target
        reads_one = node.all_input_nodes == [node.args[0]]
        if target in relus:
            _replace(graph, node, nn.ReLU())
        elif target in flattens and _keeps_batch_only(node):
            _replace(graph, node, nn.Flatten())
        elif target in adds and all(hasattr(arg, "op") for arg in node.args) and not node.kwargs:
            node.op, node.target = "call_function", operator.add
        elif target in (torch.cat, torch.concat) and _axis(node) == 1:
            node.target, node.args, node.kwargs = torch.cat, (node.args[0], 1), {}
        elif target in pools and reads_one:
            options = {k: v for k, v in node.kwargs.items() if k != "return_indices"}
            _replace(graph, node, pools[target](*node.args[1:], **options))
    for name, module in list(graph.named_modules()):
        if kind(module) == "Dropout2d":
            graph.set_submodule(name, nn.Dropout(module.p))
        elif getattr(module, "inplace", False):
            module.inplace = False
    graph.graph.eliminate_dead_code()
    graph.delete_all_unused_submodules()
    graph.recompile()


def _keeps_batch_only(node: fx.Node) -> bool:
    """Tell whether a flatten, view or reshape may be ``(batch, everything else)``; `_check_same` proves it."""
    rest: tuple[Any, ...] = tuple(node.args[1:])
    if getattr(node.target, "__name__", node.target) == "flatten":
        given = {**dict(zip(("start_dim", "end_dim"), rest, strict=False)), **node.kwargs}
        return (given.get("start_dim", 0), given.get("end_dim", -1)) == (1, -1)
    shape = rest[0] if len(rest) == 1 and isinstance(rest[0], tuple | list) else rest
    return len(shape) == 2


def _axis(node: fx.Node) -> Any:
    return node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else 0)


def add_module(graph: fx.GraphModule, name: str, module: nn.Module) -> str:
    """Add a module under ``name``, with underscores behind it where that is taken; returns the name."""
    while hasattr(graph, name):
        name += "_"
    graph.add_submodule(name, module)
    return name


def _replace(graph: fx.GraphModule, node: fx.Node, module: nn.Module) -> None:
    name = add_module(graph, node.name, module)
    with graph.graph.inserting_after(node):
        new = graph.graph.call_module(name, (node.args[0],))
    node.replace_all_uses_with(new)
    graph.graph.erase_node(node)


def _check_supported(graph: fx.GraphModule) -> None:
    from torch import nn

    users: dict[str, str] = {}
    for node in graph.graph.nodes:
        if node.op == "call_module":
            module = graph.get_submodule(node.target)
            _check_kind(node.target, kind(module))
            if type(module) is not getattr(nn, kind(module)):
                raise UnsupportedError(
                    f"model: layer {node.target!r} must be torch.nn's own {kind(module)}, "
                    f"not {type(module).__module__}'s; convert it first"
                )
            if node.target in users and module.state_dict():
                raise UnsupportedError(
                    f"model: layer {node.target!r} ({kind(module)}) must be used once, not twice; "
                    "give each use a layer of its own"
                )
            users[node.target] = node.name
        elif node.op not in ("placeholder", "output") and not _is_join(node):
            name = getattr(node.target, "__name__", node.target)
            raise UnsupportedError(
                f"model: operation {name!r} (node {node.name!r}) is not supported; "
                "use standard torch.nn layers, x + y, torch.cat over channels, or flatten"
            )
    inputs = sum(node.op == "placeholder" for node in graph.graph.nodes)
    result: Any = output_node(graph).args[0]
    outputs = 1 if hasattr(result, "op") else len(result) if isinstance(result, tuple | list | dict) else 0
    if inputs != 1 or not hasattr(result, "op"):
        raise UnsupportedError(
            f"model: network must have one input and one output tensor, not {inputs} and {outputs}; "
            "wrap it in a module with one of each"
        )


def _check_kind(name: str, what: str) -> None:
    if what not in MODULES:
        raise UnsupportedError(
            f"model: layer {name!r} ({what}) is not supported; supported layers: {', '.join(MODULES)}"
        )


def _is_join(node: fx.Node) -> bool:
    """Tell whether a node is a sum of two tensors or a concatenation of channels."""
    import torch

    if node.op != "call_function" or node.kwargs:
        return False
    if node.target is torch.cat:
        parts, *axis = node.args
        return axis == [1] and isinstance(parts, tuple | list) and all(hasattr(part, "op") for part in parts)
    return node.target is operator.add and all(hasattr(arg, "op") for arg in node.args)


def output_node(graph: fx.GraphModule) -> fx.Node:
    """Return the output node; its only argument is the node that computes the result."""
    return next(node for node in graph.graph.nodes if node.op == "output")


def shapes(graph: fx.GraphModule, example: torch.Tensor) -> dict[str, tuple[int, ...]]:
    """Return the shape of every node's tensor, batch dimension first."""
    import torch
    from torch.fx.passes.shape_prop import ShapeProp

    with torch.no_grad(), evaluating(graph):
        ShapeProp(graph).propagate(_like_weights(graph, example))
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
    """Read what `save` wrote; returns the graph in evaluation mode. Nothing in the files is executed.

    Raises:
        UnsupportedError: ``network.json`` holds a layer outside `MODULES`.
        ConfigError: it holds a name or an operation that `save` does not write.
    """
    import torch
    from torch import fx, nn

    description = json.loads((folder / "network.json").read_text(encoding="utf-8"))
    _check_names(description)
    root = nn.Module()
    for name, entry in description["modules"].items():
        _check_kind(name, entry["kind"])
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
    state = torch.load(folder / "weights.pt", weights_only=True)
    model.to(next((v.dtype for v in state.values() if v.is_floating_point()), torch.float32))
    model.load_state_dict(state)
    return model.eval()


def _check_names(description: Mapping[str, Any]) -> None:
    """Refuse what would be more than a name in the code that torch.fx writes from a graph."""
    plain = {"placeholder": r"[A-Za-z_]\w*", "call_module": r'[^"\\\x00-\x1f]+'}
    plain |= {"call_function": "add|cat", "output": "output"}
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
