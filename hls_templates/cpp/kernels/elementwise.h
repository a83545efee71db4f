// Kernels that turn each value into one value: rescale, bipolar, relu, prelu, table; add and mul of two tensors.
//
// CONFIG_T: positions, channels, and what the operation OP reads from it.

#ifndef FLOW_KERNELS_ELEMENTWISE_H_
#define FLOW_KERNELS_ELEMENTWISE_H_

#include "hls_stream.h"
#include "integers.h"

namespace flow_kernels {

enum rounding_mode { ROUND, FLOOR, CEIL, ROUND_TO_ZERO, HALF_UP, HALF_DOWN }; // QONNX's; ROUND: half to even

// x / 2**SHIFT as an integer.
template <int SHIFT, rounding_mode ROUNDING, int W> ap_int<W> divided(ap_int<W> x) {
    #pragma HLS INLINE
    if (SHIFT <= 0)
        return x << (SHIFT < 0 ? -SHIFT : 0);
    const int BITS = SHIFT > 0 ? SHIFT : 1;
    const ap_int<W> floor = x >> BITS;
    const ap_uint<BITS> rest = x.range(BITS - 1, 0);
    const ap_uint<BITS> half = ap_uint<BITS>(1) << (BITS - 1);
    const bool negative = x < 0;
    const bool tie = rest == half;
    bool up = false;
    switch (ROUNDING) {
    case ROUND:
        up = rest > half || (tie && floor[0] == 1);
        break;
    case FLOOR:
        break;
    case CEIL:
        up = rest != 0;
        break;
    case ROUND_TO_ZERO:
        up = rest != 0 && negative;
        break;
    case HALF_UP:
        up = rest > half || (tie && !negative);
        break;
    case HALF_DOWN:
        up = rest > half || (tie && negative);
        break;
    }
    return ap_int<W>(floor + ap_uint<1>(up));
}

// clip(round((x * multiplier + offset) / 2**shift), minimum, maximum); all of it fits into ap_int<CONFIG_T::width>.
struct rescale {
    template <class CONFIG_T, class res_T, class data_T> static res_T apply(const data_T &x, unsigned channel) {
        #pragma HLS INLINE
        typedef ap_int<CONFIG_T::width> wide_t;
        const wide_t exact = lsb_of(x) * CONFIG_T::multiplier(channel) + CONFIG_T::offset(channel);
        const wide_t result = divided<CONFIG_T::shift, CONFIG_T::rounding>(exact);
        const wide_t low = CONFIG_T::minimum;
        const wide_t high = CONFIG_T::maximum;
        return value_of<res_T>(result < low ? low : result > high ? high : result);
    }
};

// +1 where x * multiplier + offset >= 0, else -1.
struct bipolar {
    template <class CONFIG_T, class res_T, class data_T> static res_T apply(const data_T &x, unsigned channel) {
        #pragma HLS INLINE
        const ap_int<CONFIG_T::width> exact = lsb_of(x) * CONFIG_T::multiplier(channel) + CONFIG_T::offset(channel);
        return value_of<res_T>(exact < 0 ? -1 : 1);
    }
};

struct relu {
    template <class CONFIG_T, class res_T, class data_T> static res_T apply(const data_T &x, unsigned) {
        #pragma HLS INLINE
        const typename format<data_T>::lsb_t lsb = lsb_of(x);
        return value_of<res_T>(lsb > 0 ? lsb : typename format<data_T>::lsb_t(0));
    }
};

// x where x >= 0, else slope * x; `up`: how many fraction bits a slope has.
struct prelu {
    template <class CONFIG_T, class res_T, class data_T> static res_T apply(const data_T &x, unsigned channel) {
        #pragma HLS INLINE
        typedef typename format<res_T>::lsb_t lsb_t;
        const typename format<data_T>::lsb_t lsb = lsb_of(x);
        return value_of<res_T>(lsb < 0 ? lsb_t(lsb * CONFIG_T::slope(channel)) : lsb_t(lsb_t(lsb) << CONFIG_T::up));
    }
};

struct table {
    template <class CONFIG_T, class res_T, class data_T> static res_T apply(const data_T &x, unsigned) {
        #pragma HLS INLINE
        ap_uint<format<data_T>::width> index = lsb_of(x);
        if (format<data_T>::is_signed)
            index[format<data_T>::width - 1] = !index[format<data_T>::width - 1];
        return value_of<res_T>(CONFIG_T::value(index));
    }
};

// `up_0`, `up_1`: how far the integers of each tensor are shifted to the grid of the sum.
struct add {
    template <class CONFIG_T, class res_T, class data0_T, class data1_T>
    static res_T apply(const data0_T &x, const data1_T &y) {
        #pragma HLS INLINE
        typedef ap_int<format<res_T>::width + 2> wide_t; // one of two terms may exceed their sum
        return value_of<res_T>((wide_t(lsb_of(x)) << CONFIG_T::up_0) + (wide_t(lsb_of(y)) << CONFIG_T::up_1));
    }
};

struct mul {
    template <class CONFIG_T, class res_T, class data0_T, class data1_T>
    static res_T apply(const data0_T &x, const data1_T &y) {
        #pragma HLS INLINE
        return value_of<res_T>(lsb_of(x) * lsb_of(y));
    }
};

template <class OP, class data_T, class res_T, class CONFIG_T>
void unary(data_T data[CONFIG_T::positions * CONFIG_T::channels], res_T res[CONFIG_T::positions * CONFIG_T::channels]) {
    #pragma HLS PIPELINE II=1
    for (unsigned i = 0; i < CONFIG_T::positions * CONFIG_T::channels; i++) {
        #pragma HLS UNROLL
        res[i] = OP::template apply<CONFIG_T, res_T>(data[i], i % CONFIG_T::channels);
    }
}

template <class OP, class data_T, class res_T, class CONFIG_T>
void unary(hls::stream<data_T> &data, hls::stream<res_T> &res) {
    for (unsigned i = 0; i < CONFIG_T::positions; i++) {
        #pragma HLS PIPELINE II=1
        const data_T in = data.read();
        res_T out;
        for (unsigned c = 0; c < CONFIG_T::channels; c++) {
            #pragma HLS UNROLL
            out[c] = OP::template apply<CONFIG_T, typename res_T::value_type>(in[c], c);
        }
        res.write(out);
    }
}

template <class OP, class data0_T, class data1_T, class res_T, class CONFIG_T>
void binary(data0_T data0[CONFIG_T::positions * CONFIG_T::channels],
            data1_T data1[CONFIG_T::positions * CONFIG_T::channels],
            res_T res[CONFIG_T::positions * CONFIG_T::channels]) {
    #pragma HLS PIPELINE II=1
    for (unsigned i = 0; i < CONFIG_T::positions * CONFIG_T::channels; i++) {
        #pragma HLS UNROLL
        res[i] = OP::template apply<CONFIG_T, res_T>(data0[i], data1[i]);
    }
}

template <class OP, class data0_T, class data1_T, class res_T, class CONFIG_T>
void binary(hls::stream<data0_T> &data0, hls::stream<data1_T> &data1, hls::stream<res_T> &res) {
    for (unsigned i = 0; i < CONFIG_T::positions; i++) {
        #pragma HLS PIPELINE II=1
        const data0_T in0 = data0.read();
        const data1_T in1 = data1.read();
        res_T out;
        for (unsigned c = 0; c < CONFIG_T::channels; c++) {
            #pragma HLS UNROLL
            out[c] = OP::template apply<CONFIG_T, typename res_T::value_type>(in0[c], in1[c]);
        }
        res.write(out);
    }
}

} // namespace flow_kernels

#endif
