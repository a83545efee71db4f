// The index of the largest of LANES * FOLDS values, the first of equal ones; one beat a vector.
module flow_argmax #(
    parameter int IN_WIDTH = 8,
    parameter int IN_SIGNED = 1,
    parameter int LANES = 2,
    parameter int FOLDS = 2,
    parameter int OUT_WIDTH = 4
) (
    input  logic                      clk,
    input  logic                      reset,
    input  logic                      in_valid,
    output logic                      in_ready,
    input  logic [LANES*IN_WIDTH-1:0] in_data,
    output logic                      out_valid,
    input  logic                      out_ready,
    output logic [OUT_WIDTH-1:0]      out_data
);
    localparam int CW = FOLDS > 1 ? $clog2(FOLDS) : 1;
    localparam int IW = $clog2(LANES * FOLDS + 1);

    logic [CW-1:0] fold;
    logic [IW-1:0] place, best_place, next_place;
    logic signed [IN_WIDTH:0] best, next_best, value;
    logic last;

    assign in_ready = !out_valid || out_ready;
    assign last = fold == CW'(FOLDS - 1);

    always_comb begin
        next_best = best;
        next_place = best_place;
        for (int lane = 0; lane < LANES; lane++) begin
            value = {IN_SIGNED != 0 && in_data[lane*IN_WIDTH+IN_WIDTH-1], in_data[lane*IN_WIDTH+:IN_WIDTH]};
            if ((fold == 0 && lane == 0) || value > next_best) begin
                next_best = value;
                next_place = place + IW'(lane);
            end
        end
    end

    always_ff @(posedge clk)
        if (reset) begin
            fold <= 0;
            place <= 0;
            out_valid <= 0;
        end else if (in_ready) begin
            out_valid <= in_valid && last;
            if (in_valid) begin
                fold <= last ? 0 : fold + 1;
                place <= last ? 0 : place + IW'(LANES);
            end
        end

    always_ff @(posedge clk)
        if (in_valid && in_ready) begin
            best <= next_best;
            best_place <= next_place;
            out_data <= OUT_WIDTH'(next_place);
        end
endmodule
