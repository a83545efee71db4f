// Constants of the test bench (testbench.cpp).

#ifndef FLOW_TB_CONFIG_H_
#define FLOW_TB_CONFIG_H_

#include "net_axis.h"

#define FLOW_TOP net_axis

static const unsigned FLOW_INPUT_SIZE = 64;
static const unsigned FLOW_OUTPUT_SIZE = 10;

typedef input_t flow_input_t;
typedef result_t flow_output_t;

static const int FLOW_INPUT_FRACTION_BITS = 7;
static const int FLOW_OUTPUT_FRACTION_BITS = 17;

static_assert(flow_axis::type_of<flow_input_t>::WIDTH == 8 &&
                  flow_axis::type_of<flow_input_t>::SIGNED == true &&
                  flow_axis::type_of<flow_input_t>::FRACTION_BITS == 7,
              "the network's input must be a fixed<8,1>");
static_assert(flow_axis::type_of<flow_output_t>::WIDTH == 23 &&
                  flow_axis::type_of<flow_output_t>::SIGNED == true &&
                  flow_axis::type_of<flow_output_t>::FRACTION_BITS == 17,
              "the network's output must be a fixed<23,6>");

struct flow_trace_layer {
    const char *name;
    unsigned size;
};
static const flow_trace_layer FLOW_TRACE_LAYERS[] = {{"conv1", 576}, {"dense", 10}};
static const unsigned FLOW_TRACE_COUNT = 2;

#endif
