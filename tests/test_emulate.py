"""Emulate: torch, QONNX, integers and C++ agree in every value of every layer, and every fault is found and named."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import quantized
from conftest import needs
from qonnx_files import Bits, Net, network
from quantized import emulated, folder, golden, project, reference_values

from flow.convert import convert
from flow.emulate import LAYER_SAMPLES, emulate
from flow.emulate.chain import Samples, check_qonnx
from flow.emulate.csim import Csim
from flow.errors import ConfigError, MismatchError, UnsupportedError
from flow.fixed import from_qonnx
from flow.fixed.execute import execute
from flow.fixed.from_qonnx import lower
from flow.fixed.golden import Golden, write_golden
from flow.fixed.graph import Dense, FixedGraph, Rescale, Tensor
from flow.fixed.lsb import exact_lsb, input_lsb, placed
from flow.qonnx import execute as execute_qonnx
from flow.qonnx import load
from flow.types import FixedPoint, HlsProject, Port, Quantized

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


def fixed(name: str) -> FixedGraph:
    return lower(quantized.graph(name))


def integers(design: HlsProject, inputs: np.ndarray) -> np.ndarray:
    (port,) = design.inputs
    return input_lsb(port, inputs).reshape(-1, *port.shape)


# ---------------------------------------------------------------- equality


@needs("g++")
@pytest.mark.parametrize(("name", "io_type", "dsps"), CASES)
def test_every_hop_is_exact(name: str, io_type: str, dsps: int) -> None:
    result, _ = emulated(name, io_type, dsps)
    design, graph = project(name, io_type, dsps), fixed(name)
    inputs, expected = golden(name)
    assert (result.samples, result.max_error_lsb) == (quantized.SAMPLES, 0)
    assert (result.tied_samples, result.head_lsb) == (0, 0)
    assert np.array_equal(result.outputs, exact_lsb(design.outputs[0], expected))
    labels = np.arange(len(inputs)) % expected.shape[1]
    assert result.accuracy == np.mean(expected.argmax(1) == labels)
    assert [layer.name for layer in result.layers] == [node.name for node in graph.nodes]
    traced = {layer.tensor for layer in design.layers}
    for layer, node in zip(result.layers, graph.nodes, strict=True):
        assert layer.csim_lsb == (0 if node.output.name in traced else None)
        assert layer.qonnx_lsb == (None if node.output.source is None else 0)
        assert (layer.shape, layer.dtype, layer.ties) == (node.output.shape, node.output.dtype, 0)
    assert result.layers[-1].qonnx_lsb == 0
    assert result.layer_samples == LAYER_SAMPLES
    assert min(result.build_seconds, result.samples_per_second, result.executor_samples_per_second) > 0


@needs("g++")
@pytest.mark.parametrize(("name", "io_type", "dsps"), CASES)
def test_every_layer_of_the_cpp_equals_exact_arithmetic(name: str, io_type: str, dsps: int) -> None:
    design, (result, csim) = project(name, io_type, dsps), emulated(name, io_type, dsps)
    inputs = golden(name)[0]
    values = reference_values(quantized.graph(name), inputs)
    tensors, traces = fixed(name).tensors, csim.trace(integers(design, inputs).reshape(len(inputs), -1))
    compared = 0
    for layer in design.layers:
        tensor = tensors[layer.tensor]
        if tensor.source is None:
            continue
        compared += 1
        exact = placed(values[tensor.source].reshape(len(inputs), -1), tensor.order)
        assert np.array_equal(traces[layer.hls_name], exact), layer.name
        row = next(row for row in result.layers if row.name == layer.name)
        seen = np.ldexp(exact[:LAYER_SAMPLES], layer.dtype.fraction_bits)
        assert (row.lowest, row.highest) == (seen.min(), seen.max())
    assert compared >= len(design.layers) - 2


@needs("g++")
def test_odd_paths_strategies_and_headers_change_nothing() -> None:
    out = folder() / "a b $(touch c); 'd'"
    hls = {"Strategy": "Latency", "ReuseFactor": 3}
    design = convert(quantized.quantized("mlp"), out=out / "hls", io_type="io_stream", hls=hls)
    said: list[str] = []
    result = emulate(
        design,
        build_folder=out / "build",
        header="vendor",
        progress=lambda done, total, text: said.append(text),
    )
    assert (result.max_error_lsb, result.header) == (0, "vendor")
    assert said[-2:] == ["compiling the C++ (g++ -O1)", f"running {quantized.SAMPLES} samples"]
    assert {path.name for path in out.iterdir()} == {"hls", "build"}


@needs("g++")
def test_samples_of_the_users_own_run_as_they_are() -> None:
    _, csim = emulated(*MLP)
    design = project(*MLP)
    x = np.array(
        [[0.5, -0.5, 1e6, -1e6, -0.0], [3 / 256, 1 / 256, -1 / 256, 5 / 256, 0.999]], dtype=np.float32
    )
    got = csim.run(input_lsb(design.inputs[0], x))
    assert np.array_equal(got, exact_lsb(design.outputs[0], quantized.reference(quantized.graph("mlp"), x)))


# ---------------------------------------------------------------- several ports, heads, scales


def files(model: Any, *inputs: np.ndarray, labels: np.ndarray | None = None) -> Quantized:
    """Return a QONNX file with samples and what it gives for them."""
    path = folder() / "model.onnx"
    model.save(str(path))
    made = execute_qonnx(load(path), inputs)
    outputs = made if isinstance(made, tuple) else (made,)
    write_golden(path.with_name("golden.npz"), Golden(inputs, outputs, labels))
    return Quantized(path, path.with_name("golden.npz"), (), 0.0, len(inputs[0]), {}, {}, {})


@needs("g++")
def test_several_inputs_and_outputs_are_compared_together() -> None:
    net = Net()
    image, vector = net.input((2, 4, 5), bits=4), net.input((3,), bits=9)
    model = net.model(net.quant(net.conv(image, 3, kernel=3), bits=6), net.dense(vector, 2))
    rng = np.random.default_rng(0)
    inputs = tuple(rng.normal(0, 1, (40, *shape)).astype(np.float32) for shape in ((2, 4, 5), (3,)))
    design = convert(files(model, *inputs), out=folder())
    result = emulate(design)
    assert (result.samples, result.max_error_lsb, result.accuracy) == (40, 0, None)
    assert result.outputs.shape == (40, 18 + 2)
    with np.load(design.golden_path) as file:
        outputs = (file["outputs_0"], file["outputs_1"].copy())
    outputs[1][3, 1] += np.float32(2.0 ** -design.outputs[1].dtype.fraction_bits)
    assert "but 1 of 40 samples differ, although every layer of sample 3 agrees" in refusal(
        design, inputs=inputs, expected=outputs
    )


@needs("g++")
@pytest.mark.parametrize("kind", ["Softmax", "Sigmoid"])
def test_a_head_that_the_file_leaves_as_floats_is_compared_on_its_grid(kind: str) -> None:
    net = Net()
    scores = net.quant(net.dense(net.input((6,)), 4), bits=8, power=-4)
    model = net.model(net.unary(scores, kind, **({"axis": 1} if kind == "Softmax" else {})))
    x = np.random.default_rng(0).normal(0, 1, (300, 6)).astype(np.float32)
    labels = np.arange(300) % 4
    design = convert(files(model, x, labels=labels), out=folder())
    result = emulate(design)
    with np.load(design.golden_path) as file:
        real = file["outputs"].astype(np.float64)
    port = design.outputs[0]
    apart = np.abs(
        result.outputs - np.rint(np.ldexp(real, port.dtype.fraction_bits)).clip(0, port.dtype.maximum_lsb)
    )
    assert result.head_lsb == apart.max() <= (1 if kind == "Softmax" else 0)
    assert result.accuracy == pytest.approx(np.mean(real.argmax(1) == labels), abs=0.05)
    wrong = real.astype(np.float32)
    wrong[5, 2] += np.float32(3 * 2.0**-port.dtype.fraction_bits)
    assert "but 1 of 300 samples differ, although every layer of sample 5 agrees" in refusal(
        design, inputs=x, expected=wrong
    )


def quantizer(multiplier: int, shift: int, rounding: str = "ROUND") -> FixedGraph:
    """Return one quantizer of 8 bits whose scales are no powers of two."""
    source = Tensor("x", (1,), FixedPoint(True, 12, 0))
    made = Tensor("y", (1,), FixedPoint(True, 8, 0), source="Y")
    node = Rescale("q", ("x",), made, np.array([multiplier]), np.array([0]), shift, rounding, -128, 127)
    return FixedGraph((source,), (node,), ("y",))


def followed(graph: FixedGraph, x: list[int], theirs: list[float]) -> tuple[Any, list[bool]]:
    lsb = np.array(x)[:, None]
    values = execute(graph, [lsb], every=True)
    node: Any = graph.nodes[0]
    exact = (lsb * node.multiplier / 2**node.shift).astype(np.float32)
    context = {"X": exact, "Y": np.array(theirs, np.float32)[:, None]}
    samples = Samples(np.arange(len(x)) + 70, values, context, {"Y": ("X", np.ones((), np.float32))})
    checks, tied = check_qonnx(graph, samples, "2 of 9 samples differ")
    return checks, tied.tolist()


def test_float32_may_round_a_tie_to_its_other_side_and_nothing_else() -> None:
    graph = quantizer(3, 1)  # 1.5 x: every odd x is a tie
    (row,), tied = followed(graph, [1, 2, 3, 5, 7], [1, 3, 4, 7, 10])
    assert tied == [True, False, False, True, False]
    assert (row.qonnx_lsb, row.ties) == (0, 2)
    for x, theirs, error in ((2, 4.0, 1), (3, 6.0, 2), (1, 3.0, 1)):
        got = int(execute(graph, [np.array([[x]])])["y"][0, 0])
        with pytest.raises(MismatchError) as raised:
            followed(graph, [4, x], [6, theirs])
        assert str(raised.value) == (
            "emulate: the integer executor must equal QONNX, but 2 of 9 samples differ; first at layer 'q' (Rescale), "
            f"sample 71, index (0): expected {theirs:g} LSB, got {got} LSB, {error} LSB apart (1 LSB = 2^0); "
            "report the network"
        )


@pytest.mark.parametrize(
    ("rounding", "good", "bad"),
    [("FLOOR", (2, 3), (1, 4)), ("CEIL", (3, 4), (2, 5)), ("ROUND_TO_ZERO", (2, 3), (1, 4))],
)
def test_a_whole_number_may_be_cut_on_either_side(rounding: str, good: list[int], bad: list[int]) -> None:
    graph = quantizer(3, 1, rounding)
    for theirs in good:
        _, tied = followed(graph, [2], [theirs])
        assert tied == [theirs != 3]
    for theirs in bad:
        with pytest.raises(MismatchError):
            followed(graph, [2], [theirs])
    with pytest.raises(MismatchError):
        followed(graph, [3], [{"FLOOR": 5, "CEIL": 4, "ROUND_TO_ZERO": 5}[rounding]])


@needs("g++")
def test_samples_at_float32_ties_are_counted_and_their_golden_outputs_checked() -> None:
    model = network("Mul by a constant a channel", Bits(6, 6, 6))
    x = (np.random.default_rng(0).integers(-32, 32, (300, 4, 7, 6)) / 64).astype(np.float32)
    golden_outputs = execute_qonnx(model, x)
    design = convert(files(model, x), out=folder() / "hls")
    result = emulate(design)
    assert 0 < result.tied_samples < len(x)
    assert result.max_error_lsb == 0
    exact = np.ldexp(golden_outputs, design.outputs[0].dtype.fraction_bits)
    differs = (np.moveaxis(exact, 1, -1).reshape(len(x), -1) != result.outputs).any(axis=1)
    assert differs.sum() == result.tied_samples
    for sample in (np.flatnonzero(differs)[-1], np.flatnonzero(~differs)[-1]):
        wrong = golden_outputs.copy()
        wrong[sample, 0, 0, 0] *= -1
        wrong[sample, 0, 0, 1] += 0.25
        with pytest.raises(MismatchError, match=f"every layer of sample {sample} agrees"):
            emulate(design, x, wrong)


def test_a_power_of_two_has_no_ties_that_float32_could_miss() -> None:
    with pytest.raises(MismatchError, match="expected 1 LSB, got 0 LSB"):
        followed(quantizer(1, 1), [1], [1])


# ---------------------------------------------------------------- sabotage


def copied(name: str, io_type: str, dsps: int) -> HlsProject:
    """Return a copy of the project that a test may change."""
    design = project(name, io_type, dsps)
    out = folder() / "hls"
    shutil.copytree(design.path, out)
    return replace(design, path=out)


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


def edit(path: Path, pattern: str, new: str) -> None:
    text, count = re.subn(pattern, new, path.read_text(encoding="utf-8"))
    assert count == 1, pattern
    path.write_text(text, encoding="utf-8")


def refusal(design: HlsProject, **options: Any) -> str:
    with pytest.raises(MismatchError) as error:
        emulate(design, **options)
    return str(error.value)


def changed(graph: FixedGraph, name: str, **fields: Any) -> FixedGraph:
    """Return a graph with one node changed."""
    assert name in [node.name for node in graph.nodes]
    return replace(graph, nodes=tuple(replace(n, **fields) if n.name == name else n for n in graph.nodes))


def node_of(graph: FixedGraph, name: str) -> Any:
    return next(node for node in graph.nodes if node.name == name)


def told(right: FixedGraph, wrong: FixedGraph, design: HlsProject, layer: str, inputs: np.ndarray) -> str:
    """Return what follows from two graphs: how many samples differ, and the first difference of a layer."""
    want, got = (execute(graph, [integers(design, inputs)], every=True) for graph in (right, wrong))
    (output,) = right.outputs
    different = np.flatnonzero((want[output] != got[output]).any(axis=1))
    sample = different[0]
    place = tuple(np.argwhere(want[layer][sample] != got[layer][sample])[0])
    left, found = int(want[layer][sample][place]), int(got[layer][sample][place])
    node = node_of(right, layer)
    return (
        f"{len(different)} of {len(inputs)} samples differ; first at layer {layer!r} ({type(node).__name__}), sample "
        f"{sample}, index ({', '.join(map(str, place))}): expected {left} LSB, got {found} LSB, "
        f"{abs(left - found)} LSB apart (1 LSB = 2^{-node.output.dtype.fraction_bits})"
    )


CSIM = "emulate: the C++ must equal the integer executor, but "
QONNX = "emulate: the integer executor must equal QONNX, but "
ADVICE = "; compare its weights in firmware/weights and its types in [hls] with the graph's"


def weights_file(design: HlsProject, layer: str, kind: str) -> Path:
    lines = (design.path / "firmware" / "net.cpp").read_text().splitlines()
    line = next(line for line in lines if f"// Dense_{layer}" in line)
    return design.path / "firmware" / "weights" / f"{re.findall(f'{kind}[0-9]+', line)[0]}.txt"


@needs("g++")
def test_a_changed_weight_is_found_in_its_layer(prebuilt: Any) -> None:
    prebuilt(*MLP)
    design, graph = copied(*MLP), fixed("mlp")
    path = weights_file(design, "layer_2", "w")
    written = np.array(path.read_text().split(","), dtype=np.float64)
    node = node_of(graph, "layer_2")
    assert isinstance(node, Dense)
    place = next(p for p in zip(*np.nonzero(np.abs(node.weight) < 20), strict=True) if p[0] == 4)
    steps = np.ldexp(written, node.weight_dtype.fraction_bits)
    order: Any = "C" if np.array_equal(steps, node.weight.ravel()) else "F"
    assert np.array_equal(steps, node.weight.ravel(order))
    written[np.ravel_multi_index(place, node.weight.shape, order=order)] += (
        2.0**-node.weight_dtype.fraction_bits
    )
    path.write_text(", ".join(map(repr, written.tolist())) + "\n")
    weight = node.weight.copy()
    weight[place] += 1
    wrong = changed(graph, "layer_2", weight=weight)
    with pytest.raises(MismatchError) as error:
        emulate(design)
    assert str(error.value) == CSIM + told(graph, wrong, design, "layer_2", golden("mlp")[0]) + ADVICE
    before = [node.name for node in graph.nodes]
    assert [row.name for row in error.value.layers] == before[: before.index("layer_2")]  # type: ignore[attr-defined]


@needs("g++")
def test_a_changed_rounding_is_found_in_its_layer() -> None:
    design, graph = copied(*MLP), fixed("mlp")
    path = design.path / "firmware" / "parameters.h"
    text = path.read_text()
    start = text.index("// Rescale_layer_1\n")
    path.write_text(text[:start] + text[start:].replace("flow_kernels::ROUND;", "flow_kernels::FLOOR;", 1))
    wrong = changed(graph, "layer_1", rounding="FLOOR")
    assert refusal(design) == CSIM + told(graph, wrong, design, "layer_1", golden("mlp")[0]) + ADVICE


@needs("g++")
def test_an_inner_layer_that_differs_is_found_where_no_output_does(prebuilt: Any) -> None:
    prebuilt("zeros", "io_parallel", 220)
    design = copied("zeros", "io_parallel", 220)
    path = weights_file(design, "dead", "b")
    biases = np.array(path.read_text().split(","), dtype=np.float64)
    graph = fixed("zeros")
    node = node_of(graph, "dead")
    biases[2] += 2.0**-node.bias_dtype.fraction_bits
    path.write_text(", ".join(map(repr, biases.tolist())) + "\n")
    fraction = node.output.dtype.fraction_bits
    want = int(execute(graph, [integers(design, golden("zeros")[0])], every=True)["dead"][0, 2])
    by = 2 ** (fraction - node.bias_dtype.fraction_bits)
    assert refusal(design) == (
        f"{CSIM}an inner layer differs, although no output does; first at layer 'dead' (Dense), sample 0, index (2): "
        f"expected {want} LSB, got {want + by} LSB, {by} LSB apart (1 LSB = 2^{-fraction}){ADVICE}"
    )


@needs("g++")
def test_a_fault_behind_the_last_layer_is_told_from_one_in_a_layer() -> None:
    design = copied(*MLP)
    edit(
        design.path / "firmware" / "net_axis.cpp",
        r"net\((flow_input\w*), (flow_output\w*)\);",
        r"net(\1, \2); \2[1] = 0;",
    )
    inputs, outputs = golden("mlp")
    want = exact_lsb(design.outputs[0], outputs)[::3]
    wrong = np.flatnonzero(want[:, 1])
    assert refusal(design, inputs=inputs[::3], expected=outputs[::3]) == (
        f"{CSIM}{len(wrong)} of {len(want)} samples differ; all layers agree, "
        f"but output 1 of sample {wrong[0]} is 0 LSB in place of {want[wrong[0], 1]} LSB; "
        "the AXI4-Stream top must be at fault: report it"
    )


@pytest.mark.parametrize(
    ("layer", "fields"),
    [
        ("layer_1", {"rounding": "CEIL"}),
        ("layer_2", {"bias": None, "bias_dtype": None}),
        ("quant_2_out", {"maximum": 3}),
        ("layer_3", {"weight": "negated"}),
    ],
)
def test_a_graph_that_is_not_the_file_is_found_in_its_layer(
    layer: str, fields: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    design, graph = project(*MLP), fixed("mlp")
    if "weight" in fields:
        fields = {"weight": -node_of(graph, layer).weight}
    wrong = changed(graph, layer, **fields)
    monkeypatch.setattr(from_qonnx, "read", lambda path: wrong)
    with pytest.raises(MismatchError) as error:
        emulate(design)
    expected = told(graph, wrong, design, layer, golden("mlp")[0])
    assert str(error.value) == f"{QONNX}{expected}; report the network"
    before = [node.name for node in graph.nodes]
    assert [row.name for row in error.value.layers] == before[: before.index(layer)]  # type: ignore[attr-defined]


def test_a_dead_layer_that_is_not_the_files_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = fixed("zeros")
    bias = node_of(graph, "dead").bias.copy()
    bias[1] += 1
    monkeypatch.setattr(from_qonnx, "read", lambda path: changed(graph, "dead", bias=bias))
    assert refusal(project("zeros", "io_parallel", 220)).startswith(
        f"{QONNX}an inner layer differs, although no output does; first at layer 'dead' (Dense), sample 0, index (1): "
    )


@pytest.mark.parametrize("by", [1, -1])
def test_a_wrong_reference_is_no_equality(by: int) -> None:
    inputs, outputs = golden("mlp")
    wrong = outputs.copy()
    wrong[7, 2] += np.float32(by * 2.0 ** -project(*MLP).outputs[0].dtype.fraction_bits)
    assert refusal(project(*MLP), inputs=inputs, expected=wrong) == (
        f"{QONNX}1 of {quantized.SAMPLES} samples differ, although every layer of sample 7 agrees; "
        "the expected outputs must be those of the QONNX file: quantize anew"
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


@needs("g++")
@pytest.mark.parametrize("case", [CNN, MLP], ids=["streams", "arrays"])
def test_the_test_bench_passes_with_its_golden_vectors(case: tuple[str, str, int]) -> None:
    done = run_test_bench(case)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "PASS: 16 samples equal, 0 LSB"


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


@needs("g++")
@pytest.mark.parametrize("name", ["inputs.dat", "golden.dat"])
def test_the_test_bench_fails_without_its_vectors(name: str) -> None:
    done = run_test_bench(MLP, lambda vectors: (vectors / name).unlink())
    assert done.returncode == 2
    assert done.stderr == f"testbench: tb_data/{name} must be there, not missing\n"


# ---------------------------------------------------------------- shapes


@pytest.mark.parametrize(
    ("inputs", "expected", "message"),
    [
        ((4, 2, 8), (4, 5), "inputs must be arrays of equally many samples, at least one, with 96 values each, not of "
                            "shape (4, 2, 8)"),
        ((4, 2, 8, 6), (4, 4), "expected must be arrays of equally many samples, at least one, with 5 values each, not "
                               "of shape (4, 4)"),
        ((4, 2, 8, 6), (3, 5), "expected must be arrays of equally many samples, at least one, with 5 values each, not "
                               "of shape (3, 5)"),
        ((4, 2, 8, 6), (20,), "expected must be arrays of equally many samples, at least one, with 5 values each, not "
                              "of shape (20,)"),
        ((0, 2, 8, 6), (0, 5), "inputs must be arrays of equally many samples, at least one, with 96 values each, not "
                               "of shape (0, 2, 8, 6)"),
    ],
)  # fmt: skip
def test_shapes_that_do_not_fit_are_refused(
    inputs: tuple[int, ...], expected: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ConfigError) as error:
        emulate(project(*CNN), np.zeros(inputs, np.float32), np.zeros(expected, np.float32))
    assert str(error.value) == f"emulate: {message}; take them from golden.npz"


def test_too_many_inputs_are_refused() -> None:
    inputs, outputs = golden("mlp")
    with pytest.raises(ConfigError) as error:
        emulate(project(*MLP), (inputs, inputs), outputs)
    assert str(error.value) == (
        "emulate: inputs must be arrays of equally many samples, at least one, with 5 values each, not of shape "
        "(300, 5), (300, 5); take them from golden.npz"
    )


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
        f"output {port.name!r} must hold values on the grid of {port.dtype}, not beside it; put a quantizer behind it"
    )


def test_ports_keep_their_shape_in_the_design() -> None:
    (port,) = project(*CNN).inputs
    assert replace(port, name="") == Port("", (8, 6, 2), FixedPoint(True, 1, 7))
