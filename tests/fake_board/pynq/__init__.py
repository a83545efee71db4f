"""PYNQ's Overlay, MMIO and allocate over the model of a board; FLOW_BOARD names its network and faults."""

import json
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from board_bundle import literal_pack, literal_unpack
from dma_model import BoardModel, Network

from flow import qonnx
from flow.deploy.board import manifest as manifests
from flow.fixed.execute import execute
from flow.fixed.from_qonnx import lower

_FACTS = json.loads(os.environ["FLOW_BOARD"])


def _board() -> BoardModel:
    graph = lower(qonnx.load(Path(_FACTS["onnx"])))
    with open("manifest.json", encoding="utf-8") as file:  # the self-test runs in the bundle
        ports = manifests.parse(json.load(file))
    known: dict[tuple[int, ...], list[int]] = {}

    def network(words: list[int]) -> list[int]:
        if tuple(words) not in known:
            (values,) = literal_unpack(ports.inputs, words)
            sample = np.array(values, np.int64).reshape(1, *graph.inputs[0].shape)
            result = execute(graph, [sample])[graph.outputs[0]].reshape(-1)
            result[0] += _FACTS.get("error_lsb", 0)
            known[tuple(words)] = literal_pack(ports.outputs, [result.tolist()])
        return known[tuple(words)]

    sizes = [
        len(literal_pack(side, [[0] * port.size for port in side])) for side in (ports.inputs, ports.outputs)
    ]
    board = BoardModel(Network(sizes[0], sizes[1], network), length_bits=26)
    assert board.monitor is not None
    board.monitor.design_id = int(_FACTS["design_id"], 16)
    board.dma.fault = _FACTS.get("fault", "")
    return board


_BOARD = _board()


class Overlay:
    """Takes the bitstream."""

    def __init__(self, path: str) -> None:
        assert os.path.exists(path) and os.path.exists(path.replace(".bit", ".hwh"))
        print("pynq: overlay loaded")  # as real libraries do, where a result is expected


class _Array:
    def __init__(self, address: int, length: int) -> None:
        self._registers = _BOARD.registers(address, length)

    def __getitem__(self, index: int) -> int:
        return self._registers.read(4 * index)

    def __setitem__(self, index: int, value: int) -> None:
        fault = _BOARD.dma.fault
        self._registers.write(4 * index, int(value))
        _BOARD.dma.fault = _FACTS.get("fault", fault)  # a fault that stays


def MMIO(address: int, length: int) -> SimpleNamespace:  # noqa: N802 - PYNQ's name
    """Return registers."""
    return SimpleNamespace(array=_Array(address, length))


class _Memory(np.ndarray):
    device_address = 0

    def flush(self) -> None: ...

    def invalidate(self) -> None: ...

    def freebuffer(self) -> None: ...


def allocate(shape: tuple[int, ...], dtype: type) -> _Memory:
    """Return memory that the DMA sees."""
    buffer = _BOARD.buffer(4 * shape[0])
    made = buffer.memory.view(_Memory)
    made.device_address = buffer.address
    return made
