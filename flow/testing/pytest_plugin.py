"""``pytest --flow-golden[=flow.toml]``: a config as a csim regression test with a ratchet.

pytest loads this module wherever the package is installed, so it imports nothing heavy, and without the
option it only declares its options.
"""

from __future__ import annotations

import glob
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from flow.errors import FlowError

CHECKS = ("equality", "accuracy", "resources")
_Shown = list[tuple[str, float | None, float | None]]
_CONFIGS = pytest.StashKey[dict[Path, _Shown]]()
"""The configs asked for, and what to show of each at the end: (figure, ratchet, now)."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the options."""
    group = parser.getgroup("flow", "flow: from a trained network to a proven bitstream")
    group.addoption(
        "--flow-golden",
        action="append",
        nargs="?",
        const="flow.toml",
        metavar="CONFIG",
        help="Test this flow.toml (default flow.toml; repeatable; patterns such as 'nets/**/*.toml'): every hop "
        "at 0 LSB, accuracy and resources no worse than the ratchet <name>-golden.json beside it.",
    )
    group.addoption(
        "--flow-golden-update",
        action="store_true",
        help="Write better figures, and those that are new, into the ratchet.",
    )
    group.addoption(
        "--flow-golden-force", action="store_true", help="Write all figures into the ratchet, worse ones too."
    )
    group.addoption(
        "--flow-golden-to",
        default="emulate",
        metavar="STAGE",
        help="The last stage to run (default: emulate; synthesize adds the vendor's reports).",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Find the configs and let pytest collect them beside its other arguments."""
    wanted = config.getoption("flow_golden")
    if not wanted:
        return
    config.addinivalue_line("markers", "flow_golden: a flow.toml as a regression test")
    found = [path for pattern in wanted for path in _matches(pattern, config.invocation_params.dir)]
    shown: dict[Path, _Shown] = {path: [] for path in found}
    config.stash[_CONFIGS] = shown
    named = {str(argument).split("::")[0] for argument in config.args}
    given = {(config.invocation_params.dir / name).resolve() for name in named}
    config.args.extend(str(path) for path in found if path not in given)


def _matches(pattern: str, folder: Path) -> list[Path]:
    """Return the files of a pattern.

    Raises:
        pytest.UsageError: there is none, or one that is no config.
    """
    found = [folder / name for name in sorted(glob.glob(pattern, root_dir=folder, recursive=True))]
    if not found:
        raise pytest.UsageError(
            f"--flow-golden: {pattern!r} must name a file, not nothing in {folder}; flow init writes one"
        )
    others = [path for path in found if path.is_dir() or path.suffix != ".toml"]
    if others:
        raise pytest.UsageError(
            f"--flow-golden: {pattern!r} must name a .toml file, not {others[0].name!r}; write "
            "--flow-golden=flow.toml, with =, in front of other arguments"
        )
    return [path.resolve() for path in found]


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Take the configs that were asked for."""
    if file_path.resolve() not in parent.config.stash.get(_CONFIGS, {}):
        return None
    collector: pytest.Collector = GoldenFile.from_parent(parent, path=file_path)
    return collector


class GoldenFile(pytest.File):
    """One config; its run is shared by its checks."""

    _result: Mapping[str, Any] | FlowError | None = None

    def collect(self) -> Iterator[pytest.Item]:
        """Give one item a check."""
        for name in CHECKS:
            yield GoldenItem.from_parent(self, name=name)

    def manifest(self) -> Mapping[str, Any]:
        """Return what the run measured; it runs once.

        Raises:
            FlowError: the run failed; every check says so.
        """
        if self._result is None:
            from flow.config import load
            from flow.run import pipeline

            try:
                checked = load(self.path)
                out = checked.base / "runs" / checked.name
                last = self.config.getoption("flow_golden_to")
                self._result = pipeline.run(self.path, out=out, last=last).values
            except FlowError as error:
                self._result = error
        if isinstance(self._result, FlowError):
            raise self._result
        return self._result


class GoldenItem(pytest.Item):
    """One check of a config."""

    parent: GoldenFile

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.add_marker("flow_golden")

    def runtest(self) -> None:
        """Run the config, unless that was done, and check."""
        from flow.testing import ratchet

        manifest = self.parent.manifest()
        if self.name == "equality":
            self.user_properties.extend(ratchet.check_equality(manifest).items())
            return
        accuracy = self.name == "accuracy"
        new = {k: v for k, v in ratchet.measured(manifest).items() if (k == ratchet.ACCURACY) == accuracy}
        if not new:
            pytest.skip(f"the run measured no {self.name}")
        self.user_properties.extend(new.items())
        self._hold(new)

    def _hold(self, new: Mapping[str, float]) -> None:
        """Hold figures to the ratchet, and move it where that was asked for.

        Raises:
            ConfigError: the ratchet is missing or broken.
        """
        from flow.testing import ratchet

        update, force = (self.config.getoption(f"flow_golden_{name}") for name in ("update", "force"))
        path = ratchet.path_of(self.path)
        old = ratchet.load(path, or_new=update or force, or_broken=force)
        held = [name for name in old.figures if (name == ratchet.ACCURACY) == (self.name == "accuracy")]
        shown = self.config.stash[_CONFIGS][self.path.resolve()]
        shown.extend((name, old.figures.get(name), new.get(name)) for name in dict.fromkeys([*held, *new]))
        if force or update:
            moved = old.moved(new, replace=held if force else ())
            if moved != old:
                ratchet.save(moved, path)
            held = [] if force else held
        else:
            held = list(dict.fromkeys([*held, *new]))  # what the file lacks is held to nothing
        complaints = [c for c in (old.complaint(name, new.get(name)) for name in held) if c]
        if complaints:
            rules = "\n".join(complaints)
            pytest.fail(
                f"{self.path.name}: {rules}\nfind what made it worse, or take it: pytest --flow-golden-force "
                f"writes {path.name}",
                pytrace=False,
            )

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """Show the flow's own errors as their one message."""
        if isinstance(excinfo.value, FlowError):
            return f"{self.path.name}: {type(excinfo.value).__name__}: {excinfo.value}"
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, None, str]:
        """Return the file and what is checked."""
        return self.path, None, self.name


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show every figure beside its ratchet."""
    for path, figures in terminalreporter.config.stash.get(_CONFIGS, {}).items():
        if figures:
            terminalreporter.write_sep("-", f"{path.name} against {path.stem}-golden.json")
        for name, old, new in figures:
            was, now = ("none" if value is None else f"{value:g}" for value in (old, new))
            terminalreporter.write_line(f"{name:<28} {was:>12} -> {now}")
