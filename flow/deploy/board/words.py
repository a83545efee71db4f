"""Values as integers, and integers as the 32-bit words of the stream.

A value takes a lane of 8, 16 or 32 bits, the smallest that holds it, sign- or zero-extended; a value wider than 32
bits takes two words, the lower half first. The first value of a word lies in its lowest bits. Each port starts in a
word of its own, and its last word is padded with zeros.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .manifest import Port

WORD_BYTES = 4


def lane_bits(port: Port) -> int:
    """Return the bits that a value takes in the stream."""
    return next(bits for bits in (8, 16, 32, 64) if port.width <= bits)


def port_words(port: Port) -> int:
    """Return the words that a port takes in a frame."""
    return -(-port.size * lane_bits(port) // 32)


def frame_words(ports: Sequence[Port]) -> int:
    """Return the words of a frame: one sample of all ports."""
    return sum(port_words(port) for port in ports)


def limits_lsb(port: Port) -> tuple[int, int]:
    """Return the lowest and the highest integer of a port's type."""
    if port.signed:
        return -(1 << (port.width - 1)), (1 << (port.width - 1)) - 1
    return 0, (1 << port.width) - 1


def lsb_dtype(port: Port) -> type[np.generic]:
    """Return what integers of a port are held in: int64, and uint64 for unsigned ones of 64 bits."""
    return np.uint64 if port.width == 64 and not port.signed else np.int64


def to_lsb(port: Port, values: np.ndarray) -> np.ndarray:
    """Return numbers as integers of a port: rounded half to even, saturated; all arithmetic in float64.

    Args:
        port: value = LSBs * 2**-fraction_bits * scale.
        values: numbers of any shape; infinities saturate.

    Raises:
        ValueError: one is no number.
    """
    real = np.asarray(values, np.float64)
    if np.isnan(real).any():
        raise ValueError(f"input {port.name!r} must hold numbers, not NaN; clean the batch")
    steps = np.rint(np.ldexp(real / port.scale, port.fraction_bits))
    lowest, highest = limits_lsb(port)
    kind = lsb_dtype(port)
    inside = (steps > float(lowest)) & (steps < float(highest))
    # float(highest) may be one more than the type holds: ends are set as integers, never converted
    result = np.where(steps >= float(highest), np.array(highest, kind), np.array(lowest, kind))
    result[inside] = steps[inside].astype(kind)
    return result


def to_real(port: Port, lsb: np.ndarray) -> np.ndarray:
    """Return integers of a port as float64 numbers: LSBs * 2**-fraction_bits * scale."""
    return np.ldexp(np.asarray(lsb).astype(np.float64), -port.fraction_bits) * port.scale


def pack(ports: Sequence[Port], arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Return a batch as words.

    Args:
        ports: in the order of the stream.
        arrays: integers (samples, *shape), one array a port.

    Returns:
        uint32 (samples, words of a frame).

    Raises:
        ValueError: a shape or a value is not the port's.
    """
    if len(arrays) != len(ports):
        raise ValueError(
            f"batch must have {len(ports)} arrays, one a port, not {len(arrays)}; see the manifest"
        )
    parts = [_port_words(ports[number], arrays[number]) for number in range(len(ports))]
    if len({len(part) for part in parts}) > 1:
        counts = ", ".join(str(len(part)) for part in parts)
        raise ValueError(f"batch must have as many samples in every array, not {counts}; cut the longer ones")
    return np.concatenate(parts, axis=1)


def unpack(ports: Sequence[Port], words: np.ndarray) -> list[np.ndarray]:
    """Return the integers (samples, *shape) of every port, from words (samples, words of a frame).

    Whole lanes are read, so that a lane that is extended wrongly shows as a wrong number.
    """
    expected = frame_words(ports)
    if words.ndim != 2 or words.shape[1] != expected:
        raise ValueError(f"words must have shape (samples, {expected}), not {words.shape}; see the manifest")
    arrays, first = [], 0
    for port in ports:
        last = first + port_words(port)
        part = np.ascontiguousarray(words[:, first:last], "<u4")
        lanes = part.view(f"<{'i' if port.signed else 'u'}{lane_bits(port) // 8}")
        values = lanes[:, : port.size].astype(lsb_dtype(port))
        arrays.append(values.reshape(len(words), *port.shape))
        first = last
    return arrays


def check(port: Port, array: np.ndarray) -> np.ndarray:
    """Return integers of a port as (samples, values).

    Raises:
        ValueError: the shape is not (samples, *shape), or a value is no integer or outside the type.
    """
    if array.ndim != len(port.shape) + 1 or array.shape[1:] != port.shape:
        sizes = ", ".join(str(size) for size in port.shape)
        raise ValueError(
            f"port {port.name!r} must have shape (samples, {sizes}), not {array.shape}; put the samples first"
        )
    if array.dtype.kind not in "iu":
        raise ValueError(f"port {port.name!r} must hold integers, not {array.dtype}; run() takes floats")
    lowest, highest = limits_lsb(port)
    if array.size:
        for found in (int(array.min()), int(array.max())):
            if not lowest <= found <= highest:
                raise ValueError(
                    f"port {port.name!r} must hold integers from {lowest} to {highest}, not {found}; "
                    "run() takes numbers and saturates them"
                )
    return array.reshape(len(array), port.size)


def _port_words(port: Port, array: np.ndarray) -> np.ndarray:
    values = check(port, array)
    per_row = port_words(port) * 32 // lane_bits(port)
    lanes = np.zeros((len(values), per_row), f"<u{lane_bits(port) // 8}")
    lanes[:, : port.size] = values.astype(lanes.dtype)  # modulo the lane: that is the sign's extension
    return lanes.view("<u4")
