"""The ratchet: accuracy and resources of a run against the best that were committed."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flow.errors import ConfigError, MismatchError
from flow.files import write_json

ACCURACY = "accuracy"
TOLERANCE = {ACCURACY: 0.005, "resources": 0.02}
"""Of a new ratchet: accuracy absolute, resources relative. Other processors round otherwise and train otherwise."""


@dataclass(frozen=True)
class Ratchet:
    """The best figures so far. More is better for the accuracy, less for everything else."""

    figures: Mapping[str, float] = field(default_factory=dict)
    tolerance: Mapping[str, float] = field(default_factory=lambda: dict(TOLERANCE))

    def limit(self, name: str) -> float:
        """Return the worst value that still passes."""
        old = self.figures[name]
        return old - self.tolerance[ACCURACY] if name == ACCURACY else old * (1 + self.tolerance["resources"])

    def complaint(self, name: str, new: float | None) -> str | None:
        """Return what is wrong with a figure of a new run, or None."""
        if name not in self.figures:
            return f"{name} must be in the ratchet, not be missing there ({new:g}); pytest --flow-golden-update adds it"
        old, limit = self.figures[name], self.limit(name)
        if new is None:
            return f"{name} must be measured as before ({old:g}), not be missing"
        if new >= limit if name == ACCURACY else new <= limit:
            return None
        rule = "at least" if name == ACCURACY else "at most"
        return f"{name} must be {rule} {limit:g} (was {old:g}, tolerance {abs(limit - old):g}), not {new:g}"

    def moved(self, measured: Mapping[str, float], *, replace: Collection[str] = ()) -> Ratchet:
        """Return the ratchet after a run: every figure the better of old and new; of ``replace``, the new."""
        figures = {name: value for name, value in self.figures.items() if name not in replace}
        for name, new in measured.items():
            better = max if name == ACCURACY else min
            figures[name] = better(new, figures.get(name, new))
        return Ratchet(figures, self.tolerance)


def path_of(config: Path) -> Path:
    """Return where the ratchet of a config lies: ``flow-golden.json`` beside ``flow.toml``."""
    return config.with_name(f"{config.stem}-golden.json")


def load(path: Path, *, or_new: bool = False, or_broken: bool = False) -> Ratchet:
    """Read a ratchet.

    Args:
        path: the file.
        or_new: give an empty ratchet where there is no file.
        or_broken: give an empty ratchet where the file cannot be read.

    Raises:
        ConfigError: the file is missing or does not hold figures.
    """
    if not path.is_file():
        if or_new:
            return Ratchet()
        raise ConfigError(
            f"flow-golden: ratchet {str(path)!r} must be committed beside the config, not missing; "
            "write it with --flow-golden-update"
        )
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        figures = {str(name): _number(value) for name, value in values["figures"].items()}
        tolerance = {name: _number(values["tolerance"][name]) for name in TOLERANCE}
        _check_holds(figures, tolerance)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        if or_broken:
            return Ratchet()
        raise ConfigError(
            f"flow-golden: ratchet {str(path)!r} must hold figures and tolerances as numbers, not be broken "
            f"({type(error).__name__}: {error}); take the committed one, or write it anew with --flow-golden-force"
        ) from error
    return Ratchet(figures, tolerance)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
        raise ValueError(f"{value!r} is no number from 0 up")
    return value


def _check_holds(figures: Mapping[str, float], tolerance: Mapping[str, float]) -> None:
    """Refuse a tolerance that anything would pass."""
    best = figures.get(ACCURACY, 1.0)
    if tolerance[ACCURACY] >= best > 0:
        raise ValueError(
            f"tolerance of accuracy must be below {best:g}, not {tolerance[ACCURACY]:g}: it holds nothing"
        )
    if tolerance["resources"] > 1:
        raise ValueError(
            f"tolerance of resources must be at most 1, not {tolerance['resources']:g}: it holds nothing"
        )


def save(ratchet: Ratchet, path: Path) -> None:
    """Write a ratchet, whole or not at all."""
    values = {"figures": dict(sorted(ratchet.figures.items())), "tolerance": dict(ratchet.tolerance)}
    write_json(path, values)


def measured(manifest: Mapping[str, Any]) -> dict[str, float]:
    """Return the figures of a run that a ratchet holds, as far as the run has them.

    ``accuracy`` is the csim's over the test set; ``weight_bytes`` what the numbers take at their widths;
    ``estimated.*``, ``csynth.*`` and ``reported.*`` are LUTs and the like of the estimator, C synthesis and the placed
    design.
    """
    layers = manifest.get("layers", [])
    report = (manifest.get("synthesis") or {}).get("report") or {}
    hardware = manifest.get("hardware", {}).get("total", {})
    figures: dict[str, float | None] = {
        ACCURACY: manifest.get("emulation", {}).get("accuracy"),
        "macs": manifest.get("macs", {}).get("after"),
        "parameters": manifest.get("parameters", {}).get("after"),
        "weight_bytes": manifest.get("compress", {}).get("bytes_at_widths"),
        "multipliers": sum(row.get("multipliers") or 0 for row in layers) or None,
        **{f"estimated.{key}": value for key, value in (hardware.get("pruned") or {}).items()},
        **{f"csynth.{key}": value for key, value in (hardware.get("csynth") or {}).items()},
        **{f"reported.{key}": value for key, value in report.get("resources", {}).items()},
        **{f"reported.{key}": report.get(key) for key in ("latency_cycles", "interval_cycles")},
    }
    return {name: value for name, value in figures.items() if value is not None}


def check_equality(manifest: Mapping[str, Any]) -> dict[str, float]:
    """Return the largest difference of every hop of the equality chain.

    Raises:
        MismatchError: a hop is not exact, or the C++ was not compared.
    """
    hops = manifest["equality"]["hops"]
    for hop in hops:
        if not hop["exact"]:
            raise MismatchError(
                f"{hop['name']}: both sides must be equal, not differ by {hop['max_error']:g} {hop['unit']}; "
                "flow emulate --layers shows the first layer"
            )
    if "max_error_lsb" not in manifest["equality"]:
        raise MismatchError(
            "flow-golden: the C++ must be compared, not left out; let the run reach emulate (--flow-golden-to)"
        )
    return {f"{hop['name']} [{hop['unit']}]": hop["max_error"] for hop in hops}
