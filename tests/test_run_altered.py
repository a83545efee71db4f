"""Every file of a finished run flipped, cut and deleted in turn: refused by its name, or made anew as it was."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import SMALL, needs

from flow.errors import ConfigError
from flow.files import read_sealed
from flow.run import pipeline
from flow.run.store import Store

pytestmark = needs("g++")


def damaged(path: Path) -> Iterator[str]:
    """Damage a file in each way in turn; it is whole again afterwards."""
    whole = path.read_bytes()
    place = len(whole) // 2
    ways = {
        "flipped": whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :] if whole else b"x",
        "cut": whole[:place] if whole else b"\0",
        "deleted": None,
    }
    for way, content in ways.items():
        path.unlink() if content is None else path.write_bytes(content)
        yield way
        path.write_bytes(whole)


def test_every_file_of_every_result_is_held(copy: Path) -> None:
    store, count = Store(copy), 0
    for stage in pipeline.NAMES:
        folder = (copy / stage).resolve()
        key = read_sealed(folder / "entry.json")["key"]
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            name = path.relative_to(folder).as_posix()
            for way in damaged(path):
                with pytest.raises(ConfigError) as error:
                    store.find(stage, key)
                assert name in str(error.value), (stage, name, way)
                count += 1
        assert store.find(stage, key) is not None
    assert count > 150


@pytest.mark.parametrize("name", ["manifest.json", "report.html"])
def test_what_tells_of_a_run_is_made_anew(copy: Path, name: str) -> None:
    for _ in damaged(copy / name):
        again = pipeline.run(SMALL, out=copy).values
        assert all(again["cached"].values())
        assert read_sealed(copy / "manifest.json")["hashes"] == again["hashes"]
        assert again["report_sha256"] == read_sealed(copy / "manifest.json")["report_sha256"]
        assert (copy / "report.html").read_text().startswith("<!doctype html>")


@pytest.mark.parametrize("target", [None, ".store", "../elsewhere"])
def test_a_link_that_leads_elsewhere_is_set_right(copy: Path, target: str | None) -> None:
    before = (copy / "convert").resolve()
    (copy / "convert").unlink()
    if target:
        (copy / "convert").symlink_to(target)
    pipeline.run(SMALL, out=copy)
    assert (copy / "convert").resolve() == before
