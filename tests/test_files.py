"""Files that appear whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from flow.files import disk_is_full, hashes, write_atomically


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
