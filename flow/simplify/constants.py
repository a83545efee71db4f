"""Analysis: which channels hold the same constant at every position, whatever the input."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from flow.network import CONVS, NORMS, WEIGHTED, kind

if TYPE_CHECKING:
    from torch import fx


def constants(graph: fx.GraphModule, shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Return, for every node, one float64 a channel: its constant value, or NaN where it is not constant."""
    values: dict[str, np.ndarray] = {}
    for node in graph.graph.nodes:
        if node.op == "placeholder":
            values[node.name] = np.full(shapes[node.name][1], np.nan)
        elif node.op == "call_function":
            if node.target.__name__ == "add":
                values[node.name] = values[node.args[0].name] + values[node.args[1].name]
            else:
                values[node.name] = np.concatenate([values[n.name] for n in node.args[0]])
        elif node.op == "call_module":
            source = node.args[0].name
            values[node.name] = _through(graph.get_submodule(node.target), values[source], shapes[source])
    return values


def _through(module: Any, value: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    what = kind(module)
    if what in WEIGHTED:
        return _through_weights(module, value)
    if what == "Flatten":
        return np.repeat(value, int(np.prod(shape[2:], dtype=int)))
    if what.startswith("AvgPool") and (np.any(module.padding) or getattr(module, "divisor_override", None)):
        return np.where(value == 0, value, np.nan)  # zeros of the padding enter the mean
    if what in NORMS and module.running_mean is None:
        return np.full_like(value, np.nan)  # its statistics are the batch's
    return _elementwise(module, value, shape)


def _elementwise(module: Any, value: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Run the module itself on the constants; pools of constants give the constants back."""
    import torch

    if "Pool" in kind(module):
        return value
    with torch.no_grad():
        full = torch.from_numpy(value).reshape(1, -1, *[1] * (len(shape) - 2))
        return np.asarray(module(full).reshape(-1))


def _through_weights(module: Any, value: np.ndarray) -> np.ndarray:
    weight = flat_weight(module)
    bias = np.zeros(len(weight)) if module.bias is None else module.bias.detach().numpy()
    blocks = columns_of_rows(module)
    result = bias.astype(np.float64).copy()
    movable = absorbable(module, value)
    for row in range(len(weight)):
        columns = blocks[row]
        read = np.abs(weight[row]).sum(axis=1) != 0
        if np.any(read & ~movable[columns]):
            result[row] = np.nan
        else:
            result[row] += np.sum(weight[row].sum(axis=1)[read] * value[columns][read])
    return result


def flat_weight(module: Any) -> np.ndarray:
    """Return the weights as (rows, columns a row, positions of the kernel), float64."""
    weight = module.weight.detach().double().numpy()
    return np.asarray(weight.reshape(*weight.shape[:2], -1))


def columns_of_rows(module: Any) -> list[slice]:
    """Return, for every row, the input channels that it reads."""
    rows, width = module.weight.shape[:2]
    per_group = rows // getattr(module, "groups", 1)
    return [slice(row // per_group * width, row // per_group * width + width) for row in range(rows)]


def absorbable(module: Any, value: np.ndarray) -> np.ndarray:
    """Tell for each input channel whether its constant may move into ``module``'s bias exactly.

    Zero always may. Another constant may not where zero padding makes it differ at the border.
    """
    constant = ~np.isnan(value)
    pads_zeros = kind(module) in CONVS and module.padding_mode == "zeros" and _pads(module.padding)
    return np.asarray(constant & (value == 0) if pads_zeros else constant)


def _pads(padding: Any) -> bool:
    return padding == "same" if isinstance(padding, str) else bool(np.any(padding))
