// Cross-correlation with groups, strides, dilations and zeros as padding, in one and two dimensions.
//
// CONFIG_T: see window.h, and filters, groups, reuse_factor, accum_t (holds every partial sum).
// weights: filters x kernel_height x kernel_width x channels of a group. The products of a position are folded over
// reuse_factor cycles; it divides the products of a filter.

#ifndef FLOW_KERNELS_CONV_H_
#define FLOW_KERNELS_CONV_H_

#include <type_traits>

#include "window.h"

namespace flow_kernels {

template <class CONFIG_T> struct conv_size {
    static const unsigned positions = CONFIG_T::kernel_height * CONFIG_T::kernel_width;
    static const unsigned group = CONFIG_T::channels / CONFIG_T::groups; // channels that a filter reads
    static const unsigned products = positions * group;                  // of a filter
    static const unsigned at_once = products / CONFIG_T::reuse_factor;   // of a filter in a cycle
    static const unsigned multipliers = CONFIG_T::filters * at_once;
    static const unsigned taps = CONFIG_T::groups * products;
    static const unsigned weights = CONFIG_T::filters * products;
    static_assert(products % CONFIG_T::reuse_factor == 0, "the reuse factor must divide the products of a filter");
    typedef std::integral_constant<bool, (CONFIG_T::reuse_factor > 1)> folded;
};

// All filters at one position; `taps`: groups x kernel_height x kernel_width x channels of a group.
template <class CONFIG_T, class data_T, class res_T, class weight_T, class bias_T>
void multiply(const data_T (&taps)[conv_size<CONFIG_T>::taps], res_T (&res)[CONFIG_T::filters],
              const weight_T weights[conv_size<CONFIG_T>::weights], const bias_T biases[CONFIG_T::filters]) {
    #pragma HLS INLINE
    typedef conv_size<CONFIG_T> S;
    typename CONFIG_T::accum_t sums[CONFIG_T::filters];
    #pragma HLS ARRAY_PARTITION variable=sums complete
    for (unsigned f = 0; f < CONFIG_T::filters; f++) {
        #pragma HLS UNROLL
        sums[f] = biases[f];
    }
    for (unsigned turn = 0; turn < CONFIG_T::reuse_factor; turn++) {
        #pragma HLS PIPELINE II=1
        for (unsigned f = 0; f < CONFIG_T::filters; f++) {
            #pragma HLS UNROLL
            const unsigned first = f / (CONFIG_T::filters / CONFIG_T::groups) * S::products;
            typename CONFIG_T::accum_t sum = 0;
            for (unsigned i = 0; i < S::at_once; i++) {
                #pragma HLS UNROLL
                const unsigned k = i * CONFIG_T::reuse_factor + turn;
                sum += taps[first + k] * weights[f * S::products + k];
            }
            sums[f] += sum;
        }
    }
    for (unsigned f = 0; f < CONFIG_T::filters; f++) {
        #pragma HLS UNROLL
        res[f] = sums[f];
    }
}

// One position of an image that is there as a whole.
template <class CONFIG_T, class data_T, class res_T, class weight_T, class bias_T>
void conv_position(const data_T *data, res_T *res, unsigned position,
                   const weight_T weights[conv_size<CONFIG_T>::weights], const bias_T biases[CONFIG_T::filters]) {
    #pragma HLS INLINE
    typedef conv_size<CONFIG_T> S;
    data_T taps[S::taps];
    #pragma HLS ARRAY_PARTITION variable=taps complete
    for (unsigned k = 0; k < S::positions; k++) {
        #pragma HLS UNROLL
        for (unsigned c = 0; c < CONFIG_T::channels; c++) {
            #pragma HLS UNROLL
            taps[c / S::group * S::products + k * S::group + c % S::group] =
                tap<CONFIG_T>(data, position / CONFIG_T::out_width, position % CONFIG_T::out_width,
                              k / CONFIG_T::kernel_width, k % CONFIG_T::kernel_width, c, data_T(0));
        }
    }
    res_T out[CONFIG_T::filters];
    #pragma HLS ARRAY_PARTITION variable=out complete
    multiply<CONFIG_T>(taps, out, weights, biases);
    for (unsigned f = 0; f < CONFIG_T::filters; f++) {
        #pragma HLS UNROLL
        res[position * CONFIG_T::filters + f] = out[f];
    }
}

// One step of a scan over a stream.
template <class CONFIG_T, class data_T, class res_T, class weight_T, class bias_T>
void conv_step(hls::stream<data_T> &data, hls::stream<res_T> &res, scan<CONFIG_T> &at,
               const weight_T weights[conv_size<CONFIG_T>::weights], const bias_T biases[CONFIG_T::filters]) {
    #pragma HLS INLINE
    typedef conv_size<CONFIG_T> S;
    typedef extent<CONFIG_T> E;
    typedef typename data_T::value_type x_t;
    static x_t lines[E::lines][E::width][CONFIG_T::channels];
    #pragma HLS ARRAY_PARTITION variable=lines complete dim=1
    #pragma HLS ARRAY_PARTITION variable=lines complete dim=3
    static x_t window[CONFIG_T::kernel_height][E::span_width][CONFIG_T::channels];
    #pragma HLS ARRAY_PARTITION variable=window complete dim=0
    x_t position[CONFIG_T::channels];
    #pragma HLS ARRAY_PARTITION variable=position complete
    take(data, at, x_t(0), position);
    push(at, position, lines, window);
    if (at.complete()) {
        x_t taps[S::taps];
        #pragma HLS ARRAY_PARTITION variable=taps complete
        for (unsigned k = 0; k < S::positions; k++) {
            #pragma HLS UNROLL
            for (unsigned c = 0; c < CONFIG_T::channels; c++) {
                #pragma HLS UNROLL
                taps[c / S::group * S::products + k * S::group + c % S::group] =
                    window[k / CONFIG_T::kernel_width][k % CONFIG_T::kernel_width * CONFIG_T::dilation_width][c];
            }
        }
        res_T out;
        multiply<CONFIG_T>(taps, out.data, weights, biases);
        res.write(out);
    }
    at.next();
}

template <class CONFIG_T, class data_T, class res_T, class weight_T, class bias_T>
void conv_all(const data_T *data, res_T *res, const weight_T weights[conv_size<CONFIG_T>::weights],
              const bias_T biases[CONFIG_T::filters], std::false_type) {
    #pragma HLS INLINE
    #pragma HLS ARRAY_PARTITION variable=weights complete
    for (unsigned position = 0; position < CONFIG_T::out_height * CONFIG_T::out_width; position++) {
        #pragma HLS PIPELINE II=1
        conv_position<CONFIG_T>(data, res, position, weights, biases);
    }
}

template <class CONFIG_T, class data_T, class res_T, class weight_T, class bias_T>
void conv_all(const data_T *data, res_T *res, const weight_T weights[conv_size<CONFIG_T>::weights],
              const bias_T biases[CONFIG_T::filters], std::true_type) {
    #pragma HLS INLINE
    const unsigned multipliers = conv_size<CONFIG_T>::multipliers;
    #pragma HLS ARRAY_RESHAPE variable=weights block factor=multipliers
    for (unsigned position = 0; position < CONFIG_T::out_height * CONFIG_T::out_width; position++) {
        conv_position<CONFIG_T>(data, res, position, weights, biases);
    }
}

template <class CONFIG_T, class data_T, class res_T, class weight_T, class bias_T>
void conv_all(hls::stream<data_T> &data, hls::stream<res_T> &res,
              const weight_T weights[conv_size<CONFIG_T>::weights], const bias_T biases[CONFIG_T::filters],
              std::false_type) {
    #pragma HLS INLINE
    #pragma HLS ARRAY_PARTITION variable=weights complete
    scan<CONFIG_T> at;
    for (unsigned step = 0; step < extent<CONFIG_T>::height * extent<CONFIG_T>::width; step++) {
        #pragma HLS PIPELINE II=1
        conv_step<CONFIG_T>(data, res, at, weights, biases);
    }
}

template <class CONFIG_T, class data_T, class res_T, class weight_T, class bias_T>
void conv_all(hls::stream<data_T> &data, hls::stream<res_T> &res,
              const weight_T weights[conv_size<CONFIG_T>::weights], const bias_T biases[CONFIG_T::filters],
              std::true_type) {
    #pragma HLS INLINE
    const unsigned multipliers = conv_size<CONFIG_T>::multipliers;
    #pragma HLS ARRAY_RESHAPE variable=weights block factor=multipliers
    scan<CONFIG_T> at;
    for (unsigned step = 0; step < extent<CONFIG_T>::height * extent<CONFIG_T>::width; step++) {
        conv_step<CONFIG_T>(data, res, at, weights, biases);
    }
}

template <class data_T, class res_T, class CONFIG_T, class weight_T, class bias_T>
void conv(data_T data[CONFIG_T::in_height * CONFIG_T::in_width * CONFIG_T::channels],
          res_T res[CONFIG_T::out_height * CONFIG_T::out_width * CONFIG_T::filters],
          weight_T weights[conv_size<CONFIG_T>::weights], bias_T biases[CONFIG_T::filters]) {
    #pragma HLS ARRAY_PARTITION variable=biases complete
    conv_all<CONFIG_T>(data, res, weights, biases, typename conv_size<CONFIG_T>::folded());
}

template <class data_T, class res_T, class CONFIG_T, class weight_T, class bias_T>
void conv(hls::stream<data_T> &data, hls::stream<res_T> &res, weight_T weights[conv_size<CONFIG_T>::weights],
          bias_T biases[CONFIG_T::filters]) {
    #pragma HLS ARRAY_PARTITION variable=biases complete
    conv_all<CONFIG_T>(data, res, weights, biases, typename conv_size<CONFIG_T>::folded());
}

} // namespace flow_kernels

#endif
