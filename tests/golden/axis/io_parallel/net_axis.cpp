#include "net_axis.h"
#include "net.h"

typedef nnet::array<input_t, 64> flow_input_frame_t;
typedef nnet::array<result_t, 10> flow_output_frame_t;

static void net_frame(hls::stream<flow_input_frame_t> &inputs, hls::stream<flow_output_frame_t> &outputs) {
    #pragma HLS INLINE off
    input_t flow_input[64];
    #pragma HLS ARRAY_RESHAPE variable=flow_input complete dim=0
    result_t flow_output[10];
    #pragma HLS ARRAY_PARTITION variable=flow_output complete dim=0

    flow_axis::load(inputs, flow_input);
    net(flow_input, flow_output);
    flow_axis::store(flow_output, outputs);
}

void net_axis(hls::stream<axis_word_t> &s_axis, hls::stream<axis_word_t> &m_axis) {
    #pragma HLS INTERFACE axis port=s_axis
    #pragma HLS INTERFACE axis port=m_axis
    #pragma HLS INTERFACE ap_ctrl_none port=return
    #pragma HLS DATAFLOW

    hls::stream<flow_input_frame_t> flow_input("flow_input");
    #pragma HLS STREAM variable=flow_input depth=2
    hls::stream<flow_output_frame_t> flow_output("flow_output");
    #pragma HLS STREAM variable=flow_output depth=2

    flow_axis::unpack<64>(s_axis, flow_input);
    net_frame(flow_input, flow_output);
    flow_axis::pack<10>(flow_output, m_axis);
}
