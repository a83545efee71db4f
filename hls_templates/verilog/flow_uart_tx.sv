// Sends bytes on a serial line: 8 data bits, no parity, one stop bit.
module flow_uart_tx #(
    parameter int CLOCKS_PER_BIT = 25
) (
    input  logic       clk,
    input  logic       reset,
    input  logic       valid,
    output logic       ready,
    input  logic [7:0] data,
    output logic       tx
);
    localparam int CW = $clog2(CLOCKS_PER_BIT);

    logic [CW-1:0] count;
    logic [9:0] bits;  // the lowest is on the line; ones follow the stop bit
    logic [3:0] left;

    assign ready = left == 0;

    always_ff @(posedge clk)
        if (reset) begin
            left <= 0;
            bits <= '1;
            count <= 0;
        end else if (ready) begin
            count <= CW'(CLOCKS_PER_BIT - 1);
            if (valid) begin
                bits <= {1'b1, data, 1'b0};
                left <= 10;
            end
        end else if (count != 0) count <= count - 1;
        else begin
            count <= CW'(CLOCKS_PER_BIT - 1);
            bits <= {1'b1, bits[9:1]};
            left <= left - 1;
        end

    assign tx = bits[0];
endmodule
