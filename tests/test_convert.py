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
from quantized import data, folder, project, small_board
from torch import nn

from flow import boards, qonnx_graph
from flow.convert import check_weights, convert, write_dat
from flow.folding import DSP_SHARE
from flow.errors import ConfigError, MismatchError, UnsupportedError
from flow.lsb import exact_lsb, input_lsb
from flow.quantize import quantize
from flow.types import FixedPoint, HlsProject

IO_TYPES = ("io_stream", "io_parallel")


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
    first, second, last = (config(design, name) for name in ("Conv2D_block_0", "Conv2D_conv_2", "Dense_fc"))
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
    for name in ("cnn", "residual", "mlp"):
        design = project(name, "io_parallel")
        graph = qonnx_graph.load(design.onnx_path)
        assert len({layer.hls_name for layer in design.layers}) == len(design.layers)
        for layer in design.layers:
            assert graph.get_tensor_shape(layer.tensor) == [1, *layer.shape]
        flattened = [n.name for n in qonnx_graph.compute_nodes(graph) if n.op_type == "Flatten"]
        biases = [n.name for n in qonnx_graph.compute_nodes(graph) if n.name.endswith("_bias")]
        names = {n.name for n in qonnx_graph.compute_nodes(graph)} - {*flattened, *biases}
        quantizers = {layer.name for layer in design.layers if layer.name.startswith("Quant_")}
        assert {layer.name for layer in design.layers} - quantizers == names


@pytest.mark.parametrize("bits", [3, 8, 11])
def test_the_input_is_rounded_and_saturated_as_its_quantizer_does(bits: int) -> None:
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
    assert f"typedef ap_fixed<{bits},1,AP_RND_CONV,AP_SAT,0> input_t;" in firmware(design, "defines.h")
    assert design.inputs == made.inputs
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
        node = next(node for node in qonnx_graph.compute_nodes(graph) if node.name == name)
        for tensor, letter in zip(node.input[1:], "wb", strict=True):
            quantizer = graph.find_producer(tensor)
            values, scale, _, bits = (graph.get_initializer(i).astype(np.float64) for i in quantizer.input)
            high = 2 ** (bits - 1) - 1
            low = -high if letter == "w" else -high - 1
            steps = np.clip(np.rint(values / scale), low, high)
            call = firmware(design, "net.cpp").split(f"// Conv2D_{name}" if name != "fc" else "// Dense_fc")[
                0
            ]
            file = re.findall(rf"\b{letter}\d+\b", call.splitlines()[-1])[0]
            written = np.array(firmware(design, f"weights/{file}.txt").split(","), dtype=np.float64)
            assert np.array_equal(np.sort(written), np.sort((steps * scale).ravel()))


@pytest.mark.parametrize("io_type", IO_TYPES)
def test_nothing_of_hls4ml_that_ignores_failures_is_left(io_type: str) -> None:
    design = project("cnn", io_type)
    files = {path.relative_to(design.path) for path in design.path.rglob("*") if path.is_file()}
    assert {path.parts[0] for path in files} == {"firmware", "model.onnx", "tb", "tb_data"}
    assert {path.suffix for path in files} <= {".h", ".cpp", ".txt", ".dat", ".onnx"}
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
    write_dat(tmp_path / "new" / "x.dat", np.array([[1, -2], [2**40, 0]]))
    assert (tmp_path / "new" / "x.dat").read_text() == "1 -2\n1099511627776 0\n"


def test_the_same_network_gives_the_same_files() -> None:
    first, second = converted("residual"), converted("residual")
    files = sorted(path.relative_to(first.path) for path in first.path.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(second.path) for path in second.path.rglob("*") if path.is_file())
    for name in files:
        assert (first.path / name).read_bytes() == (second.path / name).read_bytes(), name


def test_the_folder_is_made_and_the_inputs_stay_as_they_are() -> None:
    made = quantized.quantized("mlp")
    before = made.onnx_path.read_bytes(), made.golden_path.read_bytes()
    hls = {"ReuseFactor": 1, "LayerName": {"layer_0": {"Precision": {"accum": "fixed<20,8>"}}}}
    given = copy.deepcopy(hls)
    said: list[tuple[int, int, str]] = []
    out = folder() / "a" / "b"
    design = convert(made, out=out, hls=hls, progress=lambda *event: said.append(event))
    assert design.path == out
    assert (out / "firmware" / "net.cpp").is_file()
    assert hls == given
    assert (made.onnx_path.read_bytes(), made.golden_path.read_bytes()) == before
    assert said == [(0, 3, "channels last"), (1, 3, "writing C++"), (2, 3, "test bench")]


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


def test_depthwise_convs_take_the_latency_strategy_beside_folded_layers() -> None:
    for options in (
        {},
        {"hls": {"Strategy": "Resource"}},
        {"hls": {"Strategy": "Resource", "ReuseFactor": 1}},
    ):
        design = converted("depthwise", board=small_board(60), **options)
        kinds = {layer.name: layer.kind for layer in design.layers}
        assert kinds["layer_2"] == "DepthwiseConv2D"
        assert config(design, "DepthwiseConv2D_layer_2")["strategy"] == "latency"
        assert config(design, "Dense_layer_7")["strategy"] == "resource"
        depthwise = next(layer for layer in design.layers if layer.name == "layer_2")
        assert (depthwise.reuse_factor, depthwise.multipliers) == (1, 36)


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
    assert config(design, "Conv2D_conv_2") == {**config(plain, "Conv2D_conv_2"), "reuse_factor": "21"}
    assert config(design, "Conv2D_block_0")["strategy"] == "latency"
    assert config(design, "Dense_fc") == config(plain, "Dense_fc")
    assert next(layer.multipliers for layer in design.layers if layer.name == "conv_2") == 26


def test_a_precision_of_a_layer_is_passed_on_word_for_word() -> None:
    precision = {"accum": "fixed<31,11>", "result": "fixed<29,9>"}
    design = converted("cnn", hls={"LayerName": {"block_0": {"Precision": precision}}})
    text = firmware(design, "defines.h")
    assert "typedef ap_fixed<31,11> conv2d_block_0_accum_t;" in text
    assert re.search(r"typedef nnet::array<ap_fixed<29,9>, 7\*1> \w+;", text)
    assert next(layer.dtype for layer in design.layers if layer.name == "block_0") == FixedPoint(True, 9, 20)


def test_a_layer_that_a_precision_keeps_apart_stands_for_its_own_tensor() -> None:
    wide = {"Precision": {"result": "fixed<32,12>"}}
    design = converted("mlp", hls={"LayerName": {"layer_1": wide, "layer_3": wide}})
    graph = qonnx_graph.load(design.onnx_path)
    makers = {layer.name: graph.find_producer(layer.tensor).op_type for layer in design.layers}
    assert (makers["layer_1"], makers["layer_3"], makers["layer_3_bias"]) == ("Relu", "MatMul", "Add")
    plain = {layer.name: layer.tensor for layer in project("mlp", "io_parallel").layers}
    assert graph.find_producer(plain["layer_1"]).op_type == "Quant"
    assert graph.find_producer(plain["layer_3"]).op_type == "Add"


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
            "layers: block_0, block_1, block_2, conv_2, relu, flatten, fc, fc_bias",
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


def test_the_resource_strategy_is_refused_for_a_depthwise_conv() -> None:
    with pytest.raises(ConfigError) as error:
        converted("depthwise", hls={"LayerName": {"layer_2": {"Strategy": "Resource"}}})
    assert str(error.value) == (
        "[hls]: Strategy of layer 'layer_2' must be Latency, not Resource, which hls4ml has not for depthwise convs; "
        "leave it out"
    )


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"io_type": "stream"}, "convert: io_type must be one of io_stream, io_parallel, not 'stream'"),
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


def test_an_operator_outside_the_list_is_refused_by_name() -> None:
    graph = quantized.graph("mlp")
    next(node for node in graph.graph.node if node.op_type == "Relu").op_type = "Sigmoid"
    path = folder() / "model.onnx"
    graph.save(str(path))
    changed = dataclasses.replace(quantized.quantized("mlp"), onnx_path=path)
    with pytest.raises(UnsupportedError) as error:
        convert(changed, out=folder())
    assert str(error.value) == (
        "convert: node 'layer_1' (Sigmoid) is not supported; "
        "supported operators: Quant, Conv, MatMul, Gemm, Add, Relu, MaxPool, Flatten"
    )


def test_a_pool_that_overlaps_is_refused_where_values_are_streamed() -> None:
    assert converted("overlapping_pool", io_type="io_parallel").io_type == "io_parallel"
    with pytest.raises(UnsupportedError) as error:
        converted("overlapping_pool")
    assert str(error.value) == (
        "convert: layer 'layer_1' (MaxPool, kernel 3x3, stride 2x2) is not supported in io_stream; "
        'supported strides: the kernel\'s size; or choose io_type = "io_parallel"'
    )


def test_what_hls4ml_refuses_is_told_with_its_reason(tmp_path: Path) -> None:
    net = nn.Sequential()
    net.add_module("input", nn.Linear(4, 3))
    samples = data((4,), 3, samples=9)
    made = quantize(net, torch.from_numpy(samples.train[0][:2]), out=tmp_path, data=samples, epochs=0)
    with pytest.raises(UnsupportedError) as error:
        convert(made, out=folder())
    text = str(error.value)
    assert text.startswith(
        "convert: hls4ml refuses the network: RuntimeError: No model layer should be named 'input'"
    )
    assert text.endswith("; see docs/architecture.md for what converts")


def test_outputs_beside_the_grid_are_refused() -> None:
    made = quantized.quantized("mlp")
    with np.load(made.golden_path) as file:
        values = dict(file)
    values["outputs"] = values["outputs"] + np.float32(2**-20)
    path = folder() / "golden.npz"
    np.savez(path, **values)
    with pytest.raises(UnsupportedError, match="must hold values on the grid of fixed<"):
        convert(dataclasses.replace(made, golden_path=path), out=folder())


@pytest.mark.parametrize("place", [0, -1])
def test_a_weight_that_differs_between_synthesis_and_csim_is_found(place: int) -> None:
    design = converted("mlp")
    weights = design.path / "firmware" / "weights"
    check_weights(weights)
    header = sorted(weights.glob("w*.h"))[0]
    before, body = header.read_text(encoding="utf-8").split("{", 1)
    numbers, after = body.split("}", 1)
    values = numbers.split(",")
    values[place] = str(float(values[place]) + 2.0**-9)
    header.write_text(f"{before}{{{','.join(values)}}}{after}", encoding="utf-8")
    with pytest.raises(MismatchError) as error:
        check_weights(weights)
    assert str(error.value) == (
        f"convert: {header.name} must hold the numbers of {header.stem}.txt, not others; report the network"
    )
