// What the ECP5's multiplier and block RAM compute, in the modes that yosys uses; yosys' own cells_sim.v has the other
// cells. Anything else stops the simulation.

// 18 x 18 bits, without registers.
module MULT18X18D (
    input A17, A16, A15, A14, A13, A12, A11, A10, A9, A8, A7, A6, A5, A4, A3, A2, A1, A0,
    input B17, B16, B15, B14, B13, B12, B11, B10, B9, B8, B7, B6, B5, B4, B3, B2, B1, B0,
    input C17, C16, C15, C14, C13, C12, C11, C10, C9, C8, C7, C6, C5, C4, C3, C2, C1, C0,
    input SIGNEDA, SIGNEDB, SOURCEA, SOURCEB,
    output P35, P34, P33, P32, P31, P30, P29, P28, P27, P26, P25, P24, P23, P22, P21, P20, P19, P18, P17, P16, P15,
        P14, P13, P12, P11, P10, P9, P8, P7, P6, P5, P4, P3, P2, P1, P0
);
    wire [17:0] a = {A17, A16, A15, A14, A13, A12, A11, A10, A9, A8, A7, A6, A5, A4, A3, A2, A1, A0};
    wire [17:0] b = {B17, B16, B15, B14, B13, B12, B11, B10, B9, B8, B7, B6, B5, B4, B3, B2, B1, B0};
    wire signed [18:0] x = {SIGNEDA && a[17], a};
    wire signed [18:0] y = {SIGNEDB && b[17], b};
    wire signed [37:0] product = x * y;
    assign {P35, P34, P33, P32, P31, P30, P29, P28, P27, P26, P25, P24, P23, P22, P21, P20, P19, P18, P17, P16, P15,
        P14, P13, P12, P11, P10, P9, P8, P7, P6, P5, P4, P3, P2, P1, P0} = product[35:0];
    always @* if (SOURCEA || SOURCEB) $fatal(1, "MULT18X18D: only direct inputs are modelled");
endmodule

// 1,024 rows of 18 bits, two clocked ports; a width of 36 takes two rows, and both halves of the outputs. An address
// counts bits without parity. Byte enables: the lowest address bits of the widths 18 and 36. Both ports on one cell at
// once: the reader gets what was there before.
module DP16KD #(
    parameter DATA_WIDTH_A = 18, DATA_WIDTH_B = 18,
    parameter REGMODE_A = "NOREG", REGMODE_B = "NOREG", RESETMODE = "SYNC", ASYNC_RESET_RELEASE = "SYNC",
    parameter CSDECODE_A = "0b000", CSDECODE_B = "0b000", CLKAMUX = "CLKA", CLKBMUX = "CLKB",
    parameter WRITEMODE_A = "NORMAL", WRITEMODE_B = "NORMAL", GSR = "AUTO",
    parameter [319:0] INITVAL_00 = 0, INITVAL_01 = 0, INITVAL_02 = 0, INITVAL_03 = 0, INITVAL_04 = 0, INITVAL_05 =
        0, INITVAL_06 = 0, INITVAL_07 = 0, INITVAL_08 = 0, INITVAL_09 = 0, INITVAL_0A = 0, INITVAL_0B = 0,
        INITVAL_0C = 0, INITVAL_0D = 0, INITVAL_0E = 0, INITVAL_0F = 0, INITVAL_10 = 0, INITVAL_11 = 0, INITVAL_12 =
        0, INITVAL_13 = 0, INITVAL_14 = 0, INITVAL_15 = 0, INITVAL_16 = 0, INITVAL_17 = 0, INITVAL_18 = 0,
        INITVAL_19 = 0, INITVAL_1A = 0, INITVAL_1B = 0, INITVAL_1C = 0, INITVAL_1D = 0, INITVAL_1E = 0, INITVAL_1F =
        0, INITVAL_20 = 0, INITVAL_21 = 0, INITVAL_22 = 0, INITVAL_23 = 0, INITVAL_24 = 0, INITVAL_25 = 0,
        INITVAL_26 = 0, INITVAL_27 = 0, INITVAL_28 = 0, INITVAL_29 = 0, INITVAL_2A = 0, INITVAL_2B = 0, INITVAL_2C =
        0, INITVAL_2D = 0, INITVAL_2E = 0, INITVAL_2F = 0, INITVAL_30 = 0, INITVAL_31 = 0, INITVAL_32 = 0,
        INITVAL_33 = 0, INITVAL_34 = 0, INITVAL_35 = 0, INITVAL_36 = 0, INITVAL_37 = 0, INITVAL_38 = 0, INITVAL_39 =
        0, INITVAL_3A = 0, INITVAL_3B = 0, INITVAL_3C = 0, INITVAL_3D = 0, INITVAL_3E = 0, INITVAL_3F = 0
) (
    input DIA17, DIA16, DIA15, DIA14, DIA13, DIA12, DIA11, DIA10, DIA9, DIA8, DIA7, DIA6, DIA5, DIA4, DIA3, DIA2,
        DIA1, DIA0,
    input ADA13, ADA12, ADA11, ADA10, ADA9, ADA8, ADA7, ADA6, ADA5, ADA4, ADA3, ADA2, ADA1, ADA0,
    input CLKA, CEA, OCEA, WEA, RSTA, CSA2, CSA1, CSA0,
    output DOA17, DOA16, DOA15, DOA14, DOA13, DOA12, DOA11, DOA10, DOA9, DOA8, DOA7, DOA6, DOA5, DOA4, DOA3, DOA2,
        DOA1, DOA0,
    input DIB17, DIB16, DIB15, DIB14, DIB13, DIB12, DIB11, DIB10, DIB9, DIB8, DIB7, DIB6, DIB5, DIB4, DIB3, DIB2,
        DIB1, DIB0,
    input ADB13, ADB12, ADB11, ADB10, ADB9, ADB8, ADB7, ADB6, ADB5, ADB4, ADB3, ADB2, ADB1, ADB0,
    input CLKB, CEB, OCEB, WEB, RSTB, CSB2, CSB1, CSB0,
    output DOB17, DOB16, DOB15, DOB14, DOB13, DOB12, DOB11, DOB10, DOB9, DOB8, DOB7, DOB6, DOB5, DOB4, DOB3, DOB2,
        DOB1, DOB0
);
    localparam [20479:0] INIT = {INITVAL_3F, INITVAL_3E, INITVAL_3D, INITVAL_3C, INITVAL_3B, INITVAL_3A, INITVAL_39,
        INITVAL_38, INITVAL_37, INITVAL_36, INITVAL_35, INITVAL_34, INITVAL_33, INITVAL_32, INITVAL_31, INITVAL_30,
        INITVAL_2F, INITVAL_2E, INITVAL_2D, INITVAL_2C, INITVAL_2B, INITVAL_2A, INITVAL_29, INITVAL_28, INITVAL_27,
        INITVAL_26, INITVAL_25, INITVAL_24, INITVAL_23, INITVAL_22, INITVAL_21, INITVAL_20, INITVAL_1F, INITVAL_1E,
        INITVAL_1D, INITVAL_1C, INITVAL_1B, INITVAL_1A, INITVAL_19, INITVAL_18, INITVAL_17, INITVAL_16, INITVAL_15,
        INITVAL_14, INITVAL_13, INITVAL_12, INITVAL_11, INITVAL_10, INITVAL_0F, INITVAL_0E, INITVAL_0D, INITVAL_0C,
        INITVAL_0B, INITVAL_0A, INITVAL_09, INITVAL_08, INITVAL_07, INITVAL_06, INITVAL_05, INITVAL_04, INITVAL_03,
        INITVAL_02, INITVAL_01, INITVAL_00};
    reg [17:0] rows [0:1023];
    integer i;
    initial begin
        for (i = 0; i < 1024; i = i + 1) rows[i] = INIT[i*20+:18];
        if (REGMODE_A != "NOREG" || REGMODE_B != "NOREG" || CLKAMUX != "CLKA" || CLKBMUX != "CLKB"
            || CSDECODE_A != "0b000" || CSDECODE_B != "0b000")
            $fatal(1, "DP16KD: only rising clocks without output registers are modelled");
    end

    wire [35:0] di_a = {DIB17, DIB16, DIB15, DIB14, DIB13, DIB12, DIB11, DIB10, DIB9, DIB8, DIB7, DIB6, DIB5, DIB4,
        DIB3, DIB2, DIB1, DIB0, DIA17, DIA16, DIA15, DIA14, DIA13, DIA12, DIA11, DIA10, DIA9, DIA8, DIA7, DIA6,
        DIA5, DIA4, DIA3, DIA2, DIA1, DIA0};
    wire [13:0] ad_a = {ADA13, ADA12, ADA11, ADA10, ADA9, ADA8, ADA7, ADA6, ADA5, ADA4, ADA3, ADA2, ADA1, ADA0};
    wire [35:0] di_b = {18'd0, DIB17, DIB16, DIB15, DIB14, DIB13, DIB12, DIB11, DIB10, DIB9, DIB8, DIB7, DIB6, DIB5,
        DIB4, DIB3, DIB2, DIB1, DIB0};
    wire [13:0] ad_b = {ADB13, ADB12, ADB11, ADB10, ADB9, ADB8, ADB7, ADB6, ADB5, ADB4, ADB3, ADB2, ADB1, ADB0};
    reg [35:0] do_a = 0, do_b = 0;

    // the cell's bits of a width, from bit 0 on
    function [35:0] found(input integer width, input [13:0] at);
        reg [17:0] row;
        reg [8:0] half;
        begin
            row = rows[at[13:4]];
            half = at[3] ? row[17:9] : row[8:0];
            case (width)
                36: found = {rows[{at[13:5], 1'b1}], rows[{at[13:5], 1'b0}]};
                18: found = row;
                9: found = half;
                4: found = half[{at[2], 2'b00}+:4];
                2: found = half[{at[2:1], 1'b0}+:2];
                default: found = half[at[2:0]];
            endcase
        end
    endfunction

    task put(input integer width, input [13:0] at, input [35:0] data);
        integer k;
        begin
            case (width)
                36: begin
                    for (k = 0; k < 2; k = k + 1) if (at[k]) rows[{at[13:5], 1'b0}][k*9+:9] = data[k*9+:9];
                    for (k = 2; k < 4; k = k + 1) if (at[k]) rows[{at[13:5], 1'b1}][(k-2)*9+:9] = data[k*9+:9];
                end
                18: for (k = 0; k < 2; k = k + 1) if (at[k]) rows[at[13:4]][k*9+:9] = data[k*9+:9];
                9: rows[at[13:4]][at[3]*9+:9] = data[8:0];
                4: rows[at[13:4]][at[3]*9+at[2]*4+:4] = data[3:0];
                2: rows[at[13:4]][at[3]*9+at[2:1]*2+:2] = data[1:0];
                default: rows[at[13:4]][at[3]*9+at[2:0]] = data[0];
            endcase
        end
    endtask

    wire write_a = CEA && WEA && {CSA2, CSA1, CSA0} == 0, write_b = CEB && WEB && {CSB2, CSB1, CSB0} == 0;
    wire write_through_a = WRITEMODE_A == "WRITETHROUGH", write_through_b = WRITEMODE_B == "WRITETHROUGH";
    reg [35:0] seen_a, seen_b;
    // verilator lint_off BLKSEQ
    always @(posedge CLKA or posedge CLKB) begin  // one clock drives both
        seen_a = found(DATA_WIDTH_A, ad_a);
        seen_b = found(DATA_WIDTH_B, ad_b);
        if (write_a) put(DATA_WIDTH_A, ad_a, di_a);
        if (write_b) put(DATA_WIDTH_B, ad_b, di_b);
        if (RSTA) do_a <= 0;
        else if (CEA && (!WEA || WRITEMODE_A == "READBEFOREWRITE")) do_a <= seen_a;
        else if (write_a && write_through_a) do_a <= found(DATA_WIDTH_A, ad_a);
        if (RSTB) do_b <= 0;
        else if (CEB && (!WEB || WRITEMODE_B == "READBEFOREWRITE")) do_b <= seen_b;
        else if (write_b && write_through_b) do_b <= found(DATA_WIDTH_B, ad_b);
    end
    // verilator lint_on BLKSEQ

    assign {DOA17, DOA16, DOA15, DOA14, DOA13, DOA12, DOA11, DOA10, DOA9, DOA8, DOA7, DOA6, DOA5, DOA4, DOA3, DOA2,
        DOA1, DOA0} = DATA_WIDTH_B == 36 ? do_b[17:0] : do_a[17:0];
    assign {DOB17, DOB16, DOB15, DOB14, DOB13, DOB12, DOB11, DOB10, DOB9, DOB8, DOB7, DOB6, DOB5, DOB4, DOB3, DOB2,
        DOB1, DOB0} = DATA_WIDTH_B == 36 ? do_b[35:18] : do_b[17:0];
endmodule
