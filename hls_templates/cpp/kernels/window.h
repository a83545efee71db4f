// Windows over images that arrive position by position, shared by pool and conv.
//
// CONFIG_T: in_height, in_width, channels, kernel_height, kernel_width, stride_height, stride_width,
// dilation_height, dilation_width, pad_top, pad_bottom, pad_left, pad_right, out_height, out_width.
// One dimension is an image of height 1.

#ifndef FLOW_KERNELS_WINDOW_H_
#define FLOW_KERNELS_WINDOW_H_

#include "hls_stream.h"

namespace flow_kernels {

template <class CONFIG_T> struct extent {
    static const unsigned height = CONFIG_T::pad_top + CONFIG_T::in_height + CONFIG_T::pad_bottom;
    static const unsigned width = CONFIG_T::pad_left + CONFIG_T::in_width + CONFIG_T::pad_right;
    static const unsigned span_height = (CONFIG_T::kernel_height - 1) * CONFIG_T::dilation_height + 1;
    static const unsigned span_width = (CONFIG_T::kernel_width - 1) * CONFIG_T::dilation_width + 1;
    static const unsigned lines = span_height > 1 ? span_height - 1 : 1; // rows that wait; one that is unused
    static_assert(height < 65536 && width < 65536, "a counter of a scan must hold a row and a column");
};

// A walk over the padded image, row by row.
template <class CONFIG_T> struct scan {
    typedef extent<CONFIG_T> E;
    unsigned short row, column;
    unsigned short rows_left, columns_left; // until the next window is complete

    scan() : row(0), column(0), rows_left(E::span_height - 1), columns_left(E::span_width - 1) {}

    bool inside() const {
        #pragma HLS INLINE
        return row >= CONFIG_T::pad_top && row < CONFIG_T::pad_top + CONFIG_T::in_height &&
               column >= CONFIG_T::pad_left && column < CONFIG_T::pad_left + CONFIG_T::in_width;
    }
    bool complete() const {
        #pragma HLS INLINE
        return rows_left == 0 && columns_left == 0;
    }
    void next() {
        #pragma HLS INLINE
        if (column + 1 < int(E::width)) {
            column++;
            columns_left = columns_left == 0 ? CONFIG_T::stride_width - 1 : columns_left - 1;
        } else {
            column = 0;
            columns_left = E::span_width - 1;
            row++;
            rows_left = rows_left == 0 ? CONFIG_T::stride_height - 1 : rows_left - 1;
        }
    }
};

// The next position of the padded image: read, or `fill`.
template <class CONFIG_T, class data_T>
void take(hls::stream<data_T> &data, const scan<CONFIG_T> &at, typename data_T::value_type fill,
          typename data_T::value_type (&position)[CONFIG_T::channels]) {
    #pragma HLS INLINE
    const bool inside = at.inside();
    data_T token;
    for (unsigned c = 0; c < CONFIG_T::channels; c++) {
        #pragma HLS UNROLL
        token[c] = fill;
    }
    if (inside)
        token = data.read();
    for (unsigned c = 0; c < CONFIG_T::channels; c++) {
        #pragma HLS UNROLL
        position[c] = token[c];
    }
}

// Shift a position into the window at its right; lines[i] holds the row i + 1 above.
template <class CONFIG_T, class T>
void push(const scan<CONFIG_T> &at, const T (&position)[CONFIG_T::channels],
          T (&lines)[extent<CONFIG_T>::lines][extent<CONFIG_T>::width][CONFIG_T::channels],
          T (&window)[CONFIG_T::kernel_height][extent<CONFIG_T>::span_width][CONFIG_T::channels]) {
    #pragma HLS INLINE
    typedef extent<CONFIG_T> E;
    for (unsigned c = 0; c < CONFIG_T::channels; c++) {
        #pragma HLS UNROLL
        T value = position[c];
        for (unsigned up = 0; up < E::span_height; up++) {
            #pragma HLS UNROLL
            if (up % CONFIG_T::dilation_height == 0) {
                const unsigned k = CONFIG_T::kernel_height - 1 - up / CONFIG_T::dilation_height;
                for (unsigned j = 0; j + 1 < E::span_width; j++) {
                    #pragma HLS UNROLL
                    window[k][j][c] = window[k][j + 1][c];
                }
                window[k][E::span_width - 1][c] = value;
            }
            if (up + 1 < E::span_height) {
                const T above = lines[up][at.column][c];
                lines[up][at.column][c] = value;
                value = above;
            }
        }
    }
}

// Channel c of tap (i, j) of the window whose result lies at (row, column), of an image that is there as a whole.
template <class CONFIG_T, class T>
T tap(const T *data, unsigned row, unsigned column, unsigned i, unsigned j, unsigned c, T fill) {
    #pragma HLS INLINE
    const int y = int(row * CONFIG_T::stride_height + i * CONFIG_T::dilation_height) - int(CONFIG_T::pad_top);
    const int x = int(column * CONFIG_T::stride_width + j * CONFIG_T::dilation_width) - int(CONFIG_T::pad_left);
    if (y < 0 || y >= int(CONFIG_T::in_height) || x < 0 || x >= int(CONFIG_T::in_width))
        return fill;
    return data[(y * CONFIG_T::in_width + x) * CONFIG_T::channels + c];
}

} // namespace flow_kernels

#endif
