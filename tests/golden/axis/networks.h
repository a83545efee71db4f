// Networks of a few lines between AXI4-Streams. The test knows their types, and what they compute.

#ifndef TEST_NETWORKS_H_
#define TEST_NETWORKS_H_

#include "ap_fixed.h"
#include "ap_int.h"
#include "hls_stream.h"
#include "nnet_utils/nnet_types.h"

// ---- io_stream: five values, one an array; three sums in one array

typedef nnet::array<ap_int<6>, 1> lone_in;
typedef nnet::array<ap_int<19>, 3> lone_out;

inline void lone(hls::stream<lone_in> &in, hls::stream<lone_out> &out) {
    ap_int<6> x[5];
    for (int i = 0; i < 5; i++)
        x[i] = in.read()[0];
    lone_out sums;
    for (int i = 0; i < 3; i++)
        sums[i] = x[i] + x[i + 2];
    out.write(sums);
}

// ---- io_stream: two inputs and two outputs; an output's words are wider or narrower than an input's

typedef nnet::array<ap_int<8>, 1> pair_left;
typedef nnet::array<ap_uint<17>, 2> pair_right;
typedef nnet::array<ap_int<8>, 3> pair_copies;
typedef nnet::array<ap_int<40>, 1> pair_difference;

inline void pair(hls::stream<pair_left> &left, hls::stream<pair_right> &right, hls::stream<pair_copies> &copies,
                 hls::stream<pair_difference> &difference) {
    for (int i = 0; i < 3; i++) {
        pair_left one = left.read();
        pair_copies three;
        three[0] = three[1] = three[2] = one[0];
        copies.write(three);
    }
    pair_right both = right.read();
    pair_difference found;
    found[0] = both[1] - both[0];
    difference.write(found);
}

// ---- io_stream: all results are there when seven of eight values still wait, as where a stride leaves an edge out

typedef nnet::array<ap_uint<9>, 1> early_in;
typedef nnet::array<ap_int<13>, 1> early_out;

inline void early(hls::stream<early_in> &in, hls::stream<early_out> &out) {
    early_in first = in.read();
    for (int i = 0; i < 6; i++) {
        early_out result;
        result[0] = first[0] + i;
        out.write(result);
    }
    for (int i = 0; i < 7; i++)
        in.read();
}

// ---- io_stream: a frame is one word, so that many fit into the FIFO before the network

typedef nnet::array<ap_int<32>, 1> deep_in;
typedef nnet::array<ap_int<32>, 1> deep_out;

inline void deep(hls::stream<deep_in> &in, hls::stream<deep_out> &out) {
    deep_in value = in.read();
    deep_out result;
    result[0] = -value[0];
    out.write(result);
}

// ---- io_parallel

typedef ap_int<13> whole_in;
typedef ap_int<31> whole_out;

inline void whole(whole_in in[5], whole_out out[3]) {
    for (int i = 0; i < 3; i++)
        out[i] = in[i] + in[i + 2];
}

typedef ap_uint<3> sides_left;
typedef ap_int<33> sides_right;
typedef ap_uint<4> sides_doubled;
typedef ap_int<34> sides_sum;

inline void sides(sides_left left[7], sides_right right[2], sides_doubled doubled[7], sides_sum sum[1]) {
    for (int i = 0; i < 7; i++)
        doubled[i] = left[i] + left[i];
    sum[0] = right[0] + right[1];
}

#endif
