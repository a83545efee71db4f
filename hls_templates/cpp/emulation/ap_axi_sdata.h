// The AXI4-Stream word for g++, written from the published interface of ap_axiu (AMD UG1399, "AXI4-Stream
// Interfaces"). Vitis HLS brings its own file of this name: keep this folder off its include path.

#ifndef FLOW_EMULATION_AP_AXI_SDATA_H_
#define FLOW_EMULATION_AP_AXI_SDATA_H_

#include "ap_int.h"

// D: bits of TDATA. U, TI, TD: bits of TUSER, TID and TDEST; 0 leaves that signal out of the hardware (the
// field is then one idle bit here, because ap_uint<0> does not exist).
template <int D, int U, int TI, int TD> struct ap_axiu {
    ap_uint<D> data;                 // TDATA
    ap_uint<(D + 7) / 8> keep;       // TKEEP: one bit a byte, high for a byte that is part of the stream
    ap_uint<(D + 7) / 8> strb;       // TSTRB: one bit a byte, high for data, low for a position byte
    ap_uint<(U > 0 ? U : 1)> user;   // TUSER
    ap_uint<1> last;                 // TLAST: high on the last word of a packet
    ap_uint<(TI > 0 ? TI : 1)> id;   // TID
    ap_uint<(TD > 0 ? TD : 1)> dest; // TDEST
};

#endif
