// Constants of the test bench (testbench.cpp).

#ifndef FLOW_TB_CONFIG_H_
#define FLOW_TB_CONFIG_H_

#include "net_axis.h"

#include "testbench.h"

static_assert(flow_axis::type_of<input_t::value_type>::WIDTH == 8 &&
                  flow_axis::type_of<input_t::value_type>::SIGNED == true &&
                  flow_axis::type_of<input_t::value_type>::FRACTION_BITS == 7,
              "the network's input 0 must be a fixed<8,1>");
static_assert(flow_axis::type_of<result_t::value_type>::WIDTH == 23 &&
                  flow_axis::type_of<result_t::value_type>::SIGNED == true &&
                  flow_axis::type_of<result_t::value_type>::FRACTION_BITS == 17,
              "the network's output 0 must be a fixed<23,6>");

static const flow_port FLOW_INPUTS[] = {{"input 0", 64, 8, true}};
static const flow_port FLOW_OUTPUTS[] = {{"output 0", 10, 23, true}};
static const flow_trace_layer FLOW_TRACE_LAYERS[] = {{"conv1", 576}, {"dense", 10}};

// cosim looks for a direct call of the top
static void flow_run_top(hls::stream<axis_word_t> &to_top, hls::stream<axis_word_t> &from_top) {
    net_axis(to_top, from_top);
}

const flow_design FLOW_DESIGN = {FLOW_INPUTS, 1, FLOW_OUTPUTS, 1, FLOW_TRACE_LAYERS, 2,
                                 flow_run_top};

#endif
