#include "net_axis.h"
#include "net.h"

static void net_unpack(hls::stream<axis_word_t> &words, hls::stream<input_t> &flow_input) {
    #pragma HLS INLINE off
    flow_axis::unpack<64>(words, flow_input);
}

static void net_pack(hls::stream<result_t> &flow_output, hls::stream<axis_word_t> &words) {
    #pragma HLS INLINE off
    flow_axis::pack<10, true>(flow_output, words);
}

void net_axis(hls::stream<axis_word_t> &s_axis, hls::stream<axis_word_t> &m_axis) {
    #pragma HLS INTERFACE axis port=s_axis
    #pragma HLS INTERFACE axis port=m_axis
    #pragma HLS INTERFACE ap_ctrl_none port=return
    #pragma HLS DATAFLOW

    hls::stream<input_t> flow_input("flow_input");
    #pragma HLS STREAM variable=flow_input depth=17
    hls::stream<result_t> flow_output("flow_output");
    #pragma HLS STREAM variable=flow_output depth=2

    net_unpack(s_axis, flow_input);
    net(flow_input, flow_output);
    net_pack(flow_output, m_axis);
}
