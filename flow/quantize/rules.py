"""What can be quantized exactly: refusals by layer, kind and option."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flow import network
from flow.errors import UnsupportedError
from flow.quantize.prepare import ADAPTIVE_POOLS, Shapes, same_padding
from flow.quantize.twin import CLIPS, SLOPES, TABLES
from flow.quantize.widths import Widths

if TYPE_CHECKING:
    from torch import fx

_MAX_POOLS = ("MaxPool1d", "MaxPool2d")
_AVERAGE_POOLS = ("AvgPool1d", "AvgPool2d")
SUPPORTED = (
    *(*network.CONVS, "Linear", "ReLU", *CLIPS, *SLOPES, *TABLES),
    *(*_MAX_POOLS, *_AVERAGE_POOLS, *ADAPTIVE_POOLS),
    *("Upsample", "Flatten", "Dropout", "Identity", "Softmax"),
)
_JOINS = {"mul": "product", "cat": "concatenation", "narrow": "slice"}


def check_layers(graph: fx.GraphModule, shapes: Shapes) -> None:
    """Refuse a network with a layer, an option or a join that cannot be quantized exactly."""
    for node in graph.graph.nodes:
        if node.op == "placeholder" and not node.users:
            raise UnsupportedError(
                f"quantize: input {node.name!r} must be read by a layer, not by none; leave it out of forward"
            )
        if node.op == "call_function":
            _check_join(node, shapes)
        elif node.op == "call_module":
            module: Any = graph.get_submodule(node.target)
            name, what = str(node.target), network.kind(module)
            _check_kind(name, what)
            before, after = shapes[node.all_input_nodes[0].name], shapes[node.name]
            for broken, option, supported in _options(module, before, after, node):
                if broken:
                    raise UnsupportedError(
                        f"quantize: layer {name!r} ({what}, {option}) is not supported; supported {supported}"
                    )


def check_weights(graph: fx.GraphModule, widths: Widths) -> None:
    """Refuse a layer of zeros at 1 bit."""
    for node, module in network.weighted(graph):
        name = str(node.target)
        if widths.weight_of(name) == 1 and not bool(module.weight.any()):
            raise UnsupportedError(
                f"quantize: layer {name!r} ({network.kind(module)}) must not be all zeros, which 1 bit does not have; "
                "take the layer out, or set weight_bits = 2"
            )


def _check_kind(name: str, what: str) -> None:
    if name.lower().startswith("quant_"):
        raise UnsupportedError(
            f"quantize: layer {name!r} ({what}) must not begin with 'quant_' as quantizers do; rename it"
        )
    if what not in SUPPORTED:
        raise UnsupportedError(
            f"quantize: layer {name!r} ({what}) is not supported; supported layers: {', '.join(SUPPORTED)}"
        )


def _check_join(node: fx.Node, shapes: Shapes) -> None:
    what = "sum" if network.calls(node, "add") else _JOINS[node.target.__name__]  # type: ignore[union-attr]
    if what == "slice":
        raise UnsupportedError(
            f"quantize: slice {node.name!r} is not supported; supported joins: x + y, x * y, torch.cat"
        )
    sides = [shapes[source.name][1:] for source in node.all_input_nodes]
    if what == "sum" and len(sides) < 2:
        raise UnsupportedError(
            f"quantize: sum {node.name!r} must be of two tensors, not of one with itself; "
            "double the weights of the layer before it"
        )
    if what != "concatenation" and len(set(sides)) > 1 and not (what == "product" and _gates(*sides)):
        raise UnsupportedError(
            f"quantize: {what} {node.name!r} must be of equal shapes, not {sides[0]} and {sides[1]}; "
            "give both sides one shape"
        )


def _gates(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    """Tell whether one side holds one value a channel of the other."""
    return len(a) == len(b) and a[0] == b[0] and (set(a[1:]) <= {1} or set(b[1:]) <= {1})


def _options(module: Any, before: Any, after: Any, node: fx.Node) -> list[tuple[bool, str, str]]:
    """Return (broken, option, what is supported) for the options that are not exact, or not there in hardware."""
    what = network.kind(module)
    if what in network.CONVS:
        return _conv(module)
    if what in (*_MAX_POOLS, *_AVERAGE_POOLS):
        return _pool(module)
    if what in ADAPTIVE_POOLS:
        uneven = any(i % o for i, o in zip(before[2:], after[2:], strict=True))
        sizes = f"from {before[2:]} to {after[2:]}"
        return [(uneven, sizes, "sizes: those that divide the input's")]
    if what == "Upsample":
        uneven = any(o % i for i, o in zip(before[2:], after[2:], strict=True))
        return [
            (module.mode != "nearest", f"mode {module.mode!r}", "modes: 'nearest'"),
            (uneven, f"from {before[2:]} to {after[2:]}", "sizes: multiples of the input's"),
        ]
    if what == "Linear":
        return [
            (len(before) != 2, f"on {len(before) - 1} dimensions", "inputs: vectors; put a flatten before it")
        ]
    if what == "Flatten":
        whole = module.start_dim == 1 and module.end_dim in (-1, len(before) - 1)
        return [(not whole, f"dimensions {module.start_dim} to {module.end_dim}", "dimensions: 1 to -1")]
    if what == "Softplus":
        plain = (module.beta, module.threshold) == (1, 20)
        option = f"beta {module.beta}, threshold {module.threshold}"
        return [(not plain, option, "options: beta 1, threshold 20")]
    if what == "Softmax":
        last = all(user.op == "output" for user in node.users)
        return [
            (not last, "before another layer", "places: the network's end"),
            (
                len(before) != 2,
                f"on {len(before) - 1} dimensions",
                "inputs: vectors; put a flatten before it",
            ),
        ]
    return []


def _conv(module: Any) -> list[tuple[bool, str, str]]:
    zeros = module.padding_mode == "zeros"
    even = module.padding == "same" and any(pad % 1 for pad in same_padding(module))
    return [
        (not zeros, f"padding_mode {module.padding_mode!r}", "padding modes: 'zeros'"),
        (
            even,
            f"padding 'same' with kernel {module.kernel_size}",
            "paddings: numbers, 'valid', and 'same' around odd kernels",
        ),
    ]


def _pool(module: Any) -> list[tuple[bool, str, str]]:
    ceil = (bool(module.ceil_mode), "ceil_mode True", "ceil_mode: False")
    if network.kind(module) in _MAX_POOLS:
        dilation = module.dilation
        return [(dilation not in (1, (1,), (1, 1)), f"dilation {dilation}", "dilations: 1"), ceil]
    padded = module.padding not in (0, (0,), (0, 0))
    divisor = getattr(module, "divisor_override", None)
    return [
        (
            padded and not module.count_include_pad,
            f"padding {module.padding} that does not count",
            "paddings: 0, or with count_include_pad",
        ),
        (divisor is not None, f"divisor_override {divisor}", "divisors: the window's size"),
        ceil,
    ]
