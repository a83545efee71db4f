// The processor of a Zynq-7000 as the fabric sees it, as far as a design uses FCLK0 and M_AXI_GP0: a clock of 100 MHz, a
// reset, and an AXI3 master that does what ps7_script.hex says and writes each answer to ps7_log.txt, one a line:
// response, data. It pauses at random. A line of the script: operation, mode (burst, size), length, address, data:
//   0 end; 1 write `length` words, the later ones' data in the next lines; 2 read `length` words;
//   3 read the address until all bits of data are set
`timescale 1ns / 1ps
module PS7 (
    output [3:0] FCLKCLK, FCLKRESETN,
    input MAXIGP0ACLK,
    output reg [31:0] MAXIGP0AWADDR, MAXIGP0ARADDR, MAXIGP0WDATA,
    output reg [11:0] MAXIGP0AWID, MAXIGP0ARID, MAXIGP0WID,
    output reg [3:0] MAXIGP0AWLEN, MAXIGP0ARLEN, MAXIGP0WSTRB,
    output reg [1:0] MAXIGP0AWSIZE, MAXIGP0ARSIZE, MAXIGP0AWBURST, MAXIGP0ARBURST,
    output reg MAXIGP0AWVALID, MAXIGP0ARVALID, MAXIGP0WVALID, MAXIGP0WLAST, MAXIGP0BREADY, MAXIGP0RREADY,
    input MAXIGP0AWREADY, MAXIGP0ARREADY, MAXIGP0WREADY, MAXIGP0BVALID, MAXIGP0RVALID, MAXIGP0RLAST,
    input [11:0] MAXIGP0BID, MAXIGP0RID,
    input [1:0] MAXIGP0BRESP, MAXIGP0RRESP,
    input [31:0] MAXIGP0RDATA
);
    reg fclk = 0, released = 0;
    always #5 fclk = ~fclk;
    assign FCLKCLK = {3'd0, fclk};
    assign FCLKRESETN = {3'd0, released};

    reg [87:0] script [0:262143];
    reg [7:0] operation, mode, length;
    reg [31:0] address, data, seen;
    reg [11:0] id = 0;
    integer at = 0, log, beat, tries;

    // Everything changes at the falling edge and is looked at after it, so that no order of events at the rising edge counts.
    task pause;
        while ($urandom % 4 == 0) @(negedge MAXIGP0ACLK);
    endtask

    task write_burst;
        begin
            id = id + 1;
            {MAXIGP0AWADDR, MAXIGP0AWID, MAXIGP0AWLEN} = {address, id, length[3:0] - 4'd1};
            {MAXIGP0AWBURST, MAXIGP0AWSIZE, MAXIGP0AWVALID} = {mode[3:0], 1'b1};
            #2;
            while (!MAXIGP0AWREADY) @(negedge MAXIGP0ACLK) #2;
            @(negedge MAXIGP0ACLK) MAXIGP0AWVALID = 0;
            for (beat = 0; beat < length; beat = beat + 1) begin
                pause;
                {MAXIGP0WDATA, MAXIGP0WSTRB, MAXIGP0WID} = {script[at + beat][31:0], 4'hF, id};
                {MAXIGP0WLAST, MAXIGP0WVALID} = {beat == length - 1, 1'b1};
                #2;
                while (!MAXIGP0WREADY) @(negedge MAXIGP0ACLK) #2;
                @(negedge MAXIGP0ACLK) MAXIGP0WVALID = 0;
            end
            pause;
            MAXIGP0BREADY = 1;
            #2;
            while (!MAXIGP0BVALID) @(negedge MAXIGP0ACLK) #2;
            if (MAXIGP0BID != id) $fatal(1, "PS7: another write was answered");
            $fdisplay(log, "%h %h", MAXIGP0BRESP, 32'd0);
            @(negedge MAXIGP0ACLK) MAXIGP0BREADY = 0;
        end
    endtask

    task read_burst(input told);
        begin
            id = id + 1;
            {MAXIGP0ARADDR, MAXIGP0ARID, MAXIGP0ARLEN} = {address, id, length[3:0] - 4'd1};
            {MAXIGP0ARBURST, MAXIGP0ARSIZE, MAXIGP0ARVALID} = {mode[3:0], 1'b1};
            #2;
            while (!MAXIGP0ARREADY) @(negedge MAXIGP0ACLK) #2;
            @(negedge MAXIGP0ACLK) MAXIGP0ARVALID = 0;
            for (beat = 0; beat < length; beat = beat + 1) begin
                pause;
                MAXIGP0RREADY = 1;
                #2;
                while (!MAXIGP0RVALID) @(negedge MAXIGP0ACLK) #2;
                seen = MAXIGP0RDATA;
                if (MAXIGP0RID != id || MAXIGP0RLAST != (beat == length - 1)) $fatal(1, "PS7: RID or RLAST is wrong");
                if (told) $fdisplay(log, "%h %h", MAXIGP0RRESP, MAXIGP0RDATA);
                @(negedge MAXIGP0ACLK) MAXIGP0RREADY = 0;
            end
        end
    endtask

    initial begin
        {MAXIGP0AWVALID, MAXIGP0ARVALID, MAXIGP0WVALID, MAXIGP0BREADY, MAXIGP0RREADY} = 0;
        $readmemh("ps7_script.hex", script);
        log = $fopen("ps7_log.txt", "w");
        repeat (20) @(negedge MAXIGP0ACLK);
        released = 1;
        repeat (40) @(negedge MAXIGP0ACLK);
        operation = 1;
        while (operation != 0) begin
            {operation, mode, length, address, data} = script[at];
            case (operation)
                1: begin
                    write_burst;
                    at = at + length - 1;
                end
                2: read_burst(1'b1);
                3: begin
                    tries = 0;
                    seen = ~data;
                    while ((seen & data) != data) begin
                        read_burst(1'b0);
                        tries = tries + 1;
                        if (tries > 100000) $fatal(1, "PS7: the bits that were waited for do not come");
                    end
                end
                default: ;
            endcase
            at = at + 1;
        end
        $fclose(log);
        $finish;
    end
endmodule
