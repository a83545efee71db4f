// What Gowin's multipliers and block RAMs compute, in the modes that yosys uses; its own cells_sim.v has the other cells.
// Anything else stops the simulation. The lowest bits of an address enable bytes for writing, where a word has several.

`define FLOW_WIDTH(W, B) ((W) < 8 ? (W) : (W) / (B) * 8)
`define FLOW_ENABLES(W, B, AT) ((W) >= 2 * (B) ? 8'(AT[3:0]) : 8'hff)
`define FLOW_INITS `FLOW_ZEROS(INIT_RAM_0), `FLOW_ZEROS(INIT_RAM_1), `FLOW_ZEROS(INIT_RAM_2), `FLOW_ZEROS(INIT_RAM_3)
`define FLOW_INIT {`FLOW_DOWN(INIT_RAM_3), `FLOW_DOWN(INIT_RAM_2), `FLOW_DOWN(INIT_RAM_1), `FLOW_DOWN(INIT_RAM_0)}
`define FLOW_MODE(M) ((M) == 0 ? 2 : (M) == 1 ? 1 : 0)

// ---- bytes of 8 bits

module SP #(
    parameter READ_MODE = 1'b0, WRITE_MODE = 2'b00, BIT_WIDTH = 32, BLK_SEL = 3'b000, RESET_MODE = "SYNC",
    parameter [255:0] `FLOW_INITS
) (
    output [31:0] DO,
    input [31:0] DI,
    input [2:0] BLKSEL,
    input [13:0] AD,
    input WRE, CLK, CE, OCE, RESET
);
    wire [63:0] word, unused;
    initial if (READ_MODE != 0) $fatal(1, "SP: output registers are not modelled");
    flow_block_ram #(
        .BITS(8), .A_READ(`FLOW_WIDTH(BIT_WIDTH, 8)), .A_WRITE(`FLOW_WIDTH(BIT_WIDTH, 8)),
        .A_MODE(`FLOW_MODE(WRITE_MODE)), .INIT(`FLOW_INIT)
    ) memory (
        .clk(CLK), .a_enable(CE && BLKSEL == BLK_SEL), .a_reset(RESET), .a_at(16'(AD)), .a_in(64'(DI)), .a_out(word),
        .a_write(WRE ? `FLOW_ENABLES(BIT_WIDTH, 8, AD) : 8'd0),
        .b_enable(1'b0), .b_reset(1'b0), .b_at(16'd0), .b_in(64'd0), .b_out(unused), .b_write(8'd0)
    );
    assign DO = word[31:0];
endmodule

module SDPB #(
    parameter READ_MODE = 1'b0, BIT_WIDTH_0 = 32, BIT_WIDTH_1 = 32, BLK_SEL_0 = 3'b000, BLK_SEL_1 = 3'b000,
    parameter RESET_MODE = "SYNC",
    parameter [255:0] `FLOW_INITS
) (
    output [31:0] DO,
    input [31:0] DI,
    input [2:0] BLKSELA, BLKSELB,
    input [13:0] ADA, ADB,
    input CLKA, CLKB, CEA, CEB, OCE, RESETA, RESETB
);
    wire [63:0] word, unused;
    initial if (READ_MODE != 0) $fatal(1, "SDPB: output registers are not modelled");
    flow_block_ram #(
        .BITS(8), .A_WRITE(`FLOW_WIDTH(BIT_WIDTH_0, 8)), .B_READ(`FLOW_WIDTH(BIT_WIDTH_1, 8)), .INIT(`FLOW_INIT)
    ) memory (
        .clk(CLKB), .a_enable(CEA && BLKSELA == BLK_SEL_0), .a_reset(RESETA), .a_at(16'(ADA)), .a_in(64'(DI)),
        .a_out(unused), .a_write(`FLOW_ENABLES(BIT_WIDTH_0, 8, ADA)),
        .b_enable(CEB && BLKSELB == BLK_SEL_1), .b_reset(RESETB), .b_at(16'(ADB)), .b_in(64'd0), .b_out(word),
        .b_write(8'd0)
    );
    assign DO = word[31:0];
endmodule

module DPB #(
    parameter READ_MODE0 = 1'b0, READ_MODE1 = 1'b0, WRITE_MODE0 = 2'b00, WRITE_MODE1 = 2'b00,
    parameter BIT_WIDTH_0 = 16, BIT_WIDTH_1 = 16, BLK_SEL_0 = 3'b000, BLK_SEL_1 = 3'b000, RESET_MODE = "SYNC",
    parameter [255:0] `FLOW_INITS
) (
    output [15:0] DOA, DOB,
    input [15:0] DIA, DIB,
    input [2:0] BLKSELA, BLKSELB,
    input [13:0] ADA, ADB,
    input WREA, WREB, CLKA, CLKB, CEA, CEB, OCEA, OCEB, RESETA, RESETB
);
    wire [63:0] a_word, b_word;
    initial if (READ_MODE0 != 0 || READ_MODE1 != 0) $fatal(1, "DPB: output registers are not modelled");
    flow_block_ram #(
        .BITS(8), .A_READ(`FLOW_WIDTH(BIT_WIDTH_0, 8)), .A_WRITE(`FLOW_WIDTH(BIT_WIDTH_0, 8)),
        .B_READ(`FLOW_WIDTH(BIT_WIDTH_1, 8)), .B_WRITE(`FLOW_WIDTH(BIT_WIDTH_1, 8)),
        .A_MODE(`FLOW_MODE(WRITE_MODE0)), .B_MODE(`FLOW_MODE(WRITE_MODE1)), .COLLIDES(1), .INIT(`FLOW_INIT)
    ) memory (
        .clk(CLKA), .a_enable(CEA && BLKSELA == BLK_SEL_0), .a_reset(RESETA), .a_at(16'(ADA)), .a_in(64'(DIA)),
        .a_out(a_word), .a_write(WREA ? `FLOW_ENABLES(BIT_WIDTH_0, 8, ADA) : 8'd0),
        .b_enable(CEB && BLKSELB == BLK_SEL_1), .b_reset(RESETB), .b_at(16'(ADB)), .b_in(64'(DIB)),
        .b_out(b_word), .b_write(WREB ? `FLOW_ENABLES(BIT_WIDTH_1, 8, ADB) : 8'd0)
    );
    assign DOA = a_word[15:0];
    assign DOB = b_word[15:0];
endmodule

// ---- bytes of 9 bits

module SPX9 #(
    parameter READ_MODE = 1'b0, WRITE_MODE = 2'b00, BIT_WIDTH = 36, BLK_SEL = 3'b000, RESET_MODE = "SYNC",
    parameter [287:0] `FLOW_INITS
) (
    output [35:0] DO,
    input [35:0] DI,
    input [2:0] BLKSEL,
    input [13:0] AD,
    input WRE, CLK, CE, OCE, RESET
);
    wire [71:0] word, unused;
    initial if (READ_MODE != 0) $fatal(1, "SPX9: output registers are not modelled");
    flow_block_ram #(
        .BITS(9), .A_READ(`FLOW_WIDTH(BIT_WIDTH, 9)), .A_WRITE(`FLOW_WIDTH(BIT_WIDTH, 9)),
        .A_MODE(`FLOW_MODE(WRITE_MODE)), .INIT(`FLOW_INIT)
    ) memory (
        .clk(CLK), .a_enable(CE && BLKSEL == BLK_SEL), .a_reset(RESET), .a_at(16'(AD)), .a_in(72'(DI)), .a_out(word),
        .a_write(WRE ? `FLOW_ENABLES(BIT_WIDTH, 9, AD) : 8'd0),
        .b_enable(1'b0), .b_reset(1'b0), .b_at(16'd0), .b_in(72'd0), .b_out(unused), .b_write(8'd0)
    );
    assign DO = word[35:0];
endmodule

module SDPX9B #(
    parameter READ_MODE = 1'b0, BIT_WIDTH_0 = 36, BIT_WIDTH_1 = 36, BLK_SEL_0 = 3'b000, BLK_SEL_1 = 3'b000,
    parameter RESET_MODE = "SYNC",
    parameter [287:0] `FLOW_INITS
) (
    output [35:0] DO,
    input [35:0] DI,
    input [2:0] BLKSELA, BLKSELB,
    input [13:0] ADA, ADB,
    input CLKA, CLKB, CEA, CEB, OCE, RESETA, RESETB
);
    wire [71:0] word, unused;
    initial if (READ_MODE != 0) $fatal(1, "SDPX9B: output registers are not modelled");
    flow_block_ram #(
        .BITS(9), .A_WRITE(`FLOW_WIDTH(BIT_WIDTH_0, 9)), .B_READ(`FLOW_WIDTH(BIT_WIDTH_1, 9)), .INIT(`FLOW_INIT)
    ) memory (
        .clk(CLKB), .a_enable(CEA && BLKSELA == BLK_SEL_0), .a_reset(RESETA), .a_at(16'(ADA)), .a_in(72'(DI)),
        .a_out(unused), .a_write(`FLOW_ENABLES(BIT_WIDTH_0, 9, ADA)),
        .b_enable(CEB && BLKSELB == BLK_SEL_1), .b_reset(RESETB), .b_at(16'(ADB)), .b_in(72'd0), .b_out(word),
        .b_write(8'd0)
    );
    assign DO = word[35:0];
endmodule

module DPX9B #(
    parameter READ_MODE0 = 1'b0, READ_MODE1 = 1'b0, WRITE_MODE0 = 2'b00, WRITE_MODE1 = 2'b00,
    parameter BIT_WIDTH_0 = 18, BIT_WIDTH_1 = 18, BLK_SEL_0 = 3'b000, BLK_SEL_1 = 3'b000, RESET_MODE = "SYNC",
    parameter [287:0] `FLOW_INITS
) (
    output [17:0] DOA, DOB,
    input [17:0] DIA, DIB,
    input [2:0] BLKSELA, BLKSELB,
    input [13:0] ADA, ADB,
    input WREA, WREB, CLKA, CLKB, CEA, CEB, OCEA, OCEB, RESETA, RESETB
);
    wire [71:0] a_word, b_word;
    initial if (READ_MODE0 != 0 || READ_MODE1 != 0) $fatal(1, "DPX9B: output registers are not modelled");
    flow_block_ram #(
        .BITS(9), .A_READ(`FLOW_WIDTH(BIT_WIDTH_0, 9)), .A_WRITE(`FLOW_WIDTH(BIT_WIDTH_0, 9)),
        .B_READ(`FLOW_WIDTH(BIT_WIDTH_1, 9)), .B_WRITE(`FLOW_WIDTH(BIT_WIDTH_1, 9)),
        .A_MODE(`FLOW_MODE(WRITE_MODE0)), .B_MODE(`FLOW_MODE(WRITE_MODE1)), .COLLIDES(1), .INIT(`FLOW_INIT)
    ) memory (
        .clk(CLKA), .a_enable(CEA && BLKSELA == BLK_SEL_0), .a_reset(RESETA), .a_at(16'(ADA)), .a_in(72'(DIA)),
        .a_out(a_word), .a_write(WREA ? `FLOW_ENABLES(BIT_WIDTH_0, 9, ADA) : 8'd0),
        .b_enable(CEB && BLKSELB == BLK_SEL_1), .b_reset(RESETB), .b_at(16'(ADB)), .b_in(72'(DIB)),
        .b_out(b_word), .b_write(WREB ? `FLOW_ENABLES(BIT_WIDTH_1, 9, ADB) : 8'd0)
    );
    assign DOA = a_word[17:0];
    assign DOB = b_word[17:0];
endmodule

// ---- multipliers

module MULT9X9 (
    input [8:0] A, SIA, B, SIB,
    input ASIGN, BSIGN, ASEL, BSEL, CE, CLK, RESET,
    output [17:0] DOUT,
    output [8:0] SOA, SOB
);
    wire signed [9:0] x = {ASIGN && A[8], A};
    wire signed [9:0] y = {BSIGN && B[8], B};
    wire signed [19:0] product = x * y;
    assign DOUT = product[17:0];
    always @* if (ASEL || BSEL) $fatal(1, "MULT9X9: only direct inputs are modelled");
endmodule

module MULT18X18 (
    input [17:0] A, SIA, B, SIB,
    input ASIGN, BSIGN, ASEL, BSEL, CE, CLK, RESET,
    output [35:0] DOUT,
    output [17:0] SOA, SOB
);
    wire signed [18:0] x = {ASIGN && A[17], A};
    wire signed [18:0] y = {BSIGN && B[17], B};
    wire signed [37:0] product = x * y;
    assign DOUT = product[35:0];
    always @* if (ASEL || BSEL) $fatal(1, "MULT18X18: only direct inputs are modelled");
endmodule

module MULT36X36 (
    input [35:0] A, B,
    input ASIGN, BSIGN, CE, CLK, RESET,
    output [71:0] DOUT
);
    wire signed [36:0] x = {ASIGN && A[35], A};
    wire signed [36:0] y = {BSIGN && B[35], B};
    wire signed [73:0] product = x * y;
    assign DOUT = product[71:0];
endmodule
