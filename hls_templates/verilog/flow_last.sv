// The last beat of every frame of BEATS beats: `last` goes with `valid`, for an AXI4-Stream's TLAST.
module flow_last #(
    parameter int BEATS = 2
) (
    input  logic clk,
    input  logic reset,
    input  logic valid,
    input  logic ready,
    output logic last
);
    logic [31:0] passed;

    assign last = passed == BEATS - 1;

    always_ff @(posedge clk)
        if (reset) passed <= 0;
        else if (valid && ready) passed <= last ? 0 : passed + 1;
endmodule
