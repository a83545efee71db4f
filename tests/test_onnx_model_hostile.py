"""ONNX files that are broken or made to do harm: one clear error each, and nothing outside their folder is read."""

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper
from onnx_files import model, node, save, weights
from onnx_operators import CASES, IMAGE, VECTOR, f32, i64

from flow.errors import ConfigError, FlowError, UnsupportedError
from flow.onnx_model import read

DENSE = {"w": weights(6, 3)}


def dense(**constants: np.ndarray) -> Any:
    return model([node("MatMul", "x", "w")], VECTOR, {**DENSE, **constants})


def refused(path: Path, kind: type[FlowError] = ConfigError) -> str:
    with pytest.raises(kind) as error:
        read(path)
    return str(error.value)


def outside(made: Any, location: str, **entries: str) -> Any:
    """Move the weights of the first tensor into another file."""
    tensor = made.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=value)
    return made


def test_weights_in_the_models_folder_are_read(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "w.bin").write_bytes(b"\0" * 8 + DENSE["w"].tobytes())
    graph = read(save(outside(dense(), "data/w.bin", offset="8", length="72"), tmp_path))
    assert torch.equal(next(graph.parameters()), torch.from_numpy(DENSE["w"].T.copy()))


@pytest.mark.parametrize("location", ["../w.bin", "/etc/passwd", "link.bin", "data/../../w.bin", ".", ""])
def test_weights_outside_the_models_folder_are_refused(location: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    (folder / "data").mkdir(parents=True)
    (tmp_path / "w.bin").write_bytes(DENSE["w"].tobytes())
    (folder / "link.bin").symlink_to(tmp_path / "w.bin")
    assert refused(save(outside(dense(), location), folder)) == (
        f"onnx: tensor 'w' must have its data beside the model, not at {location!r}; "
        "put all files into one folder and export it anew"
    )


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({}, "must have its data in an existing file, not 'none.bin'; copy it beside the model"),
        ({"location": "w.bin", "offset": "x"}, "must give its offset and length as numbers; export it anew"),
        (
            {"location": "w.bin", "offset": "4"},
            "of shape [6, 3] must have 72 bytes in 'w.bin', not 72 from byte 4 of 72; export it anew",
        ),
        (
            {"location": "w.bin", "length": "8"},
            "of shape [6, 3] must have 72 bytes in 'w.bin', not 8 from byte 0 of 72; export it anew",
        ),
        ({"location": "w\0.bin"}, "must name a file for its data, not 'w\\x00.bin'; export it anew"),
    ],
)
def test_weights_that_are_not_there_are_refused(
    entries: dict[str, str], message: str, tmp_path: Path
) -> None:
    (tmp_path / "w.bin").write_bytes(DENSE["w"].tobytes())
    made = outside(dense(), **{"location": "none.bin", **entries})
    assert refused(save(made, tmp_path)) == f"onnx: tensor 'w' {message}"


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "none.onnx"
    assert refused(path) == f"onnx: {str(path)!r} must be an existing file, not missing; correct the path"


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.99])
def test_a_truncated_file_is_refused(share: float, tmp_path: Path) -> None:
    whole = dense().SerializeToString()
    (tmp_path / "model.onnx").write_bytes(whole[: int(share * len(whole))])
    assert refused(tmp_path / "model.onnx").startswith("onnx: 'model.onnx' must ")


@pytest.mark.parametrize("content", [b"", b"not a network", b"\x00" * 64, b"\xff" * 64, b"PK\x03\x04" * 9])
def test_garbage_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(content)
    assert refused(tmp_path / "model.onnx").startswith("onnx: 'model.onnx' must ")


def test_a_cycle_is_refused(tmp_path: Path) -> None:
    made = model(
        [node("Add", "x", "b", to="a"), node("Relu", "a", to="b", name="back")], VECTOR, outputs=("b",)
    )
    assert refused(save(made, tmp_path)) == (
        "onnx: tensor 'b' of node 0 (Add) must be made before it is read, not by node 'back' (Relu), "
        "which comes later or is in a cycle; export it anew"
    )


def test_a_tensor_from_nowhere_is_refused(tmp_path: Path) -> None:
    assert refused(save(model([node("Add", "x", "z")], VECTOR), tmp_path)) == (
        "onnx: tensor 'z' of node 0 (Add) must be made before it is read, not by nothing; export it anew"
    )
    assert refused(save(model([node("Relu", "x")], VECTOR, outputs=("z",)), tmp_path)) == (
        "onnx: output 'z' must be made by a node, not by nothing; export it anew"
    )


def test_a_name_that_is_made_twice_is_refused(tmp_path: Path) -> None:
    made = model([node("Relu", "x", name="a"), node("Neg", "x", name="b")], VECTOR)
    assert refused(save(made, tmp_path)) == (
        "onnx: tensor 'y' must be made once, not by node 'a' (Relu) and by node 'b' (Neg); export it anew"
    )
    made = dense()
    made.graph.initializer.append(made.graph.initializer[0])
    assert refused(save(made, tmp_path)) == (
        "onnx: tensor 'w' must be made once, not by the weights and by the weights; export it anew"
    )


def test_shapes_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    assert refused(save(dense(w=weights(7, 3)), tmp_path)) == (
        "onnx: node 0 (MatMul) must have weights for 6 inputs, not 7; export it anew"
    )
    made = model([node("Conv", "x", "w")], IMAGE, {"w": weights(8, 4, 9, 9)})
    assert refused(save(made, tmp_path)).startswith(
        "onnx: node 0 (Conv) must fit its input of shape (4, 7, 6), not fail with: "
    )
    made = model([node("Conv", "x", "w")], IMAGE, {"w": weights(8, 5, 1, 1)})
    assert refused(save(made, tmp_path)) == (
        "onnx: node 0 (Conv) must have weights for 4 inputs in its groups, not 5 in each of 1; export it anew"
    )


@pytest.mark.parametrize(
    ("dims", "message"),
    [
        ([6, 4], "tensor 'w' of shape [6, 4] must hold 96 bytes, not 72; export it anew"),
        (
            [1 << 20, 1 << 20],
            "weights must take at most 2147483647 bytes together, but tensor 'w' of shape [1048576, 1048576] takes "
            "4398046511104; export a smaller network",
        ),
        ([-6, 3], "tensor 'w' must have extents from 0 on, not [-6, 3]; export it anew"),
        (
            [1 << 62, 1 << 62, 0],
            "tensor 'w' of shape [4611686018427387904, 4611686018427387904, 0] must hold",
        ),
    ],
)
def test_weights_that_claim_another_size_are_refused(dims: list[int], message: str, tmp_path: Path) -> None:
    made = dense()
    del made.graph.initializer[0].dims[:]
    made.graph.initializer[0].dims.extend(dims)
    assert refused(save(made, tmp_path)).startswith(f"onnx: {message}")


HUGE = {
    "input": model([node("Relu", "x")], (None, 1 << 20, 1 << 20)),
    "upsample": model([node("Upsample", "x", "s")], IMAGE, {"s": f32(1, 1, 1e6, 1e6)}, opset=9),
    "pad": model([node("Pad", "x", "p")], IMAGE, {"p": i64(0, 0, 1 << 30, 1 << 30, 0, 0, 0, 0)}),
    "transposed": model(
        [node("ConvTranspose", "x", "w", strides=[1 << 20, 1 << 20])], IMAGE, {"w": weights(4, 1, 1, 1)}
    ),
    "many": model(
        [node("Concat", *["x"] * 64, to="t0", axis=1)]
        + [node("Concat", *[f"t{i}"] * 64, to=f"t{i + 1}", axis=1) for i in range(3)],
        IMAGE,
        outputs=("t3",),
    ),
    "filled": model(
        [node("ConstantOfShape", "s", to="c"), node("Add", "x", "c")], VECTOR, {"s": i64(1 << 20, 1 << 20)}
    ),
    "doubled": model(
        [node("Concat", *[f"w{i}"] * 64, to=f"w{i + 1}", axis=0) for i in range(6)] + [node("Add", "x", "w6")],
        VECTOR,
        {"w0": weights(6)},
    ),
    "expanded": model(
        [node("Expand", "w", "s", to="c"), node("Add", "x", "c")], VECTOR, {"w": weights(1), "s": i64(1 << 40)}
    ),
    "range": model(
        [node("Range", "a", "b", "c", to="r"), node("Add", "x", "r")],
        VECTOR,
        {"a": np.float32(0), "b": np.float32(1e30), "c": np.float32(1)},
    ),
    "gathered": model(
        [node("Gather", "w", "i", to="g"), node("Add", "x", "g")],
        VECTOR,
        {"w": weights(1, 1 << 15), "i": np.zeros(1 << 15, dtype=np.int64)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HUGE)
def test_a_small_file_that_asks_for_gigabytes_is_refused_before_they_are_taken(
    name: str, tmp_path: Path
) -> None:
    path = save(HUGE[name], tmp_path)
    assert path.stat().st_size < 1 << 20
    warm = CASES["concat"]
    read(save(model(warm.nodes, warm.shape), tmp_path, "warm.onnx"))  # imports are no cost of the file
    tracemalloc.start()
    try:
        message = refused(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert message.startswith("onnx: ") and peak < 1200 << 20


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused(value: float, tmp_path: Path) -> None:
    broken = weights(6, 3)
    broken[2, 1] = value
    assert refused(save(dense(w=broken), tmp_path)) == (
        "onnx: tensor 'w' must hold finite numbers, not NaN or infinite ones; export a network that was trained well"
    )


def test_unknown_versions_are_refused(tmp_path: Path) -> None:
    made = dense()
    made.ir_version = 99
    assert refused(save(made, tmp_path)) == (
        "onnx: 'model.onnx' must have an IR version from 3 to 13, not 99; export it anew"
    )
    for opset, found in ((5, "5"), (99, "99")):
        assert refused(save(model([node("Relu", "x")], VECTOR, opset=opset), tmp_path)) == (
            f"onnx: 'model.onnx' must name one operator set from 6 to 26, not {found}; export it anew with opset 13"
        )
    made = dense()
    del made.opset_import[:]
    message = "onnx: 'model.onnx' must name one operator set from 6 to 26, not none"
    assert refused(save(made, tmp_path)).startswith(message)


def test_branches_functions_and_operators_of_others_are_refused(tmp_path: Path) -> None:
    branch = helper.make_graph([node("Relu", "x")], "b", [], [])
    made = model([node("If", "x", name="if", then_branch=branch, else_branch=branch)], VECTOR)
    assert refused(save(made, tmp_path), UnsupportedError) == (
        "onnx: node 'if' (If) must not hold a graph of its own; export the network without branches and loops"
    )
    made = model([helper.make_node("Relu", ["x"], ["y"], name="mine", domain="com.mine")], VECTOR)
    assert refused(save(made, tmp_path), UnsupportedError) == (
        "onnx: node 'mine' (Relu) must be of ONNX's own operators, not of the domain 'com.mine'; "
        "replace it in the network"
    )
    made = dense()
    made.functions.append(helper.make_function("d", "f", ["a"], ["b"], [node("Relu", "a", to="b")], []))
    assert "must hold plain operators, not 1 functions of its own" in refused(
        save(made, tmp_path), UnsupportedError
    )


def test_options_of_another_type_are_refused(tmp_path: Path) -> None:
    made = model([node("LeakyRelu", "x", alpha=3)], VECTOR)
    assert refused(save(made, tmp_path)) == (
        "onnx: node 0 (LeakyRelu) must have 'alpha' of type FLOAT, not 2; export it anew"
    )


def test_names_that_are_no_texts_are_refused(tmp_path: Path) -> None:
    made = model([node("Relu", "x", name="abcdef")], VECTOR)
    (tmp_path / "model.onnx").write_bytes(made.SerializeToString().replace(b"abcdef", b"ab\xff\xfeef"))
    assert refused(tmp_path / "model.onnx") == (
        "onnx: names in 'model.onnx' must be UTF-8 texts, not b'ab\\xff\\xfeef'; export it anew"
    )


def test_other_types_are_refused(tmp_path: Path) -> None:
    made = model([node("Relu", "x")], VECTOR)
    made.graph.input[0].type.tensor_type.elem_type = TensorProto.DOUBLE
    assert refused(save(made, tmp_path), UnsupportedError) == (
        "onnx: input 'x' must be a float32 tensor, not of type 11; export it in float32"
    )
    assert refused(save(dense(w=DENSE["w"].astype(np.float64)), tmp_path)) == (
        "onnx: node 0 (MatMul) must read float32 weights of 2 dimensions as input 1, not float64 of shape (6, 3); "
        "export it anew"
    )


def test_a_name_is_never_code(tmp_path: Path) -> None:
    name = "a'; __import__('os').system('touch hit') #\n{0}\"\"\""
    graph = read(
        save(
            model([node("Relu", name, to="t", name=name), node("Neg", "t")], (), inputs={name: VECTOR}),
            tmp_path,
        )
    )
    assert graph(torch.ones(1, 6)).tolist() == [[-1.0] * 6]
    assert all(str(n.target).isidentifier() for n in graph.graph.nodes if n.op == "call_module")


def test_any_damage_gives_one_of_the_flows_errors_or_a_network(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    chosen = CASES["squeeze and excite"]
    whole = model(chosen.nodes, chosen.shape, chosen.constants).SerializeToString()
    outcomes = set()
    for _ in range(300):
        content = bytearray(whole)
        for place in rng.integers(0, len(content), rng.integers(1, 4)):
            content[place] = rng.integers(0, 256)
        (tmp_path / "model.onnx").write_bytes(bytes(content))
        try:
            read(tmp_path / "model.onnx")
            outcomes.add("read")
        except FlowError as error:
            outcomes.add(type(error).__name__)
    assert outcomes >= {"read", "ConfigError"}


def test_a_tensor_of_more_dimensions_than_numpy_has_is_refused(tmp_path: Path) -> None:
    made = dense()
    made.graph.initializer[0].dims.extend([1] * 63)
    assert refused(save(made, tmp_path)) == (
        "onnx: tensor 'w' must have at most 64 dimensions, not 65; export it anew"
    )
