// +1 where x * multiplier + offset >= 0, else -1, lane by lane. CONSTANTS as in flow_rescale. Two clocks.
module flow_sign #(
    parameter int IN_WIDTH = 16,
    parameter int IN_SIGNED = 1,
    parameter int OUT_WIDTH = 2,
    parameter int LANES = 1,
    parameter int FOLDS = 1,
    parameter int MULTIPLIER_WIDTH = 2,
    parameter int OFFSET_WIDTH = 2,
    parameter CONSTANTS = ""
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
    localparam int PAIR = MULTIPLIER_WIDTH + OFFSET_WIDTH;
    localparam int PW = IN_WIDTH + 1 + MULTIPLIER_WIDTH;
    localparam int W = (PW > OFFSET_WIDTH ? PW : OFFSET_WIDTH) + 1;
    localparam int FW = FOLDS > 1 ? $clog2(FOLDS) : 1;

    logic enable, valid;
    logic [LANES*IN_WIDTH-1:0] x;
    logic [LANES*PAIR-1:0] constants;
    assign enable = !out_valid || out_ready;
    assign in_ready = enable;

    always_ff @(posedge clk)
        if (reset) {out_valid, valid} <= 0;
        else if (enable) {out_valid, valid} <= {valid, in_valid};

    always_ff @(posedge clk) if (enable) x <= in_data;
    generate
        if (CONSTANTS != "") begin : g_constants
            logic [LANES*PAIR-1:0] table_ [0:FOLDS-1];
            logic [FW-1:0] fold;
            initial $readmemh(CONSTANTS, table_);
            always_ff @(posedge clk) if (enable) constants <= table_[fold];
            always_ff @(posedge clk)
                if (reset) fold <= 0;
                else if (enable && in_valid) fold <= fold == FW'(FOLDS - 1) ? 0 : fold + 1;
        end else begin : g_plain
            assign constants = {LANES{PAIR'(1)}};
        end
    endgenerate

    genvar lane;
    generate
        for (lane = 0; lane < LANES; lane = lane + 1) begin : g_lane
            logic signed [IN_WIDTH:0] a;
            logic signed [W-1:0] multiplier, offset, y;
            assign a = {IN_SIGNED != 0 && x[lane*IN_WIDTH+IN_WIDTH-1], x[lane*IN_WIDTH+:IN_WIDTH]};
            assign multiplier = W'($signed(constants[lane*PAIR+:MULTIPLIER_WIDTH]));
            assign offset = W'($signed(constants[lane*PAIR+MULTIPLIER_WIDTH+:OFFSET_WIDTH]));
            assign y = W'(a) * multiplier + offset;
            always_ff @(posedge clk)
                if (enable) out_data[lane*OUT_WIDTH+:OUT_WIDTH] <= y < 0 ? {OUT_WIDTH{1'b1}} : OUT_WIDTH'(1);
        end
    endgenerate
endmodule
