// A function from a table, lane by lane: word x - (the lowest x) of VALUES. One clock.
module flow_table #(
    parameter int IN_WIDTH = 4,
    parameter int IN_SIGNED = 1,
    parameter int OUT_WIDTH = 8,
    parameter int LANES = 1,
    parameter VALUES = "values.hex"
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
    localparam logic [IN_WIDTH-1:0] LOWEST = IN_SIGNED != 0 ? {1'b1, {(IN_WIDTH - 1) {1'b0}}} : 0;

    logic [OUT_WIDTH-1:0] values [0:(1<<IN_WIDTH)-1];
    initial $readmemh(VALUES, values);

    assign in_ready = !out_valid || out_ready;

    genvar lane;
    generate
        for (lane = 0; lane < LANES; lane = lane + 1) begin : g_lane
            always_ff @(posedge clk)
                if (in_ready) out_data[lane*OUT_WIDTH+:OUT_WIDTH] <= values[in_data[lane*IN_WIDTH+:IN_WIDTH] ^ LOWEST];
        end
    endgenerate

    always_ff @(posedge clk)
        if (reset) out_valid <= 0;
        else if (in_ready) out_valid <= in_valid;
endmodule
