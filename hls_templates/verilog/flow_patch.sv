// Sliding windows, a whole one a beat: for every output position, row by row, the K_H * K_W positions of its window in
// the order (ky, kx), LANES elements each, PAD_VALUE outside the image. A beat of the input is a position with all its
// LANES channels.
//
// The image passes a delay line: SPAN_H - 1 rows in a memory of IN_W words, read by the clock, then SPAN_W columns in
// registers. A window leaves the clock after the position at its lower right corner came, in or behind the image; at
// the end of a frame the line moves on without input until the last one did: max(IN_H * IN_W, LAST + 1) clocks a frame.
// Windows must end one after the other, the first one not before the image (FIRST >= 0); IN_W >= 2, or one row.
module flow_patch #(
    parameter int WIDTH = 8,
    parameter int LANES = 1,
    parameter int IN_H = 4,
    parameter int IN_W = 4,
    parameter int OUT_H = 2,
    parameter int OUT_W = 2,
    parameter int K_H = 3,
    parameter int K_W = 3,
    parameter int STRIDE_H = 1,
    parameter int STRIDE_W = 1,
    parameter int DILATION_H = 1,
    parameter int DILATION_W = 1,
    parameter int PAD_TOP = 0,
    parameter int PAD_LEFT = 0,
    parameter logic [WIDTH-1:0] PAD_VALUE = 0
) (
    input  logic                           clk,
    input  logic                           reset,
    input  logic                           in_valid,
    output logic                           in_ready,
    input  logic [LANES*WIDTH-1:0]         in_data,
    output logic                           out_valid,
    input  logic                           out_ready,
    output logic [K_H*K_W*LANES*WIDTH-1:0] out_data
);
    localparam int BITS = LANES * WIDTH;
    localparam int SPAN_H = (K_H - 1) * DILATION_H + 1;
    localparam int SPAN_W = (K_W - 1) * DILATION_W + 1;
    // clocks of a frame: the first and the last window's, and all
    localparam int FIRST = (SPAN_H - 1 - PAD_TOP) * IN_W + SPAN_W - 1 - PAD_LEFT;
    localparam int LAST = FIRST + (OUT_H - 1) * STRIDE_H * IN_W + (OUT_W - 1) * STRIDE_W;
    localparam int GIVEN = IN_H * IN_W;
    localparam int LENGTH = LAST + 1 > GIVEN ? LAST + 1 : GIVEN;
    // does any window reach over the image's rows, its columns?
    localparam logic OVER_H = PAD_TOP > 0 || (OUT_H - 1) * STRIDE_H + SPAN_H - PAD_TOP > IN_H;
    localparam logic OVER_W = PAD_LEFT > 0 || (OUT_W - 1) * STRIDE_W + SPAN_W - PAD_LEFT > IN_W;
    localparam int NEXT_ROW = STRIDE_H * IN_W - (OUT_W - 1) * STRIDE_W;
    localparam int TW = $clog2(LENGTH + 1);
    localparam int GW = $clog2(LENGTH + STRIDE_H * IN_W + STRIDE_W + 1);
    localparam int OW = $clog2(OUT_H + OUT_W + 1);
    localparam int CW = IN_W > 1 ? $clog2(IN_W) : 1;
    localparam int PW = $clog2(IN_H + IN_W + OUT_H * STRIDE_H + OUT_W * STRIDE_W + SPAN_H + SPAN_W) + 2;

    // ---- when: clocks of the frame, and those until the next window is whole
    logic [TW-1:0] now;
    logic [GW-1:0] gap;
    logic [OW-1:0] ox, oy;
    logic enable, given, step, hit, last_x, last_y;

    assign enable = !out_valid || out_ready;
    assign given = now < TW'(GIVEN);
    assign in_ready = enable && given;
    assign step = enable && (in_valid || !given);
    assign hit = step && gap == 0;
    assign last_x = ox == OW'(OUT_W - 1);
    assign last_y = last_x && oy == OW'(OUT_H - 1);

    always_ff @(posedge clk)
        if (reset) begin
            now <= 0;
            gap <= GW'(FIRST);
            ox <= 0;
            oy <= 0;
            out_valid <= 0;
        end else begin
            if (enable) out_valid <= hit;
            if (step) begin
                now <= now == TW'(LENGTH - 1) ? 0 : now + 1;
                gap <= !hit ? gap - 1
                     : last_y ? GW'(LENGTH - LAST - 1 + FIRST)
                     : last_x ? GW'(NEXT_ROW - 1)
                     : GW'(STRIDE_W - 1);
            end
            if (hit) begin
                ox <= last_x ? 0 : ox + 1;
                if (last_x) oy <= last_y ? 0 : oy + 1;
            end
        end

    // ---- the newest column of the line: this row's position lowest, then those of the rows above
    logic [SPAN_H*BITS-1:0] column;
    generate
        if (SPAN_H > 1) begin : g_rows
            logic [(SPAN_H-1)*BITS-1:0] rows [0:IN_W-1];
            logic [(SPAN_H-1)*BITS-1:0] above;
            logic [CW-1:0] at, ahead;
            assign ahead = at == CW'(IN_W - 1) ? 0 : at + 1;
            assign column = {above, in_data};
            always_ff @(posedge clk)
                if (step) begin
                    rows[at] <= column[(SPAN_H-1)*BITS-1:0];
                    above <= rows[ahead];
                end
            always_ff @(posedge clk)
                if (reset) at <= 0;
                else if (step) at <= ahead;
        end else begin : g_row
            assign column = in_data;
        end
    endgenerate

    // ---- the window: K_H rows of SPAN_W positions, the newest lowest; and which rows and columns lie in the image
    logic signed [PW-1:0] left, top;
    logic [K_H-1:0] in_rows;
    logic [K_W-1:0] in_columns;

    always_ff @(posedge clk)
        if (reset) begin
            left <= PW'(-PAD_LEFT);
            top <= PW'(-PAD_TOP);
        end else if (hit) begin
            left <= last_x ? PW'(-PAD_LEFT) : left + PW'(STRIDE_W);
            if (last_x) top <= last_y ? PW'(-PAD_TOP) : top + PW'(STRIDE_H);
        end

    genvar ky, kx;
    generate
        for (ky = 0; ky < K_H; ky = ky + 1) begin : g_ky
            logic [SPAN_W*BITS-1:0] line;
            logic [BITS-1:0] newest;
            logic signed [PW-1:0] row;
            assign newest = column[(SPAN_H-1-ky*DILATION_H)*BITS+:BITS];
            assign row = top + PW'(ky * DILATION_H);
            always_ff @(posedge clk) if (step) line <= (SPAN_W * BITS)'({line, newest});
            always_ff @(posedge clk) if (hit) in_rows[ky] <= row >= 0 && row < PW'(IN_H);
            for (kx = 0; kx < K_W; kx = kx + 1) begin : g_kx
                assign out_data[(ky*K_W+kx)*BITS+:BITS] = (!OVER_H || in_rows[ky]) && (!OVER_W || in_columns[kx])
                    ? line[(SPAN_W-1-kx*DILATION_W)*BITS+:BITS] : {LANES{PAD_VALUE}};
            end
        end
        for (kx = 0; kx < K_W; kx = kx + 1) begin : g_columns
            logic signed [PW-1:0] place;
            assign place = left + PW'(kx * DILATION_W);
            always_ff @(posedge clk) if (hit) in_columns[kx] <= place >= 0 && place < PW'(IN_W);
        end
    endgenerate
endmodule
