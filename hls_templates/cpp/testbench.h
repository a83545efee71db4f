// What the test bench knows of a design: tb_config.h defines FLOW_DESIGN. testbench.cpp is the same for every design;
// with FLOW_DESIGN_APART it leaves tb_config.h to another file, so that it is compiled once for all of them.

#ifndef FLOW_TESTBENCH_H_
#define FLOW_TESTBENCH_H_

#include "axis_top.h"

struct flow_port {
    const char *name;
    unsigned size;
    int width;
    bool is_signed;
};

struct flow_trace_layer {
    const char *name;
    unsigned size;
};

struct flow_design {
    const flow_port *inputs;
    unsigned input_count;
    const flow_port *outputs;
    unsigned output_count;
    const flow_trace_layer *layers;
    unsigned layer_count;
    void (*run)(hls::stream<axis_word_t> &to_top, hls::stream<axis_word_t> &from_top);
};

extern const flow_design FLOW_DESIGN;

#ifndef FLOW_DESIGN_APART
#include "tb_config.h"
#endif

#endif
