"""What the page and the terminal both show: the manifest's figures as texts and drawings, section by section."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flow.report import drawing, text
from flow.report.budget import Budget, budget
from flow.report.equality import Equality, equality
from flow.report.hardware import Hardware, hardware
from flow.report.layers import Layers, layers, total_of
from flow.report.pruning import Pruning, pruning, remaining
from flow.report.quantization import Quantization, quantization
from flow.report.storage import Storage, storage
from flow.report.synthesized import synthesized
from flow.report.text import number, section, words

STAGES = ("train", "prune", "simplify", "quantize", "compress", "convert", "lower", "emulate", "synthesize")
SPOKEN = {"float": "in float", "pruned": "pruned", "simplified": "simplified", "quantized": "quantized"}
ACCURACIES = tuple(SPOKEN)


@dataclass(frozen=True)
class Accuracy:
    """One row: the accuracy after a stage."""

    stage: str
    figure: str
    difference: str
    picture: drawing.Drawing | None


@dataclass(frozen=True)
class Accuracies:
    """The accuracy after each stage, with the axis that their pictures share."""

    rows: tuple[Accuracy, ...]
    low: str
    high: str
    note: str


@dataclass(frozen=True)
class Duration:
    """The time of one stage."""

    stage: str
    figure: str
    cached: bool
    share: float
    picture: drawing.Drawing | None


@dataclass(frozen=True)
class View:
    """All sections; an empty one is ``None`` or an empty tuple."""

    name: str
    date: str | None
    flow_version: str | None
    board: str | None
    conditions: tuple[tuple[str, str], ...]
    headline: str
    accuracies: Accuracies | None
    layers: Layers | None
    hardware: Hardware | None
    synthesized: Hardware | None
    pruning: Pruning | None
    quantization: Quantization | None
    equality: Equality
    budget: Budget
    storage: Storage | None
    durations: tuple[Duration, ...]
    total_seconds: str | None
    provenance: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]


def view(manifest: Mapping[str, Any]) -> View:
    """Read a manifest; any key may be missing."""
    board = section(manifest, "board")
    date = words(manifest.get("date"))
    chain = equality(manifest)
    use = budget(manifest)
    made = synthesized(manifest)
    return View(
        name=words(manifest.get("name")) or "unnamed run",
        date=date.replace("T", " ") if date else None,
        flow_version=words(manifest.get("flow_version")),
        board=words(board.get("title")) or words(board.get("name")),
        conditions=_conditions(manifest),
        headline=_headline(manifest, chain, use),
        accuracies=_accuracies(manifest),
        layers=layers(manifest),
        hardware=None if made else hardware(manifest),  # it speaks of the C++, which was not built
        synthesized=made,
        pruning=pruning(manifest),
        quantization=quantization(manifest),
        equality=chain,
        budget=use,
        storage=storage(manifest),
        durations=_durations(manifest),
        total_seconds=_total_seconds(manifest),
        provenance=_provenance(manifest),
    )


def _conditions(manifest: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    board, data = section(manifest, "board"), section(manifest, "data")
    period = number(board.get("clock_period_ns"))
    clock = f"{period:g} ns" + (f" ({1000 / period:g} MHz)" if period else "") if period is not None else None
    parts = [(key, number(data.get(key))) for key in ("train", "validation", "test")]
    sizes = ", ".join(f"{text.count(size)} {key}" for key, size in parts if size is not None)
    named = words(data.get("name"))
    facts = (
        ("board", words(board.get("title")) or words(board.get("name"))),
        ("part", words(board.get("part"))),
        ("clock", clock),
        ("data", f"{named}: {sizes}" if named and sizes else named or sizes or None),
        ("seed", words(manifest.get("seed"))),
    )
    return tuple((name, value) for name, value in facts if value)


def _headline(manifest: Mapping[str, Any], chain: Equality, use: Budget) -> str:
    channels = section(manifest, "channels")
    before, after = number(channels.get("before")), number(channels.get("after"))
    macs = [number(section(manifest, "macs").get(key)) for key in ("before", "after")]
    if None in macs:
        macs = [total_of(manifest, f"macs_{key}") for key in ("before", "after")]
    remain = []
    weights = remaining(manifest)
    if weights:
        remain.append(f"{text.count(weights[1])} of {text.count(weights[0])} parameters")
    elif before is not None and after is not None:
        remain.append(f"{text.count(after)} of {text.count(before)} channels")
    if macs[0] and macs[1] is not None and not weights:  # single weights that are zero leave no MAC out
        remain.append(f"{text.percent(macs[1] / macs[0], 1)} of the multiply-accumulates")
    parts = [f"{' and '.join(remain)} remain"] if remain else []
    parts += _accuracy_summary(manifest)
    parts += [chain.summary, use.summary]
    sentence = "; ".join(parts) + "."
    return sentence[0].upper() + sentence[1:]


def _accuracy_summary(manifest: Mapping[str, Any]) -> list[str]:
    accuracy = section(manifest, "accuracy")
    known = [(stage, value) for stage in ACCURACIES if (value := number(accuracy.get(stage))) is not None]
    if not known:
        return []
    samples = number(section(manifest, "data").get("test"))
    on = f" on {text.plural(samples, 'test sample')}" if samples is not None else ""
    (first, start), (last, end) = known[0], known[-1]
    if first != "float" or last == "float":
        return [f"accuracy is {text.percent(end)} {SPOKEN[last]}{on}"]
    change = f"{text.points(end - start)} points{on}"
    return [
        f"accuracy goes from {text.percent(start)} in float to {text.percent(end)} {SPOKEN[last]} ({change})"
    ]


def wilson(share: float, samples: float) -> tuple[float, float]:
    """Return the 95 % confidence interval of a share that was measured on ``samples`` samples.

    Source: E. B. Wilson, "Probable inference, the law of succession, and statistical inference", 1927.
    """
    z = 1.959964
    scale = 1 + z * z / samples
    middle = (share + z * z / (2 * samples)) / scale
    half = z / scale * math.sqrt(share * (1 - share) / samples + z * z / (4 * samples * samples))
    return max(0.0, middle - half), min(1.0, middle + half)


def _accuracies(manifest: Mapping[str, Any]) -> Accuracies | None:
    given = section(manifest, "accuracy")
    if not given:
        return None
    stages = [stage for stage in ACCURACIES if stage in given or stage != "simplified"]
    stages += [str(stage) for stage in given if stage not in ACCURACIES]
    values = {stage: number(given.get(stage)) for stage in stages}
    shares = {stage: value for stage, value in values.items() if value is not None and 0 <= value <= 1}
    samples = number(section(manifest, "data").get("test"))
    intervals: dict[str, tuple[float, float]] = {}
    if samples is not None and samples > 0:
        intervals = {stage: wilson(share, samples) for stage, share in shares.items()}
    ends = [end for pair in intervals.values() for end in pair] or list(shares.values())
    span = drawing.axis(ends, 0.01, 0.0, 1.0)
    start = values.get("float")
    rows = []
    for stage, value in values.items():
        difference = ""
        if value is not None and start is not None and stage != "float":
            difference = text.points(value - start)
        share = shares.get(stage)
        picture = drawing.estimate(share, intervals.get(stage), span) if share is not None else None
        rows.append(Accuracy(stage, text.percent(value), difference, picture))
    note = "The number of test samples is not recorded."
    if samples is not None and intervals:
        note = (
            f"{text.plural(samples, 'test sample')}; one sample is {100 / samples:.2f} points. "
            "Whiskers: 95% interval of each accuracy taken alone (Wilson)."
        )
    return Accuracies(tuple(rows), f"{span[0] * 100:.0f}%", f"{span[1] * 100:.0f}%", note)


def _durations(manifest: Mapping[str, Any]) -> tuple[Duration, ...]:
    given, cached = section(manifest, "seconds"), section(manifest, "cached")
    names = [str(name) for name in (*given, *cached) if name != "total"]
    order = [stage for stage in STAGES if stage in names]
    order += [name for name in dict.fromkeys(names) if name not in order]
    values = {stage: number(given.get(stage)) for stage in order}
    longest = max([value for value in values.values() if value is not None], default=0.0)
    rows = []
    for stage, value in values.items():
        was_cached = cached.get(stage) is True
        share = max(0.0, value / longest) if value is not None and longest > 0 else 0.0
        picture = None
        if value is not None:
            picture = drawing.bar(share, "cached" if was_cached else "after")
        rows.append(Duration(stage, text.seconds(value), was_cached, share, picture))
    return tuple(rows)


def _total_seconds(manifest: Mapping[str, Any]) -> str | None:
    total = number(section(manifest, "seconds").get("total"))
    return None if total is None else text.seconds(total)


def _flat(table: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for key, value in table.items():
        if isinstance(value, Mapping):
            found += _flat(value, f"{prefix}{key}.")
        elif value is not None:
            shown = value if isinstance(value, str) else json.dumps(value, default=str)
            found.append((f"{prefix}{key}", shown))
    return found


def _provenance(manifest: Mapping[str, Any]) -> tuple[tuple[str, tuple[tuple[str, str], ...]], ...]:
    run = [("flow", manifest.get("flow_version")), ("seed", manifest.get("seed"))]
    groups = [("run", _flat({key: value for key, value in run}))]
    groups += [(key, _flat(section(manifest, key))) for key in ("versions", "hashes")]
    groups.append(("options", _flat(section(manifest, "config"))))
    return tuple((name, tuple(rows)) for name, rows in groups if rows)
