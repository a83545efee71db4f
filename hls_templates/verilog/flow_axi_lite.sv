// A network behind an AXI4-Lite register file, 32 bits a register; samples and results pass two windows of it.
//
//   0x0000 read   "FLOW", 0x464C4F57        0x0014 read   words of a sample
//   0x0004 read   version, 1                0x0018 read   words of a result
//   0x0008 read   DESIGN_ID, low half       0x001C write  1: reset the network, forget samples, results and errors
//   0x000C read   DESIGN_ID, high half      0x0020 read   status, below
//   0x0010 read   CLOCK_HZ                  0x0024 read   clocks from a sample's first beat in to its last one out
//   0x1000 to 0x1FFF write  the next word of a sample
//   0x2000 to 0x2FFF read   the next word of a result
// Status: bit 0: there is room for a whole sample; 1: a whole result waits; 2: a word was written without room, and is
// lost; 3: a word was read without a result. Beats begin with a word: the low bytes first, the last word filled up with
// zeros. Other addresses, and writes of less than a word, are answered with SLVERR. The clocks are those of the sample
// that left last, where one travels at a time.
module flow_axi_lite #(
    parameter int CLOCK_HZ = 100000000,
    parameter int IN_BYTES = 1,
    parameter int IN_BEATS = 64,
    parameter int OUT_BYTES = 1,
    parameter int OUT_BEATS = 10,
    parameter logic [63:0] DESIGN_ID = 0
) (
    input  logic                   clk,
    input  logic                   reset,
    input  logic [15:0]            s_axi_awaddr,
    input  logic                   s_axi_awvalid,
    output logic                   s_axi_awready,
    input  logic [31:0]            s_axi_wdata,
    input  logic [3:0]             s_axi_wstrb,
    input  logic                   s_axi_wvalid,
    output logic                   s_axi_wready,
    output logic [1:0]             s_axi_bresp,
    output logic                   s_axi_bvalid,
    input  logic                   s_axi_bready,
    input  logic [15:0]            s_axi_araddr,
    input  logic                   s_axi_arvalid,
    output logic                   s_axi_arready,
    output logic [31:0]            s_axi_rdata,
    output logic [1:0]             s_axi_rresp,
    output logic                   s_axi_rvalid,
    input  logic                   s_axi_rready,
    output logic                   busy,
    output logic                   core_reset,
    output logic                   in_valid,
    input  logic                   in_ready,
    output logic [8*IN_BYTES-1:0]  in_data,
    output logic                   in_last,
    input  logic                   out_valid,
    output logic                   out_ready,
    input  logic [8*OUT_BYTES-1:0] out_data,
    input  logic                   out_last
);
    localparam int IN_WORDS = (IN_BYTES + 3) / 4;
    localparam int OUT_WORDS = (OUT_BYTES + 3) / 4;
    localparam int SW = $clog2(IN_BEATS + 2);
    localparam int RW = $clog2(OUT_BEATS + 2);
    localparam logic [1:0] OKAY = 2'b00, SLVERR = 2'b10;

    logic clear, write, read, fresh, lost, empty;
    assign core_reset = reset || clear;

    // ---- writes: address and data together
    logic to_sample, to_control, whole;
    assign s_axi_awready = s_axi_awvalid && s_axi_wvalid && !s_axi_bvalid;
    assign s_axi_wready = s_axi_awready;
    assign write = s_axi_awready;
    assign whole = s_axi_wstrb == 4'hF;
    assign to_sample = s_axi_awaddr[15:12] == 4'h1;
    assign to_control = s_axi_awaddr == 16'h001C;

    always_ff @(posedge clk)
        if (reset) begin
            s_axi_bvalid <= 0;
            clear <= 0;
        end else begin
            clear <= write && whole && to_control && s_axi_wdata[0];
            if (write) begin
                s_axi_bvalid <= 1;
                s_axi_bresp <= whole && (to_sample || to_control) ? OKAY : SLVERR;
            end else if (s_axi_bready) s_axi_bvalid <= 0;
        end

    // ---- a sample's words become beats
    logic [32*IN_WORDS-1:0] gathered;
    logic [$clog2(IN_WORDS+1)-1:0] in_word;
    logic [SW-1:0] stored, given;
    logic keep, room, in_passes;

    assign in_passes = in_valid && in_ready;
    assign in_last = given == SW'(IN_BEATS - 1);

    always_ff @(posedge clk)
        if (core_reset) begin
            in_word <= 0;
            keep <= 0;
            lost <= 0;
            stored <= 0;
            given <= 0;
        end else begin
            keep <= 0;
            if (write && whole && to_sample) begin
                if (stored + SW'(keep) == SW'(IN_BEATS)) lost <= 1;
                else begin
                    gathered <= (32 * IN_WORDS)'({s_axi_wdata, gathered} >> 32);
                    keep <= in_word == ($clog2(IN_WORDS + 1))'(IN_WORDS - 1);
                    in_word <= in_word == ($clog2(IN_WORDS + 1))'(IN_WORDS - 1) ? 0 : in_word + 1;
                end
            end
            if (keep && !in_passes) stored <= stored + 1;
            if (in_passes && !keep) stored <= stored - 1;
            if (in_passes) given <= in_last ? 0 : given + 1;
        end

    flow_fifo #(.WIDTH(8 * IN_BYTES), .DEPTH(IN_BEATS)) u_sample (
        .clk(clk), .reset(core_reset),
        .in_valid(keep), .in_ready(room), .in_data(gathered[8*IN_BYTES-1:0]),
        .out_valid(in_valid), .out_ready(in_ready), .out_data(in_data)
    );

    // ---- results wait until they are read
    logic [8*OUT_BYTES-1:0] result;
    logic [$clog2(OUT_WORDS+1)-1:0] out_word;
    logic [RW-1:0] waiting, left;
    logic result_valid, out_passes, taken, last_word, from_result;

    flow_fifo #(.WIDTH(8 * OUT_BYTES), .DEPTH(OUT_BEATS)) u_result (
        .clk(clk), .reset(core_reset),
        .in_valid(out_valid && left != RW'(OUT_BEATS)), .in_ready(fresh), .in_data(out_data),
        .out_valid(result_valid), .out_ready(taken), .out_data(result)
    );
    assign out_ready = fresh && left != RW'(OUT_BEATS);  // one result at a time, so that none is cut
    assign out_passes = out_valid && out_ready;
    assign from_result = s_axi_araddr[15:12] == 4'h2;
    assign last_word = out_word == ($clog2(OUT_WORDS + 1))'(OUT_WORDS - 1);
    assign taken = read && from_result && result_valid && last_word;

    always_ff @(posedge clk)
        if (core_reset) begin
            out_word <= 0;
            empty <= 0;
            waiting <= 0;
            left <= 0;
        end else begin
            if (read && from_result) begin
                if (result_valid) out_word <= last_word ? 0 : out_word + 1;
                else empty <= 1;
            end
            if (out_passes && !taken) waiting <= waiting + 1;
            if (taken && !out_passes) waiting <= waiting - 1;
            if (out_passes) left <= left + 1;
            else if (waiting == 0 && left == RW'(OUT_BEATS)) left <= 0;
        end

    // ---- how long a sample takes
    logic [31:0] clocks, running;
    logic underway;
    assign busy = underway;
    always_ff @(posedge clk)
        if (core_reset) begin
            underway <= 0;
            clocks <= 0;
            running <= 0;
        end else begin
            running <= underway ? running + 1 : 1;
            if (out_passes && out_last) begin
                underway <= 0;
                clocks <= underway ? running + 1 : 1;
            end else if (in_passes && given == 0 && !underway) underway <= 1;
        end

    // ---- reads
    logic [3:0] status;
    logic [32*OUT_WORDS-1:0] padded;
    assign status = {empty, lost, left == RW'(OUT_BEATS) && waiting != 0, stored == 0 && !keep && in_word == 0};
    assign padded = (32 * OUT_WORDS)'(result);
    assign s_axi_arready = !s_axi_rvalid;
    assign read = s_axi_arvalid && s_axi_arready;

    always_ff @(posedge clk)
        if (reset) s_axi_rvalid <= 0;
        else if (read) begin
            s_axi_rvalid <= 1;
            s_axi_rresp <= OKAY;
            if (from_result) s_axi_rdata <= result_valid ? padded[32*out_word+:32] : 32'd0;
            else
                case (s_axi_araddr)
                    16'h0000: s_axi_rdata <= 32'h464C4F57;
                    16'h0004: s_axi_rdata <= 32'd1;
                    16'h0008: s_axi_rdata <= DESIGN_ID[31:0];
                    16'h000C: s_axi_rdata <= DESIGN_ID[63:32];
                    16'h0010: s_axi_rdata <= 32'(CLOCK_HZ);
                    16'h0014: s_axi_rdata <= 32'(IN_WORDS * IN_BEATS);
                    16'h0018: s_axi_rdata <= 32'(OUT_WORDS * OUT_BEATS);
                    16'h0020: s_axi_rdata <= {28'd0, status};
                    16'h0024: s_axi_rdata <= clocks;
                    default: begin
                        s_axi_rdata <= 0;
                        s_axi_rresp <= SLVERR;
                    end
                endcase
        end else if (s_axi_rready) s_axi_rvalid <= 0;
endmodule
