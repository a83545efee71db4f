// What the block RAMs of ECP5, Gowin and 7 series have in common: BYTES of 9 bits behind two clocked ports.
//
// A port is 1, 2, 4, 9, 18, 36 or 72 bits wide, each way (0: not used). Its address counts bits without every ninth.
// Bytes of 9 bits are enabled one by one (we); narrower words by we[0]. MODE: what a port reads where it writes: 0 what
// it read last, 1 what it writes, 2 what was there before. What one port reads where the other one writes at once is
// what was there before with OLD_A (port A reads) and OLD_B, else any bits. One clock drives both ports, or one port
// has none. The family's module fills `bytes`.
module flow_model_ram #(
    parameter int BYTES = 2048,
    parameter int READ_A = 9,
    parameter int WRITE_A = 9,
    parameter int MODE_A = 0,
    parameter bit OLD_A = 0,
    parameter int READ_B = 9,
    parameter int WRITE_B = 9,
    parameter int MODE_B = 0,
    parameter bit OLD_B = 0
) (
    input  logic                       clk_a,
    input  logic                       en_a,
    input  logic [7:0]                 we_a,
    input  logic [$clog2(BYTES)+2:0]   at_a,
    input  logic [71:0]                in_a,
    output logic [71:0]                out_a,
    input  logic                       clk_b,
    input  logic                       en_b,
    input  logic [7:0]                 we_b,
    input  logic [$clog2(BYTES)+2:0]   at_b,
    input  logic [71:0]                in_b,
    output logic [71:0]                out_b
);
    localparam int AW = $clog2(BYTES);
    logic [8:0] bytes [0:BYTES-1];

    function automatic bit known(input int width);
        return width == 0 || width == 1 || width == 2 || width == 4 || width == 9 || width == 18 || width == 36
            || width == 72;
    endfunction

    initial
        if (!known(READ_A) || !known(WRITE_A) || !known(READ_B) || !known(WRITE_B))
            $fatal(1, "block RAM: widths of %0d, %0d, %0d, %0d", READ_A, WRITE_A, READ_B, WRITE_B);

    function automatic logic [71:0] found(input int width, input logic [AW+2:0] at);
        logic [71:0] word = 0;
        if (width < 9) begin
            for (int i = 0; i < width; i++) word[i] = bytes[at[AW+2:3]][at[2:0] / 3'(width) * 3'(width) + 3'(i)];
        end else
            for (int i = 0; i < width / 9; i++) word[i*9+:9] = bytes[at[AW+2:3] & ~AW'(width / 9 - 1) | AW'(i)];
        return word;
    endfunction

    task automatic put(input int width, input logic [AW+2:0] at, input logic [7:0] we, input logic [71:0] word);
        if (width < 9) begin
            for (int i = 0; i < width; i++)
                if (we[0]) bytes[at[AW+2:3]][at[2:0] / 3'(width) * 3'(width) + 3'(i)] = word[i];
        end else
            for (int i = 0; i < width / 9; i++)
                if (we[i]) bytes[at[AW+2:3] & ~AW'(width / 9 - 1) | AW'(i)] = word[i*9+:9];
    endtask

    logic writes_a, writes_b;
    assign writes_a = en_a && WRITE_A != 0 && we_a != 0;
    assign writes_b = en_b && WRITE_B != 0 && we_b != 0;
    logic [71:0] old_a, old_b, mixed_a, mixed_b;

    // verilator lint_off BLKSEQ
    always @(posedge clk_a or posedge clk_b) begin
        old_a = found(READ_A, at_a);
        old_b = found(READ_B, at_b);
        if (writes_a) put(WRITE_A, at_a, we_a, in_a);
        mixed_b = found(READ_B, at_b);
        if (writes_b) put(WRITE_B, at_b, we_b, in_b);
        mixed_a = found(READ_A, at_a);
        if (en_a && (!writes_a || MODE_A == 2)) out_a <= read(old_a, mixed_a, writes_b && !writes_a && !OLD_A);
        else if (writes_a && MODE_A == 1) out_a <= mixed_a;
        if (en_b && (!writes_b || MODE_B == 2)) out_b <= read(old_b, mixed_b, writes_a && !writes_b && !OLD_B);
        else if (writes_b && MODE_B == 1) out_b <= found(READ_B, at_b);
    end
    // verilator lint_on BLKSEQ

    // bits that the other port changes are whatever comes, where the chip does not say which
    function automatic logic [71:0] read(input logic [71:0] before, input logic [71:0] after, input bit any);
        return any ? before ^ ((before ^ after) & {8'($urandom), $urandom, $urandom}) : before;
    endfunction
endmodule
