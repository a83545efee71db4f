"""QONNX files of somebody's own: those of the flow come through unchanged, the others are refused by node and rule."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import needs
from onnx import helper
from onnx_files import model, node, save
from onnx_operators import f32
from qonnx_files import Net
from quantized import data, quantized

from flow.convert import convert
from flow.emulate import emulate
from flow.errors import ConfigError, UnsupportedError
from flow.fixed.from_qonnx import lower
from flow.names import identifier
from flow.qonnx import execute, load
from flow.quantize.adopt import adopt
from flow.types import Data, FixedPoint, Port, Quantized

SHAPES = {"mlp": (16,), "cnn": (1, 12, 12), "residual": (2, 8, 8)}


def quant(source: str, to: str, scale: str = "s6", bits: str = "b8", **options: Any) -> Any:
    options = {"signed": 1, "narrow": 0, "rounding_mode": "ROUND", **options}
    return node("Quant", source, scale, "zero", bits, to=to, domain="onnx.brevitas", **options)


RNG = np.random.default_rng(0)
CONSTANTS = {
    **{f"s{i}": f32(2.0**-i) for i in (4, 6, 10)},
    **{"zero": np.float32(0), "b8": np.float32(8), "b6": np.float32(6), "b16": np.float32(16)},
    **{"w": (RNG.integers(-31, 32, (5, 4)) / 64).astype(np.float32), "b": f32(0.5, -0.25, 1, 0)},
}


def dense() -> list[Any]:
    """Return a dense layer as QKeras writes it, with everything quantized."""
    return [
        quant("x", "q"),
        quant("w", "qw", bits="b6"),
        node("MatMul", "q", "qw", to="m", name="fc/MatMul"),
        quant("b", "qb", scale="s10", bits="b16"),
        node("Add", "m", "qb", to="a"),
        node("Relu", "a", to="r", name="Relu"),
        quant("r", "y", scale="s4", bits="b8", signed=0),
    ]


def written(folder: Path, nodes: list[Any], **constants: np.ndarray) -> Path:
    made = model(nodes, (1, 5), {**CONSTANTS, **constants})
    made.opset_import.append(helper.make_opsetid("onnx.brevitas", 1))
    return save(made, folder)


def samples() -> Data:
    return data((5,), 4, samples=60)


@pytest.mark.parametrize("name", SHAPES)
def test_a_file_of_the_flow_comes_through_unchanged(name: str, tmp_path: Path) -> None:
    made = quantized(name)
    with np.load(made.golden_path) as golden:
        arrays = dict(golden)
    split = (arrays["inputs"], arrays["labels"])
    adopted = adopt(made.onnx_path, Data(name, split, split, split), tmp_path)
    with np.load(adopted.golden_path) as golden:
        assert all(np.array_equal(golden[key], value) for key, value in arrays.items())
    assert adopted.inputs == made.inputs
    assert (adopted.accuracy, adopted.samples) == (made.accuracy, made.samples)
    assert adopted.weight_bits == {identifier(name): bits for name, bits in made.weight_bits.items()}
    for name, bits in adopted.bias_bits.items():  # those that the numbers take
        assert bits <= {identifier(k): v for k, v in made.bias_bits.items()}[name]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["golden.npz", "model.onnx"]


@pytest.fixture(scope="module")
def dense_quantized(tmp_path_factory: pytest.TempPathFactory) -> Quantized:
    folder = tmp_path_factory.mktemp("adopted")
    return adopt(written(folder, dense()), samples(), folder / "out")


def test_a_dense_layer_of_matmul_and_add_is_executed_as_written(dense_quantized: Quantized) -> None:
    x = samples().test[0].astype(np.float64)
    q = np.clip(np.rint(x * 64), -128, 127) / 64
    values = np.maximum(q @ CONSTANTS["w"] + CONSTANTS["b"], 0)
    with np.load(dense_quantized.golden_path) as golden:
        assert np.array_equal(golden["outputs"], np.clip(np.rint(values * 16), 0, 255) / 16)
    assert dense_quantized.inputs == (Port("input", (5,), FixedPoint(True, 2, 6)),)
    assert dense_quantized.weight_bits == {"fc_MatMul": 6}
    assert dense_quantized.bias_bits == {"fc_MatMul": 4}  # 1/2, -1/4, 1 and 0
    assert dense_quantized.activation_bits == {"fc_MatMul": 8}


@needs("g++")
@pytest.mark.parametrize("signed", [0, 1])
def test_it_goes_through_convert_and_csim_in_every_bit(signed: int, tmp_path: Path) -> None:
    made = adopt(
        written(tmp_path, [quant("x", "q", signed=signed), *dense()[1:]]), samples(), tmp_path / "out"
    )
    assert made.inputs[0].dtype.signed == bool(signed)
    project = convert(made, out=tmp_path / "hls")
    assert emulate(project, optimization="-O0").max_error_lsb == 0


def test_a_file_that_cannot_be_exact_is_refused_by_its_own_names(tmp_path: Path) -> None:
    nodes = [*dense()[:-1], quant("r", "y", scale="odd")]
    with pytest.raises(UnsupportedError) as error:
        adopt(written(tmp_path, nodes, odd=f32(-1)), samples(), tmp_path / "out")
    assert str(error.value) == (
        "qonnx: node 'Quant_6' (Quant) must have positive scales, not [-1.0]; quantize it anew"
    )
    assert list((tmp_path / "out").iterdir()) == []


def test_a_scale_that_is_no_power_of_two_is_taken(tmp_path: Path) -> None:
    made = adopt(written(tmp_path, dense(), s4=f32(0.07)), samples(), tmp_path / "out")
    assert lower(load(made.onnx_path)).tensors["Relu"].scale == (float(np.float32(0.07)) * 16,)


def test_what_nothing_reads_is_left_out(tmp_path: Path) -> None:
    made = adopt(written(tmp_path, [*dense(), node("Sin", "y", to="z")]), samples(), tmp_path / "out")
    kinds = [each.op_type for each in load(made.onnx_path).graph.node]
    assert sorted(kinds) == ["Add", "MatMul", "Quant", "Quant", "Quant", "Quant", "Relu"]


def test_samples_for_an_input_without_a_quantizer_are_rounded_to_its_type(tmp_path: Path) -> None:
    nodes = [
        quant("w", "qw", bits="b6"),
        node("MatMul", "x", "qw", to="m", name="fc"),
        quant("m", "y", scale="s4"),
    ]
    made = adopt(written(tmp_path, nodes), samples(), tmp_path / "out")
    assert made.inputs == (Port("input", (5,), FixedPoint(True, 6, 10)),)
    x = np.clip(np.rint(samples().test[0].astype(np.float64) * 1024), -(2**15), 2**15 - 1) / 1024
    with np.load(made.golden_path) as golden:
        assert np.array_equal(golden["inputs"], x)
        assert np.array_equal(golden["outputs"], np.clip(np.rint(x @ CONSTANTS["w"] * 16), -128, 127) / 16)


def test_several_inputs_and_outputs(tmp_path: Path) -> None:
    net = Net()
    a, b = net.input((5,), name="left"), net.input((2, 3, 3), name="right")
    y = net.quant(net.conv(b, 4))
    pooled = net.flatten(net.global_pool(y, "GlobalMaxPool"))
    path = save(net.proto(net.join("Add", net.quant(net.dense(a, 4)), pooled), y), tmp_path)
    rng = np.random.default_rng(0)
    given = tuple(rng.uniform(-2, 2, (9, *shape)).astype(np.float32) for shape in ((5,), (2, 3, 3)))
    split: Any = (given, np.zeros(9, np.int64))
    made = adopt(path, Data("two", split, split, split), tmp_path / "out")
    assert [(port.name, port.shape) for port in made.inputs] == [("left", (5,)), ("right", (3, 3, 2))]
    assert made.accuracy is None
    wanted = execute(load(made.onnx_path), given)
    with np.load(made.golden_path) as golden:
        for place in (0, 1):
            assert np.array_equal(golden[f"inputs_{place}"], given[place])
            assert np.array_equal(golden[f"outputs_{place}"], wanted[place])


def test_channels_last_files_take_samples_channels_first(tmp_path: Path) -> None:
    net = Net()
    y = net.flatten(net.quant(net.conv(net.input((4, 3, 2)), 3, last=True)))
    x = np.random.default_rng(0).uniform(-2, 2, (7, 2, 4, 3)).astype(np.float32)
    split = (x, np.arange(7) % 6)
    made = adopt(save(net.proto(y), tmp_path), Data("images", split, split, split), tmp_path / "out")
    with np.load(made.golden_path) as golden:
        assert np.array_equal(golden["inputs"], x)
        assert np.array_equal(golden["outputs"], execute(load(made.onnx_path), np.moveaxis(x, 1, -1)))


def test_the_accuracy_of_an_argmax_is_that_of_its_indices(tmp_path: Path) -> None:
    net = Net()
    y = net.node("ArgMax", [net.dense(net.input((5,)), 4)], (1,), axis=1, keepdims=1)
    made = adopt(save(net.proto(y), tmp_path), samples(), tmp_path / "out")
    with np.load(made.golden_path) as golden:
        assert made.accuracy == (golden["outputs"][:, 0] == golden["labels"]).mean()


def test_samples_and_labels_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path, dense())
    with pytest.raises(ConfigError) as error:
        adopt(path, data((6,), 4, samples=12), tmp_path / "out")
    assert str(error.value) == (
        "onnx: samples must have the shape of the input of 'model.onnx', (5,) channels first, not (6,); "
        "check [data] and [model]"
    )
    with pytest.raises(ConfigError) as error:
        adopt(path, data((5,), 7, samples=30), tmp_path / "out")
    assert str(error.value) == (
        "data: labels must be below the outputs of 'model.onnx' (4,), not reach 6; give the network one output a class"
    )


def test_a_failure_of_qonnx_is_one_error(tmp_path: Path) -> None:
    nodes = [*dense()[:-1], quant("r", "y", rounding_mode="ROUND_TO_ZERO")]  # Brevitas's name, not qonnx's
    with pytest.raises(ConfigError) as error:
        adopt(written(tmp_path, nodes), samples(), tmp_path / "out")
    assert str(error.value) == (
        "onnx: 'model.onnx' must be executed by qonnx, not fail with ValueError: Could not resolve rounding mode "
        "called: ROUND_TO_ZERO; export it anew"
    )


def test_a_quantizer_without_its_options_is_refused(tmp_path: Path) -> None:
    nodes = dense()
    del nodes[0].attribute[:]
    with pytest.raises(UnsupportedError) as error:
        adopt(written(tmp_path, nodes), samples(), tmp_path / "out")
    assert (
        str(error.value)
        == "qonnx: node 'Quant_0' (Quant) must say signed as 0 or 1, not None; export it anew"
    )
