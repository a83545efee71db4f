"""The equality chain: what was compared, on how much, and whether it came out equal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flow.report import text
from flow.report.text import number, section, tables, words

EXACT, ROUNDING, DIFFERS, NOT_RUN = "exact", "equal to rounding", "differs", "not run"
SIGNS = {EXACT: "=", ROUNDING: "≈", DIFFERS: "≠", NOT_RUN: "?"}
EXPECTED = (("pruned", "simplified"), ("torch", "QONNX"), ("QONNX", "integers"), ("integers", "C++ (csim)"))
BEYOND = ("verilog", "rtl", "bitstream", "board")


@dataclass(frozen=True)
class Hop:
    """One comparison: ``left sign right``."""

    left: str
    right: str
    sign: str
    state: str
    samples: str
    error: str


@dataclass(frozen=True)
class Equality:
    """All hops in order; ``summary`` is the part of the headline that speaks of them."""

    hops: tuple[Hop, ...]
    layers: tuple[str, ...]
    layer_samples: str
    notes: tuple[str, ...]
    summary: str


def state_of(hop: Mapping[str, Any]) -> str:
    """Judge one hop; a float comparison may be equal up to rounding, one in LSBs may not."""
    given = hop.get("max_error")
    error, exact = number(given), hop.get("exact")
    if error is None:
        # Infinite and NaN are the result of a comparison that ran.
        return DIFFERS if isinstance(given, int | float) and not isinstance(given, bool) else NOT_RUN
    if error == 0:
        return DIFFERS if exact is False else EXACT
    return ROUNDING if exact is True and hop.get("unit") != "LSB" else DIFFERS


def _hop(hop: Mapping[str, Any]) -> Hop:
    left, _, right = (words(hop.get("name")) or "unnamed").partition("=")
    state = state_of(hop)
    samples, error, unit = number(hop.get("samples")), number(hop.get("max_error")), words(hop.get("unit"))
    figure = text.MISSING if state == NOT_RUN else "not finite"
    if error is not None:
        figure = f"{text.error(error)} {unit or ''}".strip()
    counted = (
        text.plural(samples, words(hop.get("counted")) or "sample") if samples is not None else text.MISSING
    )
    return Hop(left.strip(), right.strip(), SIGNS[state], state, counted, figure)


def equality(manifest: Mapping[str, Any]) -> Equality:
    """Read the chain; a hop of ``EXPECTED`` that the manifest lacks is shown as not run."""
    given = section(manifest, "equality")
    hops = [_hop(hop) for hop in tables(given, "hops")]
    for position, (left, right) in enumerate(EXPECTED):
        word = right.split()[0].lower()
        if not any(word in (hop.right or hop.left).lower() for hop in hops):
            hops.insert(position, Hop(left, right, SIGNS[NOT_RUN], NOT_RUN, text.MISSING, text.MISSING))
    beyond = any(word in (hop.right or hop.left).lower() for hop in hops for word in BEYOND)
    notes = []
    if any(hop.state == ROUNDING for hop in hops):
        notes.append("≈ is a comparison in floating point that stayed within its tolerance.")
    if not beyond:
        notes.append("The chain ends at the C++: Verilog and bitstream were not compared.")
    rtl = section(section(manifest, "emulation"), "rtl")
    clocks, predicted = (number(rtl.get(f"{kind}interval_cycles")) for kind in ("", "predicted_"))
    if clocks is not None and predicted is not None:
        notes.append(
            f"The Verilog takes a frame every {clocks:,.0f} clocks; {predicted:,.0f} were predicted."
        )
    names = given.get("layers")
    layers = tuple(str(name) for name in names) if isinstance(names, list | tuple) else ()
    samples = text.count(number(given.get("layer_samples")))
    return Equality(tuple(hops), layers, samples, tuple(notes), _summary(given, hops))


def _summary(given: Mapping[str, Any], hops: list[Hop]) -> str:
    broken = [f"{hop.left} = {hop.right}" for hop in hops if hop.state == DIFFERS]
    error, samples = number(given.get("max_error_lsb")), number(given.get("samples"))
    on = f" on {text.plural(samples, 'sample')}" if samples is not None else ""
    if error:
        return f"the C++ differs from its reference by up to {text.error(error)} LSB{on}"
    if broken:
        return f"the equality chain breaks at {' and at '.join(broken)}"
    if error is None:
        return "the C++ was not compared"
    return f"the C++ equals its reference in every bit{on}"
