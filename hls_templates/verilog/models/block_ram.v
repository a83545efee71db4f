// A block RAM of two ports, as the models of the chips' cells use it, and short forms of their long lists of parameters.

`define FLOW_DOWN(P) P``F, P``E, P``D, P``C, P``B, P``A, P``9, P``8, P``7, P``6, P``5, P``4, P``3, P``2, P``1, P``0
`define FLOW_ZEROS(P) P``0 = 0, P``1 = 0, P``2 = 0, P``3 = 0, P``4 = 0, P``5 = 0, P``6 = 0, P``7 = 0, P``8 = 0, \
    P``9 = 0, P``A = 0, P``B = 0, P``C = 0, P``D = 0, P``E = 0, P``F = 0

// BYTES bytes of BITS bits. A port's width counts bits without parity, as its address does: 1, 2, 4, or 8 a byte; bytes
// of a word are written one by one. What it reads where it writes: MODE 0: what was there, 1: what is written, 2: it
// keeps its output. Where the other port writes it reads what was there, or, with COLLIDES, the opposite of it: on the
// chip that would be undefined, so that no design may depend on it. One clock drives both ports.
module flow_block_ram #(
    parameter integer BYTES = 2048, BITS = 9, A_READ = 0, A_WRITE = 0, B_READ = 0, B_WRITE = 0, A_MODE = 0, B_MODE = 0,
    parameter integer COLLIDES = 0,
    parameter [BYTES*BITS-1:0] INIT = 0
) (
    input clk, a_enable, b_enable, a_reset, b_reset,
    input [7:0] a_write, b_write,
    input [15:0] a_at, b_at,
    input [8*BITS-1:0] a_in, b_in,
    output reg [8*BITS-1:0] a_out, b_out
);
    reg [BITS-1:0] bytes [0:BYTES-1];
    reg [8*BITS-1:0] a_seen, b_seen;
    integer i;
    initial begin
        a_out = 0;
        b_out = 0;
        for (i = 0; i < BYTES; i = i + 1) bytes[i] = INIT[i*BITS+:BITS];
    end

    function integer length(input integer width);
        length = width < 8 ? 1 : width / 8;
    endfunction
    function integer start(input [15:0] at, input integer width);
        start = (at >> 3) / length(width) * length(width) % BYTES;
    endfunction

    function [8*BITS-1:0] found(input [15:0] at, input integer width);
        integer k;
        begin
            found = 0;
            if (width < 8) found[7:0] = (bytes[start(at, width)][7:0] >> at[2:0]) & ((8'd1 << width) - 8'd1);
            else for (k = 0; k < width / 8; k = k + 1) found[k*BITS+:BITS] = bytes[start(at, width) + k];
        end
    endfunction

    task put(input [15:0] at, input integer width, input [7:0] write, input [8*BITS-1:0] data);
        integer k;
        if (width < 8) begin
            for (k = 0; k < width; k = k + 1) if (write[0]) bytes[start(at, width)][at[2:0]+k] = data[k];
        end else
            for (k = 0; k < width / 8; k = k + 1)
                if (write[k]) bytes[start(at, width) + k] = data[k*BITS+:BITS];
    endtask

    function meet(input [15:0] read_at, input integer read, input [15:0] write_at, input integer write);
        meet = COLLIDES != 0 && read != 0 && read_at / read * read < write_at / write * write + write
            && write_at / write * write < read_at / read * read + read;
    endfunction

    wire a_writes = A_WRITE != 0 && a_enable && a_write != 0;
    wire b_writes = B_WRITE != 0 && b_enable && b_write != 0;

    // verilator lint_off BLKSEQ
    always @(posedge clk) begin
        a_seen = found(a_at, A_READ);
        b_seen = found(b_at, B_READ);
        if (b_writes && meet(a_at, A_READ, b_at, B_WRITE)) a_seen = ~a_seen;
        if (a_writes && meet(b_at, B_READ, a_at, A_WRITE)) b_seen = ~b_seen;
        if (a_writes) put(a_at, A_WRITE, a_write, a_in);
        if (b_writes) put(b_at, B_WRITE, b_write, b_in);
        if (a_writes && A_MODE == 1) a_seen = found(a_at, A_READ);
        if (b_writes && B_MODE == 1) b_seen = found(b_at, B_READ);
        if (a_reset) a_out <= 0;
        else if (a_enable && A_READ != 0 && !(a_writes && A_MODE == 2)) a_out <= a_seen;
        if (b_reset) b_out <= 0;
        else if (b_enable && B_READ != 0 && !(b_writes && B_MODE == 2)) b_out <= b_seen;
    end
    // verilator lint_on BLKSEQ
endmodule
