// From an AXI3 master, such as the PS7's M_AXI_GP0, to an AXI4-Lite slave: bursts beat by beat, one transaction of each
// direction at a time. Beats are words; fixed and incrementing bursts pass, others are answered with SLVERR.
module flow_axi3 (
    input  logic        clk,
    input  logic        reset,
    input  logic [31:0] s_awaddr,
    input  logic [11:0] s_awid,
    input  logic [3:0]  s_awlen,
    input  logic [1:0]  s_awsize,
    input  logic [1:0]  s_awburst,
    input  logic        s_awvalid,
    output logic        s_awready,
    input  logic [31:0] s_wdata,
    input  logic [3:0]  s_wstrb,
    input  logic        s_wvalid,
    output logic        s_wready,
    output logic [11:0] s_bid,
    output logic [1:0]  s_bresp,
    output logic        s_bvalid,
    input  logic        s_bready,
    input  logic [31:0] s_araddr,
    input  logic [11:0] s_arid,
    input  logic [3:0]  s_arlen,
    input  logic [1:0]  s_arsize,
    input  logic [1:0]  s_arburst,
    input  logic        s_arvalid,
    output logic        s_arready,
    output logic [31:0] s_rdata,
    output logic [11:0] s_rid,
    output logic [1:0]  s_rresp,
    output logic        s_rlast,
    output logic        s_rvalid,
    input  logic        s_rready,
    output logic [15:0] m_awaddr,
    output logic        m_awvalid,
    input  logic        m_awready,
    output logic [31:0] m_wdata,
    output logic [3:0]  m_wstrb,
    output logic        m_wvalid,
    input  logic        m_wready,
    input  logic [1:0]  m_bresp,
    input  logic        m_bvalid,
    output logic        m_bready,
    output logic [15:0] m_araddr,
    output logic        m_arvalid,
    input  logic        m_arready,
    input  logic [31:0] m_rdata,
    input  logic [1:0]  m_rresp,
    input  logic        m_rvalid,
    output logic        m_rready
);
    localparam logic [1:0] WORD = 2'd2, INCREMENTING = 2'd1, WRAPPING = 2'd2, SLVERR = 2'b10;

    // ---- writes: the master's beat waits until the slave has answered it
    logic writing, write_known, w_asked;
    logic [3:0] write_left;
    logic [1:0] write_burst;
    logic w_done;

    assign s_awready = !writing && !s_bvalid;
    assign m_awvalid = writing && write_known && s_wvalid && !w_asked;
    assign m_wvalid = m_awvalid;
    assign m_wdata = s_wdata;
    assign m_wstrb = s_wstrb;
    assign m_bready = 1;
    assign w_done = writing && s_wvalid && (write_known ? w_asked && m_bvalid : 1'b1);
    assign s_wready = w_done;

    always_ff @(posedge clk)
        if (reset) begin
            writing <= 0;
            w_asked <= 0;
            s_bvalid <= 0;
        end else if (s_awvalid && s_awready) begin
            writing <= 1;
            w_asked <= 0;
            m_awaddr <= s_awaddr[15:0];
            s_bid <= s_awid;
            s_bresp <= 0;
            write_left <= s_awlen;
            write_burst <= s_awburst;
            write_known <= s_awsize == WORD && s_awburst != WRAPPING;
        end else begin
            if (m_awvalid && m_awready && m_wready) w_asked <= 1;
            if (w_done) begin
                w_asked <= 0;
                if (write_burst == INCREMENTING) m_awaddr <= m_awaddr + 4;
                if (!write_known) s_bresp <= SLVERR;
                else if (m_bresp != 0) s_bresp <= m_bresp;
                write_left <= write_left - 1;
                if (write_left == 0) begin
                    writing <= 0;
                    s_bvalid <= 1;
                end
            end
            if (s_bvalid && s_bready) s_bvalid <= 0;
        end

    // ---- reads
    logic reading, read_known, r_asked;
    logic [3:0] read_left;
    logic [1:0] read_burst;

    assign s_arready = !reading;
    assign m_arvalid = reading && read_known && !r_asked;
    assign s_rvalid = reading && (read_known ? r_asked && m_rvalid : 1'b1);
    assign m_rready = s_rready && read_known && r_asked;
    assign s_rdata = read_known ? m_rdata : 32'd0;
    assign s_rresp = read_known ? m_rresp : SLVERR;
    assign s_rlast = read_left == 0;

    always_ff @(posedge clk)
        if (reset) begin
            reading <= 0;
            r_asked <= 0;
        end else if (s_arvalid && s_arready) begin
            reading <= 1;
            r_asked <= 0;
            m_araddr <= s_araddr[15:0];
            s_rid <= s_arid;
            read_left <= s_arlen;
            read_burst <= s_arburst;
            read_known <= s_arsize == WORD && s_arburst != WRAPPING;
        end else begin
            if (m_arvalid && m_arready) r_asked <= 1;
            if (s_rvalid && s_rready) begin
                r_asked <= 0;
                if (read_burst == INCREMENTING) m_araddr <= m_araddr + 4;
                read_left <= read_left - 1;
                if (read_left == 0) reading <= 0;
            end
        end
endmodule
