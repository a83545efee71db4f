"""From a finished run to a board: the bundle of a vendor build, or the link of an open one, and what the board did."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flow import boards
from flow.config import load
from flow.deploy import deploy
from flow.deploy.bundle import bundle
from flow.errors import ConfigError
from flow.run import steps
from flow.run.manifest import MANIFEST, add_deployment
from flow.run.store import Store
from flow.types import Deployment, Progress, silent

BUNDLE = "bundle"


def deploy_run(
    config: str | Path | None = None,
    *,
    out: Path | None = None,
    serial: str | None = None,
    host: str | None = None,
    progress: Progress = silent,
    **options: Any,
) -> tuple[Path, Deployment | None]:
    """Deploy what a run built, and take what the board did into the run's report.

    Args:
        config: of the run; ``None``: the digits demo.
        out: the run's folder; ``None``: ``runs/<name>``.
        serial, host, options: see `flow.deploy.deploy`; without both a vendor build's bundle is written, and no more.
        progress: see `flow.types.Progress`.

    Returns:
        What went to the board, the bundle's folder or the build's, and what the board did.

    Raises:
        ConfigError, MismatchError, ToolError: see `flow.deploy.deploy` and `flow.deploy.bundle.bundle`.
    """
    checked = load(config)
    folder = Path(out) if out is not None else Path("runs") / checked.name
    if not folder.is_dir():
        raise ConfigError(f"deploy: {str(folder)!r} must hold a run, not be missing; flow run makes one")
    if serial is not None:
        source = Store(folder).shown("synthesize").folder
    else:
        source = _bundle(folder, checked.board, checked.name)
        if host is None:
            return source, None
    done = deploy(source, serial=serial, host=host, progress=progress, **options)
    if (folder / MANIFEST).is_file():
        add_deployment(folder, done)
    return source, done


def _bundle(folder: Path, board: str, name: str) -> Path:
    """Write the bundle of the run's vendor build into its folder."""
    store = Store(folder)
    built = store.shown("synthesize")
    if built.figures["toolchain"] != "vitis":
        raise ConfigError(
            f"deploy: the build in {str(folder)!r} must be Vivado's for a bundle, not the open toolchain's; name the "
            "board's port with --serial"
        )
    design = steps.load_project(store.shown("convert"), store.shown("quantize"))
    return bundle(built.folder, design, boards.load(board), out=folder / BUNDLE, name=name)
