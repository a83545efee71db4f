// The AXI4-Stream top of net: words in, words out (axis_top.h has the format).

#ifndef NET_AXIS_H_
#define NET_AXIS_H_

#include "axis_top.h"
#include "defines.h"

void net_axis(hls::stream<axis_word_t> &s_axis, hls::stream<axis_word_t> &m_axis);

#endif
