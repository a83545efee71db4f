// A quantizer, lane by lane: clip(round((x * multiplier + offset) / 2^SHIFT), MINIMUM, MAXIMUM). SHIFT may be negative.
// ROUNDING: 0 half to even, 1 floor, 2 ceil, 3 to zero, 4 half away from zero, 5 half towards zero.
//
// CONSTANTS "": multiplier 1, offset 0. Else word f of FOLDS has, for the f-th beat of a position, LANES pairs: the
// multiplier low, the offset high, both signed. Nothing overflows inside. MINIMUM and MAXIMUM are values of the output.
// Two clocks, or four with CONSTANTS.
module flow_rescale #(
    parameter int IN_WIDTH = 16,
    parameter int IN_SIGNED = 1,
    parameter int OUT_WIDTH = 8,
    parameter int LANES = 1,
    parameter int FOLDS = 1,
    parameter int MULTIPLIER_WIDTH = 2,
    parameter int OFFSET_WIDTH = 2,
    parameter int SHIFT = 4,
    parameter int ROUNDING = 0,
    parameter logic signed [63:0] MINIMUM = -64'sd128,
    parameter logic signed [63:0] MAXIMUM = 64'sd127,
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
    localparam int A_BITS = IN_WIDTH + (IN_SIGNED != 0 ? 0 : 1);  // as a signed number, and no bit more: a product's register
    localparam int PW = A_BITS + MULTIPLIER_WIDTH;  // must not be wider than the product
    localparam int SUM = CONSTANTS == "" ? A_BITS : (PW > OFFSET_WIDTH ? PW : OFFSET_WIDTH) + 1;
    localparam int DOWN = SHIFT > 0 ? SHIFT : 0;
    localparam int UP = SHIFT < 0 ? -SHIFT : 0;
    localparam int NEED = SUM + UP > DOWN + 2 ? SUM + UP + 2 : DOWN + 4;
    localparam int W = NEED > OUT_WIDTH + 2 ? NEED : OUT_WIDTH + 2;
    localparam int FW = FOLDS > 1 ? $clog2(FOLDS) : 1;
    localparam int CLOCKS = CONSTANTS != "" ? 3 : 1;
    // limits that a look at the upper bits tells: 0 or -2^CLIP, and 2^CLIP - 1
    localparam int CLIP = $clog2(MAXIMUM + 64'sd1);
    localparam logic WHOLE = MAXIMUM + 64'sd1 == 64'sd1 <<< CLIP && (MINIMUM == 0 || MINIMUM == ~MAXIMUM);

    logic enable;
    logic [CLOCKS:1] valid;
    assign enable = !out_valid || out_ready;
    assign in_ready = enable;

    always_ff @(posedge clk)
        if (reset) {out_valid, valid} <= 0;
        else if (enable) {out_valid, valid} <= {valid, in_valid};

    // ---- 1: operands
    logic [LANES*IN_WIDTH-1:0] x;
    logic [LANES*PAIR-1:0] constants;
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
            assign constants = 0;
        end
    endgenerate

    genvar lane;
    generate
        for (lane = 0; lane < LANES; lane = lane + 1) begin : g_lane
            logic signed [A_BITS-1:0] a;
            logic signed [SUM-1:0] sum;
            logic signed [W-1:0] whole, rounded, clipped;
            logic [DOWN:0] rest;
            logic more;
            assign a = A_BITS'(x[lane*IN_WIDTH+:IN_WIDTH]);

            // ---- 2: product; 3: sum
            if (CONSTANTS != "") begin : g_product
                logic signed [MULTIPLIER_WIDTH-1:0] multiplier;
                logic signed [PW-1:0] product;
                logic signed [SUM-1:0] offset;
                assign multiplier = $signed(constants[lane*PAIR+:MULTIPLIER_WIDTH]);
                always_ff @(posedge clk)
                    if (enable) begin
                        product <= PW'(a) * PW'(multiplier);
                        offset <= SUM'($signed(constants[lane*PAIR+MULTIPLIER_WIDTH+:OFFSET_WIDTH]));
                        sum <= SUM'(product) + offset;
                    end
            end else begin : g_same
                assign sum = SUM'(a);
            end

            // ---- the last: rounded and clipped. `rest`: what is shifted out, in halves of 2^-DOWN
            assign whole = SHIFT > 0 ? W'(sum) >>> DOWN : W'(sum) <<< UP;
            if (DOWN > 0) begin : g_round
                localparam logic [DOWN:0] HALF = {2'b01, {(DOWN - 1) {1'b0}}};
                logic signed [W-1:0] wide;
                assign wide = W'(sum);
                assign rest = {1'b0, wide[DOWN-1:0]};
                assign more = ROUNDING == 0 ? rest > HALF || (rest == HALF && whole[0])
                            : ROUNDING == 2 ? rest != 0
                            : ROUNDING == 3 ? rest != 0 && sum < 0
                            : ROUNDING == 4 ? (sum < 0 ? rest > HALF : rest >= HALF)
                            : ROUNDING == 5 ? (sum < 0 ? rest >= HALF : rest > HALF)
                            : 1'b0;
            end else begin : g_exact
                assign rest = 0;
                assign more = 0;
            end
            assign rounded = whole + W'($signed({1'b0, more}));
            if (WHOLE) begin : g_upper_bits
                logic below, fits;
                assign below = rounded[W-1];
                assign fits = rounded[W-1:CLIP] == {(W - CLIP) {MINIMUM != 0 && below}};
                assign clipped = fits ? rounded : below ? W'(MINIMUM) : W'(MAXIMUM);
            end else begin : g_compared
                assign clipped = rounded < W'(MINIMUM) ? W'(MINIMUM) : rounded > W'(MAXIMUM) ? W'(MAXIMUM) : rounded;
            end
            always_ff @(posedge clk) if (enable) out_data[lane*OUT_WIDTH+:OUT_WIDTH] <= clipped[OUT_WIDTH-1:0];
        end
    endgenerate
endmodule
