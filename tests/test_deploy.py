"""Deploy: the host's bytes through a pseudo terminal to the simulated top of a board, and back."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import threading
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from lowered import integers
from quantized import graph as qonnx
from rtl_cases import needs_verilator
from serial_board import board, built

from flow import boards
from flow.deploy import deploy, link
from flow.deploy.link import Link
from flow.errors import ConfigError, MismatchError, ToolError
from flow.fixed.execute import execute
from flow.fixed.from_qonnx import lower
from flow.fixed.graph import FixedGraph, Pool, Tensor
from flow.resources import data_folder
from flow.rtl import RtlDesign, write_rtl
from flow.run.store import Store
from flow.synthesize import open_road
from flow.toolchains.open import board_top
from flow.types import Board, FixedPoint

CLOCKS_PER_BIT = 8
FRAMES = 12


def quick_board() -> Board:
    """Return the ULX3S with so fast a line that its simulation is short."""
    known = boards.load("ulx3s-85f")
    return dataclasses.replace(
        known, fpga={**known.fpga, "baud": board_top.clock_hz(known) // CLOCKS_PER_BIT}
    )


@dataclasses.dataclass(frozen=True)
class Built:
    """A build's folder, with what `deploy` reads, and the board's simulated top."""

    folder: Path
    program: Path
    graph: FixedGraph
    design: RtlDesign


def write_build(folder: Path, graph: FixedGraph, design: RtlDesign, target: Board) -> None:
    samples = integers(graph, FRAMES)
    outputs = execute(graph, samples)[graph.outputs[0]]
    np.savez(
        folder / "golden.npz",
        inputs=samples[0],
        outputs=outputs,
        labels=outputs.reshape(FRAMES, -1).argmax(1),
    )
    (folder / "link.json").write_text(json.dumps(open_road.link_facts(design, target)))


def built_top(folder: Path, graph: FixedGraph) -> Built:
    target, design = quick_board(), write_rtl(graph, folder, module="net")
    write_build(folder, graph, design, target)
    top = folder / "flow_board.sv"
    top.write_text(board_top.board_top(design, target, open_road.design_id(design, target)))
    library = [data_folder("hls_templates") / "verilog" / f"{name}.sv" for name in board_top.LIBRARY]
    sources = dict.fromkeys(
        [top, *design.sources, *(path for path in library if path.name != "flow_fifo.sv")]
    )
    return Built(folder, built(board_top.TOP, list(sources), folder), graph, design)


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return built_top(tmp_path_factory.mktemp("board"), lower(qonnx("cnn")))


@needs_verilator
class TestSimulatedBoard:
    """The real top of a board, its clock and its line simulated."""

    def test_every_sample_comes_back_equal(self, build: Built) -> None:
        with board(build.program, CLOCKS_PER_BIT, build.folder) as port:
            done = deploy(build.folder, serial=port, baud=115_200, timeout_s=20)
        assert (done.samples, done.max_error_lsb, done.accuracy, done.retries) == (FRAMES, 0, 1.0, 0)
        assert done.clocks[0] >= build.design.circuit.inputs[0].beats
        assert done.clocks[1] <= 4 * build.design.interval_cycles
        assert (done.clock_mhz, done.link) == (25, "serial line")
        assert done.latency_us == pytest.approx(1e6 / done.samples_per_second)

    def test_the_command_says_what_the_board_did(
        self, build: Built, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        from flow import cli

        store = Store(tmp_path)
        with store.building("synthesize") as folder:
            shutil.copytree(build.folder, folder, dirs_exist_ok=True)
            store.show("synthesize", store.add("synthesize", "1" * 64, folder, {}, 0.0))
        with board(build.program, CLOCKS_PER_BIT, build.folder) as port:
            cli.deploy(Path("demo"), serial=port, samples=3, baud=115_200, out=tmp_path)
            assert "ulx3s-85f: 3 samples, 0 LSB, accuracy 100.00 %\n" in capsys.readouterr().out
            cli.deploy(Path("demo"), serial=port, samples=2, baud=115_200, out=tmp_path, as_json=True)
        assert json.loads(capsys.readouterr().out)["samples"] == 2

    def test_damaged_bytes_on_the_line_are_noticed_and_sent_again(self, build: Built) -> None:
        sample = build.design.circuit.inputs[0].beats
        with board(build.program, CLOCKS_PER_BIT, build.folder, damage=3 * sample + 1) as port:
            done = deploy(build.folder, serial=port, baud=115_200, timeout_s=3, retries=9)
        assert done.retries > 0 and done.max_error_lsb == 0

    def test_what_is_no_request_is_answered_with_its_fault_and_forgotten(self, build: Built) -> None:
        import serial

        good = frame(link.INFO, 7, b"")
        faults = [
            (frame(link.INFO, 1, b"")[:-1] + b"\0", 1),  # CRC
            (frame(link.RUN, 2, b"abc"), 2),  # length
            (frame(9, 3, b""), 3),  # kind
        ]
        with (
            board(build.program, CLOCKS_PER_BIT, build.folder) as port,
            serial.Serial(port, timeout=20) as line,
        ):
            for bad, code in faults:
                line.write(bad)
                assert line.read(10) == frame(link.FAILED, bad[2], bytes([code]))
            line.write(b"garbage" + frame(link.RUN, 4, bytes(1 << 4))[:9])  # stops in the middle
            line.timeout = 3
            line.read(10)  # the length was wrong as well, or nothing
            line.timeout = 20
            line.write(good)
            assert line.read(5)[:3] == bytes([link.SYNC, link.INFO | link.ANSWER, 7])

    def test_a_board_with_another_design_is_refused(self, build: Built, tmp_path: Path) -> None:
        copied(build, tmp_path, design_id="0123456789abcdef")
        with (
            board(build.program, CLOCKS_PER_BIT, build.folder) as port,
            pytest.raises(
                MismatchError, match=r"must hold design 0123456789abcdef, not [0-9a-f]{16}; program it"
            ),
        ):
            deploy(tmp_path, serial=port, baud=115_200, timeout_s=20)

    def test_a_result_that_differs_is_named(self, build: Built, tmp_path: Path) -> None:
        copied(build, tmp_path)
        with np.load(build.folder / "golden.npz") as file:
            arrays = dict(file)
        arrays["outputs"].reshape(FRAMES, -1)[2, 1] += 1
        np.savez(tmp_path / "golden.npz", **arrays)
        with (
            board(build.program, CLOCKS_PER_BIT, build.folder) as port,
            pytest.raises(MismatchError, match=r"sample 2, index \(.*1\) is -?\d+ LSB in place of -?\d+ LSB"),
        ):
            deploy(tmp_path, serial=port, baud=115_200, timeout_s=20)


@needs_verilator
def test_beats_that_come_after_the_result_do_not_reach_the_next_sample(tmp_path: Path) -> None:
    """The last three rows are read by no window, so that the result is whole before they are taken."""
    byte, none = FixedPoint(True, 8, 0), ((0, 0), (0, 0))
    node = Pool("y", ("x",), Tensor("y", (2, 8, 1), byte), "max", (2, 2), (6, 2), none)
    graph = FixedGraph((Tensor("x", (11, 16, 1), byte),), (node,), ("y",))
    made = built_top(tmp_path, graph)
    with board(made.program, CLOCKS_PER_BIT, tmp_path) as port:
        done = deploy(tmp_path, serial=port, baud=115_200, timeout_s=5, retries=0)
    assert (done.samples, done.max_error_lsb) == (FRAMES, 0)
    assert done.clocks[1] < 11 * 16  # to the last beat of the result


STUCK = """module stuck (input logic clk, input logic rx, output logic tx);
    logic [4:0] started = 0;
    always_ff @(posedge clk) if (!started[4]) started <= started + 1;
    logic busy, core_reset, in_valid, in_last, out_ready;
    logic [7:0] in_data;
    flow_link #(
        .CLOCKS_PER_BIT(8), .IN_BEATS(4), .OUT_BEATS(3), .RUN_CLOCKS(3000), .IDLE_CLOCKS(2000)
    ) link (
        .clk(clk), .reset(!started[4]), .rx(rx), .tx(tx), .busy(busy), .core_reset(core_reset),
        .in_valid(in_valid), .in_ready(1'b1), .in_data(in_data), .in_last(in_last),
        .out_valid(1'b0), .out_ready(out_ready), .out_data(8'd0), .out_last(1'b0)
    );
endmodule
"""


@needs_verilator
def test_a_network_without_a_result_and_frames_that_stop_do_not_hang_the_line(tmp_path: Path) -> None:
    import serial

    top = tmp_path / "stuck.sv"
    top.write_text(STUCK)
    library = [data_folder("hls_templates") / "verilog" / f"{name}.sv" for name in board_top.LIBRARY]
    program = built("stuck", [top, *library], tmp_path)
    with board(program, CLOCKS_PER_BIT, tmp_path) as port, serial.Serial(port, timeout=20) as line:
        for sequence in (1, 2):  # twice: the samples that it swallowed are forgotten
            line.write(frame(link.RUN, sequence, b"1234"))
            assert line.read(10) == frame(link.FAILED, sequence, b"\4")
        for cut in (3, 6, 10):  # in the head, in the payload, in the CRC
            line.write(b"noise" + frame(link.RUN, 3, b"1234")[:cut])
            line.timeout = 0.5
            assert line.read(1) == b""
            line.timeout = 20
            line.write(frame(link.INFO, 4, b""))
            answer = line.read(30)
            assert answer == frame(link.INFO | link.ANSWER, 4, answer[5:26])
            assert answer[18:26] == bytes([4, 0, 0, 0, 3, 0, 0, 0])


def frame(kind: int, sequence: int, payload: bytes) -> bytes:
    """Return a frame as the documentation of `flow_link` has it."""
    body = bytes([kind, sequence]) + len(payload).to_bytes(2, "little") + payload
    return b"\xf5" + body + zlib.crc32(body).to_bytes(4, "little")


def copied(build: Built, folder: Path, **changes: object) -> None:
    values = json.loads((build.folder / "link.json").read_text()) | changes
    (folder / "link.json").write_text(json.dumps(values))
    (folder / "golden.npz").write_bytes((build.folder / "golden.npz").read_bytes())


# ---------------------------------------------------------------- without a board


@pytest.fixture
def line() -> Iterator[tuple[str, int]]:
    """A pseudo terminal: the path of the host's side, and the file of the other."""
    import tty

    other, mine = os.openpty()
    tty.setraw(mine)
    yield os.ttyname(mine), other
    os.close(mine)
    os.close(other)


def answers(other: int, replies: list[Callable[[bytes], bytes]]) -> threading.Thread:
    """Answer each request that comes with the next reply."""

    def serve() -> None:
        for reply in replies:
            data = b""
            while len(data) < 9 or len(data) < 9 + int.from_bytes(data[3:5], "little"):
                data += os.read(other, 4096)
            os.write(other, reply(data))

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    return thread


def told(request: bytes, design: str = "00" * 8) -> bytes:
    payload = b"\1" + bytes.fromhex(design)[::-1] + b"".join(n.to_bytes(4, "little") for n in (10**6, 3, 2))
    return frame(link.INFO | link.ANSWER, request[2], payload)


class TestLine:
    """The host's end alone."""

    def open(self, path: str, retries: int = 2, limit: float = 0.3) -> Link:
        import serial

        return Link(serial.Serial(path, timeout=limit), retries)

    def test_an_answer_is_read_behind_noise_and_behind_a_late_one(self, line: tuple[str, int]) -> None:
        path, other = line
        late = frame(link.INFO | link.ANSWER, 200, b"\1" + bytes(20))
        answers(other, [lambda request: b"\0\1noise" + late + told(request, "12" * 8)])
        made = self.open(path)
        assert made.info() == link.Info("12" * 8, 10**6, 3, 2)
        assert made.retried == 0

    @pytest.mark.parametrize(
        ("spoilt", "fault"),
        [
            (lambda request: b"", "no answer"),
            (lambda request: told(request)[:4], "half an answer"),
            (lambda request: told(request)[:-1], "a damaged answer"),
            (lambda request: told(request)[:-1] + b"\0", "a damaged answer"),
            (lambda request: frame(link.RUN | link.ANSWER, request[2], b"1234"), "another answer"),
            (lambda request: frame(link.FAILED, request[2], b"\1"), "a damaged CRC"),
            (lambda request: frame(link.FAILED, request[2], b"\4"), "a network that gives no result"),
        ],
    )
    def test_a_fault_is_repaired_by_a_repeat_or_told(
        self, line: tuple[str, int], spoilt: Callable[[bytes], bytes], fault: str
    ) -> None:
        path, other = line
        answers(other, [spoilt, told])
        made = self.open(path)
        made.info()
        assert made.retried == 1
        answers(other, [spoilt] * 2)
        with pytest.raises(
            ToolError, match=f"deploy: the board must answer, not give {fault} 2 times; program it"
        ):
            self.open(path, retries=1).info()

    def test_another_version_of_the_protocol_is_refused(self, line: tuple[str, int]) -> None:
        path, other = line
        answers(other, [lambda request: frame(link.INFO | link.ANSWER, request[2], b"\2" + bytes(20))])
        with pytest.raises(ToolError, match="must speak version 1 of the protocol, not 2"):
            self.open(path).info()

    def test_a_board_that_falls_silent_is_told(self, line: tuple[str, int], files: Path) -> None:
        path, other = line
        answers(other, [lambda request: told(request, "ab" * 8)])
        with pytest.raises(ToolError, match="the board must answer, not give no answer 1 times"):
            deploy(files, serial=path, timeout_s=0.2, retries=0)


FACTS = {
    "design_id": "ab" * 8,
    "board": "ulx3s-85f",
    "clock_hz": 10**6,
    "baud": 115_200,
    "input": {"lanes": 1, "width": 8, "signed": False, "beats": 3, "shape": [3]},
    "output": {"lanes": 1, "width": 16, "signed": True, "beats": 1, "shape": [1]},
}


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "link.json").write_text(json.dumps(FACTS))
    np.savez(tmp_path / "golden.npz", inputs=np.arange(6).reshape(2, 3), outputs=np.array([[-2], [5]]))
    return tmp_path


def test_a_port_that_is_not_there_is_named_with_those_that_are(files: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"port '/dev/none' must open at 115200 baud, not fail .* ports that are there:"
    ):
        deploy(files, serial="/dev/none")


def test_a_port_of_another_group_is_refused_with_what_to_do(
    files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import serial

    def refuse(*_: object, **__: object) -> None:
        raise serial.SerialException(13, "could not open port: [Errno 13] Permission denied: '/dev/ttyUSB0'")

    monkeypatch.setattr(serial, "Serial", refuse)
    with pytest.raises(ConfigError, match="join the group that owns it"):
        deploy(files, serial="/dev/ttyUSB0")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"design_id": "xyz"}, "must be a build's, not damaged"),
        ({"baud": None}, "must be a build's, not damaged"),
        ({"input": {}}, "must be a build's, not damaged"),
        ({"input": FACTS["input"] | {"beats": -3}}, "must be a build's, not damaged"),
        ({"output": FACTS["output"] | {"shape": [7]}}, "must be a build's, not damaged"),
        ({"output": FACTS["output"] | {"width": 1 << 30}}, "must be a build's, not damaged"),
        (None, "must be there, not missing; build with flow run --toolchain open first"),
    ],
)
def test_files_of_a_build_are_read_without_trust(
    files: Path, change: dict[str, object] | None, message: str
) -> None:
    if change is None:
        (files / "link.json").unlink()
    else:
        (files / "link.json").write_text(json.dumps(FACTS | change))
    with pytest.raises(ConfigError, match=message):
        deploy(files, serial="/dev/none")


@pytest.mark.parametrize("arrays", [{}, {"inputs": np.zeros((2, 4)), "outputs": np.zeros((2, 1))}])
def test_golden_vectors_of_another_build_are_refused(files: Path, arrays: dict[str, np.ndarray]) -> None:
    np.savez(files / "golden.npz", **arrays)
    with pytest.raises(ConfigError, match=r"golden.npz' must be a build's, not damaged"):
        deploy(files, serial="/dev/none")


@pytest.mark.parametrize("share", [0, 0.5])
def test_golden_vectors_that_were_cut_off_are_refused(files: Path, share: float) -> None:
    whole = (files / "golden.npz").read_bytes()
    (files / "golden.npz").write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ConfigError, match=r"golden.npz' must be a build's, not damaged"):
        deploy(files, serial="/dev/none")


def test_no_samples_are_refused(files: Path) -> None:
    with pytest.raises(ConfigError, match="samples must be at least 1, not 0"):
        deploy(files, serial="/dev/none", samples=0)
