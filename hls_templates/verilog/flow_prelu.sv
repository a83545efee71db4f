// x << SHIFT where x >= 0, else slope * x, lane by lane; x is signed. Word f of SLOPES: for the f-th beat of a position,
// LANES signed slopes. Two clocks.
module flow_prelu #(
    parameter int IN_WIDTH = 8,
    parameter int OUT_WIDTH = 16,
    parameter int LANES = 1,
    parameter int FOLDS = 1,
    parameter int SLOPE_WIDTH = 8,
    parameter int SHIFT = 0,
    parameter SLOPES = "slopes.hex"
) (
    input  logic                       clk,
    input  logic                       reset,
    input  logic                       in_valid,
    output logic                       in_ready,
    input  logic [LANES*IN_WIDTH-1:0]  in_data,
    output logic                       out_valid,
    input  logic                       out_ready,
    output logic [LANES*OUT_WIDTH-1:0] out_data
);
    localparam int FULL = IN_WIDTH + (SLOPE_WIDTH > SHIFT ? SLOPE_WIDTH : SHIFT) + 1;
    localparam int W = FULL > OUT_WIDTH ? FULL : OUT_WIDTH;
    localparam int FW = FOLDS > 1 ? $clog2(FOLDS) : 1;

    logic [LANES*SLOPE_WIDTH-1:0] table_ [0:FOLDS-1];
    initial $readmemh(SLOPES, table_);

    logic enable, valid;
    logic [FW-1:0] fold;
    logic [LANES*IN_WIDTH-1:0] x;
    logic [LANES*SLOPE_WIDTH-1:0] slopes;
    assign enable = !out_valid || out_ready;
    assign in_ready = enable;

    always_ff @(posedge clk)
        if (enable) begin
            x <= in_data;
            slopes <= table_[fold];
        end

    always_ff @(posedge clk)
        if (reset) begin
            fold <= 0;
            valid <= 0;
            out_valid <= 0;
        end else if (enable) begin
            valid <= in_valid;
            out_valid <= valid;
            if (in_valid) fold <= fold == FW'(FOLDS - 1) ? 0 : fold + 1;
        end

    genvar lane;
    generate
        for (lane = 0; lane < LANES; lane = lane + 1) begin : g_lane
            logic signed [W-1:0] a, slope, y;
            assign a = W'($signed(x[lane*IN_WIDTH+:IN_WIDTH]));
            assign slope = W'($signed(slopes[lane*SLOPE_WIDTH+:SLOPE_WIDTH]));
            assign y = a < 0 ? a * slope : a <<< SHIFT;
            always_ff @(posedge clk) if (enable) out_data[lane*OUT_WIDTH+:OUT_WIDTH] <= y[OUT_WIDTH-1:0];
        end
    endgenerate
endmodule
