"""A bundle on a board that is reached over OpenSSH: copied, run, its result brought back."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flow.build import remote
from flow.build.remote import Host
from flow.errors import ConfigError, MismatchError, ToolError
from flow.types import Deployment, Progress

_STEPS = 2
_NO_ROOT = 77
_DIFFERS = 1
"""The self-test's exit status where a result differs."""
_RUN = """\
set -eu
cd {folder}
if [ "$(id -u)" = 0 ]; then as_root=
elif sudo -n true 2>/dev/null; then as_root="sudo -n"
else exit {no_root}
fi
# a login shell: PYNQ's environment is set up in /etc/profile.d
exec $as_root bash -lc 'cd "$0" && exec python3 selftest.py --json {options}' "$PWD"
"""


def run_on_board(
    bundle: Path,
    host: Host,
    *,
    samples: int | None,
    timeout_s: float,
    progress: Progress,
) -> Deployment:
    """Copy the bundle to the board and run its self-test there; see `flow.deploy.deploy`.

    Raises:
        ConfigError: there is no bundle, or the login may not become root.
        MismatchError: the board gives something else than the golden vectors.
        ToolError: the board cannot be reached, refuses, or its DMA does not end.
    """
    manifest = _manifest(bundle)
    progress(0, _STEPS, f"copying the bundle to {host.name}")
    folder = f"{host.folder}/{manifest['bitstream']['sha256'][:16]}"
    remote.push(host, bundle, folder, subject="deploy")
    progress(1, _STEPS, "programming the board, running the golden vectors")
    options = f"--samples {samples}" if samples else ""
    script = _RUN.format(folder=shlex.quote(folder), no_root=_NO_ROOT, options=options)
    try:
        printed = remote.call(host, script, subject="deploy", timeout_s=timeout_s)
    except remote.RemoteFailure as failed:
        raise _refused(failed, host) from None
    done = _deployment(_last_line(printed.splitlines(), host), str(manifest["board"]), host)
    progress(_STEPS, _STEPS, "done")
    return done


def _manifest(bundle: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
        if not re.fullmatch("[0-9a-f]{64}", found["bitstream"]["sha256"]) or not isinstance(
            found["board"], str
        ):
            raise ValueError("another kind of manifest")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ConfigError(
            f"deploy: {str(bundle)!r} must be a bundle, not fail with {error!r}; flow deploy without --host writes one"
        ) from error
    return found


def _refused(failed: remote.RemoteFailure, host: Host) -> Exception:
    """Return the error that the self-test's exit status and last line stand for."""
    if failed.status == _NO_ROOT:
        return ConfigError(
            f"deploy: {host.name} must let the login become root without a password, not ask for one; log in as root, "
            "or allow it in /etc/sudoers.d (docs/boards.md): only root programs the fabric"
        )
    found = _last_line([*failed.output.splitlines(), *failed.errors.splitlines()], host)
    kind = MismatchError if failed.status == _DIFFERS else ToolError
    return kind(f"deploy: {host.name}: {found.get('error')}")


def _last_line(lines: Sequence[str], host: Host) -> dict[str, Any]:
    """Return what the self-test's last line of JSON holds."""
    for line in reversed(lines):
        if line.startswith("{"):
            try:
                found: dict[str, Any] = json.loads(line)
            except (ValueError, RecursionError):
                break
            return found
    shown = "\n".join(f"    {line[:200]}" for line in lines[-8:])
    raise ToolError(
        f"deploy: the self-test on {host.name} must end with its result, not without; its output ends with\n{shown}"
    )


_TEXTS = ("backend", "design_id")
_WHOLE = ("samples", "max_error_lsb", "latency_cycles")
_OPTIONAL = ("accuracy", "cycles_per_sample", "design_id", "latency_cycles")
_ANSWER = (
    *_TEXTS,
    *_WHOLE,
    "accuracy",
    "clock_mhz",
    "cycles_per_sample",
    "latency_us",
    "throughput_samples_per_s",
)
_LARGEST = 1e15


def _is_answer(key: str, value: object) -> bool:
    """Tell whether the self-test could have measured ``value``; it comes from a machine of the user's."""
    if value is None:
        return key in _OPTIONAL
    if key in _TEXTS:
        return isinstance(value, str) and value.isprintable() and len(value) < 100
    kind = int if key in _WHOLE else int | float
    return isinstance(value, kind) and not isinstance(value, bool) and 0 <= value < _LARGEST


def _deployment(found: Mapping[str, Any], board: str, host: Host) -> Deployment:
    for key in _ANSWER:
        if key not in found or not _is_answer(key, found[key]):
            told = repr(found[key])[:80] if key in found else "nothing"
            raise ToolError(
                f"deploy: the self-test on {host.name} must give {key} as this version's does, not {told}; copy the "
                "bundle again"
            )
    if not found["samples"] or found["max_error_lsb"]:
        raise MismatchError(
            f"deploy: the self-test on {host.name} must find 1 or more samples and 0 LSB, not {found['samples']} and "
            f"{found['max_error_lsb']}; copy the bundle again"
        )
    cycles = found["latency_cycles"]
    return Deployment(
        board=board,
        design_id=found["design_id"] or "",
        link=f"DMA ({found['backend']})",
        samples=found["samples"],
        max_error_lsb=found["max_error_lsb"],
        accuracy=found["accuracy"],
        clocks=None if cycles is None else (cycles, cycles),
        latency_us=found["latency_us"],
        samples_per_second=found["throughput_samples_per_s"],
        cycles_per_sample=found["cycles_per_sample"],
        clock_mhz=found["clock_mhz"],
    )
