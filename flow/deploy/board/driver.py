"""A programmed network as an object: batches in, results out."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from types import TracebackType

import numpy as np

from . import bitfile, words
from . import manifest as manifests
from .backend import Backend, Buffer
from .dma import AxiDma
from .errors import BoardError, DmaError
from .monitor import Monitor

BUFFER_BYTES = 1 << 20
"""Of each of the two buffers: long transfers gain nothing more, and boards have this much to spare."""


class Accelerator:
    """The network of a bundle, on the fabric.

    Opening it checks the bundle's files, programs the fabric, and checks clock and design. `close` frees the buffers;
    the fabric stays programmed.

    Args:
        folder: the bundle.
        backend: the board's software; ``None``: PYNQ where it is installed, else the kernel.
        timeout_s: how long a transfer may take.
        buffer_bytes: of each of the two buffers; longer batches go in several transfers.

    Raises:
        BoardError: a file, the part, the clock or the design on the fabric is not the manifest's.
        DmaError: the DMA does not answer.
    """

    def __init__(
        self,
        folder: Path | str,
        backend: Backend | None = None,
        timeout_s: float = 2.0,
        buffer_bytes: int = BUFFER_BYTES,
    ) -> None:
        self.folder, self.timeout_s = Path(folder), timeout_s
        self.manifest = manifests.read(self.folder)
        manifests.check_files(self.folder, self.manifest)
        bitstream = self.folder / self.manifest.bitstream.name
        bitfile.check_part(bitstream, self.manifest.part)
        self.backend = choose(self.manifest) if backend is None else backend
        self._buffers: list[Buffer] = []
        self.monitor: Monitor | None = None
        try:
            self.clock_mhz = self.backend.program(bitstream, self.manifest.clock_mhz)
            self._open_registers()
            self._open_buffers(buffer_bytes)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Accelerator:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Free the buffers and the registers."""
        for buffer in self._buffers:
            buffer.close()
        self._buffers = []
        self.backend.close()

    def run(self, batch: np.ndarray | Sequence[np.ndarray]) -> np.ndarray | tuple[np.ndarray, ...]:
        """Return what the network makes of numbers.

        Args:
            batch: (samples, *shape); a tuple of arrays for several inputs. Numbers are rounded half to even to the
                input's grid and saturated.

        Returns:
            float64 (samples, *shape); a tuple of arrays for several outputs.

        Raises:
            ValueError: a shape is not the input's, or a value is no number.
            DmaError: a transfer failed; see `flow_board.dma`.
        """
        ports = self.manifest.inputs
        given = self._arrays(batch)
        lsb = [words.to_lsb(ports[number], given[number]) for number in range(len(ports))]
        made = self._run(lsb)
        outputs = self.manifest.outputs
        return _one_or_all([words.to_real(outputs[number], made[number]) for number in range(len(outputs))])

    def run_lsb(self, batch: np.ndarray | Sequence[np.ndarray]) -> np.ndarray | tuple[np.ndarray, ...]:
        """Return what the network makes of integers, as integers; see `run`.

        Raises:
            ValueError: a shape is not the input's, or a value is outside its type.
            DmaError: a transfer failed.
        """
        return _one_or_all(self._run(self._arrays(batch)))

    @property
    def samples_per_transfer(self) -> int:
        """Return how many samples go in one transfer."""
        inputs, outputs = self._frame_bytes()
        return min(self._buffers[0].array.nbytes // inputs, self._buffers[1].array.nbytes // outputs)

    def _open_registers(self) -> None:
        place, span = self.manifest.dma, self.manifest.monitor
        if span is not None:
            self.monitor = Monitor(self.backend.registers(span.address, span.span_bytes))
            self.monitor.check(span.design_id, self.manifest.clock_mhz)
            self.monitor.reset_network()
        self.dma = AxiDma(
            self.backend.registers(place.address, place.span_bytes),
            place.length_bits,
            place.address_bits,
            None if self.monitor is None else self.monitor.counters,
        )
        self.dma.reset()

    def _open_buffers(self, buffer_bytes: int) -> None:
        """Allocate as many frames for the results as for the samples."""
        frames = self._frame_bytes()
        if max(frames) > self.dma.largest_bytes:
            raise BoardError(
                f"board: a sample must have at most {self.dma.largest_bytes} bytes ({self.dma.length_bits} bits of "
                f"length), not {max(frames)}; build the DMA with c_sg_length_width 26"
            )
        samples = max(1, min(buffer_bytes, self.dma.largest_bytes) // max(frames))
        for size_bytes in frames:
            self._buffers.append(self.backend.buffer(samples * size_bytes))

    def _frame_bytes(self) -> tuple[int, int]:
        return (
            words.WORD_BYTES * words.frame_words(self.manifest.inputs),
            words.WORD_BYTES * words.frame_words(self.manifest.outputs),
        )

    def _arrays(self, batch: np.ndarray | Sequence[np.ndarray]) -> list[np.ndarray]:
        arrays = (
            [np.asarray(array) for array in batch]
            if isinstance(batch, (tuple, list))
            else [np.asarray(batch)]
        )
        if len(arrays) != len(self.manifest.inputs):
            names = ", ".join(port.name for port in self.manifest.inputs)
            raise ValueError(
                f"batch must be a tuple of arrays for {names}, not {len(arrays)} arrays; add the others"
            )
        return arrays

    def _run(self, lsb: Sequence[np.ndarray]) -> list[np.ndarray]:
        if not self._buffers:
            raise BoardError("board: it must be open, not closed; make a new Accelerator")
        given = words.pack(self.manifest.inputs, lsb)
        made = np.empty((len(given), words.frame_words(self.manifest.outputs)), np.uint32)
        step = self.samples_per_transfer
        for first in range(0, len(given), step):
            self._transfer(given[first : first + step], made[first : first + step])
        return words.unpack(self.manifest.outputs, made)

    def _transfer(self, given: np.ndarray, made: np.ndarray) -> None:
        source, destination = self._buffers
        source.array[: given.size] = given.reshape(-1)
        source.flush(given.nbytes)
        destination.flush(made.nbytes)  # no dirty line may be written over the result later
        if self.monitor is not None:
            self.monitor.clear()
        try:
            self.dma.transfer(source.address, given.nbytes, destination.address, made.nbytes, self.timeout_s)
        except DmaError as error:
            self._recover(error)
            raise
        destination.invalidate(made.nbytes)
        made.reshape(-1)[:] = destination.array[: made.size]

    def _recover(self, error: DmaError) -> None:
        """Empty the network of what the failed batch left in it."""
        if self.monitor is None:
            error.args = (
                f"{error}; without a monitor the network keeps what it holds: open the bundle again",
            )
            return
        try:
            self.monitor.reset_network()
        except BoardError as second:
            error.args = (f"{error}; then {second}",)


def _one_or_all(arrays: list[np.ndarray]) -> np.ndarray | tuple[np.ndarray, ...]:
    return arrays[0] if len(arrays) == 1 else tuple(arrays)


def choose(manifest: manifests.Manifest) -> Backend:
    """Return PYNQ's backend where PYNQ is importable, and the kernel's otherwise."""
    try:
        import_module("pynq")
    except ImportError:
        from .kernel_backend import KernelBackend

        return KernelBackend(manifest.ps, manifest.crystal_mhz)
    from .pynq_backend import PynqBackend

    return PynqBackend(manifest.ps, manifest.crystal_mhz)
