"""The RTL against the integer executor: clock by clock in Verilator, 0 LSB, and the clocks a frame as predicted."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flow.errors import MismatchError, ToolError
from flow.fixed.execute import execute
from flow.fixed.graph import FixedGraph
from flow.rtl import RtlDesign
from flow.rtl.streams import Stream
from flow.rtl.verilator import Result, Simulation
from flow.rtl.verilog import axis_ports
from flow.rtl.words import from_beats, to_beats
from flow.types import Progress, RtlEmulation, silent

STALL = 0.3
"""How often a clock passes without a beat on either side, in the run with stalls."""
RTL = "the RTL must equal the integer executor"


def emulate_rtl(
    graph: FixedGraph,
    design: RtlDesign,
    inputs: Sequence[np.ndarray],
    folder: Path,
    *,
    vcd: bool = False,
    timeout_s: float = 1800,
    progress: Progress = silent,
) -> RtlEmulation:
    """Simulate frames back to back, with stalls on both sides, and with a reset in the middle; compare every output.

    Args:
        graph: the network.
        design: its Verilog.
        inputs: LSBs (frames, *shape), channels last, one array an input.
        folder: where Verilator builds; made if it is missing.
        vcd: write the waveforms of the first two frames to ``folder / "wave.vcd"``.
        timeout_s: limit for each program.
        progress: see `flow.types.Progress`.

    Raises:
        ConfigError: the inputs do not fit the network.
        UnsupportedError: a layer needs more than 64 bits.
        ToolError: Verilator or the C++ compiler is missing or fails, or the RTL stops without an answer.
        MismatchError: an output differs (the first layer that differs is named), or TLAST stands elsewhere.
    """
    rtl = _Rtl(graph, design, folder, timeout_s)
    want = execute(graph, inputs)
    if vcd:
        rtl.run(rtl.built(vcd=True), [x[:2] for x in inputs])
    progress(0, 4, "compiling the RTL (Verilator)")
    start = time.perf_counter()
    simulation = rtl.built()
    build_seconds = time.perf_counter() - start
    frames = len(inputs[0])
    progress(1, 4, f"simulating {frames} frames back to back")
    free = rtl.run(simulation, inputs)
    rtl.check(inputs, want, free, "frames back to back")
    progress(2, 4, f"simulating {frames} frames with stalls")
    rtl.check(inputs, want, rtl.run(simulation, inputs, stall=STALL, seed=1), "frames with stalls")
    progress(3, 4, "simulating a reset in the middle of a frame")
    few = [x[:4] for x in inputs]
    middle = max(2, free.cycles // frames)
    again = rtl.run(simulation, few, stall=STALL, seed=2, reset_after=middle)
    rtl.check(few, want, again, "frames after a reset")
    progress(4, 4, "the RTL equals the integer executor")
    beats = design.circuit.outputs[0].beats
    ends = free.arrivals[0][beats - 1 :: beats]
    return RtlEmulation(
        frames=frames,
        max_error_lsb=0,
        predicted_interval_cycles=design.interval_cycles,
        interval_cycles=_interval(ends),
        latency_cycles=int(ends[0]) + 1,
        multipliers=design.circuit.multipliers,
        stages=len(design.circuit.stages),
        build_seconds=build_seconds,
    )


@dataclass(frozen=True)
class _Rtl:
    """A design beside the graph that it computes."""

    graph: FixedGraph
    design: RtlDesign
    folder: Path
    timeout_s: float

    def built(self, *, vcd: bool = False, trace: bool = False) -> Simulation:
        circuit = self.design.circuit
        names = [name for stage in circuit.stages for name in stage.data]
        simulation = Simulation(
            self.design.sources,
            self.design.top,
            self.folder,
            inputs=axis_ports(circuit.inputs, "s_axis"),
            outputs=axis_ports(circuit.outputs, "m_axis"),
            axis=True,
            data={name: (self.design.folder / name).read_text(encoding="utf-8") for name in names},
            vcd=vcd,
            trace=trace,
            timeout_s=self.timeout_s,
        )
        simulation.build()
        return simulation

    def run(
        self,
        simulation: Simulation,
        inputs: Sequence[np.ndarray],
        *,
        stall: float = 0.0,
        seed: int = 0,
        reset_after: int | None = None,
    ) -> Result:
        circuit = self.design.circuit
        beats = [to_beats(s, x) for s, x in zip(circuit.inputs, inputs, strict=True)]
        wanted = [len(inputs[0]) * stream.beats for stream in circuit.outputs]
        return simulation.run(beats, wanted, stall=stall, seed=seed, reset_after=reset_after)

    def check(
        self, inputs: Sequence[np.ndarray], want: Mapping[str, np.ndarray], result: Result, what: str
    ) -> None:
        """Compare every output with the integer executor's, ``want``, and where TLAST stands.

        Raises:
            MismatchError: with the first layer that differs.
        """
        frames = len(inputs[0])
        outputs = zip(
            self.graph.outputs, self.design.circuit.outputs, result.outputs, result.last, strict=True
        )
        for name, stream, beats, last in outputs:
            got = from_beats(stream, beats)
            different = (got != want[name][:frames]).reshape(frames, -1).any(axis=1)
            if different.any():
                where = self._first_layer(inputs, int(different.argmax()))
                raise MismatchError(
                    f"emulate: {RTL}, but {int(different.sum())} of {frames} {what} differ; {where}; report the network"
                )
            if not np.array_equal(last, np.arange(1, len(beats) + 1) % stream.beats == 0):
                raise MismatchError(
                    f"emulate: TLAST must stand at the end of every frame, not elsewhere ({what}); report the network"
                )

    def _first_layer(self, inputs: Sequence[np.ndarray], frame: int) -> str:
        """Say where the first difference of the frames up to ``frame`` lies, layer by layer."""
        given = [x[: frame + 1] for x in inputs]
        want = execute(self.graph, given, every=True)
        self.run(self.built(trace=True), given)
        for tap in self.design.circuit.taps:
            got = _traced(self.folder / f"{tap.name}.hex", tap.stream)[: frame + 1]
            expected = want[tap.tensor][: len(got)].reshape(got.shape)
            if not np.array_equal(got, expected):
                place = tuple(np.argwhere(got != expected)[0])
                index = ", ".join(str(int(i)) for i in place[1:])
                return (
                    f"first at layer {tap.tensor!r}, sample {place[0]}, index ({index}): expected "
                    f"{expected[place]} LSB, got {got[place]} LSB"
                )
        return "without stalls all layers agree"


def _interval(ends: np.ndarray) -> int | None:
    """Return the clocks from frame to frame in the later half, rounded up; ``None`` with too few frames."""
    late = ends[len(ends) // 2 :]
    return -(-int(late[-1] - late[0]) // (len(late) - 1)) if len(late) > 1 else None


def _traced(path: Path, stream: Stream) -> np.ndarray:
    """Return the whole frames that a tap wrote."""
    words = -(-stream.width // 64)
    try:
        lines = path.read_text(encoding="utf-8").split()
        lines = lines[: len(lines) // stream.beats * stream.beats]
        raw = b"".join(int(line, 16).to_bytes(words * 8, "little") for line in lines)
    except (OSError, ValueError, OverflowError) as error:
        raise ToolError(
            f"emulate: the RTL must write its layers' beats to {str(path)!r}, not fail with {error!r}; run again"
        ) from error
    return from_beats(stream, np.frombuffer(raw, "<u8").reshape(-1, words))
