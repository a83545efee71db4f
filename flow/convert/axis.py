"""Writes the AXI4-Stream top around hls4ml's network, and the constants of its test bench.

A frame is input 0's words, then input 1's, ...; each starts in a word of its own, and so do the outputs'. The TLAST
of a frame's last word in comes back on its last word out (`axis_top.h` says how).

The work itself is C++ in ``hls_templates/cpp``, parameterised by types and constants; only a thin top and
two headers are generated here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from flow.errors import ConfigError, UnsupportedError
from flow.estimate.io_types import check_io_type
from flow.resources import data_folder
from flow.types import Port

_TEMPLATES = {
    "firmware/axis_top.h": "axis_top.h",
    "tb/testbench.cpp": "testbench.cpp",
    "tb/testbench.h": "testbench.h",
    "tb/emulation/ap_axi_sdata.h": "emulation/ap_axi_sdata.h",
}
# names that the generated C++ uses itself
_TAKEN = frozenset(
    {
        *("flow_axis", "flow_input", "flow_last", "flow_output", "hls", "m_axis"),
        *("main", "nnet", "s_axis", "std", "words"),
    }
)
_FRAMES = 2
"""Depth of the streams of whole frames around an io_parallel network."""
_LASTS = 16
"""Depth of the stream of flags beside the network: what one lookup table holds as a shift register."""

_HEADER = """\
// The AXI4-Stream top of {top}: words in, words out (axis_top.h has the format).

#ifndef {guard}_AXIS_H_
#define {guard}_AXIS_H_

#include "axis_top.h"
#include "defines.h"

void {top}_axis(hls::stream<axis_word_t> &s_axis, hls::stream<axis_word_t> &m_axis);

#endif
"""

# One process reads s_axis and one writes m_axis, however many ports there are: a stream has one reader, one writer.
_TOP = """\
#include "{top}_axis.h"
#include "{top}.h"
{types}
static void {top}_unpack(hls::stream<axis_word_t> &words, {in_arguments},
        hls::stream<flow_axis::last_t> &flow_last) {{
    #pragma HLS INLINE off
{unpack}}}

static void {top}_pack({out_arguments},
        hls::stream<flow_axis::last_t> &flow_last, hls::stream<axis_word_t> &words) {{
    #pragma HLS INLINE off
{pack}}}
{frame}
void {top}_axis(hls::stream<axis_word_t> &s_axis, hls::stream<axis_word_t> &m_axis) {{
    #pragma HLS INTERFACE axis port=s_axis
    #pragma HLS INTERFACE axis port=m_axis
    #pragma HLS INTERFACE ap_ctrl_none port=return
    // Each process starts by itself and waits for its streams (UG1399, "Specifying Compiler-Created FIFO Depth"): a
    // FIFO of starts from {top}_unpack to {top}_pack, beside the network, would bound the frames inside it.
    #pragma HLS DATAFLOW disable_start_propagation

{streams}
    {top}_unpack(s_axis, {inputs}, flow_last);
    {call}({inputs}, {outputs});
    {top}_pack({outputs}, flow_last, m_axis);
}}
"""

# The pragmas on the arrays repeat those of hls4ml's top: caller and callee must agree.
_FRAME = """
static void {top}_frame({in_arguments}, {out_arguments}) {{
    #pragma HLS INLINE off
{arrays}
{load}    {top}({values});
{store}}}
"""

_STREAM = """\
    hls::stream<{type}> {name}("{name}");
    #pragma HLS STREAM variable={name} depth={depth}
"""

_ARRAY = """\
    {type} {name}_values[{size}];
    #pragma HLS ARRAY_{mode} variable={name}_values complete dim=0
"""

_TB_CONFIG = """\
// Constants of the test bench (testbench.cpp).

#ifndef FLOW_TB_CONFIG_H_
#define FLOW_TB_CONFIG_H_

#include "{top}_axis.h"

#include "testbench.h"

{checks}
static const flow_port FLOW_INPUTS[] = {{{inputs}}};
static const flow_port FLOW_OUTPUTS[] = {{{outputs}}};
static const flow_trace_layer FLOW_TRACE_LAYERS[] = {{{layers}}};

// cosim looks for a direct call of the top
static void flow_run_top(hls::stream<axis_word_t> &to_top, hls::stream<axis_word_t> &from_top) {{
    {top}_axis(to_top, from_top);
}}

const flow_design FLOW_DESIGN = {{FLOW_INPUTS, {input_count}, FLOW_OUTPUTS, {output_count}, FLOW_TRACE_LAYERS, {count},
                                 flow_run_top}};

#endif
"""

_CHECK = """\
static_assert(flow_axis::type_of<{type}>::WIDTH == {width} &&
                  flow_axis::type_of<{type}>::SIGNED == {signed} &&
                  flow_axis::type_of<{type}>::FRACTION_BITS == {fraction},
              "the network's {name} must be a {dtype}");
"""


@dataclass(frozen=True)
class Side:
    """A port of the network: its C++ type, and the depth of its stream (io_stream)."""

    port: Port
    type: str
    depth: int = 0


@dataclass(frozen=True)
class _Stream:
    """A stream between the gearboxes and the network."""

    name: str
    side: Side
    type: str
    depth: int

    @property
    def argument(self) -> str:
        return f"hls::stream<{self.type}> &{self.name}"


def axis_files(
    top: str,
    io_type: str,
    inputs: Sequence[Side],
    outputs: Sequence[Side],
    layers: Iterable[tuple[str, int]],
) -> dict[str, str]:
    """Return the files that put hls4ml's network between two AXI4-Streams, by path in the HLS project.

    Args:
        top: name of hls4ml's top function; the new one is called ``<top>_axis``.
        io_type: ``io_stream`` or ``io_parallel``, as the project was converted.
        inputs: the network's inputs, in the order of their words in a frame.
        outputs: the network's outputs, likewise.
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
    check_io_type("convert", io_type, "correct [convert]")
    for side in (*inputs, *outputs):
        _check_width(side.port)
    stream = io_type == "io_stream"
    files = {
        f"firmware/{top}_axis.h": _HEADER.format(top=top, guard=top.upper()),
        f"firmware/{top}_axis.cpp": _top(top, stream, inputs, outputs),
        "tb/tb_config.h": _tb_config(top, stream, inputs, outputs, tuple(layers)),
    }
    folder = data_folder("hls_templates") / "cpp"
    for name, source in _TEMPLATES.items():
        files[name] = (folder / source).read_text(encoding="utf-8")
    return files


def _top(top: str, stream: bool, inputs: Sequence[Side], outputs: Sequence[Side]) -> str:
    given, made = _streams("flow_input", inputs, stream), _streams("flow_output", outputs, stream)
    in_arguments = ", ".join(one.argument for one in given)
    out_arguments = ", ".join(one.argument for one in made)
    types = [f"typedef nnet::array<{s.side.type}, {s.side.port.size}> {s.type};" for s in (*given, *made)]
    return _TOP.format(
        top=top,
        types="" if stream else "\n" + "\n".join(types) + "\n",
        in_arguments=in_arguments,
        out_arguments=out_arguments,
        unpack="".join(_unpack(s, s is given[-1]) for s in given),
        pack="".join(_pack(s, s is made[-1]) for s in made),
        frame="" if stream else _frame(top, given, made, in_arguments, out_arguments),
        streams="".join(
            _STREAM.format(type=kind, name=name, depth=depth)
            for kind, name, depth in (
                *((s.type, s.name, s.depth) for s in (*given, *made)),
                ("flow_axis::last_t", "flow_last", _LASTS),
            )
        ),
        inputs=", ".join(s.name for s in given),
        outputs=", ".join(s.name for s in made),
        call=top if stream else f"{top}_frame",
    )


def _unpack(stream: _Stream, last: bool) -> str:
    call = f"flow_axis::unpack<{stream.side.port.size}>(words, {stream.name})"
    return f"    flow_last.write({call});\n" if last else f"    {call};\n"


def _pack(stream: _Stream, last: bool) -> str:
    size, flag = stream.side.port.size, str(last).lower()
    return f"    flow_axis::pack<{size}, {flag}>({stream.name}, flow_last, words);\n"


def _streams(prefix: str, sides: Sequence[Side], stream: bool) -> list[_Stream]:
    names = [f"{prefix}_{number}" for number in range(len(sides))] if len(sides) > 1 else [prefix]
    return [
        _Stream(name, side, side.type if stream else f"{name}_t", side.depth if stream else _FRAMES)
        for name, side in zip(names, sides, strict=True)
    ]


def _frame(top: str, given: list[_Stream], made: list[_Stream], in_arguments: str, out_arguments: str) -> str:
    """Return the function that takes a frame of each input from its stream and gives one of each output."""

    def arrays(streams: list[_Stream], mode: str) -> str:
        return "".join(
            _ARRAY.format(type=s.side.type, name=s.name, size=s.side.port.size, mode=mode) for s in streams
        )

    return _FRAME.format(
        top=top,
        in_arguments=in_arguments,
        out_arguments=out_arguments,
        arrays=arrays(given, "RESHAPE") + arrays(made, "PARTITION"),
        load="".join(f"    flow_axis::load({s.name}, {s.name}_values);\n" for s in given),
        values=", ".join(f"{s.name}_values" for s in (*given, *made)),
        store="".join(f"    flow_axis::store({s.name}_values, {s.name});\n" for s in made),
    )


def _tb_config(
    top: str,
    stream: bool,
    inputs: Sequence[Side],
    outputs: Sequence[Side],
    layers: tuple[tuple[str, int], ...],
) -> str:
    for name, _ in layers:
        if not re.fullmatch(r"[A-Za-z0-9_.-]+", name):
            raise ConfigError(
                f"convert: layer names must consist of letters, digits, '_', '.' and '-', not {name!r}; "
                "rename the layer"
            )
    # C++ has no empty arrays; the test bench reads FLOW_TRACE_COUNT elements
    shown = layers or (("", 0),)
    return _TB_CONFIG.format(
        top=top,
        checks="".join(
            _check(what, number, side, stream)
            for what, sides in (("input", inputs), ("output", outputs))
            for number, side in enumerate(sides)
        ),
        inputs=_described("input", inputs),
        outputs=_described("output", outputs),
        layers=", ".join(f'{{"{name}", {size}}}' for name, size in shown),
        count=len(layers),
        input_count=len(inputs),
        output_count=len(outputs),
    )


def _described(what: str, sides: Sequence[Side]) -> str:
    return ", ".join(
        f'{{"{what} {number}", {side.port.size}, {side.port.dtype.width}, {str(side.port.dtype.signed).lower()}}}'
        for number, side in enumerate(sides)
    )


def _check(what: str, number: int, side: Side, stream: bool) -> str:
    dtype = side.port.dtype
    return _CHECK.format(
        type=f"{side.type}::value_type" if stream else side.type,
        name=f"{what} {number}",
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
