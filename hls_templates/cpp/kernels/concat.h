// Tensors put together along their channels.
//
// CONFIG_T: positions, channels (of the result), channels_of(i) and up_of(i): of input i its channels, and how far its
// integers are shifted to the grid of the result.

#ifndef FLOW_KERNELS_CONCAT_H_
#define FLOW_KERNELS_CONCAT_H_

#include "hls_stream.h"
#include "integers.h"

namespace flow_kernels {

template <unsigned UP, class res_T, class data_T> res_T shifted(const data_T &x) {
    #pragma HLS INLINE
    typedef typename format<res_T>::lsb_t lsb_t;
    return value_of<res_T>(lsb_t(lsb_t(lsb_of(x)) << UP));
}

template <class CONFIG_T, unsigned INPUT, unsigned FIRST, class res_T> void place(res_T *) {}

// Copy all inputs from INPUT on; the first one goes to channel FIRST.
template <class CONFIG_T, unsigned INPUT, unsigned FIRST, class res_T, class data_T, class... more_T>
void place(res_T *res, const data_T *data, const more_T *...more) {
    #pragma HLS INLINE
    const unsigned CHANNELS = CONFIG_T::channels_of(INPUT);
    for (unsigned i = 0; i < CONFIG_T::positions; i++) {
        #pragma HLS UNROLL
        for (unsigned c = 0; c < CHANNELS; c++) {
            #pragma HLS UNROLL
            res[i * CONFIG_T::channels + FIRST + c] =
                shifted<CONFIG_T::up_of(INPUT), res_T>(data[i * CHANNELS + c]);
        }
    }
    place<CONFIG_T, INPUT + 1, FIRST + CONFIG_T::channels_of(INPUT)>(res, more...);
}

template <class CONFIG_T, unsigned INPUT, unsigned FIRST, class res_T> void gather(res_T &) {}

template <class CONFIG_T, unsigned INPUT, unsigned FIRST, class res_T, class data_T, class... more_T>
void gather(res_T &res, hls::stream<data_T> &data, hls::stream<more_T> &...more) {
    #pragma HLS INLINE
    const data_T in = data.read();
    for (unsigned c = 0; c < data_T::size; c++) {
        #pragma HLS UNROLL
        res[FIRST + c] = shifted<CONFIG_T::up_of(INPUT), typename res_T::value_type>(in[c]);
    }
    gather<CONFIG_T, INPUT + 1, FIRST + data_T::size>(res, more...);
}

// The types of the inputs, and how many values each has: spelled out, so that every array has its size.
template <class... data_T> struct joined {
    template <unsigned... SIZES> struct sized {
        template <class res_T, class CONFIG_T>
        static void concat(res_T res[CONFIG_T::positions * CONFIG_T::channels], data_T (...data)[SIZES]) {
            #pragma HLS PIPELINE II=1
            place<CONFIG_T, 0, 0>(res, data...);
        }

        template <class res_T, class CONFIG_T>
        static void concat(hls::stream<res_T> &res, hls::stream<data_T> &...data) {
            for (unsigned i = 0; i < CONFIG_T::positions; i++) {
                #pragma HLS PIPELINE II=1
                res_T out;
                gather<CONFIG_T, 0, 0>(out, data...);
                res.write(out);
            }
        }
    };
};

} // namespace flow_kernels

#endif
