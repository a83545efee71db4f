"""Constant matrices as adders: alkaid finds what the products share, this writes them with registers between.

Source: C. Sun et al., da4ml: Distributed Arithmetic for Real-time Neural Networks on FPGAs, arXiv:2507.04535.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import numpy as np

from flow.errors import ToolError, UnsupportedError
from flow.rtl.verilog import module
from flow.types import FixedPoint

LEVELS = 3
"""Adders in a row between two registers."""
MAXIMUM_BITS = 24
"""Of a weight: alkaid reads float32. Of a bias before its shift: its constants have 32."""
MAXIMUM_DIGITS = 12_000
"""Above, alkaid takes minutes."""


def applies(weight: np.ndarray, bias: np.ndarray) -> bool:
    """Tell whether alkaid can take these constants."""
    return all(np.abs(values).max(initial=0) < 1 << MAXIMUM_BITS for values in (weight, bias))


def digits(weight: np.ndarray) -> int:
    """Return the non-zero digits of the weights in canonical signed form: the terms that are added."""
    magnitude = np.abs(weight.astype(np.int64))
    return int(np.bitwise_count((magnitude + (magnitude << 1)) ^ magnitude).sum())


@dataclass(frozen=True)
class _Value:
    """An integer from ``low`` to ``high``, in steps of 2**``exponent``: ``constant`` plus shifted values, or an input.

    ``terms``: (sign, number of the value, shift); ``source``: the input's number, or -1; ``level``: adders up to here.
    """

    low: int
    high: int
    exponent: int
    terms: tuple[tuple[int, int, int], ...] = ()
    constant: int = 0
    source: int = -1
    level: int = 0

    @property
    def stage(self) -> int:
        """The registers before it."""
        return max(self.level - 1, 0) // LEVELS

    @property
    def width(self) -> int:
        return max(1, max(self.high, -self.low - 1).bit_length() + (self.low < 0))

    def declared(self, name: str) -> str:
        return f"logic {'signed ' if self.low < 0 else ''}[{self.width - 1}:0] {name};"


def module_text(
    name: str, weight: np.ndarray, bias: np.ndarray, given: FixedPoint, made: FixedPoint, shift: int
) -> str:
    """Return a module that computes (W x << shift) + b of every beat, a beat a clock.

    Args:
        name: of the module; its streams are ``in`` and ``out``.
        weight: int64 (outputs, inputs).
        bias: int64 (outputs,), on the output's grid.
        given: type of an input.
        made: type of an output, which holds every sum.
        shift: of the products, onto the output's grid.

    Raises:
        ToolError: alkaid is not installed.
        UnsupportedError: alkaid made something else of the weights, or an operation that the RTL does not have.
    """
    values, outputs = _adder_graph(weight.astype(np.float64) * 2.0**shift, bias, given)
    last = max((values[number].stage for number, _ in outputs if number >= 0), default=0)
    reads = [(term[1], value.stage) for value in values for term in value.terms]
    reads += [(number, last) for number, _ in outputs if number >= 0]
    until = dict(sorted(reads, key=itemgetter(1)))
    body = [
        "logic enable;",
        f"logic [{last}:0] valid;",
        "assign enable = !out_valid || out_ready;",
        "assign in_ready = enable;",
        f"assign out_valid = valid[{last}];",
        "always_ff @(posedge clk)",
        "    if (reset) valid <= 0;",
        f"    else if (enable) valid <= {last + 1}'({{valid, in_valid}});",
    ]
    clocked = []
    for number, value in enumerate(values):
        if number not in until:
            continue
        body += [value.declared(f"v{number}"), f"assign v{number} = {_expression(value, values, given)};"]
        for stage in range(value.stage + 1, until[number] + 1):
            body.append(value.declared(_copy(number, value, stage)))
            clocked.append(f"{_copy(number, value, stage)} <= {_copy(number, value, stage - 1)};")
    for place, (number, by) in enumerate(outputs):
        got = _shifted(_copy(number, values[number], last), made.width, by) if number >= 0 else "0"
        clocked.append(f"out_data[{place * made.width}+:{made.width}] <= {got};")
    body += [
        "always_ff @(posedge clk)",
        "    if (enable) begin",
        *(f"        {line}" for line in clocked),
        "    end",
    ]
    ports = [
        "input logic clk",
        "input logic reset",
        "input logic in_valid",
        "output logic in_ready",
        f"input logic [{weight.shape[1] * given.width - 1}:0] in_data",
        "output logic out_valid",
        "input logic out_ready",
        f"output logic [{len(weight) * made.width - 1}:0] out_data",
    ]
    return module(name, ports, body)


def _copy(number: int, value: _Value, stage: int) -> str:
    """Return the name of a value behind the registers before ``stage``."""
    return f"v{number}" if stage == value.stage else f"v{number}_{stage}"


def _shifted(name: str, width: int, by: int) -> str:
    return f"({width}'({name}) << {by})" if by else f"{width}'({name})"


def _expression(value: _Value, values: Sequence[_Value], given: FixedPoint) -> str:
    if value.source >= 0:
        return f"in_data[{value.source * given.width}+:{given.width}]"
    constant = f"{value.width}'d{value.constant & (1 << value.width) - 1}"
    text = "" if value.terms and value.terms[0][0] > 0 and not value.constant else constant
    for sign, number, by in value.terms:
        term = _shifted(_copy(number, values[number], value.stage), value.width, by)
        text += f"{' + ' if sign > 0 else ' - '}{term}" if text else term
    return text


def _adder_graph(
    weight: np.ndarray, bias: np.ndarray, given: FixedPoint
) -> tuple[list[_Value], list[tuple[int, int]]]:
    """Return alkaid's values, and each output as (number of its value or -1 for zero, shift)."""
    try:
        from alkaid.trace import FVArrayInput, trace
        from alkaid.trace.ops import quantize
    except ModuleNotFoundError as error:
        raise ToolError(
            "rtl: 'alkaid' must be installed for layers of adders, not missing; pip install '.[rtl]' in the checkout, "
            "or set [rtl] adders = false"
        ) from error
    inputs = weight.shape[1]
    kept = FVArrayInput((inputs,), solver_options={"binary_lut": False})  # sums alone, no tables
    signs, integers = np.full(inputs, int(given.signed)), np.full(inputs, given.width - given.signed)
    x = quantize(kept, signs, integers, np.zeros(inputs, np.int64))
    logic = trace(kept, x @ weight.T + bias.astype(np.float64))
    values: list[_Value] = []
    for op in logic.ops:
        values.append(_value(op, values))
    outputs = [
        (number, by + values[number].exponent if number >= 0 else 0)
        for number, by in zip(logic.out_idxs, logic.out_shifts, strict=True)
    ]
    if any(logic.out_negs) or any(logic.inp_shifts):
        raise UnsupportedError(
            "rtl: alkaid's sums must have signs and shifts inside, not outside; report the network"
        )
    return values, outputs


def _value(op: Any, before: Sequence[_Value]) -> _Value:
    """Return one of alkaid's operations; https://calad0i.github.io/alkaid, ALIR, has their codes."""
    step = op.qint.step
    exponent = round(math.log2(step))
    reach = {"low": round(op.qint.min / step), "high": round(op.qint.max / step), "exponent": exponent}

    def term(sign: int, number: int, by: int = 0) -> tuple[int, int, int]:
        return sign, number, before[number].exponent + by - exponent

    level = 1 + max((before[number].level for number in op.addr), default=-1)
    if op.opcode == -1:
        return _Value(**reach, source=op.data[0])
    if op.opcode == 5:
        return _Value(**reach, constant=op.data[0])
    if op.opcode == -2:
        return _Value(**reach, terms=(term(-1, op.addr[0]),), level=level)
    if op.opcode in (0, 1):
        terms = (term(1, op.addr[0]), term(-1 if op.opcode else 1, op.addr[1], op.data[0]))
        return _Value(**reach, terms=terms, level=level)
    if op.opcode == 4:
        constant = op.data[0] * 2.0 ** -(op.data[1] + exponent)
        return _Value(**reach, terms=(term(1, op.addr[0]),), constant=round(constant), level=level)
    raise UnsupportedError(
        f"rtl: an operation must be a sum, not alkaid's code {op.opcode}; report the network"
    )
