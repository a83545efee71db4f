#include "net_axis.h"
#include "net.h"

typedef nnet::array<input_t, 64> flow_input_t;
typedef nnet::array<result_t, 10> flow_output_t;

static void net_unpack(hls::stream<axis_word_t> &words, hls::stream<flow_input_t> &flow_input,
        hls::stream<flow_axis::last_t> &flow_last) {
    #pragma HLS INLINE off
    flow_last.write(flow_axis::unpack<64>(words, flow_input));
}

static void net_pack(hls::stream<flow_output_t> &flow_output,
        hls::stream<flow_axis::last_t> &flow_last, hls::stream<axis_word_t> &words) {
    #pragma HLS INLINE off
    flow_axis::pack<10, true>(flow_output, flow_last, words);
}

static void net_frame(hls::stream<flow_input_t> &flow_input, hls::stream<flow_output_t> &flow_output) {
    #pragma HLS INLINE off
    input_t flow_input_values[64];
    #pragma HLS ARRAY_RESHAPE variable=flow_input_values complete dim=0
    result_t flow_output_values[10];
    #pragma HLS ARRAY_PARTITION variable=flow_output_values complete dim=0

    flow_axis::load(flow_input, flow_input_values);
    net(flow_input_values, flow_output_values);
    flow_axis::store(flow_output_values, flow_output);
}

void net_axis(hls::stream<axis_word_t> &s_axis, hls::stream<axis_word_t> &m_axis) {
    #pragma HLS INTERFACE axis port=s_axis
    #pragma HLS INTERFACE axis port=m_axis
    #pragma HLS INTERFACE ap_ctrl_none port=return
    // Each process starts by itself and waits for its streams (UG1399, "Specifying Compiler-Created FIFO Depth"): a
    // FIFO of starts from net_unpack to net_pack, beside the network, would bound the frames inside it.
    #pragma HLS DATAFLOW disable_start_propagation

    hls::stream<flow_input_t> flow_input("flow_input");
    #pragma HLS STREAM variable=flow_input depth=2
    hls::stream<flow_output_t> flow_output("flow_output");
    #pragma HLS STREAM variable=flow_output depth=2
    hls::stream<flow_axis::last_t> flow_last("flow_last");
    #pragma HLS STREAM variable=flow_last depth=16

    net_unpack(s_axis, flow_input, flow_last);
    net_frame(flow_input, flow_output);
    net_pack(flow_output, flow_last, m_axis);
}
