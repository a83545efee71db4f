"""Files with very many nodes, and nodes with very long names."""

import time
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx_files import execute, model, node, save, weights
from qonnx_files import Net

from flow import network, qonnx
from flow.fixed import from_qonnx
from flow.names import LONGEST
from flow.network import files
from flow.onnx_model import read

LIMIT_S = 60
"""Each takes some 10 s alone, and took minutes when its time grew with the square of the nodes."""


def chain(kinds: list[str], count: int, folder: Path) -> Path:
    """Write a file of so many nodes, one behind the other."""
    tensors = ["x", *(f"t{number}" for number in range(count - 1)), "y"]
    made = []
    for number in range(count):
        kind = kinds[number % len(kinds)]
        more = {"Add": ["c"], "MatMul": ["w"]}.get(kind, [])
        made.append(node(kind, tensors[number], *more, to=tensors[number + 1]))
    constants = {"c": weights(6) / count, "w": np.eye(6, dtype=np.float32)}
    used = {name for entry in made for name in entry.input}
    return save(model(made, ["N", 6], {n: v for n, v in constants.items() if n in used}), folder)


@pytest.mark.slow
@pytest.mark.parametrize("kinds", [["Relu"], ["Relu", "Add"], ["Identity", "Relu"]], ids=str)
def test_a_chain_of_many_nodes_is_read_in_time(kinds: list[str], tmp_path: Path) -> None:
    count = 20_000 if kinds == ["Relu"] else 5000
    path = chain(kinds, count, tmp_path)
    start = time.monotonic()
    graph = read(path)
    assert time.monotonic() - start < LIMIT_S
    assert len(graph.graph.nodes) == 2 + count // (2 if "Identity" in kinds else 1)


def test_many_layers_with_weights_are_written_and_read_in_time(tmp_path: Path) -> None:
    graph = read(chain(["MatMul", "Relu"], 4000, tmp_path))
    start = time.monotonic()
    network.save(graph, tmp_path / "net")
    again = files.load(tmp_path / "net")
    assert time.monotonic() - start < LIMIT_S
    assert all(map(torch.equal, graph.state_dict().values(), again.state_dict().values()))


def test_a_quantized_chain_of_many_nodes_is_read_in_time(tmp_path: Path) -> None:
    net = Net()
    x = net.input((6,), bits=8)
    for _ in range(10_000):
        x = net.quant(net.relu(x), bits=6, signed=False)
    (tmp_path / "q.onnx").write_bytes(net.proto(x).SerializeToString())
    start = time.monotonic()
    graph = from_qonnx.read(tmp_path / "q.onnx")
    assert time.monotonic() - start < LIMIT_S
    assert len(graph.nodes) == 10_000


def test_names_of_3000_characters_are_cut_and_stay_apart(tmp_path: Path) -> None:
    long = "n" * 3000
    nodes = [
        node("MatMul", "x", "w", to=f"{long}a", name=f"{long}/one"),
        node("Relu", f"{long}a", to=f"{long}b", name=f"{long}/two"),
        node("MatMul", f"{long}b", "v", to="y", name=f"{long}/three"),
    ]
    path = save(model(nodes, ["N", 6], {"w": weights(6, 5), "v": weights(5, 3)}), tmp_path)
    graph = read(path)
    names = [entry.target for entry in graph.graph.nodes if entry.op == "call_module"]
    assert len(set(names)) == 3 and all(len(name) == LONGEST for name in names)
    assert names == [
        entry.target for entry in read(path).graph.nodes if entry.op == "call_module"
    ]  # the same again
    x = np.ones((2, 6), np.float32)
    assert np.allclose(graph(torch.from_numpy(x)).detach().numpy(), execute(path, x)[0], atol=1e-5)


def test_quantized_names_of_3000_characters_are_cut(tmp_path: Path) -> None:
    net = Net()
    made = net.model(net.quant(net.relu(net.input((6,), bits=8)), bits=6, signed=False))
    for entry in made.model.graph.node:
        entry.name = "n" * 3000 + entry.op_type
    (tmp_path / "q.onnx").write_bytes(made.model.SerializeToString())
    qonnx.clean_named(tmp_path / "q.onnx", tmp_path / "clean.onnx")
    graph = from_qonnx.read(tmp_path / "clean.onnx")
    assert all(0 < len(entry.name) <= LONGEST for entry in graph.nodes)
