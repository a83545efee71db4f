"""The Verilog of layers: windows, sums of products, pools and functions of values, exact against integers of any width.

With stalls, resets, and the clocks that each takes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
from rtl_cases import Beats, Bench, Case, drawn, limits, needs_verilator

from flow.fixed.from_qonnx.rescale import divide
from flow.fixed.graph import ROUNDINGS
from flow.rtl.words import memory, signed_width

FRAMES = 6
STEADY = 2
"""Frames until a ring of rows is as full as it stays."""


@dataclass(frozen=True)
class Layer:
    """A case with one input and one output; without stalls it gives ``beats`` beats in ``clocks`` clocks, always.

    ``latency``: the clock of the first output beat when the first input beat passes at clock 0; ``None``: untold.
    """

    case: Case
    beats: int
    clocks: int
    latency: int | None = None

    def late(self, arrivals: np.ndarray) -> str:
        """Return what is wrong with the clocks of the output's beats."""
        ends = arrivals[self.beats - 1 :: self.beats][STEADY:]
        if set(np.diff(ends)) != {self.clocks}:
            return f"{self.case.name}: {sorted(set(np.diff(ends)))} clocks, not {self.clocks}"
        if self.latency is not None and arrivals[0] != self.latency:
            return f"{self.case.name}: first beat at clock {arrivals[0]}, not {self.latency}"
        return ""


def every(width: int, signed: bool, lanes: int, folds: int = 1) -> np.ndarray:
    """Return beats (beats, lanes) in which every lane of every fold meets every value of the type, unequal lanes."""
    low, high = limits(width, signed)
    values = np.arange(low, high + 1).astype(object)
    values = np.tile(values, max(1, 64 >> width))
    beats = [np.roll(values, 5 * lane + 3 * fold) for fold in range(folds) for lane in range(lanes)]
    return np.stack(beats, 1).reshape(-1, lanes)


def by_channel(constants: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return constants (folds, lanes) for every beat of x."""
    return np.tile(constants, (len(x) // len(constants), 1))


# ---------------------------------------------------------------- windows


@dataclass(frozen=True)
class Form:
    """A window's geometry, (rows, columns) each; ``after``: padding at the bottom and right, below zero: cropped."""

    image: tuple[int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    before: tuple[int, int] = (0, 0)
    after: tuple[int, int] = (0, 0)
    lanes: int = 1
    folds: int = 1
    width: int = 8

    @property
    def spans(self) -> tuple[int, ...]:
        return tuple((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilation, strict=True))

    @property
    def outputs(self) -> tuple[int, ...]:
        sizes = zip(self.image, self.before, self.after, self.spans, self.stride, strict=True)
        return tuple((n + b + a - span) // step + 1 for n, b, a, span, step in sizes)

    @property
    def plenty(self) -> int:
        """Rows with which the next ones are there in time.

        The last window of a frame stays, with the rows below it that none reads, until the next frame's first is whole.
        """
        span, top = self.spans[0], self.before[0]
        below = max(0, self.image[0] + top - (self.outputs[0] - 1) * self.stride[0] - span)
        return span + max(self.stride[0], below + span - top)

    @property
    def fewest(self) -> int:
        return min(self.image[0], self.spans[0])

    @property
    def first(self) -> int:
        """Positions of the image before the first window is whole, one that lies behind a row counted in the next."""
        return (self.spans[0] - 1 - self.before[0]) * self.image[1] + self.spans[1] - 1 - self.before[1]

    @property
    def in_a_line(self) -> bool:
        """Windows end one after the other when the image passes position by position."""
        one_by_one = (self.outputs[1] - 1) * self.stride[1] < self.stride[0] * self.image[1]
        return self.first >= 0 and one_by_one and (self.image[1] > 1 or self.spans[0] == 1)

    def windows(self, images: np.ndarray, outside: int) -> np.ndarray:
        """Return the beats of all windows of images (frames, rows, columns, folds, lanes)."""
        beats = []
        for frame in images:
            for oy, ox, ky, kx in np.ndindex(*self.outputs, *self.kernel):
                row = oy * self.stride[0] + ky * self.dilation[0] - self.before[0]
                column = ox * self.stride[1] + kx * self.dilation[1] - self.before[1]
                inside = 0 <= row < self.image[0] and 0 <= column < self.image[1]
                beats.append(frame[row, column] if inside else np.full(frame.shape[2:], outside, object))
        return np.concatenate(beats)


FORMS = {
    "same": Form((5, 6), (3, 3), before=(1, 1), after=(1, 1)),
    "valid": Form((6, 5), (3, 3), lanes=3, width=5),
    "folded": Form((4, 5), (3, 3), before=(1, 1), after=(1, 1), lanes=2, folds=3, width=3),
    "one_by_one": Form((3, 4), (1, 1), folds=2),
    "single": Form((1, 1), (1, 1)),
    "single_padded": Form((1, 1), (3, 3), before=(1, 1), after=(1, 1), folds=2),
    "pooling": Form((6, 8), (2, 2), (2, 2), lanes=2),
    "pooling_cropped": Form((7, 5), (2, 2), (2, 2), folds=2),
    "strided": Form((7, 9), (3, 3), (2, 2), before=(1, 1), after=(1, 1)),
    "strided_unevenly": Form((8, 5), (3, 2), (3, 1), before=(0, 1), after=(1, 2)),
    "sparse": Form((9, 7), (2, 2), (4, 3), folds=2),
    "picked": Form((9, 7), (1, 1), (4, 3)),
    "picked_last": Form((9, 7), (1, 1), (8, 6)),
    "dilated": Form((7, 6), (2, 3), dilation=(3, 2), before=(2, 1), after=(1, 2)),
    "dilated_strided": Form((9, 8), (3, 2), (2, 3), (2, 3), before=(2, 1), after=(2, 1), lanes=2),
    "dilated_past": Form((3, 3), (2, 2), dilation=(4, 4), before=(2, 2), after=(2, 2)),
    "line": Form((1, 11), (1, 3), before=(0, 1), after=(0, 1), folds=2),
    "line_strided": Form((1, 10), (1, 4), (1, 3), before=(0, 2), after=(0, 1)),
    "line_causal": Form((1, 9), (1, 3), dilation=(1, 2), before=(0, 4), lanes=3),
    "column": Form((9, 1), (3, 1), (2, 1), before=(1, 0)),
    "whole": Form((5, 4), (5, 4), folds=2),
    "whole_padded": Form((3, 3), (5, 5), before=(1, 1), after=(1, 1)),
    "mostly_padding": Form((2, 3), (5, 4), (2, 2), before=(4, 3), after=(4, 3)),
    "tall": Form((5, 3), (4, 1), before=(3, 0), after=(0, 0), width=17),
    "cropped": Form((9, 6), (2, 3), after=(-4, -2)),
    "cropped_padded": Form((8, 5), (3, 3), (2, 1), before=(2, 1), after=(-3, 0)),
    "wide_beats": Form((4, 4), (2, 2), before=(0, 1), after=(1, 0), lanes=5, width=31),
}


def window(name: str, form: Form, rows: int, number: int) -> Layer:
    low, high = limits(form.width, True)
    images = drawn(number, (FRAMES, *form.image, form.folds, form.lanes), low, high)
    outside = (low, 0, -1)[number % 3]
    made = form.windows(images, outside)
    keys = ("IN_{}", "OUT_{}", "K_{}", "STRIDE_{}", "DILATION_{}")
    values = (form.image, form.outputs, form.kernel, form.stride, form.dilation)
    parameters = {
        key.format(side): pair[place]
        for key, pair in zip(keys, values, strict=True)
        for place, side in enumerate("HW")
    }
    parameters |= {"WIDTH": form.width, "LANES": form.lanes, "FOLDS": form.folds, "ROWS": rows}
    parameters |= {"PAD_TOP": form.before[0], "PAD_LEFT": form.before[1]}
    parameters |= {"PAD_VALUE": outside & (1 << form.width) - 1}
    case = Case(
        name,
        "flow_window",
        parameters,
        {"in": Beats(images.reshape(-1, form.lanes), form.width)},
        {"out": Beats(made, form.width)},
    )
    beats = len(made) // FRAMES
    return Layer(case, beats, max(beats, math.prod(form.image) * form.folds))


WINDOWS = tuple(window(name, form, form.plenty, n) for n, (name, form) in enumerate(FORMS.items()))
TIGHT = tuple(
    window(f"{name}_{rows}", form, rows, n)
    for n, (name, form) in enumerate(FORMS.items())
    for rows in ((form.fewest, form.plenty + 3) if n % 3 == 0 else (form.fewest,))
)
"""As few rows as hold a window, which slow it down, or more than it needs."""


def patch(name: str, form: Form, number: int) -> Layer:
    """The same windows, a whole one a beat; all lanes of a position come at once."""
    lanes = form.folds * form.lanes
    flat = replace(form, lanes=lanes, folds=1)
    streamed = window(name, flat, flat.plenty, number).case
    parameters = {key: value for key, value in streamed.parameters.items() if key not in ("FOLDS", "ROWS")}
    made = streamed.outputs["out"].values.reshape(-1, math.prod(form.kernel) * lanes)
    case = Case(name, "flow_patch", parameters, streamed.inputs, {"out": Beats(made, form.width)})
    last = form.first + (form.outputs[0] - 1) * form.stride[0] * form.image[1]
    last += (form.outputs[1] - 1) * form.stride[1]
    return Layer(case, len(made) // FRAMES, max(last + 1, math.prod(form.image)), latency=form.first + 1)


PATCHES = tuple(
    patch(f"{name}_whole", form, n) for n, (name, form) in enumerate(FORMS.items()) if form.in_a_line
)


# ---------------------------------------------------------------- sums of products


@dataclass(frozen=True)
class Types:
    """What is multiplied, and how: (bits, signed) of each side."""

    x: tuple[int, bool] = (8, True)
    weight: tuple[int, bool] = (8, True)
    shift: int = 0
    biased: bool = True

    def parameters(self, out: int) -> dict[str, int | str]:
        return {
            "IN_WIDTH": self.x[0],
            "IN_SIGNED": int(self.x[1]),
            "WEIGHT_WIDTH": self.weight[0],
            "WEIGHT_SIGNED": int(self.weight[1]),
            "OUT_WIDTH": out,
            "PRODUCT_SHIFT": self.shift,
        }


def biases(types: Types, seed: int, shape: tuple[int, ...]) -> np.ndarray:
    reach = 1 << sum((types.x[0], types.weight[0], types.shift))
    return drawn(seed, shape, -reach, reach) if types.biased else np.zeros(shape, object)


def mvau(
    name: str,
    types: Types,
    simd: int,
    pe: int,
    folds: tuple[int, int],
    weights: np.ndarray | None = None,
    vectors: np.ndarray | None = None,
    packed: bool = False,
) -> Layer:
    """``folds``: of synapses and of neurons; ``weights``: (outputs, inputs)."""
    synapse, neuron = folds
    inputs, outputs = simd * synapse, pe * neuron
    if weights is None:
        low, high = limits(*types.weight)
        weights = drawn(inputs, (outputs, inputs), low, high)
        weights[0] = low
        weights[-1, ::2] = high
    if vectors is None:
        low, high = limits(*types.x)
        vectors = drawn(outputs, (12, inputs), low, high)
        vectors[1:4] = np.array([[low], [high], [0]], object)
    bias = biases(types, 7, (outputs,))
    out = (vectors @ weights.T << types.shift) + bias
    bits = signed_width(out)
    words = weights.reshape(neuron, pe, synapse, simd).swapaxes(1, 2).reshape(-1, pe * simd)
    parameters = types.parameters(bits) | {"SIMD": simd, "PE": pe, "SYNAPSE_FOLD": synapse}
    parameters |= {"NEURON_FOLD": neuron, "PACKED": int(packed), "WEIGHTS": f"{name}.hex"}
    data = {f"{name}.hex": memory(words, types.weight[0])}
    if types.biased:
        parameters |= {"BIASES": f"{name}_b.hex"}
        data |= {f"{name}_b.hex": memory(bias.reshape(neuron, pe), bits)}
    given = {"in": Beats(vectors.reshape(-1, simd), *types.x)}
    made = {"out": Beats(out.reshape(-1, pe), bits)}
    case = Case(name, "flow_mvau", parameters, given, made, data=data)
    return Layer(case, 1, synapse, latency=synapse - 1 + 4)


ZERO_ROWS = np.array([[127, 127, 127, -127, -127, -127], [-128, -128, 127, 1, 127, 1]], object)
EQUAL = np.repeat(drawn(3, (20, 1), -127, 126), 6, 1)
EQUAL[5:, 5] += np.arange(15) % 2
"""Almost equal inputs: with rows that sum to zero, partial sums leave the sum's few bits and come back."""


def depthwise(name: str, types: Types, lanes: int, folds: int, beats: int) -> Layer:
    low, high = limits(*types.x)
    x = drawn(beats, (12, beats, folds * lanes), low, high)
    x[1], x[2], x[3] = low, high, 0
    low, high = limits(*types.weight)
    weights = drawn(lanes, (beats, folds * lanes), low, high)
    weights[:, 0], weights[:, -1] = low, high
    bias = biases(types, 5, (folds * lanes,))
    out = ((x * weights).sum(1) << types.shift) + bias
    bits = signed_width(out)
    parameters = types.parameters(bits) | {"LANES": lanes, "FOLDS": folds, "BEATS": beats}
    parameters |= {"WEIGHTS": f"{name}.hex"}
    data = {f"{name}.hex": memory(weights.reshape(-1, lanes), types.weight[0])}
    if types.biased:
        parameters |= {"BIASES": f"{name}_b.hex"}
        data |= {f"{name}_b.hex": memory(bias.reshape(folds, lanes), bits)}
    given = {"in": Beats(x.reshape(-1, lanes), *types.x)}
    made = {"out": Beats(out.reshape(-1, lanes), bits)}
    case = Case(name, "flow_depthwise", parameters, given, made, data=data)
    return Layer(case, folds, beats * folds, latency=(beats - 1) * folds + 3)


def pool(kind: str, width: int, signed: bool, lanes: int, folds: int, beats: int) -> Layer:
    low, high = limits(width, signed)
    x = drawn(width + beats, (12, beats, folds * lanes), low, high)
    x[1], x[2], x[3] = low, high, 0
    out = x.max(1) if kind == "max" else x.sum(1)
    bits = width if kind == "max" else signed_width(out) - (not signed)
    name = f"{kind}_{width}_{int(signed)}_{lanes}_{folds}_{beats}"
    parameters = {"LARGEST": int(kind == "max"), "IN_WIDTH": width, "IN_SIGNED": int(signed)}
    parameters |= {"OUT_WIDTH": bits, "LANES": lanes, "FOLDS": folds, "BEATS": beats}
    given = {"in": Beats(x.reshape(-1, lanes), width, signed)}
    made = {"out": Beats(out.reshape(-1, lanes), bits, signed)}
    case = Case(name, "flow_pool", parameters, given, made)
    return Layer(case, folds, beats * folds, latency=(beats - 1) * folds + 1)


SUMS = (
    mvau("mvau_plain", Types(biased=False), 1, 1, (4, 3)),
    mvau("mvau_at_once", Types((5, True), (3, True)), 6, 4, (1, 1)),
    mvau("mvau_one", Types(), 1, 1, (1, 1)),
    mvau("mvau_odd", Types((7, True), (5, True), 3), 3, 5, (7, 3)),
    mvau("mvau_rows", Types((4, False), (6, True)), 2, 1, (1, 9)),
    mvau("mvau_row", Types((4, False), (6, True)), 5, 2, (6, 1)),
    mvau("mvau_unsigned", Types((8, False), (4, False), 2), 2, 3, (5, 2)),
    mvau("mvau_unsigned_weights", Types((3, True), (8, False)), 4, 2, (3, 4)),
    mvau("mvau_bits", Types((1, False), (1, True), 5), 8, 3, (2, 2)),
    mvau("mvau_signs", Types((1, True), (1, True), biased=False), 3, 1, (3, 3)),
    mvau("mvau_wide", Types((24, True), (18, True), 11), 3, 2, (3, 2)),
    mvau("mvau_packed", Types((8, True), (8, True)), 3, 4, (3, 2), packed=True),
    mvau("mvau_packed_odd", Types((4, False), (6, True), 2), 2, 5, (3, 2), packed=True),
    mvau("mvau_packed_unsigned", Types((8, False), (4, False)), 1, 2, (5, 1), packed=True),
    mvau("mvau_packed_bits", Types((1, True), (1, True)), 4, 3, (2, 2), packed=True),
    mvau("mvau_packed_one", Types((5, True), (3, True)), 2, 1, (3, 4), packed=True),
    mvau("mvau_cancelling", Types(biased=False), 1, 1, (6, 2), ZERO_ROWS, EQUAL),
    depthwise("depthwise_plain", Types(biased=False), 1, 1, 9),
    depthwise("depthwise_folded", Types((5, True), (7, True), 2), 3, 4, 9),
    depthwise("depthwise_pair", Types((8, False), (6, True)), 5, 2, 4),
    depthwise("depthwise_unsigned", Types((8, False), (3, False), 1), 2, 3, 3),
    depthwise("depthwise_single", Types((6, True), (8, False)), 4, 3, 1),
    depthwise("depthwise_one", Types((1, False), (1, True)), 1, 1, 1),
    depthwise("depthwise_wide", Types((22, True), (20, True), 9), 2, 1, 5),
    *(pool(kind, 8, signed, 2, 3, 4) for kind in ("max", "sum") for signed in (False, True)),
    *(pool(kind, 5, True, 3, 1, 9) for kind in ("max", "sum")),
    *(pool(kind, 6, False, 1, 4, 1) for kind in ("max", "sum")),
    *(pool(kind, 1, signed, 7, 2, 6) for kind in ("max", "sum") for signed in (False, True)),
    pool("sum", 33, True, 2, 2, 49),
)


# ---------------------------------------------------------------- functions of single values


def wide(value: int) -> str:
    return f"{'-' if value < 0 else ''}64'sd{abs(value)}"


def side_by_side(name: str, module: str, parameters: Sequence[Mapping[str, int | str]], bits: int) -> str:
    """Return instances that read the same beats and go in step; their outputs make one beat, the first one lowest."""
    lines = [f"logic [{len(parameters) - 1}:0] {name}_readies, {name}_valids;"]
    for number, given in enumerate(parameters):
        texts = (f".{key}({value})" for key, value in given.items())
        lines.append(
            f"{module} #({', '.join(texts)}) u_{name}_{number} (.clk(clk), .reset(reset), "
            f".in_valid({name}_in_valid), .in_ready({name}_readies[{number}]), .in_data({name}_in_data), "
            f".out_valid({name}_valids[{number}]), .out_ready({name}_out_ready), "
            f".out_data({name}_out_data[{number * bits}+:{bits}]));"
        )
    lines += [f"assign {name}_in_ready = &{name}_readies;", f"assign {name}_out_valid = &{name}_valids;"]
    return "\n".join(lines)


def constants_of(
    name: str, multiplier: np.ndarray, offset: np.ndarray
) -> tuple[dict[str, int | str], dict[str, str]]:
    """Return the parameters and the memory of constants (folds, lanes)."""
    widths = signed_width(multiplier), signed_width(offset)
    pairs = (multiplier & (1 << widths[0]) - 1) | offset << widths[0]
    parameters = {"FOLDS": len(multiplier), "MULTIPLIER_WIDTH": widths[0], "OFFSET_WIDTH": widths[1]}
    return parameters | {"CONSTANTS": f'"{name}.hex"'}, {f"{name}.hex": memory(pairs, sum(widths))}


def rescale(
    name: str,
    x: Beats,
    shift: int,
    clip: tuple[int, int],
    constants: tuple[np.ndarray, np.ndarray] | None = None,
) -> Layer:
    """All roundings beside each other."""
    numerator, memories = x.values, {}
    chosen: dict[str, int | str] = {}
    if constants is not None:
        multiplier, offset = (by_channel(values, x.values) for values in constants)
        numerator = x.values * multiplier + offset
        chosen, memories = constants_of(name, *constants)
    signed = clip[0] < 0
    bits = signed_width(np.array(clip, object)) - (not signed)
    out = [
        divide(numerator << max(-shift, 0), 1 << max(shift, 0), rounding).clip(*clip)
        for rounding in ROUNDINGS
    ]
    chosen |= {"IN_WIDTH": x.width, "IN_SIGNED": int(x.signed), "OUT_WIDTH": bits, "LANES": x.lanes}
    chosen |= {"SHIFT": shift, "MINIMUM": wide(clip[0]), "MAXIMUM": wide(clip[1])}
    each = [chosen | {"ROUNDING": number} for number in range(len(ROUNDINGS))]
    body = side_by_side(name, "flow_rescale", each, x.lanes * bits)
    made = Beats(np.concatenate(out, 1), bits, signed)
    return Layer(
        Case(name, "", {}, {"in": x}, {"out": made}, body, ("flow_rescale",), memories),
        1,
        1,
        4 if constants else 2,
    )


def tying(shift: int) -> tuple[np.ndarray, np.ndarray]:
    """Return constants (3 folds, 2 lanes) that meet ties of both signs, exact results and what lies beside them."""
    half = 1 << max(shift - 1, 0)
    multiplier = [[half, -half], [3, -5], [half - 1, 0]]
    offset = [[0, 2 * half], [half, -half], [half, -3 * half]]
    return np.array(multiplier, object), np.array(offset, object)


SHIFTS = (-3, 0, 1, 2, 5, 8, 9, 40, 75)
RESCALES = (
    *(
        rescale(
            f"plain_{int(signed)}_{n}",
            Beats(every(8, signed, 2), 8, signed),
            shift,
            (-300, 299) if n % 2 else (0, 99),
        )
        for signed in (False, True)
        for n, shift in enumerate(SHIFTS)
    ),
    *(
        rescale(
            f"by_channel_{int(signed)}_{n}",
            Beats(every(8, signed, 2, 3), 8, signed),
            shift,
            (-130, 120) if n % 2 else (-(1 << 40), 1 << 40),
            tying(shift),
        )
        for signed in (False, True)
        for n, shift in enumerate(SHIFTS)
    ),
    *(
        rescale(f"bit_{int(signed)}_{shift + 2}", Beats(every(1, signed, 1), 1, signed), shift, (-5, 5))
        for signed in (False, True)
        for shift in (-2, 0, 1, 2)
    ),
    rescale(
        "wide",
        Beats(drawn(1, (300, 3), *limits(48, True)), 48),
        31,
        (-(1 << 62), (1 << 62) - 1),
        (drawn(2, (1, 3), *limits(34, True)), np.array([[(1 << 95) - 1, -(1 << 95), 1 << 92]], object)),
    ),
    rescale("extreme_limits", Beats(every(8, True, 1), 8), -57, (-(1 << 63) + 1, (1 << 63) - 1)),
    rescale("saturated", Beats(drawn(4, (300, 1), *limits(60, False)), 60, False), -20, (0, (1 << 63) - 1)),
    rescale("constant", Beats(every(8, True, 1), 8), 1, (3, 3)),
)


def prelu(name: str, slopes: np.ndarray, shift: int) -> Layer:
    folds, lanes = slopes.shape
    x = every(8, True, lanes, folds)
    out = np.where(x >= 0, x << shift, x * by_channel(slopes, x))
    bits, width = signed_width(out), signed_width(slopes)
    parameters = {"IN_WIDTH": 8, "OUT_WIDTH": bits, "LANES": lanes, "FOLDS": folds, "SLOPE_WIDTH": width}
    parameters |= {"SHIFT": shift, "SLOPES": f"{name}.hex"}
    data = {f"{name}.hex": memory(slopes, width)}
    case = Case(name, "flow_prelu", parameters, {"in": Beats(x, 8)}, {"out": Beats(out, bits)}, data=data)
    return Layer(case, 1, 1, 2)


def sign(name: str, x: Beats, bits: int, constants: tuple[np.ndarray, np.ndarray] | None = None) -> Layer:
    chosen: dict[str, int | str] = {}
    total, memories = x.values, {}
    if constants is not None:
        multiplier, offset = (by_channel(values, x.values) for values in constants)
        total = x.values * multiplier + offset
        chosen, memories = constants_of(name, *constants)
    chosen |= {"IN_WIDTH": x.width, "IN_SIGNED": int(x.signed), "OUT_WIDTH": bits, "LANES": x.lanes}
    made = Beats(np.where(total >= 0, 1, -1).astype(object), bits)
    body = side_by_side(name, "flow_sign", [chosen], x.lanes * bits)
    return Layer(Case(name, "", {}, {"in": x}, {"out": made}, body, ("flow_sign",), memories), 1, 1, 2)


def table(width: int, signed: bool, bits: int, lanes: int) -> Layer:
    name = f"table_{width}_{int(signed)}_{bits}"
    low, _ = limits(width, signed)
    values = drawn(width, (1 << width,), *limits(bits, True))
    x = every(width, signed, lanes)
    out = values[(x - low).astype(int)]
    parameters = {"IN_WIDTH": width, "IN_SIGNED": int(signed), "OUT_WIDTH": bits, "LANES": lanes}
    parameters |= {"VALUES": f"{name}.hex"}
    data = {f"{name}.hex": memory(values[:, None], bits)}
    given = {"in": Beats(x, width, signed)}
    case = Case(name, "flow_table", parameters, given, {"out": Beats(out, bits)}, data=data)
    return Layer(case, 1, 1, 1)


VALUES = (
    prelu("prelu", np.array([[-8, 7, 0], [1, -1, 3]], object), 0),
    prelu("prelu_finer", np.array([[5, -128]], object), 3),
    prelu("prelu_far", np.array([[1], [0], [-2]], object), 17),
    prelu("prelu_wide", np.array([[(1 << 30) - 1, -(1 << 30)]], object), 0),
    sign("sign", Beats(every(8, True, 3), 8), 2),
    sign("sign_unsigned", Beats(every(8, False, 1), 8, False), 5),
    sign("sign_bit", Beats(every(1, True, 1), 1), 2),
    sign(
        "sign_by_channel",
        Beats(every(8, True, 2, 3), 8),
        2,
        tuple(np.array(c, object) for c in ([[1, -1], [3, -7], [0, 0]], [[-5, -5], [-384, 700], [0, -1]])),
    ),
    sign(
        "sign_wide",
        Beats(every(8, False, 1), 8, False),
        2,
        (np.array([[-(1 << 50)]], object), np.array([[200 << 50]], object)),
    ),
    sign(
        "sign_far_offset",
        Beats(every(8, True, 2), 8),
        2,
        (np.array([[1, -1]], object), np.array([[(1 << 20) - 1, -(1 << 20)]], object)),
    ),
    *(table(*given) for given in ((1, False, 3, 1), (1, True, 9, 2), (4, True, 40, 1), (8, True, 8, 3))),
    table(8, False, 5, 2),
)


# ---------------------------------------------------------------- all at once


BENCHES: dict[str, Callable[[], tuple[Layer, ...]]] = {
    "windows": lambda: (*WINDOWS, *TIGHT, *PATCHES),
    "sums": lambda: SUMS,
    "values": lambda: (*RESCALES, *VALUES),
}
"""What one Verilator build holds."""


@pytest.fixture(scope="module", params=list(BENCHES))
def layers(request: pytest.FixtureRequest) -> tuple[Layer, ...]:
    return BENCHES[request.param]()


@pytest.fixture(scope="module")
def bench(layers: tuple[Layer, ...], tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench([layer.case for layer in layers], tmp_path_factory.mktemp("layers"))


@needs_verilator
class TestLayers:
    """Modules side by side: they share the clock and nothing else."""

    def test_without_stalls_each_is_as_fast_as_it_says(self, bench: Bench, layers: tuple[Layer, ...]) -> None:
        result = bench.run()
        assert bench.differences(result) == []
        told = zip(layers, result.arrivals, strict=True)
        assert [late for layer, at in told if layer not in TIGHT and (late := layer.late(at))] == []

    @pytest.mark.parametrize("stall", [0.1, 0.3, 0.7])
    def test_stalls_change_nothing(self, bench: Bench, stall: float) -> None:
        assert bench.differences(bench.run(stall=stall, seed=int(10 * stall))) == []

    @pytest.mark.parametrize("clocks", [1, 4, 17, 50, 133, 301])
    def test_after_a_reset_everything_starts_anew(self, bench: Bench, clocks: int) -> None:
        assert bench.differences(bench.run(stall=0.3 * (clocks % 2), seed=clocks, reset_after=clocks)) == []


# ---------------------------------------------------------------- the cases are hard enough


@pytest.mark.parametrize("shift", [shift for shift in SHIFTS if shift > 0])
@pytest.mark.parametrize("signed", [False, True])
def test_ties_of_both_signs_are_met(shift: int, signed: bool) -> None:
    x = every(8, signed, 2, 3)
    multiplier, offset = (by_channel(values, x) for values in tying(shift))
    numerator = x * multiplier + offset
    ties = numerator % (1 << shift) == 1 << shift - 1
    assert (ties & (numerator > 0)).any() and (ties & (numerator < 0)).any() and not ties.all()


def test_partial_sums_leave_the_bits_of_the_cancelling_sums() -> None:
    sums = np.cumsum(EQUAL[:, None] * ZERO_ROWS, 2)
    assert np.abs(sums).max() >= 1 << signed_width(sums[:, :, -1]) + 4


def test_windows_that_do_not_end_in_a_line_are_the_exception() -> None:
    assert {name for name, form in FORMS.items() if not form.in_a_line} == {"column", "single_padded"}


def test_windows_of_one_kernel_position_are_the_image() -> None:
    images = drawn(1, (2, 3, 4, 2, 5), -8, 7)
    assert np.array_equal(Form((3, 4), (1, 1)).windows(images, 0), images.reshape(-1, 5))
