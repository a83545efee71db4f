#include "net_axis.h"
#include "net.h"

void net_axis(hls::stream<axis_word_t> &s_axis, hls::stream<axis_word_t> &m_axis) {
    #pragma HLS INTERFACE axis port=s_axis
    #pragma HLS INTERFACE axis port=m_axis
    #pragma HLS INTERFACE ap_ctrl_none port=return
    #pragma HLS DATAFLOW

    hls::stream<input_t> flow_input("flow_input");
    #pragma HLS STREAM variable=flow_input depth=16
    hls::stream<result_t> flow_output("flow_output");
    #pragma HLS STREAM variable=flow_output depth=16

    flow_axis::unpack<64>(s_axis, flow_input);
    net(flow_input, flow_output);
    flow_axis::pack<10>(flow_output, m_axis);
}
