"""QONNX files of somebody's own: those of the flow come through unchanged, the others are refused by node and rule."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import needs
from onnx import helper
from onnx_files import EXAMPLES, JETS, model, needs_examples, node, save
from onnx_operators import f32
from quantized import data, quantized

from flow.convert import convert
from flow.emulate import emulate
from flow.errors import ConfigError, UnsupportedError
from flow.names import identifier
from flow.onnx_model.adopt import adopt
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
    for name in ("weight_bits", "bias_bits"):
        assert getattr(adopted, name) == {identifier(k): v for k, v in getattr(made, name).items()}
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
    assert dense_quantized.bias_bits == {"fc_MatMul": 16}
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


Change = Callable[[list[Any]], list[Any]]
REFUSED: dict[str, tuple[Change, dict[str, np.ndarray], str]] = {
    "no quantizer at the input": (
        lambda nodes: [*nodes[1:2], node("MatMul", "x", "qw", to="m", name="fc"), *nodes[3:]],
        {},
        "node 'fc' (MatMul) must not read the input 'x' unless it is the one Quant node that does: "
        "the hardware's input has its type; quantize the input",
    ),
    "a second reader of the input": (
        lambda nodes: [*nodes, node("Relu", "x", to="z")],
        {},
        "node 0 (Quant) must not read the input 'x' unless it is the one Quant node that does: "
        "the hardware's input has its type; quantize the input",
    ),
    "another operator": (
        lambda nodes: [*nodes[:-1], node("Softmax", "r", name="end")],
        {},
        "node 'end' (Softmax) is not supported in a quantized file; supported operators: Quant, Conv, Gemm, MatMul, "
        "Add, Relu, MaxPool, Flatten",
    ),
    "a scale that is no power of two": (
        lambda nodes: nodes,
        {"s6": f32(0.1)},
        "node 0 (Quant) must have one power of two as its scale and no zero point, not [0.10000000149011612] and "
        "[0.0]; quantize in fixed point",
    ),
    "a scale a channel": (
        lambda nodes: nodes,
        {"s6": f32(1, 2, 1, 1)},
        "node 0 (Quant) must have one power of two as its scale and no zero point, not [1.0, 2.0, 1.0, 1.0] and "
        "[0.0]; quantize in fixed point",
    ),
    "bits between": (
        lambda nodes: nodes,
        {"b8": f32(7.5)},
        "node 0 (Quant) must have a whole number of bits from 1 to 32, not [7.5]; quantize in fixed point",
    ),
    "another rounding": (
        lambda nodes: [quant("x", "q", rounding_mode="FLOOR"), *nodes[1:]],
        {},
        "node 0 (Quant) must round half to even (ROUND), not by 'FLOOR'; quantize with it",
    ),
    "a narrow input": (
        lambda nodes: [quant("x", "q", narrow=1), *nodes[1:]],
        {},
        "node 0 (Quant) must take all values of its width (narrow = 0), as the hardware's input does, not all but "
        "the least; quantize the input so",
    ),
    "float weights": (
        lambda nodes: [nodes[0], node("MatMul", "q", "w", to="m"), *nodes[3:]],
        {},
        "node 1 (MatMul) must have weights and biases from a Quant node each, whose numbers are constant; "
        "give the layer a quantized bias, of zeros if need be",
    ),
    "no bias": (
        lambda nodes: [*nodes[:3], node("Relu", "m", to="r"), *nodes[6:]],
        {},
        "node 'fc/MatMul' (MatMul) must have weights and biases from a Quant node each, whose numbers are constant; "
        "give the layer a quantized bias, of zeros if need be",
    ),
    "a sum with a constant": (
        lambda nodes: [*nodes[:6], node("Add", "r", "b", to="p"), quant("p", "y", scale="s4")],
        {},
        "node 6 (Add) must add two tensors that depend on the input, or the bias of a MatMul, not a constant; "
        "add it to a bias",
    ),
    "a padded pool": (
        lambda nodes: [*nodes, node("MaxPool", "y", to="z", kernel_shape=[2, 2], strides=[2, 2], pads=[1, 1, 1, 1])],
        {},
        "node 7 (MaxPool) must not be padded; change the network",
    ),
    "channels last": (
        lambda nodes: [
            *nodes,
            node("MaxPool", "y", to="z", kernel_shape=[2, 2], strides=[2, 2], domain="qonnx.custom_op.channels_last"),
        ],
        {},
        "node 7 (MaxPool) must be channels first, of ONNX's own operators, not of the domain "
        "'qonnx.custom_op.channels_last'; export it before it is made channels last",
    ),
    "a flatten of the batch": (
        lambda nodes: [*nodes, node("Flatten", "y", to="z", axis=0)],
        {},
        "node 7 (Flatten) must flatten all but the batch (axis 1); change the network",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_not_be_exact_is_refused_with_node_operator_and_rule(name: str, tmp_path: Path) -> None:
    change, constants, message = REFUSED[name]
    path = written(tmp_path, change(dense()), **constants)
    with pytest.raises(UnsupportedError) as error:
        adopt(path, samples(), tmp_path / "out")
    assert str(error.value) == f"onnx: {message}"


def test_a_gemm_with_factors_is_refused(tmp_path: Path) -> None:
    nodes = dense()
    nodes[2:5] = [nodes[3], node("Gemm", "q", "qw", "qb", to="a", alpha=2.0, transB=1)]
    with pytest.raises(UnsupportedError) as error:
        adopt(written(tmp_path, nodes), samples(), tmp_path / "out")
    assert (
        str(error.value)
        == "onnx: node 3 (Gemm) must be x * transpose(W) + b, not have other factors; export it anew"
    )


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


def test_nodes_that_do_not_fit_together_are_one_error(tmp_path: Path) -> None:
    wrong = (RNG.integers(-31, 32, (6, 4)) / 64).astype(np.float32)
    with pytest.raises(ConfigError, match="onnx: 'model.onnx' must be executed by qonnx, not fail with "):
        adopt(written(tmp_path, dense(), w=wrong), samples(), tmp_path / "out")


def test_a_quantizer_without_its_options_is_refused(tmp_path: Path) -> None:
    nodes = dense()
    del nodes[0].attribute[:]
    with pytest.raises(ConfigError) as error:
        adopt(written(tmp_path, nodes), samples(), tmp_path / "out")
    assert str(error.value) == "onnx: node 0 (Quant) must say signed and narrow as 0 or 1; export it anew"


EXAMPLE_ERRORS = {
    "bnn_model_fc_1layer": "node '/linear/input_quant/export_handler/BipolarQuant' (BipolarQuant) is not supported",
    "branched_model_ch_last": "node 'Conv_0' (Conv) must be channels first, of ONNX's own operators",
    "separable_conv_model_ch_last": "node 'Conv_0' (Conv) must be channels first, of ONNX's own operators",
    "tiny_unet_ch_last": "node 'Conv_0' (Conv) must be channels first, of ONNX's own operators",
    "qkeras_jettagging": "node 'Softmax_0' (Softmax) is not supported in a quantized file",
}


@needs_examples
@pytest.mark.parametrize("name", EXAMPLE_ERRORS)
def test_the_quantized_examples_are_refused_by_node_and_rule(name: str, tmp_path: Path) -> None:
    path = JETS if name in JETS.stem else EXAMPLES / f"{name}.onnx"
    with pytest.raises(UnsupportedError) as error:
        adopt(path, samples(), tmp_path)
    assert str(error.value).startswith(f"onnx: {EXAMPLE_ERRORS[name]}")
