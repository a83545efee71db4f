"""csim: the HLS project compiled by g++ with its own test bench."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from flow import plan
from flow.errors import ToolError
from flow.types import Command, HlsProject, Plan

_LAYERS = "layers"


class Csim:
    """A compiled HLS project in ``folder``."""

    def __init__(
        self,
        design: HlsProject,
        folder: Path,
        compiler: str = "g++",
        optimization: str = "-O1",
        timeout_s: float = 1800,
    ) -> None:
        self.design = design
        self.folder = folder.resolve()
        self.compiler = compiler
        self.optimization = optimization
        self.timeout_s = timeout_s

    def build(self) -> float:
        """Compile and link; returns the seconds it took.

        Raises:
            ToolError: the compiler is missing or fails.
        """
        start = time.perf_counter()
        self.folder.mkdir(parents=True, exist_ok=True)
        weights = self.folder / "weights"  # where hls4ml's C++ looks for them, outside of synthesis
        weights.unlink(missing_ok=True)  # of a design that was built here before
        weights.symlink_to(self.design.path.resolve() / "firmware" / "weights")
        plan.run(self.build_plan(), self.folder, subject="emulate", timeout_s=self.timeout_s)
        return time.perf_counter() - start

    def build_plan(self) -> Plan:
        """Return the compiler calls: one object a source file, then the program."""
        root = self.design.path.resolve()
        sources = {
            "net": root / "firmware" / f"{self.design.top}.cpp",
            "axis": root / "firmware" / f"{self.design.top}_axis.cpp",
            "testbench": root / "tb" / "testbench.cpp",
        }
        includes = [f"-I{root / name}" for name in ("firmware", "firmware/ap_types", "tb", "tb/emulation")]
        flags = ("-std=c++14", self.optimization, "-w", *includes)
        compile_all = [
            Command((self.compiler, *flags, "-c", str(path), "-o", f"{name}.o"), f"{name}.log")
            for name, path in sources.items()
        ]
        link = Command((self.compiler, *(f"{name}.o" for name in sources), "-o", "csim"), "link.log")
        return Plan({}, (*compile_all, link), ("csim",))

    def run(self, inputs_lsb: np.ndarray) -> np.ndarray:
        """Run samples through the AXI4-Stream top; int64 LSBs in and out, (samples, values)."""
        self._call(inputs_lsb)
        got = np.fromfile(self.folder / "outputs.bin", dtype="<i8")
        return got.reshape(len(inputs_lsb), self.design.outputs[0].size)

    def trace(self, inputs_lsb: np.ndarray) -> dict[str, np.ndarray]:
        """Return the values of every layer by its C++ name; float64 (samples, values)."""
        (self.folder / _LAYERS).mkdir(exist_ok=True)
        self._call(inputs_lsb, _LAYERS)
        return {
            layer.hls_name: np.fromfile(self.folder / _LAYERS / f"{layer.hls_name}.f64", dtype="<f8").reshape(
                len(inputs_lsb), -1
            )
            for layer in self.design.layers
        }

    def _call(self, inputs_lsb: np.ndarray, *more: str) -> None:
        program = self.folder / "csim"
        if not program.is_file():
            raise ToolError("emulate: the C++ must be built before it runs; call build() first")
        np.ascontiguousarray(inputs_lsb, dtype="<i8").tofile(self.folder / "inputs.bin")
        command = Command((str(program), "inputs.bin", "outputs.bin", *more), "csim.log")
        plan.run(
            Plan({}, (command,), ("outputs.bin",)), self.folder, subject="emulate", timeout_s=self.timeout_s
        )
