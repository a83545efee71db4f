// Kernels over all values of a vector: softmax, argmax; CONFIG_T: channels, results (how many values they give).

#ifndef FLOW_KERNELS_VECTOR_H_
#define FLOW_KERNELS_VECTOR_H_

#include "hls_stream.h"
#include "integers.h"

namespace flow_kernels {

// e = exponential(largest - x), 0 from CONFIG_T::entries on; s = sum of e, which fits into ap_uint<sum_width>;
// y = min((2**shift * e + s) / (2 * s), maximum), where 2**shift * e + s fits into ap_uint<width>.
struct softmax {
    template <class CONFIG_T, class data_T, class res_T> static void apply(const data_T *data, res_T *res) {
        #pragma HLS INLINE
        typedef typename format<data_T>::lsb_t lsb_t;
        lsb_t largest = lsb_of(data[0]);
        for (unsigned c = 1; c < CONFIG_T::channels; c++) {
            #pragma HLS UNROLL
            const lsb_t x = lsb_of(data[c]);
            if (x > largest)
                largest = x;
        }
        ap_uint<CONFIG_T::sum_width> powers[CONFIG_T::channels];
        #pragma HLS ARRAY_PARTITION variable=powers complete
        ap_uint<CONFIG_T::sum_width> sum = 0;
        for (unsigned c = 0; c < CONFIG_T::channels; c++) {
            #pragma HLS UNROLL
            const ap_uint<format<data_T>::width> below = largest - lsb_of(data[c]);
            powers[c] = 0;
            if (below < CONFIG_T::entries)
                powers[c] = CONFIG_T::exponential(below);
            sum += powers[c];
        }
        for (unsigned c = 0; c < CONFIG_T::channels; c++) {
            #pragma HLS UNROLL
            const ap_uint<CONFIG_T::width> scaled = (ap_uint<CONFIG_T::width>(powers[c]) << CONFIG_T::shift) + sum;
            const ap_uint<CONFIG_T::width> ratio = scaled / ap_uint<CONFIG_T::sum_width + 1>(sum * ap_uint<2>(2));
            const ap_uint<CONFIG_T::width> maximum = CONFIG_T::maximum;
            res[c] = value_of<res_T>(ratio > maximum ? maximum : ratio);
        }
    }
};

// The place of the largest value, the first of equal ones.
struct argmax {
    template <class CONFIG_T, class data_T, class res_T> static void apply(const data_T *data, res_T *res) {
        #pragma HLS INLINE
        typename format<data_T>::lsb_t largest = lsb_of(data[0]);
        typename format<res_T>::lsb_t place = 0;
        for (unsigned c = 1; c < CONFIG_T::channels; c++) {
            #pragma HLS UNROLL
            const typename format<data_T>::lsb_t x = lsb_of(data[c]);
            if (x > largest) {
                largest = x;
                place = c;
            }
        }
        res[0] = value_of<res_T>(place);
    }
};

template <class OP, class data_T, class res_T, class CONFIG_T>
void vector(data_T data[CONFIG_T::channels], res_T res[CONFIG_T::results]) {
    #pragma HLS PIPELINE
    OP::template apply<CONFIG_T>(data, res);
}

template <class OP, class data_T, class res_T, class CONFIG_T>
void vector(hls::stream<data_T> &data, hls::stream<res_T> &res) {
    #pragma HLS PIPELINE
    const data_T in = data.read();
    res_T out;
    OP::template apply<CONFIG_T>(in.data, out.data);
    res.write(out);
}

} // namespace flow_kernels

#endif
