"""Names that reach C++, Tcl and Verilog."""

import hashlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flow.names import LONGEST, Names, free_name, identifier


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("conv1", "conv1"),
        ("block.0.conv-1", "block_0_conv_1"),
        ("0", "layer_0"),
        ("a..b", "a_b"),
        ("__init__", "init"),
        ("größe", "gr_e"),
        ("²", "layer"),
        ("x;puts{[exit]}", "x_puts_exit"),
        ("", "layer"),
        ("___", "layer"),
        ("Layer_1_", "Layer_1"),
    ],
)
def test_a_name_becomes_an_identifier(name, expected):
    assert identifier(name) == expected


@given(st.text())
def test_every_text_becomes_a_plain_identifier_that_stays_as_it_is(name):
    made = identifier(name)
    assert re.fullmatch("[A-Za-z][A-Za-z0-9]*(_[A-Za-z0-9]+)*", made)
    assert identifier(made) == made


@pytest.mark.parametrize(
    ("taken", "options", "expected"),
    [
        (set(), {}, "Fc"),
        ({"fc"}, {}, "Fc_1"),
        ({"fc", "fc_1", "fc_3"}, {}, "Fc_2"),
        ({"fc_1"}, {}, "Fc"),
        ({"fc", "fc_1", "fc_2"}, {"first": 2}, "Fc_3"),
        ({"fc"}, {"cased": True}, "Fc"),
        ({"Fc", "Fc_7"}, {"first": 7, "cased": True}, "Fc_8"),
    ],
)
def test_the_least_number_makes_a_name_free(taken, options, expected):
    assert free_name("Fc", taken, **options) == expected


def test_a_long_name_is_cut_and_told_apart_by_its_hash():
    one, other = ("n" * 3000 + end for end in ("/MatMul", "/Relu"))
    assert identifier(one) == "n" * 83 + "_" + hashlib.sha256(one.encode()).hexdigest()[:16]
    assert identifier(one) != identifier(other)
    assert len(identifier(one)) == LONGEST
    assert identifier("n" * LONGEST) == "n" * LONGEST
    assert identifier("_" * 82 + "n" * 82 + "_" * 3000 + "n" * 200).count("__") == 0


@given(st.lists(st.sampled_from(["a", "A", "b", "a_1", "a_2", "B_1"]), max_size=30), st.sampled_from([1, 2]))
def test_names_that_are_taken_one_by_one_are_the_free_ones(wanted, first):
    names, taken = Names(("input",), first=first), {"input"}
    for name in wanted:
        expected = free_name(name, taken, first=first)
        taken.add(expected.lower())
        assert names.take(name) == expected
    assert Names(("Input",)).take("input") == "input_1"
