"""From a converted network to a bitstream with its report, or to a folder that a workstation builds as it is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flow import boards
from flow.build.remote import FOLDER as HOST_FOLDER
from flow.build.remote import Host, call
from flow.build.remote import check as check_host
from flow.errors import ConfigError
from flow.synthesize import open_road, vendor
from flow.types import Bitstream, Board, HlsProject, Progress, Tools, silent

NETLIST_FRAMES = 3
"""Samples that a netlist is simulated on."""
TOOLCHAINS = {"vitis": vendor, "open": open_road}


def synthesize(
    design: HlsProject,
    *,
    board: str | Board,
    out: Path,
    toolchain: str | None = None,
    timeout_s: float | None = None,
    cosim: bool = False,
    out_of_context: bool = False,
    monitor: bool = True,
    host: str | None = None,
    host_setup: str | None = None,
    host_folder: str = HOST_FOLDER,
    ssh_config: str | None = None,
    netlist_frames: int = NETLIST_FRAMES,
    place_seed: int = 1,
    dense: bool = True,
    dense_onnx: Path | None = None,
    proven_rtl: Path | None = None,
    rtl_options: Mapping[str, Any] | None = None,
    progress: Progress = silent,
) -> Bitstream:
    """Build a bitstream of ``design`` for ``board``.

    With ``vitis``, scripts and a copy of the HLS project are always written into ``out``, which can be carried to a
    workstation; they run on ``host``, or here if every program is on PATH. With ``open``, the network's Verilog
    (`flow.rtl`) is synthesized by yosys, stage by stage, and placed by nextpnr.

    Args:
        design: the converted network.
        board: its name, or a board read from elsewhere.
        out: the folder for scripts, logs, reports and products.
        toolchain: ``vitis`` or ``open``; ``None``: the board's first.
        timeout_s: limit for each program, in seconds.
        cosim: ``vitis``: also run the generated Verilog against the test bench (slow).
        out_of_context: ``vitis``: place and route the network alone, for its figures; there is no bitstream then.
        monitor: ``vitis``: registers around the network: the design's id, counted clocks, a reset.
        host: ``vitis``: ``user@workstation`` or an alias of OpenSSH's configuration; the same build runs there, goes
            on when the connection is lost, and is picked up again by the same call.
        host_setup: a file there that is sourced first, such as Vivado's ``settings64.sh``.
        host_folder: where builds lie there, from the login's home.
        ssh_config: OpenSSH's configuration in place of the user's own.
        netlist_frames: ``open``: samples that the netlist after synthesis is simulated on; 0: none.
        place_seed: ``open``: where nextpnr begins; another one may reach a clock that this one misses.
        dense: ``open``: also synthesize the unpruned network, stage by stage, for the report.
        dense_onnx: ``open``: that network as a QONNX file; ``None``: there is none.
        proven_rtl: ``open``: the folder of the Verilog that was proven; it must be the one that is built.
        rtl_options: ``open``: ``interval_cycles``, ``multipliers`` and the like of `flow.rtl.write_rtl`.
        progress: called at every step.

    Returns:
        The bitstream and its report; or, where the vendor's programs are missing, their names and the command that
        builds it, with ``path`` and ``report`` ``None``. Out of context ``path`` alone is ``None``.

    Raises:
        ConfigError: toolchain, board, project or folder break a rule.
        UnsupportedError: the toolchain cannot build for the board, or the network does not fit it.
        ToolError: a program failed, a product or a report is missing, or the clock is not reached.
        MismatchError: the netlist computes something else than the network, or the Verilog is not the proven one.
    """
    chosen = boards.load(board) if isinstance(board, str) else board
    name = check_target(chosen, toolchain, host)
    if name == "open":
        return open_road.build(
            design,
            chosen,
            out,
            rtl_options=rtl_options or {},
            timeout_s=timeout_s,
            netlist_frames=netlist_frames,
            place_seed=place_seed,
            dense_onnx=dense_onnx if dense else None,
            proven_rtl=proven_rtl,
            progress=progress,
        )
    return vendor.build(
        design,
        chosen,
        out,
        timeout_s=timeout_s,
        cosim=cosim,
        out_of_context=out_of_context,
        monitor=monitor,
        host=_host(host, host_setup, host_folder, ssh_config),
        progress=progress,
    )


def finished(
    design: HlsProject, board: str | Board, folder: Path, out_of_context: bool = False
) -> Bitstream | None:
    """Return what ``sh build.sh`` has left in the folder of `synthesize`; ``None`` where it has not come to its end.

    Raises:
        ConfigError: there is no such board, or the bitstream is for another part.
        ToolError: the clock is not reached, or the bitstream or a report is damaged.
    """
    chosen = boards.load(board) if isinstance(board, str) else board
    return vendor.finished(design, chosen, folder, out_of_context)


def reach_host(options: Mapping[str, Any]) -> None:
    """Refuse, before any work, a ``host`` among the options of `synthesize` that cannot be reached.

    Raises:
        ConfigError: it is no host's name.
        ToolError: OpenSSH does not get there.
    """
    keys = ("host", "host_setup", "host_folder", "ssh_config")
    host = _host(*(options.get(key, HOST_FOLDER if key == "host_folder" else None) for key in keys))
    if host is not None:
        call(host, ":", subject="synthesize", timeout_s=60)


def _host(name: str | None, setup: str | None, folder: str, ssh_config: str | None) -> Host | None:
    if name is None:
        return None
    found = Host(name, Path(ssh_config) if ssh_config else None, setup, folder)
    check_host(found, "synthesize")
    return found


def check_target(board: Board, toolchain: str | None = None, host: str | None = None) -> str:
    """Refuse, before any work, a toolchain or a board that cannot give a bitstream; return the toolchain's name.

    Raises:
        ConfigError: there is no such toolchain, the board has another, or it does not build on another host.
        UnsupportedError: the toolchain cannot build for the board.
        ToolError: programs of the open toolchain are missing.
    """
    chosen = toolchain_of(board, toolchain)
    if chosen not in TOOLCHAINS:
        raise ConfigError(
            f"synthesize: toolchain must be one of {', '.join(TOOLCHAINS)}, not {chosen!r}; correct [synthesize]"
        )
    if chosen not in board.toolchains:
        raise ConfigError(
            f"synthesize: toolchain for board {board.name!r} must be one of {', '.join(board.toolchains)}, "
            f"not {chosen!r}; choose another board or toolchain"
        )
    if host is not None and chosen == "open":
        raise ConfigError(
            f"synthesize: host must be left out with the open toolchain, which builds here, not be {host!r}; leave it "
            "out, or choose --toolchain vitis"
        )
    TOOLCHAINS[chosen].check(board)
    return chosen


def tools_of(board: Board, toolchain: str | None) -> Tools:
    """Return what the toolchain's result depends on, beside design, board and options."""
    found: Tools = TOOLCHAINS[toolchain_of(board, toolchain)].tools_of(board)
    return found


def toolchain_of(board: Board, toolchain: str | None) -> str:
    """Return the toolchain that was asked for, or the board's first."""
    return toolchain or board.toolchains[0]
