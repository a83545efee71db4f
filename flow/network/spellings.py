"""Functional spellings become modules: ``F.relu``, ``x.view``, ``x.chunk``, a channel shuffle of views."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from flow.network.forms import Seen, add_module, calls, evaluating, kind, output_node, tidy
from flow.network.layers import standardize

if TYPE_CHECKING:
    import torch
    from torch import fx, nn

_NEUTRAL = ("inplace", "return_indices", "training", "dtype", "_stacklevel", "memory_format", "antialias")
_RESHAPES = ("flatten", "view", "reshape", "squeeze", "unsqueeze", "contiguous")
_NOTHING = ("clone", "detach", "expand", "expand_as", "stochastic_depth")
"""What changes no value (in evaluation mode, or because the join that reads it broadcasts anyway)."""


def normalize(graph: fx.GraphModule, inputs: tuple[torch.Tensor, ...]) -> Seen:
    """Rewrite functional spellings as modules and joins, nothing in place; drop what is unused.

    What a rewriting assumes of the sizes that it sees is proven afterwards, by `trace`. Returns what every
    node gave.
    """
    for index, node in enumerate(n for n in graph.graph.nodes if n.op == "placeholder"):
        if index >= len(inputs) and not node.users:  # an optional input
            graph.graph.erase_node(node)
    seen = _look(graph, inputs)
    for node in list(graph.graph.nodes):
        if node.op in ("call_function", "call_method"):
            first = next((key for key in ("input", "tensors") if key in node.kwargs), None)
            if not node.args and first:
                node.args = (node.kwargs[first],)
                node.kwargs = {key: value for key, value in node.kwargs.items() if key != first}
            if node.args:
                _rewrite(graph, node, seen)
    standardize(graph, seen)
    end = output_node(graph)
    result: Any = end.args[0]
    if isinstance(result, list | tuple | dict):
        results = tuple(result.values() if isinstance(result, dict) else result)
        end.args = (results[0] if len(results) == 1 else results,)
    tidy(graph)
    return seen


def _look(graph: fx.GraphModule, inputs: tuple[torch.Tensor, ...]) -> Seen:
    """Run the graph once, and note what every node gives."""
    import torch
    from torch import fx

    seen: Seen = {}

    def note(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return tuple(value.shape)
        if isinstance(value, tuple | list) and any(isinstance(part, torch.Tensor) for part in value):
            return [note(part) for part in value]
        return value

    class Watch(fx.Interpreter):  # type: ignore[misc]
        def run_node(self, n: fx.Node) -> Any:
            value = super().run_node(n)
            seen[n.name] = note(value)
            return value

    with torch.no_grad(), evaluating(graph):
        Watch(graph).run(*(tensor.clone() for tensor in inputs))
    return seen


def _rewrite(graph: fx.GraphModule, node: fx.Node, seen: Seen) -> None:
    source: Any = node.args[0]
    name = str(getattr(node.target, "__name__", node.target))
    if name in _JOINS:
        _JOINS[name](graph, node, seen)
    elif not hasattr(source, "op"):
        return
    elif name == "getitem":
        _slice(graph, node, seen)
    elif name in _RESHAPES:
        _reshape(graph, node, seen)
    elif name in _NOTHING:
        node.replace_all_uses_with(source)
    elif name in ("truediv", "div"):
        _sixth(graph, node, seen)
    elif name == "batch_norm":
        _batch_norm(graph, node, seen)
    elif name == "mean":
        _mean(graph, node, seen)
    elif module := _module(node, name.removesuffix("_"), seen):
        _replace(graph, node, seen, module)


def _module(node: fx.Node, name: str, seen: Seen) -> nn.Module | None:
    """Return the module that does what a call does, or None."""
    shape = seen[node.all_input_nodes[0].name]
    table = _calls()
    if name not in table:
        return None
    make, names = table[name]
    options = {**dict(zip(names, node.args[1:], strict=False)), **node.kwargs}
    options = {key: value for key, value in options.items() if key not in _NEUTRAL}
    if name.startswith(("avg_pool", "max_pool")) and isinstance(shape, tuple):
        kernel = options.get("kernel_size")
        known = [seen[part.name] if hasattr(part, "op") else part for part in _items(kernel)]
        if any(hasattr(part, "op") for part in _items(kernel)) and _flat(known) == list(shape[2:]):
            return _adaptive(shape, name[:3].capitalize())
    if any(hasattr(part, "op") for value in options.values() for part in _items(value)):
        return None  # sizes that depend on the input's
    try:
        return make(shape, options)
    except (TypeError, ValueError, KeyError):
        return None


def _items(value: Any) -> list[Any]:
    return list(value) if isinstance(value, tuple | list) else [value]


def _flat(values: list[Any]) -> list[Any]:
    return [part for value in values for part in _items(value)]


def _calls() -> dict[str, tuple[Callable[[Any, dict[str, Any]], nn.Module | None], tuple[str, ...]]]:
    """Return, by the name of a function or method, the module it becomes and its positional arguments."""
    from torch import nn

    def plain(make: type[nn.Module]) -> Callable[[Any, dict[str, Any]], nn.Module]:
        return lambda shape, options: make(**options)

    table: dict[str, Any] = {}
    for name, make in (
        *(("relu", nn.ReLU), ("relu6", nn.ReLU6), ("leaky_relu", nn.LeakyReLU), ("elu", nn.ELU)),
        *(("selu", nn.SELU), ("gelu", nn.GELU), ("silu", nn.SiLU), ("mish", nn.Mish), ("tanh", nn.Tanh)),
        *(("softplus", nn.Softplus), ("hardswish", nn.Hardswish), ("hardsigmoid", nn.Hardsigmoid)),
        *(("hardtanh", nn.Hardtanh), ("sigmoid", nn.Sigmoid)),
        *(("adaptive_avg_pool1d", nn.AdaptiveAvgPool1d), ("adaptive_avg_pool2d", nn.AdaptiveAvgPool2d)),
        *(("adaptive_max_pool1d", nn.AdaptiveMaxPool1d), ("adaptive_max_pool2d", nn.AdaptiveMaxPool2d)),
        *(("avg_pool1d", nn.AvgPool1d), ("avg_pool2d", nn.AvgPool2d), ("channel_shuffle", nn.ChannelShuffle)),
    ):
        names = tuple(inspect.signature(make).parameters)
        table[name] = plain(make), tuple(n for n in names if n != "return_indices")
    for name, make in (("max_pool1d", nn.MaxPool1d), ("max_pool2d", nn.MaxPool2d)):
        table[name] = plain(make), ("kernel_size", "stride", "padding", "dilation", "ceil_mode")
    for name in ("dropout", "dropout1d", "dropout2d"):
        table[name] = lambda shape, options: nn.Dropout(options.get("p", 0.5)), ("p", "training")
    table["softmax"] = _over_channels(nn.Softmax), ("dim",)
    table["log_softmax"] = _over_channels(nn.LogSoftmax), ("dim",)
    table["interpolate"] = plain(nn.Upsample), ("size", "scale_factor", "mode", "align_corners")
    for name in ("clamp", "clip"):
        table[name] = lambda shape, options: nn.Hardtanh(options["min"], options["max"]), ("min", "max")
    table["pad"] = _pad, ("pad", "mode", "value")
    return table


def _over_channels(make: type[nn.Module]) -> Callable[[Any, dict[str, Any]], nn.Module | None]:
    return lambda shape, options: make(1) if options.get("dim") in (1, 1 - len(shape)) else None  # type: ignore[call-arg]


def _pad(shape: Any, options: dict[str, Any]) -> nn.Module | None:
    from torch import nn

    pads = {2: nn.ZeroPad1d, 4: nn.ZeroPad2d}
    if options.get("mode", "constant") != "constant" or options.get("value") not in (None, 0, 0.0):
        return None
    width = list(options["pad"])
    if len(width) == 2 and len(shape) == 4:
        width += [0, 0]
    return pads[len(width)](tuple(width)) if len(width) == 2 * (len(shape) - 2) else None


def _adaptive(shape: tuple[int, ...], what: str = "Avg") -> nn.Module | None:
    from torch import nn

    return getattr(nn, f"Adaptive{what}Pool{len(shape) - 2}d")(1) if len(shape) in (3, 4) else None


def _replace(graph: fx.GraphModule, node: fx.Node, seen: Seen, *modules: nn.Module) -> None:
    """Put modules, one behind the other, in the place of a call."""
    source: Any = node.args[0]
    for module in modules:
        with graph.graph.inserting_before(node):
            module.train(graph.training)
            source = graph.graph.call_module(add_module(graph, node.name, module), (source,))
        seen[source.name] = seen[node.name]
    node.replace_all_uses_with(source)
    graph.graph.erase_node(node)


def _add(graph: fx.GraphModule, node: fx.Node, seen: Seen) -> None:
    if len(node.args) != 2 or node.kwargs:
        return
    zero = [i for i, arg in enumerate(node.args) if type(arg) in (int, float) and arg == 0]
    if zero:  # sum([x, y]) begins with 0 + x
        node.replace_all_uses_with(node.args[1 - zero[0]])  # type: ignore[arg-type]
    elif all(hasattr(arg, "op") for arg in node.args):
        node.op, node.target = "call_function", operator.add


def _mul(graph: fx.GraphModule, node: fx.Node, seen: Seen) -> None:
    tensors = all(hasattr(arg, "op") and isinstance(seen.get(arg.name), tuple) for arg in node.args)
    if len(node.args) == 2 and not node.kwargs and tensors:
        node.op, node.target = "call_function", operator.mul


def _cat(graph: fx.GraphModule, node: fx.Node, seen: Seen) -> None:
    import torch

    axis = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else 0)
    if axis in (1, 1 - len(seen[node.name])):
        node.target, node.args, node.kwargs = torch.cat, (node.args[0], 1), {}


_JOINS: dict[str, Callable[[Any, Any, Seen], None]] = {
    **dict.fromkeys(("add", "iadd", "add_"), _add),
    **dict.fromkeys(("mul", "imul", "mul_"), _mul),
    **dict.fromkeys(("cat", "concat", "concatenate"), _cat),
}


def _batch_norm(graph: fx.GraphModule, node: fx.Node, seen: Seen) -> None:
    """Turn ``F.batch_norm``, as subclasses of BatchNorm call it, into a BatchNorm of its own."""
    import torch
    from torch import nn

    names = ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")
    options: dict[str, Any] = {**dict(zip(names, node.args, strict=False)), **node.kwargs}
    given = {name: options[name] for name in names[1:5] if options.get(name) is not None}
    kinds: Any = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d}
    shape = seen[options["input"].name]
    attributes = all(getattr(value, "op", "") == "get_attr" for value in given.values())
    if not attributes or len(shape) not in kinds or len(given) not in (2, 4) or "running_var" not in given:
        return
    tensors = {name: operator.attrgetter(value.target)(graph).detach() for name, value in given.items()}
    made = kinds[len(shape)](
        shape[1], options.get("eps", 1e-5), options.get("momentum", 0.1), affine=len(given) == 4
    ).to(tensors["running_var"])
    with torch.no_grad():
        for name, tensor in tensors.items():
            getattr(made, name).copy_(tensor)
    node.args = (options["input"],)
    _replace(graph, node, seen, made)


def _sixth(graph: fx.GraphModule, node: fx.Node, seen: Seen) -> None:
    """Turn ``relu6(x + 3) / 6`` and ``x * relu6(x + 3) / 6`` into a hard sigmoid and a hard swish."""
    from torch import nn

    above, by = node.args[0], node.args[1:]
    factors: Any = above.args if calls(above, "mul") else (above,)  # type: ignore[arg-type]
    clipped = [f for f in factors if f.op == "call_module" and kind(graph.get_submodule(f.target)) == "ReLU6"]
    if by != (6,) or len(clipped) != 1:
        return
    shifted = clipped[0].args[0]
    if _name(shifted) not in ("add", "add_", "iadd") or 3 not in shifted.args or shifted.kwargs:
        return
    source = next(arg for arg in shifted.args if hasattr(arg, "op"))
    if all(factor in (source, clipped[0]) for factor in factors):
        node.args = (source,)
        _replace(graph, node, seen, nn.Hardswish() if len(factors) == 2 else nn.Hardsigmoid())


def _slice(graph: fx.GraphModule, node: fx.Node, seen: Seen) -> None:
    """Turn a part of a chunk or split, or ``x[:, a:b]``, into a slice of channels."""
    import torch

    source: Any = node.args[0]
    parts = seen[source.name]
    index = node.args[1]
    if isinstance(parts, list) and isinstance(index, int):
        whole = source.args[0]
        index %= len(parts)
        start = sum(part[1] for part in parts[:index])
        same = all((p[0], *p[2:]) == (seen[whole.name][0], *seen[whole.name][2:]) for p in parts)
        if not same or sum(part[1] for part in parts) != seen[whole.name][1]:
            return
    elif isinstance(index, tuple) and len(index) >= 2 and isinstance(seen[node.name], tuple):
        whole = source
        rest = (index[0], *index[2:])
        if index[:2] == (slice(None),) * 2 and all(part is None for part in index[2:]):  # y[:, :, None, None]
            return _reshape(graph, node, seen)
        if not isinstance(index[1], slice) or any(part not in (slice(None), Ellipsis) for part in rest):
            return
        if index[0] is Ellipsis and len(parts) != 2:
            return
        bounds = [
            seen[b.name] if hasattr(b, "op") else b for b in (index[1].start, index[1].stop, index[1].step)
        ]
        start, _, step = slice(*bounds).indices(parts[1])
        if step != 1:
            return
    else:
        return
    node.op, node.target, node.kwargs = "call_function", torch.narrow, {}
    node.args = (whole, 1, start, seen[node.name][1])


def _reshape(graph: fx.GraphModule, node: fx.Node, seen: Seen) -> None:
    """Turn a chain of views into the module that does the same: nothing, a flatten, an unflatten, a shuffle."""
    from torch import nn

    root = _root(graph, node.args[0])
    before, after = seen[root.name], seen[node.name]
    if not isinstance(before, tuple):
        return
    node.args = (root, *node.args[1:])
    swapped = _swaps(root, len(before))
    if before == after and len(after) != 2 and not swapped:
        node.replace_all_uses_with(root)
    elif len(after) == 2 and not swapped:
        _replace(
            graph, node, seen, nn.Flatten()
        )  # if it mixes samples, `trace` finds that and says what to write
    elif len(before) == 2 and len(after) in (3, 4) and after == (*before, *[1] * (len(after) - 2)):
        _replace(graph, node, seen, nn.Unflatten(1, after[1:]))
    elif swapped:
        _shuffle(graph, node, root, seen)


def _shuffle(graph: fx.GraphModule, node: fx.Node, swap: fx.Node, seen: Seen) -> None:
    """Recognize ``x.view(N, g, C / g, ..).transpose(1, 2).view(N, C, ..)``."""
    from torch import nn

    split: Any = swap.args[0]
    whole = _root(graph, split)
    shape, parts = seen[whole.name], seen[split.name]
    if (
        shape == seen[node.name]
        and len(shape) > 2
        and parts == (shape[0], parts[1], shape[1] // parts[1], *shape[2:])
    ):
        node.args = (whole, *node.args[1:])
        _replace(graph, node, seen, nn.ChannelShuffle(parts[1]))


def _name(node: fx.Node) -> str:
    return str(getattr(node.target, "__name__", node.target)) if node.op != "call_module" else ""


def _swaps(node: fx.Node, dimensions: int) -> bool:
    """Tell whether a node swaps dimensions 1 and 2."""
    axes = [*node.args[1:], *node.kwargs.values()]
    axes = list(axes[0]) if axes and isinstance(axes[0], tuple | list) else axes
    if _name(node) == "permute":
        return axes == [0, 2, 1, *range(3, dimensions)]
    return _name(node) in ("transpose", "swapaxes") and sorted(axes) == [1, 2]  # type: ignore[type-var]


def _root(graph: fx.GraphModule, node: Any) -> fx.Node:
    """Return the first node above that is more than a view; ``x.unsqueeze(2)`` is an Unflatten by now."""
    while _name(node) in _RESHAPES or (
        node.op == "call_module" and kind(graph.get_submodule(node.target)) == "Unflatten"
    ):
        node = node.args[0]
    return node  # type: ignore[no-any-return]


def _mean(graph: fx.GraphModule, node: fx.Node, seen: Seen) -> None:
    """Turn a mean over all positions into an adaptive pool, also ``flatten(2).mean(2)``, ``mean(3).mean(2)``."""
    from torch import nn

    source: Any = node.args[0]
    shape: Any = seen[source.name]
    axes, keep = _averaged(node, len(shape))
    root = _root(graph, source)
    if _name(source) == "mean" and _averaged(source, len(shape) + 1) in (([2], False), ([3], False)):
        root = source.args[0]
    whole = seen[root.name]
    pool = _adaptive(whole)
    if pool is None or axes != list(range(2, len(shape))) or shape[:2] != whole[:2]:
        return
    if root is source or not keep:
        node.args = (root, *node.args[1:])
        _replace(graph, node, seen, *([pool] if keep else [pool, nn.Flatten()]))


def _averaged(node: fx.Node, dimensions: int) -> tuple[list[int], bool]:
    """Return the axes that a mean is over, from 0 on, and whether it keeps them."""
    options = {**dict(zip(("dim", "keepdim"), node.args[1:], strict=False)), **node.kwargs}
    axes = [axis % dimensions for axis in _items(options.get("dim")) if isinstance(axis, int)]
    return sorted(axes), bool(options.get("keepdim"))
