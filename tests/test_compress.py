"""The weights file: with nncodec where it is installed, and everywhere up to its doorstep, with a stand-in.

The stand-in answers exactly the calls that `flow.compress` makes. It writes the headers of ISO/IEC 15938-17 and,
in the place of the arithmetic code, the integers as they are.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import quantized as nets
from conftest import SMALL, needs
from hypothesis import given, settings
from hypothesis import strategies as st

from flow import compress, load_weights
from flow.compress import INSTALL, MAX_NUMBERS, decode, encode
from flow.errors import ConfigError, MismatchError, UnsupportedError
from flow.run import pipeline
from flow.types import Coded, FixedPoint

GOLDEN = Path(__file__).parent / "golden" / "compress" / "weights.nnc"
REAL = importlib.util.find_spec("nncodec") is not None
needs_nncodec = pytest.mark.skipif(not REAL, reason="nncodec is not installed (it builds for 15 minutes)")
CODERS = ["stand-in", pytest.param("nncodec", marks=needs_nncodec)]


def bits(value: int, count: int) -> str:
    return f"{value:0{count}b}" if count else ""


def exponential(value: int, order: int) -> str:
    prefix = ""
    while value >= 1 << order:
        prefix, value, order = prefix + "0", value - (1 << order), order + 1
    return prefix + "1" + bits(value, order)


def text(value: str) -> str:
    return "".join(bits(byte, 8) for byte in (*value.encode(), 0))


def unit(kind: int, body: str, payload: bytes = b"") -> bytes:
    """Return one unit: its size in 15 or 31 bits, its header, its payload."""
    header = bits(kind, 6) + "10" + body
    header += "0" * (-len(header) % 8)
    small = 2 + len(header) // 8 + len(payload)
    size = "0" + bits(small, 15) if small <= 32767 else "1" + bits(small + 2, 31)
    return int(size + header, 2).to_bytes(len(size + header) // 8, "big") + payload


def data_unit(name: str, shape: tuple[int, ...], payload: bytes, **changed: str) -> bytes:
    """Return a compressed data unit of integers; ``changed`` replaces fields of its header."""
    fields = {
        "payload_type": bits(0, 5),
        "flags": "001",
        "identity": text(name),
        "node_and_dq": "00",
        "input_flags": "110000",
        "dimensions": exponential(len(shape), 1) + "".join(exponential(size, 7) for size in shape),
        "unary": bits(10, 8),
        "scan": "10" + bits(0, 4) if len(shape) > 1 else "",
        "alignment": "1",
    }
    return unit(5, "".join((fields | changed).values()), payload)


START = unit(0, bits(1, 8))


class Decoder:
    """Reads the integers that the stand-in's coder left as they were."""

    calls: list[Any] = []  # noqa: RUF012  (one list for the whole stand-in)
    damage = 0

    def setStream(self, stream: np.ndarray) -> None:  # noqa: N802
        self.stream = stream

    def initCtxModels(self, unary_length: int) -> None:  # noqa: N802
        self.calls.append(("initCtxModels", unary_length))

    def decodeLayer(self, values: np.ndarray, *options: Any) -> None:  # noqa: N802
        self.calls.append(("decodeLayer", values.shape, *(repr(option) for option in options)))
        self.used = values.nbytes
        assert len(self.stream) >= 2 * self.used
        values.flat = np.frombuffer(self.stream.tobytes(), dtype="<i4", count=values.size)
        if self.damage and values.ndim == 4:
            values.flat[5] += self.damage

    def finish(self) -> int:
        return self.used


def stand_in(calls: list[Any], damage: int = 0) -> dict[str, types.ModuleType]:
    """Return modules for ``sys.modules`` that record how they are called."""

    class Model:
        def __init__(self, tensors: dict[str, np.ndarray]) -> None:
            self.model_info = {"of": list(tensors)}

    def coded(enc_info: Any, model_info: Any, approx_data: Any) -> tuple[bytearray, dict[str, Any]]:
        calls.append(("encode", enc_info, model_info, approx_data))
        tensors = approx_data["parameters"].items()
        units = [data_unit(name, value.shape, value.astype("<i4").tobytes()) for name, value in tensors]
        return bytearray(b"".join([START, *units])), {}

    class Recording(Decoder):
        pass

    Recording.calls, Recording.damage = calls, damage
    names = ("nncodec", "nncodec.nnc_core", "nncodec.extensions")
    made = {name: types.ModuleType(name) for name in names}
    made["nncodec.nnc_core"].coder = types.SimpleNamespace(encode=coded)  # type: ignore[attr-defined]
    made["nncodec.nnc_core"].nnr_model = types.SimpleNamespace(NNRModel=Model)  # type: ignore[attr-defined]
    made["nncodec.extensions"].deepCABAC = types.SimpleNamespace(  # type: ignore[attr-defined]
        Decoder=Recording, HdspMode=types.SimpleNamespace(AlwaysOff="off")
    )
    return made


@contextmanager
def installed(coder: str, calls: list[Any] | None = None, damage: int = 0) -> Iterator[None]:
    """Have nncodec, a stand-in for it, or neither (``missing``)."""
    missing: dict[str, Any] = {"nncodec": None}
    modules = {
        "nncodec": {},
        "missing": missing,
        "stand-in": stand_in([] if calls is None else calls, damage),
    }
    with mock.patch.dict(sys.modules):
        if coder != "nncodec":
            for name in [name for name in sys.modules if name.startswith("nncodec")]:
                del sys.modules[name]
        sys.modules.update(modules[coder])
        yield


def tensor(values: Any, width: int = 6, fraction: int = 3) -> Coded:
    return Coded(np.array(values, dtype=np.int32), FixedPoint(True, width - fraction, fraction))


WEIGHTS = {
    "conv1.weight": tensor(np.arange(-18, 18).reshape(2, 2, 3, 3)),
    "conv1.bias": tensor([0, -32768], 16, 9),
    "fc_G.weight": tensor([[0, 0, 0], [31, -32, 1]], 6, -2),
    "fc_G.bias": tensor([2**31 - 1, -(2**31)], 32, 40),
}


def equal(one: dict[str, Coded], other: dict[str, Coded]) -> bool:
    return list(one) == list(other) and all(
        one[name].dtype == other[name].dtype
        and one[name].lsb.dtype == other[name].lsb.dtype == np.int32
        and np.array_equal(one[name].lsb, other[name].lsb)
        for name in one
    )


@pytest.mark.parametrize("coder", CODERS)
def test_tensors_come_back_bit_for_bit(coder: str) -> None:
    with installed(coder):
        assert equal(decode(encode(WEIGHTS), "x"), WEIGHTS)


@st.composite
def tensors(draw: st.DrawFn) -> dict[str, Coded]:
    """Draw odd shapes; random, zero, sparse and saturated integers of 2 to 16 bits; biases of up to 32."""
    made = {}
    for index in range(draw(st.integers(1, 4))):
        shape = draw(st.lists(st.integers(1, 7), min_size=1, max_size=4))
        width = draw(st.integers(2, 16)) if len(shape) > 1 else draw(st.sampled_from([8, 16, 31, 32]))
        low, high = -(1 << (width - 1)), (1 << (width - 1)) - 1
        rng = np.random.default_rng(draw(st.integers(0, 99)))
        values = rng.integers(low, high + 1, shape)
        kind = draw(st.sampled_from(["random", "zero", "sparse", "saturated", "rows"]))
        if kind == "zero":
            values[...] = 0
        elif kind == "sparse":
            values[rng.random(shape) < 0.9] = 0
        elif kind == "saturated":
            values = np.where(values < 0, low, high)
        elif kind == "rows":
            values[::2] = 0
        fraction = draw(st.integers(-20, 40))
        name = draw(st.sampled_from(["conv", "a.b", "Größe", "x_G", "x_H"]))
        made[f"{name}{index}.weight"] = Coded(
            values.astype(np.int32), FixedPoint(True, width - fraction, fraction)
        )
    return made


@pytest.mark.parametrize("coder", CODERS)
@settings(max_examples=60, deadline=None)
@given(weights=tensors())
def test_any_tensors_come_back_bit_for_bit(coder: str, weights: dict[str, Coded]) -> None:
    with installed(coder):
        assert equal(decode(encode(weights), "x"), weights)


@needs_nncodec
def test_a_decoder_of_the_standard_reads_the_file() -> None:
    from nncodec.nnc_core import coder

    info: dict[str, Any] = {
        key: {} for key in ("parameter_type", "parameter_dimensions", "parameter_index", "block_identifier")
    }
    maps = ("sparsification_flag", "pruning_flag", "unification_flag", "decomposition_performance_map_flag")
    info["performance_maps"] = {"mps": {}, "lps": {}}
    info["performance_map_flags"] = {f"{unit}_{name}": {} for unit in ("mps", "lps") for name in maps}
    weights = {name.replace("_G", ""): value for name, value in WEIGHTS.items()}  # nncodec gives _G a meaning
    found = coder.decode(encode(weights), info, oob_dict={})["parameters"]
    assert list(found) == ["fixed_point", *weights]
    assert all(np.array_equal(found[name], value.lsb) for name, value in weights.items())
    assert found["fixed_point"][:-1].tolist() == [
        [1, value.dtype.width, value.dtype.fraction_bits] for value in weights.values()
    ]


@needs_nncodec
def test_the_file_is_the_one_on_record_and_sparse_weights_are_small() -> None:
    stream = encode(WEIGHTS)
    if os.environ.get("FLOW_UPDATE_GOLDEN"):
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_bytes(stream)
    assert stream == GOLDEN.read_bytes()
    assert equal(load_weights(GOLDEN), WEIGHTS)
    zeros = {"w.weight": tensor(np.zeros((100, 100)))}
    assert len(encode(zeros)) < 200


def test_headers_of_a_real_file_are_read() -> None:
    from flow.compress import _units

    units = _units(GOLDEN.read_bytes())
    assert {unit.name: unit.shape for unit in units} == {
        "fixed_point": (5, 3),
        **{name: value.lsb.shape for name, value in WEIGHTS.items()},
    }


@pytest.mark.parametrize("coder", CODERS)
@pytest.mark.parametrize("net", ["mlp", "cnn", "residual", "depthwise", "zeros", "single", "no_bias"])
def test_the_file_holds_what_qonnx_computes_with(net: str, coder: str, tmp_path: Path) -> None:
    from qonnx.core.onnx_exec import execute_onnx

    made = nets.quantized(net)
    with installed(coder):
        done = compress(made, out=tmp_path)
        assert done.path is not None
        found = load_weights(done.path)
    model = nets.graph(net)
    source = model.graph.input[0]
    values = execute_onnx(
        model, {source.name: np.zeros(model.get_tensor_shape(source.name), np.float32)}, True
    )
    nodes = [node for node in model.graph.node if node.op_type in ("Conv", "Gemm")]
    wanted = [values[name] for node in nodes for name in node.input[1:]]
    assert len(found) == len(wanted) == done.tensors
    for coded, want in zip(found.values(), wanted, strict=True):
        assert np.array_equal(coded.dtype.to_real(coded.lsb), want.astype(np.float64))
    own = {name for name in nets.build(net).state_dict() if name.endswith("weight")}
    assert {name for name in found if name.endswith("weight")} == own
    assert all(coded.dtype.width == 6 for name, coded in found.items() if name.endswith("weight"))


@pytest.mark.parametrize("coder", CODERS)
def test_the_result_says_what_was_written(coder: str, tmp_path: Path) -> None:
    made, steps = nets.quantized("mlp"), []
    with installed(coder):
        done = compress(made, out=tmp_path / "new", progress=lambda *step: steps.append(step[:2]))
    content = (tmp_path / "new" / "weights.nnc").read_bytes()
    assert done.path == tmp_path / "new" / "weights.nnc"
    assert (done.status, done.reason, done.bytes) == ("done", "", len(content))
    assert done.sha256 == hashlib.sha256(content).hexdigest()
    weights, biases = 5 * 13 + 13 * 7 + 7 * 3, 13 + 7 + 3
    assert done.bytes_as_float == 4 * (weights + biases)
    assert done.bytes_at_widths == -(-(6 * weights + sum(made.bias_bits.values()) // 3 * biases) // 8)
    assert list(done.layers) == ["0", "2", "3"]
    assert 0 < sum(done.layers.values()) < len(content)
    assert steps == [(0, 1), (1, 1)]
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["weights.nnc"]


def test_without_nncodec_nothing_is_written_and_the_result_says_so(tmp_path: Path) -> None:
    with installed("missing"):
        done = compress(nets.quantized("mlp"), out=tmp_path / "new")
    assert (done.path, done.bytes, done.sha256, done.status) == (None, None, None, "not installed")
    assert done.reason == f"nncodec is not installed; {INSTALL} builds it from source, some 15 minutes"
    assert done.bytes_as_float == 4 * 200
    assert not (tmp_path / "new").exists()


def test_an_nncodec_that_does_not_load_counts_as_missing(tmp_path: Path) -> None:
    with installed("stand-in"), mock.patch.dict(sys.modules, {"nncodec.nnc_core": types.ModuleType("empty")}):
        done = compress(nets.quantized("mlp"), out=tmp_path)
    assert done.path is None
    assert done.reason.startswith("nncodec cannot be imported (cannot import name 'coder'")


def test_nncodec_is_called_for_lossless_coding_of_integers() -> None:
    calls: list[Any] = []
    weights = {name: WEIGHTS[name] for name in ("conv1.weight", "conv1.bias")}
    with installed("stand-in", calls):
        encode(weights)
    (_, enc_info, model_info, approx_data), *decoding = calls
    names = ["fixed_point", "conv1.weight", "conv1.bias"]
    assert enc_info == {
        "cabac_unary_length_minus1": 10,
        "param_opt_flag": 1,
        "general_profile_idc": 1,
        "row_skip_enabled_flag": 1,
        "node_id_present_flag": 0,
        "parent_node_id_present_flag": 0,
        "mps_parent_signalling_enabled_flag": 0,
    }
    assert model_info == {"of": names}
    assert approx_data["approx_method"] == dict.fromkeys(names, "skip")
    assert approx_data["dq_flag"] == dict.fromkeys(names, 0)
    assert approx_data["scan_order"] == {"fixed_point": 0, "conv1.weight": 0}
    assert approx_data["parameters"]["fixed_point"].tolist()[:2] == [[1, 6, 3], [1, 16, 9]]
    off = ("0", "0", "1", "0", "'off'", "array([0, 0], dtype=int8)", "0", "0")
    shapes = [(3, 3), (2, 2, 3, 3), (2,)]
    assert decoding == [
        call for shape in shapes for call in (("initCtxModels", 11), ("decodeLayer", shape, *off))
    ]


def test_a_tensor_that_decodes_otherwise_is_named(tmp_path: Path) -> None:
    with installed("stand-in", damage=3), pytest.raises(MismatchError) as error:
        encode(WEIGHTS)
    assert str(error.value) == (
        "compress: tensor 'conv1.weight' must decode to what was coded, but 1 of 36 numbers differ; "
        "the first: index (0, 0, 1, 2): coded -13, decoded -10; report it"
    )
    with installed("stand-in", damage=3), pytest.raises(MismatchError, match=r"tensor 'block\.0\.weight'"):
        compress(nets.quantized("cnn"), out=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_coder_that_loses_a_tensor_is_noticed() -> None:
    modules = stand_in([])
    whole = modules["nncodec.nnc_core"].coder.encode

    def less(approx_data: Any, **more: Any) -> Any:
        kept = dict(list(approx_data["parameters"].items())[:-1])
        return whole(approx_data={**approx_data, "parameters": kept}, **more)

    modules["nncodec.nnc_core"].coder = types.SimpleNamespace(encode=less)  # type: ignore[attr-defined]
    with mock.patch.dict(sys.modules, modules), pytest.raises(MismatchError, match="decoded tensors must be"):
        encode(WEIGHTS)


def test_too_many_numbers_are_refused() -> None:
    huge = {"w.weight": Coded(np.broadcast_to(np.int32(0), (MAX_NUMBERS + 1,)), FixedPoint(True, 1, 5))}
    with pytest.raises(UnsupportedError) as error:
        encode(huge)
    assert str(error.value) == (
        f"compress: weights must be at most {MAX_NUMBERS} numbers, not {MAX_NUMBERS + 1}; prune the network"
    )


def refused(stream: bytes) -> str:
    with installed("stand-in"), pytest.raises(ConfigError) as error:
        decode(stream, "w.nnc")
    message = str(error.value)
    rule = "compress: 'w.nnc' must be a weights file of flow compress, not broken: "
    assert message.startswith(rule) and message.endswith("; write it anew")
    return message.removeprefix(rule).removesuffix("; write it anew")


def test_broken_files_are_refused_before_memory_is_taken() -> None:
    whole = data_unit("w", (2,), bytes(8))
    assert refused(b"") == "it has types of shape (0,) for 0 tensors"
    assert refused(START + whole) == "it has types of shape (0,) for 1 tensors"
    assert refused(whole) == "unit type 5 stands at byte 0"
    assert refused(START + START) == "unit type 0 stands at byte 4"
    assert refused(START + unit(4, "")) == "unit type 4 stands at byte 4"
    assert refused(unit(0, bits(0, 8))) == "profile is 0, not 1"
    assert refused(START + whole[:-1]) == "it ends within a unit"
    assert refused(START + bytes(4)) == "it ends within a unit"
    assert refused(b"import os; os.remove('x')") == "it ends within a unit"
    assert refused(START + whole + whole) == "two tensors have one name"
    assert refused(START + data_unit("w", (1 << 40,), b"")) == f"it claims more than {MAX_NUMBERS} numbers"
    assert refused(START + data_unit("w", (1 << 14, 1 << 13), b"")).startswith("it claims more than")
    assert refused(START + data_unit("w", (2, 0), b"")) == "tensor 'w' has shape (2, 0)"
    assert refused(START + data_unit("w", (), b"")) == "tensor 'w' has shape ()"
    assert refused(START + data_unit("w", (2,), b"", payload_type="00011")) == "payload type is 3, not 0"
    assert refused(START + data_unit("w", (2,), b"", unary=bits(200, 8))) == "unary length is 200, not 10"
    assert refused(START + data_unit("w", (2, 2), b"", scan="100100")) == "scan order is 4, not 0"
    assert (
        refused(START + data_unit("w", (2,), b"", dimensions="0" * 400))
        == "a number of its header does not end"
    )
    assert "utf-8" in refused(START + data_unit("w", (2,), b"", identity=bits(0xFF00, 16)))


@needs_nncodec
@settings(max_examples=150, deadline=None)
@given(place=st.integers(0, 10_000), change=st.integers(1, 255), keep=st.booleans())
def test_every_damaged_file_is_refused(place: int, change: int, keep: bool) -> None:
    stream = bytearray(GOLDEN.read_bytes())
    place %= len(stream)
    if keep:
        stream[place] ^= change
    else:
        del stream[place:]
    try:
        found = decode(bytes(stream), "w.nnc")
    except ConfigError:
        return
    assert equal(found, WEIGHTS)  # a bit that says nothing about the weights


def test_integers_beyond_their_width_are_refused() -> None:
    with installed("stand-in"):
        stream = encode({"w.weight": tensor([40], width=6)})
    assert refused(stream) == "tensor 'w.weight' does not fit its 6 bits"


def test_a_checksum_finds_changed_integers() -> None:
    with installed("stand-in"):
        stream = encode(WEIGHTS)
    assert refused(stream[:-1] + bytes([stream[-1] ^ 1])) == "its checksum does not fit its contents"


def test_a_file_is_read_only_where_there_is_one_and_nncodec_is_there(tmp_path: Path) -> None:
    path = tmp_path / "weights.nnc"
    with pytest.raises(ConfigError) as error:
        load_weights(path)
    assert (
        str(error.value) == f"compress: {str(path)!r} must be an existing file, not missing; correct the path"
    )
    path.write_bytes(START)
    with installed("missing"), pytest.raises(ConfigError) as error:
        load_weights(path)
    assert str(error.value) == (
        f"compress: nncodec must be installed to read 'weights.nnc', not missing; {INSTALL}"
    )


@needs("g++")
def test_the_flow_goes_on_without_nncodec(copy: Path) -> None:
    before = json.loads((copy / "manifest.json").read_text())["hashes"]
    with installed("missing"):
        pipeline.run(SMALL, out=copy, first="compress", last="compress")
        again = pipeline.run(SMALL, out=copy)
    assert {name: digest for name, digest in again["hashes"].items() if name != "compress"} == {
        name: digest for name, digest in before.items() if name != "compress"
    }
    assert again["cached.convert"] is True
    assert again["compress.status"] == "not installed"
    assert [hop["name"] for hop in again["equality.hops"]][-1] == "simplified = ONNX"
    assert f"Weights not coded: nncodec is not installed; {INSTALL}" in (copy / "report.html").read_text()


@needs("g++")
@pytest.mark.parametrize("coder", CODERS)
def test_the_manifest_holds_the_files_hash_and_the_hop(coder: str, copy: Path) -> None:
    with installed(coder):
        pipeline.run(SMALL, out=copy, first="compress", last="compress")
        manifest = pipeline.run(SMALL, out=copy)
    content = (copy / "compress" / "weights.nnc").read_bytes()
    assert manifest["compress.sha256"] == hashlib.sha256(content).hexdigest()
    assert manifest["compress.bytes"] == len(content)
    assert manifest["compress.ratio"] == pytest.approx(
        manifest["compress.bytes_as_float"] / len(content), abs=1e-3
    )
    assert manifest["equality.hops"][-1] == {
        "name": "weights = decoded",
        "samples": manifest["compress.tensors"],
        "max_error": 0,
        "unit": "LSB",
        "exact": True,
        "counted": "tensor",
    }
    page = (copy / "report.html").read_text()
    assert manifest["compress.sha256"] in page and "8 tensors" in page
