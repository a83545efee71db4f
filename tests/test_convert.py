"""Convert: what stands in the C++, what becomes of the [hls] keys, what is refused."""

from __future__ import annotations

import copy
import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import quantized
import torch
from conftest import needs
from qonnx_files import Net
from quantized import data, folder, project, small_board
from torch import nn

from flow import boards, qonnx
from flow.boards import DSP_SHARE
from flow.convert import check_weights, convert, write_dat
from flow.convert.accumulators import partial_sums
from flow.emulate.csim import Csim
from flow.errors import ConfigError, MismatchError, UnsupportedError
from flow.estimate.io_types import IO_TYPES
from flow.fixed.execute import execute
from flow.fixed.from_qonnx import lower
from flow.fixed.golden import Golden, write_golden
from flow.fixed.graph import Conv, Dense, Reshape
from flow.fixed.lsb import exact_lsb, input_lsb
from flow.quantize import quantize
from flow.types import FixedPoint, HlsProject, Quantized


def converted(name: str = "cnn", **options: Any) -> HlsProject:
    return convert(quantized.quantized(name), out=folder(), **options)


def firmware(design: HlsProject, name: str) -> str:
    return (design.path / "firmware" / name).read_text(encoding="utf-8")


def config(design: HlsProject, hls_name: str) -> dict[str, str]:
    """Return the constants of a layer's config structs in ``parameters.h``."""
    text = firmware(design, "parameters.h").split(f"// {hls_name}\n")[1].split("\n// ")[0]
    return dict(re.findall(r"static const \w+ (\w+) = (?:nnet::)?(\w+);", text))


# ---------------------------------------------------------------- what is written


@pytest.mark.parametrize("io_type", IO_TYPES)
def test_the_widths_of_the_network_are_those_of_the_cpp(io_type: str) -> None:
    design = project("cnn", io_type)
    first, second, last = (config(design, name) for name in ("Conv_block_0", "Conv_conv_2", "Dense_fc"))
    assert (first["n_chan"], first["n_filt"], first["out_height"], first["out_width"]) == ("2", "7", "8", "6")
    assert (second["n_chan"], second["n_filt"], second["out_height"], second["out_width"]) == (
        "7",
        "13",
        "2",
        "2",
    )
    assert (last["n_in"], last["n_out"]) == ("52", "5")
    assert [layer.shape for layer in design.layers] == [
        *((8, 6, 7), (8, 6, 7), (4, 3, 7), (2, 2, 13), (2, 2, 13), (5,))
    ]
    if io_type == "io_stream":
        arrays = re.findall(r"nnet::array<ap_u?fixed<[^>]*>, (\d+)\*1> \w+;", firmware(design, "defines.h"))
        assert set(map(int, arrays)) == {2, 7, 13, 5}


@pytest.mark.parametrize("io_type", IO_TYPES)
def test_odd_dense_widths_survive(io_type: str) -> None:
    design = project("mlp", io_type)
    sizes = [
        (config(design, f"Dense_layer_{i}")["n_in"], config(design, f"Dense_layer_{i}")["n_out"])
        for i in (0, 2, 3)
    ]
    assert sizes == [("5", "13"), ("13", "7"), ("7", "3")]


def test_every_layer_stands_for_a_tensor_of_the_graph() -> None:
    for name in ("cnn", "residual", "mlp", "depthwise", "zeros"):
        design = project(name, "io_parallel")
        graph = lower(qonnx.load(design.onnx_path))
        assert len({layer.hls_name for layer in design.layers}) == len(design.layers)
        for layer in design.layers:
            tensor = graph.tensors[layer.tensor]
            assert (layer.shape, layer.dtype) == (tensor.shape, tensor.dtype)
        nodes = [node for node in graph.nodes if not isinstance(node, Reshape)]
        assert [(layer.name, layer.tensor) for layer in design.layers] == [
            (node.name, node.output.name) for node in nodes
        ]


@pytest.mark.parametrize("bits", [3, 8, 11])
def test_the_input_has_the_type_of_its_quantizer(bits: int) -> None:
    samples = data((5,), 3, samples=9)
    torch.manual_seed(0)
    made = quantize(
        *(quantized.mlp(), torch.from_numpy(samples.train[0][:2])),
        out=folder(),
        data=samples,
        input_bits=bits,
        epochs=0,
    )
    design = convert(made, out=folder())
    assert f"typedef ap_fixed<{bits},1> input_t;" in firmware(design, "defines.h")
    assert design.inputs[0].dtype == FixedPoint(True, 1, bits - 1)


def test_the_output_has_the_type_of_the_cpp() -> None:
    design = project("mlp", "io_parallel")
    dtype = design.outputs[0].dtype
    assert f"typedef ap_{dtype} result_t;" in firmware(design, "defines.h")
    assert design.outputs[0].shape == (3,)


def test_the_weights_in_the_cpp_are_those_of_the_graph() -> None:
    design = project("cnn", "io_stream")
    graph = quantized.graph("cnn")
    for name in ("block_0", "conv_2", "fc"):
        node = next(node for node in qonnx.compute_nodes(graph) if node.name == name)
        line = next(
            x for x in firmware(design, "net.cpp").splitlines() if re.search(rf"// [A-Z][a-z]+_{name}$", x)
        )
        for tensor, letter in zip(node.input[1:], "wb", strict=True):
            quantizer = graph.find_producer(tensor)
            values, scale, _, bits = (graph.get_initializer(i).astype(np.float64) for i in quantizer.input)
            narrow = next(entry.i for entry in quantizer.attribute if entry.name == "narrow")
            high = 2 ** (bits - 1) - 1
            steps = np.clip(np.rint(values / scale), narrow - high - 1, high)
            file = re.findall(rf"\b{letter}\d+\b", line)[0]
            written = np.array(firmware(design, f"weights/{file}.txt").split(","), dtype=np.float64)
            assert np.array_equal(np.sort(written), np.sort((steps * scale).ravel()))


def test_types_in_the_cpp_are_those_of_the_graph_and_hold_every_partial_sum() -> None:
    design = project("cnn", "io_stream")
    graph = lower(qonnx.load(design.onnx_path))
    text = firmware(design, "defines.h")
    for node in graph.nodes:
        if isinstance(node, Dense | Conv):
            source = graph.tensors[node.inputs[0]].dtype
            name = f"{type(node).__name__}_{node.name.replace('-', '_')}".lower()
            assert f"typedef ap_{partial_sums(node, source).dtype()} {name}_accum_t;" in text.lower()
    results = re.findall(r"typedef nnet::array<ap_(u?fixed<[^>]*>), \d+\*1> layer\d+_t;", text)
    assert set(results) >= {str(layer.dtype) for layer in design.layers[:-1]}


@pytest.mark.parametrize("io_type", IO_TYPES)
def test_nothing_of_hls4ml_that_ignores_failures_is_left(io_type: str) -> None:
    design = project("cnn", io_type)
    files = {path.relative_to(design.path) for path in design.path.rglob("*") if path.is_file()}
    assert {path.parts[0] for path in files} == {"firmware", "tb", "tb_data"}
    assert {path.suffix for path in files} <= {".h", ".cpp", ".txt", ".dat"}
    sources = {path.as_posix() for path in files if path.suffix == ".cpp"}
    assert sources == {"firmware/net.cpp", "firmware/net_axis.cpp", "tb/testbench.cpp"}
    assert {path.name for path in files if path.parts[0] == "tb_data"} == {"inputs.dat", "golden.dat"}


def test_the_test_vectors_are_the_first_samples_in_lsbs() -> None:
    design = converted("cnn", golden_samples=5)
    inputs, outputs = quantized.golden("cnn")
    found = {
        name: np.loadtxt(design.path / "tb_data" / f"{name}.dat", dtype=np.int64)
        for name in ("inputs", "golden")
    }
    assert np.array_equal(found["inputs"], input_lsb(design.inputs[0], inputs[:5]))
    assert np.array_equal(found["golden"], exact_lsb(design.outputs[0], outputs[:5]))
    assert (design.path / "tb_data" / "golden.dat").read_text().count("\n") == 5


def test_a_frame_is_a_line(tmp_path: Path) -> None:
    write_dat(tmp_path / "new" / "x.dat", [np.array([[[1], [-2]], [[2**40], [0]]]), np.array([[3], [4]])])
    assert (tmp_path / "new" / "x.dat").read_text() == "1 -2 3\n1099511627776 0 4\n"


def test_the_same_network_gives_the_same_files() -> None:
    first, second = converted("residual"), converted("residual")
    files = sorted(path.relative_to(first.path) for path in first.path.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(second.path) for path in second.path.rglob("*") if path.is_file())
    for name in files:
        assert (first.path / name).read_bytes() == (second.path / name).read_bytes(), name


def test_the_folder_is_made_and_the_inputs_stay_as_they_are() -> None:
    made = quantized.quantized("mlp")
    before = made.onnx_path.read_bytes(), made.golden_path.read_bytes()
    hls = {"ReuseFactor": 1, "LayerName": {"layer_0": {"Precision": {"accum": "fixed<24,8>"}}}}
    given = copy.deepcopy(hls)
    said: list[tuple[int, int, str]] = []
    out = folder() / "a" / "b"
    design = convert(made, out=out, hls=hls, progress=lambda *event: said.append(event))
    assert design.path == out
    assert (out / "firmware" / "net.cpp").is_file()
    assert hls == given
    assert (made.onnx_path.read_bytes(), made.golden_path.read_bytes()) == before
    assert said == [(0, 3, "fixed-point graph"), (1, 3, "writing C++"), (2, 3, "test bench")]


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    converted("cnn")
    converted("mlp", hls={"Strategy": "Latency"})
    assert capfd.readouterr() == ("", "")


def test_the_board_gives_part_and_clock_unless_a_clock_is_given() -> None:
    board = boards.load("pynq-z2")
    for options, period in (({}, board.clock_period_ns), ({"clock_period_ns": 4.5}, 4.5)):
        design = converted("mlp", board="pynq-z2", **options)
        assert (design.part, design.clock_period_ns, design.top) == (board.part, period, "net")


@pytest.mark.parametrize(
    ("name", "io_type"), [("cnn", "io_stream"), ("mlp", "io_parallel"), ("flat_image", "io_parallel")]
)
def test_networks_with_convs_are_streamed(name: str, io_type: str) -> None:
    assert converted(name).io_type == io_type


def test_the_top_function_has_the_name_asked_for() -> None:
    design = converted("mlp", top="my_net2")
    assert design.top == "my_net2"
    assert "void my_net2(" in firmware(design, "my_net2.cpp")
    assert "void my_net2_axis(" in firmware(design, "my_net2_axis.cpp")


@needs("g++")
@pytest.mark.parametrize("io_type", IO_TYPES)
def test_several_inputs_and_outputs_share_one_frame(io_type: str) -> None:
    net = Net()
    image, vector = net.input((2, 4, 5), bits=4), net.input((3,), bits=9)
    seen = net.quant(net.conv(image, 3, kernel=3), bits=6)
    scores = net.dense(vector, 2)
    model = net.model(seen, scores)
    path = folder() / "model.onnx"
    model.save(str(path))
    rng = np.random.default_rng(0)
    inputs = tuple(rng.normal(0, 1, (7, *shape)).astype(np.float32) for shape in ((2, 4, 5), (3,)))
    golden = path.with_name("golden.npz")
    outputs = (np.zeros((7, 3, 2, 3), np.float32), np.zeros((7, 2), np.float32))
    write_golden(golden, Golden(inputs, outputs))
    given = Quantized(path, golden, (), 0.0, 7, {}, {}, {})
    design = convert(given, out=folder(), io_type=io_type, golden_samples=5)
    assert [port.shape for port in (*design.inputs, *design.outputs)] == [(4, 5, 2), (3,), (2, 3, 3), (2,)]
    rows = np.loadtxt(design.path / "tb_data" / "inputs.dat", dtype=np.int64)
    first, second = (input_lsb(port, x[:5]) for port, x in zip(design.inputs, inputs, strict=True))
    assert np.array_equal(rows, np.concatenate([first, second], axis=1))
    made = execute(
        lower(model), [first.reshape(5, *design.inputs[0].shape), second.reshape(5, *design.inputs[1].shape)]
    )
    wanted = [made[port.name].reshape(5, -1) for port in design.outputs]
    rows = np.loadtxt(design.path / "tb_data" / "golden.dat", dtype=np.int64)
    assert np.array_equal(rows, np.concatenate(wanted, axis=1))
    csim = Csim(design, folder())
    csim.build()
    assert np.array_equal(csim.run(np.concatenate([first, second], axis=1)), rows)


# ---------------------------------------------------------------- folding


@pytest.mark.parametrize("io_type", IO_TYPES)
@pytest.mark.parametrize("dsps", [0, 40, 100, 220, 5000])
def test_the_multipliers_fit_the_board(io_type: str, dsps: int) -> None:
    design = project("cnn", io_type, dsps)
    layers = [layer for layer in design.layers if layer.reuse_factor]
    assert [layer.name for layer in layers] == ["block_0", "conv_2", "fc"]
    products = {"block_0": 18 * 7, "conv_2": 42 * 13, "fc": 52 * 5}
    for layer in layers:
        assert layer.multipliers == -(-products[layer.name] // layer.reuse_factor)
        assert config(design, layer.hls_name)["reuse_factor"] == str(layer.reuse_factor)
        assert config(design, layer.hls_name)["strategy"] == "resource"
    full = (
        {"block_0": 126, "conv_2": 546, "fc": 260}
        if io_type == "io_stream"
        else {"block_0": 18, "conv_2": 42, "fc": 260}
    )
    fits = sum(layer.multipliers for layer in layers) <= DSP_SHARE * dsps
    assert fits or {layer.name: layer.reuse_factor for layer in layers} == full


def test_a_depthwise_conv_is_folded_by_divisors_of_a_filter() -> None:
    design = converted("depthwise", board=small_board(30))
    found = {layer.name: layer for layer in design.layers if layer.reuse_factor}
    assert (found["layer_2"].kind, found["layer_2"].hls_name) == ("FlowConv", "Conv_layer_2")
    assert 9 % found["layer_2"].reuse_factor == 0
    assert found["layer_2"].multipliers == 36 // found["layer_2"].reuse_factor
    given = converted("depthwise", hls={"ReuseFactor": 1, "LayerName": {"layer_2": {"ReuseFactor": 9}}})
    assert config(given, "Conv_layer_2")["reuse_factor"] == "9"
    for strategy in ("Latency", "Resource"):
        with pytest.raises(ConfigError) as error:
            converted("depthwise", hls={"LayerName": {"layer_2": {"ReuseFactor": 2, "Strategy": strategy}}})
        assert str(error.value) == (
            "[hls]: ReuseFactor of layer 'layer_2' must be one of 1, 3, 9, not 2; give one of them, or leave it out"
        )


# ---------------------------------------------------------------- [hls]


@pytest.mark.parametrize("io_type", IO_TYPES)
@pytest.mark.parametrize(
    ("hls", "strategy", "reuse"),
    [
        ({"Strategy": "Latency"}, "latency", 1),
        ({"ReuseFactor": 2}, "latency", 2),
        ({"Strategy": "Latency", "ReuseFactor": 5}, "latency", 5),
        ({"Strategy": "Resource", "ReuseFactor": 1}, "resource", 1),
        ({"Strategy": "resource", "ReuseFactor": 1}, "resource", 1),
        ({"Model": {"Strategy": "Latency", "ReuseFactor": 4}}, "latency", 4),
        ({"Model": {"ReuseFactor": 4}, "ReuseFactor": 3}, "latency", 3),
    ],
)
def test_keys_for_all_layers_reach_every_layer(
    io_type: str, hls: dict[str, Any], strategy: str, reuse: int
) -> None:
    design = converted("cnn", io_type=io_type, hls=hls)
    for layer in design.layers:
        if layer.reuse_factor:
            found = config(design, layer.hls_name)
            assert (layer.reuse_factor, found["reuse_factor"], found["strategy"]) == (
                reuse,
                str(reuse),
                strategy,
            )


def test_keys_of_a_layer_reach_that_layer_only() -> None:
    plain = project("cnn", "io_stream")
    design = converted(
        "cnn",
        hls={
            "LayerName": {"conv_2": {"ReuseFactor": 21}, "block_0": {"Strategy": "Latency", "ReuseFactor": 1}}
        },
    )
    assert config(design, "Conv_conv_2") == {**config(plain, "Conv_conv_2"), "reuse_factor": "21"}
    assert config(design, "Conv_block_0")["strategy"] == "latency"
    assert config(design, "Dense_fc") == config(plain, "Dense_fc")
    assert next(layer.multipliers for layer in design.layers if layer.name == "conv_2") == 26


def test_wider_types_of_the_users_are_passed_on_word_for_word() -> None:
    own = {"accum": "fixed<31,11,RND,SAT>", "weight": "fixed<12,4>", "bias": "fixed<30,4>"}
    hls = {"Precision": {"accum": "fixed<48,16>"}, "LayerName": {"block_0": {"Precision": own}}}
    design = converted("cnn", hls=hls)
    text = firmware(design, "defines.h").lower()
    assert "typedef ap_fixed<31,11,ap_rnd,ap_sat,0> conv_block_0_accum_t;" in text
    assert "typedef ap_fixed<12,4> conv_block_0_weight_t;" in text
    assert "typedef ap_fixed<30,4> conv_block_0_bias_t;" in text
    assert text.count("typedef ap_fixed<48,16> ") == 2
    assert next(layer.dtype for layer in design.layers if layer.name == "block_0") == FixedPoint(True, 3, 14)


LEAVE = "leave it out to fold by the board's DSP slices"


@pytest.mark.parametrize(
    ("hls", "message"),
    [
        (
            {"ReuseFactr": 4},
            "[hls]: key must be one of hls4ml's, not 'ReuseFactr'; did you mean 'ReuseFactor'?",
        ),
        (
            {"xyz": 4},
            "[hls]: key must be one of hls4ml's, not 'xyz'; "
            "known keys: ReuseFactor, Strategy, Precision, Model, LayerName",
        ),
        (
            {"Model": {"Precison": 4}},
            "[hls.Model]: key must be one of hls4ml's, not 'Precison'; did you mean 'Precision'?",
        ),
        (
            {"LayerName": {"conv2": {}}},
            "[hls.LayerName]: name must be a layer of the network, not 'conv2'; did you mean 'conv_2'?",
        ),
        (
            {"LayerName": {"Quant_0": {}}},
            "[hls.LayerName]: name must be a layer of the network, not 'Quant_0'; "
            "layers: block_0, block_1, block_2, conv_2, relu, flatten, fc",
        ),
        (
            {"LayerName": {"fc": {"reuse_factor": 4}}},
            "[hls.LayerName.fc]: key must be one of hls4ml's, not 'reuse_factor'; did you mean 'ReuseFactor'?",
        ),
        (
            {"Strategy": "Fast"},
            "[hls]: Strategy must be one of Latency, Resource, not 'Fast'; give one of them",
        ),
        (
            {"LayerName": {"fc": {"Precision": {"accum_t": "fixed<24,8>"}}}},
            "[hls.LayerName.fc.Precision]: key must be one of hls4ml's, not 'accum_t'; did you mean 'accum'?",
        ),
        ({"Strategy": 7}, "[hls]: Strategy must be one of Latency, Resource, not 7; give one of them"),
        (
            {"LayerName": {"fc": {"Strategy": "Resorce"}}},
            "[hls.LayerName.fc]: Strategy must be one of Latency, Resource, not 'Resorce'; give one of them",
        ),
        ({"ReuseFactor": 0}, f"[hls]: ReuseFactor must be a whole number from 1 on, not 0; {LEAVE}"),
        ({"ReuseFactor": "4"}, f"[hls]: ReuseFactor must be a whole number from 1 on, not '4'; {LEAVE}"),
        ({"ReuseFactor": 2.5}, f"[hls]: ReuseFactor must be a whole number from 1 on, not 2.5; {LEAVE}"),
        ({"ReuseFactor": True}, f"[hls]: ReuseFactor must be a whole number from 1 on, not True; {LEAVE}"),
        (
            {"LayerName": {"fc": {"ReuseFactor": -1}}},
            f"[hls.LayerName.fc]: ReuseFactor must be a whole number from 1 on, not -1; {LEAVE}",
        ),
        ({"Model": 3}, "[hls.Model] must be a table, not 3; write keys and values under it"),
        ({"LayerName": "fc"}, "[hls.LayerName] must be a table, not 'fc'; write keys and values under it"),
        (
            {"LayerName": {"fc": 4}},
            "[hls.LayerName.fc] must be a table, not 4; write keys and values under it",
        ),
        (
            {"LayerName": {"block_0": {"ReuseFactor": 4}}},
            "[hls]: ReuseFactor of layer 'block_0' must be one of 1, 2, 3, 6, 9, 18, 126, not 4; "
            "give one of them, or leave it out",
        ),
        (
            {"Strategy": "Resource", "ReuseFactor": 52},
            "[hls]: ReuseFactor of layer 'block_0' must be one of 1, 2, 3, 6, 9, 18, 126, not 52; "
            "give one of them, or leave it out",
        ),
    ],
)
def test_keys_that_hls4ml_would_pass_over_are_refused(hls: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        converted("cnn", hls=hls)
    assert str(error.value) == message


def test_a_reuse_factor_above_the_inputs_of_a_parallel_conv_is_refused() -> None:
    hls = {"LayerName": {"block_0": {"ReuseFactor": 126}}}
    assert converted("cnn", io_type="io_stream", hls=hls).layers[0].reuse_factor == 126
    with pytest.raises(ConfigError) as error:
        converted("cnn", io_type="io_parallel", hls=hls)
    assert str(error.value) == (
        "[hls]: ReuseFactor of layer 'block_0' must be one of 1, 2, 3, 6, 9, 18, not 126; "
        "give one of them, or leave it out"
    )


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"io_type": "stream"},
            "convert: io_type must be one of io_stream, io_parallel, not 'stream'; leave it out to have streams where "
            "the network has convs",
        ),
        ({"top": "Net"}, "convert: top must be a lower-case C identifier, not 'Net'; choose another name"),
        (
            {"top": "my-net"},
            "convert: top must be a lower-case C identifier, not 'my-net'; choose another name",
        ),
        ({"top": ""}, "convert: top must be a lower-case C identifier, not ''; choose another name"),
        (
            {"top": "main"},
            "convert: top must be a C identifier that the generated C++ leaves free, not 'main'; choose another name",
        ),
        ({"clock_period_ns": 0}, "convert: clock_period_ns must be positive, not 0; the board's is 10.0"),
        (
            {"clock_period_ns": -1.0},
            "convert: clock_period_ns must be positive, not -1.0; the board's is 10.0",
        ),
        ({"golden_samples": 0}, "convert: golden_samples must be at least 1, not 0; 16 is usual"),
        ({"golden_samples": -3}, "convert: golden_samples must be at least 1, not -3; 16 is usual"),
    ],
)
def test_options_that_break_a_rule_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        converted("mlp", **options)
    assert str(error.value) == message


def test_an_unknown_board_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(ConfigError) as error:
        converted("mlp", board="pynq-z3")
    assert str(error.value) == (
        f"board must be one of {', '.join(boards.names())}, not 'pynq-z3'; did you mean 'pynq-z2'?"
    )


def test_what_has_no_exact_graph_is_refused_by_name() -> None:
    graph = quantized.graph("mlp")
    next(node for node in graph.graph.node if node.op_type == "Relu").op_type = "Sigmoid"
    path = folder() / "model.onnx"
    graph.save(str(path))
    changed = dataclasses.replace(quantized.quantized("mlp"), onnx_path=path)
    with pytest.raises(
        UnsupportedError, match=r"node 'layer_1' \(Sigmoid\) must read integers of at most 12 bits"
    ):
        convert(changed, out=folder())


def test_what_hls4ml_refuses_is_told_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    from hls4ml.model import ModelGraph

    def refuse(*args: Any) -> None:
        raise RuntimeError("not this one")

    monkeypatch.setattr(ModelGraph, "from_layer_list", refuse)
    with pytest.raises(UnsupportedError) as error:
        converted("mlp")
    assert str(error.value) == (
        "convert: hls4ml refuses the network: RuntimeError: not this one; see docs/architecture.md for what converts"
    )


@pytest.mark.parametrize("name", ["input", "index", "weight", "w2", "layer3_out", "config2", "result_t"])
def test_layers_may_have_any_name(name: str, tmp_path: Path) -> None:
    """Names that hls4ml keeps for itself, or that its C++ uses."""
    net = nn.Sequential()
    net.add_module(name, nn.Linear(4, 3))
    net.add_module("end", nn.Linear(3, 2))
    samples = data((4,), 2, samples=9)
    made = quantize(net, torch.from_numpy(samples.train[0][:2]), out=tmp_path, data=samples, epochs=0)
    design = convert(made, out=folder(), hls={"LayerName": {name: {"ReuseFactor": 4}}})
    first = design.layers[0]
    assert (first.name, first.hls_name, first.reuse_factor) == (name, f"Dense_{name}", 4)


@pytest.mark.parametrize("suffix", ["h", "txt"])
@pytest.mark.parametrize("place", [0, -1])
def test_a_weight_that_is_not_the_graphs_is_found(place: int, suffix: str) -> None:
    weights = converted("mlp").path / "firmware" / "weights"
    expected = {}
    for path in weights.glob("*.txt"):
        values = np.array(path.read_text(encoding="utf-8").split(","), dtype=np.float64)
        expected[path.stem] = (values * 2**20).astype(np.int64), 20
    check_weights(weights, expected)
    changed = sorted(weights.glob(f"w*.{suffix}"))[0]
    text = changed.read_text(encoding="utf-8")
    before, body, after = (
        re.fullmatch(r"(.*\{)(.*)(\}.*)", text, re.DOTALL).groups() if suffix == "h" else ("", text, "")
    )
    numbers = body.split(",")
    numbers[place] = str(float(numbers[place]) + 2.0**-9)
    changed.write_text(f"{before}{','.join(numbers)}{after}", encoding="utf-8")
    with pytest.raises(MismatchError) as error:
        check_weights(weights, expected)
    assert str(error.value) == (
        f"convert: {changed.name} must hold the integers of the graph, not others; report the network"
    )


def test_a_weights_file_too_many_or_too_few_is_found() -> None:
    weights = converted("single").path / "firmware" / "weights"
    with pytest.raises(
        MismatchError, match=r"^convert: the weights must be b9, not b2, .*; report the network$"
    ):
        check_weights(weights, {"b9": (np.array([1]), 0)})
