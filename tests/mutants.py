"""Readers of files that the flow did not write itself, whole inputs for each, and (in `spoilt`) ways to spoil them.

`readers` gives them. A reader takes a folder to work in and the bytes of an input; it must return, or raise one of the
flow's own errors. ``python benchmarks/fuzz_readers.py`` runs thousands of inputs, ``tests/test_mutants.py`` hundreds.
"""

from __future__ import annotations

import io
import json
import os
import random
import re
import shutil
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest import mock

import board_bundle
import numpy as np
import onnx_files
import torch
import vendor_tools
from bit_files import bit_file
from handoff_files import hand_off
from qonnx_files import Net
from spoilt import Mutate, as_bytes, as_text, in_tar, in_zip, sealed
from torch import nn

from flow import boards, config, network
from flow.build import remote
from flow.build.remote import folders
from flow.deploy import host, serial_line
from flow.deploy.board import bitfile, golden, manifest
from flow.deploy.board.errors import BoardError
from flow.errors import FlowError, ToolError
from flow.fixed.golden import read_golden
from flow.onnx_model import read as read_onnx
from flow.quantize.adopt import adopt
from flow.testing import ratchet
from flow.toolchains.open import place
from flow.toolchains.vitis import bitstream, handoff, log, modules, reports
from flow.training import data
from flow.training.checkpoint import Checkpoint
from flow.training.state_dict import load_state_dict
from flow.types import Data, silent

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Reader:
    """``wholes``: inputs that it takes; ``spoil``: what makes another one of an input."""

    name: str
    read: Callable[[Path, bytes], object]
    wholes: tuple[bytes, ...]
    spoil: Mutate


# ---------------------------------------------------------------- readers


def _file(folder: Path, name: str, content: bytes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)
    return folder / name


def _of_file(name: str, read: Callable[[Path], object]) -> Callable[[Path, bytes], object]:
    return lambda folder, content: read(_file(folder, name, content))


def _saved(write: Callable[[Any], object]) -> bytes:
    file = io.BytesIO()
    write(file)
    return file.getvalue()


def _of_board(read: Callable[[], object]) -> object:
    """A board has no flow to take errors from: its own stands for them."""
    try:
        return read()
    except BoardError as error:
        raise ToolError(str(error)) from error


def _npz() -> Reader:
    x, y = np.arange(120, dtype=np.float32).reshape(60, 2), np.arange(60) % 3
    plain = _saved(lambda file: np.savez(file, x=x, y=y))
    packed = _saved(lambda file: np.savez_compressed(file, x_train=x, y_train=y, x_test=x[:6], y_test=y[:6]))
    return Reader(
        "npz", _of_file("a.npz", lambda path: data.load(path.name, base=path.parent)), (plain, packed), in_zip
    )


def _network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))


def _state_dict() -> Reader:
    whole = _saved(lambda file: torch.save(_network().state_dict(), file))
    return Reader(
        "state dict", _of_file("w.pt", lambda path: load_state_dict(_network(), path)), (whole,), in_zip
    )


def _resume(folder: Path) -> Reader:
    Checkpoint(folder / "run.pt", {"seed": 0}).save(
        {"epoch": 3, "model": {"w": torch.arange(6.0)}, "history": [{"loss": 0.5}]}
    )
    whole = (folder / "run.pt").read_bytes()
    return Reader(
        "resume file", _of_file("run.pt", lambda path: Checkpoint(path, {"seed": 0}).load()), (whole,), sealed
    )


_TOML = b"""\
name = "net"
seed = 3
threads = 1
board = "pynq-z2"
synth_clk_period_ns = 10.0
[model]
source = "package.module:function"
[data]
train = "digits"
test_fraction = 0.25
[prune]
pruning_ratio = 0.5
twt = 1.0
epochs = 20
[quantize]
epochs = 2
weight_bits = 4
[hls]
Model.ReuseFactor = 4
Model.Precision = "fixed<16,6>"
"""


def _boards() -> tuple[bytes, ...]:
    return tuple(path.read_bytes() for path in sorted((ROOT / "boards").glob("*.toml")))


def _board(folder: Path, content: bytes) -> object:
    return boards.read(_file(folder, "made.toml", re.sub(rb'(?m)^name = "[^"]*"', b'name = "made"', content)))


def _onnx() -> Reader:
    nodes = [
        onnx_files.node("Conv", "x", "w", to="a", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        onnx_files.node("Relu", "a", to="b"),
        onnx_files.node("Flatten", "b", to="c"),
        onnx_files.node("Gemm", "c", "v", "u", to="y", transB=1),
    ]
    constants = {"w": (2, 1, 3, 3), "v": (3, 32), "u": (3,)}
    made = onnx_files.model(
        nodes, ["N", 1, 4, 4], {name: onnx_files.weights(*shape) for name, shape in constants.items()}
    )
    return Reader(
        "onnx", _of_file("m.onnx", lambda path: read_onnx(path)), (made.SerializeToString(),), as_bytes
    )


def _qonnx() -> Reader:
    net = Net()
    x = net.relu(net.conv(net.input((1, 4, 4), bits=8), 2, kernel=3, weight_bits=4))
    whole = net.proto(net.quant(x, bits=4, signed=False)).SerializeToString()
    samples = np.random.default_rng(0).random((4, 1, 4, 4)).astype(np.float32)
    split = samples, np.zeros(4, np.int64)
    given = Data("samples", split, split, split)
    return Reader(
        "qonnx", _of_file("q.onnx", lambda path: adopt(path, given, path.parent / "out")), (whole,), as_bytes
    )


def _weights() -> Iterator[Reader]:
    if find_spec("nncodec"):
        from flow import compress

        whole = (ROOT / "tests" / "golden" / "compress" / "weights.nnc").read_bytes()
        yield Reader("weights.nnc", _of_file("weights.nnc", compress.load), (whole,), as_bytes)


def _reports() -> Iterator[Reader]:
    texts = {
        "csynth.xml": (vendor_tools.CSYNTH, reports.parse_csynth_xml),
        "utilization.rpt": (vendor_tools.UTILIZATION, reports.parse_utilization),
        "timing.rpt": (vendor_tools.TIMING.format(slack="0.250"), reports.parse_timing_summary),
        "power.rpt": (vendor_tools.POWER, reports.parse_power),
        "clock.rpt": (vendor_tools.TIMING.format(slack="0.250"), reports.parse_clock_period),
    }
    for name, (text, read) in texts.items():
        yield Reader(name, _of_file("report", read), (text.encode(),), as_text)
    yield from _real_reports()
    whole = json.dumps({"fmax": {"clk": {"achieved": 71.2}}, "utilization": {"TRELLIS_FF": {"used": 7}}})
    ecp5 = boards.load("ulx3s-85f")
    yield Reader(
        "nextpnr report",
        _of_file("r.json", lambda path: place.read_report(path, ecp5)),
        (whole.encode(),),
        as_text,
    )


def _real_reports() -> Iterator[Reader]:
    """Where the vendor's own files are (see `conftest.vendor`), those that nobody else writes."""
    vendor = Path(os.environ.get("FLOW_SHARED", ROOT.parent / "shared")) / "vendor"
    solution = vendor / "pynq_z2_iris_2025.1/projeto_iris_hls_ip_axi/myproject_prj/solution1/syn/report"
    old = vendor / "svhn_cnn_xcu250_2020.1/pruned_cnn/myproject_prj/solution1/syn/report/myproject_csynth.rpt"
    for name, path, read in (
        ("csynth.rpt", solution / "myproject_csynth.rpt", reports.parse_csynth_text),
        ("csynth modules", solution / "csynth.xml", modules.parse_modules),
        ("csynth modules of Vivado HLS", old, modules.parse_modules),
        ("csynth summary", solution / "csynth.rpt", modules.parse_summary),
    ):
        if path.is_file():
            yield Reader(name, _of_file(path.name, read), (path.read_bytes(),), as_text)


def _log(folder: Path, content: bytes) -> object:
    _file(folder / "logs", "vivado.log", content)
    found = log.errors(folder)
    return log.advice(found), [log.detail(line) for line in found]


_LOG = b"""\
INFO: [HLS 200-10] -- Implementing module 'dense'
ERROR: [Place 30-640] Place Check : This design requires more LUT cells than are available
flow: step implementation
Phase 2.1 Placer Initialization
ERROR: [Common 17-69] Command failed: Placer could not place all instances
"""


def _archive(folder: Path, content: bytes) -> object:
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "out").mkdir(parents=True)
    with mock.patch.object(folders, "talk", lambda *args, output, **options: output.write_bytes(content)):
        found = folders.fetch(remote.Host("host"), ".", ("a", "b"), folder / "out", subject="build")
    assert [path.name for path in folder.iterdir()] == ["out"]
    assert {path.name for path in (folder / "out").iterdir()} <= {"a", "b"}
    assert not any(path.is_symlink() for path in folder.rglob("*"))
    return found


def _tar() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name, kind in (("./a", b"0"), ("./b", b"5"), ("./b/c", b"0"), ("./b/d", b"1")):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "./a" if kind == b"1" else ""
            member.size = 700 if kind == b"0" else 0
            archive.addfile(member, io.BytesIO(bytes(member.size)))
    return file.getvalue()


_ANSWER = {"ok": True, "samples": 256, "max_error_lsb": 0, "accuracy": 0.75, "latency_us": 812.5}
_ANSWER |= {"latency_cycles": 417, "throughput_samples_per_s": 5e3, "cycles_per_sample": 70.5}
_ANSWER |= {"clock_mhz": 100.0, "backend": "pynq", "python": "3.10", "design_id": "0123456789abcdef"}


def _board_answer(folder: Path, content: bytes) -> object:
    values = {"bitstream": {"sha256": "0" * 64}, "board": "pynq-z2"}
    _file(folder, "manifest.json", json.dumps(values).encode())
    with (
        mock.patch.object(host.remote, "push"),
        mock.patch.object(host.remote, "call", return_value=content.decode(errors="replace")),
    ):
        return host.run_on_board(folder, remote.Host("host"), samples=None, timeout_s=1, progress=silent)


_LINK = {"design_id": "00" * 8, "board": "ulx3s-85f", "baud": 115_200}
_LINK |= {"input": {"lanes": 1, "width": 8, "signed": False, "beats": 3, "shape": [3]}}
_LINK |= {"output": {"lanes": 1, "width": 16, "signed": True, "beats": 1, "shape": [1]}}


def _goldens() -> Iterator[Reader]:
    inputs, outputs = np.arange(6).reshape(2, 3), np.array([[-2], [5]])
    whole = _saved(lambda file: np.savez(file, inputs=inputs, outputs=outputs, labels=np.arange(2)))
    several = _saved(lambda file: np.savez(file, inputs_0=inputs, inputs_1=inputs, outputs=outputs))
    yield Reader("golden.npz", _of_file("golden.npz", read_golden), (whole, several), in_zip)

    def of_link(path: Path) -> object:
        _file(path.parent, "link.json", json.dumps(_LINK).encode())
        return serial_line._read_golden(path, serial_line._read_link(path.parent / "link.json"))

    yield Reader("golden.npz of a serial board", _of_file("golden.npz", of_link), (whole,), in_zip)
    ports = board_bundle.manifest_values()
    parsed = manifest.parse(ports)

    def of_board(path: Path) -> object:
        return _of_board(lambda: golden.read(path.parent, parsed))

    given = board_bundle.samples(board_bundle.ONE_INPUT, 5)
    rows = np.concatenate([array.reshape(5, -1) for array in given], 1)
    made = _saved(lambda file: np.savez(file, inputs=rows, outputs=board_bundle.results(given)))
    yield Reader("golden.npz on the board", _of_file("golden.npz", of_board), (made,), in_zip)
    yield Reader(
        "board manifest",
        lambda folder, content: _of_board(lambda: _manifest(folder, content)),
        (json.dumps(ports).encode(),),
        as_text,
    )


def _manifest(folder: Path, content: bytes) -> object:
    """Read a bundle's manifest whose seal, where it has one, is whole."""
    _file(folder, "manifest.json", content)
    try:
        return manifest.parse(json.loads(content))
    except (ValueError, RecursionError):
        return manifest.read(folder)


def _network_files(folder: Path) -> Iterator[Reader]:
    graph = network.trace(nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU()), torch.zeros(1, 3, 4, 4))
    network.save(graph, folder)
    described, weights = ((folder / name).read_bytes() for name in ("network.json", "weights.pt"))

    def read(folder: Path, text: bytes, numbers: bytes) -> object:
        _file(folder, "network.json", text)
        _file(folder, "weights.pt", numbers)
        return network.load(folder)

    yield Reader(
        "network.json", lambda out, content: read(out, content, weights), (described,), _small(as_text)
    )
    yield Reader("weights.pt", lambda out, content: read(out, described, content), (weights,), in_zip)


def _small(spoil: Mutate) -> Mutate:
    """Leave out numbers that ask for layers of gigabytes."""
    return lambda content, rng: re.sub(rb"\d{4,20}", b"999", spoil(content, rng))


def readers(folder: Path) -> list[Reader]:
    """Return all readers; ``folder`` is for making their inputs."""
    folder.mkdir(parents=True, exist_ok=True)
    figures = {"figures": {"accuracy": 0.9, "macs": 12}, "tolerance": dict(ratchet.TOLERANCE)}
    return [
        _npz(),
        _state_dict(),
        _resume(folder),
        _text("flow.toml", config.load, _TOML),
        Reader("boards/*.toml", _board, _boards(), as_text),
        _onnx(),
        _qonnx(),
        *_weights(),
        Reader("bit", _of_file("net.bit", bitstream.read), (bit_file(),), as_bytes),
        Reader("bit on the board", _of_file("net.bit", _bit_on_board), (bit_file(),), as_bytes),
        _text("hwh", handoff.read, hand_off().encode()),
        *_reports(),
        Reader("vendor log", _log, (_LOG,), as_text),
        Reader("host archive", _archive, (_tar(),), in_tar),
        Reader("board answer", _board_answer, (b"Welcome\n" + json.dumps(_ANSWER).encode(),), as_text),
        _text("link.json", serial_line._read_link, json.dumps(_LINK).encode()),
        *_goldens(),
        *_network_files(folder),
        _text("ratchet", ratchet.load, json.dumps(figures).encode()),
    ]


def _text(name: str, read: Callable[[Path], object], whole: bytes) -> Reader:
    return Reader(name, _of_file("given", read), (whole,), as_text)


def _bit_on_board(path: Path) -> object:
    return _of_board(lambda: bitfile.read(path))


def run(reader: Reader, count: int, seed: int, folder: Path) -> int:
    """Give a reader so many spoilt inputs; returns how many were refused.

    Raises:
        AssertionError: an input was answered with something else than one of the flow's errors.
    """
    refused = 0
    for number in range(count):
        rng = random.Random(f"{reader.name} {seed} {number}")
        content = reader.spoil(rng.choice(reader.wholes), rng)
        try:
            reader.read(folder / "in", content)
        except FlowError:
            refused += 1
        except Exception as error:
            raise AssertionError(f"{reader.name}, input {number} of seed {seed}: {error!r}") from error
    return refused
