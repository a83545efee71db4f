// Two streams, beat by beat: (a << A_SHIFT) + (b << B_SHIFT), or a * b. The result must fit OUT_WIDTH.
module flow_add #(
    parameter int A_WIDTH = 8,
    parameter int A_SIGNED = 1,
    parameter int A_SHIFT = 0,
    parameter int B_WIDTH = 8,
    parameter int B_SIGNED = 1,
    parameter int B_SHIFT = 0,
    parameter int OUT_WIDTH = 9,
    parameter int LANES = 1,
    parameter int MULTIPLY = 0
) (
    input  logic                       clk,
    input  logic                       reset,
    input  logic                       a_valid,
    output logic                       a_ready,
    input  logic [LANES*A_WIDTH-1:0]   a_data,
    input  logic                       b_valid,
    output logic                       b_ready,
    input  logic [LANES*B_WIDTH-1:0]   b_data,
    output logic                       out_valid,
    input  logic                       out_ready,
    output logic [LANES*OUT_WIDTH-1:0] out_data
);
    localparam int A_BITS = A_WIDTH + (A_SIGNED != 0 ? 0 : 1);  // as signed numbers
    localparam int B_BITS = B_WIDTH + (B_SIGNED != 0 ? 0 : 1);
    localparam int SUM = (A_BITS + A_SHIFT > B_BITS + B_SHIFT ? A_BITS + A_SHIFT : B_BITS + B_SHIFT) + 1;
    localparam int FULL = MULTIPLY != 0 ? A_BITS + B_BITS : SUM;
    localparam int W = FULL > OUT_WIDTH ? FULL : OUT_WIDTH;

    logic enable;
    assign enable = !out_valid || out_ready;
    assign a_ready = enable && b_valid;
    assign b_ready = enable && a_valid;

    genvar lane;
    generate
        for (lane = 0; lane < LANES; lane = lane + 1) begin : g_lane
            logic signed [A_BITS-1:0] a;
            logic signed [B_BITS-1:0] b;
            logic signed [W-1:0] wide_a, wide_b, y;
            assign a = A_BITS'(a_data[lane*A_WIDTH+:A_WIDTH]);
            assign b = B_BITS'(b_data[lane*B_WIDTH+:B_WIDTH]);
            assign wide_a = W'(a);
            assign wide_b = W'(b);
            assign y = MULTIPLY != 0 ? wide_a * wide_b : (wide_a <<< A_SHIFT) + (wide_b <<< B_SHIFT);
            always_ff @(posedge clk)
                if (enable && a_valid && b_valid) out_data[lane*OUT_WIDTH+:OUT_WIDTH] <= y[OUT_WIDTH-1:0];
        end
    endgenerate

    always_ff @(posedge clk)
        if (reset) out_valid <= 0;
        else if (enable) out_valid <= a_valid && b_valid;
endmodule
