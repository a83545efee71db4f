"""Emulate: the C++ equals QONNX in every value of every layer, and every fault is found and named."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import quantized
from conftest import needs
from quantized import emulated, folder, golden, project, reference_values

from flow.convert import convert
from flow.emulate import LAYER_SAMPLES, emulate, layer_errors
from flow.emulate.csim import Csim
from flow.errors import ConfigError, MismatchError, ToolError, UnsupportedError
from flow.lsb import exact_lsb, input_lsb
from flow.qonnx_graph import compute_nodes, load
from flow.types import FixedPoint, HlsLayer, HlsProject, Port

CASES = [
    ("cnn", "io_stream", 0),
    ("cnn", "io_parallel", 0),
    ("mlp", "io_parallel", 220),
    ("residual", "io_stream", 60),
    ("residual", "io_parallel", 0),
    ("depthwise", "io_stream", 0),
    ("depthwise", "io_parallel", 220),
    ("zeros", "io_parallel", 220),
    ("overlapping_pool", "io_parallel", 220),
]
"""(network, io_type, DSP slices); with none, every layer is folded as far as it goes."""
MLP = ("mlp", "io_parallel", 220)
CNN = ("cnn", "io_stream", 0)


# ---------------------------------------------------------------- equality


@pytest.mark.tool
@needs("g++")
@pytest.mark.parametrize(("name", "io_type", "dsps"), CASES)
def test_the_cpp_equals_torch_in_every_output(name: str, io_type: str, dsps: int) -> None:
    result, _ = emulated(name, io_type, dsps)
    design = project(name, io_type, dsps)
    inputs, expected = golden(name)
    assert (result.samples, result.max_error_lsb) == (quantized.SAMPLES, 0)
    assert np.array_equal(result.outputs, exact_lsb(design.outputs[0], expected))
    labels = np.arange(len(inputs)) % expected.shape[1]
    assert result.accuracy == np.mean(expected.argmax(1) == labels)
    assert result.layers == tuple(layer.name for layer in design.layers)
    assert result.layer_samples == LAYER_SAMPLES
    assert result.build_seconds > 0
    assert result.samples_per_second > 0


@pytest.mark.tool
@needs("g++")
@pytest.mark.parametrize(("name", "io_type", "dsps"), CASES)
def test_every_layer_of_the_cpp_equals_qonnx_and_exact_arithmetic(name: str, io_type: str, dsps: int) -> None:
    design, (_, csim) = project(name, io_type, dsps), emulated(name, io_type, dsps)
    inputs = golden(name)[0][::7]
    graph = quantized.graph(name)
    values = reference_values(graph, inputs)
    nodes = {node.name: node for node in compute_nodes(graph)}
    rows = layer_errors(design, csim, inputs)
    assert [layer for layer, _, _ in rows] == list(design.layers)
    for layer, expected, got in rows:
        assert np.array_equal(expected, got), layer.name
        if layer.name in nodes:
            exact = values[stands_for(graph, nodes[layer.name], design, layer)]
            last = np.moveaxis(exact, 1, -1) if exact.ndim == 4 else exact
            assert np.array_equal(got, np.ldexp(last.reshape(len(inputs), -1), layer.dtype.fraction_bits))


def stands_for(graph: Any, node: Any, design: HlsProject, layer: HlsLayer) -> str:
    """Return the exported graph's tensor for the layer's: behind the quantizer where the C++ has that folded in."""
    folded = load(design.onnx_path).find_producer(layer.tensor).op_type == "Quant"
    return behind_quantizer(graph, node) if folded else node.output[0]


def behind_quantizer(graph: Any, node: Any) -> str:
    return next(
        reader.output[0] for reader in graph.find_consumers(node.output[0]) if reader.op_type == "Quant"
    )


@pytest.mark.tool
@needs("g++")
def test_odd_paths_strategies_and_precisions_of_the_user_change_nothing() -> None:
    out = folder() / "a b $(touch c); 'd'"
    wide = {"Precision": {"result": "fixed<32,12>"}}
    hls = {"Strategy": "Latency", "ReuseFactor": 3, "LayerName": {"layer_1": wide, "layer_3": wide}}
    design = convert(quantized.quantized("mlp"), out=out / "hls", io_type="io_stream", hls=hls)
    said: list[tuple[int, int, str]] = []
    result = emulate(design, build_folder=out / "build", progress=lambda *event: said.append(event))
    assert result.max_error_lsb == 0
    assert {"layer_1", "layer_3", "layer_3_bias"} <= set(result.layers)
    assert said == [(0, 2, "compiling the C++ (g++ -O1)"), (1, 2, f"running {quantized.SAMPLES} samples")]
    assert {path.name for path in out.iterdir()} == {"hls", "build"}


@pytest.mark.tool
@needs("g++")
def test_samples_of_the_users_own_run_as_they_are() -> None:
    _, csim = emulated(*MLP)
    design = project(*MLP)
    x = np.array(
        [[0.5, -0.5, 1e6, -1e6, -0.0], [3 / 256, 1 / 256, -1 / 256, 5 / 256, 0.999]], dtype=np.float32
    )
    got = csim.run(input_lsb(design.inputs[0], x))
    assert np.array_equal(got, exact_lsb(design.outputs[0], quantized.reference(quantized.graph("mlp"), x)))


# ---------------------------------------------------------------- sabotage


def copied(name: str, io_type: str, dsps: int) -> HlsProject:
    """Return a copy of the project that a test may change."""
    design = project(name, io_type, dsps)
    out = folder() / "hls"
    shutil.copytree(design.path, out)
    return HlsProject(**{**vars(design), "path": out})


@pytest.fixture
def prebuilt(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that takes a compiled program in the place of compiling: the weights are read when it runs."""

    def use(name: str, io_type: str, dsps: int) -> None:
        program = emulated(name, io_type, dsps)[1].folder / "csim"

        def build(self: Csim) -> float:
            shutil.copy(program, self.folder / "csim")
            (self.folder / "weights").symlink_to(self.design.path / "firmware" / "weights")
            return 0.0

        monkeypatch.setattr(Csim, "build", build)

    return use


def replace(path: Path, pattern: str, new: str) -> None:
    text, count = re.subn(pattern, new, path.read_text(encoding="utf-8"))
    assert count == 1, pattern
    path.write_text(text, encoding="utf-8")


def refusal(design: HlsProject, **options: Any) -> str:
    with pytest.raises(MismatchError) as error:
        emulate(design, **options)
    return str(error.value)


def told(
    layer: HlsLayer, expected: dict[str, np.ndarray], got: dict[str, np.ndarray], tensor: str, output: str
) -> str:
    """Return the message that follows from two computations of every tensor of an MLP."""
    wrong = np.flatnonzero((expected[output] != got[output]).any(axis=1))
    sample = wrong[0]
    index = np.flatnonzero(expected[tensor][sample] != got[tensor][sample])[0]
    bits = layer.dtype.fraction_bits
    want, found = (int(values[tensor][sample][index] * 2**bits) for values in (expected, got))
    return (
        f"emulate: C++ must equal QONNX, but {len(wrong)} of {quantized.SAMPLES} samples differ; "
        f"first at layer {layer.name!r} ({layer.kind}), sample {sample}, index ({index}): expected {want} LSB, "
        f"got {found} LSB, {abs(want - found)} LSB apart (1 LSB = 2^-{bits}); "
        "compare its Precision in [hls] with the graph's"
    )


@pytest.mark.tool
@needs("g++")
def test_a_changed_weight_is_found_in_its_layer(prebuilt: Any) -> None:
    prebuilt(*MLP)
    design, graph = copied(*MLP), quantized.graph("mlp")
    node = next(node for node in compute_nodes(graph) if node.name == "layer_2")
    quantizer = graph.find_producer(node.input[1])
    values, scale, _, _ = (graph.get_initializer(name).astype(np.float64) for name in quantizer.input)
    steps = np.clip(np.rint(values / scale), -31, 31)
    place = next(p for p in zip(*np.nonzero(np.abs(steps) < 20), strict=True) if p[0] == 4)
    line = next(
        line
        for line in (design.path / "firmware" / "net.cpp").read_text().splitlines()
        if "// Dense_layer_2" in line
    )
    path = design.path / "firmware" / "weights" / f"{re.findall('w[0-9]+', line)[0]}.txt"
    written = np.array(path.read_text().split(","), dtype=np.float64)
    order = "C" if np.array_equal(written, (steps * scale).ravel()) else "F"
    assert np.array_equal(written, (steps * scale).ravel(order))
    written[np.ravel_multi_index(place, steps.shape, order=order)] += scale
    path.write_text(", ".join(map(repr, written.tolist())) + "\n")

    inputs, _ = golden("mlp")
    expected = reference_values(graph, inputs)
    changed = steps * scale
    changed[place] += scale
    bias = expected[node.input[2]]
    got = reference_values(graph, inputs, {quantizer.output[0]: lambda _: changed})
    assert np.array_equal(got[node.output[0]], got[node.input[0]] @ changed.T + bias)
    layer = next(layer for layer in design.layers if layer.name == "layer_2")
    assert refusal(design) == told(
        layer, expected, got, behind_quantizer(graph, node), graph.graph.output[0].name
    )


@pytest.mark.tool
@needs("g++")
def test_a_changed_rounding_is_found_in_its_layer() -> None:
    design, graph = copied(*MLP), quantized.graph("mlp")
    relu = next(node for node in compute_nodes(graph) if node.op_type == "Relu")
    quantizer = graph.find_consumers(relu.output[0])[0]
    layer = next(layer for layer in design.layers if layer.name == relu.name)
    line = f"typedef ap_{layer.dtype}".replace(">", ",AP_RND_CONV,AP_SAT,0>")
    replace(
        design.path / "firmware" / "defines.h",
        re.escape(line) + " (layer[0-9]+_t;)",
        line.replace("RND_CONV", "TRN") + r" \1",
    )

    inputs, _ = golden("mlp")
    bits = layer.dtype.fraction_bits
    expected = reference_values(graph, inputs)
    cut = {
        quantizer.output[0]: lambda x: np.clip(np.floor(x * 2**bits), 0, layer.dtype.maximum_lsb) / 2**bits
    }
    got = reference_values(graph, inputs, cut)
    assert refusal(design) == told(layer, expected, got, quantizer.output[0], graph.graph.output[0].name)


@pytest.mark.tool
@needs("g++")
def test_an_inner_layer_that_differs_is_found_where_no_output_does(prebuilt: Any) -> None:
    prebuilt("zeros", "io_parallel", 220)
    design = copied("zeros", "io_parallel", 220)
    line = next(
        line
        for line in (design.path / "firmware" / "net.cpp").read_text().splitlines()
        if "// Dense_dead" in line
    )
    path = design.path / "firmware" / "weights" / f"{re.findall('b[0-9]+', line)[0]}.txt"
    biases = np.array(path.read_text().split(","), dtype=np.float64)
    biases[2] += 0.5
    path.write_text(", ".join(map(repr, biases.tolist())) + "\n")
    text = refusal(design)
    layer = next(layer for layer in design.layers if layer.name == "dead")
    graph = quantized.graph("zeros")
    node = next(node for node in compute_nodes(graph) if node.name == "dead")
    exact = reference_values(graph, golden("zeros")[0])
    scale = 2**layer.dtype.fraction_bits
    want = int(exact[node.output[0]][0, 2] * scale)
    found = want + scale // 2
    assert text == (
        "emulate: C++ must equal QONNX, but an inner layer differs, although no output does; "
        f"first at layer 'dead' (Dense), sample 0, index (2): expected {want} LSB, got {found} LSB, "
        f"{abs(want - found)} LSB apart (1 LSB = 2^-{layer.dtype.fraction_bits}); "
        "compare its Precision in [hls] with the graph's"
    )


@pytest.mark.tool
@needs("g++")
def test_a_fault_behind_the_last_layer_is_told_from_one_in_a_layer() -> None:
    design = copied(*MLP)
    replace(
        design.path / "firmware" / "net_axis.cpp",
        r"net\(flow_input, flow_output\);",
        "net(flow_input, flow_output); flow_output[1] = 0;",
    )
    inputs, outputs = golden("mlp")
    want = exact_lsb(design.outputs[0], outputs)[::3]
    wrong = np.flatnonzero(want[:, 1])
    assert refusal(design, inputs=inputs[::3], expected=outputs[::3]) == (
        f"emulate: C++ must equal QONNX, but {len(wrong)} of {len(want)} samples differ; all layers agree, "
        f"but output 1 of sample {wrong[0]} is 0 LSB in place of {want[wrong[0], 1]} LSB; "
        "the AXI4-Stream top must be at fault: report it"
    )


@pytest.mark.tool
@needs("g++")
def test_a_wrong_reference_is_no_equality(prebuilt: Any) -> None:
    prebuilt(*MLP)
    inputs, outputs = golden("mlp")
    wrong = outputs.copy()
    step = 2.0 ** -project(*MLP).outputs[0].dtype.fraction_bits
    wrong[7, 2] += np.float32(step)
    want = exact_lsb(project(*MLP).outputs[0], wrong)[7, 2]
    assert refusal(project(*MLP), inputs=inputs, expected=wrong) == (
        f"emulate: C++ must equal QONNX, but 1 of {quantized.SAMPLES} samples differ; all layers agree, "
        f"but output 2 of sample 7 is {want - 1} LSB in place of {want} LSB; "
        "the AXI4-Stream top must be at fault: report it"
    )


# ---------------------------------------------------------------- the project's own test bench


def run_test_bench(case: tuple[str, str, int], change: Any = None) -> subprocess.CompletedProcess[str]:
    _, csim = emulated(*case)
    where = folder()
    shutil.copytree(csim.design.path / "tb_data", where / "tb_data")
    (where / "weights").symlink_to(csim.design.path / "firmware" / "weights")
    if change:
        change(where / "tb_data")
    return subprocess.run([csim.folder / "csim"], cwd=where, capture_output=True, text=True)


@pytest.mark.tool
@needs("g++")
@pytest.mark.parametrize("case", [CNN, MLP], ids=["streams", "arrays"])
def test_the_test_bench_passes_with_its_golden_vectors(case: tuple[str, str, int]) -> None:
    done = run_test_bench(case)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "PASS: 16 samples equal, 0 LSB"


@pytest.mark.tool
@needs("g++")
@pytest.mark.parametrize("by", [1, -1])
def test_the_test_bench_fails_when_a_golden_value_is_one_step_off(by: int) -> None:
    golden_lsb = exact_lsb(project(*CNN).outputs[0], golden("cnn")[1])

    def change(vectors: Path) -> None:
        rows = [line.split() for line in (vectors / "golden.dat").read_text().splitlines()]
        rows[11][3] = str(int(rows[11][3]) + by)
        (vectors / "golden.dat").write_text("".join(" ".join(row) + "\n" for row in rows))

    done = run_test_bench(CNN, change)
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1] == (
        f"MISMATCH sample 11 output 3 expected {golden_lsb[11, 3] + by} got {golden_lsb[11, 3]}"
    )


@pytest.mark.tool
@needs("g++")
@pytest.mark.parametrize("name", ["inputs.dat", "golden.dat"])
def test_the_test_bench_fails_without_its_vectors(name: str) -> None:
    done = run_test_bench(MLP, lambda vectors: (vectors / name).unlink())
    assert done.returncode == 2
    assert done.stderr == f"testbench: tb_data/{name} must be there, not missing\n"


# ---------------------------------------------------------------- programs that fail


@pytest.fixture
def compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that makes ``fake-g++``, a compiler with the text of a shell script, and gives its name."""
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    def make(script: str) -> str:
        path = tmp_path / "fake-g++"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return path.name

    return make


def failure(**options: Any) -> str:
    inputs, outputs = golden("mlp")
    with pytest.raises(ToolError) as error:
        emulate(project(*MLP), inputs[:3], outputs[:3], **options)
    return str(error.value)


def linking_makes(csim: str) -> str:
    """Return the script of a compiler whose linked program is the shell script ``csim``."""
    return f"for last; do :; done\n[ \"$last\" = csim ] || exit 0\nprintf '#!/bin/sh\\n{csim}\\n' > csim\nchmod +x csim"


def test_a_missing_compiler_is_named() -> None:
    assert failure(compiler="no-such-g++") == (
        "emulate: 'no-such-g++' must be on PATH, not missing; install it (flow doctor shows what was found)"
    )


def test_the_messages_of_a_compiler_that_fails_are_shown(compiler: Any) -> None:
    fake = compiler("echo net.cpp:3:1: error: too narrow >&2\nexit 1")
    assert failure(compiler=fake) == (
        "emulate: 'fake-g++' must exit with 0, not 1; its output ends with\n    net.cpp:3:1: error: too narrow"
    )


@pytest.mark.tool
@needs("g++")
def test_an_error_in_the_cpp_is_shown() -> None:
    design = copied(*MLP)
    path = design.path / "firmware" / "net.cpp"
    path.write_text("#error broken on purpose\n" + path.read_text())
    inputs, outputs = golden("mlp")
    with pytest.raises(ToolError) as error:
        emulate(design, inputs, outputs)
    assert str(error.value).startswith("emulate: 'g++' must exit with 0, not 1; its output ends with\n")
    assert f"{path}:1:2: error: #error broken on purpose" in str(error.value)


def test_a_program_that_dies_is_told_with_its_signal(compiler: Any, tmp_path: Path) -> None:
    build = tmp_path / "build"
    fake = compiler(linking_makes("echo layer 3; kill -SEGV $$"))
    assert failure(compiler=fake, build_folder=build) == (
        f"emulate: '{build / 'csim'}' must exit with 0, not -11; its output ends with\n    layer 3"
    )


def test_a_program_that_writes_nothing_is_refused(compiler: Any, tmp_path: Path) -> None:
    build = tmp_path / "build"
    fake = compiler(linking_makes("exit 0"))
    assert failure(compiler=fake, build_folder=build) == (
        f"emulate: '{build / 'csim'}' must leave outputs.bin, not end without it; see {build / 'csim.log'}"
    )


def test_a_program_that_hangs_is_ended(compiler: Any, tmp_path: Path) -> None:
    build = tmp_path / "build"
    fake = compiler(linking_makes("exec sleep 60"))
    assert failure(compiler=fake, build_folder=build, timeout_s=1) == (
        f"emulate: '{build / 'csim'}' must end within 1 s, not run on; its output is in {build / 'csim.log'}"
    )


def test_a_program_that_is_not_built_does_not_run(tmp_path: Path) -> None:
    with pytest.raises(ToolError) as error:
        Csim(project(*MLP), tmp_path).run(np.zeros((1, 5), dtype=np.int64))
    assert str(error.value) == "emulate: the C++ must be built before it runs; call build() first"


def test_a_folder_that_is_used_again_gets_the_weights_of_the_new_design(
    compiler: Any, tmp_path: Path
) -> None:
    fake = compiler(linking_makes("exit 0"))
    for design in (project(*MLP), project("mlp", "io_stream")):
        Csim(design, tmp_path / "build", compiler=fake).build()
        assert (tmp_path / "build" / "weights").resolve() == design.path.resolve() / "firmware" / "weights"


# ---------------------------------------------------------------- shapes


IMAGES = "emulate: inputs and expected must have shapes (samples, 2, 8, 6) and (samples, 5), not "


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        ((4, 8, 6, 2), (4, 5)),
        ((4, 2, 6, 8), (4, 5)),
        ((4, 96), (4, 5)),
        ((4, 2, 8, 6), (4, 4)),
        ((4, 2, 8, 6), (3, 5)),
        ((4, 2, 8, 6), (20,)),
        ((0, 2, 8, 6), (0, 5)),
    ],
)
def test_shapes_that_do_not_fit_are_refused(inputs: tuple[int, ...], expected: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError) as error:
        emulate(project(*CNN), np.zeros(inputs, np.float32), np.zeros(expected, np.float32))
    assert str(error.value) == f"{IMAGES}{inputs} and {expected}; take them from golden.npz"


def test_labels_that_do_not_fit_are_refused() -> None:
    inputs, outputs = golden("mlp")
    with pytest.raises(ConfigError) as error:
        emulate(project(*MLP), inputs[:4], outputs[:4], labels=np.zeros(5, np.int64))
    assert str(error.value) == (
        "emulate: labels must be one a sample, 4, not have shape (5,); take them from golden.npz"
    )


@pytest.mark.parametrize("given", ["inputs", "expected"])
def test_inputs_and_expected_come_together(given: str) -> None:
    values = dict(zip(("inputs", "expected"), golden("mlp"), strict=True))
    with pytest.raises(ConfigError) as error:
        emulate(project(*MLP), **{given: values[given]})
    assert str(error.value) == (
        "emulate: inputs and expected must come together, not one alone; leave both out for the test set"
    )


def test_references_beside_the_grid_are_refused() -> None:
    inputs, outputs = golden("mlp")
    port = project(*MLP).outputs[0]
    with pytest.raises(UnsupportedError) as error:
        emulate(project(*MLP), inputs, outputs + np.float32(2.0**-19))
    assert str(error.value) == (
        f"output {port.name!r} must hold values on the grid of {port.dtype}, not beside it; "
        "use power-of-two scales, or give the output a finer Precision in [hls]"
    )


def test_the_messages_give_all_digits_of_wide_values() -> None:
    from flow.emulate import _check_layers

    layer = HlsLayer("fc", "Dense_fc", "Dense", "t", (1, 2), FixedPoint(True, 40, -3))
    want, got = np.array([[0.0, 2.0**40 + 1]]), np.array([[0.0, 2.0**40]])
    with pytest.raises(MismatchError) as error:
        _check_layers([(layer, want, got)], np.array([9]), 1, 3)
    assert str(error.value) == (
        "emulate: C++ must equal QONNX, but 1 of 3 samples differ; first at layer 'fc' (Dense), sample 9, "
        "index (0, 1): expected 1099511627777 LSB, got 1099511627776 LSB, 1 LSB apart (1 LSB = 2^3); "
        "compare its Precision in [hls] with the graph's"
    )


def test_ports_keep_their_shape_in_the_design() -> None:
    assert project(*CNN).inputs == (Port("input", (8, 6, 2), FixedPoint(True, 1, 7)),)
