// A_BEATS beats of a, then B_BEATS of b, and so on: channels put together. No registers on the way.
module flow_concat #(
    parameter int WIDTH = 8,
    parameter int A_BEATS = 1,
    parameter int B_BEATS = 1
) (
    input  logic             clk,
    input  logic             reset,
    input  logic             a_valid,
    output logic             a_ready,
    input  logic [WIDTH-1:0] a_data,
    input  logic             b_valid,
    output logic             b_ready,
    input  logic [WIDTH-1:0] b_data,
    output logic             out_valid,
    input  logic             out_ready,
    output logic [WIDTH-1:0] out_data
);
    localparam int CW = $clog2(A_BEATS + B_BEATS);

    logic [CW-1:0] beat;
    logic second;
    assign second = beat >= CW'(A_BEATS);
    assign out_valid = second ? b_valid : a_valid;
    assign out_data = second ? b_data : a_data;
    assign a_ready = out_ready && !second;
    assign b_ready = out_ready && second;

    always_ff @(posedge clk)
        if (reset) beat <= 0;
        else if (out_valid && out_ready) beat <= beat == CW'(A_BEATS + B_BEATS - 1) ? 0 : beat + 1;
endmodule
