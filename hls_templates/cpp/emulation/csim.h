// What every file of a design includes first when it is compiled for csim: hls4ml's layers, precompiled once a machine,
// and functions of ours in the place of hls4ml's own that read weights and trace layers, which take longer to compile
// than the network. No arithmetic is replaced.

#ifndef FLOW_EMULATION_CSIM_H_
#define FLOW_EMULATION_CSIM_H_

#include <cassert>
#include <cstddef>

#include "ap_axi_sdata.h"
#include "ap_fixed.h"
#include "ap_int.h"
#include "hls_math.h"
#include "hls_stream.h"

namespace flow_csim {
// The numbers of a file in the folder weights; exactly `count` of them.
const double *weights(const char *name, size_t count);
// Where the values of a layer go; NULL where nobody traces it.
double *trace(const char *layer);
} // namespace flow_csim

#define load_weights_from_txt hls4ml_load_weights_from_txt
#define save_layer_output hls4ml_save_layer_output
#include "nnet_utils/nnet_helpers.h"
#undef load_weights_from_txt
#undef save_layer_output

namespace nnet {

template <class T, size_t SIZE> void load_weights_from_txt(T *weights, const char *name) {
    const double *values = flow_csim::weights(name, SIZE);
    for (size_t i = 0; i < SIZE; i++)
        weights[i] = T(values[i]);
}

template <class T> void save_layer_output(T *data, const char *name, size_t size) {
    if (double *values = flow_csim::trace(name))
        for (size_t i = 0; i < size; i++)
            values[i] = double(data[i]);
}

template <class ARRAY> void save_layer_output(hls::stream<ARRAY> &data, const char *name, size_t size) {
    if (double *values = flow_csim::trace(name))
        for (size_t i = 0; i < size; i++)
            values[i] = double(data.peek(i / ARRAY::size)[i % ARRAY::size]);
}

} // namespace nnet

#include "nnet_utils/nnet_activation.h"
#include "nnet_utils/nnet_activation_stream.h"
#include "nnet_utils/nnet_batchnorm.h"
#include "nnet_utils/nnet_batchnorm_stream.h"
#include "nnet_utils/nnet_code_gen.h"
#include "nnet_utils/nnet_conv1d.h"
#include "nnet_utils/nnet_conv1d_stream.h"
#include "nnet_utils/nnet_conv2d.h"
#include "nnet_utils/nnet_conv2d_stream.h"
#include "nnet_utils/nnet_dense.h"
#include "nnet_utils/nnet_dense_compressed.h"
#include "nnet_utils/nnet_dense_stream.h"
#include "nnet_utils/nnet_merge.h"
#include "nnet_utils/nnet_merge_stream.h"
#include "nnet_utils/nnet_padding.h"
#include "nnet_utils/nnet_padding_stream.h"
#include "nnet_utils/nnet_pooling.h"
#include "nnet_utils/nnet_pooling_stream.h"
#include "nnet_utils/nnet_stream.h"
#include "axis_top.h"

#endif
