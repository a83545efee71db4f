// Stands between an AXI DMA and a network: lets both streams pass, counts what passes, and can reset the network.
// Registers on AXI4-Lite, 32 bits each, at byte addresses:
//
//   0x00 read   "FLOW", 0x574F4C46 (first letter in the low byte)
//   0x04 read   version, 1
//   0x08 read   DESIGN_ID, low half             0x0C read   DESIGN_ID, high half
//   0x10 read   CLOCK_HZ
//   0x14        control: bit 0: writing 1 sets every counter to 0, reads 0; bit 1: holds the network in reset
//   0x18 read   status: bit 0: a word waits for the network; 1: a word waits for the DMA; 2: the network is in reset
//   0x20 read   clocks since the clear, low half; keeps the high half for 0x24
//   0x24 read   high half, as it was when 0x20 was read
//   0x28 read   words in                        0x2C read   words out
//   0x30 read   words in with TLAST             0x34 read   words out with TLAST
//   0x38 read   clocks from the first word in to the first word out with TLAST, both counted; 0: none yet
//   0x3C read   clocks from the first word in to the latest word out, both counted; 0: none yet
//   0x40 read   clocks in which a word in waited for the network
//   0x44 read   clocks in which a word out waited for the DMA
//
// "First" is meant since the clear; what leaves before a word has come in since then is counted at 0x2C and 0x34 only.
// Counters of 32 bits stop at 0xFFFFFFFF. The clear wins over what passes in the same clock. A write changes control
// only, where its byte is strobed; other registers answer it with OKAY and stay; addresses beside the table with
// SLVERR. In reset no word passes: none is taken from the DMA or the network, and none is offered to them.
//
// Verilog-2001, since Vivado's block designs take no SystemVerilog file as the top of a module reference.
module flow_monitor #(
    parameter [63:0] DESIGN_ID = 64'h0000000000000000,
    parameter integer CLOCK_HZ = 100000000
) (
    (* X_INTERFACE_INFO = "xilinx.com:signal:clock:1.0 aclk CLK" *)
    (* X_INTERFACE_PARAMETER = "XIL_INTERFACENAME aclk, ASSOCIATED_BUSIF s_axi:s_in:m_in:s_out:m_out, ASSOCIATED_RESET aresetn" *)
    input  wire        aclk,
    (* X_INTERFACE_INFO = "xilinx.com:signal:reset:1.0 aresetn RST" *)
    (* X_INTERFACE_PARAMETER = "XIL_INTERFACENAME aresetn, POLARITY ACTIVE_LOW" *)
    input  wire        aresetn,
    (* X_INTERFACE_INFO = "xilinx.com:signal:reset:1.0 network_aresetn RST" *)
    (* X_INTERFACE_PARAMETER = "XIL_INTERFACENAME network_aresetn, POLARITY ACTIVE_LOW" *)
    output reg         network_aresetn,

    // registers
    input  wire [11:0] s_axi_awaddr,
    input  wire        s_axi_awvalid,
    output wire        s_axi_awready,
    input  wire [31:0] s_axi_wdata,
    input  wire [3:0]  s_axi_wstrb,
    input  wire        s_axi_wvalid,
    output wire        s_axi_wready,
    output reg  [1:0]  s_axi_bresp,
    output reg         s_axi_bvalid,
    input  wire        s_axi_bready,
    input  wire [11:0] s_axi_araddr,
    input  wire        s_axi_arvalid,
    output wire        s_axi_arready,
    output reg  [31:0] s_axi_rdata,
    output reg  [1:0]  s_axi_rresp,
    output reg         s_axi_rvalid,
    input  wire        s_axi_rready,

    // from the DMA
    input  wire [31:0] s_in_tdata,
    input  wire [3:0]  s_in_tkeep,
    input  wire        s_in_tlast,
    input  wire        s_in_tvalid,
    output wire        s_in_tready,
    // to the network
    output wire [31:0] m_in_tdata,
    output wire [3:0]  m_in_tkeep,
    output wire        m_in_tlast,
    output wire        m_in_tvalid,
    input  wire        m_in_tready,
    // from the network
    input  wire [31:0] s_out_tdata,
    input  wire [3:0]  s_out_tkeep,
    input  wire        s_out_tlast,
    input  wire        s_out_tvalid,
    output wire        s_out_tready,
    // to the DMA
    output wire [31:0] m_out_tdata,
    output wire [3:0]  m_out_tkeep,
    output wire        m_out_tlast,
    output wire        m_out_tvalid,
    input  wire        m_out_tready
);
    localparam [31:0] MAGIC = 32'h574F4C46, VERSION = 32'd1, MOST = 32'hFFFFFFFF;
    localparam [1:0] OKAY = 2'b00, SLVERR = 2'b10;
    // addresses in words; those up to LAST are mapped, but for HOLE
    localparam [9:0] CONTROL = 10'h005, HOLE = 10'h007, CYCLES_LOW = 10'h008, LAST = 10'h011;

    function [31:0] more(input [31:0] count, input step);
        more = count + {31'd0, step && count != MOST};
    endfunction

    function mapped(input [9:0] place);
        mapped = place <= LAST && place != HOLE;
    endfunction

    // ---- the streams
    // one register opens all of them, so that they follow the network's reset in the same clock
    wire open;
    assign open = network_aresetn;

    assign m_in_tdata = s_in_tdata;
    assign m_in_tkeep = s_in_tkeep;
    assign m_in_tlast = s_in_tlast;
    assign m_in_tvalid = s_in_tvalid && open;
    assign s_in_tready = m_in_tready && open;

    assign m_out_tdata = s_out_tdata;
    assign m_out_tkeep = s_out_tkeep;
    assign m_out_tlast = s_out_tlast;
    assign m_out_tvalid = s_out_tvalid && open;
    assign s_out_tready = m_out_tready && open;

    wire enters, leaves, in_waits, out_waits;
    assign enters = s_in_tvalid && s_in_tready;
    assign leaves = m_out_tvalid && m_out_tready;
    assign in_waits = s_in_tvalid && !s_in_tready;
    assign out_waits = m_out_tvalid && !m_out_tready;

    // ---- writes: address and data come in any order and wait for each other; then the response, before the next ones
    reg address_held, data_held;
    reg [9:0] write_place;
    reg write_clear, write_hold, write_strobed;
    reg hold;
    wire write, to_control, clear;
    assign s_axi_awready = !address_held && !s_axi_bvalid;
    assign s_axi_wready = !data_held && !s_axi_bvalid;
    assign write = address_held && data_held;
    assign to_control = write && write_place == CONTROL && write_strobed;
    assign clear = to_control && write_clear;

    always @(posedge aclk)
        if (!aresetn) begin
            address_held <= 1'b0;
            data_held <= 1'b0;
            s_axi_bvalid <= 1'b0;
            hold <= 1'b0;
        end else begin
            if (s_axi_awvalid && s_axi_awready) address_held <= 1'b1;
            if (s_axi_wvalid && s_axi_wready) data_held <= 1'b1;
            if (s_axi_bready) s_axi_bvalid <= 1'b0;
            if (to_control) hold <= write_hold;
            if (write) begin
                address_held <= 1'b0;
                data_held <= 1'b0;
                s_axi_bvalid <= 1'b1;
            end
        end

    always @(posedge aclk) begin
        if (s_axi_awready) write_place <= s_axi_awaddr[11:2];
        if (s_axi_wready) begin
            write_clear <= s_axi_wdata[0];
            write_hold <= s_axi_wdata[1];
            write_strobed <= s_axi_wstrb[0];
        end
        if (write) s_axi_bresp <= mapped(write_place) ? OKAY : SLVERR;
    end

    // in reset from the very first clock
    initial network_aresetn = 1'b0;
    always @(posedge aclk) network_aresetn <= aresetn && !hold;

    // ---- counters
    reg [63:0] cycles;
    reg [31:0] input_words, output_words, input_lasts, output_lasts, input_waits, output_waits;
    always @(posedge aclk)
        if (!aresetn || clear) begin
            cycles <= 64'd0;
            input_words <= 32'd0;
            output_words <= 32'd0;
            input_lasts <= 32'd0;
            output_lasts <= 32'd0;
            input_waits <= 32'd0;
            output_waits <= 32'd0;
        end else begin
            cycles <= cycles + 64'd1;
            input_words <= more(input_words, enters);
            output_words <= more(output_words, leaves);
            input_lasts <= more(input_lasts, enters && s_in_tlast);
            output_lasts <= more(output_lasts, leaves && m_out_tlast);
            input_waits <= more(input_waits, in_waits);
            output_waits <= more(output_waits, out_waits);
        end

    // ---- clocks since the first word: `elapsed` is the number of the present clock, 1 in that word's own
    reg [31:0] elapsed, latency, span;
    reg begun, ended;
    wire running;
    assign running = begun || enters;
    always @(posedge aclk)
        if (!aresetn || clear) begin
            elapsed <= 32'd1;
            latency <= 32'd0;
            span <= 32'd0;
            begun <= 1'b0;
            ended <= 1'b0;
        end else if (running) begin
            begun <= 1'b1;
            elapsed <= more(elapsed, 1'b1);
            if (leaves) span <= elapsed;
            if (leaves && m_out_tlast && !ended) begin
                latency <= elapsed;
                ended <= 1'b1;
            end
        end

    // ---- reads: one clock, then the next when its data has been taken
    reg [31:0] cycles_high;
    wire read;
    wire [9:0] read_place;
    assign s_axi_arready = !s_axi_rvalid;
    assign read = s_axi_arvalid && s_axi_arready;
    assign read_place = s_axi_araddr[11:2];

    always @(posedge aclk)
        if (!aresetn || clear) cycles_high <= 32'd0;
        else if (read && read_place == CYCLES_LOW) cycles_high <= cycles[63:32];

    always @(posedge aclk)
        if (!aresetn) s_axi_rvalid <= 1'b0;
        else if (read) s_axi_rvalid <= 1'b1;
        else if (s_axi_rready) s_axi_rvalid <= 1'b0;

    always @(posedge aclk)
        if (read) begin
            s_axi_rresp <= mapped(read_place) ? OKAY : SLVERR;
            case (read_place)
                10'h000: s_axi_rdata <= MAGIC;
                10'h001: s_axi_rdata <= VERSION;
                10'h002: s_axi_rdata <= DESIGN_ID[31:0];
                10'h003: s_axi_rdata <= DESIGN_ID[63:32];
                10'h004: s_axi_rdata <= CLOCK_HZ;
                CONTROL: s_axi_rdata <= {30'd0, hold, 1'b0};
                10'h006: s_axi_rdata <= {29'd0, !network_aresetn, out_waits, in_waits};
                CYCLES_LOW: s_axi_rdata <= cycles[31:0];
                10'h009: s_axi_rdata <= cycles_high;
                10'h00A: s_axi_rdata <= input_words;
                10'h00B: s_axi_rdata <= output_words;
                10'h00C: s_axi_rdata <= input_lasts;
                10'h00D: s_axi_rdata <= output_lasts;
                10'h00E: s_axi_rdata <= latency;
                10'h00F: s_axi_rdata <= span;
                10'h010: s_axi_rdata <= input_waits;
                10'h011: s_axi_rdata <= output_waits;
                default: s_axi_rdata <= 32'd0;
            endcase
        end
endmodule
