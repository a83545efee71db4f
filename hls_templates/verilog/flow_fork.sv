// One stream for several readers. Each branch takes a beat when it can, once; the next comes when all have it.
module flow_fork #(
    parameter int WIDTH = 8,
    parameter int BRANCHES = 2
) (
    input  logic                clk,
    input  logic                reset,
    input  logic                in_valid,
    output logic                in_ready,
    input  logic [WIDTH-1:0]    in_data,
    output logic [BRANCHES-1:0] out_valid,
    input  logic [BRANCHES-1:0] out_ready,
    output logic [WIDTH-1:0]    out_data
);
    logic [BRANCHES-1:0] taken;

    assign out_data = in_data;
    assign out_valid = {BRANCHES{in_valid}} & ~taken;
    assign in_ready = &(taken | out_ready);

    always_ff @(posedge clk)
        if (reset || (in_valid && in_ready)) taken <= 0;
        else taken <= taken | (out_valid & out_ready);
endmodule
