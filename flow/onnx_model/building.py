"""The graph while it grows: one step a node of the file, modules with names, shapes without computing."""

from __future__ import annotations

import keyword
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from flow.errors import ConfigError, UnsupportedError, first_line
from flow.names import Names, identifier
from flow.onnx_model.constants import MAX_VALUES, attributes_of
from flow.onnx_model.files import label
from flow.onnx_model.layouts import Split, Tensor, filled, plain

if TYPE_CHECKING:
    from torch import fx, nn

MAX_TOTAL = 1 << 29
"""Most numbers of all tensors of one sample together; 2 GiB of float32."""


class Builder:
    """A graph that grows; ``values`` holds every tensor of the file: constants, or what stands for them."""

    def __init__(self, opset: int, batch: int | None) -> None:
        from torch import fx, nn

        self.opset = opset
        self.batch = batch
        self.root = nn.Module()
        self.graph = fx.Graph()
        self.values: dict[str, np.ndarray | Tensor | Split] = {}
        self.readers: dict[str, int] = {}
        self.transposed_norms: list[int] = []
        self._taken = Names()
        self._names: dict[fx.Node, list[str]] = {}
        self._shapes: dict[Any, tuple[int, ...]] = {}
        self._total = 0
        self.constant_numbers = 0

    def keep(self, name: str, value: np.ndarray | Tensor | Split) -> None:
        """Take what stands for a tensor of the file."""
        self.values[name] = value
        if isinstance(value, Tensor):
            self._names.setdefault(value.node, []).append(name)
        elif isinstance(value, np.ndarray):
            self.constant_numbers += value.size

    def placeholder(self, name: str, shape: Sequence[int]) -> Tensor:
        """Add an input; ``shape`` is one sample's, channels first."""
        node = self.graph.placeholder(self.free_name(name, "input"))
        self._count(f"input {name!r}", shape)
        return plain(node, shape)

    def call(self, step: Step, module: nn.Module, source: Tensor, name: str | None = None) -> Tensor:
        """Add a module behind ``source``; the result has its axes and order where it has as many."""
        target = self.free_name(name or step.name, step.node.op_type)
        shape = self._shape(step, module.eval(), (source,))
        self.root.add_module(target, module)
        node = self.graph.call_module(target, (source.node,))
        return self._made(step, node, shape, source)

    def join(self, step: Step, function: Any, arguments: tuple[Any, ...], first: Tensor) -> Tensor:
        """Add a call of `operator.add`, `operator.mul`, `torch.cat` or `torch.narrow` whose arguments hold tensors."""
        from torch import fx

        def nodes(value: Any) -> Any:
            return [nodes(v) for v in value] if isinstance(value, list) else getattr(value, "node", value)

        shape = self._shape(step, function, arguments)
        made = self.graph.call_function(function, tuple(nodes(value) for value in arguments))
        assert isinstance(made, fx.Node)
        return self._made(step, made, shape, first)

    def module_of(self, tensor: Tensor) -> Any:
        """Return the module that computes a tensor, None where it is an input or a join."""
        node = tensor.node
        return self.root.get_submodule(str(node.target)) if node.op == "call_module" else None

    def settled(self, step: Step, tensor: Tensor, like: Tensor | None = None) -> Tensor:
        """Return a tensor whose file axes are all there: those of extent 1 that the file added become real."""
        from torch import nn

        if None not in tensor.axes:
            return tensor
        axes = filled(tensor.axes, like.axes if like else None)
        if len(tensor.shape) > 1 or tensor.order is not None or set(axes) != set(range(len(axes))):
            raise step.unsupported(
                "must read positions that the tensor has, not extents of 1 that a reshape adds"
            )
        made = self.call(
            step, nn.Unflatten(1, (*tensor.shape, *[1] * (len(axes) - 2))), tensor, name="unflatten"
        )
        return replace(made, axes=axes)

    def sole(self, tensor: Tensor) -> bool:
        """Tell whether nothing but the node being read reads what this tensor's node computes."""
        names = self._names.get(tensor.node, ())
        return not tensor.node.users and all(self.readers.get(name, 0) == 1 for name in names)

    def forget(self, tensor: Tensor) -> None:
        """Drop the file's tensors that a node no longer computes, since a later node was folded into it."""
        for name in self._names.pop(tensor.node, ()):
            del self.values[name]

    def free_name(self, name: str, kind: str) -> str:
        """Return an identifier that no module has, in upper or lower case; hls4ml does not tell them apart."""
        from torch import nn

        found = identifier(name) if any(c.isascii() and c.isalpha() for c in name) else kind.lower()
        if keyword.iskeyword(found) or hasattr(nn.Module, found):
            found += "_layer"
        return self._taken.take(found)

    def _made(self, step: Step, node: fx.Node, shape: tuple[int, ...], first: Tensor) -> Tensor:
        self._count(step.where, shape)
        if len(shape) == len(first.shape):
            return Tensor(node, shape, first.axes, first.order)
        return plain(node, shape)

    def _shape(self, step: Step, function: Any, arguments: Sequence[Any]) -> tuple[int, ...]:
        """Return the shape of one sample of what a call gives; nothing is computed, and the same is asked once."""
        import torch

        key: Any = (function, _shapes(arguments))
        if isinstance(function, torch.nn.Module):
            options = repr([(name, value) for name, value in vars(function).items() if name[0] != "_"])
            state = tuple((name, value.shape) for name, value in function.state_dict().items())
            key = (type(function), options, state, _shapes(arguments))
        if key not in self._shapes:
            self._shapes[key] = self._asked(step, function, arguments)
        return self._shapes[key]

    def _asked(self, step: Step, function: Any, arguments: Sequence[Any]) -> tuple[int, ...]:
        import torch

        def empty(value: Any) -> Any:
            if isinstance(value, list):
                return [empty(part) for part in value]
            return torch.empty((2, *value.shape), device="meta") if isinstance(value, Tensor) else value

        given = tuple(empty(value) for value in arguments)
        try:
            if isinstance(function, torch.nn.Module):
                weights = {name: value.to("meta") for name, value in function.state_dict().items()}
                result = torch.func.functional_call(function, weights, given)
            else:
                result = function(*given)
        except (RuntimeError, ValueError, IndexError, TypeError, OverflowError) as error:
            shapes = " and ".join(str(v.shape) for v in arguments if isinstance(v, Tensor))
            raise ConfigError(
                f"onnx: {step.where} must fit its input of shape {shapes or 'several'}, not fail with: "
                f"{first_line(error)}; export the network anew"
            ) from error
        return tuple(int(extent) for extent in result.shape[1:])

    def _count(self, where: str, shape: Sequence[int]) -> None:
        size = 1
        for extent in shape:
            size *= extent
        self._total += size
        if min(shape, default=1) < 1 or size > MAX_VALUES or self._total > MAX_TOTAL:
            raise ConfigError(
                f"onnx: {where} must have extents from 1 on and give at most {MAX_VALUES} numbers a sample "
                f"({MAX_TOTAL} with all tensors before), not shape {tuple(shape)}; read a smaller network"
            )


def _shapes(value: Any) -> Any:
    """Return arguments of a call with the shapes of their tensors, as a key."""
    if isinstance(value, list | tuple):
        return tuple(_shapes(part) for part in value)
    return ("shape", value.shape) if isinstance(value, Tensor) else value


class Step:
    """One node of the file being read: its inputs, its options, and errors that name it."""

    def __init__(self, builder: Builder, node: Any, index: int) -> None:
        self.builder = builder
        self.node = node
        self.index = index
        self.where = label(node, index)
        self.options: Mapping[str, Any] = attributes_of(node)
        self.given = [builder.values.get(name) if name else None for name in node.input]

    @property
    def name(self) -> str:
        """The node's name for a module: without the operator that exporters put behind it."""
        parts = [part for part in str(self.node.name).split("/") if part]
        if len(parts) > 1 and parts[-1].startswith(self.node.op_type):
            number = parts[-1].removeprefix(self.node.op_type)
            return "_".join(parts[:-1]) + number
        return "_".join(parts)

    def tensor(self, place: int = 0) -> Tensor:
        """Return an input that depends on the network's input."""
        value = self.given[place] if place < len(self.given) else None
        if not isinstance(value, Tensor):
            what = (
                "nothing" if value is None else "a constant" if isinstance(value, np.ndarray) else "a shuffle"
            )
            raise self.unsupported(
                f"must read a tensor that depends on the input (input {place}), not {what}"
            )
        return value

    def is_constant(self, place: int) -> bool:
        return place < len(self.given) and isinstance(self.given[place], np.ndarray)

    def constant(self, place: int) -> np.ndarray | None:
        """Return a constant input; None: it is left out."""
        value = self.given[place] if place < len(self.given) else None
        if value is not None and not isinstance(value, np.ndarray):
            raise self.unsupported(
                f"must read constants as input {place}, not a tensor that depends on the input"
            )
        return value

    def weight(self, place: int, rank: int) -> np.ndarray:
        """Return a constant float input of so many dimensions."""
        value = self.constant(place)
        if value is None or value.ndim != rank or value.dtype != np.float32 or not value.size:
            found = "nothing" if value is None else f"{value.dtype} of shape {value.shape}"
            raise self.broken(f"must read float32 weights of {rank} dimensions as input {place}, not {found}")
        return value

    def setting(self, option: str, place: int) -> list[float] | None:
        """Return numbers that old operators have as an option and new ones as an input."""
        value = self.options.get(option)
        given = self.constant(place)
        if given is not None:
            value = given.reshape(-1).tolist()
        if value is None:
            return None
        return list(value) if isinstance(value, list | tuple) else [value]

    def whole(self, option: str, default: Sequence[int]) -> tuple[int, ...]:
        """Return an option of as many integers as ``default`` has."""
        value = self.options.get(option) or default
        if len(value) != len(default):
            raise self.broken(f"must have {len(default)} numbers as {option}, not {list(value)}")
        return tuple(int(v) for v in value)

    def axis(self, tensor: Tensor, axis: int) -> int | None:
        """Return the node's axis for an axis of the file's tensor."""
        rank = len(tensor.axes)
        if not -rank <= axis < rank:
            raise self.broken(f"must have an axis from {-rank} to {rank - 1}, not {axis}")
        return tensor.axes[axis]

    def channels_first(self, place: int = 0) -> Tensor:
        """Return an input with positions whose axes are (batch, channels, positions..) in the file."""
        tensor = self.builder.settled(self, self.tensor(place))
        if not tensor.plain or len(tensor.shape) not in (2, 3):
            raise self.unsupported(
                "must read (batch, channels, positions) with one or two positions, not axes "
                f"{list(tensor.axes)} of {len(tensor.shape) + 1}"
            )
        return tensor

    def unsupported(self, rule: str, advice: str = "change the network") -> UnsupportedError:
        return UnsupportedError(f"onnx: {self.where} {rule}; {advice}")

    def broken(self, rule: str) -> ConfigError:
        return ConfigError(f"onnx: {self.where} {rule}; export it anew")
