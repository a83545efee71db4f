"""Bundles for the board's software, and the stream written out bit by bit."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from bit_files import bit_header
from dma_model import DMA_ADDRESS, MONITOR_ADDRESS, BoardModel, Network

from flow.deploy.board.manifest import Port
from flow.files import write_sealed

IMAGE = Port("image", (2, 3), 8, True, 4, 1.0)
GAIN = Port("gain", (3,), 12, False, 0, 1.0)
SCORES = Port("scores", (3,), 21, True, 4, 1.0)
ONE_INPUT, TWO_INPUTS = (IMAGE,), (IMAGE, GAIN)
SYNC = b"\xaa\x99\x55\x66"
CONFIGURATION = b"\xff" * 32 + SYNC + bytes(range(64))

Values = list[list[int]]  # of one sample: a list a port


def literal_lane(port: Port) -> int:
    if port.width <= 8:
        return 8
    if port.width <= 16:
        return 16
    return 32 if port.width <= 32 else 64


def literal_pack(ports: Sequence[Port], values: Values) -> list[int]:
    """Return a sample's words, bit by bit: hls_templates/README.md, "The stream"."""
    words = []
    for port, numbers in zip(ports, values, strict=True):
        bits = []
        for number in numbers:
            bits += [
                number >> place & 1 for place in range(literal_lane(port))
            ]  # Python's >> extends the sign
        while len(bits) % 32:
            bits.append(0)
        for first in range(0, len(bits), 32):
            words.append(sum(bit << place for place, bit in enumerate(bits[first : first + 32])))
    return words


def literal_unpack(ports: Sequence[Port], words: Sequence[int]) -> Values:
    """Return a sample's values from its words, bit by bit."""
    values, at = [], 0
    for port in ports:
        lane = literal_lane(port)
        count = (port.size * lane + 31) // 32
        bits = [word >> place & 1 for word in words[at : at + count] for place in range(32)]
        at += count
        numbers = []
        for number in range(port.size):
            part = bits[number * lane : (number + 1) * lane]
            value = sum(bit << place for place, bit in enumerate(part))
            numbers.append(value - (1 << lane) if port.signed and part[-1] else value)
        values.append(numbers)
    return values


def network(inputs: Sequence[Port], function: Callable[[Values], Values] | None = None) -> Network:
    """Return a network of words that computes ``function`` on values."""
    compute = function or scores
    words_in = len(literal_pack(inputs, [[0] * port.size for port in inputs]))
    return Network(words_in, 3, lambda words: literal_pack((SCORES,), compute(literal_unpack(inputs, words))))


def scores(values: Values) -> Values:
    """Return sums of an image's columns, times gains where there are any."""
    image, gain = values[0], values[1] if len(values) > 1 else [1, 2, 3]
    return [[(image[at] + image[at + 3]) * gain[at] for at in range(3)]]


def samples(inputs: Sequence[Port], count: int, seed: int = 0) -> list[np.ndarray]:
    """Return random integers over the whole range of every input."""
    draw = np.random.default_rng(seed)
    arrays = []
    for port in inputs:
        low, high = (-(1 << port.width - 1), 1 << port.width - 1) if port.signed else (0, 1 << port.width)
        arrays.append(draw.integers(low, high, (count, *port.shape)))
    return arrays


def results(inputs: Sequence[np.ndarray]) -> np.ndarray:
    """Return what `scores` makes of every sample."""
    rows = [scores([array[at].reshape(-1).tolist() for array in inputs])[0] for at in range(len(inputs[0]))]
    return np.array(rows, np.int64).reshape(-1, 3)


def bit_file(part: str = "7z020clg400", words: bytes = CONFIGURATION) -> bytes:
    """Return a .bit file; the board does not follow its packets."""
    return bit_header(part, len(words)) + words


def manifest_values(inputs: Sequence[Port] = ONE_INPUT, *, monitor: bool = True) -> dict[str, Any]:
    """Return a manifest; ``sha256`` of files is filled in by `write_bundle`."""
    ports = [
        [
            {"name": p.name, "shape": list(p.shape), "width": p.width, "signed": p.signed}
            | {"fraction_bits": p.fraction_bits, "scale": p.scale}
            for p in side
        ]
        for side in (inputs, (SCORES,))
    ]
    place = {
        "instance": "monitor_0",
        "address": MONITOR_ADDRESS,
        "span": 4096,
        "design_id": "0123456789abcdef",
    }
    return {
        "format": 1,
        "name": "digits",
        "board": "pynq-z2",
        "part": "xc7z020clg400-1",
        "ps": "zynq7000",
        "crystal_mhz": 50.0,
        "clock_mhz": 100.0,
        "bitstream": {"file": "net.bit", "sha256": "0" * 64},
        "handoff": {"file": "net.hwh", "sha256": "0" * 64},
        "golden": {"file": "golden.npz", "sha256": "0" * 64},
        "dma": {"instance": "axi_dma_0", "address": DMA_ADDRESS, "span": 65536, "length_bits": 23}
        | {"address_bits": 32, "word_bits": 32},
        "monitor": place if monitor else None,
        "inputs": ports[0],
        "outputs": ports[1],
    }


def write_bundle(
    folder: Path,
    inputs: Sequence[Port] = ONE_INPUT,
    *,
    count: int = 9,
    monitor: bool = True,
    part: str = "7z020clg400",
    labels: bool = True,
    change: Callable[[dict[str, Any]], object] = lambda values: None,
) -> Path:
    """Write a bundle whose golden vectors are `results` of random samples; ``change`` edits the manifest."""
    given = samples(inputs, count)
    expected = results(given)
    arrays = {"inputs": np.concatenate([a.reshape(count, -1) for a in given], 1), "outputs": expected}
    if labels:
        arrays["labels"] = expected.argmax(1)
    folder.mkdir(exist_ok=True)
    np.savez(folder / "golden.npz", **arrays)
    (folder / "net.bit").write_bytes(bit_file(part))
    (folder / "net.hwh").write_text("<hwh/>")
    values = manifest_values(inputs, monitor=monitor)
    for key in ("bitstream", "handoff", "golden"):
        data = (folder / values[key]["file"]).read_bytes()
        values[key]["sha256"] = hashlib.sha256(data).hexdigest()
    change(values)
    write_sealed(folder / "manifest.json", values)
    return folder


def model(inputs: Sequence[Port] = ONE_INPUT, **options: Any) -> BoardModel:
    """Return a board whose network computes `scores`."""
    function = options.pop("function", None)
    return BoardModel(network(inputs, function), **options)
