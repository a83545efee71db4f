"""Files that appear whole or not at all."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import pytest

from flow.files import (
    disk_is_full,
    finite,
    hashes,
    json_text,
    read_sealed,
    write_atomically,
    write_json,
    write_sealed,
)


def test_texts_appear_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "manifest.json"
    write_atomically(file, "old")

    def die(*args: object) -> None:
        raise OSError("no")

    monkeypatch.setattr(os, "replace", die)
    with pytest.raises(OSError, match="no"):
        write_atomically(file, "new")
    assert file.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]


def test_hashes_cover_every_file(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a").write_text("a")
    (tmp_path / "b").write_text("b")
    assert list(hashes(tmp_path)) == ["b", "sub/a"]
    assert hashes(tmp_path, ["sub/a", "gone"]) == {"sub/a": hashes(tmp_path)["sub/a"]}


def test_a_disk_with_room_is_not_full(tmp_path: Path) -> None:
    assert not disk_is_full(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", [math.nan, math.inf, [{"loss": -math.inf}]])
def test_what_json_does_not_have_is_not_written(value: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "manifest.json", value)
    assert list(tmp_path.iterdir()) == []


def test_a_number_that_is_not_finite_becomes_null() -> None:
    values = {"history": ({"loss": math.nan, "epoch": 1}, [math.inf, -0.5, True, None, "inf"])}
    assert json.loads(json_text(finite(values))) == {
        "history": [{"loss": None, "epoch": 1}, [None, -0.5, True, None, "inf"]]
    }


def test_json_ends_with_a_line(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"b": [1]})
    assert (tmp_path / "a.json").read_text() == '{\n "b": [\n  1\n ]\n}\n'


VALUES = {"figures": {"accuracy": 0.98}, "files": ["a", "b"], "none": None}


def test_a_sealed_file_comes_back(tmp_path: Path) -> None:
    write_sealed(tmp_path / "a.json", {**VALUES, "files": ("a", "b")})
    assert read_sealed(tmp_path / "a.json") == VALUES


def test_no_byte_of_a_sealed_file_can_change_unnoticed(tmp_path: Path) -> None:
    write_sealed(tmp_path / "a.json", VALUES)
    whole = (tmp_path / "a.json").read_bytes()
    changed = [
        whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :]
        for place in range(len(whole))
        for bit in range(8)
    ]
    cut = [whole[:length] for length in range(len(whole))]
    for content in (*changed, *cut, whole + b" ", whole.replace(b"0.98", b"0.99"), b"[1]", b'{"sha256": 1}'):
        (tmp_path / "a.json").write_bytes(content)
        with pytest.raises(ValueError):
            read_sealed(tmp_path / "a.json")
