// Nearest neighbour: every position repeated factor_height times down and factor_width times across.
//
// CONFIG_T: in_height, in_width, channels, factor_height, factor_width; one dimension is an image of height 1.

#ifndef FLOW_KERNELS_UPSAMPLE_H_
#define FLOW_KERNELS_UPSAMPLE_H_

#include "hls_stream.h"
#include "integers.h"

namespace flow_kernels {

template <class data_T, class res_T, class CONFIG_T>
void upsample(data_T data[CONFIG_T::in_height * CONFIG_T::in_width * CONFIG_T::channels],
              res_T res[CONFIG_T::in_height * CONFIG_T::in_width * CONFIG_T::channels * CONFIG_T::factor_height *
                        CONFIG_T::factor_width]) {
    #pragma HLS PIPELINE II=1
    const unsigned WIDTH = CONFIG_T::in_width * CONFIG_T::factor_width;
    for (unsigned row = 0; row < CONFIG_T::in_height * CONFIG_T::factor_height; row++) {
        for (unsigned column = 0; column < WIDTH; column++) {
            for (unsigned c = 0; c < CONFIG_T::channels; c++) {
                const unsigned from =
                    row / CONFIG_T::factor_height * CONFIG_T::in_width + column / CONFIG_T::factor_width;
                res[(row * WIDTH + column) * CONFIG_T::channels + c] =
                    value_of<res_T>(lsb_of(data[from * CONFIG_T::channels + c]));
            }
        }
    }
}

// The first of the equal rows passes through and is kept for the others.
template <class data_T, class res_T, class CONFIG_T>
void upsample(hls::stream<data_T> &data, hls::stream<res_T> &res) {
    static typename data_T::value_type kept[CONFIG_T::in_width][CONFIG_T::channels];
    #pragma HLS ARRAY_PARTITION variable=kept complete dim=2
    for (unsigned row = 0; row < CONFIG_T::in_height; row++) {
        for (unsigned i = 0; i < CONFIG_T::factor_height; i++) {
            for (unsigned column = 0; column < CONFIG_T::in_width; column++) {
                for (unsigned j = 0; j < CONFIG_T::factor_width; j++) {
                    #pragma HLS PIPELINE II=1
                    if (i == 0 && j == 0) {
                        const data_T in = data.read();
                        for (unsigned c = 0; c < CONFIG_T::channels; c++) {
                            #pragma HLS UNROLL
                            kept[column][c] = in[c];
                        }
                    }
                    res_T out;
                    for (unsigned c = 0; c < CONFIG_T::channels; c++) {
                        #pragma HLS UNROLL
                        out[c] = value_of<typename res_T::value_type>(lsb_of(kept[column][c]));
                    }
                    res.write(out);
                }
            }
        }
    }
}

} // namespace flow_kernels

#endif
