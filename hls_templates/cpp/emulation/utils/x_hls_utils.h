// hls::numeric_limits for emulation with g++.

#ifndef FLOW_EMULATION_X_HLS_UTILS_H_
#define FLOW_EMULATION_X_HLS_UTILS_H_

#include <limits>

#include "../ap_fixed.h"

namespace hls {

template <class T> struct numeric_limits {
    static T max() { return std::numeric_limits<T>::max(); }
    static T min() { return std::numeric_limits<T>::min(); }
    static T epsilon() { return std::numeric_limits<T>::epsilon(); }
};

template <class T> struct ap_limits {
    typedef flow_ap::wide<flow_ap::span(T::width, T::is_signed)> M;
    static T max() { return T::template made<T>(flow_ap::highest<T::width, T::is_signed, M>()); }
    static T min() { return T::template made<T>(flow_ap::lowest<T::width, T::is_signed, M>()); }
    static T epsilon() { return T::template made<T>(1); }
};

template <int W, int I, ap_q_mode Q, ap_o_mode O, int N>
struct numeric_limits<ap_fixed<W, I, Q, O, N>> : ap_limits<ap_fixed<W, I, Q, O, N>> {};
template <int W, int I, ap_q_mode Q, ap_o_mode O, int N>
struct numeric_limits<ap_ufixed<W, I, Q, O, N>> : ap_limits<ap_ufixed<W, I, Q, O, N>> {};
template <int W> struct numeric_limits<ap_int<W>> : ap_limits<ap_int<W>> {};
template <int W> struct numeric_limits<ap_uint<W>> : ap_limits<ap_uint<W>> {};

} // namespace hls

#endif
