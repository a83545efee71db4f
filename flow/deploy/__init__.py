"""Deploy: the golden samples to a board and its results back, compared in LSBs."""

from __future__ import annotations

from pathlib import Path

from flow.build.remote import FOLDER, Host, check
from flow.deploy.host import run_on_board
from flow.deploy.serial_line import run_on_serial
from flow.errors import ConfigError
from flow.types import Deployment, Progress, silent

TIMEOUT_S = {"serial": 2.0, "host": 300.0}


def deploy(
    folder: Path,
    *,
    serial: str | None = None,
    host: str | None = None,
    baud: int | None = None,
    samples: int | None = None,
    timeout_s: float | None = None,
    retries: int = 2,
    host_folder: str = FOLDER,
    ssh_config: str | None = None,
    progress: Progress = silent,
) -> Deployment:
    """Run golden samples on a board and compare every result.

    Args:
        folder: with ``serial``: a build with the open toolchain (``link.json``, ``golden.npz``), which the board is
            programmed with; with ``host``: a bundle (`flow.deploy.bundle`), which is copied there and programs it.
        serial: the port, such as ``/dev/ttyUSB0``.
        host: the board's login, such as ``xilinx@pynq``, or an alias of OpenSSH's configuration.
        baud: of the serial line; ``None``: the build's.
        samples: how many; ``None``: all golden ones.
        timeout_s: how long an answer may take over the serial line (2 s), or the whole self-test on a host (300 s).
        retries: how often a request over the serial line is repeated after a damaged or missing answer.
        host_folder: where bundles lie on the board, from the login's home.
        ssh_config: OpenSSH's configuration in place of the user's own.
        progress: see `flow.types.Progress`.

    Raises:
        ConfigError: the folder holds no such build, there is no such port or login, or no sample is asked for.
        ToolError: the board does not answer or refuses, the line breaks, or its DMA does not end.
        MismatchError: the board holds another design, or a result differs.
    """
    if (serial is None) == (host is None):
        given = "none" if serial is None else "both"
        raise ConfigError(
            f"deploy: one of serial and host must be given, not {given}; name the board's port or login"
        )
    if samples is not None and samples < 1:
        raise ConfigError(f"deploy: samples must be at least 1, not {samples}; leave it out for all")
    if serial is not None:
        limit_s = TIMEOUT_S["serial"] if timeout_s is None else timeout_s
        return run_on_serial(
            folder,
            serial=serial,
            baud=baud,
            samples=samples,
            timeout_s=limit_s,
            retries=retries,
            progress=progress,
        )
    login = Host(str(host), Path(ssh_config) if ssh_config else None, None, host_folder)
    check(login, "deploy")
    limit_s = TIMEOUT_S["host"] if timeout_s is None else timeout_s
    return run_on_board(folder, login, samples=samples, timeout_s=limit_s, progress=progress)


def text(done: Deployment) -> str:
    """Return what a board did, in words."""
    accuracy = "" if done.accuracy is None else f", accuracy {100 * done.accuracy:.2f} %"
    lines = [f"{done.board}: {done.samples} samples, {done.max_error_lsb} LSB{accuracy}"]
    if done.clocks is not None:
        fastest, slowest = done.clocks
        clocks = f"{slowest:,}" if fastest == slowest else f"{fastest:,} to {slowest:,}"
        lines.append(f"on the chip: {clocks} clocks a sample ({slowest / done.clock_mhz:,.1f} us)")
        if done.cycles_per_sample is not None:
            lines[-1] += f", {done.cycles_per_sample:,.1f} from sample to sample in a batch"
    repeated = "" if done.retries is None else f", {done.retries} requests repeated"
    lines.append(
        f"over the {done.link}: {done.latency_us:,.1f} us for one sample, {done.samples_per_second:,.0f} samples a "
        f"second{repeated}"
    )
    return "\n".join(lines)
