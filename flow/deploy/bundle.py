"""The bundle: everything that a board needs to run a network and to prove it, in one folder."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from flow.deploy.board import SELFTEST_SCRIPT
from flow.errors import ConfigError, MismatchError
from flow.files import hashes, put_in_place, write_sealed
from flow.fixed import from_qonnx
from flow.fixed.execute import execute
from flow.fixed.golden import read_golden
from flow.fixed.lsb import inputs_lsb
from flow.toolchains.vitis import bitstream, handoff
from flow.toolchains.vitis import plan as vitis
from flow.types import Board, HlsProject, Port

SAMPLES = 256
"""Golden vectors in a bundle, at most."""
DRIVER = "flow_board"
_MONITOR = "flow_monitor"
_LINE = re.compile(r"^set settings\(design_id\) \{([0-9a-f]{16})\}$", re.MULTILINE)


def bundle(
    build: Path, design: HlsProject, board: Board, *, out: Path, name: str, samples: int = SAMPLES
) -> Path:
    """Write the bundle of a finished vendor build; returns ``out``.

    Args:
        build: the folder of the build, with ``<top>.bit``, ``<top>.hwh`` and ``settings.tcl``.
        design: the HLS project that it was made of.
        board: the board that it was made for.
        out: the bundle; an older one is replaced as soon as the new one is whole.
        name: of the network.
        samples: golden vectors, at most.

    Raises:
        ConfigError: there is no finished build, it is for another part, or its hand-off has no DMA for the network.
        UnsupportedError: the design's QONNX file has no exact fixed-point graph.
        MismatchError: the build is of another design than ``design``.
        ToolError: bitstream or hand-off are damaged.
    """
    identity = _check_build(build, design, board)
    fresh = out.with_name(f".{out.name}.part")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    try:
        for suffix in (".bit", ".hwh"):
            shutil.copyfile(build / f"{design.top}{suffix}", fresh / f"{design.top}{suffix}")
        _write_golden(design, fresh / "golden.npz", samples)
        _write_driver(fresh)
        facts = _facts(build, design, board, name, identity)
        named = {"bitstream": f"{design.top}.bit", "handoff": f"{design.top}.hwh", "golden": "golden.npz"}
        digests = hashes(fresh, named.values())
        files = {key: {"file": file, "sha256": digests[file]} for key, file in named.items()}
        write_sealed(fresh / "manifest.json", {"format": 1, **facts, **files})
        (fresh / "README.md").write_text(_readme(facts), encoding="utf-8")
        put_in_place(fresh, out, out.with_name(f".{out.name}.old"))
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return out


def _check_build(build: Path, design: HlsProject, board: Board) -> str:
    """Refuse what is not finished, and what was built of something else; return the design's id."""
    for suffix in (".bit", ".hwh"):
        path = build / f"{design.top}{suffix}"
        if not path.is_file():
            raise ConfigError(
                f"deploy: {str(path)!r} must be there, not missing; build it with flow run, or with sh build.sh where "
                "Vitis HLS and Vivado are"
            )
    wanted, found = vitis.design_id(design, board), _built_id(build)
    if found != wanted:
        raise MismatchError(
            f"deploy: the build in {str(build)!r} must be of design {wanted}, not {found}; build again"
        )
    bitstream.check_part(bitstream.read(build / f"{design.top}.bit"), board.part)
    return wanted


def _built_id(build: Path) -> str:
    try:
        found = _LINE.search((build / "settings.tcl").read_text(encoding="utf-8"))
    except OSError:
        found = None
    return found[1] if found else "an unknown one"


def _facts(build: Path, design: HlsProject, board: Board, name: str, identity: str) -> dict[str, Any]:
    """Return what the driver must know; addresses come from the hand-off."""
    hardware = handoff.read(build / f"{design.top}.hwh")
    dma = handoff.require_dma(hardware, f"{design.top}_axis")
    monitor = next((cell for cell in hardware.cells if cell.type == _MONITOR), None)
    return {
        "name": name,
        "board": board.name,
        "part": board.part,
        "ps": board.ps["type"],
        "crystal_mhz": board.ps["crystal_mhz"],
        "clock_mhz": _clock_mhz(hardware, design),
        "dma": {
            "instance": dma.instance,
            "address": dma.base_address,
            "span": dma.span,
            "length_bits": dma.length_bits,
            "address_bits": dma.address_bits,
            "word_bits": dma.mm2s_stream_bits,
        },
        "monitor": None
        if monitor is None
        else {
            "instance": monitor.instance,
            "address": monitor.base_address,
            "span": monitor.span,
            "design_id": identity,
        },
        "inputs": [_port(port) for port in design.inputs],
        "outputs": [_port(port) for port in design.outputs],
    }


def _clock_mhz(hardware: handoff.Handoff, design: HlsProject) -> float:
    """Return the clock that the processor divides to: the nearest to what was asked for, not always equal to it."""
    processor = hardware.processor
    actual = processor.actual_clock_mhz if processor else None
    return actual or 1000 / design.clock_period_ns


def _port(port: Port) -> dict[str, Any]:
    return {
        "name": port.name,
        "shape": list(port.shape),
        "width": port.dtype.width,
        "signed": port.dtype.signed,
        "fraction_bits": port.dtype.fraction_bits,
        "scale": port.scale,
    }


def _write_golden(design: HlsProject, path: Path, samples: int) -> None:
    """Write samples with what the integer executor makes of them, in LSBs."""
    graph = from_qonnx.read(design.onnx_path)
    golden = read_golden(design.golden_path)
    inputs = [values[:samples] for values in inputs_lsb(graph, golden.inputs)]
    results = execute(graph, inputs)
    arrays: dict[str, Any] = {
        "inputs": _rows(inputs),
        "outputs": _rows([results[name] for name in graph.outputs]),
    }
    if golden.labels is not None:
        arrays["labels"] = golden.labels[:samples]
    np.savez(path, **arrays)


def _rows(values: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([array.reshape(len(array), -1) for array in values], axis=1).astype(np.int64)


def _write_driver(folder: Path) -> None:
    source = Path(__file__).parent / "board"
    (folder / DRIVER).mkdir()
    for path in sorted(source.glob("*.py")):
        shutil.copyfile(path, folder / DRIVER / path.name)
    (folder / "selftest.py").write_text(SELFTEST_SCRIPT, encoding="utf-8")


def _readme(facts: Mapping[str, Any]) -> str:
    shapes = "\n".join(
        f"- {side[:-1]} {port['name']!r}: (samples, {', '.join(map(str, port['shape']))}), "
        f"{'signed' if port['signed'] else 'unsigned'}, {port['width']} bits, {port['fraction_bits']} of them fraction"
        for side in ("inputs", "outputs")
        for port in facts[side]
    )
    return f"""\
# {facts["name"]} on {facts["board"]}

On the board, as root, with PYNQ 2.7 or newer, or with the kernel's fpga_manager and u-dma-buf alone:

    python3 selftest.py            # programs the board, compares the golden vectors in LSBs, measures
    python3 selftest.py --json     # the same as one line for programs

From Python:

    from flow_board.driver import Accelerator

    with Accelerator(".") as network:
        scores = network.run(images)

`run` takes and gives numbers of shape (samples, ...), any number of samples:

{shapes}

`manifest.json` holds types, addresses and the digest of every file, and one of itself; what does not match is refused.
"""
