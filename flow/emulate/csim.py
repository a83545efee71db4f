"""csim: the HLS project compiled by g++ with its own test bench."""

from __future__ import annotations

import os
import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flow.build import plan
from flow.build.children import together
from flow.build.objects import Objects, digest
from flow.errors import ConfigError, ToolError
from flow.resources import data_folder
from flow.types import Command, HlsProject, Plan

HEADERS = ("light", "vendor")
SLICE = 16
"""Samples that a process runs at least: starting one takes as long as a few of them."""
_SHOWN = 8
_TOO_WIDE = "flow-emulation:"
_OUT_OF_MEMORY = re.compile(
    r"out of memory|\bkilled\b|cannot allocate memory|virtual memory exhausted", re.IGNORECASE
)


def check_header(header: str) -> None:
    """Refuse headers that there are not (`ConfigError`)."""
    if header not in HEADERS:
        raise ConfigError(
            f"[emulate]: header must be one of {', '.join(HEADERS)}, not {header!r}; give one of them"
        )


@dataclass(frozen=True)
class _Unit:
    """One file to compile; ``seen``: what its object depends on beside the headers that all designs share."""

    name: str
    source: Path
    seen: tuple[Path, ...]
    options: tuple[str, ...] = ()


class Csim:
    """A compiled HLS project in ``folder``.

    Args:
        design: the HLS project.
        folder: where the program is linked and runs; made if it is missing.
        compiler: a C++17 compiler on PATH.
        optimization: its optimization option; -O1 compiles in half the time of -O2 and runs as fast.
        timeout_s: limit for each program.
        header: the headers of ap_fixed, ap_int and hls::stream: ``light`` are ours
            (``hls_templates/cpp/emulation``), ``vendor`` those that hls4ml ships. A design with numbers too wide for
            ours gets the vendor's; `header` says after `build` which it was.
        jobs: processes that compile and that run samples at a time; ``None``: one a core.
        cache: where compiled objects are kept; ``None``: in the user's cache folder.

    Raises:
        ConfigError: an unknown header, or no jobs.
    """

    def __init__(
        self,
        design: HlsProject,
        folder: Path,
        compiler: str = "g++",
        optimization: str = "-O1",
        timeout_s: float = 1800,
        *,
        header: str = "light",
        jobs: int | None = None,
        cache: Path | None = None,
    ) -> None:
        check_header(header)
        if jobs is not None and jobs < 1:
            raise ConfigError(f"[emulate]: jobs must be at least 1, not {jobs}; leave it out for one a core")
        self.design = design
        self.folder = folder.resolve()
        self.compiler = compiler
        self.optimization = optimization
        self.timeout_s = timeout_s
        self.header = header
        self.jobs = jobs or len(os.sched_getaffinity(0))
        self.objects = Objects(cache)

    # ------------------------------------------------------------ building

    def build(self) -> float:
        """Compile and link; returns the seconds it took.

        Raises:
            ToolError: the compiler is missing, fails, runs out of memory or past its time limit.
        """
        start = time.perf_counter()
        self.folder.mkdir(parents=True, exist_ok=True)
        weights = self.folder / "weights"  # where hls4ml's C++ looks for them, outside of synthesis
        weights.unlink(missing_ok=True)  # of a design that was built here before
        weights.symlink_to(self.design.path.resolve() / "firmware" / "weights")
        plan.require(self.compiler, "emulate")
        try:
            self._build()
        except ToolError as error:
            if self.header == "vendor" or _TOO_WIDE not in str(error):
                raise
            self.header = "vendor"
            self._build()
        return time.perf_counter() - start

    def _build(self) -> None:
        """Compile what the cache does not have, and link."""
        shared = self._header_key()
        if self._light:
            self.objects.get(*shared, self._precompile)
        objects = together(lambda unit: self._object(unit, shared), self._units(shared), self.jobs)
        self._call(Command((self.compiler, *map(str, objects), "-o", "csim"), "link.log"), "csim")

    def _precompile(self, path: Path) -> None:
        source = path.with_suffix("")
        source.write_bytes((_emulation() / source.name).read_bytes())
        argv = (self.compiler, *self._flags(), "-x", "c++-header", str(source), "-o", str(path))
        self._call(Command(argv, "csim.h.log"), path)

    def _object(self, unit: _Unit, shared: tuple[str, str]) -> Path:
        def make(path: Path) -> None:
            argv = (self.compiler, *self._flags(), *unit.options, "-c", str(unit.source), "-o", str(path))
            self._call(Command(argv, f"{unit.name}.log"), path)

        key = digest((shared[0], unit.name), unit.seen)
        return self.objects.get(key, f"{unit.name}.o", make)

    @property
    def _light(self) -> bool:
        return self.header == "light"

    def _flags(self) -> tuple[str, ...]:
        root = self.design.path.resolve()
        if self._light:
            standard, folders = "-std=c++17", [_emulation(), root / "firmware", root / "tb"]
        else:
            names = ("firmware", "firmware/ap_types", "tb", "tb/emulation")
            standard, folders = "-std=c++14", [root / name for name in names]
        return (standard, self.optimization, "-w", *(f"-I{folder}" for folder in folders))

    def _units(self, shared: tuple[str, str]) -> tuple[_Unit, ...]:
        """Return what is compiled: the network with its top in one go, and the test bench, the same for all designs."""
        root, top = self.design.path.resolve(), self.design.top
        firmware = root / "firmware"
        declared = (*sorted(firmware.glob("*.[ch]*")), *sorted((firmware / "weights").glob("*.h")))
        bench, config = (root / "tb" / name for name in ("testbench.cpp", "tb_config.h"))
        first = (self.objects.path(*shared).with_suffix(""),) if self._light else ()
        before = [("-include", str(path)) for path in (*first, config, firmware / f"{top}.cpp")]
        seen = (bench.with_suffix(".h"), config, *declared)
        units = [
            _Unit("net", firmware / f"{top}_axis.cpp", seen, tuple(word for pair in before for word in pair)),
            _Unit("testbench", bench, (bench, bench.with_suffix(".h")), ("-DFLOW_DESIGN_APART",)),
        ]
        if self._light:
            source = _emulation() / "csim.cpp"
            units.append(_Unit("csim", source, (source,)))
        return tuple(units)

    def _header_key(self) -> tuple[str, str]:
        """Return the cache's key of the precompiled header: it depends on all that designs share."""
        root = self.design.path.resolve()
        folders = [root / "firmware" / "nnet_utils", root / "tb" / "emulation"]
        folders.append(_emulation() if self._light else root / "firmware" / "ap_types")
        headers = [path for folder in folders for path in sorted(folder.rglob("*.h"))]
        compiler = f"{plan.find(self.compiler)} {plan.program_version(self.compiler)}"
        facts = (compiler, self.header, self.optimization)
        return digest(facts, [*headers, root / "firmware" / "axis_top.h"]), "csim.h.gch"

    def _call(self, command: Command, product: Path | str) -> None:
        """Run the compiler; its failure is told with its first messages."""
        build = Plan({}, (command,), (str(product),))
        try:
            plan.run(build, self.folder, subject="emulate", timeout_s=self.timeout_s, env={"LC_ALL": "C"})
        except ToolError as error:
            status = re.search(r"must exit with 0, not (-?\d+);", str(error))
            if not status:
                raise
            raise ToolError(self._failure(int(status[1]), self.folder / command.log)) from error

    def _failure(self, status: int, log: Path) -> str:
        text = log.read_text(encoding="utf-8", errors="replace")
        if status in (-9, 137) or _OUT_OF_MEMORY.search(text):
            return (
                f"emulate: {self.compiler!r} must have enough memory, not be ended for lack of it; compile with "
                f"[emulate] jobs = 1, or on a machine with more (its messages are in {log})"
            )
        lines = text.splitlines()
        first = next((number for number, line in enumerate(lines) if "error" in line), 0)
        shown = "\n".join(f"    {line}" for line in lines[first : first + _SHOWN])
        more = f"; all of them are in {log}" if len(lines) > first + _SHOWN else ""
        return (
            f"emulate: {self.compiler!r} must exit with 0, not {status}; correct the C++, or try [emulate] header = "
            f'"vendor"; its first messages are\n{shown}{more}'
        )

    # ------------------------------------------------------------ running

    def run(self, inputs_lsb: np.ndarray) -> np.ndarray:
        """Run samples through the AXI4-Stream top; int64 LSBs in and out, (samples, values)."""
        size = sum(port.size for port in self.design.outputs)
        parts = self._run(inputs_lsb, trace=False)
        return np.concatenate(
            [_rows(part / "outputs.bin", "<i8", count, size) for part, count in parts.items()]
        )

    def trace(self, inputs_lsb: np.ndarray) -> dict[str, np.ndarray]:
        """Return the values of every layer by its C++ name; float64 (samples, values)."""
        parts = self._run(inputs_lsb, trace=True)
        found = {}
        for name in (layer.hls_name for layer in self.design.layers):
            files = {part / "layers" / f"{name}.f64": count for part, count in parts.items()}
            rows = [_rows(file, "<f8", count) for file, count in files.items()]
            if len({part.shape[1] for part in rows}) > 1:
                raise _short(next(iter(files)), "as many values for every sample")
            found[name] = np.concatenate(rows)
        return found

    def _run(self, inputs_lsb: np.ndarray, *, trace: bool) -> dict[Path, int]:
        """Run the samples in slices, each in a process of its own, as hls4ml's line buffers are static; count them."""
        program = self.folder / "csim"
        if not program.is_file():
            raise ToolError("emulate: the C++ must be built before it runs; call build() first")
        count = max(1, min(self.jobs, len(inputs_lsb) // SLICE))
        slices = np.array_split(inputs_lsb, count)
        folders = {self.folder / f"run{number}": len(samples) for number, samples in enumerate(slices)}
        for folder, samples in zip(folders, slices, strict=True):
            shutil.rmtree(
                folder, ignore_errors=True
            )  # no result of an earlier run can be taken for this one's
            (folder / "layers").mkdir(parents=True)
            (folder / "weights").symlink_to(Path("..") / "weights")
            np.ascontiguousarray(samples, dtype="<i8").tofile(folder / "inputs.bin")
        command = Command(
            (str(program), "inputs.bin", "outputs.bin", *(("layers",) if trace else ())), "csim.log"
        )
        build = Plan({}, (command,), ("outputs.bin",))

        def start(folder: Path) -> None:
            plan.run(build, folder, subject="emulate", timeout_s=self.timeout_s)

        together(start, list(folders), count)
        return folders


def _rows(file: Path, kind: str, samples: int, size: int | None = None) -> np.ndarray:
    """Return what the program wrote for ``samples``, (samples, ``size``); ``None``: any size."""
    values = np.fromfile(file, kind) if file.is_file() else np.empty(0, kind)
    whole = file.is_file() and file.stat().st_size == values.nbytes
    if (
        not whole
        or not len(values)
        or (len(values) % samples if size is None else len(values) != samples * size)
    ):
        due = "values for every sample" if size is None else f"{samples * size:,} values"
        raise _short(file, due)
    return values.reshape(samples, -1)


def _short(file: Path, due: str) -> ToolError:
    told = f"{file.stat().st_size:,} bytes" if file.is_file() else "nothing"
    return ToolError(
        f"emulate: the C++ must write {due} of 8 bytes to {str(file)!r}, not {told}; see csim.log beside it, or report "
        "the network"
    )


def _emulation() -> Path:
    return data_folder("hls_templates") / "cpp" / "emulation"
