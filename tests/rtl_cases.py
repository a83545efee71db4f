"""Modules of hls_templates/verilog beside each other in one top, so that many cases cost one Verilator build."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from conftest import needs

from flow.resources import data_folder
from flow.rtl.verilator import Result, Simulation

VERILOG = data_folder("hls_templates") / "verilog"
LIMIT = 200_000
"""Clocks after which a case counts as hung."""
ODD = 0x2D9B
"""A seed's stride, so that neighbouring cases draw different values."""

needs_verilator = needs("verilator", "g++", "make")


def pack(values: np.ndarray, width: int) -> np.ndarray:
    """Return integers (beats, lanes) as uint64 (beats, words): lane 0 in the low bits, the low word first."""
    mask, words = (1 << width) - 1, -(-values.shape[1] * width // 64)
    beats = [sum((int(v) & mask) << lane * width for lane, v in enumerate(beat)) for beat in values]
    raw = b"".join(beat.to_bytes(words * 8, "little") for beat in beats)
    return np.frombuffer(raw, "<u8").reshape(len(values), words)


def unpack(beats: np.ndarray, width: int, signed: bool, lanes: int) -> np.ndarray:
    """Return the integers (beats, lanes) of what `pack` made; Python's own, so that they may be of any width."""
    mask, sign = (1 << width) - 1, 1 << (width - 1)
    whole = [int.from_bytes(beat.tobytes(), "little") for beat in np.ascontiguousarray(beats, "<u8")]
    values = [[beat >> lane * width & mask for lane in range(lanes)] for beat in whole]
    if signed:
        values = [[(v ^ sign) - sign for v in beat] for beat in values]
    return np.array(values, object).reshape(len(beats), lanes)


def drawn(seed: int, shape: tuple[int, ...], low: int, high: int) -> np.ndarray:
    """Return integers of any size; the extremes and zero are often among them."""
    random = np.random.default_rng(seed * ODD)
    bits = (high - low).bit_length()
    values = np.zeros(shape, object)
    for place in range(0, bits + 16, 16):
        values += random.integers(0, 1 << 16, shape).astype(object) << place
    values = low + values % (high - low + 1)
    special = np.array([low, high, max(low, min(high, 0))], object)[random.integers(0, 3, shape)]
    return np.where(random.random(shape) < 0.3, special, values)


def limits(width: int, signed: bool) -> tuple[int, int]:
    return (-(1 << width - 1), (1 << width - 1) - 1) if signed else (0, (1 << width) - 1)


@dataclass(frozen=True)
class Beats:
    """What passes a port: integers (beats, lanes), each of ``width`` bits; ``clocks``: from beat to beat."""

    values: np.ndarray
    width: int
    signed: bool = True
    clocks: int | None = None

    @property
    def lanes(self) -> int:
        return int(self.values.shape[1])


@dataclass(frozen=True)
class Case:
    """A module with what goes in and what must come out.

    Its streams are wires ``<name>_<port>_valid``, ``_ready`` and ``_data``; ``body``: Verilog instead of the one
    instance; ``modules``: those of ``body``.
    """

    name: str
    module: str
    parameters: Mapping[str, int | str]
    inputs: Mapping[str, Beats]
    outputs: Mapping[str, Beats]
    body: str = ""
    modules: Sequence[str] = ()
    data: Mapping[str, str] = field(default_factory=dict)

    def instance(self) -> str:
        return self.body or instance(
            self.module,
            self.parameters,
            {port: f"{self.name}_{port}" for port in (*self.inputs, *self.outputs)},
        )


def instance(module: str, parameters: Mapping[str, int | str], streams: Mapping[str, str]) -> str:
    """Return an instance of ``module`` whose ports are joined to streams by their names."""
    given = ", ".join(f'.{k}("{v}")' if isinstance(v, str) else f".{k}({v})" for k, v in parameters.items())
    wires = [".clk(clk)", ".reset(reset)"]
    for port, stream in streams.items():
        wires += [f".{port}_{wire}({stream}_{wire})" for wire in ("valid", "ready", "data")]
    return f"{module} #({given}) u_{'_'.join(streams.values())} ({', '.join(wires)});"


def wires(width: int, *streams: str) -> str:
    """Return the declarations of streams inside a case's body."""
    return " ".join(f"logic {s}_valid, {s}_ready; logic [{width - 1}:0] {s}_data;" for s in streams)


class Bench:
    """Cases built together in ``folder``."""

    def __init__(self, cases: Sequence[Case], folder: Path) -> None:
        self.cases = tuple(cases)
        top = folder / "cases.sv"
        top.write_text(_top(self.cases), encoding="utf-8")
        used = sorted({m for case in cases for m in ((case.module,) if case.module else case.modules)})
        self.simulation = Simulation(
            [*(VERILOG / f"{module}.sv" for module in used), top],
            "cases",
            folder,
            inputs=[f"{case.name}_{port}" for case in cases for port in case.inputs],
            outputs=[f"{case.name}_{port}" for case in cases for port in case.outputs],
            data={name: text for case in cases for name, text in case.data.items()},
            trace=True,
        )
        self.simulation.build()

    def run(self, *, stall: float = 0.0, seed: int = 0, reset_after: int | None = None) -> Result:
        """Run all cases at once."""
        given = [pack(port.values, port.width) for case in self.cases for port in case.inputs.values()]
        wanted = [len(port.values) for case in self.cases for port in case.outputs.values()]
        return self.simulation.run(
            given, wanted, stall=stall, seed=seed, reset_after=reset_after, limit_cycles=LIMIT
        )

    def differences(self, result: Result, *, clocks: bool = False) -> list[str]:
        """Return which outputs differ from what must come; with ``clocks`` also which came at another pace."""
        ports = [(f"{case.name}.{name}", port) for case in self.cases for name, port in case.outputs.items()]
        found = []
        for (name, port), beats, arrivals in zip(ports, result.outputs, result.arrivals, strict=True):
            if beats.shape != (len(port.values), -(-port.lanes * port.width // 64)):
                found.append(f"{name}: {len(port.values)} beats wanted, more came")
            elif (unpack(beats, port.width, port.signed, port.lanes) != port.values).any():
                found.append(f"{name}: values")
            elif clocks and port.clocks is not None and set(np.diff(arrivals)) != {port.clocks}:
                found.append(f"{name}: {sorted(set(np.diff(arrivals)))} clocks a beat, not {port.clocks}")
        return found


def _top(cases: Sequence[Case]) -> str:
    ports = ["input logic clk", "input logic reset"]
    for case in cases:
        for direction, back, streams in (("input", "output", case.inputs), ("output", "input", case.outputs)):
            for name, port in streams.items():
                stream, high = f"{case.name}_{name}", port.lanes * port.width - 1
                ports += [f"{direction} logic {stream}_valid", f"{back} logic {stream}_ready"]
                ports += [f"{direction} logic [{high}:0] {stream}_data"]
    body = "\n".join(case.instance() for case in cases)
    return f"module cases ({', '.join(ports)});\n{body}\nendmodule\n"
