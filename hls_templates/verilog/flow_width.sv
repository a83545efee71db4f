// Another number of lanes; one of the two divides the other. The wider side moves a beat in every ratio clocks.
module flow_width #(
    parameter int WIDTH = 8,
    parameter int IN_LANES = 1,
    parameter int OUT_LANES = 2
) (
    input  logic                       clk,
    input  logic                       reset,
    input  logic                       in_valid,
    output logic                       in_ready,
    input  logic [IN_LANES*WIDTH-1:0]  in_data,
    output logic                       out_valid,
    input  logic                       out_ready,
    output logic [OUT_LANES*WIDTH-1:0] out_data
);
    localparam int RATIO = IN_LANES > OUT_LANES ? IN_LANES / OUT_LANES : OUT_LANES / IN_LANES;
    localparam int CW = RATIO > 1 ? $clog2(RATIO) : 1;

    logic [CW-1:0] part;
    logic last;
    assign last = part == CW'(RATIO - 1);

    generate
        if (OUT_LANES > IN_LANES) begin : g_widen
            assign in_ready = !out_valid || out_ready;

            always_ff @(posedge clk)
                if (in_valid && in_ready) out_data <= {in_data, out_data[OUT_LANES*WIDTH-1:IN_LANES*WIDTH]};

            always_ff @(posedge clk)
                if (reset) begin
                    part <= 0;
                    out_valid <= 0;
                end else begin
                    if (in_valid && in_ready) part <= last ? 0 : part + 1;
                    if (in_valid && in_ready && last) out_valid <= 1;
                    else if (out_ready) out_valid <= 0;
                end
        end else if (OUT_LANES < IN_LANES) begin : g_narrow
            logic [IN_LANES*WIDTH-1:0] kept;
            assign in_ready = !out_valid || (out_ready && last);
            assign out_data = kept[OUT_LANES*WIDTH-1:0];

            always_ff @(posedge clk)
                if (in_valid && in_ready) kept <= in_data;
                else if (out_ready) kept <= kept >> (OUT_LANES * WIDTH);

            always_ff @(posedge clk)
                if (reset) begin
                    part <= 0;
                    out_valid <= 0;
                end else begin
                    if (out_valid && out_ready) part <= last ? 0 : part + 1;
                    if (in_valid && in_ready) out_valid <= 1;
                    else if (out_ready && last) out_valid <= 0;
                end
        end else begin : g_same
            assign part = 0;
            assign in_ready = out_ready;
            assign out_valid = in_valid;
            assign out_data = in_data;
        end
    endgenerate
endmodule
