// One sum a channel over windows: BEATS kernel positions of FOLDS beats each; FOLDS output beats with the last position.
// out = (sum of x * w << PRODUCT_SHIFT) + bias, modulo 2^OUT_WIDTH. Word k * FOLDS + f of WEIGHTS: the LANES weights of
// kernel position k; word f of BIASES: LANES biases of OUT_WIDTH bits.
module flow_depthwise #(
    parameter int IN_WIDTH = 8,
    parameter int IN_SIGNED = 1,
    parameter int WEIGHT_WIDTH = 8,
    parameter int WEIGHT_SIGNED = 1,
    parameter int OUT_WIDTH = 20,
    parameter int LANES = 1,
    parameter int FOLDS = 2,
    parameter int BEATS = 9,
    parameter int PRODUCT_SHIFT = 0,
    parameter WEIGHTS = "weights.hex",
    parameter BIASES = ""
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
    localparam int WORDS = BEATS * FOLDS;
    localparam int AW = WORDS > 1 ? $clog2(WORDS) : 1;
    localparam int BW = BEATS > 1 ? $clog2(BEATS) : 1;
    localparam int FW = FOLDS > 1 ? $clog2(FOLDS) : 1;
    localparam int A_BITS = IN_WIDTH + (IN_SIGNED != 0 ? 0 : 1);  // as signed numbers, and no bit more: a product's register
    localparam int B_BITS = WEIGHT_WIDTH + (WEIGHT_SIGNED != 0 ? 0 : 1);  // must not be wider than the product
    localparam int PW = A_BITS + B_BITS;

    logic [LANES*WEIGHT_WIDTH-1:0] weights [0:WORDS-1];
    initial $readmemh(WEIGHTS, weights);

    logic [AW-1:0] word;
    logic [BW-1:0] beat;
    logic [FW-1:0] fold, fold_1, fold_2;
    logic enable, last_fold, last_beat;
    logic [2:1] valid, first, final_;
    logic [LANES*IN_WIDTH-1:0] x;
    logic [LANES*WEIGHT_WIDTH-1:0] w;

    assign enable = !out_valid || out_ready;
    assign in_ready = enable;
    assign last_fold = fold == FW'(FOLDS - 1);
    assign last_beat = beat == BW'(BEATS - 1);

    always_ff @(posedge clk)
        if (reset) begin
            word <= 0;
            beat <= 0;
            fold <= 0;
        end else if (enable && in_valid) begin
            word <= word == AW'(WORDS - 1) ? 0 : word + 1;
            fold <= last_fold ? 0 : fold + 1;
            if (last_fold) beat <= last_beat ? 0 : beat + 1;
        end

    always_ff @(posedge clk)
        if (enable) begin
            x <= in_data;
            w <= weights[word];
            first <= {first[1], beat == 0};
            final_ <= {final_[1], last_beat};
            fold_1 <= fold;
            fold_2 <= fold_1;
        end

    always_ff @(posedge clk)
        if (reset) valid <= 0;
        else if (enable) valid <= {valid[1], in_valid};

    logic [LANES*OUT_WIDTH-1:0] bias;
    generate
        if (BIASES != "") begin : g_biases
            logic [LANES*OUT_WIDTH-1:0] biases [0:FOLDS-1];
            initial $readmemh(BIASES, biases);
            always_ff @(posedge clk) if (enable) bias <= biases[fold_1];
        end else begin : g_no_biases
            assign bias = 0;
        end
    endgenerate

    logic [LANES*OUT_WIDTH-1:0] totals [0:FOLDS-1];
    logic [LANES*OUT_WIDTH-1:0] so_far, after;
    assign so_far = first[2] ? 0 : totals[fold_2];

    genvar lane;
    generate
        for (lane = 0; lane < LANES; lane = lane + 1) begin : g_lane
            logic signed [A_BITS-1:0] a;
            logic signed [B_BITS-1:0] b;
            logic signed [PW-1:0] product;
            logic signed [OUT_WIDTH-1:0] total;
            assign a = A_BITS'(x[lane*IN_WIDTH+:IN_WIDTH]);
            assign b = B_BITS'(w[lane*WEIGHT_WIDTH+:WEIGHT_WIDTH]);
            always_ff @(posedge clk) if (enable) product <= PW'(a) * PW'(b);
            assign total = $signed(so_far[lane*OUT_WIDTH+:OUT_WIDTH]) + OUT_WIDTH'(product);
            assign after[lane*OUT_WIDTH+:OUT_WIDTH] = total;
            always_ff @(posedge clk)
                if (enable && valid[2] && final_[2])
                    out_data[lane*OUT_WIDTH+:OUT_WIDTH] <=
                        (total <<< PRODUCT_SHIFT) + $signed(bias[lane*OUT_WIDTH+:OUT_WIDTH]);
        end
    endgenerate

    always_ff @(posedge clk) if (enable && valid[2]) totals[fold_2] <= after;

    always_ff @(posedge clk)
        if (reset) out_valid <= 0;
        else if (enable) out_valid <= valid[2] && final_[2];
endmodule
