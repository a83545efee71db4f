"""The AXI4-Stream top and its test bench: generated texts, and real runs with networks of a few lines."""

import importlib.util
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from conftest import needs

from flow.convert.axis import Side, axis_files
from flow.errors import ConfigError, UnsupportedError
from flow.types import FixedPoint, Port

GOLDEN = Path(__file__).parent / "golden" / "axis"
IMAGE = Side(Port("image", (8, 8, 1), FixedPoint(True, 1, 7)), "input_t", 17)
SCORES = Side(Port("scores", (10,), FixedPoint(True, 6, 17)), "result_t", 2)
LAYERS = (("conv1", 576), ("dense", 10))
GENERATED = ("firmware/net_axis.h", "firmware/net_axis.cpp", "tb/tb_config.h")


# ---------------------------------------------------------------- generated text


@pytest.mark.parametrize("io_type", ["io_stream", "io_parallel"])
def test_generated_files_equal_the_golden_ones(io_type):
    files = axis_files("net", io_type, [IMAGE], [SCORES], LAYERS)
    for name in GENERATED:
        golden = GOLDEN / io_type / Path(name).name
        if os.environ.get("FLOW_UPDATE_GOLDEN") == "1":
            golden.write_text(files[name], encoding="utf-8")
        assert files[name] == golden.read_text(encoding="utf-8"), f"{name} differs from {golden}"


def test_the_templates_are_copied_as_they_are():
    files = axis_files("net", "io_stream", [IMAGE], [SCORES], LAYERS)
    source = Path(__file__).parents[1] / "hls_templates" / "cpp"
    assert set(files) - set(GENERATED) == {
        "firmware/axis_top.h",
        "tb/testbench.cpp",
        "tb/testbench.h",
        "tb/emulation/ap_axi_sdata.h",
    }
    assert files["firmware/axis_top.h"] == (source / "axis_top.h").read_text(encoding="utf-8")
    assert files["tb/testbench.cpp"] == (source / "testbench.cpp").read_text(encoding="utf-8")


@pytest.mark.parametrize("top", ["1net", "net-1", "", "main", "nnet", "flow_last", "net;", "netz\n", "größe"])
def test_a_top_that_cannot_be_a_function_is_rejected(top):
    with pytest.raises(ConfigError, match=r"^convert: top must be a C identifier .*, not .*; choose another"):
        axis_files(top, "io_stream", [IMAGE], [SCORES], LAYERS)


def test_an_unknown_io_type_is_rejected():
    with pytest.raises(ConfigError) as caught:
        axis_files("net", "io_serial", [IMAGE], [SCORES], LAYERS)
    assert str(caught.value) == (
        "convert: io_type must be one of io_stream, io_parallel, not 'io_serial'; correct [convert]"
    )


def test_values_wider_than_two_words_are_rejected():
    wide = Side(Port("scores", (1,), FixedPoint(True, 40, 25)), "result_t")
    with pytest.raises(UnsupportedError) as caught:
        axis_files("net", "io_stream", [IMAGE], [wide], LAYERS)
    assert str(caught.value) == (
        "convert: port 'scores' must be 1 to 64 bits wide, not 65 (fixed<65,40>); lower its precision"
    )
    with pytest.raises(UnsupportedError, match="1 to 63 bits wide, not 64"):
        axis_files(
            "net", "io_stream", [Side(Port("x", (1,), FixedPoint(False, 64, 0)), "input_t")], [SCORES], LAYERS
        )


def test_a_layer_name_that_cannot_be_a_file_is_rejected():
    with pytest.raises(
        ConfigError, match=r"layer names must consist of .*, not '\.\./\"x'; rename the layer"
    ):
        axis_files("net", "io_stream", [IMAGE], [SCORES], (('../"x', 1),))


# ---------------------------------------------------------------- compiled and run


@dataclass(frozen=True)
class Case:
    """A network whose output i is ``factor * input[i % inputs]``; arrays hold ``array_in/out`` values."""

    io_type: str
    inputs: int
    input_type: FixedPoint
    outputs: int
    output_type: FixedPoint
    factor: int = 2
    array_in: int = 1
    array_out: int = 1

    def __str__(self):
        return (
            f"{self.io_type}-{self.inputs}x{self.input_type.width}-{self.outputs}x{self.output_type.width}"
            f"-arrays{self.array_in},{self.array_out}"
        )

    def expected(self, inputs):
        shift = self.output_type.fraction_bits - self.input_type.fraction_bits
        return (self.factor * inputs[:, np.arange(self.outputs) % self.inputs]) << shift

    def frames(self, samples=7):
        """Random frames; the first two hold the smallest and the largest value."""
        dtype = self.input_type
        frames = np.random.default_rng(0).integers(
            dtype.minimum_lsb, dtype.maximum_lsb, (samples, self.inputs), dtype=np.int64, endpoint=True
        )
        frames[0], frames[1] = dtype.minimum_lsb, dtype.maximum_lsb
        return frames


SMALL = Case("io_stream", 5, FixedPoint(True, 2, 4), 3, FixedPoint(True, 9, 10), array_out=3)
CASES = (
    SMALL,
    # two arrays of three in lanes of four a word: an array spans two words, and one step flushes
    Case("io_stream", 6, FixedPoint(False, 8, 0), 6, FixedPoint(False, 8, 0), 1, array_in=3, array_out=3),
    # lanes of 16 bits, and a value that takes two words
    Case("io_stream", 6, FixedPoint(True, 12, 0), 1, FixedPoint(True, 38, 2), -(2**23) + 5, array_in=3),
    # a whole frame in one array, as dense networks read it; inputs of two words
    Case("io_stream", 3, FixedPoint(True, 3, 30), 5, FixedPoint(True, 4, 30), array_in=3, array_out=5),
    Case("io_parallel", 5, FixedPoint(True, 2, 4), 3, FixedPoint(True, 9, 10)),
    Case("io_parallel", 5, FixedPoint(False, 10, 0), 1, FixedPoint(True, 40, 0), -(2**28) - 1),
)


def _cpp(dtype):
    return f"ap_{'' if dtype.signed else 'u'}fixed<{dtype.width},{dtype.integer_bits}>"


_STREAM_NET = """\
void net(hls::stream<input_t> &in, hls::stream<result_t> &out) {{
    input_t::value_type x[{inputs}];
    for (int i = 0; i < {inputs}; i += {array_in}) {{
        input_t array = in.read();
        for (int j = 0; j < {array_in}; j++)
            x[i + j] = array[j];
    }}
    hls::stream<result_t> y("y");
    for (int i = 0; i < {outputs}; i += {array_out}) {{
        result_t array;
        for (int j = 0; j < {array_out}; j++)
            array[j] = x[(i + j) % {inputs}] * FACTOR;
        y.write(array);
    }}
    nnet::save_layer_output<result_t>(y, "scale", {outputs});
    while (!y.empty())
        out.write(y.read());
}}
"""

_PARALLEL_NET = """\
void net(input_t in[{inputs}], result_t out[{outputs}]) {{
    for (int i = 0; i < {outputs}; i++)
        out[i] = in[i % {inputs}] * FACTOR;
    nnet::save_layer_output<result_t>(out, "scale", {outputs});
}}
"""


def _network(case):
    """The three files that hls4ml would write."""
    fields = vars(case)
    stream = case.io_type == "io_stream"
    element = "nnet::array<{}, {}>" if stream else "{}"
    arguments = (
        "hls::stream<input_t> &in, hls::stream<result_t> &out"
        if stream
        else f"input_t in[{case.inputs}], result_t out[{case.outputs}]"
    )
    return {
        "firmware/defines.h": "#ifndef DEFINES_H_\n#define DEFINES_H_\n"
        '#include "ap_fixed.h"\n#include "nnet_utils/nnet_types.h"\n'
        f"typedef {element.format(_cpp(case.input_type), case.array_in)} input_t;\n"
        f"typedef {element.format(_cpp(case.output_type), case.array_out)} result_t;\n#endif\n",
        "firmware/net.h": f'#include "hls_stream.h"\n#include "defines.h"\nvoid net({arguments});\n',
        "firmware/net.cpp": '#include "net.h"\n#include <cassert>\n#include <sstream>\n'
        '#include "nnet_utils/nnet_helpers.h"\n'
        f"static const ap_int<40> FACTOR = {case.factor}LL;\n"
        + (_STREAM_NET if stream else _PARALLEL_NET).format(**fields),
    }


def _headers():
    (package,) = importlib.util.find_spec("hls4ml").submodule_search_locations
    templates = Path(package) / "templates" / "vivado"
    emulation = Path(__file__).parents[1] / "hls_templates" / "cpp" / "emulation"
    return ["-isystem", str(emulation), "-isystem", str(templates)]


def _build(folder, files):
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    subprocess.run(
        [
            *("g++", "-std=c++17", "-O0", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas"),
            *(*_headers(), "-Ifirmware", "-Itb/emulation"),
            *("tb/testbench.cpp", "firmware/net_axis.cpp", "firmware/net.cpp", "-o", "testbench"),
        ],
        cwd=folder,
        check=True,
    )


def _ports(case):
    return (
        [Side(Port("in", (case.inputs,), case.input_type), "input_t", 2)],
        [Side(Port("out", (case.outputs,), case.output_type), "result_t", 2)],
    )


def _write_data(folder, inputs, golden):
    (folder / "tb_data").mkdir(exist_ok=True)
    np.savetxt(folder / "tb_data" / "inputs.dat", inputs, fmt="%d")
    np.savetxt(folder / "tb_data" / "golden.dat", golden, fmt="%d")


def _run(folder, *arguments):
    return subprocess.run(
        [folder / "testbench", *map(str, arguments)], cwd=folder, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small")
    _build(folder, axis_files("net", SMALL.io_type, *_ports(SMALL), (("scale", 3),)) | _network(SMALL))
    return folder


@pytest.fixture
def data(small):
    inputs = SMALL.frames()
    _write_data(small, inputs, SMALL.expected(inputs))
    return small


@needs("g++")
@pytest.mark.parametrize("case", CASES, ids=str)
def test_frames_back_to_back_come_out_exactly(case, tmp_path):
    _build(
        tmp_path, axis_files("net", case.io_type, *_ports(case), (("scale", case.outputs),)) | _network(case)
    )
    inputs = case.frames()
    expected = case.expected(inputs)
    assert expected.min() >= case.output_type.minimum_lsb
    assert expected.max() <= case.output_type.maximum_lsb
    _write_data(tmp_path, inputs, expected)

    compared = _run(tmp_path)
    assert (compared.stdout, compared.returncode) == ("PASS: 7 samples equal, 0 LSB\n", 0), compared.stderr

    inputs.astype("<i8").tofile(tmp_path / "inputs.bin")
    (tmp_path / "trace").mkdir()
    written = _run(tmp_path, "inputs.bin", "outputs.bin", "trace")
    assert (written.stdout, written.stderr, written.returncode) == ("", "", 0)
    assert np.array_equal(np.fromfile(tmp_path / "outputs.bin", "<i8").reshape(expected.shape), expected)
    layer = np.fromfile(tmp_path / "trace" / "scale.f64", "<f8").reshape(expected.shape)
    assert np.array_equal(layer, case.output_type.to_real(expected))


_TWO_STREAMS = """\
void net(hls::stream<input_t> &a, hls::stream<input2_t> &b, hls::stream<layer3_t> &c, hls::stream<layer4_t> &d) {
    layer3_t sums;
    sums[0] = sums[1] = sums[2] = 0;
    for (int i = 0; i < 3; i++) {
        sums[i] = a.read()[0];
        c.write(sums);
    }
    input2_t pair = b.read();
    layer4_t last;
    last[0] = pair[1] - pair[0];
    d.write(last);
}
"""
_TWO_ARRAYS = """\
void net(input_t a[3], input2_t b[2], layer3_t c[9], layer4_t d[1]) {
    layer3_t sums[3] = {0, 0, 0};
    for (int i = 0; i < 3; i++) {
        sums[i] = a[i];
        for (int j = 0; j < 3; j++)
            c[3 * i + j] = sums[j];
    }
    d[0] = b[1] - b[0];
}
"""


@needs("g++")
@pytest.mark.parametrize("io_type", ["io_stream", "io_parallel"])
def test_several_inputs_and_outputs_follow_one_another_in_a_frame(io_type, tmp_path):
    """Inputs of 3 x 6 and 2 x 17 bits (one word, two words), outputs of 9 x 8 and 1 x 40 bits (three, two)."""
    types = (
        FixedPoint(True, 2, 4),
        FixedPoint(False, 10, 7),
        FixedPoint(True, 4, 4),
        FixedPoint(True, 33, 7),
    )
    names = ("input_t", "input2_t", "layer3_t", "layer4_t")
    shapes = ((3, 1), (2,), (3, 3), (1,))
    a, b, c, d = (
        Side(Port(name, shape, dtype), name, 2)
        for name, shape, dtype in zip(names, shapes, types, strict=True)
    )
    stream = io_type == "io_stream"
    element = "nnet::array<{}, {}>" if stream else "{}"
    defined = "".join(
        f"typedef {element.format(_cpp(dtype), shape[-1])} {name};\n"
        for name, shape, dtype in zip(names, shapes, types, strict=True)
    )
    head = '#include "ap_fixed.h"\n#include "nnet_utils/nnet_types.h"\n'
    network = _TWO_STREAMS if stream else _TWO_ARRAYS
    declared = network.split(" {")[0] + ";\n"
    made = axis_files("net", io_type, [a, b], [c, d], ())
    _build(
        tmp_path,
        made
        | {
            "firmware/defines.h": f"#ifndef D_H\n#define D_H\n{head}{defined}#endif\n",
            "firmware/net.h": f'#include "hls_stream.h"\n#include "defines.h"\n{declared}',
            "firmware/net.cpp": f'#include "net.h"\n#include "nnet_utils/nnet_helpers.h"\n{network}',
        },
    )
    rng = np.random.default_rng(0)
    left = rng.integers(-32, 32, (7, 3))
    right = rng.integers(0, 2**17, (7, 2))
    rows = np.tril(np.ones((3, 3), dtype=np.int64))[None] * left[:, None]
    wanted = np.concatenate([rows.reshape(7, 9), right[:, 1:] - right[:, :1]], axis=1)
    _write_data(tmp_path, np.concatenate([left, right], axis=1), wanted)
    compared = _run(tmp_path)
    assert (compared.stdout, compared.returncode) == ("PASS: 7 samples equal, 0 LSB\n", 0), compared.stderr
    wanted[6, 9] += 1
    _write_data(tmp_path, np.concatenate([left, right], axis=1), wanted)
    assert _run(tmp_path).stdout.startswith("MISMATCH sample 6 output 9 ")
    right[3, 1] = 2**17
    _write_data(tmp_path, np.concatenate([left, right], axis=1), wanted)
    assert "sample 3 input 4 must fit the input's type, not be 131072 LSB" in _run(tmp_path).stderr


def _check(width, signed, size, arrays, last):
    flags = ", ".join(str(flag).lower() for flag in (signed, size, arrays, last))
    return f"    failed += shape<{width}, {flags}>().check() != 0;\n"


@needs("g++")
def test_both_gearboxes_agree_with_plain_packing_for_every_shape(tmp_path):
    shapes = [(w, n, arrays) for w in (5, 16, 19, 40) for n in (1, 2, 3, 5, 8) for arrays in (1, 2, 3, 5)]
    checks = "".join(_check(w, True, n, arrays, n != arrays) for w, n, arrays in shapes)
    checks += "".join(
        _check(w, signed, *shape, True)
        for w in (1, 3, 7, 8, 9, 13, 16, 17, 31, 32, 33, 40)
        for signed, shape in ((True, (3, 2)), (False, (1, 5)))
    )
    source = (Path(__file__).parent / "golden" / "axis" / "gearbox.cpp").read_text(encoding="utf-8")
    (tmp_path / "gearbox.cpp").write_text(source.replace("    // checks\n", checks), encoding="utf-8")
    cpp = Path(__file__).parents[1] / "hls_templates" / "cpp"
    subprocess.run(
        [
            *("g++", "-std=c++17", "-O0", *_headers(), f"-I{cpp}", f"-I{cpp}/emulation"),
            *("gearbox.cpp", "-o", "gearbox"),
        ],
        cwd=tmp_path,
        check=True,
    )
    ran = subprocess.run([tmp_path / "gearbox"], capture_output=True, text=True, check=False)
    assert (ran.stdout, ran.returncode) == ("", 0)


@needs("g++")
def test_a_golden_value_that_differs_is_reported_and_fails(data):
    inputs = SMALL.frames()
    golden = SMALL.expected(inputs)
    golden[4, 2] += 1
    _write_data(data, inputs, golden)
    ran = _run(data)
    expected, got = golden[4, 2], golden[4, 2] - 1
    assert ran.stdout == f"MISMATCH sample 4 output 2 expected {expected} got {got}\n"
    assert ran.returncode == 1


@needs("g++")
@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("golden.dat", lambda text: text[: text.rindex("\n", 0, -1) + 1], "must hold 7 frames as inputs.dat"),
        ("golden.dat", lambda text: text[:-2], "golden.dat line 7 must end in a line feed"),
        ("golden.dat", lambda text: text.replace("\n", " 1\n", 1), "line 1 must hold 3 integers"),
        ("golden.dat", lambda text: text.replace(" ", " x", 1), "line 1 must hold 3 integers"),
        ("inputs.dat", lambda text: "", "must hold frames, not be empty"),
        ("inputs.dat", lambda text: "32" + text[text.index(" ") :], "sample 0 input 0 must fit"),
    ],
)
def test_damaged_data_is_refused(data, name, damage, message):
    path = data / "tb_data" / name
    path.write_text(damage(path.read_text()))
    ran = _run(data)
    assert message in ran.stderr
    assert (ran.stdout, ran.returncode) == ("", 2)


@needs("g++")
def test_missing_data_is_refused(data):
    (data / "tb_data" / "golden.dat").unlink()
    ran = _run(data)
    assert ran.stderr == "testbench: tb_data/golden.dat must be there, not missing\n"
    assert ran.returncode == 2


@needs("g++")
def test_data_is_found_by_file_name_alone(data, tmp_path):
    for name in ("inputs.dat", "golden.dat"):
        (tmp_path / name).write_bytes((data / "tb_data" / name).read_bytes())
    ran = subprocess.run([data / "testbench"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.stdout == "PASS: 7 samples equal, 0 LSB\n"


@needs("g++")
def test_a_short_binary_is_refused(data):
    (data / "short.bin").write_bytes(SMALL.frames().tobytes()[:-3])
    ran = _run(data, "short.bin", "outputs.bin")
    assert (
        ran.stderr == "testbench: short.bin must hold one or more whole frames of int64, not end inside one\n"
    )
    assert ran.returncode == 2
    assert _run(data, "only_one").returncode == 2


@needs("g++")
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_is_an_error_of_its_own(data):
    SMALL.frames().astype("<i8").tofile(data / "inputs.bin")
    full = _run(data, "inputs.bin", "/dev/full")
    assert full.stderr == "testbench: /dev/full must be writable, not fail with 'No space left on device'\n"
    assert full.returncode == 3
    assert _run(data, "inputs.bin", "outputs.bin", "no_such_folder").returncode == 3


@needs("g++")
def test_a_wrong_tlast_is_noticed(tmp_path):
    files = axis_files("net", SMALL.io_type, *_ports(SMALL), (("scale", 3),)) | _network(SMALL)
    broken, count = re.subn(
        r"word\.last = lasts\.read\(\)", "word.last = lasts.read() | 1", files["firmware/axis_top.h"]
    )
    assert count == 1
    _build(tmp_path, files | {"firmware/axis_top.h": broken})
    inputs = SMALL.frames()
    _write_data(tmp_path, inputs, SMALL.expected(inputs))
    ran = _run(tmp_path)
    assert ran.stdout.startswith(
        "FRAMING sample 1: TLAST must be on the last output word if it was on the last input word, "
        "and nowhere else\n"
    )
    assert ran.returncode == 1


@needs("g++")
def test_a_layer_that_is_never_traced_is_refused(tmp_path):
    files = axis_files("net", SMALL.io_type, *_ports(SMALL), (("scale", 3), ("ghost", 2))) | _network(SMALL)
    _build(tmp_path, files)
    SMALL.frames().astype("<i8").tofile(tmp_path / "inputs.bin")
    ran = _run(tmp_path, "inputs.bin", "outputs.bin", ".")
    assert "layer 'ghost' must be traced in full, not in part" in ran.stderr
    assert ran.returncode == 2


@needs("g++")
def test_a_port_that_disagrees_with_the_network_does_not_compile(tmp_path, capfd):
    narrower = Side(Port("out", (3,), FixedPoint(True, 8, 10)), "result_t")
    files = axis_files("net", SMALL.io_type, _ports(SMALL)[0], [narrower], ()) | _network(SMALL)
    with pytest.raises(subprocess.CalledProcessError):
        _build(tmp_path, files)
    assert "the network's output 0 must be a fixed<18,8>" in capfd.readouterr().err
