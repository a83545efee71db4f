"""Where the network of a fit comes from: a config, an ONNX or QONNX file, a run's folder, a graph, a module."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flow import config
from flow.errors import ConfigError
from flow.estimate import PRODUCTS, Work
from flow.estimate.graph import graph_work
from flow.estimate.network import Bits, network_work
from flow.fixed.graph import FixedGraph

if TYPE_CHECKING:
    from torch import fx

    from flow.network import Example

BITS = ("weight_bits", "activation_bits", "input_bits")


@dataclass(frozen=True)
class Source:
    """A network's work; ``narrowed`` gives it with so many bits at most. The rest is the config's."""

    works: tuple[Work, ...]
    narrowed: Callable[[int], tuple[Work, ...]]
    text: str
    board: str | None = None
    clock_period_ns: float | None = None
    io_type: str | None = None
    onnx_path: Path | None = None


def read(source: Any, example: Example | None, bits: Mapping[str, int | None]) -> Source:
    """Return the network that ``source`` names; see `flow.fit.fit`."""
    if source is None:
        return _of_config(None, bits)
    if isinstance(source, FixedGraph):
        return _of_graph(source, "a fixed-point graph")
    if not isinstance(source, str | Path):
        return _of_module(source, example, bits)
    path = Path(source)
    if path.is_dir():
        return _of_file(path / "quantize" / "model.onnx", bits)
    if path.suffix == ".onnx":
        return _of_file(path, bits)
    return _of_config(path, bits)


def _of_graph(graph: FixedGraph, text: str) -> Source:
    works = graph_work(graph)
    return Source(works, lambda width: tuple(_narrow(work, width) for work in works), text)


def _narrow(work: Work, bits: int) -> Work:
    """Return a layer with narrower numbers; a sum loses what its factors lose, digits are lost in proportion."""
    ahead = 0 if work.reads_input else max(0, work.input_bits - bits)
    if work.kind != PRODUCTS:
        after = 0 if work.is_output else max(0, work.output_bits - bits)
        return replace(work, output_bits=work.output_bits - after)
    lost = max(0, work.weight_bits - bits)
    left = (work.weight_bits - lost) / work.weight_bits
    return replace(
        work,
        input_bits=work.input_bits - ahead,
        weight_bits=work.weight_bits - lost,
        output_bits=work.output_bits - ahead - lost,
        digits=work.digits * left,
        wide=work.wide * left,
    )


def _of_module(model: Any, example: Example | None, bits: Mapping[str, int | None]) -> Source:
    from torch import nn

    from flow.network import trace

    if not isinstance(model, nn.Module):
        raise ConfigError(
            f"fit: source must be a path, a torch module or a FixedGraph, not {type(model).__name__}; give one of them"
        )
    if example is None:
        raise ConfigError(
            "fit: example must be given with a torch module, not left out; one sample tells its shape"
        )
    graph = trace(model, example)
    chosen = _bits(bits)

    def works(width: int | None) -> tuple[Work, ...]:
        at = (
            chosen
            if width is None
            else Bits(min(chosen.weight, width), min(chosen.activation, width), chosen.input)
        )
        return network_work(graph, example, at)

    told = f"{chosen.weight}-bit weights, {chosen.activation}-bit activations and {chosen.input}-bit inputs assumed"
    return Source(works(None), works, f"float network, {told}")


def _bits(given: Mapping[str, int | None]) -> Bits:
    """Return the widths: those given, else the defaults of quantize."""
    defaults = inspect.signature(config.TABLES["quantize"]).parameters
    values = []
    for name in BITS:
        chosen = given.get(name)
        value = int(defaults[name].default) if chosen is None else chosen
        if not 1 <= value <= 32:
            raise ConfigError(f"fit: {name} must be in 1 to 32, not {value}; 6 is usual")
        values.append(value)
    weight, activation, given_input = values
    return Bits(weight, activation, given_input)


def _of_file(path: Path, bits: Mapping[str, int | None]) -> Source:
    from flow import onnx_model

    if not path.is_file():
        raise ConfigError(
            f"fit: {str(path)!r} must be an existing file, not missing; flow run --to quantize writes a run's"
        )
    if onnx_model.is_quantized(path):
        return _of_qonnx(path, bits)
    graph = onnx_model.read(path, logits=True)
    return _of_module(graph, _example(graph, onnx_model.load(path)), bits)


def _example(graph: fx.GraphModule, file: Any) -> Example:
    """Return one sample for a network that was read from a file; the network is channels first, the file may not be."""
    import torch

    from flow.network import weighted, widths

    constants = {entry.name for entry in file.graph.initializer}
    wanted = widths(weighted(graph)[0][1])[0] if weighted(graph) else None
    samples = []
    for entry in file.graph.input:
        if entry.name in constants:
            continue
        shape = [max(1, extent.dim_value) for extent in entry.type.tensor_type.shape.dim][1:]
        if len(shape) > 1 and shape[0] != wanted == shape[-1]:
            shape = [shape[-1], *shape[:-1]]
        samples.append(torch.zeros(1, *shape))
    return tuple(samples) if len(samples) > 1 else samples[0]


def _of_config(path: Path | None, bits: Mapping[str, int | None]) -> Source:
    """Return the network of a ``flow.toml``: the QONNX file that it names, or the float network at its widths."""
    import torch

    from flow.run.model_source import enters_quantized, load_model, onnx_path
    from flow.training.data import load as load_data

    chosen = config.load(path)
    if enters_quantized(chosen):
        found = _of_qonnx(onnx_path(chosen), bits)
    else:
        data = load_data(**chosen.options("data"), seed=chosen.seed, base=chosen.base)
        shape = data.train[0].shape[1:]
        model, _ = load_model(chosen, shape)
        table = chosen.options("quantize")
        given = {name: table.get(name) if value is None else value for name, value in bits.items()}
        found = _of_module(model, torch.zeros(1, *shape), given)
    return replace(
        found,
        board=chosen.board,
        clock_period_ns=chosen.synth_clk_period_ns,
        io_type=chosen.options("convert").get("io_type"),
    )


def _of_qonnx(path: Path, bits: Mapping[str, int | None]) -> Source:
    from flow.fixed import from_qonnx

    for name, value in bits.items():
        if value is not None:
            raise ConfigError(
                f"fit: {name} must be left out for {path.name!r}, not {value}: the file is quantized already; "
                "quantize the float network with other bits"
            )
    return replace(_of_graph(from_qonnx.read(path), f"quantized, {path.name}"), onnx_path=path)
