"""From a torch network to a graph of standard modules, proven to compute the same."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from flow.errors import ConfigError, UnsupportedError, first_line
from flow.network.forms import (
    MODULES,
    Example,
    Seen,
    as_inputs,
    evaluating,
    is_join,
    kind,
    like_weights,
    output_node,
)
from flow.network.spellings import normalize

if TYPE_CHECKING:
    import torch
    from torch import fx, nn


def trace(model: nn.Module, example: Example) -> fx.GraphModule:
    """Return a copy of ``model`` as a graph of standard modules; the model itself is untouched.

    Args:
        model: any torch network.
        example: an input tensor with a batch dimension, or a tuple of them.

    Raises:
        UnsupportedError: the forward pass cannot be traced, or holds an operation outside `MODULES`.
        ConfigError: weights are not finite, or the example does not fit.
    """
    check_finite(model)
    _check_untied(model)
    graph = _symbolic(model, len(as_inputs(example)))
    _check_fits(model, example)
    seen = normalize(graph, tuple(like_weights(model, tensor) for tensor in as_inputs(example)))
    _check_supported(graph, seen)
    _check_same(model, graph, example)
    return graph


def _symbolic(model: nn.Module, count: int) -> fx.GraphModule:
    """Trace a copy of ``model`` with ``count`` inputs; those that it may leave out keep their defaults."""
    from torch import fx

    class Tracer(fx.Tracer):  # type: ignore[misc]
        def create_args_for_root(self, *args: Any, **kwargs: Any) -> tuple[Any, list[Any]]:
            function, proxies = super().create_args_for_root(*args, **kwargs)
            for index, proxy in enumerate(proxies):
                if index > count and proxy.node.args:
                    proxies[index] = proxy.node.args[0]
                    self.graph.erase_node(proxy.node)
                elif index:
                    proxy.node.args = ()  # this one is given
            return function, proxies

    try:
        model = copy.deepcopy(model)
    except Exception as error:
        raise UnsupportedError(
            f"model: weights must be plain parameters, not computed ones ({first_line(error).split('.')[0]}); "
            "make masks and weight norms permanent first, e.g. with torch.nn.utils.prune.remove"
        ) from error
    if isinstance(model, fx.GraphModule):
        return model
    try:
        with evaluating(model):  # what only training computes (auxiliary heads) stays out
            graph = fx.GraphModule(model, Tracer().trace(model), type(model).__name__)
    except Exception as error:
        raise UnsupportedError(
            f"model: forward must be traceable by torch.fx, not {type(error).__name__}: {first_line(error)}; "
            "replace branches and loops that depend on data"
        ) from error
    for node in list(graph.graph.nodes):
        if node.op == "placeholder" and node.target.startswith("*"):
            if node.users:
                raise UnsupportedError(
                    f"model: forward must name each of its inputs, not take {node.target}; give each an argument"
                )
            graph.graph.erase_node(node)
    graph.training = model.training
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


def _check_untied(model: nn.Module) -> None:
    owners: dict[int, str] = {}
    for name, module in model.named_modules():
        for parameter in module.parameters(recurse=False):
            first = owners.setdefault(id(parameter), name)
            if first != name:
                raise UnsupportedError(
                    f"model: weights must belong to one layer, not to {first!r} and {name!r}; "
                    "use one layer twice, or give each a copy"
                )


def _check_fits(model: nn.Module, example: Example) -> None:
    import torch

    inputs = as_inputs(example)
    try:
        with torch.no_grad(), evaluating(model):
            model(*(like_weights(model, tensor) for tensor in inputs))
    except Exception as error:  # the network's code is the user's
        given = " and ".join(str(tuple(tensor.shape)) for tensor in inputs)
        raise ConfigError(
            f"model: input must fit the network, not have shape {given}: "
            f"{first_line(error)}; check [data] and [model]"
        ) from error


def _check_same(model: nn.Module, graph: fx.GraphModule, example: Example) -> None:
    """Refuse a graph that computes something else than the model, with one sample more than the example.

    What is in place in the model is not in the graph, and a view of a fixed size becomes a flatten.
    """
    import torch

    generator = torch.Generator().manual_seed(0)
    batch = [
        like_weights(model, torch.randn((len(tensor) + 1, *tensor.shape[1:]), generator=generator))
        for tensor in as_inputs(example)
    ]
    try:
        with torch.no_grad(), evaluating(model), evaluating(graph):
            want = tensors_of(model(*(tensor.clone() for tensor in batch)))
            got = tensors_of(graph(*(tensor.clone() for tensor in batch)))
    except Exception as error:
        raise UnsupportedError(
            f"model: forward must take any batch size, but {len(batch[0])} samples fail: "
            f"{first_line(error)}; write torch.flatten(x, 1) for a view of a fixed size"
        ) from error
    if len(want) != len(got) or not all(map(_equal, want, got)):
        raise UnsupportedError(
            "model: forward must give the same without in-place operations and fixed batch sizes, not differ; "
            "write x = x + y for x += y, relu(x) for relu_(x), torch.flatten(x, 1) for view"
        )


def _equal(want: torch.Tensor, got: torch.Tensor) -> bool:
    """Compare up to rounding: a mean over positions adds them up in another order than an average pool."""
    import torch

    if want.shape != got.shape or want.dtype != got.dtype:
        return False
    largest = want[want.isfinite()].abs().max() if want.isfinite().any() else 0
    rounding = 100 * torch.finfo(want.dtype).eps * float(largest)
    return bool(torch.allclose(want, got, rtol=0, atol=rounding, equal_nan=True))


def tensors_of(result: Any) -> tuple[torch.Tensor, ...]:
    """Return the output tensors of a network: one, or those of a tuple, list or dict in their order."""
    if isinstance(result, Mapping):
        result = tuple(result.values())
    return tuple(result) if isinstance(result, tuple | list) else (result,)


def _check_supported(graph: fx.GraphModule, seen: Seen) -> None:
    from torch import nn

    def is_size(node: fx.Node) -> bool:  # what a size is taken for says more than that it is taken
        return node.op in ("call_function", "call_method") and type(seen.get(node.name)) not in (tuple, list)

    for node in sorted(graph.graph.nodes, key=is_size):
        if node.op == "call_module":
            module = graph.get_submodule(node.target)
            check_kind(node.target, kind(module))
            if type(module) is not getattr(nn, kind(module)):
                raise UnsupportedError(
                    f"model: layer {node.target!r} must be torch.nn's own {kind(module)}, "
                    f"not {type(module).__module__}'s; convert it first"
                )
        elif node.op not in ("placeholder", "output") and not is_join(node):
            name = getattr(node.target, "__name__", node.target)
            raise UnsupportedError(
                f"model: operation {name!r} (node {node.name!r}) is not supported; "
                "use standard torch.nn layers, x + y, x * y, torch.cat over channels, or flatten"
            )
    result: Any = output_node(graph).args[0]
    parts = result if isinstance(result, tuple) else (result,)
    if not parts or not all(hasattr(part, "op") for part in parts):
        raise UnsupportedError(
            f"model: network must return tensors, alone or in one tuple, list or dict, not {result!r}; "
            "wrap it in a module that does"
        )


def check_kind(name: str, what: str) -> None:
    """Refuse a module outside `MODULES`."""
    if what not in MODULES:
        raise UnsupportedError(
            f"model: layer {name!r} ({what}) is not supported; supported layers: {', '.join(MODULES)}"
        )
