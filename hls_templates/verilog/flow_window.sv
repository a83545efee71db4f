// Sliding windows over an image of IN_H rows of IN_W positions of FOLDS beats. For every output position, row by row:
// the beats of its window in the order (ky, kx, fold), PAD_VALUE in all lanes outside the image. Padding at the bottom
// and right follows from OUT_H and OUT_W.
//
// A ring of ROWS rows: later rows, also of the next frame, are written while earlier ones are read; an output row begins
// when its last row is whole. ROWS must be at least the window's rows, or IN_H if that is fewer. One beat a clock while
// the input is ahead needs span + max(STRIDE_H, below + span - PAD_TOP) rows: span = (K_H - 1) * DILATION_H + 1; below,
// the rows at the bottom that no window reads. Memory: ROWS * IN_W * FOLDS words, read by the clock.
module flow_window #(
    parameter int WIDTH = 8,
    parameter int LANES = 1,
    parameter int FOLDS = 1,
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
    parameter int ROWS = 6,
    parameter logic [WIDTH-1:0] PAD_VALUE = 0
) (
    input  logic                   clk,
    input  logic                   reset,
    input  logic                   in_valid,
    output logic                   in_ready,
    input  logic [LANES*WIDTH-1:0] in_data,
    output logic                   out_valid,
    input  logic                   out_ready,
    output logic [LANES*WIDTH-1:0] out_data
);
    localparam int SPAN_H = (K_H - 1) * DILATION_H + 1;
    localparam int SPAN_W = (K_W - 1) * DILATION_W + 1;
    localparam int ROW = IN_W * FOLDS;
    localparam int SIZE = ROWS * ROW;
    localparam int START = ((ROWS * PAD_TOP - PAD_TOP) % ROWS) * ROW;  // of row -PAD_TOP, when row 0 is at 0
    // counters hold -padding to the end of the last window, and sums of two of them
    localparam int RW = $clog2(IN_H + ROWS + OUT_H * STRIDE_H + SPAN_H + PAD_TOP) + 2;
    localparam int XW = $clog2(IN_W + OUT_W * STRIDE_W + SPAN_W + PAD_LEFT) + 2;
    localparam int AW = $clog2((ROWS + 1) * ROW + (OUT_W * STRIDE_W + SPAN_W + PAD_LEFT) * FOLDS) + 2;
    localparam int CW = $clog2(OUT_H + OUT_W + K_H + K_W + FOLDS + ROW) + 1;
    localparam int MW = SIZE > 1 ? $clog2(SIZE) : 1;

    logic [LANES*WIDTH-1:0] image [0:SIZE-1];

    // ---- rows, counted from the first one of the frame that is being read; below zero: of the frame before
    logic signed [RW-1:0] written, written_next, released, top, goal, needed;
    logic row_written, row_read, frame_read;

    // ---- writing
    logic [MW-1:0] write_at;
    logic [CW-1:0] write_column;
    logic push;

    assign in_ready = written - released < RW'(ROWS);
    assign push = in_valid && in_ready;
    assign row_written = push && write_column == CW'(ROW - 1);

    always_ff @(posedge clk) if (push) image[write_at] <= in_data;

    always_ff @(posedge clk)
        if (reset) begin
            write_at <= 0;
            write_column <= 0;
        end else if (push) begin
            write_at <= write_at == MW'(SIZE - 1) ? 0 : write_at + 1;
            write_column <= write_column == CW'(ROW - 1) ? 0 : write_column + 1;
        end

    // ---- which rows are there
    function automatic logic signed [RW-1:0] least(input logic signed [RW-1:0] a, input logic signed [RW-1:0] b);
        least = a < b ? a : b;
    endfunction
    function automatic logic signed [RW-1:0] in_image(input logic signed [RW-1:0] row);
        in_image = row < 0 ? 0 : least(row, RW'(IN_H));
    endfunction

    assign needed = in_image(top + RW'(SPAN_H));
    assign written_next = row_written ? written + 1 : written;
    assign goal = row_read ? in_image(top + RW'(STRIDE_H)) : in_image(top);

    always_ff @(posedge clk)
        if (reset) begin
            written <= 0;
            released <= 0;
            top <= RW'(-PAD_TOP);
        end else if (frame_read) begin
            written <= written_next - RW'(IN_H);
            released <= least(RW'(IN_H), written_next) - RW'(IN_H);
            top <= RW'(-PAD_TOP);
        end else begin
            written <= written_next;
            released <= least(goal, written_next);
            if (row_read) top <= top + RW'(STRIDE_H);
        end

    // ---- reading
    logic [CW-1:0] fold, kx, ky, ox, oy;
    logic signed [RW-1:0] row;
    logic signed [XW-1:0] left, column;
    logic [AW-1:0] frame_at, top_at, row_at;  // where row 0 of the frame, the window's and this row begin in the ring
    logic signed [AW-1:0] left_at, column_at, address;
    logic last_fold, last_kx, last_ky, last_ox, last_oy, begins, step, enable, hit, hit_q;
    logic [LANES*WIDTH-1:0] read;

    function automatic logic [AW-1:0] ahead(input logic [AW-1:0] at, input logic [AW-1:0] by);
        ahead = at + by >= AW'(SIZE) ? at + by - AW'(SIZE) : at + by;
    endfunction

    assign last_fold = fold == CW'(FOLDS - 1);
    assign last_kx = last_fold && kx == CW'(K_W - 1);
    assign last_ky = last_kx && ky == CW'(K_H - 1);
    assign last_ox = last_ky && ox == CW'(OUT_W - 1);
    assign last_oy = last_ox && oy == CW'(OUT_H - 1);
    assign begins = fold == 0 && kx == 0 && ky == 0 && ox == 0;
    assign enable = !out_valid || out_ready;
    assign step = enable && (!begins || written >= needed);
    assign row_read = step && last_ox;
    assign frame_read = step && last_oy;

    assign hit = row >= 0 && row < RW'(IN_H) && column >= 0 && column < XW'(IN_W);
    assign address = hit ? $signed(row_at) + column_at + AW'(fold) : 0;
    assign out_data = hit_q ? read : {LANES{PAD_VALUE}};

    always_ff @(posedge clk)
        if (enable) begin
            read <= image[MW'(address)];
            hit_q <= hit;
        end

    always_ff @(posedge clk)
        if (reset) out_valid <= 0;
        else if (enable) out_valid <= step;

    always_ff @(posedge clk)
        if (reset) begin
            {fold, kx, ky, ox, oy} <= 0;
            frame_at <= 0;
            top_at <= AW'(START);
            row_at <= AW'(START);
            row <= RW'(-PAD_TOP);
            left <= XW'(-PAD_LEFT);
            column <= XW'(-PAD_LEFT);
            left_at <= AW'(-(PAD_LEFT * FOLDS));
            column_at <= AW'(-(PAD_LEFT * FOLDS));
        end else if (step) begin
            fold <= last_fold ? 0 : fold + 1;
            if (last_fold) kx <= last_kx ? 0 : kx + 1;
            if (last_kx) ky <= last_ky ? 0 : ky + 1;
            if (last_ky) ox <= last_ox ? 0 : ox + 1;
            if (last_ox) oy <= last_oy ? 0 : oy + 1;
            // the column
            if (last_ox) begin
                left <= XW'(-PAD_LEFT);
                left_at <= AW'(-(PAD_LEFT * FOLDS));
                column <= XW'(-PAD_LEFT);
                column_at <= AW'(-(PAD_LEFT * FOLDS));
            end else if (last_ky) begin
                left <= left + XW'(STRIDE_W);
                left_at <= left_at + AW'(STRIDE_W * FOLDS);
                column <= left + XW'(STRIDE_W);
                column_at <= left_at + AW'(STRIDE_W * FOLDS);
            end else if (last_kx) begin
                column <= left;
                column_at <= left_at;
            end else if (last_fold) begin
                column <= column + XW'(DILATION_W);
                column_at <= column_at + AW'(DILATION_W * FOLDS);
            end
            // the row
            if (last_oy) begin
                frame_at <= ahead(frame_at, AW'((IN_H % ROWS) * ROW));
                top_at <= ahead(ahead(frame_at, AW'((IN_H % ROWS) * ROW)), AW'(START));
                row_at <= ahead(ahead(frame_at, AW'((IN_H % ROWS) * ROW)), AW'(START));
                row <= RW'(-PAD_TOP);
            end else if (last_ox) begin
                top_at <= ahead(top_at, AW'((STRIDE_H % ROWS) * ROW));
                row_at <= ahead(top_at, AW'((STRIDE_H % ROWS) * ROW));
                row <= top + RW'(STRIDE_H);
            end else if (last_ky) begin
                row_at <= top_at;
                row <= top;
            end else if (last_kx) begin
                row_at <= ahead(row_at, AW'((DILATION_H % ROWS) * ROW));
                row <= row + RW'(DILATION_H);
            end
        end
endmodule
