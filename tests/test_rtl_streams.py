"""The Verilog of streams: FIFOs, widths, forks and joins, exact against numpy, with stalls, resets and the clocks."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import needs
from rtl_cases import (
    VERILOG,
    Beats,
    Bench,
    Case,
    drawn,
    instance,
    limits,
    needs_verilator,
    pack,
    unpack,
    wires,
)

from flow.errors import ToolError
from flow.rtl.verilator import Simulation

MODULES = sorted(path.stem for path in VERILOG.glob("*.sv"))
BEATS = 240


def beats_of(seed: int, lanes: int, width: int, signed: bool, beats: int = BEATS) -> np.ndarray:
    return drawn(seed, (beats, lanes), *limits(width, signed))


def fifo(depth: int, width: int) -> Case:
    x = beats_of(depth, 1, width, False)
    return Case(
        f"fifo_{depth}",
        "flow_fifo",
        {"WIDTH": width, "DEPTH": depth},
        {"in": Beats(x, width, False)},
        {"out": Beats(x, width, False, 1)},
    )


def width(bits: int, given: int, made: int) -> Case:
    x = beats_of(given, given, bits, True)
    return Case(
        f"width_{given}_{made}",
        "flow_width",
        {"WIDTH": bits, "IN_LANES": given, "OUT_LANES": made},
        {"in": Beats(x, bits)},
        {"out": Beats(x.reshape(-1, made), bits, True, max(1, made // given))},
    )


def fork(branches: int) -> Case:
    x = beats_of(branches, 1, 9, True)
    name = f"fork_{branches}"
    outs = [f"{name}_out{i}" for i in range(branches)]
    parts = {
        wire: "{" + ", ".join(f"{out}_{wire}" for out in reversed(outs)) + "}" for wire in ("valid", "ready")
    }
    body = (
        f"flow_fork #(.WIDTH(9), .BRANCHES({branches})) u_{name} (.clk(clk), .reset(reset), "
        f".in_valid({name}_in_valid), .in_ready({name}_in_ready), .in_data({name}_in_data), "
        f".out_valid({parts['valid']}), .out_ready({parts['ready']}), .out_data({outs[0]}_data));\n"
        + "\n".join(f"assign {out}_data = {outs[0]}_data;" for out in outs[1:])
    )
    made = {f"out{i}": Beats(x, 9, True, 1) for i in range(branches)}
    return Case(name, "", {}, {"in": Beats(x, 9)}, made, body, ("flow_fork",))


def add(
    name: str, a: tuple[int, bool, int], b: tuple[int, bool, int], lanes: int, multiply: bool = False
) -> Case:
    x, y = (beats_of(seed, lanes, w, signed) for seed, (w, signed, _) in ((1, a), (2, b)))
    out = x * y if multiply else (x << a[2]) + (y << b[2])
    signed = a[1] or b[1]
    largest = max(int(v).bit_length() if v >= 0 else (~int(v)).bit_length() for v in out.flat)
    bits = largest + signed
    parameters: dict[str, int | str] = {
        f"{side}_{key}": int(value)
        for side, given in (("A", a), ("B", b))
        for key, value in zip(("WIDTH", "SIGNED", "SHIFT"), given, strict=True)
    }
    parameters |= {"OUT_WIDTH": bits, "LANES": lanes, "MULTIPLY": int(multiply)}
    given = {"a": Beats(x, a[0], a[1]), "b": Beats(y, b[0], b[1])}
    return Case(name, "flow_add", parameters, given, {"out": Beats(out, bits, signed, 1)})


def concat(first: int, second: int) -> Case:
    frames = 20
    a, b = beats_of(3, 3, 7, True, frames * first), beats_of(4, 3, 7, True, frames * second)
    out = np.concatenate([a.reshape(frames, first, 3), b.reshape(frames, second, 3)], 1).reshape(-1, 3)
    return Case(
        f"concat_{first}_{second}",
        "flow_concat",
        {"WIDTH": 21, "A_BEATS": first, "B_BEATS": second},
        {"a": Beats(a, 7), "b": Beats(b, 7)},
        {"out": Beats(out, 7, True, 1)},
    )


def argmax(bits: int, signed: bool, lanes: int, folds: int) -> Case:
    x = beats_of(lanes * folds, lanes, bits, signed, 40 * folds)
    out = np.argmax(x.reshape(-1, lanes * folds).astype(np.int64), 1).astype(object)[:, None]
    index = max(1, (lanes * folds - 1).bit_length())
    parameters = {"IN_WIDTH": bits, "IN_SIGNED": int(signed), "LANES": lanes, "FOLDS": folds}
    return Case(
        f"argmax_{bits}_{int(signed)}_{lanes}_{folds}",
        "flow_argmax",
        parameters | {"OUT_WIDTH": index},
        {"in": Beats(x, bits, signed)},
        {"out": Beats(out, index, False, folds)},
    )


def two_branches(name: str, left: str, right: str) -> str:
    """Return a fork of a case's input into the streams ``left`` and ``right``."""
    return (
        f"assign {right}_data = {left}_data;\n"
        f"flow_fork #(.WIDTH(8), .BRANCHES(2)) u_{name}_fork (.clk(clk), .reset(reset), "
        f".in_valid({name}_in_valid), .in_ready({name}_in_ready), .in_data({name}_in_data), "
        f".out_valid({{{right}_valid, {left}_valid}}), .out_ready({{{right}_ready, {left}_ready}}), "
        f".out_data({left}_data));"
    )


def twice() -> Case:
    """Every beat two times: the readers are never ready together, so that it stops unless the fork is eager."""
    name, x = "twice", beats_of(9, 1, 8, True)
    left, right = f"{name}_a", f"{name}_b"
    body = "\n".join(
        (
            wires(8, left, right),
            two_branches(name, left, right),
            instance("flow_concat", {"WIDTH": 8}, {"a": left, "b": right, "out": f"{name}_out"}),
        )
    )
    made = {"out": Beats(np.repeat(x, 2, 0), 8, True, 1)}
    return Case(name, "", {}, {"in": Beats(x, 8)}, made, body, ("flow_fork", "flow_concat"))


def around(depth: int) -> Case:
    """Frames of ``depth`` + 1 beats, each put behind itself: it stops unless the FIFO holds ``depth`` beats.

    The fork keeps the last one.
    """
    frame = depth + 1
    name, x = f"around_{depth}", beats_of(depth, 1, 8, True, 8 * frame)
    left, right, late = (f"{name}_{stream}" for stream in ("a", "b", "late"))
    body = "\n".join(
        (
            wires(8, left, right, late),
            two_branches(name, left, right),
            instance("flow_fifo", {"WIDTH": 8, "DEPTH": depth}, {"in": right, "out": late}),
            instance(
                "flow_concat",
                {"WIDTH": 8, "A_BEATS": frame, "B_BEATS": frame},
                {"a": left, "b": late, "out": f"{name}_out"},
            ),
        )
    )
    out = np.repeat(x.reshape(-1, 1, frame), 2, 1).reshape(-1, 1)
    modules = ("flow_fork", "flow_fifo", "flow_concat")
    return Case(name, "", {}, {"in": Beats(x, 8)}, {"out": Beats(out, 8)}, body, modules)


def tapped() -> Case:
    """A stream with a tap, through a FIFO."""
    x, name = beats_of(7, 3, 25, True), "tapped"
    body = instance("flow_fifo", {"WIDTH": 75, "DEPTH": 3}, {"in": f"{name}_in", "out": f"{name}_out"}) + (
        f'\nflow_tap #(.NAME("seen"), .WIDTH(75)) u_tap (.clk(clk), .reset(reset), .valid({name}_out_valid), '
        f".ready({name}_out_ready), .data({name}_out_data));"
    )
    return Case(
        name, "", {}, {"in": Beats(x, 25)}, {"out": Beats(x, 25, True, 1)}, body, ("flow_fifo", "flow_tap")
    )


CASES = (
    *(fifo(depth, bits) for depth, bits in ((2, 8), (3, 1), (5, 130), (16, 64), (100, 33))),
    *(width(*given) for given in ((5, 1, 2), (3, 4, 24), (11, 6, 2), (1, 3, 1), (8, 20, 20), (7, 30, 5))),
    *(fork(branches) for branches in (1, 2, 5)),
    add("add", (8, True, 0), (8, True, 0), 1),
    add("add_mixed", (5, True, 3), (9, False, 0), 4),
    add("add_unsigned", (4, False, 0), (6, False, 2), 3),
    add("add_wide", (31, True, 7), (20, True, 0), 2),
    add("add_narrow", (1, False, 0), (1, True, 9), 2),
    add("multiply", (8, True, 0), (8, True, 0), 2, multiply=True),
    add("multiply_mixed", (6, False, 0), (17, True, 0), 3, multiply=True),
    add("multiply_unsigned", (9, False, 0), (5, False, 0), 1, multiply=True),
    *(concat(*given) for given in ((1, 1), (3, 1), (2, 5), (4, 4))),
    *(argmax(*given) for given in ((6, True, 1, 10), (6, False, 5, 2), (3, True, 8, 1), (20, True, 3, 4))),
    *(argmax(*given) for given in ((1, False, 1, 2), (4, False, 1, 1))),
    *(around(depth) for depth in (2, 3, 7)),
    twice(),
    tapped(),
)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(CASES, tmp_path_factory.mktemp("streams"))


@needs_verilator
class TestStreams:
    """All modules at once: they share the clock and nothing else."""

    def test_without_stalls_no_beat_waits(self, bench: Bench) -> None:
        assert bench.differences(bench.run(), clocks=True) == []

    @pytest.mark.parametrize("stall", [0.1, 0.3, 0.7])
    def test_stalls_change_nothing(self, bench: Bench, stall: float) -> None:
        for seed in range(3):
            assert bench.differences(bench.run(stall=stall, seed=seed)) == []

    @pytest.mark.parametrize("clocks", [1, 2, 3, 7, 50, 137, 138, 139, 200])
    def test_after_a_reset_everything_starts_anew(self, bench: Bench, clocks: int) -> None:
        for stall in (0.0, 0.3):
            assert bench.differences(bench.run(stall=stall, seed=clocks, reset_after=clocks)) == []

    def test_a_tap_writes_each_beat_once(self, bench: Bench) -> None:
        case = next(case for case in CASES if case.name == "tapped")
        for stall in (0.0, 0.3):
            bench.run(stall=stall)
            lines = (bench.simulation.folder / "seen.hex").read_text().split()
            raw = b"".join(int(line, 16).to_bytes(16, "little") for line in lines)
            seen = unpack(np.frombuffer(raw, "<u8").reshape(-1, 2), 25, True, 3)
            assert np.array_equal(seen, case.inputs["in"].values)

    def test_a_stream_that_stops_is_an_error(self, bench: Bench) -> None:
        given = [pack(p.values[:5], p.width) for case in CASES for p in case.inputs.values()]
        wanted = [len(p.values) for case in CASES for p in case.outputs.values()]
        with pytest.raises(ToolError, match=r"output 0 has 5 of 240 beats"):
            bench.simulation.run(given, wanted, limit_cycles=5000)


def test_packing_is_undone_by_unpacking() -> None:
    for bits, lanes in ((1, 1), (7, 5), (33, 2), (64, 1), (130, 3)):
        for signed in (False, True):
            values = beats_of(bits, lanes, bits, signed)
            assert np.array_equal(unpack(pack(values, bits), bits, signed, lanes), values)


# ---------------------------------------------------------------- every file, with its defaults

MEMORIES = ("weights.hex", "slopes.hex", "values.hex")
"""What the defaults read."""


def yosys(folder: Path, *commands: str) -> str:
    """Run yosys in a process of its own, since an error ends it; return what it says."""
    for name in MEMORIES:
        (folder / name).write_text("0\n" * 64, encoding="utf-8")
    code = (
        f"from pyosys import libyosys as ys\nd = ys.Design()\nfor c in {commands!r}:\n    ys.run_pass(c, d)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
    text = done.stdout + done.stderr
    return "" if done.returncode == 0 and "ERROR" not in text else text[-2000:]


needs_yosys = needs("pyosys")


@needs_yosys
@pytest.mark.parametrize("module", MODULES)
def test_yosys_reads_and_checks_every_module(module: str, tmp_path: Path) -> None:
    parts = {"flow_link": ("flow_fifo", "flow_uart_rx", "flow_uart_tx"), "flow_axi_lite": ("flow_fifo",)}
    assert not yosys(
        tmp_path,
        *(f"read_verilog -sv {VERILOG / part}.sv" for part in (*parts.get(module, ()), module)),
        f"hierarchy -check -top {module}",
        "proc",
        "check -assert",
    )


@needs_yosys
@pytest.mark.parametrize(
    ("module", "cut"), [("flow_fifo", True), ("flow_window", True), ("flow_add", False), ("flow_mvau", False)]
)
def test_the_path_of_ready_is_cut_where_it_must_be(module: str, cut: bool, tmp_path: Path) -> None:
    ready = "a_ready" if module == "flow_add" else "in_ready"
    stops = ",".join(f"-$dff{kind}" for kind in ("", "e")) + ",-$sdff,-$sdffe,-$sdffce,-$mem_v2,-$memrd_v2"
    said = yosys(
        tmp_path,
        f"read_verilog -sv {VERILOG / module}.sv",
        f"hierarchy -check -top {module}",
        "proc; flatten; opt",
        f"select -assert-none i:out_ready %coe*:{stops} o:{ready} %i",
    )
    assert ("" if cut else "selection is not empty") in said and bool(said) != cut


def test_every_file_holds_the_module_that_it_is_named_after() -> None:
    for module in MODULES:
        text = (VERILOG / f"{module}.sv").read_text(encoding="utf-8")
        assert text.startswith("//") and text.count("endmodule") == 1 and f"\nmodule {module} " in text


def test_no_minus_stands_before_a_cast() -> None:
    """Yosys reads ``-N'(x)`` as ``(-N)'(x)``."""
    for module in MODULES:
        text = (VERILOG / f"{module}.sv").read_text(encoding="utf-8")
        assert re.findall(r"(?:[=(?:,]|<=)\s*[-~!]\s*[A-Z][A-Z_0-9]*'\(", text) == [], module


def test_the_readme_lists_every_module() -> None:
    text = (VERILOG / "README.md").read_text(encoding="utf-8")
    assert [module for module in MODULES if f"`{module}`" not in text] == []


@needs_verilator
def test_parameters_of_the_top_are_given(tmp_path: Path) -> None:
    simulation = Simulation([VERILOG / "flow_fifo.sv"], "flow_fifo", tmp_path, parameters={"WIDTH": 70})
    simulation.build()
    x = beats_of(1, 1, 70, False, 50)
    result = simulation.run([pack(x, 70)], [50], stall=0.3)
    assert np.array_equal(unpack(result.outputs[0], 70, False, 1), x)
