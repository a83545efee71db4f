"""What boards answer, over ssh and over a serial line: what is missing, odd or endless is refused by its name."""

import json
import zlib
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flow.build import remote
from flow.deploy import host, link, serial_line
from flow.deploy.host import run_on_board
from flow.errors import ConfigError, MismatchError, ToolError
from flow.types import silent

PYNQ = remote.Host("pynq", folder="bundles")
ANSWER = {
    "ok": True,
    "samples": 256,
    "max_error_lsb": 0,
    "accuracy": 0.75,
    "latency_us": 812.5,
    "latency_cycles": 417,
    "throughput_samples_per_s": 5000.0,
    "cycles_per_sample": 70.5,
    "clock_mhz": 100.0,
    "backend": "pynq",
    "python": "3.10.4",
    "design_id": "0123456789abcdef",
}


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    (tmp_path / "manifest.json").write_text(
        json.dumps({"bitstream": {"sha256": "0" * 64}, "board": "pynq-z2"}), encoding="utf-8"
    )
    return tmp_path


def answered(monkeypatch: pytest.MonkeyPatch, bundle: Path, printed: str) -> Any:
    monkeypatch.setattr(host.remote, "push", lambda *args, **options: None)
    monkeypatch.setattr(host.remote, "call", lambda *args, **options: printed)
    return run_on_board(bundle, PYNQ, samples=None, timeout_s=1, progress=silent)


def test_a_whole_answer_is_taken(monkeypatch: pytest.MonkeyPatch, bundle: Path) -> None:
    done = answered(monkeypatch, bundle, "Welcome\n" + json.dumps(ANSWER))
    assert (done.samples, done.clocks, done.accuracy, done.clock_mhz) == (256, (417, 417), 0.75, 100.0)
    without = ANSWER | dict.fromkeys(("accuracy", "latency_cycles", "cycles_per_sample", "design_id"))
    done = answered(monkeypatch, bundle, json.dumps(without))
    assert (done.accuracy, done.clocks, done.cycles_per_sample, done.design_id) == (None, None, None, "")


@pytest.mark.parametrize("key", sorted(set(ANSWER) - {"ok", "python"}))
def test_an_answer_without_a_key_is_refused(monkeypatch: pytest.MonkeyPatch, bundle: Path, key: str) -> None:
    printed = json.dumps({name: value for name, value in ANSWER.items() if name != key})
    with pytest.raises(ToolError) as error:
        answered(monkeypatch, bundle, printed)
    assert str(error.value) == (
        f"deploy: the self-test on pynq must give {key} as this version's does, not nothing; copy the bundle again"
    )


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("samples", "256", "'256'"),
        ("samples", 2.5, "2.5"),
        ("samples", True, "True"),
        ("samples", None, "None"),
        ("latency_cycles", [417], "[417]"),
        ("latency_us", float("nan"), "nan"),
        ("latency_us", float("inf"), "inf"),
        ("clock_mhz", -1, "-1"),
        ("clock_mhz", 10**400, "1" + 79 * "0"),
        ("throughput_samples_per_s", None, "None"),
        ("backend", None, "None"),
        ("backend", "pynq\n\x1b[2J", r"'pynq\n\x1b[2J'"),
        ("backend", "x" * 1000, "'" + "x" * 79),
        ("design_id", {"a": 1}, "{'a': 1}"),
    ],
)
def test_an_answer_of_another_kind_is_refused(
    monkeypatch: pytest.MonkeyPatch, bundle: Path, key: str, value: object, told: str
) -> None:
    with pytest.raises(ToolError) as error:
        answered(monkeypatch, bundle, json.dumps(ANSWER | {key: value}))
    assert str(error.value) == (
        f"deploy: the self-test on pynq must give {key} as this version's does, not {told}; copy the bundle again"
    )


@pytest.mark.parametrize(
    ("change", "told"), [({"samples": 0}, "0 and 0"), ({"max_error_lsb": 3}, "256 and 3")]
)
def test_a_success_that_is_none_is_a_mismatch(
    monkeypatch: pytest.MonkeyPatch, bundle: Path, change: dict[str, int], told: str
) -> None:
    with pytest.raises(MismatchError) as error:
        answered(monkeypatch, bundle, json.dumps(ANSWER | change))
    assert str(error.value) == (
        f"deploy: the self-test on pynq must find 1 or more samples and 0 LSB, not {told}; copy the bundle again"
    )


@pytest.mark.parametrize(
    "printed", ["", "{", '{"a": ' + "[" * 100_000, "\ufffd\ufffd", '{"samples": ' + "9" * 5000 + "}"]
)
def test_what_is_no_answer_is_told_with_its_end(
    monkeypatch: pytest.MonkeyPatch, bundle: Path, printed: str
) -> None:
    with pytest.raises(ToolError) as error:
        answered(monkeypatch, bundle, printed)
    assert str(error.value) == (
        "deploy: the self-test on pynq must end with its result, not without; its output ends with\n"
        + (f"    {printed[:200]}" if printed else "")
    )


@pytest.mark.parametrize(
    "manifest",
    [
        *("", "[]", "{}", "null", "[" * 100_000, '{"bitstream": {"sha256": 7}, "board": "a"}'),
        '{"bitstream": {"sha256": "../../../etc"}, "board": "a"}',
        json.dumps({"bitstream": {"sha256": "0" * 64}}),
        json.dumps({"bitstream": {"sha256": "-" + "0" * 63}, "board": "a"}),
        json.dumps({"bitstream": {"sha256": "0" * 64}, "board": 7}),
    ],
)
def test_a_bundle_with_another_manifest_is_refused(tmp_path: Path, manifest: str) -> None:
    (tmp_path / "manifest.json").write_text(manifest)
    with pytest.raises(ConfigError) as error:
        run_on_board(tmp_path, PYNQ, samples=None, timeout_s=1, progress=silent)
    assert str(error.value).startswith(f"deploy: {str(tmp_path)!r} must be a bundle, not fail with ")


# ---------------------------------------------------------------- over a serial line


class Replies:
    """A line that gives prepared bytes, one piece a request, and then nothing, or something for ever."""

    def __init__(self, *replies: bytes, endless: bytes = b"") -> None:
        self.replies, self.ready, self.endless, self.given = list(replies), b"", endless, 0

    def read(self, size: int, /) -> bytes:
        part, self.ready = self.ready[:size], self.ready[size:]
        self.given += size
        return part or self.endless * size

    def write(self, data: bytes, /) -> int:
        self.ready = self.replies.pop(0) if self.replies else b""
        return len(data)

    def reset_input_buffer(self) -> None:
        self.ready = b""


def frame(kind: int, sequence: int, payload: bytes) -> bytes:
    body = bytes([kind, sequence]) + len(payload).to_bytes(2, "little") + payload
    return b"\xf5" + body + zlib.crc32(body).to_bytes(4, "little")


def told(line: Replies, retries: int = 0) -> str:
    with pytest.raises(ToolError) as error:
        link.Link(line, retries).info()
    return str(error.value)


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        (Replies(endless=b"\0"), "noise"),
        (Replies(endless=b"\xf5"), "a damaged answer"),
        (Replies(b"\xf5\x81\x01\xff\xff", endless=b"\0"), "a damaged answer"),
        (Replies(frame(link.FAILED, 1, b"")), "another answer"),
        (Replies(frame(link.FAILED, 1, b"\x09")), "error 9"),
        (Replies(b"".join([frame(link.INFO | link.ANSWER, 7, b"")] * 66_000)), "noise"),
    ],
)
def test_a_line_that_babbles_is_given_up(line: Replies, fault: str) -> None:
    assert told(line) == (
        f"deploy: the board must answer, not give {fault} 1 times; program it, check port and baud"
    )
    assert line.given < 1_000_000


def test_random_bytes_and_flipped_answers_give_a_refusal_or_the_answer() -> None:
    rng = np.random.default_rng(0)
    whole = frame(link.INFO | link.ANSWER, 1, b"\1" + bytes(range(20)))
    for _ in range(300):
        spoilt = bytearray(whole)
        spoilt[rng.integers(len(whole))] ^= 1 << rng.integers(8)
        assert told(Replies(bytes(spoilt))).startswith("deploy: the board must answer, not give ")
        told(Replies(rng.bytes(40)))
    assert link.Link(Replies(whole)).info() == link.Info(bytes(range(7, -1, -1)).hex(), *_numbers())


def _numbers() -> list[int]:
    return [int.from_bytes(bytes(range(first, first + 4)), "little") for first in (8, 12, 16)]


class Unplugged(Replies):
    def write(self, data: bytes, /) -> int:
        raise OSError(5, "Input/output error")


FACTS: dict[str, Any] = {
    "design_id": "00" * 8,
    "board": "ulx3s-85f",
    "baud": 115_200,
    "input": {"lanes": 1, "width": 8, "signed": False, "beats": 3, "shape": [3]},
    "output": {"lanes": 1, "width": 16, "signed": True, "beats": 1, "shape": [1]},
}


def deployed(folder: Path, monkeypatch: pytest.MonkeyPatch, line: Replies) -> str:
    monkeypatch.setattr(serial_line, "_opened", lambda *args: nullcontext(line))
    with pytest.raises((ToolError, ConfigError)) as error:
        serial_line.run_on_serial(
            folder, serial="port", baud=None, samples=None, timeout_s=1, retries=0, progress=silent
        )
    return str(error.value)


@pytest.fixture
def build(tmp_path: Path) -> Path:
    (tmp_path / "link.json").write_text(json.dumps(FACTS))
    np.savez(tmp_path / "golden.npz", inputs=np.arange(6).reshape(2, 3), outputs=np.array([[-2], [5]]))
    return tmp_path


def test_a_line_that_breaks_before_the_first_answer_is_told(
    build: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert deployed(build, monkeypatch, Unplugged()) == (
        "deploy: port 'port' must stay open, not fail ([Errno 5] Input/output error); plug the board in again"
    )


def test_a_board_without_a_clock_is_told(build: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    payload = b"\1" + bytes(8) + b"".join(number.to_bytes(4, "little") for number in (0, 3, 2))
    line = Replies(frame(link.INFO | link.ANSWER, 1, payload))
    assert deployed(build, monkeypatch, line) == (
        "deploy: the board must tell its clock, not 0 Hz; program it with this build"
    )


@pytest.mark.parametrize(
    "text",
    [
        *("[]", "null", '"x"', "[" * 100_000, "\x00", '{"design_id": ' + "9" * 5000 + "}"),
        json.dumps(FACTS | {"baud": float("inf")}),
        json.dumps(FACTS | {"baud": float("nan")}),
        json.dumps(FACTS | {"input": [1]}),
        json.dumps(FACTS | {"input": FACTS["input"] | {"shape": 3}}),
        json.dumps(FACTS | {"input": FACTS["input"] | {"shape": []}}),
        json.dumps(FACTS | {"input": FACTS["input"] | {"width": 8.0}}),
        json.dumps(FACTS | {"design_id": 7}),
    ],
)
def test_link_facts_of_another_kind_are_refused(
    build: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    (build / "link.json").write_text(text)
    message = deployed(build, monkeypatch, Replies())
    assert message.startswith(f"deploy: {str(build / 'link.json')!r} must be a build's, not damaged (")
    assert message.endswith("); build again")


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        ({"inputs": np.zeros((0, 3), int), "outputs": np.zeros((0, 1), int)}, "0 samples, of the kinds ii"),
        ({"inputs": np.full((2, 3), np.nan), "outputs": np.zeros((2, 1), int)}, "2 samples, of the kinds fi"),
        ({"inputs": np.full((2, 3), "7"), "outputs": np.zeros((2, 1), int)}, "2 samples, of the kinds Ui"),
        (
            {"inputs": np.zeros((2, 3), int), "outputs": np.zeros((2, 1), int), "labels": np.zeros(3, int)},
            "2 samples, of the kinds iii",
        ),
    ],
)
def test_golden_vectors_of_another_kind_are_refused(
    build: Path, monkeypatch: pytest.MonkeyPatch, arrays: dict[str, np.ndarray], reason: str
) -> None:
    np.savez(build / "golden.npz", **arrays)
    assert deployed(build, monkeypatch, Replies()) == (
        f"deploy: {str(build / 'golden.npz')!r} must be a build's, not damaged (ValueError({reason!r})); build again"
    )
