"""FIFO depths: frames pass with them whatever a layer keeps in its pipeline, and stop with less."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flow.convert.streams import (
    HOLD,
    Process,
    depths,
    each,
    gathered,
    in_turn,
    occupancy,
    padded,
    windows,
)
from flow.errors import UnsupportedError


def residual(height: int, width: int) -> list[Process]:
    """Return x + conv(x), a 3 x 3 conv with one row of zeros around."""
    size = (height, width)
    count = height * width
    pads = ((1, 1), (1, 1))
    return [
        Process("source", in_turn([("x", count)], reading=False)),
        Process("clone", each(("x",), ("left", "right"), count)),
        Process("pad", padded("left", "zeros", size, pads)),
        Process("conv", windows("zeros", "y", (height + 2, width + 2), (3, 3), (1, 1))),
        Process("add", each(("y", "right"), ("sum",), count)),
        Process("sink", in_turn([("sum", count)], reading=True)),
    ]


@pytest.mark.parametrize(("height", "width"), [(5, 4), (3, 7), (6, 6)])
def test_a_stream_beside_a_conv_holds_what_the_conv_waits_for(height: int, width: int) -> None:
    """The first window of a padded 3 x 3 conv is complete with the second value of the second row."""
    most = occupancy(residual(height, width))
    assert most == {"x": 1, "left": 1, "zeros": 1, "y": 1, "sum": 1, "right": width + 2}


def test_a_fifo_one_token_too_short_stops_the_frame() -> None:
    network = residual(5, 4)
    assert occupancy(network, {"right": 6})["right"] == 6
    with pytest.raises(UnsupportedError) as error:
        occupancy(network, {"right": 5})
    assert str(error.value) == (
        "convert: streams must let a frame pass, not stop at 'clone', 'pad', 'conv', 'add', 'sink'; "
        'give their FIFOs more depth, or choose io_type = "io_parallel"'
    )


def test_what_a_pipeline_keeps_is_added_to_the_stream_beside_it() -> None:
    """Beside the copy lie the padding and the conv, before the sum: three layers."""
    found = depths(residual(9, 12))
    assert found["right"] == 14 + 3 * HOLD
    assert found["x"] == found["left"] == found["zeros"] == found["y"] == found["sum"] == 1 + HOLD
    assert depths(residual(5, 4))["right"] == 6 + 20, "a frame has 20 tokens"


def test_a_whole_frame_waits_beside_a_layer_that_reads_it_all() -> None:
    network = [
        Process("source", in_turn([("x", 30)], reading=False)),
        Process("clone", each(("x",), ("left", "right"), 30)),
        Process("dense", gathered("left", "y", 30, 30)),
        Process("add", each(("y", "right"), ("sum",), 30)),
        Process("sink", in_turn([("sum", 30)], reading=True)),
    ]
    assert occupancy(network)["right"] == 30


def test_inputs_come_one_after_the_other_and_outputs_go_so() -> None:
    """The first input waits for the second, and the second output for the first."""
    network = [
        Process("source", in_turn([("a", 20), ("b", 20)], reading=False)),
        Process("add", each(("a", "b"), ("sum",), 20)),
        Process("clone", each(("sum",), ("one", "two"), 20)),
        Process("sink", in_turn([("one", 20), ("two", 20)], reading=True)),
    ]
    assert occupancy(network) == {"a": 20, "b": 1, "sum": 1, "one": 1, "two": 20}


def test_layers_that_do_not_fit_together_are_found() -> None:
    network = [
        Process("source", in_turn([("x", 4)], reading=False)),
        Process("dense", gathered("x", "y", 5, 1)),
        Process("sink", in_turn([("y", 1)], reading=True)),
    ]
    with pytest.raises(UnsupportedError, match="not stop at 'dense', 'sink'"):
        occupancy(network)


def test_padding_writes_zeros_around_and_windows_keep_the_stride() -> None:
    assert padded("x", "y", (2,), ((2, 1),)) == [
        ((), ("y",)),
        ((), ("y",)),
        (("x",), ("y",)),
        (("x",), ("y",)),
        ((), ("y",)),
    ]
    writes = [bool(step[1]) for step in windows("x", "y", (4, 5), (2, 3), (2, 2))]
    assert writes == [
        *(False,) * 5,
        *(False, False, True, False, True),
        *(False,) * 5,
        *(False, False, True, False, True),
    ]


@st.composite
def networks(draw: st.DrawFn) -> list[Process]:
    """Return random networks of copies, padded convs, layers that read all, and sums."""
    count = draw(st.integers(1, 24))
    sources = [f"in{number}" for number in range(draw(st.integers(1, 2)))]
    found = [Process("source", in_turn([(name, count) for name in sources], reading=False))]
    free = list(sources)
    for number in range(draw(st.integers(1, 9))):
        kind = draw(st.sampled_from(("clone", "conv", "add", "all")))
        name = free.pop(draw(st.integers(0, len(free) - 1)))
        made = f"s{number}"
        if kind == "clone":
            found.append(Process(made, each((name,), (f"{made}a", f"{made}b"), count)))
            free += [f"{made}a", f"{made}b"]
            continue
        if kind == "conv":
            before, after = draw(st.integers(0, 3)), draw(st.integers(0, 3))
            found.append(Process(f"{made}p", padded(name, f"{made}p", (count,), ((before, after),))))
            size = (count + before + after,)
            found.append(Process(made, windows(f"{made}p", made, size, (before + after + 1,), (1,))))
        elif kind == "add" and free:
            found.append(Process(made, each((name, free.pop()), (made,), count)))
        elif kind == "all":
            found.append(Process(made, gathered(name, made, count, count)))
        else:
            found.append(Process(made, each((name,), (made,), count)))
        free.append(made)
    return [*found, Process("sink", in_turn([(name, count) for name in free], reading=True))]


def pipelined(process: Process, held: int) -> Process:
    """Return a layer that keeps what it has read for ``held`` steps, or until the frame's last one."""
    reads = [step[0] for step in process.steps] + [()] * held
    writes = [()] * held + [step[1] for step in process.steps]
    return Process(process.name, list(zip(reads, writes, strict=True)))


@settings(max_examples=150, deadline=None)
@given(networks(), st.data())
def test_frames_pass_with_these_depths_whatever_each_layer_keeps(
    network: list[Process], data: st.DataObject
) -> None:
    needed = occupancy(network)
    assert occupancy(network, needed) == needed
    found = depths(network)
    assert all(found[name] >= most for name, most in needed.items())
    inner = [pipelined(process, data.draw(st.integers(0, HOLD))) for process in network[1:-1]]
    held = occupancy([network[0], *inner, network[-1]], found)
    assert all(held[name] <= found[name] for name in held)
