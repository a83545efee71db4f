// Sums of products: a vector of SIMD * SYNAPSE_FOLD inputs times a matrix of PE * NEURON_FOLD rows, SIMD x PE products
// a clock, SYNAPSE_FOLD * NEURON_FOLD clocks a vector, back to back. The vector is kept for the later rows.
//
// Word n * SYNAPSE_FOLD + s of WEIGHTS: at [(p * SIMD + i) * WEIGHT_WIDTH +: WEIGHT_WIDTH] the weight of row n * PE + p
// for input s * SIMD + i. Word n of BIASES: PE biases of OUT_WIDTH bits. out = (sum << PRODUCT_SHIFT) + bias, modulo
// 2^OUT_WIDTH. With PACKED, two rows share a multiplier: (w1 * 2^PW + w0) x holds both products, PW bits each; the upper
// one lacks the borrow of the lower one's sign. Four clocks from the last input of a row to its sum; memories are read by the clock (block RAM).
module flow_mvau #(
    parameter int IN_WIDTH = 8,
    parameter int IN_SIGNED = 1,
    parameter int WEIGHT_WIDTH = 8,
    parameter int WEIGHT_SIGNED = 1,
    parameter int OUT_WIDTH = 20,
    parameter int SIMD = 1,
    parameter int PE = 1,
    parameter int SYNAPSE_FOLD = 2,
    parameter int NEURON_FOLD = 2,
    parameter int PRODUCT_SHIFT = 0,
    parameter int PACKED = 0,
    parameter WEIGHTS = "weights.hex",
    parameter BIASES = ""
) (
    input  logic                     clk,
    input  logic                     reset,
    input  logic                     in_valid,
    output logic                     in_ready,
    input  logic [SIMD*IN_WIDTH-1:0] in_data,
    output logic                     out_valid,
    input  logic                     out_ready,
    output logic [PE*OUT_WIDTH-1:0]  out_data
);
    localparam int WORDS = SYNAPSE_FOLD * NEURON_FOLD;
    localparam int AW = WORDS > 1 ? $clog2(WORDS) : 1;
    localparam int SW = SYNAPSE_FOLD > 1 ? $clog2(SYNAPSE_FOLD) : 1;
    localparam int NW = NEURON_FOLD > 1 ? $clog2(NEURON_FOLD) : 1;
    localparam int A_BITS = IN_WIDTH + (IN_SIGNED != 0 ? 0 : 1);  // as signed numbers, and no bit more: a product's register
    localparam int B_BITS = WEIGHT_WIDTH + (WEIGHT_SIGNED != 0 ? 0 : 1);  // must not be wider than the product
    localparam int PW = A_BITS + B_BITS;
    localparam int FULL = PW + $clog2(SIMD);  // of a sum of products; a register with copies of its sign above it is one that
    localparam int TW = FULL < OUT_WIDTH ? FULL : OUT_WIDTH;  // yosys' xilinx_dsp loses them of

    logic [PE*SIMD*WEIGHT_WIDTH-1:0] weights [0:WORDS-1];
    initial $readmemh(WEIGHTS, weights);

    // ---- step: which product comes next
    logic [AW-1:0] word;
    logic [SW-1:0] synapse;
    logic [NW-1:0] neuron;
    logic enable, step, last;

    assign enable = !out_valid || out_ready;
    assign in_ready = enable && neuron == 0;
    assign step = enable && (neuron != 0 || in_valid);
    assign last = synapse == SW'(SYNAPSE_FOLD - 1);

    always_ff @(posedge clk)
        if (reset) begin
            word <= 0;
            synapse <= 0;
            neuron <= 0;
        end else if (step) begin
            word <= word == AW'(WORDS - 1) ? 0 : word + 1;
            synapse <= last ? 0 : synapse + 1;
            if (last) neuron <= neuron == NW'(NEURON_FOLD - 1) ? 0 : neuron + 1;
        end

    // ---- 1: operands
    logic [SIMD*IN_WIDTH-1:0] vector [0:SYNAPSE_FOLD-1];
    logic [SIMD*IN_WIDTH-1:0] given, kept, x;
    logic [PE*SIMD*WEIGHT_WIDTH-1:0] w;
    logic fresh;

    assign x = fresh ? given : kept;

    always_ff @(posedge clk)
        if (enable) begin
            given <= in_data;
            kept <= vector[synapse];
            fresh <= neuron == 0;
            w <= weights[word];
        end
    always_ff @(posedge clk) if (step && neuron == 0) vector[synapse] <= in_data;

    // ---- marks that go along: a product, the first and the last of a sum
    logic [3:1] valid, first, final_;
    logic [NW-1:0] row_1, row_2, row_3;

    always_ff @(posedge clk)
        if (reset) valid <= 0;
        else if (enable) valid <= {valid[2:1], step};
    always_ff @(posedge clk)
        if (enable) begin
            first <= {first[2:1], synapse == 0};
            final_ <= {final_[2:1], last};
            row_1 <= neuron;
            row_2 <= row_1;
            row_3 <= row_2;
        end

    // ---- 2: products; 3: their sum; 4: added up
    logic [PE*OUT_WIDTH-1:0] bias;
    generate
        if (BIASES != "") begin : g_biases
            logic [PE*OUT_WIDTH-1:0] biases [0:NEURON_FOLD-1];
            initial $readmemh(BIASES, biases);
            always_ff @(posedge clk) if (enable) bias <= biases[row_2];
        end else begin : g_no_biases
            assign bias = 0;
        end
    endgenerate

    genvar p, i;
    logic [PE*SIMD*PW-1:0] raw;  // a row's products side by side
    generate
        for (p = 0; p < PE; p = p + 1) begin : g_products
            for (i = 0; i < SIMD; i = i + 1) begin : g_simd
                logic signed [A_BITS-1:0] a;
                logic signed [B_BITS-1:0] b;
                assign a = A_BITS'(x[i*IN_WIDTH+:IN_WIDTH]);
                assign b = B_BITS'(w[(p*SIMD+i)*WEIGHT_WIDTH+:WEIGHT_WIDTH]);
                if (PACKED == 0 || (p == PE - 1 && PE % 2 == 1)) begin : g_one
                    logic signed [PW-1:0] product;
                    always_ff @(posedge clk) if (enable) product <= PW'(a) * PW'(b);
                    assign raw[(p*SIMD+i)*PW+:PW] = product;
                end else if (p % 2 == 0) begin : g_two
                    logic signed [B_BITS-1:0] upper;
                    logic signed [PW+B_BITS:0] packed_;
                    logic signed [2*PW-1:0] products;
                    assign upper = B_BITS'(w[((p+1)*SIMD+i)*WEIGHT_WIDTH+:WEIGHT_WIDTH]);
                    assign packed_ = ((PW + B_BITS + 1)'(upper) <<< PW) + (PW + B_BITS + 1)'(b);
                    always_ff @(posedge clk) if (enable) products <= (2 * PW)'(a) * (2 * PW)'(packed_);
                    assign raw[(p*SIMD+i)*PW+:PW] = products[PW-1:0];
                    assign raw[((p+1)*SIMD+i)*PW+:PW] = products[2*PW-1:PW] + PW'({1'b0, products[PW-1]});
                end
            end
        end
        for (p = 0; p < PE; p = p + 1) begin : g_pe
            logic signed [SIMD*PW-1:0] products;
            logic signed [TW-1:0] tree, sum;
            logic signed [OUT_WIDTH-1:0] total, so_far, next;
            assign products = raw[p*SIMD*PW+:SIMD*PW];
            always_comb begin
                tree = 0;
                for (int k = 0; k < SIMD; k++) tree = tree + TW'($signed(products[k*PW+:PW]));
            end
            always_ff @(posedge clk) if (enable) sum <= tree;
            assign so_far = first[3] ? 0 : total;
            assign next = so_far + OUT_WIDTH'(sum);
            always_ff @(posedge clk) if (enable && valid[3]) total <= next;
            always_ff @(posedge clk)
                if (enable && valid[3] && final_[3])
                    out_data[p*OUT_WIDTH+:OUT_WIDTH] <=
                        (next <<< PRODUCT_SHIFT) + $signed(bias[p*OUT_WIDTH+:OUT_WIDTH]);
        end
    endgenerate

    always_ff @(posedge clk)
        if (reset) out_valid <= 0;
        else if (enable) out_valid <= valid[3] && final_[3];
endmodule
