"""Our headers for emulation calculate what the vendor's do, in every bit; benchmarks/emulation_header.py tries more."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

import pytest
from conftest import needs
from number_programs import LIGHT, OVERFLOW, ROUNDING, case, conversions, differences, operations

pytestmark = needs("g++")


def test_every_rounding_and_overflow_is_the_vendors(tmp_path: Path) -> None:
    cases = conversions(random.Random(1), (1, 8), (2, 8))
    assert len(cases) == len(ROUNDING) * len(OVERFLOW)
    assert differences(cases, tmp_path) == []


def test_every_operator_is_the_vendors(tmp_path: Path) -> None:
    assert differences(operations(random.Random(2), 2), tmp_path) == []


SPECIAL = [
    # the smallest number divided by -1; a negative number beside a wider unsigned one
    ("pair", "ap_fixed<2, 1>", "ap_fixed<4, -1>"),
    ("integers", "ap_int<4>", "ap_uint<5>"),
    ("integers", "ap_int<31>", "ap_uint<33>"),
    # comparisons with unsigned numbers of 32 bits and more are those of C
    ("with_c", "ap_int<31>", "unsigned"),
    ("pair", "ap_fixed<39, 31>", "ap_ufixed<30, 31>"),
    # the most negative number of a symmetric type; nothing but fraction; one bit
    ("conversion", "ap_fixed<4, 4>", "ap_fixed<4, 4, AP_TRN, AP_SAT_SYM, 0>"),
    ("unary", "ap_fixed<3, 0, AP_RND_CONV, AP_SAT_SYM, 0>"),
    ("conversion", "ap_fixed<1, -3>", "ap_fixed<1, 1, AP_RND_INF, AP_SAT_SYM, 0>"),
    # up to 128 bits
    ("conversion", "ap_fixed<60, 10>", "ap_fixed<110, 40, AP_RND, AP_SAT, 0>"),
    ("conversion", "ap_fixed<128, 60>", "ap_fixed<20, 10, AP_RND_CONV, AP_SAT, 0>"),
]


def test_the_vendors_special_cases_are_ours(tmp_path: Path) -> None:
    assert differences([case(*types) for types in SPECIAL], tmp_path) == []


def refusal(line: str, folder: Path) -> str:
    source = folder / "wrong.cpp"
    source.write_text(f'#include "ap_fixed.h"\nint main() {{ {line} }}\n', encoding="utf-8")
    done = subprocess.run(
        ["g++", "-std=c++17", "-fsyntax-only", f"-I{LIGHT}", str(source)], capture_output=True, text=True
    )
    assert done.returncode != 0
    return done.stderr


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        ("ap_int<129> x = 1;", "flow-emulation: a number must have at most 128 bits (127 unsigned)"),
        ("ap_uint<128> x = 1;", "flow-emulation: an unsigned number must have at most 127 bits"),
        ("ap_fixed<4, 4, AP_TRN, AP_WRAP_SM> x = 100;", "flow-emulation: AP_WRAP_SM must not be used"),
    ],
)
def test_what_the_light_headers_do_not_have_is_refused_when_it_is_compiled(
    line: str, rule: str, tmp_path: Path
) -> None:
    assert rule in refusal(line, tmp_path)


def test_a_stream_that_nobody_wrote_is_not_read(tmp_path: Path) -> None:
    source, program = tmp_path / "empty.cpp", tmp_path / "empty"
    source.write_text(
        '#include "hls_stream.h"\nint main() { hls::stream<int> s("words"); return s.read(); }\n'
    )
    subprocess.run(["g++", "-std=c++17", f"-I{LIGHT}", str(source), "-o", str(program)], check=True)
    done = subprocess.run([program], capture_output=True, text=True)
    assert done.returncode == 4
    assert done.stderr == "hls::stream 'words' must be written before it is read, not be empty\n"
