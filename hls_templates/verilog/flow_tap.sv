// Writes every beat that passes, hexadecimal, a line each, to NAME.hex where FLOW_TRACE is defined; else nothing.
module flow_tap #(
    parameter NAME = "tap",
    parameter int WIDTH = 8
) (
    input logic             clk,
    input logic             reset,
    input logic             valid,
    input logic             ready,
    input logic [WIDTH-1:0] data
);
`ifdef FLOW_TRACE
    integer file;
    initial file = $fopen({NAME, ".hex"}, "w");
    always_ff @(posedge clk) if (!reset && valid && ready) $fdisplay(file, "%h", data);
    final $fclose(file);
`endif
endmodule
