"""Batches of frames through the AXI4-Stream top: TLAST comes back where it went in, with stalls and without."""

from __future__ import annotations

import importlib.util
import re
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from conftest import needs

from flow.convert.axis import Side, axis_files
from flow.types import FixedPoint, Port

GOLDEN = Path(__file__).parent / "golden"
CPP = Path(__file__).parents[1] / "hls_templates" / "cpp"
FRAMES = 300
FLAGS, S_AXIS, M_AXIS = 16, 4, 2
"""Depths of the stream of flags, and of the bench's streams around the top."""
LAST, KEEP = 1 << 32, 0xF << 33
"""Where the bench has a word's TLAST, and its TKEEP of all ones."""

Values = Sequence[np.ndarray]


@dataclass(frozen=True)
class Tensor:
    """Values of an input or output of a network in ``golden/axis/networks.h``, and their C++ type there."""

    type: str
    size: int
    width: int
    signed: bool = True

    def drawn(self, random: np.random.Generator) -> np.ndarray:
        low, high = self.dtype.minimum_lsb, self.dtype.maximum_lsb
        return random.integers(low, high, (FRAMES, self.size), dtype=np.int64, endpoint=True)

    @property
    def dtype(self) -> FixedPoint:
        return FixedPoint(self.signed, self.width, 0)

    def side(self, depth: int) -> Side:
        return Side(Port(self.type, (self.size,), self.dtype), self.type, depth)

    def words(self, values: np.ndarray) -> np.ndarray:
        """Return values (frames, size) as words (frames, words), each in the smallest lane that holds it."""
        lane_bytes = next(lane for lane in (1, 2, 4, 8) if self.width <= 8 * lane)
        lanes = values.astype(f"<{'i' if self.signed else 'u'}{lane_bytes}")
        raw = np.ascontiguousarray(lanes).view(np.uint8)
        return np.pad(raw, ((0, 0), (0, -raw.shape[1] % 4))).view("<u4").astype(np.uint64)


@dataclass(frozen=True)
class Network:
    """A network; ``results``: what it makes of its inputs, ``depth``: of its inputs' streams."""

    name: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    results: Callable[..., Values]
    io_type: str = "io_stream"
    depth: int = 2

    def files(self) -> dict[str, str]:
        given = [tensor.side(self.depth) for tensor in self.inputs]
        return axis_files(self.name, self.io_type, given, [tensor.side(2) for tensor in self.outputs], ())

    def batches(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the words of random frames, and those that must come back.

        Some frames end with TLAST, the last one too. Inside a frame TLAST means nothing: it is high at random.
        """
        random = np.random.default_rng(0)
        inputs = [tensor.drawn(random) for tensor in self.inputs]
        results = self.results(*inputs)
        given, made = (
            np.concatenate([tensor.words(each) for tensor, each in zip(tensors, values, strict=True)], 1)
            for tensors, values in ((self.inputs, inputs), (self.outputs, results))
        )
        marked = random.random(given.shape) < 0.4
        marked[-1, -1] = True
        given |= marked * np.uint64(LAST)
        made |= np.uint64(KEEP)
        made[:, -1] |= marked[:, -1] * np.uint64(LAST)
        return given, made


def _sums(x: np.ndarray) -> Values:
    return [x[:, :3] + x[:, 2:]]


NETWORKS = (
    Network("lone", (Tensor("lone_in", 5, 6),), (Tensor("lone_out", 3, 19),), _sums),
    Network(
        "pair",
        (Tensor("pair_left", 3, 8), Tensor("pair_right", 2, 17, False)),
        (Tensor("pair_copies", 9, 8), Tensor("pair_difference", 1, 40)),
        lambda left, right: [np.repeat(left, 3, 1), right[:, 1:] - right[:, :1]],
    ),
    Network(
        "early",
        (Tensor("early_in", 8, 9, False),),
        (Tensor("early_out", 6, 13),),
        lambda x: [x[:, :1] + np.arange(6)],
    ),
    Network("deep", (Tensor("deep_in", 1, 32),), (Tensor("deep_out", 1, 32),), lambda x: [-x], depth=40),
    Network("whole", (Tensor("whole_in", 5, 13),), (Tensor("whole_out", 3, 31),), _sums, "io_parallel"),
    Network(
        "sides",
        (Tensor("sides_left", 7, 3, False), Tensor("sides_right", 2, 33)),
        (Tensor("sides_doubled", 7, 4, False), Tensor("sides_sum", 1, 34)),
        lambda left, right: [2 * left, right.sum(1, keepdims=True)],
        "io_parallel",
    ),
)
NAMES = [network.name for network in NETWORKS]
DEEP, EARLY = (next(network for network in NETWORKS if network.name == name) for name in ("deep", "early"))


def threaded(text: str, top: str) -> str:
    """Return a top whose processes run side by side, each ``frames`` times, between FIFOs as deep as their pragmas."""
    head, found, body = text.partition(f"\nvoid {top}_axis(")
    body, streams = re.subn(
        r'\("(\w+)"\);\n\s*#pragma HLS STREAM variable=\1 depth=(\d+)', r'("\1", \2); // depth \2', body
    )
    process = r"\n    (\w+\(flow_\w+.*\);|\w+\(s_axis, .*\);)"
    repeated = r"\n    layers.add([&] { for (unsigned frame = 0; frame < frames; frame++) \1 });"
    body, processes = re.subn(process, repeated, body)
    assert (streams >= 3, processes) == (True, 3)
    first = body.index("\n    layers.add")
    return head + found + body[:first] + "\n    flow_threads layers;" + body[first:]


def _compile(folder: Path, networks: Sequence[Network], *, stalls: bool, axis_top: str | None = None) -> Path:
    """Compile the bench with the networks' tops; ``axis_top``: the text of another axis_top.h."""
    texts = {"axis_top.h": axis_top or (CPP / "axis_top.h").read_text(encoding="utf-8")}
    included, rows = "", []
    for network in networks:
        files = network.files()
        header, source = (f"{network.name}_axis.{kind}" for kind in ("h", "cpp"))
        text = files[f"firmware/{source}"]
        texts[header] = files[f"firmware/{header}"]
        texts[source] = threaded(text, network.name) if stalls else text
        texts[f"{network.name}.h"] = '#include "defines.h"\n'
        included += f'#include "{source}"\n'
        rows.append(f'{{"{network.name}", {network.name}_axis, {network.batches()[1].shape[1]}}}')
    texts["defines.h"] = (GOLDEN / "axis" / "networks.h").read_text(encoding="utf-8")
    texts["tops.h"] = (
        f"{included}typedef void (*top_t)(hls::stream<axis_word_t> &, hls::stream<axis_word_t> &);\n"
        "struct flow_top {\n    const char *name;\n    top_t top;\n    unsigned words_out;\n};\n"
        f"static const flow_top TOPS[] = {{{', '.join(rows)}}};\n"
    )
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    (package,) = importlib.util.find_spec("hls4ml").submodule_search_locations
    streams = ["-DSTALLS", "-pthread", f"-I{GOLDEN / 'streams'}"] if stalls else []
    headers = [
        "-I.",
        *streams,
        "-isystem",
        CPP / "emulation",
        "-isystem",
        Path(package) / "templates" / "vivado",
    ]
    warnings = ["-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas"]
    subprocess.run(
        ["g++", "-std=c++17", "-O0", *warnings, *headers, GOLDEN / "axis" / "batch.cpp", "-o", "batch"],
        cwd=folder,
        check=True,
    )
    return folder


def _run(folder: Path, network: Network, *arguments: int) -> subprocess.CompletedProcess[str]:
    network.batches()[0].tofile(folder / f"{network.name}.in")
    return subprocess.run(
        [folder / "batch", network.name, *map(str, (FRAMES, *arguments))],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def _received(folder: Path, network: Network) -> np.ndarray:
    return np.fromfile(folder / f"{network.name}.out", "<u8").reshape(FRAMES, -1)


@pytest.fixture(scope="module")
def called(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _compile(tmp_path_factory.mktemp("called"), NETWORKS, stalls=False)


@pytest.fixture(scope="module")
def stalled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _compile(tmp_path_factory.mktemp("stalled"), NETWORKS, stalls=True)


@needs("g++")
@pytest.mark.parametrize("network", NETWORKS, ids=NAMES)
def test_queued_frames_come_back_with_their_tlast_call_by_call(network: Network, called: Path) -> None:
    ran = _run(called, network)
    assert (ran.stdout, ran.stderr, ran.returncode) == ("", "", 0)
    assert np.array_equal(_received(called, network), network.batches()[1])


@needs("g++")
@pytest.mark.parametrize("network", NETWORKS, ids=NAMES)
def test_stalls_on_both_sides_change_no_word_and_no_tlast(network: Network, stalled: Path) -> None:
    for seed in range(3):
        ran = _run(stalled, network, seed, 0)
        assert (ran.stdout, ran.stderr, ran.returncode) == ("", "", 0)
        assert np.array_equal(_received(stalled, network), network.batches()[1])


@needs("g++")
def test_more_frames_inside_than_flags_wait_and_go_on(stalled: Path) -> None:
    """Of one word each: those with a flag, one whose flag waits, one that waits to leave, and what the FIFOs hold."""
    hold = FLAGS + 1 + 1 + S_AXIS + M_AXIS
    assert DEEP.depth > hold, "the network itself has room for more"
    ran = _run(stalled, DEEP, 0, hold)
    assert (ran.stdout, ran.stderr, ran.returncode) == (f"{hold} words went in\n", "", 0)
    assert np.array_equal(_received(stalled, DEEP), DEEP.batches()[1])


@needs("g++")
def test_a_flag_that_is_asked_for_before_the_results_stops_the_frame(tmp_path: Path) -> None:
    """The network then waits for room for its results, and its words, the last one among them, for the network."""
    text = (CPP / "axis_top.h").read_text(encoding="utf-8")
    text = text.replace("word.last = lasts.read();", "word.last = last;")
    before = "    unsigned filled = 0; // slots at the bottom"
    assert text.count(before) == 1
    text = text.replace(before, f"    last_t last = LAST ? lasts.read() : last_t(0);\n{before}")
    ran = _run(_compile(tmp_path, [EARLY], stalls=True, axis_top=text), EARLY, 0, 0)
    assert (ran.stdout[:9], ran.returncode) == ("DEADLOCK ", 9)
