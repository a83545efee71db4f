"""A circuit as Verilog: the top, with AXI4-Stream ports, and one module a stage."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from flow.rtl.streams import Circuit, Stage, Stream

_WIDE = ("MINIMUM", "MAXIMUM")
"""Parameters of 64 bits."""
_CLOCKED = {"clk": "aclk", "reset": "reset"}


def axis_ports(streams: Sequence[Stream], name: str) -> tuple[str, ...]:
    """Return the prefixes of AXI4-Stream ports: ``name``, or ``name_0`` and so on."""
    return (name,) if len(streams) == 1 else tuple(f"{name}_{number}" for number in range(len(streams)))


def tdata_bits(stream: Stream) -> int:
    """Return the width of a port's tdata: whole bytes."""
    return -(-stream.width // 8) * 8


def top_module(circuit: Circuit, top: str) -> str:
    """Return the text of the top module."""
    inputs = tuple(zip(axis_ports(circuit.inputs, "s_axis"), circuit.inputs, strict=True))
    outputs = tuple(zip(axis_ports(circuit.outputs, "m_axis"), circuit.outputs, strict=True))
    ports = ["input logic aclk", "input logic aresetn"]
    for name, stream in inputs:
        ports += [f"input logic [{tdata_bits(stream) - 1}:0] {name}_tdata", f"input logic {name}_tvalid"]
        ports += [f"input logic {name}_tlast", f"output logic {name}_tready"]
    for name, stream in outputs:
        ports += [f"output logic [{tdata_bits(stream) - 1}:0] {name}_tdata", f"output logic {name}_tvalid"]
        ports += [f"output logic {name}_tlast", f"input logic {name}_tready"]
    body = ["logic reset;", "assign reset = !aresetn;"]
    for signal, width in circuit.wires.items():
        body += [f"logic [{width - 1}:0] {signal}_data;", f"logic {signal}_valid, {signal}_ready;"]
    for name, stream in inputs:
        body += [
            f"assign {stream.signal}_data = {name}_tdata[{stream.width - 1}:0];",
            f"assign {stream.signal}_valid = {name}_tvalid;",
            f"assign {name}_tready = {stream.signal}_ready;",
        ]
    for stage in circuit.stages:
        body += _instance(stage, top)
    for tap in circuit.taps:
        s = tap.stream.signal
        parameters: dict[str, int | str] = {"NAME": tap.name, "WIDTH": tap.stream.width}
        wires = {"valid": f"{s}_valid", "ready": f"{s}_ready", "data": f"{s}_data"}
        body += _call("flow_tap", parameters, f"tap_{s}", _CLOCKED | wires)
    for name, stream in outputs:
        s, gap = stream.signal, tdata_bits(stream) - stream.width
        data = f"{{{gap}'d0, {s}_data}}" if gap else f"{s}_data"
        wires = {"valid": f"{s}_valid", "ready": f"{s}_ready", "last": f"{name}_tlast"}
        body += [
            f"assign {name}_tdata = {data};",
            f"assign {name}_tvalid = {s}_valid;",
            f"assign {s}_ready = {name}_tready;",
            *_call("flow_last", {"BEATS": stream.beats}, f"last_{name}", _CLOCKED | wires),
        ]
    return module(top, ports, body)


def module(name: str, ports: Iterable[str], body: Iterable[str]) -> str:
    """Return the text of a module."""
    lines = [f"module {name} (", ",\n".join(f"    {port}" for port in ports), ");"]
    return "\n".join([*lines, *(f"    {line}" for line in body), "endmodule", ""])


def module_name(stage: Stage, top: str) -> str:
    """Return what the module of a stage is called: no other top has one of this name."""
    return f"{top}_{stage.name}"


def stage_module(circuit: Circuit, stage: Stage, top: str) -> str:
    """Return the text of a stage as a module without parameters, to be synthesized by itself."""
    ports = ["input logic clk", "input logic reset"]
    for port, signals in stage.ports.items():
        forth, back = ("output", "input") if port == "out" else ("input", "output")
        valid = f"[{len(signals) - 1}:0] " if len(signals) > 1 else ""
        ports += [
            f"{forth} logic {valid}{port}_valid",
            f"{back} logic {valid}{port}_ready",
            f"{forth} logic [{circuit.wires[signals[0]] - 1}:0] {port}_data",
        ]
    wires = {
        wire: wire for port in stage.ports for wire in (f"{port}_valid", f"{port}_ready", f"{port}_data")
    }
    body = _call(stage.module, stage.parameters, "stage", {"clk": "clk", "reset": "reset", **wires})
    return module(module_name(stage, top), ports, body)


def _instance(stage: Stage, top: str) -> list[str]:
    wires, copies = dict(_CLOCKED), []
    for port, signals in stage.ports.items():
        for wire in ("valid", "ready"):
            wires[f"{port}_{wire}"] = _together(f"{signal}_{wire}" for signal in signals)
        wires[f"{port}_data"] = f"{signals[0]}_data"
        copies += [f"assign {other}_data = {signals[0]}_data;" for other in signals[1:]]
    return [*_call(module_name(stage, top), {}, stage.name, wires), *copies]


def _together(wires: Iterable[str]) -> str:
    """Return one wire, or several as a vector, the first lowest."""
    names = tuple(wires)
    return names[0] if len(names) == 1 else f"{{{', '.join(reversed(names))}}}"


def _call(module: str, parameters: Mapping[str, int | str], name: str, wires: Mapping[str, str]) -> list[str]:
    given = ", ".join(f".{key}({_literal(key, value)})" for key, value in parameters.items())
    head = f"{module} #({given}) {name} (" if given else f"{module} {name} ("
    return [head, f"    {', '.join(f'.{k}({v})' for k, v in wires.items())});"]


def _literal(name: str, value: int | str) -> str:
    if isinstance(value, str):
        return f'"{value}"'
    if name in _WIDE:
        return f"{'-' if value < 0 else ''}64'sd{abs(value)}"
    return str(value)
