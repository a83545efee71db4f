"""The top of a board without a processor: the network behind a serial line, and the pins."""

from __future__ import annotations

from flow.errors import UnsupportedError
from flow.rtl import RtlDesign
from flow.rtl.verilog import tdata_bits
from flow.types import Board

TOP = "flow_board"
LIBRARY = ("flow_link", "flow_uart_rx", "flow_uart_tx", "flow_fifo")
"""Modules that the top has beside the network's stages."""
_SWITCH_ON = 16
"""Clocks of reset after the bitstream is loaded."""


def clock_hz(board: Board) -> int:
    """Return the frequency of a board's clock."""
    return round(1e9 / board.clock_period_ns)


def check_ports(design: RtlDesign) -> None:
    """Refuse what the serial link cannot carry.

    Raises:
        UnsupportedError: the network has several inputs or outputs.
    """
    inputs, outputs = design.circuit.inputs, design.circuit.outputs
    if len(inputs) != 1 or len(outputs) != 1:
        raise UnsupportedError(
            "synthesize: a network on a board without a processor must have one input and one output, not "
            f"{len(inputs)} and {len(outputs)}; leave joining and splitting to the host"
        )


def board_top(design: RtlDesign, board: Board, design_id: str) -> str:
    """Return the Verilog of the top.

    Args:
        design: the network, with one input and one output.
        board: with the pins ``clk``, ``rx`` and ``tx``.
        design_id: 16 hexadecimal digits that the board tells to the host.
    """
    given, made = design.circuit.inputs[0], design.circuit.outputs[0]
    high = [name for name in board.pins if name.startswith("high_")]
    ports = ["input logic clk", "input logic rx", "output logic tx"]
    ports += ["output logic led"] if "led" in board.pins else []
    ports += [f"output logic {name}" for name in high]
    sizes = {
        "CLOCKS_PER_BIT": round(clock_hz(board) / board.fpga["baud"]),
        "CLOCK_HZ": clock_hz(board),
        "IN_BYTES": tdata_bits(given) // 8,
        "IN_BEATS": given.beats,
        "OUT_BYTES": tdata_bits(made) // 8,
        "OUT_BEATS": made.beats,
        "DESIGN_ID": f"64'h{design_id}",
    }
    parameters = ", ".join(f".{name}({value})" for name, value in sizes.items())
    led = "assign led = busy;" if "led" in board.pins else ""
    return f"""module {TOP} (
    {", ".join(ports)}
);
    logic [{_SWITCH_ON.bit_length() - 1}:0] started = 0;
    logic reset, core_reset, busy;
    logic [{tdata_bits(given) - 1}:0] in_data;
    logic [{tdata_bits(made) - 1}:0] out_data;
    logic in_valid, in_ready, in_last, out_valid, out_ready, out_last;
    assign reset = !started[{_SWITCH_ON.bit_length() - 1}];
    always_ff @(posedge clk) if (reset) started <= started + 1;
    {led}
    {"".join(f"assign {name} = 1'b1;" for name in high)}
    flow_link #({parameters}) link (.*);
    {design.top} network (
        .aclk(clk), .aresetn(!(reset || core_reset)),
        .s_axis_tdata(in_data), .s_axis_tvalid(in_valid), .s_axis_tlast(in_last), .s_axis_tready(in_ready),
        .m_axis_tdata(out_data), .m_axis_tvalid(out_valid), .m_axis_tlast(out_last), .m_axis_tready(out_ready)
    );
endmodule
"""
