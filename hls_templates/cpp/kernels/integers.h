// The integers (LSBs) that fixed-point values hold: the kernels calculate with these, never with fractions.

#ifndef FLOW_KERNELS_INTEGERS_H_
#define FLOW_KERNELS_INTEGERS_H_

#include "ap_fixed.h"
#include "ap_int.h"

namespace flow_kernels {

template <int W, bool SIGNED> struct integer { typedef ap_uint<W> type; };
template <int W> struct integer<W, true> { typedef ap_int<W> type; };

// How a type of values is made.
template <class T> struct format;
template <int W, int I, ap_q_mode Q, ap_o_mode O, int N> struct format<ap_fixed<W, I, Q, O, N>> {
    static const int width = W;
    static const bool is_signed = true;
    typedef ap_int<W> lsb_t;
};
template <int W, int I, ap_q_mode Q, ap_o_mode O, int N> struct format<ap_ufixed<W, I, Q, O, N>> {
    static const int width = W;
    static const bool is_signed = false;
    typedef ap_uint<W> lsb_t;
};

template <class T> typename format<T>::lsb_t lsb_of(const T &value) {
    #pragma HLS INLINE
    return typename format<T>::lsb_t(value.range(format<T>::width - 1, 0));
}

// The value that holds an integer, which must fit.
template <class T> T value_of(typename format<T>::lsb_t lsb) {
    #pragma HLS INLINE
    T value = 0;
    value.range(format<T>::width - 1, 0) = lsb.range(format<T>::width - 1, 0);
    return value;
}

template <class T> T lowest() {
    #pragma HLS INLINE
    typename format<T>::lsb_t lsb = 0;
    if (format<T>::is_signed)
        lsb[format<T>::width - 1] = 1;
    return value_of<T>(lsb);
}

// The elements of a constant array: as wide as the numbers on the chip, built without constructors by g++.
#ifdef __SYNTHESIS__
template <int W, bool SIGNED> struct constant { typedef typename integer<W, SIGNED>::type type; };
#else
template <int W, bool SIGNED> struct constant { typedef long long type; };
#endif

} // namespace flow_kernels

#endif
