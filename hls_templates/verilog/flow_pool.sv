// The largest value (LARGEST = 1) or the sum of windows, channel by channel: BEATS positions of FOLDS beats each; FOLDS
// output beats with the last position. A window may be a whole frame.
module flow_pool #(
    parameter int LARGEST = 1,
    parameter int IN_WIDTH = 8,
    parameter int IN_SIGNED = 1,
    parameter int OUT_WIDTH = 8,
    parameter int LANES = 1,
    parameter int FOLDS = 2,
    parameter int BEATS = 4
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
    localparam int BW = BEATS > 1 ? $clog2(BEATS) : 1;
    localparam int FW = FOLDS > 1 ? $clog2(FOLDS) : 1;
    localparam int W = (OUT_WIDTH > IN_WIDTH ? OUT_WIDTH : IN_WIDTH) + 1;

    logic [BW-1:0] beat;
    logic [FW-1:0] fold;
    logic last_fold, last_beat, push;
    logic [LANES*W-1:0] results [0:FOLDS-1];
    logic [LANES*W-1:0] so_far, after;

    assign in_ready = !out_valid || out_ready;
    assign push = in_valid && in_ready;
    assign last_fold = fold == FW'(FOLDS - 1);
    assign last_beat = beat == BW'(BEATS - 1);
    assign so_far = results[fold];

    always_ff @(posedge clk)
        if (reset) begin
            beat <= 0;
            fold <= 0;
        end else if (push) begin
            fold <= last_fold ? 0 : fold + 1;
            if (last_fold) beat <= last_beat ? 0 : beat + 1;
        end

    genvar lane;
    generate
        for (lane = 0; lane < LANES; lane = lane + 1) begin : g_lane
            logic signed [IN_WIDTH:0] x;
            logic signed [W-1:0] wide, old, y;
            assign x = {IN_SIGNED != 0 && in_data[lane*IN_WIDTH+IN_WIDTH-1], in_data[lane*IN_WIDTH+:IN_WIDTH]};
            assign wide = W'(x);
            assign old = $signed(so_far[lane*W+:W]);
            assign y = beat == 0 ? wide : LARGEST == 0 ? old + wide : old > wide ? old : wide;
            assign after[lane*W+:W] = y;
            always_ff @(posedge clk) if (push && last_beat) out_data[lane*OUT_WIDTH+:OUT_WIDTH] <= y[OUT_WIDTH-1:0];
        end
    endgenerate

    always_ff @(posedge clk) if (push) results[fold] <= after;

    always_ff @(posedge clk)
        if (reset) out_valid <= 0;
        else if (in_ready) out_valid <= in_valid && last_beat;
endmodule
