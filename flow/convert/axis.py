"""Writes the AXI4-Stream top around hls4ml's network, and the constants of its test bench.

The work itself is C++ in ``hls_templates/cpp``, parameterised by types and constants; only a thin top and
two headers are generated here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from flow.errors import ConfigError, UnsupportedError
from flow.resources import data_folder
from flow.types import Port

_TEMPLATES = {
    "firmware/axis_top.h": "axis_top.h",
    "tb/testbench.cpp": "testbench.cpp",
    "tb/emulation/ap_axi_sdata.h": "emulation/ap_axi_sdata.h",
}
# names that the generated C++ uses itself
_TAKEN = frozenset(
    {
        *("flow_axis", "hls", "main", "nnet", "std"),
        *("flow_input", "flow_output", "inputs", "outputs", "s_axis", "m_axis"),
    }
)
# Elements of the streams around the network: an array is small and covers the gaps between two DMA
# bursts from a shift register in LUTs; a frame is large.
_DEPTHS = {"io_stream": 16, "io_parallel": 2}

_HEADER = """\
// The AXI4-Stream top of {top}: words in, words out (axis_top.h has the format).

#ifndef {guard}_AXIS_H_
#define {guard}_AXIS_H_

#include "axis_top.h"
#include "defines.h"

void {top}_axis(hls::stream<axis_word_t> &s_axis, hls::stream<axis_word_t> &m_axis);

#endif
"""

_STREAM_TOP = """\
#include "{top}_axis.h"
#include "{top}.h"

void {top}_axis(hls::stream<axis_word_t> &s_axis, hls::stream<axis_word_t> &m_axis) {{
    #pragma HLS INTERFACE axis port=s_axis
    #pragma HLS INTERFACE axis port=m_axis
    #pragma HLS INTERFACE ap_ctrl_none port=return
    #pragma HLS DATAFLOW

    hls::stream<input_t> flow_input("flow_input");
    #pragma HLS STREAM variable=flow_input depth={depth}
    hls::stream<result_t> flow_output("flow_output");
    #pragma HLS STREAM variable=flow_output depth={depth}

    flow_axis::unpack<{inputs}>(s_axis, flow_input);
    {top}(flow_input, flow_output);
    flow_axis::pack<{outputs}>(flow_output, m_axis);
}}
"""

# The pragmas on the arrays repeat those of hls4ml's top: caller and callee must agree.
_PARALLEL_TOP = """\
#include "{top}_axis.h"
#include "{top}.h"

typedef nnet::array<input_t, {inputs}> flow_input_frame_t;
typedef nnet::array<result_t, {outputs}> flow_output_frame_t;

static void {top}_frame(hls::stream<flow_input_frame_t> &inputs, hls::stream<flow_output_frame_t> &outputs) {{
    #pragma HLS INLINE off
    input_t flow_input[{inputs}];
    #pragma HLS ARRAY_RESHAPE variable=flow_input complete dim=0
    result_t flow_output[{outputs}];
    #pragma HLS ARRAY_PARTITION variable=flow_output complete dim=0

    flow_axis::load(inputs, flow_input);
    {top}(flow_input, flow_output);
    flow_axis::store(flow_output, outputs);
}}

void {top}_axis(hls::stream<axis_word_t> &s_axis, hls::stream<axis_word_t> &m_axis) {{
    #pragma HLS INTERFACE axis port=s_axis
    #pragma HLS INTERFACE axis port=m_axis
    #pragma HLS INTERFACE ap_ctrl_none port=return
    #pragma HLS DATAFLOW

    hls::stream<flow_input_frame_t> flow_input("flow_input");
    #pragma HLS STREAM variable=flow_input depth={depth}
    hls::stream<flow_output_frame_t> flow_output("flow_output");
    #pragma HLS STREAM variable=flow_output depth={depth}

    flow_axis::unpack<{inputs}>(s_axis, flow_input);
    {top}_frame(flow_input, flow_output);
    flow_axis::pack<{outputs}>(flow_output, m_axis);
}}
"""

_TB_CONFIG = """\
// Constants of the test bench (testbench.cpp).

#ifndef FLOW_TB_CONFIG_H_
#define FLOW_TB_CONFIG_H_

#include "{top}_axis.h"

#define FLOW_TOP {top}_axis

static const unsigned FLOW_INPUT_SIZE = {inputs};
static const unsigned FLOW_OUTPUT_SIZE = {outputs};

typedef {input_type} flow_input_t;
typedef {output_type} flow_output_t;

static const int FLOW_INPUT_FRACTION_BITS = {input_fraction};
static const int FLOW_OUTPUT_FRACTION_BITS = {output_fraction};

{checks}
struct flow_trace_layer {{
    const char *name;
    unsigned size;
}};
static const flow_trace_layer FLOW_TRACE_LAYERS[] = {{{layers}}};
static const unsigned FLOW_TRACE_COUNT = {count};

#endif
"""

_CHECK = """\
static_assert(flow_axis::type_of<flow_{side}_t>::WIDTH == {width} &&
                  flow_axis::type_of<flow_{side}_t>::SIGNED == {signed} &&
                  flow_axis::type_of<flow_{side}_t>::FRACTION_BITS == {fraction},
              "the network's {side} must be a {dtype}");
"""


def axis_files(
    top: str, io_type: str, input_port: Port, output_port: Port, layers: Iterable[tuple[str, int]]
) -> dict[str, str]:
    """Return the files that put hls4ml's network between two AXI4-Streams, by path in the HLS project.

    Args:
        top: name of hls4ml's top function; the new one is called ``<top>_axis``.
        io_type: ``io_stream`` or ``io_parallel``, as the project was converted.
        input_port: the network's only input.
        output_port: the network's only output.
        layers: name and number of values of every layer that the test bench can trace.

    Returns:
        The generated ``firmware/<top>_axis.h``, ``firmware/<top>_axis.cpp`` and ``tb/tb_config.h``, and
        copies of ``axis_top.h``, ``testbench.cpp`` and ``ap_axi_sdata.h`` (for g++ only).

    Raises:
        ConfigError: ``top``, ``io_type`` or a layer's name breaks a rule.
        UnsupportedError: a value is too wide for two stream words.
    """
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", top) or top in _TAKEN:
        raise ConfigError(
            f"convert: top must be a C identifier that the generated C++ leaves free, not {top!r}; "
            "choose another name"
        )
    if io_type not in _DEPTHS:
        raise ConfigError(
            f"convert: io_type must be one of {', '.join(_DEPTHS)}, not {io_type!r}; correct [convert]"
        )
    for port in (input_port, output_port):
        _check_width(port)
    stream = io_type == "io_stream"
    template = _STREAM_TOP if stream else _PARALLEL_TOP
    sizes = {"inputs": input_port.size, "outputs": output_port.size}
    files = {
        f"firmware/{top}_axis.h": _HEADER.format(top=top, guard=top.upper()),
        f"firmware/{top}_axis.cpp": template.format(top=top, depth=_DEPTHS[io_type], **sizes),
        "tb/tb_config.h": _tb_config(top, stream, input_port, output_port, tuple(layers)),
    }
    folder = data_folder("hls_templates") / "cpp"
    for name, source in _TEMPLATES.items():
        files[name] = (folder / source).read_text(encoding="utf-8")
    return files


def _tb_config(
    top: str, stream: bool, input_port: Port, output_port: Port, layers: tuple[tuple[str, int], ...]
) -> str:
    for name, _ in layers:
        if not re.fullmatch(r"[A-Za-z0-9_.-]+", name):
            raise ConfigError(
                f"convert: layer names must consist of letters, digits, '_', '.' and '-', not {name!r}; "
                "rename the layer"
            )
    element = "::value_type" if stream else ""
    # C++ has no empty arrays; the test bench reads FLOW_TRACE_COUNT elements
    shown = layers or (("", 0),)
    return _TB_CONFIG.format(
        top=top,
        inputs=input_port.size,
        outputs=output_port.size,
        input_type=f"input_t{element}",
        output_type=f"result_t{element}",
        input_fraction=input_port.dtype.fraction_bits,
        output_fraction=output_port.dtype.fraction_bits,
        checks=_check("input", input_port) + _check("output", output_port),
        layers=", ".join(f'{{"{name}", {size}}}' for name, size in shown),
        count=len(layers),
    )


def _check(side: str, port: Port) -> str:
    dtype = port.dtype
    return _CHECK.format(
        side=side,
        width=dtype.width,
        signed=str(dtype.signed).lower(),
        fraction=dtype.fraction_bits,
        dtype=dtype,
    )


def _check_width(port: Port) -> None:
    """Refuse what does not fit two 32-bit words, or the int64 of the test bench's files."""
    limit = 64 if port.dtype.signed else 63
    if not 1 <= port.dtype.width <= limit:
        raise UnsupportedError(
            f"convert: port {port.name!r} must be 1 to {limit} bits wide, not {port.dtype.width} "
            f"({port.dtype}); lower its precision"
        )
