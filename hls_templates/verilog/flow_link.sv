// A network behind a serial line: takes samples, gives results, one after the other.
//
// Frames, both ways: 0xF5, kind, sequence, length of the payload (2 bytes), payload, CRC-32 of all from kind on (zlib's);
// numbers have their low byte first. Requests: 0x01 INFO, without payload; 0x02 RUN, the beats of one sample. Answers
// have the request's sequence, and its kind + 0x80:
//   INFO  version 1 (1 byte), DESIGN_ID (8), CLOCK_HZ (4), bytes of a sample (4), bytes of a result (4)
//   RUN   clocks from the first beat in to the last one out (4), the beats of the result
//   0xFF  what went wrong (1): 1 CRC, 2 length, 3 kind, 4 no result within RUN_CLOCKS; the network is then reset
// A sample goes to the network when its CRC is right, one beat a clock. A frame that stops for IDLE_CLOCKS is forgotten;
// after a wrong head everything is skipped for as long. What comes while a request is answered is lost.
module flow_link #(
    parameter int CLOCKS_PER_BIT = 25,
    parameter int CLOCK_HZ = 25000000,
    parameter int IN_BYTES = 1,
    parameter int IN_BEATS = 64,
    parameter int OUT_BYTES = 1,
    parameter int OUT_BEATS = 10,
    parameter int IDLE_CLOCKS = CLOCK_HZ / 20,
    parameter int RUN_CLOCKS = CLOCK_HZ,
    parameter logic [63:0] DESIGN_ID = 0
) (
    input  logic                   clk,
    input  logic                   reset,
    input  logic                   rx,
    output logic                   tx,
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
    localparam int IN_TOTAL = IN_BYTES * IN_BEATS;
    localparam int OUT_TOTAL = OUT_BYTES * OUT_BEATS;
    localparam logic [167:0] INFO = {32'(OUT_TOTAL), 32'(IN_TOTAL), 32'(CLOCK_HZ), DESIGN_ID, 8'd1};
    localparam logic [7:0] SYNC = 8'hF5, KIND_INFO = 8'h01, KIND_RUN = 8'h02, KIND_ERROR = 8'hFF;
    localparam logic [3:0] WAIT = 0, HEAD = 1, BODY = 2, CHECK = 3, SKIP = 4, RUN = 5, SEND_HEAD = 6, SEND_BODY = 7,
        SEND_CRC = 8;
    localparam int TW = $clog2((IDLE_CLOCKS > RUN_CLOCKS ? IDLE_CLOCKS : RUN_CLOCKS) + 1);
    localparam int BW = $clog2((IN_BYTES > OUT_BYTES ? IN_BYTES : OUT_BYTES) + 1);
    localparam int EW = $clog2((IN_BEATS > OUT_BEATS ? IN_BEATS : OUT_BEATS) + 1);

    logic [3:0] state;
    logic [15:0] index, length;
    logic [7:0] kind, sequence_, code;
    logic [TW-1:0] timer;
    logic drop;

    // ---- the line
    logic rx_valid, tx_valid, tx_ready, sent;
    logic [7:0] rx_byte, tx_byte;
    flow_uart_rx #(.CLOCKS_PER_BIT(CLOCKS_PER_BIT)) u_rx (
        .clk(clk), .reset(reset), .rx(rx), .valid(rx_valid), .data(rx_byte)
    );
    flow_uart_tx #(.CLOCKS_PER_BIT(CLOCKS_PER_BIT)) u_tx (
        .clk(clk), .reset(reset), .valid(tx_valid), .ready(tx_ready), .data(tx_byte), .tx(tx)
    );
    assign sent = tx_valid && tx_ready;

    // ---- CRC-32, a bit a clock: bytes are further apart than that
    logic [31:0] crc;
    logic [7:0] crc_byte;
    logic [3:0] crc_left;
    logic crc_clear, crc_feed, crc_next;

    assign crc_clear = state == WAIT || state == RUN || (state == SEND_HEAD && index == 0);
    assign crc_feed = (rx_valid && (state == HEAD || state == BODY))
                   || (sent && ((state == SEND_HEAD && index != 0) || state == SEND_BODY));
    assign crc_next = (rx_valid && state == CHECK) || (sent && state == SEND_CRC);

    always_ff @(posedge clk)
        if (reset || crc_clear) begin
            crc <= '1;
            crc_left <= 0;
        end else if (crc_feed) begin
            crc_byte <= state == HEAD || state == BODY ? rx_byte : tx_byte;
            crc_left <= 8;
        end else if (crc_next) crc <= crc >> 8;
        else if (crc_left != 0) begin
            crc <= (crc >> 1) ^ (crc[0] != crc_byte[0] ? 32'hEDB88320 : 32'd0);
            crc_byte <= crc_byte >> 1;
            crc_left <= crc_left - 1;
        end

    // ---- the sample: kept until its CRC is right
    logic [8*IN_BYTES-1:0] gathered;
    logic [BW-1:0] place;
    logic [EW-1:0] given, made;
    logic keep, kept, ahead_valid;

    always_ff @(posedge clk) begin
        keep <= 0;
        if (reset || state == WAIT || state == SEND_HEAD) place <= 0;
        else if (state == BODY && rx_valid) begin
            gathered <= (8 * IN_BYTES)'({rx_byte, gathered} >> 8);
            keep <= place == BW'(IN_BYTES - 1);
            place <= place == BW'(IN_BYTES - 1) ? 0 : place + 1;
        end else if (state == SEND_BODY && sent && kind == KIND_RUN && index >= 4)
            place <= place == BW'(OUT_BYTES - 1) ? 0 : place + 1;
    end

    flow_fifo #(.WIDTH(8 * IN_BYTES), .DEPTH(IN_BEATS)) u_sample (
        .clk(clk), .reset(reset || drop),
        .in_valid(keep), .in_ready(kept), .in_data(gathered),
        .out_valid(ahead_valid), .out_ready(in_valid && in_ready), .out_data(in_data)
    );
    assign in_valid = ahead_valid && state == RUN;
    assign in_last = given == EW'(IN_BEATS - 1);

    // ---- the result: kept until it is whole, so that the line does not hold the network up
    logic [8*OUT_BYTES-1:0] result;
    logic room, result_valid, out_passes, all_given, all_made;
    logic [31:0] clocks;

    assign out_ready = room && state == RUN;
    assign out_passes = out_valid && out_ready;
    assign all_given = given == EW'(IN_BEATS);  // also what comes after the last result
    assign all_made = made == EW'(OUT_BEATS);
    flow_fifo #(.WIDTH(8 * OUT_BYTES), .DEPTH(OUT_BEATS)) u_result (
        .clk(clk), .reset(reset || drop),
        .in_valid(out_passes), .in_ready(room), .in_data(out_data),
        .out_valid(result_valid), .out_ready(sent && state == SEND_BODY && place == BW'(OUT_BYTES - 1) && index >= 4),
        .out_data(result)
    );

    always_ff @(posedge clk)
        if (state != RUN) begin
            if (state == HEAD) clocks <= 0;
            given <= 0;
            made <= 0;
        end else begin
            if (!all_made && (clocks != 0 || (in_valid && in_ready))) clocks <= clocks + 1;
            if (in_valid && in_ready) given <= given + 1;
            if (out_passes) made <= made + 1;
        end

    // ---- what is sent
    logic [15:0] wanted;
    logic [7:0] payload;

    assign wanted = kind == KIND_RUN ? 16'(IN_TOTAL) : 0;
    assign payload = code != 0 ? code
                   : kind == KIND_INFO ? INFO[{index[4:0], 3'b000}+:8]
                   : index < 4 ? clocks[{index[1:0], 3'b000}+:8]
                   : 8'(result >> {place, 3'b000});
    assign tx_valid = state == SEND_HEAD || state == SEND_CRC
                   || (state == SEND_BODY && (code != 0 || kind == KIND_INFO || index < 4 || result_valid));
    always_comb
        case (state)
            SEND_HEAD:
                case (index[2:0])
                    0: tx_byte = SYNC;
                    1: tx_byte = code != 0 ? KIND_ERROR : kind | 8'h80;
                    2: tx_byte = sequence_;
                    3: tx_byte = length[7:0];
                    default: tx_byte = length[15:8];
                endcase
            SEND_BODY: tx_byte = payload;
            default: tx_byte = ~crc[7:0];
        endcase

    // ---- one request after the other
    logic right;
    logic [4:0] resetting;
    assign busy = state == RUN;
    assign core_reset = resetting != 0;

    always_ff @(posedge clk) begin
        drop <= 0;
        timer <= state == WAIT || (rx_valid && state != RUN) ? 0 : timer + 1;
        if (resetting != 0) resetting <= resetting - 1;
        if (reset) begin
            state <= WAIT;
            resetting <= 0;
        end else
            case (state)
                WAIT: begin
                    index <= 0;
                    code <= 0;
                    right <= 1;
                    if (rx_valid && rx_byte == SYNC) state <= HEAD;
                end
                HEAD:
                    if (rx_valid) begin
                        index <= index + 1;
                        case (index[1:0])
                            0: kind <= rx_byte;
                            1: sequence_ <= rx_byte;
                            2: length[7:0] <= rx_byte;
                            default: begin
                                index <= 0;
                                length[15:8] <= rx_byte;
                                state <= wanted == 0 ? CHECK : BODY;
                                if (kind != KIND_INFO && kind != KIND_RUN) begin
                                    code <= 3;
                                    state <= SKIP;
                                end else if ({rx_byte, length[7:0]} != wanted) begin
                                    code <= 2;
                                    state <= SKIP;
                                end
                            end
                        endcase
                    end else if (timer == TW'(IDLE_CLOCKS)) state <= WAIT;
                BODY:
                    if (rx_valid) begin
                        index <= index + 1;
                        if (index == length - 1) begin
                            index <= 0;
                            state <= CHECK;
                        end
                    end else if (timer == TW'(IDLE_CLOCKS)) begin
                        drop <= 1;
                        state <= WAIT;
                    end
                CHECK:
                    if (rx_valid) begin
                        index <= index + 1;
                        right <= right && rx_byte == ~crc[7:0];
                        if (index == 3) begin
                            index <= 0;
                            timer <= 0;
                            length <= kind == KIND_INFO ? 16'd21 : 16'(OUT_TOTAL + 4);
                            state <= kind == KIND_INFO ? SEND_HEAD : RUN;
                            if (!right || rx_byte != ~crc[7:0]) begin
                                drop <= 1;
                                code <= 1;
                                length <= 1;
                                state <= SEND_HEAD;
                            end
                        end
                    end else if (timer == TW'(IDLE_CLOCKS)) begin
                        drop <= 1;
                        state <= WAIT;
                    end
                SKIP:
                    if (timer == TW'(IDLE_CLOCKS)) begin
                        index <= 0;
                        length <= 1;
                        state <= SEND_HEAD;
                    end
                RUN:
                    if (all_given && all_made) state <= SEND_HEAD;
                    else if (timer == TW'(RUN_CLOCKS)) begin
                        drop <= 1;
                        resetting <= 16;
                        code <= 4;
                        length <= 1;
                        state <= SEND_HEAD;
                    end
                SEND_HEAD:
                    if (sent) begin
                        index <= index == 4 ? 0 : index + 1;
                        if (index == 4) state <= SEND_BODY;
                    end
                SEND_BODY:
                    if (sent) begin
                        index <= index == length - 1 ? 0 : index + 1;
                        if (index == length - 1) state <= SEND_CRC;
                    end
                default:
                    if (sent) begin
                        index <= index + 1;
                        if (index == 3) state <= WAIT;
                    end
            endcase
    end
endmodule
