// The largest value, or the sum, of every window; CONFIG_T: see window.h, and is_max.

#ifndef FLOW_KERNELS_POOL_H_
#define FLOW_KERNELS_POOL_H_

#include <type_traits>

#include "integers.h"
#include "window.h"

namespace flow_kernels {

// What does not change a result: padding, and what a window begins with.
template <class CONFIG_T, class T> T neutral() {
    #pragma HLS INLINE
    return CONFIG_T::is_max ? lowest<T>() : T(0);
}

// One channel of a window.
template <class CONFIG_T, class res_T, class data_T>
res_T pooled(const data_T (&taps)[CONFIG_T::kernel_height * CONFIG_T::kernel_width]) {
    #pragma HLS INLINE
    typedef typename format<res_T>::lsb_t lsb_t;
    typename format<data_T>::lsb_t largest = lsb_of(lowest<data_T>());
    lsb_t sum = 0;
    for (unsigned k = 0; k < CONFIG_T::kernel_height * CONFIG_T::kernel_width; k++) {
        #pragma HLS UNROLL
        const typename format<data_T>::lsb_t x = lsb_of(taps[k]);
        sum += x;
        if (x > largest)
            largest = x;
    }
    return value_of<res_T>(CONFIG_T::is_max ? lsb_t(largest) : sum);
}

template <class data_T, class res_T, class CONFIG_T>
void pool(data_T data[CONFIG_T::in_height * CONFIG_T::in_width * CONFIG_T::channels],
          res_T res[CONFIG_T::out_height * CONFIG_T::out_width * CONFIG_T::channels]) {
    #pragma HLS PIPELINE II=1
    for (unsigned row = 0; row < CONFIG_T::out_height; row++) {
        for (unsigned column = 0; column < CONFIG_T::out_width; column++) {
            for (unsigned c = 0; c < CONFIG_T::channels; c++) {
                data_T taps[CONFIG_T::kernel_height * CONFIG_T::kernel_width];
                #pragma HLS ARRAY_PARTITION variable=taps complete
                for (unsigned k = 0; k < CONFIG_T::kernel_height * CONFIG_T::kernel_width; k++) {
                    taps[k] = tap<CONFIG_T>(data, row, column, k / CONFIG_T::kernel_width, k % CONFIG_T::kernel_width, c,
                                            neutral<CONFIG_T, data_T>());
                }
                res[(row * CONFIG_T::out_width + column) * CONFIG_T::channels + c] = pooled<CONFIG_T, res_T>(taps);
            }
        }
    }
}

// Windows that share no position: a result grows value by value; `begun` holds those of a row of windows.
template <class CONFIG_T, class data_T, class res_T>
void pool_all(hls::stream<data_T> &data, hls::stream<res_T> &res, std::true_type) {
    #pragma HLS INLINE
    typedef extent<CONFIG_T> E;
    typedef typename data_T::value_type x_t;
    typedef typename res_T::value_type y_t;
    typedef typename format<x_t>::lsb_t x_lsb_t;
    typedef typename std::conditional<CONFIG_T::is_max, x_lsb_t, typename format<y_t>::lsb_t>::type sum_t;
    static sum_t begun[CONFIG_T::out_width][CONFIG_T::channels];
    #pragma HLS ARRAY_PARTITION variable=begun complete dim=2
    static sum_t running[CONFIG_T::channels];
    #pragma HLS ARRAY_PARTITION variable=running complete
    scan<CONFIG_T> at;
    unsigned short window = 0; // along the row
    for (unsigned step = 0; step < E::height * E::width; step++) {
        #pragma HLS PIPELINE II=1
        x_t position[CONFIG_T::channels];
        #pragma HLS ARRAY_PARTITION variable=position complete
        take(data, at, neutral<CONFIG_T, x_t>(), position);
        if (at.rows_left < CONFIG_T::kernel_height && at.columns_left < CONFIG_T::kernel_width &&
            window < CONFIG_T::out_width) {
            res_T out;
            for (unsigned c = 0; c < CONFIG_T::channels; c++) {
                #pragma HLS UNROLL
                sum_t sum = running[c];
                if (at.columns_left == CONFIG_T::kernel_width - 1) {
                    sum = begun[window][c];
                    if (at.rows_left == CONFIG_T::kernel_height - 1)
                        sum = lsb_of(neutral<CONFIG_T, x_t>());
                }
                const x_lsb_t x = lsb_of(position[c]);
                if (!CONFIG_T::is_max)
                    sum += x;
                else if (x > sum)
                    sum = x;
                running[c] = sum;
                if (at.columns_left == 0)
                    begun[window][c] = sum;
                out[c] = value_of<y_t>(sum);
            }
            if (at.complete())
                res.write(out);
        }
        if (at.column + 1 == int(E::width))
            window = 0;
        else if (at.columns_left == 0)
            window++;
        at.next();
    }
}

// Windows that overlap.
template <class CONFIG_T, class data_T, class res_T>
void pool_all(hls::stream<data_T> &data, hls::stream<res_T> &res, std::false_type) {
    #pragma HLS INLINE
    typedef extent<CONFIG_T> E;
    typedef typename data_T::value_type x_t;
    static x_t lines[E::lines][E::width][CONFIG_T::channels];
    #pragma HLS ARRAY_PARTITION variable=lines complete dim=1
    #pragma HLS ARRAY_PARTITION variable=lines complete dim=3
    static x_t window[CONFIG_T::kernel_height][E::span_width][CONFIG_T::channels];
    #pragma HLS ARRAY_PARTITION variable=window complete dim=0
    scan<CONFIG_T> at;
    for (unsigned step = 0; step < E::height * E::width; step++) {
        #pragma HLS PIPELINE II=1
        x_t position[CONFIG_T::channels];
        #pragma HLS ARRAY_PARTITION variable=position complete
        take(data, at, neutral<CONFIG_T, x_t>(), position);
        push(at, position, lines, window);
        if (at.complete()) {
            res_T out;
            for (unsigned c = 0; c < CONFIG_T::channels; c++) {
                #pragma HLS UNROLL
                x_t taps[CONFIG_T::kernel_height * CONFIG_T::kernel_width];
                #pragma HLS ARRAY_PARTITION variable=taps complete
                for (unsigned k = 0; k < CONFIG_T::kernel_height * CONFIG_T::kernel_width; k++) {
                    #pragma HLS UNROLL
                    taps[k] = window[k / CONFIG_T::kernel_width][k % CONFIG_T::kernel_width * CONFIG_T::dilation_width][c];
                }
                out[c] = pooled<CONFIG_T, typename res_T::value_type>(taps);
            }
            res.write(out);
        }
        at.next();
    }
}

template <class data_T, class res_T, class CONFIG_T>
void pool(hls::stream<data_T> &data, hls::stream<res_T> &res) {
    const bool apart =
        CONFIG_T::stride_height >= CONFIG_T::kernel_height && CONFIG_T::stride_width >= CONFIG_T::kernel_width;
    pool_all<CONFIG_T>(data, res, std::integral_constant<bool, apart>());
}

} // namespace flow_kernels

#endif
