"""The top of a board with a Zynq-7000: the network behind AXI4-Lite registers; and its simulation behind the PS7."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from flow.errors import MismatchError, ToolError
from flow.fixed.execute import execute
from flow.fixed.graph import FixedGraph
from flow.resources import data_folder
from flow.rtl import RtlDesign
from flow.rtl.streams import Stream
from flow.rtl.verilator import TimedSimulation
from flow.rtl.verilog import tdata_bits
from flow.rtl.words import from_beats, to_beats
from flow.toolchains.open.board_top import TOP, clock_hz
from flow.toolchains.open.families import Family
from flow.toolchains.open.netlist import cell_models
from flow.types import Board

LIBRARY = ("flow_axi3", "flow_axi_lite", "flow_fifo")
"""Modules that the top has beside the network's stages."""
BASE = 0x4000_0000
"""Where M_AXI_GP0 begins."""
SAMPLE, RESULT, STATUS, CLOCKS = 0x1000, 0x2000, 0x20, 0x24
ROOM, DONE = 1, 2
"""Bits of the status."""
_BURST = 16
_WORDS = 0x6
"""Mode of a burst: incrementing, of words."""
_AXI = {
    "aw": ("addr", "id", "len", "size", "burst", "valid", "ready"),
    "w": ("data", "strb", "valid", "ready"),
    "b": ("id", "resp", "valid", "ready"),
    "ar": ("addr", "id", "len", "size", "burst", "valid", "ready"),
    "r": ("data", "id", "resp", "last", "valid", "ready"),
}
_WIDTHS = {"addr": 32, "id": 12, "len": 4, "size": 2, "burst": 2, "data": 32, "strb": 4, "resp": 2}
_LITE = {
    "aw": ("addr", "valid", "ready"),
    "w": ("data", "strb", "valid", "ready"),
    "b": ("resp", "valid", "ready"),
    "ar": ("addr", "valid", "ready"),
    "r": ("data", "resp", "valid", "ready"),
}


def _wires(channels: dict[str, tuple[str, ...]]) -> list[str]:
    return [f"{channel}{name}" for channel, names in channels.items() for name in names]


def zynq_top(design: RtlDesign, board: Board, design_id: str) -> str:
    """Return the Verilog of the top: PS7, clock, reset, registers, network.

    Args:
        design: the network, with one input and one output.
        board: with a Zynq-7000; its pin ``led0`` shows that the network works.
        design_id: 16 hexadecimal digits that the registers tell.
    """
    given, made = design.circuit.inputs[0], design.circuit.outputs[0]
    sizes = {
        "CLOCK_HZ": clock_hz(board),
        "IN_BYTES": tdata_bits(given) // 8,
        "IN_BEATS": given.beats,
        "OUT_BYTES": tdata_bits(made) // 8,
        "OUT_BEATS": made.beats,
        "DESIGN_ID": f"64'h{design_id}",
    }
    parameters = ", ".join(f".{name}({value})" for name, value in sizes.items())
    master = _wires(_AXI)
    lite = {wire: f"lite_{wire}" for wire in _wires(_LITE)}
    declared = [f"logic [{_WIDTHS.get(_field(wire), 1) - 1}:0] {wire};" for wire in master]
    declared += [f"logic [{_lite_width(wire) - 1}:0] {name};" for wire, name in lite.items()]
    processor = ", ".join(f".MAXIGP0{wire.upper()}({wire})" for wire in master)
    bursts = ", ".join(f".s_{wire}({wire})" for wire in master)
    return f"""module {TOP} (
    output logic led0
);
    logic [3:0] fclk, fclk_resetn;
    logic clk, core_reset, busy;
    logic [7:0] released = 0;
    logic reset;
    {" ".join(declared)}
    logic [{tdata_bits(given) - 1}:0] in_data;
    logic [{tdata_bits(made) - 1}:0] out_data;
    logic in_valid, in_ready, in_last, out_valid, out_ready, out_last;
    assign led0 = busy;
    assign reset = !released[7];
    always_ff @(posedge clk) released <= {{released[6:0], fclk_resetn[0]}};
    BUFG clock (.I(fclk[0]), .O(clk));
    PS7 processor (.FCLKCLK(fclk), .FCLKRESETN(fclk_resetn), .MAXIGP0ACLK(clk), {processor});
    flow_axi3 bursts (.clk(clk), .reset(reset), {bursts},
        {", ".join(f".m_{wire}({name})" for wire, name in lite.items())});
    flow_axi_lite #({parameters}) registers (.clk(clk), .reset(reset),
        {", ".join(f".s_axi_{wire}({name})" for wire, name in lite.items())},
        .busy(busy), .core_reset(core_reset),
        .in_valid(in_valid), .in_ready(in_ready), .in_data(in_data), .in_last(in_last),
        .out_valid(out_valid), .out_ready(out_ready), .out_data(out_data), .out_last(out_last));
    {design.top} network (
        .aclk(clk), .aresetn(!core_reset),
        .s_axis_tdata(in_data), .s_axis_tvalid(in_valid), .s_axis_tlast(in_last), .s_axis_tready(in_ready),
        .m_axis_tdata(out_data), .m_axis_tvalid(out_valid), .m_axis_tlast(out_last), .m_axis_tready(out_ready)
    );
endmodule
"""


def _field(wire: str) -> str:
    """Return what a wire of a channel carries."""
    return next(name for channel, names in _AXI.items() for name in names if wire == f"{channel}{name}")


def _lite_width(wire: str) -> int:
    return 16 if wire.endswith("addr") else _WIDTHS.get(_field(wire), 1)


def line(operation: int, address: int, data: int = 0, *, length: int = 1, mode: int = _WORDS) -> str:
    """Return a line of the processor's script, see ``models/ps7.v``; ``address`` counts from the registers' begin."""
    return f"{operation:02x}{mode:02x}{length:02x}{BASE + address:08x}{data:08x}"


def writes(address: int, words: Sequence[int]) -> list[str]:
    """Return lines that write words, in bursts."""
    lines = []
    for start in range(0, len(words), _BURST):
        part = words[start : start + _BURST]
        lines += [line(1, address, int(word), length=len(part)) for word in part]
    return lines


def reads(address: int, count: int) -> list[str]:
    """Return lines that read words, in bursts."""
    return [line(2, address, length=min(_BURST, count - start)) for start in range(0, count, _BURST)]


def script(design: RtlDesign, samples: np.ndarray) -> list[str]:
    """Return lines that send samples, LSBs (frames, *shape), and read their results and the clocks they took."""
    given, made = design.circuit.inputs[0], design.circuit.outputs[0]
    lines = []
    for sample in samples:
        lines += [line(3, STATUS, ROOM), *writes(SAMPLE, to_words(given, sample[None]))]
        lines += [line(3, STATUS, DONE), *reads(RESULT, _words(made) * made.beats), line(2, CLOCKS)]
    return lines


def _words(stream: Stream) -> int:
    return -(-tdata_bits(stream) // 32)


def to_words(stream: Stream, frames: np.ndarray) -> list[int]:
    """Return frames of LSBs as words of 32 bits, a beat after the other."""
    beats = np.ascontiguousarray(to_beats(stream, frames), "<u8").view("<u4")
    return [int(word) for word in beats[:, : _words(stream)].reshape(-1)]


def from_words(stream: Stream, words: Iterable[int]) -> np.ndarray:
    """Return the LSBs of whole frames, (frames, *shape)."""
    rows = np.array(list(words), "<u4").reshape(-1, _words(stream))
    padded = np.zeros((len(rows), -(-_words(stream) // 2) * 2), "<u4")
    padded[:, : rows.shape[1]] = rows
    return from_beats(stream, padded.view("<u8"))


def simulated(family: Family, netlist: Path, folder: Path, timeout_s: float) -> TimedSimulation:
    """Return the simulation of a board's netlist behind the processor's model."""
    models, options = cell_models(family)
    processor = data_folder("hls_templates") / "verilog" / "models" / "ps7.v"
    return TimedSimulation((netlist, processor, *models), TOP, folder, options=options, timeout_s=timeout_s)


def check_board(
    simulation: TimedSimulation, design: RtlDesign, graph: FixedGraph, samples: np.ndarray
) -> int:
    """Run samples through the board's top behind the processor's model; return the clocks of the last one.

    Args:
        simulation: of the top, built, with ``models/ps7.v``.
        design: the network's Verilog.
        graph: the network.
        samples: LSBs (frames, *shape), channels last.

    Raises:
        ConfigError: the samples do not fit the network.
        UnsupportedError: a layer needs more than 64 bits.
        ToolError: the simulation fails.
        MismatchError: a result differs from the integer executor's.
    """
    log = answers(simulation, script(design, samples))
    made = design.circuit.outputs[0]
    sent, count = (
        -(-len(to_words(design.circuit.inputs[0], samples[:1])) // _BURST),
        _words(made) * made.beats,
    )
    if len(log) != len(samples) * (sent + count + 1):
        raise ToolError(
            f"synthesize: the processor's model must get {len(samples) * (sent + count + 1):,} answers, not "
            f"{len(log):,}; report the network"
        )
    frames = [log[start : start + sent + count + 1] for start in range(0, len(log), sent + count + 1)]
    want = execute(graph, [samples])[graph.outputs[0]]
    got = from_words(made, [word for frame in frames for _, word in frame[sent:-1]]).reshape(want.shape)
    different = (got != want).reshape(len(want), -1).any(axis=1)
    if different.any() or any(response for response, _ in log):
        raise MismatchError(
            f"synthesize: results that the processor reads must equal the integer executor's, but "
            f"{int(different.sum())} of {len(want)} differ, and {sum(bool(r) for r, _ in log)} answers are errors; "
            "report the network"
        )
    return frames[-1][-1][1]


def answers(simulation: TimedSimulation, lines: Sequence[str]) -> list[tuple[int, int]]:
    """Run a script; return (response, data) of every answer.

    Raises:
        ToolError: the simulation fails, or a bit that the script waits for does not come.
    """
    folder = simulation.folder
    (folder / "ps7_script.hex").write_text("\n".join([*lines, line(0, 0)]) + "\n", encoding="utf-8")
    simulation.run("ps7_log.txt")
    log = (folder / "ps7_log.txt").read_text(encoding="utf-8", errors="replace")
    try:
        found = [(int(response, 16), int(data, 16)) for response, data in map(str.split, log.splitlines())]
    except ValueError as error:
        raise ToolError(
            f"synthesize: the processor's model must write pairs of numbers, not fail with {error}; report the network"
        ) from error
    if not found:
        raise ToolError("synthesize: the processor's model must get answers, not none; report the network")
    return found
