"""The board's software on the model: batches through the driver, the self-test's verdicts, and its constraints."""

from __future__ import annotations

import ast
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from board_bundle import IMAGE, ONE_INPUT, SCORES, TWO_INPUTS, model, results, samples, scores, write_bundle

from flow.deploy.board import SELFTEST_SCRIPT, selftest
from flow.deploy.board.driver import Accelerator
from flow.deploy.board.errors import BoardError, DmaError

PACKAGE = Path(__file__).parents[1] / "flow" / "deploy" / "board"
KEYS = [
    "ok",
    "samples",
    "max_error_lsb",
    "accuracy",
    "latency_us",
    "latency_cycles",
    "throughput_samples_per_s",
    "cycles_per_sample",
    "clock_mhz",
    "backend",
    "python",
    "design_id",
]


class TestBatches:
    """`Accelerator` on the model."""

    @pytest.mark.parametrize("monitor", [True, False])
    @pytest.mark.parametrize("inputs", [ONE_INPUT, TWO_INPUTS])
    def test_integers_go_through_the_network(
        self, tmp_path: Path, inputs: tuple[Any, ...], monitor: bool
    ) -> None:
        board = model(inputs, monitor=monitor)
        given = samples(inputs, 20, seed=1)
        with Accelerator(write_bundle(tmp_path, inputs, monitor=monitor), board) as network:
            got = network.run_lsb(given[0] if len(inputs) == 1 else tuple(given))
        assert isinstance(got, np.ndarray) and np.array_equal(got, results(given))
        assert board.closed and all(buffer.closed for buffer in board.buffers)
        with pytest.raises(BoardError, match="board: it must be open, not closed; make a new Accelerator"):
            network.run(given[0] if len(inputs) == 1 else tuple(given))
        assert board.programmed == [tmp_path / "net.bit"]

    def test_a_batch_may_have_no_sample_or_one(self, tmp_path: Path) -> None:
        board = model()
        with Accelerator(write_bundle(tmp_path), board) as network:
            lengths = len(board.dma.lengths)
            assert np.asarray(network.run(np.zeros((0, 2, 3)))).shape == (0, 3)
            assert len(board.dma.lengths) == lengths
            given = samples(ONE_INPUT, 1)
            assert np.array_equal(network.run_lsb(given[0]), results(given))

    @pytest.mark.parametrize(("length_bits", "buffer_bytes"), [(8, 1 << 20), (23, 240), (23, 1)])
    def test_long_batches_go_in_as_many_transfers_as_they_need(
        self, tmp_path: Path, length_bits: int, buffer_bytes: int
    ) -> None:
        board = model(length_bits=length_bits)
        folder = write_bundle(tmp_path, change=lambda values: values["dma"].update(length_bits=length_bits))
        given = samples(ONE_INPUT, 50)
        with Accelerator(folder, board, buffer_bytes=buffer_bytes) as network:
            step = network.samples_per_transfer
            assert step == max(1, min(buffer_bytes, (1 << length_bits) - 4) // 12)
            assert np.array_equal(network.run_lsb(given[0]), results(given))
        assert len(board.dma.lengths) == 2 * -(-50 // step)
        assert max(board.dma.lengths) < 1 << length_bits

    def test_numbers_are_put_on_the_grid_and_results_come_as_numbers(self, tmp_path: Path) -> None:
        with Accelerator(write_bundle(tmp_path), model()) as network:
            batch = np.full((1, 2, 3), 3 / 32)  # 1.5 LSB: to even
            batch[0, 1] = [-100, 100, -1 / 32]
            got = network.run(batch)
        image = [2, 2, 2, -128, 127, 0]
        assert np.asarray(got).tolist() == [[value / 16 for value in scores([image])[0]]]

    def test_several_outputs_come_as_a_tuple(self, tmp_path: Path) -> None:
        def change(values: dict[str, Any]) -> None:
            half = {
                "name": "first",
                "shape": [1],
                "width": 20,
                "signed": True,
                "fraction_bits": 0,
                "scale": 1.0,
            }
            values["outputs"] = [half, {**half, "name": "rest", "shape": [2, 1]}]

        given = samples(ONE_INPUT, 4)
        with Accelerator(write_bundle(tmp_path, change=change), model()) as network:
            first, rest = network.run_lsb(given[0])
        assert (first.shape, rest.shape) == ((4, 1), (4, 2, 1))
        assert np.array_equal(np.hstack([first, rest[:, :, 0]]), results(given))

    def test_a_batch_of_another_shape_is_refused(self, tmp_path: Path) -> None:
        with Accelerator(write_bundle(tmp_path, TWO_INPUTS), model(TWO_INPUTS)) as network:
            with pytest.raises(ValueError) as caught:
                network.run(np.zeros((4, 2, 3)))
            assert str(caught.value) == (
                "batch must be a tuple of arrays for image, gain, not 1 arrays; add the others"
            )
            with pytest.raises(ValueError, match="port 'image' must have shape"):
                network.run((np.zeros((2, 3)), np.zeros((2, 3))))

    def test_after_a_failure_the_network_is_emptied_and_the_next_batch_is_right(self, tmp_path: Path) -> None:
        board = model()
        given = samples(ONE_INPUT, 5)
        with Accelerator(write_bundle(tmp_path), board, timeout_s=0.02) as network:
            for fault in ("stuck", "no_tlast", "short", "slave MM2S", "halt S2MM"):
                board.dma.fault, board.network.held = fault, [(7, False)]  # half a frame is in the network
                with pytest.raises(DmaError, match="; monitor: "):
                    network.run_lsb(given[0])
                assert np.array_equal(network.run_lsb(given[0]), results(given))
        assert board.monitor is not None and board.monitor.resets == 6

    def test_without_a_monitor_a_failure_says_that_the_network_keeps_its_words(self, tmp_path: Path) -> None:
        board = model(monitor=False)
        with Accelerator(write_bundle(tmp_path, monitor=False), board, timeout_s=0.02) as network:
            board.dma.fault = "short"
            with pytest.raises(DmaError) as caught:
                network.run_lsb(samples(ONE_INPUT, 2)[0])
        assert str(caught.value).endswith(
            "of one build; without a monitor the network keeps what it holds: open the bundle again"
        )


class TestOpening:
    """What an `Accelerator` refuses before the first batch."""

    def refused(self, folder: Path, board: Any) -> str:
        with pytest.raises(BoardError) as caught:
            Accelerator(folder, board)
        return str(caught.value)

    def test_another_design_on_the_fabric(self, tmp_path: Path) -> None:
        board = model()
        board.monitor.design_id = 0xFEDC  # type: ignore[union-attr]
        assert self.refused(write_bundle(tmp_path), board) == (
            "monitor: design must be 0123456789abcdef, not 000000000000fedc; the overlay on the fabric is another "
            "design: program the bundle's"
        )
        assert board.closed

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (
                {"magic": 0},
                "magic must be 0x574f4c46, not 0x00000000; the overlay on the fabric is another design: program the "
                "bundle's",
            ),
            ({"version": 2}, "version must be 1, not 2; take flow_board and the overlay from one bundle"),
            (
                {"clock_hz": 50_000_000},
                "design must be built for the manifest's 100 MHz or more, not 50 MHz; "
                "take manifest and overlay from one build",
            ),
            (
                {"stays_in_reset": True},
                "network must leave its reset, not stay in it (status (0x18) is 0x00000004); check that its clock runs",
            ),
        ],
        ids=["magic", "version", "built", "reset"],
    )
    def test_a_monitor_that_says_something_else(
        self, tmp_path: Path, change: dict[str, Any], message: str
    ) -> None:
        board = model()
        for name, value in change.items():
            setattr(board.monitor, name, value)
        assert self.refused(write_bundle(tmp_path), board) == f"monitor: {message}"

    @pytest.mark.parametrize("slow", [2.0, 0.5, 1e9])
    def test_a_clock_that_runs_at_another_rate_is_measured(self, tmp_path: Path, slow: float) -> None:
        board = model()
        board.monitor.slow = slow  # type: ignore[union-attr]
        message = self.refused(write_bundle(tmp_path), board)
        assert message.startswith("monitor: clock on the fabric must be the manifest's 100 MHz, not ")
        assert message.endswith(" MHz as measured; check the processor's PLLs and crystal_mhz")

    def test_a_bitstream_for_another_part(self, tmp_path: Path) -> None:
        board = model()
        assert self.refused(write_bundle(tmp_path, part="7z010clg400"), board).startswith(
            "bitstream: net.bit must be "
        )
        assert board.programmed == []

    def test_a_damaged_file(self, tmp_path: Path) -> None:
        board = model()
        folder = write_bundle(tmp_path)
        (folder / "net.bit").write_bytes((folder / "net.bit").read_bytes()[:-1] + b"!")
        assert self.refused(folder, board).startswith("bundle: net.bit must have the manifest's SHA-256 ")
        assert board.programmed == []

    def test_a_sample_that_no_transfer_holds(self, tmp_path: Path) -> None:
        def change(values: dict[str, Any]) -> None:
            values["dma"]["length_bits"] = 8
            values["inputs"][0]["shape"] = [300]

        assert self.refused(write_bundle(tmp_path, change=change), model(length_bits=8)) == (
            "board: a sample must have at most 252 bytes (8 bits of length), not 300; build the DMA with "
            "c_sg_length_width 26"
        )


class TestSelftest:
    """`selftest.main` from a bundle to its exit status."""

    def run(
        self, capsys: pytest.CaptureFixture[str], folder: Path, board: Any, *options: str
    ) -> tuple[int, Any]:
        """Return exit status and the one line of JSON."""
        status = selftest.main(["--json", "--repeat", "1", *options], folder, board)
        out = capsys.readouterr().out
        assert out.count("\n") == 1 and out.endswith("\n")
        return status, json.loads(out)

    @pytest.mark.parametrize("inputs", [ONE_INPUT, TWO_INPUTS])
    def test_equal_results_give_every_figure(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], inputs: tuple[Any, ...]
    ) -> None:
        status, found = self.run(capsys, write_bundle(tmp_path, inputs), model(inputs))
        assert status == 0 and list(found) == KEYS
        assert (found["ok"], found["samples"], found["max_error_lsb"], found["accuracy"]) == (True, 9, 0, 1.0)
        assert (found["backend"], found["clock_mhz"], found["design_id"]) == (
            "kernel",
            100.0,
            "0123456789abcdef",
        )
        words_in = 2 if inputs == ONE_INPUT else 4
        assert found["latency_cycles"] == words_in + 10  # of one sample
        assert found["cycles_per_sample"] == (9 * words_in + 9 * 3 + 10) / 9
        assert found["latency_us"] > 0 and found["throughput_samples_per_s"] > 0

    def test_a_design_without_monitor_or_labels_leaves_their_figures_out(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        folder = write_bundle(tmp_path, monitor=False, labels=False)
        status, found = self.run(capsys, folder, model(monitor=False), "--samples", "4")
        assert status == 0 and list(found) == KEYS and found["samples"] == 4
        assert [key for key, value in found.items() if value is None] == [
            "accuracy",
            "latency_cycles",
            "cycles_per_sample",
            "design_id",
        ]

    def test_one_lsb_is_enough_to_fail(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        folder = write_bundle(tmp_path)
        given = samples(ONE_INPUT, 9)[0][5].reshape(-1).tolist()

        def wrong(values: list[list[int]]) -> list[list[int]]:
            made = scores(values)
            made[0][2] += values[0] == given
            return made

        status, found = self.run(capsys, folder, model(function=wrong))
        expected = scores([given])[0][2]
        assert status == 1
        assert found == {
            "ok": False,
            "error": "selftest: the board must equal the golden vectors, but sample 5, output 'scores', index (2) is "
            f"{expected + 1} LSB in place of {expected} LSB (worst: 1 LSB); check power and clock, and that overlay "
            "and bundle are of one build",
            "diagnosis": {
                "sample": 5,
                "output": "scores",
                "index": [2],
                "expected": expected,
                "got": expected + 1,
                "max_error_lsb": 1,
                "samples": 9,
            },
        }

    def test_a_wrong_overlay_is_refused(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        board = model()
        board.monitor.design_id += 1  # type: ignore[union-attr]
        status, found = self.run(capsys, write_bundle(tmp_path), board)
        assert status == 2 and list(found) == ["ok", "error", "diagnosis"] and found["diagnosis"] is None
        assert "the overlay on the fabric is another design" in found["error"]

    def test_a_damaged_bundle_is_refused(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        folder = write_bundle(tmp_path)
        (folder / "golden.npz").write_bytes(b"")
        status, found = self.run(capsys, folder, model())
        assert status == 2 and found["error"].startswith(
            "bundle: golden.npz must have the manifest's SHA-256 "
        )

    def test_no_tlast_is_a_dma_failure_with_its_registers(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        board = model()
        reset = board.dma._control

        def faulty(channel: Any, value: int) -> None:
            reset(channel, value)
            board.dma.fault = "no_tlast"

        monkeypatch.setattr(board.dma, "_control", faulty)
        status, found = self.run(capsys, write_bundle(tmp_path), board, "--timeout", "0.02")
        assert status == 3 and list(found) == ["ok", "error", "diagnosis"]
        assert found["error"].startswith(
            "dma: the network must end the batch with TLAST, not leave S2MM open for 0.02 s"
        )
        assert found["diagnosis"]["cause"] == "no_tlast"
        assert found["diagnosis"]["registers"]["S2MM_DMASR"] == "0x00000000"
        assert found["diagnosis"]["monitor"]["output_words"] == 27

    def test_people_get_text(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert selftest.main(["--repeat", "1"], write_bundle(tmp_path), model()) == 0
        first, latency, rate, fabric = capsys.readouterr().out.splitlines()
        assert first.startswith("9 samples, 0 LSB, accuracy 100.00 % (kernel, Python 3.")
        assert latency.startswith("latency of a call with one sample: ") and rate.endswith(
            " samples/s (best)"
        )
        assert fabric == (
            "on the fabric: 12 clocks to the first result (0.12 us), 6.1 clocks a sample (16,363,636 samples/s); "
            "design 0123456789abcdef"
        )
        board = model()
        board.monitor.magic = 1  # type: ignore[union-attr]
        assert selftest.main([], tmp_path, board) == 2
        assert capsys.readouterr().out.startswith("failed: monitor: magic must be ")

    def test_what_nobody_foresaw_is_no_difference_but_refused(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        board = model()
        board.buffer = lambda size_bytes: 1 / 0  # type: ignore[method-assign,assignment,return-value]
        status, found = self.run(capsys, write_bundle(tmp_path), board)
        assert status == 2 and found["error"] == "selftest: stopped by ZeroDivisionError: division by zero"

    @pytest.mark.parametrize(
        "options", [["--samples", "0"], ["--timeout", "nan"], ["--repeat", "x"], ["--fast"]]
    )
    def test_options_that_make_no_sense_are_refused(self, options: list[str]) -> None:
        with pytest.raises(SystemExit) as caught:
            selftest.main(options)
        assert caught.value.code == 2


class TestCopiedToABoard:
    """The package is copied to a board with an old Python and an old numpy, and no other part of the flow."""

    MODULES = sorted(PACKAGE.glob("*.py"))

    @pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
    def test_every_module_is_python_3_8_and_imports_only_what_is_there(self, path: Path) -> None:
        tree = ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 8))
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    name = alias.name.split(".")[0]
                    assert name == "numpy" or name in sys.stdlib_module_names, f"{path.name} imports {name}"
            elif isinstance(node, ast.ImportFrom) and not node.level:
                name = str(node.module).split(".")[0]
                assert name in sys.stdlib_module_names, f"{path.name} imports {name}"
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 1, f"{path.name} reaches out of the package"
        if any(isinstance(node, ast.FunctionDef) for node in ast.walk(tree)):
            assert "from __future__ import annotations" in path.read_text()  # X | Y in annotations only

    @pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
    def test_no_module_uses_what_came_after_3_8(self, path: Path) -> None:
        later = {
            "removeprefix",
            "removesuffix",
            "is_relative_to",
            "bit_count",
            "pairwise",
            "readlink",
            "hardlink_to",
        }
        later |= {"cache", "lcm", "nextafter", "randbytes", "with_stem", "to_thread"}
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            assert not isinstance(node, ast.Match | ast.TryStar)
            if isinstance(node, ast.Attribute):
                assert node.attr not in later, f"{path.name}:{node.lineno} {node.attr}"
            if isinstance(node, ast.Call):
                names = {keyword.arg for keyword in node.keywords}
                assert not names & {"strict", "slots", "kw_only"}, f"{path.name}:{node.lineno} {names}"

    def test_the_script_of_a_bundle_runs_without_the_flow(self, tmp_path: Path) -> None:
        folder = write_bundle(tmp_path)
        shutil.copytree(PACKAGE, folder / "flow_board", ignore=shutil.ignore_patterns("__pycache__"))
        (folder / "selftest.py").write_text(SELFTEST_SCRIPT)
        assert SELFTEST_SCRIPT.count("\n") == 5
        watched = "import runpy, sys; sys.argv = ['selftest.py', '--json']\n" + (
            "try: runpy.run_path('selftest.py', run_name='__main__')\n"
            "finally: assert not [name for name in sys.modules if name.split('.')[0] in ('flow', 'pynq')]"
        )
        done = subprocess.run([sys.executable, "-c", watched], cwd=folder, capture_output=True, text=True)
        assert done.returncode == 2, done.stderr
        found = json.loads(done.stdout)
        assert found["ok"] is False and found["error"].startswith(
            "kernel: /sys/class/fpga_manager/fpga0/name must be "
        )


def test_the_model_keeps_the_processors_cache_apart_from_memory(tmp_path: Path) -> None:
    board = model()
    with Accelerator(write_bundle(tmp_path), board) as network:
        board.buffers[0].flush = lambda size_bytes: None  # type: ignore[method-assign]
        got = np.asarray(network.run_lsb(samples(ONE_INPUT, 3)[0]))
    assert not got.any() and (IMAGE.size, SCORES.size) == (6, 3)
