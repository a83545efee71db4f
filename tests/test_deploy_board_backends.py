"""The two ways to a board: PYNQ's modules faked, and the kernel's files in a folder with a thread for the DMA."""

from __future__ import annotations

import mmap
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from board_bundle import CONFIGURATION, ONE_INPUT, bit_file, model, network, results, samples, write_bundle
from dma_model import DMA_ADDRESS, MEMORY_ADDRESS, BoardModel, DmaModel, Memory

from flow.deploy.board import clocks, driver, manifest
from flow.deploy.board.driver import Accelerator
from flow.deploy.board.errors import BoardError
from flow.deploy.board.kernel_backend import KernelBackend
from flow.deploy.board.pynq_backend import PynqBackend

# ---------------------------------------------------------------- PYNQ


class FakeMemory(np.ndarray):
    """PYNQ's buffer: an array whose slices know where they lie."""

    board: Any = None

    def __array_finalize__(self, whole: Any) -> None:
        self.board = getattr(whole, "board", None)

    def flush(self) -> None:
        self.board.log.append(("flush", self.nbytes))

    def invalidate(self) -> None:
        self.board.log.append(("invalidate", self.nbytes))


class OldMemory(FakeMemory):
    """Of releases whose buffers have a physical address, and are freed by ``close``."""

    @property
    def physical_address(self) -> int:
        return MEMORY_ADDRESS + self.board.offsets[self.ctypes.data]

    def close(self) -> None:
        self.board.log.append(("free", self.nbytes))


class NewMemory(FakeMemory):
    """Of releases whose buffers have a device address; ``close`` does nothing there."""

    @property
    def device_address(self) -> int:
        return MEMORY_ADDRESS + self.board.offsets[self.ctypes.data]

    def close(self) -> None:
        raise AssertionError("does nothing in this release")

    def freebuffer(self) -> None:
        self.board.log.append(("free", self.nbytes))


class FakePynq:
    """The modules ``pynq`` and ``pynq.ps`` over a modelled board."""

    def __init__(self, board: BoardModel, kind: type[FakeMemory], rate_mhz: float = 100.0) -> None:
        self.board, self.kind, self.stubborn = board, kind, False
        self.log: list[tuple[str, int]] = []
        self.offsets: dict[int, int] = {}
        self.overlays: list[str] = []
        self.failure: Exception | None = None
        fake = self

        class ClocksMeta(type):
            @property
            def fclk0_mhz(cls) -> float:
                return fake.rate_mhz

            @fclk0_mhz.setter
            def fclk0_mhz(cls, value: float) -> None:
                fake.rate_mhz = fake.rate_mhz if fake.stubborn else value

        self.rate_mhz = rate_mhz
        self.pynq, self.ps = ModuleType("pynq"), ModuleType("pynq.ps")
        self.pynq.Overlay = self.overlay  # type: ignore[attr-defined]
        self.pynq.MMIO = self.mmio  # type: ignore[attr-defined]
        self.pynq.allocate = self.allocate  # type: ignore[attr-defined]
        self.ps.Clocks = ClocksMeta("Clocks", (), {})  # type: ignore[attr-defined]

    def overlay(self, path: str) -> object:
        if self.failure is not None:
            raise self.failure
        self.overlays.append(path)
        return object()

    def mmio(self, address: int, length: int) -> SimpleNamespace:
        registers = self.board.registers(address, length)

        class Array:
            def __getitem__(self, index: int) -> np.uint32:
                return np.uint32(registers.read(4 * index))

            def __setitem__(self, index: int, value: np.uint32) -> None:
                assert isinstance(value, np.uint32)
                registers.write(4 * index, int(value))

        return SimpleNamespace(array=Array())

    def allocate(self, shape: tuple[int, ...], dtype: type) -> FakeMemory:
        if self.failure is not None:
            raise self.failure
        offset = sum(-(-region.nbytes // 4096) * 4096 for region in self.board.memory.regions.values())
        region = self.board.memory.add(MEMORY_ADDRESS + offset, 4 * shape[0])
        self.offsets[region.ctypes.data] = offset
        memory = region.view(self.kind)
        memory.board = self
        assert dtype is np.uint32
        return memory


@pytest.fixture
def fake_pynq(monkeypatch: pytest.MonkeyPatch) -> Callable[..., FakePynq]:
    def made(kind: type[FakeMemory] = NewMemory, rate_mhz: float = 100.0) -> FakePynq:
        fake = FakePynq(model(), kind, rate_mhz)
        monkeypatch.setitem(sys.modules, "pynq", fake.pynq)
        monkeypatch.setitem(sys.modules, "pynq.ps", fake.ps)
        return fake

    return made


@pytest.mark.parametrize("kind", [OldMemory, NewMemory])
def test_pynq_drives_the_board_in_both_generations(
    tmp_path: Path, fake_pynq: Callable[..., FakePynq], kind: type[FakeMemory]
) -> None:
    fake = fake_pynq(kind)
    given = samples(ONE_INPUT, 20)
    with Accelerator(write_bundle(tmp_path)) as board:
        assert board.backend.name == "pynq" and board.clock_mhz == 100.0
        assert np.array_equal(board.run_lsb(given[0]), results(given))
        # only what is used: a whole buffer takes longer than a sample
        assert fake.log == [("flush", 160), ("flush", 240), ("invalidate", 240)]
    assert fake.overlays == [str(tmp_path / "net.bit")]
    assert [name for name, _ in fake.log[3:]] == ["free", "free"]


def test_pynq_comes_before_the_kernel_where_it_is_installed(
    fake_pynq: Callable[..., FakePynq], tmp_path: Path
) -> None:
    read = manifest.read(write_bundle(tmp_path))
    assert isinstance(driver.choose(read), KernelBackend)
    fake_pynq()
    assert isinstance(driver.choose(read), PynqBackend)


def test_pynqs_clock_is_read_with_the_boards_crystal(fake_pynq: Callable[..., FakePynq]) -> None:
    fake_pynq(rate_mhz=150.0)  # what PYNQ, which takes 50 MHz for granted, says of 100 MHz from 33.3 MHz
    rate = PynqBackend("zynq7000", 100 / 3).program(Path("net.bit"), 100.0)
    assert rate == pytest.approx(100.0)
    fake_pynq(rate_mhz=100.0)
    assert PynqBackend("zynq_ultrascale", 33.333333).program(Path("net.bit"), 100.0) == pytest.approx(
        100.0, 1e-4
    )


def test_pynqs_clock_is_set_where_the_overlay_left_it_elsewhere(fake_pynq: Callable[..., FakePynq]) -> None:
    fake = fake_pynq(rate_mhz=62.5)
    assert PynqBackend("zynq7000", 50.0).program(Path("net.bit"), 100.0) == 100.0
    fake.rate_mhz, fake.stubborn = 62.5, True
    with pytest.raises(BoardError) as caught:
        PynqBackend("zynq7000", 50.0).program(Path("net.bit"), 100.0)
    assert str(caught.value) == (
        "pynq: fabric clock must be the 100 MHz that the design is built for, not the 62.5 MHz that FCLK0 is set to; "
        "build for a rate that the PLL divides to"
    )
    fake.rate_mhz = 100.9
    assert PynqBackend("zynq7000", 50.0).program(Path("net.bit"), 100.0) == 100.9


def test_what_pynq_raises_is_said(fake_pynq: Callable[..., FakePynq]) -> None:
    fake = fake_pynq()
    fake.failure = RuntimeError("no XRT")
    with pytest.raises(BoardError) as caught:
        PynqBackend("zynq7000", 50.0).program(Path("net.bit"), 100.0)
    assert str(caught.value) == (
        "pynq: overlay net.bit must load, not fail (RuntimeError: no XRT); run as root in PYNQ's environment, with the "
        ".hwh file beside it"
    )
    with pytest.raises(BoardError) as caught:
        PynqBackend("zynq7000", 50.0).buffer(4096)
    assert str(caught.value) == (
        "pynq: 4096 bytes of contiguous memory must be free, not fail (no XRT); end programs that hold buffers, or "
        "boot with a larger cma="
    )


# ---------------------------------------------------------------- the kernel

SLCR = 0xF8000000
MEMORY_BYTES = 1 << 16


class Tree:
    """A folder with the files of a Zynq's kernel; the DMA's registers and the memory are files that are mapped."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.write("sys/class/fpga_manager/fpga0/name", "Xilinx Zynq FPGA Manager\n")
        self.write("sys/class/fpga_manager/fpga0/state", "operating\n")
        self.write("sys/class/u-dma-buf/udmabuf0/phys_addr", f"{MEMORY_ADDRESS:#010x}\n")
        self.write("sys/class/u-dma-buf/udmabuf0/size", f"{MEMORY_BYTES}\n")
        for name, size in (("mem", SLCR + 0x1000), ("udmabuf0", MEMORY_BYTES)):
            (root / "dev").mkdir(exist_ok=True)
            with (root / "dev" / name).open("wb") as file:
                file.truncate(size)  # sparse: it takes no room
        slcr = self.registers(SLCR)
        slcr[0x108 // 4] = 30 << 12  # 50 MHz * 30
        slcr[0x170 // 4] = 1 << 20 | 15 << 8

    def write(self, path: str, text: str) -> None:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(text)

    def read(self, path: str) -> str:
        return (self.root / path).read_text()

    def registers(self, address: int) -> np.ndarray:
        with (self.root / "dev/mem").open("r+b") as file:
            return np.frombuffer(mmap.mmap(file.fileno(), 0x1000, offset=address), np.uint32)

    def memory(self) -> np.ndarray:
        with (self.root / "dev/udmabuf0").open("r+b") as file:
            return np.frombuffer(mmap.mmap(file.fileno(), MEMORY_BYTES), np.uint32)


class DmaThread(threading.Thread):
    """Plays the DMA on mapped registers: it sees what is written, and writes what the model's registers say."""

    def __init__(self, tree: Tree) -> None:
        super().__init__(daemon=True)
        self.registers, memory = tree.registers(DMA_ADDRESS), Memory()
        memory.regions[MEMORY_ADDRESS] = tree.memory()
        self.model, self.over = DmaModel(memory, network(ONE_INPUT), polls=1), threading.Event()
        self.show(0x04, 0x34)

    def show(self, *offsets: int) -> None:
        for offset in offsets:
            self.registers[offset // 4] = self.model.read(offset)

    def run(self) -> None:
        while not self.over.is_set():
            self.step()
            time.sleep(1e-4)

    def step(self) -> None:
        for offset in (0x00, 0x30):
            control = int(self.registers[offset // 4])
            if control != self.model.read(offset):
                self.model.write(offset, control)
                # the driver writes too: only a reset, for whose end it waits, may change a control register
                self.show(*((0x30, 0x04, 0x34, 0x00) if control & 4 else (offset + 4,)))
        length = int(self.registers[0x28 // 4])
        if length:  # the other channel is armed by then
            for offset in (0x48, 0x58, 0x18, 0x28):
                self.model.write(offset, int(self.registers[offset // 4]))
            self.registers[0x28 // 4] = 0
            self.model.read(0x04)
            self.show(0x58, 0x04, 0x34)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    (tmp_path / "root").mkdir()
    return Tree(tmp_path / "root")


@pytest.fixture
def playing(tree: Tree) -> Iterator[Tree]:
    thread = DmaThread(tree)
    thread.show(0x00, 0x30)
    thread.start()
    yield tree
    thread.over.set()
    thread.join()


def test_the_kernel_alone_drives_the_board(playing: Tree, tmp_path: Path) -> None:
    given = samples(ONE_INPUT, 30)
    folder = write_bundle(tmp_path / "bundle", monitor=False)
    with Accelerator(folder, KernelBackend("zynq7000", 50.0, playing.root), buffer_bytes=120) as board:
        assert board.clock_mhz == 100.0
        assert np.array_equal(board.run_lsb(given[0]), results(given))
        again = samples(ONE_INPUT, 1, seed=3)
        assert np.array_equal(board.run_lsb(again[0]), results(again))
    fpga = "sys/class/fpga_manager/fpga0"
    assert (playing.read(f"{fpga}/flags"), playing.read(f"{fpga}/firmware")) == ("0", "flow_net.bin")
    # the last call: a sample's 8 bytes at the memory's start; 12 bytes of result, as 16, on the next page
    sync = "sys/class/u-dma-buf/udmabuf0/sync_for"
    assert playing.read(f"{sync}_device") == "0x0000100000000015"
    assert playing.read(f"{sync}_cpu") == "0x0000100000000019"


def test_the_bitstream_is_written_with_its_words_reversed(tree: Tree, tmp_path: Path) -> None:
    (tmp_path / "net.bit").write_bytes(bit_file())
    KernelBackend("zynq7000", 50.0, tree.root).program(tmp_path / "net.bit", 100.0)
    written = (tree.root / "lib/firmware/flow_net.bin").read_bytes()
    assert b"\x66\x55\x99\xaa" in written
    assert written == b"".join(CONFIGURATION[at : at + 4][::-1] for at in range(0, len(CONFIGURATION), 4))


def program(tree: Tree, tmp_path: Path, words: bytes = CONFIGURATION) -> str:
    """Return why programming is refused."""
    (tmp_path / "net.bit").write_bytes(bit_file(words=words))
    with pytest.raises(BoardError) as caught:
        KernelBackend("zynq7000", 50.0, tree.root).program(tmp_path / "net.bit", 100.0)
    return str(caught.value)


def test_a_bitstream_without_a_sync_word_is_refused(tree: Tree, tmp_path: Path) -> None:
    for words in (bytes(64), b"\xff\xaa\x99\x55\x66\xff\xff\xff"):
        assert program(tree, tmp_path, words) == (
            "bitstream: net.bit must hold a sync word, not none; build or copy it again"
        )


def test_every_piece_of_the_kernel_that_is_missing_is_named(tree: Tree, tmp_path: Path) -> None:
    fpga = tree.root / "sys/class/fpga_manager/fpga0"
    (fpga / "state").write_text("write init error\n")
    assert program(tree, tmp_path) == (
        "kernel: fpga0's state must be 'operating' after programming, not 'write init error'; see dmesg"
    )
    (fpga / "firmware").unlink()
    (fpga / "firmware").mkdir()
    assert program(tree, tmp_path) == (
        f"kernel: fpga0 must take flow_net.bin, not fail ([Errno 21] Is a directory: '{fpga}/firmware'); state 'write "
        "init error': see dmesg"
    )
    (fpga / "name").write_text("Xilinx ZynqMP FPGA Manager\n")
    assert program(tree, tmp_path) == (
        "kernel: fpga0 must be a Zynq's, as the bundle is, not 'Xilinx ZynqMP FPGA Manager'; take the bundle that is "
        "built for this board"
    )
    (fpga / "name").unlink()
    assert program(tree, tmp_path) == (
        f"kernel: {fpga}/name must be there, not missing ([Errno 2] No such file or directory: '{fpga}/name'); boot a "
        "kernel with CONFIG_FPGA and the chip's manager, or install PYNQ"
    )


def test_a_program_without_root_is_told_so(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(path: str, flags: int) -> int:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "open", denied)
    kernel = KernelBackend("zynq7000", 50.0, tree.root)
    with pytest.raises(BoardError) as caught:
        kernel.registers(DMA_ADDRESS, 4096)
    assert str(caught.value) == (
        f"kernel: {tree.root}/dev/mem must open, not fail ([Errno 13] Permission denied: '{tree.root}/dev/mem'); "
        "run as root"
    )
    with pytest.raises(BoardError, match=r"^u-dma-buf: .*/dev/udmabuf0 must open, not fail .*; run as root$"):
        kernel.buffer(4096)


def test_dma_memory_that_is_missing_or_too_small_is_named(tree: Tree) -> None:
    kernel = KernelBackend("zynq7000", 50.0, tree.root)
    first, second = kernel.buffer(5000), kernel.buffer(100)
    assert (first.address, second.address) == (MEMORY_ADDRESS, MEMORY_ADDRESS + 8192)
    assert (first.array.size, second.array.size) == (1250, 25)
    second.array[:] = 7
    assert tree.memory()[8192 // 4 :][:26].tolist() == [7] * 25 + [0]
    with pytest.raises(BoardError) as caught:
        kernel.buffer(MEMORY_BYTES)
    assert str(caught.value) == (
        "u-dma-buf: udmabuf0 must have 77824 bytes, not 65536; load the module with more: rmmod u-dma-buf; insmod "
        "u-dma-buf.ko udmabuf0=77824"
    )
    kernel.close()
    (tree.root / "sys/class/u-dma-buf/udmabuf0/size").write_text("many")
    with pytest.raises(
        BoardError, match=r"udmabuf0/size must hold a number, not fail .*; load the module: insmod"
    ):
        kernel.buffer(4096)
    (tree.root / "sys/class/u-dma-buf/udmabuf0").rename(tree.root / "gone")
    with pytest.raises(
        BoardError, match=r"udmabuf0/phys_addr must hold a number, not fail .*; load the module: insmod"
    ):
        kernel.buffer(4096)


# ---------------------------------------------------------------- clocks


class RegisterFile:
    """Plain registers that remember their writes; those in ``fixed`` do not change."""

    def __init__(self, values: dict[int, int], fixed: tuple[int, ...] = ()) -> None:
        self.values, self.fixed, self.writes = values, fixed, []

    def read(self, offset: int) -> int:
        return self.values.get(offset, 0)

    def write(self, offset: int, value: int) -> None:
        self.writes.append((offset, value))
        if offset not in self.fixed:
            self.values[offset] = value


def clock(ps: str, registers: RegisterFile, crystal_mhz: float) -> clocks.FabricClock:
    return clocks.FabricClock(ps, crystal_mhz, lambda address, span: registers)


def test_a_right_clock_is_left_alone() -> None:
    registers = RegisterFile({0x108: 30 << 12, 0x170: 1 << 20 | 15 << 8})
    assert clock("zynq7000", registers, 50.0).set(100.0) == 100.0
    assert registers.writes == []


@pytest.mark.parametrize("locked", [0, 1])
def test_a_zynqs_clock_is_set_and_its_lock_left_as_found(locked: int) -> None:
    registers = RegisterFile({0x108: 30 << 12, 0x170: 1 << 20 | 30 << 8, 0x0C: locked, 0x178: 1})
    assert clock("zynq7000", registers, 100 / 3).set(100.0) == pytest.approx(100.0)
    writes = [(0x170, 1 << 20 | 10 << 8), (0x178, 0)]
    assert registers.writes == ([(0x08, 0xDF0D), *writes, (0x04, 0x767B)] if locked else writes)


def test_a_zynqs_clock_that_is_stopped_is_started() -> None:
    registers = RegisterFile({0x108: 30 << 12, 0x170: 1 << 20 | 15 << 8, 0x178: 1})
    assert clock("zynq7000", registers, 50.0).rate_mhz() == 0
    assert clock("zynq7000", registers, 50.0).set(100.0) == 100.0


@pytest.mark.parametrize(("source", "offset"), [(0, 0x108), (1, 0x108), (2, 0x100), (3, 0x104)])
def test_every_source_of_a_zynqs_clock_is_read(source: int, offset: int) -> None:
    registers = RegisterFile({offset: 32 << 12, 0x170: 2 << 20 | source << 4 | 8 << 8})
    assert clock("zynq7000", registers, 50.0).rate_mhz() == 100.0


def test_an_ultrascales_clock_is_set_switched_on_and_taken_from_a_known_pll() -> None:
    registers = RegisterFile({0x20: 90 << 8 | 1 << 16, 0xC0: 1 << 24 | 1 << 16 | 15 << 8})
    assert clock("zynq_ultrascale", registers, 100 / 3).set(100.0) == pytest.approx(100.0)
    assert registers.writes == []
    registers.values[0xC0] = 1 << 16 | 15 << 8 | 3
    assert clock("zynq_ultrascale", registers, 100 / 3).rate_mhz() == 0
    assert clock("zynq_ultrascale", registers, 100 / 3).set(187.5) == pytest.approx(187.5)
    assert registers.writes == [(0xC0, 1 << 24 | 1 << 16 | 8 << 8)]


def test_of_two_rates_equally_far_the_slower_is_set_with_the_smaller_second_divider() -> None:
    registers = RegisterFile(
        {0x108: 64 << 12, 0x170: 1 << 20 | 8 << 8}
    )  # 4032 MHz: 64 MHz by 63, 63 MHz by 64
    assert clock("zynq7000", registers, 63.0).set(63.5) == 63.0
    assert registers.values[0x170] == 2 << 20 | 32 << 8


@pytest.mark.parametrize("wanted_mhz", [10.0, 33.3, 100.0, 136.0, 166.7, 187.5, 250.0])
def test_dividers_give_the_nearest_rate(wanted_mhz: float) -> None:
    registers = RegisterFile({0x108: 30 << 12, 0x170: 0})
    found = clock("zynq7000", registers, 50.0).set(wanted_mhz)
    best = min(abs(1500 / divider - wanted_mhz) for divider in range(1, 64 * 63))
    assert abs(found - wanted_mhz) == pytest.approx(best)
    assert registers.values[0x170] >> 20 & 63 >= 1 and registers.values[0x170] >> 8 & 63 >= 1


def test_a_rate_that_is_not_reached_or_not_taken_is_an_error() -> None:
    registers = RegisterFile({0x108: 20 << 12, 0x170: 1 << 20 | 10 << 8})
    with pytest.raises(BoardError) as caught:
        clock("zynq7000", registers, 50.0).set(300.0)
    assert str(caught.value) == (
        "clock: FPGA0_CLK_CTRL (0xf8000170) must give the 300 MHz that the design is built for, not 333.333 MHz "
        "(0x00100300); check crystal_mhz, and whether the firmware lets Linux set it"
    )
    registers = RegisterFile({0x20: 90 << 8 | 1 << 16, 0xC0: 1 << 24 | 1 << 16 | 30 << 8}, fixed=(0xC0,))
    with pytest.raises(
        BoardError, match=r"^clock: PL0_REF_CTRL \(0xff5e00c0\) must give the 100 MHz .* not 50 MHz"
    ):
        clock("zynq_ultrascale", registers, 100 / 3).set(100.0)
