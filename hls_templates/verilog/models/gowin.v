// What Gowin's multipliers and block RAMs compute, in the modes that yosys uses; yosys' own cells_sim.v has the other cells.
// Anything else stops the simulation.

// 2,048 bytes of 8 or 9 bits. An address counts bits without parity; with several bytes a word, its lowest bits enable
// them for writing.
module flow_gowin_bytes #(
    parameter integer BYTE = 9, WRITE_BITS = 36, READ_BITS = 36, WRITE_MODE = 0,
    parameter [18431:0] INIT = 0
) (
    input clk, write, read, reset,
    input [13:0] write_at, read_at,
    input [35:0] di,
    output reg [35:0] dout
);
    localparam integer WRITE_BYTES = WRITE_BITS / BYTE, READ_BYTES = READ_BITS / BYTE;
    reg [BYTE-1:0] bytes [0:2047];
    reg [35:0] seen, passed;
    integer i;
    initial begin
        dout = 0;
        for (i = 0; i < 2048; i = i + 1) bytes[i] = INIT[i*BYTE+:BYTE];
    end

    function [35:0] found(input [13:0] at);
        integer k;
        begin
            found = 0;
            if (READ_BYTES == 0)
                found[7:0] = (bytes[at[13:3]][7:0] >> at[2:0]) & ((8'd1 << READ_BITS) - 8'd1);
            else
                for (k = 0; k < READ_BYTES; k = k + 1)
                    found[k*BYTE+:BYTE] = bytes[at[13:3] / READ_BYTES * READ_BYTES + k];
        end
    endfunction

    task put(input [13:0] at, input [35:0] data);
        integer k;
        begin
            if (WRITE_BYTES == 0) begin
                for (k = 0; k < WRITE_BITS; k = k + 1) bytes[at[13:3]][at[2:0]+k] = data[k];
            end else
                for (k = 0; k < WRITE_BYTES; k = k + 1)
                    if (WRITE_BYTES == 1 || at[k])
                        bytes[at[13:3] / WRITE_BYTES * WRITE_BYTES + k] = data[k*BYTE+:BYTE];
        end
    endtask

    // verilator lint_off BLKSEQ
    always @(posedge clk) begin
        seen = found(read_at);
        if (write) put(write_at, di);
        passed = found(read_at);
        if (reset) dout <= 0;
        else if (read) dout <= WRITE_MODE == 1 ? passed : seen;
    end
    // verilator lint_on BLKSEQ
endmodule

module SP #(
    parameter READ_MODE = 1'b0, WRITE_MODE = 2'b00, BIT_WIDTH = 32, BLK_SEL = 3'b000, RESET_MODE = "SYNC",
    parameter [255:0] INIT_RAM_00 = 0, INIT_RAM_01 = 0, INIT_RAM_02 = 0, INIT_RAM_03 = 0, INIT_RAM_04 = 0,
        INIT_RAM_05 = 0, INIT_RAM_06 = 0, INIT_RAM_07 = 0, INIT_RAM_08 = 0, INIT_RAM_09 = 0, INIT_RAM_0A = 0,
        INIT_RAM_0B = 0, INIT_RAM_0C = 0, INIT_RAM_0D = 0, INIT_RAM_0E = 0, INIT_RAM_0F = 0, INIT_RAM_10 = 0,
        INIT_RAM_11 = 0, INIT_RAM_12 = 0, INIT_RAM_13 = 0, INIT_RAM_14 = 0, INIT_RAM_15 = 0, INIT_RAM_16 = 0,
        INIT_RAM_17 = 0, INIT_RAM_18 = 0, INIT_RAM_19 = 0, INIT_RAM_1A = 0, INIT_RAM_1B = 0, INIT_RAM_1C = 0,
        INIT_RAM_1D = 0, INIT_RAM_1E = 0, INIT_RAM_1F = 0, INIT_RAM_20 = 0, INIT_RAM_21 = 0, INIT_RAM_22 = 0,
        INIT_RAM_23 = 0, INIT_RAM_24 = 0, INIT_RAM_25 = 0, INIT_RAM_26 = 0, INIT_RAM_27 = 0, INIT_RAM_28 = 0,
        INIT_RAM_29 = 0, INIT_RAM_2A = 0, INIT_RAM_2B = 0, INIT_RAM_2C = 0, INIT_RAM_2D = 0, INIT_RAM_2E = 0,
        INIT_RAM_2F = 0, INIT_RAM_30 = 0, INIT_RAM_31 = 0, INIT_RAM_32 = 0, INIT_RAM_33 = 0, INIT_RAM_34 = 0,
        INIT_RAM_35 = 0, INIT_RAM_36 = 0, INIT_RAM_37 = 0, INIT_RAM_38 = 0, INIT_RAM_39 = 0, INIT_RAM_3A = 0,
        INIT_RAM_3B = 0, INIT_RAM_3C = 0, INIT_RAM_3D = 0, INIT_RAM_3E = 0, INIT_RAM_3F = 0
) (
    output [31:0] DO,
    input [31:0] DI,
    input [2:0] BLKSEL,
    input [13:0] AD,
    input WRE, CLK, CE, OCE, RESET
);
    localparam [16383:0] INIT = {INIT_RAM_3F, INIT_RAM_3E, INIT_RAM_3D, INIT_RAM_3C, INIT_RAM_3B, INIT_RAM_3A,
        INIT_RAM_39, INIT_RAM_38, INIT_RAM_37, INIT_RAM_36, INIT_RAM_35, INIT_RAM_34, INIT_RAM_33, INIT_RAM_32,
        INIT_RAM_31, INIT_RAM_30, INIT_RAM_2F, INIT_RAM_2E, INIT_RAM_2D, INIT_RAM_2C, INIT_RAM_2B, INIT_RAM_2A,
        INIT_RAM_29, INIT_RAM_28, INIT_RAM_27, INIT_RAM_26, INIT_RAM_25, INIT_RAM_24, INIT_RAM_23, INIT_RAM_22,
        INIT_RAM_21, INIT_RAM_20, INIT_RAM_1F, INIT_RAM_1E, INIT_RAM_1D, INIT_RAM_1C, INIT_RAM_1B, INIT_RAM_1A,
        INIT_RAM_19, INIT_RAM_18, INIT_RAM_17, INIT_RAM_16, INIT_RAM_15, INIT_RAM_14, INIT_RAM_13, INIT_RAM_12,
        INIT_RAM_11, INIT_RAM_10, INIT_RAM_0F, INIT_RAM_0E, INIT_RAM_0D, INIT_RAM_0C, INIT_RAM_0B, INIT_RAM_0A,
        INIT_RAM_09, INIT_RAM_08, INIT_RAM_07, INIT_RAM_06, INIT_RAM_05, INIT_RAM_04, INIT_RAM_03, INIT_RAM_02,
        INIT_RAM_01, INIT_RAM_00};
    wire [35:0] word;
    initial if (READ_MODE != 0) $fatal(1, "SP: output registers are not modelled");
    flow_gowin_bytes #(
        .BYTE(8), .WRITE_BITS(BIT_WIDTH), .READ_BITS(BIT_WIDTH), .WRITE_MODE(WRITE_MODE), .INIT(18432'(INIT))
    ) memory (
        .clk(CLK), .write(CE && WRE && BLKSEL == BLK_SEL), .read(CE && (!WRE || WRITE_MODE != 0)), .reset(RESET),
        .write_at(AD), .read_at(AD), .di(36'(DI)), .dout(word)
    );
    assign DO = word[31:0];
endmodule

module SPX9 #(
    parameter READ_MODE = 1'b0, WRITE_MODE = 2'b00, BIT_WIDTH = 36, BLK_SEL = 3'b000, RESET_MODE = "SYNC",
    parameter [287:0] INIT_RAM_00 = 0, INIT_RAM_01 = 0, INIT_RAM_02 = 0, INIT_RAM_03 = 0, INIT_RAM_04 = 0,
        INIT_RAM_05 = 0, INIT_RAM_06 = 0, INIT_RAM_07 = 0, INIT_RAM_08 = 0, INIT_RAM_09 = 0, INIT_RAM_0A = 0,
        INIT_RAM_0B = 0, INIT_RAM_0C = 0, INIT_RAM_0D = 0, INIT_RAM_0E = 0, INIT_RAM_0F = 0, INIT_RAM_10 = 0,
        INIT_RAM_11 = 0, INIT_RAM_12 = 0, INIT_RAM_13 = 0, INIT_RAM_14 = 0, INIT_RAM_15 = 0, INIT_RAM_16 = 0,
        INIT_RAM_17 = 0, INIT_RAM_18 = 0, INIT_RAM_19 = 0, INIT_RAM_1A = 0, INIT_RAM_1B = 0, INIT_RAM_1C = 0,
        INIT_RAM_1D = 0, INIT_RAM_1E = 0, INIT_RAM_1F = 0, INIT_RAM_20 = 0, INIT_RAM_21 = 0, INIT_RAM_22 = 0,
        INIT_RAM_23 = 0, INIT_RAM_24 = 0, INIT_RAM_25 = 0, INIT_RAM_26 = 0, INIT_RAM_27 = 0, INIT_RAM_28 = 0,
        INIT_RAM_29 = 0, INIT_RAM_2A = 0, INIT_RAM_2B = 0, INIT_RAM_2C = 0, INIT_RAM_2D = 0, INIT_RAM_2E = 0,
        INIT_RAM_2F = 0, INIT_RAM_30 = 0, INIT_RAM_31 = 0, INIT_RAM_32 = 0, INIT_RAM_33 = 0, INIT_RAM_34 = 0,
        INIT_RAM_35 = 0, INIT_RAM_36 = 0, INIT_RAM_37 = 0, INIT_RAM_38 = 0, INIT_RAM_39 = 0, INIT_RAM_3A = 0,
        INIT_RAM_3B = 0, INIT_RAM_3C = 0, INIT_RAM_3D = 0, INIT_RAM_3E = 0, INIT_RAM_3F = 0
) (
    output [35:0] DO,
    input [35:0] DI,
    input [2:0] BLKSEL,
    input [13:0] AD,
    input WRE, CLK, CE, OCE, RESET
);
    localparam [18431:0] INIT = {INIT_RAM_3F, INIT_RAM_3E, INIT_RAM_3D, INIT_RAM_3C, INIT_RAM_3B, INIT_RAM_3A,
        INIT_RAM_39, INIT_RAM_38, INIT_RAM_37, INIT_RAM_36, INIT_RAM_35, INIT_RAM_34, INIT_RAM_33, INIT_RAM_32,
        INIT_RAM_31, INIT_RAM_30, INIT_RAM_2F, INIT_RAM_2E, INIT_RAM_2D, INIT_RAM_2C, INIT_RAM_2B, INIT_RAM_2A,
        INIT_RAM_29, INIT_RAM_28, INIT_RAM_27, INIT_RAM_26, INIT_RAM_25, INIT_RAM_24, INIT_RAM_23, INIT_RAM_22,
        INIT_RAM_21, INIT_RAM_20, INIT_RAM_1F, INIT_RAM_1E, INIT_RAM_1D, INIT_RAM_1C, INIT_RAM_1B, INIT_RAM_1A,
        INIT_RAM_19, INIT_RAM_18, INIT_RAM_17, INIT_RAM_16, INIT_RAM_15, INIT_RAM_14, INIT_RAM_13, INIT_RAM_12,
        INIT_RAM_11, INIT_RAM_10, INIT_RAM_0F, INIT_RAM_0E, INIT_RAM_0D, INIT_RAM_0C, INIT_RAM_0B, INIT_RAM_0A,
        INIT_RAM_09, INIT_RAM_08, INIT_RAM_07, INIT_RAM_06, INIT_RAM_05, INIT_RAM_04, INIT_RAM_03, INIT_RAM_02,
        INIT_RAM_01, INIT_RAM_00};
    wire [35:0] word;
    initial if (READ_MODE != 0) $fatal(1, "SPX9: output registers are not modelled");
    flow_gowin_bytes #(
        .BYTE(9), .WRITE_BITS(BIT_WIDTH), .READ_BITS(BIT_WIDTH), .WRITE_MODE(WRITE_MODE), .INIT(18432'(INIT))
    ) memory (
        .clk(CLK), .write(CE && WRE && BLKSEL == BLK_SEL), .read(CE && (!WRE || WRITE_MODE != 0)), .reset(RESET),
        .write_at(AD), .read_at(AD), .di(36'(DI)), .dout(word)
    );
    assign DO = word[35:0];
endmodule

module SDPB #(
    parameter READ_MODE = 1'b0, BIT_WIDTH_0 = 32, BIT_WIDTH_1 = 32, BLK_SEL_0 = 3'b000, BLK_SEL_1 = 3'b000,
    parameter RESET_MODE = "SYNC",
    parameter [255:0] INIT_RAM_00 = 0, INIT_RAM_01 = 0, INIT_RAM_02 = 0, INIT_RAM_03 = 0, INIT_RAM_04 = 0,
        INIT_RAM_05 = 0, INIT_RAM_06 = 0, INIT_RAM_07 = 0, INIT_RAM_08 = 0, INIT_RAM_09 = 0, INIT_RAM_0A = 0,
        INIT_RAM_0B = 0, INIT_RAM_0C = 0, INIT_RAM_0D = 0, INIT_RAM_0E = 0, INIT_RAM_0F = 0, INIT_RAM_10 = 0,
        INIT_RAM_11 = 0, INIT_RAM_12 = 0, INIT_RAM_13 = 0, INIT_RAM_14 = 0, INIT_RAM_15 = 0, INIT_RAM_16 = 0,
        INIT_RAM_17 = 0, INIT_RAM_18 = 0, INIT_RAM_19 = 0, INIT_RAM_1A = 0, INIT_RAM_1B = 0, INIT_RAM_1C = 0,
        INIT_RAM_1D = 0, INIT_RAM_1E = 0, INIT_RAM_1F = 0, INIT_RAM_20 = 0, INIT_RAM_21 = 0, INIT_RAM_22 = 0,
        INIT_RAM_23 = 0, INIT_RAM_24 = 0, INIT_RAM_25 = 0, INIT_RAM_26 = 0, INIT_RAM_27 = 0, INIT_RAM_28 = 0,
        INIT_RAM_29 = 0, INIT_RAM_2A = 0, INIT_RAM_2B = 0, INIT_RAM_2C = 0, INIT_RAM_2D = 0, INIT_RAM_2E = 0,
        INIT_RAM_2F = 0, INIT_RAM_30 = 0, INIT_RAM_31 = 0, INIT_RAM_32 = 0, INIT_RAM_33 = 0, INIT_RAM_34 = 0,
        INIT_RAM_35 = 0, INIT_RAM_36 = 0, INIT_RAM_37 = 0, INIT_RAM_38 = 0, INIT_RAM_39 = 0, INIT_RAM_3A = 0,
        INIT_RAM_3B = 0, INIT_RAM_3C = 0, INIT_RAM_3D = 0, INIT_RAM_3E = 0, INIT_RAM_3F = 0
) (
    output [31:0] DO,
    input [31:0] DI,
    input [2:0] BLKSELA, BLKSELB,
    input [13:0] ADA, ADB,
    input CLKA, CLKB, CEA, CEB, OCE, RESETA, RESETB
);
    localparam [16383:0] INIT = {INIT_RAM_3F, INIT_RAM_3E, INIT_RAM_3D, INIT_RAM_3C, INIT_RAM_3B, INIT_RAM_3A,
        INIT_RAM_39, INIT_RAM_38, INIT_RAM_37, INIT_RAM_36, INIT_RAM_35, INIT_RAM_34, INIT_RAM_33, INIT_RAM_32,
        INIT_RAM_31, INIT_RAM_30, INIT_RAM_2F, INIT_RAM_2E, INIT_RAM_2D, INIT_RAM_2C, INIT_RAM_2B, INIT_RAM_2A,
        INIT_RAM_29, INIT_RAM_28, INIT_RAM_27, INIT_RAM_26, INIT_RAM_25, INIT_RAM_24, INIT_RAM_23, INIT_RAM_22,
        INIT_RAM_21, INIT_RAM_20, INIT_RAM_1F, INIT_RAM_1E, INIT_RAM_1D, INIT_RAM_1C, INIT_RAM_1B, INIT_RAM_1A,
        INIT_RAM_19, INIT_RAM_18, INIT_RAM_17, INIT_RAM_16, INIT_RAM_15, INIT_RAM_14, INIT_RAM_13, INIT_RAM_12,
        INIT_RAM_11, INIT_RAM_10, INIT_RAM_0F, INIT_RAM_0E, INIT_RAM_0D, INIT_RAM_0C, INIT_RAM_0B, INIT_RAM_0A,
        INIT_RAM_09, INIT_RAM_08, INIT_RAM_07, INIT_RAM_06, INIT_RAM_05, INIT_RAM_04, INIT_RAM_03, INIT_RAM_02,
        INIT_RAM_01, INIT_RAM_00};
    wire [35:0] word;
    initial if (READ_MODE != 0) $fatal(1, "SDPB: output registers are not modelled");
    flow_gowin_bytes #(.BYTE(8), .WRITE_BITS(BIT_WIDTH_0), .READ_BITS(BIT_WIDTH_1), .INIT(18432'(INIT))) memory (
        .clk(CLKB), .write(CEA && BLKSELA == BLK_SEL_0), .read(CEB), .reset(RESETB),  // one clock drives both
        .write_at(ADA), .read_at(ADB), .di(36'(DI)), .dout(word)
    );
    assign DO = word[31:0];
endmodule

module SDPX9B #(
    parameter READ_MODE = 1'b0, BIT_WIDTH_0 = 36, BIT_WIDTH_1 = 36, BLK_SEL_0 = 3'b000, BLK_SEL_1 = 3'b000,
    parameter RESET_MODE = "SYNC",
    parameter [287:0] INIT_RAM_00 = 0, INIT_RAM_01 = 0, INIT_RAM_02 = 0, INIT_RAM_03 = 0, INIT_RAM_04 = 0,
        INIT_RAM_05 = 0, INIT_RAM_06 = 0, INIT_RAM_07 = 0, INIT_RAM_08 = 0, INIT_RAM_09 = 0, INIT_RAM_0A = 0,
        INIT_RAM_0B = 0, INIT_RAM_0C = 0, INIT_RAM_0D = 0, INIT_RAM_0E = 0, INIT_RAM_0F = 0, INIT_RAM_10 = 0,
        INIT_RAM_11 = 0, INIT_RAM_12 = 0, INIT_RAM_13 = 0, INIT_RAM_14 = 0, INIT_RAM_15 = 0, INIT_RAM_16 = 0,
        INIT_RAM_17 = 0, INIT_RAM_18 = 0, INIT_RAM_19 = 0, INIT_RAM_1A = 0, INIT_RAM_1B = 0, INIT_RAM_1C = 0,
        INIT_RAM_1D = 0, INIT_RAM_1E = 0, INIT_RAM_1F = 0, INIT_RAM_20 = 0, INIT_RAM_21 = 0, INIT_RAM_22 = 0,
        INIT_RAM_23 = 0, INIT_RAM_24 = 0, INIT_RAM_25 = 0, INIT_RAM_26 = 0, INIT_RAM_27 = 0, INIT_RAM_28 = 0,
        INIT_RAM_29 = 0, INIT_RAM_2A = 0, INIT_RAM_2B = 0, INIT_RAM_2C = 0, INIT_RAM_2D = 0, INIT_RAM_2E = 0,
        INIT_RAM_2F = 0, INIT_RAM_30 = 0, INIT_RAM_31 = 0, INIT_RAM_32 = 0, INIT_RAM_33 = 0, INIT_RAM_34 = 0,
        INIT_RAM_35 = 0, INIT_RAM_36 = 0, INIT_RAM_37 = 0, INIT_RAM_38 = 0, INIT_RAM_39 = 0, INIT_RAM_3A = 0,
        INIT_RAM_3B = 0, INIT_RAM_3C = 0, INIT_RAM_3D = 0, INIT_RAM_3E = 0, INIT_RAM_3F = 0
) (
    output [35:0] DO,
    input [35:0] DI,
    input [2:0] BLKSELA, BLKSELB,
    input [13:0] ADA, ADB,
    input CLKA, CLKB, CEA, CEB, OCE, RESETA, RESETB
);
    localparam [18431:0] INIT = {INIT_RAM_3F, INIT_RAM_3E, INIT_RAM_3D, INIT_RAM_3C, INIT_RAM_3B, INIT_RAM_3A,
        INIT_RAM_39, INIT_RAM_38, INIT_RAM_37, INIT_RAM_36, INIT_RAM_35, INIT_RAM_34, INIT_RAM_33, INIT_RAM_32,
        INIT_RAM_31, INIT_RAM_30, INIT_RAM_2F, INIT_RAM_2E, INIT_RAM_2D, INIT_RAM_2C, INIT_RAM_2B, INIT_RAM_2A,
        INIT_RAM_29, INIT_RAM_28, INIT_RAM_27, INIT_RAM_26, INIT_RAM_25, INIT_RAM_24, INIT_RAM_23, INIT_RAM_22,
        INIT_RAM_21, INIT_RAM_20, INIT_RAM_1F, INIT_RAM_1E, INIT_RAM_1D, INIT_RAM_1C, INIT_RAM_1B, INIT_RAM_1A,
        INIT_RAM_19, INIT_RAM_18, INIT_RAM_17, INIT_RAM_16, INIT_RAM_15, INIT_RAM_14, INIT_RAM_13, INIT_RAM_12,
        INIT_RAM_11, INIT_RAM_10, INIT_RAM_0F, INIT_RAM_0E, INIT_RAM_0D, INIT_RAM_0C, INIT_RAM_0B, INIT_RAM_0A,
        INIT_RAM_09, INIT_RAM_08, INIT_RAM_07, INIT_RAM_06, INIT_RAM_05, INIT_RAM_04, INIT_RAM_03, INIT_RAM_02,
        INIT_RAM_01, INIT_RAM_00};
    wire [35:0] word;
    initial if (READ_MODE != 0) $fatal(1, "SDPX9B: output registers are not modelled");
    flow_gowin_bytes #(.BYTE(9), .WRITE_BITS(BIT_WIDTH_0), .READ_BITS(BIT_WIDTH_1), .INIT(18432'(INIT))) memory (
        .clk(CLKB), .write(CEA && BLKSELA == BLK_SEL_0), .read(CEB), .reset(RESETB),  // one clock drives both
        .write_at(ADA), .read_at(ADB), .di(36'(DI)), .dout(word)
    );
    assign DO = word[35:0];
endmodule

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
