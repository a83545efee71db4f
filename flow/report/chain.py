"""The equality chain as a table: every layer with its type, the range seen, and each hop in LSBs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

HEADS = ("layer", "operation", "shape", "type", "LSBs seen", "at ends", "QONNX", "csim")
RIGHT = (4, 5, 6, 7)


def rows(layers: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Return one row a layer; ``layers`` are `flow.types.LayerCheck` as plain values; hops in LSBs."""
    from flow.types import FixedPoint

    shown = []
    for layer in layers:
        dtype = FixedPoint(**layer["dtype"])
        shown.append(
            [
                layer["name"],
                layer["kind"].lower(),
                "x".join(map(str, layer["shape"])),
                str(dtype),
                f"{layer['lowest']}..{layer['highest']}",
                f"{layer['saturated']:.1%}" if layer["kind"] == "Rescale" else "-",
                _hop(layer["qonnx_lsb"]) + (f" ({layer['ties']} ties)" if layer["ties"] else ""),
                _hop(layer["csim_lsb"]),
            ]
        )
    return shown


def _hop(error: int | None) -> str:
    return "-" if error is None else str(error)


def summary(hops: Sequence[Mapping[str, Any]], emulation: Mapping[str, Any]) -> list[str]:
    """Return the lines under the table: each hop over whole outputs, and the speeds."""
    lines = [
        f"{hop['name']}: {hop['max_error']:g} {hop['unit']} on {hop['samples']:,} samples"
        for hop in hops
        if str(hop["unit"]).startswith("LSB") and "decoded" not in hop["name"]
    ]
    if emulation["tied_samples"]:
        lines.append(
            f"{emulation['tied_samples']:,} samples left out of QONNX = integers: float32 rounds them at a tie"
        )
    rtl = emulation.get("rtl")
    if rtl:
        measured = rtl["interval_cycles"]
        found = "too few frames to measure" if measured is None else f"{measured:,} measured"
        lines.append(
            f"Verilog: {rtl['predicted_interval_cycles']:,} clocks a frame predicted, {found}; "
            f"{rtl['latency_cycles']:,} to the first result, {rtl['multipliers']} multipliers"
        )
    lines.append(
        f"integer executor {emulation['executor_samples_per_second']:,.0f} samples/s, "
        f"csim {emulation['samples_per_second']:,.0f} samples/s ({emulation['header']} header, "
        f"built in {emulation['build_seconds']:.1f} s)"
    )
    return lines
