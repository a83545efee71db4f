// Receives bytes from a serial line: 8 data bits, no parity, one stop bit. `valid` for one clock a byte. A byte without
// its stop bit is dropped. Bits are taken in their middle; the line may be off by some 4 %.
module flow_uart_rx #(
    parameter int CLOCKS_PER_BIT = 25  // at least 4
) (
    input  logic       clk,
    input  logic       reset,
    input  logic       rx,
    output logic       valid,
    output logic [7:0] data
);
    localparam int CW = $clog2(CLOCKS_PER_BIT);

    logic [2:0] line;  // two flip-flops against metastability, and the level before
    logic [CW-1:0] count;
    logic [3:0] left;  // bits yet to come, start and stop among them

    always_ff @(posedge clk) line <= reset ? 3'b111 : {line[1:0], rx};

    always_ff @(posedge clk) begin
        valid <= 0;
        if (reset) left <= 0;
        else if (left == 0) begin
            if (line[2] && !line[1]) begin
                left <= 10;
                count <= CW'(CLOCKS_PER_BIT / 2 - 1);
            end
        end else if (count != 0) count <= count - 1;
        else begin
            count <= CW'(CLOCKS_PER_BIT - 1);
            left <= left == 10 && line[1] ? 0 : left - 1;
            if (left != 1) data <= {line[1], data[7:1]};
            valid <= left == 1 && line[1];
        end
    end
endmodule
