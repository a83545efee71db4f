// First in, first out. A beat stays at least two clocks; one beat a clock. `in_ready` comes from registers alone, so
// that a FIFO between two stages cuts the path of ready. Memory: DEPTH words, read by the clock (block RAM if deep).
module flow_fifo #(
    parameter int WIDTH = 8,
    parameter int DEPTH = 2
) (
    input  logic             clk,
    input  logic             reset,
    input  logic             in_valid,
    output logic             in_ready,
    input  logic [WIDTH-1:0] in_data,
    output logic             out_valid,
    input  logic             out_ready,
    output logic [WIDTH-1:0] out_data
);
    localparam int AW = DEPTH > 1 ? $clog2(DEPTH) : 1;
    localparam int CW = $clog2(DEPTH + 1);

    logic [WIDTH-1:0] words [0:DEPTH-1];
    logic [AW-1:0] write_at, read_at;
    logic [CW-1:0] stored;
    logic push, fetch;

    assign in_ready = stored != CW'(DEPTH);
    assign push = in_valid && in_ready;
    assign fetch = stored != 0 && (!out_valid || out_ready);

    always_ff @(posedge clk) begin
        if (push) words[write_at] <= in_data;
        if (fetch) out_data <= words[read_at];
    end

    always_ff @(posedge clk)
        if (reset) begin
            write_at <= 0;
            read_at <= 0;
            stored <= 0;
            out_valid <= 0;
        end else begin
            if (push) write_at <= write_at == AW'(DEPTH - 1) ? 0 : write_at + 1;
            if (fetch) read_at <= read_at == AW'(DEPTH - 1) ? 0 : read_at + 1;
            if (push && !fetch) stored <= stored + 1;
            if (fetch && !push) stored <= stored - 1;
            if (fetch) out_valid <= 1;
            else if (out_ready) out_valid <= 0;
        end
endmodule
