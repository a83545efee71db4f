"""Compress: the quantized weights as one file, entropy-coded by the standard NNC (ISO/IEC 15938-17).

The file is an NNC bitstream and nothing else: any decoder of the standard reads it. Its first tensor,
``fixed_point``, says what the integers of the others mean, and holds a checksum over all of them.
"""

from __future__ import annotations

import hashlib
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from flow import qonnx
from flow.errors import ConfigError, MismatchError, UnsupportedError
from flow.files import write_atomically
from flow.names import identifier
from flow.types import Coded, Compressed, FixedPoint, Progress, Quantized, silent

FILE = "weights.nnc"
INSTALL = "pip install --no-deps nncodec==2.1.3"
"""Without its dependencies: they ask for numpy < 2, which the flow is above, and the coder needs numpy only."""
MAX_NUMBERS = 1 << 26
_TYPES = "fixed_point"
_UNARY_LENGTH = 11
_PROFILE = 1
_START, _PARAMETERS, _TOPOLOGY, _DATA = 0, 1, 3, 5
_PAYLOAD_INT = 0
_BROKEN = (ValueError, IndexError, RuntimeError, MemoryError)
_SPARE_BYTES, _SPARE_BYTES_A_NUMBER = 4096, 64
"""What the decoder may read past a broken payload: 46 bins a number, none of them above 8 bits."""


def compress(quantized: Quantized, *, out: Path, progress: Progress = silent) -> Compressed:
    """Write the integer weights and biases as one NNC-coded file, and decode it back bit-exactly.

    Each number is coded without loss by DeepCABAC: context-adaptive binary arithmetic coding of the integers,
    zero rows skipped. Where nncodec is not installed, or a scale is no power of two, nothing is written: ``path`` is
    None, and ``status`` and ``reason`` say so.

    Args:
        quantized: see `flow.quantize`.
        out: a folder, made if it is missing; ``weights.nnc`` is written there.
        progress: called before and after the coding.

    Raises:
        ConfigError: the QONNX file cannot be read.
        UnsupportedError: more than 2^26 numbers.
        MismatchError: a tensor does not decode to what was coded.

    Source: ISO/IEC 15938-17; Wiedemann et al., "DeepCABAC", IEEE JSTSP 14, 2020.
    """
    try:
        coded = _named(quantized)
    except UnsupportedError as error:
        return Compressed(None, "not supported", 0, 0, 0, reason=str(error))
    numbers = sum(tensor.lsb.size for tensor in coded.values())
    uncoded = Compressed(
        path=None,
        status="not installed",
        tensors=len(coded),
        bytes_at_widths=math.ceil(sum(t.lsb.size * t.dtype.width for t in coded.values()) / 8),
        bytes_as_float=4 * numbers,
    )
    progress(0, 1, "coding the weights")
    try:
        stream = encode(coded)
    except ImportError as error:
        return replace(uncoded, reason=_reason(error))
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / FILE, stream)
    progress(1, 1, "weights decoded back, equal")
    return replace(
        uncoded,
        path=out / FILE,
        status="done",
        bytes=len(stream),
        sha256=hashlib.sha256(stream).hexdigest(),
        layers=_layer_bytes(stream),
    )


def load(path: Path) -> dict[str, Coded]:
    """Read a file that `compress` wrote.

    Nothing in it is executed or unpickled, and its sizes are checked before memory is taken. The checksum finds
    damage; it is no signature.

    Returns:
        By name, as in the network's state dict: integers (output, input, ...) and their fixed-point type.
        ``tensor.dtype.to_real(tensor.lsb)`` gives the weights.

    Raises:
        ConfigError: the file is missing or broken, or nncodec is not installed.
    """
    if not path.is_file():
        raise ConfigError(f"compress: {str(path)!r} must be an existing file, not missing; correct the path")
    try:
        return decode(path.read_bytes(), path.name)
    except ImportError as error:
        raise ConfigError(
            f"compress: nncodec must be installed to read {path.name!r}, not missing; {INSTALL}"
        ) from error


def encode(coded: Mapping[str, Coded]) -> bytes:
    """Return the tensors as an NNC bitstream that was decoded back and compared.

    Raises:
        UnsupportedError, MismatchError: see `compress`.
        ImportError: nncodec is not installed.
    """
    numbers = sum(tensor.lsb.size for tensor in coded.values())
    if numbers > MAX_NUMBERS:
        raise UnsupportedError(
            f"compress: weights must be at most {MAX_NUMBERS} numbers, not {numbers}; prune the network"
        )
    tensors = {_TYPES: _types(coded)} | {name: tensor.lsb for name, tensor in coded.items()}
    stream = _bitstream(tensors)
    _check_equal(tensors, stream)
    return stream


def decode(stream: bytes, name: str) -> dict[str, Coded]:
    """Return the tensors of an NNC bitstream; ``name`` is for the error messages.

    Raises:
        ConfigError: the bitstream is broken.
        ImportError: nncodec is not installed.
    """
    try:
        return _typed(_values(stream))
    except _BROKEN as error:
        raise ConfigError(
            f"compress: {name!r} must be a weights file of flow compress, not broken: {error}; write it anew"
        ) from error


def _named(quantized: Quantized) -> dict[str, Coded]:
    """Return the tensors of the QONNX file under the names of the network's own state dict."""
    own = {identifier(layer): layer for layer in quantized.weight_bits}
    found = qonnx.weights(qonnx.load(quantized.onnx_path))
    return {f"{own.get(layer, layer)}.{kind}": coded for (layer, kind), coded in found.items()}


def _reason(error: ImportError) -> str:
    missing = isinstance(error, ModuleNotFoundError) and (error.name or "").startswith("nncodec")
    what = "nncodec is not installed" if missing else f"nncodec cannot be imported ({error})"
    return f"{what}; {INSTALL} builds it from source, some 15 minutes"


def _bitstream(tensors: dict[str, np.ndarray]) -> bytes:
    from nncodec.nnc_core import coder, nnr_model

    names = list(tensors)
    bitstream, _ = coder.encode(
        enc_info={
            "cabac_unary_length_minus1": _UNARY_LENGTH - 1,
            "param_opt_flag": 1,
            "general_profile_idc": _PROFILE,
            "row_skip_enabled_flag": 1,
            "node_id_present_flag": 0,
            "parent_node_id_present_flag": 0,
            "mps_parent_signalling_enabled_flag": 0,
        },
        model_info=nnr_model.NNRModel(tensors).model_info,
        approx_data={
            "parameters": tensors,
            "approx_method": dict.fromkeys(names, "skip"),  # integers as they are
            "dq_flag": dict.fromkeys(names, 0),
            "scan_order": {name: 0 for name in names if tensors[name].ndim > 1},
            "qp_density": np.int32(2),  # unused here; nncodec's own decoder cannot do without
            "qp": {},
            "compressed_parameter_types": {},
            "codebooks": {},
            "codebooks_egk": {},
            "codebook_zero_offsets": {},
        },
    )
    return bytes(bitstream)


def _types(coded: Mapping[str, Coded]) -> np.ndarray:
    """Return int32 (tensors + 1, 3): signed, width, fraction bits of each tensor; last the halves of the checksum."""
    rows = [(int(t.dtype.signed), t.dtype.width, t.dtype.fraction_bits) for t in coded.values()]
    check = _checksum(rows, {name: tensor.lsb for name, tensor in coded.items()})
    return np.array([*rows, (0, check >> 16, check & 0xFFFF)], dtype=np.int32)


def _checksum(rows: Sequence[tuple[int, ...]], tensors: Mapping[str, np.ndarray]) -> int:
    check = zlib.crc32(repr([(name, value.shape) for name, value in tensors.items()]).encode())
    check = zlib.crc32(np.array(rows, dtype="<i4").tobytes(), check)
    for value in tensors.values():
        check = zlib.crc32(np.ascontiguousarray(value, dtype="<i4").tobytes(), check)
    return check


def _typed(values: dict[str, np.ndarray]) -> dict[str, Coded]:
    """Give the integers their types; the inverse of `_types`."""
    types = values.pop(_TYPES, np.zeros(0))
    if types.shape != (len(values) + 1, 3):
        raise ValueError(f"it has types of shape {types.shape} for {len(values)} tensors")
    rows = [tuple(int(number) for number in row) for row in types]
    _, high, low = rows.pop()
    if _checksum(rows, values) != (high << 16) + low:
        raise ValueError("its checksum does not fit its contents")
    typed = {}
    for (name, value), (signed, width, fraction) in zip(values.items(), rows, strict=True):
        dtype = FixedPoint(bool(signed), width - fraction, fraction)
        if not 1 <= width <= 32 or value.min() < dtype.minimum_lsb or value.max() > dtype.maximum_lsb:
            raise ValueError(f"tensor {name!r} does not fit its {width} bits")
        typed[name] = Coded(value, dtype)
    return typed


def _values(stream: bytes) -> dict[str, np.ndarray]:
    """Decode every tensor as it stands in the bitstream, `_TYPES` among them."""
    from nncodec.extensions import deepCABAC

    units = _units(stream)
    values = {unit.name: _integers(deepCABAC, unit) for unit in units}
    if len(values) != len(units):
        raise ValueError("two tensors have one name")
    return values


def _integers(cabac: Any, unit: _Unit) -> np.ndarray:
    """Decode one tensor; returns int32 of the unit's shape.

    The decoder does not know where its input ends: zeros behind it keep it within memory that is ours.
    """
    values = np.zeros(unit.shape, dtype=np.int32)
    room = _SPARE_BYTES + _SPARE_BYTES_A_NUMBER * values.size  # untouched zeros take no memory
    padded = np.zeros(len(unit.payload) + room, dtype=np.uint8)
    padded[: len(unit.payload)] = np.frombuffer(unit.payload, dtype=np.uint8)
    decoder = cabac.Decoder()
    decoder.setStream(padded)
    decoder.initCtxModels(_UNARY_LENGTH)
    off = (cabac.HdspMode.AlwaysOff, np.zeros(2, dtype=np.int8))
    decoder.decodeLayer(values, 0, 0, _PROFILE, 0, *off, 0, 0)
    try:
        end = decoder.finish()
    except RuntimeError:
        end = None
    if end != len(unit.payload):
        raise ValueError(f"tensor {unit.name!r} does not end where its unit does")
    return values


def _check_equal(tensors: Mapping[str, np.ndarray], stream: bytes) -> None:
    try:
        decoded = _values(stream)
    except _BROKEN as error:
        raise MismatchError(f"compress: coded weights must decode, not fail: {error}; report it") from error
    if list(tensors) != list(decoded):
        raise MismatchError(
            f"compress: decoded tensors must be {', '.join(tensors)}, not {', '.join(decoded)}; report it"
        )
    for name, want in tensors.items():
        got = decoded[name]
        if want.shape != got.shape:
            raise MismatchError(
                f"compress: tensor {name!r} must decode to shape {want.shape}, not {got.shape}; report it"
            )
        different = np.argwhere(want != got)
        if len(different):
            at = tuple(int(index) for index in different[0])
            raise MismatchError(
                f"compress: tensor {name!r} must decode to what was coded, but {len(different)} of {want.size} "
                f"numbers differ; the first: index {at}: coded {want[at]}, decoded {got[at]}; report it"
            )


def _layer_bytes(stream: bytes) -> dict[str, int]:
    """Return the coded bytes of each layer, weights and biases; types and headers of the file are in none."""
    layers: dict[str, int] = {}
    for unit in _units(stream):
        layer, dot, _ = unit.name.rpartition(".")
        if dot:
            layers[layer] = layers.get(layer, 0) + unit.bytes
    return layers


class _Unit(NamedTuple):
    """One coded tensor: its name, shape, arithmetic code, and the bytes of it all with its header."""

    name: str
    shape: tuple[int, ...]
    payload: bytes
    bytes: int


def _units(stream: bytes) -> list[_Unit]:
    """Split a bitstream into its tensors; everything that `compress` does not write is refused.

    Raises:
        ValueError, IndexError: the bitstream is broken.
    """
    found: list[_Unit] = []
    place = 0
    while place < len(stream):
        bits = _Bits(stream[place : place + 4])
        size = bits.take(31 if bits.take(1) else 15)
        if not 0 < size <= len(stream) - place:
            raise ValueError("it ends within a unit")
        bits.data = stream[place : place + size]
        kind = bits.take(6)
        bits.expect(2, 0b10, "header of an independent unit")
        if (place == 0) != (kind == _START) or kind not in (_START, _PARAMETERS, _TOPOLOGY, _DATA):
            raise ValueError(f"unit type {kind} stands at byte {place}")
        if kind == _START:
            bits.expect(8, _PROFILE, "profile")
        elif kind == _DATA:
            found.append(_data_unit(bits))
        place += size
    if sum(math.prod(unit.shape) for unit in found) > MAX_NUMBERS:
        raise ValueError(f"it claims more than {MAX_NUMBERS} numbers")
    return found


def _data_unit(bits: _Bits) -> _Unit:
    """Read the header of a compressed data unit, from its payload type on."""
    bits.expect(5, _PAYLOAD_INT, "payload type")
    bits.expect(3, 0b001, "flags of the topology")
    name = bits.text()
    bits.expect(2, 0b00, "node and dependent quantization")
    bits.expect(6, 0b110000, "flags of the dimensions")
    shape = tuple(bits.exponential(7) for _ in range(bits.exponential(1)))
    bits.expect(8, _UNARY_LENGTH - 1, "unary length")
    if not shape or len(shape) > 8 or 0 in shape:
        raise ValueError(f"tensor {name!r} has shape {shape}")
    if len(shape) > 1:
        bits.expect(2, 0b10, "dimension shift")
        bits.expect(4, 0, "scan order")
    bits.expect(1, 1, "alignment")
    return _Unit(name, shape, bits.data[-(-bits.place // 8) :], len(bits.data))


class _Bits:
    """Reads bits, most significant first."""

    LONGEST = 64
    """No number of a header has more bits."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.place = 0

    def take(self, count: int) -> int:
        value = 0
        for place in range(self.place, self.place + count):
            value = value << 1 | self.data[place >> 3] >> (7 - (place & 7)) & 1
        self.place += count
        return value

    def expect(self, count: int, value: int, what: str) -> None:
        found = self.take(count)
        if found != value:
            raise ValueError(f"{what} is {found}, not {value}")

    def exponential(self, order: int) -> int:
        """Read an exponential Golomb code."""
        value = 0
        while not self.take(1):
            value += 1 << order
            order += 1
            if order > self.LONGEST:
                raise ValueError("a number of its header does not end")
        return value + self.take(order)

    def text(self) -> str:
        """Read a text that ends with a zero byte; the place must be a whole byte."""
        start = self.place >> 3
        end = self.data.index(0, start)
        self.place = 8 * (end + 1)
        return self.data[start:end].decode("utf-8")
