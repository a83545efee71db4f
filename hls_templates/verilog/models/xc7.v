// What the block RAMs and multipliers of the 7 series compute, in the modes that yosys uses; yosys' own cells_sim.v has the
// other cells. Anything else stops the simulation.

`define FLOW_WIDTH7(W) ((W) < 8 ? (W) : (W) / 9 * 8)
`define FLOW_MODE7(M) ((M) == "READ_FIRST" ? 0 : (M) == "WRITE_FIRST" ? 1 : 2)
`define FLOW_RAM7_PARAMETERS \
    parameter RAM_MODE = "TDP", WRITE_MODE_A = "WRITE_FIRST", WRITE_MODE_B = "WRITE_FIRST", SIM_DEVICE = "7SERIES", \
        RDADDR_COLLISION_HWCONFIG = "DELAYED_WRITE", RAM_EXTENSION_A = "NONE", RAM_EXTENSION_B = "NONE", \
    parameter integer READ_WIDTH_A = 0, READ_WIDTH_B = 0, WRITE_WIDTH_A = 0, WRITE_WIDTH_B = 0, DOA_REG = 0, \
        DOB_REG = 0, \
    parameter [35:0] INIT_A = 0, INIT_B = 0, SRVAL_A = 0, SRVAL_B = 0,
`define FLOW_RAM7_MEMORY \
    .A_READ(`FLOW_WIDTH7(READ_WIDTH_A)), .A_WRITE(`FLOW_WIDTH7(WRITE_WIDTH_A)), .B_READ(`FLOW_WIDTH7(READ_WIDTH_B)), \
    .B_WRITE(`FLOW_WIDTH7(WRITE_WIDTH_B)), .A_MODE(`FLOW_MODE7(WRITE_MODE_A)), .B_MODE(`FLOW_MODE7(WRITE_MODE_B)), \
    .COLLIDES(WRITE_MODE_B != "READ_FIRST"), \
    .PLAIN(DOA_REG == 0 && DOB_REG == 0 && INIT_A == 0 && INIT_B == 0 && SRVAL_A == 0 && SRVAL_B == 0 \
        && RAM_EXTENSION_A == "NONE" && RAM_EXTENSION_B == "NONE")
`define FLOW_RAM7_PORTS \
    .clk(CLKARDCLK), .a_enable(ENARDEN), .b_enable(ENBWREN), .a_reset(RSTRAMARSTRAM), .b_reset(RSTRAMB), \
    .a_write(8'(WEA)), .b_write(8'(WEBWE)), .a_in(DIADI), .b_in(DIBDI), .a_parity(DIPADIP), .b_parity(DIPBDIP), \
    .a_out(DOADO), .b_out(DOBDO), .a_out_parity(DOPADOP), .b_out_parity(DOPBDOP)

// BYTES bytes with a bit of parity each; ports of HALF bytes, which together are the word of the widest mode: A reads
// it, B writes it.
module flow_ram7 #(
    parameter integer BYTES = 2048, HALF = 2, A_READ = 0, A_WRITE = 0, B_READ = 0, B_WRITE = 0, A_MODE = 0, B_MODE = 0,
    parameter integer COLLIDES = 0, PLAIN = 1,
    parameter [BYTES*8-1:0] DATA = 0,
    parameter [BYTES-1:0] PARITY = 0
) (
    input clk, a_enable, b_enable, a_reset, b_reset,
    input [7:0] a_write, b_write,
    input [15:0] a_at, b_at,
    input [HALF*8-1:0] a_in, b_in,
    input [HALF-1:0] a_parity, b_parity,
    output [HALF*8-1:0] a_out, b_out,
    output [HALF-1:0] a_out_parity, b_out_parity
);
    localparam integer WORD = 2 * HALF * 8;
    function [BYTES*9-1:0] together(input [BYTES*8-1:0] data, input [BYTES-1:0] parity);
        integer i;
        for (i = 0; i < BYTES; i = i + 1) together[i*9+:9] = {parity[i], data[i*8+:8]};
    endfunction
    wire [71:0] a_bytes, b_bytes, a_read, b_read;
    wire [63:0] given = 64'(B_WRITE == WORD ? {b_in, a_in} : {{HALF{8'd0}}, b_in});
    wire [7:0] given_parity = 8'(B_WRITE == WORD ? {b_parity, a_parity} : {{HALF{1'b0}}, b_parity});
    genvar k;
    generate
        for (k = 0; k < 8; k = k + 1) begin : g_bytes
            assign b_bytes[k*9+:9] = {given_parity[k], given[k*8+:8]};
            if (k < HALF) begin : g_own
                assign a_bytes[k*9+:9] = {a_parity[k], a_in[k*8+:8]};
                assign {a_out_parity[k], a_out[k*8+:8]} = a_read[k*9+:9];
                assign {b_out_parity[k], b_out[k*8+:8]} = A_READ == WORD ? a_read[(k+HALF)*9+:9] : b_read[k*9+:9];
            end else begin : g_none
                assign a_bytes[k*9+:9] = 0;
            end
        end
    endgenerate
    initial if (PLAIN == 0) $fatal(1, "RAMB: registers, initial values and cascades of its outputs are not modelled");
    flow_block_ram #(
        .BYTES(BYTES), .A_READ(A_READ), .A_WRITE(A_WRITE), .B_READ(B_READ), .B_WRITE(B_WRITE), .A_MODE(A_MODE),
        .B_MODE(B_MODE), .COLLIDES(COLLIDES), .INIT(together(DATA, PARITY))
    ) memory (
        .clk(clk), .a_enable(a_enable), .b_enable(b_enable), .a_reset(a_reset), .b_reset(b_reset), .a_write(a_write),
        .b_write(b_write), .a_at(a_at), .b_at(b_at), .a_in(a_bytes), .b_in(b_bytes), .a_out(a_read), .b_out(b_read)
    );
endmodule

module RAMB18E1 #(
    `FLOW_RAM7_PARAMETERS
    parameter [255:0] `FLOW_ZEROS(INIT_0), `FLOW_ZEROS(INIT_1), `FLOW_ZEROS(INIT_2), `FLOW_ZEROS(INIT_3),
    parameter [255:0] INITP_00 = 0, INITP_01 = 0, INITP_02 = 0, INITP_03 = 0, INITP_04 = 0, INITP_05 = 0, INITP_06 = 0,
        INITP_07 = 0
) (
    input CLKARDCLK, CLKBWRCLK, ENARDEN, ENBWREN, REGCEAREGCE, REGCEB, RSTRAMARSTRAM, RSTRAMB, RSTREGARSTREG, RSTREGB,
    input [13:0] ADDRARDADDR, ADDRBWRADDR,
    input [15:0] DIADI, DIBDI,
    input [1:0] DIPADIP, DIPBDIP, WEA,
    input [3:0] WEBWE,
    output [15:0] DOADO, DOBDO,
    output [1:0] DOPADOP, DOPBDOP
);
    flow_ram7 #(
        .BYTES(2048), .HALF(2), `FLOW_RAM7_MEMORY,
        .DATA({`FLOW_DOWN(INIT_3), `FLOW_DOWN(INIT_2), `FLOW_DOWN(INIT_1), `FLOW_DOWN(INIT_0)}),
        .PARITY({INITP_07, INITP_06, INITP_05, INITP_04, INITP_03, INITP_02, INITP_01, INITP_00})
    ) ram (.a_at(16'(ADDRARDADDR)), .b_at(16'(ADDRBWRADDR)), `FLOW_RAM7_PORTS);
endmodule

module RAMB36E1 #(
    `FLOW_RAM7_PARAMETERS
    parameter [255:0] `FLOW_ZEROS(INIT_0), `FLOW_ZEROS(INIT_1), `FLOW_ZEROS(INIT_2), `FLOW_ZEROS(INIT_3),
        `FLOW_ZEROS(INIT_4), `FLOW_ZEROS(INIT_5), `FLOW_ZEROS(INIT_6), `FLOW_ZEROS(INIT_7), `FLOW_ZEROS(INITP_0)
) (
    input CLKARDCLK, CLKBWRCLK, ENARDEN, ENBWREN, REGCEAREGCE, REGCEB, RSTRAMARSTRAM, RSTRAMB, RSTREGARSTREG, RSTREGB,
    input CASCADEINA, CASCADEINB, INJECTDBITERR, INJECTSBITERR,
    input [15:0] ADDRARDADDR, ADDRBWRADDR,
    input [31:0] DIADI, DIBDI,
    input [3:0] DIPADIP, DIPBDIP, WEA,
    input [7:0] WEBWE,
    output [31:0] DOADO, DOBDO,
    output [3:0] DOPADOP, DOPBDOP,
    output CASCADEOUTA, CASCADEOUTB, DBITERR, SBITERR,
    output [7:0] ECCPARITY,
    output [8:0] RDADDRECC
);
    flow_ram7 #(
        .BYTES(4096), .HALF(4), `FLOW_RAM7_MEMORY,
        .DATA({
            `FLOW_DOWN(INIT_7), `FLOW_DOWN(INIT_6), `FLOW_DOWN(INIT_5), `FLOW_DOWN(INIT_4), `FLOW_DOWN(INIT_3),
            `FLOW_DOWN(INIT_2), `FLOW_DOWN(INIT_1), `FLOW_DOWN(INIT_0)
        }),
        .PARITY({`FLOW_DOWN(INITP_0)})
    ) ram (.a_at(16'(ADDRARDADDR[14:0])), .b_at(16'(ADDRBWRADDR[14:0])), `FLOW_RAM7_PORTS);
endmodule

// 25 x 18 bits, signed, of A, D + A or D - A, times B; what the ALU adds to the product: nothing, PCIN, C or P.
module DSP48E1 #(
    parameter A_INPUT = "DIRECT", B_INPUT = "DIRECT", USE_DPORT = "FALSE", USE_MULT = "MULTIPLY", USE_SIMD = "ONE48",
    parameter integer ACASCREG = 1, ADREG = 1, ALUMODEREG = 1, AREG = 1, BCASCREG = 1, BREG = 1, CARRYINREG = 1,
        CARRYINSELREG = 1, CREG = 1, DREG = 1, INMODEREG = 1, MREG = 1, OPMODEREG = 1, PREG = 1
) (
    input signed [29:0] A,
    input signed [17:0] B,
    input signed [47:0] C, PCIN,
    input [29:0] ACIN,
    input [17:0] BCIN,
    input signed [24:0] D,
    input [6:0] OPMODE,
    input [4:0] INMODE,
    input [3:0] ALUMODE,
    input [2:0] CARRYINSEL,
    input CLK, CARRYIN, CARRYCASCIN, MULTSIGNIN, CEA1, CEA2, CEAD, CEALUMODE, CEB1, CEB2, CEC, CECARRYIN, CECTRL, CED,
        CEINMODE, CEM, CEP, RSTA, RSTALLCARRYIN, RSTALUMODE, RSTB, RSTC, RSTCTRL, RSTD, RSTINMODE, RSTM, RSTP,
    output signed [47:0] P, PCOUT,
    output [29:0] ACOUT,
    output [17:0] BCOUT,
    output [3:0] CARRYOUT,
    output CARRYCASCOUT, MULTSIGNOUT, OVERFLOW, UNDERFLOW, PATTERNBDETECT, PATTERNDETECT
);
    reg signed [24:0] a_1 = 0, a_2 = 0, d_1 = 0, ad_1 = 0;
    reg signed [17:0] b_1 = 0, b_2 = 0;
    reg signed [47:0] c_1 = 0, p_1 = 0;
    reg signed [42:0] m_1 = 0;
    wire signed [24:0] a = AREG == 0 ? A[24:0] : a_2;
    wire signed [17:0] b = BREG == 0 ? B : b_2;
    wire signed [24:0] d = !INMODE[2] ? 25'd0 : DREG == 0 ? D : d_1;
    wire signed [24:0] a_gated = INMODE[1] ? 25'd0 : a;
    wire signed [24:0] ad = INMODE[3] ? d - a_gated : d + a_gated;
    wire signed [24:0] x = USE_DPORT != "TRUE" ? a : ADREG == 0 ? ad : ad_1;
    wire signed [42:0] m = MREG == 0 ? 43'(x) * 43'(b) : m_1;
    wire signed [47:0] c = CREG == 0 ? C : c_1;
    wire signed [47:0] z = OPMODE[6:4] == 1 ? PCIN : OPMODE[6:4] == 2 ? p_1 : OPMODE[6:4] == 3 ? c : 48'd0;
    wire signed [47:0] sum = z + 48'(m);
    assign P = PREG == 0 ? sum : p_1;
    assign PCOUT = P;
    always @(posedge CLK) begin
        if (RSTA) {a_1, a_2} <= 0;
        else begin
            if (CEA1) a_1 <= A[24:0];
            if (CEA2) a_2 <= AREG == 2 ? a_1 : A[24:0];
        end
        if (RSTB) {b_1, b_2} <= 0;
        else begin
            if (CEB1) b_1 <= B;
            if (CEB2) b_2 <= BREG == 2 ? b_1 : B;
        end
        if (RSTD) {d_1, ad_1} <= 0;
        else begin
            if (CED) d_1 <= D;
            if (CEAD) ad_1 <= ad;
        end
        if (RSTC) c_1 <= 0;
        else if (CEC) c_1 <= C;
        if (RSTM) m_1 <= 0;
        else if (CEM) m_1 <= 43'(x) * 43'(b);
        if (RSTP) p_1 <= 0;
        else if (CEP) p_1 <= sum;
    end
    always @(posedge CLK)
        if (A_INPUT != "DIRECT" || B_INPUT != "DIRECT" || USE_MULT != "MULTIPLY" || USE_SIMD != "ONE48"
            || OPMODE[3:0] != 5 || OPMODE[6:4] > 3 || ALUMODE != 0 || INMODE[0] || INMODE[4]
            || CARRYINSEL != 0 || CARRYIN
            || OPMODEREG != 0 || INMODEREG != 0 || ALUMODEREG != 0)
            $fatal(1, "DSP48E1: such a use of it is not modelled");
endmodule
