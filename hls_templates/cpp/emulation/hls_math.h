// The functions of hls_math.h that hls4ml's layers use, for emulation with g++.

#ifndef FLOW_EMULATION_HLS_MATH_H_
#define FLOW_EMULATION_HLS_MATH_H_

#include <cmath>

#include "ap_fixed.h"

namespace hls {

#define FLOW_FUNCTION(NAME)                                                                                            \
    template <class T> T NAME(T x) { return T(std::NAME(x.to_double())); }
FLOW_FUNCTION(exp)
FLOW_FUNCTION(sin)
FLOW_FUNCTION(cos)
FLOW_FUNCTION(asin)
FLOW_FUNCTION(acos)
FLOW_FUNCTION(atan)
#undef FLOW_FUNCTION

template <class T> T atan2(T y, T x) { return T(std::atan2(y.to_double(), x.to_double())); }

} // namespace hls

#endif
